#include "core/server/reactor_internal.h"

#include "core/base/check.h"
#include "proto/message.h"

/* Two entries, sender's and receiver's, and what goes with each. */
#define MESSAGE_ROOM_BYTES (2 * (UINT64_C(2) * RECORD_BYTES_MAX - RECORD_BODY_BYTES_MAX))

/* A KeyUpdate costs a key schedule, a new cipher context and an answer: as much as so many frames. */
#define KEY_UPDATE_FRAMES 16

static void receive_on(struct reactor *reactor, uint32_t slot, struct conn *conn)
{
    if ((conn->flags & (CONN_RECEIVING | CONN_PEER_DONE)) != 0 || conn->state == CONN_CLOSING ||
        reactor->stopping) { /* else clients that go on writing keep the journal from being idle */
        return;
    }
    conn->flags |= CONN_RECEIVING;
    ring_recv(conn_ring(reactor, conn), conn->file, RING_GROUP_BUFFER_GROUP,
              ring_tag(OP_RECV, slot, slab_generation(&reactor->conns, slot)));
}

void reactor_run_again_later(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if ((conn->flags & CONN_STARVED) == 0) {
        conn->flags |= CONN_STARVED;
        slot_queue_put(&reactor->again, slot);
    }
}

/*
 * While one receive is in flight a poll event needs no answer: that receive runs at submission,
 * after this event was posted. A blocked connection is read on when its input goes on, also if that
 * is later in this turn: what came between would pile up behind what was kept.
 */
void reactor_on_poll(struct reactor *reactor, struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct conn *conn = slab_find(&reactor->conns, slot, ring_tag_generation(event->tag));

    if (conn == NULL || conn->state == CONN_CLOSING) {
        return;
    }
    if (!ring_event_more(event) && event->result != -ECANCELED) {
        ring_poll(conn_ring(reactor, conn), conn->file, event->tag);
    }
    if (event->result < 0) {
        return;
    }
    if ((conn->flags & (CONN_BLOCKED | CONN_STARVED)) != 0 || conn->state == CONN_HELLO) {
        return; /* what came with the connection is worked off first */
    }
    receive_on(reactor, slot, conn);
}

/* The budget of 10 s is refilled by the second; a connection that overdraws it is ended. */
static void refill_budget(struct reactor *reactor, struct conn *conn)
{
    const uint64_t frames_max = reactor->config->frames_per_s_max;
    const uint64_t bytes_max = reactor->config->bytes_per_s_max;
    const uint32_t passed_s = reactor->now_s - conn->budget_at_s;

    if (passed_s != 0) {
        const uint64_t frames = conn->frames_left + frames_max * passed_s;
        const uint64_t bytes = conn->bytes_left + bytes_max * passed_s;

        conn->frames_left = (uint32_t)(frames < frames_max * 10 ? frames : frames_max * 10);
        conn->bytes_left =
            (uint32_t)(bytes < bytes_max * 10 && bytes < UINT32_MAX
                           ? bytes
                           : (bytes_max * 10 < UINT32_MAX ? bytes_max * 10 : UINT32_MAX));
        conn->budget_at_s = reactor->now_s;
    }
}

static bool take_byte_budget(struct reactor *reactor, struct conn *conn, uint32_t byte_count)
{
    refill_budget(reactor, conn);
    if (conn->bytes_left < byte_count) {
        stat_add(&reactor->stats.limit_bytes, 1);
        return false;
    }
    conn->bytes_left -= byte_count;
    return true;
}

bool reactor_take_frame_budget(struct reactor *reactor, struct conn *conn, uint32_t frames)
{
    if (conn->frames_left < frames) {
        stat_add(&reactor->stats.limit_frames, 1);
        return false;
    }
    conn->frames_left -= frames;
    return true;
}

/* Records that carry nothing count as frames, or a flood of them would cost the peer nothing. */
static bool take_quiet_budget(struct reactor *reactor, struct conn *conn, struct link_input *input)
{
    const uint32_t frames = input->quiet_records + input->key_updates * (KEY_UPDATE_FRAMES - 1);

    input->quiet_records = 0;
    input->key_updates = 0;
    return reactor_take_frame_budget(reactor, conn, frames);
}

/* What the server answers itself, without the engine. */
static enum engine_result on_ping(struct reactor *reactor, uint32_t slot, struct conn *conn,
                                  const struct frame_view *view)
{
    struct message_ping ping;
    const enum code code = message_decode_ping(view, &ping);

    if (code != CODE_OK) {
        reactor_end(reactor, slot, code);
        return ENGINE_CLOSED;
    }
    conn->pong_opaque = ping.opaque; /* the latest is answered: PONGs coalesce */
    conn->flags |= CONN_PONG_DUE;
    reactor_mark_dirty(reactor, slot);
    return ENGINE_TAKEN;
}

static enum engine_result on_bye(struct reactor *reactor, uint32_t slot,
                                 const struct frame_view *view)
{
    reactor_end(reactor, slot, message_decode_bye(view));
    return ENGINE_CLOSED;
}

static enum engine_result on_unknown(struct reactor *reactor, uint32_t slot,
                                     const struct frame_view *view)
{
    uint8_t frame[ERROR_FRAME_BYTES_MAX];

    stat_add(&reactor->stats.glitches, 1);
    if (view->type >= FRAME_TYPE_OPTIONAL_MIN) {
        return ENGINE_TAKEN;
    }
    const size_t frame_size =
        message_encode_error_code(frame, sizeof frame, CODE_UNSUPPORTED, 0, 0);
    reactor_put_frame(reactor, slot, frame, frame_size, false);
    return ENGINE_TAKEN;
}

static enum engine_result on_frame(struct reactor *reactor, uint32_t slot, struct conn *conn,
                                   const struct frame_view *view)
{
    const enum frame_origin origin = frame_type_origin(view->type);

    if (origin == FRAME_FROM_NOBODY) {
        return on_unknown(reactor, slot, view);
    }
    if ((origin & FRAME_FROM_CLIENT) == 0 || view->type == FRAME_TYPE_HELLO) {
        reactor_end(reactor, slot, CODE_UNEXPECTED);
        return ENGINE_CLOSED;
    }
    if (view->type == FRAME_TYPE_PING) {
        return on_ping(reactor, slot, conn, view);
    }
    if (view->type == FRAME_TYPE_PONG) {
        return ENGINE_TAKEN; /* it has proved life by coming */
    }
    if (view->type == FRAME_TYPE_TOKEN) {
        return reactor_on_token(reactor, slot, view);
    }
    if (view->type == FRAME_TYPE_BYE) {
        return on_bye(reactor, slot, view);
    }

    if (view->type == FRAME_TYPE_SEND && !reactor_has_room(reactor, slot)) {
        return ENGINE_BLOCKED;
    }

    const enum engine_result result =
        engine_on_frame(reactor->engine, conn_ref_of(reactor, slot), view);

    reactor_take_effects(reactor);
    return result;
}

static void end_by(struct reactor *reactor, uint32_t slot, struct conn *conn, enum link_next next,
                   const struct tls_opened *opened)
{
    if (next == LINK_NEXT_CLOSED) {
        conn->flags |= CONN_PEER_DONE;
        reactor_end(reactor, slot, CODE_OK);
    } else if (next == LINK_NEXT_TLS_FAULT) {
        stat_add(&reactor->stats.tls_faults, 1);
        if (opened->alert == TLS_ALERT_NONE) {
            conn->flags |= CONN_PEER_DONE;
            reactor_kill(reactor, slot);
        } else {
            reactor_end_by_alert(reactor, slot, opened->alert);
        }
    } else if (next == LINK_NEXT_TOO_LARGE) {
        reactor_end(reactor, slot, CODE_FRAME_TOO_LARGE);
    } else {
        reactor_end_for_cells(reactor, slot);
    }
}

void reactor_end_for_cells(struct reactor *reactor, uint32_t slot)
{
    stat_add(&reactor->stats.limit_cells, 1);
    reactor_end(reactor, slot, CODE_BUSY);
    link_drop_input(&reactor->pools, &reactor_conn(reactor, slot)->link);
}

/* Frames of a live connection, one after the other. False: the connection is ending. */
static bool work_off(struct reactor *reactor, uint32_t slot, struct conn *conn,
                     struct link_input *input)
{
    struct frame_view view;
    struct tls_opened opened;

    for (;;) {
        const enum link_next next =
            link_input_next(&reactor->pools, &conn->link, input, &view, &opened);

        if (input->quiet_records != 0 && !take_quiet_budget(reactor, conn, input)) {
            reactor_end(reactor, slot, CODE_BUSY);
            return false;
        }
        if (next == LINK_NEXT_NONE) {
            return true;
        }
        if (next != LINK_NEXT_FRAME) {
            end_by(reactor, slot, conn, next, &opened);
            return false;
        }
        if (!reactor_take_frame_budget(reactor, conn, 1)) {
            reactor_end(reactor, slot, CODE_BUSY);
            return false;
        }
        conn->partial_since_s = 0;
        stat_add(&reactor->stats.frames_received, 1);

        const enum engine_result result = on_frame(reactor, slot, conn, &view);

        if (result == ENGINE_CLOSED || conn->state != CONN_LIVE) {
            return false;
        }
        if (result == ENGINE_BLOCKED) {
            conn->frames_left++;
            link_input_put_back(&conn->link, input);
            conn->flags |= CONN_BLOCKED;
            return true;
        }
    }
}

/* Since when the peer owes the rest of what it has begun. What waits for us isn't its fault. */
static void note_partial(struct reactor *reactor, uint32_t slot, struct conn *conn)
{
    if (!link_has_input(&conn->link)) {
        conn->partial_since_s = 0;
    } else if ((conn->flags & CONN_BLOCKED) != 0) {
        conn->partial_since_s = 0;
        link_note_input(&reactor->pools, &conn->link, CELL_SINCE_NEVER);
    } else {
        if (conn->partial_since_s == 0) {
            conn->partial_since_s = reactor->now_s;
        }
        link_note_input(&reactor->pools, &conn->link, conn->partial_since_s);
        reactor_expect_rest(reactor, slot);
    }
}

/* What is left may be offered again, or else the connection ends. */
static size_t input_left(struct reactor *reactor, uint32_t slot, const struct link_input *input)
{
    size_t left_bytes;

    if (!link_input_left(input, &left_bytes)) {
        reactor_end_for_cells(reactor, slot);
        return 0;
    }
    return left_bytes;
}

size_t reactor_work_input(struct reactor *reactor, uint32_t slot, uint8_t *received,
                          size_t received_bytes)
{
    struct conn *conn = reactor_conn(reactor, slot);
    struct link_input input;

    if (conn->state > CONN_LIVE) {
        return 0; /* it is ending: what still comes is read and dropped */
    }
    refill_budget(reactor, conn); /* it may have been blocked for long */
    reactor->pools.in.taker = conn_note(reactor, conn, slot);
    if (link_input_begin(&reactor->pools, &conn->link, received, received_bytes, &input) !=
        LINK_NEXT_NONE) {
        return input_left(reactor, slot, &input);
    }
    if (conn->state == CONN_LIVE && (conn->flags & CONN_BLOCKED) == 0 &&
        !work_off(reactor, slot, conn, &input)) {
        link_drop_input(&reactor->pools, &conn->link);
        return 0;
    }
    if (!link_input_end(&reactor->pools, &conn->link, &input)) {
        return input_left(reactor, slot, &input);
    }
    note_partial(reactor, slot, conn);
    return 0;
}

/*
 * While the present batch of the journal is full, what comes isn't even opened: it waits in its
 * receive buffer, not in cells, of which a thousand clients at once would want more than there are.
 * When most buffers are held, the kernel keeps the rest.
 */
static bool hold_received(struct reactor *reactor, uint32_t slot, struct conn *conn,
                          const struct recv_buffers *buffers, uint16_t buffer, uint32_t byte_count)
{
    if (conn->state != CONN_LIVE || reactor->room_bytes >= MESSAGE_ROOM_BYTES ||
        (conn->flags & (CONN_BLOCKED | CONN_ROOMLESS)) != 0 || conn->held_bytes != 0 ||
        buffers->held > buffers->count / 4 * 3) {
        return false;
    }
    conn->held_bytes = (uint16_t)byte_count;
    conn->held_buffer = buffer;
    conn->flags |= CONN_BLOCKED | CONN_ROOMLESS;
    slot_queue_put(&reactor->roomless, slot);
    return true;
}

/*
 * What found no cell stays in its receive buffer until those yield who hold one for too long, unless
 * most buffers are held: then more want one than can wait.
 */
static bool hold_left(struct reactor *reactor, uint32_t slot, struct conn *conn,
                      const struct recv_buffers *buffers, uint16_t buffer, size_t offset,
                      size_t byte_count)
{
    if (conn->held_bytes != 0 || conn->state != CONN_LIVE ||
        buffers->held > buffers->count / 4 * 3) {
        reactor_end_for_cells(reactor, slot);
        return false;
    }
    conn->partial_since_s = 0;
    link_note_input(&reactor->pools, &conn->link, CELL_SINCE_NEVER);
    memmove(recv_buffers_get(buffers, buffer), recv_buffers_get(buffers, buffer) + offset,
            byte_count);
    conn->held_bytes = (uint16_t)byte_count;
    conn->held_buffer = buffer;
    if ((conn->flags & CONN_BLOCKED) == 0) { /* else the engine says when it goes on */
        conn->flags |= CONN_BLOCKED | CONN_CELLLESS;
        slot_queue_put(&reactor->cellless, slot);
    }
    return true;
}

/* What was held is worked off, or, of an ending connection, dropped. */
static void work_held(struct reactor *reactor, uint32_t slot, struct conn *conn)
{
    struct recv_buffers *buffers = &reactor->group.recv_buffers[conn->ring];
    const uint32_t byte_count = conn->held_bytes;
    const uint16_t buffer = conn->held_buffer;

    conn->held_bytes = 0;

    const size_t left =
        reactor_work_input(reactor, slot, recv_buffers_get(buffers, buffer), byte_count);

    if (left == 0 || !hold_left(reactor, slot, conn, buffers, buffer, byte_count - left, left)) {
        recv_buffers_give(buffers, buffer);
    }
}

void reactor_drop_held(struct reactor *reactor, struct conn *conn)
{
    if (conn->held_bytes != 0) {
        recv_buffers_give(&reactor->group.recv_buffers[conn->ring], conn->held_buffer);
        conn->held_bytes = 0;
    }
}

/* True: a part of it is held. */
static bool work_received(struct reactor *reactor, uint32_t slot, struct conn *conn,
                          const struct recv_buffers *buffers, uint16_t buffer, uint32_t byte_count)
{
    const size_t left =
        reactor_work_input(reactor, slot, recv_buffers_get(buffers, buffer), byte_count);

    return left != 0 && hold_left(reactor, slot, conn, buffers, buffer, byte_count - left, left);
}

static void on_received(struct reactor *reactor, uint32_t slot, struct conn *conn,
                        struct ring_event *event)
{
    struct recv_buffers *buffers = &reactor->group.recv_buffers[event->ring];
    const uint32_t byte_count = (uint32_t)event->result;
    uint16_t buffer;
    const uint8_t *bytes = recv_buffers_take(buffers, event, &buffer);

    HF_ASSERT(bytes != NULL);
    stat_add(&reactor->stats.bytes_received, byte_count);
    if (conn->state <= CONN_LIVE) {
        reactor_expect_input(reactor, slot);
        if (!take_byte_budget(reactor, conn, byte_count)) {
            reactor_end(reactor, slot, CODE_BUSY);
        } else if (hold_received(reactor, slot, conn, buffers, buffer, byte_count) ||
                   work_received(reactor, slot, conn, buffers, buffer, byte_count)) {
            return;
        }
    }
    recv_buffers_give(buffers, buffer);
}

void reactor_on_recv(struct reactor *reactor, struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct conn *conn = slab_find(&reactor->conns, slot, ring_tag_generation(event->tag));

    if (conn == NULL) {
        if (event->result > 0) {
            uint16_t buffer;
            const uint8_t *bytes =
                recv_buffers_take(&reactor->group.recv_buffers[event->ring], event, &buffer);
            HF_ASSERT(bytes != NULL);
            recv_buffers_give(&reactor->group.recv_buffers[event->ring], buffer);
        }
        return;
    }
    conn->flags &= (uint16_t)~CONN_RECEIVING;

    if (event->result > 0) {
        on_received(reactor, slot, conn, event);
        if (!ring_recv_again(event)) {
            return;
        }
        if ((conn->flags & CONN_BLOCKED) == 0) {
            receive_on(reactor, slot, conn);
        }
        return;
    }
    if (event->result == -EAGAIN || event->result == -EINTR || event->result == -ECANCELED) {
        return;
    }
    if (event->result == -ENOBUFS) {
        reactor_run_again_later(reactor, slot);
        return;
    }

    /* The peer's end without close_notify, or its reset. */
    conn->flags |= CONN_PEER_DONE;
    if (conn->state == CONN_ENDING && event->result == 0) {
        return; /* it may still read: when our last record is sent, it is killed */
    }
    if (conn->state != CONN_CLOSING) {
        reactor_kill(reactor, slot);
    }
}

bool reactor_has_room(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if (reactor->room_bytes >= MESSAGE_ROOM_BYTES &&
        (reactor->releasing || reactor->roomless.count == 0)) {
        return true;
    }
    conn->flags |= CONN_BLOCKED;
    if ((conn->flags & CONN_ROOMLESS) == 0) {
        conn->flags |= CONN_ROOMLESS;
        slot_queue_put(&reactor->roomless, slot);
    }
    return false;
}

void reactor_release_roomless(struct reactor *reactor)
{
    if (reactor->room_bytes < MESSAGE_ROOM_BYTES) {
        return; /* the write in flight will end */
    }
    for (uint32_t n = reactor->roomless.count; n > 0; n--) {
        const uint32_t slot = slot_queue_take(&reactor->roomless);
        struct conn *conn = reactor_conn(reactor, slot);

        conn->flags &= (uint16_t)~CONN_ROOMLESS;
        if (conn->state <= CONN_LIVE) {
            conn->flags &= (uint16_t)~CONN_BLOCKED;
            reactor_run_again_later(reactor, slot);
        }
    }
}

void reactor_run_again(struct reactor *reactor)
{
    reactor->releasing = true;
    /* Only those that are there now: what goes wrong again waits for the next turn. */
    for (uint32_t n = reactor->again.count; n > 0; n--) {
        const uint32_t slot = slot_queue_take(&reactor->again);
        struct conn *conn = reactor_conn(reactor, slot);

        conn->flags &= (uint16_t)~CONN_STARVED;
        if (conn->state == CONN_CLOSING || (conn->flags & CONN_BLOCKED) != 0) {
            continue;
        }
        if (conn->state == CONN_HELLO) {
            reactor_begin_session(reactor, slot); /* offers HELLO again */
            continue;
        }
        if (conn->held_bytes != 0) {
            work_held(reactor, slot, conn);
        } else if (link_has_input(&conn->link)) {
            const size_t left = reactor_work_input(reactor, slot, NULL, 0);

            HF_ASSERT(left == 0); /* nothing was received */
        }
        if (conn->state == CONN_CLOSING || (conn->flags & CONN_BLOCKED) != 0) {
            continue;
        }
        receive_on(reactor, slot, conn); /* -EAGAIN at worst */
    }
    reactor->releasing = false;
}

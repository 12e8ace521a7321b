#include "core/server/reactor_internal.h"

#include "core/base/check.h"
#include "core/engine/stream_frame.h"
#include "proto/message.h"
#include "store/schema.h"

static void do_welcome(struct reactor *reactor, const struct effect *effect)
{
    struct conn *conn = slab_find(&reactor->conns, effect->conn.slot, effect->conn.generation);
    const struct welcome *welcome = &effect->welcome;
    const struct config *config = reactor->config;
    uint8_t frame[HELLO_OK_FRAME_BYTES_MAX];
    uint8_t token[RESUME_TOKEN_BYTES];

    if (conn == NULL || conn->state >= CONN_ENDING) {
        return;
    }

    const uint32_t life_s =
        conn->expires_at_s > reactor->now_s ? conn->expires_at_s - reactor->now_s : 1;
    const uint64_t now_unix_s = reactor->now_unix_ms / 1000;
    const struct resume_claims claims = {
        .user = welcome->user,
        .device = welcome->device,
        .generation = welcome->generation,
        .issued_at_unix_s = now_unix_s,
        .expires_at_unix_s = now_unix_s + life_s,
    };
    resume_sign(&reactor->resume, &claims, token);

    const struct message_hello_ok hello_ok = {
        .time_unix_ms = reactor->now_unix_ms,
        .epoch = welcome->epoch,
        .head = welcome->head,
        .floor = welcome->floor,
        .sver = welcome->sver,
        .last_counter = welcome->last_counter,
        .result = welcome->result,
        .keepalive_s = (uint32_t)config->keepalive_s,
        .life_s = life_s,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .sends_outstanding_max = SENDS_OUTSTANDING_MAX,
        .requests_outstanding_max = REQUESTS_OUTSTANDING_MAX,
        .window = welcome->window,
        .resume_token = { token, sizeof token },
    };
    conn->generation = welcome->generation;
    const size_t frame_size = message_encode_hello_ok(frame, sizeof frame, &hello_ok);
    reactor_put_frame(reactor, effect->conn.slot, frame, frame_size, false);
}

static void do_send(struct reactor *reactor, const struct effect *effect)
{
    if (slab_find(&reactor->conns, effect->conn.slot, effect->conn.generation) != NULL) {
        reactor_put_frame(reactor, effect->conn.slot, effect->bytes, effect->byte_count, true);
    }
}

static void do_close(struct reactor *reactor, const struct effect *effect)
{
    if (slab_find(&reactor->conns, effect->conn.slot, effect->conn.generation) != NULL) {
        reactor_end_forgotten(reactor, effect->conn.slot);
    }
}

static void do_unblock(struct reactor *reactor, const struct effect *effect)
{
    struct conn *conn = slab_find(&reactor->conns, effect->conn.slot, effect->conn.generation);

    if (conn == NULL || (conn->flags & CONN_BLOCKED) == 0) {
        return;
    }
    conn->flags &= (uint16_t)~CONN_BLOCKED;
    reactor_run_again_later(reactor, effect->conn.slot);
}

/* How many peer frames of any size there is room for, and some cells for LINK_ENDs. */
uint32_t reactor_stream_room(const struct reactor *reactor)
{
    const uint32_t spare = 8;
    const uint32_t room = cells_free(&reactor->stream_cells, CELL_LARGE);

    return room > spare ? room - spare : 0;
}

/* The engine knows how much room there is, so there is a cell, of a larger size if need be. */
static struct cell take_stream_cell(struct reactor *reactor, size_t byte_count)
{
    const struct cell cell = cells_take(&reactor->stream_cells, byte_count);

    return cell_is_none(cell) ? cells_take(&reactor->stream_cells, CELL_LARGE_BYTES) : cell;
}

static void do_stream(struct reactor *reactor, const struct effect *effect)
{
    const uint32_t home =
        reactor->core_of_volume[schema_volume_of(effect->partition, reactor->volume_count)];
    const struct cell cell = take_stream_cell(reactor, effect->byte_count);
    struct mail mail = {
        .kind = MAIL_STREAM,
        .from = (uint8_t)reactor->index,
        .partition = effect->partition,
        .byte_count = (uint32_t)effect->byte_count,
    };

    HF_ASSERT(!cell_is_none(cell));
    mail.a = cell.value;
    mail.bytes = cells_bytes(&reactor->stream_cells, cell);
    memcpy(mail.bytes, effect->bytes, effect->byte_count);
    const bool given =
        post_give(&reactor->post->cores[home].reactor_to_reactor[reactor->index], &mail);
    HF_ASSERT(given); /* it holds more than there are cells */
}

static void do_note(struct reactor *reactor, const struct effect *effect)
{
    const uint64_t user = effect->note.user.value;
    const uint32_t device = effect->note.device.value;

    switch (effect->note.kind) {
    case NOTE_STORE_ROLLED_BACK:
        log_event(reactor->log, LOG_WARNING, "cursor_ahead",
                  "user=%" PRIu64 " device=%" PRIu32
                  " hint=\"the store is older than what this device has seen: after a backup was "
                  "put in place, holdfastd --restored must be run\"",
                  user, device);
        return;
    case NOTE_ENTRY_MISSING:
        log_event(reactor->log, LOG_ERROR, "entry_missing",
                  "user=%" PRIu64 " hint=\"the store lacks an entry: restore a backup\"", user);
        return;
    case NOTE_REPLACED:
    case NOTE_USER_CREATED:
    case NOTE_DEVICE_CREATED:
        log_event(reactor->log, LOG_DEBUG,
                  effect->note.kind == NOTE_REPLACED       ? "session_replaced"
                  : effect->note.kind == NOTE_USER_CREATED ? "user_created"
                                                           : "device_created",
                  "user=%" PRIu64 " device=%" PRIu32, user, device);
        return;
    }
}

static void do_effect(struct reactor *reactor, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_APPEND:
        storage_append(reactor->storage, effect->ticket, effect->bytes, effect->byte_count);
        if (reactor->room_bytes != UINT64_MAX) {
            HF_ASSERT(reactor->room_bytes >= effect->byte_count);
            reactor->room_bytes -= effect->byte_count;
        }
        return;
    case EFFECT_SEND:
        do_send(reactor, effect);
        return;
    case EFFECT_WELCOME:
        do_welcome(reactor, effect);
        return;
    case EFFECT_CLOSE:
        do_close(reactor, effect);
        return;
    case EFFECT_UNBLOCK:
        do_unblock(reactor, effect);
        return;
    case EFFECT_STREAM:
        do_stream(reactor, effect);
        return;
    case EFFECT_LOAD:
        storage_load(reactor->storage, &effect->load);
        return;
    case EFFECT_WANT_FLUSH:
        storage_want_flush(reactor->storage);
        return;
    case EFFECT_NOTE:
        do_note(reactor, effect);
        return;
    }
}

/* Nothing here calls the engine: what it must be told of is told when its effects are all taken. */
static void take_present(struct reactor *reactor)
{
    const struct effect *effect;

    while ((effect = engine_next_effect(reactor->engine)) != NULL) {
        do_effect(reactor, effect);
    }
    engine_clear_effects(reactor->engine);
}

void reactor_take_effects(struct reactor *reactor)
{
    take_present(reactor);
    for (;;) {
        const uint32_t slot = slot_queue_take(&reactor->forget);

        if (slot == SLAB_NONE) {
            return;
        }

        struct conn *conn = reactor_conn(reactor, slot);

        conn->flags &= (uint16_t)~CONN_FORGETTING;
        if ((conn->flags & CONN_SESSION) != 0) {
            conn->flags &= (uint16_t)~CONN_SESSION;
            engine_on_closed(reactor->engine, conn_ref_of(reactor, slot));
            take_present(reactor);
        }
    }
}

void reactor_run_engine(struct reactor *reactor)
{
    /* Each round may make room for the next; what is left goes on in the next turn. */
    for (uint32_t rounds = 0; rounds < 64; rounds++) {
        engine_set_stream_frames(reactor->engine, reactor_stream_room(reactor));

        const bool more = engine_run(reactor->engine);

        reactor_take_effects(reactor);
        if (!more && (!engine_waits_for_stream_frames(reactor->engine) ||
                      reactor_stream_room(reactor) == 0)) {
            reactor->engine_has_more = false;
            return; /* cells come back by mail, which wakes the thread */
        }
        if (cells_free(&reactor->cells, CELL_LARGE) < OUTPUT_LARGE_CELLS) {
            break; /* what is queued leaves first: its cells are free in the next turn */
        }
    }
    reactor->engine_has_more = true;
}

static void end_stream(struct reactor *reactor, const struct mail *frame)
{
    if (frame->from == reactor->index) {
        cells_give(&reactor->stream_cells, (struct cell){ frame->a });
        return;
    }

    struct mail mail = { .kind = MAIL_STREAM_RETURN, .a = frame->a };

    mail.from = (uint8_t)reactor->index;
    const bool given =
        post_give(&reactor->post->cores[frame->from].reactor_to_reactor[reactor->index], &mail);
    HF_ASSERT(given);
}

/* A frame may be answered by LINK_END at once: then there must be a cell for that. */
static bool has_stream_cell(const struct reactor *reactor)
{
    return cells_free(&reactor->stream_cells, CELL_SMALL) +
               cells_free(&reactor->stream_cells, CELL_LARGE) !=
           0;
}

/* Cells that come back behind frames that wait for just these. */
static void take_returns(struct reactor *reactor, struct mailbox *mailbox)
{
    struct mail *mail;

    for (uint32_t n = 0; (mail = mailbox_look(mailbox, n)) != NULL; n++) {
        if (mail->kind == MAIL_STREAM_RETURN) {
            cells_give(&reactor->stream_cells, (struct cell){ mail->a });
            mail->kind = MAIL_NONE;
        }
    }
}

static void run_streams_from(struct reactor *reactor, uint32_t from)
{
    struct mailbox *mailbox = &reactor->mail->reactor_to_reactor[from];
    struct held_stream *stream = &reactor->streams[from];

    /* Bounded, so that one busy neighbour can't keep this core from its own clients. */
    for (uint32_t n = 0; n < 1024; n++) {
        if (!stream->held) {
            const struct mail *mail = mailbox_take(mailbox);

            if (mail == NULL) {
                return;
            }
            if (mail->kind == MAIL_STREAM_RETURN) {
                cells_give(&reactor->stream_cells, (struct cell){ mail->a });
                continue;
            }
            if (mail->kind == MAIL_NONE) {
                continue; /* was taken before its turn */
            }
            stream->frame = *mail;
            stream->held = true;
        }

        if (!has_stream_cell(reactor)) {
            take_returns(reactor, mailbox);
            if (!has_stream_cell(reactor)) {
                return;
            }
        }

        const enum engine_result result =
            engine_on_stream(reactor->engine, stream->frame.bytes, stream->frame.byte_count);

        reactor_take_effects(reactor);
        if (result == ENGINE_BLOCKED) {
            return;
        }
        stream->held = false;
        end_stream(reactor, &stream->frame);
    }
}

void reactor_run_streams(struct reactor *reactor)
{
    for (uint32_t from = 0; from < reactor->post->core_count; from++) {
        run_streams_from(reactor, from);
    }
}

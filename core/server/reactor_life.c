#include "core/server/reactor_internal.h"

#include "core/base/check.h"
#include "proto/message.h"

/*
 *   GRANTED --descriptor and record are here--> HELLO --the engine took it--> LIVE
 *      |                                          |                            |
 *      | the door gave up, or time ran out        +-------- reactor_end -------+
 *      v                                                         |
 *    (free)      CLOSING <--sent, peer done-- DRAINING <--sent-- ENDING
 *                   |  ^                                            |
 *      close done   v  +------------- reactor_kill, from any -------+
 *                 (free, when the door knows)
 */

#define ENDING_TIMEOUT_NS   (5 * CLOCK_NS_PER_S)
#define DRAINING_TIMEOUT_NS (1 * CLOCK_NS_PER_S)

static void answer_grant(struct reactor *reactor, const struct mail *ask, struct mail *answer)
{
    answer->from = (uint8_t)reactor->index;
    answer->a = ask->a;
    answer->b = ask->b;

    /* The mailbox holds two messages for each handshake that its door may have. */
    const bool given =
        post_give(&reactor->post->cores[ask->from].reactor_to_door[reactor->index], answer);
    HF_ASSERT(given);
}

static void refuse_grant(struct reactor *reactor, const struct mail *ask)
{
    struct mail answer = { .kind = MAIL_REFUSED };

    answer.code = reactor->drain_until_ns != 0 ? CODE_GOING_AWAY : CODE_BUSY;
    stat_add(&reactor->stats.limit_connections, 1);
    answer_grant(reactor, ask, &answer);
}

void reactor_grant(struct reactor *reactor, const struct mail *ask)
{
    if (reactor->drain_until_ns != 0 || reactor->stopping) {
        refuse_grant(reactor, ask);
        return;
    }

    const uint32_t slot = slab_take(&reactor->conns);

    if (slot == SLAB_NONE) {
        refuse_grant(reactor, ask);
        return;
    }

    const uint32_t ring = ring_group_take_file(&reactor->group);

    if (ring == UINT32_MAX) {
        slab_give(&reactor->conns, slot);
        refuse_grant(reactor, ask);
        return;
    }

    struct conn *conn = reactor_conn(reactor, slot);

    conn->state = CONN_GRANTED;
    conn->ring = (uint8_t)ring;
    conn->door = ask->from;
    timers_set(&reactor->timers, slot,
               reactor->now_ns + 2 * reactor->config->handshake_timeout_ms * CLOCK_NS_PER_MS);

    struct mail answer = {
        .kind = MAIL_GRANTED,
        .conn_slot = slot,
        .conn_generation = slab_generation(&reactor->conns, slot),
        .number = (uint64_t)reactor->group.rings[ring].fd,
    };
    stat_set(&reactor->stats.connections, reactor->conns.in_use);
    answer_grant(reactor, ask, &answer);
}

static void free_slot(struct reactor *reactor, uint32_t slot)
{
    timers_cancel(&reactor->timers, slot);
    slab_give(&reactor->conns, slot);
    stat_set(&reactor->stats.connections, reactor->conns.in_use);
}

void reactor_ungrant(struct reactor *reactor, uint32_t slot, uint32_t generation)
{
    struct conn *conn = slab_find(&reactor->conns, slot, generation);

    if (conn != NULL && conn->state == CONN_GRANTED && (conn->flags & CONN_GRANT_FILE) == 0) {
        ring_group_give_file(&reactor->group, conn->ring);
        free_slot(reactor, slot);
    }
}

/* `code`: CODE_OK if it was adopted; then MAIL_LEFT will tell of its end. */
static void return_frozen(struct reactor *reactor, const struct conn *conn,
                          struct conn_frozen *frozen, enum code code)
{
    struct mail mail = { .kind = MAIL_ADOPT_RETURN, .bytes = frozen, .code = (uint16_t)code };

    HF_ASSERT(frozen != NULL);
    mail.from = (uint8_t)reactor->index;
    const bool given =
        post_give(&reactor->post->cores[conn->door].reactor_to_door[reactor->index], &mail);
    HF_ASSERT(given);
}

void reactor_on_adopted(struct reactor *reactor, struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct conn *conn = slab_find(&reactor->conns, slot, ring_tag_generation(event->tag));

    if (event->result < 0) {
        return; /* the grant runs out by time */
    }
    if (conn == NULL || conn->state != CONN_GRANTED) {
        ring_close_file(&reactor->group.rings[event->ring], (uint32_t)event->result, RING_TAG_NONE);
        return;
    }
    conn->file = (uint32_t)event->result;
    conn->flags |= CONN_GRANT_FILE;
    if ((conn->flags & CONN_GRANT_MAIL) != 0) {
        reactor_begin_session(reactor, slot);
    }
}

void reactor_adopt(struct reactor *reactor, const struct mail *mail)
{
    struct conn *conn = slab_find(&reactor->conns, mail->conn_slot, mail->conn_generation);

    if (conn == NULL || conn->state != CONN_GRANTED) {
        struct mail back = { .kind = MAIL_ADOPT_RETURN, .bytes = mail->bytes };
        back.from = (uint8_t)reactor->index;
        back.code = CODE_BUSY;
        const bool given =
            post_give(&reactor->post->cores[mail->from].reactor_to_door[reactor->index], &back);
        HF_ASSERT(given);
        return;
    }
    conn->frozen = mail->bytes;
    conn->flags |= CONN_GRANT_MAIL;
    if ((conn->flags & CONN_GRANT_FILE) != 0) {
        reactor_begin_session(reactor, mail->conn_slot);
    }
}

static uint32_t login_expiry_s(struct reactor *reactor, const struct conn_frozen *frozen)
{
    const uint64_t now_unix_s = reactor->now_unix_ms / 1000;
    uint64_t life_s = reactor->config->login_life_s;

    if (frozen->login_expires_at_unix_s != 0) {
        const uint64_t ends = frozen->login_expires_at_unix_s;
        const uint64_t left_s = ends > now_unix_s ? ends - now_unix_s : 1;
        life_s = left_s < life_s ? left_s : life_s;
    }
    return reactor->now_s + (uint32_t)life_s;
}

void reactor_expect_input(struct reactor *reactor, uint32_t slot)
{
    timers_set(&reactor->timers, slot,
               reactor->now_ns + reactor->config->keepalive_s * CLOCK_NS_PER_S * 2);
}

void reactor_expect_rest(struct reactor *reactor, uint32_t slot)
{
    const uint64_t ends_s =
        reactor_conn(reactor, slot)->partial_since_s + reactor->config->partial_timeout_s;

    timers_set(&reactor->timers, slot, reactor->start_ns + ends_s * CLOCK_NS_PER_S);
}

/* Everybody is told to come back at another moment, so that the next server isn't stormed. */
static void tell_to_leave(struct reactor *reactor, uint32_t slot)
{
    uint8_t frame[GOAWAY_FRAME_BYTES_MAX];
    const struct message_goaway goaway = {
        .why = GOAWAY_RESTART,
        .wait_min_ms = 0,
        .wait_max_ms = (uint32_t)reactor->config->drain_spread_ms,
    };

    reactor_put_frame(reactor, slot, frame, message_encode_goaway(frame, sizeof frame, &goaway),
                      false);
}

/* The engine took HELLO: what came behind it follows. */
static void go_live(struct reactor *reactor, uint32_t slot, struct conn *conn)
{
    struct conn_frozen *frozen = conn->frozen;
    uint8_t *plain = frozen->bytes + frozen->hello_bytes;
    uint8_t *cipher = plain + frozen->plain_bytes;

    conn->state = CONN_LIVE;
    conn->frozen = NULL; /* its place is for PINGs from here on */
    reactor_expect_input(reactor, slot);
    if (reactor->drain_until_ns != 0 && slot < reactor->drain_at) {
        tell_to_leave(reactor, slot); /* it was on its way when the others were told */
    }
    reactor->pools.in.taker = conn_note(reactor, conn, slot);
    /* What finds no cell can't wait where it lies: that is the door's memory. */
    if (!link_keep_plain(&reactor->pools, &conn->link, plain, frozen->plain_bytes) ||
        reactor_work_input(reactor, slot, cipher, frozen->cipher_bytes) != 0) {
        reactor_end_for_cells(reactor, slot);
    }
    return_frozen(reactor, conn, frozen, CODE_OK);
    if (conn->state == CONN_LIVE) {
        reactor_run_again_later(reactor, slot); /* receives what came while HELLO was waiting */
    }
}

void reactor_begin_session(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);
    struct conn_frozen *frozen = conn->frozen;
    struct frame_view view;
    struct message_hello hello;

    if (conn->state == CONN_GRANTED) { /* for the first time */
        HF_ASSERT(frozen->version == CONN_FROZEN_VERSION && tls_keys_valid(&frozen->keys));
        conn->state = CONN_HELLO;
        conn->link.keys = frozen->keys;
        conn->user = frozen->user;
        conn->device = frozen->device;
        conn->address_key = frozen->address_key;
        conn->expires_at_s = login_expiry_s(reactor, frozen);
        conn->frames_left = (uint32_t)(reactor->config->frames_per_s_max * 10);
        conn->bytes_left = (uint32_t)(reactor->config->bytes_per_s_max < UINT32_MAX / 10
                                          ? reactor->config->bytes_per_s_max * 10
                                          : UINT32_MAX);
        conn->budget_at_s = reactor->now_s;
        stat_add(&reactor->stats.adopted, 1);
        ring_poll(conn_ring(reactor, conn), conn->file,
                  ring_tag(OP_POLL, slot, slab_generation(&reactor->conns, slot)));
    }

    if (!reactor_has_room(reactor, slot)) {
        return;
    }

    /* The door has decoded it once; so has it been checked. */
    if (frame_parse(frozen->bytes, frozen->hello_bytes, &view) != FRAME_OK ||
        message_decode_hello(&view, &hello) != CODE_OK) {
        HF_ASSERT(false);
    }

    const struct claims claims = {
        .user = frozen->user,
        .device = frozen->device,
        .generation = frozen->generation,
        .has_generation = frozen->has_generation != 0,
    };
    conn->flags |= CONN_SESSION;
    const enum engine_result result = engine_on_hello(reactor->engine, conn_ref_of(reactor, slot),
                                                      frozen->accepted_at, &claims, &hello);

    if (result == ENGINE_BLOCKED) {
        conn->flags |= CONN_BLOCKED;
    }
    reactor_take_effects(reactor);
    if (result == ENGINE_TAKEN && conn->state == CONN_HELLO) {
        go_live(reactor, slot, conn);
    }
}

/*
 * The engine hears of it when its present effects are taken, not in the midst of them; the slot
 * outlives that, for its close takes a turn at least.
 */
static void forget(struct reactor *reactor, uint32_t slot, struct conn *conn)
{
    if ((conn->flags & CONN_SESSION) != 0 && (conn->flags & CONN_FORGETTING) == 0) {
        conn->flags |= CONN_FORGETTING;
        slot_queue_put(&reactor->forget, slot);
    }
    conn->flags &= (uint16_t)~CONN_BLOCKED;
    if (conn->state == CONN_HELLO && conn->frozen != NULL) {
        return_frozen(reactor, conn, conn->frozen, CODE_OK);
        conn->frozen = NULL;
    }
}

void reactor_end(struct reactor *reactor, uint32_t slot, enum code code)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if (conn->state >= CONN_ENDING) {
        return;
    }
    HF_ASSERT(conn->state != CONN_GRANTED);
    forget(reactor, slot, conn);
    conn->error = (uint8_t)(code_is_fatal((uint16_t)code) ? code : 0);
    if (code != CODE_OK) {
        uint8_t frame[ERROR_FRAME_BYTES_MAX];
        const size_t frame_size = message_encode_error_code(frame, sizeof frame, code, 0, 0);

        reactor_put_frame(reactor, slot, frame, frame_size, false);
    }
    if (conn->state != CONN_CLOSING) {
        conn->state = CONN_ENDING;
        timers_set(&reactor->timers, slot, reactor->now_ns + ENDING_TIMEOUT_NS);
        reactor_mark_dirty(reactor, slot);
    }
}

void reactor_end_forgotten(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    conn->flags &= (uint16_t)~CONN_SESSION;
    conn->error = CODE_REPLACED; /* or what the engine said in its own ERROR: not the peer's will */
    if (conn->state < CONN_ENDING) {
        forget(reactor, slot, conn);
        link_drop_input(&reactor->pools, &conn->link);
        conn->state = CONN_ENDING;
        timers_set(&reactor->timers, slot, reactor->now_ns + ENDING_TIMEOUT_NS);
        reactor_mark_dirty(reactor, slot);
    }
}

void reactor_end_by_alert(struct reactor *reactor, uint32_t slot, enum tls_alert alert)
{
    struct conn *conn = reactor_conn(reactor, slot);

    forget(reactor, slot, conn);
    conn->error = CODE_BAD_FRAME;
    conn->alert = (uint8_t)alert;
    conn->state = CONN_ENDING;
    timers_set(&reactor->timers, slot, reactor->now_ns + ENDING_TIMEOUT_NS);
    reactor_mark_dirty(reactor, slot);
}

void reactor_go_on_ending(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);
    size_t sealed_bytes;

    HF_ASSERT(conn->state == CONN_ENDING && !conn->link.sending);
    if ((conn->flags & CONN_SAID_ALL) == 0) {
        reactor->pools.out.taker = conn_note(reactor, conn, slot);
        const uint8_t *sealed =
            link_seal_alert(&reactor->pools, &conn->link, conn->alert, &sealed_bytes);

        conn->flags |= CONN_SAID_ALL;
        if (sealed != NULL) {
            conn->sending_since_s = reactor->now_s;
            ring_send(conn_ring(reactor, conn), conn->file, sealed, (uint32_t)sealed_bytes,
                      ring_tag(OP_SEND, slot, slab_generation(&reactor->conns, slot)));
            return;
        }
    }
    if ((conn->flags & CONN_PEER_DONE) != 0) {
        reactor_kill(reactor, slot);
        return;
    }

    /*
     * Closing with unread bytes sends RST, which may take our last frames with it: so the peer,
     * who has our last record, closes first. It has a second.
     */
    conn->state = CONN_DRAINING;
    timers_set(&reactor->timers, slot, reactor->now_ns + DRAINING_TIMEOUT_NS);
    reactor_run_again_later(reactor, slot); /* a blocked one may hold bytes in its socket */
}

void reactor_kill(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if (conn->state == CONN_CLOSING) {
        return;
    }
    forget(reactor, slot, conn);
    conn->state = CONN_CLOSING;
    timers_cancel(&reactor->timers, slot);
    ring_close_file(conn_ring(reactor, conn), conn->file,
                    ring_tag(OP_CLOSE, slot, slab_generation(&reactor->conns, slot)));
}

static void count_end(struct reactor *reactor, const struct conn *conn)
{
    if (conn->error == 0) {
        stat_add(&reactor->stats.closed_by_peer, 1);
    } else if (conn->error == CODE_GOING_AWAY || conn->error == CODE_REPLACED) {
        stat_add(&reactor->stats.closed_by_server, 1);
    } else {
        stat_add(&reactor->stats.closed_by_error, 1);
    }
}

void reactor_on_close(struct reactor *reactor, struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct conn *conn = slab_find(&reactor->conns, slot, ring_tag_generation(event->tag));

    if (conn == NULL) {
        return;
    }
    HF_ASSERT(conn->state == CONN_CLOSING);
    count_end(reactor, conn);
    reactor_drop_held(reactor, conn);
    link_drop(&reactor->pools, &conn->link);
    ring_group_give_file(&reactor->group, conn->ring);
    reactor_leave(reactor, slot);
}

/*
 * Tells the door, where it counts addresses. Half of the mailbox stays free for the answers that
 * the door waits for: a crowd that leaves at once must not fill it.
 */
static bool tell_door(struct reactor *reactor, const struct conn *conn)
{
    struct mailbox *mailbox = &reactor->post->cores[conn->door].reactor_to_door[reactor->index];
    struct mail mail = { .kind = MAIL_LEFT, .number = conn->address_key };

    mail.from = (uint8_t)reactor->index;
    return conn->address_key == 0 ||
           (mailbox_room(mailbox) > mailbox->capacity / 2 && post_give(mailbox, &mail));
}

/* The slot is free for another once its door knows and no list has it. */
void reactor_leave(struct reactor *reactor, uint32_t slot)
{
    const struct conn *conn = reactor_conn(reactor, slot);

    if ((conn->flags & (CONN_DIRTY | CONN_STARVED | CONN_ROOMLESS | CONN_CELLLESS |
                        CONN_FORGETTING | CONN_TOKEN_ASKED)) != 0 ||
        !tell_door(reactor, conn)) {
        slot_queue_put(&reactor->leaving, slot);
        return;
    }
    free_slot(reactor, slot);
}

static void on_timer(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    switch ((enum conn_state)conn->state) {
    case CONN_GRANTED:
        if ((conn->flags & CONN_GRANT_MAIL) != 0) {
            return_frozen(reactor, conn, conn->frozen, CODE_BUSY);
            conn->frozen = NULL;
        }
        if ((conn->flags & CONN_GRANT_FILE) != 0) {
            conn->error = CODE_INTERNAL;
            reactor_kill(reactor, slot);
        } else {
            ring_group_give_file(&reactor->group, conn->ring);
            free_slot(reactor, slot);
        }
        return;
    case CONN_HELLO:
    case CONN_LIVE:
        if (conn->partial_since_s != 0) {
            stat_add(&reactor->stats.partial_closed, 1);
        } else {
            stat_add(&reactor->stats.idle_closed, 1);
        }
        reactor_end(reactor, slot, CODE_IDLE);
        link_drop_input(&reactor->pools, &conn->link);
        return;
    case CONN_ENDING:
    case CONN_DRAINING:
        reactor_kill(reactor, slot);
        return;
    case CONN_CLOSING:
        return;
    }
}

static void sweep_one(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if (conn->state != CONN_LIVE) {
        return;
    }
    if (conn->link.sending &&
        reactor->now_s - conn->sending_since_s > reactor->config->send_timeout_s) {
        stat_add(&reactor->stats.stalled_closed, 1);
        conn->error = CODE_STALLED;
        reactor_kill(reactor, slot); /* it takes nothing, so it can't be told */
        return;
    }
    if (reactor->now_s >= conn->expires_at_s) {
        stat_add(&reactor->stats.expired_closed, 1);
        reactor_end(reactor, slot, CODE_TOKEN_EXPIRED);
    }
}

/* Looks at every connection once in a quarter of send_timeout_s: no timer each for that. */
static void sweep(struct reactor *reactor)
{
    const uint64_t tick_ns = CLOCK_NS_PER_S / 4;

    if (reactor->now_ns < reactor->sweep_due_ns) {
        return;
    }
    reactor->sweep_due_ns = reactor->now_ns + tick_ns;

    const uint32_t slots = reactor->conns.fresh_;
    const uint64_t ticks = reactor->config->send_timeout_s;
    const uint64_t each = slots / ticks + 1;

    for (uint64_t i = 0; i < each && i < slots; i++) {
        if (reactor->sweep_at >= slots) {
            reactor->sweep_at = 0;
        }
        if (slab_alive(&reactor->conns, reactor->sweep_at)) {
            sweep_one(reactor, reactor->sweep_at);
        }
        reactor->sweep_at++;
    }
}

/*
 * There may be more connections than cells, and one for whose frame there's none is lost without a
 * word. So the crowd is told turn by turn; half of the cells stay for the others' output. What was
 * sent completes in a later turn, so there is one.
 */
static void tell_crowd_to_leave(struct reactor *reactor)
{
    const uint32_t slots = reactor->conns.fresh_;
    uint32_t room = (cells_free(&reactor->cells, CELL_SMALL) + 1) / 2 +
                    (cells_free(&reactor->cells, CELL_MEDIUM) + 1) / 2;

    if (reactor->drain_until_ns == 0) {
        return;
    }
    for (; reactor->drain_at < slots && room > 0; reactor->drain_at++) {
        if (slab_alive(&reactor->conns, reactor->drain_at) &&
            reactor_conn(reactor, reactor->drain_at)->state == CONN_LIVE) {
            tell_to_leave(reactor, reactor->drain_at);
            room--;
        }
    }
}

void reactor_run_timers(struct reactor *reactor)
{
    uint32_t budget = 4096;

    for (;;) {
        const uint32_t slot = timers_take_expired(&reactor->timers, reactor->now_ns, &budget);

        if (slot == TIMERS_NONE) {
            break;
        }
        on_timer(reactor, slot);
    }
    sweep(reactor);
    tell_crowd_to_leave(reactor);
    for (uint32_t n = reactor->leaving.count; n > 0; n--) {
        reactor_leave(reactor, slot_queue_take(&reactor->leaving));
    }
}

void reactor_begin_drain(struct reactor *reactor, uint64_t until_ns)
{
    reactor->drain_until_ns = until_ns;
    reactor->drain_at = 0;
    tell_crowd_to_leave(reactor);
}

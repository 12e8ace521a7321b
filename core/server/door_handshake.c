#include "core/server/door_internal.h"

#include <errno.h>

#include "core/base/check.h"

#define SAYING_TIMEOUT_NS    (5 * CLOCK_NS_PER_S)
#define LINGERING_TIMEOUT_NS (1 * CLOCK_NS_PER_S)
#define FLIGHT_BYTES_MAX     65536 /* of ours: a certificate chain longer than that is refused */

/* ---- in */

void door_receive(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    if (!conn->receiving) {
        conn->receiving = true;
        ring_recv_wait(&door->ring, slot, DOOR_BUFFER_GROUP, door_tag(door, DOOR_OP_RECV, slot));
    }
}

static void on_peer_gone(struct door *door, uint32_t slot, struct door_conn *conn)
{
    conn->peer_done = true;
    switch ((enum door_state)conn->state) {
    case DOOR_PROXIED:
    case DOOR_SHAKING:
        stat_add(&door->stats.handshakes_gone, 1);
        door_kill(door, slot);
        return;
    case DOOR_HELLO:
        stat_add(&door->stats.hello_gone, 1);
        door_kill(door, slot);
        return;
    case DOOR_LINGERING:
        door_kill(door, slot);
        return;
    case DOOR_SAYING:  /* ends when it is said */
    case DOOR_CLOSING: /* cancelled by the close */
        return;
    case DOOR_WAITING:
    case DOOR_ASKED:
    case DOOR_PASSING:
    case DOOR_LENT:
        HF_ASSERT(false); /* no receive is in flight in these */
    }
}

/* What is received is only put by here; the work, which may be long, is done in its turn. */
static void keep_received(struct door *door, uint32_t slot, const uint8_t *bytes,
                          uint32_t byte_count)
{
    struct door_conn *conn = door_conn(door, slot);

    if (conn->state == DOOR_LINGERING) {
        door_receive(door, slot);
        return;
    }
    if (conn->state != DOOR_PROXIED && conn->state != DOOR_SHAKING && conn->state != DOOR_HELLO) {
        return;
    }
    if (!door_bytes_reserve(&conn->in, byte_count)) {
        door_kill(door, slot);
        return;
    }
    memcpy(conn->in.bytes + conn->in.byte_count, bytes, byte_count);
    conn->in.byte_count += byte_count;
    if (!conn->queued) {
        conn->queued = true;
        door_queue_put(&door->work, slot);
    }
}

void door_on_recv(struct door *door, const struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct door_conn *conn = slab_find(&door->conns, slot, ring_tag_generation(event->tag));

    if (conn != NULL) {
        conn->receiving = false;
    }
    if (event->result > 0) {
        uint16_t buffer;
        const uint8_t *bytes = recv_buffers_take(&door->recv_buffers, event, &buffer);

        if (conn != NULL) {
            keep_received(door, slot, bytes, (uint32_t)event->result);
        }
        recv_buffers_give(&door->recv_buffers, buffer);
        return;
    }
    if (conn == NULL || conn->state == DOOR_CLOSING) {
        return;
    }
    if (event->result == -ENOBUFS || event->result == -EINTR || event->result == -EAGAIN) {
        door_receive(door,
                     slot); /* the buffers are given back by the time that this is submitted */
        return;
    }
    on_peer_gone(door, slot, conn);
}

/* ---- out */

static void send_out(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    HF_ASSERT(!conn->sending && conn->out.byte_count > conn->out_sent);
    conn->sending = true;
    ring_send(&door->ring, slot, conn->out.bytes + conn->out_sent,
              conn->out.byte_count - conn->out_sent, door_tag(door, DOOR_OP_SEND, slot));
}

/*
 * Closing with unread bytes sends RST, which may take our last words with it: so the peer, who has
 * them, closes first. It has a second.
 */
static void linger(struct door *door, uint32_t slot, struct door_conn *conn)
{
    if (conn->peer_done) {
        door_kill(door, slot);
        return;
    }
    conn->state = DOOR_LINGERING;
    timers_set(&door->timers, slot, door->now_ns + LINGERING_TIMEOUT_NS);
    door_receive(door, slot);
}

void door_on_send(struct door *door, const struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct door_conn *conn = slab_find(&door->conns, slot, ring_tag_generation(event->tag));

    if (conn == NULL || conn->state == DOOR_CLOSING) {
        return;
    }
    HF_ASSERT(conn->sending);
    conn->sending = false;
    if (event->result <= 0) {
        on_peer_gone(door, slot, conn);
        if (conn->state == DOOR_SAYING) {
            door_kill(door, slot);
        }
        return;
    }
    conn->out_sent += (uint32_t)event->result;
    if (conn->out_sent < conn->out.byte_count) {
        send_out(door, slot);
        return;
    }
    door_bytes_free(&conn->out);
    conn->out_sent = 0;
    if (conn->state == DOOR_SAYING) {
        linger(door, slot, conn);
    } else {
        door_go_on(door, slot);
    }
}

void door_say_last(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    if (conn->out.byte_count == 0) {
        door_kill(door, slot);
        return;
    }
    conn->state = DOOR_SAYING;
    timers_set(&door->timers, slot, door->now_ns + SAYING_TIMEOUT_NS);
    door_give_place(door, conn);
    send_out(door, slot);
}

void door_kill(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    HF_ASSERT(conn->state != DOOR_PASSING && conn->state != DOOR_LENT);
    if (conn->state == DOOR_CLOSING) {
        return;
    }
    conn->state = DOOR_CLOSING;
    timers_cancel(&door->timers, slot);
    door_give_place(door, conn);
    ring_close_file(&door->ring, slot, door_tag(door, DOOR_OP_CLOSE, slot));
}

void door_on_close(struct door *door, const struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct door_conn *conn = slab_find(&door->conns, slot, ring_tag_generation(event->tag));

    HF_ASSERT(conn != NULL && (conn->state == DOOR_CLOSING || conn->state == DOOR_LENT));
    conn->closed = true;
    conn->receiving = false;
    conn->sending = false;
    door_leave(door, slot);
}

void door_on_deadline(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    switch ((enum door_state)conn->state) {
    case DOOR_PROXIED:
    case DOOR_SHAKING:
        stat_add(&door->stats.handshakes_timeout, 1);
        door_kill(door, slot);
        return;
    case DOOR_HELLO:
        if (conn->sending) {
            door_kill(door, slot); /* it doesn't even take our tickets */
        } else {
            door_refuse(door, slot, CODE_HELLO_EXPECTED, 0, NULL);
        }
        return;
    case DOOR_ASKED:
        door_refuse(door, slot, CODE_BUSY, 1000, NULL); /* the home's answer is still waited for */
        return;
    case DOOR_SAYING:
    case DOOR_LINGERING:
        door_kill(door, slot);
        return;
    case DOOR_WAITING:
    case DOOR_PASSING:
    case DOOR_LENT:
    case DOOR_CLOSING:
        return;
    }
}

/* ---- shaking hands */

static void end_handshake(struct door_conn *conn)
{
    tls_handshake_end(conn->handshake);
    conn->handshake = NULL;
    door_identity_drop(conn->identity);
    conn->identity = NULL;
}

/* 42 KB are taken when the first byte comes: a connection that says nothing costs little. */
static bool begin_handshake(struct door *door, struct door_conn *conn)
{
    conn->handshake = tls_handshake_accept(door->identity->server);
    if (conn->handshake == NULL) {
        return false;
    }
    conn->identity = door->identity;
    conn->identity->users++;
    return true;
}

static enum tls_handshake_status step(struct door *door, struct door_conn *conn)
{
    enum tls_handshake_status status;

    do {
        if (conn->out.byte_count > FLIGHT_BYTES_MAX ||
            !door_bytes_reserve(&conn->out, TLS_HANDSHAKE_OUT_BYTES)) {
            return TLS_HANDSHAKE_FAILED;
        }

        struct tls_handshake_io io = {
            .in = conn->in.bytes,
            .in_bytes = conn->in.byte_count,
            .out = conn->out.bytes,
            .out_capacity = conn->out.capacity,
            .out_bytes = conn->out.byte_count,
            .now_unix_ms = door->now_unix_ms,
        };

        status = tls_handshake_step(conn->handshake, &io);
        door_bytes_skip(&conn->in, (uint32_t)io.in_used);
        conn->out.byte_count = (uint32_t)io.out_bytes;
    } while (status == TLS_HANDSHAKE_WANT_ROOM);
    return status;
}

static void on_done(struct door *door, uint32_t slot, struct door_conn *conn)
{
    if (!tls_handshake_resumed(conn->handshake)) {
        stat_add(&door->stats.handshakes_full, 1);
    } else if (tls_handshake_lacks_exchange(conn->handshake)) {
        stat_add(&door->stats.handshakes_psk_ke, 1);
    } else {
        stat_add(&door->stats.handshakes_resumed, 1);
    }
    tls_handshake_take_keys(conn->handshake, &conn->keys);
    end_handshake(conn);
    conn->state = DOOR_HELLO;
    if (conn->out.byte_count != 0) {
        send_out(door, slot); /* tickets; HELLO is read when they have left */
    } else {
        door_go_on(door, slot);
    }
}

static void on_failed(struct door *door, uint32_t slot, struct door_conn *conn)
{
    const enum tls_handshake_fault fault = tls_handshake_fault(conn->handshake);

    HF_ASSERT(fault < TLS_HANDSHAKE_FAULT_COUNT);
    stat_add(&door->stats.faults[fault], 1);
    log_event(door->log, LOG_DEBUG, "handshake_failed", "fault=%s text=\"%s\"",
              tls_handshake_fault_label(fault), tls_handshake_text(conn->handshake));
    end_handshake(conn);
    door_say_last(door, slot);
}

static void shake(struct door *door, uint32_t slot, struct door_conn *conn)
{
    if (conn->in.byte_count == 0) {
        door_receive(door, slot);
        return;
    }
    if (conn->handshake == NULL && !begin_handshake(door, conn)) {
        stat_add(&door->stats.faults[TLS_HANDSHAKE_FAULT_NO_MEMORY], 1);
        door_kill(door, slot);
        return;
    }
    switch (step(door, conn)) {
    case TLS_HANDSHAKE_WANT_INPUT:
    case TLS_HANDSHAKE_WANT_ROOM:
        if (conn->out.byte_count != 0) {
            send_out(door, slot);
        } else {
            door_receive(door, slot);
        }
        return;
    case TLS_HANDSHAKE_DONE:
        on_done(door, slot, conn);
        return;
    case TLS_HANDSHAKE_FAILED:
        on_failed(door, slot, conn);
        return;
    }
}

void door_go_on(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    if (conn->state == DOOR_CLOSING) {
        door_leave(door, slot); /* it was queued when it was closed */
        return;
    }
    if (conn->sending) {
        return;
    }
    if (conn->state == DOOR_PROXIED) {
        door_read_proxy_header(door, slot);
    } else if (conn->state == DOOR_SHAKING) {
        shake(door, slot, conn);
    } else if (conn->state == DOOR_HELLO) {
        door_read_hello(door, slot);
    }
}

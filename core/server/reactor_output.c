#include "core/server/reactor_internal.h"

#include "core/base/check.h"
#include "proto/message.h"

void reactor_mark_dirty(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if ((conn->flags & CONN_DIRTY) == 0) {
        conn->flags |= CONN_DIRTY;
        slot_queue_put(&reactor->dirty, slot);
    }
}

void reactor_put_frame(struct reactor *reactor, uint32_t slot, const uint8_t *frame,
                       size_t frame_bytes, bool of_engine)
{
    struct conn *conn = reactor_conn(reactor, slot);

    HF_ASSERT(frame_bytes != 0);
    if (conn->state > CONN_ENDING || (of_engine && conn->state == CONN_ENDING)) {
        return; /* behind ERROR or close_notify comes nothing; the engine doesn't know yet */
    }
    reactor->pools.out.taker = conn_note(reactor, conn, slot);
    if (!link_put_frame(&reactor->pools, &conn->link, frame, frame_bytes, of_engine)) {
        /* A frame can't be left out, so the connection goes; the client resumes at its cursor. */
        stat_add(&reactor->stats.limit_cells, 1);
        reactor_kill(reactor, slot);
        return;
    }
    reactor_mark_dirty(reactor, slot);
}

static void send_bytes(struct reactor *reactor, uint32_t slot, struct conn *conn,
                       const uint8_t *bytes, size_t byte_count)
{
    ring_send(conn_ring(reactor, conn), conn->file, bytes, (uint32_t)byte_count,
              ring_tag(OP_SEND, slot, slab_generation(&reactor->conns, slot)));
}

static void put_pong(struct reactor *reactor, uint32_t slot, struct conn *conn)
{
    uint8_t frame[PING_FRAME_BYTES];
    const struct message_ping pong = { conn->pong_opaque };
    const size_t frame_size = message_encode_pong(frame, sizeof frame, &pong);

    conn->flags &= (uint16_t)~CONN_PONG_DUE;
    reactor_put_frame(reactor, slot, frame, frame_size, false);
}

static void seal_and_send(struct reactor *reactor, uint32_t slot)
{
    struct conn *conn = reactor_conn(reactor, slot);

    if (conn->state > CONN_ENDING || conn->link.sending) {
        return;
    }
    /* Also to a client that ended in peace: it may have asked before it did. */
    if ((conn->flags & CONN_PONG_DUE) != 0 && conn->error == 0) {
        put_pong(reactor, slot, conn);
        if (conn->state > CONN_ENDING) {
            return; /* there was no room for it */
        }
    }
    if (!link_has_output(&conn->link)) {
        if (conn->state == CONN_ENDING) {
            reactor_go_on_ending(reactor, slot);
        }
        return;
    }

    size_t sealed_bytes;
    const uint8_t *sealed = link_seal(&reactor->pools, &conn->link, &sealed_bytes);

    if (sealed == NULL) {
        reactor_kill(reactor, slot);
        return;
    }
    conn->sending_since_s = reactor->now_s;
    stat_add(&reactor->stats.records_sent, 1);
    send_bytes(reactor, slot, conn, sealed, sealed_bytes);
}

void reactor_send_dirty(struct reactor *reactor)
{
    for (;;) {
        const uint32_t slot = slot_queue_take(&reactor->dirty);

        if (slot == SLAB_NONE) {
            return;
        }
        reactor_conn(reactor, slot)->flags &= (uint16_t)~CONN_DIRTY;
        seal_and_send(reactor, slot);
    }
}

void reactor_on_send(struct reactor *reactor, struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct conn *conn = slab_find(&reactor->conns, slot, ring_tag_generation(event->tag));
    size_t engine_bytes = 0;

    if (conn == NULL) {
        return;
    }
    if (conn->state == CONN_CLOSING) {
        return; /* its cells go with the close */
    }
    if (event->result < 0) {
        reactor_kill(reactor, slot);
        return;
    }
    stat_add(&reactor->stats.bytes_sent, (uint64_t)event->result);
    if (!link_sent(&reactor->pools, &conn->link, (size_t)event->result, &engine_bytes)) {
        size_t rest_bytes;
        const uint8_t *rest = link_unsent(&reactor->pools, &conn->link, &rest_bytes);

        conn->sending_since_s = reactor->now_s;
        send_bytes(reactor, slot, conn, rest, rest_bytes);
        return;
    }
    if (engine_bytes != 0 && conn->state == CONN_LIVE) {
        engine_on_sent(reactor->engine, conn_ref_of(reactor, slot), engine_bytes);
        reactor_take_effects(reactor);
    }
    if (conn->link.out_bytes[0] != 0 || (conn->flags & CONN_PONG_DUE) != 0 ||
        conn->state == CONN_ENDING) {
        reactor_mark_dirty(reactor, slot);
    }
}

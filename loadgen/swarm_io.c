/* Completions of a swarm's rings: bytes in, bytes out, ends. */
#include <errno.h>
#include <string.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/ring_ops.h"
#include "loadgen/swarm_internal.h"

static void end_by(struct swarm *swarm, uint32_t client, enum client_verdict verdict)
{
    if (verdict == CLIENT_GOES_ON) {
        return;
    }
    if (verdict == CLIENT_NO_CELL) {
        swarm->crowd.counts.cells_short++;
    }
    swarm_lose(swarm, client);
}

void swarm_flush(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];
    const uint8_t *bytes;
    size_t byte_count;

    if ((one->state != CLIENT_LIVE && one->state != CLIENT_LEAVING) ||
        (one->flags & CLIENT_SENDING) != 0 || one->shake != CLIENT_SHAKE_NONE) {
        return;
    }
    if ((one->flags & CLIENT_BYE_PUT) != 0) {
        swarm_lose(swarm, client); /* BYE is out */
        return;
    }

    const enum client_verdict verdict = client_output(&swarm->crowd, one, &bytes, &byte_count);

    if (verdict != CLIENT_GOES_ON) {
        end_by(swarm, client, verdict);
        return;
    }
    /* Also for what came in: the timer is one store to put off. */
    timers_set(&swarm->timers, client, client_timer_ns(&swarm->crowd, one));
    if (bytes != NULL) {
        ring_send(swarm_ring(swarm, client), swarm_file(swarm, client), bytes, (uint32_t)byte_count,
                  swarm_tag(swarm, SWARM_OP_SEND, client));
    }
}

static enum client_verdict take_frames(struct swarm *swarm, struct client *one,
                                       struct link_input *input)
{
    struct link_pools *pools = &swarm->crowd.pools;
    struct frame_view view;
    struct tls_opened opened;

    for (;;) {
        switch (link_input_next(pools, &one->link, input, &view, &opened)) {
        case LINK_NEXT_FRAME: {
            const enum client_verdict verdict = client_on_frame(&swarm->crowd, one, &view);
            if (verdict != CLIENT_GOES_ON) {
                return verdict;
            }
            break;
        }
        case LINK_NEXT_NONE:
            return link_input_end(pools, &one->link, input) ? CLIENT_GOES_ON : CLIENT_NO_CELL;
        case LINK_NEXT_CLOSED:
            return CLIENT_ENDS;
        case LINK_NEXT_TLS_FAULT:
        case LINK_NEXT_TOO_LARGE:
            ledger_note(&swarm->crowd.ledger, LEDGER_PROTOCOL, LEDGER_OWN,
                        client_index(&swarm->crowd, one), 0);
            return CLIENT_ENDS;
        case LINK_NEXT_NO_ROOM:
            return CLIENT_NO_CELL;
        }
    }
}

void swarm_on_received(struct swarm *swarm, uint32_t client, uint8_t *received, size_t byte_count)
{
    struct client *one = &swarm->crowd.clients[client];
    struct link_input input;

    if (link_input_begin(&swarm->crowd.pools, &one->link, received, byte_count, &input) !=
        LINK_NEXT_NONE) {
        end_by(swarm, client, CLIENT_NO_CELL);
        return;
    }

    const enum client_verdict verdict = take_frames(swarm, one, &input);

    if (verdict != CLIENT_GOES_ON) {
        end_by(swarm, client, verdict);
        return;
    }
    if (swarm->flood && one->state == CLIENT_LIVE) {
        one->flags |= CLIENT_AT_ONCE; /* logged in: that was all */
        swarm_lose(swarm, client);
        return;
    }
    swarm_flush(swarm, client);
}

static void receive(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];

    if ((one->flags & CLIENT_RECEIVING) != 0 || one->state == CLIENT_CLOSING) {
        return;
    }
    one->flags |= CLIENT_RECEIVING;
    ring_recv(swarm_ring(swarm, client), swarm_file(swarm, client), RING_GROUP_BUFFER_GROUP,
              swarm_tag(swarm, SWARM_OP_RECV, client));
}

static void on_poll(struct swarm *swarm, uint32_t client, const struct ring_event *event)
{
    if (swarm->crowd.clients[client].state == CLIENT_CLOSING) {
        return;
    }
    if (!ring_event_more(event)) {
        ring_poll(swarm_ring(swarm, client), swarm_file(swarm, client),
                  swarm_tag(swarm, SWARM_OP_POLL, client));
    }
    receive(swarm, client);
}

static void on_recv(struct swarm *swarm, uint32_t client, const struct ring_event *event)
{
    struct client *one = &swarm->crowd.clients[client];
    struct recv_buffers *buffers = &swarm->group.recv_buffers[event->ring];

    one->flags &= (uint16_t)~CLIENT_RECEIVING;
    if ((event->flags & IORING_CQE_F_BUFFER) != 0) {
        uint16_t buffer;
        uint8_t *bytes = recv_buffers_take(buffers, event, &buffer);

        if (one->state == CLIENT_CLOSING || event->result <= 0) {
            /* too late */
        } else if (one->shake != CLIENT_SHAKE_NONE &&
                   !shakes_get(&swarm->shakes, one->shake)->over) {
            swarm_on_shake_received(swarm, client, bytes, (size_t)event->result);
        } else {
            swarm_on_received(swarm, client, bytes, (size_t)event->result);
        }
        recv_buffers_give(buffers, buffer);
    }
    if (event->result == 0 || (event->result < 0 && event->result != -EAGAIN &&
                               event->result != -ENOBUFS && event->result != -EINTR)) {
        swarm->crowd.counts.shake_failed += one->state == CLIENT_DIALING ? 1 : 0;
        swarm->crowd.counts.login_refused += one->state == CLIENT_GREETING ? 1 : 0;
        swarm_lose(swarm, client);
    } else if (ring_recv_again(event) || event->result == -ENOBUFS || event->result == -EINTR) {
        receive(swarm, client);
    }
}

static void on_send(struct swarm *swarm, uint32_t client, int32_t result)
{
    struct client *one = &swarm->crowd.clients[client];
    size_t rest_bytes;

    if (one->state == CLIENT_CLOSING) {
        return;
    }
    if (one->shake != CLIENT_SHAKE_NONE) {
        swarm_on_shake_sent(swarm, client, result);
        return;
    }
    if (result <= 0) {
        swarm_lose(swarm, client);
        return;
    }
    const uint8_t *rest = client_sent(&swarm->crowd, one, (size_t)result, &rest_bytes);

    if (rest == NULL) {
        swarm_flush(swarm, client);
        return;
    }
    ring_send(swarm_ring(swarm, client), swarm_file(swarm, client), rest, (uint32_t)rest_bytes,
              swarm_tag(swarm, SWARM_OP_SEND, client));
}

/* Everything in flight has completed: memory and place are free again. */
static void on_closed(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];

    HF_ASSERT(one->state == CLIENT_CLOSING);
    client_drop(&swarm->crowd, one);
    if (one->shake != CLIENT_SHAKE_NONE) {
        shakes_give(&swarm->shakes, one->shake);
        one->shake = CLIENT_SHAKE_NONE;
    }
    one->flags &= (uint16_t)~CLIENT_RECEIVING;
    one->generation = (one->generation + 1) & 0xffffffU;
    one->state = CLIENT_AWAY;
    if ((one->flags & CLIENT_WANTED) == 0) {
        return;
    }
    if ((one->flags & CLIENT_AT_ONCE) != 0) {
        swarm_enqueue(swarm, client);
        return;
    }
    swarm->random = id_mix(swarm->random + client);
    timers_set(&swarm->timers, client,
               swarm->crowd.now_ns +
                   client_back_off_ns(one, swarm->options.common->back_off_max_s, swarm->random));
}

/* Of a connection that is closed: only its buffer is still ours. */
static void drop_late(struct swarm *swarm, const struct ring_event *event)
{
    if ((event->flags & IORING_CQE_F_BUFFER) != 0) {
        struct recv_buffers *buffers = &swarm->group.recv_buffers[event->ring];
        uint16_t buffer;

        if (recv_buffers_take(buffers, event, &buffer) != NULL) {
            recv_buffers_give(buffers, buffer);
        }
    }
}

void swarm_on_event(struct swarm *swarm, const struct ring_event *event)
{
    const uint32_t client = ring_tag_slot(event->tag);
    struct client *one = &swarm->crowd.clients[client];

    HF_ASSERT(client < swarm->crowd.count);
    if (ring_tag_generation(event->tag) != one->generation) {
        drop_late(swarm, event);
        return;
    }
    swarm->crowd.now_ns = clock_now_ns(); /* a turn may take long, and latencies are measured */
    switch ((enum swarm_op)ring_tag_op(event->tag)) {
    case SWARM_OP_CONNECT:
        if (one->state == CLIENT_DIALING) {
            swarm_on_connected(swarm, client, event->result);
        }
        break;
    case SWARM_OP_POLL:
        on_poll(swarm, client, event);
        break;
    case SWARM_OP_RECV:
        on_recv(swarm, client, event);
        break;
    case SWARM_OP_SEND:
        on_send(swarm, client, event->result);
        break;
    case SWARM_OP_CLOSE:
        on_closed(swarm, client);
        break;
    }
}

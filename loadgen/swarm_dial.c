/* From a client that wants to log in to one that has said HELLO. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/ring_ops.h"
#include "core/token/token.h"
#include "loadgen/swarm_internal.h"

#define LOGIN_TOKEN_BYTES_MAX 1024
#define LOGIN_TOKEN_LIFE_S    86400

void swarm_enqueue(struct swarm *swarm, uint32_t client)
{
    const uint32_t capacity = swarm->crowd.count;

    if ((swarm->crowd.clients[client].flags & CLIENT_QUEUED) != 0) {
        return;
    }
    swarm->crowd.clients[client].flags |= CLIENT_QUEUED;
    HF_ASSERT(swarm->queue_count < capacity);
    swarm->queue[(swarm->queue_first + swarm->queue_count) % capacity] = client;
    swarm->queue_count++;
}

static uint32_t dequeue(struct swarm *swarm)
{
    const uint32_t client = swarm->queue[swarm->queue_first];

    swarm->queue_first = (swarm->queue_first + 1) % swarm->crowd.count;
    swarm->queue_count--;
    swarm->crowd.clients[client].flags &= (uint16_t)~CLIENT_QUEUED;
    return client;
}

/* Opens the socket, puts it into the file table, lets go of the plain descriptor: RLIMIT_NOFILE
 * bounds descriptors, not connections. */
static int place_socket(struct swarm *swarm, uint32_t client)
{
    const int fd = dial_socket(&swarm->options.common->dial, swarm->options.first_client + client);

    if (fd < 0) {
        return fd;
    }

    const int result = ring_put_file(swarm_ring(swarm, client), fd, swarm_file(swarm, client));

    (void)close(fd);
    return result;
}

static void again_later(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];

    one->state = CLIENT_AWAY;
    if ((one->flags & CLIENT_WANTED) != 0) {
        swarm->random = id_mix(swarm->random + client);
        timers_set(&swarm->timers, client,
                   swarm->crowd.now_ns + client_back_off_ns(one,
                                                            swarm->options.common->back_off_max_s,
                                                            swarm->random));
    }
}

static void dial_one(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];
    const struct dial *dial = &swarm->options.common->dial;

    HF_ASSERT(one->state == CLIENT_AWAY && one->shake == CLIENT_SHAKE_NONE);
    if (place_socket(swarm, client) < 0) {
        swarm->crowd.counts.dial_refused++;
        again_later(swarm, client);
        return;
    }
    one->shake = shakes_take(&swarm->shakes, client);
    one->state = CLIENT_DIALING;
    one->flags &= (uint16_t)~CLIENT_AT_ONCE;
    timers_set(&swarm->timers, client, swarm->crowd.now_ns + SWARM_DIAL_TIMEOUT_NS);
    ring_connect(swarm_ring(swarm, client), swarm_file(swarm, client),
                 (const struct sockaddr *)&dial->server, dial->server_bytes,
                 swarm_tag(swarm, SWARM_OP_CONNECT, client));
}

uint64_t swarm_dial(struct swarm *swarm)
{
    const struct swarm_common *common = swarm->options.common;
    const uint64_t now_ns = swarm->crowd.now_ns;

    while (swarm->queue_count > 0 && swarm->shakes.free_count > 0) {
        if (common->connect_rate > 0) {
            if (swarm->dial_next_ns > now_ns) {
                return swarm->dial_next_ns;
            }
            /* A pause isn't made up for by a burst. */
            const uint64_t interval_ns =
                CLOCK_NS_PER_S * common->swarm_count / common->connect_rate;
            const uint64_t since_ns = now_ns > 10 * interval_ns ? now_ns - 10 * interval_ns : 0;
            if (swarm->dial_next_ns < since_ns) {
                swarm->dial_next_ns = since_ns;
            }
            swarm->dial_next_ns += interval_ns;
        }

        const uint32_t client = dequeue(swarm);

        if ((swarm->crowd.clients[client].flags & CLIENT_WANTED) != 0) {
            dial_one(swarm, client);
        }
    }
    return UINT64_MAX; /* a place that gets free wakes us */
}

void swarm_lose(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];

    if (one->state == CLIENT_AWAY || one->state == CLIENT_CLOSING) {
        return;
    }
    if ((one->state == CLIENT_LIVE || one->state == CLIENT_LEAVING) && !swarm->flood &&
        (one->flags & CLIENT_WANTED) != 0 && (one->flags & CLIENT_CHURNED) == 0) {
        swarm->crowd.counts.lost++;
    }
    client_on_lost(&swarm->crowd, one);
    one->state = CLIENT_CLOSING;
    timers_cancel(&swarm->timers, client);
    ring_close_file(swarm_ring(swarm, client), swarm_file(swarm, client),
                    swarm_tag(swarm, SWARM_OP_CLOSE, client));
}

static void send_flight(struct swarm *swarm, uint32_t client, struct shake *shake)
{
    if (shake->sending || shake->out_bytes == shake->out_sent) {
        return;
    }
    shake->sending = true;
    ring_send(swarm_ring(swarm, client), swarm_file(swarm, client), shake->out + shake->out_sent,
              shake->out_bytes - shake->out_sent, swarm_tag(swarm, SWARM_OP_SEND, client));
}

/* HELLO with the resume token, or a log-in token made here. False: no room for it. */
static bool put_hello(struct swarm *swarm, uint32_t client, struct shake *shake)
{
    struct client *one = &swarm->crowd.clients[client];
    const struct swarm_common *common = swarm->options.common;
    char login[LOGIN_TOKEN_BYTES_MAX];
    uint8_t hello[LOGIN_TOKEN_BYTES_MAX + 256];
    const uint8_t *token = one->token;
    size_t token_bytes = one->token_bytes;

    if (token_bytes == 0) {
        const struct token_claims claims = {
            .user = { one->user },
            .device = { client_device(&swarm->crowd, one) },
            .expires_at_unix_s = swarm->now_unix_ms / 1000 + LOGIN_TOKEN_LIFE_S,
        };

        if (token_sign(common->login_key, &claims, common->audience, login, sizeof login,
                       &token_bytes) != TOKEN_OK) {
            return false;
        }
        token = (const uint8_t *)login;
    }

    const size_t hello_bytes =
        client_hello(&swarm->crowd, one, token, token_bytes, hello, sizeof hello);

    return hello_bytes > 0 &&
           shake_seal_hello(shake, &swarm->crowd.tls, &one->link.keys, hello, hello_bytes);
}

/* Works on a handshake that isn't over. */
static void go_on(struct swarm *swarm, uint32_t client, struct shake *shake)
{
    struct client *one = &swarm->crowd.clients[client];
    struct crowd_counts *counts = &swarm->crowd.counts;
    const enum tls_handshake_status status =
        shake_step(&swarm->shakes, shake, &one->link.keys, swarm->now_unix_ms);

    if (status == TLS_HANDSHAKE_FAILED || status == TLS_HANDSHAKE_WANT_ROOM) {
        counts->shake_failed++; /* no flight of ours is as long as the room */
        swarm_lose(swarm, client);
        return;
    }
    if (status == TLS_HANDSHAKE_DONE) {
        counts->full += shake->resumed ? 0 : 1;
        counts->resumed += shake->resumed ? 1 : 0;
        one->state = CLIENT_GREETING;
        if (!put_hello(swarm, client, shake)) {
            counts->cells_short++;
            swarm_lose(swarm, client);
            return;
        }
    }
    send_flight(swarm, client, shake);
}

void swarm_on_connected(struct swarm *swarm, uint32_t client, int32_t result)
{
    struct client *one = &swarm->crowd.clients[client];
    struct shake *shake = shakes_get(&swarm->shakes, one->shake);
    const bool resume = swarm->full_left == 0;

    if (result < 0) {
        swarm->crowd.counts.dial_refused++;
        swarm_lose(swarm, client);
        return;
    }
    if (!resume) {
        swarm->full_left--;
    }
    if (!shake_begin(&swarm->shakes, shake, resume, swarm->now_unix_ms)) {
        swarm->crowd.counts.cells_short++;
        swarm_lose(swarm, client);
        return;
    }
    ring_poll(swarm_ring(swarm, client), swarm_file(swarm, client),
              swarm_tag(swarm, SWARM_OP_POLL, client));
    go_on(swarm, client, shake);
}

/* mbedTLS's part is over: what came behind is the link's. */
static void hand_over(struct swarm *swarm, uint32_t client, struct shake *shake)
{
    struct client *one = &swarm->crowd.clients[client];
    const uint32_t byte_count = shake->in_bytes;

    shake_finish(&swarm->shakes, shake);
    shake->in_bytes = 0;
    shake->over = true;
    swarm_on_received(swarm, client, shake->in, byte_count);
    if (!shake->sending && one->state != CLIENT_CLOSING) {
        one->shake = CLIENT_SHAKE_NONE;
        shakes_give(&swarm->shakes, (uint16_t)(shake - swarm->shakes.places));
        swarm_flush(swarm, client);
    }
}

/* Records before the first data: tickets are mbedTLS's to read. */
static void open_first(struct swarm *swarm, uint32_t client, struct shake *shake)
{
    struct client *one = &swarm->crowd.clients[client];
    struct tls_opened opened;

    while (tls_handshake_wants_ticket(shake->tls)) {
        tls_handshake_open(shake->tls, &swarm->crowd.tls, &one->link.keys, shake->in,
                           shake->in_bytes, swarm->now_unix_ms, &opened);
        if (opened.result == TLS_OPEN_MORE) {
            return;
        }
        if (opened.result == TLS_OPEN_CLOSED || opened.result == TLS_OPEN_FATAL ||
            (opened.result == TLS_OPEN_DATA &&
             !link_keep_plain(&swarm->crowd.pools, &one->link, shake->in + opened.data_offset,
                              opened.data_bytes))) {
            swarm->crowd.counts.shake_failed++;
            swarm_lose(swarm, client);
            return;
        }
        shake_consume(shake, opened.record_bytes);
    }
    hand_over(swarm, client, shake);
}

void swarm_on_shake_received(struct swarm *swarm, uint32_t client, const uint8_t *bytes,
                             size_t byte_count)
{
    struct client *one = &swarm->crowd.clients[client];
    struct shake *shake = shakes_get(&swarm->shakes, one->shake);

    if (!shake_received(shake, bytes, byte_count)) {
        swarm->crowd.counts.shake_failed++;
        swarm_lose(swarm, client);
        return;
    }
    if (!shake->keyed) {
        go_on(swarm, client, shake);
    }
    if (shake->keyed && one->state != CLIENT_CLOSING) {
        open_first(swarm, client, shake);
    }
}

void swarm_on_shake_sent(struct swarm *swarm, uint32_t client, int32_t result)
{
    struct client *one = &swarm->crowd.clients[client];
    struct shake *shake = shakes_get(&swarm->shakes, one->shake);

    shake->sending = false;
    if (result <= 0) {
        swarm->crowd.counts.shake_failed += shake->keyed ? 0 : 1;
        swarm_lose(swarm, client);
        return;
    }
    shake->out_sent += (uint32_t)result;
    if (shake->out_sent == shake->out_bytes) {
        shake->out_sent = 0;
        shake->out_bytes = 0;
    }
    send_flight(swarm, client, shake);
    if (shake->over && !shake->sending) {
        one->shake = CLIENT_SHAKE_NONE;
        shakes_give(&swarm->shakes, (uint16_t)(shake - swarm->shakes.places));
        swarm_flush(swarm, client);
    }
}

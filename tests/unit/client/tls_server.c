#include "tests/unit/client/tls_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/tls/devcert.h"
#include "core/tls/handshake.h"
#include "core/tls/record.h"
#include "core/tls/tickets.h"

enum { BUFFER_BYTES = 1 << 20 };

struct test_server {
    struct model *model;
    struct devcert cert;
    struct devcert stranger;
    struct tls_server *tls;
    struct tls_core core;
    struct tls_ticket_ring *ring;
    char address[64];
    int listener;

    int socket; /* -1: no connection */
    struct tls_handshake *handshake;
    struct tls_keys keys;
    struct model_link link;
    size_t in_bytes;
    size_t plain_bytes;
    size_t out_used;
    size_t out_bytes;
    size_t cut_down;
    size_t cut_up;
    size_t chop;
    size_t down; /* of this connection */
    size_t up;
    size_t total_down;
    size_t total_up;
    unsigned connections;
    unsigned resumed;
    unsigned byes;
    uint8_t in[BUFFER_BYTES];
    uint8_t plain[BUFFER_BYTES];
    uint8_t out[BUFFER_BYTES];
};

static uint64_t unix_ms(void)
{
    return (uint64_t)time(NULL) * 1000;
}

static void make_certificates(struct test_server *server, bool ipv6)
{
    const char *names[] = { "localhost" };
    struct devcert_address address = { .byte_count = ipv6 ? 16 : 4 };
    struct devcert_options options = {
        .ca_name = "test",
        .names = names,
        .name_count = 1,
        .addresses = &address,
        .address_count = 1,
        .now_unix_ms = unix_ms(),
        .days = 2,
    };
    struct hf_error error;

    HF_ASSERT(inet_pton(ipv6 ? AF_INET6 : AF_INET, ipv6 ? "::1" : "127.0.0.1", address.bytes) == 1);
    HF_ASSERT(tls_global_init(&error) == 0);
    HF_ASSERT(devcert_make(&server->cert, &options, &error) == 0);
    HF_ASSERT(devcert_make(&server->stranger, &options, &error) == 0);
}

static void listen_somewhere(struct test_server *server, bool ipv6)
{
    struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr_in four = { .sin_family = AF_INET,
                                .sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };
    struct sockaddr *address = ipv6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t address_bytes = ipv6 ? sizeof six : sizeof four;

    server->listener =
        socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    HF_ASSERT(server->listener >= 0);
    HF_ASSERT(bind(server->listener, address, address_bytes) == 0);
    HF_ASSERT(listen(server->listener, 16) == 0);
    HF_ASSERT(getsockname(server->listener, address, &address_bytes) == 0);
    (void)snprintf(server->address, sizeof server->address, "%s:%u", ipv6 ? "[::1]" : "127.0.0.1",
                   ntohs(ipv6 ? six.sin6_port : four.sin_port));
}

struct test_server *test_server_open(struct model *model, bool ipv6)
{
    struct test_server *server = calloc(1, sizeof *server);
    struct hf_error error;

    HF_ASSERT(server != NULL);
    server->model = model;
    server->socket = -1;
    server->chop = SIZE_MAX;
    server->cut_down = SIZE_MAX;
    server->cut_up = SIZE_MAX;
    server->link.out = malloc(MODEL_OUT_BYTES);
    server->ring = calloc(1, sizeof *server->ring);
    HF_ASSERT(server->link.out != NULL && server->ring != NULL);
    make_certificates(server, ipv6);

    const struct tls_server_options options = {
        .certificate = &server->cert.certificate,
        .key = &server->cert.key,
        .tickets_per_handshake = 1,
    };

    server->tls = tls_server_open(&options, &error);
    HF_ASSERT(server->tls != NULL && tls_core_open(&server->core, 4, &error) == 0);
    tls_tickets_init(server->ring, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    HF_ASSERT(tls_tickets_rotate(server->ring, unix_ms()) == TLS_TICKETS_CHANGED);
    tls_server_set_tickets(server->tls, server->ring);
    listen_somewhere(server, ipv6);
    return server;
}

static void drop(struct test_server *server)
{
    if (server->socket >= 0) {
        tls_handshake_end(server->handshake);
        server->handshake = NULL;
        tls_keys_clear(&server->core, &server->keys);
        HF_ASSERT(close(server->socket) == 0);
        server->socket = -1;
    }
}

void test_server_close(struct test_server *server)
{
    drop(server);
    HF_ASSERT(close(server->listener) == 0);
    tls_server_close(server->tls);
    tls_core_close(&server->core);
    devcert_free(&server->cert);
    devcert_free(&server->stranger);
    free(server->ring);
    free(server->link.out);
    free(server);
}

static bool take_connection(struct test_server *server)
{
    const int accepted = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (accepted < 0) {
        return false;
    }
    drop(server); /* fenced */
    server->socket = accepted;
    server->handshake = tls_handshake_accept(server->tls);
    HF_ASSERT(server->handshake != NULL);
    server->in_bytes = 0;
    server->plain_bytes = 0;
    server->out_used = 0;
    server->out_bytes = 0;
    server->down = 0;
    server->up = 0;
    server->connections++;
    model_connect(server->model, &server->link);
    return true;
}

/* ---- bytes */

static bool receive(struct test_server *server)
{
    size_t room = sizeof server->in - server->in_bytes;

    if (server->cut_up != SIZE_MAX && room > server->cut_up - server->up) {
        room = server->cut_up - server->up;
    }
    if (room == 0) {
        drop(server);
        return true;
    }

    const ssize_t got = recv(server->socket, server->in + server->in_bytes, room, 0);

    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        drop(server);
        return true;
    }
    if (got < 0) {
        return false;
    }
    server->in_bytes += (size_t)got;
    server->up += (size_t)got;
    server->total_up += (size_t)got;
    return true;
}

static bool transmit(struct test_server *server)
{
    size_t count = server->out_bytes - server->out_used;

    if (count > server->chop) {
        count = server->chop;
    }
    if (server->cut_down != SIZE_MAX && count >= server->cut_down - server->down) {
        count = server->cut_down - server->down;
    }
    if (count > 0) {
        const ssize_t sent =
            send(server->socket, server->out + server->out_used, count, MSG_NOSIGNAL);

        if (sent < 0) {
            return false;
        }
        server->out_used += (size_t)sent;
        server->down += (size_t)sent;
        server->total_down += (size_t)sent;
    }
    if (server->cut_down != SIZE_MAX && server->down == server->cut_down) {
        drop(server);
        return true;
    }
    return count > 0;
}

/* ---- TLS */

static bool shake(struct test_server *server)
{
    struct tls_handshake_io io = {
        .in = server->in,
        .in_bytes = server->in_bytes,
        .out = server->out,
        .out_capacity = sizeof server->out,
        .out_bytes = server->out_bytes,
        .now_unix_ms = unix_ms(),
    };

    if (server->in_bytes == 0) {
        return false;
    }

    const enum tls_handshake_status status = tls_handshake_step(server->handshake, &io);

    memmove(server->in, server->in + io.in_used, server->in_bytes - io.in_used);
    server->in_bytes -= io.in_used;
    server->out_bytes = io.out_bytes;
    if (status == TLS_HANDSHAKE_FAILED) {
        while (server->socket >= 0 && server->out_used < server->out_bytes && transmit(server)) {
        }
        drop(server);
    } else if (status == TLS_HANDSHAKE_DONE) {
        server->resumed += tls_handshake_resumed(server->handshake);
        tls_handshake_take_keys(server->handshake, &server->keys);
        tls_handshake_end(server->handshake);
        server->handshake = NULL;
    }
    return true;
}

static void take_frames(struct test_server *server)
{
    struct frame_view view;

    while (frame_parse(server->plain, server->plain_bytes, &view) == FRAME_OK) {
        const size_t count = frame_bytes(&view);

        server->byes += view.type == FRAME_TYPE_BYE;
        model_input(server->model, &server->link, &view);
        server->plain_bytes -= count;
        memmove(server->plain, server->plain + count, server->plain_bytes);
    }
}

static bool open_records(struct test_server *server)
{
    bool did = false;

    for (;;) {
        struct tls_opened opened;

        tls_record_open(&server->core, &server->keys, server->in, server->in_bytes, &opened);
        if (opened.result == TLS_OPEN_MORE) {
            return did;
        }
        did = true;
        if (opened.result == TLS_OPEN_CLOSED || opened.result == TLS_OPEN_FATAL) {
            drop(server);
            return true;
        }
        if (opened.result == TLS_OPEN_DATA) {
            memcpy(server->plain + server->plain_bytes, server->in + opened.data_offset,
                   opened.data_bytes);
            server->plain_bytes += opened.data_bytes;
            take_frames(server);
        }
        server->in_bytes -= opened.record_bytes;
        memmove(server->in, server->in + opened.record_bytes, server->in_bytes);
    }
}

static bool seal_output(struct test_server *server)
{
    model_push(server->model, &server->link);

    size_t count = server->link.out_bytes;

    if (count == 0) {
        return false;
    }
    if (count > TLS_PLAINTEXT_BYTES_MAX) {
        count = TLS_PLAINTEXT_BYTES_MAX;
    }
    if (server->out_used == server->out_bytes) {
        server->out_used = 0;
        server->out_bytes = 0;
    }

    const struct iovec part = { .iov_base = server->link.out, .iov_len = count };
    const size_t sealed =
        tls_record_seal(&server->core, &server->keys, &part, 1, server->out + server->out_bytes,
                        sizeof server->out - server->out_bytes);

    HF_ASSERT(sealed > 0);
    server->out_bytes += sealed;
    model_take(&server->link, count);
    return true;
}

bool test_server_step(struct test_server *server)
{
    bool did = take_connection(server);

    if (server->socket >= 0) {
        did = receive(server) || did;
    }
    if (server->socket >= 0 && server->handshake != NULL) {
        did = shake(server) || did;
    }
    if (server->socket >= 0 && server->handshake == NULL) {
        did = open_records(server) || did;
    }
    if (server->socket >= 0 && server->handshake == NULL) {
        did = seal_output(server) || did;
    }
    if (server->socket >= 0) {
        did = transmit(server) || did;
    }
    if (server->socket >= 0 && server->link.closed && server->link.out_bytes == 0 &&
        server->out_used == server->out_bytes) {
        drop(server);
        did = true;
    }
    return did;
}

/* ---- knobs and dials */

const char *test_server_address(const struct test_server *server)
{
    return server->address;
}

const char *test_server_ca(const struct test_server *server)
{
    return (const char *)server->cert.ca_certificate.bytes;
}

const char *test_server_stranger(const struct test_server *server)
{
    return (const char *)server->stranger.ca_certificate.bytes;
}

void test_server_cut_after(struct test_server *server, size_t down_bytes, size_t up_bytes)
{
    server->cut_down = down_bytes;
    server->cut_up = up_bytes;
}

void test_server_chop(struct test_server *server, size_t byte_count)
{
    server->chop = byte_count;
}

size_t test_server_down(const struct test_server *server)
{
    return server->total_down;
}

size_t test_server_up(const struct test_server *server)
{
    return server->total_up;
}

unsigned test_server_connections(const struct test_server *server)
{
    return server->connections;
}

unsigned test_server_resumed(const struct test_server *server)
{
    return server->resumed;
}

unsigned test_server_byes(const struct test_server *server)
{
    return server->byes;
}

/*
 * fixture: a server, a client and bytes in memory between them, for the tests of core/tls.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/tls/devcert.h"
#include "core/tls/handshake.h"
#include "core/tls/record.h"
#include "core/tls/tickets.h"

#define FIXTURE_NOW_UNIX_MS UINT64_C(1764000000000)
#define FIXTURE_NAME        "chat.example"

struct fixture {
    struct devcert cert;
    struct tls_ticket_ring ring;
    struct tls_server *server;
    struct tls_client *client;
    struct tls_core core;
    uint64_t now_unix_ms;     /* the server's clock */
    uint64_t client_ahead_ms; /* of it, the client's */
    bool server_psk_ke;
};

struct fixture_options {
    unsigned tickets;
    uint16_t suite; /* the client's; 0: any */
    bool server_psk_ke;
    bool client_psk_ke;
};

/* Certificates are made once a process: they cost more than the tests. */
struct fixture *fixture_open(struct fixture_options options);
void fixture_close(struct fixture *fixture);

/* The server as after a restart: a new one with the same certificate, and the ring given. */
void fixture_restart_server(struct fixture *fixture, unsigned tickets,
                            const struct tls_ticket_ring *ring);

/* Bytes on their way, in order. */
struct wire {
    uint8_t bytes[1 << 17];
    size_t used; /* taken from the front */
    size_t filled;
};

void wire_put(struct wire *wire, const void *bytes, size_t byte_count);
uint8_t *wire_front(struct wire *wire, size_t *byte_count);
void wire_take(struct wire *wire, size_t byte_count);

/* One end of a connection between our client and our server. */
struct end {
    struct tls_handshake *handshake;
    enum tls_handshake_status status;
    struct tls_keys keys;
    bool resumed;
    bool lacks_exchange; /* the server knows */
    struct wire in;
};

struct link {
    struct end client;
    struct end server;
};

/*
 * Steps one handshake with what lies in its wire, at most `chunk` bytes at a time, and appends what
 * comes out to `to`.
 */
enum tls_handshake_status end_step(struct end *end, struct wire *to, size_t chunk,
                                   uint64_t now_unix_ms);

/* A whole handshake; both ends' keys are taken, the server's handshake has ended. Asserts DONE. */
struct link *link_open(struct fixture *fixture, const uint8_t *session, size_t session_bytes,
                       size_t chunk);
void link_close(struct fixture *fixture, struct link *link);

/* Opens what the client has in its wire until data or nothing is left; the last result. */
enum tls_open_result link_client_read(struct fixture *fixture, struct link *link,
                                      struct tls_opened *opened, uint8_t *data);

/* The client's session after reading its ticket; 0 if there is none. */
size_t link_session(struct fixture *fixture, struct link *link, uint8_t *out, size_t capacity);

/* Bytes of a hexadecimal text, whose length is asserted to fit. */
size_t hex_decode(const char *text, uint8_t *out, size_t capacity);

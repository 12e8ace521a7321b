/*
 * handshake: TLS 1.3 handshakes, server's and client's, by mbedTLS over the caller's bytes.
 *
 * Purpose  Feed the bytes that arrived, send the bytes that come out, until DONE; then take the
 *          keys (record.h), free the 42 KB context, and go on with the record layer.
 * Owner    One struct tls_server per door thread, one struct tls_client per client thread; each has
 *          its own random generator, configuration and copy of certificate and key. A struct
 *          tls_handshake belongs to one connection and must end before its server or client.
 * Thread   The owner's only; no lock of ours. Public-key cryptography (1 ms): never in a reactor.
 * Memory   About 42 KB a handshake in progress, freed and zeroed by tls_handshake_end. The caller
 *          bounds how many there are, and for how long.
 * Units    Wall clock in Unix ms, passed in: tickets outlive a reboot.
 * Errors   Set-up: struct hf_error. A handshake: enum tls_handshake_fault and a line of text; the
 *          alert, where one is due, is already among the bytes to send.
 * Policy   TLS 1.3 only; suites AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305; groups P-256, X25519;
 *          ALPN "holdfast/1" demanded by both sides; resumption by psk_dhe_ke, and by psk_ke only
 *          where both ends were told to; no early data.
 * Source   RFC 8446, RFC 7301 (ALPN), RFC 6066 3 (server name).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/tls/pem.h"
#include "core/tls/record.h"
#include "core/tls/tickets.h"

#define TLS_ALPN "holdfast/1"

enum {
    TLS_SERVER_NAME_BYTES_MAX = 255,
    TLS_SESSION_BYTES_MAX = 4096,
    TLS_TICKETS_PER_HANDSHAKE_MAX = 4,
    TLS_HANDSHAKE_OUT_BYTES = 4096,       /* holds a whole flight of ours with a short chain */
    TLS_HANDSHAKE_IN_BYTES_MAX = 1 << 16, /* a peer that sends more is refused */
};

/* Once a process, before any thread uses this room; again, in one thread, is harmless. 0 or -1. */
int tls_global_init(struct hf_error *error) __attribute__((warn_unused_result));

/* "Mbed TLS 3.6.6": of the library that runs. After tls_global_init. */
const char *tls_library_version(void);

/* ---- server */

struct tls_server;

struct tls_server_options {
    const struct tls_pem *certificate; /* chain, leaf first */
    const struct tls_pem *key;         /* fits the leaf: checked */
    unsigned tickets_per_handshake;    /* 0 to 4; after a resumption one at most */
    /* Clients may resume without a Diffie-Hellman exchange. One that offers both resumes with it. */
    bool psk_ke;
};

/* NULL: see error. The PEM texts aren't needed any more afterwards. */
struct tls_server *tls_server_open(const struct tls_server_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
void tls_server_close(struct tls_server *server);

/* Gives the server its copy of the ring. Without one it sends no tickets and accepts none. */
void tls_server_set_tickets(struct tls_server *server, const struct tls_ticket_ring *ring);

/* ---- client */

struct tls_client;

struct tls_client_options {
    const struct tls_pem *ca; /* the authorities that the server's chain must end in */
    uint16_t suite;           /* enum aead_suite; 0: any of the three */
    bool insecure;            /* checks no certificate: a load generator's only; `ca` may be NULL */
    bool psk_ke;              /* resumes by psk_ke only: no forward secrecy then */
};

struct tls_client *tls_client_open(const struct tls_client_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
void tls_client_close(struct tls_client *client);

/* ---- handshakes */

struct tls_handshake;

/* NULL: no memory. */
struct tls_handshake *tls_handshake_accept(struct tls_server *server)
    __attribute__((warn_unused_result));

/*
 * server_name: the DNS name or address that the certificate must name; sent as SNI. session: what
 * tls_handshake_session once gave, or NULL; one that is damaged, stale or doesn't fit is ignored.
 * NULL: no memory, or a server_name of more than 255 bytes.
 */
struct tls_handshake *tls_handshake_connect(struct tls_client *client, const char *server_name,
                                            const uint8_t *session, size_t session_bytes,
                                            uint64_t now_unix_ms)
    __attribute__((warn_unused_result));

/* Frees and zeroes all; NULL is ignored. The keys that were taken stay good. */
void tls_handshake_end(struct tls_handshake *handshake);

enum tls_handshake_status {
    TLS_HANDSHAKE_WANT_INPUT, /* all input used: send `out`, call again with more */
    TLS_HANDSHAKE_WANT_ROOM,  /* `out` is full: send it, call again */
    TLS_HANDSHAKE_DONE,       /* send `out`, take the keys */
    TLS_HANDSHAKE_FAILED,     /* send `out` (an alert, perhaps), close */
};

struct tls_handshake_io {
    const uint8_t *in;
    size_t in_bytes;
    size_t in_used; /* in: 0, or bytes used already; out: more. The rest stays with the caller: it
                       is the record layer's first input */
    uint8_t *out;
    size_t out_capacity;
    size_t out_bytes; /* in: bytes already there; out: more, appended. Send them in one go */
    uint64_t now_unix_ms;
};

/* A client calls it once without input to begin. Not again after DONE or FAILED. */
enum tls_handshake_status tls_handshake_step(struct tls_handshake *handshake,
                                             struct tls_handshake_io *io)
    __attribute__((warn_unused_result));

/* name, metric label, text */
#define TLS_HANDSHAKE_FAULTS(X)                                                                    \
    X(NONE, none, "no fault")                                                                      \
    X(NO_ALPN, no_alpn, "the peer doesn't offer " TLS_ALPN)                                        \
    X(VERSION, version, "the peer doesn't speak TLS 1.3")                                          \
    X(NO_COMMON, no_common, "no cipher suite, group or signature in common")                       \
    X(CERTIFICATE, certificate, "the server's certificate isn't trusted")                          \
    X(PEER_ALERT, peer_alert, "alert from the peer")                                               \
    X(MALFORMED, malformed, "malformed or unexpected message")                                     \
    X(TOO_LONG, too_long, "more handshake bytes than allowed")                                     \
    X(NO_MEMORY, no_memory, "no memory")                                                           \
    X(INTERNAL, internal, "internal error")

enum tls_handshake_fault {
#define TLS_HANDSHAKE_FAULT_ENUM(name, label, text) TLS_HANDSHAKE_FAULT_##name,
    TLS_HANDSHAKE_FAULTS(TLS_HANDSHAKE_FAULT_ENUM)
#undef TLS_HANDSHAKE_FAULT_ENUM
        TLS_HANDSHAKE_FAULT_COUNT
};

enum tls_handshake_fault tls_handshake_fault(const struct tls_handshake *handshake);
const char *tls_handshake_fault_label(enum tls_handshake_fault fault);

/* One line: what went wrong, with mbedTLS's number or why a certificate was refused. */
const char *tls_handshake_text(const struct tls_handshake *handshake);

/* After DONE, once: hands the connection's keys over and forgets them here. */
void tls_handshake_take_keys(struct tls_handshake *handshake, struct tls_keys *keys);

/* After DONE: whether the handshake was a resumption. */
bool tls_handshake_resumed(const struct tls_handshake *handshake);

/* Of a server's that is done: whether its keys come from a ticket's secret alone (psk_ke). */
bool tls_handshake_lacks_exchange(const struct tls_handshake *handshake);

/* Server: the name in the last ClientHello, as sent, or "" if it had none. */
const char *tls_handshake_server_name(const struct tls_handshake *handshake);

/*
 * A client, after take_keys: opens as tls_record_open does, and shows mbedTLS each ticket on the
 * way. Use it until tls_handshake_wants_ticket is false, then end the handshake and go on with
 * tls_record_open; ending earlier costs nothing but the ticket.
 */
void tls_handshake_open(struct tls_handshake *handshake, struct tls_core *core,
                        struct tls_keys *keys, uint8_t *bytes, size_t byte_count,
                        uint64_t now_unix_ms, struct tls_opened *opened);

/* False once a ticket or application data has come. */
bool tls_handshake_wants_ticket(const struct tls_handshake *handshake);

/*
 * The session to resume later, as opaque bytes that hold secrets: keep them in a 0600 file. Good
 * once; 0: no ticket has come, or it is longer than `capacity`.
 */
size_t tls_handshake_session(const struct tls_handshake *handshake, uint8_t *out, size_t capacity)
    __attribute__((warn_unused_result));

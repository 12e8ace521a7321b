/*
 * transport: one connection to a server: name, socket, TLS, bytes.
 *
 * Purpose  Dials each address that the name has until one answers, shakes hands, then reads and
 *          writes plaintext. Nothing waits but the name service, in transport_dial; the caller
 *          polls the descriptor.
 * Owner    A struct transport holds socket, keys and buffers; transport_hang_up ends a connection,
 *          and the next one may be dialled.
 * Thread   One at a time.
 * Memory   About 110 KB, allocated when it is opened; 42 KB more during a handshake.
 * Units    `now_ms` monotonic, `now_unix_ms` wall clock.
 * Errors   TRANSPORT_FAILED and transport_text, one line; after it only hang_up, dial and close.
 * Source   RFC 8446 by core/tls; the order of addresses is getaddrinfo's (RFC 6724).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

enum {
    TRANSPORT_HOST_BYTES_MAX = 255,
    TRANSPORT_PORT_BYTES_MAX = 7,
    TRANSPORT_OUT_BYTES = 1 << 16,
};

/* From dialling to the end of the handshake; and for one of several addresses to answer. */
#define TRANSPORT_CONNECT_MS UINT64_C(15000)
#define TRANSPORT_ADDRESS_MS UINT64_C(4000)

enum transport_status {
    TRANSPORT_DOWN,
    TRANSPORT_CONNECTING,
    TRANSPORT_HANDSHAKING,
    TRANSPORT_UP,
    TRANSPORT_FAILED,
};

struct transport;

/* `ca`: PEM text of the authorities that the server's chain must end in. NULL: see error. */
struct transport *transport_open(const char *ca, struct hf_error *error)
    __attribute__((warn_unused_result));
void transport_close(struct transport *transport);

/*
 * "host:port", "host", "[::1]:port" or "::1" into its parts; a missing port is `port`'s old value.
 * False: it is none of these.
 */
bool transport_split(const char *server, char host[TRANSPORT_HOST_BYTES_MAX + 1],
                     char port[TRANSPORT_PORT_BYTES_MAX + 1]) __attribute__((warn_unused_result));

/* Begins. `session` (may be NULL) is one that transport_session once gave. Blocks for the name. */
void transport_dial(struct transport *transport, const char *host, const char *port,
                    const uint8_t *session, size_t session_bytes, uint64_t now_ms);

/* The same over a connected, non-blocking socket, which it takes over. For tests, and tunnels. */
void transport_adopt(struct transport *transport, int descriptor, const char *host,
                     const uint8_t *session, size_t session_bytes, uint64_t now_ms);

/* Goes on with what the socket allows: connects, shakes hands, flushes. */
enum transport_status transport_step(struct transport *transport, uint64_t now_ms,
                                     uint64_t now_unix_ms);

enum transport_status transport_status(const struct transport *transport);

/*
 * What came: bytes, 0 (none now), or -1: the server closed (TRANSPORT_FAILED). `room`: at least
 * 16,384, or bytes may have to wait for another call.
 */
ptrdiff_t transport_read(struct transport *transport, uint8_t *to, size_t room,
                         uint64_t now_unix_ms) __attribute__((warn_unused_result));

/* Plaintext that transport_write takes now. */
size_t transport_room(const struct transport *transport);

/* Seals and queues; transport_step sends. False: no memory, FAILED. */
bool transport_write(struct transport *transport, const uint8_t *bytes, size_t byte_count)
    __attribute__((warn_unused_result));

/* Nothing waits to be sent. */
bool transport_flushed(const struct transport *transport);

/* For poll(2): -1 while down, and events. When to step at the latest; UINT64_MAX: never. */
int transport_descriptor(const struct transport *transport);
short transport_events(const struct transport *transport);
uint64_t transport_deadline_ms(const struct transport *transport);

/* Closes, after close_notify where that can be sent without waiting. */
void transport_hang_up(struct transport *transport);

/* Why it failed; "" if it didn't. */
const char *transport_text(const struct transport *transport);

/* Whether the server's certificate was refused: trying again won't help. */
bool transport_untrusted(const struct transport *transport);

/* The session to resume next time: bytes, once for each ticket that came; 0: none. */
size_t transport_session(struct transport *transport, uint8_t *out, size_t capacity)
    __attribute__((warn_unused_result));

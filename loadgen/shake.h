/*
 * shake: the TLS handshakes that a swarm has in progress, and the tickets that it has gathered.
 *
 * A handshake holds a place from the dial to HELLO_OK: mbedTLS's 42 KB, the flight that leaves (our
 * Finished and HELLO go out together), the records that came. The number of places bounds how hard
 * a swarm leans on the server's door.
 *
 * Tickets belong to nobody: any client may resume with any of them, since the server asks for the
 * user's token in any case. The newest few hundred are kept.
 *
 * Owner    A swarm's.
 * Thread   The swarm's. A full handshake takes a millisecond of it.
 * Memory   43 KB a place and what mbedTLS allocates; 2 MB of tickets. Secrets are zeroed.
 * Errors   shakes_open: struct hf_error; else as core/tls/handshake.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/tls/handshake.h"
#include "core/tls/record.h"

#define SHAKE_TICKETS_MAX 512
#define SHAKE_HELLO_BYTES 2048 /* of HELLO, sealed */
#define SHAKE_OUT_BYTES   (TLS_HANDSHAKE_OUT_BYTES + SHAKE_HELLO_BYTES)
#define SHAKE_IN_BYTES    (2 * TLS_RECORD_BYTES_MAX)

struct shake {
    struct tls_handshake *tls; /* NULL before the socket is connected, and after the first record */
    uint32_t client;
    uint32_t in_bytes;
    uint32_t out_bytes;
    uint32_t out_sent;
    bool sending; /* the kernel has `out` */
    bool keyed;   /* the keys are the link's now */
    bool over;    /* only `out` is still in use */
    bool resumed;
    uint8_t out[SHAKE_OUT_BYTES];
    uint8_t in[SHAKE_IN_BYTES];
};

struct shake_ticket {
    size_t byte_count;
    uint8_t session[TLS_SESSION_BYTES_MAX];
};

struct shakes {
    struct tls_client *tls;
    const char *server_name;
    struct shake *places;
    uint16_t *free_;
    uint16_t place_count;
    uint16_t free_count;
    struct shake_ticket *tickets;
    uint32_t ticket_count;
    uint32_t ticket_put_; /* where the next goes */
    uint32_t ticket_get_;
    char fault_text[160]; /* of the first handshake that failed */
};

struct shakes_options {
    uint16_t places;
    const struct tls_pem *ca; /* NULL: no certificate is checked */
    const char *server_name;
    bool psk_ke; /* resumes by psk_ke only */
};

bool shakes_open(struct shakes *shakes, const struct shakes_options *options,
                 struct hf_error *error) __attribute__((warn_unused_result));
void shakes_close(struct shakes *shakes);

/* A place for that client's dial, or UINT16_MAX. */
uint16_t shakes_take(struct shakes *shakes, uint32_t client) __attribute__((warn_unused_result));
void shakes_give(struct shakes *shakes, uint16_t place);

static inline struct shake *shakes_get(const struct shakes *shakes, uint16_t place)
{
    return &shakes->places[place];
}

/* The socket is connected: begins, resuming by a ticket if there is one and it is wanted. */
bool shake_begin(struct shakes *shakes, struct shake *shake, bool resume, uint64_t now_unix_ms)
    __attribute__((warn_unused_result));

/* Works on what came. On DONE the keys go into *keys. */
enum tls_handshake_status shake_step(struct shakes *shakes, struct shake *shake,
                                     struct tls_keys *keys, uint64_t now_unix_ms)
    __attribute__((warn_unused_result));

/* Appends received bytes; false: more than any handshake has. */
bool shake_received(struct shake *shake, const uint8_t *bytes, size_t byte_count)
    __attribute__((warn_unused_result));

/* Drops the first bytes of what came. */
void shake_consume(struct shake *shake, size_t byte_count);

/* Seals HELLO behind our Finished. False: no room, or no memory. */
bool shake_seal_hello(struct shake *shake, struct tls_core *core, struct tls_keys *keys,
                      const uint8_t *hello, size_t hello_bytes) __attribute__((warn_unused_result));

/* The first ticket or data came: keeps the ticket, frees mbedTLS's part. */
void shake_finish(struct shakes *shakes, struct shake *shake);

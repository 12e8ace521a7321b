/*
 * tickets: the ring of keys that seals session tickets, its file, and sealing by wall clock.
 *
 * Purpose  Tickets stay good after a restart, after a reboot, and on every process that has the
 *          same file: mbedTLS's own tickets are timed by CLOCK_BOOTTIME and keyed per process.
 * Keys     Each seals for one interval (an hour), and opens for the tickets' lifetime after it. The
 *          next key is in the ring, and so in the file, a whole interval before its first use:
 *          every process that reads the file hourly knows a key before any process uses it. One
 *          process rotates and writes; the others only load.
 * Owner    struct tls_ticket_ring is plain data. Each door has its own copy, given by
 *          tls_server_set_tickets; whoever rotates hands out new copies. No lock is taken here.
 * Thread   Any, one at a time for one ring. Load and save block on the disk.
 * Memory   None is allocated, but a cipher context by mbedTLS within a call.
 * Units    Wall clock, Unix ms, always passed in.
 * Errors   Files: struct hf_error. A ticket that is refused is no error: a full handshake follows.
 * Source   RFC 8446 4.6.1, 4.2.11; RFC 5077 4 (advice on tickets), 5.5 (key rotation).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

enum {
    TLS_TICKET_NAME_BYTES = 16,
    TLS_TICKET_SECRET_BYTES = 32,
    TLS_TICKET_NONCE_BYTES = 12,
    TLS_TICKET_KEYS_MAX = 176, /* seven days of hours, one to come, some slack */
    TLS_TICKET_RING_BYTES_MAX = 16 + TLS_TICKET_KEYS_MAX * 56 + 4,
    TLS_TICKET_OVERHEAD = TLS_TICKET_NAME_BYTES + TLS_TICKET_NONCE_BYTES + 8 + 16,
};

#define TLS_TICKET_ROTATE_MS       UINT64_C(3600000)
#define TLS_TICKET_LIFETIME_MS     UINT64_C(86400000)
#define TLS_TICKET_LIFETIME_MS_MAX UINT64_C(604800000) /* RFC 8446 4.6.1 */

struct tls_ticket_key {
    uint8_t name[TLS_TICKET_NAME_BYTES];
    uint8_t secret[TLS_TICKET_SECRET_BYTES]; /* AES-256-GCM */
    uint64_t use_from_unix_ms;
};

/* Sorted by use_from_unix_ms. */
struct tls_ticket_ring {
    uint64_t lifetime_ms; /* of a ticket */
    uint64_t rotate_ms;   /* how long a key seals */
    uint32_t key_count;
    struct tls_ticket_key keys[TLS_TICKET_KEYS_MAX];
};

/* An empty ring. lifetime_ms: 1 s to seven days; rotate_ms: at least lifetime_ms / 168, 1 s. */
void tls_tickets_init(struct tls_ticket_ring *ring, uint64_t lifetime_ms, uint64_t rotate_ms);

/* Zeroes. */
void tls_tickets_clear(struct tls_ticket_ring *ring);

enum tls_tickets_change {
    TLS_TICKETS_SAME,
    TLS_TICKETS_CHANGED, /* save before any use */
    TLS_TICKETS_FAILED,  /* the kernel gave no random bytes; don't use the ring */
};

/* Drops expired keys; adds the current and the next one where they are missing. */
enum tls_tickets_change tls_tickets_rotate(struct tls_ticket_ring *ring, uint64_t now_unix_ms)
    __attribute__((warn_unused_result));

/* A ring as bytes: what its file holds. Returns how many of TLS_TICKET_RING_BYTES_MAX. */
size_t tls_tickets_encode(const struct tls_ticket_ring *ring, uint8_t *bytes);

/*
 * NULL, and the ring has the keys that tls_tickets_encode wrote; else what is wrong with the bytes,
 * and the ring is as it was.
 */
const char *tls_tickets_decode(struct tls_ticket_ring *ring, const uint8_t *bytes,
                               size_t byte_count) __attribute__((warn_unused_result));

/*
 * Reads a ring that tls_tickets_save wrote. The file must be a regular one, ours, and closed to
 * group and others. 0; 1: there is none; -1: error. The ring keeps its lifetime and interval (they
 * are configuration, not state).
 */
int tls_tickets_load(struct tls_ticket_ring *ring, const char *path, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Replaces the file as a whole, mode 0600, synced with its directory. 0 or -1. */
int tls_tickets_save(const struct tls_ticket_ring *ring, const char *path, struct hf_error *error)
    __attribute__((warn_unused_result));

/*
 * What start and the hourly timer do: load if there is a file, rotate, save if that changed
 * anything. A `path` of NULL keeps the ring in memory. 0 or -1: don't use the ring, which may have
 * a key that is on no disk; an earlier copy of it is still good.
 */
int tls_tickets_refresh(struct tls_ticket_ring *ring, const char *path, uint64_t now_unix_ms,
                        struct hf_error *error) __attribute__((warn_unused_result));

/* Whether a ticket could be sealed now. */
bool tls_tickets_can_seal(const struct tls_ticket_ring *ring, uint64_t now_unix_ms);

/*
 * Seals `state` with the current key: name, nonce, sealed (time, state), tag. Returns the ticket's
 * bytes, TLS_TICKET_OVERHEAD + state_bytes; 0: no key of now, no room, or no memory. The nonce is
 * random and must never repeat under one key. `state` may lie at ticket + 36.
 */
size_t tls_ticket_seal(const struct tls_ticket_ring *ring, uint64_t now_unix_ms,
                       const uint8_t nonce[TLS_TICKET_NONCE_BYTES], const uint8_t *state,
                       size_t state_bytes, uint8_t *ticket, size_t ticket_capacity)
    __attribute__((warn_unused_result));

enum tls_ticket_result {
    TLS_TICKET_OK = 0,
    TLS_TICKET_UNKNOWN, /* no such key, too short, garbled */
    TLS_TICKET_EXPIRED, /* authentic, but too old or from the future */
};

struct tls_ticket_opened {
    uint8_t *state; /* within the ticket's bytes */
    size_t state_bytes;
    uint64_t age_ms;
};

/* Opens a ticket in place. */
enum tls_ticket_result tls_ticket_open(const struct tls_ticket_ring *ring, uint64_t now_unix_ms,
                                       uint8_t *ticket, size_t ticket_bytes,
                                       struct tls_ticket_opened *opened)
    __attribute__((warn_unused_result));

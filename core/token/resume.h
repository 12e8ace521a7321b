/*
 * resume: the tokens that the server gives to a device after log-in, so that it can come back
 * without its identity service and without a signature being checked.
 *
 *      byte  0      version: 1 (no JWT begins so)
 *            1-3    key id
 *            4-11   user
 *           12-15   device
 *           16-19   generation of the device: a device that was revoked has a newer one
 *           20-27   issued at, Unix seconds
 *           28-31   life in seconds
 *           32-63   HMAC-SHA256 of bytes 0-31, whole
 *
 * The caller compares the generation with that of the device: only the user's home knows it.
 *
 * Owner    A struct resume_ring is a plain value of 4 KB: each thread keeps its own copy, and takes
 *          a new one from the thread that rotates. resume_ring_clear zeroes it.
 * Thread   Any, several at once on one ring that nobody changes. Sign and verify take no lock and
 *          allocate nothing (about 1 us): doors and reactors alike. Open and rotate do file I/O.
 * Time     Wall clock in Unix seconds, always passed in.
 * Files    Text, mode 0600 or 0400 and owner demanded as for keys.h, replaced in one step and on
 *          disk before a key in it is used: a restart never forgets a key that signed.
 *              holdfast resume keys 1
 *              <key id> <active from, Unix seconds> <64 hex digits>      oldest first
 *              end <number of keys>
 * Errors   enum token_status for tokens; struct hf_error for files.
 * Source   RFC 2104.
 */
#pragma once

#include "core/base/error.h"
#include "core/base/ids.h"
#include "core/token/hmac.h"
#include "core/token/token.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESUME_TOKEN_BYTES   64
#define RESUME_TOKEN_VERSION 1
#define RESUME_KEYS_MAX      16
#define RESUME_SECRET_BYTES  32
#define RESUME_KEY_ID_MAX    0xffffff

struct resume_key {
    uint32_t id;
    uint64_t active_at_unix_s; /* signs from then on; it verifies at once */
    uint8_t secret_[RESUME_SECRET_BYTES];
    struct hmac_key hmac_;
};

struct resume_ring {
    size_t count;
    struct resume_key keys[RESUME_KEYS_MAX]; /* ids and times rise */
};

struct resume_claims {
    struct user_id user;
    struct device_id device;
    uint32_t generation;
    uint64_t issued_at_unix_s;
    uint64_t expires_at_unix_s; /* at most 2^32 - 1 s after */
};

/* Reads the ring, or makes one of one key where there is no file. */
bool resume_ring_open(struct resume_ring *ring, const char *path, uint64_t now_unix_s,
                      struct hf_error *error) __attribute__((warn_unused_result));

/* The same from text in memory, without making anything. */
bool resume_ring_parse(struct resume_ring *ring, const char *text, size_t byte_count,
                       struct hf_error *error) __attribute__((warn_unused_result));

/*
 * Adds a key that signs from `active_at_unix_s` on (now; on several nodes, when all have it), drops
 * those whose last token, living for `life_max_s`, has expired (and the oldest if there is no room:
 * its devices log in anew), and writes the file. The ring changes only once that is on disk.
 */
bool resume_ring_rotate(struct resume_ring *ring, const char *path, uint64_t now_unix_s,
                        uint64_t active_at_unix_s, uint64_t life_max_s, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Is the newest key `period_s` old? A quarter of the tokens' life is a good period. */
bool resume_ring_is_due(const struct resume_ring *ring, uint64_t now_unix_s, uint64_t period_s);

void resume_ring_clear(struct resume_ring *ring);

/* Signs with the newest active key. Claims are the server's own, so their bounds are asserted. */
void resume_sign(const struct resume_ring *ring, const struct resume_claims *claims,
                 uint8_t token[RESUME_TOKEN_BYTES]);

/* TOKEN_OK, _MALFORMED, _UNKNOWN_KEY, _BAD_SIGNATURE or _EXPIRED. */
enum token_status resume_verify(const struct resume_ring *ring, uint64_t now_unix_s,
                                const void *token, size_t byte_count, struct resume_claims *claims)
    __attribute__((warn_unused_result));

/*
 * payload: what the messages of a run say, so that each that arrives tells who wrote it, as which
 * of his, and when, and shows any damage.
 *
 *      0      4        8      16           24
 *      | run  | number | user | intended   | filler, a function of user and number
 *
 * Nonces aren't kept but made: a function of two random words of this run and of (user, number), so
 * that a message that is sent again after a crash has the nonce that it had, and no other message
 * ever has.
 *
 * Owner    struct payload_run is plain data, the same in all threads.
 * Thread   Any. Pure.
 * Units    number: 1, 2, 3 ... of each user's messages in this run. intended_ns: monotonic.
 * Errors   enum payload_result.
 */
#pragma once

#include <stdint.h>

#include "core/base/ids.h"
#include "proto/message.h"

#define PAYLOAD_BYTES_MIN 24

/* Drawn once from the kernel's generator. */
struct payload_run {
    uint64_t nonce_words[2];
    uint32_t run;
};

struct payload {
    struct user_id user;
    uint32_t number;
    uint64_t intended_ns;
};

enum payload_result {
    PAYLOAD_OK = 0,
    PAYLOAD_FOREIGN, /* of another run, or not of this program's at all */
    PAYLOAD_DAMAGED, /* of this run, but not what was sent */
};

/* Fills all `byte_count` bytes, at least PAYLOAD_BYTES_MIN. */
void payload_write(const struct payload_run *run, const struct payload *payload, uint8_t *body,
                   uint16_t byte_count);

enum payload_result payload_read(const struct payload_run *run, const uint8_t *body,
                                 uint16_t byte_count, uint16_t expected_byte_count,
                                 struct payload *payload) __attribute__((warn_unused_result));

struct nonce payload_nonce(const struct payload_run *run, struct user_id user, uint32_t number);

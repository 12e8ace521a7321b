/*
 * siphash: a hash of a number under a secret key, for tables whose keys strangers choose: who doesn't
 * know the key can't crowd one place.
 *
 * Owner    struct siphash_key is a plain value; filled with random bytes once.
 * Thread   Any. Pure.
 * Errors   None.
 * Source   Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012: SipHash-2-4.
 */
#pragma once

#include <stdint.h>

struct siphash_key {
    uint64_t words[2];
};

/* Of the eight bytes of `value`, lowest first. */
uint64_t siphash_number(const struct siphash_key *key, uint64_t value);

/*
 * prng: the one source of chance in the simulator, so that a seed replays everything.
 *
 * Thread   The owner's only.
 * Errors   None. A bound of 0 asserts.
 * Source   SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/check.h"

struct prng {
    uint64_t state_;
};

static inline struct prng prng_of(uint64_t seed)
{
    return (struct prng){ seed * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0x1234567) };
}

static inline uint64_t prng_next(struct prng *prng)
{
    prng->state_ += UINT64_C(0x9e3779b97f4a7c15);

    uint64_t value = prng->state_;

    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* 0 .. bound - 1. The bias of the remainder doesn't matter here. */
static inline uint64_t prng_below(struct prng *prng, uint64_t bound)
{
    HF_ASSERT(bound > 0);
    return prng_next(prng) % bound;
}

/* low .. high, both included. */
static inline uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high)
{
    HF_ASSERT(low <= high);
    return low + prng_below(prng, high - low + 1);
}

/* True so many times in a thousand. */
static inline bool prng_chance(struct prng *prng, unsigned per_mille)
{
    return prng_below(prng, 1000) < per_mille;
}

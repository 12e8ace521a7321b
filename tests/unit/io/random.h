/* random: reproducible numbers for tests (xorshift64*; Vigna, 2016). */
#pragma once

#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound)
{
    return (random_next(state) >> 16) % bound;
}

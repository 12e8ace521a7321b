/*
 * slab: a bounded set of objects of one size, each named by a 32-bit slot and a generation.
 *
 * Owner    One thread's. Objects belong to the slab; whoever took a slot gives it back once.
 * Thread   The owning thread only. Nothing blocks.
 * Memory   Address space for `capacity` objects and 4 B more for each is mapped by slab_open and
 *          never moves. Slots are handed out lowest first and reused last in, first out, so without
 *          SLAB_TOUCH a slab has cost only the pages of as many objects as were ever alive at once.
 *          SLAB_TOUCH commits all of it at start: no page fault afterwards. SLAB_HUGE asks for huge
 *          pages (a random object in a set of 1 M: 246 ns against 357).
 * Handles  (slot, generation) is what goes into a ring's tag. The generation is 24 bits, never 0,
 *          and changes with each slab_give: a completion that arrives late finds nothing. It
 *          repeats after 16 M lives of one slot, far beyond what a ring can have in flight.
 * Errors   SLAB_NONE when full: back-pressure for the caller, not a failure. A slot out of range or
 *          given twice asserts; under ASan, free objects are poisoned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/check.h"

#define SLAB_NONE            UINT32_MAX
#define SLAB_GENERATION_BITS 24
#define SLAB_GENERATION_MASK ((UINT32_C(1) << SLAB_GENERATION_BITS) - 1)
#define SLAB_ALIVE_BIT       (UINT32_C(1) << 31)

struct hf_error;

enum slab_flags {
    SLAB_TOUCH = 1, /* commit all memory at start */
    SLAB_HUGE = 2,  /* ask for huge pages */
    SLAB_DIRTY = 4, /* slab_take leaves the bytes as they are; else it zeroes the object */
};

struct slab {
    uint8_t *objects_;
    uint32_t *heads_; /* of each slot: SLAB_ALIVE_BIT, generation */
    uint32_t object_bytes;
    uint32_t capacity;
    uint32_t in_use;
    uint32_t in_use_max; /* since slab_open: for metrics */
    uint32_t fresh_;     /* slots from here on were never taken */
    uint32_t free_;      /* first free slot below fresh_, or SLAB_NONE; links lie in the objects */
    uint32_t flags_;
};

/* object_bytes: a multiple of 8. capacity: 1 to 2^31. */
__attribute__((warn_unused_result)) bool slab_open(struct slab *slab, size_t object_bytes,
                                                   uint32_t capacity, uint32_t flags,
                                                   struct hf_error *error);
/* Everything ends, objects still in use too. A slab that was never opened is left alone if zeroed.
 */
void slab_close(struct slab *slab);

/* A slot, or SLAB_NONE. */
__attribute__((warn_unused_result)) uint32_t slab_take(struct slab *slab);
void slab_give(struct slab *slab, uint32_t slot);

static inline bool slab_alive(const struct slab *slab, uint32_t slot)
{
    return slot < slab->fresh_ && (slab->heads_[slot] & SLAB_ALIVE_BIT) != 0;
}

/* The object of a slot in use. */
static inline void *slab_get(const struct slab *slab, uint32_t slot)
{
    HF_ASSERT(slab_alive(slab, slot));
    return slab->objects_ + (size_t)slot * slab->object_bytes;
}

static inline uint32_t slab_generation(const struct slab *slab, uint32_t slot)
{
    HF_ASSERT(slab_alive(slab, slot));
    return slab->heads_[slot] & SLAB_GENERATION_MASK;
}

/* The object, or NULL if that slot has since been given back. Any values may be asked for. */
static inline void *slab_find(const struct slab *slab, uint32_t slot, uint32_t generation)
{
    if (slot >= slab->fresh_ || slab->heads_[slot] != (SLAB_ALIVE_BIT | generation)) {
        return NULL;
    }
    return slab->objects_ + (size_t)slot * slab->object_bytes;
}

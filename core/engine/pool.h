/*
 * pool: cells of one size, named by 32-bit slots, and hash tables that find them by key.
 *
 * Owner    The engine, one of each for every kind of cell.
 * Thread   The owner's only.
 * Memory   Taken by pool_open and table_open, which leave it untouched: pages are touched as cells
 *          come into use, and freed cells are used again first. The *_touch functions commit all of
 *          it instead, so that there is no page fault afterwards. Slot 0 is never given, so that a
 *          cell of zeros refers to nothing.
 * Errors   Open returns false without memory. pool_take gives 0 when all cells are in use.
 * Order    Nothing here depends on addresses: the same calls give the same slots.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/check.h"

#define SLOT_NONE 0

/* Commits the pages of memory that is fresh from the allocator, and returns its size. */
size_t memory_touch(void *memory, size_t byte_count);

struct pool {
    uint8_t *cells;
    uint32_t cell_bytes;
    uint32_t cell_max;
    uint32_t fresh; /* slots above it were never given */
    uint32_t free;  /* the first of a list of freed ones */
    uint32_t count;
    uint32_t hand; /* where a search for something to evict goes on */
};

/* A cell of a pool is zero when it is taken, and begins with a field that is free to be a link. */
bool pool_open(struct pool *pool, uint32_t cell_max, uint32_t cell_bytes)
    __attribute__((warn_unused_result));
/* Makes it larger, if it must be: cells move, their slots stay. For what a start finds. */
bool pool_reserve(struct pool *pool, uint32_t cell_max) __attribute__((warn_unused_result));
size_t pool_touch(const struct pool *pool); /* the number of bytes, as in all of these */
void pool_close(struct pool *pool);
uint32_t pool_take(struct pool *pool) __attribute__((warn_unused_result));
void pool_give(struct pool *pool, uint32_t slot);

static inline void *pool_get(const struct pool *pool, uint32_t slot)
{
    HF_ASSERT_SLOW(slot != SLOT_NONE && slot <= pool->fresh);
    return pool->cells + (size_t)slot * pool->cell_bytes;
}

/* The next slot, round and round, that may hold a cell; 0 while none was ever given. */
static inline uint32_t pool_turn(struct pool *pool)
{
    if (pool->fresh == 0) {
        return SLOT_NONE;
    }
    pool->hand = pool->hand >= pool->fresh ? 1 : pool->hand + 1;
    return pool->hand;
}

struct table_entry {
    uint32_t hash;
    uint32_t slot; /* 0: empty */
};

struct table {
    struct table_entry *entries;
    uint32_t mask;
    uint32_t count;
};

bool table_open(struct table *table, uint32_t max) __attribute__((warn_unused_result));
bool table_reserve(struct table *table, uint32_t max) __attribute__((warn_unused_result));
size_t table_touch(const struct table *table);
void table_close(struct table *table);
void table_add(struct table *table, uint32_t hash, uint32_t slot);
void table_remove(struct table *table, uint32_t hash, uint32_t slot);
/* Another cell of the same key takes the place of one that is there. */
void table_replace(struct table *table, uint32_t hash, uint32_t slot, uint32_t by);

/*
 * The slots that were added under a hash, one a call, 0 after the last: the caller compares the
 * keys. `at` begins as the hash.
 */
static inline uint32_t table_next(const struct table *table, uint32_t hash, uint32_t *at)
{
    for (;;) {
        const struct table_entry *entry = &table->entries[(*at)++ & table->mask];

        if (entry->slot == SLOT_NONE || entry->hash == hash) {
            return entry->slot;
        }
    }
}

/*
 * ready: cells for which there is something to do, each at most once, in the order in which that
 * came up. A mark outlives its cell: whoever takes the slot again may see it once for nothing.
 */
#define READY_QUEUED 0x80 /* ready's own; the other flags are the user's */

struct ready {
    uint32_t *slots;
    uint8_t *flags; /* by slot */
    uint32_t cell_max;
    uint32_t mask;
    uint32_t first;
    uint32_t count;
};

bool ready_open(struct ready *ready, uint32_t cell_max) __attribute__((warn_unused_result));
bool ready_reserve(struct ready *ready, uint32_t cell_max) __attribute__((warn_unused_result));
size_t ready_touch(const struct ready *ready);
void ready_close(struct ready *ready);
void ready_mark(struct ready *ready, uint32_t slot, uint8_t flags);
/* False when there is nothing to do. */
bool ready_take(struct ready *ready, uint32_t *slot, uint8_t *flags)
    __attribute__((warn_unused_result));

/* The cell goes: forget what was to be done. */
static inline void ready_forget(struct ready *ready, uint32_t slot)
{
    ready->flags[slot] &= READY_QUEUED;
}

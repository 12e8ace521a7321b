#include "core/engine/pool.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096 /* or larger: then some are written twice */

size_t memory_touch(void *memory, size_t byte_count)
{
    volatile uint8_t *bytes = memory;

    /*
     * It must be written (a page that is only read is the one page of zeros), with what is there,
     * and so that no compiler sees through it.
     */
    for (size_t at = 0; at < byte_count; at += PAGE_BYTES) {
        bytes[at] = bytes[at];
    }
    if (byte_count > 0) {
        bytes[byte_count - 1] = bytes[byte_count - 1];
    }
    return byte_count;
}

bool pool_open(struct pool *pool, uint32_t cell_max, uint32_t cell_bytes)
{
    HF_ASSERT(cell_max > 0 && cell_max < UINT32_MAX && cell_bytes >= sizeof(uint32_t));
    *pool = (struct pool){ .cell_bytes = cell_bytes, .cell_max = cell_max };
    pool->cells = calloc((size_t)cell_max + 1, cell_bytes);
    return pool->cells != NULL;
}

bool pool_reserve(struct pool *pool, uint32_t cell_max)
{
    struct pool larger;

    if (cell_max <= pool->cell_max) {
        return true;
    }
    if (!pool_open(&larger, cell_max, pool->cell_bytes)) {
        return false;
    }
    memcpy(larger.cells, pool->cells, ((size_t)pool->fresh + 1) * pool->cell_bytes);
    free(pool->cells);
    pool->cells = larger.cells;
    pool->cell_max = cell_max;
    return true;
}

size_t pool_touch(const struct pool *pool)
{
    return memory_touch(pool->cells, ((size_t)pool->cell_max + 1) * pool->cell_bytes);
}

void pool_close(struct pool *pool)
{
    free(pool->cells);
    pool->cells = NULL;
}

uint32_t pool_take(struct pool *pool)
{
    uint32_t slot = pool->free;

    if (slot != SLOT_NONE) {
        memcpy(&pool->free, pool_get(pool, slot), sizeof pool->free);
        memset(pool_get(pool, slot), 0, sizeof pool->free);
    } else if (pool->fresh < pool->cell_max) {
        slot = ++pool->fresh;
    } else {
        return SLOT_NONE;
    }
    pool->count++;
    return slot;
}

void pool_give(struct pool *pool, uint32_t slot)
{
    uint8_t *cell = pool_get(pool, slot);

    HF_ASSERT(slot != SLOT_NONE && pool->count > 0);
    memset(cell, 0, pool->cell_bytes);
    memcpy(cell, &pool->free, sizeof pool->free);
    pool->free = slot;
    pool->count--;
}

static uint32_t power_of_two_above(uint32_t value)
{
    uint32_t power = 16;

    while (power <= value) {
        HF_ASSERT(power < UINT32_C(1) << 31);
        power *= 2;
    }
    return power;
}

/* A fifth at least stays empty, or probes get long. */
bool table_open(struct table *table, uint32_t max)
{
    const uint32_t size = power_of_two_above(max + max / 4);

    *table = (struct table){ .mask = size - 1 };
    table->entries = calloc(size, sizeof *table->entries);
    return table->entries != NULL;
}

bool table_reserve(struct table *table, uint32_t max)
{
    struct table larger;

    if (power_of_two_above(max + max / 4) <= table->mask + 1) {
        return true;
    }
    if (!table_open(&larger, max)) {
        return false;
    }
    for (uint32_t at = 0; at <= table->mask; at++) {
        if (table->entries[at].slot != SLOT_NONE) {
            table_add(&larger, table->entries[at].hash, table->entries[at].slot);
        }
    }
    free(table->entries);
    *table = larger;
    return true;
}

size_t table_touch(const struct table *table)
{
    return memory_touch(table->entries, ((size_t)table->mask + 1) * sizeof *table->entries);
}

void table_close(struct table *table)
{
    free(table->entries);
    table->entries = NULL;
}

void table_add(struct table *table, uint32_t hash, uint32_t slot)
{
    uint32_t at = hash;

    HF_ASSERT(slot != SLOT_NONE && table->count < table->mask);
    while (table->entries[at & table->mask].slot != SLOT_NONE) {
        at++;
    }
    table->entries[at & table->mask] = (struct table_entry){ hash, slot };
    table->count++;
}

static uint32_t find_entry(const struct table *table, uint32_t hash, uint32_t slot)
{
    uint32_t at = hash & table->mask;

    while (table->entries[at].slot != slot) {
        HF_ASSERT(table->entries[at].slot != SLOT_NONE);
        at = (at + 1) & table->mask;
    }
    HF_ASSERT(table->entries[at].hash == hash);
    return at;
}

/* Those behind the hole move up as far as their hashes allow, so that no tombstone is needed. */
void table_remove(struct table *table, uint32_t hash, uint32_t slot)
{
    uint32_t hole = find_entry(table, hash, slot);
    uint32_t at = hole;

    for (;;) {
        at = (at + 1) & table->mask;

        const struct table_entry *entry = &table->entries[at];

        if (entry->slot == SLOT_NONE) {
            break;
        }
        if (((at - entry->hash) & table->mask) >= ((at - hole) & table->mask)) {
            table->entries[hole] = *entry;
            hole = at;
        }
    }
    table->entries[hole] = (struct table_entry){ 0, SLOT_NONE };
    table->count--;
}

void table_replace(struct table *table, uint32_t hash, uint32_t slot, uint32_t by)
{
    HF_ASSERT(by != SLOT_NONE);
    table->entries[find_entry(table, hash, slot)].slot = by;
}

bool ready_open(struct ready *ready, uint32_t cell_max)
{
    const uint32_t size = power_of_two_above(cell_max + 1);

    *ready = (struct ready){ .cell_max = cell_max, .mask = size - 1 };
    ready->slots = calloc(size, sizeof *ready->slots);
    ready->flags = calloc((size_t)cell_max + 1, 1);
    return ready->slots != NULL && ready->flags != NULL;
}

bool ready_reserve(struct ready *ready, uint32_t cell_max)
{
    struct ready larger;

    if (cell_max <= ready->cell_max) {
        return true;
    }
    if (!ready_open(&larger, cell_max)) {
        ready_close(&larger);
        return false;
    }
    memcpy(larger.flags, ready->flags, (size_t)ready->cell_max + 1);
    for (uint32_t i = 0; i < ready->count; i++) {
        larger.slots[i] = ready->slots[(ready->first + i) & ready->mask];
    }
    larger.count = ready->count;
    ready_close(ready);
    *ready = larger;
    return true;
}

size_t ready_touch(const struct ready *ready)
{
    return memory_touch(ready->slots, ((size_t)ready->mask + 1) * sizeof *ready->slots) +
           memory_touch(ready->flags, (size_t)ready->cell_max + 1);
}

void ready_close(struct ready *ready)
{
    free(ready->slots);
    free(ready->flags);
    ready->slots = NULL;
    ready->flags = NULL;
}

void ready_mark(struct ready *ready, uint32_t slot, uint8_t flags)
{
    HF_ASSERT_SLOW(slot != SLOT_NONE && (flags & READY_QUEUED) == 0);
    if ((ready->flags[slot] & READY_QUEUED) == 0) {
        HF_ASSERT(ready->count <= ready->mask);
        ready->slots[(ready->first + ready->count++) & ready->mask] = slot;
    }
    ready->flags[slot] |= flags | READY_QUEUED;
}

bool ready_take(struct ready *ready, uint32_t *slot, uint8_t *flags)
{
    if (ready->count == 0) {
        return false;
    }
    *slot = ready->slots[ready->first++ & ready->mask];
    if (--ready->count == 0) {
        ready->first = 0; /* so that few pages of the ring are ever touched, and those are warm */
    }
    *flags = ready->flags[*slot] & (uint8_t)~READY_QUEUED;
    ready->flags[*slot] = 0;
    return true;
}

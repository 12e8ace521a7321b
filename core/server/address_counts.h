/*
 * address_counts: how many connections each address has, for a bound on them.
 *
 * Owner    A door.
 * Thread   The door's.
 * Memory   16 B for each address that has a connection, at most twice that; grows and never
 *          shrinks.
 * Errors   address_counts_add says false when there's no memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/siphash.h"

struct address_count {
    uint64_t key; /* listen_address_key; 0: free */
    uint64_t count;
};

struct address_counts {
    struct address_count *places_; /* open addressing, linear probing */
    size_t capacity_;              /* a power of two; 0: none yet */
    size_t used_;
    struct siphash_key hash_key_;
};

/* `hash_key`: random, or clients choose their addresses so that they crowd one place. */
void address_counts_open(struct address_counts *counts, const struct siphash_key *hash_key);

void address_counts_close(struct address_counts *counts);

/* One more; false: no memory, nothing was counted. */
bool address_counts_add(struct address_counts *counts, uint64_t key)
    __attribute__((warn_unused_result));

/* One less. A key that has none asserts. */
void address_counts_remove(struct address_counts *counts, uint64_t key);

uint64_t address_counts_get(const struct address_counts *counts, uint64_t key);

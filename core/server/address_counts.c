#include "core/server/address_counts.h"

#include <stdlib.h>

#include "core/base/check.h"

#define CAPACITY_MIN 64

void address_counts_open(struct address_counts *counts, const struct siphash_key *hash_key)
{
    *counts = (struct address_counts){ .hash_key_ = *hash_key };
}

void address_counts_close(struct address_counts *counts)
{
    free(counts->places_);
    *counts = (struct address_counts){ 0 };
}

static size_t wanted_place(const struct address_counts *counts, uint64_t key)
{
    return (size_t)siphash_number(&counts->hash_key_, key) & (counts->capacity_ - 1);
}

/* The key's place, or the free one where it would stand. */
static size_t find(const struct address_counts *counts, uint64_t key)
{
    const size_t mask = counts->capacity_ - 1;
    size_t at = wanted_place(counts, key);

    while (counts->places_[at].key != 0 && counts->places_[at].key != key) {
        at = (at + 1) & mask;
    }
    return at;
}

static bool grow(struct address_counts *counts)
{
    const struct address_counts old = *counts;
    const size_t capacity = old.capacity_ == 0 ? CAPACITY_MIN : old.capacity_ * 2;
    struct address_count *places = calloc(capacity, sizeof *places);

    if (places == NULL) {
        return false;
    }
    counts->places_ = places;
    counts->capacity_ = capacity;
    for (size_t i = 0; i < old.capacity_; i++) {
        if (old.places_[i].key != 0) {
            counts->places_[find(counts, old.places_[i].key)] = old.places_[i];
        }
    }
    free(old.places_);
    return true;
}

bool address_counts_add(struct address_counts *counts, uint64_t key)
{
    HF_ASSERT(key != 0);
    if (counts->used_ * 4 >= counts->capacity_ * 3 && !grow(counts)) {
        return false;
    }

    struct address_count *place = &counts->places_[find(counts, key)];

    if (place->key == 0) {
        place->key = key;
        counts->used_++;
    }
    place->count++;
    return true;
}

/* Moves back what had to give way to the place that became free, so that probing never stops early.
 */
static void close_gap(struct address_counts *counts, size_t gap)
{
    const size_t mask = counts->capacity_ - 1;

    for (size_t at = (gap + 1) & mask; counts->places_[at].key != 0; at = (at + 1) & mask) {
        const size_t wanted = wanted_place(counts, counts->places_[at].key);

        if (((at - wanted) & mask) >= ((at - gap) & mask)) {
            counts->places_[gap] = counts->places_[at];
            counts->places_[at] = (struct address_count){ 0 };
            gap = at;
        }
    }
}

void address_counts_remove(struct address_counts *counts, uint64_t key)
{
    HF_ASSERT(counts->capacity_ != 0);

    const size_t at = find(counts, key);

    HF_ASSERT(counts->places_[at].key == key && counts->places_[at].count > 0);
    if (--counts->places_[at].count == 0) {
        counts->places_[at] = (struct address_count){ 0 };
        counts->used_--;
        close_gap(counts, at);
    }
}

uint64_t address_counts_get(const struct address_counts *counts, uint64_t key)
{
    return counts->capacity_ == 0 ? 0 : counts->places_[find(counts, key)].count;
}

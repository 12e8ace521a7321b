#include "loadgen/histogram.h"

#include <string.h>

#include "core/base/check.h"

#define SUB_COUNT (UINT64_C(1) << HISTOGRAM_SUB_BITS)
#define VALUE_MAX ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)

void histogram_init(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

/* How many low bits the value's bucket doesn't tell apart. */
static uint32_t shift_of(uint64_t value)
{
    const uint32_t top_bit = 63U - (uint32_t)__builtin_clzll(value | SUB_COUNT);

    return top_bit - HISTOGRAM_SUB_BITS;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->sum += value;
    if (value > histogram->max) {
        histogram->max = value;
    }
    if (value > VALUE_MAX) {
        value = VALUE_MAX;
    }

    const uint32_t shift = shift_of(value);

    /* Below 64 each value has its own bucket; then each doubling has 64 more. */
    histogram->buckets_[((uint64_t)shift << HISTOGRAM_SUB_BITS) + (value >> shift)]++;
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
    to->count += from->count;
    to->sum += from->sum;
    if (from->max > to->max) {
        to->max = from->max;
    }
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        to->buckets_[i] += from->buckets_[i];
    }
}

static uint64_t upper_end(uint32_t bucket)
{
    if (bucket < 2 * SUB_COUNT) {
        return bucket;
    }

    const uint32_t shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    const uint64_t lower = (uint64_t)(bucket - (shift << HISTOGRAM_SUB_BITS)) << shift;

    return lower + (UINT64_C(1) << shift) - 1;
}

uint64_t histogram_at(const struct histogram *histogram, uint32_t per_million)
{
    HF_ASSERT(per_million <= 1000000);
    if (histogram->count == 0) {
        return 0;
    }

    /* Rank from 1, rounded up: the median of three is the second. */
    uint64_t rank =
        (uint64_t)(((unsigned __int128)histogram->count * per_million + 999999) / 1000000);
    uint64_t seen = 0;

    rank = rank == 0 ? 1 : rank;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets_[i];
        if (seen >= rank) {
            const uint64_t end = upper_end(i);
            return end < histogram->max ? end : histogram->max;
        }
    }
    return histogram->max;
}

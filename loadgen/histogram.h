/*
 * histogram: how long things took, in log-linear buckets: 64 to each doubling.
 *
 * Owner    One thread's while it adds; histogram_merge joins those of several threads afterwards.
 * Thread   One at a time. Pure.
 * Memory   18 KB, in the caller's struct. Adding is O(1) and allocates nothing.
 * Units    Whatever is added; ns in this program. Values above 2^42 (73 minutes of ns) count as
 *          that in the buckets, but histogram->max is exact.
 * Errors   None. A percentile is the upper end of its bucket: never below the true value, and less
 *          than 1.6 % above it.
 * Source   The idea of HdrHistogram (Gil Tene).
 */
#pragma once

#include <stdint.h>

#define HISTOGRAM_SUB_BITS   6
#define HISTOGRAM_VALUE_BITS 42
#define HISTOGRAM_BUCKETS    ((HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t sum;
    uint64_t buckets_[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value);

/* Adds what `from` holds. */
void histogram_merge(struct histogram *to, const struct histogram *from);

/*
 * The value that `per_million` of a million of all values are at or below (500,000: the median);
 * 0 when it is empty.
 */
uint64_t histogram_at(const struct histogram *histogram, uint32_t per_million);

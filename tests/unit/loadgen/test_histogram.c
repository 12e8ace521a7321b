/* Histogram: percentiles against a sorted list, its error, its ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/ids.h"
#include "loadgen/histogram.h"

static struct histogram histogram;

static int compare(const void *a, const void *b)
{
    const uint64_t *left = a;
    const uint64_t *right = b;

    return *left < *right ? -1 : *left > *right ? 1 : 0;
}

static void empty_has_no_percentile(void **state)
{
    (void)state;
    histogram_init(&histogram);
    assert_int_equal(histogram_at(&histogram, 500000), 0);
    assert_int_equal(histogram_at(&histogram, 1000000), 0);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    for (uint64_t value = 0; value < 128; value++) {
        histogram_init(&histogram);
        histogram_add(&histogram, value);
        histogram_add(&histogram, 1000);
        assert_int_equal(histogram_at(&histogram, 500000), value);
    }
}

static void one_value_is_all_percentiles(void **state)
{
    (void)state;
    histogram_init(&histogram);
    histogram_add(&histogram, 123456789);
    assert_int_equal(histogram_at(&histogram, 0), 123456789);
    assert_int_equal(histogram_at(&histogram, 500000), 123456789);
    assert_int_equal(histogram_at(&histogram, 1000000), 123456789);
}

static void median_of_three_is_the_second(void **state)
{
    (void)state;
    histogram_init(&histogram);
    histogram_add(&histogram, 3);
    histogram_add(&histogram, 1);
    histogram_add(&histogram, 2);
    assert_int_equal(histogram_at(&histogram, 500000), 2);
}

/* Never below the truth, never 1.6 % above it, over all magnitudes. */
static void percentiles_are_within_their_error(void **state)
{
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    static const uint32_t asked[] = { 1, 10000, 250000, 500000, 900000, 990000, 999000, 1000000 };

    (void)state;
    for (uint32_t magnitude = 4; magnitude <= 42; magnitude++) {
        histogram_init(&histogram);
        for (uint32_t i = 0; i < COUNT; i++) {
            values[i] = id_mix(i + 1000003ULL * magnitude) >> (64 - magnitude);
            histogram_add(&histogram, values[i]);
        }
        qsort(values, COUNT, sizeof values[0], compare);
        for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
            const uint64_t rank = ((uint64_t)COUNT * asked[i] + 999999) / 1000000;
            const uint64_t exact = values[(rank == 0 ? 1 : rank) - 1];
            const uint64_t found = histogram_at(&histogram, asked[i]);

            assert_true(found >= exact);
            assert_true((double)(found - exact) <= 0.016 * (double)exact);
        }
    }
}

static void huge_value_keeps_its_maximum(void **state)
{
    (void)state;
    histogram_init(&histogram);
    histogram_add(&histogram, 5);
    histogram_add(&histogram, UINT64_MAX);
    assert_true(histogram.max == UINT64_MAX);
    assert_int_equal(histogram_at(&histogram, 500000), 5);
    assert_true(histogram_at(&histogram, 1000000) >= (UINT64_C(1) << 42) - 1);
}

static void merge_is_as_if_added_to_one(void **state)
{
    static struct histogram parts[2];
    static struct histogram merged;

    (void)state;
    histogram_init(&histogram);
    histogram_init(&parts[0]);
    histogram_init(&parts[1]);
    histogram_init(&merged);
    for (uint32_t i = 0; i < 5000; i++) {
        const uint64_t value = id_mix(i) >> 40;

        histogram_add(&histogram, value);
        histogram_add(&parts[i % 2], value);
    }
    histogram_merge(&merged, &parts[0]);
    histogram_merge(&merged, &parts[1]);
    assert_memory_equal(&merged, &histogram, sizeof merged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_has_no_percentile),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(one_value_is_all_percentiles),
        cmocka_unit_test(median_of_three_is_the_second),
        cmocka_unit_test(percentiles_are_within_their_error),
        cmocka_unit_test(huge_value_keeps_its_maximum),
        cmocka_unit_test(merge_is_as_if_added_to_one),
    };

    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}

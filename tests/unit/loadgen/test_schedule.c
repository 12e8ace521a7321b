/* Schedule: due times don't wait for anybody; senders take turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "loadgen/schedule.h"

#define START 1000000000ULL

static void nothing_is_due_before_the_start(void **state)
{
    struct schedule schedule;
    uint32_t sender;
    uint64_t intended;

    (void)state;
    schedule_init(&schedule, 1000, 10, START, UINT64_MAX, 1000000);
    assert_false(schedule_take(&schedule, START - 1, &sender, &intended));
    assert_true(schedule_next_ns(&schedule) == START);
    assert_true(schedule_take(&schedule, START, &sender, &intended));
    assert_true(intended == START);
    assert_true(schedule_next_ns(&schedule) == START + 1000000);
}

/* The heart of an open loop: what fell due in a pause is all taken, with its own time. */
static void pause_is_made_up_for_with_intended_times(void **state)
{
    struct schedule schedule;
    uint32_t sender;
    uint64_t intended;
    uint32_t taken = 0;

    (void)state;
    schedule_init(&schedule, 1000, 10, START, UINT64_MAX, 50000000);
    while (schedule_take(&schedule, START + 100000000, &sender, &intended)) {
        assert_true(intended == START + taken * 1000000ULL);
        taken++;
    }
    assert_int_equal(taken, 101);
    assert_int_equal(schedule.late_count, 50); /* those over 50 ms late, not the one at 50 */
    assert_true(schedule.late_max_ns == 100000000);
}

static void senders_have_turns_before_any_has_a_second(void **state)
{
    static const uint32_t counts[] = { 1, 2, 3, 7, 10, 64, 1000, 24999 };
    static uint8_t seen[25000];

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct schedule schedule;
        uint32_t sender;
        uint64_t intended;

        memset(seen, 0, sizeof seen);
        schedule_init(&schedule, 1e6, counts[i], START, UINT64_MAX, 1);
        for (uint32_t k = 0; k < counts[i]; k++) {
            assert_true(schedule_take(&schedule, UINT64_MAX / 2, &sender, &intended));
            assert_true(sender < counts[i]);
            assert_int_equal(seen[sender], 0);
            seen[sender] = 1;
        }
        assert_true(schedule_take(&schedule, UINT64_MAX / 2, &sender, &intended));
        assert_int_equal(sender, 0);
    }
}

static void odd_rate_doesnt_drift(void **state)
{
    struct schedule schedule;
    uint32_t sender;
    uint64_t intended = 0;

    (void)state;
    schedule_init(&schedule, 333333.3, 5, START, 1000001, 1);
    for (uint32_t k = 0; k < 1000001; k++) {
        assert_true(schedule_take(&schedule, UINT64_MAX / 2, &sender, &intended));
    }

    const double seconds = (double)(intended - START) / 1e9;

    assert_true(seconds > 1000000 / 333333.3 - 1e-6 && seconds < 1000000 / 333333.3 + 1e-6);
}

static void count_ends_it(void **state)
{
    struct schedule schedule;
    uint32_t sender;
    uint64_t intended;

    (void)state;
    schedule_init(&schedule, 10, 3, START, 2, 1);
    assert_true(schedule_take(&schedule, UINT64_MAX / 2, &sender, &intended));
    assert_true(schedule_take(&schedule, UINT64_MAX / 2, &sender, &intended));
    assert_false(schedule_take(&schedule, UINT64_MAX / 2, &sender, &intended));
    assert_true(schedule_next_ns(&schedule) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_due_before_the_start),
        cmocka_unit_test(pause_is_made_up_for_with_intended_times),
        cmocka_unit_test(senders_have_turns_before_any_has_a_second),
        cmocka_unit_test(odd_rate_doesnt_drift),
        cmocka_unit_test(count_ends_it),
    };

    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}

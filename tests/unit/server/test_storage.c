#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/server/storage.h"

#define WORKED_NS UINT64_C(100000)
#define FROM      550

static void journal_below_the_mark_gives_no_pause(void **state)
{
    (void)state;
    assert_int_equal(storage_pause_for(WORKED_NS, 0, FROM), 0);
    assert_int_equal(storage_pause_for(WORKED_NS, FROM, FROM), 0);
}

static void journal_half_way_to_refusals_gives_a_pause_as_long_as_the_work(void **state)
{
    (void)state;
    assert_int_equal(storage_pause_for(WORKED_NS, 650, FROM), WORKED_NS);
}

static void fuller_journal_gives_a_longer_pause_up_to_the_longest(void **state)
{
    (void)state;
    uint64_t before = 0;

    for (uint32_t used = FROM + 1; used <= 1000; used++) {
        const uint64_t pause_ns = storage_pause_for(WORKED_NS, used, FROM);

        assert_true(pause_ns >= before);
        assert_true(pause_ns <= STORAGE_PAUSE_NS_MAX);
        before = pause_ns;
    }
    assert_int_equal(before, STORAGE_PAUSE_NS_MAX);
    assert_int_equal(storage_pause_for(WORKED_NS, 749, FROM), STORAGE_PAUSE_NS_MAX);
    assert_int_equal(storage_pause_for(WORKED_NS, 750, FROM), STORAGE_PAUSE_NS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(journal_below_the_mark_gives_no_pause),
        cmocka_unit_test(journal_half_way_to_refusals_gives_a_pause_as_long_as_the_work),
        cmocka_unit_test(fuller_journal_gives_a_longer_pause_up_to_the_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Users: pairs apart and together, as the server spreads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/ids.h"
#include "loadgen/users.h"

static void without_a_layout_ids_follow_each_other(void **state)
{
    uint64_t ids[6];

    (void)state;
    users_assign(NULL, 100, ids, 6);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(ids[i], 100 + i);
    }
}

static void every_second_pair_is_at_home_on_two_cores(void **state)
{
    static uint64_t ids[2000];

    (void)state;
    for (uint32_t cores = 2; cores <= 5; cores++) {
        const struct users_layout layout = { cores, 16 };

        users_assign(&layout, 1, ids, 2000);
        for (uint32_t i = 0; i < 2000; i += 2) {
            const bool apart = users_home(&layout, ids[i]) != users_home(&layout, ids[i + 1]);

            assert_int_equal(apart, i / 2 % 2 == 1);
            assert_true(ids[i] < ids[i + 1]);
            assert_true(i == 0 || ids[i - 1] < ids[i]);
        }
    }
}

static void home_is_partition_mod_volumes_mod_cores(void **state)
{
    const struct users_layout layout = { 3, 16 };

    (void)state;
    for (uint64_t user = 1; user < 1000; user++) {
        assert_int_equal(users_home(&layout, user), partition_of(user).value % 16 % 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_layout_ids_follow_each_other),
        cmocka_unit_test(every_second_pair_is_at_home_on_two_cores),
        cmocka_unit_test(home_is_partition_mod_volumes_mod_cores),
    };

    return cmocka_run_group_tests_name("users", tests, NULL, NULL);
}

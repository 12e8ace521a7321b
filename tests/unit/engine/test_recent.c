#include "core/engine/recent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void items_link_both_ways(void **state)
{
    struct recent recent;
    uint8_t record[100] = { 0 };
    (void)state;
    assert_true(recent_open(&recent, RECENT_BYTES_MIN));
    const uint64_t one = recent_add(&recent, 0, 1, 1, record, 30);
    const uint64_t other = recent_add(&recent, 0, 2, 1, record, 50);
    const uint64_t two = recent_add(&recent, one, 1, 2, record, 77);
    assert_null(recent_get(&recent, 0));
    assert_int_equal(recent_get(&recent, one)->after, two);
    assert_int_equal(recent_get(&recent, two)->before, one);
    assert_int_equal(recent_get(&recent, two)->after, 0);
    assert_int_equal(recent_get(&recent, other)->after, 0);
    assert_int_equal(recent_get(&recent, two)->record_bytes, 77);
    recent_close(&recent);
}

/* Whatever the sizes: what is still there is whole, and what was written over is gone. */
static void ring_that_went_round_has_only_whole_items(void **state)
{
    struct recent recent;
    static uint64_t places[4000];
    static uint8_t record[20000];
    (void)state;
    assert_true(recent_open(&recent, RECENT_BYTES_MIN));
    uint64_t before = 0;
    for (uint32_t i = 0; i < 4000; i++) {
        const size_t bytes = 1 + (size_t)(i * i * 7919U) % (i % 10 == 0 ? 15000 : 300);

        memset(record, (int)(i & 0xff), bytes);
        before = recent_add(&recent, before, 1, i + 1, record, bytes);
        places[i] = before;

        const struct recent_item *item = recent_get(&recent, before);
        uint32_t seq = i + 1;
        uint32_t there = 0;

        while (item != NULL) {
            assert_int_equal(item->seq, seq);
            assert_int_equal(item->record[0], (seq - 1) & 0xff);
            assert_int_equal(item->record[item->record_bytes - 1], (seq - 1) & 0xff);
            there++;
            seq--;
            item = recent_get(&recent, item->before);
        }
        assert_true(there >= 3 || i < 3);
        assert_true(there > i || recent_get(&recent, places[i - there]) == NULL);
    }
    recent_close(&recent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_link_both_ways),
        cmocka_unit_test(ring_that_went_round_has_only_whole_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

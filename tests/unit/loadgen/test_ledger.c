/* Ledger: each kind of fault, planted, is found and called by its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loadgen/ledger.h"

#define CLIENT 3

static struct ledger ledger;

static int set_up(void **state)
{
    struct hf_error error;

    (void)state;
    return ledger_open(&ledger, &error) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    ledger_close(&ledger);
    return 0;
}

/* Reads a log that says these numbers, of `created`; ends with 0. */
static void read_log(const uint32_t *numbers, uint32_t created)
{
    uint32_t seen = 0;

    for (; *numbers != 0; numbers++) {
        (void)ledger_on_entry(&ledger, CLIENT, LEDGER_PEER, &seen, *numbers);
    }
    ledger_on_end(&ledger, CLIENT, LEDGER_PEER, seen, created);
}

static void expect_only(enum ledger_fault fault, uint64_t count)
{
    assert_int_equal(ledger.counts[fault], count);
    assert_int_equal(ledger.fault_count, count);
}

static void right_log_has_no_fault(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 2, 3, 4, 5, 0 }, 5);
    assert_int_equal(ledger.fault_count, 0);
}

static void missing_end_is_lost(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 2, 3, 0 }, 5);
    expect_only(LEDGER_LOST, 2);
    assert_int_equal(ledger.records[0].number, 4);
    assert_int_equal(ledger.records[1].number, 5);
    assert_int_equal(ledger.records[0].client, CLIENT);
    assert_int_equal(ledger.records[0].side, LEDGER_PEER);
}

static void missing_middle_is_lost(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 4, 5, 0 }, 5);
    expect_only(LEDGER_LOST, 2);
}

static void missing_first_is_lost(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 2, 0 }, 2);
    expect_only(LEDGER_LOST, 1);
}

static void empty_log_is_all_lost(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 0 }, 7);
    expect_only(LEDGER_LOST, 7);
}

static void twice_in_a_row_is_doubled(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 2, 2, 3, 0 }, 3);
    expect_only(LEDGER_DOUBLED, 1);
}

static void again_much_later_is_doubled(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 2, 3, 4, 1, 0 }, 4);
    expect_only(LEDGER_DOUBLED, 1);
}

static void exchanged_pair_is_reordered_and_not_lost(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 3, 2, 4, 0 }, 4);
    expect_only(LEDGER_REORDERED, 1);
}

static void reordered_one_that_comes_again_is_doubled_too(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 3, 2, 2, 0 }, 3);
    assert_int_equal(ledger.counts[LEDGER_REORDERED], 1);
    assert_int_equal(ledger.counts[LEDGER_DOUBLED], 1);
    assert_int_equal(ledger.fault_count, 2);
}

static void more_than_was_created_is_unknown(void **state)
{
    (void)state;
    read_log((const uint32_t[]){ 1, 2, 3, 0 }, 2);
    expect_only(LEDGER_UNKNOWN, 1);
}

static void only_new_entries_count(void **state)
{
    uint32_t seen = 0;

    (void)state;
    assert_true(ledger_on_entry(&ledger, CLIENT, LEDGER_OWN, &seen, 2));
    assert_true(ledger_on_entry(&ledger, CLIENT, LEDGER_OWN, &seen, 1));
    assert_false(ledger_on_entry(&ledger, CLIENT, LEDGER_OWN, &seen, 1));
    assert_false(ledger_on_entry(&ledger, CLIENT, LEDGER_OWN, &seen, 2));
}

static void logs_and_sides_are_apart(void **state)
{
    uint32_t own = 0;
    uint32_t peer = 0;
    uint32_t other = 0;

    (void)state;
    (void)ledger_on_entry(&ledger, 1, LEDGER_OWN, &own, 2);
    (void)ledger_on_entry(&ledger, 1, LEDGER_PEER, &peer, 1);
    (void)ledger_on_entry(&ledger, 2, LEDGER_OWN, &other, 1);
    assert_int_equal(ledger.fault_count, 0);
    ledger_on_end(&ledger, 1, LEDGER_PEER, peer, 1);
    ledger_on_end(&ledger, 2, LEDGER_OWN, other, 1);
    assert_int_equal(ledger.fault_count, 0);
    ledger_on_end(&ledger, 1, LEDGER_OWN, own, 2);
    expect_only(LEDGER_LOST, 1);
}

static void too_many_passed_over_are_lost_at_once(void **state)
{
    uint32_t seen = 0;

    (void)state;
    (void)ledger_on_entry(&ledger, CLIENT, LEDGER_OWN, &seen, LEDGER_PASSED_MAX + 11);
    expect_only(LEDGER_LOST, 10);
    assert_int_equal(ledger.record_count, 10);
    ledger_on_end(&ledger, CLIENT, LEDGER_OWN, seen, LEDGER_PASSED_MAX + 11);
    expect_only(LEDGER_LOST, LEDGER_PASSED_MAX + 10);
    assert_int_equal(ledger.record_count, LEDGER_RECORDS_MAX);
}

static void merge_adds_counts_and_keeps_the_first_records(void **state)
{
    struct ledger sum;
    struct hf_error error;

    (void)state;
    assert_true(ledger_open(&sum, &error));
    ledger_note(&ledger, LEDGER_GAP, LEDGER_OWN, 1, 10);
    ledger_merge(&sum, &ledger);
    ledger_merge(&sum, &ledger);
    assert_int_equal(sum.counts[LEDGER_GAP], 2);
    assert_int_equal(sum.record_count, 2);
    ledger_clear(&sum);
    assert_int_equal(sum.fault_count, 0);
    assert_int_equal(sum.record_count, 0);
    ledger_close(&sum);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(right_log_has_no_fault),
        TEST(missing_end_is_lost),
        TEST(missing_middle_is_lost),
        TEST(missing_first_is_lost),
        TEST(empty_log_is_all_lost),
        TEST(twice_in_a_row_is_doubled),
        TEST(again_much_later_is_doubled),
        TEST(exchanged_pair_is_reordered_and_not_lost),
        TEST(reordered_one_that_comes_again_is_doubled_too),
        TEST(more_than_was_created_is_unknown),
        TEST(only_new_entries_count),
        TEST(logs_and_sides_are_apart),
        TEST(too_many_passed_over_are_lost_at_once),
        TEST(merge_adds_counts_and_keeps_the_first_records),
    };

    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}

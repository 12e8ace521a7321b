#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/io/buffers.h"
#include "core/io/poison.h"
#include "tests/unit/io/loopback.h"

static struct cells open_cells(uint32_t small, uint32_t medium, uint32_t large)
{
    const uint32_t counts[CELL_CLASSES] = { small, medium, large };
    struct cells cells;
    struct hf_error error;

    if (!cells_open(&cells, counts, &error)) {
        fail_msg("%s", error.text);
    }
    return cells;
}

static void cell_is_of_the_smallest_class_that_holds_the_bytes(void **state)
{
    (void)state;
    static const struct {
        size_t byte_count;
        uint32_t capacity;
    } rows[] = {
        { 0, CELL_SMALL_BYTES },
        { CELL_SMALL_BYTES, CELL_SMALL_BYTES },
        { CELL_SMALL_BYTES + 1, CELL_MEDIUM_BYTES },
        { CELL_MEDIUM_BYTES, CELL_MEDIUM_BYTES },
        { CELL_MEDIUM_BYTES + 1, CELL_LARGE_BYTES },
        { CELL_LARGE_BYTES, CELL_LARGE_BYTES },
    };
    struct cells cells = open_cells(2, 2, 2);

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct cell cell = cells_take(&cells, rows[i].byte_count);
        assert_false(cell_is_none(cell));
        assert_int_equal(cell_capacity(cell), rows[i].capacity);
        memset(cells_bytes(&cells, cell), 0x5a, rows[i].capacity);
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) { /* all of them are out */
        assert_true(cell_is_none(cells_take(&cells, rows[i].byte_count)));
    }
    cells_close(&cells);
}

static void small_cells_run_out_without_breaking_large_ones(void **state)
{
    (void)state;
    struct cells cells = open_cells(1, 0, 1);
    const struct cell small = cells_take(&cells, 10);

    assert_true(cell_is_none(cells_take(&cells, 10)));
    assert_true(cell_is_none(cells_take(&cells, 1000))); /* a class that has none at all */
    assert_false(cell_is_none(cells_take(&cells, 10000)));
    cells_give(&cells, small);
    assert_false(cell_is_none(cells_take(&cells, 10)));
    cells_close(&cells);
}

static struct cells open_noted(uint32_t small)
{
    const uint32_t counts[CELL_CLASSES] = { small, 0, 0 };
    struct cells cells;
    struct hf_error error;

    if (!cells_noted_open(&cells, counts, &error)) {
        fail_msg("%s", error.text);
    }
    return cells;
}

static struct cell take_for(struct cells *cells, uint64_t user, uint32_t holder, uint32_t since_s)
{
    const struct cell_note note = { user, holder, since_s };
    const struct cell cell = cells_take_noted(cells, 10, &note);

    assert_false(cell_is_none(cell));
    return cell;
}

static void who_has_held_longest_is_found_if_it_is_long_enough(void **state)
{
    (void)state;
    struct cells cells = open_noted(4);
    const struct cell_claim claim = { .share = 2, .over_before_s = 100, .before_s = 8 };

    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), CELL_HOLDER_NONE);
    (void)take_for(&cells, 1, 11, 7);
    const struct cell longest = take_for(&cells, 2, 12, 5);
    (void)take_for(&cells, 3, 13, 9);
    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), 12);
    cells_give(&cells, longest);
    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), 11);
    cells_note(&cells, take_for(&cells, 4, 14, 1))->since_s = CELL_SINCE_NEVER;
    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), 11);
    cells_close(&cells);
}

static void who_holds_more_than_its_share_is_found_before_those_who_hold_longer(void **state)
{
    (void)state;
    struct cells cells = open_noted(5);
    const struct cell_claim claim = { .share = 2, .over_before_s = 51, .before_s = 8 };

    (void)take_for(&cells, 1, 11, 5);
    (void)take_for(&cells, 2, 12, 50);
    (void)take_for(&cells, 2, 13, 40);
    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), 11);
    const struct cell third = take_for(&cells, 2, 14, 45);
    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), 13);
    cells_note(&cells, third)->holder = CELL_HOLDER_NONE; /* counts no longer */
    assert_int_equal(cells_find_holder(&cells, CELL_SMALL, &claim), 11);
    cells_close(&cells);
}

static void free_cells_are_poisoned(void **state)
{
    (void)state;
#ifdef POISON_ACTIVE
    struct cells cells = open_cells(1, 1, 1);
    const struct cell cell = cells_take(&cells, CELL_LARGE_BYTES);
    const uint8_t *bytes = cells_bytes(&cells, cell);

    assert_false(__asan_address_is_poisoned(bytes + CELL_LARGE_BYTES - 1));
    cells_give(&cells, cell);
    assert_true(__asan_address_is_poisoned(bytes));
    cells_close(&cells);
#else
    skip();
#endif
}

static void receive_buffers_are_ours_only_between_take_and_give(void **state)
{
    (void)state;
    struct ring ring;
    struct recv_buffers buffers;
    struct hf_error error;
    uint16_t buffer;

    loopback_open_ring(&ring, 0);
    assert_true(recv_buffers_open(&buffers, &ring, 7, 8, 64, &error));
    for (uint32_t round = 0; round < 100; round++) {
        const struct ring_event event = {
            .result = 10,
            .flags = IORING_CQE_F_BUFFER | (round % 8) << IORING_CQE_BUFFER_SHIFT,
        };
        uint8_t *bytes = recv_buffers_take(&buffers, &event, &buffer);

        assert_int_equal(buffer, round % 8);
        assert_ptr_equal(bytes, buffers.memory_ + (size_t)buffer * 64);
        assert_int_equal(buffers.held, 1);
#ifdef POISON_ACTIVE
        assert_false(__asan_address_is_poisoned(bytes + 9));
        assert_true(__asan_address_is_poisoned(bytes + 16)); /* beyond what came */
#endif
        memset(bytes, 1, 10);
        recv_buffers_give(&buffers, buffer);
#ifdef POISON_ACTIVE
        assert_true(__asan_address_is_poisoned(bytes));
#endif
    }
    ring_close(&ring);
    recv_buffers_close(&buffers);
}

static void buffer_group_in_use_is_refused(void **state)
{
    (void)state;
    struct ring ring;
    struct recv_buffers first;
    struct recv_buffers second;
    struct hf_error error;

    loopback_open_ring(&ring, 0);
    assert_true(recv_buffers_open(&first, &ring, 7, 8, 64, &error));
    assert_false(recv_buffers_open(&second, &ring, 7, 8, 64, &error));
    assert_string_equal(error.text, "register 8 receive buffers: File exists");
    ring_close(&ring);
    recv_buffers_close(&first);
    recv_buffers_close(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cell_is_of_the_smallest_class_that_holds_the_bytes),
        cmocka_unit_test(small_cells_run_out_without_breaking_large_ones),
        cmocka_unit_test(who_has_held_longest_is_found_if_it_is_long_enough),
        cmocka_unit_test(who_holds_more_than_its_share_is_found_before_those_who_hold_longer),
        cmocka_unit_test(free_cells_are_poisoned),
        cmocka_unit_test(receive_buffers_are_ours_only_between_take_and_give),
        cmocka_unit_test(buffer_group_in_use_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

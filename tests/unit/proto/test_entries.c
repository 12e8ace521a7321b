#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proto/entries.h"

static const struct conversation_id peer = { 1002 };

static uint8_t largest_body[BODY_BYTES_MAX];

static struct entry_message message_of(uint64_t n, uint16_t body_bytes)
{
    return (struct entry_message){
        .flags = ENTRY_FLAG_OWN,
        .kind = 1,
        .device = { 7 },
        .id = { 1000 + n },
        .conversation = peer,
        .sender = { 1001 },
        .prev = n - 1,
        .n = n,
        .body = { largest_body, body_bytes },
        .counter = n,
    };
}

static struct frame_view parsed(const uint8_t *bytes, size_t byte_count)
{
    struct frame_view view;

    assert_int_equal(frame_parse(bytes, byte_count, &view), FRAME_OK);
    assert_int_equal(frame_bytes(&view), byte_count);
    return view;
}

static void sizes_told_are_sizes_written(void **state)
{
    (void)state;
    const struct entry entries[] = {
        { ENTRY_MESSAGE, { .message = message_of(1, 100) } },
        { ENTRY_SENT, { .sent = { 9, { 10 } } } },
        { ENTRY_REFUSED, { .refused = { CODE_UNKNOWN, 1, { 1001 }, peer } } },
    };
    uint8_t frame[1000];

    for (size_t i = 0; i < 3; i++) {
        struct entries_builder builder;
        entries_begin(&builder, frame, sizeof frame, 5);
        assert_true(entries_add(&builder, &entries[i]));
        assert_int_equal(entries_end(&builder),
                         FRAME_HEADER_BYTES + ENTRIES_FIXED_BYTES + entry_bytes(&entries[i]));
    }
}

static void entries_stop_at_the_frame_limit_and_keep_what_fitted(void **state)
{
    (void)state;
    const size_t cap = (size_t)2 * FRAME_BYTES_MAX;
    uint8_t *frame = malloc(cap);
    struct entries_builder builder;
    uint64_t n = 1;

    assert_non_null(frame);
    memset(frame, 0xee, cap);
    entries_begin(&builder, frame, cap, 41);
    for (;; n++) {
        const struct entry entry = { ENTRY_MESSAGE, { .message = message_of(n, 100) } };
        if (!entries_add(&builder, &entry)) {
            break;
        }
    }
    const size_t whole_bytes = entries_end(&builder);
    assert_in_range(whole_bytes, FRAME_BYTES_MAX - 181, FRAME_BYTES_MAX);
    assert_int_equal(frame[whole_bytes], 0xee);
    assert_int_equal(entries_count(&builder), n - 1);

    const struct frame_view view = parsed(frame, whole_bytes);
    struct message_entries entries;
    struct entry entry;
    uint64_t seq = 0;
    uint64_t found = 0;

    assert_int_equal(message_decode_entries(&view, &entries), CODE_OK);
    assert_int_equal(entries.count, n - 1);
    while (entries_next(&entries, &seq, &entry)) {
        found++;
        assert_int_equal(seq, 40 + found);
        assert_int_equal(entry.message.n, found);
    }
    assert_int_equal(found, n - 1);
    free(frame);
}

static void a_smaller_entry_still_goes_in_after_one_that_did_not_fit(void **state)
{
    (void)state;
    uint8_t frame[200];
    struct entries_builder builder;
    const struct entry large = { ENTRY_MESSAGE, { .message = message_of(1, 500) } };
    const struct entry small = { ENTRY_SENT, { .sent = { 9, { 10 } } } };

    entries_begin(&builder, frame, sizeof frame, 1);
    assert_false(entries_add(&builder, &large));
    assert_true(entries_add(&builder, &small));
    assert_int_equal(entries_end(&builder), FRAME_HEADER_BYTES + ENTRIES_FIXED_BYTES + 17);
}

static void no_entry_gives_no_frame(void **state)
{
    (void)state;
    uint8_t frame[100];
    struct entries_builder builder;

    entries_begin(&builder, frame, sizeof frame, 1);
    assert_int_equal(entries_end(&builder), 0);
    entries_begin(&builder, NULL, 0, 1);
    const struct entry small = { ENTRY_SENT, { .sent = { 9, { 10 } } } };
    assert_false(entries_add(&builder, &small));
    assert_int_equal(entries_end(&builder), 0);
}

static void largest_body_fits_a_frame_of_its_own_in_both_frames(void **state)
{
    (void)state;
    const struct entry entry = { ENTRY_MESSAGE, { .message = message_of(7, BODY_BYTES_MAX) } };
    uint8_t *frame = malloc(FRAME_BYTES_MAX);
    struct entries_builder entries;
    struct page_builder page;
    struct message_entries entries_out;
    struct message_page page_out;

    assert_non_null(frame);
    entries_begin(&entries, frame, FRAME_BYTES_MAX, 8);
    assert_true(entries_add(&entries, &entry));
    struct frame_view view = parsed(frame, entries_end(&entries));
    assert_int_equal(message_decode_entries(&view, &entries_out), CODE_OK);

    page_begin(&page, frame, FRAME_BYTES_MAX, 1, peer, HISTORY_BEFORE);
    assert_true(page_add(&page, 8, &entry.message));
    view = parsed(frame, page_end(&page, PAGE_FLAG_MORE));
    assert_int_equal(message_decode_page(&view, &page_out), CODE_OK);
    free(frame);
}

/* A frame can hold a body that the server never takes; a client must not take it either. */
static void body_above_the_limit_is_refused_in_an_entry(void **state)
{
    (void)state;
    const struct entry entry = { ENTRY_MESSAGE, { .message = message_of(7, BODY_BYTES_MAX) } };
    uint8_t *frame = calloc(1, FRAME_BYTES_MAX);
    struct entries_builder builder;
    struct message_entries out;

    assert_non_null(frame);
    entries_begin(&builder, frame, FRAME_BYTES_MAX, 8);
    assert_true(entries_add(&builder, &entry));
    const size_t whole_bytes = entries_end(&builder) + 1;
    store_be24(frame, (uint32_t)(whole_bytes - FRAME_HEADER_BYTES));
    store_be16(frame + FRAME_HEADER_BYTES + ENTRIES_FIXED_BYTES + ENTRY_MESSAGE_FIXED_BYTES - 2,
               BODY_BYTES_MAX + 1);
    const struct frame_view view = parsed(frame, whole_bytes);
    assert_int_equal(message_decode_entries(&view, &out), CODE_BAD_FIELD);
    free(frame);
}

/* Builds a page of `count` entries of 10 B bodies, in the direction's order. */
static size_t build_page(uint8_t *frame, size_t cap, enum history_direction direction,
                         uint64_t count, uint64_t *added)
{
    struct page_builder builder;

    *added = 0;
    page_begin(&builder, frame, cap, 77, peer, direction);
    for (uint64_t i = 1; i <= count; i++) {
        const uint64_t n = direction == HISTORY_BEFORE ? count + 1 - i : i;
        const struct entry_message message = message_of(n, 10);
        if (!page_add(&builder, n * 3, &message)) {
            break;
        }
        (*added)++;
    }
    assert_int_equal(page_count(&builder), *added);
    return page_end(&builder, PAGE_FLAG_MORE);
}

/* The page must hold n = from ... to, rising. */
static void check_page(const uint8_t *frame, size_t whole_bytes, uint64_t from, uint64_t to)
{
    const struct frame_view view = parsed(frame, whole_bytes);
    struct message_page page;
    struct entry_message message;
    uint64_t seq;

    assert_int_equal(message_decode_page(&view, &page), CODE_OK);
    assert_int_equal(page.request, 77);
    assert_int_equal(page.conversation.value, peer.value);
    assert_int_equal(page.flags, PAGE_FLAG_MORE);
    assert_int_equal(page.count, to + 1 - from);
    for (uint64_t n = from; n <= to; n++) {
        assert_true(page_next(&page, &seq, &message));
        assert_int_equal(seq, n * 3);
        assert_int_equal(message.n, n);
        assert_int_equal(message.body.byte_count, 10);
    }
    assert_false(page_next(&page, &seq, &message));
}

/* At every size of the room: the newest when going back, the oldest when going on. */
static void page_keeps_the_entries_nearest_to_the_anchor(void **state)
{
    (void)state;
    for (size_t cap = 0; cap < 700; cap++) {
        uint8_t *frame = malloc(cap + (cap == 0));
        uint64_t added;

        assert_non_null(frame);
        size_t whole_bytes = build_page(frame, cap, HISTORY_BEFORE, 6, &added);
        if (cap < FRAME_HEADER_BYTES + PAGE_FIXED_BYTES) {
            assert_int_equal(whole_bytes, 0);
        } else {
            check_page(frame, whole_bytes, 7 - added, 6);
        }
        whole_bytes = build_page(frame, cap, HISTORY_AFTER, 6, &added);
        if (cap < FRAME_HEADER_BYTES + PAGE_FIXED_BYTES) {
            assert_int_equal(whole_bytes, 0);
        } else {
            check_page(frame, whole_bytes, 1, added);
        }
        free(frame);
    }
}

static void page_holds_no_more_entries_than_the_limit(void **state)
{
    (void)state;
    uint8_t *frame = malloc(FRAME_BYTES_MAX);
    struct page_builder builder;
    struct entry_message message = message_of(1, 0);
    uint64_t seq = 1000;

    assert_non_null(frame);
    message.flags = 0;
    message.prev = 0;
    page_begin(&builder, frame, FRAME_BYTES_MAX, 1, peer, HISTORY_BEFORE);
    while (page_add(&builder, seq, &message)) {
        seq--;
    }
    assert_int_equal(page_count(&builder), PAGE_ENTRIES_MAX);
    assert_in_range(page_end(&builder, 0), 1, FRAME_BYTES_MAX);
    free(frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_told_are_sizes_written),
        cmocka_unit_test(entries_stop_at_the_frame_limit_and_keep_what_fitted),
        cmocka_unit_test(a_smaller_entry_still_goes_in_after_one_that_did_not_fit),
        cmocka_unit_test(no_entry_gives_no_frame),
        cmocka_unit_test(largest_body_fits_a_frame_of_its_own_in_both_frames),
        cmocka_unit_test(body_above_the_limit_is_refused_in_an_entry),
        cmocka_unit_test(page_keeps_the_entries_nearest_to_the_anchor),
        cmocka_unit_test(page_holds_no_more_entries_than_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

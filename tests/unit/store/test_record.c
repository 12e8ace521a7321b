#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "store/record.h"

static uint8_t body_bytes[RECORD_BODY_BYTES_MAX];

static struct record entry_record(uint64_t user)
{
    struct record record;

    memset(&record, 0, sizeof record);
    record.type = RECORD_ENTRY;
    record.partition = partition_of(user);
    record.entry = (struct log_entry){
        .user = { user },
        .epoch = 1763000000,
        .seq = 300,
        .id = { UINT64_C(0x0123456789abcdef) },
        .conversation = { 77 },
        .sender = { user },
        .device = { 9 },
        .form = LOG_ENTRY_MESSAGE,
        .flags = LOG_ENTRY_FLAG_OWN | LOG_ENTRY_FLAG_OUT,
        .kind = 1,
        .counter = 128,
        .nonce = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
        .prev = 299,
        .n = 20,
        .cn = 7,
        .origin = { 1763000000, 300 },
        .body = body_bytes,
        .body_bytes = 100,
    };
    return record;
}

static void make_received(struct record *record)
{
    record->entry.flags = 0;
    record->entry.sender.value = 77;
    record->entry.counter = 0;
    memset(record->entry.nonce, 0, RECORD_NONCE_BYTES);
    record->entry.origin = (struct origin){ 1700000000, 12 };
}

static void make_refused(struct record *record)
{
    const struct log_entry message = record->entry;

    memset(&record->entry, 0, sizeof record->entry);
    record->entry.user = message.user;
    record->entry.epoch = message.epoch;
    record->entry.seq = message.seq;
    record->entry.id = message.id;
    record->entry.conversation = message.conversation;
    record->entry.sender = message.sender;
    record->entry.form = LOG_ENTRY_REFUSED;
    record->entry.code = 4;
    record->entry.ref_seq = 17;
    record->entry.origin = message.origin;
}

enum { ROWS = 14 };

static void make_rows(struct record rows[ROWS])
{
    const struct user_id user = { 42 };

    memset(rows, 0, ROWS * sizeof rows[0]);
    for (int i = 0; i < ROWS; i++) {
        rows[i].partition = partition_of(user.value);
    }
    rows[0].type = RECORD_USER;
    rows[0].user = (struct record_user){ user, 1763000000, 1763000000123 };
    rows[1].type = RECORD_DEVICE;
    rows[1].device = (struct record_device){ user, { 9 }, 3, 1763000000124 };
    rows[2] = entry_record(user.value);
    rows[3] = entry_record(user.value);
    make_received(&rows[3]);
    rows[4] = entry_record(user.value);
    make_refused(&rows[4]);
    rows[5].type = RECORD_REJECT;
    rows[5].reject = (struct record_reject){ user, { 9 }, 129, { 7 }, 5 };
    rows[6].type = RECORD_OUT_END;
    rows[6].out_end = (struct record_out_end){ user, { 99 } };
    rows[7].type = RECORD_FLOOR;
    rows[7].floor = (struct record_floor){ user, UINT64_MAX };
    rows[8].type = RECORD_CURSOR;
    rows[8].cursor = (struct record_cursor){ user, { 9 }, 1763000000, 299, 0 };
    /* The largest body, no body, and the largest numbers. */
    rows[9] = rows[2];
    rows[9].entry.body_bytes = RECORD_BODY_BYTES_MAX;
    rows[10] = rows[3];
    rows[10].entry.body_bytes = 0;
    rows[11] = rows[2];
    rows[11].entry.epoch = rows[11].entry.seq = UINT64_MAX;
    rows[11].entry.prev = 1;
    rows[11].entry.n = rows[11].entry.cn = rows[11].entry.counter = UINT64_MAX;
    rows[11].entry.body_bytes = RECORD_BODY_BYTES_MAX;
    /* What follows from nothing else: a group's entry, of somebody else's device. */
    rows[12] = rows[3];
    rows[12].entry.conversation.value = ID_GROUP_BIT | 5;
    rows[12].entry.device.value = UINT32_MAX;
    rows[13] = rows[3];
    rows[13].entry.device.value = 0;
    rows[13].entry.prev = 0;
    rows[13].entry.n = 1;
    rows[13].entry.cn = 1;
}

static void assert_same(const struct record *a, const struct record *b)
{
    if (a->type == RECORD_ENTRY) {
        struct record plain_a = *a;
        struct record plain_b = *b;

        assert_int_equal(a->entry.body_bytes, b->entry.body_bytes);
        if (a->entry.body_bytes > 0) {
            assert_memory_equal(a->entry.body, b->entry.body, a->entry.body_bytes);
        }
        plain_a.entry.body = plain_b.entry.body = NULL;
        assert_memory_equal(&plain_a, &plain_b, sizeof plain_a);
        return;
    }
    assert_memory_equal(a, b, sizeof *a);
}

static void every_record_comes_back_as_it_was(void **state)
{
    (void)state;
    struct record rows[ROWS];
    static uint8_t bytes[RECORD_BYTES_MAX];

    for (size_t i = 0; i < sizeof body_bytes; i++) {
        body_bytes[i] = (uint8_t)(i * 31 >> 3);
    }
    make_rows(rows);
    for (int i = 0; i < ROWS; i++) {
        struct record read;
        size_t length = 0;
        const size_t written = record_encode(&rows[i], bytes, sizeof bytes);

        memset(&read, 0xaa, sizeof read);
        assert_int_equal(written, record_bytes(&rows[i]));
        assert_int_equal(record_parse(bytes, sizeof bytes, &read, &length), RECORD_OK);
        assert_int_equal(length, written);
        assert_same(&rows[i], &read);
    }
}

static void every_truncation_is_short_and_every_cut_is_bad(void **state)
{
    (void)state;
    struct record rows[ROWS];
    static uint8_t bytes[RECORD_BYTES_MAX];

    make_rows(rows);
    for (int i = 0; i < ROWS; i++) {
        const size_t written = record_encode(&rows[i], bytes, sizeof bytes);

        for (size_t cut = 0; cut < written; cut++) {
            struct record read;
            size_t length;
            uint8_t *copy = malloc(cut + 1); /* so that a read beyond it is caught */

            memcpy(copy, bytes, cut);
            assert_int_equal(record_parse(copy, cut, &read, &length), RECORD_SHORT);
            /* A length that leaves out the end: bad, unless it only shortens a body. */
            if (cut >= RECORD_HEADER_BYTES && rows[i].type != RECORD_ENTRY) {
                store_be24(copy, (uint32_t)cut);
                assert_int_equal(record_parse(copy, cut, &read, &length), RECORD_BAD);
            }
            free(copy);
        }
    }
}

static void whatever_parses_is_encoded_as_the_same_bytes(void **state)
{
    (void)state;
    struct record rows[ROWS];
    uint64_t random = 1;
    unsigned parsed = 0;

    make_rows(rows);
    for (int round = 0; round < 40000; round++) {
        uint8_t bytes[512];
        uint8_t again[512];
        struct record read;
        size_t length = 0;
        const struct record *row = &rows[round % 9];
        const size_t written = record_encode(row, bytes, sizeof bytes);

        for (int change = 0; change < 1 + round % 2; change++) {
            random = id_mix(random + 0x9e3779b97f4a7c15);
            bytes[random % written] ^= (uint8_t)(1U << (random >> 32) % 8);
        }
        if (record_parse(bytes, written, &read, &length) != RECORD_OK) {
            continue;
        }
        parsed++;
        assert_int_equal(record_encode(&read, again, sizeof again), length);
        assert_memory_equal(bytes, again, length);
    }
    assert_true(parsed > 1000);
}

static void entries_out_of_range_are_bad(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t offset; /* into the encoding of an own message of seq 300 */
        uint8_t value;
    } rows[] = {
        { "type 0", 3, 0 },
        { "type 8", 3, 8 },
        { "a partition that isn't the user's", 5, 0xff },
        { "a user with the top bit", 6, 0x80 },
        { "form 2", 37, 2 },
        { "a flag nobody knows", 38, 0x07 },
        { "origin given though it follows", 38, 0x83 },
        { "not own, but out", 38, 0x02 },
    };
    uint8_t bytes[512];
    const struct record record = entry_record(42);

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct record read;
        size_t length;
        const size_t written = record_encode(&record, bytes, sizeof bytes);

        assert_int_equal(record_parse(bytes, written, &read, &length), RECORD_OK);
        bytes[rows[i].offset] = rows[i].value;
        if (record_parse(bytes, written, &read, &length) != RECORD_BAD) {
            fail_msg("%s", rows[i].name);
        }
    }
}

static void no_entry_is_shorter_than_the_least(void **state)
{
    (void)state;
    struct record record = entry_record(1);

    make_refused(&record);
    record.entry.epoch = 1;
    record.entry.seq = 2;
    record.entry.ref_seq = 1;
    record.entry.origin = (struct origin){ 1, 2 };
    assert_int_equal(record_bytes(&record), RECORD_ENTRY_MIN);
}

/* A number of any length, from 1. */
static uint64_t draw_number(uint64_t *random)
{
    *random = id_mix(*random + 0x9e3779b97f4a7c15);
    return (id_mix(*random + 1) >> *random % 64) | 1;
}

/* An entry with each field that may be left out there or not, and numbers of all lengths. */
static struct record draw_entry(uint64_t *random)
{
    const uint64_t choices = draw_number(random) ^ id_mix(*random);
    struct record record = entry_record(1 + draw_number(random) / 2 % (ID_GROUP_BIT - 1));

    record.entry.epoch = draw_number(random);
    record.entry.seq = draw_number(random) | 2;
    record.entry.prev = record.entry.seq - 1 - draw_number(random) % record.entry.seq;
    record.entry.conversation.value = draw_number(random);
    record.entry.counter = draw_number(random);
    record.entry.n = draw_number(random);
    record.entry.cn = record.entry.n / 2;
    record.entry.origin = (struct origin){ record.entry.epoch, record.entry.seq };
    record.entry.body_bytes = (uint16_t)(choices >> 8) % 200;
    if ((choices & 1) != 0) {
        make_received(&record);
    }
    if ((choices & 2) != 0) {
        make_refused(&record);
        record.entry.ref_seq = 1;
    }
    if ((choices & 4) != 0) {
        record.entry.origin = (struct origin){ draw_number(random), draw_number(random) };
    }
    if ((choices & 8) != 0) {
        record.entry.sender.value = 3;
    }
    if ((choices & 16) != 0 && (record.entry.flags & LOG_ENTRY_FLAG_OWN) == 0) {
        record.entry.device.value = 0;
    }
    return record;
}

static void assert_outline_is_of(const struct record_outline *outline, const struct record *record)
{
    assert_int_equal(outline->byte_count, record_bytes(record));
    assert_int_equal(outline->type, record->type);
    if (record->type == RECORD_ENTRY) {
        assert_int_equal(outline->user.value, record->entry.user.value);
        assert_int_equal(outline->conversation.value, record->entry.conversation.value);
        assert_int_equal(outline->seq, record->entry.seq);
        assert_int_equal(outline->form, record->entry.form);
        assert_int_equal(outline->n, record->entry.n);
    }
}

static void an_outline_says_what_the_whole_record_says(void **state)
{
    (void)state;
    struct record rows[ROWS];
    static uint8_t bytes[RECORD_BYTES_MAX];
    uint64_t random = 2;

    make_rows(rows);
    for (int round = 0; round < 20000; round++) {
        const struct record record = round < ROWS ? rows[round] : draw_entry(&random);
        const size_t written = record_encode(&record, bytes, sizeof bytes);
        uint8_t *copy = malloc(written); /* so that a read beyond it is caught */
        struct record read;
        size_t length = 0;

        memcpy(copy, bytes, written);
        assert_int_equal(record_parse(copy, written, &read, &length), RECORD_OK);

        const struct record_outline outline = record_outline(copy, written);

        assert_outline_is_of(&outline, &read);
        assert_outline_is_of(&outline, &record);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_comes_back_as_it_was),
        cmocka_unit_test(every_truncation_is_short_and_every_cut_is_bad),
        cmocka_unit_test(whatever_parses_is_encoded_as_the_same_bytes),
        cmocka_unit_test(entries_out_of_range_are_bad),
        cmocka_unit_test(no_entry_is_shorter_than_the_least),
        cmocka_unit_test(an_outline_says_what_the_whole_record_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

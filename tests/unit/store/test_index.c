#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "store/index.h"
#include "store/journal.h"
#include "tests/unit/store/memory_disk.h"

enum { USERS = 50, SEQS = 2000 };

static struct index *open_index(uint64_t entries_max)
{
    struct hf_error error = { 0 };
    struct index *index = index_open(entries_max, &error);

    assert_non_null(index);
    return index;
}

/* The model: for each (user, seq) the pos, and the generation it is in. */
static void it_finds_what_a_plain_table_finds(void **state)
{
    (void)state;
    struct index *index = open_index((uint64_t)USERS * SEQS);
    struct {
        uint64_t pos;
        unsigned generation;
    }(*model)[SEQS] = calloc(USERS, sizeof *model);
    uint64_t next_seq[USERS] = { 0 };
    uint64_t random = 4;
    unsigned current = 1; /* generations from 1; those below `oldest` are gone */
    unsigned oldest = 1;
    uint64_t gone = 0;

    for (int step = 0; step < 80000; step++) {
        const uint64_t user = random_next(&random) % USERS;
        const uint64_t draw = random_next(&random) % 10000;

        if (draw < 4000 && next_seq[user] < SEQS) {
            const uint64_t seq = next_seq[user]++;
            const uint64_t pos = 1 + random_next(&random) % 1000000;

            index_insert(index, (struct user_id){ user + 1 }, seq, pos);
            model[user][seq].pos = pos;
            model[user][seq].generation = current;
            if (seq % 7 == 0) {
                index_insert_checkpoint(index, (struct user_id){ user + 1 },
                                        (struct conversation_id){ seq % 3 + 1 }, seq / 7, seq + 1);
            }
        } else if (draw == 9999) {
            if (oldest < current) {
                index_drop(index);
                oldest = current;
            } else {
                index_rotate(index);
                current++;
            }
        } else {
            const uint64_t seq = random_next(&random) % SEQS;
            const bool there = model[user][seq].pos != 0 && model[user][seq].generation >= oldest;

            gone += model[user][seq].pos != 0 && !there;
            assert_int_equal(index_find(index, (struct user_id){ user + 1 }, seq),
                             there ? model[user][seq].pos : 0);
            if (seq % 7 == 0) {
                const struct conversation_id conversation = { seq % 3 + 1 };
                assert_int_equal(index_find_checkpoint(index, (struct user_id){ user + 1 },
                                                       conversation, seq / 7),
                                 there ? seq + 1 : 0);
            }
        }
    }
    assert_true(gone > 1000);
    free(model);
    index_close(index);
}

static void an_entry_costs_32_bytes(void **state)
{
    (void)state;
    struct index *index = open_index(100000);

    for (uint64_t seq = 1; seq <= 100000; seq++) {
        index_insert(index, (struct user_id){ 1 + seq % 10 }, seq, seq);
    }
    assert_int_equal(index_entry_count(index), 100000);
    assert_int_equal(index_bytes(index), 3200000);
    index_close(index);
}

static void records_of_an_append_are_found_where_they_lie(void **state)
{
    (void)state;
    const struct journal_config config = { { 1, 1, 0 }, 4096, 128 * 1024, 3, 128 * 1024 };
    struct hf_error error = { 0 };
    struct journal *journal = journal_open(&config, &error);
    struct index *index = open_index(INDEX_ENTRIES_FOR(3 * 128 * 1024));
    uint8_t bytes[3 * RECORD_BYTES_MAX];
    uint8_t found[RECORD_BYTES_MAX];
    size_t length = 0;

    for (uint64_t seq = 63; seq <= 65; seq++) {
        const struct record record = message_record(5, 9, seq, seq, 9000);
        length += record_encode(&record, bytes + length, sizeof bytes - length);
    }
    const uint64_t pos = journal_append(journal, 1, bytes, length);
    index_insert_records(index, bytes, length, pos);
    for (uint64_t seq = 63; seq <= 65; seq++) {
        struct record record;
        const uint64_t at = index_find(index, (struct user_id){ 5 }, seq);

        length = journal_read_recent(journal, at, found, sizeof found);
        assert_int_equal(record_parse(found, length, &record, &length), RECORD_OK);
        assert_int_equal(record.entry.seq, seq);
    }
    assert_int_equal(
        index_find_checkpoint(index, (struct user_id){ 5 }, (struct conversation_id){ 9 }, 1), 64);
    assert_int_equal(
        index_find_checkpoint(index, (struct user_id){ 5 }, (struct conversation_id){ 9 }, 0), 0);
    index_close(index);
    journal_close(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_finds_what_a_plain_table_finds),
        cmocka_unit_test(an_entry_costs_32_bytes),
        cmocka_unit_test(records_of_an_append_are_found_where_they_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

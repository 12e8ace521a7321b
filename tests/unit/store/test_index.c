#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "store/index.h"
#include "store/journal.h"
#include "tests/unit/store/memory_disk.h"

enum { POS_FIRST = 64, BLOCK = 8 };

static struct index *open_index(uint64_t entries_max)
{
    struct hf_error error = { 0 };
    struct index *index = index_open(entries_max, &error);

    assert_non_null(index);
    return index;
}

static void insert(struct index *index, uint64_t user, uint64_t seq, uint64_t pos)
{
    index_insert(index, (struct user_id){ user }, seq, pos);
}

static void assert_found(const struct index *index, uint64_t user, uint64_t seq, uint64_t pos)
{
    assert_int_equal(index_find(index, (struct user_id){ user }, seq), pos);
}

/* For each (user, seq) the pos, and the generation it is in. */
struct model_entry {
    uint64_t pos;
    unsigned generation;
};

struct model {
    struct index *index;
    struct model_entry *entries; /* seq_count a user */
    uint64_t *next_seqs;         /* each user's first is another of a block */
    uint64_t user_count;
    uint64_t seq_count;
    uint64_t pos;
    uint64_t entry_count;
    unsigned current; /* generations from 1; those below `oldest` are gone */
    unsigned oldest;
    uint64_t gone; /* looked for in vain */
};

static void model_insert(struct model *model, uint64_t user)
{
    if (model->next_seqs[user] == model->seq_count) {
        return;
    }
    const uint64_t seq = model->next_seqs[user]++;

    model->entries[user * model->seq_count + seq] =
        (struct model_entry){ model->pos, model->current };
    insert(model->index, user + 1, seq, model->pos);
    model->entry_count++;
    if (seq % 7 == 0) {
        index_insert_checkpoint(model->index, (struct user_id){ user + 1 },
                                (struct conversation_id){ seq % 3 + 1 }, seq / 7, seq + 1);
    }
}

static void model_check(struct model *model, uint64_t user, uint64_t seq)
{
    const struct model_entry *entry = &model->entries[user * model->seq_count + seq];
    const bool there = entry->pos != 0 && entry->generation >= model->oldest;

    model->gone += entry->pos != 0 && !there;
    assert_found(model->index, user + 1, seq, there ? entry->pos : 0);
    if (seq % 7 == 0) {
        assert_int_equal(index_find_checkpoint(model->index, (struct user_id){ user + 1 },
                                               (struct conversation_id){ seq % 3 + 1 }, seq / 7),
                         there ? seq + 1 : 0);
    }
}

static void model_rotate_or_drop(struct model *model)
{
    if (model->oldest == model->current) {
        index_rotate(model->index);
        model->current++;
        return;
    }
    index_drop(model->index);
    model->oldest = model->current;
    model->entry_count = 0;
    for (uint64_t i = 0; i < model->user_count * model->seq_count; i++) {
        model->entry_count +=
            model->entries[i].pos != 0 && model->entries[i].generation == model->current;
    }
}

static void compare_with_model(uint64_t user_count, uint64_t seq_count, int step_count,
                               uint64_t rotate_every)
{
    struct model model = {
        .index = open_index(user_count * seq_count),
        .entries = calloc(user_count * seq_count, sizeof(struct model_entry)),
        .next_seqs = calloc(user_count, sizeof(uint64_t)),
        .user_count = user_count,
        .seq_count = seq_count,
        .pos = POS_FIRST,
        .current = 1,
        .oldest = 1,
    };
    uint64_t random = 4;

    if (model.entries == NULL || model.next_seqs == NULL) {
        abort(); /* the analyzer doesn't know that assertions end a test */
    }
    for (uint64_t user = 0; user < user_count; user++) {
        model.next_seqs[user] = user % 13;
    }
    for (int step = 0; step < step_count; step++) {
        const uint64_t user = random_next(&random) % user_count;

        if (random_next(&random) % rotate_every == 0) {
            model_rotate_or_drop(&model);
        } else if (random_next(&random) % 2 == 0) {
            model.pos += 1 + random_next(&random) % 1000000;
            model_insert(&model, user);
        } else {
            model_check(&model, user, random_next(&random) % seq_count);
        }
        assert_int_equal(index_entry_count(model.index), model.entry_count);
    }
    assert_true(model.gone > 1000);
    for (uint64_t i = 0; i < user_count * seq_count; i++) {
        model_check(&model, i / seq_count, i % seq_count);
    }
    free(model.entries);
    free(model.next_seqs);
    index_close(model.index);
}

static void it_finds_what_a_plain_table_finds(void **state)
{
    (void)state;
    compare_with_model(50, 2000, 100000, 8000);
}

static void many_users_of_few_entries_are_found_as_in_a_plain_table(void **state)
{
    (void)state;
    compare_with_model(20000, 24, 300000, 40000);
}

static void each_place_of_a_block_is_found_and_no_other(void **state)
{
    (void)state;

    for (uint64_t first = 0; first < BLOCK; first++) {
        struct index *index = open_index(100);

        insert(index, 2, 5, POS_FIRST); /* what places count from */
        for (uint64_t i = first; i < BLOCK; i++) {
            insert(index, 1, 80 + i, POS_FIRST + 1 + i);
            for (uint64_t seq = 72; seq < 96; seq++) {
                const bool there = seq >= 80 + first && seq <= 80 + i;
                assert_found(index, 1, seq, there ? POS_FIRST + 1 + seq - 80 : 0);
                assert_found(index, 2, seq, 0);
                assert_found(index, 3, seq, 0);
            }
        }
        assert_int_equal(index_entry_count(index), BLOCK - first + 1);
        index_close(index);
    }
}

/* The first of a generation is what the others count from, so its place must not look like none. */
static void positions_far_apart_are_found(void **state)
{
    (void)state;
    static const uint64_t far[] = {
        0, 1, UINT32_MAX - 1, UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 40) - 2
    };
    const uint64_t first = UINT64_C(1) << 62 | 100;
    struct index *index = open_index(100);

    for (uint64_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        insert(index, 1, 1 + i, first + far[i]);
    }
    for (uint64_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        assert_found(index, 1, 1 + i, first + far[i]);
    }
    index_close(index);
}

static void a_block_across_a_rotation_is_found_in_both_generations(void **state)
{
    (void)state;
    struct index *index = open_index(100);

    for (uint64_t seq = 16; seq < 24; seq++) {
        if (seq == 20) {
            index_rotate(index);
            assert_found(index, 1, 20, 0);
        }
        insert(index, 1, seq, 1000 * seq);
    }
    for (uint64_t seq = 16; seq < 24; seq++) {
        assert_found(index, 1, seq, 1000 * seq);
    }
    assert_int_equal(index_entry_count(index), 8);
    index_drop(index);
    for (uint64_t seq = 16; seq < 24; seq++) {
        assert_found(index, 1, seq, seq < 20 ? 0 : 1000 * seq);
    }
    assert_int_equal(index_entry_count(index), 4);
    index_close(index);
}

static void a_generation_used_again_has_nothing_of_before(void **state)
{
    (void)state;
    const struct user_id user = { 1 };
    const struct conversation_id conversation = { 9 };
    struct index *index = open_index(5000);

    for (uint64_t seq = 0; seq < 4000; seq++) {
        insert(index, 1, seq, POS_FIRST + seq);
    }
    index_insert_checkpoint(index, user, conversation, 3, 77);
    index_rotate(index);
    index_drop(index);
    index_rotate(index); /* the first generation's turn again */
    index_drop(index);
    assert_int_equal(index_entry_count(index), 0);
    for (uint64_t seq = 4; seq < 4000; seq += BLOCK) {
        insert(index, 1, seq, 1000000 + seq);
    }
    for (uint64_t seq = 0; seq < 4000; seq++) {
        assert_found(index, 1, seq, seq % BLOCK == 4 ? 1000000 + seq : 0);
    }
    assert_int_equal(index_find_checkpoint(index, user, conversation, 3), 0);
    index_insert_checkpoint(index, user, conversation, 3, 78);
    assert_int_equal(index_find_checkpoint(index, user, conversation, 3), 78);
    index_close(index);
}

static void a_block_costs_68_bytes_however_full(void **state)
{
    (void)state;
    struct index *busy = open_index(160000);
    struct index *quiet = open_index(20000);
    const uint64_t empty = index_bytes(busy);

    assert_true(empty <= 16384); /* the first buckets of four tables */
    for (uint64_t i = 0; i < 160000; i++) {
        insert(busy, 1 + i % 10, i / 10, POS_FIRST + i);
    }
    assert_int_equal(index_entry_count(busy), 160000);
    assert_int_equal(index_bytes(busy), empty + UINT64_C(20000) * 68 - UINT64_C(1024) * 4);
    for (uint64_t i = 0; i < 20000; i++) {
        insert(quiet, 1 + i, i, POS_FIRST + i);
    }
    assert_int_equal(index_bytes(quiet), index_bytes(busy));
    index_close(busy);
    index_close(quiet);
}

static void records_of_an_append_are_found_where_they_lie(void **state)
{
    (void)state;
    const struct journal_config config = { { 1, 1, 0 }, 4096, 128 * 1024, 3, 128 * 1024, false };
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
        cmocka_unit_test(many_users_of_few_entries_are_found_as_in_a_plain_table),
        cmocka_unit_test(each_place_of_a_block_is_found_and_no_other),
        cmocka_unit_test(positions_far_apart_are_found),
        cmocka_unit_test(a_block_across_a_rotation_is_found_in_both_generations),
        cmocka_unit_test(a_generation_used_again_has_nothing_of_before),
        cmocka_unit_test(a_block_costs_68_bytes_however_full),
        cmocka_unit_test(records_of_an_append_are_found_where_they_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

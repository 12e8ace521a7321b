#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/mark.h"
#include "store/recover.h"
#include "tests/unit/store/memory_disk.h"

#define SEGMENT_BYTES 16384U
#define SEGMENT_COUNT 6
#define START_LSN     8192U
#define IMAGE_BYTES   ((size_t)SEGMENT_BYTES * (SEGMENT_COUNT + 1))
#define WRITES_MAX    128
#define TICKET_BYTES  3000
#define BATCHES       14

static const struct journal_identity identity = { 0, 3, 0 };

/* ---- A file of marks ---- */

static uint8_t *block_of(struct memory_disk *disk, uint32_t block)
{
    return disk->bytes + (size_t)SEGMENT_COUNT * SEGMENT_BYTES +
           (size_t)block * JOURNAL_BLOCK_BYTES;
}

static bool load(struct memory_disk *disk, struct mark *mark, struct hf_error *error)
{
    static _Alignas(JOURNAL_BLOCK_BYTES) uint8_t scratch[MARK_FILE_BYTES];
    const struct journal_source source = memory_disk_source(disk);

    *error = (struct hf_error){ 0 };
    return mark_load(&source, SEGMENT_COUNT, &identity, scratch, mark, error);
}

static void seal(struct memory_disk *disk, uint32_t block, uint64_t directory_id,
                 uint64_t incarnation, uint16_t core, uint64_t durable_lsn)
{
    const struct journal_identity other = { directory_id, incarnation, core };
    const struct mark mark = { durable_lsn, START_LSN, block };

    mark_seal(block_of(disk, block), &other, &mark);
}

static void the_newest_whole_mark_of_the_incarnation_is_found(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct mark mark;
    struct hf_error error;

    memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
    assert_false(load(&disk, &mark, &error));
    assert_non_null(strstr(error.text, "missing or damaged"));
    seal(&disk, 3, 0, 3, 0, START_LSN);
    assert_true(load(&disk, &mark, &error));
    assert_int_equal(mark.durable_lsn, START_LSN);
    seal(&disk, 0, 0, 3, 0, START_LSN + 8192);
    seal(&disk, 1, 0, 3, 0, START_LSN + 4096);
    assert_true(load(&disk, &mark, &error));
    assert_int_equal(mark.durable_lsn, START_LSN + 8192);
    assert_int_equal(mark.newest_lsn, START_LSN);
    assert_int_equal(mark.newest_segment, 0);
    /* A torn one leaves the one before; so does the mark of a start that died. */
    seal(&disk, 2, 0, 4, 0, START_LSN + 40960);
    for (size_t i = 0; i < JOURNAL_BLOCK_BYTES; i += 37) {
        block_of(&disk, 0)[i] ^= 16;
        assert_true(load(&disk, &mark, &error));
        assert_int_equal(mark.durable_lsn, START_LSN + 4096);
        block_of(&disk, 0)[i] ^= 16;
    }
    memory_disk_deinit(&disk);
}

static void marks_that_do_not_belong_are_refused_with_the_reason(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t directory_id;
        uint64_t incarnation;
        uint16_t core;
        bool newer;
        bool unreadable;
    } rows[] = {
        { "another data directory", 1, 3, 0, false, false },
        { "another core", 0, 3, 1, false, false },
        { "newer version", 0, 3, 0, true, false },
        { "of start 5, but the manifest knows only 3 starts", 0, 5, 0, false, false },
        { "missing or damaged", 0, 2, 0, false, false },
        { "can't be read", 0, 3, 0, false, true },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct memory_disk disk;
        struct mark mark;
        struct hf_error error;

        memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
        seal(&disk, 1, rows[i].directory_id, rows[i].incarnation, rows[i].core, START_LSN);
        block_of(&disk, 1)[3] += rows[i].newer;
        disk.reads_until_failure = rows[i].unreadable;
        assert_false(load(&disk, &mark, &error));
        if (strstr(error.text, rows[i].text) == NULL) {
            fail_msg("\"%s\" isn't in \"%s\"", rows[i].text, error.text);
        }
        memory_disk_deinit(&disk);
    }
}

/* ---- A journal that marks ---- */

/* Every write of a run, and what the disk held before the first. */
struct recorded {
    struct memory_disk disk;
    struct journal *journal;
    struct journal_write writes[WRITES_MAX];
    uint8_t *bytes[WRITES_MAX];
    uint64_t durable_lsns[WRITES_MAX]; /* before each write */
    uint32_t write_count;
    uint64_t end_lsn;
    uint8_t *after;
};

static void note_write(struct recorded *recorded, const struct journal_write *write)
{
    const uint32_t i = recorded->write_count++;

    assert_true(i < WRITES_MAX);
    recorded->writes[i] = *write;
    recorded->durable_lsns[i] = journal_durable_lsn(recorded->journal);
    recorded->bytes[i] = malloc(write->byte_count);
    memcpy(recorded->bytes[i], write->bytes, write->byte_count);
}

static void write_all(struct recorded *recorded)
{
    struct journal_write write;

    while (journal_next_write(recorded->journal, &write)) {
        note_write(recorded, &write);
        memcpy(recorded->disk.bytes + (size_t)write.segment * SEGMENT_BYTES + write.offset,
               write.bytes, write.byte_count);
        journal_on_written(recorded->journal, write.byte_count);
    }
}

/* The journal doesn't look into the records. */
static void recorded_init(struct recorded *recorded, bool marked_at_the_end)
{
    const struct journal_config config = { identity,      START_LSN, SEGMENT_BYTES,
                                           SEGMENT_COUNT, 65536,     true };
    static const uint8_t ticket[TICKET_BYTES] = { 1, 2, 3 };
    struct hf_error error;

    memset(recorded, 0, sizeof *recorded);
    memory_disk_init(&recorded->disk, SEGMENT_BYTES, SEGMENT_COUNT);
    seal(&recorded->disk, mark_start_block(identity.incarnation), 0, identity.incarnation, 0,
         START_LSN);
    recorded->journal = journal_open(&config, &error);
    assert_non_null(recorded->journal);
    for (uint64_t i = 1; i <= BATCHES; i++) {
        journal_append(recorded->journal, i, ticket, sizeof ticket);
        write_all(recorded);
        if (i % 3 == 0) {
            journal_want_mark(recorded->journal);
            assert_false(journal_is_marked(recorded->journal));
        }
    }
    if (marked_at_the_end) {
        journal_want_mark(recorded->journal);
        write_all(recorded);
        assert_true(journal_is_marked(recorded->journal));
        journal_want_mark(recorded->journal); /* nothing new to say */
    }
    write_all(recorded);
    assert_true(journal_idle(recorded->journal));
    recorded->end_lsn = journal_durable_lsn(recorded->journal);
    recorded->after = malloc(IMAGE_BYTES);
    memcpy(recorded->after, recorded->disk.bytes, IMAGE_BYTES);
}

static void recorded_deinit(struct recorded *recorded)
{
    for (uint32_t i = 0; i < recorded->write_count; i++) {
        free(recorded->bytes[i]);
    }
    free(recorded->after);
    journal_close(recorded->journal);
    memory_disk_deinit(&recorded->disk);
}

static enum recover_status scan(struct recorded *recorded, uint64_t *end_lsn,
                                struct hf_error *error)
{
    struct journal_span spans[SEGMENT_COUNT];
    struct recover_run run = { .spans = spans };
    struct mark mark;
    struct recover_journal journal = {
        .source = memory_disk_source(&recorded->disk),
        .identity = identity,
        .segment_bytes = SEGMENT_BYTES,
        .segment_count = SEGMENT_COUNT,
        .start_lsn = START_LSN,
        .needed_from = START_LSN,
        .mark = &mark,
    };

    if (!load(&recorded->disk, &mark, error)) {
        return RECOVER_REFUSED;
    }
    const enum recover_status status = recover_scan(&journal, &run, error);

    *end_lsn = run.end_lsn;
    return status;
}

static bool is_mark(const struct journal_write *write)
{
    return write->segment == SEGMENT_COUNT;
}

static void every_segment_but_the_first_is_marked_before_its_first_write(void **state)
{
    (void)state;
    struct recorded recorded;
    unsigned begun = 0;
    unsigned marks = 0;

    recorded_init(&recorded, false);
    for (uint32_t i = 0; i < recorded.write_count; i++) {
        const struct journal_write *write = &recorded.writes[i];

        marks += is_mark(write);
        if (is_mark(write) || write->offset != 0 || begun++ == 0) {
            continue;
        }
        struct mark mark;
        struct hf_error error;

        assert_true(is_mark(&recorded.writes[i - 1]));
        memset(block_of(&recorded.disk, 0), 0, MARK_FILE_BYTES);
        memcpy(block_of(&recorded.disk, 0), recorded.bytes[i - 1], JOURNAL_BLOCK_BYTES);
        assert_true(load(&recorded.disk, &mark, &error));
        assert_int_equal(mark.newest_segment, write->segment);
        assert_int_equal(mark.newest_lsn, recorded.durable_lsns[i]);
        assert_int_equal(mark.durable_lsn, recorded.durable_lsns[i]);
    }
    assert_true(begun >= 3 && marks >= begun - 1 + BATCHES / 3 - 2);
    recorded_deinit(&recorded);
}

/* Any prefix of the writes, the last of them in part, in any sectors: a power cut, never damage. */
static void a_power_cut_at_any_write_is_never_refused(void **state)
{
    (void)state;
    struct recorded recorded;
    uint64_t random = 5;

    recorded_init(&recorded, true);
    memset(recorded.disk.bytes, 0, IMAGE_BYTES);
    seal(&recorded.disk, mark_start_block(identity.incarnation), 0, identity.incarnation, 0,
         START_LSN);
    for (uint32_t i = 0; i < recorded.write_count; i++) {
        const struct journal_write *write = &recorded.writes[i];
        uint8_t *at = recorded.disk.bytes + (size_t)write->segment * SEGMENT_BYTES + write->offset;
        uint8_t before[SEGMENT_BYTES];
        struct hf_error error;
        uint64_t end_lsn = 0;

        memcpy(before, at, write->byte_count);
        for (int kind = 0; kind < 20; kind++) {
            for (size_t sector = 0; sector < write->byte_count; sector += 512) {
                if (random_next(&random) % 2 == 0) {
                    memcpy(at + sector, recorded.bytes[i] + sector, 512);
                }
            }
            if (scan(&recorded, &end_lsn, &error) != RECOVER_DONE) {
                fail_msg("write %u: %s", i, error.text);
            }
            assert_true(end_lsn >= recorded.durable_lsns[i]);
            memcpy(at, before, write->byte_count);
        }
        memcpy(at, recorded.bytes[i], write->byte_count);
    }
    recorded_deinit(&recorded);
}

static void expect_refused(struct recorded *recorded, const char *text)
{
    struct hf_error error;
    uint64_t end_lsn = 0;

    if (scan(recorded, &end_lsn, &error) != RECOVER_REFUSED) {
        fail_msg("not refused (\"%s\"): end %llu", text, (unsigned long long)end_lsn);
    }
    if (strstr(error.text, text) == NULL) {
        fail_msg("\"%s\" isn't in \"%s\"", text, error.text);
    }
    memcpy(recorded->disk.bytes, recorded->after, IMAGE_BYTES);
}

static void a_newest_segment_that_is_gone_is_refused(void **state)
{
    (void)state;
    struct recorded recorded;

    for (uint32_t marked_at_the_end = 0; marked_at_the_end < 2; marked_at_the_end++) {
        recorded_init(&recorded, marked_at_the_end != 0);
        const uint32_t newest =
            recorded.writes[recorded.write_count - 1 - marked_at_the_end].segment;
        uint8_t *segment = recorded.disk.bytes + (size_t)newest * SEGMENT_BYTES;

        if (marked_at_the_end != 0) {
            memset(segment, 0, SEGMENT_BYTES);
            expect_refused(&recorded, "it was durable up to");
        }
        memset(segment - SEGMENT_BYTES, 0, (size_t)2 * SEGMENT_BYTES); /* and the one before */
        expect_refused(&recorded, "it was durable up to");
        segment[100] ^= 1; /* its first batch, with others behind it */
        expect_refused(&recorded, "damaged");
        memset(block_of(&recorded.disk, 0), 0, MARK_FILE_BYTES);
        expect_refused(&recorded, "missing or damaged");
        /* The start's mark alone doesn't know what came later. */
        memset(block_of(&recorded.disk, 0), 0, (size_t)2 * JOURNAL_BLOCK_BYTES);
        expect_refused(&recorded, "marks are damaged or an old copy");
        recorded_deinit(&recorded);
    }
}

/* The last batch alone can't be told from a torn one, unless a mark has seen it durable. */
static void a_damaged_last_batch_is_refused_once_it_is_marked(void **state)
{
    (void)state;
    struct recorded recorded;
    struct hf_error error;
    uint64_t end_lsn = 0;

    recorded_init(&recorded, false);
    const struct journal_write *last = &recorded.writes[recorded.write_count - 1];

    recorded.disk.bytes[(size_t)last->segment * SEGMENT_BYTES + last->offset + 70] ^= 1;
    assert_int_equal(scan(&recorded, &end_lsn, &error), RECOVER_DONE);
    assert_int_equal(end_lsn, recorded.end_lsn - last->byte_count);
    recorded_deinit(&recorded);

    recorded_init(&recorded, true);
    last = &recorded.writes[recorded.write_count - 2];
    recorded.disk.bytes[(size_t)last->segment * SEGMENT_BYTES + last->offset + 70] ^= 1;
    expect_refused(&recorded, "it was durable up to");
    recorded_deinit(&recorded);
}

static void a_mark_written_in_part_is_written_again(void **state)
{
    (void)state;
    struct recorded recorded;
    struct journal_write write;
    struct journal_write again;
    static const uint8_t ticket[TICKET_BYTES] = { 1 };

    recorded_init(&recorded, true);
    journal_append(recorded.journal, BATCHES + 1, ticket, sizeof ticket);
    write_all(&recorded);
    journal_want_mark(recorded.journal);
    assert_true(journal_next_write(recorded.journal, &write));
    assert_true(is_mark(&write));
    assert_false(journal_idle(recorded.journal));
    journal_on_written(recorded.journal, 512);
    assert_false(journal_is_marked(recorded.journal));
    assert_true(journal_next_write(recorded.journal, &again));
    assert_int_equal(again.segment, write.segment);
    assert_int_equal(again.offset, write.offset);
    journal_on_written(recorded.journal, again.byte_count);
    assert_true(journal_is_marked(recorded.journal));
    recorded_deinit(&recorded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_whole_mark_of_the_incarnation_is_found),
        cmocka_unit_test(marks_that_do_not_belong_are_refused_with_the_reason),
        cmocka_unit_test(every_segment_but_the_first_is_marked_before_its_first_write),
        cmocka_unit_test(a_power_cut_at_any_write_is_never_refused),
        cmocka_unit_test(a_newest_segment_that_is_gone_is_refused),
        cmocka_unit_test(a_damaged_last_batch_is_refused_once_it_is_marked),
        cmocka_unit_test(a_mark_written_in_part_is_written_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

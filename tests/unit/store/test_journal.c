#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/index.h"
#include "store/journal.h"
#include "store/journal_block.h"
#include "tests/unit/store/memory_disk.h"

#define SEGMENT_BYTES ((size_t)128 * 1024)
#define SEGMENT_COUNT 4
#define RING_BYTES    ((size_t)64 * 1024)
#define START_LSN     (40960U)

static const struct journal_identity identity = { 0x1122334455667788, 7, 3 };

static struct journal *open_journal(void)
{
    const struct journal_config config = { identity, START_LSN, SEGMENT_BYTES, SEGMENT_COUNT,
                                           RING_BYTES };
    struct hf_error error = { 0 };
    struct journal *journal = journal_open(&config, &error);

    assert_non_null(journal);
    return journal;
}

static size_t encode(const struct record *record, uint8_t *to)
{
    return record_encode(record, to, RECORD_BYTES_MAX);
}

/* What was appended, to compare with. */
struct appended {
    uint64_t pos;
    uint64_t user;
    uint64_t seq;
    uint16_t body_bytes;
};

static void assert_is(const struct appended *expected, const uint8_t *bytes, size_t byte_count)
{
    uint8_t again[RECORD_BYTES_MAX];
    const struct record record =
        message_record(expected->user, 9, expected->seq, expected->seq, expected->body_bytes);

    assert_int_equal(encode(&record, again), byte_count);
    assert_memory_equal(again, bytes, byte_count);
}

static uint16_t random_body(uint64_t *random)
{
    const uint64_t draw = random_next(random);

    return (uint16_t)(draw % 16 == 0 ? draw % (RECORD_BODY_BYTES_MAX + 1) : draw % 300);
}

static bool append_one(struct journal *journal, uint64_t ticket, uint64_t *random,
                       struct appended *appended)
{
    uint8_t bytes[RECORD_BYTES_MAX];

    appended->user = 1 + random_next(random) % 5;
    appended->seq = ticket;
    appended->body_bytes = random_body(random);
    const struct record record =
        message_record(appended->user, 9, ticket, ticket, appended->body_bytes);
    const size_t length = encode(&record, bytes);
    if (length > journal_room(journal)) {
        return false;
    }
    appended->pos = journal_append(journal, ticket, bytes, length);
    return true;
}

enum { APPENDED_MAX = 20000 };

/* Random appends, writes (short ones too) and flushes, over many rounds of the segments: all that
 * isn't flushed is read back, from the files and, where it is recent, from memory. */
static void what_was_appended_is_read_back(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct journal *journal = open_journal();
    struct appended *appended = calloc(APPENDED_MAX, sizeof *appended);
    uint64_t random = 1;
    uint64_t count = 0;
    uint64_t durable = 0;
    uint64_t flushed = 0;
    unsigned flushes = 0;
    unsigned recent = 0;
    struct journal_flush flush = { 0 };
    uint8_t *scratch = aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_FETCH_SCRATCH_BYTES);

    memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
    const struct journal_source source = memory_disk_source(&disk);
    while (count < APPENDED_MAX) {
        const uint64_t draw = random_next(&random) % 100;
        struct journal_write write;
        struct journal_span spans[SEGMENT_COUNT];

        if (draw < 60) {
            count += append_one(journal, count + 1, &random, &appended[count]);
        } else if (journal_next_write(journal, &write)) {
            size_t done = write.byte_count;

            if (draw < 70) {
                done = random_next(&random) % (write.byte_count + 1);
            }
            memcpy(disk.bytes + (size_t)write.segment * SEGMENT_BYTES + write.offset, write.bytes,
                   done);
            if (draw < 80 && journal_flush_begin(journal, &flush)) {
                assert_int_equal(flush.upto_ticket, count); /* what is in flight too */
            }
            journal_on_written(journal, done);
            assert_true(journal_durable_ticket(journal) >= durable);
            durable = journal_durable_ticket(journal);
        } else if (draw == 98) {
            (void)!journal_flush_begin(journal, &flush);
        }
        if (journal_flush_ready(journal) && draw == 99) {
            assert_true(durable >= flush.upto_ticket);
            journal_flush_end(journal);
            flushed = flush.upto_ticket;
            flushes++;
        }
        if (count > flushed && draw % 10 == 3) {
            const struct appended *one =
                &appended[flushed + random_next(&random) % (count - flushed)];
            uint8_t bytes[RECORD_BYTES_MAX];
            size_t length = journal_read_recent(journal, one->pos, bytes, sizeof bytes);

            if (length > 0) {
                recent++;
                assert_is(one, bytes, length);
            }
            if (one->seq <= durable) {
                const uint32_t span_count =
                    journal_get_spans(journal, 0, UINT64_MAX, spans, SEGMENT_COUNT);

                assert_true(journal_fetch(&source, &identity, spans, span_count, one->pos, scratch,
                                          bytes, sizeof bytes, &length));
                assert_is(one, bytes, length);
            }
        }
    }
    assert_true(journal_end_lsn(journal) > 4 * SEGMENT_BYTES * SEGMENT_COUNT);
    assert_true(flushes > 20 && recent > 100);
    free(scratch);
    free(appended);
    journal_close(journal);
    memory_disk_deinit(&disk);
}

static void a_walk_gives_every_record_in_order(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct journal *journal = open_journal();
    struct appended appended[2000];
    struct journal_span spans[SEGMENT_COUNT];
    struct journal_walk walk;
    const uint8_t *bytes;
    size_t length;
    uint64_t random = 2;
    uint32_t count = 0;

    memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
    const struct journal_source source = memory_disk_source(&disk);
    while (count < 2000 && append_one(journal, count + 1, &random, &appended[count])) {
        count++;
        if (random_next(&random) % 4 == 0) {
            memory_disk_write(&disk, journal);
        }
    }
    memory_disk_write_all(&disk, journal);
    const uint32_t span_count = journal_get_spans(journal, 0, UINT64_MAX, spans, SEGMENT_COUNT);
    assert_true(span_count >= 3);
    assert_true(journal_walk_open(&walk, &source, &identity, spans, span_count, START_LSN,
                                  journal_durable_lsn(journal)));
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(journal_walk_next(&walk, &bytes, &length), WALK_RECORD);
        assert_is(&appended[i], bytes, length);
    }
    assert_int_equal(journal_walk_next(&walk, &bytes, &length), WALK_END);
    journal_walk_close(&walk);

    /* One bit anywhere in it ends the walk, before its end. */
    disk.bytes[(size_t)spans[1].segment * SEGMENT_BYTES + 5000] ^= 1;
    assert_true(journal_walk_open(&walk, &source, &identity, spans, span_count, START_LSN,
                                  journal_durable_lsn(journal)));
    enum walk_status status = WALK_RECORD;
    while (status == WALK_RECORD) {
        status = journal_walk_next(&walk, &bytes, &length);
    }
    assert_int_equal(status, WALK_DAMAGED);
    journal_walk_close(&walk);
    disk.bytes[(size_t)spans[1].segment * SEGMENT_BYTES + 5000] ^= 1;

    disk.reads_until_failure = 2;
    assert_true(journal_walk_open(&walk, &source, &identity, spans, span_count, START_LSN,
                                  journal_durable_lsn(journal)));
    status = WALK_RECORD;
    while (status == WALK_RECORD) {
        status = journal_walk_next(&walk, &bytes, &length);
    }
    assert_int_equal(status, WALK_BROKEN);
    journal_walk_close(&walk);
    journal_close(journal);
    memory_disk_deinit(&disk);
}

static void room_that_was_promised_is_there_until_segments_run_out(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct journal *journal = open_journal();
    uint64_t ticket = 0;
    uint8_t *bytes = calloc(1, RING_BYTES);
    struct journal_flush flush;
    uint64_t appended_bytes = 0;

    /* The journal doesn't look into records: any bytes will do. */
    memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
    while (journal_room(journal) > 0) {
        const size_t room = journal_room(journal);
        const size_t part = room > 5000 ? room / 2 + 1 : room;

        journal_append(journal, ++ticket, bytes, part);
        journal_append(journal, ++ticket, bytes, room - part > 0 ? room - part : 0);
        appended_bytes += room;
        assert_int_equal(journal_room(journal), 0);
        memory_disk_write(&disk, journal);
    }
    memory_disk_write_all(&disk, journal);
    assert_int_equal(journal_used_permille(journal), 1000);
    assert_true(appended_bytes > SEGMENT_BYTES * SEGMENT_COUNT * 9ULL / 10);

    assert_true(journal_flush_begin(journal, &flush));
    assert_false(journal_flush_begin(journal, &flush)); /* one at a time */
    assert_int_equal(flush.from_lsn, START_LSN);
    assert_int_equal(flush.upto_ticket, ticket);
    assert_int_equal(journal_unflushed_bytes(journal), 0);
    journal_flush_end(journal);
    assert_true(journal_used_permille(journal) <= 250);
    assert_true(journal_room(journal) > 0);
    assert_false(journal_flush_begin(journal, &flush)); /* nothing new */
    free(bytes);
    journal_close(journal);
    memory_disk_deinit(&disk);
}

static void a_segment_used_again_no_longer_gives_its_old_records(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct journal *journal = open_journal();
    struct appended first;
    struct appended other;
    struct journal_span spans[SEGMENT_COUNT];
    struct journal_flush flush;
    uint64_t random = 3;
    uint64_t ticket = 1;
    uint8_t bytes[RECORD_BYTES_MAX];
    size_t length;
    uint8_t *scratch = aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_FETCH_SCRATCH_BYTES);

    memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
    const struct journal_source source = memory_disk_source(&disk);
    assert_true(append_one(journal, ticket, &random, &first));
    memory_disk_write(&disk, journal);
    const uint32_t span_count = journal_get_spans(journal, 0, UINT64_MAX, spans, SEGMENT_COUNT);
    while (journal_end_lsn(journal) < START_LSN + SEGMENT_BYTES * (SEGMENT_COUNT + 1)) {
        while (!append_one(journal, ticket + 1, &random, &other)) {
            memory_disk_write(&disk, journal);
            assert_true(journal_flush_begin(journal, &flush));
            journal_flush_end(journal);
        }
        ticket++;
        memory_disk_write(&disk, journal);
    }
    assert_int_equal(journal_read_recent(journal, first.pos, bytes, sizeof bytes), 0);
    assert_false(journal_fetch(&source, &identity, spans, span_count, first.pos, scratch, bytes,
                               sizeof bytes, &length));
    free(scratch);
    journal_close(journal);
    memory_disk_deinit(&disk);
}

static void blocks_tell_foreign_torn_and_newer_apart(void **state)
{
    (void)state;
    uint8_t bytes[JOURNAL_BLOCK_BYTES] = { 0 };
    struct journal_block block = {
        .lsn = 8192, .batch_lsn = 4096, .batch_blocks = 2, .batch_crc = 5, .payload_bytes = 9
    };
    struct journal_block read;

    assert_int_equal(journal_block_check(bytes, 1, 2, &read), JOURNAL_BLOCK_NONE);
    journal_block_seal(bytes, &(struct journal_identity){ 1, 6, 2 }, &block);
    assert_int_equal(journal_block_check(bytes, 1, 2, &read), JOURNAL_BLOCK_OK);
    assert_int_equal(read.incarnation, 6);
    assert_int_equal(read.lsn, block.lsn);
    assert_int_equal(read.batch_lsn, block.batch_lsn);
    assert_int_equal(read.batch_blocks, block.batch_blocks);
    assert_int_equal(read.batch_crc, block.batch_crc);
    assert_int_equal(read.payload_bytes, block.payload_bytes);
    assert_int_equal(journal_block_check(bytes, 2, 2, &read), JOURNAL_BLOCK_FOREIGN);
    assert_int_equal(journal_block_check(bytes, 1, 3, &read), JOURNAL_BLOCK_FOREIGN);
    bytes[3] = 2;
    assert_int_equal(journal_block_check(bytes, 1, 2, &read), JOURNAL_BLOCK_NEWER);
    bytes[3] = 1;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 4;
        assert_int_not_equal(journal_block_check(bytes, 1, 2, &read), JOURNAL_BLOCK_OK);
        bytes[i] ^= 4;
    }
    block.batch_blocks = 1; /* it isn't among them */
    journal_block_seal(bytes, &(struct journal_identity){ 1, 6, 2 }, &block);
    assert_int_equal(journal_block_check(bytes, 1, 2, &read), JOURNAL_BLOCK_TORN);
}

static void settings_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct journal_config rows[] = {
        { identity, 0, SEGMENT_BYTES, 4, RING_BYTES },
        { identity, 5000, SEGMENT_BYTES, 4, RING_BYTES },
        { identity, 4096, SEGMENT_BYTES + 1, 4, RING_BYTES },
        { identity, 4096, SEGMENT_BYTES, 2, RING_BYTES },
        { identity, 4096, SEGMENT_BYTES, 4, RING_BYTES + 4096 },
        { identity, 4096, SEGMENT_BYTES, 4, RING_BYTES / 2 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hf_error error = { 0 };
        assert_null(journal_open(&rows[i], &error));
        assert_int_not_equal(error.exit_code, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_is_read_back),
        cmocka_unit_test(a_walk_gives_every_record_in_order),
        cmocka_unit_test(room_that_was_promised_is_there_until_segments_run_out),
        cmocka_unit_test(a_segment_used_again_no_longer_gives_its_old_records),
        cmocka_unit_test(blocks_tell_foreign_torn_and_newer_apart),
        cmocka_unit_test(settings_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

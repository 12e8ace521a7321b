#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
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
    const struct journal_config config = { identity,      START_LSN,  SEGMENT_BYTES,
                                           SEGMENT_COUNT, RING_BYTES, false };
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

/* A journal at work: a write in flight is read by the disk only when it ends. */
struct work {
    struct memory_disk disk;
    struct journal *journal;
    struct appended *appended;
    uint64_t count;
    uint64_t durable;
    uint64_t flushed;
    struct journal_write write;
    bool in_flight;
    struct journal_flush flush;
    unsigned flushes;
    unsigned recent;
    unsigned refused;
    uint64_t random;
    uint8_t *scratch;
};

static void begin_write(struct work *work)
{
    if (!work->in_flight && journal_next_write(work->journal, &work->write)) {
        work->in_flight = true;
        assert_int_equal(work->write.offset % JOURNAL_BLOCK_BYTES, 0);
        assert_int_equal(work->write.byte_count % JOURNAL_BLOCK_BYTES, 0);
        assert_true(work->write.offset + work->write.byte_count <= SEGMENT_BYTES);
        /* What is durable is never written over: the block's own LSN. */
        assert_true(load_be64(work->write.bytes + 24) >= journal_durable_lsn(work->journal));
    }
}

/* Now and then the write comes out short. */
static void end_write(struct work *work)
{
    size_t done = work->write.byte_count;

    if (!work->in_flight) {
        return;
    }
    if (random_next(&work->random) % 4 == 0) {
        done = random_next(&work->random) % (work->write.byte_count + 1);
    }
    memcpy(work->disk.bytes + work->write.segment * SEGMENT_BYTES + work->write.offset,
           work->write.bytes, done);
    work->in_flight = false;
    journal_on_written(work->journal, done);
    assert_true(journal_durable_ticket(work->journal) >= work->durable);
    work->durable = journal_durable_ticket(work->journal);
}

static void step_flush(struct work *work)
{
    if (journal_flush_ready(work->journal)) {
        assert_true(work->durable >= work->flush.upto_ticket);
        journal_flush_end(work->journal);
        work->flushed = work->flush.upto_ticket;
        work->flushes++;
    } else if (journal_flush_begin(work->journal, &work->flush)) {
        assert_int_equal(work->flush.upto_ticket, work->count); /* what is in flight too */
    }
}

/* Any record that isn't flushed: from the file if it is durable, from memory if it is recent. */
static void read_back(struct work *work)
{
    const struct journal_source source = memory_disk_source(&work->disk);
    const struct appended *one =
        &work->appended[work->flushed + random_next(&work->random) % (work->count - work->flushed)];
    struct journal_span spans[SEGMENT_COUNT];
    uint8_t bytes[RECORD_BYTES_MAX];
    size_t length = journal_read_recent(work->journal, one->pos, bytes, sizeof bytes);

    if (length > 0) {
        work->recent++;
        assert_is(one, bytes, length);
    }
    if (one->seq <= work->durable) {
        const uint32_t span_count =
            journal_get_spans(work->journal, 0, UINT64_MAX, spans, SEGMENT_COUNT);

        assert_true(journal_fetch(&source, &identity, spans, span_count, one->pos, work->scratch,
                                  bytes, sizeof bytes, &length));
        assert_is(one, bytes, length);
    } else {
        assert_true(length > 0); /* what isn't durable yet is always in memory */
    }
}

/* Random appends, writes and flushes, over many rounds of the segments. */
static void what_was_appended_is_read_back(void **state)
{
    (void)state;
    static struct work work;

    memset(&work, 0, sizeof work);
    work.journal = open_journal();
    work.appended = calloc(APPENDED_MAX, sizeof *work.appended);
    work.scratch = aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_FETCH_SCRATCH_BYTES);
    work.random = 1;
    memory_disk_init(&work.disk, SEGMENT_BYTES, SEGMENT_COUNT);
    while (work.count < APPENDED_MAX) {
        /* Phases: mostly appends until all room is taken, then mostly writes. */
        const bool eager = work.count / 500 % 2 == 0;
        const uint64_t draw = random_next(&work.random) % 1000;

        if (draw < (eager ? 950 : 500)) {
            if (append_one(work.journal, work.count + 1, &work.random,
                           &work.appended[work.count])) {
                work.count++;
            } else {
                work.refused++;
            }
        } else if (draw < 970) {
            begin_write(&work);
        } else if (draw < 990) {
            end_write(&work);
        } else {
            step_flush(&work);
        }
        if (work.count > work.flushed && draw % 10 == 3) {
            read_back(&work);
        }
    }
    assert_true(journal_end_lsn(work.journal) > 4 * SEGMENT_BYTES * SEGMENT_COUNT);
    assert_true(work.flushes > 20 && work.recent > 100 && work.refused > 100);
    free(work.scratch);
    free(work.appended);
    journal_close(work.journal);
    memory_disk_deinit(&work.disk);
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

    /* So does a batch whose blocks are sound, each by itself. */
    uint8_t *first = disk.bytes + spans[1].segment * SEGMENT_BYTES;
    struct journal_block block;
    assert_int_equal(journal_block_check(first, identity.directory_id, identity.core, &block),
                     JOURNAL_BLOCK_OK);
    block.batch_crc ^= 1;
    journal_block_seal(first, &identity, &block);
    assert_true(journal_walk_open(&walk, &source, &identity, spans, span_count, START_LSN,
                                  journal_durable_lsn(journal)));
    status = WALK_RECORD;
    while (status == WALK_RECORD) {
        status = journal_walk_next(&walk, &bytes, &length);
    }
    assert_int_equal(status, WALK_DAMAGED);
    journal_walk_close(&walk);
    block.batch_crc ^= 1;
    journal_block_seal(first, &identity, &block);

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

/* What gathers has no batch yet, so a flush can't end behind it. */
static void a_flush_begins_only_between_batches(void **state)
{
    (void)state;
    struct journal *journal = open_journal();
    struct journal_flush flush;
    struct journal_write write;
    uint8_t bytes[100] = { 0 };

    journal_append(journal, 1, bytes, sizeof bytes);
    assert_false(journal_flush_begin(journal, &flush));
    assert_true(journal_next_write(journal, &write));
    assert_false(journal_next_write(journal, &write)); /* one at a time */
    assert_true(journal_flush_begin(journal, &flush));
    assert_false(journal_flush_ready(journal));
    journal_append(journal, 2, bytes, sizeof bytes);
    journal_on_written(journal, write.byte_count);
    assert_true(journal_flush_ready(journal));
    assert_int_equal(flush.upto_ticket, 1);
    assert_int_equal(flush.upto_lsn, journal_durable_lsn(journal));
    assert_true(journal_unflushed_bytes(journal) > 0);
    journal_close(journal);
}

/* And until then it counts as used, with what its last batch left free. */
static void a_segment_goes_only_when_all_of_it_is_flushed(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct journal *journal = open_journal();
    struct journal_span spans[SEGMENT_COUNT];
    struct journal_flush flush;
    /* Four to a segment, which leave a good part of it free. */
    const size_t ticket_bytes = (size_t)7 * JOURNAL_PAYLOAD_BYTES;
    uint8_t *bytes = calloc(1, ticket_bytes);

    memory_disk_init(&disk, SEGMENT_BYTES, SEGMENT_COUNT);
    journal_append(journal, 1, bytes, ticket_bytes);
    memory_disk_write_all(&disk, journal);
    assert_true(journal_flush_begin(journal, &flush)); /* of the first alone */
    for (uint64_t ticket = 2; ticket <= 5; ticket++) {
        journal_append(journal, ticket, bytes, ticket_bytes);
        memory_disk_write_all(&disk, journal);
    }
    assert_int_equal(journal_get_spans(journal, 0, UINT64_MAX, spans, SEGMENT_COUNT), 2);
    assert_true(spans[0].end_lsn - spans[0].first_lsn < SEGMENT_BYTES);
    assert_int_equal(journal_used_permille(journal),
                     1000 * (SEGMENT_BYTES + spans[1].end_lsn - spans[1].first_lsn) /
                         (SEGMENT_BYTES * SEGMENT_COUNT));
    journal_flush_end(journal);
    assert_int_equal(journal_get_spans(journal, 0, UINT64_MAX, spans, SEGMENT_COUNT), 2);
    assert_int_equal(spans[0].first_lsn, START_LSN);
    assert_true(journal_flush_begin(journal, &flush));
    journal_flush_end(journal);
    assert_int_equal(journal_get_spans(journal, 0, UINT64_MAX, spans, SEGMENT_COUNT), 1);
    free(bytes);
    journal_close(journal);
    memory_disk_deinit(&disk);
}

static void a_segment_used_again_no_longer_gives_its_old_records(void **state)
{
    (void)state;
    struct memory_disk disk;
    struct journal *journal = open_journal();
    struct appended first = { 0 };
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
        .lsn = 8192,
        .batch_lsn = 4096,
        .batch_blocks = 2,
        .batch_crc = 5,
        .segment = 3,
        .payload_bytes = 9,
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
    assert_int_equal(read.segment, block.segment);
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
    const struct journal_config rows[] = {
        { identity, 0, SEGMENT_BYTES, 4, RING_BYTES, true },
        { identity, 5000, SEGMENT_BYTES, 4, RING_BYTES, true },
        { identity, 4096, SEGMENT_BYTES + 1, 4, RING_BYTES, true },
        { identity, 4096, SEGMENT_BYTES, 2, RING_BYTES, true },
        { identity, 4096, SEGMENT_BYTES, 65536, RING_BYTES, true },
        { identity, 4096, SEGMENT_BYTES, 4, RING_BYTES + 4096, true },
        { identity, 4096, SEGMENT_BYTES, 4, RING_BYTES / 2, true },
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
        cmocka_unit_test(a_flush_begins_only_between_batches),
        cmocka_unit_test(a_segment_goes_only_when_all_of_it_is_flushed),
        cmocka_unit_test(a_segment_used_again_no_longer_gives_its_old_records),
        cmocka_unit_test(blocks_tell_foreign_torn_and_newer_apart),
        cmocka_unit_test(settings_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/journal_block.h"
#include "store/recover.h"
#include "tests/unit/store/world.h"

#define SEGMENT_BYTES  16384U
#define SEGMENT_COUNT  8
#define IMAGE_BYTES    ((size_t)SEGMENT_BYTES * SEGMENT_COUNT)
#define BOUNDARIES_MAX 512

/* Where batches end, and what is durable then. */
struct boundary {
    uint64_t lsn;
    uint64_t ticket;
};

/*
 * A recorded journal: what the segments held before its batches were written, and after. All that
 * was before is applied.
 */
struct recorded {
    struct world world;
    uint8_t *before;
    uint8_t *after;
    uint64_t applied;
    struct boundary boundaries[BOUNDARIES_MAX]; /* the first is where the batches begin */
    uint32_t boundary_count;
    struct journal_span spans[SEGMENT_COUNT];
    uint32_t span_count;
};

static void note_boundary(struct recorded *recorded)
{
    const uint64_t lsn = journal_durable_lsn(recorded->world.journal);

    if (recorded->boundary_count == 0 ||
        lsn > recorded->boundaries[recorded->boundary_count - 1].lsn) {
        assert_true(recorded->boundary_count < BOUNDARIES_MAX);
        recorded->boundaries[recorded->boundary_count++] =
            (struct boundary){ lsn, journal_durable_ticket(recorded->world.journal) };
    }
}

/* Batches of 1 to 80 tickets, until the journal has so many bytes more. */
static void record_batches(struct recorded *recorded, uint64_t byte_count)
{
    struct world *world = &recorded->world;
    const uint64_t end = journal_end_lsn(world->journal) + byte_count;

    note_boundary(recorded);
    while (journal_end_lsn(world->journal) < end) {
        const uint64_t tickets = 1 + id_mix(world->ticket) % 80;
        uint8_t bytes[CHAT_TICKET_BYTES];

        for (uint64_t i = 0; i < tickets; i++) {
            const size_t length = chat_model_step(&world->model, bytes);
            const uint64_t pos = journal_append(world->journal, ++world->ticket, bytes, length);

            index_insert_records(world->index, bytes, length, pos);
        }
        memory_disk_write_all(&world->disk, world->journal);
        note_boundary(recorded);
    }
}

/* `used_before`: the segments have been through a former life, and hold its batches. */
static void recorded_init(struct recorded *recorded, uint64_t seed, bool used_before,
                          uint64_t byte_count)
{
    memset(recorded, 0, sizeof *recorded);
    world_init(&recorded->world, seed, SEGMENT_BYTES, SEGMENT_COUNT);
    recorded->applied = 0;
    while (used_before && journal_end_lsn(recorded->world.journal) < 2 * IMAGE_BYTES) {
        record_batches(recorded, IMAGE_BYTES / 2);
        world_flush(&recorded->world, 1000, 0);
        recorded->applied = journal_durable_lsn(recorded->world.journal);
    }
    recorded->boundary_count = 0;
    recorded->before = malloc(IMAGE_BYTES);
    recorded->after = malloc(IMAGE_BYTES);
    memcpy(recorded->before, recorded->world.disk.bytes, IMAGE_BYTES);
    record_batches(recorded, byte_count);
    memcpy(recorded->after, recorded->world.disk.bytes, IMAGE_BYTES);
    recorded->span_count = journal_get_spans(recorded->world.journal, recorded->boundaries[0].lsn,
                                             UINT64_MAX, recorded->spans, SEGMENT_COUNT);
    assert_true(recorded->span_count >= 3);
    assert_true(recorded->boundary_count >= 6);
}

static void recorded_deinit(struct recorded *recorded)
{
    free(recorded->before);
    free(recorded->after);
    world_deinit(&recorded->world);
}

static const struct boundary *last_boundary(const struct recorded *recorded)
{
    return &recorded->boundaries[recorded->boundary_count - 1];
}

/* Where the byte of that LSN lies in an image. */
static size_t image_at(const struct recorded *recorded, uint64_t lsn)
{
    for (uint32_t i = 0; i < recorded->span_count; i++) {
        const struct journal_span *span = &recorded->spans[i];

        if (lsn >= span->first_lsn && lsn < span->end_lsn) {
            return (size_t)span->segment * SEGMENT_BYTES + (size_t)(lsn - span->first_lsn);
        }
    }
    fail_msg("no such LSN");
    return 0;
}

static enum recover_status scan(struct recorded *recorded, struct recover_run *run,
                                struct hf_error *error)
{
    static struct journal_span spans[SEGMENT_COUNT];
    const struct recover_journal journal = {
        .source = memory_disk_source(&recorded->world.disk),
        .identity = recorded->world.identity,
        .segment_bytes = SEGMENT_BYTES,
        .segment_count = SEGMENT_COUNT,
        .start_lsn = WORLD_START_LSN,
        .needed_from = recorded->boundaries[0].lsn,
        .needed_upto = recorded->applied,
    };

    run->spans = spans;
    return recover_scan(&journal, run, error);
}

static void expect_end(struct recorded *recorded, uint64_t lsn, const char *what, uint64_t where)
{
    struct recover_run run = { 0 };
    struct hf_error error = { 0 };
    const enum recover_status status = scan(recorded, &run, &error);

    if (status != RECOVER_DONE || run.end_lsn != lsn) {
        fail_msg("%s at LSN %llu: status %d, end %llu instead of %llu: %s", what,
                 (unsigned long long)where, status, (unsigned long long)run.end_lsn,
                 (unsigned long long)lsn, error.text);
    }
}

static void expect_refusal(struct recorded *recorded, const char *what, uint64_t where)
{
    struct recover_run run = { 0 };
    struct hf_error error = { 0 };

    if (scan(recorded, &run, &error) != RECOVER_REFUSED) {
        fail_msg("%s at LSN %llu isn't refused: end %llu", what, (unsigned long long)where,
                 (unsigned long long)run.end_lsn);
    }
    assert_non_null(strstr(error.text, "damaged"));
}

/* From the whole journal back to nothing, a byte at a time: what is there is found, no more. */
static void every_byte_prefix_ends_with_its_last_whole_batch(void **state)
{
    (void)state;
    static struct recorded recorded;

    for (int used_before = 0; used_before < 2; used_before++) {
        recorded_init(&recorded, 40 + (uint64_t)used_before, used_before != 0, 60000);
        uint32_t whole = recorded.boundary_count - 1;
        const uint64_t end = last_boundary(&recorded)->lsn;
        uint8_t *disk = recorded.world.disk.bytes;

        for (uint64_t cut = end; cut-- > recorded.boundaries[0].lsn;) {
            const size_t at = image_at(&recorded, cut);

            if (disk[at] == recorded.before[at]) {
                continue; /* the same prefix, as far as the disk knows */
            }
            disk[at] = recorded.before[at];
            if (cut < recorded.boundaries[whole].lsn) {
                while (recorded.boundaries[whole].lsn > cut) {
                    whole--;
                }
            }
            expect_end(&recorded, recorded.boundaries[whole].lsn, "cut", cut);
        }
        assert_int_equal(whole, 0);
        assert_memory_equal(disk, recorded.before, IMAGE_BYTES);
        recorded_deinit(&recorded);
    }
}

enum hurt {
    HURT_LOST,   /* the block's write never happened */
    HURT_ZEROED, /* or its sectors were discarded */
    HURT_SECTOR, /* one sector of it never was written */
    HURT_BIT,
    HURT_KINDS,
};

static void hurt_block(struct recorded *recorded, enum hurt hurt, size_t at, uint64_t random)
{
    uint8_t *block = recorded->world.disk.bytes + at;
    const size_t sector = random % (JOURNAL_BLOCK_BYTES / 512) * 512;

    switch (hurt) {
    case HURT_LOST:
        memcpy(block, recorded->before + at, JOURNAL_BLOCK_BYTES);
        break;
    case HURT_ZEROED:
        memset(block, 0, JOURNAL_BLOCK_BYTES);
        break;
    case HURT_SECTOR:
        memcpy(block + sector, recorded->before + at + sector, 512);
        break;
    case HURT_BIT:
    case HURT_KINDS:
        block[random % JOURNAL_BLOCK_BYTES] ^= (uint8_t)(1U << (random >> 40) % 8);
        break;
    }
}

static void any_bad_block_is_a_torn_end_or_damage(void **state)
{
    (void)state;
    static struct recorded recorded;
    uint64_t random = 9;
    unsigned torn = 0;
    unsigned damaged = 0;

    for (uint64_t seed = 50; seed < 58; seed++) {
        recorded_init(&recorded, seed, seed % 2 == 1, 50000);
        const uint64_t last_batch = recorded.boundaries[recorded.boundary_count - 2].lsn;
        const uint64_t end = last_boundary(&recorded)->lsn;

        expect_end(&recorded, end, "nothing", 0);
        for (uint64_t lsn = recorded.boundaries[0].lsn; lsn < end; lsn += JOURNAL_BLOCK_BYTES) {
            const size_t at = image_at(&recorded, lsn);

            for (int kind = 0; kind < HURT_KINDS * 4; kind++) {
                const enum hurt hurt = (enum hurt)(kind % HURT_KINDS);

                hurt_block(&recorded, hurt, at, random_next(&random));
                if (memcmp(recorded.world.disk.bytes + at, recorded.after + at,
                           JOURNAL_BLOCK_BYTES) == 0) {
                    continue; /* a sector of zeros */
                }
                if (lsn >= last_batch) {
                    expect_end(&recorded, last_batch, "torn", lsn);
                    torn++;
                } else {
                    expect_refusal(&recorded, "damage", lsn);
                    damaged++;
                }
                memcpy(recorded.world.disk.bytes + at, recorded.after + at, JOURNAL_BLOCK_BYTES);
            }
        }
        recorded_deinit(&recorded);
    }
    assert_true(torn > 50 && damaged > 500);
}

/* Any of the last batch's blocks may be there and any not: it is torn, and the rest is good. */
static void every_subset_of_the_last_batch_is_torn(void **state)
{
    (void)state;
    static struct recorded recorded;
    unsigned larger = 0;

    for (uint64_t seed = 60; seed < 72; seed++) {
        recorded_init(&recorded, seed, seed % 2 == 1, 50000);
        const uint64_t begin = recorded.boundaries[recorded.boundary_count - 2].lsn;
        const uint64_t end = last_boundary(&recorded)->lsn;
        const unsigned blocks = (unsigned)((end - begin) / JOURNAL_BLOCK_BYTES);

        larger += blocks > 1;
        for (unsigned there = 0; there < 1U << blocks; there++) {
            struct recover_run run = { 0 };
            struct hf_error error = { 0 };

            for (unsigned b = 0; b < blocks; b++) {
                const size_t at = image_at(&recorded, begin + (uint64_t)b * JOURNAL_BLOCK_BYTES);
                memcpy(recorded.world.disk.bytes + at,
                       ((there >> b & 1) != 0 ? recorded.after : recorded.before) + at,
                       JOURNAL_BLOCK_BYTES);
            }
            assert_int_equal(scan(&recorded, &run, &error), RECOVER_DONE);
            assert_int_equal(run.end_lsn, there + 1 == 1U << blocks ? end : begin);
            assert_int_equal(run.torn, there != 0 && there + 1 != 1U << blocks);
        }
        recorded_deinit(&recorded);
    }
    assert_true(larger > 2);
}

/* Blocks that are sound, each by itself, but not the batch that was written. */
static void a_batch_of_sound_blocks_with_the_wrong_sum_is_torn(void **state)
{
    (void)state;
    static struct recorded recorded;
    struct journal_block block;

    recorded_init(&recorded, 73, false, 50000);
    const struct journal_identity identity = recorded.world.identity;
    const uint64_t begin = recorded.boundaries[recorded.boundary_count - 2].lsn;
    uint8_t *first = recorded.world.disk.bytes + image_at(&recorded, begin);

    assert_int_equal(journal_block_check(first, identity.directory_id, identity.core, &block),
                     JOURNAL_BLOCK_OK);
    block.batch_crc ^= 1;
    journal_block_seal(first, &identity, &block);
    expect_end(&recorded, begin, "wrong sum", begin);
    recorded_deinit(&recorded);
}

static void missing_and_doubled_segments_are_refused(void **state)
{
    (void)state;
    static struct recorded recorded;

    for (int used_before = 0; used_before < 2; used_before++) {
        recorded_init(&recorded, 80, used_before != 0, 60000);
        uint8_t *disk = recorded.world.disk.bytes;

        for (uint32_t i = 0; i + 1 < recorded.span_count; i++) {
            const size_t at = (size_t)recorded.spans[i].segment * SEGMENT_BYTES;

            memset(disk + at, 0, SEGMENT_BYTES);
            expect_refusal(&recorded, "no segment", recorded.spans[i].first_lsn);
            memcpy(disk + at, recorded.before + at, SEGMENT_BYTES);
            expect_refusal(&recorded, "old segment", recorded.spans[i].first_lsn);
            memcpy(disk + at, recorded.after + at, SEGMENT_BYTES);
        }
        /* One in another's place too. */
        const size_t first = (size_t)recorded.spans[0].segment * SEGMENT_BYTES;
        const size_t second = (size_t)recorded.spans[1].segment * SEGMENT_BYTES;

        memcpy(disk + second, disk + first, SEGMENT_BYTES);
        expect_refusal(&recorded, "doubled", recorded.spans[1].first_lsn);
        memcpy(disk + second, recorded.after + second, SEGMENT_BYTES);
        memcpy(disk + second, recorded.after + first, SEGMENT_BYTES);
        memcpy(disk + first, recorded.after + second, SEGMENT_BYTES);
        expect_refusal(&recorded, "swapped", recorded.spans[0].first_lsn);
        recorded_deinit(&recorded);
    }
}

static void expect_text(struct recorded *recorded, const struct recover_journal *journal,
                        const char *text)
{
    struct journal_span spans[SEGMENT_COUNT];
    struct recover_run run = { .spans = spans };
    struct hf_error error = { 0 };

    (void)recorded;
    assert_int_equal(recover_scan(journal, &run, &error), RECOVER_REFUSED);
    if (strstr(error.text, text) == NULL) {
        fail_msg("\"%s\" isn't in \"%s\"", text, error.text);
    }
}

static void journals_that_do_not_belong_are_refused_with_the_reason(void **state)
{
    (void)state;
    static struct recorded recorded;

    recorded_init(&recorded, 81, false, 40000);
    const struct recover_journal sound = {
        .source = memory_disk_source(&recorded.world.disk),
        .identity = recorded.world.identity,
        .segment_bytes = SEGMENT_BYTES,
        .segment_count = SEGMENT_COUNT,
        .start_lsn = WORLD_START_LSN,
        .needed_from = WORLD_START_LSN,
    };
    struct recover_journal journal = sound;

    journal.identity.directory_id++;
    expect_text(&recorded, &journal, "another data directory");
    journal = sound;
    journal.identity.core++;
    expect_text(&recorded, &journal, "another core");
    journal = sound;
    journal.identity.incarnation--;
    expect_text(&recorded, &journal, "old copy");
    journal = sound;
    journal.needed_upto = last_boundary(&recorded)->lsn + JOURNAL_BLOCK_BYTES;
    expect_text(&recorded, &journal, "the journal ends at");
    recorded.world.disk.bytes[3]++;
    expect_text(&recorded, &sound, "newer version");
    recorded.world.disk.reads_until_failure = 1;
    expect_text(&recorded, &sound, "can't be read");
    recorded_deinit(&recorded);
}

/* ---- Into the volumes ---- */

static struct recover *open_recover(struct recorded *recorded, uint32_t slice_records)
{
    static const uint16_t core_of_volume[WORLD_VOLUMES] = { 0 };
    static struct journal_source source;
    struct hf_error error = { 0 };
    struct recover_config config = {
        .incarnation = recorded->world.identity.incarnation,
        .start_lsn = WORLD_START_LSN,
        .core_count = 1,
        .segment_bytes = SEGMENT_BYTES,
        .segment_count = SEGMENT_COUNT,
        .core_of_volume = core_of_volume,
        .sources = &source,
        .volumes = recorded->world.scratch.volumes,
        .volume_count = WORLD_VOLUMES,
        .slice_records = slice_records,
    };

    source = memory_disk_source(&recorded->world.disk);
    struct recover *recover = recover_open(&config, &error);
    if (recover == NULL) {
        fail_msg("%s", error.text);
    }
    return recover;
}

static enum recover_status run_recover(struct recover *recover, unsigned steps)
{
    enum recover_status status = RECOVER_MORE;
    struct hf_error error = { 0 };
    struct recover_stats stats;
    uint32_t permille = 0;

    while (steps-- > 0 && status == RECOVER_MORE) {
        status = recover_step(recover, &error);
        recover_get_stats(recover, &stats);
        assert_in_range(stats.permille, permille, 1000);
        permille = stats.permille;
    }
    if (status > RECOVER_DONE) {
        fail_msg("%s", error.text);
    }
    assert_true(status != RECOVER_DONE || permille == 1000);
    return status;
}

/* The model as it was after so many tickets. */
static void model_at(struct chat_model *model, uint64_t seed, uint64_t tickets)
{
    uint8_t bytes[CHAT_TICKET_BYTES];

    chat_model_init(model, seed);
    for (uint64_t i = 0; i < tickets; i++) {
        chat_model_step(model, bytes);
    }
}

static void recovery_applies_exactly_the_whole_batches(void **state)
{
    (void)state;
    static struct recorded recorded;
    const uint64_t seed = 90;

    recorded_init(&recorded, seed, false, 60000);
    /* The directory's id is all zeros here, and so is what stands in the blocks. */
    const uint8_t directory_id[SCHEMA_DIRECTORY_ID_BYTES] = { 0 };
    assert_int_equal(recover_block_id(directory_id), recorded.world.identity.directory_id);
    for (uint32_t b = recorded.boundary_count; b-- > 0;) {
        struct recover *recover;
        struct chat_model model;

        for (uint64_t lsn = recorded.boundaries[b].lsn; lsn < last_boundary(&recorded)->lsn;
             lsn += JOURNAL_BLOCK_BYTES) {
            memset(recorded.world.disk.bytes + image_at(&recorded, lsn), 0, JOURNAL_BLOCK_BYTES);
        }
        scratch_volumes_empty(&recorded.world.scratch);
        recover = open_recover(&recorded, 30);
        assert_int_equal(run_recover(recover, UINT32_MAX), RECOVER_DONE);
        assert_true(recover_next_lsn(recover) > recorded.boundaries[b].lsn);
        recover_close(recover);
        model_at(&model, seed, recorded.boundaries[b].ticket);
        chat_model_compare(&model, recorded.world.scratch.volumes, WORLD_VOLUMES,
                           recorded.boundaries[b].lsn == WORLD_START_LSN
                               ? WORLD_START_LSN
                               : recorded.boundaries[b].lsn);
        chat_model_deinit(&model);
    }
    recorded_deinit(&recorded);
}

static void recovery_that_dies_at_any_step_is_done_again(void **state)
{
    (void)state;
    static struct recorded recorded;
    enum recover_status status = RECOVER_MORE;
    unsigned steps = 0;

    recorded_init(&recorded, 90, false, 40000);
    while (status != RECOVER_DONE) {
        struct recover *recover;

        scratch_volumes_empty(&recorded.world.scratch);
        recover = open_recover(&recorded, 5);
        status = run_recover(recover, ++steps);
        recover_close(recover);
        scratch_volumes_reopen(&recorded.world.scratch);
        recover = open_recover(&recorded, 7);
        assert_int_equal(run_recover(recover, UINT32_MAX), RECOVER_DONE);
        recover_close(recover);
        chat_model_compare(&recorded.world.model, recorded.world.scratch.volumes, WORLD_VOLUMES,
                           last_boundary(&recorded)->lsn);
    }
    assert_true(steps > 30);
    recorded_deinit(&recorded);
}

/* Run after run in the same segments, each ended by a crash in the midst of a write. */
static void runs_follow_one_another_in_the_same_segments(void **state)
{
    (void)state;
    static struct recorded recorded;
    struct world *world = &recorded.world;
    uint64_t start_lsn = WORLD_START_LSN;
    uint64_t random = 10;
    struct hf_error error;

    memset(&recorded, 0, sizeof recorded);
    world_init(world, 91, SEGMENT_BYTES, SEGMENT_COUNT);
    for (int run = 0; run < 12; run++) {
        const struct journal_config config = { world->identity, start_lsn,        SEGMENT_BYTES,
                                               SEGMENT_COUNT,   WORLD_RING_BYTES, false };
        struct recover_config recover_config = {
            .incarnation = world->identity.incarnation,
            .start_lsn = start_lsn,
            .core_count = 1,
            .segment_bytes = SEGMENT_BYTES,
            .segment_count = SEGMENT_COUNT,
            .core_of_volume = (const uint16_t[WORLD_VOLUMES]){ 0 },
            .sources = &(struct journal_source){ 0 },
            .volumes = world->scratch.volumes,
            .volume_count = WORLD_VOLUMES,
        };
        const struct journal_source source = memory_disk_source(&world->disk);
        struct journal_write write;
        struct recover *recover;
        uint8_t bytes[CHAT_TICKET_BYTES];

        recover_config.sources = &source;
        journal_close(world->journal);
        world->journal = journal_open(&config, &error);
        world->ticket = 0;
        index_close(world->index);
        world->index = index_open(10000, &error);
        for (int part = 0; part < 3; part++) {
            world_chat(world, 60);
            if (part < 2) {
                world_flush(world, 50, 0);
            }
        }
        /* The last batch is lost, but for one of its blocks. */
        const uint64_t end_lsn = journal_durable_lsn(world->journal);
        const struct record record = message_record(999, 5, 1, 1, 6000);

        journal_append(world->journal, world->ticket + 1, bytes,
                       record_encode(&record, bytes, sizeof bytes));
        assert_true(journal_next_write(world->journal, &write));
        const size_t block = random_next(&random) % (write.byte_count / 4096) * 4096;
        memcpy(world->disk.bytes + (size_t)write.segment * SEGMENT_BYTES + write.offset + block,
               write.bytes + block, 4096);

        recover = recover_open(&recover_config, &error);
        assert_non_null(recover);
        assert_int_equal(run_recover(recover, UINT32_MAX), RECOVER_DONE);
        chat_model_compare(&world->model, world->scratch.volumes, WORLD_VOLUMES, end_lsn);
        assert_true(recover_next_lsn(recover) > end_lsn + write.byte_count);
        start_lsn = recover_next_lsn(recover);
        world->identity.incarnation++;
        recover_close(recover);
    }
    world_deinit(world);
}

/* ---- Volumes that don't belong ---- */

static void volumes_of_elsewhere_are_refused_with_the_reason(void **state)
{
    (void)state;
    struct scratch_volumes scratch;
    const struct schema_identity sound = { SCHEMA_FORMAT, { 1, 2, 3 }, 0, 2 };
    const struct {
        const char *text;
        struct schema_identity identity;
    } rows[] = {
        { "another data directory", { SCHEMA_FORMAT, { 1, 2, 4 }, 0, 2 } },
        { "in the place of", { SCHEMA_FORMAT, { 1, 2, 3 }, 1, 2 } },
        { "in the place of", { SCHEMA_FORMAT, { 1, 2, 3 }, 0, 3 } },
    };
    struct hf_error error;

    scratch_volumes_open(&scratch, 2);
    assert_true(recover_prepare_volume(scratch.volumes[0], &sound, &error));
    scratch_volumes_reopen(&scratch);
    assert_true(recover_prepare_volume(scratch.volumes[0], &sound, &error));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_false(recover_prepare_volume(scratch.volumes[0], &rows[i].identity, &error));
        assert_non_null(strstr(error.text, rows[i].text));
    }

    struct schema_identity other = sound;
    other.format = SCHEMA_FORMAT + 1;
    assert_true(recover_prepare_volume(scratch.volumes[1], &other, &error));
    assert_false(recover_prepare_volume(scratch.volumes[1], &sound, &error));
    assert_non_null(strstr(error.text, "a newer version"));
    scratch_volumes_close(&scratch);
    scratch_volumes_open(&scratch, 1);
    other.format = SCHEMA_FORMAT - 1;
    assert_true(recover_prepare_volume(scratch.volumes[0], &other, &error));
    assert_false(recover_prepare_volume(scratch.volumes[0], &sound, &error));
    assert_non_null(strstr(error.text, "an older version"));
    scratch_volumes_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_prefix_ends_with_its_last_whole_batch),
        cmocka_unit_test(any_bad_block_is_a_torn_end_or_damage),
        cmocka_unit_test(every_subset_of_the_last_batch_is_torn),
        cmocka_unit_test(a_batch_of_sound_blocks_with_the_wrong_sum_is_torn),
        cmocka_unit_test(missing_and_doubled_segments_are_refused),
        cmocka_unit_test(journals_that_do_not_belong_are_refused_with_the_reason),
        cmocka_unit_test(recovery_applies_exactly_the_whole_batches),
        cmocka_unit_test(recovery_that_dies_at_any_step_is_done_again),
        cmocka_unit_test(runs_follow_one_another_in_the_same_segments),
        cmocka_unit_test(volumes_of_elsewhere_are_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

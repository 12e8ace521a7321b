#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/store/world.h"

#define SEGMENT_BYTES ((size_t)256 * 1024)
#define SEGMENT_COUNT 16

static void volumes_hold_what_was_flushed(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        bool large_bodies;
        uint32_t slice_records;
        size_t memory_max;
    } rows[] = {
        { 1, false, 2000, 0 },
        { 2, true, 50, 0 },
        { 3, true, 1, 1 }, /* a volume at a time; slices of two records of one user */
        { 4, true, 7, 100000 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world world;

        world_init(&world, rows[i].seed, SEGMENT_BYTES, SEGMENT_COUNT);
        world.model.large_bodies = rows[i].large_bodies;
        for (int round = 0; round < 6; round++) {
            world_chat(&world, 150);
            world_flush(&world, rows[i].slice_records, rows[i].memory_max);
            chat_model_compare(&world.model, world.scratch.volumes, WORLD_VOLUMES,
                               journal_durable_lsn(world.journal));
        }
        world_deinit(&world);
    }
}

/*
 * The first part is flushed. Then a flush of the second part dies after `steps` steps, and all is
 * flushed from where the first ended: as after a crash.
 */
static void a_flush_done_again_from_any_slice_gives_the_same(void **state)
{
    (void)state;
    struct world world;
    enum flush_status status = FLUSH_SLICE;
    unsigned boundaries = 0;

    world_init(&world, 5, SEGMENT_BYTES, SEGMENT_COUNT);
    world.model.large_bodies = true;
    world_chat(&world, 120);
    const uint64_t first_lsn = journal_durable_lsn(world.journal);
    world_chat(&world, 100);
    const uint64_t second_lsn = journal_durable_lsn(world.journal);
    world_chat(&world, 60);
    const uint64_t third_lsn = journal_durable_lsn(world.journal);
    for (unsigned steps = 1; status != FLUSH_DONE; steps++) {
        struct flush *flush;

        scratch_volumes_empty(&world.scratch);
        flush = world_open_flush(&world, WORLD_START_LSN, first_lsn, 2000, 0);
        assert_int_equal(world_run_flush(flush, UINT32_MAX), FLUSH_DONE);
        flush_close(flush);
        flush = world_open_flush(&world, first_lsn, second_lsn, 1, 0);
        status = world_run_flush(flush, steps);
        flush_close(flush);
        /* Each volume knows what it has, so it is no matter that some have more. */
        flush = world_open_flush(&world, first_lsn, third_lsn, 11, 0);
        assert_int_equal(world_run_flush(flush, UINT32_MAX), FLUSH_DONE);
        flush_close(flush);
        chat_model_compare(&world.model, world.scratch.volumes, WORLD_VOLUMES, third_lsn);
        boundaries++;
    }
    assert_true(boundaries > 50);
    world_deinit(&world);
}

/* As if `applied` had never been written. */
static void forget_applied(struct world *world)
{
    const struct schema_key key = schema_key_applied();

    for (int v = 0; v < WORLD_VOLUMES; v++) {
        struct volume_txn *txn;

        assert_int_equal(volume_write_begin(world->scratch.volumes[v], 1, 0, &txn), VOLUME_OK);
        assert_int_equal(volume_del(txn, VOLUME_META, schema_key_bytes(&key)), VOLUME_OK);
        assert_int_equal(volume_commit(txn), VOLUME_OK);
    }
}

static void all_records_applied_twice_give_the_same(void **state)
{
    (void)state;
    struct world world;
    struct flush *flush;

    world_init(&world, 6, SEGMENT_BYTES, SEGMENT_COUNT);
    world.model.large_bodies = true;
    world_chat(&world, 400);
    for (int times = 0; times < 2; times++) {
        flush = world_open_flush(&world, WORLD_START_LSN, journal_durable_lsn(world.journal), 9, 0);
        assert_int_equal(world_run_flush(flush, UINT32_MAX), FLUSH_DONE);
        flush_close(flush);
        chat_model_compare(&world.model, world.scratch.volumes, WORLD_VOLUMES,
                           journal_durable_lsn(world.journal));
        forget_applied(&world);
    }
    world_deinit(&world);
}

static void bad_journals_and_disks_stop_a_flush(void **state)
{
    (void)state;
    struct world world;
    struct flush *flush;
    uint64_t before;

    world_init(&world, 7, SEGMENT_BYTES, SEGMENT_COUNT);
    world_chat(&world, 50);
    before = volumes_digest(world.scratch.volumes, WORLD_VOLUMES);
    world.disk.reads_until_failure = 1;
    flush = world_open_flush(&world, WORLD_START_LSN, journal_durable_lsn(world.journal), 5, 0);
    assert_int_equal(world_run_flush(flush, UINT32_MAX), FLUSH_BROKEN);
    flush_close(flush);
    world.disk.bytes[5 * 4096 + 100] ^= 1;
    flush = world_open_flush(&world, WORLD_START_LSN, journal_durable_lsn(world.journal), 5, 0);
    assert_int_equal(world_run_flush(flush, UINT32_MAX), FLUSH_DAMAGED);
    flush_close(flush);
    /* Nothing was applied of it. */
    assert_true(volumes_digest(world.scratch.volumes, WORLD_VOLUMES) == before);
    world_deinit(&world);
}

static void records_that_cannot_follow_stop_a_flush(void **state)
{
    (void)state;
    struct record user = {
        .type = RECORD_USER,
        .partition = partition_of(5),
        .user = { { 5 }, 1700000000, 1 },
    };
    struct record floor = {
        .type = RECORD_FLOOR,
        .partition = partition_of(5),
        .floor = { { 5 }, 3 },
    };
    const struct {
        const char *name;
        struct record records[2];
    } rows[] = {
        { "an entry of nobody",
          { message_record(5, 9, 1, 1, 10), message_record(5, 9, 2, 2, 10) } },
        { "a gap", { user, message_record(5, 9, 2, 1, 10) } },
        { "no such device", { user, own_record(5, 9, 1, 1, 3, 1, 10) } },
        { "a floor above the head", { user, floor } },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world world;
        struct flush *flush;
        uint8_t bytes[CHAT_TICKET_BYTES];
        size_t length = 0;

        world_init(&world, 8, SEGMENT_BYTES, SEGMENT_COUNT);
        for (int r = 0; r < 2; r++) {
            length += record_encode(&rows[i].records[r], bytes + length, sizeof bytes - length);
        }
        world_append(&world, bytes, length);
        memory_disk_write_all(&world.disk, world.journal);
        flush = world_open_flush(&world, WORLD_START_LSN, journal_durable_lsn(world.journal), 5, 0);
        if (world_run_flush(flush, UINT32_MAX) != FLUSH_DAMAGED) {
            fail_msg("%s", rows[i].name);
        }
        flush_close(flush);
        world_deinit(&world);
    }
}

static void users_are_listed_once_for_reading_ahead(void **state)
{
    (void)state;
    struct world world;
    struct flush *flush;
    struct hf_error error;
    struct volume_txn *readers[WORLD_VOLUMES];

    world_init(&world, 9, SEGMENT_BYTES, SEGMENT_COUNT);
    world_chat(&world, 300);
    flush = world_open_flush(&world, WORLD_START_LSN, journal_durable_lsn(world.journal), 5, 0);
    assert_int_equal(flush_step(flush), FLUSH_PLANNED);
    assert_int_equal(flush_get_user_count(flush), CHAT_USERS);
    for (int v = 0; v < WORLD_VOLUMES; v++) {
        readers[v] = volume_reader_open(world.scratch.volumes[v], &error);
    }
    while (flush_step(flush) == FLUSH_SLICE) {
        for (size_t i = 0; i < flush_get_user_count(flush); i++) {
            struct flush_user user;

            flush_get_user(flush, i, &user);
            assert_int_equal(user.volume,
                             schema_volume_of(partition_of(user.user.value), WORLD_VOLUMES));
            flush_touch(readers[user.volume], &user);
        }
    }
    for (int v = 0; v < WORLD_VOLUMES; v++) {
        volume_reader_close(readers[v]);
    }
    flush_close(flush);
    world_deinit(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_hold_what_was_flushed),
        cmocka_unit_test(a_flush_done_again_from_any_slice_gives_the_same),
        cmocka_unit_test(all_records_applied_twice_give_the_same),
        cmocka_unit_test(bad_journals_and_disks_stop_a_flush),
        cmocka_unit_test(records_that_cannot_follow_stop_a_flush),
        cmocka_unit_test(users_are_listed_once_for_reading_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

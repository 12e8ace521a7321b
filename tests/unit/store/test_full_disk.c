/* On a file system of 12 MB, which only root can make: skipped (exit 77) where it can't be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sysexits.h>
#include <unistd.h>

#include "store/directory.h"
#include "store/volume_lmdb.h"
#include "tests/unit/store/world.h"

#define SKIPPED       77
#define SEGMENT_BYTES ((size_t)256 * 1024)
#define SEGMENT_COUNT 16

static char mount_path[] = "/tmp/holdfast-full-XXXXXX";

static void path_of(const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", mount_path, name);
}

static void open_volumes(struct world *world)
{
    const struct volume_options options = { .map_bytes = 1 << 28,
                                            .create = true,
                                            .reserve_bytes = 4096 };

    for (int v = 0; v < WORLD_VOLUMES; v++) {
        struct hf_error error = { 0 };
        char path[128];
        char name[8];

        snprintf(name, sizeof name, "%d", v);
        path_of(name, path);
        volume_close(world->scratch.volumes[v]);
        world->scratch.volumes[v] = volume_open(path, &options, &error);
        if (world->scratch.volumes[v] == NULL) {
            fail_msg("%s", error.text);
        }
    }
}

/* Takes all but so many bytes of the file system. */
static void take_room(uint64_t left)
{
    char path[128];
    static const uint8_t zeros[4096];
    int fd;

    path_of("ballast", path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof zeros) == (ssize_t)sizeof zeros) {
    }
    const off_t taken = lseek(fd, 0, SEEK_END);
    assert_int_equal(ftruncate(fd, taken > (off_t)left ? taken - (off_t)left : 0), 0);
    close(fd);
}

static void give_room(void)
{
    char path[128];

    path_of("ballast", path);
    assert_int_equal(unlink(path), 0);
}

static void a_full_disk_stops_a_flush_which_goes_on_when_there_is_room(void **state)
{
    (void)state;
    static struct world world;
    unsigned full = 0;

    world_init(&world, 3, SEGMENT_BYTES, SEGMENT_COUNT);
    open_volumes(&world);
    world.model.large_bodies = true;
    for (int round = 0; round < 8; round++) {
        struct journal_flush range;
        struct flush *flush;
        enum flush_status status = FLUSH_SLICE;

        world_chat(&world, 400);
        take_room(0);
        assert_true(journal_flush_begin(world.journal, &range));
        index_rotate(world.index);
        flush = world_open_flush(&world, range.from_lsn, range.upto_lsn, 40, 0);
        while (status < FLUSH_DONE) {
            status = flush_step(flush);
        }
        if (status == FLUSH_FULL) {
            full++;
            assert_non_null(strstr(flush_text(flush), "volume"));
            /* It stays so, and what is there can be read. */
            assert_int_equal(flush_step(flush), FLUSH_FULL);
            (void)volumes_digest(world.scratch.volumes, WORLD_VOLUMES);
        } else {
            assert_int_equal(status, FLUSH_DONE);
        }
        give_room();
        while (status != FLUSH_DONE) {
            status = flush_step(flush);
            assert_true(status <= FLUSH_DONE);
        }
        flush_close(flush);
        journal_flush_end(world.journal);
        index_drop(world.index);
        chat_model_compare(&world.model, world.scratch.volumes, WORLD_VOLUMES,
                           journal_durable_lsn(world.journal));
    }
    assert_true(full >= 3);
    world_deinit(&world);
    for (int v = 0; v < WORLD_VOLUMES; v++) {
        char path[128];
        char name[8];

        snprintf(name, sizeof name, "%d", v);
        path_of(name, path);
        assert_int_equal(unlink(path), 0);
    }
}

/* However little room there is, a transaction that was begun finds enough: no commit ever fails. */
static void a_transaction_that_begins_never_meets_a_full_disk(void **state)
{
    (void)state;
    const struct volume_options options = { .map_bytes = 1 << 28,
                                            .create = true,
                                            .reserve_bytes = 1 };
    struct hf_error error = { 0 };
    uint64_t random = 5;
    char path[128];
    unsigned done = 0;

    path_of("brim", path);
    struct volume *volume = volume_open(path, &options, &error);
    assert_non_null(volume);
    for (int round = 0; round < 400; round++) {
        const size_t operations = 1 + random_next(&random) % 400;
        const size_t length = random_next(&random) % 1900;
        struct volume_txn *txn;
        enum volume_status status;

        take_room(random_next(&random) % 3000000);
        status = volume_write_begin(volume, operations, operations * (length + 8), &txn);
        for (size_t i = 0; status == VOLUME_OK && i < operations; i++) {
            uint64_t key = random_next(&random) % 3000;
            uint8_t value[1900] = { 0 };

            assert_int_equal(volume_put(txn, VOLUME_USER,
                                        (struct volume_bytes){ (const uint8_t *)&key, sizeof key },
                                        (struct volume_bytes){ value, length }),
                             VOLUME_OK);
        }
        if (status == VOLUME_OK) {
            assert_int_equal(volume_commit(txn), VOLUME_OK);
            done++;
        } else {
            assert_int_equal(status, VOLUME_FULL);
            assert_non_null(strstr(volume_text(volume), "full"));
        }
        give_room();
    }
    assert_true(done > 100 && done < 390); /* both ways were met */
    volume_close(volume);
    unlink(path);
}

static void no_room_for_journals_is_said_and_leaves_the_directory_as_it_was(void **state)
{
    (void)state;
    const struct directory_options options = { .create = true, .volume_count = 2, .new_id = { 1 } };
    const uint16_t map[2] = { 0 };
    const uint64_t applied[2] = { 0 };
    struct directory_run run = { 1, map, applied, 65536, 3, 4096, 0 };
    struct hf_error error = { 0 };
    char path[128];

    path_of("data", path);
    struct directory *directory = directory_open(path, &options, &error);
    assert_non_null(directory);
    run.segment_count = 1000;
    assert_false(directory_begin_run(directory, &run, &error));
    assert_int_equal(error.exit_code, EX_CANTCREAT);
    assert_non_null(strstr(error.text, "no room for the journals: they take 65552384 bytes"));
    run.segment_count = 3;
    assert_true(directory_begin_run(directory, &run, &error));
    assert_int_equal(directory_manifest(directory)->incarnation, 1);
    directory_close(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_stops_a_flush_which_goes_on_when_there_is_room),
        cmocka_unit_test(a_transaction_that_begins_never_meets_a_full_disk),
        cmocka_unit_test(no_room_for_journals_is_said_and_leaves_the_directory_as_it_was),
    };
    int result;

    if (mkdtemp(mount_path) == NULL) {
        return 1;
    }
    if (mount("tmpfs", mount_path, "tmpfs", MS_NOSUID | MS_NODEV, "size=12m") != 0) {
        perror("skipped: mounting a tmpfs");
        rmdir(mount_path);
        return SKIPPED;
    }
    result = cmocka_run_group_tests(tests, NULL, NULL);
    umount2(mount_path, MNT_DETACH);
    rmdir(mount_path);
    return result;
}

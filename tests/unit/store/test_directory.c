#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "store/directory.h"
#include "store/recover.h"
#include "store/volume_lmdb.h"

#define SEGMENT_BYTES 16384U
#define SEGMENTS      3
#define VOLUMES       4

static const struct directory_options options = { .create = true,
                                                  .volume_count = VOLUMES,
                                                  .new_id = { 0xab, 1 } };

struct scratch {
    char base[64];
    char path[80];
};

static int scratch_setup(void **state)
{
    struct scratch *scratch = calloc(1, sizeof *scratch);

    snprintf(scratch->base, sizeof scratch->base, "/tmp/holdfast-directory-XXXXXX");
    if (mkdtemp(scratch->base) == NULL) {
        return -1;
    }
    snprintf(scratch->path, sizeof scratch->path, "%s/data", scratch->base);
    *state = scratch;
    return 0;
}

static void remove_tree(const char *path)
{
    DIR *listing = opendir(path);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        char inside[512];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
        if (unlink(inside) != 0) {
            remove_tree(inside);
        }
    }
    if (listing != NULL) {
        closedir(listing);
    }
    rmdir(path);
}

static int scratch_teardown(void **state)
{
    struct scratch *scratch = *state;

    remove_tree(scratch->base);
    free(scratch);
    return 0;
}

static struct directory *open_it(const struct scratch *scratch)
{
    struct hf_error error = { 0 };
    struct directory *directory = directory_open(scratch->path, &options, &error);

    if (directory == NULL) {
        fail_msg("%s", error.text);
    }
    return directory;
}

static void expect_refused(const struct scratch *scratch, const struct directory_options *with,
                           int exit_code, const char *text)
{
    struct hf_error error = { 0 };

    assert_null(directory_open(scratch->path, with, &error));
    if (strstr(error.text, text) == NULL || strstr(error.text, scratch->base) == NULL) {
        fail_msg("\"%s\" isn't in \"%s\"", text, error.text);
    }
    assert_int_equal(error.exit_code, exit_code);
}

static bool begin_run(struct directory *directory, uint16_t cores, uint32_t segments,
                      uint64_t start_lsn, struct hf_error *error)
{
    uint16_t map[VOLUMES];
    const uint64_t applied[VOLUMES] = { 1, 2, UINT64_MAX, 4 };
    const struct directory_run run = { cores, map, applied, SEGMENT_BYTES, segments, start_lsn, 0 };

    for (uint16_t v = 0; v < VOLUMES; v++) {
        map[v] = v % cores;
    }
    return directory_begin_run(directory, &run, error);
}

static void file_path(const struct scratch *scratch, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", scratch->path, name);
}

static bool exists(const struct scratch *scratch, const char *name)
{
    char path[256];

    file_path(scratch, name, path);
    return access(path, F_OK) == 0;
}

static void write_file(const struct scratch *scratch, const char *name, const char *bytes,
                       size_t byte_count)
{
    char path[256];
    FILE *file;

    file_path(scratch, name, path);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, byte_count, file), byte_count);
    assert_int_equal(fclose(file), 0);
}

static void a_new_directory_keeps_what_it_was_made_with(void **state)
{
    const struct scratch *scratch = *state;
    struct hf_error error = { 0 };
    struct directory *directory = open_it(scratch);
    char path[256];
    uint64_t free_bytes;

    assert_true(directory_is_new(directory));
    assert_int_equal(directory_manifest(directory)->volume_count, VOLUMES);
    assert_memory_equal(directory_manifest(directory)->directory_id, options.new_id, 16);
    assert_true(directory_open_segments(directory, &error)); /* there are none */
    assert_true(directory_free_bytes(directory, &free_bytes) && free_bytes > 0);
    assert_true(directory_volume_path(directory, 7, path, sizeof path));
    assert_non_null(strstr(path, "/data/volume-007.mdb"));
    assert_false(directory_volume_path(directory, 7, path, 10));
    assert_true(begin_run(directory, 2, SEGMENTS, 4096, &error));
    assert_false(directory_is_new(directory));
    directory_close(directory);

    directory = open_it(scratch);
    assert_int_equal(directory_manifest(directory)->incarnation, 1);
    assert_int_equal(directory_manifest(directory)->start_lsn, 4096);
    assert_int_equal(directory_manifest(directory)->core_count, 2);
    assert_int_equal(directory_manifest(directory)->core_of_volume[3], 1);
    assert_int_equal(directory_manifest(directory)->applied[3], 4);
    assert_true(directory_open_segments(directory, &error));
    directory_close(directory);
}

/* What a run wrote is there for the next, which may take the same segments again. */
static void segments_stay_while_their_shape_does(void **state)
{
    const struct scratch *scratch = *state;
    struct hf_error error = { 0 };
    struct directory *directory = open_it(scratch);
    uint8_t *block = aligned_alloc(4096, 4096);

    assert_true(begin_run(directory, 2, SEGMENTS, 4096, &error));
    memset(block, 7, 4096);
    assert_int_equal(pwrite(directory_segment_fd(directory, 1, 2), block, 4096, 8192), 4096);
    directory_close(directory);

    directory = open_it(scratch);
    assert_true(directory_open_segments(directory, &error));
    for (int round = 0; round < 2; round++) {
        const struct journal_source source = directory_source(directory, 1);

        memset(block, 0, 4096);
        assert_true(source.read(source.context, 2, 8192, block, 4096));
        assert_int_equal(block[4095], 7);
        assert_true(source.read(source.context, 2, SEGMENT_BYTES, block, 4096));
        assert_int_equal(block[0], 0); /* beyond the end */
        assert_true(
            begin_run(directory, 2, SEGMENTS, UINT64_C(8192) * (unsigned)(round + 1), &error));
    }
    assert_int_equal(directory_manifest(directory)->incarnation, 3);
    directory_close(directory);

    directory = open_it(scratch);
    assert_true(begin_run(directory, 3, SEGMENTS, 40960, &error));
    const struct journal_source source = directory_source(directory, 1);
    assert_true(source.read(source.context, 2, 8192, block, 4096));
    assert_int_equal(block[0], 0);
    assert_true(exists(scratch, "journal-2/02-002"));
    assert_false(exists(scratch, "journal-1"));
    directory_close(directory);
    free(block);
}

static void what_a_failed_start_left_is_removed(void **state)
{
    const struct scratch *scratch = *state;
    struct hf_error error = { 0 };
    struct directory *directory = open_it(scratch);
    char path[256];

    file_path(scratch, "journal-1", path);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(scratch, "journal-1/00-000", "half", 4);
    file_path(scratch, "journal-9", path);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(scratch, "manifest.new", "half", 4);
    assert_true(begin_run(directory, 1, SEGMENTS, 4096, &error));
    assert_false(exists(scratch, "journal-9"));
    directory_close(directory);
    directory = open_it(scratch);
    assert_true(directory_open_segments(directory, &error));
    directory_close(directory);
}

static void a_second_server_is_refused_and_told_the_first(void **state)
{
    const struct scratch *scratch = *state;
    struct directory *directory = open_it(scratch);
    char pid[64];

    snprintf(pid, sizeof pid, "in use by another server (process %ld)", (long)getpid());
    expect_refused(scratch, &options, EX_TEMPFAIL, pid);
    directory_close(directory);
    directory_close(open_it(scratch)); /* it is free again */
}

/* Also after a process that was killed. */
static void the_lock_goes_with_the_process(void **state)
{
    const struct scratch *scratch = *state;
    int ready[2];
    char byte;
    pid_t child;
    char text[64];

    assert_int_equal(pipe(ready), 0);
    child = fork();
    if (child == 0) {
        struct hf_error error;

        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test leaves no process behind */
        if (directory_open(scratch->path, &options, &error) != NULL &&
            write(ready[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(text, sizeof text, "process %ld", (long)child);
    expect_refused(scratch, &options, EX_TEMPFAIL, text);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    directory_close(open_it(scratch));
    close(ready[0]);
    close(ready[1]);
}

static void places_that_are_no_data_directories_are_refused(void **state)
{
    struct scratch *scratch = *state;
    struct directory_options no_create = options;
    char path[sizeof scratch->path];

    no_create.create = false;
    expect_refused(scratch, &no_create, EX_NOINPUT, "No such file or directory");
    assert_int_equal(mkdir(scratch->path, 0700), 0);
    expect_refused(scratch, &no_create, EX_NOINPUT, "no manifest");
    write_file(scratch, "photo.jpg", "x", 1);
    expect_refused(scratch, &options, EX_DATAERR, "\"photo.jpg\" but no manifest");
    memcpy(path, scratch->path, sizeof path);
    snprintf(scratch->path, sizeof scratch->path, "%s/data/photo.jpg", scratch->base);
    expect_refused(scratch, &options, EX_NOINPUT, "Not a directory");
    memcpy(scratch->path, path, sizeof path);
}

static void another_number_of_volumes_is_refused(void **state)
{
    const struct scratch *scratch = *state;
    struct directory_options other = options;

    directory_close(open_it(scratch));
    other.volume_count = VOLUMES + 1;
    expect_refused(scratch, &other, EX_CONFIG, "it has 4 volumes, for ever; 5 are asked for");
    other.volume_count = 0;
    struct hf_error error;
    struct directory *directory = directory_open(scratch->path, &other, &error);
    assert_non_null(directory);
    directory_close(directory);
}

static void newer_and_damaged_manifests_are_refused(void **state)
{
    const struct scratch *scratch = *state;
    struct hf_error error = { 0 };
    struct directory *directory = open_it(scratch);
    char text[MANIFEST_BYTES_MAX];
    struct manifest manifest;

    assert_true(begin_run(directory, 2, SEGMENTS, 4096, &error));
    const size_t length = manifest_encode(directory_manifest(directory), text);
    directory_close(directory);

    assert_true(manifest_decode(text, length, &manifest, &error));
    write_file(scratch, "manifest", "holdfast 3\nanything else", 24);
    expect_refused(scratch, &options, EX_DATAERR, "newer version");
    write_file(scratch, "manifest", "holdfast 1\nanything else", 24);
    expect_refused(scratch, &options, EX_DATAERR, "older version");
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 1;
        if (manifest_decode(text, length, &manifest, &error)) {
            fail_msg("byte %zu", i);
        }
        text[i] ^= 1;
        assert_false(manifest_decode(text, i, &manifest, &error));
    }
    write_file(scratch, "manifest", text, length - 1);
    expect_refused(scratch, &options, EX_DATAERR, "manifest: damaged");
    write_file(scratch, "manifest", text, length);
    directory_close(open_it(scratch));
}

/* Each is whole by its checksum, and yet can't be. */
static void manifests_that_contradict_themselves_are_damaged(void **state)
{
    (void)state;
    const struct manifest sound = {
        .volume_count = 2,
        .incarnation = 1,
        .epoch = 1700000000,
        .start_lsn = 4096,
        .journal_set = 1,
        .segment_bytes = SEGMENT_BYTES,
        .segment_count = 3,
        .core_count = 2,
        .core_of_volume = { 0, 1 },
        .applied = { UINT64_MAX, 4096 },
    };
    struct manifest rows[8];
    struct manifest read;
    struct hf_error error;
    char text[MANIFEST_BYTES_MAX];

    for (size_t i = 0; i < 8; i++) {
        rows[i] = sound;
    }
    rows[1].volume_count = 0;
    rows[2].incarnation = 0;
    rows[3].start_lsn = 5000;
    rows[4].segment_bytes = 0;
    rows[5].core_count = 0;
    rows[6].core_of_volume[1] = 2;
    rows[7].journal_set = 0;
    for (size_t i = 0; i < 8; i++) {
        const size_t length = manifest_encode(&rows[i], text);
        const bool read_it = manifest_decode(text, length, &read, &error);

        if (read_it != (i == 0)) {
            fail_msg("row %zu", i);
        }
    }
    manifest_decode(text, manifest_encode(&sound, text), &read, &error);
    assert_memory_equal(&read, &sound, sizeof read);
}

static void missing_and_cut_segments_are_refused(void **state)
{
    const struct scratch *scratch = *state;
    struct hf_error error = { 0 };
    struct directory *directory = open_it(scratch);
    char path[256];

    assert_true(begin_run(directory, 2, SEGMENTS, 4096, &error));
    directory_close(directory);
    directory = open_it(scratch);
    file_path(scratch, "journal-1/01-001", path);
    assert_int_equal(truncate(path, 4096), 0);
    assert_false(directory_open_segments(directory, &error));
    assert_non_null(strstr(error.text, "journal-1/01-001 is 4096 bytes long, and should be 16384"));
    assert_int_equal(unlink(path), 0);
    assert_false(directory_open_segments(directory, &error));
    assert_non_null(strstr(error.text, "journal-1/01-001 is missing"));
    directory_close(directory);

    directory = open_it(scratch);
    write_file(scratch, "journal-1/01-001", "", 0);
    assert_int_equal(truncate(path, SEGMENT_BYTES), 0);
    file_path(scratch, "journal-1/00-mark", path);
    assert_int_equal(truncate(path, 4096), 0);
    assert_false(directory_open_segments(directory, &error));
    assert_non_null(strstr(error.text, "00-mark is 4096 bytes long, and should be 16384"));
    assert_int_equal(unlink(path), 0);
    assert_false(directory_open_segments(directory, &error));
    assert_non_null(strstr(error.text, "journal-1/00-mark is missing"));
    directory_close(directory);
}

static void cut_empty_and_foreign_volumes_are_refused(void **state)
{
    const struct scratch *scratch = *state;
    struct directory *directory = open_it(scratch);
    struct volume_options make = { .map_bytes = 1 << 26, .reserve_bytes = 1, .create = true };
    struct hf_error error = { 0 };
    struct volume *volume;
    struct volume_txn *txn;
    char path[256];
    uint8_t value[1000] = { 0 };

    assert_true(directory_volume_path(directory, 0, path, sizeof path));
    make.create = false;
    assert_null(volume_open(path, &make, &error));
    assert_int_equal(error.errno_value, ENOENT);
    make.create = true;
    volume = volume_open(path, &make, &error);
    assert_non_null(volume);
    assert_int_equal(volume_write_begin(volume, 500, 500000, &txn), VOLUME_OK);
    for (uint16_t i = 0; i < 500; i++) {
        assert_int_equal(volume_put(txn, VOLUME_USER,
                                    (struct volume_bytes){ (const uint8_t *)&i, sizeof i },
                                    (struct volume_bytes){ value, sizeof value }),
                         VOLUME_OK);
    }
    assert_int_equal(volume_commit(txn), VOLUME_OK);
    volume_close(volume);
    make.create = false;
    volume = volume_open(path, &make, &error);
    assert_non_null(volume);
    volume_close(volume);
    assert_int_equal(truncate(path, 100000), 0);
    assert_null(volume_open(path, &make, &error));
    assert_non_null(strstr(error.text, "damaged"));
    assert_int_equal(truncate(path, 0), 0);
    assert_null(volume_open(path, &make, &error));
    assert_non_null(strstr(error.text, "damaged: it is empty"));
    memset(value, 'x', sizeof value);
    write_file(scratch, "volume-000.mdb", (const char *)value, sizeof value);
    assert_null(volume_open(path, &make, &error));
    assert_non_null(strstr(error.text, "damaged"));
    directory_close(directory);
}

static void a_directory_without_permission_is_refused(void **state)
{
    const struct scratch *scratch = *state;

    if (geteuid() == 0) {
        print_message("skipped: root may do everything\n");
        skip();
    }
    directory_close(open_it(scratch));
    assert_int_equal(chmod(scratch->path, 0), 0);
    expect_refused(scratch, &options, EX_NOPERM, "Permission denied");
    assert_int_equal(chmod(scratch->path, 0700), 0);
}

#define WITH_SCRATCH(function)                                                                     \
    cmocka_unit_test_setup_teardown(function, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(a_new_directory_keeps_what_it_was_made_with),
        WITH_SCRATCH(segments_stay_while_their_shape_does),
        WITH_SCRATCH(what_a_failed_start_left_is_removed),
        WITH_SCRATCH(a_second_server_is_refused_and_told_the_first),
        WITH_SCRATCH(the_lock_goes_with_the_process),
        WITH_SCRATCH(places_that_are_no_data_directories_are_refused),
        WITH_SCRATCH(another_number_of_volumes_is_refused),
        WITH_SCRATCH(newer_and_damaged_manifests_are_refused),
        cmocka_unit_test(manifests_that_contradict_themselves_are_damaged),
        WITH_SCRATCH(missing_and_cut_segments_are_refused),
        WITH_SCRATCH(cut_empty_and_foreign_volumes_are_refused),
        WITH_SCRATCH(a_directory_without_permission_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

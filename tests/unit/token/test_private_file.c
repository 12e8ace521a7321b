#include "core/token/private_file.h"

#include "tests/lib/disk_order.h"
#include "tests/unit/token/scratch_dir.h"

#include <sysexits.h>

static bool reads(const char *path, size_t bytes_max, struct hf_error *error)
{
    char *bytes;
    size_t byte_count;
    const bool good = private_file_read(path, bytes_max, &bytes, &byte_count, NULL, error);

    if (good) {
        private_bytes_free(bytes, byte_count);
    } else {
        assert_null(bytes);
    }
    return good;
}

static void only_the_owners_own_modes_are_read(void **state)
{
    struct scratch_dir *dir = *state;

    for (mode_t mode = 0; mode <= 07777; mode++) {
        const bool wanted = mode == 0600 || mode == 0400;
        struct hf_error error;

        /* Those that even the owner can't read fail in another way, unless one is root. */
        if ((mode & 0400) == 0 || (mode & 07177) == 0) {
            if (!wanted) {
                continue;
            }
        }
        scratch_file_make(dir->file, "secret", 6, mode);
        assert_int_equal(reads(dir->file, 6, &error), wanted);
        if (!wanted) {
            char text[16];

            (void)snprintf(text, sizeof text, "mode %04o", mode);
            assert_non_null(strstr(error.text, text));
            assert_non_null(strstr(error.text, dir->file));
            assert_non_null(strstr(error.text, "chmod 600"));
            assert_int_equal(error.exit_code, EX_CONFIG);
        }
        assert_int_equal(unlink(dir->file), 0);
    }
}

static void file_of_another_user_is_refused(void **state)
{
    struct scratch_dir *dir = *state;
    struct hf_error error;

    if (geteuid() != 0) {
        skip();
    }
    scratch_file_make(dir->file, "secret", 6, 0600);
    assert_int_equal(chown(dir->file, 65534, (gid_t)-1), 0);
    assert_false(reads(dir->file, 6, &error));
    assert_non_null(strstr(error.text, "owned by uid 65534"));
    assert_non_null(strstr(error.text, "chown"));
}

static void what_is_no_file_is_refused(void **state)
{
    struct scratch_dir *dir = *state;
    struct hf_error error;
    char *bytes;
    size_t byte_count;
    bool absent;

    assert_false(reads(dir->path, 6, &error));
    assert_int_equal(mkfifo(dir->file, 0600), 0);
    assert_false(reads(dir->file, 6, &error)); /* and doesn't wait for a writer */
    assert_non_null(strstr(error.text, "not a regular file"));
    assert_int_equal(unlink(dir->file), 0);
    assert_false(private_file_read(dir->file, 6, &bytes, &byte_count, &absent, &error));
    assert_true(absent);
    assert_int_equal(error.exit_code, EX_NOINPUT);
}

static void file_beyond_the_bound_is_refused(void **state)
{
    struct scratch_dir *dir = *state;
    struct hf_error error;

    scratch_file_make(dir->file, "secret", 6, 0600);
    assert_true(reads(dir->file, 6, &error));
    assert_false(reads(dir->file, 5, &error));
    assert_int_equal(error.exit_code, EX_DATAERR);
}

static void replaced_file_has_the_new_bytes_and_mode_0600(void **state)
{
    struct scratch_dir *dir = *state;
    struct hf_error error;
    struct stat info;
    char *bytes;
    size_t byte_count;
    const mode_t umask_before = umask(0);

    scratch_file_make(dir->file, "old and longer", 14, 0644);
    assert_true(private_file_replace(dir->file, "new", 3, &error));
    (void)umask(umask_before);
    assert_true(private_file_read(dir->file, 100, &bytes, &byte_count, NULL, &error));
    assert_int_equal(byte_count, 3);
    assert_memory_equal(bytes, "new", 3);
    private_bytes_free(bytes, byte_count);
    assert_int_equal(stat(dir->file, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(scratch_dir_each(dir, NULL), 1); /* nothing is left beside it */
}

static void failed_replacement_leaves_the_old_file(void **state)
{
    struct scratch_dir *dir = *state;
    struct hf_error error;
    char path[160];

    (void)snprintf(path, sizeof path, "%s/absent/keys", dir->path);
    assert_false(private_file_replace(path, "new", 3, &error));
    assert_int_equal(error.exit_code, EX_CANTCREAT);
    assert_int_equal(mkdir(dir->file, 0700), 0);
    assert_false(private_file_replace(dir->file, "new", 3, &error)); /* a directory is in the way */
    assert_int_equal(scratch_dir_each(dir, NULL), 1);
    assert_int_equal(rmdir(dir->file), 0);
}

static void bytes_are_on_disk_before_their_name_and_both_before_it_returns(void **state)
{
    struct scratch_dir *dir = *state;
    struct hf_error error;

    disk_order_begin(0);
    assert_true(private_file_replace(dir->file, "new", 3, &error));
    assert_string_equal(disk_order.steps, "wsrd");
}

static void step_to_the_disk_that_fails_is_told(void **state)
{
    struct scratch_dir *dir = *state;

    for (size_t step = 1; step <= 4; step++) {
        struct hf_error error;

        scratch_file_make(dir->file, "old", 3, 0600);
        disk_order_begin(step);
        assert_false(private_file_replace(dir->file, "newer", 5, &error));
        disk_order_begin(0);
        assert_int_equal(error.errno_value, EIO);
        assert_non_null(strstr(error.text, dir->file));
        assert_int_equal(scratch_dir_each(dir, NULL), 1);
        /* Only the last step's failure leaves the new file: it may vanish in a power cut. */
        assert_int_equal(reads(dir->file, 3, &error), step < 4);
        assert_int_equal(unlink(dir->file), 0);
    }
}

int main(void)
{
#define IN_SCRATCH(test)                                                                           \
    cmocka_unit_test_setup_teardown(test, scratch_dir_setup, scratch_dir_teardown)
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(only_the_owners_own_modes_are_read),
        IN_SCRATCH(file_of_another_user_is_refused),
        IN_SCRATCH(what_is_no_file_is_refused),
        IN_SCRATCH(file_beyond_the_bound_is_refused),
        IN_SCRATCH(replaced_file_has_the_new_bytes_and_mode_0600),
        IN_SCRATCH(failed_replacement_leaves_the_old_file),
        IN_SCRATCH(bytes_are_on_disk_before_their_name_and_both_before_it_returns),
        IN_SCRATCH(step_to_the_disk_that_fails_is_told),
    };
    return cmocka_run_group_tests_name("token_private_file", tests, NULL, NULL);
}

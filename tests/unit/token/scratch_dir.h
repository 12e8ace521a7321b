/*
 * scratch_dir: a directory of a test's own, gone after it with what is in it.
 */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the four that it needs */
#include <cmocka.h>

struct scratch_dir {
    char path[64];
    char file[128]; /* a name in it, for the one file of most tests */
};

static inline int scratch_dir_setup(void **state)
{
    struct scratch_dir *dir = calloc(1, sizeof *dir);

    assert_non_null(dir);
    (void)snprintf(dir->path, sizeof dir->path, "/tmp/holdfast-token-test.XXXXXX");
    assert_non_null(mkdtemp(dir->path));
    (void)snprintf(dir->file, sizeof dir->file, "%s/keys", dir->path);
    *state = dir;
    return 0;
}

/* Calls `act`, if any, on each name in the directory; returns how many there are. */
static inline int scratch_dir_each(const struct scratch_dir *dir,
                                   int (*act)(int, const char *, int))
{
    DIR *stream = opendir(dir->path);
    struct dirent *entry;
    int count = 0;

    assert_non_null(stream);
    while ((entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            count++;
            if (act != NULL) {
                assert_int_equal(act(dirfd(stream), entry->d_name, 0), 0);
            }
        }
    }
    assert_int_equal(closedir(stream), 0);
    return count;
}

static inline int scratch_dir_teardown(void **state)
{
    struct scratch_dir *dir = *state;

    (void)scratch_dir_each(dir, unlinkat);
    assert_int_equal(rmdir(dir->path), 0);
    free(dir);
    return 0;
}

static inline void scratch_file_make(const char *path, const void *bytes, size_t byte_count,
                                     mode_t mode)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, byte_count), byte_count);
    assert_int_equal(fchmod(file, mode), 0);
    assert_int_equal(close(file), 0);
}

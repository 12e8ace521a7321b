#include "tests/unit/client/scratch.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In memory where that can be had: these tests write and sync thousands of files. */
static const char *const templates[] = { "/dev/shm/holdfast-client-test.XXXXXX",
                                         "/tmp/holdfast-client-test.XXXXXX" };

int scratch_setup(void **state)
{
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        char *path = strdup(templates[i]);

        assert_non_null(path);
        if (mkdtemp(path) != NULL) {
            *state = path;
            return 0;
        }
        free(path);
    }
    return -1;
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *where)
{
    (void)stat;
    (void)type;
    (void)where;
    return remove(path);
}

int scratch_teardown(void **state)
{
    assert_int_equal(nftw(*state, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(*state);
    return 0;
}

void scratch_path(const char *directory, const char *name, char path[SCRATCH_PATH_BYTES])
{
    assert_true(snprintf(path, SCRATCH_PATH_BYTES, "%s/%s", directory, name) < SCRATCH_PATH_BYTES);
}

uint8_t *scratch_read(const char *directory, const char *name, size_t *byte_count)
{
    char path[SCRATCH_PATH_BYTES];
    struct stat stat;

    scratch_path(directory, name, path);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(fstat(file, &stat), 0);
    uint8_t *bytes = malloc((size_t)stat.st_size + 1);
    assert_non_null(bytes);
    assert_int_equal(read(file, bytes, (size_t)stat.st_size), stat.st_size);
    assert_int_equal(close(file), 0);
    *byte_count = (size_t)stat.st_size;
    return bytes;
}

void scratch_write(const char *directory, const char *name, const uint8_t *bytes, size_t byte_count)
{
    char path[SCRATCH_PATH_BYTES];

    scratch_path(directory, name, path);
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, byte_count), byte_count);
    assert_int_equal(close(file), 0);
}

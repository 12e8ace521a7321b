#include "core/token/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <mbedtls/platform_util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static bool is_private(const char *path, const struct stat *info, struct hf_error *error)
{
    const unsigned mode = info->st_mode & 07777U;

    if (!S_ISREG(info->st_mode)) {
        hf_error_set(error, EX_CONFIG, 0, "%s: not a regular file", path);
        return false;
    }
    if (info->st_uid != geteuid() && info->st_uid != 0) {
        hf_error_set(error, EX_CONFIG, 0,
                     "%s: owned by uid %u, who could change the keys of this process (uid %u): "
                     "chown %u %s",
                     path, info->st_uid, geteuid(), geteuid(), path);
        return false;
    }
    if (mode != 0600 && mode != 0400) {
        hf_error_set(error, EX_CONFIG, 0,
                     "%s: mode %04o, but a file of keys must be its owner's alone (0600 or 0400): "
                     "chmod 600 %s",
                     path, mode, path);
        return false;
    }
    return true;
}

static bool read_all(int file, const char *path, size_t size, char **bytes, struct hf_error *error)
{
    size_t count = 0;

    /* One more than needed: malloc(0) may be NULL. */
    *bytes = malloc(size + 1);
    if (*bytes == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        return false;
    }
    while (count <= size) {
        const ssize_t got = read(file, *bytes + count, size + 1 - count);
        if (got == 0) {
            break;
        }
        if (got > 0) {
            count += (size_t)got;
        } else if (errno != EINTR) {
            hf_error_set(error, EX_IOERR, errno, "%s: read", path);
            private_bytes_free(*bytes, size + 1);
            return false;
        }
    }
    if (count != size) {
        hf_error_set(error, EX_IOERR, 0, "%s: changed while it was read; try again", path);
        private_bytes_free(*bytes, size + 1);
        return false;
    }
    return true;
}

bool private_file_read(const char *path, size_t bytes_max, char **bytes, size_t *byte_count,
                       bool *absent, struct hf_error *error)
{
    struct stat info;
    bool good = false;
    /* Not blocking, or a FIFO would hold the program up; links are followed: secrets mounted by
     * Kubernetes are links. */
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (absent != NULL) {
        *absent = file < 0 && errno == ENOENT;
    }
    *bytes = NULL;
    if (file < 0) {
        const int exit_code = errno == ENOENT ? EX_NOINPUT : errno == EACCES ? EX_NOPERM : EX_OSERR;
        hf_error_set(error, exit_code, errno, "%s", path);
        return false;
    }
    if (fstat(file, &info) != 0) {
        hf_error_set(error, EX_OSERR, errno, "%s: stat", path);
    } else if (!is_private(path, &info, error)) {
        /* said why */
    } else if ((uint64_t)info.st_size > bytes_max) {
        hf_error_set(error, EX_DATAERR, 0, "%s: %lld bytes, more than the %zu that are read", path,
                     (long long)info.st_size, bytes_max);
    } else if (read_all(file, path, (size_t)info.st_size, bytes, error)) {
        *byte_count = (size_t)info.st_size;
        good = true;
    }
    (void)close(file);
    if (!good) {
        *bytes = NULL;
    }
    return good;
}

void private_bytes_free(char *bytes, size_t byte_count)
{
    if (bytes != NULL) {
        mbedtls_platform_zeroize(bytes, byte_count);
        free(bytes);
    }
}

static int open_directory(const char *path, struct hf_error *error)
{
    char *copy = strdup(path); /* dirname writes into it */

    if (copy == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        return -1;
    }
    const int directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s: its directory", path);
    }
    free(copy);
    return directory;
}

static bool write_all(int file, const char *bytes, size_t byte_count)
{
    while (byte_count > 0) {
        const ssize_t put = write(file, bytes, byte_count);
        if (put < 0) {
            if (errno == EINTR) {
                continue;
            }
            return false;
        }
        bytes += put;
        byte_count -= (size_t)put;
    }
    return true;
}

/* The bytes are synced before the name is given, and the name before the caller goes on. */
static bool write_and_rename(int directory, const char *temporary, const char *path,
                             const void *bytes, size_t byte_count, struct hf_error *error)
{
    const int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    const char *step = "write";

    if (file < 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s", temporary);
        return false;
    }
    bool good = write_all(file, bytes, byte_count);
    if (good) {
        step = "mode";
        good = fchmod(file, 0600) == 0; /* whatever the umask */
    }
    if (good) {
        step = "sync";
        good = fsync(file) == 0;
    }
    if (!good) {
        hf_error_set(error, EX_IOERR, errno, "%s: %s", temporary, step);
    }
    if (close(file) != 0 && good) {
        hf_error_set(error, EX_IOERR, errno, "%s: close", temporary);
        good = false;
    }
    if (good && rename(temporary, path) != 0) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s: rename", path);
        good = false;
    }
    if (!good) {
        (void)unlink(temporary);
        return false;
    }
    if (fsync(directory) != 0) {
        hf_error_set(error, EX_IOERR, errno, "%s: sync of its directory", path);
        return false;
    }
    return true;
}

bool private_file_replace(const char *path, const void *bytes, size_t byte_count,
                          struct hf_error *error)
{
    char temporary[PATH_MAX];

    if ((size_t)snprintf(temporary, sizeof temporary, "%s.new.%d", path, (int)getpid()) >=
        sizeof temporary) {
        hf_error_set(error, EX_CANTCREAT, ENAMETOOLONG, "%s", path);
        return false;
    }
    const int directory = open_directory(path, error);
    if (directory < 0) {
        return false;
    }
    /* Left by a process of this number that was killed. */
    (void)unlink(temporary);
    const bool good = write_and_rename(directory, temporary, path, bytes, byte_count, error);
    (void)close(directory);
    return good;
}

int private_file_lock(const char *path, struct hf_error *error)
{
    const int directory = open_directory(path, error);

    if (directory < 0) {
        return -1;
    }
    while (flock(directory, LOCK_EX) != 0) {
        if (errno != EINTR) {
            hf_error_set(error, EX_OSERR, errno, "%s: lock of its directory", path);
            (void)close(directory);
            return -1;
        }
    }
    return directory;
}

/*
 * The C library's functions that change files, defined anew: a definition in the program comes
 * before the library's for everybody, a shared LMDB included. Each makes the system call itself.
 *
 * What stdio and the kernel write by themselves doesn't come here; that nothing was missed is
 * shown after each run, by comparing what the log says with the directory (power_images compare).
 */
/* Else the headers give the names of the one kind to the functions of the other. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/base/check.h"
#include "tests/power/record.h"

static int fail_with(int errno_value)
{
    errno = errno_value;
    return -1;
}

/* ---- Writing ---- */

static uint16_t write_flags(int fd)
{
    const long flags = syscall(SYS_fcntl, fd, F_GETFL);

    return flags >= 0 && (flags & O_DSYNC) != 0 ? OP_DURABLE : 0;
}

/* A write at a place, told to the log before and after. */
static ssize_t write_at(int fd, const void *bytes, size_t byte_count, off_t offset)
{
    uint64_t file;
    const int fault = record_fault(RECORD_CALL_WRITE, fd, NULL);

    if (fault != 0) {
        return fail_with(fault);
    }
    if (!record_is_ours(fd, &file)) {
        return syscall(SYS_pwrite64, fd, bytes, byte_count, offset);
    }
    const uint16_t flags = write_flags(fd);
    const uint64_t id = record_begin(OP_WRITE, flags, file, (uint64_t)offset, bytes, byte_count);
    const ssize_t done = syscall(SYS_pwrite64, fd, bytes, byte_count, offset);
    const int errno_after = errno;

    record_end(OP_WRITTEN, flags, id, file, done > 0 ? (uint64_t)done : 0);
    errno = errno_after;
    return done;
}

/* The descriptor's place, which a write of ours moves as write(2) would. */
static ssize_t write_here(int fd, const void *bytes, size_t byte_count, off_t here)
{
    const ssize_t done = write_at(fd, bytes, byte_count, here);

    if (done > 0) {
        (void)syscall(SYS_lseek, fd, here + done, SEEK_SET);
    }
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t byte_count, off_t offset)
{
    return write_at(fd, bytes, byte_count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t byte_count, off64_t offset)
{
    return write_at(fd, bytes, byte_count, offset);
}

ssize_t write(int fd, const void *bytes, size_t byte_count)
{
    const off_t here = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    uint64_t file;

    if (here < 0 || !record_is_ours(fd, &file)) {
        return syscall(SYS_write, fd, bytes, byte_count);
    }
    return write_here(fd, bytes, byte_count, here);
}

/* One write to the log, as it is one to the kernel: gathered first. */
static ssize_t gather(int fd, const struct iovec *parts, int count, off_t offset, bool here)
{
    size_t byte_count = 0;
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        byte_count += parts[i].iov_len;
    }
    char *bytes = malloc(byte_count + 1);
    HF_ASSERT(bytes != NULL);
    for (int i = 0; i < count; i++) {
        memcpy(bytes + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    const ssize_t done =
        here ? write_here(fd, bytes, byte_count, offset) : write_at(fd, bytes, byte_count, offset);
    const int errno_after = errno;

    free(bytes);
    errno = errno_after;
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    const off_t here = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    uint64_t file;

    if (here < 0 || !record_is_ours(fd, &file)) {
        return syscall(SYS_writev, fd, parts, count);
    }
    return gather(fd, parts, count, here, true);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return gather(fd, parts, count, offset, false);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return gather(fd, parts, count, offset, false);
}

static int set_size(int fd, off_t byte_count)
{
    struct op op = { .kind = OP_SIZE, .byte_count = (uint64_t)byte_count };
    const bool ours = record_is_ours(fd, &op.file);
    const int fault = record_fault(RECORD_CALL_WRITE, fd, NULL);

    if (fault != 0) {
        return fail_with(fault);
    }
    record_lock();
    const int result = (int)syscall(SYS_ftruncate, fd, byte_count);
    if (result == 0 && ours) {
        record_put(&op, NULL);
    }
    record_unlock();
    return result;
}

int ftruncate(int fd, off_t byte_count)
{
    return set_size(fd, byte_count);
}

int ftruncate64(int fd, off64_t byte_count)
{
    return set_size(fd, byte_count);
}

/* ---- Syncing ---- */

static int sync_by(long call, int fd)
{
    uint64_t file;
    const int fault = record_fault(RECORD_CALL_SYNC, fd, NULL);

    if (fault != 0) {
        return fail_with(fault);
    }
    if (!record_is_ours(fd, &file)) {
        return (int)syscall(call, fd);
    }
    const uint16_t flags = record_explicit ? OP_EXPLICIT : 0;
    const uint64_t id = record_begin(OP_SYNC, flags, file, 0, NULL, 0);
    const int result = (int)syscall(call, fd);

    if (result == 0) {
        record_end(OP_SYNCED, flags, id, file, 0);
    }
    return result;
}

int fsync(int fd)
{
    return sync_by(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_by(SYS_fdatasync, fd);
}

/* Nothing of ours maps a file for writing, but LMDB's table of readers, which is no data. */
int msync(void *address, size_t byte_count, int flags)
{
    return (int)syscall(SYS_msync, address, byte_count, flags);
}

/* ---- Reading: only for faults ---- */

static ssize_t read_at(int fd, void *bytes, size_t byte_count, off_t offset)
{
    const int fault = record_fault(RECORD_CALL_READ, fd, NULL);

    return fault != 0 ? fail_with(fault) : syscall(SYS_pread64, fd, bytes, byte_count, offset);
}

ssize_t pread(int fd, void *bytes, size_t byte_count, off_t offset)
{
    return read_at(fd, bytes, byte_count, offset);
}

ssize_t pread64(int fd, void *bytes, size_t byte_count, off64_t offset)
{
    return read_at(fd, bytes, byte_count, offset);
}

ssize_t read(int fd, void *bytes, size_t byte_count)
{
    const int fault = record_fault(RECORD_CALL_READ, fd, NULL);

    return fault != 0 ? fail_with(fault) : syscall(SYS_read, fd, bytes, byte_count);
}

/* ---- Names ---- */

static bool exists(int at, const char *path, uint64_t *file)
{
    struct stat status;

    if (fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return false;
    }
    *file = status.st_ino;
    return true;
}

static void put_made(uint64_t file, uint64_t folder, const char *name, uint16_t flags)
{
    struct op op = {
        .kind = OP_MAKE,
        .flags = flags,
        .file = file,
        .folder = folder,
        .payload_bytes = strlen(name),
    };

    record_put(&op, name);
}

static int open_by(int at, const char *path, int flags, mode_t mode)
{
    uint64_t folder;
    uint64_t file = 0;
    const char *name;

    if ((flags & (O_CREAT | O_TRUNC)) == 0 || !record_path_is_ours(at, path, &folder, &name)) {
        return (int)syscall(SYS_openat, at, path, flags, mode);
    }
    const int fault = record_fault(RECORD_CALL_MAKE, -1, path);

    if (fault != 0) {
        return fail_with(fault);
    }
    record_lock();
    const bool existed = exists(at, path, &file);
    const int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    const int errno_after = errno;

    if (fd >= 0 && !existed && exists(at, path, &file)) {
        put_made(file, folder, name, 0);
    } else if (fd >= 0 && (flags & O_TRUNC) != 0) {
        struct op op = { .kind = OP_SIZE, .file = file };

        record_put(&op, NULL);
    }
    record_unlock();
    errno = errno_after;
    return fd;
}

static mode_t take_mode(int flags, va_list arguments)
{
    return (flags & O_CREAT) != 0 ? (mode_t)va_arg(arguments, int) : 0;
}

#define OPEN_BODY(at)                                                                              \
    va_list arguments;                                                                             \
    va_start(arguments, flags);                                                                    \
    const mode_t mode = take_mode(flags, arguments);                                               \
    va_end(arguments);                                                                             \
    return open_by((at), path, flags, mode)

int open(const char *path, int flags, ...)
{
    OPEN_BODY(AT_FDCWD);
}

int open64(const char *path, int flags, ...)
{
    OPEN_BODY(AT_FDCWD);
}

int openat(int at, const char *path, int flags, ...)
{
    OPEN_BODY(at);
}

int openat64(int at, const char *path, int flags, ...)
{
    OPEN_BODY(at);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    uint64_t folder;
    uint64_t file;
    const char *name;
    const bool ours = record_path_is_ours(at, path, &folder, &name);
    const int fault = ours ? record_fault(RECORD_CALL_MAKE, -1, path) : 0;

    if (fault != 0) {
        return fail_with(fault);
    }
    record_lock();
    const int result = (int)syscall(SYS_mkdirat, at, path, mode);
    const int errno_after = errno;

    if (result == 0 && ours && exists(at, path, &file)) {
        put_made(file, folder, name, OP_FOLDER);
    }
    record_unlock();
    errno = errno_after;
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    struct op op = { .kind = OP_RENAME };
    uint64_t to_folder = 0;
    const char *from_name;
    const char *to_name;
    const bool ours = record_path_is_ours(from_at, from, &op.folder, &from_name);
    const int fault = ours ? record_fault(RECORD_CALL_RENAME, -1, to) : 0;

    if (fault != 0) {
        return fail_with(fault);
    }
    if (!ours) {
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    }
    HF_ASSERT(record_path_is_ours(to_at, to, &to_folder, &to_name) && to_folder == op.folder);
    record_lock();
    (void)exists(from_at, from, &op.file);
    const int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    const int errno_after = errno;

    if (result == 0) {
        char names[2 * NAME_MAX + 2];

        op.payload_bytes =
            (uint64_t)snprintf(names, sizeof names, "%s%c%s", from_name, '\0', to_name);
        record_put(&op, names);
    }
    record_unlock();
    errno = errno_after;
    return result;
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int at, const char *path, int flags)
{
    struct op op = { .kind = OP_UNLINK };
    const char *name;
    const bool ours = record_path_is_ours(at, path, &op.folder, &name);

    record_lock();
    (void)exists(at, path, &op.file);
    const int result = (int)syscall(SYS_unlinkat, at, path, flags);
    const int errno_after = errno;

    if (result == 0 && ours) {
        op.payload_bytes = strlen(name);
        record_put(&op, name);
    }
    record_unlock();
    errno = errno_after;
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

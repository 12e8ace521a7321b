/*
 * disk_order: which steps a program took to bring a file to the disk, in order, and what it makes
 * of one that fails. For one test program, linked with -Wl,--wrap=write,--wrap=fsync,--wrap=rename.
 *
 * Owner    One object in the test; disk_order_begin starts anew.
 * Thread   One.
 * Errors   None.
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

ssize_t real_write(int fd, const void *bytes, size_t byte_count) __asm__("__real_write");
ssize_t watched_write(int fd, const void *bytes, size_t byte_count) __asm__("__wrap_write");
int real_fsync(int fd) __asm__("__real_fsync");
int watched_fsync(int fd) __asm__("__wrap_fsync");
int real_rename(const char *from, const char *to) __asm__("__real_rename");
int watched_rename(const char *from, const char *to) __asm__("__wrap_rename");

static struct {
    char steps[16]; /* 'w'rite, 's'ync of a file, sync of a 'd'irectory, 'r'ename */
    size_t count;
    size_t fails_at; /* this step, counted from 1, fails with EIO; 0: none does */
} disk_order;

/* fails_at: which step fails, from 1; 0: none. */
static inline void disk_order_begin(size_t fails_at)
{
    memset(&disk_order, 0, sizeof disk_order);
    disk_order.fails_at = fails_at;
}

/* Whether the step goes on to the disk. */
static inline int disk_order_step(char letter)
{
    if (disk_order.count + 1 < sizeof disk_order.steps) {
        disk_order.steps[disk_order.count] = letter;
    }
    disk_order.count++;
    if (disk_order.count == disk_order.fails_at) {
        errno = EIO;
        return 0;
    }
    return 1;
}

ssize_t watched_write(int fd, const void *bytes, size_t byte_count)
{
    return disk_order_step('w') ? real_write(fd, bytes, byte_count) : -1;
}

int watched_fsync(int fd)
{
    struct stat status;
    const int is_directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);

    return disk_order_step(is_directory ? 'd' : 's') ? real_fsync(fd) : -1;
}

int watched_rename(const char *from, const char *to)
{
    return disk_order_step('r') ? real_rename(from, to) : -1;
}

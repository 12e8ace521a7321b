/*
 * record: what is linked into holdfastd_recorded beside the server's own objects. It stands where
 * the server, LMDB and liburing's user meet the kernel, and does two things there:
 *
 *   HF_RECORD_LOG=FILE   appends every change of the data directory (HF_RECORD_DIR) to FILE
 *   HF_FAULT=CALL,NAME,N,ERRNO
 *                        the N-th CALL (write, sync, read, make, rename, journal) on a file whose
 *                        path holds NAME fails with that number, and isn't done; so do all later
 *                        ones where N ends in '+'
 *
 * record_calls.c defines the C library's functions anew in the program, so that LMDB's calls come
 * here too, whether it is linked statically or not. record_ring.c wraps core/io's journal writes.
 *
 * Owner    The process: what there is of state is behind one lock, which also makes the order.
 * Thread   Any.
 * Errors   A log that can't be written ends the process: a gap in it would go unnoticed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/power/oplog.h"

enum record_call {
    RECORD_CALL_WRITE,
    RECORD_CALL_SYNC,
    RECORD_CALL_READ,
    RECORD_CALL_MAKE,
    RECORD_CALL_RENAME,
    RECORD_CALL_JOURNAL,
};

/* Whether descriptor or path lie in the data directory; *file is the inode then. */
bool record_is_ours(int fd, uint64_t *file);
/* A path, of a folder's descriptor or AT_FDCWD: *folder is that of its last name, *name points into
 * the path. */
bool record_path_is_ours(int at, const char *path, uint64_t *folder, const char **name);

/* 0, or the errno with which this call is to fail. */
int record_fault(enum record_call call, int fd, const char *path);

/* Between these two nothing else is logged. */
void record_lock(void);
void record_unlock(void);

/* Under the lock. op->at_ns and magic are filled in. */
void record_put(struct op *op, const void *payload);
/* Takes the lock itself; gives the op its id. WRITE with payload, or SYNC. */
uint64_t record_begin(enum op_kind kind, uint16_t flags, uint64_t file, uint64_t offset,
                      const void *bytes, size_t byte_count);
void record_end(enum op_kind kind, uint16_t flags, uint64_t id, uint64_t file, uint64_t byte_count);

/* A thread is inside mdb_env_sync(). */
extern _Thread_local bool record_explicit;

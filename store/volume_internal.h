/*
 * volume_internal: what the files of the volume share. volume_open.c makes, opens and closes one;
 * volume.c reads and writes.
 *
 * Owner    As volume.h.
 * Thread   As volume.h.
 * Errors   As each function says.
 */
#pragma once

#include <lmdb.h>

#include "store/volume.h"

struct volume_txn {
    struct volume *volume;
    MDB_txn *txn; /* a reader's is kept, and renewed */
    MDB_cursor *cursors[VOLUME_TABLE_COUNT];
    bool cursor_current[VOLUME_TABLE_COUNT]; /* renewed for this transaction */
    bool writes;
    bool active;
    char text[192];
};

struct volume {
    MDB_env *env;
    MDB_dbi tables[VOLUME_TABLE_COUNT];
    int fd;       /* LMDB's own */
    int zeros_fd; /* the same file past the page cache, or -1 where that can't be */
    uint64_t map_bytes;
    uint64_t reserve_bytes;
    uint64_t file_bytes; /* written, with zeros or more */
    uint32_t page_bytes;
    struct volume_txn write;
};

/* How long the file is now, into file_bytes. False: errno says why not. */
bool volume_measure_file(struct volume *volume) __attribute__((warn_unused_result));

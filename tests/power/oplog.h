/*
 * oplog: the log that the recorder writes and power_images reads: everything that a server did to
 * its data directory, in the order in which it did it. One struct op after the other, each with
 * its payload behind it; in the machine's byte order, since both ends run on it.
 *
 *   START     a process began; file is the data directory, the payload its path
 *   WRITE     bytes were handed to the kernel: payload, or ZEROS; DURABLE: its completion means it
 *   WRITTEN   the write `id` ended: `byte_count` bytes of it
 *   SYNC      a sync of a file or folder began
 *   SYNCED    the sync `id` ended well
 *   SIZE      a file was cut or grown to byte_count
 *   MAKE      a file or (FOLDER) folder was made: in the folder `folder`, the payload is its name
 *   RENAME    within one folder: old name, '\0', new name
 *   UNLINK    a name was taken away
 *
 * Files are named by their inode numbers; after an UNLINK a MAKE may give a number again.
 *
 * Owner    The file is the driver's; a struct op is a plain value.
 * Thread   Any.
 * Errors   None.
 */
#pragma once

#include <stdint.h>

#define OP_MAGIC UINT32_C(0x68666f70)

enum op_kind {
    OP_START = 1,
    OP_WRITE,
    OP_WRITTEN,
    OP_SYNC,
    OP_SYNCED,
    OP_SIZE,
    OP_MAKE,
    OP_RENAME,
    OP_UNLINK,
};

enum op_flags {
    OP_DURABLE = 1,
    OP_ZEROS = 2,
    OP_FOLDER = 4,
    OP_EXPLICIT = 8, /* a sync by mdb_env_sync(), not of a commit */
};

struct op {
    uint32_t magic;
    uint16_t kind;
    uint16_t flags;
    uint64_t at_ns; /* CLOCK_MONOTONIC */
    uint64_t id;    /* WRITE and WRITTEN, SYNC and SYNCED have the same */
    uint64_t file;
    uint64_t folder;
    uint64_t offset;
    uint64_t byte_count;
    uint64_t payload_bytes;
};
_Static_assert(sizeof(struct op) == 64, "no padding: it is written as it is");

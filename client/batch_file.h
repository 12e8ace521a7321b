/*
 * batch_file: an append-only file of records, in batches that are there whole or not at all.
 *
 *      file     "HFCLIENT" u64 | version u32 | salt u32 | crc32c u32 | batch ...
 *      batch    magic u32 | bytes u32 | number u64 | crc32c u32 | record ...
 *      record   bytes u24 | type u8 | payload
 *
 *      number   1, 2, 3 ...
 *      crc      begins with the file's random salt: nobody can put a batch into a message's body
 *
 * Faults   A crash or a power cut may leave the last batch torn: it is cut off, and what it held
 *          had not been promised to anybody, because a batch is synced before anything is said
 *          that depends on it. Anything else that doesn't fit is damage, and opening refuses: a
 *          good batch behind a bad one, a number out of order, a bad length in front of more bytes
 *          than one batch has. A disk without room refuses a batch, and the file stays as it was.
 *          After a failed write or sync nothing is written any more.
 * Owner    One struct batch_file a file; it holds the descriptor and a buffer.
 * Thread   One at a time. Reads, writes and syncs block on the disk.
 * Memory   The batch that is being made, or read.
 * Errors   struct hf_error that names the file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

#define BATCH_PATH_BYTES          2048
#define BATCH_FILE_HEADER_BYTES   20
#define BATCH_HEADER_BYTES        20
#define BATCH_RECORD_HEADER_BYTES 4
#define BATCH_RECORD_BYTES_MAX    ((1U << 24) - 1) /* payload */
#define BATCH_BYTES_MAX           (1U << 25)

struct batch_file {
    char path[BATCH_PATH_BYTES];
    int descriptor;
    uint32_t salt;
    bool broken;        /* a write or sync failed: see batch_file_commit */
    uint64_t end;       /* bytes of whole batches */
    uint64_t number;    /* of the last batch */
    uint64_t cut_bytes; /* of a torn last batch, cut off when it was opened */
    uint8_t *batch_;
    size_t batch_bytes_; /* used */
    size_t batch_room_;
    size_t read_at_; /* loading: the next record in batch_ */
};

struct batch_record {
    uint8_t type;
    const uint8_t *bytes; /* good until the next call */
    size_t byte_count;
    uint64_t offset; /* of the record in the file */
};

/* Opens or makes the file, mode 0600. Then load until there is nothing more. 0 or -1. */
int batch_file_open(struct batch_file *file, const char *path, struct hf_error *error)
    __attribute__((warn_unused_result));

/*
 * Makes a file next to the one at `path`, under a name of its own, that batch_file_replace may put
 * in its place. 0 or -1.
 */
int batch_file_open_new(struct batch_file *file, const char *path, struct hf_error *error)
    __attribute__((warn_unused_result));

void batch_file_close(struct batch_file *file);

/* The next record; 1, 0 when all are read (and a torn tail was cut off), -1. */
int batch_file_load_next(struct batch_file *file, struct batch_record *record,
                         struct hf_error *error) __attribute__((warn_unused_result));

/*
 * Adds a record, made of two parts, to the batch that the next commit will write, and shows it as
 * it will be read. False: no memory, or the batch is full.
 */
bool batch_file_add(struct batch_file *file, uint8_t type, const void *head, size_t head_bytes,
                    const void *body, size_t body_bytes, struct batch_record *record)
    __attribute__((warn_unused_result));

/* Bytes that wait for the commit. */
static inline size_t batch_file_waiting(const struct batch_file *file)
{
    return file->batch_bytes_ > BATCH_HEADER_BYTES ? file->batch_bytes_ : 0;
}

/*
 * Writes and syncs what was added; nothing if nothing was. 0 or -1: nothing of it is there (or,
 * after a failed sync, nobody knows), and the file takes no more.
 */
int batch_file_commit(struct batch_file *file, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Reads the record at an offset that loading or adding gave; `buffer` has room for it. 0 or -1. */
int batch_file_read(const struct batch_file *file, uint64_t offset, uint8_t *buffer, size_t room,
                    struct batch_record *record, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Puts `made` in the place of `file`, in one step, and takes over its contents. 0 or -1. */
int batch_file_replace(struct batch_file *file, struct batch_file *made, struct hf_error *error)
    __attribute__((warn_unused_result));

/*
 * volume: one ordered, transactional store of whole partitions. volume.c keeps it in LMDB; the
 * simulator has an ordered map with the same functions.
 *
 * Owner    Opened by whoever owns the data directory; the flusher of the core to which it is
 *          assigned is its only writer.
 * Thread   One write transaction at a time, in one thread from begin to end. Each reading thread
 *          opens a reader of its own, once, and begins and ends read transactions with it. They
 *          see what was committed when they began, and must be short: space that a commit frees
 *          isn't used again while an older reader looks on.
 * Memory   Values and keys handed out point into the map: good until the next call that writes,
 *          or the transaction's end.
 * Durable  A commit survives the death of the process; only volume_sync() makes it survive the
 *          machine's. Until then a power cut may take commits back, newest first, never in part.
 * Errors   VOLUME_FULL: no room; the transaction is gone (abort it), what was committed stands,
 *          and a later one may succeed. No commit or sync says so after it has begun to write: the
 *          room was made sure of, and what a failed sync has left behind nobody knows.
 *          VOLUME_BROKEN: the disk failed or the file is damaged:
 *          stop the process. volume_text() says what happened last.
 * Limits   Keys of 1-64 bytes, values of 0-2,000.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

enum volume_table {
    VOLUME_USER,
    VOLUME_BODY,
    VOLUME_OUT,
    VOLUME_META,
};
#define VOLUME_TABLE_COUNT     4
#define VOLUME_KEY_BYTES_MAX   64
#define VOLUME_VALUE_BYTES_MAX 2000

enum volume_status {
    VOLUME_OK = 0,
    VOLUME_ABSENT, /* no such key; no key beyond it */
    VOLUME_FULL,
    VOLUME_BROKEN,
};

struct volume_bytes {
    const uint8_t *bytes;
    size_t byte_count;
};

struct volume;
struct volume_txn; /* a write transaction, or a reader */

void volume_close(struct volume *volume); /* no transaction, no reader is open */

/*
 * Begins to write. `operations` bounds the puts and deletes to come, `bytes` their keys and values:
 * room for that is made sure of before anything is done (VOLUME_FULL).
 */
enum volume_status volume_write_begin(struct volume *volume, size_t operations, size_t bytes,
                                      struct volume_txn **txn) __attribute__((warn_unused_result));
enum volume_status volume_put(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes value)
    __attribute__((warn_unused_result));
/* VOLUME_ABSENT if there was no such key. */
enum volume_status volume_del(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key) __attribute__((warn_unused_result));
/* Deletes every key from `from` up to but without `to`. */
enum volume_status volume_del_range(struct volume_txn *txn, enum volume_table table,
                                    struct volume_bytes from, struct volume_bytes to)
    __attribute__((warn_unused_result));
/* The transaction is over, however it ends. */
enum volume_status volume_commit(struct volume_txn *txn) __attribute__((warn_unused_result));
void volume_abort(struct volume_txn *txn);

/* Makes all that is committed durable. Any status but VOLUME_OK: stop the process. */
enum volume_status volume_sync(struct volume *volume) __attribute__((warn_unused_result));

/* A reader for this thread; NULL: error says why. It begins with no transaction. */
struct volume_txn *volume_reader_open(struct volume *volume, struct hf_error *error);
void volume_reader_close(struct volume_txn *reader);
enum volume_status volume_read_begin(struct volume_txn *reader) __attribute__((warn_unused_result));
void volume_read_end(struct volume_txn *reader);

/* ---- In either kind of transaction ---- */

enum volume_status volume_get(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes *value)
    __attribute__((warn_unused_result));

/* The first key at or after `key`. Each table has one place in a transaction, from which next and
 * prev go on until the next get or write there. */
enum volume_status volume_seek(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes key, struct volume_bytes *found,
                               struct volume_bytes *value) __attribute__((warn_unused_result));
/* The last key before `key`. */
enum volume_status volume_seek_before(struct volume_txn *txn, enum volume_table table,
                                      struct volume_bytes key, struct volume_bytes *found,
                                      struct volume_bytes *value)
    __attribute__((warn_unused_result));
enum volume_status volume_next(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes *found, struct volume_bytes *value)
    __attribute__((warn_unused_result));
enum volume_status volume_prev(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes *found, struct volume_bytes *value)
    __attribute__((warn_unused_result));

/* What went wrong last, for the log: in writing, and with this reader. */
const char *volume_text(const struct volume *volume);
const char *volume_reader_text(const struct volume_txn *reader);

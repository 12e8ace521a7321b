#include "store/volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "store/volume_internal.h"
#include "store/volume_lmdb.h"

#define ZEROS_BYTES ((size_t)256 << 10)
#define ZEROS_ALIGN 4096
#define GROW_BYTES  ((uint64_t)1 << 20)
/* An operation copies a leaf; with the rows around it splits now and then. */
#define PAGES_AN_OPERATION 3
/* Branches, free lists, the meta pages of tables. */
#define PAGES_EXTRA 64

static enum volume_status failed(struct volume_txn *txn, const char *what, int code)
{
    if (code == MDB_NOTFOUND) {
        return VOLUME_ABSENT;
    }
    snprintf(txn->text, sizeof txn->text, "%s: %s", what, mdb_strerror(code));
    return code == MDB_MAP_FULL || code == ENOSPC || code == EDQUOT ? VOLUME_FULL : VOLUME_BROKEN;
}

/*
 * Of a commit or a sync. A full disk is no excuse there: after a sync that failed, pages that never
 * reached the disk count as clean, and trying again would build on them.
 */
static enum volume_status failed_to_write(struct volume_txn *txn, const char *what, int code)
{
    const enum volume_status status = failed(txn, what, code);

    return code == MDB_MAP_FULL ? status : VOLUME_BROKEN;
}

const char *volume_text(const struct volume *volume)
{
    return volume->write.text;
}

const char *volume_reader_text(const struct volume_txn *reader)
{
    return reader->text;
}

/* ---- Room ---- */

/*
 * Past the page cache where the file system can: nobody reads these zeros before LMDB writes there,
 * and copying them into fresh pages cost a third of the flusher's time.
 */
static ssize_t write_some_zeros(struct volume *volume, uint64_t byte_count)
{
    static _Alignas(ZEROS_ALIGN) const uint8_t zeros[ZEROS_BYTES];
    const size_t piece = byte_count < sizeof zeros ? (size_t)byte_count : sizeof zeros;

    if (volume->zeros_fd >= 0 && volume->file_bytes % ZEROS_ALIGN == 0 &&
        piece % ZEROS_ALIGN == 0) {
        const ssize_t done = pwrite(volume->zeros_fd, zeros, piece, (off_t)volume->file_bytes);

        if (done >= 0 || errno != EINVAL) {
            return done;
        }
    }
    return pwrite(volume->fd, zeros, piece, (off_t)volume->file_bytes);
}

static enum volume_status write_zeros(struct volume *volume, uint64_t upto)
{
    while (volume->file_bytes < upto) {
        const ssize_t done = write_some_zeros(volume, upto - volume->file_bytes);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return failed(&volume->write, "writing zeros ahead", done < 0 ? errno : ENOSPC);
        }
        volume->file_bytes += (uint64_t)done;
    }
    return VOLUME_OK;
}

/*
 * A commit that finds no room fails with EIO, like one that finds a broken disk, and may be half
 * written. So the room is written to before it is needed: every page that the transaction may touch
 * is copied to a new place at most once, and splits add what the new bytes need.
 */
static enum volume_status make_room(struct volume *volume, size_t operations, size_t bytes)
{
    struct statvfs space;
    uint64_t file_bytes;
    uint64_t used_bytes;
    uint64_t needed;

    volume_get_bytes(volume, &file_bytes, &used_bytes);
    needed = (uint64_t)operations * PAGES_AN_OPERATION * volume->page_bytes;
    if (needed > used_bytes) {
        needed = used_bytes;
    }
    needed += used_bytes + (uint64_t)bytes * 2 + (uint64_t)PAGES_EXTRA * volume->page_bytes;
    if (needed > volume->map_bytes) {
        needed = volume->map_bytes; /* MDB_MAP_FULL, if it comes to that */
    }
    if (needed <= file_bytes) {
        return VOLUME_OK;
    }
    /* Zeros go behind the file's end as it is, never as it was: LMDB may have written there. */
    if (!volume_measure_file(volume)) {
        return failed(&volume->write, "fstat", errno);
    }
    file_bytes = volume->file_bytes;
    if (needed <= file_bytes) {
        return VOLUME_OK;
    }
    if (file_bytes < used_bytes) {
        snprintf(volume->write.text, sizeof volume->write.text, "the file was cut");
        return VOLUME_BROKEN;
    }
    if (fstatvfs(volume->fd, &space) != 0) {
        return failed(&volume->write, "statvfs", errno);
    }
    /* One that doesn't say its size has no end, or lets the zeros find it. */
    const uint64_t room =
        space.f_blocks == 0 ? UINT64_MAX : (uint64_t)space.f_bavail * space.f_frsize;
    const uint64_t wanted = needed - file_bytes + volume->reserve_bytes;
    if (room < wanted) {
        snprintf(volume->write.text, sizeof volume->write.text,
                 "the disk is full: %" PRIu64 " bytes free, %" PRIu64 " needed", room, wanted);
        return VOLUME_FULL;
    }
    /* Somewhat more, so that not every transaction has to. */
    const uint64_t rounded = needed + GROW_BYTES - needed % GROW_BYTES;
    const bool rounded_fits =
        rounded <= volume->map_bytes && room >= rounded - file_bytes + volume->reserve_bytes;

    return write_zeros(volume, rounded_fits ? rounded : needed);
}

/* ---- Transactions ---- */

enum volume_status volume_write_begin(struct volume *volume, size_t operations, size_t bytes,
                                      struct volume_txn **txn)
{
    enum volume_status status = VOLUME_OK;
    int code;

    HF_ASSERT(!volume->write.active);
    if (operations > 0) {
        status = make_room(volume, operations, bytes);
        if (status != VOLUME_OK) {
            return status;
        }
    }
    code = mdb_txn_begin(volume->env, NULL, 0, &volume->write.txn);
    if (code != 0) {
        return failed(&volume->write, "begin", code);
    }
    memset(volume->write.cursors, 0, sizeof volume->write.cursors);
    volume->write.active = true;
    *txn = &volume->write;
    return VOLUME_OK;
}

enum volume_status volume_commit(struct volume_txn *txn)
{
    HF_ASSERT(txn->writes && txn->active);
    txn->active = false;

    const int code = mdb_txn_commit(txn->txn);

    return code == 0 ? VOLUME_OK : failed_to_write(txn, "commit", code);
}

void volume_abort(struct volume_txn *txn)
{
    HF_ASSERT(txn->writes && txn->active);
    txn->active = false;
    mdb_txn_abort(txn->txn);
}

enum volume_status volume_sync(struct volume *volume)
{
    const int code = mdb_env_sync(volume->env, 1);
    return code == 0 ? VOLUME_OK : failed_to_write(&volume->write, "sync", code);
}

struct volume_txn *volume_reader_open(struct volume *volume, struct hf_error *error)
{
    struct volume_txn *reader = calloc(1, sizeof *reader);
    int code = ENOMEM;

    if (reader != NULL) {
        reader->volume = volume;
        code = mdb_txn_begin(volume->env, NULL, MDB_RDONLY, &reader->txn);
    }
    if (code != 0) {
        hf_error_set(error, EX_OSERR, 0, "reader: %s", mdb_strerror(code));
        free(reader);
        return NULL;
    }
    mdb_txn_reset(reader->txn);
    return reader;
}

void volume_reader_close(struct volume_txn *reader)
{
    if (reader == NULL) {
        return;
    }
    HF_ASSERT(!reader->writes && !reader->active);
    for (int i = 0; i < VOLUME_TABLE_COUNT; i++) {
        if (reader->cursors[i] != NULL) {
            mdb_cursor_close(reader->cursors[i]);
        }
    }
    mdb_txn_abort(reader->txn);
    free(reader);
}

enum volume_status volume_read_begin(struct volume_txn *reader)
{
    HF_ASSERT(!reader->writes && !reader->active);

    const int code = mdb_txn_renew(reader->txn);

    if (code != 0) {
        return failed(reader, "renew", code);
    }
    memset(reader->cursor_current, 0, sizeof reader->cursor_current);
    reader->active = true;
    return VOLUME_OK;
}

void volume_read_end(struct volume_txn *reader)
{
    HF_ASSERT(!reader->writes && reader->active);
    reader->active = false;
    mdb_txn_reset(reader->txn);
}

/* ---- Rows ---- */

/* The table's cursor in this transaction. LMDB frees a writer's with the transaction. */
static int get_cursor(struct volume_txn *txn, enum volume_table table, MDB_cursor **cursor)
{
    int code = 0;

    HF_ASSERT(txn->active);
    if (txn->cursors[table] == NULL) {
        code = mdb_cursor_open(txn->txn, txn->volume->tables[table], &txn->cursors[table]);
        txn->cursor_current[table] = code == 0;
    } else if (!txn->writes && !txn->cursor_current[table]) {
        code = mdb_cursor_renew(txn->txn, txn->cursors[table]);
        txn->cursor_current[table] = code == 0;
    }
    *cursor = txn->cursors[table];
    return code;
}

static MDB_val to_val(struct volume_bytes bytes)
{
    union {
        const uint8_t *in;
        void *out;
    } pointer = { .in = bytes.bytes }; /* LMDB only reads it, but doesn't say so */

    return (MDB_val){ bytes.byte_count, pointer.out };
}

static struct volume_bytes from_val(MDB_val value)
{
    return (struct volume_bytes){ value.mv_data, value.mv_size };
}

static void check_key(struct volume_bytes key)
{
    HF_ASSERT(key.byte_count > 0 && key.byte_count <= VOLUME_KEY_BYTES_MAX);
}

static enum volume_status move(struct volume_txn *txn, enum volume_table table, MDB_cursor_op op,
                               struct volume_bytes key, struct volume_bytes *found,
                               struct volume_bytes *value)
{
    MDB_cursor *cursor;
    MDB_val found_val = to_val(key);
    MDB_val value_val = { 0, NULL };
    int code = get_cursor(txn, table, &cursor);

    if (code == 0) {
        code = mdb_cursor_get(cursor, &found_val, &value_val, op);
    }
    if (code != 0) {
        return failed(txn, "read", code);
    }
    *found = from_val(found_val);
    *value = from_val(value_val);
    return VOLUME_OK;
}

enum volume_status volume_put(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes value)
{
    MDB_cursor *cursor;
    MDB_val key_val = to_val(key);
    MDB_val value_val = to_val(value);
    int code;

    check_key(key);
    HF_ASSERT(txn->writes && value.byte_count <= VOLUME_VALUE_BYTES_MAX);
    code = get_cursor(txn, table, &cursor);
    if (code == 0) {
        code = mdb_cursor_put(cursor, &key_val, &value_val, 0);
    }
    return code == 0 ? VOLUME_OK : failed(txn, "put", code);
}

enum volume_status volume_del(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key)
{
    struct volume_bytes found;
    struct volume_bytes value;
    enum volume_status status;

    check_key(key);
    HF_ASSERT(txn->writes);
    status = move(txn, table, MDB_SET_KEY, key, &found, &value);
    if (status == VOLUME_OK) {
        const int code = mdb_cursor_del(txn->cursors[table], 0);
        status = code == 0 ? VOLUME_OK : failed(txn, "delete", code);
    }
    return status;
}

static int compare_bytes(struct volume_bytes a, struct volume_bytes b)
{
    const size_t shorter = a.byte_count < b.byte_count ? a.byte_count : b.byte_count;
    const int order = memcmp(a.bytes, b.bytes, shorter);

    if (order != 0) {
        return order;
    }
    return a.byte_count < b.byte_count ? -1 : a.byte_count > b.byte_count;
}

enum volume_status volume_del_range(struct volume_txn *txn, enum volume_table table,
                                    struct volume_bytes from, struct volume_bytes to)
{
    struct volume_bytes found;
    struct volume_bytes value;
    enum volume_status status;

    check_key(from);
    check_key(to);
    HF_ASSERT(txn->writes);
    status = move(txn, table, MDB_SET_RANGE, from, &found, &value);
    while (status == VOLUME_OK && compare_bytes(found, to) < 0) {
        const int code = mdb_cursor_del(txn->cursors[table], 0);

        if (code != 0) {
            return failed(txn, "delete", code);
        }
        /* After a delete the cursor stands before what followed it. */
        status = move(txn, table, MDB_NEXT, from, &found, &value);
    }
    return status == VOLUME_ABSENT ? VOLUME_OK : status;
}

enum volume_status volume_get(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes *value)
{
    struct volume_bytes found;

    check_key(key);
    return move(txn, table, MDB_SET_KEY, key, &found, value);
}

enum volume_status volume_seek(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes key, struct volume_bytes *found,
                               struct volume_bytes *value)
{
    check_key(key);
    return move(txn, table, MDB_SET_RANGE, key, found, value);
}

enum volume_status volume_seek_before(struct volume_txn *txn, enum volume_table table,
                                      struct volume_bytes key, struct volume_bytes *found,
                                      struct volume_bytes *value)
{
    const enum volume_status status = volume_seek(txn, table, key, found, value);

    if (status == VOLUME_ABSENT) {
        return move(txn, table, MDB_LAST, key, found, value);
    }
    return status == VOLUME_OK ? move(txn, table, MDB_PREV, key, found, value) : status;
}

enum volume_status volume_next(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes *found, struct volume_bytes *value)
{
    return move(txn, table, MDB_NEXT, (struct volume_bytes){ NULL, 0 }, found, value);
}

enum volume_status volume_prev(struct volume_txn *txn, enum volume_table table,
                               struct volume_bytes *found, struct volume_bytes *value)
{
    return move(txn, table, MDB_PREV, (struct volume_bytes){ NULL, 0 }, found, value);
}

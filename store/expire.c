#include "store/expire.h"

#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/base/mutant.h"

/* The user is left as it is: what can be saved of it is the operator's to say. */
static enum expire_status damaged(struct expire *expire, const char *row,
                                  struct expire_found *found)
{
    *found = (struct expire_found){ .user = expire->user_ };
    expire->damaged_volume = expire->volume_;
    expire->damaged_row = row;
    expire->in_log_ = false;
    expire->next_ = schema_key_beyond(expire->user_);
    return EXPIRE_DAMAGED;
}

static enum expire_status unreadable(struct expire *expire, const struct volume_txn *reader)
{
    hf_error_set(&expire->error, EX_IOERR, 0, "volume %u: %s", expire->volume_,
                 volume_reader_text(reader));
    return EXPIRE_FAILED;
}

/* The first key there is below those of all users, of whatever partition. */
static void next_volume(struct expire *expire)
{
    expire->volume_++;
    expire->user_ = (struct user_id){ 0 };
    expire->in_log_ = false;
    expire->next_ = schema_key_log(expire->user_, 0);
    memset(expire->next_.bytes, 0, expire->next_.byte_count);
}

/* What stands behind a key that is no user's, nobody knows: the volume's other users are left. */
static enum expire_status damaged_key(struct expire *expire, struct expire_found *found)
{
    const enum expire_status status = damaged(expire, "the key of a row behind it", found);

    next_volume(expire);
    return status;
}

/* On behind the user's rows. True: some of its entries are old, and not given up yet. */
static bool leave_user(struct expire *expire, struct expire_found *found)
{
    const bool old = expire->in_log_ && expire->floor_ > expire->kept_;

    *found = (struct expire_found){ expire->user_, expire->floor_ };
    if (HF_MUTANT(EXPIRE_ONE_TOO_MANY)) {
        found->floor++;
    }
    expire->in_log_ = false;
    expire->next_ = schema_key_beyond(expire->user_);
    return old;
}

/* A row of a user of whom none was read. */
static void enter_user(struct expire *expire, struct user_id user)
{
    expire->user_ = user;
    expire->users++;
    expire->kept_ = 0;
    expire->next_ = schema_key_log(user, 0);
}

/* The user has old entries. But what a row has below the floor is only waiting for the rest of it. */
static bool read_floor(struct expire *expire, struct volume_txn *reader)
{
    const struct schema_key key = schema_key_facts(expire->user_);
    struct volume_bytes row;
    struct schema_facts facts;

    if (volume_get(reader, VOLUME_USER, schema_key_bytes(&key), &row) != VOLUME_OK ||
        !schema_decode_facts(schema_key_bytes(&key), row, &facts)) {
        return false;
    }
    expire->in_log_ = true;
    expire->kept_ = facts.floor;
    expire->floor_ = facts.floor;
    return true;
}

/* The oldest row of the user's log that wasn't read yet. */
static enum expire_status read_log(struct expire *expire, struct volume_txn *reader,
                                   struct volume_bytes key, struct volume_bytes row,
                                   struct expire_found *found)
{
    struct schema_log_reader entries;
    struct schema_log log;

    if (!schema_log_open(&entries, key, row)) {
        return damaged(expire, "of its log", found);
    }
    while (schema_log_next(&entries, &log)) {
        if (expire->in_log_ && log.entry.seq < expire->floor_) {
            continue; /* read before */
        }
        if (message_id_unix_ms(log.entry.id) >= expire->cutoff_unix_ms_) {
            return leave_user(expire, found) ? EXPIRE_FOUND : EXPIRE_MORE;
        }
        if (!expire->in_log_ && !read_floor(expire, reader)) {
            return damaged(expire, "its facts", found);
        }
        if (log.entry.seq >= expire->floor_) {
            expire->floor_ = log.entry.seq + 1;
        }
    }
    if (entries.bad) {
        return damaged(expire, "of its log", found);
    }
    expire->next_ = schema_key_log(expire->user_, entries.first + entries.count);
    return EXPIRE_MORE;
}

/* One row, the first at or behind next_. */
static enum expire_status read_row(struct expire *expire, struct volume_txn *reader,
                                   struct volume_bytes key, struct volume_bytes row,
                                   struct expire_found *found)
{
    struct user_id user;

    if (!schema_key_owner(key, &user)) {
        return damaged_key(expire, found);
    }
    if (user.value != expire->user_.value) {
        if (expire->in_log_ && leave_user(expire, found)) {
            return EXPIRE_FOUND; /* all of its log is old; the other's row comes again */
        }
        enter_user(expire, user);
    }
    switch (schema_key_place(key)) {
    case SCHEMA_BEFORE_LOG:
        break; /* next_ is where that begins */
    case SCHEMA_IN_LOG:
        return read_log(expire, reader, key, row, found);
    case SCHEMA_BEHIND_LOG:
        return leave_user(expire, found) ? EXPIRE_FOUND : EXPIRE_MORE;
    }
    return EXPIRE_MORE;
}

static enum expire_status end_volume(struct expire *expire, struct expire_found *found)
{
    if (expire->in_log_ && leave_user(expire, found)) {
        return EXPIRE_FOUND; /* the volume's last user */
    }
    next_volume(expire);
    return EXPIRE_MORE;
}

/*
 * The first row at or behind next_. Within a log it may be an earlier one that has grown since: a
 * flush goes on with the last row, and begins another when it is full.
 */
static enum volume_status find_row(struct expire *expire, struct volume_txn *reader,
                                   struct volume_bytes *key, struct volume_bytes *row)
{
    if (expire->in_log_) {
        const struct schema_key beyond = schema_key_log(expire->user_, expire->floor_ + 1);
        struct schema_log_reader entries;
        const enum volume_status status =
            volume_seek_before(reader, VOLUME_USER, schema_key_bytes(&beyond), key, row);

        if (status != VOLUME_OK && status != VOLUME_ABSENT) {
            return status;
        }
        if (status == VOLUME_OK && schema_is_log(*key, expire->user_) &&
            (!schema_log_open(&entries, *key, *row) ||
             entries.first + entries.count > expire->floor_)) {
            return VOLUME_OK;
        }
    }
    return volume_seek(reader, VOLUME_USER, schema_key_bytes(&expire->next_), key, row);
}

static enum expire_status read_rows(struct expire *expire, struct volume_txn *reader,
                                    uint32_t rows_max, struct expire_found *found)
{
    enum expire_status status = EXPIRE_MORE;

    for (uint32_t rows = 0; rows < rows_max && status == EXPIRE_MORE; rows++) {
        struct volume_bytes key;
        struct volume_bytes row;

        switch (find_row(expire, reader, &key, &row)) {
        case VOLUME_OK:
            status = read_row(expire, reader, key, row, found);
            break;
        case VOLUME_ABSENT:
            return end_volume(expire, found);
        case VOLUME_FULL:
        case VOLUME_BROKEN:
            return unreadable(expire, reader);
        }
    }
    return status;
}

void expire_begin(struct expire *expire, struct volume_txn *const *readers, uint16_t volume_count,
                  uint64_t cutoff_unix_ms)
{
    HF_ASSERT(volume_count > 0 && volume_count <= SCHEMA_VOLUMES_MAX);
    *expire = (struct expire){
        .readers_ = readers,
        .volume_count_ = volume_count,
        .volume_ = UINT16_MAX, /* before the first */
        .cutoff_unix_ms_ = cutoff_unix_ms,
    };
    next_volume(expire);
}

enum expire_status expire_step(struct expire *expire, uint32_t rows_max, struct expire_found *found)
{
    enum expire_status status;

    HF_ASSERT(rows_max > 0);
    while (expire->volume_ < expire->volume_count_ && expire->readers_[expire->volume_] == NULL) {
        expire->volume_++;
    }
    if (expire->volume_ == expire->volume_count_) {
        return EXPIRE_SWEPT;
    }

    struct volume_txn *reader = expire->readers_[expire->volume_];

    if (volume_read_begin(reader) != VOLUME_OK) {
        return unreadable(expire, reader);
    }
    status = read_rows(expire, reader, rows_max, found);
    volume_read_end(reader);
    return status;
}

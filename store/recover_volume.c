#include "store/recover.h"

#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"

/* ---- What a volume is ---- */

static bool write_identity(struct volume *volume, const struct schema_identity *identity,
                           struct hf_error *error)
{
    const struct schema_key key = schema_key_identity();
    struct schema_row row;
    struct volume_txn *txn;
    enum volume_status status;

    schema_encode_identity(&key, identity, &row);
    status = volume_write_begin(volume, 1, row.byte_count, &txn);
    if (status == VOLUME_OK) {
        status = volume_put(txn, VOLUME_META, schema_key_bytes(&key), schema_row_bytes(&row));
        if (status == VOLUME_OK) {
            status = volume_commit(txn);
        } else {
            volume_abort(txn);
        }
    }
    if (status == VOLUME_OK) {
        status = volume_sync(volume);
    }
    if (status != VOLUME_OK) {
        hf_error_set(error, status == VOLUME_FULL ? EX_CANTCREAT : EX_IOERR, 0, "%s",
                     volume_text(volume));
    }
    return status == VOLUME_OK;
}

static bool compare_identity(const struct schema_identity *found,
                             const struct schema_identity *wanted, struct hf_error *error)
{
    if (found->format != wanted->format) {
        hf_error_set(error, EX_DATAERR, 0,
                     "its format is %u, and this program knows %u: it was written by %s version",
                     found->format, wanted->format,
                     found->format > wanted->format ? "a newer" : "an older");
        return false;
    }
    if (memcmp(found->directory_id, wanted->directory_id, sizeof found->directory_id) != 0) {
        hf_error_set(error, EX_DATAERR, 0, "it is of another data directory");
        return false;
    }
    if (found->volume != wanted->volume || found->volume_count != wanted->volume_count) {
        hf_error_set(error, EX_DATAERR, 0, "it is volume %u of %u, in the place of volume %u of %u",
                     found->volume, found->volume_count, wanted->volume, wanted->volume_count);
        return false;
    }
    return true;
}

bool recover_prepare_volume(struct volume *volume, const struct schema_identity *identity,
                            struct hf_error *error)
{
    const struct schema_key key = schema_key_identity();
    struct volume_txn *reader = volume_reader_open(volume, error);
    struct schema_identity found;
    struct volume_bytes row;
    enum volume_status status;
    bool sound = false;

    if (reader == NULL) {
        hf_error_prepend(error, "volume %u", identity->volume);
        return false;
    }
    status = volume_read_begin(reader);
    if (status == VOLUME_OK) {
        status = volume_get(reader, VOLUME_META, schema_key_bytes(&key), &row);
        sound = status == VOLUME_OK && schema_decode_identity(schema_key_bytes(&key), row, &found);
        volume_read_end(reader);
    }
    if (status == VOLUME_ABSENT) {
        sound = write_identity(volume, identity, error);
    } else if (status != VOLUME_OK) {
        hf_error_set(error, EX_IOERR, 0, "%s", volume_reader_text(reader));
    } else if (!sound) {
        hf_error_set(error, EX_DATAERR, 0, "the row `identity` is damaged");
    } else {
        sound = compare_identity(&found, identity, error);
    }
    volume_reader_close(reader);
    if (!sound) {
        hf_error_prepend(error, "volume %u", identity->volume);
    }
    return sound;
}

/* ---- What it has ---- */

bool recover_read_applied(struct volume *volume, uint64_t *lsn, struct hf_error *error)
{
    struct volume_txn *reader = volume_reader_open(volume, error);
    enum schema_status status;

    if (reader == NULL) {
        return false;
    }
    status = schema_status_of(volume_read_begin(reader));
    if (status == SCHEMA_OK) {
        status = schema_get_applied(reader, lsn);
        volume_read_end(reader);
    }
    if (status != SCHEMA_OK) {
        hf_error_set(error, status == SCHEMA_DAMAGED ? EX_DATAERR : EX_IOERR, 0,
                     "the row `applied`: %s",
                     status == SCHEMA_DAMAGED ? "damaged" : volume_reader_text(reader));
    }
    volume_reader_close(reader);
    return status == SCHEMA_OK;
}

/* ---- Epochs ---- */

/* The facts of one user. False: damaged, or the disk. */
static bool take_facts(struct volume_txn *reader, struct user_id user, uint64_t *epoch,
                       struct hf_error *error)
{
    const struct schema_key key = schema_key_facts(user);
    struct schema_facts facts;
    struct volume_bytes row;
    const enum volume_status status = volume_get(reader, VOLUME_USER, schema_key_bytes(&key), &row);

    if (status == VOLUME_BROKEN || status == VOLUME_FULL) {
        hf_error_set(error, EX_IOERR, 0, "%s", volume_reader_text(reader));
        return false;
    }
    if (status == VOLUME_ABSENT || !schema_decode_facts(schema_key_bytes(&key), row, &facts)) {
        hf_error_set(error, EX_DATAERR, 0, "user %" PRIu64 ": the facts of a user are %s",
                     user.value, status == VOLUME_ABSENT ? "missing" : "damaged");
        return false;
    }
    if (facts.epoch > *epoch) {
        *epoch = facts.epoch;
    }
    return true;
}

static bool take_all_facts(struct volume_txn *reader, uint64_t *epoch, uint64_t *users,
                           struct hf_error *error)
{
    struct schema_key from = { .byte_count = SCHEMA_USER_PREFIX_BYTES };
    struct volume_bytes found;
    struct volume_bytes row;
    enum volume_status status;

    while ((status = volume_seek(reader, VOLUME_USER, schema_key_bytes(&from), &found, &row)) ==
           VOLUME_OK) {
        if (found.byte_count <= SCHEMA_USER_PREFIX_BYTES) {
            hf_error_set(error, EX_DATAERR, 0, "the key of a user's row is damaged");
            return false;
        }
        memcpy(from.bytes, found.bytes, SCHEMA_USER_PREFIX_BYTES);

        const struct user_id user = { load_be64(from.bytes + sizeof(uint16_t)) };

        if (!take_facts(reader, user, epoch, error)) {
            return false;
        }
        ++*users;
        from.bytes[SCHEMA_USER_PREFIX_BYTES] = 0xff; /* behind all of this user's rows */
        from.byte_count = SCHEMA_USER_PREFIX_BYTES + 1;
    }
    if (status != VOLUME_ABSENT) {
        hf_error_set(error, EX_IOERR, 0, "%s", volume_reader_text(reader));
    }
    return status == VOLUME_ABSENT;
}

bool recover_find_epoch(struct volume *volume, uint64_t *epoch, uint64_t *users,
                        struct hf_error *error)
{
    struct volume_txn *reader = volume_reader_open(volume, error);
    bool good = false;

    if (reader == NULL) {
        return false;
    }
    if (volume_read_begin(reader) == VOLUME_OK) {
        good = take_all_facts(reader, epoch, users, error);
        volume_read_end(reader);
    } else {
        hf_error_set(error, EX_IOERR, 0, "%s", volume_reader_text(reader));
    }
    volume_reader_close(reader);
    return good;
}

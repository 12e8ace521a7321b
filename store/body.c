#include "store/body.h"

#include <string.h>

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/mutant.h"

static enum schema_status get_references(struct volume_txn *txn, const struct schema_key *key,
                                         struct schema_body *body)
{
    struct volume_bytes row;
    const enum volume_status status = volume_get(txn, VOLUME_BODY, schema_key_bytes(key), &row);

    if (status == VOLUME_OK && !schema_decode_body(schema_key_bytes(key), row, body)) {
        return SCHEMA_DAMAGED;
    }
    return schema_status_of(status);
}

static enum schema_status put_references(struct volume_txn *txn, const struct schema_key *key,
                                         const struct schema_body *body)
{
    struct schema_row row;

    schema_encode_body(key, body, &row);
    return schema_status_of(
        volume_put(txn, VOLUME_BODY, schema_key_bytes(key), schema_row_bytes(&row)));
}

enum schema_status body_hold(struct volume_txn *txn, struct message_id id, const uint8_t *bytes,
                             uint16_t byte_count)
{
    const struct schema_key key = schema_key_body(id, 0);
    const uint32_t crc = crc32c(0, bytes, byte_count);
    struct schema_body body = { 0 };
    enum schema_status status = get_references(txn, &key, &body);

    HF_ASSERT(byte_count > SCHEMA_BODY_INLINE_MAX);
    if (status == SCHEMA_OK) {
        if (body.body_bytes != byte_count || body.body_crc != crc) {
            return SCHEMA_DAMAGED;
        }
        body.references++;
        return put_references(txn, &key, &body);
    }
    if (status != SCHEMA_ABSENT) {
        return status;
    }
    body = (struct schema_body){ 1, byte_count, crc };
    status = put_references(txn, &key, &body);
    for (uint16_t at = 0, part = 1; status == SCHEMA_OK && at < byte_count; part++) {
        struct schema_row row;
        const struct schema_key part_key = schema_key_body(id, part);
        uint16_t piece = byte_count - at;

        if (piece > SCHEMA_BODY_PART_BYTES) {
            piece = SCHEMA_BODY_PART_BYTES;
        }
        schema_encode_part(&part_key, bytes + at, piece, &row);
        status = schema_status_of(
            volume_put(txn, VOLUME_BODY, schema_key_bytes(&part_key), schema_row_bytes(&row)));
        at = (uint16_t)(at + piece);
    }
    return status;
}

enum schema_status body_release(struct volume_txn *txn, struct message_id id)
{
    const struct schema_key key = schema_key_body(id, 0);
    const struct schema_key end = schema_key_body(id, UINT16_MAX);
    struct schema_body body = { 0 };
    const enum schema_status status = get_references(txn, &key, &body);

    if (status != SCHEMA_OK) {
        return status == SCHEMA_ABSENT ? SCHEMA_DAMAGED : status;
    }
    if (--body.references > 0 && !HF_MUTANT(BODY_DROPPED_WHILE_HELD)) {
        return put_references(txn, &key, &body);
    }
    return schema_status_of(
        volume_del_range(txn, VOLUME_BODY, schema_key_bytes(&key), schema_key_bytes(&end)));
}

enum schema_status body_read(struct volume_txn *txn, const struct schema_log *log, uint8_t *to)
{
    uint16_t at = 0;

    for (uint16_t part = 1; at < log->body_bytes; part++) {
        const struct schema_key key = schema_key_body(log->entry.id, part);
        struct volume_bytes row;
        struct volume_bytes piece;
        const enum volume_status status =
            volume_get(txn, VOLUME_BODY, schema_key_bytes(&key), &row);

        if (status != VOLUME_OK) {
            return status == VOLUME_ABSENT ? SCHEMA_DAMAGED : schema_status_of(status);
        }
        if (!schema_decode_part(schema_key_bytes(&key), row, &piece) ||
            piece.byte_count > (size_t)(log->body_bytes - at)) {
            return SCHEMA_DAMAGED;
        }
        memcpy(to + at, piece.bytes, piece.byte_count);
        at = (uint16_t)(at + piece.byte_count);
    }
    return crc32c(0, to, log->body_bytes) == log->body_crc ? SCHEMA_OK : SCHEMA_DAMAGED;
}

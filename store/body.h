/*
 * body: the bodies that are too large for a log row, in parts, once a volume: a row counts who
 * names them, and they go with the last.
 *
 * Thread   The transaction's.
 * Errors   SCHEMA_DAMAGED: parts are missing or wrong, or two messages have one id.
 */
#pragma once

#include "core/base/ids.h"
#include "store/schema.h"
#include "store/volume.h"

/* One more row names the body, which is written if it is the first. */
enum schema_status body_hold(struct volume_txn *txn, struct message_id id, const uint8_t *bytes,
                             uint16_t byte_count) __attribute__((warn_unused_result));
/* One row less. */
enum schema_status body_release(struct volume_txn *txn, struct message_id id)
    __attribute__((warn_unused_result));
/* Reads the body of a log row; the room must be log->body_bytes. */
enum schema_status body_read(struct volume_txn *txn, const struct schema_log *log, uint8_t *to)
    __attribute__((warn_unused_result));

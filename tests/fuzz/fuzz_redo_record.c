/*
 * Whatever parses as a redo record is encoded as the same bytes again, and no row of a volume,
 * sound by its checksum, is decoded into anything that isn't encoded as the same row.
 */
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "store/schema.h"
#include "tests/fuzz/fuzz.h"

static void try_record(const uint8_t *bytes, size_t byte_count)
{
    static uint8_t again[RECORD_BYTES_MAX];
    struct record record;
    size_t length = 0;

    if (record_parse(bytes, byte_count, &record, &length) == RECORD_OK) {
        HF_ASSERT(length <= byte_count && record_bytes(&record) == length);
        HF_ASSERT(record_encode(&record, again, sizeof again) == length);
        HF_ASSERT(memcmp(bytes, again, length) == 0);
    }
}

static void same_row(const struct schema_row *again, struct volume_bytes row)
{
    HF_ASSERT(again->byte_count == row.byte_count);
    HF_ASSERT(memcmp(again->bytes, row.bytes, row.byte_count) == 0);
}

/* What is read of a log row, written anew, is the row, unless a body lies apart. */
static void try_log_row(struct volume_bytes key, struct volume_bytes row)
{
    static struct schema_log_writer writer;
    struct schema_log_reader reader;
    struct schema_log log;
    bool apart = false;

    if (!schema_log_open(&reader, key, row)) {
        return;
    }
    schema_log_begin(&writer, reader.user, reader.first);
    while (schema_log_next(&reader, &log)) {
        apart |= log.body_apart;
        apart |= !schema_log_add(&writer, &log.entry); /* longer than a row of ours */
    }
    if (!reader.bad && !apart) {
        schema_log_end(&writer);
        same_row(&writer.row, row);
    }
}

static void try_row(const struct schema_key *key, struct volume_bytes row)
{
    const struct volume_bytes key_bytes = schema_key_bytes(key);
    static struct schema_row again;
    struct schema_facts facts;
    struct head head;
    struct schema_device device;
    struct schema_body body;
    struct schema_out out;
    struct schema_identity identity;
    struct volume_bytes part;

    if (schema_decode_facts(key_bytes, row, &facts)) {
        schema_encode_facts(key, &facts, &again);
        same_row(&again, row);
    }
    if (schema_decode_head(key_bytes, row, &head)) {
        schema_encode_head(key, &head, &again);
        same_row(&again, row);
    }
    if (schema_decode_device(key_bytes, row, &device)) {
        schema_encode_device(key, &device, &again);
        same_row(&again, row);
    }
    try_log_row(key_bytes, row);
    if (schema_decode_body(key_bytes, row, &body)) {
        schema_encode_body(key, &body, &again);
        same_row(&again, row);
    }
    if (schema_decode_part(key_bytes, row, &part)) {
        schema_encode_part(key, part.bytes, part.byte_count, &again);
        same_row(&again, row);
    }
    if (schema_decode_out(key_bytes, row, &out)) {
        schema_encode_out(key, &out, &again);
        same_row(&again, row);
    }
    if (schema_decode_identity(key_bytes, row, &identity) && identity.format <= SCHEMA_FORMAT) {
        schema_encode_identity(key, &identity, &again);
        same_row(&again, row);
    }
}

/* As a row under that key, with the checksum that it should have. */
static void try_under(const struct schema_key *key, const uint8_t *bytes, size_t byte_count)
{
    static uint8_t row[SCHEMA_ROW_BYTES_MAX];
    uint32_t crc = crc32c(0, key->bytes, key->byte_count);

    crc = crc32c(crc, bytes, byte_count);
    store_be32(row, crc);
    if (byte_count > 0) {
        memcpy(row + 4, bytes, byte_count);
    }
    try_row(key, (struct volume_bytes){ row, byte_count + 4 });
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    const struct schema_key facts = schema_key_facts((struct user_id){ 1 });
    const struct schema_key log = schema_key_log((struct user_id){ 1 }, 5);

    try_record(bytes, byte_count);
    if (byte_count <= SCHEMA_ROW_BYTES_MAX - 4) {
        try_under(&facts, bytes, byte_count);
        try_under(&log, bytes, byte_count);
    }
}

#include "store/schema.h"

#include <string.h>

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "store/codec.h"

#define CRC_BYTES 4

enum user_tag {
    TAG_CHECKPOINT = 1,
    TAG_LOG = 2,
    TAG_HEAD = 3,
    TAG_DEVICE = 4,
    TAG_FACTS = 5,
};

enum log_form {
    LOG_BODY_INLINE = 0,
    LOG_BODY_APART = 1,
};

#define OUT_BODY_APART 0x01

static uint8_t *key_begin_user(struct schema_key *key, struct user_id user, enum user_tag tag)
{
    uint8_t *to = codec_give16(key->bytes, partition_of(user.value).value);

    to = codec_give64(to, user.value);
    *to++ = (uint8_t)tag;
    return to;
}

static struct schema_key key_end(struct schema_key *key, const uint8_t *end)
{
    key->byte_count = (size_t)(end - key->bytes);
    return *key;
}

struct schema_key schema_key_checkpoint(struct user_id user, struct conversation_id conversation,
                                        uint64_t block)
{
    struct schema_key key;
    uint8_t *to = key_begin_user(&key, user, TAG_CHECKPOINT);

    to = codec_give64(to, conversation.value);
    return key_end(&key, codec_give64(to, block));
}

struct schema_key schema_key_log(struct user_id user, uint64_t seq)
{
    struct schema_key key;
    return key_end(&key, codec_give64(key_begin_user(&key, user, TAG_LOG), seq));
}

struct schema_key schema_key_head(struct user_id user, struct conversation_id conversation)
{
    struct schema_key key;
    return key_end(&key, codec_give64(key_begin_user(&key, user, TAG_HEAD), conversation.value));
}

struct schema_key schema_key_device(struct user_id user, struct device_id device)
{
    struct schema_key key;
    return key_end(&key, codec_give32(key_begin_user(&key, user, TAG_DEVICE), device.value));
}

struct schema_key schema_key_facts(struct user_id user)
{
    struct schema_key key;
    return key_end(&key, key_begin_user(&key, user, TAG_FACTS));
}

struct schema_key schema_key_body(struct message_id id, uint16_t part)
{
    struct schema_key key;
    return key_end(&key, codec_give16(codec_give64(key.bytes, id.value), part));
}

struct schema_key schema_key_out(struct partition_id partition, struct message_id id)
{
    struct schema_key key;
    return key_end(&key, codec_give64(codec_give16(key.bytes, partition.value), id.value));
}

static struct schema_key key_named(const char *name)
{
    struct schema_key key;
    const size_t length = strlen(name);

    return key_end(&key, codec_give_bytes(key.bytes, (const uint8_t *)name, length));
}

struct schema_key schema_key_applied(void)
{
    return key_named("applied");
}

struct schema_key schema_key_identity(void)
{
    return key_named("identity");
}

struct schema_key schema_key_last(struct partition_id partition)
{
    struct schema_key key = key_named("last");
    return key_end(&key, codec_give16(key.bytes + key.byte_count, partition.value));
}

static uint8_t *row_begin(struct schema_row *row)
{
    return row->bytes + CRC_BYTES;
}

static void row_end(const struct schema_key *key, struct schema_row *row, const uint8_t *end)
{
    row->byte_count = (size_t)(end - row->bytes);
    HF_ASSERT(row->byte_count <= sizeof row->bytes);
    const uint32_t crc = crc32c(0, key->bytes, key->byte_count);
    store_be32(row->bytes, crc32c(crc, row->bytes + CRC_BYTES, row->byte_count - CRC_BYTES));
}

/* A reader of the row's fields, bad from the start if the checksum is wrong. */
static struct codec_reader row_open(struct volume_bytes key, struct volume_bytes row)
{
    struct codec_reader reader = { row.bytes, row.bytes + row.byte_count, false };

    if (row.byte_count < CRC_BYTES) {
        reader.bad = true;
        return reader;
    }
    const uint32_t crc = crc32c(0, key.bytes, key.byte_count);
    reader.bad =
        load_be32(row.bytes) != crc32c(crc, row.bytes + CRC_BYTES, row.byte_count - CRC_BYTES);
    reader.at += CRC_BYTES;
    return reader;
}

static bool row_close(const struct codec_reader *reader)
{
    return !reader->bad && reader->at == reader->end;
}

void schema_encode_number(const struct schema_key *key, uint64_t number, struct schema_row *row)
{
    row_end(key, row, codec_give64(row_begin(row), number));
}

bool schema_decode_number(struct volume_bytes key, struct volume_bytes row, uint64_t *number)
{
    struct codec_reader reader = row_open(key, row);

    *number = codec_take64(&reader);
    return row_close(&reader);
}

void schema_encode_facts(const struct schema_key *key, const struct schema_facts *facts,
                         struct schema_row *row)
{
    uint8_t *to = row_begin(row);

    HF_ASSERT(facts->epoch > 0 && facts->floor > 0 && facts->floor - 1 <= facts->head);
    to = codec_give_varint(to, facts->epoch);
    to = codec_give_varint(to, facts->head);
    to = codec_give_varint(to, facts->floor);
    row_end(key, row, codec_give64(to, facts->created_unix_ms));
}

bool schema_decode_facts(struct volume_bytes key, struct volume_bytes row,
                         struct schema_facts *facts)
{
    struct codec_reader reader = row_open(key, row);

    facts->epoch = codec_take_varint(&reader);
    facts->head = codec_take_varint(&reader);
    facts->floor = codec_take_varint(&reader);
    facts->created_unix_ms = codec_take64(&reader);
    return row_close(&reader) && facts->epoch > 0 && facts->floor > 0 &&
           facts->floor - 1 <= facts->head;
}

void schema_encode_head(const struct schema_key *key, const struct head *head,
                        struct schema_row *row)
{
    uint8_t *to = row_begin(row);

    to = codec_give_varint(to, head->last);
    to = codec_give_varint(to, head->n);
    to = codec_give_varint(to, head->cn);
    to = codec_give_varint(to, head->origin.epoch);
    row_end(key, row, codec_give_varint(to, head->origin.seq));
}

bool schema_decode_head(struct volume_bytes key, struct volume_bytes row, struct head *head)
{
    struct codec_reader reader = row_open(key, row);

    head->last = codec_take_varint(&reader);
    head->n = codec_take_varint(&reader);
    head->cn = codec_take_varint(&reader);
    head->origin.epoch = codec_take_varint(&reader);
    head->origin.seq = codec_take_varint(&reader);
    return row_close(&reader) && head->cn <= head->n;
}

/* Outcomes: counter (the first whole, then what it is above the one before), code, nonce; id and
 * seq if it was accepted. */
void schema_encode_device(const struct schema_key *key, const struct schema_device *device,
                          struct schema_row *row)
{
    uint8_t *to = row_begin(row);
    uint64_t counter = 0;

    HF_ASSERT(device->outcome_count <= SCHEMA_OUTCOMES_MAX);
    to = codec_give32(to, device->generation);
    to = codec_give64(to, device->created_unix_ms);
    to = codec_give_varint(to, device->last_counter);
    to = codec_give_varint(to, device->cursor.epoch);
    to = codec_give_varint(to, device->cursor.seq);
    to = codec_give_varint(to, device->cursor_sver);
    *to++ = (uint8_t)device->outcome_count;
    for (uint32_t i = 0; i < device->outcome_count; i++) {
        const struct outcome *outcome = &device->outcomes[i];

        HF_ASSERT(outcome->counter > counter);
        to = codec_give_varint(to, outcome->counter - counter);
        counter = outcome->counter;
        to = codec_give_varint(to, outcome->code);
        to = codec_give_bytes(to, outcome->nonce, RECORD_NONCE_BYTES);
        if (outcome->code == 0) {
            to = codec_give64(to, outcome->id);
            to = codec_give_varint(to, outcome->seq);
        }
    }
    HF_ASSERT(counter <= device->last_counter);
    row_end(key, row, to);
}

bool schema_decode_device(struct volume_bytes key, struct volume_bytes row,
                          struct schema_device *device)
{
    struct codec_reader reader = row_open(key, row);
    uint64_t counter = 0;

    memset(device, 0, sizeof *device);
    device->generation = codec_take32(&reader);
    device->created_unix_ms = codec_take64(&reader);
    device->last_counter = codec_take_varint(&reader);
    device->cursor.epoch = codec_take_varint(&reader);
    device->cursor.seq = codec_take_varint(&reader);
    device->cursor_sver = codec_take_varint(&reader);
    device->outcome_count = codec_take8(&reader);
    if (device->outcome_count > SCHEMA_OUTCOMES_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < device->outcome_count; i++) {
        struct outcome *outcome = &device->outcomes[i];
        const uint64_t above = codec_take_varint(&reader);
        const uint64_t code = codec_take_varint(&reader);

        if (above == 0 || above > UINT64_MAX - counter || code > UINT16_MAX) {
            return false;
        }
        counter += above;
        outcome->counter = counter;
        outcome->code = (uint16_t)code;
        codec_take_bytes(&reader, outcome->nonce, RECORD_NONCE_BYTES);
        if (code == 0) {
            outcome->id = codec_take64(&reader);
            outcome->seq = codec_take_varint(&reader);
        }
    }
    return row_close(&reader) && counter <= device->last_counter;
}

void schema_device_note_outcome(struct schema_device *device, const struct outcome *outcome)
{
    uint32_t at = device->outcome_count;

    if (outcome->counter > device->last_counter) {
        device->last_counter = outcome->counter;
    }
    while (at > 0 && device->outcomes[at - 1].counter > outcome->counter) {
        at--;
    }
    if (at > 0 && device->outcomes[at - 1].counter == outcome->counter) {
        device->outcomes[at - 1] = *outcome;
        return;
    }
    if (device->outcome_count == SCHEMA_OUTCOMES_MAX) {
        if (at == 0) {
            return; /* older than all that are kept */
        }
        memmove(&device->outcomes[0], &device->outcomes[1], (at - 1) * sizeof device->outcomes[0]);
        device->outcomes[at - 1] = *outcome;
        return;
    }
    memmove(&device->outcomes[at + 1], &device->outcomes[at],
            (device->outcome_count - at) * sizeof device->outcomes[0]);
    device->outcomes[at] = *outcome;
    device->outcome_count++;
}

bool schema_encode_log(const struct schema_key *key, const struct log_entry *entry,
                       struct schema_row *row)
{
    struct record record = {
        .type = RECORD_ENTRY,
        .partition = partition_of(entry->user.value),
        .entry = *entry,
    };
    uint8_t *to = row_begin(row);
    const bool apart = entry->body_bytes > SCHEMA_BODY_INLINE_MAX;

    *to++ = apart ? LOG_BODY_APART : LOG_BODY_INLINE;
    if (apart) {
        to = codec_give16(to, entry->body_bytes);
        to = codec_give32(to, crc32c(0, entry->body, entry->body_bytes));
        record.entry.body = NULL;
        record.entry.body_bytes = 0;
    }
    to += record_encode(&record, to, sizeof row->bytes - (size_t)(to - row->bytes));
    row_end(key, row, to);
    return apart;
}

bool schema_decode_log(struct volume_bytes key, struct volume_bytes row, struct schema_log *log)
{
    struct codec_reader reader = row_open(key, row);
    struct record record;
    size_t length = 0;

    memset(log, 0, sizeof *log);

    const uint8_t form = codec_take8(&reader);

    if (form == LOG_BODY_APART) {
        log->body_apart = true;
        log->body_bytes = codec_take16(&reader);
        log->body_crc = codec_take32(&reader);
    }
    if (reader.bad || form > LOG_BODY_APART ||
        record_parse(reader.at, codec_left(&reader), &record, &length) != RECORD_OK ||
        length != codec_left(&reader) || record.type != RECORD_ENTRY) {
        return false;
    }
    log->entry = record.entry;
    if (log->body_apart) {
        return log->entry.body_bytes == 0 && log->body_bytes > SCHEMA_BODY_INLINE_MAX &&
               log->body_bytes <= RECORD_BODY_BYTES_MAX;
    }
    log->body_bytes = log->entry.body_bytes;
    return log->body_bytes <= SCHEMA_BODY_INLINE_MAX;
}

void schema_encode_body(const struct schema_key *key, const struct schema_body *body,
                        struct schema_row *row)
{
    uint8_t *to = row_begin(row);

    to = codec_give32(to, body->references);
    to = codec_give16(to, body->body_bytes);
    row_end(key, row, codec_give32(to, body->body_crc));
}

bool schema_decode_body(struct volume_bytes key, struct volume_bytes row, struct schema_body *body)
{
    struct codec_reader reader = row_open(key, row);

    body->references = codec_take32(&reader);
    body->body_bytes = codec_take16(&reader);
    body->body_crc = codec_take32(&reader);
    return row_close(&reader) && body->references > 0 &&
           body->body_bytes > SCHEMA_BODY_INLINE_MAX && body->body_bytes <= RECORD_BODY_BYTES_MAX;
}

void schema_encode_part(const struct schema_key *key, const uint8_t *bytes, size_t byte_count,
                        struct schema_row *row)
{
    HF_ASSERT(byte_count > 0 && byte_count <= SCHEMA_BODY_PART_BYTES);
    row_end(key, row, codec_give_bytes(row_begin(row), bytes, byte_count));
}

bool schema_decode_part(struct volume_bytes key, struct volume_bytes row, struct volume_bytes *part)
{
    struct codec_reader reader = row_open(key, row);

    part->byte_count = codec_left(&reader);
    part->bytes = codec_take(&reader, part->byte_count);
    return row_close(&reader) && part->byte_count > 0 && part->byte_count <= SCHEMA_BODY_PART_BYTES;
}

void schema_encode_out(const struct schema_key *key, const struct schema_out *out,
                       struct schema_row *row)
{
    uint8_t *to = row_begin(row);

    to = codec_give64(to, out->user.value);
    to = codec_give_varint(to, out->epoch);
    to = codec_give_varint(to, out->seq);
    to = codec_give64(to, out->to.value);
    *to++ = out->body_apart ? OUT_BODY_APART : 0;
    row_end(key, row, to);
}

bool schema_decode_out(struct volume_bytes key, struct volume_bytes row, struct schema_out *out)
{
    struct codec_reader reader = row_open(key, row);

    out->user.value = codec_take64(&reader);
    out->epoch = codec_take_varint(&reader);
    out->seq = codec_take_varint(&reader);
    out->to.value = codec_take64(&reader);
    const uint8_t flags = codec_take8(&reader);
    out->body_apart = (flags & OUT_BODY_APART) != 0;
    return row_close(&reader) && user_id_valid(out->user) && out->epoch > 0 && out->seq > 0 &&
           (flags & ~OUT_BODY_APART) == 0;
}

void schema_encode_identity(const struct schema_key *key, const struct schema_identity *identity,
                            struct schema_row *row)
{
    uint8_t *to = codec_give16(row_begin(row), identity->format);

    to = codec_give_bytes(to, identity->directory_id, SCHEMA_DIRECTORY_ID_BYTES);
    to = codec_give16(to, identity->volume);
    row_end(key, row, codec_give16(to, identity->volume_count));
}

/* Of a newer format only the number is read: what follows may be anything. */
bool schema_decode_identity(struct volume_bytes key, struct volume_bytes row,
                            struct schema_identity *identity)
{
    struct codec_reader reader = row_open(key, row);

    memset(identity, 0, sizeof *identity);
    identity->format = codec_take16(&reader);
    if (identity->format > SCHEMA_FORMAT) {
        return !reader.bad;
    }
    codec_take_bytes(&reader, identity->directory_id, SCHEMA_DIRECTORY_ID_BYTES);
    identity->volume = codec_take16(&reader);
    identity->volume_count = codec_take16(&reader);
    return row_close(&reader) && identity->format > 0;
}

enum schema_status schema_status_of(enum volume_status status)
{
    switch (status) {
    case VOLUME_OK:
        return SCHEMA_OK;
    case VOLUME_ABSENT:
        return SCHEMA_ABSENT;
    case VOLUME_FULL:
        return SCHEMA_FULL;
    case VOLUME_BROKEN:
        break;
    }
    return SCHEMA_BROKEN;
}

enum schema_status schema_get_number(struct volume_txn *txn, enum volume_table table,
                                     const struct schema_key *key, uint64_t *number)
{
    struct volume_bytes row;
    const enum volume_status status = volume_get(txn, table, schema_key_bytes(key), &row);

    *number = 0;
    if (status == VOLUME_OK && !schema_decode_number(schema_key_bytes(key), row, number)) {
        return SCHEMA_DAMAGED;
    }
    return schema_status_of(status);
}

enum schema_status schema_get_applied(struct volume_txn *txn, uint64_t *lsn)
{
    const struct schema_key key = schema_key_applied();
    const enum schema_status status = schema_get_number(txn, VOLUME_META, &key, lsn);

    return status == SCHEMA_ABSENT ? SCHEMA_OK : status;
}

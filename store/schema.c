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
    TAG_BEYOND = 255,
};

enum log_form {
    LOG_BODY_INLINE = 0,
    LOG_BODY_APART = 1,
};

#define OUT_BODY_APART 0x01
#define OWNER_BYTES    10 /* partition and user, which all keys of a user begin with */

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

struct schema_key schema_key_beyond(struct user_id user)
{
    struct schema_key key;
    return key_end(&key, key_begin_user(&key, user, TAG_BEYOND));
}

bool schema_key_owner(struct volume_bytes key, struct user_id *user)
{
    if (key.byte_count <= OWNER_BYTES) {
        return false;
    }
    user->value = load_be64(key.bytes + sizeof(uint16_t));
    return user_id_valid(*user) && partition_of(user->value).value == load_be16(key.bytes);
}

enum schema_place schema_key_place(struct volume_bytes key)
{
    const uint8_t tag = key.bytes[OWNER_BYTES];

    return tag < TAG_LOG ? SCHEMA_BEFORE_LOG : tag == TAG_LOG ? SCHEMA_IN_LOG : SCHEMA_BEHIND_LOG;
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

/* ---- Log rows ----
 *
 * CRC 4, count 1, then `count` items: form 1 (APART: body's length 2, CRC 4), ENTRY record.
 */

#define LOG_COUNT_AT    CRC_BYTES
#define LOG_ITEMS_AT    (LOG_COUNT_AT + 1)
#define LOG_ENTRIES_MAX UINT8_MAX
#define LOG_KEY_BYTES   (2 + 8 + 1 + 8)
#define LOG_APART_BYTES (2 + 4)

bool schema_is_log(struct volume_bytes key, struct user_id user)
{
    const struct schema_key wanted = schema_key_log(user, 0);

    return key.byte_count == LOG_KEY_BYTES &&
           memcmp(key.bytes, wanted.bytes, LOG_KEY_BYTES - sizeof(uint64_t)) == 0;
}

bool schema_log_apart(const struct log_entry *entry)
{
    return entry->body_bytes > SCHEMA_BODY_INLINE_MAX;
}

void schema_log_begin(struct schema_log_writer *writer, struct user_id user, uint64_t first)
{
    writer->key = schema_key_log(user, first);
    writer->row.byte_count = LOG_ITEMS_AT;
    writer->first = first;
    writer->count = 0;
}

bool schema_log_resume(struct schema_log_writer *writer, struct volume_bytes key,
                       struct volume_bytes row)
{
    struct schema_log_reader reader;

    if (!schema_log_open(&reader, key, row) || row.byte_count > sizeof writer->row.bytes) {
        return false;
    }
    schema_log_begin(writer, reader.user, reader.first);
    writer->count = reader.count;
    writer->row.byte_count = row.byte_count;
    memcpy(writer->row.bytes, row.bytes, row.byte_count);
    return true;
}

bool schema_log_add(struct schema_log_writer *writer, const struct log_entry *entry)
{
    const bool apart = schema_log_apart(entry);
    struct record record = {
        .type = RECORD_ENTRY,
        .partition = partition_of(entry->user.value),
        .entry = *entry,
    };

    HF_ASSERT(entry->seq == writer->first + writer->count);
    if (apart) {
        record.entry.body = NULL;
        record.entry.body_bytes = 0;
    }

    const size_t left = sizeof writer->row.bytes - writer->row.byte_count;
    const size_t needed = (apart ? 1U + LOG_APART_BYTES : 1U) + record_bytes(&record);

    if (needed > left || writer->count == LOG_ENTRIES_MAX) {
        HF_ASSERT(writer->count > 0);
        return false;
    }
    uint8_t *to = writer->row.bytes + writer->row.byte_count;

    *to++ = apart ? LOG_BODY_APART : LOG_BODY_INLINE;
    if (apart) {
        to = codec_give16(to, entry->body_bytes);
        to = codec_give32(to, crc32c(0, entry->body, entry->body_bytes));
    }
    (void)record_encode(&record, to, left);
    writer->row.byte_count += needed;
    writer->count++;
    return true;
}

void schema_log_end(struct schema_log_writer *writer)
{
    HF_ASSERT(writer->count > 0);
    writer->row.bytes[LOG_COUNT_AT] = (uint8_t)writer->count;
    row_end(&writer->key, &writer->row, writer->row.bytes + writer->row.byte_count);
}

bool schema_log_open(struct schema_log_reader *reader, struct volume_bytes key,
                     struct volume_bytes row)
{
    struct codec_reader fields = row_open(key, row);

    *reader = (struct schema_log_reader){ .bad = true };
    if (key.byte_count != LOG_KEY_BYTES || key.bytes[LOG_KEY_BYTES - 9] != TAG_LOG) {
        return false;
    }
    reader->user.value = load_be64(key.bytes + 2);
    reader->first = load_be64(key.bytes + LOG_KEY_BYTES - sizeof(uint64_t));
    reader->count = codec_take8(&fields);
    reader->at = fields.at;
    reader->end = fields.end;
    reader->bad = fields.bad || reader->count == 0 || reader->first == 0 ||
                  reader->first > UINT64_MAX - reader->count;
    return !reader->bad;
}

/* Where the item's record begins; NULL: it is cut off. */
static const uint8_t *log_item_record(const struct schema_log_reader *reader)
{
    const size_t left = (size_t)(reader->end - reader->at);
    const size_t before = left > 0 && *reader->at == LOG_BODY_APART ? 1U + LOG_APART_BYTES : 1U;

    return left >= before + RECORD_HEADER_BYTES ? reader->at + before : NULL;
}

bool schema_log_next(struct schema_log_reader *reader, struct schema_log *log)
{
    struct record record;
    size_t length = 0;

    if (reader->bad || reader->taken == reader->count) {
        reader->bad |= reader->at != reader->end;
        return false;
    }
    const uint8_t *bytes = log_item_record(reader);

    reader->bad = true; /* until all of it is right */
    if (bytes == NULL || *reader->at > LOG_BODY_APART ||
        record_parse(bytes, (size_t)(reader->end - bytes), &record, &length) != RECORD_OK ||
        record.type != RECORD_ENTRY || record.entry.user.value != reader->user.value ||
        record.entry.seq != reader->first + reader->taken) {
        return false;
    }
    *log = (struct schema_log){ .entry = record.entry,
                                .body_apart = *reader->at == LOG_BODY_APART,
                                .body_bytes = record.entry.body_bytes };
    if (log->body_apart) {
        log->body_bytes = load_be16(reader->at + 1);
        log->body_crc = load_be32(reader->at + 3);
    }
    if (log->body_apart != (log->body_bytes > SCHEMA_BODY_INLINE_MAX) ||
        log->body_bytes > RECORD_BODY_BYTES_MAX ||
        (log->body_apart && record.entry.body_bytes != 0)) {
        return false;
    }
    reader->bad = false;
    reader->at = bytes + length;
    reader->taken++;
    return true;
}

bool schema_log_find(struct schema_log_reader *reader, uint64_t seq, struct schema_log *log)
{
    if (seq < reader->first + reader->taken || seq - reader->first >= reader->count) {
        return false;
    }
    while (!reader->bad && reader->first + reader->taken < seq) {
        const uint8_t *bytes = log_item_record(reader);
        const size_t length = bytes != NULL ? load_be24(bytes) : 0;

        if (length < RECORD_HEADER_BYTES || length > (size_t)(reader->end - bytes)) {
            reader->bad = true;
            break;
        }
        reader->at = bytes + length;
        reader->taken++;
    }
    return schema_log_next(reader, log);
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

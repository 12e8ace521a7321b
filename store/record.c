#include "store/record.h"

#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "store/codec.h"

/*
 * Numbers that start at 1 and grow (seq, n, counter ...) are LEB128, at most 10 bytes and always
 * the shortest; ids, hashed or dated, are plain 64 bits. Each value has exactly one encoding.
 *
 * USER     user 8, epoch v, created 8
 * DEVICE   user 8, device 4, generation 4, created 8
 * ENTRY    user 8, epoch v, seq v, id 8, conversation 8, form 1, flags 1
 *          [SENDER: sender 8] [OWN: device 4, counter v, nonce 16] [DEVICE: device 4]
 *          [ORIGIN: epoch v, seq v]
 *          message: kind 1, seq - prev v (0: none), n v, cn v, body (the rest)
 *          refused: code 2, ref_seq v
 * REJECT   user 8, device 4, counter v, nonce 16, code 2
 * OUT_END  user 8, id 8
 * FLOOR    user 8, floor v
 * CURSOR   user 8, device 4, epoch v, seq v, sver v
 */
/* Of the encoding only: fields that don't follow from others, which few entries need. */
#define FLAG_SENDER 0x20 /* not the user (own, refused), not the conversation (the rest) */
#define FLAG_DEVICE 0x40 /* of somebody else's entry */
#define FLAG_ORIGIN 0x80 /* not the entry's own (epoch, seq) */
#define FLAGS_SEEN  (LOG_ENTRY_FLAG_OWN | LOG_ENTRY_FLAG_OUT)
#define FLAGS_KNOWN (FLAGS_SEEN | FLAG_SENDER | FLAG_DEVICE | FLAG_ORIGIN)

/* Who an entry's sender is when it doesn't say. */
static uint64_t entry_usual_sender(const struct log_entry *entry)
{
    const bool from_user =
        (entry->flags & LOG_ENTRY_FLAG_OWN) != 0 || entry->form == LOG_ENTRY_REFUSED;
    return from_user ? entry->user.value : entry->conversation.value;
}

static bool entry_has_usual_origin(const struct log_entry *entry)
{
    return entry->origin.epoch == entry->epoch && entry->origin.seq == entry->seq;
}

static uint8_t entry_encoded_flags(const struct log_entry *entry)
{
    const bool own = (entry->flags & LOG_ENTRY_FLAG_OWN) != 0;
    uint8_t flags = entry->flags;

    if (entry->sender.value != entry_usual_sender(entry)) {
        flags |= FLAG_SENDER;
    }
    if (!own && entry->device.value != 0) {
        flags |= FLAG_DEVICE;
    }
    if (!entry_has_usual_origin(entry)) {
        flags |= FLAG_ORIGIN;
    }
    return flags;
}

/* The rules that every entry keeps, whether it is about to be written or was read. */
static bool entry_valid(const struct log_entry *entry)
{
    const bool own = (entry->flags & LOG_ENTRY_FLAG_OWN) != 0;
    const bool out = (entry->flags & LOG_ENTRY_FLAG_OUT) != 0;

    if ((entry->flags & ~FLAGS_SEEN) != 0 || entry->epoch == 0 || entry->seq == 0 ||
        entry->id.value == 0 || entry->conversation.value == 0 || !user_id_valid(entry->sender)) {
        return false;
    }
    if (own && (entry->device.value == 0 || entry->counter == 0)) {
        return false;
    }
    if (out && !(own && entry->form == LOG_ENTRY_MESSAGE)) {
        return false;
    }
    if (entry->form == LOG_ENTRY_MESSAGE) {
        return entry->prev < entry->seq && entry->n >= 1 && entry->cn <= entry->n &&
               entry->body_bytes <= RECORD_BODY_BYTES_MAX;
    }
    return entry->form == LOG_ENTRY_REFUSED && entry->code != 0 && entry->ref_seq >= 1 &&
           entry->ref_seq < entry->seq && entry->n == 0 && entry->body_bytes == 0;
}

static void parse_entry(struct codec_reader *reader, struct log_entry *entry)
{
    entry->user.value = codec_take64(reader);
    entry->epoch = codec_take_varint(reader);
    entry->seq = codec_take_varint(reader);
    entry->id.value = codec_take64(reader);
    entry->conversation.value = codec_take64(reader);
    entry->form = codec_take8(reader);

    const uint8_t encoded_flags = codec_take8(reader);

    entry->flags = encoded_flags & FLAGS_SEEN;
    entry->sender.value =
        (encoded_flags & FLAG_SENDER) != 0 ? codec_take64(reader) : entry_usual_sender(entry);
    if ((encoded_flags & LOG_ENTRY_FLAG_OWN) != 0) {
        entry->device.value = codec_take32(reader);
        entry->counter = codec_take_varint(reader);
        codec_take_bytes(reader, entry->nonce, RECORD_NONCE_BYTES);
    } else if ((encoded_flags & FLAG_DEVICE) != 0) {
        entry->device.value = codec_take32(reader);
    }
    entry->origin = (struct origin){ entry->epoch, entry->seq };
    if ((encoded_flags & FLAG_ORIGIN) != 0) {
        entry->origin.epoch = codec_take_varint(reader);
        entry->origin.seq = codec_take_varint(reader);
    }
    if (entry->form == LOG_ENTRY_MESSAGE) {
        entry->kind = codec_take8(reader);
        const uint64_t back = codec_take_varint(reader);
        entry->n = codec_take_varint(reader);
        entry->cn = codec_take_varint(reader);
        if (back > entry->seq || (back == entry->seq && back != 0)) {
            reader->bad = true;
            return;
        }
        entry->prev = back == 0 ? 0 : entry->seq - back;
        const size_t rest = codec_left(reader);
        if (rest > RECORD_BODY_BYTES_MAX) {
            reader->bad = true;
            return;
        }
        entry->body_bytes = (uint16_t)rest;
        entry->body = codec_take(reader, rest);
    } else {
        entry->code = codec_take16(reader);
        entry->ref_seq = codec_take_varint(reader);
    }
    /* One value, one encoding: a field that may be left out must be. */
    if (!reader->bad && ((encoded_flags & ~FLAGS_KNOWN) != 0 || !entry_valid(entry) ||
                         entry_encoded_flags(entry) != encoded_flags)) {
        reader->bad = true;
    }
}

static uint8_t *encode_entry(const struct log_entry *entry, uint8_t *to)
{
    const uint8_t flags = entry_encoded_flags(entry);

    to = codec_give64(to, entry->user.value);
    to = codec_give_varint(to, entry->epoch);
    to = codec_give_varint(to, entry->seq);
    to = codec_give64(to, entry->id.value);
    to = codec_give64(to, entry->conversation.value);
    *to++ = entry->form;
    *to++ = flags;
    if ((flags & FLAG_SENDER) != 0) {
        to = codec_give64(to, entry->sender.value);
    }
    if ((flags & LOG_ENTRY_FLAG_OWN) != 0) {
        to = codec_give32(to, entry->device.value);
        to = codec_give_varint(to, entry->counter);
        to = codec_give_bytes(to, entry->nonce, RECORD_NONCE_BYTES);
    } else if ((flags & FLAG_DEVICE) != 0) {
        to = codec_give32(to, entry->device.value);
    }
    if ((flags & FLAG_ORIGIN) != 0) {
        to = codec_give_varint(to, entry->origin.epoch);
        to = codec_give_varint(to, entry->origin.seq);
    }
    if (entry->form == LOG_ENTRY_REFUSED) {
        to = codec_give16(to, entry->code);
        return codec_give_varint(to, entry->ref_seq);
    }
    *to++ = entry->kind;
    to = codec_give_varint(to, entry->prev == 0 ? 0 : entry->seq - entry->prev);
    to = codec_give_varint(to, entry->n);
    to = codec_give_varint(to, entry->cn);
    return codec_give_bytes(to, entry->body, entry->body_bytes);
}

static size_t entry_field_bytes(const struct log_entry *entry)
{
    const uint8_t flags = entry_encoded_flags(entry);
    size_t bytes =
        8 + codec_varint_bytes(entry->epoch) + codec_varint_bytes(entry->seq) + 8 + 8 + 1 + 1;

    if ((flags & FLAG_SENDER) != 0) {
        bytes += 8;
    }
    if ((flags & LOG_ENTRY_FLAG_OWN) != 0) {
        bytes += 4 + codec_varint_bytes(entry->counter) + RECORD_NONCE_BYTES;
    } else if ((flags & FLAG_DEVICE) != 0) {
        bytes += 4;
    }
    if ((flags & FLAG_ORIGIN) != 0) {
        bytes += codec_varint_bytes(entry->origin.epoch) + codec_varint_bytes(entry->origin.seq);
    }
    if (entry->form == LOG_ENTRY_REFUSED) {
        return bytes + 2 + codec_varint_bytes(entry->ref_seq);
    }
    return bytes + 1 + codec_varint_bytes(entry->prev == 0 ? 0 : entry->seq - entry->prev) +
           codec_varint_bytes(entry->n) + codec_varint_bytes(entry->cn) + entry->body_bytes;
}

static void parse_fields(struct codec_reader *reader, struct record *record)
{
    switch (record->type) {
    case RECORD_USER:
        record->user.user.value = codec_take64(reader);
        record->user.epoch = codec_take_varint(reader);
        record->user.created_unix_ms = codec_take64(reader);
        reader->bad |= record->user.epoch == 0;
        break;
    case RECORD_DEVICE:
        record->device.user.value = codec_take64(reader);
        record->device.device.value = codec_take32(reader);
        record->device.generation = codec_take32(reader);
        record->device.created_unix_ms = codec_take64(reader);
        reader->bad |= record->device.device.value == 0;
        break;
    case RECORD_ENTRY:
        parse_entry(reader, &record->entry);
        break;
    case RECORD_REJECT:
        record->reject.user.value = codec_take64(reader);
        record->reject.device.value = codec_take32(reader);
        record->reject.counter = codec_take_varint(reader);
        codec_take_bytes(reader, record->reject.nonce, RECORD_NONCE_BYTES);
        record->reject.code = codec_take16(reader);
        reader->bad |= record->reject.device.value == 0 || record->reject.counter == 0 ||
                       record->reject.code == 0;
        break;
    case RECORD_OUT_END:
        record->out_end.user.value = codec_take64(reader);
        record->out_end.id.value = codec_take64(reader);
        reader->bad |= record->out_end.id.value == 0;
        break;
    case RECORD_FLOOR:
        record->floor.user.value = codec_take64(reader);
        record->floor.floor = codec_take_varint(reader);
        reader->bad |= record->floor.floor == 0;
        break;
    case RECORD_CURSOR:
        record->cursor.user.value = codec_take64(reader);
        record->cursor.device.value = codec_take32(reader);
        record->cursor.epoch = codec_take_varint(reader);
        record->cursor.seq = codec_take_varint(reader);
        record->cursor.sver = codec_take_varint(reader);
        reader->bad |= record->cursor.device.value == 0;
        break;
    default:
        reader->bad = true;
    }
}

struct user_id record_owner(const struct record *record)
{
    switch (record->type) {
    case RECORD_USER:
        return record->user.user;
    case RECORD_DEVICE:
        return record->device.user;
    case RECORD_ENTRY:
        return record->entry.user;
    case RECORD_REJECT:
        return record->reject.user;
    case RECORD_OUT_END:
        return record->out_end.user;
    case RECORD_FLOOR:
        return record->floor.user;
    case RECORD_CURSOR:
        return record->cursor.user;
    }
    HF_ASSERT(record->type == 0); /* no such type */
    return (struct user_id){ 0 };
}

enum record_status record_parse(const uint8_t *bytes, size_t byte_count, struct record *record,
                                size_t *record_bytes)
{
    if (byte_count < RECORD_HEADER_BYTES) {
        return RECORD_SHORT;
    }
    const size_t length = load_be24(bytes);
    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX) {
        return RECORD_BAD;
    }
    if (length > byte_count) {
        return RECORD_SHORT;
    }

    struct codec_reader reader = { bytes + RECORD_HEADER_BYTES, bytes + length, false };

    memset(record, 0, sizeof *record);
    record->type = bytes[3];
    record->partition.value = load_be16(bytes + 4);
    parse_fields(&reader, record);
    if (reader.bad || reader.at != reader.end) {
        return RECORD_BAD;
    }
    const struct user_id user = record_owner(record);
    if (!user_id_valid(user) || record->partition.value != partition_of(user.value).value) {
        return RECORD_BAD;
    }
    *record_bytes = length;
    return RECORD_OK;
}

/* The number of an entry's message in its conversation: what stands between is passed over. */
static uint64_t outline_number(struct codec_reader *reader, uint8_t encoded_flags)
{
    if ((encoded_flags & FLAG_SENDER) != 0) {
        (void)codec_take(reader, 8);
    }
    if ((encoded_flags & LOG_ENTRY_FLAG_OWN) != 0) {
        (void)codec_take(reader, 4);
        (void)codec_take_varint(reader); /* counter */
        (void)codec_take(reader, RECORD_NONCE_BYTES);
    } else if ((encoded_flags & FLAG_DEVICE) != 0) {
        (void)codec_take(reader, 4);
    }
    if ((encoded_flags & FLAG_ORIGIN) != 0) {
        (void)codec_take_varint(reader);
        (void)codec_take_varint(reader);
    }
    (void)codec_take(reader, 1);     /* kind */
    (void)codec_take_varint(reader); /* how far back the one before is */
    return codec_take_varint(reader);
}

struct record_outline record_outline(const uint8_t *bytes, size_t byte_count)
{
    HF_ASSERT(byte_count >= RECORD_HEADER_BYTES);

    struct record_outline outline = { .byte_count = load_be24(bytes), .type = bytes[3] };

    HF_ASSERT(outline.byte_count >= RECORD_HEADER_BYTES && outline.byte_count <= byte_count);
    if (outline.type != RECORD_ENTRY) {
        return outline;
    }

    struct codec_reader reader = { bytes + RECORD_HEADER_BYTES, bytes + outline.byte_count, false };

    outline.user.value = codec_take64(&reader);
    (void)codec_take_varint(&reader); /* epoch */
    outline.seq = codec_take_varint(&reader);
    (void)codec_take(&reader, 8); /* id */
    outline.conversation.value = codec_take64(&reader);
    outline.form = codec_take8(&reader);

    const uint8_t encoded_flags = codec_take8(&reader);

    if (outline.form == LOG_ENTRY_MESSAGE) {
        outline.n = outline_number(&reader, encoded_flags);
    }
    HF_ASSERT(!reader.bad);
    return outline;
}

size_t record_bytes(const struct record *record)
{
    switch (record->type) {
    case RECORD_USER:
        return RECORD_HEADER_BYTES + 8 + codec_varint_bytes(record->user.epoch) + 8;
    case RECORD_DEVICE:
        return RECORD_HEADER_BYTES + 8 + 4 + 4 + 8;
    case RECORD_ENTRY:
        return RECORD_HEADER_BYTES + entry_field_bytes(&record->entry);
    case RECORD_REJECT:
        return RECORD_HEADER_BYTES + 8 + 4 + codec_varint_bytes(record->reject.counter) +
               RECORD_NONCE_BYTES + 2;
    case RECORD_OUT_END:
        return RECORD_HEADER_BYTES + 8 + 8;
    case RECORD_FLOOR:
        return RECORD_HEADER_BYTES + 8 + codec_varint_bytes(record->floor.floor);
    case RECORD_CURSOR:
        return RECORD_HEADER_BYTES + 8 + 4 + codec_varint_bytes(record->cursor.epoch) +
               codec_varint_bytes(record->cursor.seq) + codec_varint_bytes(record->cursor.sver);
    }
    HF_ASSERT(record->type == 0); /* no such type */
    return 0;
}

static uint8_t *encode_fields(const struct record *record, uint8_t *to)
{
    switch (record->type) {
    case RECORD_USER:
        HF_ASSERT(record->user.epoch != 0);
        to = codec_give64(to, record->user.user.value);
        to = codec_give_varint(to, record->user.epoch);
        return codec_give64(to, record->user.created_unix_ms);
    case RECORD_DEVICE:
        HF_ASSERT(record->device.device.value != 0);
        to = codec_give64(to, record->device.user.value);
        to = codec_give32(to, record->device.device.value);
        to = codec_give32(to, record->device.generation);
        return codec_give64(to, record->device.created_unix_ms);
    case RECORD_ENTRY:
        HF_ASSERT(entry_valid(&record->entry));
        return encode_entry(&record->entry, to);
    case RECORD_REJECT:
        HF_ASSERT(record->reject.device.value != 0);
        HF_ASSERT(record->reject.counter != 0 && record->reject.code != 0);
        to = codec_give64(to, record->reject.user.value);
        to = codec_give32(to, record->reject.device.value);
        to = codec_give_varint(to, record->reject.counter);
        to = codec_give_bytes(to, record->reject.nonce, RECORD_NONCE_BYTES);
        return codec_give16(to, record->reject.code);
    case RECORD_OUT_END:
        HF_ASSERT(record->out_end.id.value != 0);
        to = codec_give64(to, record->out_end.user.value);
        return codec_give64(to, record->out_end.id.value);
    case RECORD_FLOOR:
        HF_ASSERT(record->floor.floor != 0);
        to = codec_give64(to, record->floor.user.value);
        return codec_give_varint(to, record->floor.floor);
    case RECORD_CURSOR:
        HF_ASSERT(record->cursor.device.value != 0);
        to = codec_give64(to, record->cursor.user.value);
        to = codec_give32(to, record->cursor.device.value);
        to = codec_give_varint(to, record->cursor.epoch);
        to = codec_give_varint(to, record->cursor.seq);
        return codec_give_varint(to, record->cursor.sver);
    }
    HF_ASSERT(record->type == 0); /* no such type */
    return to;
}

size_t record_encode(const struct record *record, uint8_t *to, size_t room)
{
    const size_t length = record_bytes(record);
    const struct user_id user = record_owner(record);

    HF_ASSERT(length <= room && length <= RECORD_BYTES_MAX);
    HF_ASSERT(user_id_valid(user));
    HF_ASSERT(record->partition.value == partition_of(user.value).value);
    store_be24(to, (uint32_t)length);
    to[3] = (uint8_t)record->type;
    store_be16(to + 4, record->partition.value);

    const uint8_t *end = encode_fields(record, to + RECORD_HEADER_BYTES);

    HF_ASSERT((size_t)(end - to) == length);
    return length;
}

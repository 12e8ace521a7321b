#include "core/engine/stream_frame.h"

#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "proto/limits.h"

static void put_header(uint8_t *to, enum stream_kind kind, const struct stream_header *header)
{
    to[0] = (uint8_t)kind;
    store_be16(to + 1, header->source.value);
    store_be16(to + 3, header->destination.value);
    store_be64(to + 5, header->term);
    store_be64(to + 13, header->number);
}

bool stream_decode_header(const uint8_t *bytes, size_t byte_count, struct stream_header *header)
{
    if (byte_count < STREAM_HEADER_BYTES || byte_count > STREAM_FRAME_BYTES_MAX ||
        bytes[0] < STREAM_RECORDS || bytes[0] > STREAM_LINK_END) {
        return false;
    }
    header->kind = (enum stream_kind)bytes[0];
    header->source.value = load_be16(bytes + 1);
    header->destination.value = load_be16(bytes + 3);
    header->term = load_be64(bytes + 5);
    header->number = load_be64(bytes + 13);
    return header->source.value < PARTITION_COUNT && header->destination.value < PARTITION_COUNT &&
           header->term != 0 && header->number != 0 &&
           (header->kind != STREAM_LINK_END || byte_count == STREAM_HEADER_BYTES);
}

static struct origin load_origin(const uint8_t *from)
{
    return (struct origin){ load_be64(from), load_be64(from + 8) };
}

static void store_origin(uint8_t *to, struct origin origin)
{
    store_be64(to, origin.epoch);
    store_be64(to + 8, origin.seq);
}

/* Its fixed fields and its body are there. */
static void take_record(const uint8_t *at, struct stream_record *out)
{
    out->after = load_origin(at);
    out->origin = load_origin(at + 16);
    out->from.value = load_be64(at + 32);
    out->to.value = load_be64(at + 40);
    out->device.value = load_be32(at + 48);
    out->id.value = load_be64(at + 52);
    out->kind = at[60];
    out->body_bytes = load_be16(at + 61);
    out->body = at + STREAM_RECORD_FIXED_BYTES;
}

static bool record_is_good(const struct stream_header *header, const struct stream_record *record)
{
    return user_id_valid(record->from) && user_id_valid(record->to) &&
           record->from.value != record->to.value && record->device.value != 0 &&
           record->id.value != 0 && record->kind <= KIND_MAX && record->origin.epoch != 0 &&
           record->origin.seq != 0 && origin_compare(record->after, record->origin) < 0 &&
           partition_of(record->from.value).value == header->source.value &&
           partition_of(record->to.value).value == header->destination.value;
}

bool stream_decode_records(const uint8_t *bytes, size_t byte_count, struct stream_records *out)
{
    const uint8_t *at = bytes + STREAM_RECORDS_BYTES;
    const uint8_t *end = bytes + byte_count;

    if (!stream_decode_header(bytes, byte_count, &out->header) ||
        out->header.kind != STREAM_RECORDS || byte_count < STREAM_RECORDS_BYTES) {
        return false;
    }
    out->first = load_be64(bytes + STREAM_HEADER_BYTES);
    out->count = load_be16(bytes + STREAM_HEADER_BYTES + 8);
    out->left_ = out->count;
    out->at_ = at;
    if (out->first == 0 || out->count == 0 || out->count > STREAM_RECORDS_MAX ||
        out->first > UINT64_MAX - STREAM_RECORDS_MAX) {
        return false;
    }
    for (uint16_t i = 0; i < out->count; i++) {
        struct stream_record record;

        if ((size_t)(end - at) < STREAM_RECORD_FIXED_BYTES) {
            return false;
        }
        take_record(at, &record);
        at += STREAM_RECORD_FIXED_BYTES;
        if (record.body_bytes > BODY_BYTES_MAX || end - at < record.body_bytes ||
            !record_is_good(&out->header, &record)) {
            return false;
        }
        at += record.body_bytes;
    }
    return at == end;
}

bool stream_next(struct stream_records *records, uint64_t *number, struct stream_record *out)
{
    if (records->left_ == 0) {
        return false;
    }
    *number = records->first + (uint64_t)(records->count - records->left_);
    take_record(records->at_, out);
    records->at_ += STREAM_RECORD_FIXED_BYTES + (size_t)out->body_bytes;
    records->left_--;
    return true;
}

bool stream_decode_ack(const uint8_t *bytes, size_t byte_count, struct stream_ack *out)
{
    uint64_t last;

    if (!stream_decode_header(bytes, byte_count, &out->header) || out->header.kind != STREAM_ACK ||
        byte_count < STREAM_ACK_BYTES) {
        return false;
    }
    out->above = load_be64(bytes + STREAM_HEADER_BYTES);
    out->up_to = load_be64(bytes + STREAM_HEADER_BYTES + 8);
    out->count = load_be16(bytes + STREAM_HEADER_BYTES + 16);
    out->exceptions_ = bytes + STREAM_ACK_BYTES;
    if (out->count > STREAM_RECORDS_MAX ||
        byte_count != STREAM_ACK_BYTES + (size_t)out->count * STREAM_EXCEPTION_BYTES) {
        return false;
    }
    last = out->above;
    for (uint16_t i = 0; i < out->count; i++) {
        uint64_t number;
        uint16_t code;

        stream_exception(out, i, &number, &code);
        if (number <= last || number > out->up_to) {
            return false;
        }
        last = number;
    }
    return out->up_to > out->above;
}

void stream_exception(const struct stream_ack *ack, uint16_t i, uint64_t *number, uint16_t *code)
{
    const uint8_t *at = ack->exceptions_ + (size_t)i * STREAM_EXCEPTION_BYTES;

    HF_ASSERT(i < ack->count);
    *number = load_be64(at);
    *code = load_be16(at + 8);
}

void stream_begin(struct stream_builder *builder, uint8_t *to, size_t cap,
                  const struct stream_header *header, uint64_t first)
{
    HF_ASSERT(cap >= STREAM_RECORDS_BYTES && cap <= STREAM_FRAME_BYTES_MAX);
    *builder = (struct stream_builder){ .frame_ = to, .cap_ = cap, .used_ = STREAM_RECORDS_BYTES };
    put_header(to, STREAM_RECORDS, header);
    store_be64(to + STREAM_HEADER_BYTES, first);
}

bool stream_add(struct stream_builder *builder, const struct stream_record *record)
{
    uint8_t *to = builder->frame_ + builder->used_;

    if (builder->count_ == STREAM_RECORDS_MAX ||
        builder->cap_ - builder->used_ < STREAM_RECORD_FIXED_BYTES + (size_t)record->body_bytes) {
        return false;
    }
    store_origin(to, record->after);
    store_origin(to + 16, record->origin);
    store_be64(to + 32, record->from.value);
    store_be64(to + 40, record->to.value);
    store_be32(to + 48, record->device.value);
    store_be64(to + 52, record->id.value);
    to[60] = record->kind;
    store_be16(to + 61, record->body_bytes);
    if (record->body_bytes > 0) {
        memcpy(to + STREAM_RECORD_FIXED_BYTES, record->body, record->body_bytes);
    }
    builder->used_ += STREAM_RECORD_FIXED_BYTES + (size_t)record->body_bytes;
    builder->count_++;
    return true;
}

size_t stream_end(struct stream_builder *builder)
{
    store_be16(builder->frame_ + STREAM_HEADER_BYTES + 8, builder->count_);
    return builder->count_ > 0 ? builder->used_ : 0;
}

void stream_ack_begin(struct stream_builder *builder, uint8_t *to, size_t cap,
                      const struct stream_header *header, uint64_t above, uint64_t up_to)
{
    HF_ASSERT(cap >= STREAM_ACK_BYTES + STREAM_RECORDS_MAX * STREAM_EXCEPTION_BYTES);
    *builder = (struct stream_builder){ .frame_ = to, .cap_ = cap, .used_ = STREAM_ACK_BYTES };
    put_header(to, STREAM_ACK, header);
    store_be64(to + STREAM_HEADER_BYTES, above);
    store_be64(to + STREAM_HEADER_BYTES + 8, up_to);
}

void stream_ack_add(struct stream_builder *builder, uint64_t number, uint16_t code)
{
    uint8_t *to = builder->frame_ + builder->used_;

    HF_ASSERT(builder->count_ < STREAM_RECORDS_MAX);
    store_be64(to, number);
    store_be16(to + 8, code);
    builder->used_ += STREAM_EXCEPTION_BYTES;
    builder->count_++;
}

size_t stream_ack_end(struct stream_builder *builder)
{
    store_be16(builder->frame_ + STREAM_HEADER_BYTES + 16, builder->count_);
    return builder->used_;
}

size_t stream_encode_link_end(uint8_t *to, size_t cap, const struct stream_header *header)
{
    HF_ASSERT(cap >= STREAM_HEADER_BYTES);
    put_header(to, STREAM_LINK_END, header);
    return STREAM_HEADER_BYTES;
}

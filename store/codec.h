/*
 * codec: what records and rows are written with. A reader that runs out of bytes, or meets a number
 * that isn't in its shortest form, is `bad` from then on, and all that it gives is 0.
 *
 * Owner    Of the room `store` only.
 * Thread   Any. Pure.
 * Errors   `bad`; writing asserts nothing: the room must be there.
 * Format   Fixed integers big-endian; varints LEB128, at most 10 bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/base/bytes.h"

#define CODEC_VARINT_BYTES_MAX 10

struct codec_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

static inline size_t codec_left(const struct codec_reader *reader)
{
    return reader->bad ? 0 : (size_t)(reader->end - reader->at);
}

static inline const uint8_t *codec_take(struct codec_reader *reader, size_t byte_count)
{
    if (reader->bad || (size_t)(reader->end - reader->at) < byte_count) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *bytes = reader->at;
    reader->at += byte_count;
    return bytes;
}

static inline uint8_t codec_take8(struct codec_reader *reader)
{
    const uint8_t *bytes = codec_take(reader, 1);
    return bytes != NULL ? *bytes : 0;
}

static inline uint16_t codec_take16(struct codec_reader *reader)
{
    const uint8_t *bytes = codec_take(reader, 2);
    return bytes != NULL ? load_be16(bytes) : 0;
}

static inline uint32_t codec_take32(struct codec_reader *reader)
{
    const uint8_t *bytes = codec_take(reader, 4);
    return bytes != NULL ? load_be32(bytes) : 0;
}

static inline uint64_t codec_take64(struct codec_reader *reader)
{
    const uint8_t *bytes = codec_take(reader, 8);
    return bytes != NULL ? load_be64(bytes) : 0;
}

static inline void codec_take_bytes(struct codec_reader *reader, uint8_t *to, size_t byte_count)
{
    const uint8_t *bytes = codec_take(reader, byte_count);
    if (bytes != NULL) {
        memcpy(to, bytes, byte_count);
    }
}

static inline uint64_t codec_take_varint(struct codec_reader *reader)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < CODEC_VARINT_BYTES_MAX; i++) {
        const uint8_t byte = codec_take8(reader);
        const bool last = (byte & 0x80) == 0;
        const bool overlong = last && byte == 0 && i > 0;
        const bool overflows = i == CODEC_VARINT_BYTES_MAX - 1 && byte > 1;

        if (reader->bad || overlong || overflows) {
            break;
        }
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (last) {
            return value;
        }
    }
    reader->bad = true;
    return 0;
}

static inline uint8_t *codec_give16(uint8_t *to, uint16_t value)
{
    store_be16(to, value);
    return to + 2;
}

static inline uint8_t *codec_give32(uint8_t *to, uint32_t value)
{
    store_be32(to, value);
    return to + 4;
}

static inline uint8_t *codec_give64(uint8_t *to, uint64_t value)
{
    store_be64(to, value);
    return to + 8;
}

static inline uint8_t *codec_give_bytes(uint8_t *to, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count > 0) {
        memcpy(to, bytes, byte_count);
    }
    return to + byte_count;
}

static inline uint8_t *codec_give_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static inline size_t codec_varint_bytes(uint64_t value)
{
    const unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
    return (bits + 6) / 7;
}

/*
 * wire: integers and bytes written to, and read from, a place that moves on. Used inside proto
 * alone.
 *
 * Thread   Any. Pure.
 * Errors   None: the caller has compared the room with the sum of the fixed fields before the first
 *          step. Reading what has no fixed size goes through a struct that knows its end.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/base/bytes.h"

static inline void wire_put_u8(uint8_t **at, uint8_t value)
{
    **at = value;
    *at += 1;
}

static inline void wire_put_u16(uint8_t **at, uint16_t value)
{
    store_be16(*at, value);
    *at += 2;
}

static inline void wire_put_u24(uint8_t **at, uint32_t value)
{
    store_be24(*at, value);
    *at += 3;
}

static inline void wire_put_u32(uint8_t **at, uint32_t value)
{
    store_be32(*at, value);
    *at += 4;
}

static inline void wire_put_u64(uint8_t **at, uint64_t value)
{
    store_be64(*at, value);
    *at += 8;
}

/* `bytes` may be NULL when there are none. */
static inline void wire_put_bytes(uint8_t **at, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count > 0) {
        memcpy(*at, bytes, byte_count);
        *at += byte_count;
    }
}

static inline uint8_t wire_take_u8(const uint8_t **at)
{
    return *(*at)++;
}

static inline uint16_t wire_take_u16(const uint8_t **at)
{
    const uint16_t value = load_be16(*at);
    *at += 2;
    return value;
}

static inline uint32_t wire_take_u32(const uint8_t **at)
{
    const uint32_t value = load_be32(*at);
    *at += 4;
    return value;
}

static inline uint64_t wire_take_u64(const uint8_t **at)
{
    const uint64_t value = load_be64(*at);
    *at += 8;
    return value;
}

static inline void wire_take_bytes(const uint8_t **at, uint8_t *to, size_t byte_count)
{
    memcpy(to, *at, byte_count);
    *at += byte_count;
}

/*
 * tlv: what may follow the fixed fields of a frame: {tag u8, length u16, value}, in any order. Used
 * inside proto alone.
 *
 * Owner    The caller, for the call.
 * Thread   Any. Pure.
 * Errors   BAD_FRAME (cut short, a known tag twice), UNSUPPORTED_TLV (an unknown even tag),
 *          BAD_FIELD (a length or text that isn't allowed).
 * Source   docs/protocol.md, "TLVs".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/codes.h"
#include "proto/message.h"
#include "proto/wire.h"

/* A tag that the frame defines. */
struct tlv_known {
    uint8_t tag;
    bool required;
    bool is_text;
    uint16_t bytes_min;
    uint16_t bytes_max;
    struct message_bytes *value; /* set to NULL, 0 when the tag is absent */
};

/* At most 8 known tags a frame. */
MESSAGE_CHECKED enum code tlv_decode(const uint8_t *at, const uint8_t *end,
                                     const struct tlv_known *known, size_t known_count);

static inline size_t tlv_bytes(struct message_bytes value)
{
    return value.byte_count == 0 ? 0 : TLV_HEADER_BYTES + (size_t)value.byte_count;
}

/* Nothing when the value is empty. */
static inline void tlv_put(uint8_t **at, uint8_t tag, struct message_bytes value)
{
    if (value.byte_count > 0) {
        wire_put_u8(at, tag);
        wire_put_u16(at, value.byte_count);
        wire_put_bytes(at, value.bytes, value.byte_count);
    }
}

/* UTF-8 (RFC 3629) without control characters (below U+0020, U+007F to U+009F). */
bool text_valid(const uint8_t *bytes, size_t byte_count);

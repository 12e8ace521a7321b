#include "proto/tlv.h"

#include "core/base/check.h"

/* The bytes of the character at `at`, or 0 when it isn't one that text may have. */
static size_t character_bytes(const uint8_t *at, size_t left)
{
    static const uint32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const uint8_t lead = at[0];
    size_t byte_count;
    uint32_t value;

    if (lead < 0x80) {
        return lead < 0x20 || lead == 0x7f ? 0 : 1;
    }
    if ((lead & 0xe0) == 0xc0) {
        byte_count = 2;
        value = lead & 0x1f;
    } else if ((lead & 0xf0) == 0xe0) {
        byte_count = 3;
        value = lead & 0x0f;
    } else if ((lead & 0xf8) == 0xf0) {
        byte_count = 4;
        value = lead & 0x07;
    } else {
        return 0;
    }
    if (left < byte_count) {
        return 0;
    }
    for (size_t i = 1; i < byte_count; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (at[i] & 0x3f);
    }
    if (value < smallest[byte_count] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ||
        (value >= 0x80 && value < 0xa0)) {
        return 0;
    }
    return byte_count;
}

bool text_valid(const uint8_t *bytes, size_t byte_count)
{
    size_t at = 0;

    while (at < byte_count) {
        const size_t step = character_bytes(bytes + at, byte_count - at);
        if (step == 0) {
            return false;
        }
        at += step;
    }
    return true;
}

static const struct tlv_known *tlv_find(const struct tlv_known *known, size_t known_count,
                                        uint8_t tag)
{
    for (size_t i = 0; i < known_count; i++) {
        if (known[i].tag == tag) {
            return &known[i];
        }
    }
    return NULL;
}

enum code tlv_decode(const uint8_t *at, const uint8_t *end, const struct tlv_known *known,
                     size_t known_count)
{
    uint8_t seen = 0; /* bit i: known[i] */

    HF_ASSERT(known_count <= 8);
    for (size_t i = 0; i < known_count; i++) {
        *known[i].value = (struct message_bytes){ NULL, 0 };
    }

    while (at != end) {
        if (end - at < TLV_HEADER_BYTES) {
            return CODE_BAD_FRAME;
        }
        const uint8_t tag = wire_take_u8(&at);
        const uint16_t byte_count = wire_take_u16(&at);
        if (end - at < byte_count) {
            return CODE_BAD_FRAME;
        }
        const struct tlv_known *want = tlv_find(known, known_count, tag);
        if (want == NULL && tag % 2 == 0) {
            return CODE_UNSUPPORTED_TLV;
        }
        if (want != NULL) {
            const uint8_t bit = (uint8_t)(1U << (want - known));
            if ((seen & bit) != 0) {
                return CODE_BAD_FRAME;
            }
            if (byte_count < want->bytes_min || byte_count > want->bytes_max ||
                (want->is_text && !text_valid(at, byte_count))) {
                return CODE_BAD_FIELD;
            }
            seen |= bit;
            *want->value = (struct message_bytes){ at, byte_count };
        }
        at += byte_count;
    }

    for (size_t i = 0; i < known_count; i++) {
        if (known[i].required && (seen >> i & 1) == 0) {
            return CODE_BAD_FIELD;
        }
    }
    return CODE_OK;
}

enum code message_check_tail(const uint8_t *at, const uint8_t *end)
{
    return tlv_decode(at, end, NULL, 0);
}

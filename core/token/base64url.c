#include "core/token/base64url.h"

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t base64url_encode(char *text, const void *bytes, size_t byte_count)
{
    const uint8_t *from = bytes;
    char *to = text;
    size_t left = byte_count;

    for (; left >= 3; left -= 3, from += 3) {
        const uint32_t word = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
        *to++ = alphabet[word >> 18];
        *to++ = alphabet[word >> 12 & 63];
        *to++ = alphabet[word >> 6 & 63];
        *to++ = alphabet[word & 63];
    }
    if (left > 0) {
        const uint32_t word = (uint32_t)from[0] << 8 | (left == 2 ? from[1] : 0U);
        *to++ = alphabet[word >> 10];
        *to++ = alphabet[word >> 4 & 63];
        if (left == 2) {
            *to++ = alphabet[word << 2 & 63];
        }
    }
    return (size_t)(to - text);
}

/* The value of a digit, or 64: a bit that no digit has, so that many can be checked at once. */
static uint32_t digit_value(char digit)
{
    if (digit >= 'A' && digit <= 'Z') {
        return (uint32_t)(digit - 'A');
    }
    if (digit >= 'a' && digit <= 'z') {
        return (uint32_t)(digit - 'a' + 26);
    }
    if (digit >= '0' && digit <= '9') {
        return (uint32_t)(digit - '0' + 52);
    }
    if (digit == '-') {
        return 62;
    }
    return digit == '_' ? 63 : 64;
}

bool base64url_decode(void *bytes, size_t bytes_max, size_t *byte_count, const char *text,
                      size_t text_bytes)
{
    uint8_t *to = bytes;
    const size_t tail = text_bytes % 4;
    const size_t size = text_bytes / 4 * 3 + (tail == 0 ? 0 : tail - 1);
    uint32_t word = 0;
    uint32_t seen = 0;

    if (tail == 1 || size > bytes_max) {
        return false;
    }
    for (size_t i = 0; i < text_bytes; i++) {
        const uint32_t value = digit_value(text[i]);
        seen |= value;
        word = word << 6 | (value & 63);
        if (i % 4 == 3) {
            *to++ = (uint8_t)(word >> 16);
            *to++ = (uint8_t)(word >> 8);
            *to++ = (uint8_t)word;
        }
    }
    if (tail == 2) {
        *to = (uint8_t)(word >> 4);
        seen |= (word & 15) != 0 ? 64 : 0;
    } else if (tail == 3) {
        *to++ = (uint8_t)(word >> 10);
        *to = (uint8_t)(word >> 2);
        seen |= (word & 3) != 0 ? 64 : 0;
    }
    if ((seen & 64) != 0) {
        return false;
    }
    *byte_count = size;
    return true;
}

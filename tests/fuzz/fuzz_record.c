/*
 * A peer with good keys may put anything into a record. The input is a row of records, each
 * {how, length, bytes}: sealed as inner plaintext with the peer's keys, or laid on the wire as it
 * is. What comes of the stream is the same however it is split, and nothing but MORE, DATA and
 * HANDLED is ever followed.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/tls/record.h"
#include "tests/fuzz/fuzz.h"

enum { RAW = 1, SERVER = 2 }; /* bits of `how`; SERVER of the first only */
enum { STREAM_BYTES_MAX = 1 << 17 };

struct side {
    struct tls_core core;
    struct tls_keys keys;
    uint64_t meaning; /* a hash of all results */
    bool ended;
};

static struct side whole;
static struct side split;
static uint8_t stream[STREAM_BYTES_MAX];

static void side_open(struct side *side, bool client)
{
    uint8_t secrets[2][TLS_SECRET_BYTES_MAX];
    struct hf_error error;

    if (side->core.aead == NULL) {
        HF_ASSERT(tls_core_open(&side->core, 16, &error) == 0);
    }
    memset(secrets[0], 1, sizeof secrets[0]);
    memset(secrets[1], 2, sizeof secrets[1]);
    HF_ASSERT(tls_keys_init(&side->keys, AEAD_AES_128_GCM_SHA256, client, secrets[0], secrets[1]));
    side->meaning = 0;
    side->ended = false;
}

static void side_mean(struct side *side, const void *bytes, size_t byte_count)
{
    for (size_t at = 0; at < byte_count; at++) {
        side->meaning = (side->meaning ^ ((const uint8_t *)bytes)[at]) * UINT64_C(0x100000001b3);
    }
}

/* Opens all that is there, and checks what every result promises. Returns the bytes used. */
static size_t side_read(struct side *side, uint8_t *bytes, size_t byte_count)
{
    size_t used = 0;

    while (!side->ended) {
        struct tls_opened opened;

        tls_record_open(&side->core, &side->keys, bytes + used, byte_count - used, &opened);
        HF_ASSERT((opened.fault != TLS_FAULT_NONE) == (opened.result == TLS_OPEN_FATAL));
        if (opened.result == TLS_OPEN_MORE) {
            HF_ASSERT(opened.record_bytes > byte_count - used);
            HF_ASSERT(opened.record_bytes <= TLS_RECORD_BYTES_MAX);
            return used;
        }
        side_mean(side, &opened.result, sizeof opened.result);
        side_mean(side, &opened.fault, sizeof opened.fault);
        if (opened.result == TLS_OPEN_DATA) {
            HF_ASSERT(opened.data_bytes > 0 && opened.data_bytes <= TLS_PLAINTEXT_BYTES_MAX);
            HF_ASSERT(opened.data_offset + opened.data_bytes < opened.record_bytes);
            HF_ASSERT(side->keys.quiet_records == 0);
            side_mean(side, bytes + used + opened.data_offset, opened.data_bytes);
        }
        if (opened.result == TLS_OPEN_FATAL || opened.result == TLS_OPEN_CLOSED) {
            HF_ASSERT((side->keys.flags & TLS_KEYS_RX_CLOSED) != 0);
            side->ended = true;
            return used;
        }
        HF_ASSERT(tls_keys_valid(&side->keys));
        HF_ASSERT(opened.record_bytes <= byte_count - used);
        used += opened.record_bytes;
    }
    return used;
}

/* One record of the input onto the end of the stream, sealed by what the peer's keys are now. */
static size_t stream_add(size_t stream_bytes, bool raw, const uint8_t *bytes, size_t byte_count)
{
    uint8_t *record = stream + stream_bytes;
    uint8_t *inner = record + TLS_RECORD_HEADER_BYTES;
    const struct tls_keys *keys = &whole.keys; /* the peer's tx is our rx */

    if (raw) {
        memcpy(record, bytes, byte_count);
        return stream_bytes + byte_count;
    }
    record[0] = 23;
    store_be16(record + 1, 0x0303);
    store_be16(record + 3, (uint16_t)(byte_count + AEAD_TAG_BYTES));
    memcpy(inner, bytes, byte_count);
    HF_ASSERT(aead_seal(NULL, keys->suite, &keys->rx.aead, keys->rx_number, record,
                        TLS_RECORD_HEADER_BYTES, inner, byte_count, inner + byte_count) == AEAD_OK);
    return stream_bytes + TLS_RECORD_HEADER_BYTES + byte_count + AEAD_TAG_BYTES;
}

/* A block of exactly that size: the sanitizer sees one byte too many. */
static uint8_t *copy_of(const uint8_t *bytes, size_t byte_count)
{
    uint8_t *copy = malloc(byte_count + (byte_count == 0));

    HF_ASSERT(copy != NULL);
    memcpy(copy, bytes, byte_count);
    return copy;
}

/* The stream is made as it is read, since a KeyUpdate changes how the next record is sealed. */
static size_t stream_make(const uint8_t *bytes, size_t byte_count)
{
    size_t stream_bytes = 0;
    size_t used = 0;
    size_t at = 0;

    while (byte_count - at >= 3 && !whole.ended) {
        const bool raw = (bytes[at] & RAW) != 0;
        const size_t wanted = load_be16(bytes + at + 1) % (TLS_CIPHERTEXT_BYTES_MAX + 1);
        const size_t left = byte_count - at - 3;
        const size_t taken = wanted < left ? wanted : left;

        if (stream_bytes + taken + TLS_RECORD_OVERHEAD > sizeof stream) {
            break;
        }
        stream_bytes = stream_add(stream_bytes, raw, bytes + at + 3, taken);
        at += 3 + taken;

        uint8_t *unread = copy_of(stream + used, stream_bytes - used);

        used += side_read(&whole, unread, stream_bytes - used);
        free(unread);
    }
    return stream_bytes;
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    const bool client = byte_count > 0 && (bytes[0] & SERVER) == 0;

    side_open(&whole, client);
    side_open(&split, client);

    const size_t stream_bytes = stream_make(bytes, byte_count);
    size_t visible = 0;
    size_t used = 0;

    uint8_t *bytes_there = copy_of(stream, stream_bytes);

    while (visible < stream_bytes) {
        const size_t step = 1U + bytes[visible % byte_count] % 61U;

        visible = visible + step < stream_bytes ? visible + step : stream_bytes;
        used += side_read(&split, bytes_there + used, visible - used);
    }
    free(bytes_there);
    HF_ASSERT(split.meaning == whole.meaning && split.ended == whole.ended);
    HF_ASSERT(memcmp(&split.keys, &whole.keys, sizeof split.keys) == 0);
    tls_keys_clear(&whole.core, &whole.keys);
    tls_keys_clear(&split.core, &split.keys);
}

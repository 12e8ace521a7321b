#include "loadgen/payload.h"

#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"

static uint64_t filler_seed(const struct payload *payload)
{
    return id_mix(id_mix(payload->user.value) + payload->number);
}

void payload_write(const struct payload_run *run, const struct payload *payload, uint8_t *body,
                   uint16_t byte_count)
{
    HF_ASSERT(byte_count >= PAYLOAD_BYTES_MIN);
    store_be32(body, run->run);
    store_be32(body + 4, payload->number);
    store_be64(body + 8, payload->user.value);
    store_be64(body + 16, payload->intended_ns);

    uint64_t filler = filler_seed(payload);
    size_t at = PAYLOAD_BYTES_MIN;

    for (; at + 8 <= byte_count; at += 8) {
        store_be64(body + at, filler);
        filler += UINT64_C(0x9e3779b97f4a7c15);
    }
    memset(body + at, (int)(filler & 0xff), byte_count - at);
}

enum payload_result payload_read(const struct payload_run *run, const uint8_t *body,
                                 uint16_t byte_count, uint16_t expected_byte_count,
                                 struct payload *payload)
{
    if (byte_count < PAYLOAD_BYTES_MIN || load_be32(body) != run->run) {
        return PAYLOAD_FOREIGN;
    }
    payload->number = load_be32(body + 4);
    payload->user.value = load_be64(body + 8);
    payload->intended_ns = load_be64(body + 16);
    if (byte_count != expected_byte_count) {
        return PAYLOAD_DAMAGED;
    }

    uint64_t filler = filler_seed(payload);
    size_t at = PAYLOAD_BYTES_MIN;

    for (; at + 8 <= byte_count; at += 8) {
        if (load_be64(body + at) != filler) {
            return PAYLOAD_DAMAGED;
        }
        filler += UINT64_C(0x9e3779b97f4a7c15);
    }
    for (; at < byte_count; at++) {
        if (body[at] != (uint8_t)filler) {
            return PAYLOAD_DAMAGED;
        }
    }
    return PAYLOAD_OK;
}

struct nonce payload_nonce(const struct payload_run *run, struct user_id user, uint32_t number)
{
    struct nonce nonce;

    /* Each half is one to one in (user, number) for a given run: no two messages share a nonce. */
    store_be64(nonce.bytes, id_mix(user.value) ^ run->nonce_words[0]);
    store_be64(nonce.bytes + 8, id_mix(run->nonce_words[1] + number) ^ user.value);
    return nonce;
}

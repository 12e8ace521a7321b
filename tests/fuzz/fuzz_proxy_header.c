/*
 * A PROXY header is the same however its bytes arrive, reads nothing behind its end, and names at
 * most an address of one of two kinds.
 */
#include "core/base/check.h"
#include "core/server/proxy_header.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    struct proxy_header whole;
    struct proxy_header part;
    const enum proxy_header_result result = proxy_header_parse(bytes, byte_count, &whole);

    if (result == PROXY_HEADER_DONE) {
        HF_ASSERT(whole.byte_count >= PROXY_HEADER_FIXED_BYTES && whole.byte_count <= byte_count);
        HF_ASSERT(whole.byte_count <= PROXY_HEADER_BYTES_MAX);
        HF_ASSERT(!whole.has_address || whole.source.any.sa_family == AF_INET ||
                  whole.source.any.sa_family == AF_INET6);
        HF_ASSERT(proxy_header_parse(bytes, whole.byte_count, &part) == PROXY_HEADER_DONE);
        HF_ASSERT(part.byte_count == whole.byte_count && part.has_address == whole.has_address);
        HF_ASSERT(memcmp(&part.source.v6, &whole.source.v6, sizeof whole.source.v6) == 0);
    }
    for (size_t visible = 0; visible < byte_count; visible += 1U + bytes[visible] % 31U) {
        const enum proxy_header_result seen = proxy_header_parse(bytes, visible, &part);

        /* What is bad already stays bad, and what is whole isn't judged anew. */
        HF_ASSERT(seen == PROXY_HEADER_MORE || seen == result);
    }
}

#include "core/base/crc32c.h"

#include <string.h>

#define POLYNOMIAL_REFLECTED 0x82f63b78U

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *byte, size_t byte_count)
{
    for (size_t i = 0; i < byte_count; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (POLYNOMIAL_REFLECTED & (0U - (crc & 1U)));
        }
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *byte,
                                                               size_t byte_count)
{
    uint64_t wide = crc;

    while (byte_count >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, byte, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
        byte += sizeof word;
        byte_count -= sizeof word;
    }
    crc = (uint32_t)wide;
    while (byte_count > 0) {
        crc = __builtin_ia32_crc32qi(crc, *byte);
        byte++;
        byte_count--;
    }
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t byte_count)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc32c_sse42(crc, bytes, byte_count);
    }
#endif
    return ~crc32c_portable(crc, bytes, byte_count);
}

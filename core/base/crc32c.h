/*
 * crc32c: the Castagnoli CRC, over journal blocks and stored entries.
 *
 * Thread   Any. Pure.
 * Source   RFC 3720 appendix B.4 (polynomial 0x1EDC6F41, reflected, both ends inverted); uses the
 *          processor's instruction where there is one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc`, which is 0 at the beginning. crc32c(crc32c(0, a), b) == crc32c(0, ab). */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t byte_count);

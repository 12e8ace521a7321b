#include "core/server/proxy_header.h"

#include <string.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"

/*
 *   0       12  signature
 *   12       1  version (2) << 4 | command
 *   13       1  address family << 4 | transport
 *   14       2  bytes that follow
 *   16          source, destination, ports; then TLVs {type u8, length u16, value}
 */
static const uint8_t signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                       0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

enum { VERSION = 2, COMMAND_LOCAL = 0, COMMAND_PROXY = 1 };
enum { FAMILY_UNSPEC = 0, FAMILY_V4 = 1, FAMILY_V6 = 2, FAMILY_UNIX = 3 };
enum { TRANSPORT_UNSPEC = 0, TRANSPORT_STREAM = 1, TRANSPORT_DATAGRAM = 2 };
enum { ADDRESSES_V4_BYTES = 12, ADDRESSES_V6_BYTES = 36, ADDRESSES_UNIX_BYTES = 216 };
enum { TLV_FIXED_BYTES = 3, TLV_CRC32C = 3, CRC_BYTES = 4 };

/* As far as they are there. */
static bool fixed_part_is_good(const uint8_t *bytes, size_t byte_count)
{
    const size_t compared = byte_count < sizeof signature ? byte_count : sizeof signature;

    if (memcmp(bytes, signature, compared) != 0) {
        return false;
    }
    if (byte_count > 12 && (bytes[12] >> 4 != VERSION || (bytes[12] & 15) > COMMAND_PROXY)) {
        return false;
    }
    if (byte_count > 13 &&
        (bytes[13] >> 4 > FAMILY_UNIX || (bytes[13] & 15) > TRANSPORT_DATAGRAM)) {
        return false;
    }
    return byte_count < PROXY_HEADER_FIXED_BYTES ||
           PROXY_HEADER_FIXED_BYTES + load_be16(bytes + 14) <= PROXY_HEADER_BYTES_MAX;
}

/* Over the whole header, with zeros where the checksum itself stands. */
static bool checksum_is_good(const uint8_t *bytes, size_t byte_count, size_t at)
{
    static const uint8_t zeros[CRC_BYTES];
    uint32_t crc = crc32c(0, bytes, at);

    crc = crc32c(crc, zeros, sizeof zeros);
    crc = crc32c(crc, bytes + at + CRC_BYTES, byte_count - at - CRC_BYTES);
    return crc == load_be32(bytes + at);
}

/* They fill the rest exactly; of those that say something to us there is one: the checksum. */
static bool tlvs_are_good(const uint8_t *bytes, size_t byte_count, size_t at)
{
    while (at < byte_count) {
        if (byte_count - at < TLV_FIXED_BYTES) {
            return false;
        }

        const uint8_t type = bytes[at];
        const size_t value_bytes = load_be16(bytes + at + 1);

        at += TLV_FIXED_BYTES;
        if (value_bytes > byte_count - at) {
            return false;
        }
        if (type == TLV_CRC32C &&
            (value_bytes != CRC_BYTES || !checksum_is_good(bytes, byte_count, at))) {
            return false;
        }
        at += value_bytes;
    }
    return true;
}

static void take_v4(const uint8_t *addresses, struct proxy_header *header)
{
    header->has_address = true;
    header->source.v4.sin_family = AF_INET;
    memcpy(&header->source.v4.sin_addr, addresses, 4);
    memcpy(&header->source.v4.sin_port, addresses + 8, 2);
}

static void take_v6(const uint8_t *addresses, struct proxy_header *header)
{
    header->has_address = true;
    header->source.v6.sin6_family = AF_INET6;
    memcpy(&header->source.v6.sin6_addr, addresses, 16);
    memcpy(&header->source.v6.sin6_port, addresses + 32, 2);
}

static size_t addresses_bytes(uint8_t family)
{
    static const size_t bytes_of[] = {
        [FAMILY_UNSPEC] = 0,
        [FAMILY_V4] = ADDRESSES_V4_BYTES,
        [FAMILY_V6] = ADDRESSES_V6_BYTES,
        [FAMILY_UNIX] = ADDRESSES_UNIX_BYTES,
    };

    return bytes_of[family];
}

enum proxy_header_result proxy_header_parse(const uint8_t *bytes, size_t byte_count,
                                            struct proxy_header *header)
{
    if (!fixed_part_is_good(bytes, byte_count)) {
        return PROXY_HEADER_BAD;
    }
    if (byte_count < PROXY_HEADER_FIXED_BYTES) {
        return PROXY_HEADER_MORE;
    }

    const size_t whole = PROXY_HEADER_FIXED_BYTES + load_be16(bytes + 14);
    const uint8_t family = bytes[13] >> 4;
    const uint8_t transport = bytes[13] & 15;
    const size_t tlvs_at = PROXY_HEADER_FIXED_BYTES + addresses_bytes(family);

    if (byte_count < whole) {
        return PROXY_HEADER_MORE;
    }
    *header = (struct proxy_header){ .byte_count = (uint32_t)whole };

    /* A health check of the proxy's, or what it can't tell us: what follows is to be passed over. */
    if ((bytes[12] & 15) == COMMAND_LOCAL || family == FAMILY_UNSPEC ||
        transport == TRANSPORT_UNSPEC) {
        return PROXY_HEADER_DONE;
    }
    if (transport != TRANSPORT_STREAM || tlvs_at > whole || !tlvs_are_good(bytes, whole, tlvs_at)) {
        return PROXY_HEADER_BAD;
    }
    if (family == FAMILY_V4) {
        take_v4(bytes + PROXY_HEADER_FIXED_BYTES, header);
    } else if (family == FAMILY_V6) {
        take_v6(bytes + PROXY_HEADER_FIXED_BYTES, header);
    }
    return PROXY_HEADER_DONE;
}

#include "core/tls/client_hello.h"

#include <string.h>

#include "core/base/bytes.h"
#include "core/tls/aead.h"

enum {
    VERSION_AND_RANDOM_BYTES = 2 + 32,
    EXTENSION_PRE_SHARED_KEY = 41,
    EXTENSION_PSK_KEY_EXCHANGE_MODES = 45,
    MODE_PSK_KE = 0,
};

/* What is left to read of some bytes. */
struct span {
    const uint8_t *bytes;
    size_t byte_count;
};

static bool span_take(struct span *from, size_t byte_count, struct span *taken)
{
    if (byte_count > from->byte_count) {
        return false;
    }
    *taken = (struct span){ from->bytes, byte_count };
    from->bytes += byte_count;
    from->byte_count -= byte_count;
    return true;
}

/* A vector: its length in one or two bytes, then so many bytes. */
static bool span_take_vector(struct span *from, size_t length_bytes, struct span *taken)
{
    struct span length;

    return span_take(from, length_bytes, &length) &&
           span_take(from, length_bytes == 1 ? length.bytes[0] : load_be16(length.bytes), taken);
}

bool client_hello_read(struct client_hello *hello, const uint8_t *bytes, size_t byte_count)
{
    struct span left = { bytes, byte_count };
    struct span skipped;
    struct span suites;
    struct span extensions;

    if (!span_take(&left, VERSION_AND_RANDOM_BYTES, &skipped) ||
        !span_take_vector(&left, 1, &skipped) || /* legacy_session_id */
        !span_take_vector(&left, 2, &suites) ||
        !span_take_vector(&left, 1, &skipped) || /* legacy_compression_methods */
        !span_take_vector(&left, 2, &extensions)) {
        return false;
    }
    *hello = (struct client_hello){ .suites = suites.bytes,
                                    .suites_bytes = suites.byte_count,
                                    .extensions = extensions.bytes,
                                    .extensions_bytes = extensions.byte_count };
    return true;
}

static bool find_extension(const struct client_hello *hello, uint16_t type, struct span *found)
{
    struct span left = { hello->extensions, hello->extensions_bytes };
    struct span number;

    while (span_take(&left, 2, &number) && span_take_vector(&left, 2, found)) {
        if (load_be16(number.bytes) == type) {
            return true;
        }
    }
    return false;
}

bool client_hello_only_psk_ke(const struct client_hello *hello)
{
    struct span extension;
    struct span modes;

    return find_extension(hello, EXTENSION_PSK_KEY_EXCHANGE_MODES, &extension) &&
           span_take_vector(&extension, 1, &modes) && modes.byte_count == 1 &&
           modes.bytes[0] == MODE_PSK_KE;
}

uint16_t client_hello_suite_for(const struct client_hello *hello, uint16_t suite)
{
    uint16_t first = 0;

    for (size_t at = 0; at + 2 <= hello->suites_bytes; at += 2) {
        const uint16_t offered = load_be16(hello->suites + at);

        if (offered == suite) {
            return suite;
        }
        if (first == 0 && aead_key_bytes(offered) != 0 &&
            (offered == AEAD_AES_256_GCM_SHA384) == (suite == AEAD_AES_256_GCM_SHA384)) {
            first = offered;
        }
    }
    return first;
}

bool client_hello_ticket_age(const struct client_hello *hello, const uint8_t *ticket_start,
                             size_t start_bytes, uint32_t *obfuscated_age)
{
    struct span extension;
    struct span identities;
    struct span identity;
    struct span age;

    if (!find_extension(hello, EXTENSION_PRE_SHARED_KEY, &extension) ||
        !span_take_vector(&extension, 2, &identities)) {
        return false;
    }
    while (span_take_vector(&identities, 2, &identity) && span_take(&identities, 4, &age)) {
        if (identity.byte_count >= start_bytes &&
            memcmp(identity.bytes, ticket_start, start_bytes) == 0) {
            *obfuscated_age = load_be32(age.bytes);
            return true;
        }
    }
    return false;
}

/*
 * hmac: HMAC-SHA256 with the key's two blocks hashed once, so that a short message costs two
 * compressions instead of four.
 *
 * Owner    A struct hmac_key is its holder's; hmac_key_clear zeroes it.
 * Thread   Any; several at once may use one key that nobody sets or clears.
 * Memory   None is allocated, no lock is taken: fit for a reactor.
 * Errors   None.
 * Source   RFC 2104; vectors: RFC 4231.
 */
#pragma once

#include <mbedtls/sha256.h>
#include <stddef.h>
#include <stdint.h>

#define HMAC_BYTES 32

struct hmac_key {
    mbedtls_sha256_context inner_;
    mbedtls_sha256_context outer_;
};

void hmac_key_set(struct hmac_key *key, const void *secret, size_t secret_bytes);
void hmac_key_clear(struct hmac_key *key);

void hmac_compute(const struct hmac_key *key, const void *bytes, size_t byte_count,
                  uint8_t tag[HMAC_BYTES]);

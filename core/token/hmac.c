#include "core/token/hmac.h"

#include "core/base/check.h"

#include <mbedtls/platform_util.h>
#include <string.h>

#define HMAC_BLOCK_BYTES 64

/* In software these functions can't fail; a hardware driver that does mustn't yield a false tag. */
static void hash_start(mbedtls_sha256_context *hash)
{
    mbedtls_sha256_init(hash);
    HF_ASSERT(mbedtls_sha256_starts(hash, 0) == 0);
}

static void hash_add(mbedtls_sha256_context *hash, const uint8_t *bytes, size_t byte_count)
{
    HF_ASSERT(mbedtls_sha256_update(hash, bytes, byte_count) == 0);
}

static void hash_end(mbedtls_sha256_context *hash, uint8_t digest[HMAC_BYTES])
{
    HF_ASSERT(mbedtls_sha256_finish(hash, digest) == 0);
    mbedtls_sha256_free(hash); /* zeroes it */
}

void hmac_key_set(struct hmac_key *key, const void *secret, size_t secret_bytes)
{
    uint8_t block[HMAC_BLOCK_BYTES] = { 0 };

    if (secret_bytes > sizeof block) {
        mbedtls_sha256_context hash;
        hash_start(&hash);
        hash_add(&hash, secret, secret_bytes);
        hash_end(&hash, block);
    } else {
        memcpy(block, secret, secret_bytes);
    }
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] ^= 0x36;
    }
    hash_start(&key->inner_);
    hash_add(&key->inner_, block, sizeof block);
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] ^= 0x36 ^ 0x5c;
    }
    hash_start(&key->outer_);
    hash_add(&key->outer_, block, sizeof block);
    mbedtls_platform_zeroize(block, sizeof block);
}

void hmac_key_clear(struct hmac_key *key)
{
    mbedtls_sha256_free(&key->inner_);
    mbedtls_sha256_free(&key->outer_);
}

void hmac_compute(const struct hmac_key *key, const void *bytes, size_t byte_count,
                  uint8_t tag[HMAC_BYTES])
{
    mbedtls_sha256_context hash;

    mbedtls_sha256_init(&hash);
    mbedtls_sha256_clone(&hash, &key->inner_);
    hash_add(&hash, bytes, byte_count);
    hash_end(&hash, tag);

    mbedtls_sha256_init(&hash);
    mbedtls_sha256_clone(&hash, &key->outer_);
    hash_add(&hash, tag, HMAC_BYTES);
    hash_end(&hash, tag);
}

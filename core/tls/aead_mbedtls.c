#include <stdlib.h>
#include <string.h>

#include <mbedtls/build_info.h>
#include <mbedtls/chachapoly.h>
#include <mbedtls/gcm.h>
#include <mbedtls/platform_util.h>

#include "core/base/check.h"
#include "core/tls/aead_context.h"

struct cipher {
    uint16_t suite; /* 0: nothing is keyed */
    union {
        mbedtls_gcm_context gcm;
        mbedtls_chachapoly_context chachapoly;
    } as;
};

const char *aead_library_name(void)
{
    return MBEDTLS_VERSION_STRING_FULL;
}

bool aead_library_open(struct aead_library **library)
{
    *library = NULL; /* there is nothing to look up */
    return true;
}

void aead_library_close(struct aead_library *library)
{
    HF_ASSERT(library == NULL);
}

static void cipher_clear(struct cipher *cipher)
{
    if (cipher->suite == AEAD_CHACHA20_POLY1305_SHA256) {
        mbedtls_chachapoly_free(&cipher->as.chachapoly);
    } else if (cipher->suite != 0) {
        mbedtls_gcm_free(&cipher->as.gcm);
    }
    mbedtls_platform_zeroize(cipher, sizeof *cipher);
}

static int cipher_set(struct cipher *cipher, uint16_t suite, const struct aead_key *key)
{
    cipher->suite = suite;
    if (suite == AEAD_CHACHA20_POLY1305_SHA256) {
        mbedtls_chachapoly_init(&cipher->as.chachapoly);
        return mbedtls_chachapoly_setkey(&cipher->as.chachapoly, key->key);
    }
    mbedtls_gcm_init(&cipher->as.gcm);
    return mbedtls_gcm_setkey(&cipher->as.gcm, MBEDTLS_CIPHER_ID_AES, key->key,
                              (unsigned)aead_key_bytes(suite) * 8);
}

enum aead_result aead_context_set(struct aead_context *context, const struct aead_library *library,
                                  uint16_t suite, const struct aead_key *key)
{
    (void)library;
    HF_ASSERT(aead_key_bytes(suite) != 0);
    if (context->handle == NULL) {
        context->handle = calloc(1, sizeof(struct cipher));
        if (context->handle == NULL) {
            return AEAD_NO_MEMORY;
        }
    }
    cipher_clear(context->handle);
    if (cipher_set(context->handle, suite, key) != 0) { /* with a good length: no memory */
        aead_context_clear(context);
        return AEAD_NO_MEMORY;
    }
    context->suite = suite;
    context->key = *key;
    return AEAD_OK;
}

void aead_context_clear(struct aead_context *context)
{
    if (context->handle != NULL) {
        cipher_clear(context->handle);
    }
    context->suite = 0;
    mbedtls_platform_zeroize(&context->key, sizeof context->key);
}

void aead_context_free(struct aead_context *context)
{
    aead_context_clear(context);
    free(context->handle);
    context->handle = NULL;
}

enum aead_result aead_context_seal(struct aead_context *context, const uint8_t *nonce,
                                   const void *aad, size_t aad_bytes, uint8_t *bytes,
                                   size_t byte_count, uint8_t *tag)
{
    struct cipher *cipher = context->handle;
    int failed;

    if (cipher->suite == AEAD_CHACHA20_POLY1305_SHA256) {
        failed = mbedtls_chachapoly_encrypt_and_tag(&cipher->as.chachapoly, byte_count, nonce, aad,
                                                    aad_bytes, bytes, bytes, tag);
    } else {
        failed = mbedtls_gcm_crypt_and_tag(&cipher->as.gcm, MBEDTLS_GCM_ENCRYPT, byte_count, nonce,
                                           AEAD_IV_BYTES, aad, aad_bytes, bytes, bytes,
                                           AEAD_TAG_BYTES, tag);
    }
    return failed == 0 ? AEAD_OK : AEAD_NO_MEMORY;
}

enum aead_result aead_context_open(struct aead_context *context, const uint8_t *nonce,
                                   const void *aad, size_t aad_bytes, uint8_t *bytes,
                                   size_t byte_count, const uint8_t *tag)
{
    struct cipher *cipher = context->handle;
    int failed;

    if (cipher->suite == AEAD_CHACHA20_POLY1305_SHA256) {
        failed = mbedtls_chachapoly_auth_decrypt(&cipher->as.chachapoly, byte_count, nonce, aad,
                                                 aad_bytes, tag, bytes, bytes);
    } else {
        failed = mbedtls_gcm_auth_decrypt(&cipher->as.gcm, byte_count, nonce, AEAD_IV_BYTES, aad,
                                          aad_bytes, tag, AEAD_TAG_BYTES, bytes, bytes);
    }
    if (failed == MBEDTLS_ERR_GCM_AUTH_FAILED || failed == MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED) {
        return AEAD_BAD_TAG;
    }
    return failed == 0 ? AEAD_OK : AEAD_NO_MEMORY;
}

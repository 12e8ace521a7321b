#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "core/base/check.h"
#include "core/tls/aead_context.h"

/* What EVP_CIPHER_fetch found: it takes locks, so it isn't done for each key. */
struct aead_library {
    EVP_CIPHER *aes_128_gcm;
    EVP_CIPHER *aes_256_gcm;
    EVP_CIPHER *chacha20_poly1305;
};

const char *aead_library_name(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}

bool aead_library_open(struct aead_library **library)
{
    struct aead_library *opened = calloc(1, sizeof *opened);

    *library = opened;
    if (opened == NULL) {
        return false;
    }
    opened->aes_128_gcm = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
    opened->aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    opened->chacha20_poly1305 = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
    if (opened->aes_128_gcm == NULL || opened->aes_256_gcm == NULL ||
        opened->chacha20_poly1305 == NULL) {
        aead_library_close(opened);
        *library = NULL;
        return false;
    }
    return true;
}

void aead_library_close(struct aead_library *library)
{
    if (library != NULL) {
        EVP_CIPHER_free(library->aes_128_gcm);
        EVP_CIPHER_free(library->aes_256_gcm);
        EVP_CIPHER_free(library->chacha20_poly1305);
        free(library);
    }
}

static const EVP_CIPHER *cipher_of(const struct aead_library *library, uint16_t suite)
{
    switch (suite) {
    case AEAD_AES_128_GCM_SHA256:
        return library->aes_128_gcm;
    case AEAD_AES_256_GCM_SHA384:
        return library->aes_256_gcm;
    default:
        HF_ASSERT(suite == AEAD_CHACHA20_POLY1305_SHA256);
        return library->chacha20_poly1305;
    }
}

enum aead_result aead_context_set(struct aead_context *context, const struct aead_library *library,
                                  uint16_t suite, const struct aead_key *key)
{
    HF_ASSERT(aead_key_bytes(suite) != 0);
    if (context->handle == NULL) {
        context->handle = EVP_CIPHER_CTX_new();
        if (context->handle == NULL) {
            return AEAD_NO_MEMORY;
        }
    }

    /* The cipher that it has already is left alone, and its memory with it. */
    const EVP_CIPHER *cipher = context->made == suite ? NULL : cipher_of(library, suite);

    if (EVP_EncryptInit_ex2(context->handle, cipher, key->key, NULL, NULL) != 1) {
        aead_context_clear(context);
        return AEAD_NO_MEMORY;
    }
    context->made = suite;
    context->suite = suite;
    context->key = *key;
    return AEAD_OK;
}

void aead_context_clear(struct aead_context *context)
{
    if (context->handle != NULL) {
        (void)EVP_CIPHER_CTX_reset(context->handle); /* zeroes what it gives back */
    }
    context->made = 0;
    context->suite = 0;
    OPENSSL_cleanse(&context->key, sizeof context->key);
}

void aead_context_free(struct aead_context *context)
{
    aead_context_clear(context);
    EVP_CIPHER_CTX_free(context->handle);
    context->handle = NULL;
}

/* An EVP_*Update with its lengths, which are int there. Nothing to do is done well. */
static bool seal_some(EVP_CIPHER_CTX *evp, uint8_t *to, const void *from, size_t byte_count)
{
    int done = 0;

    HF_ASSERT(byte_count <= INT_MAX);
    return byte_count == 0 || (EVP_EncryptUpdate(evp, to, &done, from, (int)byte_count) == 1 &&
                               done == (int)byte_count);
}

static bool open_some(EVP_CIPHER_CTX *evp, uint8_t *to, const void *from, size_t byte_count)
{
    int done = 0;

    HF_ASSERT(byte_count <= INT_MAX);
    return byte_count == 0 || (EVP_DecryptUpdate(evp, to, &done, from, (int)byte_count) == 1 &&
                               done == (int)byte_count);
}

enum aead_result aead_context_seal(struct aead_context *context, const uint8_t *nonce,
                                   const void *aad, size_t aad_bytes, uint8_t *bytes,
                                   size_t byte_count, uint8_t *tag)
{
    EVP_CIPHER_CTX *evp = context->handle;
    int done = 0;
    const bool ok = EVP_EncryptInit_ex2(evp, NULL, NULL, nonce, NULL) == 1 &&
                    seal_some(evp, NULL, aad, aad_bytes) &&
                    seal_some(evp, bytes, bytes, byte_count) &&
                    EVP_EncryptFinal_ex(evp, bytes + byte_count, &done) == 1 && done == 0 &&
                    EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag) == 1;

    return ok ? AEAD_OK : AEAD_NO_MEMORY;
}

enum aead_result aead_context_open(struct aead_context *context, const uint8_t *nonce,
                                   const void *aad, size_t aad_bytes, uint8_t *bytes,
                                   size_t byte_count, const uint8_t *tag)
{
    EVP_CIPHER_CTX *evp = context->handle;
    uint8_t expected[AEAD_TAG_BYTES];
    int done = 0;

    memcpy(expected, tag, sizeof expected); /* the parameter isn't const there */
    if (EVP_DecryptInit_ex2(evp, NULL, NULL, nonce, NULL) != 1 ||
        EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_BYTES, expected) != 1 ||
        !open_some(evp, NULL, aad, aad_bytes) || !open_some(evp, bytes, bytes, byte_count)) {
        return AEAD_NO_MEMORY;
    }
    return EVP_DecryptFinal_ex(evp, bytes + byte_count, &done) == 1 ? AEAD_OK : AEAD_BAD_TAG;
}

/*
 * No token, and no header or claims however well signed, does more than be refused; and one that is
 * let through says what token_sign, given the same claims, says too.
 */
#include "core/base/check.h"
#include "core/token/base64url.h"
#include "core/token/resume.h"
#include "core/token/token.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define FORGED_BYTES_MAX (2 * TOKEN_JWT_BYTES_MAX)

static const char jwks[] =
    "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"hs\",\"k\":"
    "\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"},"
    "{\"kty\":\"EC\",\"kid\":\"es\",\"crv\":\"P-256\","
    "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}";
static const char ring_text[] =
    "holdfast resume keys 1\n"
    "7 0 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
    "end 1\n";
static const char good_header[] = "{\"alg\":\"HS256\",\"kid\":\"hs\"}";
static const char good_claims[] = "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1700000600}";

static const struct token_rules rules = {
    .now_unix_s = 1700000000,
    .leeway_s = 60,
    .life_max_s = 3600,
};

static struct token_keys *keys;
static struct resume_ring ring;

static void set_up(void)
{
    struct hf_error error;
    char *copy = strdup(jwks);

    HF_ASSERT(copy != NULL);
    HF_ASSERT(token_keys_parse(&keys, copy, strlen(copy), TOKEN_KEYS_VERIFY, &error));
    HF_ASSERT(resume_ring_parse(&ring, ring_text, strlen(ring_text), &error));
    free(copy);
}

static void check_verified(const struct token_claims *claims)
{
    char token[TOKEN_JWT_BYTES_MAX];
    struct token_claims again;
    size_t byte_count;

    HF_ASSERT(user_id_valid(claims->user) && claims->device.value != 0);
    HF_ASSERT(token_sign(token_keys_find(keys, "hs", 2), claims, NULL, token, sizeof token,
                         &byte_count) == TOKEN_OK);
    HF_ASSERT(token_verify(keys, &rules, token, byte_count, &again) == TOKEN_OK);
    HF_ASSERT(again.user.value == claims->user.value);
    HF_ASSERT(again.device.value == claims->device.value);
    HF_ASSERT(again.expires_at_unix_s == claims->expires_at_unix_s);
    HF_ASSERT(again.not_before_unix_s == claims->not_before_unix_s);
    HF_ASSERT(again.issued_at_unix_s == claims->issued_at_unix_s);
}

static void check_token(const void *token, size_t byte_count)
{
    struct token_claims claims;

    if (token_verify(keys, &rules, token, byte_count, &claims) == TOKEN_OK) {
        HF_ASSERT(token_kind(token, byte_count) == TOKEN_KIND_JWT);
        check_verified(&claims);
    }
}

static void check_forged(const void *header, size_t header_bytes, const void *claims,
                         size_t claims_bytes)
{
    static char token[FORGED_BYTES_MAX];
    uint8_t tag[TOKEN_SIGNATURE_BYTES_MAX];
    const struct token_key *key = token_keys_find(keys, "hs", 2);

    if (BASE64URL_TEXT_BYTES(header_bytes) + BASE64URL_TEXT_BYTES(claims_bytes) + 64 >
        sizeof token) {
        return;
    }
    size_t used = base64url_encode(token, header, header_bytes);
    token[used++] = '.';
    used += base64url_encode(token + used, claims, claims_bytes);
    HF_ASSERT(token_key_sign(key, token, used, tag) == TOKEN_SIGNATURE_GOOD);
    token[used++] = '.';
    used += base64url_encode(token + used, tag, HMAC_BYTES);
    check_token(token, used);
}

static void check_resume(const uint8_t *bytes, size_t byte_count)
{
    struct resume_claims claims;
    uint8_t token[RESUME_TOKEN_BYTES];

    if (resume_verify(&ring, rules.now_unix_s, bytes, byte_count, &claims) == TOKEN_OK) {
        HF_ASSERT(token_kind(bytes, byte_count) == TOKEN_KIND_RESUME);
        resume_sign(&ring, &claims, token);
        HF_ASSERT(memcmp(token, bytes, sizeof token) == 0);
    }
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    if (keys == NULL) {
        set_up();
    }
    check_token(bytes, byte_count);
    check_resume(bytes, byte_count);
    check_forged(bytes, byte_count, good_claims, strlen(good_claims));
    check_forged(good_header, strlen(good_header), bytes, byte_count);
}

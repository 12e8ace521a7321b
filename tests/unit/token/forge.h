/*
 * forge: tokens of any content, signed as well as a thief of the key could: what token_sign, which
 * only makes good ones, can't give to a test.
 */
#pragma once

#include "core/token/base64url.h"
#include "core/token/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four that it needs */
#include <cmocka.h>

#define FORGED_BYTES_MAX 6144

/* Keys of RFC 7515 A.1 (kid "hs") and A.3 (kid "es"), with the private part or without. */
#define JWK_RFC7515_A1                                                                             \
    "{\"kty\":\"oct\",\"kid\":\"hs\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH" \
    "75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}"
#define JWK_RFC7515_A3_PUBLIC                                                                      \
    "\"kty\":\"EC\",\"kid\":\"es\",\"crv\":\"P-256\","                                             \
    "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","                                       \
    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""
#define JWK_RFC7515_A3                                                                             \
    "{" JWK_RFC7515_A3_PUBLIC ",\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\"}"
#define JWKS_SIGNER   "{\"keys\":[" JWK_RFC7515_A1 "," JWK_RFC7515_A3 "]}"
#define JWKS_VERIFIER "{\"keys\":[" JWK_RFC7515_A1 ",{" JWK_RFC7515_A3_PUBLIC "}]}"

static inline struct token_keys *keys_from(const char *text, enum token_keys_use use)
{
    struct token_keys *keys = NULL;
    struct hf_error error;
    char *copy = strdup(text);

    assert_non_null(copy);
    if (!token_keys_parse(&keys, copy, strlen(text), use, &error)) {
        fail_msg("%s", error.text);
    }
    free(copy);
    return keys;
}

static inline size_t forge_bytes(char *token, const struct token_key *key, const void *header,
                                 size_t header_bytes, const void *claims, size_t claims_bytes)
{
    uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];
    size_t used = base64url_encode(token, header, header_bytes);

    assert_true(BASE64URL_TEXT_BYTES(header_bytes) + BASE64URL_TEXT_BYTES(claims_bytes) + 90 <
                FORGED_BYTES_MAX);
    token[used++] = '.';
    used += base64url_encode(token + used, claims, claims_bytes);
    assert_int_equal(token_key_sign(key, token, used, signature), TOKEN_SIGNATURE_GOOD);
    token[used++] = '.';
    used += base64url_encode(token + used, signature, token_signature_bytes(key->alg));
    return used;
}

static inline size_t forge(char *token, const struct token_key *key, const char *header,
                           const char *claims)
{
    return forge_bytes(token, key, header, strlen(header), claims, strlen(claims));
}

#include "core/token/keys.h"

#include "core/base/check.h"
#include "core/token/random.h"

#include <errno.h>
#include <mbedtls/constant_time.h>
#include <mbedtls/ecdsa.h>
#include <mbedtls/error.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/sha256.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/token/keys_internal.h"

#define P256_BYTES 32

const char *token_alg_name(enum token_alg alg)
{
    return alg == TOKEN_ALG_HS256 ? "HS256" : "ES256";
}

size_t token_signature_bytes(enum token_alg alg)
{
    return alg == TOKEN_ALG_HS256 ? HMAC_BYTES : 2 * (size_t)P256_BYTES;
}

/*
 * A group for one call: mbedTLS writes into it, so threads can't share one, and loading P-256 costs
 * a thousandth of a signature (its tables are constants). A point that is only verified with is
 * read and no more; mbedTLS's self-test counters are all that threads then write in common.
 */
bool token_p256_open(mbedtls_ecp_group *group)
{
    mbedtls_ecp_group_init(group);
    return mbedtls_ecp_group_load(group, MBEDTLS_ECP_DP_SECP256R1) == 0;
}

struct token_keys *token_keys_new(void)
{
    return calloc(1, sizeof(struct token_keys));
}

struct token_key *token_key_new(void)
{
    struct token_key *key = calloc(1, sizeof *key);

    if (key != NULL) {
        mbedtls_ecp_point_init(&key->public_);
        mbedtls_mpi_init(&key->private_);
    }
    return key;
}

void token_key_free(struct token_key *key)
{
    if (key == NULL) {
        return;
    }
    mbedtls_ecp_point_free(&key->public_);
    mbedtls_mpi_free(&key->private_); /* zeroes it */
    hmac_key_clear(&key->hmac_);
    mbedtls_platform_zeroize(key, sizeof *key);
    free(key);
}

void token_keys_close(struct token_keys *keys)
{
    if (keys == NULL) {
        return;
    }
    for (size_t i = 0; i < keys->count; i++) {
        token_key_free(keys->keys[i]);
    }
    free(keys);
}

const struct token_key *token_keys_find(const struct token_keys *keys, const char *kid,
                                        size_t kid_bytes)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (keys->keys[i]->kid_bytes == kid_bytes &&
            memcmp(keys->keys[i]->kid, kid, kid_bytes) == 0) {
            return keys->keys[i];
        }
    }
    return NULL;
}

bool token_kid_set(struct token_key *key, const char *kid, size_t kid_bytes, struct hf_error *error)
{
    if (kid_bytes == 0 || kid_bytes > TOKEN_KID_BYTES_MAX) {
        hf_error_set(error, EX_DATAERR, 0, "a kid has 1 to %d characters", TOKEN_KID_BYTES_MAX);
        return false;
    }
    for (size_t i = 0; i < kid_bytes; i++) {
        if (kid[i] < ' ' || kid[i] > '~' || kid[i] == '"' || kid[i] == '\\') {
            hf_error_set(error, EX_DATAERR, 0,
                         "a kid is printable ASCII without quotes and backslashes");
            return false;
        }
    }
    memcpy(key->kid, kid, kid_bytes);
    key->kid[kid_bytes] = '\0';
    key->kid_bytes = kid_bytes;
    return true;
}

/* The set takes the key, or frees it. */
bool token_keys_give(struct token_keys *keys, struct token_key *key, struct hf_error *error)
{
    if (token_keys_find(keys, key->kid, key->kid_bytes) != NULL) {
        hf_error_set(error, EX_DATAERR, 0, "there is a key with kid \"%s\" already", key->kid);
    } else if (keys->count == TOKEN_KEYS_MAX) {
        hf_error_set(error, EX_DATAERR, 0, "more than %d keys", TOKEN_KEYS_MAX);
    } else {
        keys->keys[keys->count++] = key;
        return true;
    }
    token_key_free(key);
    return false;
}

void token_secret_set(struct token_key *key, const uint8_t *secret, size_t secret_bytes)
{
    HF_ASSERT(secret_bytes >= TOKEN_SECRET_BYTES_MIN && secret_bytes <= TOKEN_SECRET_BYTES_MAX);
    memcpy(key->secret_, secret, secret_bytes);
    key->secret_bytes_ = secret_bytes;
    hmac_key_set(&key->hmac_, secret, secret_bytes);
    key->can_sign = true;
}

static bool make_p256(struct token_key *key)
{
    mbedtls_ecp_group group;
    const bool good =
        token_p256_open(&group) &&
        mbedtls_ecp_gen_keypair(&group, &key->private_, &key->public_, token_random, NULL) == 0;

    mbedtls_ecp_group_free(&group);
    key->can_sign = good;
    return good;
}

static bool make_secret(struct token_key *key)
{
    uint8_t secret[TOKEN_SECRET_BYTES_MIN];
    const bool good = token_random(NULL, secret, sizeof secret) == 0;

    if (good) {
        token_secret_set(key, secret, sizeof secret);
    }
    mbedtls_platform_zeroize(secret, sizeof secret);
    return good;
}

bool token_keys_add(struct token_keys *keys, enum token_alg alg, const char *kid,
                    struct hf_error *error)
{
    struct token_key *key = token_key_new();

    if (key == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "a new key");
        return false;
    }
    key->alg = alg;
    if (!token_kid_set(key, kid, strlen(kid), error)) {
        token_key_free(key);
        return false;
    }
    if (!(alg == TOKEN_ALG_HS256 ? make_secret(key) : make_p256(key))) {
        hf_error_set(error, EX_OSERR, 0, "a new key: no memory, or no random numbers");
        token_key_free(key);
        return false;
    }
    return token_keys_give(keys, key, error);
}

bool token_keys_add_verifier(struct token_keys *keys, const struct token_key *from,
                             struct hf_error *error)
{
    struct token_key *key = token_key_new();

    if (key == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "a key");
        return false;
    }
    memcpy(key->kid, from->kid, sizeof key->kid);
    key->kid_bytes = from->kid_bytes;
    key->alg = from->alg;
    if (from->alg == TOKEN_ALG_HS256) {
        token_secret_set(key, from->secret_, from->secret_bytes_);
    } else if (mbedtls_ecp_copy(&key->public_, &from->public_) != 0) {
        hf_error_set(error, EX_OSERR, ENOMEM, "a key");
        token_key_free(key);
        return false;
    }
    return token_keys_give(keys, key, error);
}

/* No memory must not look like a forgery: the one is answered "try again", the other "go away". */
static enum token_signature_result result_of(int mbedtls_result)
{
    if (mbedtls_result == 0) {
        return TOKEN_SIGNATURE_GOOD;
    }
    if (mbedtls_result == MBEDTLS_ERR_MPI_ALLOC_FAILED ||
        mbedtls_result == MBEDTLS_ERR_ECP_ALLOC_FAILED) {
        return TOKEN_SIGNATURE_FAILED;
    }
    return TOKEN_SIGNATURE_BAD;
}

static enum token_signature_result verify_p256(const struct token_key *key, const uint8_t *digest,
                                               const uint8_t *signature)
{
    mbedtls_ecp_group group;
    mbedtls_mpi r;
    mbedtls_mpi s;
    enum token_signature_result result = TOKEN_SIGNATURE_FAILED;

    mbedtls_mpi_init(&r);
    mbedtls_mpi_init(&s);
    if (token_p256_open(&group) && mbedtls_mpi_read_binary(&r, signature, P256_BYTES) == 0 &&
        mbedtls_mpi_read_binary(&s, signature + P256_BYTES, P256_BYTES) == 0) {
        /* It refuses r and s that are 0, n or beyond. */
        result = result_of(mbedtls_ecdsa_verify(&group, digest, HMAC_BYTES, &key->public_, &r, &s));
    }
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&r);
    mbedtls_ecp_group_free(&group);
    return result;
}

/* RFC 6979: the secret of a signature comes from key and message, so no generator can betray it. */
static enum token_signature_result sign_p256(const struct token_key *key, const uint8_t *digest,
                                             uint8_t *signature)
{
    mbedtls_ecp_group group;
    mbedtls_mpi r;
    mbedtls_mpi s;
    enum token_signature_result result = TOKEN_SIGNATURE_FAILED;

    mbedtls_mpi_init(&r);
    mbedtls_mpi_init(&s);
    if (token_p256_open(&group) &&
        mbedtls_ecdsa_sign_det_ext(&group, &r, &s, &key->private_, digest, HMAC_BYTES,
                                   MBEDTLS_MD_SHA256, token_random, NULL) == 0 &&
        mbedtls_mpi_write_binary(&r, signature, P256_BYTES) == 0 &&
        mbedtls_mpi_write_binary(&s, signature + P256_BYTES, P256_BYTES) == 0) {
        result = TOKEN_SIGNATURE_GOOD;
    }
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&r);
    mbedtls_ecp_group_free(&group);
    return result;
}

enum token_signature_result token_key_verify(const struct token_key *key, const void *bytes,
                                             size_t byte_count, const uint8_t *signature,
                                             size_t signature_bytes)
{
    uint8_t expected[HMAC_BYTES];

    if (signature_bytes != token_signature_bytes(key->alg)) {
        return TOKEN_SIGNATURE_BAD;
    }
    if (key->alg == TOKEN_ALG_HS256) {
        hmac_compute(&key->hmac_, bytes, byte_count, expected);
        const bool equal = mbedtls_ct_memcmp(expected, signature, sizeof expected) == 0;
        mbedtls_platform_zeroize(expected, sizeof expected); /* it would sign these bytes */
        return equal ? TOKEN_SIGNATURE_GOOD : TOKEN_SIGNATURE_BAD;
    }
    if (mbedtls_sha256(bytes, byte_count, expected, 0) != 0) {
        return TOKEN_SIGNATURE_FAILED;
    }
    return verify_p256(key, expected, signature);
}

enum token_signature_result token_key_sign(const struct token_key *key, const void *bytes,
                                           size_t byte_count,
                                           uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX])
{
    uint8_t digest[HMAC_BYTES];

    HF_ASSERT(key->can_sign);
    if (key->alg == TOKEN_ALG_HS256) {
        hmac_compute(&key->hmac_, bytes, byte_count, signature);
        return TOKEN_SIGNATURE_GOOD;
    }
    if (mbedtls_sha256(bytes, byte_count, digest, 0) != 0) {
        return TOKEN_SIGNATURE_FAILED;
    }
    return sign_p256(key, digest, signature);
}

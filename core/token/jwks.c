/*
 * The file form of a set of keys: JSON Web Keys are read and written here.
 */
#include "core/base/check.h"
#include "core/token/base64url.h"
#include "core/token/json.h"
#include "core/token/keys_internal.h"
#include "core/token/private_file.h"
#include "core/token/random.h"

#include <errno.h>
#include <mbedtls/platform_util.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define JWKS_BYTES_MAX        65536
#define P256_BYTES            32
#define P256_POINT_BYTES      65 /* 4, x, y: SEC 1 section 2.3.3 */
#define P256_COORDINATE_CHARS BASE64URL_TEXT_BYTES(P256_BYTES)

enum key_result {
    KEY_GOOD,
    KEY_SKIPPED,
    KEY_BAD,
};

/* True if the member isn't there, or is this string. */
static bool is_or_absent(const struct json_object *jwk, const char *name, const char *wanted)
{
    const struct json_value *value = json_find(jwk, name);

    return value == NULL || json_equals(value, wanted);
}

/* A key that says what it may do must allow signatures. */
static bool allows_signatures(const struct json_object *jwk)
{
    const struct json_value *operations = json_find(jwk, "key_ops");
    struct json_array array;
    struct json_value operation;

    if (operations == NULL) {
        return true;
    }
    if (operations->type != JSON_ARRAY) {
        return false;
    }
    json_array_begin(&array, operations);
    while (json_array_next(&array, &operation)) {
        if (json_equals(&operation, "verify") || json_equals(&operation, "sign")) {
            return true;
        }
    }
    return false;
}

/* RFC 7517 section 5: keys that a reader doesn't understand are passed over, not refused. */
static bool is_for_us(const struct json_object *jwk, enum token_alg *alg)
{
    const struct json_value *type = json_find(jwk, "kty");

    if (json_equals(type, "oct")) {
        *alg = TOKEN_ALG_HS256;
    } else if (json_equals(type, "EC") && is_or_absent(jwk, "crv", "P-256")) {
        *alg = TOKEN_ALG_ES256;
    } else {
        return false;
    }
    return is_or_absent(jwk, "alg", token_alg_name(*alg)) && is_or_absent(jwk, "use", "sig") &&
           allows_signatures(jwk);
}

static bool get_bytes(const struct json_object *jwk, const char *name, uint8_t *bytes,
                      size_t bytes_max, size_t *byte_count)
{
    const struct json_value *value = json_find(jwk, name);

    return value != NULL && value->type == JSON_STRING &&
           base64url_decode(bytes, bytes_max, byte_count, value->bytes, value->byte_count);
}

static bool read_secret(struct token_key *key, const struct json_object *jwk,
                        struct hf_error *error)
{
    uint8_t secret[TOKEN_SECRET_BYTES_MAX];
    size_t secret_bytes;
    const bool good = get_bytes(jwk, "k", secret, sizeof secret, &secret_bytes) &&
                      secret_bytes >= TOKEN_SECRET_BYTES_MIN;

    if (good) {
        token_secret_set(key, secret, secret_bytes);
    } else {
        hf_error_set(error, EX_DATAERR, 0, "k must be base64url of %d to %d bytes",
                     TOKEN_SECRET_BYTES_MIN, TOKEN_SECRET_BYTES_MAX);
    }
    mbedtls_platform_zeroize(secret, sizeof secret);
    return good;
}

static bool read_point(struct token_key *key, mbedtls_ecp_group *group,
                       const struct json_object *jwk, struct hf_error *error)
{
    uint8_t point[P256_POINT_BYTES] = { 4 };
    size_t x_bytes = 0;
    size_t y_bytes = 0;

    if (!get_bytes(jwk, "x", point + 1, P256_BYTES, &x_bytes) ||
        !get_bytes(jwk, "y", point + 1 + P256_BYTES, P256_BYTES, &y_bytes) ||
        x_bytes != P256_BYTES || y_bytes != P256_BYTES) {
        hf_error_set(error, EX_DATAERR, 0, "x and y must each be base64url of %d bytes",
                     P256_BYTES);
        return false;
    }
    if (mbedtls_ecp_point_read_binary(group, &key->public_, point, sizeof point) != 0 ||
        mbedtls_ecp_check_pubkey(group, &key->public_) != 0) {
        hf_error_set(error, EX_DATAERR, 0, "x and y aren't a point on P-256");
        return false;
    }
    return true;
}

static bool private_fits(struct token_key *key, mbedtls_ecp_group *group)
{
    mbedtls_ecp_point product;
    bool good;

    mbedtls_ecp_point_init(&product);
    good = mbedtls_ecp_check_privkey(group, &key->private_) == 0 &&
           mbedtls_ecp_mul(group, &product, &key->private_, &group->G, token_random, NULL) == 0 &&
           mbedtls_ecp_point_cmp(&product, &key->public_) == 0;
    mbedtls_ecp_point_free(&product);
    return good;
}

static bool read_private(struct token_key *key, mbedtls_ecp_group *group,
                         const struct json_object *jwk, struct hf_error *error)
{
    uint8_t scalar[P256_BYTES];
    size_t scalar_bytes;

    key->can_sign = get_bytes(jwk, "d", scalar, sizeof scalar, &scalar_bytes) &&
                    scalar_bytes == P256_BYTES &&
                    mbedtls_mpi_read_binary(&key->private_, scalar, P256_BYTES) == 0 &&
                    private_fits(key, group);
    mbedtls_platform_zeroize(scalar, sizeof scalar);
    if (!key->can_sign) {
        hf_error_set(error, EX_DATAERR, 0, "d isn't the private key of x and y");
    }
    return key->can_sign;
}

static bool read_p256(struct token_key *key, const struct json_object *jwk, enum token_keys_use use,
                      struct hf_error *error)
{
    const bool has_private = json_find(jwk, "d") != NULL;
    mbedtls_ecp_group group;
    bool good = false;

    if (json_find(jwk, "crv") == NULL) {
        hf_error_set(error, EX_DATAERR, 0, "crv is missing");
        return false;
    }
    if (has_private && use == TOKEN_KEYS_VERIFY) {
        hf_error_set(error, EX_CONFIG, 0,
                     "holds the private key (d), which only the issuer may have: give the server "
                     "the file made by \"holdfast-token keys new --public\"");
        return false;
    }
    if (!token_p256_open(&group)) {
        hf_error_set(error, EX_OSERR, ENOMEM, "P-256");
    } else {
        good = read_point(key, &group, jwk, error) &&
               (!has_private || read_private(key, &group, jwk, error));
    }
    mbedtls_ecp_group_free(&group);
    return good;
}

static bool read_kid(struct token_key *key, const struct json_object *jwk, struct hf_error *error)
{
    const struct json_value *kid = json_find(jwk, "kid");

    if (kid == NULL || kid->type != JSON_STRING) {
        hf_error_set(error, EX_DATAERR, 0, "kid, the name that tokens call the key by, is missing");
        return false;
    }
    return token_kid_set(key, kid->bytes, kid->byte_count, error);
}

static enum key_result read_key(struct token_keys *keys, const struct json_value *element,
                                enum token_keys_use use, struct hf_error *error)
{
    struct json_object jwk;
    enum token_alg alg;

    if (!json_read_object(&jwk, element->bytes, element->byte_count) ||
        json_find(&jwk, "kty") == NULL) {
        hf_error_set(error, EX_DATAERR, 0, "not a JSON object with kty, or it has a member twice");
        return KEY_BAD;
    }
    if (!is_for_us(&jwk, &alg)) {
        return KEY_SKIPPED;
    }

    struct token_key *key = token_key_new();
    if (key == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "a key");
        return KEY_BAD;
    }
    key->alg = alg;
    if (!read_kid(key, &jwk, error)) {
        token_key_free(key);
        return KEY_BAD;
    }
    if (!(alg == TOKEN_ALG_HS256 ? read_secret(key, &jwk, error)
                                 : read_p256(key, &jwk, use, error))) {
        hf_error_prepend(error, "kid \"%s\"", key->kid);
        token_key_free(key);
        return KEY_BAD;
    }
    return token_keys_give(keys, key, error) ? KEY_GOOD : KEY_BAD;
}

static bool read_set(struct token_keys *keys, char *text, size_t byte_count,
                     enum token_keys_use use, struct hf_error *error)
{
    struct json_object set;
    struct json_array array;
    struct json_value element;
    size_t number = 0;

    if (!json_read_object(&set, text, byte_count)) {
        hf_error_set(error, EX_DATAERR, 0, "not strict JSON, or a member comes twice");
        return false;
    }
    const struct json_value *list = json_find(&set, "keys");
    if (list == NULL || list->type != JSON_ARRAY) {
        hf_error_set(error, EX_DATAERR, 0, "not a JSON Web Key Set: {\"keys\":[...]}");
        return false;
    }
    json_array_begin(&array, list);
    while (json_array_next(&array, &element)) {
        number++;
        switch (read_key(keys, &element, use, error)) {
        case KEY_GOOD:
            break;
        case KEY_SKIPPED:
            keys->skipped_count++;
            break;
        case KEY_BAD:
        default:
            hf_error_prepend(error, "key %zu", number);
            return false;
        }
    }
    return true;
}

bool token_keys_parse(struct token_keys **keys, char *text, size_t byte_count,
                      enum token_keys_use use, struct hf_error *error)
{
    *keys = NULL;
    if (byte_count > JWKS_BYTES_MAX) {
        hf_error_set(error, EX_DATAERR, 0, "more than %d bytes", JWKS_BYTES_MAX);
        return false;
    }

    struct token_keys *set = token_keys_new();
    if (set == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "a set of keys");
        return false;
    }
    if (!read_set(set, text, byte_count, use, error)) {
        token_keys_close(set);
        return false;
    }
    if (set->count == 0 && use == TOKEN_KEYS_VERIFY) {
        hf_error_set(error, EX_DATAERR, 0,
                     "no key for ES256 (EC, P-256) or HS256 (oct) among its %zu: nobody could log "
                     "in",
                     set->skipped_count);
        token_keys_close(set);
        return false;
    }
    *keys = set;
    return true;
}

bool token_keys_open(struct token_keys **keys, const char *path, enum token_keys_use use,
                     struct hf_error *error)
{
    char *text;
    size_t byte_count = 0;

    *keys = NULL;
    if (!private_file_read(path, JWKS_BYTES_MAX, &text, &byte_count, NULL, error)) {
        return false;
    }
    const bool good = token_keys_parse(keys, text, byte_count, use, error);
    private_bytes_free(text, byte_count);
    if (!good) {
        hf_error_prepend(error, "%s", path);
    }
    return good;
}

/* Text that grows at its end; its room is enough for every set that there can be. */
struct writer {
    char *text;
    size_t count;
};

static void put(struct writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct writer *writer, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    const int count =
        vsnprintf(writer->text + writer->count, JWKS_BYTES_MAX - writer->count, format, arguments);
    va_end(arguments);
    HF_ASSERT(count >= 0 && (size_t)count < JWKS_BYTES_MAX - writer->count);
    writer->count += (size_t)count;
}

static void put_bytes(struct writer *writer, const char *name, const uint8_t *bytes,
                      size_t byte_count)
{
    char text[BASE64URL_TEXT_BYTES(TOKEN_SECRET_BYTES_MAX)];
    const size_t text_bytes = base64url_encode(text, bytes, byte_count);

    put(writer, ",\"%s\":\"%.*s\"", name, (int)text_bytes, text);
    mbedtls_platform_zeroize(text, sizeof text);
}

static bool put_p256(struct writer *writer, const struct token_key *key)
{
    uint8_t point[P256_POINT_BYTES];
    uint8_t scalar[P256_BYTES];
    size_t point_bytes = 0;
    mbedtls_ecp_group group;
    bool good = token_p256_open(&group) &&
                mbedtls_ecp_point_write_binary(&group, &key->public_, MBEDTLS_ECP_PF_UNCOMPRESSED,
                                               &point_bytes, point, sizeof point) == 0 &&
                point_bytes == sizeof point;

    mbedtls_ecp_group_free(&group);
    if (good) {
        put_bytes(writer, "x", point + 1, P256_BYTES);
        put_bytes(writer, "y", point + 1 + P256_BYTES, P256_BYTES);
    }
    if (good && key->can_sign) {
        good = mbedtls_mpi_write_binary(&key->private_, scalar, sizeof scalar) == 0;
        if (good) {
            put_bytes(writer, "d", scalar, sizeof scalar);
        }
        mbedtls_platform_zeroize(scalar, sizeof scalar);
    }
    return good;
}

bool token_keys_write(const struct token_keys *keys, const char *path, struct hf_error *error)
{
    struct writer writer = { malloc(JWKS_BYTES_MAX), 0 };
    bool good = true;

    if (writer.text == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
        return false;
    }
    put(&writer, "{\"keys\":[");
    for (size_t i = 0; i < keys->count && good; i++) {
        const struct token_key *key = keys->keys[i];
        const bool is_secret = key->alg == TOKEN_ALG_HS256;

        put(&writer, "%s\n  {\"kty\":\"%s\",\"kid\":\"%s\",\"alg\":\"%s\",\"use\":\"sig\"%s",
            i == 0 ? "" : ",", is_secret ? "oct" : "EC", key->kid, token_alg_name(key->alg),
            is_secret ? "" : ",\"crv\":\"P-256\"");
        if (is_secret) {
            put_bytes(&writer, "k", key->secret_, key->secret_bytes_);
        } else {
            good = put_p256(&writer, key);
        }
        put(&writer, "}");
    }
    put(&writer, "\n]}\n");
    if (good) {
        good = private_file_replace(path, writer.text, writer.count, error);
    } else {
        hf_error_set(error, EX_OSERR, ENOMEM, "%s: P-256", path);
    }
    private_bytes_free(writer.text, JWKS_BYTES_MAX);
    return good;
}

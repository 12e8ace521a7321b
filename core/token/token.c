#include "core/token/token.h"

#include "core/base/check.h"
#include "core/token/base64url.h"
#include "core/token/json.h"
#include "core/token/resume.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Header and claims together can't decode to more than three quarters of the token. */
#define DECODED_BYTES_MAX BASE64URL_BYTES_MAX(TOKEN_JWT_BYTES_MAX)

struct part {
    const char *text;
    size_t byte_count;
};

struct parts {
    struct part header;
    struct part claims;
    struct part signature;
    size_t signed_bytes; /* from the token's first byte to the second dot */
};

const char *token_status_text(enum token_status status)
{
    static const char *const texts[TOKEN_STATUS_COUNT] = {
#define TOKEN_STATUS_TEXT(name, label, text) [name] = (text),
        TOKEN_STATUS_LIST(TOKEN_STATUS_TEXT)
#undef TOKEN_STATUS_TEXT
    };

    HF_ASSERT(status < TOKEN_STATUS_COUNT);
    return texts[status];
}

const char *token_status_label(enum token_status status)
{
    static const char *const labels[TOKEN_STATUS_COUNT] = {
#define TOKEN_STATUS_LABEL(name, label, text) [name] = (label),
        TOKEN_STATUS_LIST(TOKEN_STATUS_LABEL)
#undef TOKEN_STATUS_LABEL
    };

    HF_ASSERT(status < TOKEN_STATUS_COUNT);
    return labels[status];
}

enum token_kind token_kind(const void *token, size_t byte_count)
{
    if (byte_count == 0) {
        return TOKEN_KIND_UNKNOWN;
    }
    switch (*(const uint8_t *)token) {
    case 'e':
        return TOKEN_KIND_JWT;
    case RESUME_TOKEN_VERSION:
        return TOKEN_KIND_RESUME;
    default:
        return TOKEN_KIND_UNKNOWN;
    }
}

/* Exactly two dots. More (an encrypted token has four) end up in the signature, and are refused. */
static bool split(struct parts *parts, const char *token, size_t byte_count)
{
    const char *end = token + byte_count;
    const char *first = memchr(token, '.', byte_count);
    const char *second = first == NULL ? NULL : memchr(first + 1, '.', (size_t)(end - (first + 1)));

    if (second == NULL || memchr(second + 1, '.', (size_t)(end - (second + 1))) != NULL) {
        return false;
    }
    parts->header = (struct part){ token, (size_t)(first - token) };
    parts->claims = (struct part){ first + 1, (size_t)(second - (first + 1)) };
    parts->signature = (struct part){ second + 1, (size_t)(end - (second + 1)) };
    parts->signed_bytes = (size_t)(second - token);
    return true;
}

static enum token_status read_part(struct json_object *object, char *room, const struct part *part)
{
    size_t byte_count;

    if (!base64url_decode(room, DECODED_BYTES_MAX, &byte_count, part->text, part->byte_count)) {
        return TOKEN_BAD_BASE64;
    }
    return json_read_object(object, room, byte_count) ? TOKEN_OK : TOKEN_BAD_JSON;
}

/*
 * The key is the one that kid names in our own file; nothing else in the header (jwk, jku, x5c) can
 * bring a key along. Its algorithm is the file's, and the header must agree: if the header chose,
 * a public key could be used as an HMAC secret (RFC 8725 section 2.1).
 */
static enum token_status choose_key(const struct token_keys *keys, const struct part *part,
                                    const struct token_key **key)
{
    struct json_object header;
    char room[DECODED_BYTES_MAX];
    const enum token_status status = read_part(&header, room, part);

    if (status != TOKEN_OK) {
        return status;
    }
    if (json_find(&header, "crit") != NULL) {
        return TOKEN_CRITICAL;
    }
    const struct json_value *alg = json_find(&header, "alg");
    if (alg == NULL || !(json_equals(alg, "ES256") || json_equals(alg, "HS256"))) {
        return TOKEN_BAD_ALG;
    }
    const struct json_value *kid = json_find(&header, "kid");
    if (kid == NULL || kid->type != JSON_STRING) {
        return TOKEN_NO_KEY_ID;
    }
    *key = token_keys_find(keys, kid->bytes, kid->byte_count);
    if (*key == NULL) {
        return TOKEN_UNKNOWN_KEY;
    }
    return json_equals(alg, token_alg_name((*key)->alg)) ? TOKEN_OK : TOKEN_ALG_MISMATCH;
}

static enum token_status check_signature(const struct token_key *key, const char *token,
                                         const struct parts *parts)
{
    uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];
    size_t signature_bytes;

    if (parts->signature.byte_count != BASE64URL_TEXT_BYTES(token_signature_bytes(key->alg))) {
        return TOKEN_BAD_SIGNATURE;
    }
    if (!base64url_decode(signature, sizeof signature, &signature_bytes, parts->signature.text,
                          parts->signature.byte_count)) {
        return TOKEN_BAD_BASE64;
    }
    switch (token_key_verify(key, token, parts->signed_bytes, signature, signature_bytes)) {
    case TOKEN_SIGNATURE_GOOD:
        return TOKEN_OK;
    case TOKEN_SIGNATURE_BAD:
        return TOKEN_BAD_SIGNATURE;
    case TOKEN_SIGNATURE_FAILED:
    default:
        return TOKEN_NO_ROOM;
    }
}

/* An id has one spelling: "1" is one user, and "01", "+1" and 1 are none. */
static bool read_id(const struct json_object *object, const char *name, uint64_t id_max,
                    uint64_t *id)
{
    const struct json_value *value = json_find(object, name);
    uint64_t sum = 0;

    if (value == NULL || value->type != JSON_STRING || value->byte_count == 0 ||
        value->byte_count > 20 || value->bytes[0] == '0') {
        return false;
    }
    for (size_t i = 0; i < value->byte_count; i++) {
        const char digit = value->bytes[i];
        if (digit < '0' || digit > '9' || sum > (id_max - (uint64_t)(digit - '0')) / 10) {
            return false;
        }
        sum = sum * 10 + (uint64_t)(digit - '0');
    }
    *id = sum;
    return true;
}

/* A time that may be missing is then 0. */
static bool read_time(const struct json_object *object, const char *name, bool demanded,
                      uint64_t *unix_s)
{
    const struct json_value *value = json_find(object, name);

    *unix_s = 0;
    if (value == NULL) {
        return !demanded;
    }
    return json_to_seconds(value, unix_s);
}

static bool audience_fits(const struct json_object *object, const char *wanted)
{
    const struct json_value *audience = json_find(object, "aud");
    struct json_array array;
    struct json_value element;

    if (wanted == NULL || audience == NULL) {
        return wanted == NULL && audience == NULL;
    }
    if (audience->type != JSON_ARRAY) {
        return json_equals(audience, wanted);
    }
    json_array_begin(&array, audience);
    while (json_array_next(&array, &element)) {
        if (json_equals(&element, wanted)) {
            return true;
        }
    }
    return false;
}

static enum token_status judge_times(const struct token_rules *rules,
                                     const struct token_claims *claims)
{
    const uint64_t now = rules->now_unix_s;

    if (now >= claims->expires_at_unix_s + rules->leeway_s) {
        return TOKEN_EXPIRED;
    }
    if (claims->not_before_unix_s > now + rules->leeway_s) {
        return TOKEN_NOT_YET_VALID;
    }
    if (rules->life_max_s != 0 &&
        claims->expires_at_unix_s > now + rules->leeway_s + rules->life_max_s) {
        return TOKEN_LIVES_TOO_LONG;
    }
    return TOKEN_OK;
}

static enum token_status read_claims(const struct token_rules *rules, const struct part *part,
                                     struct token_claims *claims)
{
    struct json_object object;
    char room[DECODED_BYTES_MAX];
    struct token_claims found;
    uint64_t device;
    const enum token_status status = read_part(&object, room, part);

    if (status != TOKEN_OK) {
        return status;
    }
    if (!read_id(&object, "sub", ID_GROUP_BIT - 1, &found.user.value)) {
        return TOKEN_BAD_USER;
    }
    if (!read_id(&object, "dev", UINT32_MAX, &device)) {
        return TOKEN_BAD_DEVICE;
    }
    found.device.value = (uint32_t)device;
    if (!read_time(&object, "exp", true, &found.expires_at_unix_s) ||
        !read_time(&object, "nbf", false, &found.not_before_unix_s) ||
        !read_time(&object, "iat", false, &found.issued_at_unix_s)) {
        return TOKEN_BAD_TIME;
    }
    if (!audience_fits(&object, rules->audience)) {
        return TOKEN_BAD_AUDIENCE;
    }
    const enum token_status judged = judge_times(rules, &found);
    if (judged == TOKEN_OK) {
        *claims = found;
    }
    return judged;
}

enum token_status token_verify(const struct token_keys *keys, const struct token_rules *rules,
                               const void *token, size_t byte_count, struct token_claims *claims)
{
    struct parts parts;
    const struct token_key *key;
    enum token_status status;

    /* So that no sum of times below can overflow: what is read is less than 10^15. */
    HF_ASSERT(rules->now_unix_s < UINT64_C(1) << 60 && rules->leeway_s < UINT64_C(1) << 60 &&
              rules->life_max_s < UINT64_C(1) << 60);

    if (byte_count > TOKEN_JWT_BYTES_MAX) {
        return TOKEN_TOO_LONG;
    }
    if (token_kind(token, byte_count) != TOKEN_KIND_JWT || !split(&parts, token, byte_count)) {
        return TOKEN_MALFORMED;
    }
    status = choose_key(keys, &parts.header, &key);
    if (status == TOKEN_OK) {
        status = check_signature(key, token, &parts);
    }
    if (status == TOKEN_OK) {
        status = read_claims(rules, &parts.claims, claims);
    }
    return status;
}

bool token_audience_is_plain(const char *audience)
{
    const size_t byte_count = strlen(audience);

    for (size_t i = 0; i < byte_count; i++) {
        if (audience[i] < ' ' || audience[i] > '~' || audience[i] == '"' || audience[i] == '\\') {
            return false;
        }
    }
    return byte_count > 0 && byte_count <= TOKEN_AUDIENCE_BYTES_MAX;
}

static size_t write_claims(char *text, size_t text_max, const struct token_claims *claims,
                           const char *audience)
{
    int used = snprintf(text, text_max, "{\"sub\":\"%" PRIu64 "\",\"dev\":\"%" PRIu32 "\"",
                        claims->user.value, claims->device.value);

    if (audience != NULL) {
        used += snprintf(text + used, text_max - (size_t)used, ",\"aud\":\"%s\"", audience);
    }
    if (claims->issued_at_unix_s != 0) {
        used += snprintf(text + used, text_max - (size_t)used, ",\"iat\":%" PRIu64,
                         claims->issued_at_unix_s);
    }
    if (claims->not_before_unix_s != 0) {
        used += snprintf(text + used, text_max - (size_t)used, ",\"nbf\":%" PRIu64,
                         claims->not_before_unix_s);
    }
    used += snprintf(text + used, text_max - (size_t)used, ",\"exp\":%" PRIu64 "}",
                     claims->expires_at_unix_s);
    HF_ASSERT(used > 0 && (size_t)used < text_max);
    return (size_t)used;
}

enum token_status token_sign(const struct token_key *key, const struct token_claims *claims,
                             const char *audience, char *token, size_t token_bytes_max,
                             size_t *byte_count)
{
    char header[64 + TOKEN_KID_BYTES_MAX];
    char body[256 + TOKEN_AUDIENCE_BYTES_MAX];
    uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];

    HF_ASSERT(user_id_valid(claims->user) && claims->device.value != 0);
    HF_ASSERT(audience == NULL || token_audience_is_plain(audience));
    if (!key->can_sign) {
        return TOKEN_CANNOT_SIGN;
    }

    const int header_bytes =
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"typ\":\"JWT\",\"kid\":\"%s\"}",
                 token_alg_name(key->alg), key->kid);
    HF_ASSERT(header_bytes > 0 && (size_t)header_bytes < sizeof header);
    const size_t body_bytes = write_claims(body, sizeof body, claims, audience);
    const size_t signature_bytes = token_signature_bytes(key->alg);
    const size_t total = BASE64URL_TEXT_BYTES((size_t)header_bytes) + 1 +
                         BASE64URL_TEXT_BYTES(body_bytes) + 1 +
                         BASE64URL_TEXT_BYTES(signature_bytes);

    if (total > token_bytes_max) {
        return TOKEN_NO_ROOM;
    }
    size_t used = base64url_encode(token, header, (size_t)header_bytes);
    token[used++] = '.';
    used += base64url_encode(token + used, body, body_bytes);
    if (token_key_sign(key, token, used, signature) != TOKEN_SIGNATURE_GOOD) {
        return TOKEN_NO_ROOM;
    }
    token[used++] = '.';
    used += base64url_encode(token + used, signature, signature_bytes);
    HF_ASSERT(used == total && used <= TOKEN_JWT_BYTES_MAX);
    *byte_count = used;
    return TOKEN_OK;
}

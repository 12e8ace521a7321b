/*
 * Whatever a key file holds, its reader refuses it or gives keys that sign and verify; a file good
 * enough for a server is good enough for an issuer.
 */
#include "core/base/check.h"
#include "core/token/json.h"
#include "core/token/resume.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static char *copy_of(const uint8_t *bytes, size_t byte_count)
{
    char *copy = malloc(byte_count + (byte_count == 0));

    HF_ASSERT(copy != NULL);
    memcpy(copy, bytes, byte_count);
    return copy;
}

static struct token_keys *parse(const uint8_t *bytes, size_t byte_count, enum token_keys_use use)
{
    struct token_keys *keys;
    struct hf_error error = { 0 };
    char *copy = copy_of(bytes, byte_count);
    const bool good = token_keys_parse(&keys, copy, byte_count, use, &error);

    HF_ASSERT(good == (keys != NULL) && good == (error.exit_code == 0));
    free(copy);
    return keys;
}

static void check_keys(const struct token_keys *keys)
{
    HF_ASSERT(keys->count <= TOKEN_KEYS_MAX);
    for (size_t i = 0; i < keys->count; i++) {
        const struct token_key *key = keys->keys[i];
        uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];

        HF_ASSERT(token_keys_find(keys, key->kid, key->kid_bytes) == key); /* no kid twice */
        if (key->can_sign && i == 0) {
            HF_ASSERT(token_key_sign(key, "m", 1, signature) == TOKEN_SIGNATURE_GOOD);
            HF_ASSERT(token_key_verify(key, "m", 1, signature, token_signature_bytes(key->alg)) ==
                      TOKEN_SIGNATURE_GOOD);
        }
    }
}

static void check_jwks(const uint8_t *bytes, size_t byte_count)
{
    struct token_keys *signer = parse(bytes, byte_count, TOKEN_KEYS_SIGN);
    struct token_keys *server = parse(bytes, byte_count, TOKEN_KEYS_VERIFY);

    if (server != NULL) {
        HF_ASSERT(signer != NULL && signer->count == server->count && server->count > 0);
        HF_ASSERT(signer->skipped_count == server->skipped_count);
    }
    if (signer != NULL) {
        check_keys(signer);
    }
    token_keys_close(signer);
    token_keys_close(server);
}

static void check_ring(const uint8_t *bytes, size_t byte_count)
{
    static struct resume_ring ring;
    struct hf_error error;
    const struct resume_claims claims = { .user = { 1 }, .device = { 1 }, .expires_at_unix_s = 1 };
    struct resume_claims found;
    uint8_t token[RESUME_TOKEN_BYTES];

    if (!resume_ring_parse(&ring, (const char *)bytes, byte_count, &error)) {
        HF_ASSERT(ring.count == 0);
        return;
    }
    HF_ASSERT(ring.count > 0 && ring.count <= RESUME_KEYS_MAX);
    for (size_t i = 1; i < ring.count; i++) {
        HF_ASSERT(ring.keys[i].id > ring.keys[i - 1].id);
        HF_ASSERT(ring.keys[i].active_at_unix_s >= ring.keys[i - 1].active_at_unix_s);
    }
    resume_sign(&ring, &claims, token);
    HF_ASSERT(resume_verify(&ring, 0, token, sizeof token, &found) == TOKEN_OK);
}

/* Members that are objects or lists were checked with the whole, so they can be read. */
static void check_json(const uint8_t *bytes, size_t byte_count)
{
    static struct json_object object;
    static struct json_object inner;
    char *copy = copy_of(bytes, byte_count);

    if (json_read_object(&object, copy, byte_count)) {
        for (size_t i = 0; i < object.count; i++) {
            const struct json_value *value = &object.members[i].value;
            struct json_array array;
            struct json_value element;

            HF_ASSERT(value->bytes >= copy);
            HF_ASSERT(value->bytes + value->byte_count <= copy + byte_count);
            if (value->type == JSON_OBJECT) {
                (void)!json_read_object(&inner, value->bytes, value->byte_count);
            } else if (value->type == JSON_ARRAY) {
                json_array_begin(&array, value);
                while (json_array_next(&array, &element)) {
                    HF_ASSERT(element.bytes + element.byte_count <= copy + byte_count);
                }
            }
        }
    }
    free(copy);
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    check_json(bytes, byte_count);
    check_ring(bytes, byte_count);
    check_jwks(bytes, byte_count);
}

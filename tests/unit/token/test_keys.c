#include "core/token/keys.h"

#include "tests/unit/token/forge.h"
#include "tests/unit/token/scratch_dir.h"

#define SIGNING_INPUT_PAYLOAD                                                                       \
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"

static const struct {
    const char *name;
    const char *kid;
    const char *input;
    const char *signature;
} jws_vectors[] = {
    { "RFC 7515 A.1", "hs", "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" SIGNING_INPUT_PAYLOAD,
      "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" },
    { "RFC 7515 A.3", "es", "eyJhbGciOiJFUzI1NiJ9" SIGNING_INPUT_PAYLOAD,
      "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q" },
};

static void jws_vectors_verify_and_no_other_bit_pattern(void **state)
{
    struct token_keys *keys = keys_from(JWKS_VERIFIER, TOKEN_KEYS_VERIFY);

    (void)state;
    for (size_t i = 0; i < sizeof jws_vectors / sizeof jws_vectors[0]; i++) {
        const struct token_key *key = token_keys_find(keys, jws_vectors[i].kid, 2);
        const char *input = jws_vectors[i].input;
        const size_t input_bytes = strlen(input);
        uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];
        size_t count;

        print_message("%s\n", jws_vectors[i].name);
        assert_non_null(key);
        assert_true(base64url_decode(signature, sizeof signature, &count, jws_vectors[i].signature,
                                     strlen(jws_vectors[i].signature)));
        assert_int_equal(count, token_signature_bytes(key->alg));
        assert_int_equal(token_key_verify(key, input, input_bytes, signature, count),
                         TOKEN_SIGNATURE_GOOD);
        assert_int_equal(token_key_verify(key, input, input_bytes - 1, signature, count),
                         TOKEN_SIGNATURE_BAD);
        assert_int_equal(token_key_verify(key, input, input_bytes, signature, count - 1),
                         TOKEN_SIGNATURE_BAD);
        for (size_t bit = 0; bit < 8 * count; bit += 7) {
            signature[bit / 8] ^= (uint8_t)(1U << bit % 8);
            assert_int_equal(token_key_verify(key, input, input_bytes, signature, count),
                             TOKEN_SIGNATURE_BAD);
            signature[bit / 8] ^= (uint8_t)(1U << bit % 8);
        }
    }
    token_keys_close(keys);
}

/* RFC 6979 A.2.5, P-256 with SHA-256, message "sample". */
static void es256_signature_is_deterministic(void **state)
{
    static const char jwks[] = "{\"keys\":[{\"kty\":\"EC\",\"kid\":\"k\",\"crv\":\"P-256\","
                               "\"x\":\"YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y\","
                               "\"y\":\"eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk\","
                               "\"d\":\"ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE\"}]}";
    static const uint8_t wanted[64] = {
        0xEF, 0xD4, 0x8B, 0x2A, 0xAC, 0xB6, 0xA8, 0xFD, 0x11, 0x40, 0xDD, 0x9C, 0xD4,
        0x5E, 0x81, 0xD6, 0x9D, 0x2C, 0x87, 0x7B, 0x56, 0xAA, 0xF9, 0x91, 0xC3, 0x4D,
        0x0E, 0xA8, 0x4E, 0xAF, 0x37, 0x16, 0xF7, 0xCB, 0x1C, 0x94, 0x2D, 0x65, 0x7C,
        0x41, 0xD4, 0x36, 0xC7, 0xA1, 0xB6, 0xE2, 0x9F, 0x65, 0xF3, 0xE9, 0x00, 0xDB,
        0xB9, 0xAF, 0xF4, 0x06, 0x4D, 0xC4, 0xAB, 0x2F, 0x84, 0x3A, 0xCD, 0xA8,
    };
    struct token_keys *keys = keys_from(jwks, TOKEN_KEYS_SIGN);
    uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];

    (void)state;
    assert_int_equal(token_key_sign(keys->keys[0], "sample", 6, signature), TOKEN_SIGNATURE_GOOD);
    assert_memory_equal(signature, wanted, sizeof wanted);
    token_keys_close(keys);
}

/* r and s of 0, n, n + 1 and 2^256 - 1: none is a signature of anything. */
static void es256_numbers_out_of_range_are_refused(void **state)
{
    static const uint8_t order[32] = {
        0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17,
        0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
    };
    struct token_keys *keys = keys_from(JWKS_SIGNER, TOKEN_KEYS_SIGN);
    const struct token_key *key = token_keys_find(keys, "es", 2);
    uint8_t good[TOKEN_SIGNATURE_BYTES_MAX];
    uint8_t numbers[4][32] = { { 0 } };

    (void)state;
    memcpy(numbers[1], order, sizeof order);
    memcpy(numbers[2], order, sizeof order);
    numbers[2][31]++;
    memset(numbers[3], 0xff, sizeof numbers[3]);
    assert_int_equal(token_key_sign(key, "m", 1, good), TOKEN_SIGNATURE_GOOD);
    for (size_t i = 0; i < 4; i++) {
        for (size_t half = 0; half < 3; half++) { /* r, s, both */
            uint8_t bad[TOKEN_SIGNATURE_BYTES_MAX];

            memcpy(bad, good, sizeof bad);
            if (half != 1) {
                memcpy(bad, numbers[i], 32);
            }
            if (half != 0) {
                memcpy(bad + 32, numbers[i], 32);
            }
            assert_int_equal(token_key_verify(key, "m", 1, bad, sizeof bad), TOKEN_SIGNATURE_BAD);
        }
    }
    token_keys_close(keys);
}

#define RFC7517_A3_SECRET                                                                          \
    "\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CA" \
    "ow\""
#define P256_XY                                                                                    \
    "\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","                                       \
    "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\""
#define P256_D "\"d\":\"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE\""
#define RSA                                                                                         \
    "{\"kty\":\"RSA\",\"n\":\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1"  \
    "RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4" \
    "QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrd" \
    "kt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw\","  \
    "\"e\":\"AQAB\",\"alg\":\"RS256\",\"kid\":\"2011-04-29\"}"

static const struct {
    const char *name;
    const char *jwks;
    size_t count;
    size_t skipped_count;
    bool can_sign; /* the first */
} sets[] = {
    { "RFC 7517 A.3",
      "{\"keys\":[{\"kty\":\"oct\",\"alg\":\"A128KW\",\"k\":\"GawgguFyGrWKav7AX4VKUg\"},"
      "{\"kty\":\"oct\"," RFC7517_A3_SECRET ",\"kid\":\"HMAC key used in JWS spec Appendix A.1 "
      "example\"}]}",
      1, 1, true },
    { "RFC 7517 A.1, for signatures",
      "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," P256_XY ",\"use\":\"sig\",\"kid\":\"1\"}," RSA
      "]}",
      1, 1, false },
    { "RFC 7517 A.1, for encryption",
      "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," P256_XY ",\"use\":\"enc\",\"kid\":\"1\"}," RSA
      "]}",
      0, 2, false },
    { "RFC 7517 A.2, for signatures",
      "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," P256_XY "," P256_D ",\"kid\":\"1\"}]}", 1, 0,
      true },
    { "empty", "{\"keys\":[]}", 0, 0, false },
    { "other members",
      "{\"x\":[{}],\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"x\":{\"y\":1}," RFC7517_A3_SECRET
      "}]}",
      1, 0, true },
    { "operations that sign",
      "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"key_ops\":[\"sign\",\"verify\"]," RFC7517_A3_SECRET
      "}]}",
      1, 0, true },
    { "operations that don't",
      "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"key_ops\":[\"encrypt\"]," RFC7517_A3_SECRET
      "}]}",
      0, 1, false },
    { "another curve, another hash",
      "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\",\"kid\":\"a\"},"
      "{\"kty\":\"oct\",\"alg\":\"HS512\",\"kid\":\"b\"},{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}]}",
      0, 3, false },
};

static void sets_are_read_and_strangers_skipped(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        print_message("%s\n", sets[i].name);
        struct token_keys *keys = keys_from(sets[i].jwks, TOKEN_KEYS_SIGN);
        assert_int_equal(keys->count, sets[i].count);
        assert_int_equal(keys->skipped_count, sets[i].skipped_count);
        if (keys->count > 0) {
            assert_int_equal(keys->keys[0]->can_sign, sets[i].can_sign);
        }
        token_keys_close(keys);
    }
}

#define ONE(members) "{\"keys\":[{" members "}]}"

static const struct {
    const char *name;
    const char *jwks;
    const char *says;
} bad_sets[] = {
    { "not JSON", "keys", "not strict JSON" },
    { "a key, not a set", "{\"kty\":\"oct\",\"kid\":\"a\"," RFC7517_A3_SECRET "}",
      "not a JSON Web Key Set" },
    { "keys isn't a list", "{\"keys\":{}}", "not a JSON Web Key Set" },
    { "a key isn't an object", "{\"keys\":[1]}", "key 1: not a JSON object" },
    { "no type", ONE("\"kid\":\"a\""), "key 1: not a JSON object with kty" },
    { "a member twice", ONE("\"kty\":\"oct\",\"kty\":\"oct\""), "a member twice" },
    { "no kid", ONE("\"kty\":\"oct\"," RFC7517_A3_SECRET), "key 1: kid, the name" },
    { "kid is a number", ONE("\"kty\":\"oct\",\"kid\":1," RFC7517_A3_SECRET),
      "key 1: kid, the name" },
    { "kid is empty", ONE("\"kty\":\"oct\",\"kid\":\"\"," RFC7517_A3_SECRET),
      "a kid has 1 to 128" },
    { "kid with a quote", ONE("\"kty\":\"oct\",\"kid\":\"a\\\"\"," RFC7517_A3_SECRET),
      "printable" },
    { "kid with NUL", ONE("\"kty\":\"oct\",\"kid\":\"a\\u0000\"," RFC7517_A3_SECRET), "printable" },
    { "kid twice",
      "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\"," RFC7517_A3_SECRET
      "},{\"kty\":\"EC\",\"crv\":\"P-256\"," P256_XY ",\"kid\":\"\\u0061\"}]}",
      "key 2: there is a key with kid \"a\" already" },
    { "no secret", ONE("\"kty\":\"oct\",\"kid\":\"a\""), "kid \"a\": k must be" },
    { "secret of 31 bytes",
      ONE("\"kty\":\"oct\",\"kid\":\"a\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""),
      "k must be base64url of 32 to 256 bytes" },
    { "secret with padding",
      ONE("\"kty\":\"oct\",\"kid\":\"a\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\""),
      "k must be" },
    { "no curve", ONE("\"kty\":\"EC\",\"kid\":\"a\"," P256_XY), "crv is missing" },
    { "no y",
      ONE("\"kty\":\"EC\",\"kid\":\"a\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\""),
      "x and y must each be" },
    { "x too short",
      ONE("\"kty\":\"EC\",\"kid\":\"a\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv\","
          "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\""),
      "x and y must each be" },
    { "not on the curve",
      ONE("\"kty\":\"EC\",\"kid\":\"a\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
          "\"y\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\""),
      "aren't a point on P-256" },
    { "d of another key",
      ONE("\"kty\":\"EC\",\"kid\":\"a\",\"crv\":\"P-256\"," P256_XY
          ",\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\""),
      "d isn't the private key" },
    { "d is 0",
      ONE("\"kty\":\"EC\",\"kid\":\"a\",\"crv\":\"P-256\"," P256_XY
          ",\"d\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""),
      "d isn't the private key" },
};

static bool parses(const char *text, enum token_keys_use use, struct hf_error *error)
{
    struct token_keys *keys;
    char *copy = strdup(text);

    assert_non_null(copy);
    const bool good = token_keys_parse(&keys, copy, strlen(text), use, error);
    free(copy);
    token_keys_close(keys);
    return good;
}

static void broken_sets_are_refused_with_the_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_sets / sizeof bad_sets[0]; i++) {
        struct hf_error error;

        assert_false(parses(bad_sets[i].jwks, TOKEN_KEYS_SIGN, &error));
        print_message("%s: %s\n", bad_sets[i].name, error.text);
        assert_non_null(strstr(error.text, bad_sets[i].says));
    }
}

static void server_refuses_private_keys_and_sets_without_keys(void **state)
{
    struct hf_error error;

    (void)state;
    assert_false(parses(JWKS_SIGNER, TOKEN_KEYS_VERIFY, &error));
    assert_non_null(strstr(error.text, "key 2: kid \"es\": holds the private key"));
    assert_true(parses(JWKS_VERIFIER, TOKEN_KEYS_VERIFY, &error));
    assert_false(parses("{\"keys\":[" RSA "]}", TOKEN_KEYS_VERIFY, &error));
    assert_non_null(strstr(error.text, "no key for ES256"));
}

static void keys_are_bounded(void **state)
{
    static char text[16384];
    struct hf_error error;

    (void)state;
    for (int count = TOKEN_KEYS_MAX; count <= TOKEN_KEYS_MAX + 1; count++) {
        int used = snprintf(text, sizeof text, "{\"keys\":[");
        for (int i = 0; i < count; i++) {
            used += snprintf(text + used, sizeof text - (size_t)used,
                             "%s{\"kty\":\"oct\",\"kid\":\"%d\"," RFC7517_A3_SECRET "}",
                             i == 0 ? "" : ",", i);
        }
        used += snprintf(text + used, sizeof text - (size_t)used, "]}");
        assert_true((size_t)used < sizeof text);
        assert_int_equal(parses(text, TOKEN_KEYS_SIGN, &error), count == TOKEN_KEYS_MAX);
    }
    assert_non_null(strstr(error.text, "more than 64 keys"));
}

static void made_keys_survive_the_file(void **state)
{
    struct scratch_dir *dir = *state;
    struct token_keys *made = token_keys_new();
    struct token_keys *server = token_keys_new();
    struct token_keys *read_back;
    struct token_keys *read_server;
    struct hf_error error;
    struct stat info;

    assert_true(token_keys_add(made, TOKEN_ALG_HS256, "h", &error));
    assert_true(token_keys_add(made, TOKEN_ALG_ES256, "e", &error));
    assert_false(token_keys_add(made, TOKEN_ALG_ES256, "h", &error));
    assert_false(token_keys_add(made, TOKEN_ALG_ES256, "", &error));
    assert_true(token_keys_write(made, dir->file, &error));
    assert_int_equal(stat(dir->file, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_true(token_keys_open(&read_back, dir->file, TOKEN_KEYS_SIGN, &error));
    assert_false(token_keys_open(&read_server, dir->file, TOKEN_KEYS_VERIFY, &error));
    assert_non_null(strstr(error.text, dir->file));

    for (size_t i = 0; i < 2; i++) {
        assert_true(token_keys_add_verifier(server, made->keys[i], &error));
    }
    assert_true(token_keys_write(server, dir->file, &error));
    assert_true(token_keys_open(&read_server, dir->file, TOKEN_KEYS_VERIFY, &error));
    for (size_t i = 0; i < 2; i++) {
        uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX];
        const struct token_key *signer = read_back->keys[i];
        const struct token_key *verifier =
            token_keys_find(read_server, signer->kid, signer->kid_bytes);

        assert_true(signer->can_sign);
        assert_non_null(verifier);
        assert_int_equal(verifier->can_sign, signer->alg == TOKEN_ALG_HS256);
        assert_int_equal(token_key_sign(signer, "m", 1, signature), TOKEN_SIGNATURE_GOOD);
        assert_int_equal(
            token_key_verify(verifier, "m", 1, signature, token_signature_bytes(signer->alg)),
            TOKEN_SIGNATURE_GOOD);
        assert_int_equal(
            token_key_verify(verifier, "n", 1, signature, token_signature_bytes(signer->alg)),
            TOKEN_SIGNATURE_BAD);
    }
    token_keys_close(made);
    token_keys_close(server);
    token_keys_close(read_back);
    token_keys_close(read_server);
}

static void file_that_others_may_read_is_refused(void **state)
{
    struct scratch_dir *dir = *state;
    struct token_keys *keys;
    struct hf_error error;

    scratch_file_make(dir->file, JWKS_VERIFIER, strlen(JWKS_VERIFIER), 0640);
    assert_false(token_keys_open(&keys, dir->file, TOKEN_KEYS_VERIFY, &error));
    assert_null(keys);
    assert_non_null(strstr(error.text, "mode 0640"));
    assert_int_equal(chmod(dir->file, 0400), 0);
    assert_true(token_keys_open(&keys, dir->file, TOKEN_KEYS_VERIFY, &error));
    token_keys_close(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jws_vectors_verify_and_no_other_bit_pattern),
        cmocka_unit_test(es256_signature_is_deterministic),
        cmocka_unit_test(es256_numbers_out_of_range_are_refused),
        cmocka_unit_test(sets_are_read_and_strangers_skipped),
        cmocka_unit_test(broken_sets_are_refused_with_the_place),
        cmocka_unit_test(server_refuses_private_keys_and_sets_without_keys),
        cmocka_unit_test(keys_are_bounded),
        cmocka_unit_test_setup_teardown(made_keys_survive_the_file, scratch_dir_setup,
                                        scratch_dir_teardown),
        cmocka_unit_test_setup_teardown(file_that_others_may_read_is_refused, scratch_dir_setup,
                                        scratch_dir_teardown),
    };
    return cmocka_run_group_tests_name("token_keys", tests, NULL, NULL);
}

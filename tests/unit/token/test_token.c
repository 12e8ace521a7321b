#include "core/token/token.h"

#include "tests/unit/token/forge.h"

#include <stdlib.h>

#define NOW UINT64_C(1700000000)

#define HEADER_HS "{\"alg\":\"HS256\",\"kid\":\"hs\"}"
#define HEADER_ES "{\"alg\":\"ES256\",\"kid\":\"es\"}"
#define CLAIMS    "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1700000600}"

static const struct token_rules rules = { .now_unix_s = NOW, .leeway_s = 60, .life_max_s = 3600 };

static struct token_keys *signer;
static struct token_keys *verifier;

static int setup(void **state)
{
    (void)state;
    signer = keys_from(JWKS_SIGNER, TOKEN_KEYS_SIGN);
    verifier = keys_from(JWKS_VERIFIER, TOKEN_KEYS_VERIFY);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    token_keys_close(signer);
    token_keys_close(verifier);
    return 0;
}

static const struct token_key *key_hs(void)
{
    return token_keys_find(signer, "hs", 2);
}

static const struct token_key *key_es(void)
{
    return token_keys_find(signer, "es", 2);
}

/* From exactly as many bytes as the token has, so that a sanitizer sees a read past them. */
static enum token_status verify(const struct token_rules *by, const char *token, size_t byte_count)
{
    const struct token_claims untouched = { .user = { 1 }, .device = { 2 } };
    struct token_claims claims = untouched;
    char *copy = malloc(byte_count + (byte_count == 0));

    assert_non_null(copy);
    memcpy(copy, token, byte_count);
    const enum token_status status = token_verify(verifier, by, copy, byte_count, &claims);
    free(copy);
    if (status != TOKEN_OK) {
        assert_memory_equal(&claims, &untouched, sizeof claims);
    }
    return status;
}

static enum token_status verify_hs(const char *header, const char *claims)
{
    static char token[FORGED_BYTES_MAX];

    return verify(&rules, token, forge(token, key_hs(), header, claims));
}

static void assert_status(enum token_status got, enum token_status wanted)
{
    if (got != wanted) {
        fail_msg("%s, but wanted %s", token_status_label(got), token_status_label(wanted));
    }
}

static void signed_token_verifies_with_its_claims(void **state)
{
    const struct token_claims claims = {
        .user = { UINT64_C(0x7fffffffffffffff) },
        .device = { UINT32_MAX },
        .issued_at_unix_s = NOW - 5,
        .not_before_unix_s = NOW - 4,
        .expires_at_unix_s = NOW + 600,
    };
    struct token_rules for_chat = rules;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char token[TOKEN_JWT_BYTES_MAX];
        struct token_claims found;
        size_t byte_count;

        for_chat.audience = i == 0 ? NULL : "chat.example";
        assert_status(token_sign(i == 0 ? key_hs() : key_es(), &claims, for_chat.audience, token,
                                 sizeof token, &byte_count),
                      TOKEN_OK);
        assert_int_equal(token_kind(token, byte_count), TOKEN_KIND_JWT);
        assert_status(token_verify(verifier, &for_chat, token, byte_count, &found), TOKEN_OK);
        assert_int_equal(found.user.value, claims.user.value);
        assert_int_equal(found.device.value, claims.device.value);
        assert_int_equal(found.expires_at_unix_s, claims.expires_at_unix_s);
        assert_int_equal(found.not_before_unix_s, claims.not_before_unix_s);
        assert_int_equal(found.issued_at_unix_s, claims.issued_at_unix_s);
        size_t less;
        assert_status(token_sign(key_hs(), &claims, NULL, token, byte_count / 2, &less),
                      TOKEN_NO_ROOM);
        assert_status(token_sign(token_keys_find(verifier, "es", 2), &claims, NULL, token,
                                 sizeof token, &byte_count),
                      TOKEN_CANNOT_SIGN);
    }
}

/* The RFC's own tokens are signed well, but name no key. */
static void rfc7515_tokens_name_no_key(void **state)
{
    static const char a1[] =
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    (void)state;
    assert_status(verify(&rules, a1, sizeof a1 - 1), TOKEN_NO_KEY_ID);
}

static const struct {
    const char *name;
    const char *header;
    enum token_status status;
} headers[] = {
    { "good", HEADER_HS, TOKEN_OK },
    { "members that don't matter",
      "{\"typ\":\"JWT\",\"cty\":\"x\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"},"
      "\"jku\":\"http://evil.example/\",\"x5c\":[\"AA\"],\"alg\":\"HS256\",\"kid\":\"hs\"}",
      TOKEN_OK },
    { "alg none", "{\"alg\":\"none\",\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg None", "{\"alg\":\"None\",\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg empty", "{\"alg\":\"\",\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg in small letters", "{\"alg\":\"hs256\",\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg with NUL behind", "{\"alg\":\"HS256\\u0000\",\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg of another family", "{\"alg\":\"RS256\",\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg is a list", "{\"alg\":[\"HS256\"],\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "no alg", "{\"kid\":\"hs\"}", TOKEN_BAD_ALG },
    { "alg twice", "{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"hs\"}", TOKEN_BAD_JSON },
    { "alg twice, once escaped", "{\"alg\":\"HS256\",\"\\u0061lg\":\"none\",\"kid\":\"hs\"}",
      TOKEN_BAD_JSON },
    { "alg in another case beside", "{\"ALG\":\"none\",\"alg\":\"HS256\",\"kid\":\"hs\"}",
      TOKEN_OK },
    { "alg swapped", "{\"alg\":\"ES256\",\"kid\":\"hs\"}", TOKEN_ALG_MISMATCH },
    { "public key as secret", "{\"alg\":\"HS256\",\"kid\":\"es\"}", TOKEN_ALG_MISMATCH },
    { "another's kid, its own alg", HEADER_ES, TOKEN_BAD_SIGNATURE },
    { "no kid", "{\"alg\":\"HS256\"}", TOKEN_NO_KEY_ID },
    { "kid null", "{\"alg\":\"HS256\",\"kid\":null}", TOKEN_NO_KEY_ID },
    { "kid a number", "{\"alg\":\"HS256\",\"kid\":0}", TOKEN_NO_KEY_ID },
    { "kid empty", "{\"alg\":\"HS256\",\"kid\":\"\"}", TOKEN_UNKNOWN_KEY },
    { "kid unknown", "{\"alg\":\"HS256\",\"kid\":\"ht\"}", TOKEN_UNKNOWN_KEY },
    { "kid a beginning", "{\"alg\":\"HS256\",\"kid\":\"h\"}", TOKEN_UNKNOWN_KEY },
    { "kid with more", "{\"alg\":\"HS256\",\"kid\":\"hs \"}", TOKEN_UNKNOWN_KEY },
    { "kid with NUL", "{\"alg\":\"HS256\",\"kid\":\"hs\\u0000\"}", TOKEN_UNKNOWN_KEY },
    { "kid a path", "{\"alg\":\"HS256\",\"kid\":\"../../../../dev/null\"}", TOKEN_UNKNOWN_KEY },
    { "kid with SQL", "{\"alg\":\"HS256\",\"kid\":\"x' UNION SELECT 'k\"}", TOKEN_UNKNOWN_KEY },
    { "crit", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"crit\":[\"exp\"],\"exp\":1}", TOKEN_CRITICAL },
    { "crit empty", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"crit\":[]}", TOKEN_CRITICAL },
    { "b64", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"b64\":false,\"crit\":[\"b64\"]}",
      TOKEN_CRITICAL },
    { "not closed", "{\"alg\":\"HS256\",\"kid\":\"hs\"", TOKEN_BAD_JSON },
    { "more behind", HEADER_HS "{}", TOKEN_BAD_JSON },
    { "nested too deep", "{\"alg\":\"HS256\",\"kid\":\"hs\",\"x\":[[[[[[[[[[]]]]]]]]]]}",
      TOKEN_BAD_JSON },
    { "a list", "[\"HS256\"]", TOKEN_MALFORMED },
    { "text", "\"HS256\"", TOKEN_MALFORMED },
    { "space first", " " HEADER_HS, TOKEN_MALFORMED },
};

static void headers_are_judged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        print_message("%s\n", headers[i].name);
        assert_status(verify_hs(headers[i].header, CLAIMS), headers[i].status);
    }
}

#define EXP ",\"exp\":1700000600}"

static const struct {
    const char *name;
    const char *claims;
    enum token_status status;
} claims_rows[] = {
    { "good", CLAIMS, TOKEN_OK },
    { "unknown ones",
      "{\"sub\":\"42\",\"dev\":\"7\",\"iss\":\"joe\",\"x\":{\"sub\":\"1\",\"y\":[1,{}]}" EXP,
      TOKEN_OK },
    { "largest ids", "{\"sub\":\"9223372036854775807\",\"dev\":\"4294967295\"" EXP, TOKEN_OK },
    { "no sub", "{\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub 0", "{\"sub\":\"0\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub empty", "{\"sub\":\"\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub 01", "{\"sub\":\"01\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub signed", "{\"sub\":\"+1\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub negative", "{\"sub\":\"-1\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub with space", "{\"sub\":\"1 \",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub with NUL", "{\"sub\":\"1\\u0000\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub hexadecimal", "{\"sub\":\"0x1\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub in other digits", "{\"sub\":\"\\u0661\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub a number", "{\"sub\":42,\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub a name", "{\"sub\":\"alice\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub with the top bit", "{\"sub\":\"9223372036854775808\",\"dev\":\"7\"" EXP,
      TOKEN_BAD_USER },
    { "sub 2^64 + 1", "{\"sub\":\"18446744073709551617\",\"dev\":\"7\"" EXP, TOKEN_BAD_USER },
    { "sub of 40 digits", "{\"sub\":\"1000000000000000000000000000000000000000\",\"dev\":\"7\"" EXP,
      TOKEN_BAD_USER },
    { "sub twice", "{\"sub\":\"42\",\"sub\":\"43\",\"dev\":\"7\"" EXP, TOKEN_BAD_JSON },
    { "no dev", "{\"sub\":\"42\"" EXP, TOKEN_BAD_DEVICE },
    { "dev 0", "{\"sub\":\"42\",\"dev\":\"0\"" EXP, TOKEN_BAD_DEVICE },
    { "dev 07", "{\"sub\":\"42\",\"dev\":\"07\"" EXP, TOKEN_BAD_DEVICE },
    { "dev negative", "{\"sub\":\"42\",\"dev\":\"-7\"" EXP, TOKEN_BAD_DEVICE },
    { "dev a number", "{\"sub\":\"42\",\"dev\":7" EXP, TOKEN_BAD_DEVICE },
    { "dev 2^32", "{\"sub\":\"42\",\"dev\":\"4294967296\"" EXP, TOKEN_BAD_DEVICE },
    { "dev 2^32 + 7", "{\"sub\":\"42\",\"dev\":\"4294967303\"" EXP, TOKEN_BAD_DEVICE },
    { "no exp", "{\"sub\":\"42\",\"dev\":\"7\"}", TOKEN_BAD_TIME },
    { "exp as text", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":\"1700000600\"}", TOKEN_BAD_TIME },
    { "exp negative", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":-1}", TOKEN_BAD_TIME },
    { "exp enormous", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1e400}", TOKEN_BAD_TIME },
    { "exp beyond 64 bits", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":18446744075409552216}",
      TOKEN_BAD_TIME },
    { "exp with a fraction", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1700000600.9}", TOKEN_OK },
    { "exp null", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":null}", TOKEN_BAD_TIME },
    { "exp 0", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":0}", TOKEN_EXPIRED },
    { "expired, within the leeway", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1699999941}", TOKEN_OK },
    { "expired, at the leeway", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1699999940}",
      TOKEN_EXPIRED },
    { "lives as long as it may", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1700003660}", TOKEN_OK },
    { "lives a second longer", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":1700003661}",
      TOKEN_LIVES_TOO_LONG },
    { "lives for ever", "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":999999999999999}",
      TOKEN_LIVES_TOO_LONG },
    { "nbf within the leeway", "{\"sub\":\"42\",\"dev\":\"7\",\"nbf\":1700000060" EXP, TOKEN_OK },
    { "nbf past the leeway", "{\"sub\":\"42\",\"dev\":\"7\",\"nbf\":1700000061" EXP,
      TOKEN_NOT_YET_VALID },
    { "nbf as text", "{\"sub\":\"42\",\"dev\":\"7\",\"nbf\":\"0\"" EXP, TOKEN_BAD_TIME },
    { "iat as text", "{\"sub\":\"42\",\"dev\":\"7\",\"iat\":\"0\"" EXP, TOKEN_BAD_TIME },
    { "for somebody else", "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":\"mail\"" EXP,
      TOKEN_BAD_AUDIENCE },
    { "empty", "{}", TOKEN_BAD_USER },
    { "a list", "[]", TOKEN_BAD_JSON },
    { "nothing", "", TOKEN_BAD_JSON },
};

static void claims_are_judged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof claims_rows / sizeof claims_rows[0]; i++) {
        print_message("%s\n", claims_rows[i].name);
        assert_status(verify_hs(HEADER_HS, claims_rows[i].claims), claims_rows[i].status);
    }
}

static void life_without_bound_is_allowed_when_asked_for(void **state)
{
    struct token_rules unbounded = rules;
    static char token[FORGED_BYTES_MAX];
    const size_t byte_count =
        forge(token, key_hs(), HEADER_HS, "{\"sub\":\"42\",\"dev\":\"7\",\"exp\":999999999999999}");

    (void)state;
    unbounded.life_max_s = 0;
    assert_status(verify(&unbounded, token, byte_count), TOKEN_OK);
}

static void audience_must_name_this_service(void **state)
{
    static const struct {
        const char *claims;
        enum token_status status;
    } rows[] = {
        { "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":\"chat\"" EXP, TOKEN_OK },
        { "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":[\"mail\",\"chat\"]" EXP, TOKEN_OK },
        { "{\"sub\":\"42\",\"dev\":\"7\"" EXP, TOKEN_BAD_AUDIENCE },
        { "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":\"chats\"" EXP, TOKEN_BAD_AUDIENCE },
        { "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":[]" EXP, TOKEN_BAD_AUDIENCE },
        { "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":[[\"chat\"]]" EXP, TOKEN_BAD_AUDIENCE },
        { "{\"sub\":\"42\",\"dev\":\"7\",\"aud\":{\"chat\":1}" EXP, TOKEN_BAD_AUDIENCE },
    };
    struct token_rules for_chat = rules;

    (void)state;
    for_chat.audience = "chat";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        static char token[FORGED_BYTES_MAX];
        const size_t byte_count = forge(token, key_hs(), HEADER_HS, rows[i].claims);

        print_message("%s\n", rows[i].claims);
        assert_status(verify(&for_chat, token, byte_count), rows[i].status);
    }
}

static void every_truncation_and_addition_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        static char token[FORGED_BYTES_MAX];
        const size_t byte_count = i == 0 ? forge(token, key_hs(), HEADER_HS, CLAIMS)
                                         : forge(token, key_es(), HEADER_ES, CLAIMS);

        assert_status(verify(&rules, token, byte_count), TOKEN_OK);
        for (size_t cut = 0; cut < byte_count; cut++) {
            assert_int_not_equal(verify(&rules, token, cut), TOKEN_OK);
        }
        for (int byte = 0; byte < 256; byte++) {
            token[byte_count] = (char)byte;
            assert_int_not_equal(verify(&rules, token, byte_count + 1), TOKEN_OK);
        }
    }
}

static void every_changed_character_is_refused(void **state)
{
    static const char others[] = "A_.= ";
    static char token[FORGED_BYTES_MAX];
    const size_t byte_count = forge(token, key_hs(), HEADER_HS, CLAIMS);

    (void)state;
    for (size_t i = 0; i < byte_count; i++) {
        const char was = token[i];

        for (size_t j = 0; j < sizeof others; j++) {
            token[i] = others[j];
            if (others[j] != was) {
                assert_int_not_equal(verify(&rules, token, byte_count), TOKEN_OK);
            }
        }
        token[i] = was;
    }
}

static void replace_signature(char *token, size_t *byte_count, const char *signature)
{
    char *dot = memrchr(token, '.', *byte_count);

    char *end = token + FORGED_BYTES_MAX;
    const int count = snprintf(dot + 1, (size_t)(end - (dot + 1)), "%s", signature);

    *byte_count = (size_t)(dot + 1 - token) + (size_t)count;
}

static void signatures_of_other_forms_are_refused(void **state)
{
    static const struct {
        const char *name;
        const char *signature;
        enum token_status status;
    } rows[] = {
        { "none", "", TOKEN_BAD_SIGNATURE },
        { "HMAC of 31 bytes", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", TOKEN_BAD_SIGNATURE },
        { "HMAC of 32 bytes", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", TOKEN_BAD_SIGNATURE },
        { "HMAC with padding",
          "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", TOKEN_BAD_SIGNATURE },
        { "ECDSA as DER",
          "MEUCIQAO0SFTeWNsSDwvfxVYB9QCo7IoAzr5fH4XgZrDFp6mZQIgxQoH04w8cOXY8S2vCEpUgKZlkMXyk1Caj"
          "z9_ioOjVNU",
          TOKEN_BAD_SIGNATURE },
        { "r and s 0",
          "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
          "AAAAAA",
          TOKEN_BAD_SIGNATURE },
        { "a second spelling", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", TOKEN_BAD_BASE64 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        static char token[FORGED_BYTES_MAX];
        size_t byte_count = forge(token, key_hs(), HEADER_HS, CLAIMS);

        print_message("%s\n", rows[i].name);
        replace_signature(token, &byte_count, rows[i].signature);
        assert_status(verify(&rules, token, byte_count), rows[i].status);
        byte_count = forge(token, key_es(), HEADER_ES, CLAIMS);
        replace_signature(token, &byte_count, rows[i].signature);
        assert_status(verify(&rules, token, byte_count), TOKEN_BAD_SIGNATURE);
    }
}

/* The public key's own bytes as an HMAC secret: the classic of RFC 8725 section 2.1. */
static void hmac_with_the_public_key_is_refused(void **state)
{
    static const char coordinates[] = "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"es\",\"k\":"
                                      "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}]}";
    struct token_keys *thief = keys_from(coordinates, TOKEN_KEYS_SIGN);
    static char token[FORGED_BYTES_MAX];
    size_t byte_count = forge(token, thief->keys[0], "{\"alg\":\"HS256\",\"kid\":\"es\"}", CLAIMS);

    (void)state;
    assert_status(verify(&rules, token, byte_count), TOKEN_ALG_MISMATCH);
    byte_count = forge(token, thief->keys[0], HEADER_ES, CLAIMS);
    assert_status(verify(&rules, token, byte_count), TOKEN_BAD_SIGNATURE);
    token_keys_close(thief);
}

static void shapes_that_are_no_token_are_refused(void **state)
{
    static const struct {
        const char *name;
        const char *token;
        enum token_status status;
    } rows[] = {
        { "nothing", "", TOKEN_MALFORMED },
        { "one part", "eyJ9", TOKEN_MALFORMED },
        { "two parts", "eyJ9.e30", TOKEN_MALFORMED },
        { "four parts", "e30.e30.e30.e30", TOKEN_MALFORMED },
        { "five parts, encrypted", "e30.e30.e30.e30.e30", TOKEN_MALFORMED },
        { "dots alone", "..", TOKEN_MALFORMED },
        { "JSON form", "{\"payload\":\"e30\"}", TOKEN_MALFORMED },
        { "new line first", "\ne30.e30.", TOKEN_MALFORMED },
        { "header with padding", "e30=.e30.AA", TOKEN_BAD_BASE64 },
        { "header cut", "eyI.e30.AA", TOKEN_BAD_JSON },
        { "header of one digit more", "e30ee.e30.AA", TOKEN_BAD_BASE64 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        print_message("%s\n", rows[i].name);
        assert_status(verify(&rules, rows[i].token, strlen(rows[i].token)), rows[i].status);
    }
}

/* The longest token that is read, and one byte more; and parts that fill it alone. */
static void size_is_bounded(void **state)
{
    static char claims[4096];
    static char token[FORGED_BYTES_MAX];
    size_t pad = 0;
    size_t byte_count;

    (void)state;
    for (;;) {
        (void)snprintf(claims, sizeof claims, "{\"sub\":\"42\",\"dev\":\"7\",\"x\":\"%0*d\"" EXP,
                       (int)++pad, 0);
        byte_count = forge(token, key_hs(), HEADER_HS, claims);
        if (byte_count > TOKEN_JWT_BYTES_MAX) {
            break;
        }
        if (byte_count + 2 > TOKEN_JWT_BYTES_MAX) {
            assert_status(verify(&rules, token, byte_count), TOKEN_OK);
        }
    }
    assert_status(verify(&rules, token, byte_count), TOKEN_TOO_LONG);
    memset(token, 'e', sizeof token);
    assert_status(verify(&rules, token, TOKEN_JWT_BYTES_MAX), TOKEN_MALFORMED);
    token[TOKEN_JWT_BYTES_MAX - 1] = '.';
    token[TOKEN_JWT_BYTES_MAX - 2] = '.';
    assert_int_not_equal(verify(&rules, token, TOKEN_JWT_BYTES_MAX), TOKEN_OK);
    token[1] = '.';
    token[TOKEN_JWT_BYTES_MAX - 2] = 'e';
    assert_int_not_equal(verify(&rules, token, TOKEN_JWT_BYTES_MAX), TOKEN_OK);
    assert_status(verify(&rules, token, sizeof token), TOKEN_TOO_LONG);
}

static void huge_key_ids_are_refused(void **state)
{
    char header[2048];

    (void)state;
    (void)snprintf(header, sizeof header, "{\"alg\":\"HS256\",\"kid\":\"%01900d\"}", 0);
    assert_status(verify_hs(header, CLAIMS), TOKEN_UNKNOWN_KEY);
}

static void claims_with_raw_bytes_are_refused(void **state)
{
    static char token[FORGED_BYTES_MAX];
    static const char latin[] = "{\"sub\":\"42\",\"dev\":\"7\",\"name\":\"\xe9t\xe9\"" EXP;
    static const char nul[] = CLAIMS "\0";

    (void)state;
    assert_status(verify(&rules, token, forge(token, key_hs(), HEADER_HS, latin)), TOKEN_BAD_JSON);
    assert_status(
        verify(&rules, token,
               forge_bytes(token, key_hs(), HEADER_HS, strlen(HEADER_HS), nul, sizeof nul - 1)),
        TOKEN_BAD_JSON);
}

static void every_status_has_text_and_label(void **state)
{
    (void)state;
    for (int i = 0; i < TOKEN_STATUS_COUNT; i++) {
        assert_true(strlen(token_status_text((enum token_status)i)) > 4);
        assert_int_equal(strspn(token_status_label((enum token_status)i),
                                "abcdefghijklmnopqrstuvwxyz_0123456789"),
                         strlen(token_status_label((enum token_status)i)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signed_token_verifies_with_its_claims),
        cmocka_unit_test(rfc7515_tokens_name_no_key),
        cmocka_unit_test(headers_are_judged),
        cmocka_unit_test(claims_are_judged),
        cmocka_unit_test(life_without_bound_is_allowed_when_asked_for),
        cmocka_unit_test(audience_must_name_this_service),
        cmocka_unit_test(every_truncation_and_addition_is_refused),
        cmocka_unit_test(every_changed_character_is_refused),
        cmocka_unit_test(signatures_of_other_forms_are_refused),
        cmocka_unit_test(hmac_with_the_public_key_is_refused),
        cmocka_unit_test(shapes_that_are_no_token_are_refused),
        cmocka_unit_test(size_is_bounded),
        cmocka_unit_test(huge_key_ids_are_refused),
        cmocka_unit_test(claims_with_raw_bytes_are_refused),
        cmocka_unit_test(every_status_has_text_and_label),
    };
    return cmocka_run_group_tests_name("token", tests, setup, teardown);
}

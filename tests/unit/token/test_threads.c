/*
 * One set of keys and one ring serve several threads at once, as the headers say: each verifies
 * good tokens and bad ones, and must never be told otherwise. What mbedTLS does inside isn't seen
 * by ThreadSanitizer; a wrong answer is.
 */
#include "core/token/resume.h"
#include "core/token/token.h"

#include "tests/unit/token/forge.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS  40
#define NOW     UINT64_C(1700000000)

struct shared {
    const struct token_keys *keys;
    const struct resume_ring *ring;
    char tokens[2][1024];
    size_t token_bytes[2];
    uint8_t resume_token[RESUME_TOKEN_BYTES];
};

static const struct token_rules rules = { .now_unix_s = NOW };

/* Returns how many answers were wrong. */
static void *verify_all(void *argument)
{
    const struct shared *shared = argument;
    uintptr_t wrong = 0;

    for (int round = 0; round < ROUNDS; round++) {
        struct token_claims claims;
        struct resume_claims resumed;
        uint8_t bad[RESUME_TOKEN_BYTES];

        for (size_t i = 0; i < 2; i++) {
            char forged[1024];

            wrong += token_verify(shared->keys, &rules, shared->tokens[i], shared->token_bytes[i],
                                  &claims) != TOKEN_OK;
            memcpy(forged, shared->tokens[i], shared->token_bytes[i]);
            forged[shared->token_bytes[i] - 8] ^= 1;
            wrong += token_verify(shared->keys, &rules, forged, shared->token_bytes[i], &claims) ==
                     TOKEN_OK;
        }
        wrong += resume_verify(shared->ring, NOW, shared->resume_token, RESUME_TOKEN_BYTES,
                               &resumed) != TOKEN_OK;
        memcpy(bad, shared->resume_token, sizeof bad);
        bad[RESUME_TOKEN_BYTES - 1] ^= 1;
        wrong += resume_verify(shared->ring, NOW, bad, sizeof bad, &resumed) != TOKEN_BAD_SIGNATURE;
    }
    return (void *)wrong; /* NOLINT(performance-no-int-to-ptr): pthread_join gives it back */
}

static void several_threads_verify_with_the_same_keys(void **state)
{
    static const char ring_text[] =
        "holdfast resume keys 1\n"
        "7 0 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
        "end 1\n";
    static struct resume_ring ring;
    const struct token_claims claims = { .user = { 42 },
                                         .device = { 7 },
                                         .expires_at_unix_s = NOW + 60 };
    const struct resume_claims resumed = {
        .user = { 42 }, .device = { 7 }, .issued_at_unix_s = NOW, .expires_at_unix_s = NOW + 60
    };
    struct token_keys *keys = keys_from(JWKS_SIGNER, TOKEN_KEYS_SIGN);
    struct shared shared = { .keys = keys, .ring = &ring };
    struct hf_error error;
    pthread_t threads[THREADS];

    (void)state;
    assert_true(resume_ring_parse(&ring, ring_text, strlen(ring_text), &error));
    resume_sign(&ring, &resumed, shared.resume_token);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(token_sign(keys->keys[i], &claims, NULL, shared.tokens[i],
                                    sizeof shared.tokens[i], &shared.token_bytes[i]),
                         TOKEN_OK);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, verify_all, &shared), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *wrong;

        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    token_keys_close(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_threads_verify_with_the_same_keys),
    };
    return cmocka_run_group_tests_name("token_threads", tests, NULL, NULL);
}

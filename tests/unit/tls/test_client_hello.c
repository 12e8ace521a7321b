#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/tls/aead.h"
#include "core/tls/client_hello.h"

/* A ClientHello behind its header: only what is looked at is real. */
static const uint8_t hello_bytes[] = {
    3,  3,                                                                        /* version */
    0,  1,    2,    3,    4,    5,    6,    7,    8,  9,  10, 11, 12, 13, 14, 15, /* random */
    16, 17,   18,   19,   20,   21,   22,   23,   24, 25, 26, 27, 28, 29, 30, 31, /**/
    2,  0xee, 0xee,                                                               /* session id */
    0,  6,    0x2a, 0x2a, 0x13, 0x03, 0x13, 0x02, /* suites: one unknown, ChaCha20, AES-256 */
    1,  0,                                        /* compression */
    0,  50,                                       /* extensions */
    0,  16,   0,    3,    1,    2,    3,          /* ALPN, or what looks like it */
    0,  45,   0,    2,    1,    0,                /* psk_key_exchange_modes: psk_ke */
    0,  41,   0,    33,                           /* pre_shared_key */
    0,  20,                                       /* identities */
    0,  4,    'a',  'b',  'c',  'd',  0,    0,    0,  7,     /* and ages */
    0,  4,    'a',  'b',  'x',  'y',  1,    2,    3,  4,     /**/
    0,  9,    8,    1,    2,    3,    4,    5,    6,  7,  8, /* binders */
};

enum {
    SUITES_LENGTH_AT = 2 + 32 + 3 + 1,
    MODES_AT = 2 + 32 + 3 + 8 + 2 + 2 + 7 + 4,
};

static struct client_hello read_hello(const uint8_t *bytes)
{
    struct client_hello hello;

    assert_true(client_hello_read(&hello, bytes, sizeof hello_bytes));
    return hello;
}

static void suite_of_the_session_is_kept_or_one_of_its_hash_taken(void **state)
{
    const struct client_hello hello = read_hello(hello_bytes);
    uint8_t without[sizeof hello_bytes];

    (void)state;
    assert_int_equal(client_hello_suite_for(&hello, AEAD_AES_256_GCM_SHA384),
                     AEAD_AES_256_GCM_SHA384);
    assert_int_equal(client_hello_suite_for(&hello, AEAD_CHACHA20_POLY1305_SHA256),
                     AEAD_CHACHA20_POLY1305_SHA256);
    assert_int_equal(client_hello_suite_for(&hello, AEAD_AES_128_GCM_SHA256),
                     AEAD_CHACHA20_POLY1305_SHA256);

    memcpy(without, hello_bytes, sizeof without);
    without[SUITES_LENGTH_AT + 6] = 0x05; /* AES-256 becomes AES-128-CCM-8, which we lack */

    const struct client_hello narrow = read_hello(without);

    assert_int_equal(client_hello_suite_for(&narrow, AEAD_AES_256_GCM_SHA384), 0);
}

static void psk_ke_counts_where_it_stands_alone(void **state)
{
    uint8_t other[sizeof hello_bytes];
    struct client_hello hello = read_hello(hello_bytes);

    (void)state;
    assert_true(client_hello_only_psk_ke(&hello));

    memcpy(other, hello_bytes, sizeof other);
    other[MODES_AT + 1] = 1; /* psk_dhe_ke */
    hello = read_hello(other);
    assert_false(client_hello_only_psk_ke(&hello));
    other[MODES_AT] = 0; /* none */
    assert_false(client_hello_only_psk_ke(&hello));
    other[MODES_AT - 3] = 99; /* no such extension */
    assert_false(client_hello_only_psk_ke(&hello));
}

static void age_is_that_of_the_ticket_asked_for(void **state)
{
    const struct client_hello hello = read_hello(hello_bytes);
    uint32_t age = 0;

    (void)state;
    assert_true(client_hello_ticket_age(&hello, (const uint8_t *)"abcd", 4, &age));
    assert_int_equal(age, 7);
    assert_true(client_hello_ticket_age(&hello, (const uint8_t *)"abx", 3, &age));
    assert_int_equal(age, 0x01020304);
    assert_false(client_hello_ticket_age(&hello, (const uint8_t *)"abz", 3, &age));
    assert_false(client_hello_ticket_age(&hello, (const uint8_t *)"abcde", 5, &age));
}

static void hello_cut_anywhere_is_not_read_beyond_its_end(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < sizeof hello_bytes; cut++) {
        uint8_t *bytes = malloc(cut + (cut == 0)); /* the sanitizer sees a byte too many */
        struct client_hello hello;

        memcpy(bytes, hello_bytes, cut);
        assert_false(client_hello_read(&hello, bytes, cut));
        free(bytes);
    }
}

/* Every length in it is wrong once, by much and by one. */
static void hello_with_wrong_lengths_is_not_read_beyond_its_end(void **state)
{
    (void)state;
    for (size_t at = 0; at < sizeof hello_bytes; at++) {
        for (int wrong = 0; wrong < 3; wrong++) {
            uint8_t *bytes = malloc(sizeof hello_bytes);
            struct client_hello hello;
            uint32_t age;

            memcpy(bytes, hello_bytes, sizeof hello_bytes);
            bytes[at] = wrong == 0 ? 255 : (uint8_t)(bytes[at] + (wrong == 1 ? 1 : -1));
            if (client_hello_read(&hello, bytes, sizeof hello_bytes)) {
                (void)client_hello_only_psk_ke(&hello);
                (void)client_hello_suite_for(&hello, AEAD_AES_128_GCM_SHA256);
                if (client_hello_ticket_age(&hello, (const uint8_t *)"abx", 3, &age)) {
                    assert_true(age != 7);
                }
            }
            free(bytes);
        }
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(suite_of_the_session_is_kept_or_one_of_its_hash_taken),
    cmocka_unit_test(psk_ke_counts_where_it_stands_alone),
    cmocka_unit_test(age_is_that_of_the_ticket_asked_for),
    cmocka_unit_test(hello_cut_anywhere_is_not_read_beyond_its_end),
    cmocka_unit_test(hello_with_wrong_lengths_is_not_read_beyond_its_end),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

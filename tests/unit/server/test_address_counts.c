#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/socket.h>

#include "core/server/address_counts.h"
#include "core/server/listen.h"

static const struct siphash_key hash_key = { { 1, 2 } };

static void counts_rise_and_fall_by_key(void **state)
{
    (void)state;
    struct address_counts counts;

    address_counts_open(&counts, &hash_key);
    assert_int_equal(address_counts_get(&counts, 7), 0);
    assert_true(address_counts_add(&counts, 7));
    assert_true(address_counts_add(&counts, 7));
    assert_true(address_counts_add(&counts, 8));
    assert_int_equal(address_counts_get(&counts, 7), 2);
    address_counts_remove(&counts, 7);
    address_counts_remove(&counts, 8);
    assert_int_equal(address_counts_get(&counts, 7), 1);
    assert_int_equal(address_counts_get(&counts, 8), 0);
    address_counts_close(&counts);
}

/* Against a plain array, with keys that come and go so that gaps are closed in every constellation.
 */
static void random_keys_agree_with_a_plain_array(void **state)
{
    (void)state;
    enum { KEYS = 300 };
    struct address_counts counts;
    uint64_t plain[KEYS + 1] = { 0 };
    uint64_t seed = 12345;

    address_counts_open(&counts, &hash_key);
    for (int i = 0; i < 200000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint64_t key = (seed >> 33) % KEYS + 1;

        if ((seed >> 60) < 8 || plain[key] == 0) {
            assert_true(address_counts_add(&counts, key));
            plain[key]++;
        } else {
            address_counts_remove(&counts, key);
            plain[key]--;
        }
        if (i % 1000 == 0) { /* all go now and then */
            for (uint64_t k = 1; k <= KEYS; k++) {
                assert_int_equal(address_counts_get(&counts, k), plain[k]);
                while (plain[k] > 0) {
                    address_counts_remove(&counts, k);
                    plain[k]--;
                }
            }
            assert_int_equal(counts.used_, 0);
        }
    }
    address_counts_close(&counts);
}

/* Those that crowd a place under one key are spread under another: they can't be chosen beforehand. */
static void crowd_under_one_key_is_none_under_another(void **state)
{
    (void)state;
    const struct siphash_key other = { { 3, 4 } };
    uint32_t crowd = 0;
    uint32_t still = 0;

    for (uint64_t key = 1; key < 100000; key++) {
        if ((siphash_number(&hash_key, key) & 1023) == 7) {
            crowd++;
            still += (siphash_number(&other, key) & 1023) == 7;
        }
    }
    assert_true(crowd > 50);
    assert_true(still < 5);
}

static struct listen_address parse(const char *text)
{
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    struct hf_error error;
    size_t count;

    assert_true(listen_parse(text, addresses, &count, &error));
    assert_int_equal(count, 1);
    return addresses[0];
}

static uint64_t key_of(const char *text)
{
    const struct listen_address address = parse(text);

    return listen_address_key((const struct sockaddr *)&address.address);
}

static void address_keys_join_what_one_customer_has(void **state)
{
    (void)state;
    assert_int_equal(key_of("192.0.2.1:1"), key_of("192.0.2.1:2"));
    assert_int_not_equal(key_of("192.0.2.1:1"), key_of("192.0.2.2:1"));
    assert_int_equal(key_of("[2001:db8:1:2::1]:1"), key_of("[2001:db8:1:2:3:4:5:6]:1"));
    assert_int_not_equal(key_of("[2001:db8:1:2::1]:1"), key_of("[2001:db8:1:3::1]:1"));
    assert_int_equal(key_of("[::ffff:192.0.2.1]:1"), key_of("192.0.2.1:1"));
    assert_int_not_equal(key_of("[::1]:1"), 0);
    assert_int_not_equal(key_of("0.0.0.0:1"), 0);
}

static void address_lists_are_parsed_and_printed(void **state)
{
    (void)state;
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    struct hf_error error;
    char text[LISTEN_TEXT_BYTES];
    size_t count;

    assert_true(listen_parse(" 127.0.0.1:7443 , [::1]:0,0.0.0.0:65535", addresses, &count, &error));
    assert_int_equal(count, 3);
    listen_format((const struct sockaddr *)&addresses[0].address, text);
    assert_string_equal(text, "127.0.0.1:7443");
    listen_format((const struct sockaddr *)&addresses[1].address, text);
    assert_string_equal(text, "[::1]:0");
    assert_true(listen_parse("", addresses, &count, &error));
    assert_int_equal(count, 0);
}

static void texts_that_are_no_addresses_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:1x",
        "::1:7443",
        "[::1]7443",
        "[::1:7443",
        "[]:7443",
        "1.2.3:7443",
        "localhost:7443",
        "127.0.0.1:1,",
        ",127.0.0.1:1",
        "127.0.0.1:1 127.0.0.1:2",
        "127.0.0.1:1;127.0.0.1:2",
        "[::g]:1",
        "]:1",
        "[:1",
        "127.0.0.1:1111111111111111111111111111111111111111111111111111111111111111",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct listen_address addresses[LISTEN_ADDRESSES_MAX];
        struct hf_error error;
        size_t count;

        print_message("%s\n", texts[i]);
        assert_false(listen_parse(texts[i], addresses, &count, &error));
    }
}

static void more_addresses_than_allowed_are_refused(void **state)
{
    (void)state;
    char text[512] = "";
    size_t length = 0;
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    struct hf_error error;
    size_t count;

    for (int i = 0; i <= LISTEN_ADDRESSES_MAX; i++) {
        length += (size_t)snprintf(text + length, sizeof text - length, "%s127.0.0.1:%d",
                                   i == 0 ? "" : ",", i + 1);
    }
    assert_false(listen_parse(text, addresses, &count, &error));
    assert_string_equal(error.text, "more than 16 addresses");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_rise_and_fall_by_key),
        cmocka_unit_test(random_keys_agree_with_a_plain_array),
        cmocka_unit_test(crowd_under_one_key_is_none_under_another),
        cmocka_unit_test(address_keys_join_what_one_customer_has),
        cmocka_unit_test(address_lists_are_parsed_and_printed),
        cmocka_unit_test(texts_that_are_no_addresses_are_refused),
        cmocka_unit_test(more_addresses_than_allowed_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/pair.h"

/* ---- KeyUpdate */

static void key_update_is_answered_once_before_the_next_data(void **state)
{
    struct pair pair;
    uint8_t record[64];

    (void)state;
    pair_open(&pair, AEAD_AES_256_GCM_SHA384);
    for (int count = 0; count < 3; count++) {
        const size_t record_bytes = seal_inner(&pair.client, "\x18\0\0\x01\x01\x16", 6, record);

        assert_true(tls_direction_update(&pair.client.tx, pair.client.suite));
        pair.client.tx_number = 0;
        assert_int_equal(open_record(&pair, &pair.server, record, record_bytes).result,
                         TLS_OPEN_HANDLED);
    }
    assert_int_equal(tls_record_headroom(&pair.core, &pair.server),
                     TLS_RECORD_HEADER_BYTES + TLS_KEY_UPDATE_RECORD_BYTES);
    assert_carries(&pair, &pair.server, &pair.client, "after one answer");
    assert_int_equal(pair.core.key_updates_sent, 1);
    assert_int_equal(pair.server.tx_number, 1);
    assert_int_equal(tls_record_headroom(&pair.core, &pair.server), TLS_RECORD_HEADER_BYTES);
    assert_carries(&pair, &pair.client, &pair.server, "both ways");
    assert_memory_equal(&pair.server.tx, &pair.client.rx, sizeof pair.server.tx);
    pair_close(&pair);
}

static void update_that_asks_moves_both_directions(void **state)
{
    struct pair pair;
    struct tls_direction before;

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    before = pair.server.rx;
    tls_record_update(&pair.server, true);
    assert_carries(&pair, &pair.server, &pair.client, "please");
    assert_carries(&pair, &pair.client, &pair.server, "of course");
    assert_int_equal(pair.core.key_updates_sent, 2);
    assert_int_equal(pair.core.key_updates_received, 2);
    assert_memory_not_equal(&pair.server.rx, &before, sizeof before);
    assert_memory_equal(&pair.server.rx, &pair.client.tx, sizeof before);
    assert_carries(&pair, &pair.server, &pair.client, "no more");
    assert_int_equal(pair.core.key_updates_sent, 2);
    pair_close(&pair);
}

static void own_key_is_updated_after_so_many_records(void **state)
{
    struct pair pair;

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    assert_int_equal(pair.core.rekey_after_records, 1 << 23);
    pair.core.rekey_after_records = 4;
    for (int count = 0; count < 20; count++) {
        assert_carries(&pair, &pair.server, &pair.client, "data");
        assert_true(pair.server.tx_number <= 5); /* KeyUpdate itself is the fifth */
    }
    assert_int_equal(pair.core.key_updates_sent, 4);
    assert_int_equal(pair.core.key_updates_received, 4);
    pair_close(&pair);
}

static void update_leaves_no_old_context_in_the_cache(void **state)
{
    struct pair here;
    struct pair there; /* another core: here both ends have one key, and share a context */
    struct aead_counters counters;
    uint8_t record[128];
    const struct iovec part = { .iov_base = (char[]){ "data" }, .iov_len = 4 };

    (void)state;
    pair_open(&here, AEAD_AES_128_GCM_SHA256);
    pair_open(&there, AEAD_AES_128_GCM_SHA256);
    here.core.rekey_after_records = 1;
    for (int count = 0; count < 10; count++) {
        const size_t sealed_bytes =
            tls_record_seal(&here.core, &here.server, &part, 1, record, sizeof record);
        size_t at = 0;

        while (at < sealed_bytes) {
            at += open_record(&there, &there.client, record + at, sealed_bytes - at).record_bytes;
        }
        aead_cache_count(here.core.aead, &counters);
        assert_int_equal(counters.keyed_contexts, 1);
        aead_cache_count(there.core.aead, &counters);
        assert_int_equal(counters.keyed_contexts, 1);
    }
    assert_int_equal(here.core.key_updates_sent, 9);
    assert_int_equal(there.core.key_updates_received, 9);
    pair_close(&here);
    pair_close(&there);
}

/* Cut after each of the first bytes that `cuts` has a bit for; sealed as so many records. */
static size_t seal_split(struct tls_keys *keys, const char *message, unsigned cuts, uint8_t *out)
{
    size_t written = 0;
    size_t from = 0;

    for (size_t at = 1; at <= 5; at++) {
        if (at == 5 || (cuts & 1U << at) != 0) {
            char inner[6];

            memcpy(inner, message + from, at - from);
            inner[at - from] = 22;
            written += seal_inner(keys, inner, at - from + 1, out + written);
            from = at;
        }
    }
    assert_true(tls_direction_update(&keys->tx, keys->suite));
    keys->tx_number = 0;
    return written;
}

static void key_update_is_taken_however_it_is_split(void **state)
{
    (void)state;
    for (unsigned cuts = 0; cuts < 1U << 5; cuts += 2) {
        struct pair pair;
        uint8_t records[256];
        size_t at = 0;

        pair_open(&pair, AEAD_AES_128_GCM_SHA256);

        const size_t written = seal_split(&pair.client, "\x18\0\0\x01\x01", cuts, records);

        while (at < written) {
            const struct tls_opened opened =
                open_record(&pair, &pair.server, records + at, written - at);

            assert_int_equal(opened.result, TLS_OPEN_HANDLED);
            assert_false(opened.ticket);
            assert_true(tls_keys_valid(&pair.server));
            at += opened.record_bytes;
            assert_int_equal(pair.core.key_updates_received, at == written);
        }
        assert_carries(&pair, &pair.client, &pair.server, "under the new key");
        assert_carries(&pair, &pair.server, &pair.client, "and answered");
        assert_int_equal(pair.core.key_updates_sent, 1);
        pair_close(&pair);
    }
}

static const struct {
    const char *name;
    const char *first; /* of five bytes at most, with the content type */
    size_t first_bytes;
    const char *second;
    size_t second_bytes;
    enum tls_fault fault;
    enum tls_alert alert;
} split_and_wrong[] = {
    { "data between", "\x18\x16", 2, "x\x17", 2, TLS_FAULT_HANDSHAKE_SPLIT, 10 },
    { "empty data between", "\x18\0\0\x16", 4, "\x17", 1, TLS_FAULT_HANDSHAKE_SPLIT, 10 },
    { "nothing between", "\x18\0\0\x01\x16", 5, "\x16", 1, TLS_FAULT_EMPTY_FRAGMENT, 10 },
    { "another behind it", "\x18\0\x16", 3, "\0\x01\0\x18\x16", 5, TLS_FAULT_KEY_UPDATE_NOT_LAST,
      10 },
    { "a wrong length", "\x18\0\0\x16", 4, "\x02\0\x16", 3, TLS_FAULT_KEY_UPDATE_LENGTH, 50 },
    { "a wrong request", "\x18\0\0\x01\x16", 5, "\x02\x16", 2, TLS_FAULT_KEY_UPDATE_VALUE, 47 },
};

static void split_key_update_that_is_wrong_is_refused(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof split_and_wrong / sizeof split_and_wrong[0]; row++) {
        struct pair pair;
        uint8_t record[64];
        size_t record_bytes;

        print_message("%s\n", split_and_wrong[row].name);
        pair_open(&pair, AEAD_AES_128_GCM_SHA256);
        record_bytes = seal_inner(&pair.client, split_and_wrong[row].first,
                                  split_and_wrong[row].first_bytes, record);
        assert_int_equal(open_record(&pair, &pair.server, record, record_bytes).result,
                         TLS_OPEN_HANDLED);
        record_bytes = seal_inner(&pair.client, split_and_wrong[row].second,
                                  split_and_wrong[row].second_bytes, record);

        const struct tls_opened opened = open_record(&pair, &pair.server, record, record_bytes);

        assert_refused(&pair, &pair.server, &opened, split_and_wrong[row].fault,
                       split_and_wrong[row].alert);
        pair_close(&pair);
    }
}

/* ---- tickets to a client's record layer */

static void ticket_is_skipped_however_it_is_split(void **state)
{
    uint8_t message[4 + 300 + 4 + 3] = { 4, 0, 300 >> 8, 300 & 255, [304] = 4, [307] = 3 };

    (void)state;
    memset(message + 4, 24, 300); /* looks like KeyUpdates inside */
    for (size_t split = 1; split < 311; split++) {
        struct pair pair;
        uint8_t record[512];
        uint8_t inner[320];

        pair_open(&pair, AEAD_AES_128_GCM_SHA256);
        for (int half = 0; half < 2; half++) {
            const size_t from = half == 0 ? 0 : split;
            const size_t inner_bytes = half == 0 ? split : 311 - split;

            memcpy(inner, message + from, inner_bytes);
            inner[inner_bytes] = 22;

            const size_t record_bytes = seal_inner(&pair.server, inner, inner_bytes + 1, record);
            const struct tls_opened opened = open_record(&pair, &pair.client, record, record_bytes);

            assert_int_equal(opened.result, TLS_OPEN_HANDLED);
            assert_true(opened.ticket);
        }
        assert_int_equal(pair.client.header_bytes_, 0);
        assert_int_equal(pair.client.skip_bytes_, 0);
        assert_carries(&pair, &pair.server, &pair.client, "data");
        pair_close(&pair);
    }
}

static void data_or_key_update_within_a_ticket_is_refused(void **state)
{
    static const char *const firsts[] = { "\x04\x16", "\x04\0\0\x09xyz\x16" };
    static const size_t first_bytes[] = { 2, 8 };

    (void)state;
    for (int row = 0; row < 2; row++) {
        struct pair pair;
        uint8_t record[64];
        size_t record_bytes;

        pair_open(&pair, AEAD_AES_128_GCM_SHA256);
        record_bytes = seal_inner(&pair.server, firsts[row], first_bytes[row], record);
        assert_int_equal(open_record(&pair, &pair.client, record, record_bytes).result,
                         TLS_OPEN_HANDLED);
        assert_true(tls_keys_valid(&pair.client));
        record_bytes = seal_inner(&pair.server, "data\x17", 5, record);

        const struct tls_opened opened = open_record(&pair, &pair.client, record, record_bytes);

        assert_refused(&pair, &pair.client, &opened, TLS_FAULT_HANDSHAKE_SPLIT,
                       TLS_ALERT_UNEXPECTED_MESSAGE);
        pair_close(&pair);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(key_update_is_answered_once_before_the_next_data),
    cmocka_unit_test(update_that_asks_moves_both_directions),
    cmocka_unit_test(own_key_is_updated_after_so_many_records),
    cmocka_unit_test(update_leaves_no_old_context_in_the_cache),
    cmocka_unit_test(key_update_is_taken_however_it_is_split),
    cmocka_unit_test(split_key_update_that_is_wrong_is_refused),
    cmocka_unit_test(ticket_is_skipped_however_it_is_split),
    cmocka_unit_test(data_or_key_update_within_a_ticket_is_refused),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/pair.h"
#include "tests/unit/tls/refused.h"

/* ---- refusals: what a peer with good keys may not send */

static void forbidden_content_gets_its_alert(void **state)
{
    (void)state;
    for (size_t row = 0; row < REFUSED_INNER_COUNT; row++) {
        struct pair pair;
        uint8_t record[128];
        struct tls_keys *to = refused_inner[row].to == TO_SERVER ? &pair.server : &pair.client;
        struct tls_keys *from = refused_inner[row].to == TO_SERVER ? &pair.client : &pair.server;

        print_message("%s (RFC 8446 %s)\n", refused_inner[row].name, refused_inner[row].source);
        pair_open(&pair, AEAD_AES_128_GCM_SHA256);

        const size_t record_bytes =
            seal_inner(from, refused_inner[row].inner, refused_inner[row].inner_bytes, record);
        const struct tls_opened opened = open_record(&pair, to, record, record_bytes);

        if (refused_inner[row].fault == TLS_FAULT_PEER_ALERT) {
            assert_int_equal(opened.peer_alert, (uint8_t)refused_inner[row].inner[1]);
        }
        assert_refused(&pair, to, &opened, refused_inner[row].fault, refused_inner[row].alert);
        pair_close(&pair);
    }
}

static void forbidden_header_is_refused_before_the_rest_comes(void **state)
{
    (void)state;
    for (size_t row = 0; row < REFUSED_HEADER_COUNT; row++) {
        struct pair pair;
        uint8_t header[5];

        print_message("%s (RFC 8446 %s)\n", refused_header[row].name, refused_header[row].source);
        pair_open(&pair, AEAD_AES_128_GCM_SHA256);
        memcpy(header, refused_header[row].header, sizeof header);

        const struct tls_opened opened = open_record(&pair, &pair.server, header, sizeof header);

        assert_refused(&pair, &pair.server, &opened, refused_header[row].fault,
                       refused_header[row].alert);
        pair_close(&pair);
    }
}

static void forged_repeated_or_skipped_record_is_refused(void **state)
{
    (void)state;
    for (int what = 0; what < 4; what++) {
        struct pair pair;
        uint8_t record[64];
        size_t record_bytes;
        struct tls_opened opened;

        pair_open(&pair, AEAD_CHACHA20_POLY1305_SHA256);
        record_bytes = seal_inner(&pair.client, "data\x17", 5, record);
        if (what == 0) {
            record[record_bytes - 1] ^= 1; /* tag */
        } else if (what == 1) {
            record[2] ^= 1; /* the version is ignored but authenticated */
        } else if (what == 2) {
            record_bytes = seal_inner(&pair.client, "data\x17", 5, record); /* skips one */
        } else {
            uint8_t copy[64];

            memcpy(copy, record, record_bytes);
            opened = open_record(&pair, &pair.server, copy, record_bytes); /* repeats one */
            assert_int_equal(opened.result, TLS_OPEN_DATA);
        }
        opened = open_record(&pair, &pair.server, record, record_bytes);
        assert_refused(&pair, &pair.server, &opened, TLS_FAULT_BAD_MAC, TLS_ALERT_BAD_RECORD_MAC);
        pair_close(&pair);
    }
}

static void content_longer_than_2_to_14_is_refused(void **state)
{
    uint8_t *inner = malloc(TLS_PLAINTEXT_BYTES_MAX + 2);
    uint8_t *record = malloc(TLS_RECORD_BYTES_MAX);

    (void)state;
    memset(inner, 0x17, TLS_PLAINTEXT_BYTES_MAX + 2);
    for (int padded = 0; padded < 2; padded++) { /* padding counts (RFC 8446 5.4) */
        struct pair pair;

        pair_open(&pair, AEAD_AES_128_GCM_SHA256);
        inner[TLS_PLAINTEXT_BYTES_MAX + 1] = padded ? 0 : 0x17;

        const size_t record_bytes =
            seal_inner(&pair.client, inner, TLS_PLAINTEXT_BYTES_MAX + 2, record);
        const struct tls_opened opened = open_record(&pair, &pair.server, record, record_bytes);

        assert_refused(&pair, &pair.server, &opened, TLS_FAULT_CONTENT_TOO_LONG,
                       TLS_ALERT_RECORD_OVERFLOW);
        pair_close(&pair);
    }
    free(record);
    free(inner);
}

static void record_numbers_never_wrap(void **state)
{
    struct pair pair;
    uint8_t record[64];

    (void)state;
    pair_open(&pair, AEAD_CHACHA20_POLY1305_SHA256);
    pair.client.tx_number = UINT64_MAX;
    pair.server.rx_number = UINT64_MAX;

    const size_t record_bytes = seal_inner(&pair.client, "data\x17", 5, record);
    const struct tls_opened opened = open_record(&pair, &pair.server, record, record_bytes);

    assert_refused(&pair, &pair.server, &opened, TLS_FAULT_NUMBERS_SPENT, TLS_ALERT_INTERNAL_ERROR);

    /* Our own are far from it: the key is updated first. */
    pair.server.tx_number = UINT64_MAX - 1;
    pair.client.rx_number = UINT64_MAX - 1;
    pair.server.flags = 0;
    pair.client.flags = TLS_KEYS_CLIENT;
    assert_carries(&pair, &pair.server, &pair.client, "under a new key");
    assert_int_equal(pair.server.tx_number, 1);
    pair_close(&pair);
}

static const struct {
    const char *name;
    const char *inner;
    size_t inner_bytes;
} quiet_records[] = {
    { "empty data", "\x17", 1 },
    { "empty data, padded", "\x17\0\0\0", 4 },
    { "user_canceled", "\x01\x5a\x15", 3 },
    { "KeyUpdate", "\x18\0\0\x01\0\x16", 6 },
    { "KeyUpdate that asks", "\x18\0\0\x01\x01\x16", 6 },
};

static void seal_quiet(struct pair *pair, size_t row, uint8_t *record, size_t *record_bytes)
{
    *record_bytes =
        seal_inner(&pair->client, quiet_records[row].inner, quiet_records[row].inner_bytes, record);
    if (quiet_records[row].inner[0] == 0x18) {
        assert_true(tls_direction_update(&pair->client.tx, pair->client.suite));
        pair->client.tx_number = 0;
    }
}

static void flood_without_data_is_refused(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof quiet_records / sizeof quiet_records[0]; row++) {
        struct pair pair;
        uint8_t record[64];
        size_t record_bytes;
        struct tls_opened opened;

        print_message("%s\n", quiet_records[row].name);
        pair_open(&pair, AEAD_AES_128_GCM_SHA256);
        for (int round = 0; round < 3; round++) { /* data in between makes them harmless */
            for (int count = 0; count < TLS_QUIET_RECORDS_MAX; count++) {
                seal_quiet(&pair, row, record, &record_bytes);
                opened = open_record(&pair, &pair.server, record, record_bytes);
                assert_int_equal(opened.result, TLS_OPEN_HANDLED);
            }
            if (round < 2) {
                assert_carries(&pair, &pair.client, &pair.server, "data");
            }
        }
        seal_quiet(&pair, row, record, &record_bytes);
        opened = open_record(&pair, &pair.server, record, record_bytes);
        assert_refused(&pair, &pair.server, &opened, TLS_FAULT_QUIET_FLOOD,
                       TLS_ALERT_UNEXPECTED_MESSAGE);
        pair_close(&pair);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(forbidden_content_gets_its_alert),
    cmocka_unit_test(forbidden_header_is_refused_before_the_rest_comes),
    cmocka_unit_test(forged_repeated_or_skipped_record_is_refused),
    cmocka_unit_test(content_longer_than_2_to_14_is_refused),
    cmocka_unit_test(record_numbers_never_wrap),
    cmocka_unit_test(flood_without_data_is_refused),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

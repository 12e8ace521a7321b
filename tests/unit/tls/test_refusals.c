#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/pair.h"

/* ---- refusals: what a peer with good keys may not send */

enum { TO_SERVER, TO_CLIENT };

static const struct {
    const char *name;
    int to;
    const char *inner; /* with content type and padding */
    size_t inner_bytes;
    enum tls_fault fault;
    enum tls_alert alert;
} refused_inner[] = {
#define INNER(text) text, sizeof(text) - 1
    { "no content at all", TO_SERVER, "", 0, TLS_FAULT_NO_CONTENT_TYPE, 10 },
    { "one zero", TO_SERVER, INNER("\0"), TLS_FAULT_NO_CONTENT_TYPE, 10 },
    { "zeros only", TO_SERVER, INNER("\0\0\0\0\0\0\0\0"), TLS_FAULT_NO_CONTENT_TYPE, 10 },
    { "inner change_cipher_spec", TO_SERVER, INNER("\x01\x14"), TLS_FAULT_CONTENT_TYPE, 10 },
    { "unknown inner type", TO_SERVER, INNER("x\x18"), TLS_FAULT_CONTENT_TYPE, 10 },
    { "unknown inner type, empty", TO_SERVER, INNER("\x18"), TLS_FAULT_CONTENT_TYPE, 10 },
    { "empty alert", TO_SERVER, INNER("\x15"), TLS_FAULT_EMPTY_FRAGMENT, 10 },
    { "alert of one byte", TO_SERVER, INNER("\x01\x15"), TLS_FAULT_ALERT_LENGTH, 50 },
    { "two alerts in a record", TO_SERVER, INNER("\x01\x5a\x01\x00\x15"), TLS_FAULT_ALERT_LENGTH,
      50 },
    { "fatal alert", TO_SERVER, INNER("\x02\x50\x15"), TLS_FAULT_PEER_ALERT, TLS_ALERT_NONE },
    { "warning is fatal too", TO_SERVER, INNER("\x01\x50\x15"), TLS_FAULT_PEER_ALERT,
      TLS_ALERT_NONE },
    { "empty handshake record", TO_SERVER, INNER("\x16"), TLS_FAULT_EMPTY_FRAGMENT, 10 },
    { "ClientHello", TO_SERVER, INNER("\x01\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "Finished", TO_SERVER, INNER("\x14\0\0\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "Certificate after the handshake", TO_SERVER, INNER("\x0b\0\0\0\x16"),
      TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "ticket to a server", TO_SERVER, INNER("\x04\0\0\x01\0\x16"), TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "CertificateRequest to a client", TO_CLIENT, INNER("\x0d\0\0\0\x16"),
      TLS_FAULT_HANDSHAKE_TYPE, 10 },
    { "KeyUpdate with an unknown request", TO_SERVER, INNER("\x18\0\0\x01\x02\x16"),
      TLS_FAULT_KEY_UPDATE_VALUE, 47 },
    { "KeyUpdate without its byte", TO_SERVER, INNER("\x18\0\0\0\x16"), TLS_FAULT_KEY_UPDATE_LENGTH,
      50 },
    { "KeyUpdate of two bytes", TO_SERVER, INNER("\x18\0\0\x02\0\0\x16"),
      TLS_FAULT_KEY_UPDATE_LENGTH, 50 },
    { "KeyUpdate split in its header", TO_SERVER, INNER("\x18\0\x16"), TLS_FAULT_HANDSHAKE_SPLIT,
      10 },
    { "KeyUpdate split before its byte", TO_SERVER, INNER("\x18\0\0\x01\x16"),
      TLS_FAULT_HANDSHAKE_SPLIT, 10 },
    { "two KeyUpdates in a record", TO_SERVER, INNER("\x18\0\0\x01\0\x18\0\0\x01\0\x16"),
      TLS_FAULT_HANDSHAKE_SPLIT, 10 },
    { "ticket behind a KeyUpdate", TO_CLIENT, INNER("\x18\0\0\x01\0\x04\0\0\x01\0\x16"),
      TLS_FAULT_HANDSHAKE_SPLIT, 10 },
    { "ticket of 64 KB", TO_CLIENT, INNER("\x04\x01\0\0\x16"), TLS_FAULT_HANDSHAKE_TOO_LONG, 47 },
#undef INNER
};

static void forbidden_content_gets_its_alert(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof refused_inner / sizeof refused_inner[0]; row++) {
        struct pair pair;
        uint8_t record[128];
        struct tls_keys *to = refused_inner[row].to == TO_SERVER ? &pair.server : &pair.client;
        struct tls_keys *from = refused_inner[row].to == TO_SERVER ? &pair.client : &pair.server;

        print_message("%s\n", refused_inner[row].name);
        pair_open(&pair, AEAD_AES_128_GCM_SHA256);

        const size_t record_bytes =
            seal_inner(from, refused_inner[row].inner, refused_inner[row].inner_bytes, record);
        const struct tls_opened opened = open_record(&pair, to, record, record_bytes);

        if (refused_inner[row].fault == TLS_FAULT_PEER_ALERT) {
            assert_int_equal(opened.peer_alert, 0x50);
        }
        assert_refused(&pair, to, &opened, refused_inner[row].fault, refused_inner[row].alert);
        pair_close(&pair);
    }
}

static const struct {
    const char *name;
    const char *header;
    enum tls_fault fault;
    enum tls_alert alert;
} refused_header[] = {
    { "change_cipher_spec after Finished", "\x14\x03\x03\x00\x01", TLS_FAULT_PLAINTEXT, 10 },
    { "plaintext alert after Finished", "\x15\x03\x03\x00\x02", TLS_FAULT_PLAINTEXT, 10 },
    { "plaintext handshake after Finished", "\x16\x03\x03\x00\x05", TLS_FAULT_PLAINTEXT, 10 },
    { "unknown record type", "\x18\x03\x03\x00\x20", TLS_FAULT_RECORD_TYPE, 10 },
    { "HTTP", "GET /", TLS_FAULT_RECORD_TYPE, 10 },
    { "longer than 2^14 + 256", "\x17\x03\x03\x41\x01", TLS_FAULT_RECORD_TOO_LONG, 22 },
    { "of 64 KB", "\x17\x03\x03\xff\xff", TLS_FAULT_RECORD_TOO_LONG, 22 },
    { "empty", "\x17\x03\x03\x00\x00", TLS_FAULT_BAD_MAC, 20 },
    { "shorter than a tag", "\x17\x03\x03\x00\x0f", TLS_FAULT_BAD_MAC, 20 },
};

static void forbidden_header_is_refused_before_the_rest_comes(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof refused_header / sizeof refused_header[0]; row++) {
        struct pair pair;
        uint8_t header[5];

        print_message("%s\n", refused_header[row].name);
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

#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/pair.h"

/* ---- keys */

static const struct {
    const char *name;
    const char *source;
    const char *secret;
    const char *key;
    const char *iv;
} traffic_vectors[] = {
    { "1-rtt server", "RFC 8448 3, {server} derive write traffic keys for application data",
      "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
      "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984" },
    { "1-rtt client", "RFC 8448 3, {client} derive write traffic keys for application data",
      "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
      "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9" },
    { "resumed server", "RFC 8448 4, {server} derive write traffic keys for application data",
      "cc21f1bf8feb7dd5fa505bd9c4b468a9984d554a993dc49e6d285598fb672691",
      "e857c690a34c5a9129d833619684f95e", "0685d6b561aab9ef1013faf9" },
    { "resumed client", "RFC 8448 4, {client} derive write traffic keys for application data",
      "2abbf2b8e381d23dbebe1dd2a7d16a8bf484cb4950d23fb7fb7fa8547062d9a1",
      "3cf122f301c6358ca7989553250efd72", "ab1aec26aa78b8fc1176b9ac" },
};

static void traffic_keys_are_those_of_rfc_8448(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof traffic_vectors / sizeof traffic_vectors[0]; row++) {
        uint8_t secret[32];
        uint8_t key[16];
        uint8_t iv[12];
        struct tls_keys keys;

        print_message("%s (%s)\n", traffic_vectors[row].name, traffic_vectors[row].source);
        hex_decode(traffic_vectors[row].secret, secret, sizeof secret);
        hex_decode(traffic_vectors[row].key, key, sizeof key);
        hex_decode(traffic_vectors[row].iv, iv, sizeof iv);
        assert_true(tls_keys_init(&keys, AEAD_AES_128_GCM_SHA256, false, secret, secret));
        assert_memory_equal(keys.rx.aead.key, key, sizeof key);
        assert_memory_equal(keys.rx.aead.iv, iv, sizeof iv);
        assert_memory_equal(&keys.tx, &keys.rx, sizeof keys.tx);
    }
}

static void record_of_rfc_8448_opens(void **state)
{
    static const char sealed[] = /* RFC 8448 3, {client} send application_data record */
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20"
        "441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
    uint8_t record[128];
    uint8_t secret[32];
    struct pair pair;
    const size_t record_bytes = hex_decode(sealed, record, sizeof record);

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    hex_decode(traffic_vectors[1].secret, secret, sizeof secret);
    assert_true(tls_keys_init(&pair.server, AEAD_AES_128_GCM_SHA256, false, secret, secret));

    const struct tls_opened opened = open_record(&pair, &pair.server, record, record_bytes);

    assert_int_equal(opened.result, TLS_OPEN_DATA);
    assert_int_equal(opened.data_bytes, 50);
    for (uint8_t at = 0; at < 50; at++) {
        assert_int_equal(record[opened.data_offset + at], at);
    }
    pair_close(&pair);
}

static bool all_zero(const void *bytes, size_t byte_count)
{
    for (size_t at = 0; at < byte_count; at++) {
        if (((const uint8_t *)bytes)[at] != 0) {
            return false;
        }
    }
    return true;
}

static void cleared_keys_leave_no_byte(void **state)
{
    struct pair pair;
    struct aead_counters counters;

    (void)state;
    pair_open(&pair, AEAD_AES_256_GCM_SHA384);
    assert_carries(&pair, &pair.client, &pair.server, "there");
    assert_carries(&pair, &pair.server, &pair.client, "and back");
    tls_keys_clear(&pair.core, &pair.client);
    tls_keys_clear(&pair.core, &pair.server);
    assert_true(all_zero(&pair.client, sizeof pair.client));
    assert_true(all_zero(&pair.server, sizeof pair.server));
    aead_cache_count(pair.core.aead, &counters);
    assert_int_equal(counters.keyed_contexts, 0);
    tls_keys_clear(NULL, &pair.server); /* twice, and without a core, is harmless */
    pair_close(&pair);
}

static void copied_keys_go_on_elsewhere(void **state)
{
    struct pair here;
    struct pair there;
    uint8_t frozen[sizeof(struct tls_keys)];

    (void)state;
    pair_open(&here, AEAD_CHACHA20_POLY1305_SHA256);
    pair_open(&there, AEAD_CHACHA20_POLY1305_SHA256);
    assert_carries(&here, &here.client, &here.server, "before");
    memcpy(frozen, &here.server, sizeof frozen);
    tls_keys_forget(&here.core, &here.server);
    memcpy(&there.server, frozen, sizeof frozen);
    there.client = here.client; /* so that assert_carries has both; the peer doesn't notice */
    assert_true(tls_keys_valid(&there.server));
    assert_carries(&there, &there.client, &there.server, "after");
    assert_carries(&there, &there.server, &there.client, "and back");
    pair_close(&here);
    pair_close(&there);
}

static void keys_of_another_version_or_suite_are_refused(void **state)
{
    struct pair pair;
    struct tls_keys keys;

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    assert_true(tls_keys_valid(&pair.server));
    keys = pair.server;
    keys.version++;
    assert_false(tls_keys_valid(&keys));
    keys = pair.server;
    keys.suite = 0x1304;
    assert_false(tls_keys_valid(&keys));
    keys = pair.server;
    keys.flags |= 0x80;
    assert_false(tls_keys_valid(&keys));
    keys = pair.server;
    keys.skip_bytes_ = 1; /* a server never skips */
    assert_false(tls_keys_valid(&keys));
    for (int within = 1; within <= 9; within++) {
        const bool key_update = within > TLS_KEYS_WITHIN_KEY_UPDATE && within != 9;

        keys = pair.server;
        keys.header_bytes_ = (uint8_t)within;
        assert_int_equal(tls_keys_valid(&keys), key_update);
        keys = pair.client;
        keys.header_bytes_ = (uint8_t)within;
        assert_int_equal(tls_keys_valid(&keys), key_update || within < TLS_KEYS_WITHIN_KEY_UPDATE);
        keys.skip_bytes_ = 256; /* a ticket's */
        assert_int_equal(tls_keys_valid(&keys), within < TLS_KEYS_WITHIN_KEY_UPDATE);
    }
    keys = pair.server;
    keys.tx_number = UINT64_MAX;
    assert_false(tls_keys_valid(&keys));
    memset(&keys, 0, sizeof keys);
    assert_false(tls_keys_valid(&keys));
    pair_close(&pair);
}

/* ---- data */

static void every_size_is_carried(void **state)
{
    static const size_t sizes[] = { 1, 2, 15, 16, 17, 255, 256, 4095, 16383, 16384 };
    static const uint16_t suites[] = { AEAD_AES_128_GCM_SHA256, AEAD_AES_256_GCM_SHA384,
                                       AEAD_CHACHA20_POLY1305_SHA256 };
    uint8_t *data = malloc(TLS_PLAINTEXT_BYTES_MAX);
    uint8_t *record = malloc(TLS_RECORD_BYTES_MAX);

    (void)state;
    for (size_t at = 0; at < TLS_PLAINTEXT_BYTES_MAX; at++) {
        data[at] = (uint8_t)(at * 7);
    }
    for (size_t suite = 0; suite < 3; suite++) {
        struct pair pair;

        pair_open(&pair, suites[suite]);
        for (size_t size = 0; size < sizeof sizes / sizeof sizes[0]; size++) {
            const struct iovec part = { .iov_base = data, .iov_len = sizes[size] };
            const size_t sealed_bytes =
                tls_record_seal(&pair.core, &pair.server, &part, 1, record, TLS_RECORD_BYTES_MAX);

            assert_int_equal(sealed_bytes, sizes[size] + TLS_RECORD_OVERHEAD);

            const struct tls_opened opened = open_record(&pair, &pair.client, record, sealed_bytes);

            assert_int_equal(opened.result, TLS_OPEN_DATA);
            assert_int_equal(opened.data_bytes, sizes[size]);
            assert_memory_equal(record + opened.data_offset, data, sizes[size]);
        }
        assert_int_equal(pair.server.tx_number, sizeof sizes / sizeof sizes[0]);
        pair_close(&pair);
    }
    free(record);
    free(data);
}

static void parts_are_gathered_and_sealed_in_place_alike(void **state)
{
    static uint8_t text[13] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 };
    struct pair pair;
    struct tls_keys same;
    uint8_t gathered[64];
    uint8_t in_place[64];
    const struct iovec parts[] = {
        { .iov_base = text, .iov_len = 4 },
        { .iov_base = NULL, .iov_len = 0 },
        { .iov_base = text + 4, .iov_len = 4 },
        { .iov_base = text + 8, .iov_len = 5 },
    };

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    same = pair.server;

    const size_t headroom = tls_record_headroom(&pair.core, &pair.server);
    const size_t gathered_bytes =
        tls_record_seal(&pair.core, &pair.server, parts, 4, gathered, sizeof gathered);

    for (size_t at = 0; at + 13 <= sizeof in_place; at++) { /* wherever it lies in the buffer */
        struct tls_keys again = same;
        const struct iovec part = { .iov_base = in_place + at, .iov_len = 13 };

        memcpy(in_place + at, text, 13);
        assert_int_equal(tls_record_seal(&pair.core, &again, &part, 1, in_place, sizeof in_place),
                         gathered_bytes);
        assert_memory_equal(in_place, gathered, gathered_bytes);
    }
    assert_int_equal(headroom, TLS_RECORD_HEADER_BYTES);
    pair_close(&pair);
}

static void incomplete_record_asks_for_its_length_and_changes_nothing(void **state)
{
    struct pair pair;
    uint8_t record[64];

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);

    const size_t record_bytes = seal_inner(&pair.client, "data\x17", 5, record);
    const struct tls_keys before = pair.server;

    for (size_t have = 0; have < record_bytes; have++) {
        uint8_t copy[64];

        memcpy(copy, record, record_bytes);

        const struct tls_opened opened = open_record(&pair, &pair.server, copy, have);

        assert_int_equal(opened.result, TLS_OPEN_MORE);
        assert_int_equal(opened.record_bytes, have < 5 ? 5 : record_bytes);
        assert_memory_equal(&pair.server, &before, sizeof before);
        assert_memory_equal(copy, record, record_bytes);
    }
    assert_int_equal(open_record(&pair, &pair.server, record, record_bytes).result, TLS_OPEN_DATA);
    pair_close(&pair);
}

static void only_the_first_record_is_opened(void **state)
{
    struct pair pair;
    uint8_t records[128];

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);

    const size_t first = seal_inner(&pair.client, "one\x17", 4, records);
    const size_t second = seal_inner(&pair.client, "three\x17", 6, records + first);
    struct tls_opened opened = open_record(&pair, &pair.server, records, first + second);

    assert_int_equal(opened.record_bytes, first);
    assert_int_equal(opened.data_bytes, 3);
    opened = open_record(&pair, &pair.server, records + first, second);
    assert_int_equal(opened.record_bytes, second);
    assert_int_equal(opened.data_bytes, 5);
    pair_close(&pair);
}

/* What a stream of records means: data as it is, each other result as one byte above 127. */
static size_t read_stream(struct pair *pair, struct tls_keys *keys, uint8_t *bytes,
                          size_t byte_count, size_t *used, uint8_t *meaning)
{
    size_t meant = 0;

    for (;;) {
        struct tls_opened opened;

        tls_record_open(&pair->core, keys, bytes + *used, byte_count - *used, &opened);
        if (opened.result == TLS_OPEN_MORE) {
            return meant;
        }
        if (opened.result == TLS_OPEN_DATA) {
            memcpy(meaning + meant, bytes + *used + opened.data_offset, opened.data_bytes);
            meant += opened.data_bytes;
        } else {
            meaning[meant++] = (uint8_t)(128 + opened.result);
        }
        *used += opened.record_bytes;
        if (opened.result == TLS_OPEN_CLOSED) {
            return meant;
        }
    }
}

static void stream_split_anywhere_means_the_same(void **state)
{
    static const char meaning[] = "one\x82two\x82\x82three\x82\x82\x82"
                                  "4\x83";
    struct pair pair;
    uint8_t stream[1024];
    size_t stream_bytes = 0;

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    stream_bytes += seal_inner(&pair.server, "one\x17", 4, stream);
    stream_bytes += seal_inner(&pair.server, "\x17\0\0", 3, stream + stream_bytes);
    stream_bytes += seal_inner(&pair.server, "two\x17", 4, stream + stream_bytes);
    stream_bytes += seal_inner(&pair.server, "\x04\0\0\x05ti\x16", 7, stream + stream_bytes);
    stream_bytes += seal_inner(&pair.server, "cke\x16", 4, stream + stream_bytes);
    stream_bytes += seal_inner(&pair.server, "three\x17", 6, stream + stream_bytes);
    for (int count = 0; count < 2; count++) {
        stream_bytes += seal_inner(&pair.server, "\x18\0\0\x01\x01\x16", 6, stream + stream_bytes);
        assert_true(tls_direction_update(&pair.server.tx, pair.server.suite));
        pair.server.tx_number = 0;
    }
    stream_bytes += seal_inner(&pair.server, "\x01\x5a\x15", 3, stream + stream_bytes);
    stream_bytes += seal_inner(&pair.server, "4\x17", 2, stream + stream_bytes);
    stream_bytes += tls_record_seal_alert(&pair.core, &pair.server, TLS_ALERT_CLOSE_NOTIFY,
                                          stream + stream_bytes, sizeof stream - stream_bytes);
    for (size_t split = 0; split <= stream_bytes; split++) {
        struct tls_keys keys = pair.client;
        uint8_t bytes[sizeof stream];
        uint8_t meant[sizeof stream];
        size_t used = 0;
        size_t meant_bytes;

        memcpy(bytes, stream, stream_bytes);
        meant_bytes = read_stream(&pair, &keys, bytes, split, &used, meant);
        if (used < stream_bytes) {
            meant_bytes +=
                read_stream(&pair, &keys, bytes, stream_bytes, &used, meant + meant_bytes);
        }
        assert_int_equal(meant_bytes, sizeof meaning - 1);
        assert_memory_equal(meant, meaning, meant_bytes);
        assert_int_equal(used, stream_bytes);
    }
    pair_close(&pair);
}

static void padding_is_taken_off(void **state)
{
    struct pair pair;
    uint8_t *inner = calloc(1, TLS_PLAINTEXT_BYTES_MAX + 1);
    uint8_t *record = malloc(TLS_RECORD_BYTES_MAX);

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    inner[0] = 'x';
    inner[6] = 23; /* zeros before the type belong to the data */
    for (size_t inner_bytes = 7; inner_bytes <= TLS_PLAINTEXT_BYTES_MAX + 1;
         inner_bytes = inner_bytes == 7 ? 20 : inner_bytes + TLS_PLAINTEXT_BYTES_MAX + 1 - 20) {
        const size_t record_bytes = seal_inner(&pair.client, inner, inner_bytes, record);
        const struct tls_opened opened = open_record(&pair, &pair.server, record, record_bytes);

        assert_int_equal(opened.result, TLS_OPEN_DATA);
        assert_int_equal(opened.data_bytes, 6);
    }
    free(record);
    free(inner);
    pair_close(&pair);
}

static void close_notify_is_told_and_answered(void **state)
{
    struct pair pair;
    uint8_t record[64];
    size_t record_bytes;
    struct tls_opened opened;

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    record_bytes = seal_inner(&pair.client, "\x01\x5a\x15", 3, record); /* user_canceled first */
    opened = open_record(&pair, &pair.server, record, record_bytes);
    assert_int_equal(opened.result, TLS_OPEN_HANDLED);
    record_bytes = tls_record_seal_alert(&pair.core, &pair.client, TLS_ALERT_CLOSE_NOTIFY, record,
                                         sizeof record);
    assert_int_equal(record_bytes, TLS_ALERT_RECORD_BYTES);
    assert_int_equal(tls_record_seal_alert(&pair.core, &pair.client, TLS_ALERT_INTERNAL_ERROR,
                                           record + record_bytes, sizeof record - record_bytes),
                     0); /* only one */
    opened = open_record(&pair, &pair.server, record, record_bytes);
    assert_int_equal(opened.result, TLS_OPEN_CLOSED);
    assert_int_equal(opened.record_bytes, record_bytes);

    /* The other direction is still open. */
    assert_carries(&pair, &pair.server, &pair.client, "last words");
    record_bytes = tls_record_seal_alert(&pair.core, &pair.server, TLS_ALERT_CLOSE_NOTIFY, record,
                                         sizeof record);
    opened = open_record(&pair, &pair.client, record, record_bytes);
    assert_int_equal(opened.result, TLS_OPEN_CLOSED);
    pair_close(&pair);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(traffic_keys_are_those_of_rfc_8448),
    cmocka_unit_test(record_of_rfc_8448_opens),
    cmocka_unit_test(cleared_keys_leave_no_byte),
    cmocka_unit_test(copied_keys_go_on_elsewhere),
    cmocka_unit_test(keys_of_another_version_or_suite_are_refused),
    cmocka_unit_test(every_size_is_carried),
    cmocka_unit_test(parts_are_gathered_and_sealed_in_place_alike),
    cmocka_unit_test(incomplete_record_asks_for_its_length_and_changes_nothing),
    cmocka_unit_test(only_the_first_record_is_opened),
    cmocka_unit_test(stream_split_anywhere_means_the_same),
    cmocka_unit_test(padding_is_taken_off),
    cmocka_unit_test(close_notify_is_told_and_answered),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

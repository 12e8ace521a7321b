#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "tests/unit/tls/fixture.h"

/* ---- two ends with keys, without a handshake */

struct pair {
    struct tls_core core;
    struct tls_keys client;
    struct tls_keys server;
};

static void pair_open(struct pair *pair, uint16_t suite)
{
    uint8_t to_server[TLS_SECRET_BYTES_MAX];
    uint8_t to_client[TLS_SECRET_BYTES_MAX];
    struct hf_error error;

    memset(to_server, 0x11, sizeof to_server);
    memset(to_client, 0x22, sizeof to_client);
    assert_int_equal(tls_core_open(&pair->core, 16, &error), 0);
    assert_true(tls_keys_init(&pair->client, suite, true, to_client, to_server));
    assert_true(tls_keys_init(&pair->server, suite, false, to_server, to_client));
}

static void pair_close(struct pair *pair)
{
    tls_keys_clear(&pair->core, &pair->client);
    tls_keys_clear(&pair->core, &pair->server);
    tls_core_close(&pair->core);
}

/*
 * Any record a peer could make: the inner plaintext as it stands, its content type and padding
 * included, sealed by the peer's keys.
 */
static size_t seal_inner(struct tls_keys *keys, const void *inner, size_t inner_bytes,
                         uint8_t *record)
{
    record[0] = 23;
    store_be16(record + 1, 0x0303);
    store_be16(record + 3, (uint16_t)(inner_bytes + AEAD_TAG_BYTES));
    memmove(record + 5, inner, inner_bytes);
    assert_int_equal(aead_seal(NULL, keys->suite, &keys->tx.aead, keys->tx_number++, record, 5,
                               record + 5, inner_bytes, record + 5 + inner_bytes),
                     AEAD_OK);
    return 5 + inner_bytes + AEAD_TAG_BYTES;
}

static struct tls_opened open_record(struct pair *pair, struct tls_keys *keys, uint8_t *record,
                                     size_t record_bytes)
{
    struct tls_opened opened;

    tls_record_open(&pair->core, keys, record, record_bytes, &opened);
    return opened;
}

static void assert_carries(struct pair *pair, struct tls_keys *from, struct tls_keys *to,
                           const char *text)
{
    uint8_t record[256];
    const struct iovec part = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
    const size_t wanted = tls_record_sealed_bytes(&pair->core, from, part.iov_len);
    const size_t sealed_bytes = tls_record_seal(&pair->core, from, &part, 1, record, sizeof record);
    size_t at = 0;
    struct tls_opened opened;

    assert_int_equal(sealed_bytes, wanted);
    do {
        opened = open_record(pair, to, record + at, sealed_bytes - at);
        assert_true(opened.result == TLS_OPEN_DATA || opened.result == TLS_OPEN_HANDLED);
        at += opened.record_bytes;
    } while (opened.result == TLS_OPEN_HANDLED);
    assert_int_equal(at, sealed_bytes);
    assert_int_equal(opened.data_bytes, part.iov_len);
    assert_memory_equal(record + at - opened.record_bytes + opened.data_offset, text, part.iov_len);
}

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
    static char text[] = "one two three";
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
    memcpy(inner, "data\0\0\x17", 7); /* zeros before the type belong to the data */
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

static void assert_refused(struct pair *pair, struct tls_keys *keys, const struct tls_opened *got,
                           enum tls_fault fault, enum tls_alert alert)
{
    assert_int_equal(got->result, TLS_OPEN_FATAL);
    assert_string_equal(tls_fault_label(got->fault), tls_fault_label(fault));
    assert_int_equal(got->alert, alert);
    assert_true(strlen(tls_fault_text(fault)) > 5);
    assert_true((keys->flags & TLS_KEYS_RX_CLOSED) != 0);

    /* The alert reaches the peer. */
    struct tls_keys *peer = keys == &pair->server ? &pair->client : &pair->server;
    uint8_t record[64];
    const size_t record_bytes =
        tls_record_seal_alert(&pair->core, keys, got->alert, record, sizeof record);

    if (alert == TLS_ALERT_NONE) {
        assert_int_equal(record_bytes, 0);
        return;
    }
    assert_int_equal(record_bytes, TLS_ALERT_RECORD_BYTES);

    const struct tls_opened opened = open_record(pair, peer, record, record_bytes);

    assert_int_equal(opened.fault, TLS_FAULT_PEER_ALERT);
    assert_int_equal(opened.peer_alert, alert);
}

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
    struct pair pair;
    struct aead_counters counters;

    (void)state;
    pair_open(&pair, AEAD_AES_128_GCM_SHA256);
    pair.core.rekey_after_records = 1;
    for (int count = 0; count < 10; count++) {
        assert_carries(&pair, &pair.server, &pair.client, "data");
    }
    aead_cache_count(pair.core.aead, &counters);
    /* Seal and open share one: both ends have the same key here. */
    assert_int_equal(counters.keyed_contexts, 1);
    pair_close(&pair);
}

/* ---- tickets to a client's record layer */

static void ticket_is_skipped_however_it_is_split(void **state)
{
    uint8_t message[4 + 300 + 4 + 3 + 1] = { 4, 0, 300 >> 8, 300 & 255 };

    (void)state;
    memset(message + 4, 24, 300); /* looks like KeyUpdates inside */
    memcpy(message + 304, "\x04\0\0\x03xyz", 7);
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
    cmocka_unit_test(forbidden_content_gets_its_alert),
    cmocka_unit_test(forbidden_header_is_refused_before_the_rest_comes),
    cmocka_unit_test(forged_repeated_or_skipped_record_is_refused),
    cmocka_unit_test(content_longer_than_2_to_14_is_refused),
    cmocka_unit_test(record_numbers_never_wrap),
    cmocka_unit_test(flood_without_data_is_refused),
    cmocka_unit_test(key_update_is_answered_once_before_the_next_data),
    cmocka_unit_test(update_that_asks_moves_both_directions),
    cmocka_unit_test(own_key_is_updated_after_so_many_records),
    cmocka_unit_test(update_leaves_no_old_context_in_the_cache),
    cmocka_unit_test(ticket_is_skipped_however_it_is_split),
    cmocka_unit_test(data_or_key_update_within_a_ticket_is_refused),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

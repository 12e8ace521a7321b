#include "tests/unit/tls/pair.h"

#include <string.h>

#include "core/base/bytes.h"

void pair_open(struct pair *pair, uint16_t suite)
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

void pair_close(struct pair *pair)
{
    tls_keys_clear(&pair->core, &pair->client);
    tls_keys_clear(&pair->core, &pair->server);
    tls_core_close(&pair->core);
}

size_t seal_inner(struct tls_keys *keys, const void *inner, size_t inner_bytes, uint8_t *record)
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

struct tls_opened open_record(struct pair *pair, struct tls_keys *keys, uint8_t *record,
                              size_t record_bytes)
{
    struct tls_opened opened;

    tls_record_open(&pair->core, keys, record, record_bytes, &opened);
    return opened;
}

void assert_carries(struct pair *pair, struct tls_keys *from, struct tls_keys *to, const char *text)
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

void assert_refused(struct pair *pair, struct tls_keys *keys, const struct tls_opened *got,
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

#include "core/tls/record.h"

#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"

enum record_content {
    CONTENT_CHANGE_CIPHER_SPEC = 20,
    CONTENT_ALERT = 21,
    CONTENT_HANDSHAKE = 22,
    CONTENT_DATA = 23,
};

enum { HANDSHAKE_NEW_SESSION_TICKET = 4, HANDSHAKE_KEY_UPDATE = 24 };
enum { ALERT_LEVEL_WARNING = 1, ALERT_LEVEL_FATAL = 2 };
enum { LEGACY_VERSION = 0x0303, KEY_UPDATE_BYTES = 5 };

struct record_fault_info {
    enum tls_alert alert;
    const char *label;
    const char *text;
};

static const struct record_fault_info record_faults[TLS_FAULT_COUNT] = {
#define RECORD_FAULT_INFO(name, label, alert, text)                                                \
    [TLS_FAULT_##name] = { TLS_ALERT_##alert, #label, text },
    TLS_FAULTS(RECORD_FAULT_INFO)
#undef RECORD_FAULT_INFO
};

const char *tls_fault_text(enum tls_fault fault)
{
    HF_ASSERT(fault < TLS_FAULT_COUNT);
    return record_faults[fault].text;
}

const char *tls_fault_label(enum tls_fault fault)
{
    HF_ASSERT(fault < TLS_FAULT_COUNT);
    return record_faults[fault].label;
}

int tls_core_open(struct tls_core *core, size_t keyed_contexts, struct hf_error *error)
{
    *core = (struct tls_core){ .rekey_after_records = TLS_REKEY_AFTER_RECORDS };
    core->aead = aead_cache_open(keyed_contexts);
    if (core->aead == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory for a cache of %zu cipher contexts",
                     keyed_contexts);
        return -1;
    }
    return 0;
}

void tls_core_close(struct tls_core *core)
{
    aead_cache_close(core->aead);
    *core = (struct tls_core){ 0 };
}

/* ---- opening */

static void record_fail(struct tls_keys *keys, struct tls_opened *opened, enum tls_fault fault)
{
    keys->flags |= TLS_KEYS_RX_CLOSED;
    opened->result = TLS_OPEN_FATAL;
    opened->fault = fault;
    opened->alert = record_faults[fault].alert;
}

static bool record_within_message(const struct tls_keys *keys)
{
    return keys->header_bytes_ != 0 || keys->skip_bytes_ != 0;
}

/*
 * RFC 8446 4.6.3. The message may be split over records (5.1), but must end its record, for what
 * follows is under another key. All of it but its last byte is fixed, so only how much has come is
 * kept. The new key holds from the next record on, at once; the answer waits for our next data, so
 * that several requests get one.
 */
static enum tls_fault record_on_key_update(struct tls_core *core, struct tls_keys *keys,
                                           const uint8_t *message, size_t byte_count)
{
    static const uint8_t head[KEY_UPDATE_BYTES - 1] = { HANDSHAKE_KEY_UPDATE, 0, 0, 1 };
    size_t seen =
        keys->header_bytes_ == 0 ? 0 : (size_t)keys->header_bytes_ - TLS_KEYS_WITHIN_KEY_UPDATE;

    for (; byte_count > 0 && seen < sizeof head; message++, byte_count--, seen++) {
        if (message[0] != head[seen]) {
            return TLS_FAULT_KEY_UPDATE_LENGTH;
        }
    }
    if (byte_count == 0) {
        keys->header_bytes_ = (uint8_t)(TLS_KEYS_WITHIN_KEY_UPDATE + seen);
        return TLS_FAULT_NONE;
    }
    if (byte_count != 1) {
        return TLS_FAULT_KEY_UPDATE_NOT_LAST;
    }
    if (message[0] > 1) {
        return TLS_FAULT_KEY_UPDATE_VALUE;
    }
    aead_cache_forget(core->aead, keys->suite, &keys->rx.aead);
    if (!tls_direction_update(&keys->rx, keys->suite)) {
        return TLS_FAULT_NO_MEMORY;
    }
    keys->rx_number = 0;
    keys->header_bytes_ = 0;
    core->key_updates_received++;
    if (message[0] == 1) {
        keys->flags |= TLS_KEYS_UPDATE_DUE;
    }
    return TLS_FAULT_NONE;
}

/* One byte of a NewSessionTicket's header: type, then the length in three bytes, of 64 KB at most.
 */
static enum tls_fault record_on_ticket_header(struct tls_keys *keys, uint8_t byte)
{
    switch (keys->header_bytes_) {
    case 0:
        keys->header_bytes_ = 1; /* the type: seen by the caller */
        break;
    case 1:
        if (byte != 0) {
            return TLS_FAULT_HANDSHAKE_TOO_LONG;
        }
        keys->header_bytes_ = 2;
        break;
    case 2:
        keys->skip_bytes_ = (uint16_t)(byte << 8);
        keys->header_bytes_ = 3;
        break;
    default:
        keys->skip_bytes_ = (uint16_t)(keys->skip_bytes_ | byte);
        keys->header_bytes_ = 0;
        break;
    }
    return TLS_FAULT_NONE;
}

/* Post-handshake messages: a client skips tickets, and nothing but KeyUpdate was negotiated. */
static enum tls_fault record_on_handshake(struct tls_core *core, struct tls_keys *keys,
                                          const uint8_t *message, size_t byte_count, bool *ticket)
{
    while (byte_count > 0) {
        size_t used = 1;
        enum tls_fault fault;

        if (keys->header_bytes_ == 0 && keys->skip_bytes_ != 0) {
            used = keys->skip_bytes_ < byte_count ? keys->skip_bytes_ : byte_count;
            keys->skip_bytes_ = (uint16_t)(keys->skip_bytes_ - used);
            *ticket = true;
            fault = TLS_FAULT_NONE;
        } else if (keys->header_bytes_ > TLS_KEYS_WITHIN_KEY_UPDATE ||
                   (keys->header_bytes_ == 0 && message[0] == HANDSHAKE_KEY_UPDATE)) {
            used = byte_count;
            fault = record_on_key_update(core, keys, message, byte_count);
        } else if (keys->header_bytes_ != 0 || (message[0] == HANDSHAKE_NEW_SESSION_TICKET &&
                                                (keys->flags & TLS_KEYS_CLIENT) != 0)) {
            *ticket = true;
            fault = record_on_ticket_header(keys, message[0]);
        } else {
            fault = TLS_FAULT_HANDSHAKE_TYPE;
        }
        if (fault != TLS_FAULT_NONE) {
            return fault;
        }
        message += used;
        byte_count -= used;
    }
    return TLS_FAULT_NONE;
}

/* RFC 8446 6: whatever its level, every alert ends the connection but the two that say goodbye. */
static void record_on_alert(struct tls_keys *keys, const uint8_t *alert, size_t byte_count,
                            struct tls_opened *opened)
{
    if (byte_count != 2) {
        record_fail(keys, opened,
                    byte_count == 0 ? TLS_FAULT_EMPTY_FRAGMENT : TLS_FAULT_ALERT_LENGTH);
        return;
    }
    if (alert[1] == TLS_ALERT_CLOSE_NOTIFY) {
        keys->flags |= TLS_KEYS_RX_CLOSED;
        opened->result = TLS_OPEN_CLOSED;
        return;
    }
    if (alert[1] != TLS_ALERT_USER_CANCELED) { /* which close_notify follows */
        opened->peer_alert = alert[1];
        record_fail(keys, opened, TLS_FAULT_PEER_ALERT);
    }
}

/* A record of content that is this layer's own affair, or empty (allowed: it hides traffic). */
static void record_on_quiet(struct tls_core *core, struct tls_keys *keys, uint8_t content,
                            const uint8_t *bytes, size_t byte_count, struct tls_opened *opened)
{
    enum tls_fault fault = TLS_FAULT_NONE;

    opened->result = TLS_OPEN_HANDLED;
    if (content == CONTENT_ALERT) {
        record_on_alert(keys, bytes, byte_count, opened);
        if (opened->result != TLS_OPEN_HANDLED) {
            return;
        }
    } else if (content == CONTENT_HANDSHAKE) {
        fault = byte_count == 0
                    ? TLS_FAULT_EMPTY_FRAGMENT
                    : record_on_handshake(core, keys, bytes, byte_count, &opened->ticket);
    } else if (content != CONTENT_DATA) { /* change_cipher_spec too: RFC 8446 5 */
        fault = TLS_FAULT_CONTENT_TYPE;
    }
    if (fault == TLS_FAULT_NONE && ++keys->quiet_records > TLS_QUIET_RECORDS_MAX) {
        fault = TLS_FAULT_QUIET_FLOOD;
    }
    if (fault != TLS_FAULT_NONE) {
        record_fail(keys, opened, fault);
    }
}

static enum tls_fault record_check_header(const uint8_t *header)
{
    const size_t length = load_be16(header + 3);

    /* The version is ignored, as RFC 8446 5.1 wants it; it is authenticated below. */
    if (header[0] != CONTENT_DATA) {
        return header[0] >= CONTENT_CHANGE_CIPHER_SPEC && header[0] < CONTENT_DATA
                   ? TLS_FAULT_PLAINTEXT
                   : TLS_FAULT_RECORD_TYPE;
    }
    if (length > TLS_CIPHERTEXT_BYTES_MAX) {
        return TLS_FAULT_RECORD_TOO_LONG;
    }
    return length < AEAD_TAG_BYTES ? TLS_FAULT_BAD_MAC : TLS_FAULT_NONE;
}

static enum tls_fault record_decrypt(struct tls_core *core, struct tls_keys *keys, uint8_t *record,
                                     size_t sealed_bytes)
{
    uint8_t *bytes = record + TLS_RECORD_HEADER_BYTES;
    const size_t byte_count = sealed_bytes - AEAD_TAG_BYTES;

    if (keys->rx_number == UINT64_MAX) {
        return TLS_FAULT_NUMBERS_SPENT;
    }
    switch (aead_open(core->aead, keys->suite, &keys->rx.aead, keys->rx_number, record,
                      TLS_RECORD_HEADER_BYTES, bytes, byte_count, bytes + byte_count)) {
    case AEAD_OK:
        keys->rx_number++;
        return byte_count > TLS_PLAINTEXT_BYTES_MAX + 1 ? TLS_FAULT_CONTENT_TOO_LONG
                                                        : TLS_FAULT_NONE;
    case AEAD_BAD_TAG:
        return TLS_FAULT_BAD_MAC;
    case AEAD_NO_MEMORY:
    default:
        return TLS_FAULT_NO_MEMORY;
    }
}

void tls_record_open(struct tls_core *core, struct tls_keys *keys, uint8_t *bytes,
                     size_t byte_count, struct tls_opened *opened)
{
    HF_ASSERT((keys->flags & TLS_KEYS_RX_CLOSED) == 0);
    *opened = (struct tls_opened){ .result = TLS_OPEN_MORE,
                                   .alert = TLS_ALERT_NONE,
                                   .record_bytes = TLS_RECORD_HEADER_BYTES };
    if (byte_count < TLS_RECORD_HEADER_BYTES) {
        return;
    }

    const size_t sealed_bytes = load_be16(bytes + 3);
    enum tls_fault fault = record_check_header(bytes);

    if (fault != TLS_FAULT_NONE) {
        record_fail(keys, opened, fault);
        return;
    }
    opened->record_bytes = (uint32_t)(TLS_RECORD_HEADER_BYTES + sealed_bytes);
    if (byte_count < opened->record_bytes) {
        return;
    }
    fault = record_decrypt(core, keys, bytes, sealed_bytes);
    if (fault != TLS_FAULT_NONE) {
        record_fail(keys, opened, fault);
        return;
    }

    /* Padding is zeros behind the content type (RFC 8446 5.4). */
    uint8_t *inner = bytes + TLS_RECORD_HEADER_BYTES;
    size_t inner_bytes = sealed_bytes - AEAD_TAG_BYTES;

    while (inner_bytes > 0 && inner[inner_bytes - 1] == 0) {
        inner_bytes--;
    }
    if (inner_bytes == 0) {
        record_fail(keys, opened, TLS_FAULT_NO_CONTENT_TYPE);
        return;
    }

    const uint8_t content = inner[--inner_bytes];

    if (content != CONTENT_HANDSHAKE && content != CONTENT_ALERT && record_within_message(keys)) {
        record_fail(keys, opened, TLS_FAULT_HANDSHAKE_SPLIT);
        return;
    }
    if (content != CONTENT_DATA || inner_bytes == 0) {
        record_on_quiet(core, keys, content, inner, inner_bytes, opened);
        return;
    }
    keys->quiet_records = 0;
    opened->result = TLS_OPEN_DATA;
    opened->data_offset = TLS_RECORD_HEADER_BYTES;
    opened->data_bytes = (uint32_t)inner_bytes;
}

/* ---- sealing */

static bool record_update_due(const struct tls_core *core, const struct tls_keys *keys)
{
    return (keys->flags & TLS_KEYS_UPDATE_DUE) != 0 || keys->tx_number >= core->rekey_after_records;
}

size_t tls_record_headroom(const struct tls_core *core, const struct tls_keys *keys)
{
    return TLS_RECORD_HEADER_BYTES +
           (record_update_due(core, keys) ? (size_t)TLS_KEY_UPDATE_RECORD_BYTES : 0);
}

size_t tls_record_sealed_bytes(const struct tls_core *core, const struct tls_keys *keys,
                               size_t data_bytes)
{
    return tls_record_headroom(core, keys) + data_bytes + 1 + AEAD_TAG_BYTES;
}

/* The content lies at record + 5 already. False: no memory; then nothing may be sealed any more. */
static bool record_encrypt(struct tls_core *core, struct tls_keys *keys, uint8_t content,
                           uint8_t *record, size_t content_bytes)
{
    uint8_t *bytes = record + TLS_RECORD_HEADER_BYTES;
    const size_t inner_bytes = content_bytes + 1;

    HF_ASSERT(keys->tx_number != UINT64_MAX);
    record[0] = CONTENT_DATA;
    store_be16(record + 1, LEGACY_VERSION);
    store_be16(record + 3, (uint16_t)(inner_bytes + AEAD_TAG_BYTES));
    bytes[content_bytes] = content;
    if (aead_seal(core->aead, keys->suite, &keys->tx.aead, keys->tx_number, record,
                  TLS_RECORD_HEADER_BYTES, bytes, inner_bytes, bytes + inner_bytes) != AEAD_OK) {
        keys->flags |= TLS_KEYS_TX_CLOSED;
        return false;
    }
    keys->tx_number++;
    return true;
}

static bool record_seal_key_update(struct tls_core *core, struct tls_keys *keys, uint8_t *record)
{
    const uint8_t message[KEY_UPDATE_BYTES] = { HANDSHAKE_KEY_UPDATE, 0, 0, 1,
                                                (keys->flags & TLS_KEYS_ASK_PEER) != 0 };

    memcpy(record + TLS_RECORD_HEADER_BYTES, message, sizeof message);
    if (!record_encrypt(core, keys, CONTENT_HANDSHAKE, record, sizeof message)) {
        return false;
    }
    aead_cache_forget(core->aead, keys->suite, &keys->tx.aead);
    if (!tls_direction_update(&keys->tx, keys->suite)) {
        keys->flags |= TLS_KEYS_TX_CLOSED; /* the peer has gone on to a key that we haven't */
        return false;
    }
    keys->tx_number = 0;
    keys->flags &= (uint8_t) ~(TLS_KEYS_UPDATE_DUE | TLS_KEYS_ASK_PEER);
    core->key_updates_sent++;
    return true;
}

size_t tls_record_seal(struct tls_core *core, struct tls_keys *keys, const struct iovec *parts,
                       size_t part_count, uint8_t *out, size_t out_capacity)
{
    const bool update = record_update_due(core, keys);
    const size_t headroom = tls_record_headroom(core, keys);
    size_t data_bytes = 0;

    HF_ASSERT((keys->flags & TLS_KEYS_TX_CLOSED) == 0);
    for (size_t part = 0; part < part_count; part++) {
        HF_ASSERT(parts[part].iov_len <= TLS_PLAINTEXT_BYTES_MAX - data_bytes);
        data_bytes += parts[part].iov_len;
    }
    HF_ASSERT(data_bytes != 0);
    HF_ASSERT(out_capacity >= headroom + data_bytes + 1 + AEAD_TAG_BYTES);

    /* Gathered before the KeyUpdate is written: a single part may lie where that goes. */
    uint8_t *to = out + headroom;

    for (size_t part = 0; part < part_count; part++) {
        if (to != parts[part].iov_base && parts[part].iov_len != 0) {
            memmove(to, parts[part].iov_base, parts[part].iov_len);
        }
        to += parts[part].iov_len;
    }
    if (update && !record_seal_key_update(core, keys, out)) {
        return 0;
    }
    if (!record_encrypt(core, keys, CONTENT_DATA, out + headroom - TLS_RECORD_HEADER_BYTES,
                        data_bytes)) {
        return 0;
    }
    return headroom + data_bytes + 1 + AEAD_TAG_BYTES;
}

void tls_record_update(struct tls_keys *keys, bool ask_peer)
{
    keys->flags |= (uint8_t)(TLS_KEYS_UPDATE_DUE | (ask_peer ? TLS_KEYS_ASK_PEER : 0));
}

size_t tls_record_seal_alert(struct tls_core *core, struct tls_keys *keys, enum tls_alert alert,
                             uint8_t *out, size_t out_capacity)
{
    if (alert == TLS_ALERT_NONE || (keys->flags & TLS_KEYS_TX_CLOSED) != 0) {
        return 0;
    }
    HF_ASSERT(out_capacity >= TLS_ALERT_RECORD_BYTES);
    out[TLS_RECORD_HEADER_BYTES] =
        alert == TLS_ALERT_CLOSE_NOTIFY ? ALERT_LEVEL_WARNING : ALERT_LEVEL_FATAL;
    out[TLS_RECORD_HEADER_BYTES + 1] = (uint8_t)alert;
    if (!record_encrypt(core, keys, CONTENT_ALERT, out, 2)) {
        return 0;
    }
    keys->flags |= TLS_KEYS_TX_CLOSED;
    return TLS_ALERT_RECORD_BYTES;
}

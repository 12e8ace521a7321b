/*
 * record: the TLS 1.3 record layer of an established connection, from its keys alone.
 *
 * Purpose  mbedTLS shakes hands (handshake.h); from then on a connection is a struct tls_keys, and
 *          these functions open what arrived and seal what leaves. Used by server, clients and
 *          peer links alike. Knows keys and records, not sockets or frames.
 * Owner    struct tls_keys lives in the connection, struct tls_core in the thread that serves it.
 *          struct tls_keys is flat: it may be copied byte by byte to another core or process
 *          (tls_keys_valid checks what came from elsewhere), but only one owner may ever seal:
 *          two owners would use a nonce twice. Sealed bytes go out whole and in order.
 * Thread   The thread that owns the tls_core. No lock, no PSA, nothing blocks.
 * Memory   None is kept here. Deriving keys (tls_keys_init, a KeyUpdate) takes a hash context of
 *          mbedTLS's and gives it back; see aead.h for what it allocates to key a cipher.
 * Errors   enum tls_fault, one for each thing a peer may do wrong; each names the alert to send.
 *          After a fault or close_notify nothing more may be opened; after a sealed alert nothing
 *          more may be sealed (asserted).
 * Limits   A record number never wraps: a key is updated after rekey_after_records. A peer may send
 *          at most TLS_QUIET_RECORDS_MAX records in a row that carry no application data.
 * Source   RFC 8446: 4.6.1 (NewSessionTicket), 4.6.3 (KeyUpdate), 5 (records), 5.5 (limits of key
 *          usage), 6 (alerts), 7 (keys).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/base/error.h"
#include "core/tls/aead.h"

enum {
    TLS_RECORD_HEADER_BYTES = 5,
    TLS_PLAINTEXT_BYTES_MAX = 16384,  /* of application data in one record */
    TLS_CIPHERTEXT_BYTES_MAX = 16640, /* 2^14 + 256, after the header */
    TLS_RECORD_BYTES_MAX = TLS_RECORD_HEADER_BYTES + TLS_CIPHERTEXT_BYTES_MAX,
    TLS_RECORD_OVERHEAD = TLS_RECORD_HEADER_BYTES + 1 + AEAD_TAG_BYTES, /* without padding: 22 */
    TLS_KEY_UPDATE_RECORD_BYTES = TLS_RECORD_OVERHEAD + 5,
    TLS_ALERT_RECORD_BYTES = TLS_RECORD_OVERHEAD + 2,
    TLS_SECRET_BYTES_MAX = 48,
    TLS_QUIET_RECORDS_MAX = 32,
};

/* 2^23, of the 2^24.5 that RFC 8446 5.5 allows AES-GCM: room for a peer that counts otherwise. */
#define TLS_REKEY_AFTER_RECORDS (UINT64_C(1) << 23)

enum tls_alert {
    TLS_ALERT_CLOSE_NOTIFY = 0,
    TLS_ALERT_UNEXPECTED_MESSAGE = 10,
    TLS_ALERT_BAD_RECORD_MAC = 20,
    TLS_ALERT_RECORD_OVERFLOW = 22,
    TLS_ALERT_HANDSHAKE_FAILURE = 40,
    TLS_ALERT_ILLEGAL_PARAMETER = 47,
    TLS_ALERT_DECODE_ERROR = 50,
    TLS_ALERT_PROTOCOL_VERSION = 70,
    TLS_ALERT_INTERNAL_ERROR = 80,
    TLS_ALERT_USER_CANCELED = 90,
    TLS_ALERT_NO_APPLICATION_PROTOCOL = 120,
    TLS_ALERT_NONE = 255, /* nothing is to be sent: the peer ended it */
};

/*
 * Why a record ended its connection: name, alert to send, text. The names, in lower case and
 * without TLS_FAULT_, are also metric labels (tls_fault_label).
 */
#define TLS_FAULTS(X)                                                                              \
    X(NONE, none, NONE, "no fault")                                                                \
    X(PLAINTEXT, plaintext, UNEXPECTED_MESSAGE, "unencrypted record after the handshake")          \
    X(RECORD_TYPE, record_type, UNEXPECTED_MESSAGE, "unknown record type")                         \
    X(RECORD_TOO_LONG, record_too_long, RECORD_OVERFLOW, "record longer than 2^14 + 256 bytes")    \
    X(CONTENT_TOO_LONG, content_too_long, RECORD_OVERFLOW, "more than 2^14 bytes in a record")     \
    X(BAD_MAC, bad_mac, BAD_RECORD_MAC, "record fails authentication")                             \
    X(NO_CONTENT_TYPE, no_content_type, UNEXPECTED_MESSAGE, "record of zeros only")                \
    X(CONTENT_TYPE, content_type, UNEXPECTED_MESSAGE, "unknown content type in a record")          \
    X(QUIET_FLOOD, quiet_flood, UNEXPECTED_MESSAGE, "too many records without data in a row")      \
    X(EMPTY_FRAGMENT, empty_fragment, UNEXPECTED_MESSAGE, "empty handshake or alert record")       \
    X(ALERT_LENGTH, alert_length, DECODE_ERROR, "alert of a wrong length")                         \
    X(PEER_ALERT, peer_alert, NONE, "alert from the peer")                                         \
    X(HANDSHAKE_TYPE, handshake_type, UNEXPECTED_MESSAGE, "handshake message out of place")        \
    X(HANDSHAKE_SPLIT, handshake_split, UNEXPECTED_MESSAGE, "data within a handshake message")     \
    X(HANDSHAKE_TOO_LONG, handshake_too_long, ILLEGAL_PARAMETER, "handshake message too long")     \
    X(KEY_UPDATE_LENGTH, key_update_length, DECODE_ERROR, "KeyUpdate of a wrong length")           \
    X(KEY_UPDATE_NOT_LAST, key_update_not_last, UNEXPECTED_MESSAGE,                                \
      "KeyUpdate that doesn't end its record")                                                     \
    X(KEY_UPDATE_VALUE, key_update_value, ILLEGAL_PARAMETER, "KeyUpdate with an unknown request")  \
    X(NUMBERS_SPENT, numbers_spent, INTERNAL_ERROR, "record numbers are used up")                  \
    X(NO_MEMORY, no_memory, INTERNAL_ERROR, "no memory for a cipher context")

enum tls_fault {
#define TLS_FAULT_ENUM(name, label, alert, text) TLS_FAULT_##name,
    TLS_FAULTS(TLS_FAULT_ENUM)
#undef TLS_FAULT_ENUM
        TLS_FAULT_COUNT
};

const char *tls_fault_text(enum tls_fault fault);
const char *tls_fault_label(enum tls_fault fault);

enum {
    TLS_KEYS_VERSION = 1,
    TLS_KEYS_CLIENT = 1 << 0,       /* flag: we are the client */
    TLS_KEYS_UPDATE_DUE = 1 << 1,   /* flag: a KeyUpdate goes before the next data */
    TLS_KEYS_ASK_PEER = 1 << 2,     /* flag: and asks the peer for one */
    TLS_KEYS_TX_CLOSED = 1 << 3,    /* flag: an alert was sealed; nothing follows it */
    TLS_KEYS_RX_CLOSED = 1 << 4,    /* flag: close_notify or a fault; nothing is opened any more */
    TLS_KEYS_WITHIN_KEY_UPDATE = 4, /* header_bytes_ of a KeyUpdate: so much more than have come */
};

struct tls_direction {
    uint8_t
        secret[TLS_SECRET_BYTES_MAX]; /* application_traffic_secret_N; only KeyUpdate needs it */
    struct aead_key aead;
};

/* All that an established connection keeps of TLS. Written to other processes: see `version`. */
struct tls_keys {
    uint64_t rx_number; /* of the next record to open */
    uint64_t tx_number; /* of the next record to seal */
    struct tls_direction rx;
    struct tls_direction tx;
    uint16_t suite; /* enum aead_suite; 0: no keys */
    uint8_t version;
    uint8_t flags;
    uint8_t quiet_records; /* in a row, without application data */
    uint8_t header_bytes_; /* come of a message split over records: of a NewSessionTicket's header
                              1 to 3, of a KeyUpdate 5 to 8; 0: none */
    uint16_t skip_bytes_;  /* of a NewSessionTicket, still to come and to be ignored */
};
_Static_assert(sizeof(struct tls_keys) == 208, "paid by every connection");

/* What the threads of a core share among their connections. */
struct tls_core {
    struct aead_cache *aead;
    uint64_t rekey_after_records; /* TLS_REKEY_AFTER_RECORDS; tests lower it */
    uint64_t key_updates_sent;
    uint64_t key_updates_received;
};

/* keyed_contexts: two for each connection that is busy at once. */
int tls_core_open(struct tls_core *core, size_t keyed_contexts, struct hf_error *error)
    __attribute__((warn_unused_result)); /* 0 or -1 */
void tls_core_close(struct tls_core *core);

/*
 * Derives both directions from their application traffic secrets (32 or 48 bytes, by the suite's
 * hash); numbers are 0. False: no memory for the hash, and `keys` is zeroed.
 */
bool tls_keys_init(struct tls_keys *keys, uint16_t suite, bool client, const uint8_t *rx_secret,
                   const uint8_t *tx_secret) __attribute__((warn_unused_result));

/*
 * Steps one direction to its next generation of secret, key and IV (RFC 8446 7.2); the caller
 * resets the number. False: no memory, and the direction is as it was.
 */
bool tls_direction_update(struct tls_direction *direction, uint16_t suite)
    __attribute__((warn_unused_result));

/* For keys that were frozen elsewhere: version, suite, flags and counters make sense. */
bool tls_keys_valid(const struct tls_keys *keys) __attribute__((warn_unused_result));

/* The connection leaves this core alive: zeroes its contexts in the core's cache. */
void tls_keys_forget(struct tls_core *core, const struct tls_keys *keys);

/* The connection ends: zeroes the keys, in the cache too. `core` may be NULL. */
void tls_keys_clear(struct tls_core *core, struct tls_keys *keys);

enum tls_open_result {
    TLS_OPEN_MORE,    /* no whole record yet: `record_bytes` of them are needed from its start */
    TLS_OPEN_DATA,    /* application data, at least one byte, at data_offset */
    TLS_OPEN_HANDLED, /* a record for this layer: KeyUpdate, ticket, empty; go on behind it */
    TLS_OPEN_CLOSED,  /* close_notify: the peer sends nothing more */
    TLS_OPEN_FATAL,   /* see fault; send `alert` if it isn't TLS_ALERT_NONE, then close */
};

struct tls_opened {
    enum tls_open_result result;
    enum tls_fault fault;
    enum tls_alert alert;  /* to send, where the result is FATAL */
    uint32_t record_bytes; /* the record's length with its header: what is consumed, or wanted */
    uint32_t data_offset;  /* from the first of `bytes` */
    uint32_t data_bytes;   /* at most TLS_PLAINTEXT_BYTES_MAX */
    uint8_t peer_alert;    /* its number, where the fault is PEER_ALERT */
    bool ticket;           /* HANDLED: the record was (a part of) a NewSessionTicket */
};

/*
 * Opens the one record that `bytes` begins with, in place. Nothing changes on MORE: call again
 * with the same bytes and those that follow.
 */
void tls_record_open(struct tls_core *core, struct tls_keys *keys, uint8_t *bytes,
                     size_t byte_count, struct tls_opened *opened);

/*
 * Where in `out` tls_record_seal will put the plaintext now: 5, or 32 when a KeyUpdate goes before.
 * Plaintext that already lies there isn't copied.
 */
size_t tls_record_headroom(const struct tls_core *core, const struct tls_keys *keys);

/* Bytes that sealing `data_bytes` in one record takes now, KeyUpdate included. */
size_t tls_record_sealed_bytes(const struct tls_core *core, const struct tls_keys *keys,
                               size_t data_bytes);

/*
 * Seals the parts, together 1 to TLS_PLAINTEXT_BYTES_MAX bytes, as one record of application data
 * (with the KeyUpdate that is due before it). Returns the bytes written, or 0: no memory for a
 * context, and the connection must end without another record. `out` has room for
 * tls_record_sealed_bytes. No part may overlap `out`, but a single one may lie anywhere in it.
 */
size_t tls_record_seal(struct tls_core *core, struct tls_keys *keys, const struct iovec *parts,
                       size_t part_count, uint8_t *out, size_t out_capacity)
    __attribute__((warn_unused_result));

/*
 * Has the next sealed data preceded by a KeyUpdate, which asks the peer for one too if wanted.
 * Comes by itself when the peer asks, and after rekey_after_records.
 */
void tls_record_update(struct tls_keys *keys, bool ask_peer);

/*
 * Seals the connection's last record: close_notify, or the alert of a fault. Returns
 * TLS_ALERT_RECORD_BYTES, or 0: no memory, an alert was sealed already, or it is TLS_ALERT_NONE.
 */
size_t tls_record_seal_alert(struct tls_core *core, struct tls_keys *keys, enum tls_alert alert,
                             uint8_t *out, size_t out_capacity) __attribute__((warn_unused_result));

/*
 * pair: two ends with keys but without a handshake, and every record that a peer could make.
 */
#pragma once

#include "core/tls/record.h"
#include "tests/unit/tls/fixture.h"

struct pair {
    struct tls_core core;
    struct tls_keys client;
    struct tls_keys server;
};

void pair_open(struct pair *pair, uint16_t suite);
void pair_close(struct pair *pair);

/*
 * Any record a peer could make: the inner plaintext as it stands, its content type and padding
 * included, sealed by the peer's keys.
 */
size_t seal_inner(struct tls_keys *keys, const void *inner, size_t inner_bytes, uint8_t *record);

struct tls_opened open_record(struct pair *pair, struct tls_keys *keys, uint8_t *record,
                              size_t record_bytes);

/* Seals the text at one end, opens it at the other, with the KeyUpdate that may go before. */
void assert_carries(struct pair *pair, struct tls_keys *from, struct tls_keys *to,
                    const char *text);

/* That `keys` refused a record by this fault, and that its alert reaches the peer. */
void assert_refused(struct pair *pair, struct tls_keys *keys, const struct tls_opened *got,
                    enum tls_fault fault, enum tls_alert alert);

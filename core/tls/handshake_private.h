/*
 * handshake_private: what the .c files of handshake.h share. The only header of the room that shows
 * mbedTLS's types.
 *
 * Owner    As handshake.h says.
 * Thread   As handshake.h says.
 * Errors   The ticket callbacks return mbedTLS's error numbers, as it wants them.
 */
#pragma once

#include <mbedtls/build_info.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#include "core/tls/handshake.h"

#ifndef MBEDTLS_THREADING_C
#error "mbedTLS was built without MBEDTLS_THREADING_C: handshakes in several threads would fail"
#endif
#if !defined(MBEDTLS_SSL_PROTO_TLS1_3) || !defined(MBEDTLS_SSL_SESSION_TICKETS) ||                 \
    !defined(MBEDTLS_SSL_ALPN) || !defined(MBEDTLS_SSL_SERVER_NAME_INDICATION)
#error "mbedTLS was built without TLS 1.3, tickets, ALPN or SNI"
#endif

enum { HANDSHAKE_TEXT_BYTES = 200 };

/* What server and client have in common. */
struct handshake_base {
    mbedtls_ssl_config config;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_x509_crt chain; /* the server's own, or the client's authorities */
    int suites[4];          /* zero-terminated; config points here */
};

struct tls_server {
    struct handshake_base base;
    mbedtls_pk_context key;
    unsigned tickets_per_handshake;
    bool psk_ke;
    bool has_ring;
    struct tls_ticket_ring ring;
    uint64_t now_unix_ms;                 /* of the step in progress, for the ticket callbacks */
    const struct tls_handshake *stepping; /* that step's; NULL between steps */
};

struct tls_client {
    struct handshake_base base;
};

/* Application traffic secrets, as mbedTLS exports them: before the peer's Finished is checked! */
struct handshake_secrets {
    uint8_t client[TLS_SECRET_BYTES_MAX];
    uint8_t server[TLS_SECRET_BYTES_MAX];
    size_t client_bytes;
    size_t server_bytes;
};

struct tls_handshake {
    mbedtls_ssl_context ssl;
    struct tls_server *server; /* or */
    struct tls_client *client;
    struct tls_handshake_io *io; /* during a step */
    size_t in_bytes_total;
    size_t out_mark; /* io->out_bytes before mbedTLS's present step; SIZE_MAX: don't go back */
    enum tls_handshake_status status;
    enum tls_handshake_fault fault;
    bool full;           /* a certificate was needed */
    bool lacks_exchange; /* the last ServerHello that was sent has no key_share */
    bool wants_ticket;
    bool keys_taken;
    struct handshake_secrets secrets;
    struct tls_keys keys;
    uint8_t *session; /* a client's, once a ticket has come */
    size_t session_bytes;
    char text[HANDSHAKE_TEXT_BYTES];
    char server_name[TLS_SERVER_NAME_BYTES_MAX + 1];
};

/* session.c: what mbedTLS calls to seal and open tickets. `context` is the struct tls_server. */
int handshake_write_ticket(void *context, const mbedtls_ssl_session *session, unsigned char *start,
                           const unsigned char *end, size_t *ticket_bytes, uint32_t *lifetime_s);
int handshake_parse_ticket(void *context, mbedtls_ssl_session *session, unsigned char *ticket,
                           size_t ticket_bytes);

/* session.c: has a client offer what tls_handshake_session gave; what doesn't fit is ignored. */
void handshake_offer_session(struct tls_handshake *handshake, const uint8_t *session,
                             size_t session_bytes, uint64_t now_unix_ms);

/* handshake.c: SNI callback. */
int handshake_on_server_name(void *context, mbedtls_ssl_context *ssl, const unsigned char *name,
                             size_t name_bytes);

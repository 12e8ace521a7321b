/* GnuTLS's client: see client.h. It can do all of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gnutls/gnutls.h>

#include "tests/conformance/client.h"

enum { TICKET_BYTES_MAX = 4096 };

static gnutls_session_t session;
static gnutls_certificate_credentials_t credentials;
static gnutls_datum_t kept;              /* the last session, in its own form */
static uint8_t ticket[TICKET_BYTES_MAX]; /* in it */
static size_t ticket_bytes;
static int hellos;
static size_t padding;

bool library_can(const char *what)
{
    (void)what;
    return true;
}

static enum client_result failed(int result)
{
    if (result == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        client_failure.alert = (int)gnutls_alert_get(session);
        return CLIENT_ALERT;
    }
    snprintf(client_failure.text, sizeof client_failure.text, "%s", gnutls_strerror(result));
    return result == GNUTLS_E_PREMATURE_TERMINATION ? CLIENT_END : CLIENT_FAILED;
}

/* NewSessionTicket (RFC 8446 4.6.1): lifetime 4, age_add 4, nonce behind 1, ticket behind 2. */
static void note_ticket(const uint8_t *message, size_t message_bytes)
{
    const size_t nonce_bytes = message_bytes > 8 ? message[8] : 0;
    const size_t at = 9 + nonce_bytes + 2;

    if (message_bytes < at) {
        return;
    }

    const size_t said_bytes = (size_t)message[at - 2] << 8 | message[at - 1];

    if (said_bytes <= message_bytes - at && said_bytes <= sizeof ticket) {
        memcpy(ticket, message + at, said_bytes);
        ticket_bytes = said_bytes;
    }
}

static int on_handshake(gnutls_session_t from, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *message)
{
    (void)from;
    if (type == GNUTLS_HANDSHAKE_CLIENT_HELLO && when == GNUTLS_HOOK_POST && !incoming) {
        hellos++;
    }
    if (type == GNUTLS_HANDSHAKE_NEW_SESSION_TICKET && incoming && message->size > 0) {
        note_ticket(message->data, message->size);
    }
    return 0;
}

static const char *suite_name(const char *suite)
{
    if (strcmp(suite, "aes128") == 0) {
        return ":-CIPHER-ALL:+AES-128-GCM";
    }
    if (strcmp(suite, "aes256") == 0) {
        return ":-CIPHER-ALL:+AES-256-GCM";
    }
    return ":-CIPHER-ALL:+CHACHA20-POLY1305";
}

static void configure(const struct client_options *options)
{
    char priorities[CLIENT_TEXT_BYTES];
    const char *wrong;

    snprintf(priorities, sizeof priorities, "NORMAL:-VERS-ALL:+VERS-TLS1.%d%s%s%s",
             options->tls12 ? 2 : 3, options->suite == NULL ? "" : suite_name(options->suite),
             options->retry ? ":-GROUP-ALL:+GROUP-SECP384R1:+GROUP-SECP256R1" : "",
             options->psk_ke ? ":+PSK" : "");
    if (gnutls_priority_set_direct(session, priorities, &wrong) != GNUTLS_E_SUCCESS) {
        client_give_up(wrong);
    }
    if (gnutls_certificate_set_x509_trust_file(credentials, options->ca, GNUTLS_X509_FMT_PEM) < 1 ||
        gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials) != GNUTLS_E_SUCCESS) {
        client_give_up("ca");
    }
    gnutls_session_set_verify_cert(session, CLIENT_VERIFIED_NAME, 0);
    if (options->sni != NULL && gnutls_server_name_set(session, GNUTLS_NAME_DNS, options->sni,
                                                       strlen(options->sni)) != GNUTLS_E_SUCCESS) {
        client_give_up("sni");
    }
}

static void offer_alpn(char *names)
{
    gnutls_datum_t list[8];
    unsigned count = 0;

    for (char *name; count < 8 && (name = strtok_r(names, ",", &names)) != NULL;) {
        list[count++] = (gnutls_datum_t){ (unsigned char *)name, (unsigned)strlen(name) };
    }
    if (gnutls_alpn_set_protocols(session, list, count, 0) != GNUTLS_E_SUCCESS) {
        client_give_up("alpn");
    }
}

static void offer_session(const struct client_options *options)
{
    if (kept.data == NULL) {
        client_give_up("resume: no session has come");
    }
    if (options->garbled) {
        client_garble(kept.data, kept.size, ticket, ticket_bytes, options->garble);
    }
    if (gnutls_session_set_data(session, kept.data, kept.size) != GNUTLS_E_SUCCESS) {
        client_give_up("resume: the session doesn't fit");
    }
}

static void keep_session(void)
{
    gnutls_datum_t came;

    if ((gnutls_session_get_flags(session) & GNUTLS_SFLAGS_SESSION_TICKET) != 0 &&
        gnutls_session_get_data2(session, &came) == GNUTLS_E_SUCCESS) {
        gnutls_free(kept.data);
        kept = came;
    }
}

static void describe(struct client_connected *connected)
{
    gnutls_datum_t alpn;
    uint8_t digest[32];
    size_t digest_bytes = sizeof digest;
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);

    connected->resumed = gnutls_session_is_resumed(session) != 0;
    connected->hellos = hellos;
    if (gnutls_alpn_get_selected_protocol(session, &alpn) == GNUTLS_E_SUCCESS) {
        snprintf(connected->alpn, sizeof connected->alpn, "%.*s", (int)alpn.size,
                 (const char *)alpn.data);
    }
    if (count > 0 &&
        gnutls_fingerprint(GNUTLS_DIG_SHA256, chain, digest, &digest_bytes) == GNUTLS_E_SUCCESS) {
        client_hex(digest, digest_bytes, connected->certificate);
    }
}

enum client_result library_connect(int socket, const struct client_options *options,
                                   struct client_connected *connected)
{
    char alpn[CLIENT_TEXT_BYTES];
    int result;

    hellos = 0;
    padding = 0;
    if (gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_KEY_SHARE_TOP) != GNUTLS_E_SUCCESS ||
        gnutls_certificate_allocate_credentials(&credentials) != GNUTLS_E_SUCCESS) {
        client_give_up("connect");
    }
    configure(options);
    if (options->alpn != NULL) {
        snprintf(alpn, sizeof alpn, "%s", options->alpn);
        offer_alpn(alpn);
    }
    if (options->resume) {
        offer_session(options);
    }
    gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_BOTH,
                                       on_handshake);
    gnutls_transport_set_int(session, socket);
    gnutls_handshake_set_timeout(session, CLIENT_TIMEOUT_S * 1000);
    do {
        result = gnutls_handshake(session);
    } while (result < 0 && gnutls_error_is_fatal(result) == 0);
    if (result != GNUTLS_E_SUCCESS) {
        return failed(result);
    }
    describe(connected);
    return CLIENT_OK;
}

enum client_result library_write(const uint8_t *bytes, size_t byte_count)
{
    const ssize_t result = gnutls_record_send2(session, bytes, byte_count, padding, 0);

    return result >= 0 ? CLIENT_OK : failed((int)result);
}

enum client_result library_read(uint8_t *bytes, size_t capacity, size_t *byte_count)
{
    const time_t began = time(NULL);
    ssize_t result;

    do { /* after a ticket it says "again" too, not only when the socket has waited in vain */
        result = gnutls_record_recv(session, bytes, capacity);
    } while (result < 0 && gnutls_error_is_fatal((int)result) == 0 &&
             time(NULL) - began < CLIENT_TIMEOUT_S);
    if (result == 0) {
        return CLIENT_CLOSED;
    }
    if (result < 0) {
        return failed((int)result);
    }
    *byte_count = (size_t)result;
    return CLIENT_OK;
}

enum client_result library_update(bool ask_peer)
{
    const int result = gnutls_session_key_update(session, ask_peer ? GNUTLS_KU_PEER : 0);

    return result == GNUTLS_E_SUCCESS ? CLIENT_OK : failed(result);
}

void library_pad(size_t byte_count)
{
    padding = byte_count;
}

enum client_result library_close(void)
{
    const int result = gnutls_bye(session, GNUTLS_SHUT_WR);

    return result == GNUTLS_E_SUCCESS ? CLIENT_OK : failed(result);
}

void library_drop(void)
{
    keep_session();
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(credentials);
    session = NULL;
    credentials = NULL;
}

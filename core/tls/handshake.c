#include "core/tls/handshake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/build_info.h>
#include <mbedtls/error.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/x509_crt.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/tls/handshake_private.h"

#ifndef MBEDTLS_THREADING_C
#error "mbedTLS was built without MBEDTLS_THREADING_C: handshakes in several threads would fail"
#endif

static const struct {
    const char *label;
    const char *text;
} handshake_faults[TLS_HANDSHAKE_FAULT_COUNT] = {
#define HANDSHAKE_FAULT_INFO(name, label, text) [TLS_HANDSHAKE_FAULT_##name] = { #label, text },
    TLS_HANDSHAKE_FAULTS(HANDSHAKE_FAULT_INFO)
#undef HANDSHAKE_FAULT_INFO
};

/* ---- what mbedTLS calls */

/*
 * Which mode mbedTLS chose it keeps to itself, but its ServerHello (RFC 8446 4.1.3) says it: without
 * a key_share, the keys come from the ticket's secret alone.
 */
static void note_server_hello(struct tls_handshake *handshake, const uint8_t *record,
                              size_t byte_count)
{
    /* Behind the message's header, the version and the random. */
    const size_t session_id = TLS_RECORD_HEADER_BYTES + 4 + 2 + 32;
    size_t at;

    if (byte_count <= session_id || record[0] != MBEDTLS_SSL_MSG_HANDSHAKE ||
        record[TLS_RECORD_HEADER_BYTES] != MBEDTLS_SSL_HS_SERVER_HELLO) {
        return;
    }
    handshake->lacks_exchange = true;
    at = session_id + 1 + record[session_id] + 2 + 1 + 2; /* suite, compression, length of all */
    while (at + 4 <= byte_count) {
        if (load_be16(record + at) == MBEDTLS_TLS_EXT_KEY_SHARE) {
            handshake->lacks_exchange = false;
        }
        at += 4 + (size_t)load_be16(record + at + 2);
    }
}

static int handshake_send(void *context, const unsigned char *bytes, size_t byte_count)
{
    struct tls_handshake *handshake = context;
    struct tls_handshake_io *io = handshake->io;
    const size_t room = io->out_capacity - io->out_bytes;
    const size_t taken = byte_count < room ? byte_count : room;

    if (taken == 0) {
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    }
    memcpy(io->out + io->out_bytes, bytes, taken);
    io->out_bytes += taken;
    if (handshake->server != NULL) {
        note_server_hello(handshake, bytes, byte_count);
    }
    return (int)taken;
}

/* mbedTLS asks for a header, then for the rest of that record: never for a byte of the next. */
static int handshake_receive(void *context, unsigned char *bytes, size_t byte_count)
{
    struct tls_handshake *handshake = context;
    struct tls_handshake_io *io = handshake->io;
    const size_t left = io->in_bytes - io->in_used;
    const size_t taken = byte_count < left ? byte_count : left;

    if (taken == 0) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    memcpy(bytes, io->in + io->in_used, taken);
    io->in_used += taken;
    handshake->in_bytes_total += taken;
    return (int)taken;
}

static void handshake_on_secret(void *context, mbedtls_ssl_key_export_type type,
                                const unsigned char *secret, size_t secret_bytes,
                                const unsigned char client_random[32],
                                const unsigned char server_random[32], mbedtls_tls_prf_types prf)
{
    struct handshake_secrets *secrets = &((struct tls_handshake *)context)->secrets;

    (void)client_random;
    (void)server_random;
    (void)prf;
    if (secret_bytes > TLS_SECRET_BYTES_MAX) {
        return; /* its length stays 0, which fails the handshake */
    }
    if (type == MBEDTLS_SSL_KEY_EXPORT_TLS1_3_CLIENT_APPLICATION_TRAFFIC_SECRET) {
        memcpy(secrets->client, secret, secret_bytes);
        secrets->client_bytes = secret_bytes;
    } else if (type == MBEDTLS_SSL_KEY_EXPORT_TLS1_3_SERVER_APPLICATION_TRAFFIC_SECRET) {
        memcpy(secrets->server, secret, secret_bytes);
        secrets->server_bytes = secret_bytes;
    }
}

int handshake_on_server_name(void *context, mbedtls_ssl_context *ssl, const unsigned char *name,
                             size_t name_bytes)
{
    struct tls_handshake *handshake = mbedtls_ssl_get_user_data_p(ssl);

    (void)context;
    if (name_bytes > TLS_SERVER_NAME_BYTES_MAX || memchr(name, 0, name_bytes) != NULL) {
        return -1; /* unrecognized_name */
    }
    memcpy(handshake->server_name, name, name_bytes);
    handshake->server_name[name_bytes] = 0;
    return 0;
}

/* ---- life */

static struct tls_handshake *handshake_start(const mbedtls_ssl_config *config)
{
    struct tls_handshake *handshake = calloc(1, sizeof *handshake);

    if (handshake == NULL) {
        return NULL;
    }
    mbedtls_ssl_init(&handshake->ssl);
    if (mbedtls_ssl_setup(&handshake->ssl, config) != 0) {
        tls_handshake_end(handshake);
        return NULL;
    }
    mbedtls_ssl_set_bio(&handshake->ssl, handshake, handshake_send, handshake_receive, NULL);
    mbedtls_ssl_set_export_keys_cb(&handshake->ssl, handshake_on_secret, handshake);
    mbedtls_ssl_set_user_data_p(&handshake->ssl, handshake);
    handshake->status = TLS_HANDSHAKE_WANT_INPUT;
    return handshake;
}

struct tls_handshake *tls_handshake_accept(struct tls_server *server)
{
    /* mbedTLS copies the number now; handshake_prepare_server may forbid all of them later. */
    mbedtls_ssl_conf_new_session_tickets(&server->base.config,
                                         (uint16_t)server->tickets_per_handshake);

    struct tls_handshake *handshake = handshake_start(&server->base.config);

    if (handshake != NULL) {
        handshake->server = server;
    }
    return handshake;
}

struct tls_handshake *tls_handshake_connect(struct tls_client *client, const char *server_name,
                                            const uint8_t *session, size_t session_bytes,
                                            uint64_t now_unix_ms)
{
    struct tls_handshake *handshake = handshake_start(&client->base.config);

    if (handshake == NULL) {
        return NULL;
    }
    handshake->client = client;
    if (mbedtls_ssl_set_hostname(&handshake->ssl, server_name) != 0) {
        tls_handshake_end(handshake);
        return NULL;
    }
    if (session != NULL) {
        handshake_offer_session(handshake, session, session_bytes, now_unix_ms);
    }
    return handshake;
}

void tls_handshake_end(struct tls_handshake *handshake)
{
    if (handshake == NULL) {
        return;
    }
    mbedtls_ssl_free(&handshake->ssl);
    if (handshake->session != NULL) {
        mbedtls_platform_zeroize(handshake->session, handshake->session_bytes);
        free(handshake->session);
    }
    mbedtls_platform_zeroize(handshake, sizeof *handshake);
    free(handshake);
}

/* ---- stepping */

static int handshake_state(const struct tls_handshake *handshake)
{
    return handshake->ssl.MBEDTLS_PRIVATE(state);
}

/* mbedTLS lets in a client that offers no ALPN at all, and accepts a server that chose none. */
static bool handshake_lacks_alpn(const struct tls_handshake *handshake, int state_before)
{
    const bool settled = handshake->server != NULL
                             ? handshake_state(handshake) == MBEDTLS_SSL_SERVER_HELLO
                             : state_before == MBEDTLS_SSL_ENCRYPTED_EXTENSIONS;

    return settled && mbedtls_ssl_get_alpn_protocol(&handshake->ssl) == NULL;
}

/* One step of mbedTLS's; its result, 0 to go on. */
static int handshake_advance(struct tls_handshake *handshake)
{
    const int state = handshake_state(handshake);

    /* Only where nothing older is still to go out is all that goes out this step's own. */
    handshake->out_mark =
        handshake->ssl.MBEDTLS_PRIVATE(out_left) == 0 ? handshake->io->out_bytes : SIZE_MAX;
    if (state == MBEDTLS_SSL_CLIENT_HELLO) {
        handshake->server_name[0] = 0; /* the last ClientHello counts, with a name or without */
    }
    if (state == MBEDTLS_SSL_SERVER_CERTIFICATE) {
        handshake->full = true;
    }

    const int result = mbedtls_ssl_handshake_step(&handshake->ssl);

    if (result == 0 && handshake_lacks_alpn(handshake, state)) {
        return MBEDTLS_ERR_SSL_NO_APPLICATION_PROTOCOL;
    }
    /* What follows a ClientHello is under another key, so it ends its record (RFC 8446 5.1). */
    if (result == 0 && state == MBEDTLS_SSL_CLIENT_HELLO &&
        handshake_state(handshake) == MBEDTLS_SSL_SERVER_HELLO &&
        mbedtls_ssl_check_pending(&handshake->ssl) != 0) {
        return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
    }
    return result;
}

/* change_cipher_spec is passed over, but not before the first ClientHello (RFC 8446 5). */
static bool handshake_begins_wrong(const struct tls_handshake *handshake)
{
    const struct tls_handshake_io *io = handshake->io;

    return handshake->server != NULL && handshake->in_bytes_total == 0 &&
           io->in_used < io->in_bytes && io->in[io->in_used] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC;
}

static enum tls_handshake_fault handshake_fault_of(int result)
{
    switch (result) {
    case MBEDTLS_ERR_SSL_NO_APPLICATION_PROTOCOL:
        return TLS_HANDSHAKE_FAULT_NO_ALPN;
    case MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION:
        return TLS_HANDSHAKE_FAULT_VERSION;
    case MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE:
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
        return TLS_HANDSHAKE_FAULT_NO_COMMON;
    case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
    case MBEDTLS_ERR_X509_FATAL_ERROR:
    case MBEDTLS_ERR_SSL_BAD_CERTIFICATE:
    case MBEDTLS_ERR_SSL_CA_CHAIN_REQUIRED:
        return TLS_HANDSHAKE_FAULT_CERTIFICATE;
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
        return TLS_HANDSHAKE_FAULT_PEER_ALERT;
    case MBEDTLS_ERR_SSL_ALLOC_FAILED:
        return TLS_HANDSHAKE_FAULT_NO_MEMORY;
    case MBEDTLS_ERR_SSL_INTERNAL_ERROR:
    case MBEDTLS_ERR_ERROR_CORRUPTION_DETECTED:
    case MBEDTLS_ERR_SSL_HW_ACCEL_FAILED:
        return TLS_HANDSHAKE_FAULT_INTERNAL;
    default:
        return TLS_HANDSHAKE_FAULT_MALFORMED;
    }
}

static enum tls_alert handshake_alert_of(enum tls_handshake_fault fault)
{
    switch (fault) {
    case TLS_HANDSHAKE_FAULT_NO_ALPN:
        return TLS_ALERT_NO_APPLICATION_PROTOCOL;
    case TLS_HANDSHAKE_FAULT_VERSION:
        return TLS_ALERT_PROTOCOL_VERSION;
    case TLS_HANDSHAKE_FAULT_NO_COMMON:
    case TLS_HANDSHAKE_FAULT_CERTIFICATE:
    case TLS_HANDSHAKE_FAULT_TOO_LONG:
        return TLS_ALERT_HANDSHAKE_FAILURE;
    case TLS_HANDSHAKE_FAULT_PEER_ALERT:
        return TLS_ALERT_NONE;
    case TLS_HANDSHAKE_FAULT_MALFORMED:
        return TLS_ALERT_UNEXPECTED_MESSAGE;
    case TLS_HANDSHAKE_FAULT_NONE:
    case TLS_HANDSHAKE_FAULT_NO_MEMORY:
    case TLS_HANDSHAKE_FAULT_INTERNAL:
    case TLS_HANDSHAKE_FAULT_COUNT:
    default:
        return TLS_ALERT_INTERNAL_ERROR;
    }
}

/*
 * A client whose mbedTLS refuses our certificate says so in plaintext, since it changes its own
 * key last; ours then only sees a record that can't be opened. Worth telling: it is what a wrong
 * authority looks like from here. Nobody vouches for it, but the handshake has failed anyway.
 */
static bool handshake_met_plain_alert(const struct tls_handshake *handshake, int result)
{
    const uint8_t *record = handshake->ssl.MBEDTLS_PRIVATE(in_hdr);

    return result == MBEDTLS_ERR_SSL_INVALID_MAC && record[0] == MBEDTLS_SSL_MSG_ALERT &&
           load_be16(record + 3) == 2;
}

/* mbedTLS has three numbers for it, and none says so. */
static bool handshake_met_long_record(const struct tls_handshake *handshake, int result)
{
    const uint8_t *record = handshake->ssl.MBEDTLS_PRIVATE(in_hdr);
    const bool sealed = record[0] == MBEDTLS_SSL_MSG_APPLICATION_DATA;

    return (result == MBEDTLS_ERR_SSL_INVALID_RECORD || result == MBEDTLS_ERR_SSL_BAD_INPUT_DATA ||
            result == MBEDTLS_ERR_SSL_INVALID_MAC) &&
           record[0] >= MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC &&
           record[0] <= MBEDTLS_SSL_MSG_APPLICATION_DATA &&
           load_be16(record + 3) > (sealed ? TLS_CIPHERTEXT_BYTES_MAX : TLS_PLAINTEXT_BYTES_MAX);
}

static void handshake_describe(struct tls_handshake *handshake, int result)
{
    const char *text = handshake_faults[handshake->fault].text;

    if (handshake->fault == TLS_HANDSHAKE_FAULT_CERTIFICATE) {
        char why[100] = "";

        mbedtls_x509_crt_verify_info(why, sizeof why, "",
                                     mbedtls_ssl_get_verify_result(&handshake->ssl));
        why[strcspn(why, "\n")] = 0;
        snprintf(handshake->text, sizeof handshake->text, "%s: %s", text, why);
    } else if (handshake->fault == TLS_HANDSHAKE_FAULT_PEER_ALERT &&
               result != MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
        const uint8_t *alert = result == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE
                                   ? handshake->ssl.MBEDTLS_PRIVATE(in_msg)
                                   : handshake->ssl.MBEDTLS_PRIVATE(in_hdr) + 5;

        snprintf(handshake->text, sizeof handshake->text, "%s: number %d", text, alert[1]);
    } else {
        char why[100];

        mbedtls_strerror(result, why, sizeof why);
        snprintf(handshake->text, sizeof handshake->text, "%s: %s (-0x%04x)", text, why,
                 (unsigned)-result);
    }
}

/*
 * Whether a server has sent its Finished, and so goes on under the application's keys (RFC 8446
 * A.2): mbedTLS does so only after the client's, and a client can't open its alert.
 */
static bool handshake_has_spoken(const struct tls_handshake *handshake)
{
    return handshake->server != NULL && handshake->secrets.server_bytes != 0 &&
           handshake->out_mark != SIZE_MAX &&
           handshake_state(handshake) == MBEDTLS_SSL_CLIENT_FINISHED;
}

/* Puts our alert in the place of mbedTLS's: the first record under these keys, and the last. */
static void handshake_replace_alert(struct tls_handshake *handshake, int result,
                                    enum tls_alert alert)
{
    struct tls_handshake_io *io = handshake->io;
    const mbedtls_ssl_context *ssl = &handshake->ssl;
    const uint16_t suite =
        (uint16_t)ssl->MBEDTLS_PRIVATE(session_negotiate)->MBEDTLS_PRIVATE(ciphersuite);
    struct tls_core core = { .rekey_after_records = TLS_REKEY_AFTER_RECORDS };
    struct tls_keys keys;

    if (result == MBEDTLS_ERR_SSL_INVALID_MAC && alert == TLS_ALERT_UNEXPECTED_MESSAGE) {
        const bool sealed = ssl->MBEDTLS_PRIVATE(in_hdr)[0] == MBEDTLS_SSL_MSG_APPLICATION_DATA;

        alert = sealed ? TLS_ALERT_BAD_RECORD_MAC : TLS_ALERT_UNEXPECTED_MESSAGE;
    } else if (ssl->MBEDTLS_PRIVATE(alert_type) != 0) { /* mbedTLS knows better */
        alert = ssl->MBEDTLS_PRIVATE(alert_type);
    }
    io->out_bytes = handshake->out_mark;
    if (alert == TLS_ALERT_NONE || io->out_capacity - io->out_bytes < TLS_ALERT_RECORD_BYTES ||
        aead_key_bytes(suite) == 0 ||
        !tls_keys_init(&keys, suite, false, handshake->secrets.client, handshake->secrets.server)) {
        return; /* the peer sees the connection close without one */
    }
    io->out_bytes += tls_record_seal_alert(&core, &keys, alert, io->out + io->out_bytes,
                                           io->out_capacity - io->out_bytes);
    tls_keys_clear(NULL, &keys);
}

/*
 * Everything but 0, WANT_READ and WANT_WRITE is fatal, positive values too. mbedTLS has often sent
 * its alert by now, but not for every error.
 */
static enum tls_handshake_status handshake_fail(struct tls_handshake *handshake,
                                                enum tls_handshake_fault fault, int result)
{
    const bool alerted = handshake->ssl.MBEDTLS_PRIVATE(out_msgtype) == MBEDTLS_SSL_MSG_ALERT;
    const enum tls_alert alert = handshake_met_long_record(handshake, result)
                                     ? TLS_ALERT_RECORD_OVERFLOW
                                     : handshake_alert_of(fault);

    handshake->fault = fault;
    handshake->status = TLS_HANDSHAKE_FAILED;
    handshake_describe(handshake, result);
    if (handshake_has_spoken(handshake)) {
        handshake_replace_alert(handshake, result, alert);
    } else if (!alerted && alert != TLS_ALERT_NONE) {
        /* When there is no room, the peer sees the connection close without one. */
        (void)mbedtls_ssl_send_alert_message(&handshake->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                             (unsigned char)alert);
    }
    mbedtls_platform_zeroize(&handshake->secrets, sizeof handshake->secrets);
    return TLS_HANDSHAKE_FAILED;
}

/* The peer's Finished is good: from here on the secrets may be used. */
static enum tls_handshake_status handshake_finish(struct tls_handshake *handshake)
{
    mbedtls_ssl_context *ssl = &handshake->ssl;
    const struct handshake_secrets *secrets = &handshake->secrets;
    const bool client = handshake->client != NULL;
    const uint16_t suite = (uint16_t)mbedtls_ssl_get_ciphersuite_id_from_ssl(ssl);
    const size_t secret_bytes = suite == AEAD_AES_256_GCM_SHA384 ? 48 : 32;

    /* Finished ends its record, for the next is under another key (RFC 8446 5.1). */
    if (mbedtls_ssl_check_pending(ssl) != 0 || mbedtls_ssl_get_bytes_avail(ssl) != 0) {
        return handshake_fail(handshake, TLS_HANDSHAKE_FAULT_MALFORMED,
                              MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE);
    }
    if (aead_key_bytes(suite) == 0 || secrets->client_bytes != secret_bytes ||
        secrets->server_bytes != secret_bytes || ssl->MBEDTLS_PRIVATE(in_left) != 0 ||
        load_be64(ssl->MBEDTLS_PRIVATE(in_ctr)) != 0) {
        return handshake_fail(handshake, TLS_HANDSHAKE_FAULT_INTERNAL,
                              MBEDTLS_ERR_SSL_INTERNAL_ERROR);
    }
    if (!tls_keys_init(&handshake->keys, suite, client, client ? secrets->server : secrets->client,
                       client ? secrets->client : secrets->server)) {
        return handshake_fail(handshake, TLS_HANDSHAKE_FAULT_NO_MEMORY,
                              MBEDTLS_ERR_SSL_ALLOC_FAILED);
    }
    /* What mbedTLS sealed under these keys: a server's tickets. A number must never be used twice.
     */
    handshake->keys.tx_number = load_be64(ssl->MBEDTLS_PRIVATE(cur_out_ctr));
    mbedtls_platform_zeroize(&handshake->secrets, sizeof handshake->secrets);
    handshake->wants_ticket = client;
    handshake->status = TLS_HANDSHAKE_DONE;
    return TLS_HANDSHAKE_DONE;
}

/* A ticket that can't be sealed would fail the handshake: then none is promised. */
static void handshake_prepare_server(struct tls_handshake *handshake, uint64_t now_unix_ms)
{
    struct tls_server *server = handshake->server;
    const bool tickets = server->has_ring && tls_tickets_can_seal(&server->ring, now_unix_ms);

    server->now_unix_ms = now_unix_ms;
    server->stepping = handshake;
    mbedtls_ssl_conf_new_session_tickets(&server->base.config,
                                         (uint16_t)(tickets ? server->tickets_per_handshake : 0));
    if (server->psk_ke) { /* the step before, of another connection, may have narrowed them */
        mbedtls_ssl_conf_tls13_key_exchange_modes(&server->base.config,
                                                  MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_ALL);
    }
}

enum tls_handshake_status tls_handshake_step(struct tls_handshake *handshake,
                                             struct tls_handshake_io *io)
{
    enum tls_handshake_status status = TLS_HANDSHAKE_WANT_INPUT;
    int result = 0;

    HF_ASSERT(handshake->status == TLS_HANDSHAKE_WANT_INPUT ||
              handshake->status == TLS_HANDSHAKE_WANT_ROOM);
    HF_ASSERT(io->in_used <= io->in_bytes && io->out_bytes <= io->out_capacity);
    if (handshake->server != NULL) {
        handshake_prepare_server(handshake, io->now_unix_ms);
    }
    handshake->io = io;

    if (handshake_begins_wrong(handshake)) {
        result = MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
    }
    /* Beyond "over" a server still writes its tickets. */
    while (result == 0 && handshake_state(handshake) != MBEDTLS_SSL_HANDSHAKE_OVER) {
        result = handshake_advance(handshake);
        if (handshake->in_bytes_total > TLS_HANDSHAKE_IN_BYTES_MAX) {
            break;
        }
    }
    if (handshake->in_bytes_total > TLS_HANDSHAKE_IN_BYTES_MAX) {
        status = handshake_fail(handshake, TLS_HANDSHAKE_FAULT_TOO_LONG,
                                MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE);
    } else if (result == 0) {
        status = handshake_finish(handshake);
    } else if (result == MBEDTLS_ERR_SSL_WANT_WRITE) {
        status = TLS_HANDSHAKE_WANT_ROOM;
    } else if (result != MBEDTLS_ERR_SSL_WANT_READ) {
        status = handshake_fail(handshake,
                                handshake_met_plain_alert(handshake, result)
                                    ? TLS_HANDSHAKE_FAULT_PEER_ALERT
                                    : handshake_fault_of(result),
                                result);
    }
    handshake->status = status;
    handshake->io = NULL;
    if (handshake->server != NULL) {
        handshake->server->stepping = NULL;
    }
    return status;
}

/* ---- what came of it */

enum tls_handshake_fault tls_handshake_fault(const struct tls_handshake *handshake)
{
    return handshake->fault;
}

const char *tls_handshake_fault_label(enum tls_handshake_fault fault)
{
    HF_ASSERT(fault < TLS_HANDSHAKE_FAULT_COUNT);
    return handshake_faults[fault].label;
}

const char *tls_handshake_text(const struct tls_handshake *handshake)
{
    return handshake->text;
}

void tls_handshake_take_keys(struct tls_handshake *handshake, struct tls_keys *keys)
{
    HF_ASSERT(handshake->status == TLS_HANDSHAKE_DONE && !handshake->keys_taken);
    *keys = handshake->keys;
    handshake->keys_taken = true;
    mbedtls_platform_zeroize(&handshake->keys, sizeof handshake->keys);
}

bool tls_handshake_resumed(const struct tls_handshake *handshake)
{
    return handshake->status == TLS_HANDSHAKE_DONE && !handshake->full;
}

bool tls_handshake_lacks_exchange(const struct tls_handshake *handshake)
{
    HF_ASSERT(handshake->server != NULL);
    return handshake->status == TLS_HANDSHAKE_DONE && handshake->lacks_exchange;
}

const char *tls_handshake_server_name(const struct tls_handshake *handshake)
{
    return handshake->server_name;
}

/* OpenSSL's client: see client.h. It can't offer psk_ke alone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tests/conformance/client.h"

static SSL_CTX *context;
static SSL *ssl;
static SSL_SESSION *session; /* the last that came */
static int hellos;

bool library_can(const char *what)
{
    return strcmp(what, "modes") != 0;
}

static enum client_result failed(int result)
{
    const int why = SSL_get_error(ssl, result);
    const unsigned long code = ERR_get_error();

    if (client_failure.alert != CLIENT_NO_ALERT) {
        return CLIENT_ALERT;
    }
    if (why == SSL_ERROR_ZERO_RETURN) {
        return CLIENT_CLOSED;
    }
    if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        snprintf(client_failure.text, sizeof client_failure.text, "end of the stream");
        return CLIENT_END;
    }
    if (code != 0) {
        ERR_error_string_n(code, client_failure.text, sizeof client_failure.text);
    } else {
        snprintf(client_failure.text, sizeof client_failure.text, "errno %d", errno);
    }
    return CLIENT_FAILED;
}

static int on_session(SSL *from, SSL_SESSION *came)
{
    (void)from;
    SSL_SESSION_free(session);
    session = SSL_SESSION_dup(came);
    return 0;
}

static void on_message(int out, int version, int content, const void *bytes, size_t byte_count,
                       SSL *from, void *unused)
{
    (void)version;
    (void)from;
    (void)unused;
    if (out && content == SSL3_RT_HANDSHAKE && byte_count > 0 &&
        *(const uint8_t *)bytes == SSL3_MT_CLIENT_HELLO) {
        hellos++;
    }
}

static void on_info(const SSL *from, int where, int value)
{
    (void)from;
    if (where == SSL_CB_READ_ALERT && (value & 0xff) != SSL_AD_CLOSE_NOTIFY) {
        client_failure.alert = value & 0xff;
    }
}

static const char *suite_name(const char *suite)
{
    if (strcmp(suite, "aes128") == 0) {
        return "TLS_AES_128_GCM_SHA256";
    }
    if (strcmp(suite, "aes256") == 0) {
        return "TLS_AES_256_GCM_SHA384";
    }
    return "TLS_CHACHA20_POLY1305_SHA256";
}

static void offer_alpn(const char *names)
{
    uint8_t list[CLIENT_TEXT_BYTES];
    size_t filled = 0;

    for (const char *name = names; *name != 0;) {
        const size_t name_bytes = strcspn(name, ",");

        if (filled + 1 + name_bytes > sizeof list) {
            client_give_up("alpn: too much");
        }
        list[filled] = (uint8_t)name_bytes;
        memcpy(list + filled + 1, name, name_bytes);
        filled += 1 + name_bytes;
        name += name_bytes + (name[name_bytes] == ',');
    }
    if (SSL_set_alpn_protos(ssl, list, (unsigned)filled) != 0) {
        client_give_up("alpn");
    }
}

/* Its own form of a session holds the ticket as it is. */
static void garble(const struct client_options *options)
{
    const unsigned char *ticket;
    size_t ticket_bytes;
    unsigned char *bytes = NULL;
    const unsigned char *at;
    const int byte_count = i2d_SSL_SESSION(session, &bytes);

    SSL_SESSION_get0_ticket(session, &ticket, &ticket_bytes);
    client_garble(bytes, (size_t)byte_count, ticket, ticket_bytes, options->garble);
    at = bytes;
    SSL_SESSION_free(session);
    session = d2i_SSL_SESSION(NULL, &at, byte_count);
    OPENSSL_free(bytes);
}

static void offer_session(const struct client_options *options)
{
    if (session == NULL) {
        client_give_up("resume: no session has come");
    }
    if (options->garbled) {
        garble(options);
    }
    if (SSL_set_session(ssl, session) != 1) {
        client_give_up("resume: the session doesn't fit");
    }
}

static void configure(const struct client_options *options)
{
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_load_verify_locations(context, options->ca, NULL) != 1) {
        client_give_up("ca");
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    SSL_CTX_set_info_callback(context, on_info);
    SSL_CTX_set_msg_callback(context, on_message);
    if (options->tls12) {
        SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    }
    if (options->suite != NULL &&
        SSL_CTX_set_ciphersuites(context, suite_name(options->suite)) != 1) {
        client_give_up("suite");
    }
    if (options->retry) {
        char groups[] = "P-384:P-256"; /* the macro wants a char * */

        if (SSL_CTX_set1_groups_list(context, groups) != 1) {
            client_give_up("groups");
        }
    }
}

static void describe(struct client_connected *connected)
{
    const unsigned char *alpn;
    unsigned alpn_bytes;
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned digest_bytes = 0;
    X509 *certificate = SSL_get1_peer_certificate(ssl);

    connected->resumed = SSL_session_reused(ssl) == 1;
    connected->hellos = hellos;
    SSL_get0_alpn_selected(ssl, &alpn, &alpn_bytes);
    snprintf(connected->alpn, sizeof connected->alpn, "%.*s", (int)alpn_bytes, (const char *)alpn);
    if (certificate != NULL && X509_digest(certificate, EVP_sha256(), digest, &digest_bytes) == 1) {
        client_hex(digest, digest_bytes, connected->certificate);
    }
    X509_free(certificate);
}

enum client_result library_connect(int socket, const struct client_options *options,
                                   struct client_connected *connected)
{
    hellos = 0;
    ERR_clear_error();
    configure(options);
    ssl = SSL_new(context);
    if (ssl == NULL || SSL_set_fd(ssl, socket) != 1 ||
        SSL_set1_host(ssl, CLIENT_VERIFIED_NAME) != 1) {
        client_give_up("connect");
    }
    if (options->sni != NULL) {
        char name[CLIENT_TEXT_BYTES]; /* the macro wants a char * */

        snprintf(name, sizeof name, "%s", options->sni);
        if (SSL_set_tlsext_host_name(ssl, name) != 1) {
            client_give_up("sni");
        }
    }
    if (options->alpn != NULL) {
        offer_alpn(options->alpn);
    }
    if (options->resume) {
        offer_session(options);
    }

    const int result = SSL_connect(ssl);

    if (result != 1) {
        return failed(result);
    }
    describe(connected);
    return CLIENT_OK;
}

enum client_result library_write(const uint8_t *bytes, size_t byte_count)
{
    const int result = SSL_write(ssl, bytes, (int)byte_count);

    return result > 0 ? CLIENT_OK : failed(result);
}

enum client_result library_read(uint8_t *bytes, size_t capacity, size_t *byte_count)
{
    const int result = SSL_read(ssl, bytes, (int)capacity);

    if (result <= 0) {
        return failed(result);
    }
    *byte_count = (size_t)result;
    return CLIENT_OK;
}

enum client_result library_update(bool ask_peer)
{
    if (SSL_key_update(ssl, ask_peer ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) !=
        1) {
        return failed(0);
    }

    const int result = SSL_do_handshake(ssl); /* sends it */

    return result == 1 ? CLIENT_OK : failed(result);
}

void library_pad(size_t byte_count)
{
    if (SSL_set_block_padding(ssl, byte_count) != 1) {
        client_give_up("pad");
    }
}

enum client_result library_close(void)
{
    const int result = SSL_shutdown(ssl);

    return result >= 0 ? CLIENT_OK : failed(result);
}

void library_drop(void)
{
    SSL_free(ssl);
    SSL_CTX_free(context);
    ssl = NULL;
    context = NULL;
}

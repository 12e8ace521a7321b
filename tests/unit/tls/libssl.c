#include "tests/unit/tls/libssl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>

static BIO *libssl_bio(const struct tls_pem *pem)
{
    return BIO_new_mem_buf(pem->bytes, (int)pem->byte_count - 1);
}

static int libssl_on_session(SSL *ssl, SSL_SESSION *session)
{
    struct libssl *libssl = SSL_get_app_data(ssl);

    SSL_SESSION_free(libssl->session);
    libssl->session = SSL_SESSION_dup(session);
    libssl->sessions++;
    return 0;
}

static void libssl_on_message(int out, int version, int content, const void *bytes,
                              size_t byte_count, SSL *ssl, void *context)
{
    struct libssl *libssl = context;

    (void)version;
    (void)ssl;
    if (out && content == SSL3_RT_HANDSHAKE && byte_count > 0 && *(const uint8_t *)bytes == 1) {
        libssl->client_hellos++;
    }
}

static int libssl_on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_bytes,
                          const unsigned char *in, unsigned in_bytes, void *context)
{
    const char *alpn = context;
    unsigned char *chosen = NULL;
    int result;

    (void)ssl;
    if (alpn == NULL) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    result = SSL_select_next_proto(&chosen, out_bytes, (const unsigned char *)alpn,
                                   (unsigned)strlen(alpn), in, in_bytes);
    *out = chosen;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void libssl_trust(SSL_CTX *context, const struct devcert *cert)
{
    BIO *bio = libssl_bio(&cert->ca_certificate);
    X509 *ca = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    assert_non_null(ca);
    assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca), 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    X509_free(ca);
    BIO_free(bio);
}

static void libssl_identify(SSL_CTX *context, const struct devcert *cert)
{
    BIO *bio = libssl_bio(&cert->certificate);
    X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    bio = libssl_bio(&cert->key);

    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);

    BIO_free(bio);
    assert_int_equal(SSL_CTX_use_certificate(context, leaf), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_free(leaf);
    EVP_PKEY_free(key);
}

void libssl_again(struct libssl *libssl, bool client, SSL_SESSION *session)
{
    SSL_free(libssl->ssl);
    libssl->ssl = SSL_new(libssl->context);
    assert_non_null(libssl->ssl);
    SSL_set_app_data(libssl->ssl, libssl);
    SSL_set_msg_callback(libssl->ssl, libssl_on_message);
    SSL_set_msg_callback_arg(libssl->ssl, libssl);
    SSL_set_bio(libssl->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    libssl->client_hellos = 0;
    if (client) {
        SSL_set_connect_state(libssl->ssl);
        assert_int_equal(SSL_set_tlsext_host_name(libssl->ssl, FIXTURE_NAME), 1);
        assert_int_equal(SSL_set1_host(libssl->ssl, FIXTURE_NAME), 1);
        if (session != NULL) {
            assert_int_equal(SSL_set_session(libssl->ssl, session), 1);
        }
    } else {
        SSL_set_accept_state(libssl->ssl);
    }
}

void libssl_open(struct libssl *libssl, bool client, const struct devcert *cert,
                 struct libssl_options options)
{
    memset(libssl, 0, sizeof *libssl);
    libssl->context = SSL_CTX_new(client ? TLS_client_method() : TLS_server_method());
    assert_non_null(libssl->context);
    if (options.version_max != 0) {
        SSL_CTX_set_max_proto_version(libssl->context, options.version_max);
    }
    if (options.suite != NULL) {
        assert_int_equal(SSL_CTX_set_ciphersuites(libssl->context, options.suite), 1);
    }
    if (options.groups != NULL) {
        char groups[64]; /* the macro casts to char * */

        snprintf(groups, sizeof groups, "%s", options.groups);
        assert_int_equal(SSL_CTX_set1_groups_list(libssl->context, groups), 1);
    }
    if (client) {
        libssl_trust(libssl->context, cert);
        SSL_CTX_set_session_cache_mode(libssl->context,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(libssl->context, libssl_on_session);
        if (options.alpn != NULL) {
            assert_int_equal(SSL_CTX_set_alpn_protos(libssl->context,
                                                     (const unsigned char *)options.alpn,
                                                     (unsigned)strlen(options.alpn)),
                             0);
        }
    } else {
        libssl_identify(libssl->context, cert);
        SSL_CTX_set_session_id_context(libssl->context, (const unsigned char *)"test", 4);
        SSL_CTX_set_num_tickets(libssl->context, (size_t)options.tickets);
        SSL_CTX_set_alpn_select_cb(libssl->context, libssl_on_alpn,
                                   (void *)(uintptr_t)options.alpn);
    }
    libssl_again(libssl, client, NULL);
}

void libssl_close(struct libssl *libssl)
{
    SSL_SESSION_free(libssl->session);
    SSL_free(libssl->ssl);
    SSL_CTX_free(libssl->context);
    memset(libssl, 0, sizeof *libssl);
}

void libssl_flush(struct libssl *libssl, struct wire *to)
{
    uint8_t bytes[4096];
    int n;

    while ((n = BIO_read(SSL_get_wbio(libssl->ssl), bytes, sizeof bytes)) > 0) {
        wire_put(to, bytes, (size_t)n);
    }
}

void libssl_feed(struct libssl *libssl, struct wire *from)
{
    size_t left;
    const uint8_t *front = wire_front(from, &left);

    if (left > 0) {
        assert_int_equal(BIO_write(SSL_get_rbio(libssl->ssl), front, (int)left), left);
        wire_take(from, left);
    }
}

bool libssl_step(struct libssl *libssl, struct wire *from, struct wire *to)
{
    libssl_feed(libssl, from);

    const int result = SSL_do_handshake(libssl->ssl);

    libssl_flush(libssl, to);
    return result == 1;
}

/*
 * Servers and clients: what their handshakes have in common, made once. Part of handshake.h.
 */
#include "core/tls/handshake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <mbedtls/error.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/version.h>
#include <psa/crypto.h>

#include "core/base/check.h"
#include "core/tls/handshake_private.h"

/* P-256 first: faster here, and x25519 too, or clients that send only its share need a retry. */
static const uint16_t endpoint_groups[] = { MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                            MBEDTLS_SSL_IANA_TLS_GROUP_X25519, 0 };

static const char *endpoint_alpn[] = { TLS_ALPN, NULL };

static char endpoint_version[18]; /* set before any thread reads it */

int tls_global_init(struct hf_error *error)
{
    const psa_status_t status = psa_crypto_init();

    if (status != PSA_SUCCESS) {
        hf_error_set(error, EX_OSERR, 0, "mbedTLS: psa_crypto_init: %d", (int)status);
        return -1;
    }
    mbedtls_version_get_string_full(endpoint_version);
    return 0;
}

const char *tls_library_version(void)
{
    return endpoint_version;
}

static void endpoint_error(struct hf_error *error, const char *what, int code)
{
    char text[100];

    mbedtls_strerror(code, text, sizeof text);
    hf_error_set(error, EX_CONFIG, 0, "%s: %s (-0x%04x)", what, text, (unsigned)-code);
}

static void base_init(struct handshake_base *base)
{
    mbedtls_ssl_config_init(&base->config);
    mbedtls_entropy_init(&base->entropy);
    mbedtls_ctr_drbg_init(&base->drbg);
    mbedtls_x509_crt_init(&base->chain);
}

static void base_deinit(struct handshake_base *base)
{
    mbedtls_ssl_config_free(&base->config);
    mbedtls_x509_crt_free(&base->chain);
    mbedtls_ctr_drbg_free(&base->drbg);
    mbedtls_entropy_free(&base->entropy);
}

/* What both ends refuse and offer; `suite` narrows the three to one. */
static int base_configure(struct handshake_base *base, int endpoint, uint16_t suite,
                          struct hf_error *error)
{
    mbedtls_ssl_config *config = &base->config;
    int failed = mbedtls_ctr_drbg_seed(&base->drbg, mbedtls_entropy_func, &base->entropy, NULL, 0);

    if (failed != 0) {
        endpoint_error(error, "random generator", failed);
        return -1;
    }
    failed = mbedtls_ssl_config_defaults(config, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM,
                                         MBEDTLS_SSL_PRESET_DEFAULT);
    if (failed == 0) {
        failed = mbedtls_ssl_conf_alpn_protocols(config, endpoint_alpn);
    }
    if (failed != 0) {
        endpoint_error(error, "TLS configuration", failed);
        return -1;
    }
    if (suite != 0) {
        base->suites[0] = suite;
    } else {
        base->suites[0] = MBEDTLS_TLS1_3_AES_128_GCM_SHA256;
        base->suites[1] = MBEDTLS_TLS1_3_AES_256_GCM_SHA384;
        base->suites[2] = MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256;
    }
    mbedtls_ssl_conf_rng(config, mbedtls_ctr_drbg_random, &base->drbg);
    mbedtls_ssl_conf_min_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_max_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_ciphersuites(config, base->suites);
    mbedtls_ssl_conf_groups(config, endpoint_groups);
    mbedtls_ssl_conf_tls13_key_exchange_modes(
        config, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ALL); /* no psk_ke */
    return 0;
}

static int base_parse_chain(struct handshake_base *base, const struct tls_pem *pem,
                            const char *what, struct hf_error *error)
{
    const int failed = mbedtls_x509_crt_parse(&base->chain, pem->bytes, pem->byte_count);

    if (failed > 0) {
        hf_error_set(error, EX_CONFIG, 0, "%s: %d of its certificates can't be read", what, failed);
        return -1;
    }
    if (failed != 0) {
        endpoint_error(error, what, failed);
        return -1;
    }
    return 0;
}

static int server_configure(struct tls_server *server, const struct tls_server_options *options,
                            struct hf_error *error)
{
    struct handshake_base *base = &server->base;

    if (base_configure(base, MBEDTLS_SSL_IS_SERVER, 0, error) != 0 ||
        base_parse_chain(base, options->certificate, "certificate", error) != 0) {
        return -1;
    }

    int failed = mbedtls_pk_parse_key(&server->key, options->key->bytes, options->key->byte_count,
                                      NULL, 0, mbedtls_ctr_drbg_random, &base->drbg);

    if (failed != 0) {
        endpoint_error(error, "private key", failed);
        return -1;
    }
    failed =
        mbedtls_pk_check_pair(&base->chain.pk, &server->key, mbedtls_ctr_drbg_random, &base->drbg);
    if (failed != 0) {
        endpoint_error(error, "private key: doesn't fit the first certificate of the chain",
                       failed);
        return -1;
    }
    failed = mbedtls_ssl_conf_own_cert(&base->config, &base->chain, &server->key);
    if (failed != 0) {
        endpoint_error(error, "certificate", failed);
        return -1;
    }
    mbedtls_ssl_conf_session_tickets_cb(&base->config, handshake_write_ticket,
                                        handshake_parse_ticket, server);
    mbedtls_ssl_conf_sni(&base->config, handshake_on_server_name, server);
    return 0;
}

struct tls_server *tls_server_open(const struct tls_server_options *options, struct hf_error *error)
{
    HF_ASSERT(options->tickets_per_handshake <= TLS_TICKETS_PER_HANDSHAKE_MAX);

    struct tls_server *server = calloc(1, sizeof *server);

    if (server == NULL) {
        hf_error_set(error, EX_OSERR, 0, "TLS server: no memory");
        return NULL;
    }
    base_init(&server->base);
    mbedtls_pk_init(&server->key);
    server->tickets_per_handshake = options->tickets_per_handshake;
    server->psk_ke = options->psk_ke;
    if (server_configure(server, options, error) != 0) {
        tls_server_close(server);
        return NULL;
    }
    return server;
}

void tls_server_close(struct tls_server *server)
{
    if (server == NULL) {
        return;
    }
    base_deinit(&server->base);
    mbedtls_pk_free(&server->key);
    mbedtls_platform_zeroize(server, sizeof *server);
    free(server);
}

void tls_server_set_tickets(struct tls_server *server, const struct tls_ticket_ring *ring)
{
    server->ring = *ring;
    server->has_ring = true;
}

static int client_configure(struct tls_client *client, const struct tls_client_options *options,
                            struct hf_error *error)
{
    struct handshake_base *base = &client->base;
    mbedtls_ssl_config *config = &base->config;

    if (base_configure(base, MBEDTLS_SSL_IS_CLIENT, options->suite, error) != 0) {
        return -1;
    }
    if (options->ca != NULL) {
        if (base_parse_chain(base, options->ca, "certificate authorities", error) != 0) {
            return -1;
        }
        mbedtls_ssl_conf_ca_chain(config, &base->chain, NULL);
    }
    mbedtls_ssl_conf_authmode(config, options->insecure ? MBEDTLS_SSL_VERIFY_NONE
                                                        : MBEDTLS_SSL_VERIFY_REQUIRED);
    if (options->psk_ke) {
        mbedtls_ssl_conf_tls13_key_exchange_modes(
            config, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK |
                        MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL);
    }
    mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(
        config, MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
    return 0;
}

struct tls_client *tls_client_open(const struct tls_client_options *options, struct hf_error *error)
{
    HF_ASSERT(options->ca != NULL || options->insecure);
    HF_ASSERT(options->suite == 0 || aead_key_bytes(options->suite) != 0);

    struct tls_client *client = calloc(1, sizeof *client);

    if (client == NULL) {
        hf_error_set(error, EX_OSERR, 0, "TLS client: no memory");
        return NULL;
    }
    base_init(&client->base);
    if (client_configure(client, options, error) != 0) {
        tls_client_close(client);
        return NULL;
    }
    return client;
}

void tls_client_close(struct tls_client *client)
{
    if (client == NULL) {
        return;
    }
    base_deinit(&client->base);
    mbedtls_platform_zeroize(client, sizeof *client);
    free(client);
}

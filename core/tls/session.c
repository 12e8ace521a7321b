/*
 * Sessions: a server's tickets by its ring and wall clock, a client's sessions as opaque bytes by
 * wall clock. Part of handshake.h.
 *
 * mbedTLS times both by mbedtls_ms_time, CLOCK_BOOTTIME here, which a reboot or another node starts
 * anew. So what is kept carries wall-clock time, and when it is loaded, the private time field is
 * set to what our clock would have shown then.
 */
#include "core/tls/handshake.h"

#include <stdlib.h>
#include <string.h>

#include <mbedtls/platform_util.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"
#include "core/tls/client_hello.h"
#include "core/tls/handshake_private.h"

enum {
    TICKET_SEALED_AT = TLS_TICKET_NAME_BYTES + TLS_TICKET_NONCE_BYTES,
    TICKET_STATE_AT = TLS_TICKET_OVERHEAD - AEAD_TAG_BYTES,
    AGE_OFF_MS_MAX = MBEDTLS_SSL_TLS1_3_TICKET_AGE_TOLERANCE - 100,
    HANDSHAKE_HEADER_BYTES = 4,
    SESSION_HEADER_BYTES = 16, /* "HFS" and version, CRC of what follows, received at (Unix ms) */
    TICKET_RECORD_BYTES_MAX = 4096,
    TICKET_READS_MAX = 8, /* mbedTLS finds, then reads a ticket; several may lie in a record */
};

static const uint8_t session_magic[4] = { 'H', 'F', 'S', 1 };

/* ---- server */

int handshake_write_ticket(void *context, const mbedtls_ssl_session *session, unsigned char *start,
                           const unsigned char *end, size_t *ticket_bytes, uint32_t *lifetime_s)
{
    struct tls_server *server = context;
    const size_t room = (size_t)(end - start);
    uint8_t nonce[TLS_TICKET_NONCE_BYTES];
    size_t state_bytes = 0;

    *ticket_bytes = 0;
    if (room < TLS_TICKET_OVERHEAD) {
        return MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL;
    }

    int failed = mbedtls_ctr_drbg_random(&server->base.drbg, nonce, sizeof nonce);

    if (failed == 0) {
        failed = mbedtls_ssl_session_save(session, start + TICKET_STATE_AT,
                                          room - TLS_TICKET_OVERHEAD, &state_bytes);
    }
    if (failed != 0) {
        return failed;
    }
    *ticket_bytes = tls_ticket_seal(&server->ring, server->now_unix_ms, nonce,
                                    start + TICKET_STATE_AT, state_bytes, start, room);
    *lifetime_s = (uint32_t)(server->ring.lifetime_ms / 1000);
    return *ticket_bytes == 0 ? MBEDTLS_ERR_SSL_INTERNAL_ERROR : 0;
}

/*
 * Whether mbedTLS will find the age that the client states near enough to the true one, for certain:
 * a little less is allowed here, since its clock goes on.
 */
static bool age_is_believed(const struct client_hello *hello, const mbedtls_ssl_session *session,
                            const uint8_t *ticket, uint64_t age_ms)
{
    uint32_t obfuscated;

    if (!client_hello_ticket_age(hello, ticket, TICKET_SEALED_AT, &obfuscated)) {
        return false;
    }

    const int64_t said_ms = (uint32_t)(obfuscated - session->MBEDTLS_PRIVATE(ticket_age_add));
    const int64_t off_ms = (int64_t)age_ms - said_ms;

    return off_ms > -AGE_OFF_MS_MAX && off_ms < AGE_OFF_MS_MAX;
}

/*
 * mbedTLS would rather shake hands in full than resume by psk_ke, so for a client that resumes in no
 * other way the full one is hidden, in this step: only where nothing but a wrong binder can come in
 * between, for then the handshake fails.
 */
static void prefer_psk_ke(struct tls_server *server, const struct client_hello *hello,
                          const mbedtls_ssl_session *session, const uint8_t *ticket,
                          uint64_t age_ms)
{
    const uint8_t modes = session->MBEDTLS_PRIVATE(ticket_flags);

    if (server->psk_ke && (modes & MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK) != 0 &&
        client_hello_only_psk_ke(hello) && age_is_believed(hello, session, ticket, age_ms)) {
        mbedtls_ssl_conf_tls13_key_exchange_modes(&server->base.config,
                                                  MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_ALL);
    }
}

/*
 * Fits an authentic ticket's session to the ClientHello that it came in. mbedTLS resumes with the
 * very suite of the session only, and fails the handshake of a client that doesn't offer it any
 * more. 0, or an error that means a full handshake.
 */
static int fit_session(struct tls_server *server, mbedtls_ssl_session *session,
                       const uint8_t *ticket, uint64_t age_ms)
{
    const mbedtls_ssl_context *ssl = &server->stepping->ssl;
    const uint8_t *message = ssl->MBEDTLS_PRIVATE(in_msg);
    const size_t message_bytes = ssl->MBEDTLS_PRIVATE(in_hslen);
    struct client_hello hello;

    if (message_bytes < HANDSHAKE_HEADER_BYTES ||
        !client_hello_read(&hello, message + HANDSHAKE_HEADER_BYTES,
                           message_bytes - HANDSHAKE_HEADER_BYTES)) {
        return MBEDTLS_ERR_SSL_SESSION_TICKET_EXPIRED;
    }

    const uint16_t suite =
        client_hello_suite_for(&hello, (uint16_t)mbedtls_ssl_session_get_ciphersuite_id(session));

    if (suite == 0) {
        return MBEDTLS_ERR_SSL_SESSION_TICKET_EXPIRED;
    }
    session->MBEDTLS_PRIVATE(ciphersuite) = suite;
    prefer_psk_ke(server, &hello, session, ticket, age_ms);
    return 0;
}

int handshake_parse_ticket(void *context, mbedtls_ssl_session *session, unsigned char *ticket,
                           size_t ticket_bytes)
{
    struct tls_server *server = context;
    struct tls_ticket_opened opened;

    if (!server->has_ring) {
        return MBEDTLS_ERR_SSL_INVALID_MAC;
    }
    switch (tls_ticket_open(&server->ring, server->now_unix_ms, ticket, ticket_bytes, &opened)) {
    case TLS_TICKET_OK:
        break;
    case TLS_TICKET_EXPIRED:
        return MBEDTLS_ERR_SSL_SESSION_TICKET_EXPIRED;
    case TLS_TICKET_UNKNOWN:
    default:
        return MBEDTLS_ERR_SSL_INVALID_MAC;
    }

    const int failed = mbedtls_ssl_session_load(session, opened.state, opened.state_bytes);

    mbedtls_platform_zeroize(opened.state, opened.state_bytes);
    if (failed != 0) {
        return failed;
    }
    session->MBEDTLS_PRIVATE(ticket_creation_time) =
        mbedtls_ms_time() - (mbedtls_ms_time_t)opened.age_ms;
    return fit_session(server, session, ticket, opened.age_ms);
}

/* ---- client */

void handshake_offer_session(struct tls_handshake *handshake, const uint8_t *session,
                             size_t session_bytes, uint64_t now_unix_ms)
{
    mbedtls_ssl_session loaded;

    /* mbedTLS reads out of bounds in a session that it didn't write: a damaged one must not get so
     * far. Who could forge the sum could read the secrets too. */
    if (session_bytes < SESSION_HEADER_BYTES ||
        memcmp(session, session_magic, sizeof session_magic) != 0 ||
        load_be32(session + 4) != crc32c(0, session + 8, session_bytes - 8)) {
        return;
    }

    const uint64_t received_unix_ms = load_be64(session + 8);

    if (received_unix_ms > now_unix_ms ||
        now_unix_ms - received_unix_ms > TLS_TICKET_LIFETIME_MS_MAX) {
        return;
    }
    mbedtls_ssl_session_init(&loaded);
    if (mbedtls_ssl_session_load(&loaded, session + SESSION_HEADER_BYTES,
                                 session_bytes - SESSION_HEADER_BYTES) == 0) {
        loaded.MBEDTLS_PRIVATE(ticket_reception_time) =
            mbedtls_ms_time() - (mbedtls_ms_time_t)(now_unix_ms - received_unix_ms);
        /* A refusal (another suite) means a full handshake, no more. */
        (void)mbedtls_ssl_set_session(&handshake->ssl, &loaded);
    }
    mbedtls_ssl_session_free(&loaded);
}

static void session_forget(struct tls_handshake *handshake)
{
    if (handshake->session != NULL) {
        mbedtls_platform_zeroize(handshake->session, handshake->session_bytes);
        free(handshake->session);
    }
    handshake->session = NULL;
    handshake->session_bytes = 0;
}

static void session_keep(struct tls_handshake *handshake, uint64_t now_unix_ms)
{
    mbedtls_ssl_session session;
    uint8_t *bytes = malloc(TLS_SESSION_BYTES_MAX);
    size_t saved_bytes = 0;

    mbedtls_ssl_session_init(&session);
    if (bytes != NULL && mbedtls_ssl_get_session(&handshake->ssl, &session) == 0 &&
        mbedtls_ssl_session_save(&session, bytes + SESSION_HEADER_BYTES,
                                 TLS_SESSION_BYTES_MAX - SESSION_HEADER_BYTES, &saved_bytes) == 0) {
        memcpy(bytes, session_magic, sizeof session_magic);
        store_be64(bytes + 8, now_unix_ms);
        session_forget(handshake);
        handshake->session = bytes;
        handshake->session_bytes = SESSION_HEADER_BYTES + saved_bytes;
        store_be32(bytes + 4, crc32c(0, bytes + 8, handshake->session_bytes - 8));
        bytes = NULL;
    }
    mbedtls_ssl_session_free(&session);
    free(bytes);
}

/* Shows mbedTLS a record that is (a part of) a ticket. True: it wants to see more. */
static bool session_feed(struct tls_handshake *handshake, const uint8_t *record,
                         size_t record_bytes, uint64_t now_unix_ms)
{
    struct tls_handshake_io io = { .in = record, .in_bytes = record_bytes };
    bool more = true;

    handshake->io = &io;
    for (int read = 0; read < TICKET_READS_MAX && more; read++) {
        uint8_t none;
        const int result = mbedtls_ssl_read(&handshake->ssl, &none, sizeof none);

        if (result == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) {
            session_keep(handshake, now_unix_ms);
            more = false;
        } else if (result != MBEDTLS_ERR_SSL_WANT_READ) {
            more = false; /* it is no ticket that mbedTLS can use */
        }
    }
    handshake->io = NULL;
    return more;
}

void tls_handshake_open(struct tls_handshake *handshake, struct tls_core *core,
                        struct tls_keys *keys, uint8_t *bytes, size_t byte_count,
                        uint64_t now_unix_ms, struct tls_opened *opened)
{
    size_t record_bytes = 0;
    uint8_t *copy = NULL; /* tls_record_open decrypts in place, mbedTLS wants the sealed bytes */

    if (handshake->wants_ticket && byte_count >= TLS_RECORD_HEADER_BYTES) {
        record_bytes = TLS_RECORD_HEADER_BYTES + (size_t)load_be16(bytes + 3);
        if (byte_count < record_bytes) {
            record_bytes = 0;
        } else if (record_bytes <= TICKET_RECORD_BYTES_MAX) {
            copy = malloc(record_bytes);
        }
    }
    if (copy != NULL) {
        memcpy(copy, bytes, record_bytes);
    }
    tls_record_open(core, keys, bytes, byte_count, opened);
    if (opened->result != TLS_OPEN_MORE) {
        /* mbedTLS can't follow past anything but tickets; a KeyUpdate would be its end. */
        handshake->wants_ticket = handshake->wants_ticket && opened->ticket && copy != NULL &&
                                  opened->result == TLS_OPEN_HANDLED &&
                                  session_feed(handshake, copy, record_bytes, now_unix_ms);
    }
    free(copy);
}

bool tls_handshake_wants_ticket(const struct tls_handshake *handshake)
{
    return handshake->wants_ticket;
}

size_t tls_handshake_session(const struct tls_handshake *handshake, uint8_t *out, size_t capacity)
{
    if (handshake->session_bytes > capacity || handshake->session_bytes == 0) {
        return 0;
    }
    memcpy(out, handshake->session, handshake->session_bytes);
    return handshake->session_bytes;
}

/*
 * Our ends against OpenSSL's: what we send must be what another library understands.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "tests/unit/tls/libssl.h"

static const char *const suite_names[] = { "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                           "TLS_CHACHA20_POLY1305_SHA256" };
static const uint16_t suites[] = { AEAD_AES_128_GCM_SHA256, AEAD_AES_256_GCM_SHA384,
                                   AEAD_CHACHA20_POLY1305_SHA256 };

enum { ALERT_REASON = 1000 }; /* OpenSSL's reason for an alert that came is 1000 + its number */

static int libssl_reason(void)
{
    const int reason = ERR_GET_REASON(ERR_peek_last_error());

    ERR_clear_error();
    return reason;
}

/* ---- our server, OpenSSL's client */

struct served {
    struct fixture *fixture;
    struct libssl client;
    struct end server;
    struct wire to_client;
    size_t chunk;
};

static struct served *served_open(unsigned tickets, struct libssl_options options)
{
    struct served *served = calloc(1, sizeof *served);

    assert_non_null(served);
    served->fixture = fixture_open((struct fixture_options){ .tickets = tickets });
    served->chunk = SIZE_MAX;
    libssl_open(&served->client, true, &served->fixture->cert, options);
    return served;
}

static void served_disconnect(struct served *served)
{
    tls_handshake_end(served->server.handshake);
    tls_keys_clear(&served->fixture->core, &served->server.keys);
    memset(&served->server, 0, sizeof served->server);
    memset(&served->to_client, 0, sizeof served->to_client);
}

static void served_close(struct served *served)
{
    served_disconnect(served);
    libssl_close(&served->client);
    fixture_close(served->fixture);
    free(served);
}

/* The server's last status; the client may fail or succeed. */
static enum tls_handshake_status served_shake(struct served *served, bool *client_done)
{
    *client_done = false;
    served->server.handshake = tls_handshake_accept(served->fixture->server);
    assert_non_null(served->server.handshake);
    for (int turn = 0; turn < 10; turn++) {
        if (!*client_done) {
            *client_done = libssl_step(&served->client, &served->to_client, &served->server.in);
        }
        if (*client_done) {
            /* Its first data leave with its Finished: they are our record layer's first input. */
            assert_int_equal(SSL_write(served->client.ssl, "first", 5), 5);
            libssl_flush(&served->client, &served->server.in);
        }
        if (served->server.in.used == served->server.in.filled) {
            return served->server.status;
        }
        while (served->server.status == TLS_HANDSHAKE_WANT_INPUT &&
               served->server.in.used != served->server.in.filled) {
            end_step(&served->server, &served->to_client, served->chunk, FIXTURE_NOW_UNIX_MS);
        }
        if (served->server.status == TLS_HANDSHAKE_DONE ||
            served->server.status == TLS_HANDSHAKE_FAILED) {
            return served->server.status;
        }
    }
    return served->server.status;
}

static void served_seal(struct served *served, const void *bytes, size_t byte_count)
{
    static uint8_t record[TLS_RECORD_BYTES_MAX + 64];
    const struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = byte_count };
    const size_t sealed_bytes = tls_record_seal(&served->fixture->core, &served->server.keys, &part,
                                                1, record, sizeof record);

    assert_int_not_equal(sealed_bytes, 0);
    wire_put(&served->to_client, record, sealed_bytes);
}

/* Echoes what came until nothing is left; true after close_notify, which is answered. */
static bool served_echo(struct served *served)
{
    libssl_flush(&served->client, &served->server.in);
    for (;;) {
        size_t left;
        uint8_t *front = wire_front(&served->server.in, &left);
        struct tls_opened opened;

        tls_record_open(&served->fixture->core, &served->server.keys, front, left, &opened);
        if (opened.result == TLS_OPEN_MORE) {
            assert_int_equal(left, 0);
            return false;
        }
        assert_int_not_equal(opened.result, TLS_OPEN_FATAL);
        if (opened.result == TLS_OPEN_CLOSED) {
            uint8_t record[TLS_ALERT_RECORD_BYTES];

            assert_int_equal(tls_record_seal_alert(&served->fixture->core, &served->server.keys,
                                                   TLS_ALERT_CLOSE_NOTIFY, record, sizeof record),
                             sizeof record);
            wire_put(&served->to_client, record, sizeof record);
            return true;
        }
        if (opened.result == TLS_OPEN_DATA) {
            served_seal(served, front + opened.data_offset, opened.data_bytes);
        }
        wire_take(&served->server.in, opened.record_bytes);
    }
}

static void expect(struct served *served, const void *bytes, size_t byte_count)
{
    static uint8_t got[TLS_PLAINTEXT_BYTES_MAX];

    libssl_feed(&served->client, &served->to_client);
    assert_int_equal(SSL_read(served->client.ssl, got, sizeof got), byte_count);
    assert_memory_equal(got, bytes, byte_count);
}

static void talk(struct served *served, size_t byte_count, unsigned seed)
{
    static uint8_t bytes[TLS_PLAINTEXT_BYTES_MAX];

    for (size_t at = 0; at < byte_count; at++) {
        bytes[at] = (uint8_t)(at * 31 + seed);
    }
    assert_int_equal(SSL_write(served->client.ssl, bytes, (int)byte_count), byte_count);
    assert_false(served_echo(served));
    expect(served, bytes, byte_count);
}

static void converse(struct served *served)
{
    tls_handshake_take_keys(served->server.handshake, &served->server.keys);
    assert_false(served_echo(served));
    expect(served, "first", 5);
    for (unsigned seed = 0; seed < 50; seed++) {
        talk(served, 1 + seed * 7, seed);
    }
    talk(served, TLS_PLAINTEXT_BYTES_MAX, 1);
    talk(served, TLS_PLAINTEXT_BYTES_MAX, 2);
    assert_int_equal(SSL_key_update(served->client.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    talk(served, 100, 3);
    talk(served, 100, 4);
    assert_int_equal(SSL_key_update(served->client.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    talk(served, 100, 5);
    talk(served, 100, 6);
    tls_record_update(&served->server.keys, true);
    talk(served, 100, 7);
    talk(served, 100, 8);
    tls_record_update(&served->server.keys, false);
    talk(served, 100, 9);
    assert_int_equal(served->fixture->core.key_updates_received, 3);
    assert_int_equal(served->fixture->core.key_updates_sent, 3);
    assert_int_equal(SSL_shutdown(served->client.ssl), 0);
    assert_true(served_echo(served));
    libssl_feed(&served->client, &served->to_client);
    assert_int_equal(SSL_shutdown(served->client.ssl), 1);
}

static void client_of_any_suite_talks_resumes_and_closes(void **state)
{
    (void)state;
    for (size_t suite = 0; suite < 3; suite++) {
        for (unsigned tickets = 0; tickets <= 2; tickets++) {
            struct served *served =
                served_open(tickets, (struct libssl_options){ .suite = suite_names[suite],
                                                              .alpn = LIBSSL_ALPN });
            bool client_done;

            assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
            assert_true(client_done);
            assert_false(tls_handshake_resumed(served->server.handshake));
            assert_string_equal(tls_handshake_server_name(served->server.handshake), FIXTURE_NAME);
            converse(served);
            assert_int_equal(served->server.keys.suite, suites[suite]);
            assert_int_equal(served->client.sessions, tickets);
            if (tickets > 0) {
                SSL_SESSION *session = SSL_SESSION_dup(served->client.session);

                served_disconnect(served);
                served->fixture->core.key_updates_received = 0;
                served->fixture->core.key_updates_sent = 0;
                libssl_again(&served->client, true, session);
                SSL_SESSION_free(session);
                assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
                assert_int_equal(SSL_session_reused(served->client.ssl), 1);
                assert_true(tls_handshake_resumed(served->server.handshake));
                converse(served);
                assert_int_equal(served->client.sessions, tickets + 1);
            }
            served_close(served);
        }
    }
}

/* A session is bound to the hash of its suite, not to the suite (RFC 8446 4.2.11). */
static void client_that_offers_other_suites_than_its_session_s_is_taken(void **state)
{
    (void)state;
    for (size_t suite = 0; suite < 3; suite++) {
        for (size_t now = 0; now < 3; now++) {
            struct served *served = served_open(
                1, (struct libssl_options){ .suite = suite_names[suite], .alpn = LIBSSL_ALPN });
            const bool same_hash = (suite == 1) == (now == 1);
            SSL_SESSION *session;
            bool client_done;

            assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
            converse(served);
            session = SSL_SESSION_dup(served->client.session);
            served_disconnect(served);
            libssl_close(&served->client);
            libssl_open(&served->client, true, &served->fixture->cert,
                        (struct libssl_options){ .suite = suite_names[now], .alpn = LIBSSL_ALPN });
            libssl_again(&served->client, true, session);
            SSL_SESSION_free(session);
            served->fixture->core.key_updates_received = 0;
            served->fixture->core.key_updates_sent = 0;
            assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
            assert_int_equal(tls_handshake_resumed(served->server.handshake), same_hash);
            converse(served);
            assert_int_equal(served->server.keys.suite, suites[now]);
            served_close(served);
        }
    }
}

static void client_bytes_split_anywhere_shake_hands(void **state)
{
    struct served *served = served_open(1, (struct libssl_options){ .alpn = LIBSSL_ALPN });
    bool client_done;

    (void)state;
    for (served->chunk = 1; served->chunk < 400; served->chunk += 3) {
        assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
        tls_handshake_take_keys(served->server.handshake, &served->server.keys);
        assert_false(served_echo(served));
        expect(served, "first", 5);
        served_disconnect(served);
        libssl_again(&served->client, true, NULL);
    }
    served_close(served);
}

static const struct {
    const char *name;
    const char *groups;
    int client_hellos;
} groups[] = {
    { "P-256 share", "P-256:X25519", 1 },
    { "X25519 share", "X25519:P-256", 1 },
    { "X25519 alone", "X25519", 1 },
    { "P-384 share: retry", "P-384:P-256", 2 },
    { "P-521 share: retry with X25519", "P-521:X25519", 2 },
};

static void group_that_we_lack_is_retried(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof groups / sizeof groups[0]; row++) {
        struct served *served = served_open(
            1, (struct libssl_options){ .alpn = LIBSSL_ALPN, .groups = groups[row].groups });
        bool client_done;

        print_message("%s\n", groups[row].name);
        assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
        assert_int_equal(served->client.client_hellos, groups[row].client_hellos);
        assert_string_equal(tls_handshake_server_name(served->server.handshake), FIXTURE_NAME);
        converse(served);
        served_close(served);
    }
}

static const struct {
    const char *name;
    struct libssl_options options;
    enum tls_handshake_fault fault;
    int alert;
} refused[] = {
    { "no ALPN", { .alpn = NULL }, TLS_HANDSHAKE_FAULT_NO_ALPN, 120 },
    { "another ALPN", { .alpn = "\x02h2\x08http/1.1" }, TLS_HANDSHAKE_FAULT_NO_ALPN, 120 },
    { "another version of ours", { .alpn = "\x0aholdfast/2" }, TLS_HANDSHAKE_FAULT_NO_ALPN, 120 },
    { "no ALPN after a retry", { .groups = "P-384:P-256" }, TLS_HANDSHAKE_FAULT_NO_ALPN, 120 },
    { "TLS 1.2",
      { .alpn = LIBSSL_ALPN, .version_max = TLS1_2_VERSION },
      TLS_HANDSHAKE_FAULT_VERSION,
      70 },
    { "no group in common",
      { .alpn = LIBSSL_ALPN, .groups = "P-384" },
      TLS_HANDSHAKE_FAULT_NO_COMMON,
      40 },
};

static void client_that_does_not_fit_is_refused_with_its_alert(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof refused / sizeof refused[0]; row++) {
        struct served *served = served_open(1, refused[row].options);
        bool client_done;

        print_message("%s\n", refused[row].name);
        ERR_clear_error();
        assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_FAILED);
        assert_false(client_done);
        assert_string_equal(
            tls_handshake_fault_label(tls_handshake_fault(served->server.handshake)),
            tls_handshake_fault_label(refused[row].fault));
        assert_false(libssl_step(&served->client, &served->to_client, &served->server.in));
        assert_int_equal(libssl_reason(), ALERT_REASON + refused[row].alert);
        served_close(served);
    }
}

static void ours_among_other_protocols_is_chosen(void **state)
{
    struct served *served =
        served_open(1, (struct libssl_options){ .alpn = "\x02h2\x0aholdfast/1" });
    bool client_done;
    const unsigned char *alpn;
    unsigned alpn_bytes;

    (void)state;
    assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
    SSL_get0_alpn_selected(served->client.ssl, &alpn, &alpn_bytes);
    assert_int_equal(alpn_bytes, strlen(TLS_ALPN));
    assert_memory_equal(alpn, TLS_ALPN, alpn_bytes);
    served_close(served);
}

static void fault_is_told_to_the_client(void **state)
{
    struct served *served = served_open(1, (struct libssl_options){ .alpn = LIBSSL_ALPN });
    bool client_done;
    uint8_t record[TLS_ALERT_RECORD_BYTES];
    uint8_t got[16];

    (void)state;
    assert_int_equal(served_shake(served, &client_done), TLS_HANDSHAKE_DONE);
    tls_handshake_take_keys(served->server.handshake, &served->server.keys);
    assert_int_equal(tls_record_seal_alert(&served->fixture->core, &served->server.keys,
                                           TLS_ALERT_UNEXPECTED_MESSAGE, record, sizeof record),
                     sizeof record);
    wire_put(&served->to_client, record, sizeof record);
    libssl_feed(&served->client, &served->to_client);
    ERR_clear_error();
    assert_true(SSL_read(served->client.ssl, got, sizeof got) <= 0);
    assert_int_equal(libssl_reason(), ALERT_REASON + TLS_ALERT_UNEXPECTED_MESSAGE);
    served_close(served);
}

/* ---- OpenSSL's server, our client */

struct dialled {
    struct fixture *fixture;
    struct libssl server;
    struct end client;
    struct wire to_server;
    bool server_done;
};

static struct dialled *dialled_open(uint16_t suite, struct libssl_options options)
{
    struct dialled *dialled = calloc(1, sizeof *dialled);

    assert_non_null(dialled);
    dialled->fixture = fixture_open((struct fixture_options){ .suite = suite });
    libssl_open(&dialled->server, false, &dialled->fixture->cert, options);
    return dialled;
}

static void dialled_close(struct dialled *dialled)
{
    tls_handshake_end(dialled->client.handshake);
    tls_keys_clear(&dialled->fixture->core, &dialled->client.keys);
    libssl_close(&dialled->server);
    fixture_close(dialled->fixture);
    free(dialled);
}

static enum tls_handshake_status dialled_shake(struct dialled *dialled, const uint8_t *session,
                                               size_t session_bytes)
{
    dialled->client.handshake = tls_handshake_connect(dialled->fixture->client, FIXTURE_NAME,
                                                      session, session_bytes, FIXTURE_NOW_UNIX_MS);
    assert_non_null(dialled->client.handshake);
    dialled->client.status = TLS_HANDSHAKE_WANT_INPUT;
    dialled->server_done = false;
    for (int turn = 0; turn < 10 && dialled->client.status == TLS_HANDSHAKE_WANT_INPUT; turn++) {
        end_step(&dialled->client, &dialled->to_server, SIZE_MAX, FIXTURE_NOW_UNIX_MS);
        if (!dialled->server_done) {
            dialled->server_done =
                libssl_step(&dialled->server, &dialled->to_server, &dialled->client.in);
        }
    }
    return dialled->client.status;
}

static void client_says(struct dialled *dialled, const char *text)
{
    uint8_t record[128];
    uint8_t got[64];
    const struct iovec part = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
    const size_t sealed_bytes = tls_record_seal(&dialled->fixture->core, &dialled->client.keys,
                                                &part, 1, record, sizeof record);

    wire_put(&dialled->to_server, record, sealed_bytes);
    libssl_feed(&dialled->server, &dialled->to_server);
    assert_int_equal(SSL_read(dialled->server.ssl, got, sizeof got), strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static void server_says(struct dialled *dialled, const char *text)
{
    struct tls_opened opened;

    assert_int_equal(SSL_write(dialled->server.ssl, text, (int)strlen(text)), strlen(text));
    libssl_flush(&dialled->server, &dialled->client.in);
    for (;;) {
        size_t left;
        uint8_t *front = wire_front(&dialled->client.in, &left);

        tls_handshake_open(dialled->client.handshake, &dialled->fixture->core,
                           &dialled->client.keys, front, left, FIXTURE_NOW_UNIX_MS, &opened);
        assert_true(opened.result == TLS_OPEN_DATA || opened.result == TLS_OPEN_HANDLED);
        wire_take(&dialled->client.in, opened.record_bytes);
        if (opened.result == TLS_OPEN_DATA) {
            assert_int_equal(opened.data_bytes, strlen(text));
            assert_memory_equal(front + opened.data_offset, text, strlen(text));
            return;
        }
    }
}

static void server_of_any_suite_is_talked_to_and_resumed(void **state)
{
    (void)state;
    for (size_t suite = 0; suite < 3; suite++) {
        for (int tickets = 0; tickets <= 2; tickets++) {
            struct dialled *dialled = dialled_open(
                suites[suite], (struct libssl_options){ .alpn = LIBSSL_ALPN, .tickets = tickets });
            uint8_t session[TLS_SESSION_BYTES_MAX];

            assert_int_equal(dialled_shake(dialled, NULL, 0), TLS_HANDSHAKE_DONE);
            tls_handshake_take_keys(dialled->client.handshake, &dialled->client.keys);
            assert_int_equal(dialled->client.keys.suite, suites[suite]);
            client_says(dialled, "first"); /* before any of the server's records is read */
            server_says(dialled, "welcome");
            assert_false(tls_handshake_wants_ticket(dialled->client.handshake));
            assert_int_equal(SSL_key_update(dialled->server.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
            server_says(dialled, "under a new key");
            client_says(dialled, "under a new key of ours");
            tls_record_update(&dialled->client.keys, true);
            client_says(dialled, "and another");
            server_says(dialled, "as you wish");

            const size_t session_bytes =
                tls_handshake_session(dialled->client.handshake, session, sizeof session);

            assert_int_equal(session_bytes != 0, tickets != 0);
            if (tickets != 0) {
                tls_handshake_end(dialled->client.handshake);
                libssl_again(&dialled->server, false, NULL);
                assert_int_equal(dialled_shake(dialled, session, session_bytes),
                                 TLS_HANDSHAKE_DONE);
                assert_true(tls_handshake_resumed(dialled->client.handshake));
                assert_int_equal(SSL_session_reused(dialled->server.ssl), 1);
                tls_handshake_take_keys(dialled->client.handshake, &dialled->client.keys);
                server_says(dialled, "again");
                client_says(dialled, "yes");
            }
            dialled_close(dialled);
        }
    }
}

static void server_key_update_before_any_ticket_is_survived(void **state)
{
    struct dialled *dialled =
        dialled_open(0, (struct libssl_options){ .alpn = LIBSSL_ALPN, .tickets = 0 });

    (void)state;
    assert_int_equal(dialled_shake(dialled, NULL, 0), TLS_HANDSHAKE_DONE);
    tls_handshake_take_keys(dialled->client.handshake, &dialled->client.keys);
    assert_true(tls_handshake_wants_ticket(dialled->client.handshake));
    assert_int_equal(SSL_key_update(dialled->server.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    server_says(dialled, "mbedTLS would have failed here");
    client_says(dialled, "indeed");
    dialled_close(dialled);
}

static void server_without_our_alpn_is_refused(void **state)
{
    struct dialled *dialled = dialled_open(0, (struct libssl_options){ .alpn = NULL });

    (void)state;
    assert_int_equal(dialled_shake(dialled, NULL, 0), TLS_HANDSHAKE_FAILED);
    assert_int_equal(tls_handshake_fault(dialled->client.handshake), TLS_HANDSHAKE_FAULT_NO_ALPN);
    ERR_clear_error();
    dialled_close(dialled);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(client_of_any_suite_talks_resumes_and_closes),
    cmocka_unit_test(client_that_offers_other_suites_than_its_session_s_is_taken),
    cmocka_unit_test(client_bytes_split_anywhere_shake_hands),
    cmocka_unit_test(group_that_we_lack_is_retried),
    cmocka_unit_test(client_that_does_not_fit_is_refused_with_its_alert),
    cmocka_unit_test(ours_among_other_protocols_is_chosen),
    cmocka_unit_test(fault_is_told_to_the_client),
    cmocka_unit_test(server_of_any_suite_is_talked_to_and_resumed),
    cmocka_unit_test(server_key_update_before_any_ticket_is_survived),
    cmocka_unit_test(server_without_our_alpn_is_refused),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

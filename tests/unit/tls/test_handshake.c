#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/fixture.h"

static void exchange(struct fixture *fixture, struct link *link)
{
    uint8_t sealed[256];
    uint8_t got[256];
    struct tls_opened opened;
    struct iovec part = { .iov_base = (char[]){ "from client" }, .iov_len = 11 };
    size_t sealed_bytes =
        tls_record_seal(&fixture->core, &link->client.keys, &part, 1, sealed, sizeof sealed);

    wire_put(&link->server.in, sealed, sealed_bytes);

    size_t left;
    uint8_t *front = wire_front(&link->server.in, &left);

    tls_record_open(&fixture->core, &link->server.keys, front, left, &opened);
    assert_int_equal(opened.result, TLS_OPEN_DATA);
    assert_int_equal(opened.record_bytes, sealed_bytes);
    assert_int_equal(opened.data_bytes, 11);
    assert_memory_equal(front + opened.data_offset, "from client", 11);
    wire_take(&link->server.in, opened.record_bytes);

    part = (struct iovec){ .iov_base = (char[]){ "from server" }, .iov_len = 11 };
    sealed_bytes =
        tls_record_seal(&fixture->core, &link->server.keys, &part, 1, sealed, sizeof sealed);
    wire_put(&link->client.in, sealed, sealed_bytes);
    assert_int_equal(link_client_read(fixture, link, &opened, got), TLS_OPEN_DATA);
    assert_int_equal(opened.data_bytes, 11);
    assert_memory_equal(got, "from server", 11);
}

static void full_handshake_gives_keys_that_fit(void **state)
{
    static const uint16_t suites[] = { AEAD_AES_128_GCM_SHA256, AEAD_AES_256_GCM_SHA384,
                                       AEAD_CHACHA20_POLY1305_SHA256 };

    (void)state;
    for (size_t suite = 0; suite < 3; suite++) {
        for (unsigned tickets = 0; tickets <= 2; tickets++) {
            struct fixture *fixture = fixture_open(
                (struct fixture_options){ .tickets = tickets, .suite = suites[suite] });
            struct link *link = link_open(fixture, NULL, 0, SIZE_MAX);

            assert_int_equal(link->server.keys.suite, suites[suite]);
            assert_int_equal(link->server.keys.tx_number, tickets);
            assert_int_equal(link->server.keys.rx_number, 0);
            assert_int_equal(link->client.keys.tx_number, 0);
            assert_false(link->client.resumed);
            assert_false(link->server.resumed);
            exchange(fixture, link);
            assert_int_equal(link->client.keys.rx_number, tickets + 1);
            link_close(fixture, link);
            fixture_close(fixture);
        }
    }
}

static void session_resumes_on_both_sides(void **state)
{
    uint8_t session[TLS_SESSION_BYTES_MAX];

    (void)state;
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 2 });

    struct link *link = link_open(fixture, NULL, 0, SIZE_MAX);
    size_t session_bytes = link_session(fixture, link, session, sizeof session);

    assert_int_not_equal(session_bytes, 0);
    assert_false(tls_handshake_wants_ticket(link->client.handshake));
    link_close(fixture, link);

    for (int round = 0; round < 3; round++) { /* each with the ticket of the one before */
        link = link_open(fixture, session, session_bytes, SIZE_MAX);
        assert_true(link->client.resumed);
        assert_true(link->server.resumed);
        assert_int_equal(link->server.keys.tx_number, 1);
        session_bytes = link_session(fixture, link, session, sizeof session);
        assert_int_not_equal(session_bytes, 0);
        exchange(fixture, link);
        link_close(fixture, link);
    }
    fixture_close(fixture);
}

/* Both ends say the same of a second handshake, after a full one. */
static void resume_by(bool server_psk_ke, bool client_psk_ke, bool resumed, bool lacks_exchange)
{
    uint8_t session[TLS_SESSION_BYTES_MAX];
    struct fixture *fixture = fixture_open((struct fixture_options){
        .tickets = 1, .server_psk_ke = server_psk_ke, .client_psk_ke = client_psk_ke });
    struct link *link = link_open(fixture, NULL, 0, SIZE_MAX);
    const size_t session_bytes = link_session(fixture, link, session, sizeof session);

    assert_false(link->server.lacks_exchange);
    link_close(fixture, link);
    link = link_open(fixture, session, session_bytes, SIZE_MAX);
    exchange(fixture, link);
    assert_int_equal(link->server.resumed, resumed);
    assert_int_equal(link->client.resumed, resumed);
    assert_int_equal(link->server.lacks_exchange, lacks_exchange);
    link_close(fixture, link);
    fixture_close(fixture);
}

static void psk_ke_of_both_ends_resumes_without_an_exchange(void **state)
{
    (void)state;
    resume_by(true, true, true, true);
}

static void psk_ke_of_the_server_alone_changes_nothing(void **state)
{
    (void)state;
    resume_by(true, false, true, false);
}

static void psk_ke_of_the_client_alone_means_a_full_handshake(void **state)
{
    (void)state;
    resume_by(false, true, false, false);
}

static void handshake_split_anywhere_succeeds(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    uint8_t session[TLS_SESSION_BYTES_MAX];

    (void)state;
    /* Cut every `chunk` bytes, so that each place is the first cut once. */
    for (size_t chunk = 1; chunk < 700; chunk += chunk < 300 ? 1 : 7) {
        struct link *link = link_open(fixture, NULL, 0, chunk);

        assert_false(link->server.resumed);
        if (chunk % 16 == 1) {
            const size_t session_bytes = link_session(fixture, link, session, sizeof session);
            struct link *again = link_open(fixture, session, session_bytes, chunk);

            assert_true(again->server.resumed);
            exchange(fixture, again);
            link_close(fixture, again);
        }
        exchange(fixture, link);
        link_close(fixture, link);
    }
    fixture_close(fixture);
}

static void bytes_behind_the_client_finished_stay_with_the_caller(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    struct link *link = calloc(1, sizeof *link);
    const struct iovec part = { .iov_base = (char[]){ "early bird" }, .iov_len = 10 };
    uint8_t sealed[64];
    size_t left;

    (void)state;
    link->client.handshake = tls_handshake_connect(fixture->client, FIXTURE_NAME, NULL, 0, 0);
    link->server.handshake = tls_handshake_accept(fixture->server);
    end_step(&link->client, &link->server.in, SIZE_MAX, fixture->now_unix_ms);
    end_step(&link->server, &link->client.in, SIZE_MAX, fixture->now_unix_ms);
    assert_int_equal(end_step(&link->client, &link->server.in, SIZE_MAX, fixture->now_unix_ms),
                     TLS_HANDSHAKE_DONE);
    tls_handshake_take_keys(link->client.handshake, &link->client.keys);

    const size_t sealed_bytes =
        tls_record_seal(&fixture->core, &link->client.keys, &part, 1, sealed, sizeof sealed);

    wire_put(&link->server.in, sealed, sealed_bytes);

    uint8_t out[TLS_HANDSHAKE_OUT_BYTES];
    struct tls_handshake_io io = { .in = wire_front(&link->server.in, &left),
                                   .out = out,
                                   .out_capacity = sizeof out,
                                   .now_unix_ms = fixture->now_unix_ms };

    io.in_bytes = left;
    assert_int_equal(tls_handshake_step(link->server.handshake, &io), TLS_HANDSHAKE_DONE);
    assert_int_equal(io.in_bytes - io.in_used, sealed_bytes);
    wire_put(&link->client.in, out, io.out_bytes);
    wire_take(&link->server.in, io.in_used);
    tls_handshake_take_keys(link->server.handshake, &link->server.keys);
    tls_handshake_end(link->server.handshake);

    struct tls_opened opened;
    uint8_t *front = wire_front(&link->server.in, &left);

    tls_record_open(&fixture->core, &link->server.keys, front, left, &opened);
    assert_int_equal(opened.result, TLS_OPEN_DATA);
    assert_memory_equal(front + opened.data_offset, "early bird", 10);
    wire_take(&link->server.in, left);
    exchange(fixture, link);
    link_close(fixture, link);
    fixture_close(fixture);
}

static void flight_fits_what_the_header_promises(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    struct end *client = calloc(1, sizeof *client);
    struct wire *to_server = calloc(1, sizeof *to_server);
    struct tls_handshake *server = tls_handshake_accept(fixture->server);
    uint8_t out[TLS_HANDSHAKE_OUT_BYTES];

    (void)state;
    client->handshake =
        tls_handshake_connect(fixture->client, FIXTURE_NAME, NULL, 0, fixture->now_unix_ms);
    end_step(client, to_server, SIZE_MAX, fixture->now_unix_ms);

    struct tls_handshake_io io = { .in = to_server->bytes,
                                   .in_bytes = to_server->filled,
                                   .out = out,
                                   .out_capacity = sizeof out,
                                   .now_unix_ms = fixture->now_unix_ms };

    assert_int_equal(tls_handshake_step(server, &io), TLS_HANDSHAKE_WANT_INPUT);
    assert_true(io.out_bytes > 500);
    assert_int_equal(io.in_used, io.in_bytes);
    tls_handshake_end(server);
    tls_handshake_end(client->handshake);
    free(client);
    free(to_server);
    fixture_close(fixture);
}

/* What a server makes of bytes that are no handshake. */
static void refuse(struct fixture *fixture, const uint8_t *bytes, size_t byte_count,
                   enum tls_handshake_fault fault, uint8_t alert)
{
    struct tls_handshake *server = tls_handshake_accept(fixture->server);
    uint8_t out[512];
    struct tls_handshake_io io = { .in = bytes,
                                   .in_bytes = byte_count,
                                   .out = out,
                                   .out_capacity = sizeof out,
                                   .now_unix_ms = fixture->now_unix_ms };

    assert_int_equal(tls_handshake_step(server, &io), TLS_HANDSHAKE_FAILED);
    assert_string_equal(tls_handshake_fault_label(tls_handshake_fault(server)),
                        tls_handshake_fault_label(fault));
    assert_true(strlen(tls_handshake_text(server)) > 10);
    if (alert != TLS_ALERT_NONE) {
        assert_int_equal(io.out_bytes, 7); /* a plaintext alert */
        assert_int_equal(out[0], 21);
        assert_int_equal(out[5], 2);
        assert_int_equal(out[6], alert);
    } else {
        assert_int_equal(io.out_bytes, 0);
    }
    tls_handshake_end(server);
}

static void other_protocols_are_refused(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    static const uint8_t alert[] = { 21, 3, 3, 0, 2, 2, 80 };
    static const uint8_t data[] = { 23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0,
                                    0,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0 };
    static const uint8_t finished[] = { 22, 3, 3, 0, 4, 20, 0, 0, 0 };

    (void)state;
    refuse(fixture, (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18, TLS_HANDSHAKE_FAULT_MALFORMED,
           TLS_ALERT_UNEXPECTED_MESSAGE);
    refuse(fixture, alert, sizeof alert, TLS_HANDSHAKE_FAULT_PEER_ALERT, TLS_ALERT_NONE);
    refuse(fixture, data, sizeof data, TLS_HANDSHAKE_FAULT_MALFORMED, TLS_ALERT_UNEXPECTED_MESSAGE);
    refuse(fixture, finished, sizeof finished, TLS_HANDSHAKE_FAULT_MALFORMED,
           TLS_ALERT_UNEXPECTED_MESSAGE);
    fixture_close(fixture);
}

static void flood_within_a_handshake_is_cut_off(void **state)
{
    static const uint8_t change_cipher_spec[] = { 20, 3, 3, 0, 1, 1 };
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    struct link *link = calloc(1, sizeof *link);
    size_t sent_bytes = 0;

    (void)state;
    link->client.handshake =
        tls_handshake_connect(fixture->client, FIXTURE_NAME, NULL, 0, fixture->now_unix_ms);
    link->server.handshake = tls_handshake_accept(fixture->server);
    end_step(&link->client, &link->server.in, SIZE_MAX, fixture->now_unix_ms);
    while (end_step(&link->server, &link->client.in, SIZE_MAX, fixture->now_unix_ms) !=
           TLS_HANDSHAKE_FAILED) {
        wire_put(&link->server.in, change_cipher_spec, sizeof change_cipher_spec);
        sent_bytes += sizeof change_cipher_spec;
        assert_true(sent_bytes <= TLS_HANDSHAKE_IN_BYTES_MAX);
    }
    print_message("%zu bytes: %s\n", sent_bytes, tls_handshake_text(link->server.handshake));
    tls_handshake_end(link->server.handshake);
    tls_handshake_end(link->client.handshake);
    free(link);
    fixture_close(fixture);
}

/* A client that doesn't like the server's certificate says so, and both know why. */
static void refuse_certificate(struct fixture *fixture, struct tls_client *client, const char *name,
                               const char *why, const char *alert)
{
    struct link *link = calloc(1, sizeof *link);

    link->client.handshake = tls_handshake_connect(client, name, NULL, 0, fixture->now_unix_ms);
    link->server.handshake = tls_handshake_accept(fixture->server);
    end_step(&link->client, &link->server.in, SIZE_MAX, fixture->now_unix_ms);
    end_step(&link->server, &link->client.in, SIZE_MAX, fixture->now_unix_ms);
    assert_int_equal(end_step(&link->client, &link->server.in, SIZE_MAX, fixture->now_unix_ms),
                     TLS_HANDSHAKE_FAILED);
    assert_int_equal(tls_handshake_fault(link->client.handshake), TLS_HANDSHAKE_FAULT_CERTIFICATE);
    if (strstr(tls_handshake_text(link->client.handshake), why) == NULL) {
        fail_msg("%s", tls_handshake_text(link->client.handshake));
    }
    assert_int_equal(end_step(&link->server, &link->client.in, SIZE_MAX, fixture->now_unix_ms),
                     TLS_HANDSHAKE_FAILED);
    assert_int_equal(tls_handshake_fault(link->server.handshake), TLS_HANDSHAKE_FAULT_PEER_ALERT);
    assert_string_equal(tls_handshake_text(link->server.handshake), alert);
    tls_handshake_end(link->server.handshake);
    tls_handshake_end(link->client.handshake);
    free(link);
}

static void untrusted_certificate_is_refused(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    static const char *const names[] = { FIXTURE_NAME };
    const struct devcert_options options = { .ca_name = "Test authority", /* the same name */
                                             .names = names,
                                             .name_count = 1,
                                             .now_unix_ms = FIXTURE_NOW_UNIX_MS,
                                             .days = 3650 };
    struct devcert other;
    struct hf_error error = { 0 };

    (void)state;
    assert_int_equal(devcert_make(&other, &options, &error), 0);

    struct tls_client *client =
        tls_client_open(&(struct tls_client_options){ .ca = &other.ca_certificate }, &error);

    assert_non_null(client);
    refuse_certificate(fixture, client, FIXTURE_NAME, "not correctly signed",
                       "alert from the peer: number 48");
    tls_client_close(client);

    /* A load generator may look away. */
    client = tls_client_open(&(struct tls_client_options){ .insecure = true }, &error);
    assert_non_null(client);
    tls_client_close(fixture->client);
    fixture->client = client;
    link_close(fixture, link_open(fixture, NULL, 0, SIZE_MAX));
    devcert_free(&other);
    fixture_close(fixture);
}

static void certificate_of_another_name_is_refused(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });

    (void)state;
    refuse_certificate(fixture, fixture->client, "elsewhere.example", "Common Name",
                       "alert from the peer: number 42");
    refuse_certificate(fixture, fixture->client, "127.0.0.2", "Common Name",
                       "alert from the peer: number 42");
    fixture_close(fixture);
}

static void certificate_of_an_address_is_accepted(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    static const char *const names[] = { "127.0.0.1", "::1", "other.example" };

    (void)state;
    for (size_t name = 0; name < 3; name++) {
        struct end *client = calloc(1, sizeof *client);
        struct end *server = calloc(1, sizeof *server);

        client->handshake =
            tls_handshake_connect(fixture->client, names[name], NULL, 0, fixture->now_unix_ms);
        server->handshake = tls_handshake_accept(fixture->server);
        end_step(client, &server->in, SIZE_MAX, fixture->now_unix_ms);
        end_step(server, &client->in, SIZE_MAX, fixture->now_unix_ms);
        assert_int_equal(end_step(client, &server->in, SIZE_MAX, fixture->now_unix_ms),
                         TLS_HANDSHAKE_DONE);
        assert_string_equal(tls_handshake_server_name(server->handshake), names[name]);
        tls_handshake_end(server->handshake);
        tls_handshake_end(client->handshake);
        free(client);
        free(server);
    }
    fixture_close(fixture);
}

static void name_too_long_for_sni_is_refused(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    char name[258];

    (void)state;
    memset(name, 'a', sizeof name);
    name[256] = 0;
    assert_null(tls_handshake_connect(fixture->client, name, NULL, 0, fixture->now_unix_ms));
    fixture_close(fixture);
}

static void key_of_another_certificate_is_refused(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    struct hf_error error = { 0 };
    const struct tls_server_options options = { .certificate = &fixture->cert.certificate,
                                                .key = &fixture->cert.ca_key };

    (void)state;
    assert_null(tls_server_open(&options, &error));
    assert_non_null(strstr(error.text, "doesn't fit"));
    fixture_close(fixture);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(full_handshake_gives_keys_that_fit),
    cmocka_unit_test(session_resumes_on_both_sides),
    cmocka_unit_test(psk_ke_of_both_ends_resumes_without_an_exchange),
    cmocka_unit_test(psk_ke_of_the_server_alone_changes_nothing),
    cmocka_unit_test(psk_ke_of_the_client_alone_means_a_full_handshake),
    cmocka_unit_test(handshake_split_anywhere_succeeds),
    cmocka_unit_test(bytes_behind_the_client_finished_stay_with_the_caller),
    cmocka_unit_test(flight_fits_what_the_header_promises),
    cmocka_unit_test(other_protocols_are_refused),
    cmocka_unit_test(flood_within_a_handshake_is_cut_off),
    cmocka_unit_test(untrusted_certificate_is_refused),
    cmocka_unit_test(certificate_of_another_name_is_refused),
    cmocka_unit_test(certificate_of_an_address_is_accepted),
    cmocka_unit_test(name_too_long_for_sni_is_refused),
    cmocka_unit_test(key_of_another_certificate_is_refused),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

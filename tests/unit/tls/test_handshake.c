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
            struct fixture *fixture =
                fixture_open((struct fixture_options){ tickets, suites[suite] });
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(full_handshake_gives_keys_that_fit),
    cmocka_unit_test(session_resumes_on_both_sides),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

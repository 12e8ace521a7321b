/*
 * Resumption over time: restarts, reboots, clocks and keys that changed. mbedTLS's own clock is
 * wrapped (see meson.build), so that a reboot can be played.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"
#include "tests/unit/tls/fixture.h"

#define HOUR_MS UINT64_C(3600000)

static int64_t boot_clock_ms = 1000000;

int64_t played_ms_time(void) __asm__("__wrap_mbedtls_ms_time");

int64_t played_ms_time(void)
{
    return boot_clock_ms;
}

struct resumption {
    struct fixture *fixture;
    uint8_t session[TLS_SESSION_BYTES_MAX];
    size_t session_bytes;
};

static struct resumption *resumption_open_with(struct fixture_options options)
{
    struct resumption *resumption = calloc(1, sizeof *resumption);

    assert_non_null(resumption);
    boot_clock_ms = 1000000;
    resumption->fixture = fixture_open(options);

    struct link *link = link_open(resumption->fixture, NULL, 0, SIZE_MAX);

    resumption->session_bytes =
        link_session(resumption->fixture, link, resumption->session, sizeof resumption->session);
    assert_int_not_equal(resumption->session_bytes, 0);
    link_close(resumption->fixture, link);
    return resumption;
}

static struct resumption *resumption_open(void)
{
    return resumption_open_with((struct fixture_options){ .tickets = 1 });
}

static void resumption_close(struct resumption *resumption)
{
    fixture_close(resumption->fixture);
    free(resumption);
}

/* Time passes for everybody, and for mbedTLS. */
static void pass(struct resumption *resumption, uint64_t span_ms)
{
    resumption->fixture->now_unix_ms += span_ms;
    boot_clock_ms += (int64_t)span_ms;
}

static bool resumes(struct resumption *resumption)
{
    struct link *link =
        link_open(resumption->fixture, resumption->session, resumption->session_bytes, SIZE_MAX);
    const bool resumed = link->server.resumed;

    assert_int_equal(link->client.resumed, resumed);
    link_close(resumption->fixture, link);
    return resumed;
}

static void ticket_is_good_at_once_and_later(void **state)
{
    struct resumption *resumption = resumption_open();

    (void)state;
    assert_true(resumes(resumption));
    assert_true(resumes(resumption)); /* a client may have to use it twice */
    pass(resumption, HOUR_MS);
    assert_true(resumes(resumption));
    pass(resumption, 22 * HOUR_MS);
    assert_true(resumes(resumption));
    pass(resumption, 2 * HOUR_MS);
    assert_false(resumes(resumption)); /* and a full handshake instead */
    resumption_close(resumption);
}

static void ticket_is_good_after_a_restart(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    pass(resumption, 1000);
    fixture_restart_server(fixture, 1, &fixture->ring);
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

static void ticket_is_good_after_a_reboot(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    fixture->now_unix_ms += HOUR_MS;
    boot_clock_ms = 5; /* both ends' machine has just started: younger than the ticket */
    fixture_restart_server(fixture, 1, &fixture->ring);
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

static void ticket_is_good_on_another_server_with_the_ring(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    boot_clock_ms = 77000000; /* another machine's */
    fixture_restart_server(fixture, 2, &fixture->ring);
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

static void ticket_of_a_rotated_key_is_good(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    for (int hour = 0; hour < 20; hour++) {
        pass(resumption, HOUR_MS);
        assert_int_equal(tls_tickets_rotate(&fixture->ring, fixture->now_unix_ms),
                         TLS_TICKETS_CHANGED);
    }
    tls_server_set_tickets(fixture->server, &fixture->ring);
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

static void ticket_of_an_unknown_key_means_a_full_handshake(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    tls_tickets_clear(&fixture->ring);
    tls_tickets_init(&fixture->ring, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    assert_int_equal(tls_tickets_rotate(&fixture->ring, fixture->now_unix_ms), TLS_TICKETS_CHANGED);
    tls_server_set_tickets(fixture->server, &fixture->ring);
    assert_false(resumes(resumption));
    fixture_restart_server(fixture, 1, NULL); /* without any ring: no ticket is sent either */

    struct link *link = link_open(fixture, resumption->session, resumption->session_bytes, 7);

    assert_false(link->server.resumed);
    assert_int_equal(link->server.keys.tx_number, 0);
    link_close(fixture, link);
    resumption_close(resumption);
}

static void ring_past_its_time_sends_no_ticket(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    pass(resumption, 10 * HOUR_MS); /* nobody rotated */

    struct link *link = link_open(fixture, NULL, 0, SIZE_MAX);

    assert_int_equal(link->server.keys.tx_number, 0);
    link_close(fixture, link);
    assert_true(resumes(resumption)); /* old tickets are still good */
    resumption_close(resumption);
}

static void sum(struct resumption *resumption)
{
    store_be32(resumption->session + 4,
               crc32c(0, resumption->session + 8, resumption->session_bytes - 8));
}

static void garbled_ticket_means_a_full_handshake(void **state)
{
    struct resumption *resumption = resumption_open();
    const struct fixture *fixture = resumption->fixture;
    size_t at = 0;

    (void)state;
    /* Garbled by the peer, not on the disk: the session's own sum must fit. */
    while (memcmp(resumption->session + at, fixture->ring.keys[0].name, TLS_TICKET_NAME_BYTES) !=
           0) {
        at++;
        assert_true(at + TLS_TICKET_NAME_BYTES < resumption->session_bytes);
    }
    for (size_t byte = 0; byte < TLS_TICKET_OVERHEAD; byte++) {
        resumption->session[at + byte] ^= 1;
        sum(resumption);
        assert_false(resumes(resumption));
        resumption->session[at + byte] ^= 1;
    }
    sum(resumption);
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

static void clock_that_moved_at_one_end_means_a_full_handshake(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    fixture->client_ahead_ms = HOUR_MS; /* the client says an hour, the ticket that it is new */
    assert_false(resumes(resumption));
    fixture->client_ahead_ms = 3000; /* mbedTLS forgives six seconds */
    assert_true(resumes(resumption));
    fixture->client_ahead_ms = 0;
    fixture->now_unix_ms -= 2 * HOUR_MS;
    assert_false(resumes(resumption)); /* the client doesn't even offer it */
    fixture->now_unix_ms += 2 * HOUR_MS;
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

/* The same for a client that resumes by psk_ke alone: it must not be refused for it. */
static void clock_that_moved_under_psk_ke_means_a_full_handshake(void **state)
{
    static const int64_t ahead_ms[] = { 3600000, -3600000, 5999, 6000, 6001, 5900, 5899, -6000 };
    struct resumption *resumption = resumption_open_with(
        (struct fixture_options){ .tickets = 1, .server_psk_ke = true, .client_psk_ke = true });
    struct fixture *fixture = resumption->fixture;

    (void)state;
    pass(resumption, 2 * HOUR_MS);
    for (size_t row = 0; row < sizeof ahead_ms / sizeof ahead_ms[0]; row++) {
        fixture->client_ahead_ms = (uint64_t)ahead_ms[row];
        assert_int_equal(resumes(resumption), ahead_ms[row] == 5899);
    }
    fixture->client_ahead_ms = 0;
    assert_true(resumes(resumption));
    resumption_close(resumption);
}

static void session_that_does_not_fit_is_ignored(void **state)
{
    struct resumption *resumption = resumption_open();
    struct fixture *fixture = resumption->fixture;

    (void)state;
    for (size_t cut = 0; cut < resumption->session_bytes; cut++) {
        struct tls_handshake *handshake = tls_handshake_connect(
            fixture->client, FIXTURE_NAME, resumption->session, cut, fixture->now_unix_ms);

        assert_non_null(handshake);
        tls_handshake_end(handshake);
    }
    resumption->session_bytes -= 1;
    assert_false(resumes(resumption));
    resumption->session_bytes += 1;
    for (size_t byte = 0; byte < resumption->session_bytes; byte++) {
        resumption->session[byte] ^= 0x10;
        if (byte < 20 || byte % 16 == 0) {
            assert_false(resumes(resumption));
        }
        resumption->session[byte] ^= 0x10;
    }

    /* For another server's name it isn't offered. */
    struct tls_handshake *elsewhere =
        tls_handshake_connect(fixture->client, "other.example", resumption->session,
                              resumption->session_bytes, fixture->now_unix_ms);

    assert_non_null(elsewhere);
    tls_handshake_end(elsewhere);
    assert_true(resumes(resumption));
    memset(resumption->session + 16, 0xff, sizeof resumption->session - 16);
    sum(resumption); /* none of mbedTLS's */
    assert_false(resumes(resumption));
    resumption_close(resumption);
}

static void session_that_finds_no_room_is_not_given(void **state)
{
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });
    struct link *link = link_open(fixture, NULL, 0, SIZE_MAX);
    uint8_t session[TLS_SESSION_BYTES_MAX];

    (void)state;
    assert_int_equal(tls_handshake_session(link->client.handshake, session, sizeof session), 0);

    const size_t session_bytes = link_session(fixture, link, session, sizeof session);

    assert_int_not_equal(session_bytes, 0);
    assert_int_equal(tls_handshake_session(link->client.handshake, session, session_bytes - 1), 0);
    assert_int_equal(tls_handshake_session(link->client.handshake, session, session_bytes),
                     session_bytes);
    link_close(fixture, link);
    fixture_close(fixture);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ticket_is_good_at_once_and_later),
    cmocka_unit_test(ticket_is_good_after_a_restart),
    cmocka_unit_test(ticket_is_good_after_a_reboot),
    cmocka_unit_test(ticket_is_good_on_another_server_with_the_ring),
    cmocka_unit_test(ticket_of_a_rotated_key_is_good),
    cmocka_unit_test(ticket_of_an_unknown_key_means_a_full_handshake),
    cmocka_unit_test(ring_past_its_time_sends_no_ticket),
    cmocka_unit_test(garbled_ticket_means_a_full_handshake),
    cmocka_unit_test(clock_that_moved_at_one_end_means_a_full_handshake),
    cmocka_unit_test(clock_that_moved_under_psk_ke_means_a_full_handshake),
    cmocka_unit_test(session_that_does_not_fit_is_ignored),
    cmocka_unit_test(session_that_finds_no_room_is_not_given),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

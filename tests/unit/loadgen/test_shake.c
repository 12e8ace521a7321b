/* Handshakes of a swarm with a server in memory: places, tickets that anybody may use, HELLO. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/tls/devcert.h"
#include "core/tls/tickets.h"
#include "loadgen/shake.h"

#define NOW UINT64_C(1764000000000)

struct world {
    struct devcert cert;
    struct tls_ticket_ring ring;
    struct tls_server *server;
    struct tls_core core;
    struct shakes shakes;
};

static struct world world;

static int open_world(void **state)
{
    static const char *const names[] = { "localhost" };
    const struct devcert_options cert_options = {
        .ca_name = "Test CA", .names = names, .name_count = 1, .now_unix_ms = NOW, .days = 3650
    };
    struct hf_error error;

    (void)state;
    if (tls_global_init(&error) != 0 || devcert_make(&world.cert, &cert_options, &error) != 0) {
        return -1;
    }

    const struct tls_server_options server_options = { .certificate = &world.cert.certificate,
                                                       .key = &world.cert.key,
                                                       .tickets_per_handshake = 1 };
    const struct shakes_options options = { .places = 2,
                                            .ca = &world.cert.ca_certificate,
                                            .server_name = "localhost" };

    tls_tickets_init(&world.ring, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    if (tls_tickets_rotate(&world.ring, NOW) == TLS_TICKETS_FAILED) {
        return -1;
    }
    world.server = tls_server_open(&server_options, &error);
    if (world.server == NULL || tls_core_open(&world.core, 8, &error) != 0 ||
        !shakes_open(&world.shakes, &options, &error)) {
        return -1;
    }
    tls_server_set_tickets(world.server, &world.ring);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    shakes_close(&world.shakes);
    tls_server_close(world.server);
    tls_core_close(&world.core);
    devcert_free(&world.cert);
    tls_tickets_clear(&world.ring);
    return 0;
}

/* The server's part; what it says is received by the client, `chunk` bytes at a time. */
static enum tls_handshake_status serve(struct tls_handshake *server, struct shake *shake,
                                       size_t chunk)
{
    uint8_t out[TLS_HANDSHAKE_OUT_BYTES];
    struct tls_handshake_io io = {
        .in = shake->out,
        .in_bytes = shake->out_bytes,
        .out = out,
        .out_capacity = sizeof out,
        .now_unix_ms = NOW,
    };
    const enum tls_handshake_status status = tls_handshake_step(server, &io);

    memmove(shake->out, shake->out + io.in_used, shake->out_bytes - io.in_used);
    shake->out_bytes -= (uint32_t)io.in_used;
    for (size_t at = 0; at < io.out_bytes; at += chunk) {
        const size_t bytes = io.out_bytes - at < chunk ? io.out_bytes - at : chunk;
        assert_true(shake_received(shake, out + at, bytes));
    }
    return status;
}

/* One handshake and HELLO; the server says "data" behind its ticket. Returns whether it resumed. */
static bool shake_hands(bool resume, uint32_t client)
{
    const uint16_t place = shakes_take(&world.shakes, client);
    struct shake *shake = shakes_get(&world.shakes, place);
    struct tls_handshake *server = tls_handshake_accept(world.server);
    struct tls_keys keys = { 0 };
    struct tls_keys server_keys = { 0 };
    struct tls_opened opened;
    enum tls_handshake_status status;
    uint8_t data[256];

    assert_int_equal(shake->client, client);
    assert_true(shake_begin(&world.shakes, shake, resume, NOW));
    while ((status = shake_step(&world.shakes, shake, &keys, NOW)) == TLS_HANDSHAKE_WANT_INPUT) {
        assert_int_not_equal(serve(server, shake, 300), TLS_HANDSHAKE_FAILED);
    }
    assert_int_equal(status, TLS_HANDSHAKE_DONE);
    assert_true(shake->keyed);
    assert_true(shake_seal_hello(shake, &world.core, &keys, (const uint8_t *)"hello", 5));
    assert_int_equal(serve(server, shake, 300), TLS_HANDSHAKE_DONE);
    tls_handshake_take_keys(server, &server_keys);
    assert_int_equal(tls_handshake_resumed(server), shake->resumed);
    tls_handshake_end(server);

    /* HELLO came behind our Finished, in the same bytes. */
    tls_record_open(&world.core, &server_keys, shake->out, shake->out_bytes, &opened);
    assert_int_equal(opened.result, TLS_OPEN_DATA);
    assert_memory_equal(shake->out + opened.data_offset, "hello", 5);

    const struct iovec part = { (void *)(uintptr_t) "data", 4 };
    const size_t sealed = tls_record_seal(&world.core, &server_keys, &part, 1, data, sizeof data);

    assert_true(shake_received(shake, data, sealed));
    while (tls_handshake_wants_ticket(shake->tls)) {
        tls_handshake_open(shake->tls, &world.core, &keys, shake->in, shake->in_bytes, NOW,
                           &opened);
        assert_true(opened.result == TLS_OPEN_HANDLED || opened.result == TLS_OPEN_DATA);
        shake_consume(shake, opened.record_bytes);
    }

    const bool resumed = shake->resumed;

    shake_finish(&world.shakes, shake);
    if (shake->in_bytes > 0) { /* the ticket came first: what is behind it is the link's */
        tls_record_open(&world.core, &keys, shake->in, shake->in_bytes, &opened);
        assert_int_equal(opened.result, TLS_OPEN_DATA);
        assert_memory_equal(shake->in + opened.data_offset, "data", 4);
    }
    shakes_give(&world.shakes, place);
    tls_keys_clear(&world.core, &keys);
    tls_keys_clear(&world.core, &server_keys);
    return resumed;
}

static void without_a_ticket_the_handshake_is_full(void **state)
{
    (void)state;
    assert_int_equal(world.shakes.ticket_count, 0);
    assert_false(shake_hands(true, 1));
    assert_int_equal(world.shakes.ticket_count, 1);
}

static void ticket_of_one_client_serves_another_and_more_than_once(void **state)
{
    (void)state;
    assert_false(shake_hands(false, 1));
    for (uint32_t client = 2; client < 8; client++) {
        assert_true(shake_hands(true, client));
    }
}

static void full_handshake_may_be_asked_for_though_there_are_tickets(void **state)
{
    (void)state;
    assert_false(shake_hands(false, 1));
    assert_false(shake_hands(false, 2));
}

static void newest_tickets_take_the_place_of_the_oldest(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        (void)shake_hands(true, i);
    }
    world.shakes.ticket_count = SHAKE_TICKETS_MAX; /* as if all were there */
    for (uint32_t i = 0; i < SHAKE_TICKETS_MAX; i++) {
        world.shakes.tickets[i] = world.shakes.tickets[0];
    }

    const uint32_t put = world.shakes.ticket_put_;

    assert_true(shake_hands(true, 1));
    assert_int_equal(world.shakes.ticket_count, SHAKE_TICKETS_MAX);
    assert_int_equal(world.shakes.ticket_put_, (put + 1) % SHAKE_TICKETS_MAX);
}

static void places_are_bounded_and_come_back(void **state)
{
    (void)state;
    const uint16_t first = shakes_take(&world.shakes, 1);
    const uint16_t second = shakes_take(&world.shakes, 2);

    assert_int_not_equal(first, second);
    assert_int_equal(shakes_take(&world.shakes, 3), UINT16_MAX);
    shakes_give(&world.shakes, first);
    assert_int_equal(shakes_take(&world.shakes, 3), first);
    shakes_give(&world.shakes, first);
    shakes_give(&world.shakes, second);
}

static void wrong_name_fails_and_is_told(void **state)
{
    const uint16_t place = shakes_take(&world.shakes, 1);
    struct shake *shake = shakes_get(&world.shakes, place);
    struct tls_handshake *server = tls_handshake_accept(world.server);
    struct tls_keys keys = { 0 };
    enum tls_handshake_status status;

    (void)state;
    world.shakes.server_name = "elsewhere.example";
    assert_true(shake_begin(&world.shakes, shake, false, NOW));
    while ((status = shake_step(&world.shakes, shake, &keys, NOW)) == TLS_HANDSHAKE_WANT_INPUT) {
        (void)serve(server, shake, 4096);
    }
    world.shakes.server_name = "localhost";
    assert_int_equal(status, TLS_HANDSHAKE_FAILED);
    assert_string_not_equal(world.shakes.fault_text, "");
    tls_handshake_end(server);
    shakes_give(&world.shakes, place);
}

static void more_bytes_than_any_handshake_has_are_refused(void **state)
{
    static uint8_t bytes[SHAKE_IN_BYTES];
    const uint16_t place = shakes_take(&world.shakes, 1);
    struct shake *shake = shakes_get(&world.shakes, place);

    (void)state;
    assert_true(shake_received(shake, bytes, sizeof bytes));
    assert_false(shake_received(shake, bytes, 1));
    shakes_give(&world.shakes, place);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(without_a_ticket_the_handshake_is_full),
        TEST(ticket_of_one_client_serves_another_and_more_than_once),
        TEST(full_handshake_may_be_asked_for_though_there_are_tickets),
        TEST(newest_tickets_take_the_place_of_the_oldest),
        TEST(places_are_bounded_and_come_back),
        TEST(wrong_name_fails_and_is_told),
        TEST(more_bytes_than_any_handshake_has_are_refused),
    };

    return cmocka_run_group_tests_name("shake", tests, NULL, NULL);
}

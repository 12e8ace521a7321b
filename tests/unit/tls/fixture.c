#include "tests/unit/tls/fixture.h"

#include <stdlib.h>
#include <string.h>

static struct devcert fixture_cert;

static void fixture_cert_free(void)
{
    devcert_free(&fixture_cert);
}

static const struct devcert *fixture_cert_get(void)
{
    static const char *const names[] = { FIXTURE_NAME, "other.example" };
    static const struct devcert_address addresses[] = {
        { .bytes = { 127, 0, 0, 1 }, .byte_count = 4 },
        { .bytes = { [15] = 1 }, .byte_count = 16 },
    };
    const struct devcert_options options = { .ca_name = "Test authority",
                                             .names = names,
                                             .name_count = 2,
                                             .addresses = addresses,
                                             .address_count = 2,
                                             .now_unix_ms = FIXTURE_NOW_UNIX_MS,
                                             .days = 3650 };
    struct hf_error error = { 0 };

    if (fixture_cert.key.bytes == NULL) {
        assert_int_equal(tls_global_init(&error), 0);
        assert_int_equal(devcert_make(&fixture_cert, &options, &error), 0);
        atexit(fixture_cert_free);
    }
    return &fixture_cert;
}

void fixture_restart_server(struct fixture *fixture, unsigned tickets,
                            const struct tls_ticket_ring *ring)
{
    const struct devcert *cert = fixture_cert_get();
    const struct tls_server_options options = { .certificate = &cert->certificate,
                                                .key = &cert->key,
                                                .tickets_per_handshake = tickets,
                                                .psk_ke = fixture->server_psk_ke };
    struct hf_error error = { 0 };

    tls_server_close(fixture->server);
    fixture->server = tls_server_open(&options, &error);
    assert_non_null(fixture->server);
    if (ring != NULL) {
        tls_server_set_tickets(fixture->server, ring);
    }
}

struct fixture *fixture_open(struct fixture_options options)
{
    const struct devcert *cert = fixture_cert_get();
    const struct tls_client_options client = { .ca = &cert->ca_certificate,
                                               .suite = options.suite,
                                               .psk_ke = options.client_psk_ke };
    struct hf_error error = { 0 };

    struct fixture *fixture = calloc(1, sizeof *fixture);

    assert_non_null(fixture);
    fixture->cert = *cert;
    fixture->now_unix_ms = FIXTURE_NOW_UNIX_MS;
    fixture->server_psk_ke = options.server_psk_ke;
    tls_tickets_init(&fixture->ring, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    assert_int_equal(tls_tickets_rotate(&fixture->ring, fixture->now_unix_ms), TLS_TICKETS_CHANGED);
    fixture_restart_server(fixture, options.tickets, &fixture->ring);
    fixture->client = tls_client_open(&client, &error);
    assert_non_null(fixture->client);
    assert_int_equal(tls_core_open(&fixture->core, 16, &error), 0);
    return fixture;
}

void fixture_close(struct fixture *fixture)
{
    tls_server_close(fixture->server);
    tls_client_close(fixture->client);
    tls_core_close(&fixture->core);
    tls_tickets_clear(&fixture->ring);
    free(fixture);
}

void wire_put(struct wire *wire, const void *bytes, size_t byte_count)
{
    if (wire->used == wire->filled) {
        wire->used = wire->filled = 0;
    }
    assert_true(byte_count <= sizeof wire->bytes - wire->filled);
    memcpy(wire->bytes + wire->filled, bytes, byte_count);
    wire->filled += byte_count;
}

uint8_t *wire_front(struct wire *wire, size_t *byte_count)
{
    *byte_count = wire->filled - wire->used;
    return wire->bytes + wire->used;
}

void wire_take(struct wire *wire, size_t byte_count)
{
    assert_true(byte_count <= wire->filled - wire->used);
    wire->used += byte_count;
}

enum tls_handshake_status end_step(struct end *end, struct wire *to, size_t chunk,
                                   uint64_t now_unix_ms)
{
    uint8_t out[512]; /* smaller than a flight: WANT_ROOM is met too */

    do {
        size_t left;
        struct tls_handshake_io io = { .in = wire_front(&end->in, &left),
                                       .out = out,
                                       .out_capacity = sizeof out,
                                       .now_unix_ms = now_unix_ms };

        io.in_bytes = left < chunk ? left : chunk;
        end->status = tls_handshake_step(end->handshake, &io);
        wire_take(&end->in, io.in_used);
        wire_put(to, out, io.out_bytes);
        if (end->status == TLS_HANDSHAKE_WANT_INPUT) {
            assert_int_equal(io.in_used, io.in_bytes);
        }
    } while (end->status == TLS_HANDSHAKE_WANT_ROOM ||
             (end->status == TLS_HANDSHAKE_WANT_INPUT && end->in.used != end->in.filled));
    return end->status;
}

struct link *link_open(struct fixture *fixture, const uint8_t *session, size_t session_bytes,
                       size_t chunk)
{
    struct link *link = calloc(1, sizeof *link);

    assert_non_null(link);
    link->client.handshake =
        tls_handshake_connect(fixture->client, FIXTURE_NAME, session, session_bytes,
                              fixture->now_unix_ms + fixture->client_ahead_ms);
    link->server.handshake = tls_handshake_accept(fixture->server);
    assert_non_null(link->client.handshake);
    assert_non_null(link->server.handshake);
    while (link->client.status != TLS_HANDSHAKE_DONE || link->server.status != TLS_HANDSHAKE_DONE) {
        if (link->client.status != TLS_HANDSHAKE_DONE) {
            end_step(&link->client, &link->server.in, chunk, fixture->now_unix_ms);
        }
        if (link->server.status != TLS_HANDSHAKE_DONE) {
            end_step(&link->server, &link->client.in, chunk, fixture->now_unix_ms);
        }
        assert_int_not_equal(link->client.status, TLS_HANDSHAKE_FAILED);
        assert_int_not_equal(link->server.status, TLS_HANDSHAKE_FAILED);
    }
    tls_handshake_take_keys(link->client.handshake, &link->client.keys);
    tls_handshake_take_keys(link->server.handshake, &link->server.keys);
    link->client.resumed = tls_handshake_resumed(link->client.handshake);
    link->server.resumed = tls_handshake_resumed(link->server.handshake);
    link->server.lacks_exchange = tls_handshake_lacks_exchange(link->server.handshake);
    assert_string_equal(tls_handshake_server_name(link->server.handshake), FIXTURE_NAME);
    tls_handshake_end(link->server.handshake);
    link->server.handshake = NULL;
    return link;
}

void link_close(struct fixture *fixture, struct link *link)
{
    tls_handshake_end(link->client.handshake);
    tls_keys_clear(&fixture->core, &link->client.keys);
    tls_keys_clear(&fixture->core, &link->server.keys);
    free(link);
}

enum tls_open_result link_client_read(struct fixture *fixture, struct link *link,
                                      struct tls_opened *opened, uint8_t *data)
{
    do {
        size_t left;
        uint8_t *front = wire_front(&link->client.in, &left);

        tls_handshake_open(link->client.handshake, &fixture->core, &link->client.keys, front, left,
                           fixture->now_unix_ms, opened);
        if (opened->result == TLS_OPEN_DATA && data != NULL) {
            memcpy(data, front + opened->data_offset, opened->data_bytes);
        }
        if (opened->result == TLS_OPEN_DATA || opened->result == TLS_OPEN_HANDLED) {
            wire_take(&link->client.in, opened->record_bytes);
        }
    } while (opened->result == TLS_OPEN_HANDLED);
    return opened->result;
}

size_t link_session(struct fixture *fixture, struct link *link, uint8_t *out, size_t capacity)
{
    struct tls_opened opened;

    assert_int_equal(link_client_read(fixture, link, &opened, NULL), TLS_OPEN_MORE);
    return tls_handshake_session(link->client.handshake, out, capacity);
}

static unsigned hex_digit(char digit)
{
    return digit <= '9' ? (unsigned)(digit - '0') : (unsigned)(digit - 'a') + 10;
}

size_t hex_decode(const char *text, uint8_t *out, size_t capacity)
{
    const size_t byte_count = strlen(text) / 2;

    assert_true(byte_count <= capacity);
    for (size_t at = 0; at < byte_count; at++) {
        out[at] = (uint8_t)(hex_digit(text[2 * at]) << 4 | hex_digit(text[2 * at + 1]));
    }
    return byte_count;
}

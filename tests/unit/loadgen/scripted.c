#include "tests/unit/loadgen/scripted.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"

static const struct payload_run run = { { 0x0123456789abcdef, 0xfedcba9876543210 }, 4711 };

struct scripted *scripted_open(const struct crowd_options *options)
{
    struct scripted *scripted = calloc(1, sizeof *scripted);
    const uint32_t counts[CELL_CLASSES] = { 32, 32, 32 };
    struct crowd_options mine = *options;
    struct hf_error error;

    mine.run = &run;
    assert_true(options->users * options->devices <= SCRIPTED_CLIENTS_MAX);
    assert_true(crowd_open(&scripted->crowd, &mine, &error));
    assert_true(cells_open(&scripted->cells, counts, &error));
    assert_int_equal(tls_core_open(&scripted->tls, 16, &error), 0);
    scripted->pools = (struct link_pools){
        .in = { .cells = &scripted->cells },
        .out = { .cells = &scripted->cells },
        .tls = &scripted->tls,
    };
    for (uint32_t i = 0; i < scripted->crowd.count; i++) {
        scripted->crowd.clients[i].user = SCRIPTED_USER + i / options->devices;
    }
    scripted->crowd.now_ns = 1000000000;
    return scripted;
}

struct scripted *scripted_pair(void)
{
    return scripted_open(&(struct crowd_options){
        .users = 2, .devices = 1, .body_bytes = 100, .pending = 64, .busy = 8 });
}

void scripted_close(struct scripted *scripted)
{
    for (uint32_t i = 0; i < scripted->crowd.count; i++) {
        scripted_cut(scripted, i);
    }
    for (int i = 0; i < CELL_CLASSES; i++) { /* every cell came back, at both ends */
        assert_int_equal(scripted->cells.classes_[i].in_use, 0);
        assert_int_equal(scripted->crowd.cells.classes_[i].in_use, 0);
    }
    assert_int_equal(scripted->crowd.pending.in_use, scripted->crowd.counts.pending);
    cells_close(&scripted->cells);
    tls_core_close(&scripted->tls);
    crowd_close(&scripted->crowd);
    free(scripted);
}

void scripted_cut(struct scripted *scripted, uint32_t client)
{
    struct client *one = scripted_client(scripted, client);

    client_on_lost(&scripted->crowd, one);
    one->state = CLIENT_AWAY;
    client_drop(&scripted->crowd, one);
    link_drop(&scripted->pools, &scripted->links[client]);
    memset(&scripted->links[client], 0, sizeof scripted->links[client]);
}

struct message_hello_ok scripted_hello_ok(void)
{
    return (struct message_hello_ok){
        .epoch = SCRIPTED_EPOCH,
        .floor = 1,
        .result = HELLO_RESULT_RESET,
        .keepalive_s = 100,
        .life_s = 86400,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .sends_outstanding_max = SENDS_OUTSTANDING_MAX,
        .requests_outstanding_max = REQUESTS_OUTSTANDING_MAX,
        .window = WINDOW_BYTES_DEFAULT,
    };
}

enum client_verdict scripted_login(struct scripted *scripted, uint32_t client,
                                   const struct message_hello_ok *ok)
{
    struct client *one = scripted_client(scripted, client);
    uint8_t secrets[2][TLS_SECRET_BYTES_MAX];
    uint8_t frame[HELLO_OK_FRAME_BYTES_MAX];

    memset(secrets[0], (int)client + 1, sizeof secrets[0]);
    memset(secrets[1], (int)client + 101, sizeof secrets[1]);
    assert_true(
        tls_keys_init(&one->link.keys, AEAD_AES_128_GCM_SHA256, true, secrets[0], secrets[1]));
    assert_true(tls_keys_init(&scripted->links[client].keys, AEAD_AES_128_GCM_SHA256, false,
                              secrets[1], secrets[0]));
    one->state = CLIENT_GREETING;
    return scripted_say(scripted, client, frame, message_encode_hello_ok(frame, sizeof frame, ok));
}

void scripted_login_all(struct scripted *scripted)
{
    const struct message_hello_ok ok = scripted_hello_ok();

    for (uint32_t i = 0; i < scripted->crowd.count; i++) {
        assert_int_equal(scripted_login(scripted, i, &ok), CLIENT_GOES_ON);
    }
}

enum client_verdict scripted_say(struct scripted *scripted, uint32_t client, const uint8_t *frame,
                                 size_t frame_bytes)
{
    static uint8_t wire[TLS_RECORD_BYTES_MAX];
    struct link *link = &scripted->links[client];
    struct client *one = scripted_client(scripted, client);
    struct link_pools *pools = &scripted->crowd.pools;
    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;
    size_t sealed_bytes;
    size_t counted;

    assert_true(frame_bytes > 0);
    assert_true(link_put_frame(&scripted->pools, link, frame, frame_bytes, false));

    const uint8_t *sealed = link_seal(&scripted->pools, link, &sealed_bytes);

    memcpy(wire, sealed, sealed_bytes);
    assert_true(link_sent(&scripted->pools, link, sealed_bytes, &counted));
    assert_int_equal(link_input_begin(pools, &one->link, wire, sealed_bytes, &input),
                     LINK_NEXT_NONE);
    assert_int_equal(link_input_next(pools, &one->link, &input, &view, &opened), LINK_NEXT_FRAME);

    const enum client_verdict verdict = client_on_frame(&scripted->crowd, one, &view);

    assert_int_equal(link_input_next(pools, &one->link, &input, &view, &opened), LINK_NEXT_NONE);
    assert_true(link_input_end(pools, &one->link, &input));
    return verdict;
}

static void open_records(struct scripted *scripted, uint32_t client, uint8_t *wire, size_t bytes)
{
    struct link *link = &scripted->links[client];
    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;

    for (size_t at = 0; at < bytes; at += TLS_RECORD_HEADER_BYTES + load_be16(wire + at + 3)) {
        scripted->records++;
    }
    assert_int_equal(link_input_begin(&scripted->pools, link, wire, bytes, &input), LINK_NEXT_NONE);
    while (link_input_next(&scripted->pools, link, &input, &view, &opened) == LINK_NEXT_FRAME) {
        assert_true(scripted->heard_bytes + frame_bytes(&view) <= sizeof scripted->heard);
        memcpy(scripted->heard + scripted->heard_bytes, view.payload - FRAME_HEADER_BYTES,
               frame_bytes(&view));
        scripted->heard_bytes += frame_bytes(&view);
    }
    assert_true(link_input_end(&scripted->pools, link, &input));
}

uint32_t scripted_hear(struct scripted *scripted, uint32_t client)
{
    static uint8_t wire[TLS_RECORD_BYTES_MAX];
    struct client *one = scripted_client(scripted, client);
    struct frame_view view;
    uint32_t frames = 0;

    scripted->heard_bytes = 0;
    scripted->records = 0;
    scripted->sends = 0;
    for (;;) {
        const uint8_t *sealed;
        size_t bytes;
        size_t rest;

        assert_int_equal(client_output(&scripted->crowd, one, &sealed, &bytes), CLIENT_GOES_ON);
        if (sealed == NULL) {
            break;
        }
        scripted->sends++;
        memcpy(wire, sealed, bytes);
        assert_true(client_sent(&scripted->crowd, one, 1, &rest) == sealed + 1);
        assert_int_equal(rest, bytes - 1);
        assert_null(client_sent(&scripted->crowd, one, bytes - 1, &rest));
        open_records(scripted, client, wire, bytes);
    }
    for (size_t at = 0; at < scripted->heard_bytes; at += frame_bytes(&view)) {
        assert_int_equal(frame_parse(scripted->heard + at, scripted->heard_bytes - at, &view),
                         FRAME_OK);
        frames++;
    }
    return frames;
}

struct frame_view scripted_heard(const struct scripted *scripted, uint32_t nth)
{
    struct frame_view view;
    size_t at = 0;

    for (;;) {
        assert_int_equal(frame_parse(scripted->heard + at, scripted->heard_bytes - at, &view),
                         FRAME_OK);
        if (nth-- == 0) {
            return view;
        }
        at += frame_bytes(&view);
    }
}

enum client_verdict scripted_accept(struct scripted *scripted, uint32_t client, uint64_t counter,
                                    uint64_t seq)
{
    uint8_t frame[ACCEPTED_FRAME_BYTES];
    const struct message_accepted accepted = { counter, { counter + 9000 }, seq };

    return scripted_say(scripted, client, frame,
                        message_encode_accepted(frame, sizeof frame, &accepted));
}

enum client_verdict scripted_reject(struct scripted *scripted, uint32_t client, uint64_t counter,
                                    uint16_t code, uint32_t retry_ms, uint64_t expected)
{
    uint8_t frame[REJECTED_FRAME_BYTES];
    const struct message_rejected rejected = { counter, code, retry_ms, expected };

    return scripted_say(scripted, client, frame,
                        message_encode_rejected(frame, sizeof frame, &rejected));
}

enum client_verdict scripted_entry(struct scripted *scripted, uint32_t client, uint64_t seq,
                                   const struct entry *entry)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    struct entries_builder builder;

    entries_begin(&builder, frame, sizeof frame, seq);
    assert_true(entries_add(&builder, entry));
    return scripted_say(scripted, client, frame, entries_end(&builder));
}

enum client_verdict scripted_error(struct scripted *scripted, uint32_t client, uint16_t code,
                                   uint32_t retry_ms)
{
    uint8_t frame[ERROR_FRAME_BYTES_MAX];
    const struct message_error error = { .code = code, .retry_ms = retry_ms, .fatal = true };

    return scripted_say(scripted, client, frame, message_encode_error(frame, sizeof frame, &error));
}

struct entry scripted_message(struct scripted *scripted, uint32_t client, uint32_t from,
                              uint32_t number, uint64_t n, uint8_t *body)
{
    struct crowd *crowd = &scripted->crowd;
    const struct client *sender = scripted_client(scripted, from);
    const struct client *reader = scripted_client(scripted, client);
    const bool own = sender->user == reader->user;
    const struct payload payload = { { sender->user }, number, crowd->now_ns - 1000 };

    payload_write(&crowd->run, &payload, body, crowd->body_bytes);
    return (struct entry){
        .form = ENTRY_MESSAGE,
        .message = {
            .flags = own ? ENTRY_FLAG_OWN : 0,
            .device = { 1 },
            .id = { sender->user * 1000 + number },
            .conversation = { client_peer(crowd, reader)->user },
            .sender = { sender->user },
            .n = n,
            .body = { body, crowd->body_bytes },
            .nonce = payload_nonce(&crowd->run, payload.user, number),
            .counter = sender->counter_base + number,
        },
    };
}

struct entry scripted_sent(uint64_t counter)
{
    return (struct entry){ .form = ENTRY_SENT, .sent = { counter, { counter + 9000 } } };
}

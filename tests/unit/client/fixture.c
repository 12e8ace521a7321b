#include "tests/unit/client/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"

static const char login_token[] = "login";
static const char resume_token[] = "resume";
static char bodies[10000][8];

const struct fixture_options fixture_known = {
    .cursor = { .epoch = EPOCH, .seq = 5, .sver = 0 },
    .last_counter = 3,
};

static struct message_bytes text(const char *string)
{
    return (struct message_bytes){ (const uint8_t *)string, (uint16_t)strlen(string) };
}

struct fixture *fixture_open(struct fixture_options options)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    assert_non_null(fixture);
    fixture->now_ms = 1000000;

    const struct client_options client = {
        .user = { USER },
        .device = { DEVICE },
        .cursor = options.cursor,
        .last_counter = options.last_counter,
        .recounting = options.recounting,
        .login_token = text(options.no_login_token ? "" : login_token),
        .resume_token = text(options.no_resume_token ? "" : resume_token),
        .name = text("test 1"),
        .window = 65536,
        .jitter_seed = 1,
        .sends = fixture->sends,
        .sends_capacity = options.sends_capacity > 0 ? options.sends_capacity : SENDS_MAX,
        .requests = &fixture->requests,
        .scratch = &fixture->scratch,
    };

    client_init(&fixture->client, &client);
    return fixture;
}

void fixture_close(struct fixture *fixture)
{
    free(fixture);
}

static void take_events(struct fixture *fixture)
{
    uint64_t stored = 0;

    fixture->event_count = 0;
    while (client_next_event(&fixture->client, &fixture->events[fixture->event_count])) {
        const struct client_event *event = &fixture->events[fixture->event_count];

        if (event->kind == CLIENT_EVENT_ENTRY) {
            stored = event->entry.seq;
        }
        fixture->event_count++;
        assert_true(fixture->event_count < EVENTS_MAX);
    }
    if (!fixture->store_by_hand && stored > 0) {
        client_stored(&fixture->client, stored);
    }
}

void hear(struct fixture *fixture)
{
    size_t filled = 0;
    size_t at = 0;

    fixture->said_count = 0;
    for (;;) {
        const size_t written = client_output(&fixture->client, fixture->output + filled,
                                             OUTPUT_BYTES - filled, fixture->now_ms, false);

        if (written == 0) {
            break;
        }
        filled += written;
    }
    while (at < filled) {
        struct frame_view view;

        assert_int_equal(frame_parse(fixture->output + at, filled - at, &view), FRAME_OK);
        assert_true((frame_type_origin(view.type) & FRAME_FROM_CLIENT) != 0);
        assert_int_equal(any_decode(&view, &fixture->said[fixture->said_count]), CODE_OK);
        fixture->said_count++;
        assert_true(fixture->said_count < FRAMES_MAX);
        at += frame_bytes(&view);
    }
}

void fixture_connect(struct fixture *fixture)
{
    if (client_state(&fixture->client) == CLIENT_STOPPED) {
        assert_true(client_start(&fixture->client, fixture->now_ms));
    }
    assert_int_equal(client_state(&fixture->client), CLIENT_WAITING);
    if (fixture->now_ms < client_connect_at_ms(&fixture->client)) {
        fixture->now_ms = client_connect_at_ms(&fixture->client);
    }
    client_on_connected(&fixture->client, fixture->now_ms);
    hear(fixture);
    assert_true(fixture->said_count >= 1);
    assert_int_equal(fixture->said[0].type, FRAME_TYPE_HELLO);
}

struct message_hello_ok fixture_hello_ok(const struct fixture *fixture, uint64_t head,
                                         uint64_t last_counter)
{
    const struct message_cursor cursor = client_cursor(&fixture->client);

    return (struct message_hello_ok){
        .time_unix_ms = UINT64_C(1764072000000),
        .epoch = cursor.epoch == 0 ? EPOCH : cursor.epoch,
        .head = head,
        .floor = 1,
        .last_counter = last_counter,
        .result = cursor.epoch == 0 ? HELLO_RESULT_RESET : HELLO_RESULT_RESUME,
        .keepalive_s = 300,
        .life_s = 86400,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .sends_outstanding_max = SENDS_OUTSTANDING_MAX,
        .requests_outstanding_max = REQUESTS_OUTSTANDING_MAX,
        .window = WINDOW_BYTES_DEFAULT,
        .resume_token = text("fresh"),
    };
}

void fixture_go_live(struct fixture *fixture, uint64_t head, uint64_t last_counter)
{
    fixture_connect(fixture);

    const struct message_hello_ok ok = fixture_hello_ok(fixture, head, last_counter);

    give_hello_ok(fixture, &ok);
    assert_int_equal(client_state(&fixture->client), CLIENT_LIVE);
}

void give_frame(struct fixture *fixture, const uint8_t *frame, size_t frame_bytes)
{
    static uint8_t bytes[FRAME_BYTES_MAX]; /* events point into it */
    struct frame_view view;

    memcpy(bytes, frame, frame_bytes);
    assert_int_equal(frame_parse(bytes, frame_bytes, &view), FRAME_OK);
    client_on_frame(&fixture->client, &view, fixture->now_ms);
    take_events(fixture);
}

void give_hello_ok(struct fixture *fixture, const struct message_hello_ok *ok)
{
    static uint8_t frame[FRAME_BYTES_MAX];

    give_frame(fixture, frame, message_encode_hello_ok(frame, sizeof frame, ok));
}

void give_accepted(struct fixture *fixture, uint64_t counter, uint64_t id, uint64_t seq)
{
    uint8_t frame[ACCEPTED_FRAME_BYTES];
    const struct message_accepted accepted = { .counter = counter, .id = { id }, .seq = seq };

    give_frame(fixture, frame, message_encode_accepted(frame, sizeof frame, &accepted));
}

void give_rejected(struct fixture *fixture, uint64_t counter, enum code code, uint32_t retry_ms,
                   uint64_t expected)
{
    uint8_t frame[REJECTED_FRAME_BYTES];
    const struct message_rejected rejected = {
        .counter = counter, .code = (uint16_t)code, .retry_ms = retry_ms, .expected = expected
    };

    give_frame(fixture, frame, message_encode_rejected(frame, sizeof frame, &rejected));
}

void give_error(struct fixture *fixture, enum code code, uint32_t request, uint32_t retry_ms)
{
    uint8_t frame[ERROR_FRAME_BYTES_MAX];

    give_frame(fixture, frame,
               message_encode_error_code(frame, sizeof frame, code, request, retry_ms));
}

void give_entry(struct fixture *fixture, uint64_t seq, const struct entry *entry)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    struct entries_builder builder;

    entries_begin(&builder, frame, sizeof frame, seq);
    assert_true(entries_add(&builder, entry));
    give_frame(fixture, frame, entries_end(&builder));
}

struct entry entry_from_peer(const char *body)
{
    return (struct entry){
        .form = ENTRY_MESSAGE,
        .message = { .device = { 3 },
                     .id = { 77 },
                     .conversation = { PEER },
                     .sender = { PEER },
                     .n = 1,
                     .cn = 1,
                     .body = text(body) },
    };
}

struct entry entry_own(struct nonce nonce, uint64_t counter)
{
    return (struct entry){
        .form = ENTRY_MESSAGE,
        .message = { .flags = ENTRY_FLAG_OWN,
                     .device = { DEVICE },
                     .id = { 88 },
                     .conversation = { PEER },
                     .sender = { USER },
                     .n = 1,
                     .body = text("own"),
                     .nonce = nonce,
                     .counter = counter },
    };
}

struct entry entry_sent(uint64_t counter, uint64_t id)
{
    return (struct entry){ .form = ENTRY_SENT, .sent = { .counter = counter, .id = { id } } };
}

void pass(struct fixture *fixture, uint64_t ms)
{
    fixture->now_ms += ms;
    client_on_time(&fixture->client, fixture->now_ms);
    take_events(fixture);
}

void cut(struct fixture *fixture)
{
    client_on_disconnected(&fixture->client, fixture->now_ms);
    take_events(fixture);
}

struct nonce nonce_of(uint64_t tag)
{
    struct nonce nonce = { { 0xaa } };

    store_be64(nonce.bytes + 8, tag);
    return nonce;
}

uint64_t queue(struct fixture *fixture, uint64_t tag)
{
    assert_true(tag < sizeof bodies / sizeof bodies[0]);
    (void)snprintf(bodies[tag], sizeof bodies[tag], "m%u", (unsigned)tag);

    struct client_send send = {
        .tag = tag,
        .nonce = nonce_of(tag),
        .conversation = { PEER },
        .body = (const uint8_t *)bodies[tag],
        .body_bytes = (uint16_t)strlen(bodies[tag]),
    };

    assert_int_equal(client_send(&fixture->client, &send), CLIENT_SEND_OK);
    return send.counter;
}

size_t count_of(const struct fixture *fixture, enum client_event_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < fixture->event_count; i++) {
        count += fixture->events[i].kind == kind;
    }
    return count;
}

const struct client_event *only(const struct fixture *fixture, enum client_event_kind kind)
{
    const struct client_event *found = NULL;

    assert_int_equal(count_of(fixture, kind), 1);
    for (size_t i = 0; i < fixture->event_count; i++) {
        if (fixture->events[i].kind == kind) {
            found = &fixture->events[i];
        }
    }
    return found;
}

size_t said_of(const struct fixture *fixture, enum frame_type type)
{
    size_t count = 0;

    for (size_t i = 0; i < fixture->said_count; i++) {
        count += fixture->said[i].type == type;
    }
    return count;
}

const struct any_message *said_only(const struct fixture *fixture, enum frame_type type)
{
    const struct any_message *found = NULL;

    assert_int_equal(said_of(fixture, type), 1);
    for (size_t i = 0; i < fixture->said_count; i++) {
        if (fixture->said[i].type == type) {
            found = &fixture->said[i];
        }
    }
    return found;
}

void assert_sends(const struct fixture *fixture, size_t count, const uint64_t *counters)
{
    size_t at = 0;

    for (size_t i = 0; i < fixture->said_count; i++) {
        if (fixture->said[i].type == FRAME_TYPE_SEND) {
            assert_true(at < count);
            assert_int_equal(fixture->said[i].send.counter, counters[at]);
            at++;
        }
    }
    assert_int_equal(at, count);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/proto/any_message.h"

#define ROUNDS 4000

/* xorshift64* (Vigna 2016): the same messages on every machine. */
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);

static uint64_t random_u64(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t random_below(uint64_t limit)
{
    return random_u64() % limit;
}

/* Small, large and middling numbers alike, never 0. */
static uint64_t random_number(void)
{
    const uint64_t value = random_u64() >> random_below(64);
    return value == 0 ? 1 : value;
}

static uint8_t pool[FRAME_BYTES_MAX];
static char letters[FRAME_BYTES_MAX];

static struct message_bytes random_bytes(uint16_t least, uint16_t most)
{
    const uint16_t byte_count = (uint16_t)(least + random_below((uint64_t)most - least + 1));
    return (struct message_bytes){ byte_count == 0 ? NULL : pool, byte_count };
}

static struct message_bytes random_text(uint16_t most)
{
    const uint16_t byte_count = (uint16_t)random_below((uint64_t)most + 1);
    return (struct message_bytes){ (const uint8_t *)letters, byte_count };
}

static void fill_pools(void)
{
    for (size_t i = 0; i < sizeof pool; i++) {
        pool[i] = (uint8_t)random_u64();
        letters[i] = (char)('a' + random_below(26));
    }
}

static struct message_hello random_hello(void)
{
    return (struct message_hello){
        .version = PROTOCOL_VERSION,
        .caps = random_u64(),
        .user = { random_number() >> 1 | 1 },
        .device = { (uint32_t)random_number() | 1 },
        .cursor = { random_number(), random_number(), random_number() },
        .max_catchup = (uint32_t)random_u64(),
        .window = (uint32_t)random_u64(),
        .token = random_bytes(1, TOKEN_BYTES_MAX),
        .client = random_text(CLIENT_NAME_BYTES_MAX),
    };
}

static struct message_hello_ok random_hello_ok(void)
{
    const uint64_t head = random_number();

    return (struct message_hello_ok){
        .caps = random_u64(),
        .time_unix_ms = random_number(),
        .epoch = random_number(),
        .head = head,
        .floor = random_below(head) + 1,
        .sver = random_number(),
        .last_counter = random_number(),
        .result = random_below(2) == 0 ? HELLO_RESULT_RESUME : HELLO_RESULT_RESET,
        .keepalive_s = (uint32_t)random_u64(),
        .life_s = (uint32_t)random_u64(),
        .frame_bytes_max = (uint32_t)random_u64(),
        .body_bytes_max = (uint32_t)random_u64(),
        .sends_outstanding_max = (uint16_t)random_u64(),
        .requests_outstanding_max = (uint16_t)random_u64(),
        .window = (uint32_t)random_u64(),
        .resume_token = random_bytes(0, RESUME_TOKEN_BYTES_MAX),
    };
}

static struct message_goaway random_goaway(void)
{
    const uint32_t wait_max_ms = (uint32_t)random_number();

    return (struct message_goaway){
        .why = (uint16_t)random_u64(),
        .wait_min_ms = (uint32_t)random_below((uint64_t)wait_max_ms + 1),
        .wait_max_ms = wait_max_ms,
        .alternative = random_text(ADDRESS_BYTES_MAX),
    };
}

static struct message_send random_send(void)
{
    struct message_send send = {
        .counter = random_number(),
        .conversation = { random_u64() },
        .kind = (uint8_t)random_u64(),
        .body = random_bytes(0, random_below(8) == 0 ? BODY_BYTES_MAX : 300),
    };

    memcpy(send.nonce.bytes, pool + random_below(1000), NONCE_BYTES);
    return send;
}

static struct message_history random_history(void)
{
    return (struct message_history){
        .request = (uint32_t)random_number() | 1,
        .conversation = { random_u64() },
        .direction = random_below(2) == 0 ? HISTORY_BEFORE : HISTORY_AFTER,
        .anchor = random_u64(),
        .n = (uint16_t)(random_below(65535) + 1),
        .bytes = (uint32_t)random_u64(),
    };
}

/* A message of this type, which must not carry entries. */
static struct any_message random_message(enum frame_type type)
{
    struct any_message any = { .type = type };

    switch (type) {
    case FRAME_TYPE_HELLO:
        any.hello = random_hello();
        break;
    case FRAME_TYPE_HELLO_OK:
        any.hello_ok = random_hello_ok();
        break;
    case FRAME_TYPE_TOKEN:
        any.token =
            (struct message_token){ (uint32_t)random_u64(), random_bytes(1, TOKEN_BYTES_MAX) };
        break;
    case FRAME_TYPE_PING:
    case FRAME_TYPE_PONG:
        any.ping.opaque = random_u64();
        break;
    case FRAME_TYPE_GOAWAY:
        any.goaway = random_goaway();
        break;
    case FRAME_TYPE_ERROR:
        any.error =
            (struct message_error){ (uint16_t)(random_below(65535) + 1), (uint32_t)random_u64(),
                                    (uint32_t)random_u64(), random_below(2) != 0,
                                    random_text(ERROR_TEXT_BYTES_MAX) };
        break;
    case FRAME_TYPE_SEND:
        any.send = random_send();
        break;
    case FRAME_TYPE_ACCEPTED:
        any.accepted =
            (struct message_accepted){ random_number(), { random_u64() }, random_number() };
        break;
    case FRAME_TYPE_REJECTED:
        any.rejected =
            (struct message_rejected){ random_number(), (uint16_t)(random_below(65535) + 1),
                                       (uint32_t)random_u64(), random_u64() };
        break;
    case FRAME_TYPE_ACK:
        any.ack = (struct message_ack){ random_u64(), random_u64() };
        break;
    case FRAME_TYPE_HISTORY:
        any.history = random_history();
        break;
    case FRAME_TYPE_BYE:
    case FRAME_TYPE_ENTRIES:
    case FRAME_TYPE_PAGE:
        break;
    }
    return any;
}

static void check_identity(const struct any_message *any)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    static char in_text[65536];
    static char out_text[65536];
    const size_t whole_bytes = any_encode(frame, sizeof frame, any);
    struct frame_view view;
    struct any_message out;

    assert_in_range(whole_bytes, FRAME_HEADER_BYTES, FRAME_BYTES_MAX);
    assert_int_equal(frame_parse(frame, whole_bytes, &view), FRAME_OK);
    assert_int_equal(frame_bytes(&view), whole_bytes);
    assert_int_equal(view.type, any->type);
    assert_int_equal(any_decode(&view, &out), CODE_OK);
    any_describe(any, in_text, sizeof in_text);
    any_describe(&out, out_text, sizeof out_text);
    assert_string_equal(in_text, out_text);
}

static void random_messages_come_back_as_they_went(void **state)
{
    (void)state;
    static const enum frame_type types[] = {
        FRAME_TYPE_HELLO,   FRAME_TYPE_HELLO_OK, FRAME_TYPE_TOKEN,    FRAME_TYPE_PING,
        FRAME_TYPE_PONG,    FRAME_TYPE_GOAWAY,   FRAME_TYPE_BYE,      FRAME_TYPE_ERROR,
        FRAME_TYPE_SEND,    FRAME_TYPE_ACCEPTED, FRAME_TYPE_REJECTED, FRAME_TYPE_ACK,
        FRAME_TYPE_HISTORY,
    };

    fill_pools();
    for (size_t round = 0; round < ROUNDS; round++) {
        const struct any_message any =
            random_message(types[round % (sizeof types / sizeof types[0])]);
        check_identity(&any);
    }
}

static struct entry random_entry(uint64_t seq)
{
    struct entry entry = { .form = (enum entry_form)(1 + random_below(3)) };
    struct entry_message *message = &entry.message;

    if (entry.form == ENTRY_SENT) {
        entry.sent = (struct entry_sent){ random_number(), { random_u64() } };
    } else if (entry.form == ENTRY_REFUSED && seq > 1) {
        entry.refused = (struct entry_refused){ (uint16_t)(random_below(65535) + 1),
                                                random_below(seq - 1) + 1,
                                                { random_u64() },
                                                { random_u64() } };
    } else {
        entry.form = ENTRY_MESSAGE;
        *message = (struct entry_message){
            .flags = (uint8_t)(random_u64() & 0xf1),
            .kind = (uint8_t)random_u64(),
            .device = { (uint32_t)random_u64() },
            .id = { random_u64() },
            .conversation = { random_u64() },
            .sender = { random_u64() },
            .prev = random_below(seq),
            .n = random_number(),
            .body = random_bytes(0, random_below(20) == 0 ? BODY_BYTES_MAX : 100),
        };
        message->cn = random_below(message->n);
        if ((message->flags & ENTRY_FLAG_OWN) != 0) {
            memcpy(message->nonce.bytes, pool + random_below(1000), NONCE_BYTES);
            message->counter = random_u64();
        }
    }
    return entry;
}

static void random_entries_come_back_as_they_went(void **state)
{
    (void)state;
    static uint8_t frame[FRAME_BYTES_MAX];

    fill_pools();
    for (size_t round = 0; round < ROUNDS; round++) {
        struct any_message any = { .type = FRAME_TYPE_ENTRIES };
        struct entries_builder builder;
        struct frame_view view;
        const uint64_t first = (random_number() >> 1) + 1;
        const uint64_t wanted = random_below(30) + 1;

        entries_begin(&builder, frame, sizeof frame, first);
        while (entries_count(&builder) < wanted) {
            const struct entry entry = random_entry(first + entries_count(&builder));
            if (!entries_add(&builder, &entry)) {
                break;
            }
        }
        assert_int_equal(frame_parse(frame, entries_end(&builder), &view), FRAME_OK);
        assert_int_equal(message_decode_entries(&view, &any.entries), CODE_OK);
        check_identity(&any);
    }
}

static void largest_messages_fit_a_frame(void **state)
{
    (void)state;
    struct any_message any;

    fill_pools();
    any = random_message(FRAME_TYPE_HELLO);
    any.hello.token = (struct message_bytes){ pool, TOKEN_BYTES_MAX };
    any.hello.client = (struct message_bytes){ (const uint8_t *)letters, CLIENT_NAME_BYTES_MAX };
    check_identity(&any);
    any = random_message(FRAME_TYPE_SEND);
    any.send.body = (struct message_bytes){ pool, BODY_BYTES_MAX };
    check_identity(&any);
    any = random_message(FRAME_TYPE_ERROR);
    any.error.text = (struct message_bytes){ (const uint8_t *)letters, ERROR_TEXT_BYTES_MAX };
    check_identity(&any);
    any = random_message(FRAME_TYPE_GOAWAY);
    any.goaway.alternative = (struct message_bytes){ (const uint8_t *)letters, ADDRESS_BYTES_MAX };
    check_identity(&any);
}

/* The server answers BODY_TOO_LARGE by a REJECTED; only what fits no frame can't be said at all. */
static void body_above_the_limit_passes_the_decoder_until_the_frame_is_full(void **state)
{
    (void)state;
    const uint16_t most = FRAME_PAYLOAD_BYTES_MAX - SEND_FIXED_BYTES;
    static uint8_t frame[2 * FRAME_BYTES_MAX];
    struct message_send send = random_send();
    struct message_send out = { 0 };
    struct frame_view view = { 0 };

    send.body = (struct message_bytes){ pool, most };
    assert_int_equal(message_encode_send(frame, sizeof frame, &send), FRAME_BYTES_MAX);
    assert_int_equal(frame_parse(frame, FRAME_BYTES_MAX, &view), FRAME_OK);
    assert_int_equal(message_decode_send(&view, &out), CODE_OK);
    assert_int_equal(out.body.byte_count, most);
    send.body.byte_count = most + 1;
    assert_int_equal(message_encode_send(frame, sizeof frame, &send), 0);
}

static void error_of_a_code_says_its_text_and_whether_it_ends_the_connection(void **state)
{
    (void)state;
    static const enum code codes[] = {
#define CODE_VALUE(name, number, label, text) CODE_##name,
        CODES(CODE_VALUE)
#undef CODE_VALUE
    };

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        uint8_t frame[ERROR_FRAME_BYTES_MAX];
        struct frame_view view;
        struct message_error error;
        const size_t whole_bytes =
            message_encode_error_code(frame, sizeof frame, codes[i], 9, 1500);

        assert_true(whole_bytes > 0);
        assert_int_equal(frame_parse(frame, whole_bytes, &view), FRAME_OK);
        assert_int_equal(message_decode_error(&view, &error), CODE_OK);
        assert_int_equal(error.code, codes[i]);
        assert_int_equal(error.request, 9);
        assert_int_equal(error.retry_ms, 1500);
        assert_int_equal(error.fatal, codes[i] < 128);
        assert_memory_equal(error.text.bytes, code_text((uint16_t)codes[i]), error.text.byte_count);
        assert_int_equal(message_encode_error_code(frame, whole_bytes - 1, codes[i], 9, 0), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_messages_come_back_as_they_went),
        cmocka_unit_test(random_entries_come_back_as_they_went),
        cmocka_unit_test(largest_messages_fit_a_frame),
        cmocka_unit_test(body_above_the_limit_passes_the_decoder_until_the_frame_is_full),
        cmocka_unit_test(error_of_a_code_says_its_text_and_whether_it_ends_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

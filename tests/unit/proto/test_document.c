/* docs/protocol.md says what the code does: its tables and its hex dumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codes.h"
#include "proto/entries.h"
#include "proto/message.h"

#define DOCUMENT_BYTES_MAX (256 * 1024)

static char document[DOCUMENT_BYTES_MAX];

static int load_document(void **state)
{
    (void)state;
    FILE *file = fopen(getenv("PROTOCOL_MD"), "r");

    if (file == NULL) {
        return -1;
    }
    const size_t used = fread(document, 1, sizeof document - 1, file);
    document[used] = '\0';
    (void)fclose(file);
    return used > 0 && used < sizeof document - 1 ? 0 : -1;
}

static size_t count_of(const char *text)
{
    size_t count = 0;

    for (const char *at = document; (at = strstr(at, text)) != NULL; at++) {
        count++;
    }
    return count;
}

__attribute__((format(printf, 1, 2))) static void expect_line(const char *format, ...)
{
    char line[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (count_of(line) != 1) {
        fail_msg("%zu times: %s", count_of(line), line);
    }
}

static void codes_are_told_with_number_and_text(void **state)
{
    (void)state;
#define CODE_LINE(name, number, label, text)                                                       \
    expect_line("\n| %d | %s | %s |\n", number, #name, text);
    CODES(CODE_LINE)
#undef CODE_LINE
}

static const char *origin_text(enum frame_origin origin)
{
    return origin == FRAME_FROM_BOTH ? "both" : origin == FRAME_FROM_CLIENT ? "client" : "server";
}

static void frames_are_told_with_number_and_sender(void **state)
{
    (void)state;
#define FRAME_LINE(name, number, origin, label)                                                    \
    expect_line("\n| %d | %s | %s | ", number, #name, origin_text(origin));
    FRAME_TYPES(FRAME_LINE)
#undef FRAME_LINE
}

static void limits_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int value;
    } rows[] = {
        { "frame", FRAME_BYTES_MAX },
        { "body", BODY_BYTES_MAX },
        { "log-in token", TOKEN_BYTES_MAX },
        { "resume token", RESUME_TOKEN_BYTES_MAX },
        { "client name", CLIENT_NAME_BYTES_MAX },
        { "error text", ERROR_TEXT_BYTES_MAX },
        { "alternative", ADDRESS_BYTES_MAX },
        { "devices", DEVICES_PER_USER_MAX },
        { "SENDs outstanding", SENDS_OUTSTANDING_MAX },
        { "outcomes kept", OUTCOMES_KEPT },
        { "requests outstanding", REQUESTS_OUTSTANDING_MAX },
        { "page", PAGE_ENTRIES_MAX },
        { "window, least", WINDOW_BYTES_MIN },
        { "window, default", WINDOW_BYTES_DEFAULT },
        { "window, most", WINDOW_BYTES_MAX },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_line("\n| %s | %d | ", rows[i].name, rows[i].value);
    }
}

/* The bytes of the dump number `index`: pairs of digits up to the first two blanks of each line. */
static size_t read_dump(size_t index, uint8_t *to, size_t cap)
{
    const char *fence = "\n```hex\n";
    const char *line = document;
    size_t used = 0;

    for (size_t i = 0; i <= index; i++) {
        line = strstr(line, fence);
        assert_non_null(line);
        line += strlen(fence);
    }
    while (strncmp(line, "```", 3) != 0) {
        const char *at = line;
        for (;;) {
            const char digits[3] = { at[0], at[1], '\0' };
            char *end;
            const unsigned long value = strtoul(digits, &end, 16);
            assert_ptr_equal(end, digits + 2);
            assert_true(used < cap);
            to[used++] = (uint8_t)value;
            if (at[2] != ' ' || at[3] == ' ') {
                break;
            }
            at += 3;
        }
        line = strchr(line, '\n') + 1;
    }
    return used;
}

static struct message_bytes bytes_of(const char *text)
{
    return (struct message_bytes){ (const uint8_t *)text, (uint16_t)strlen(text) };
}

static void expect_dump(size_t index, const uint8_t *encoded, size_t encoded_bytes)
{
    uint8_t dump[1024];

    assert_int_equal(read_dump(index, dump, sizeof dump), encoded_bytes);
    assert_memory_equal(dump, encoded, encoded_bytes);
}

static void first_dump_is_what_the_encoder_writes(void **state)
{
    (void)state;
    uint8_t frames[1024];
    const struct message_hello hello = {
        .version = PROTOCOL_VERSION,
        .user = { 1001 },
        .device = { 7 },
        .window = WINDOW_BYTES_DEFAULT,
        .token = bytes_of("eyJh.eyJz.c2ln"),
        .client = bytes_of("demo 1"),
    };
    struct message_send send = { 1, { { 0 } }, { 1002 }, 0, bytes_of("hello") };

    for (size_t i = 0; i < NONCE_BYTES; i++) {
        send.nonce.bytes[i] = (uint8_t)(0xa0 + i);
    }
    size_t used = message_encode_hello(frames, sizeof frames, &hello);
    used += message_encode_send(frames + used, sizeof frames - used, &send);
    expect_dump(0, frames, used);
}

static const struct message_id first_id = { UINT64_C(1562254089640150528) };
static const struct message_id second_id = { UINT64_C(1562254151151740416) };

/* The dump is of what a server would do: the sender's partition stands in the id. */
static void ids_in_the_dump_are_of_their_senders_partitions(void **state)
{
    (void)state;
    assert_int_equal(first_id.value >> MESSAGE_COUNT_BITS & (PARTITION_COUNT - 1),
                     partition_of(1001).value);
    assert_int_equal(second_id.value >> MESSAGE_COUNT_BITS & (PARTITION_COUNT - 1),
                     partition_of(1002).value);
}

static size_t encode_one_entry(uint8_t *to, size_t cap, uint64_t seq, const struct entry *entry)
{
    struct entries_builder builder;

    entries_begin(&builder, to, cap, seq);
    assert_true(entries_add(&builder, entry));
    return entries_end(&builder);
}

static void second_dump_is_what_the_encoder_writes(void **state)
{
    (void)state;
    static const uint8_t token[] = { 1, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5 };
    uint8_t frames[1024];
    const struct message_hello_ok ok = {
        .time_unix_ms = UINT64_C(1764072000123),
        .epoch = 1764000000,
        .floor = 1,
        .result = HELLO_RESULT_RESET,
        .keepalive_s = 300,
        .life_s = 86400,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .sends_outstanding_max = SENDS_OUTSTANDING_MAX,
        .requests_outstanding_max = REQUESTS_OUTSTANDING_MAX,
        .window = WINDOW_BYTES_DEFAULT,
        .resume_token = { token, sizeof token },
    };
    const struct message_accepted accepted = { 1, first_id, 1 };
    const struct entry sent = { ENTRY_SENT, { .sent = { 1, first_id } } };
    const struct entry answer = { ENTRY_MESSAGE,
                                  { .message = { .device = { 3 },
                                                 .id = second_id,
                                                 .conversation = { 1002 },
                                                 .sender = { 1002 },
                                                 .prev = 1,
                                                 .n = 2,
                                                 .cn = 1,
                                                 .body = bytes_of("hi") } } };

    size_t used = message_encode_hello_ok(frames, sizeof frames, &ok);
    used += message_encode_accepted(frames + used, sizeof frames - used, &accepted);
    used += encode_one_entry(frames + used, sizeof frames - used, 1, &sent);
    used += encode_one_entry(frames + used, sizeof frames - used, 2, &answer);
    expect_dump(1, frames, used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_told_with_number_and_text),
        cmocka_unit_test(frames_are_told_with_number_and_sender),
        cmocka_unit_test(limits_are_told),
        cmocka_unit_test(first_dump_is_what_the_encoder_writes),
        cmocka_unit_test(ids_in_the_dump_are_of_their_senders_partitions),
        cmocka_unit_test(second_dump_is_what_the_encoder_writes),
    };
    return cmocka_run_group_tests(tests, load_document, NULL);
}

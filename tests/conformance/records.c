/*
 * Records that a peer with good keys may not send, sent to a server: it answers by the alert that
 * RFC 8446 has for them, and then ends. In the manner of tlsfuzzer, but the handshake is ours.
 *
 *   records HOST PORT HELLO-FRAME (in hexadecimal)
 *
 * Each row three times: to the door, before HELLO; after it; and after it right behind a PING, so
 * that an answer is under way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/tls/handshake.h"
#include "tests/unit/tls/pair.h"
#include "tests/unit/tls/refused.h"

enum {
    TIMEOUT_S = 60,
    HELLO_BYTES_MAX = 4096,
    OUT_BYTES_MAX = 1 << 17,
    FRAME_TYPE_HELLO_OK = 2,
    FRAME_TYPE_PONG = 6,
};

enum when {
    BEFORE_HELLO,
    AFTER_HELLO,
    BEHIND_A_PING,
    WHEN_COUNT,
};

static const char *const when_names[WHEN_COUNT] = { "before HELLO", "after HELLO",
                                                    "behind a PING" };

static struct sockaddr_in server_address = { .sin_family = AF_INET };
static uint8_t hello[HELLO_BYTES_MAX];
static size_t hello_bytes;

/* A connection whose records the test makes. */
struct attack {
    struct tls_client *client;
    struct tls_core core;
    struct tls_keys keys;
    int socket;
    uint8_t in[1 << 17];
    size_t in_bytes;
    uint8_t out[OUT_BYTES_MAX]; /* gathered, and sent in one piece */
    size_t out_bytes;
    int pongs;
};

/* ---- bytes */

static void attack_send(struct attack *attack)
{
    size_t sent = 0;

    while (sent < attack->out_bytes) {
        const ssize_t n =
            send(attack->socket, attack->out + sent, attack->out_bytes - sent, MSG_NOSIGNAL);

        assert_true(n > 0);
        sent += (size_t)n;
    }
    attack->out_bytes = 0;
}

/* False at the end of the stream. A reset fails the test: it may have cost the alert. */
static bool attack_receive(struct attack *attack)
{
    const ssize_t n = recv(attack->socket, attack->in + attack->in_bytes,
                           sizeof attack->in - attack->in_bytes, 0);

    assert_true(n >= 0);
    attack->in_bytes += (size_t)n;
    return n > 0;
}

static void attack_consume(struct attack *attack, size_t byte_count)
{
    attack->in_bytes -= byte_count;
    memmove(attack->in, attack->in + byte_count, attack->in_bytes);
}

static void put_inner(struct attack *attack, const void *inner, size_t inner_bytes)
{
    assert_true(attack->out_bytes + inner_bytes + TLS_RECORD_OVERHEAD <= sizeof attack->out);
    attack->out_bytes +=
        seal_inner(&attack->keys, inner, inner_bytes, attack->out + attack->out_bytes);
}

static void put_frame(struct attack *attack, const uint8_t *frame, size_t frame_bytes)
{
    uint8_t inner[HELLO_BYTES_MAX + 1];

    memcpy(inner, frame, frame_bytes);
    inner[frame_bytes] = 23;
    put_inner(attack, inner, frame_bytes + 1);
}

static void put_ping(struct attack *attack)
{
    static const uint8_t ping[] = { 0, 0, 8, 5, 0, 0, 0, 0, 0, 0, 0, 9 };

    put_frame(attack, ping, sizeof ping);
}

/* After a KeyUpdate of ours. */
static void step_own_key(struct attack *attack)
{
    assert_true(tls_direction_update(&attack->keys.tx, attack->keys.suite));
    attack->keys.tx_number = 0;
}

/* ---- life */

static uint64_t now_unix_ms(void)
{
    struct timespec now;

    assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
    return (uint64_t)now.tv_sec * 1000;
}

static void attack_dial(struct attack *attack)
{
    const struct timeval timeout = { .tv_sec = TIMEOUT_S };
    const int on = 1;

    attack->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(attack->socket >= 0);
    assert_int_equal(setsockopt(attack->socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout),
                     0);
    assert_int_equal(setsockopt(attack->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    assert_int_equal(
        connect(attack->socket, (const struct sockaddr *)&server_address, sizeof server_address),
        0);
}

static void attack_shake(struct attack *attack)
{
    struct tls_handshake *handshake =
        tls_handshake_connect(attack->client, "localhost", NULL, 0, now_unix_ms());
    enum tls_handshake_status status = TLS_HANDSHAKE_WANT_INPUT;

    assert_non_null(handshake);
    while (status == TLS_HANDSHAKE_WANT_INPUT) {
        struct tls_handshake_io io = { .in = attack->in,
                                       .in_bytes = attack->in_bytes,
                                       .out = attack->out,
                                       .out_capacity = sizeof attack->out,
                                       .now_unix_ms = now_unix_ms() };

        status = tls_handshake_step(handshake, &io);
        attack_consume(attack, io.in_used);
        attack->out_bytes = io.out_bytes;
        attack_send(attack);
        if (status == TLS_HANDSHAKE_WANT_INPUT) {
            assert_true(attack_receive(attack));
        }
    }
    assert_int_equal(status, TLS_HANDSHAKE_DONE);
    tls_handshake_take_keys(handshake, &attack->keys);
    tls_handshake_end(handshake);
}

/* The next record that isn't this layer's own affair; PONGs are counted on the way. */
static struct tls_opened attack_next(struct attack *attack)
{
    for (;;) {
        struct tls_opened opened;

        tls_record_open(&attack->core, &attack->keys, attack->in, attack->in_bytes, &opened);
        if (opened.result == TLS_OPEN_MORE) {
            if (!attack_receive(attack)) {
                return opened;
            }
        } else if (opened.result == TLS_OPEN_DATA) {
            attack->pongs += attack->in[opened.data_offset + 3] == FRAME_TYPE_PONG;
            if (attack->in[opened.data_offset + 3] != FRAME_TYPE_PONG) {
                return opened;
            }
            attack_consume(attack, opened.record_bytes);
        } else if (opened.result == TLS_OPEN_HANDLED) {
            attack_consume(attack, opened.record_bytes);
        } else {
            return opened;
        }
    }
}

static struct attack *attack_open(enum when when)
{
    struct attack *attack = calloc(1, sizeof *attack);
    struct hf_error error;

    assert_non_null(attack);
    attack->client = tls_client_open(&(struct tls_client_options){ .insecure = true }, &error);
    assert_non_null(attack->client);
    assert_int_equal(tls_core_open(&attack->core, 4, &error), 0);
    attack_dial(attack);
    attack_shake(attack);
    if (when != BEFORE_HELLO) {
        put_frame(attack, hello, hello_bytes);
        attack_send(attack);

        const struct tls_opened opened = attack_next(attack);

        assert_int_equal(opened.result, TLS_OPEN_DATA);
        assert_int_equal(attack->in[opened.data_offset + 3], FRAME_TYPE_HELLO_OK);
        attack_consume(attack, opened.record_bytes);
    }
    if (when == BEHIND_A_PING) {
        put_ping(attack);
    }
    return attack;
}

static void attack_close(struct attack *attack)
{
    tls_keys_clear(&attack->core, &attack->keys);
    tls_core_close(&attack->core);
    tls_client_close(attack->client);
    assert_int_equal(close(attack->socket), 0);
    free(attack);
}

/*
 * Sends what was put, and looks how the server takes it: by that alert and then the end of the
 * stream; for TLS_ALERT_NONE, at once by its end.
 */
static void assert_answered(struct attack *attack, enum tls_alert alert)
{
    attack_send(attack);

    const struct tls_opened opened = attack_next(attack);

    if (alert == TLS_ALERT_NONE) {
        assert_int_equal(opened.result, TLS_OPEN_MORE);
    } else {
        assert_int_equal(opened.result, TLS_OPEN_FATAL);
        assert_string_equal(tls_fault_label(opened.fault), "peer_alert");
        assert_int_equal(opened.peer_alert, alert);
        assert_int_equal(shutdown(attack->socket, SHUT_WR), 0);
        attack_consume(attack, opened.record_bytes);
        while (attack_receive(attack)) {
        }
    }
    assert_int_equal(attack->in_bytes, 0); /* an alert is the last that it says */
    attack_close(attack);
}

/* ---- single records */

static void forbidden_content_gets_its_alert(void **state)
{
    (void)state;
    for (size_t row = 0; row < REFUSED_INNER_COUNT; row++) {
        if (refused_inner[row].to != TO_SERVER) {
            continue;
        }
        for (enum when when = 0; when < WHEN_COUNT; when++) {
            struct attack *attack = attack_open(when);

            print_message("%s, %s (%s)\n", refused_inner[row].name, when_names[when],
                          refused_inner[row].source);
            put_inner(attack, refused_inner[row].inner, refused_inner[row].inner_bytes);
            assert_answered(attack, refused_inner[row].alert);
        }
    }
}

/* With all of the record that the header promises, which the server doesn't read. */
static void forbidden_header_gets_its_alert(void **state)
{
    (void)state;
    for (size_t row = 0; row < REFUSED_HEADER_COUNT; row++) {
        for (enum when when = 0; when < WHEN_COUNT; when++) {
            struct attack *attack = attack_open(when);
            const size_t header_at = attack->out_bytes;

            print_message("%s, %s (%s)\n", refused_header[row].name, when_names[when],
                          refused_header[row].source);
            memcpy(attack->out + header_at, refused_header[row].header, TLS_RECORD_HEADER_BYTES);
            attack->out_bytes +=
                TLS_RECORD_HEADER_BYTES + (size_t)load_be16(refused_header[row].header + 3);
            assert_answered(attack, refused_header[row].alert);
        }
    }
}

/* ---- what takes more than one */

static void put_bad_tag(struct attack *attack)
{
    put_inner(attack, "data\x17", 5);
    attack->out[attack->out_bytes - 1] ^= 1;
}

static void put_changed_byte(struct attack *attack)
{
    put_inner(attack, "data\x17", 5);
    attack->out[attack->out_bytes - 20] ^= 1;
}

static void put_changed_version(struct attack *attack)
{
    const size_t at = attack->out_bytes;

    put_inner(attack, "data\x17", 5);
    attack->out[at + 2] ^= 1; /* ignored, but authenticated */
}

/* Empty, so that the first is harmless. */
static void put_replay(struct attack *attack)
{
    const size_t at = attack->out_bytes;

    put_inner(attack, "\x17", 1);

    const size_t record_bytes = attack->out_bytes - at;

    memcpy(attack->out + attack->out_bytes, attack->out + at, record_bytes);
    attack->out_bytes += record_bytes;
}

static void put_skipped(struct attack *attack)
{
    attack->keys.tx_number++;
    put_inner(attack, "\x17", 1);
}

static void put_after_update_under_the_old_key(struct attack *attack)
{
    put_inner(attack, "\x18\0\0\x01\0\x16", 6);
    put_inner(attack, "\x17", 1);
}

static void put_update_number_not_reset(struct attack *attack)
{
    const uint64_t number = attack->keys.tx_number + 1;

    put_inner(attack, "\x18\0\0\x01\0\x16", 6);
    step_own_key(attack);
    attack->keys.tx_number = number;
    put_inner(attack, "\x17", 1);
}

static void put_content_too_long(struct attack *attack)
{
    static const uint8_t inner[TLS_PLAINTEXT_BYTES_MAX + 2] = { [TLS_PLAINTEXT_BYTES_MAX + 1] =
                                                                    23 };

    put_inner(attack, inner, sizeof inner);
}

static void put_padding_too_long(struct attack *attack)
{
    static const uint8_t inner[TLS_PLAINTEXT_BYTES_MAX + 2] = { 'x', 23 };

    put_inner(attack, inner, sizeof inner);
}

static void put_ciphertext_longest_of_zeros(struct attack *attack)
{
    static const uint8_t inner[TLS_CIPHERTEXT_BYTES_MAX - AEAD_TAG_BYTES];

    put_inner(attack, inner, sizeof inner);
}

static void put_data_within_a_message(struct attack *attack)
{
    put_inner(attack, "\x18\0\x16", 3);
    put_inner(attack, "x\x17", 2);
}

static void put_empty_data_within_a_message(struct attack *attack)
{
    put_inner(attack, "\x18\0\x16", 3);
    put_inner(attack, "\x17", 1);
}

static void put_empty_records_without_end(struct attack *attack)
{
    for (int count = 0; count <= TLS_QUIET_RECORDS_MAX; count++) {
        put_inner(attack, "\x17", 1);
    }
}

static void put_key_updates_without_end(struct attack *attack)
{
    for (int count = 0; count <= TLS_QUIET_RECORDS_MAX; count++) {
        put_inner(attack, "\x18\0\0\x01\x01\x16", 6);
        step_own_key(attack);
    }
}

static void put_alert_after_user_canceled(struct attack *attack)
{
    put_inner(attack, "\x01\x5a\x15", 3);
    put_inner(attack, "\x02\x28\x15", 3);
}

static const struct {
    const char *name;
    const char *source;
    void (*put)(struct attack *attack);
    enum tls_alert alert;
} refused_rows[] = {
    { "wrong tag", "5.2", put_bad_tag, TLS_ALERT_BAD_RECORD_MAC },
    { "changed ciphertext", "5.2", put_changed_byte, TLS_ALERT_BAD_RECORD_MAC },
    { "changed version", "5.2", put_changed_version, TLS_ALERT_BAD_RECORD_MAC },
    { "a record twice", "5.3", put_replay, TLS_ALERT_BAD_RECORD_MAC },
    { "a record left out", "5.3", put_skipped, TLS_ALERT_BAD_RECORD_MAC },
    { "the old key after KeyUpdate", "4.6.3", put_after_update_under_the_old_key,
      TLS_ALERT_BAD_RECORD_MAC },
    { "numbers that go on after KeyUpdate", "5.3", put_update_number_not_reset,
      TLS_ALERT_BAD_RECORD_MAC },
    { "more than 2^14 of content", "5.4", put_content_too_long, TLS_ALERT_RECORD_OVERFLOW },
    { "more than 2^14 with padding", "5.4", put_padding_too_long, TLS_ALERT_RECORD_OVERFLOW },
    { "2^14 + 256 of zeros", "5.4", put_ciphertext_longest_of_zeros, TLS_ALERT_RECORD_OVERFLOW },
    { "data within a handshake message", "5.1", put_data_within_a_message,
      TLS_ALERT_UNEXPECTED_MESSAGE },
    { "empty data within a handshake message", "5.1", put_empty_data_within_a_message,
      TLS_ALERT_UNEXPECTED_MESSAGE },
    { "empty records without end", "our limit", put_empty_records_without_end,
      TLS_ALERT_UNEXPECTED_MESSAGE },
    { "KeyUpdates without end", "our limit", put_key_updates_without_end,
      TLS_ALERT_UNEXPECTED_MESSAGE },
    { "fatal alert after user_canceled", "6.2", put_alert_after_user_canceled, TLS_ALERT_NONE },
};

static void forbidden_records_get_their_alert(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof refused_rows / sizeof refused_rows[0]; row++) {
        for (enum when when = 0; when < WHEN_COUNT; when++) {
            struct attack *attack = attack_open(when);

            print_message("%s, %s (%s)\n", refused_rows[row].name, when_names[when],
                          refused_rows[row].source);
            refused_rows[row].put(attack);
            assert_answered(attack, refused_rows[row].alert);
        }
    }
}

/* ---- what must be taken */

static void put_longest(struct attack *attack)
{
    static uint8_t inner[TLS_PLAINTEXT_BYTES_MAX + 1];
    static const uint8_t whole[] = { 0, 0x3e, 0x7c,
                                     200 };               /* 16,000 bytes of a type to be ignored */
    static const uint8_t rest[] = { 0, 0x01, 0x7c, 200 }; /* the other 384 */

    memcpy(inner, whole, sizeof whole);
    memcpy(inner + 16000, rest, sizeof rest);
    inner[TLS_PLAINTEXT_BYTES_MAX] = 23;
    put_inner(attack, inner, sizeof inner);
}

static void put_longest_padding(struct attack *attack)
{
    static uint8_t inner[TLS_PLAINTEXT_BYTES_MAX + 1] = { 23 };

    put_inner(attack, inner, sizeof inner);
}

static void put_split_update(struct attack *attack)
{
    put_inner(attack, "\x18\x16", 2);
    put_inner(attack, "\0\0\x16", 3);
    put_inner(attack, "\x01\x01\x16", 3);
    step_own_key(attack);
}

static void put_padded_update(struct attack *attack)
{
    put_inner(attack, "\x18\0\0\x01\x01\x16\0\0\0", 9);
    step_own_key(attack);
}

static void put_user_canceled(struct attack *attack)
{
    put_inner(attack, "\x01\x5a\x15", 3);
}

static void put_empty_records(struct attack *attack)
{
    for (int count = 0; count < TLS_QUIET_RECORDS_MAX; count++) {
        put_inner(attack, count % 2 == 0 ? "\x17" : "\x17\0\0", count % 2 == 0 ? 1 : 3);
    }
}

static const struct {
    const char *name;
    void (*put)(struct attack *attack);
} taken_rows[] = {
    { "2^14 bytes of content", put_longest },
    { "2^14 bytes of padding", put_longest_padding },
    { "a KeyUpdate in three records", put_split_update },
    { "a padded KeyUpdate", put_padded_update },
    { "user_canceled, and on", put_user_canceled },
    { "empty records", put_empty_records },
};

static void legal_records_are_taken(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof taken_rows / sizeof taken_rows[0]; row++) {
        struct attack *attack = attack_open(AFTER_HELLO);

        print_message("%s\n", taken_rows[row].name);
        taken_rows[row].put(attack);
        put_ping(attack);
        put_inner(attack, "\x01\0\x15", 3); /* close_notify: what was asked before is answered */
        attack_send(attack);

        const struct tls_opened opened = attack_next(attack);

        assert_int_equal(opened.result, TLS_OPEN_CLOSED);
        assert_int_equal(attack->pongs, 1);
        attack_close(attack);
    }
}

static void legal_records_before_hello_are_taken(void **state)
{
    (void)state;
    for (size_t row = 1; row < sizeof taken_rows / sizeof taken_rows[0]; row++) {
        struct attack *attack = attack_open(BEFORE_HELLO);

        print_message("%s\n", taken_rows[row].name);
        taken_rows[row].put(attack);
        put_frame(attack, hello, hello_bytes);
        attack_send(attack);

        const struct tls_opened opened = attack_next(attack);

        assert_int_equal(opened.result, TLS_OPEN_DATA);
        assert_int_equal(attack->in[opened.data_offset + 3], FRAME_TYPE_HELLO_OK);
        attack_close(attack);
    }
}

static void close_notify_before_hello_is_answered(void **state)
{
    struct attack *attack = attack_open(BEFORE_HELLO);

    (void)state;
    put_inner(attack, "\x01\0\x15", 3);
    attack_send(attack);
    assert_int_equal(attack_next(attack).result, TLS_OPEN_CLOSED);
    attack_close(attack);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(forbidden_content_gets_its_alert),
    cmocka_unit_test(forbidden_header_gets_its_alert),
    cmocka_unit_test(forbidden_records_get_their_alert),
    cmocka_unit_test(legal_records_are_taken),
    cmocka_unit_test(legal_records_before_hello_are_taken),
    cmocka_unit_test(close_notify_before_hello_is_answered),
};

int main(int argc, char **argv)
{
    struct hf_error error;

    if (argc != 4 || inet_pton(AF_INET, argv[1], &server_address.sin_addr) != 1 ||
        strlen(argv[3]) > 2 * sizeof hello) {
        (void)fprintf(stderr, "usage: records HOST PORT HELLO-FRAME\n");
        return 64;
    }
    server_address.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
    hello_bytes = hex_decode(argv[3], hello, sizeof hello);
    if (tls_global_init(&error) != 0) {
        (void)fprintf(stderr, "%s\n", error.text);
        return 70;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

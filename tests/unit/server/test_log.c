#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/io/mailbox.h"
#include "core/server/log.h"

/* Standard error goes into a pipe while logs are drained. */
static size_t drain_to_text(struct log *const *logs, uint32_t count, char *text, size_t room)
{
    int ends[2];
    const int kept = dup(STDERR_FILENO);

    assert_int_equal(pipe(ends), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 18) > 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    (void)log_drain(logs, count);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(kept);
    (void)close(ends[1]);

    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], text + length, room - 1 - length)) > 0) {
        length += (size_t)got;
    }
    (void)close(ends[0]);
    text[length] = '\0';
    return length;
}

static struct log *open_log(enum log_level level)
{
    struct hf_error error;
    struct log *log = log_open("reactor", 1, level, NULL, &error);

    assert_non_null(log);
    return log;
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;

    for (; *text != '\0'; text++) {
        lines += *text == '\n';
    }
    return lines;
}

static void event_is_one_line_of_pairs(void **state)
{
    (void)state;
    struct log *log = open_log(LOG_INFO);
    char text[4096];

    log_event(log, LOG_WARNING, "cursor_ahead", "user=%d", 42);
    log_event(log, LOG_INFO, "plain", "%s", "");
    (void)drain_to_text(&log, 1, text, sizeof text);
    assert_int_equal(count_lines(text), 2);
    assert_int_equal(text[10], 'T');
    assert_int_equal(text[23], 'Z');
    assert_non_null(
        strstr(text, "Z level=warning event=cursor_ahead thread=reactor core=1 user=42\n"));
    assert_non_null(strstr(text, "Z level=info event=plain thread=reactor core=1"));
    log_close(log);
}

/* A server whose log nobody reads any more serves on; what it has to say then is counted as lost. */
static void pipe_that_nobody_reads_stops_nobody(void **state)
{
    (void)state;
    static const char events[1000][2] = { "x" }; /* each of its own: none is suppressed */
    struct log *log = open_log(LOG_INFO);
    const int kept = dup(STDERR_FILENO);
    char text[4096];
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    for (uint32_t i = 0; i < 1000; i++) { /* far more than a pipe holds */
        log_event(log, LOG_INFO, events[i], "%0400d", 0);
        (void)log_drain(&log, 1);
    }
    assert_false(log_may_write());
    assert_true(log_get_lost(log) > 500);
    log_fatal("failed", "it ends nevertheless");
    while (log_waits(&log, 1)) { /* somebody reads again: what was kept comes */
        assert_true(read(ends[0], text, sizeof text) > 0);
        (void)log_drain(&log, 1);
    }
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(kept);
    (void)close(ends[0]);
    (void)close(ends[1]);
    log_close(log);
}

static void level_below_the_log_s_is_left_out(void **state)
{
    (void)state;
    struct log *log = open_log(LOG_WARNING);
    char text[4096];

    log_event(log, LOG_INFO, "quiet", "a=1");
    log_event(log, LOG_DEBUG, "quieter", "a=1");
    assert_false(log_waits(&log, 1));
    log_event(log, LOG_ERROR, "loud", "a=1");
    assert_true(log_waits(&log, 1));
    (void)drain_to_text(&log, 1, text, sizeof text);
    assert_int_equal(count_lines(text), 1);
    assert_non_null(strstr(text, "event=loud"));
    log_close(log);
}

static void control_characters_and_length_are_tamed(void **state)
{
    (void)state;
    struct log *log = open_log(LOG_INFO);
    char text[4096];
    char long_text[2000];

    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    log_event(log, LOG_INFO, "hostile", "name=\"%s\"", "a\nlevel=error event=forged\r\x1b[2J");
    log_event(log, LOG_INFO, "long", "name=\"%s\"", long_text);
    (void)drain_to_text(&log, 1, text, sizeof text);
    assert_int_equal(count_lines(text), 2);
    assert_non_null(strstr(text, "name=\"a?level=error event=forged??[2J\"\n"));
    assert_true(strlen(strchr(text, '\n') + 1) == 510);
    log_close(log);
}

static void event_that_comes_too_often_is_counted(void **state)
{
    (void)state;
    static const char often[] = "often";
    struct log *log = open_log(LOG_INFO);
    char text[65536];

    /* 120 of one event, within a second or two: at least 20 must be left out. */
    for (int i = 0; i < 120; i++) {
        log_event(log, LOG_INFO, often, "i=%d", i);
    }
    log_event(log, LOG_INFO, "another", "a=1");
    (void)drain_to_text(&log, 1, text, sizeof text);
    assert_true(count_lines(text) <= 103);
    assert_true(log_get_lost(log) >= 20);
    assert_non_null(strstr(text, "event=another"));
    log_close(log);
}

static void lines_without_room_are_dropped_and_counted(void **state)
{
    (void)state;
    static const char *const events[] = { "a", "b", "c", "d", "e", "f" };
    struct log *log = open_log(LOG_INFO);
    char text[262144];

    for (int i = 0; i < 180; i++) { /* 30 of each: none is too often; 128 have room */
        log_event(log, LOG_INFO, events[i % 6], "i=%d", i);
    }
    assert_int_equal(log_get_lost(log), 52);
    (void)drain_to_text(&log, 1, text, sizeof text);
    assert_int_equal(count_lines(text), 128);
    log_event(log, LOG_INFO, "g", "i=1");
    (void)drain_to_text(&log, 1, text, sizeof text);
    assert_non_null(strstr(text, "event=log_dropped thread=reactor core=1 count=52\n"));
    assert_non_null(strstr(text, "event=g "));
    log_close(log);
}

static void *log_a_line(void *argument)
{
    log_event(argument, LOG_INFO, "from_elsewhere", "a=1");
    return NULL;
}

static void line_wakes_a_node_that_sleeps(void **state)
{
    (void)state;
    struct bell bell;
    struct hf_error error;
    pthread_t thread;

    assert_true(bell_open(&bell, &error));
    struct log *log = log_open("door", 0, LOG_INFO, &bell, &error);
    assert_non_null(log);
    bell_prepare(&bell);
    assert_false(log_waits(&log, 1));
    assert_int_equal(pthread_create(&thread, NULL, log_a_line, log), 0);
    struct pollfd waited = { .fd = bell.fd, .events = POLLIN };
    assert_int_equal(poll(&waited, 1, 10000), 1);
    bell_cancel(&bell);
    assert_true(log_waits(&log, 1));
    assert_int_equal(pthread_join(thread, NULL), 0);
    log_close(log);
    bell_close(&bell);
}

static void levels_are_parsed_by_name(void **state)
{
    (void)state;
    enum log_level level;

    assert_true(log_parse_level("error", &level) && level == LOG_ERROR);
    assert_true(log_parse_level("debug", &level) && level == LOG_DEBUG);
    assert_false(log_parse_level("Error", &level));
    assert_false(log_parse_level("", &level));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_is_one_line_of_pairs),
        cmocka_unit_test(level_below_the_log_s_is_left_out),
        cmocka_unit_test(pipe_that_nobody_reads_stops_nobody),
        cmocka_unit_test(control_characters_and_length_are_tamed),
        cmocka_unit_test(event_that_comes_too_often_is_counted),
        cmocka_unit_test(lines_without_room_are_dropped_and_counted),
        cmocka_unit_test(line_wakes_a_node_that_sleeps),
        cmocka_unit_test(levels_are_parsed_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

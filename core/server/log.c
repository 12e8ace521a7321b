#include "core/server/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/mailbox.h"
#include "core/server/stats.h"

#define LINE_BYTES_MAX 510
#define LINES_WAITING  128
#define EVENTS_TRACKED 32
#define LINES_A_SECOND 50
#define DRAIN_BYTES    4096 /* what a pipe that is writable takes without blocking */
#define FATAL_WAIT_MS  200
_Static_assert(DRAIN_BYTES <= PIPE_BUF, "else a write may block, though the pipe is writable");

struct log_line {
    uint16_t byte_count;
    char bytes[LINE_BYTES_MAX]; /* with its newline, without a NUL */
};
_Static_assert(sizeof(struct log_line) % 8 == 0, "mailbox_open wants it");

/* How often an event came in the present second. */
struct log_rate {
    const char *event;
    uint64_t second;
    uint32_t count;
    uint32_t suppressed;
};

struct log {
    struct mailbox lines;
    char who[32]; /* "thread=reactor core=1" */
    enum log_level level;
    struct log_rate rates[EVENTS_TRACKED];
    uint32_t oldest_rate;
    uint64_t dropped; /* since that was last said */
    stat_t lost;
};

static const char *const level_names[] = { "error", "warning", "info", "debug" };

bool log_parse_level(const char *text, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

struct log *log_open(const char *source, uint32_t core, enum log_level level, struct bell *bell,
                     struct hf_error *error)
{
    struct log *log = aligned_alloc(64, (sizeof *log + 63) / 64 * 64);

    if (log == NULL) {
        hf_error_set(error, EX_OSERR, 0, "log: no memory");
        return NULL;
    }
    memset(log, 0, sizeof *log);
    if (!mailbox_open(&log->lines, sizeof(struct log_line), LINES_WAITING, bell, error)) {
        free(log);
        hf_error_prepend(error, "log");
        return NULL;
    }
    log->level = level;
    if (core == LOG_NO_CORE) {
        (void)snprintf(log->who, sizeof log->who, "thread=%s", source);
    } else {
        (void)snprintf(log->who, sizeof log->who, "thread=%s core=%u", source, core);
    }
    return log;
}

void log_close(struct log *log)
{
    if (log != NULL) {
        mailbox_close(&log->lines);
        free(log);
    }
}

uint64_t log_get_lost(const struct log *log)
{
    return stat_get(&log->lost);
}

/* ---- lines */

static size_t put_head(char *to, size_t room, enum log_level level, const char *event,
                       const char *who)
{
    const uint64_t now_ms = clock_unix_ms();
    const time_t now_s = (time_t)(now_ms / 1000);
    struct tm utc;

    (void)gmtime_r(&now_s, &utc);
    const int written =
        snprintf(to, room, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ level=%s event=%s %s",
                 utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                 utc.tm_sec, (unsigned)(now_ms % 1000), level_names[level], event, who);
    return written < 0 ? 0 : (size_t)written < room ? (size_t)written : room - 1;
}

/* Takes the place of a NUL by a newline; whatever the text, one event is one line. */
static size_t finish_line(char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[length] = '\n';
    return length + 1;
}

static size_t put_line(char line[LINE_BYTES_MAX], enum log_level level, const char *event,
                       const char *who, const char *format, va_list arguments)
    __attribute__((format(printf, 5, 0)));

static size_t put_line(char line[LINE_BYTES_MAX], enum log_level level, const char *event,
                       const char *who, const char *format, va_list arguments)
{
    size_t length = put_head(line, LINE_BYTES_MAX - 1, level, event, who);

    if (format[0] != '\0' && length < LINE_BYTES_MAX - 2) {
        line[length++] = ' ';
        const int written = vsnprintf(line + length, LINE_BYTES_MAX - length, format, arguments);
        const size_t room = LINE_BYTES_MAX - 1 - length;

        length += written < 0 ? 0 : (size_t)written < room ? (size_t)written : room;
    }
    return finish_line(line, length);
}

static void give_line(struct log *log, enum log_level level, const char *event, const char *format,
                      va_list arguments) __attribute__((format(printf, 4, 0)));

static void give_line(struct log *log, enum log_level level, const char *event, const char *format,
                      va_list arguments)
{
    struct log_line line;

    line.byte_count = (uint16_t)put_line(line.bytes, level, event, log->who, format, arguments);
    if (!mailbox_give(&log->lines, &line)) {
        log->dropped++;
        stat_add(&log->lost, 1);
        return;
    }
    mailbox_send(&log->lines);
}

static void give_formatted(struct log *log, enum log_level level, const char *event,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));

static void give_formatted(struct log *log, enum log_level level, const char *event,
                           const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    give_line(log, level, event, format, arguments);
    va_end(arguments);
}

/* What had to be left out, once the thread logs again in a later second. */
static void say_lost(struct log *log, uint64_t second)
{
    for (uint32_t i = 0; i < EVENTS_TRACKED; i++) {
        struct log_rate *rate = &log->rates[i];

        if (rate->suppressed != 0 && rate->second != second) {
            const uint32_t suppressed = rate->suppressed;

            rate->suppressed = 0;
            give_formatted(log, LOG_WARNING, "suppressed", "of=%s count=%u", rate->event,
                           suppressed);
        }
    }
    if (log->dropped != 0 && mailbox_room(&log->lines) > 1) {
        const uint64_t dropped = log->dropped;

        log->dropped = 0;
        give_formatted(log, LOG_WARNING, "log_dropped", "count=%llu", (unsigned long long)dropped);
    }
}

static struct log_rate *find_rate(struct log *log, const char *event)
{
    for (uint32_t i = 0; i < EVENTS_TRACKED; i++) {
        if (log->rates[i].event == event) {
            return &log->rates[i];
        }
    }

    /* More kinds of events than we track: the one that came in first makes room. */
    struct log_rate *rate = &log->rates[log->oldest_rate];

    log->oldest_rate = (log->oldest_rate + 1) % EVENTS_TRACKED;
    *rate = (struct log_rate){ .event = event };
    return rate;
}

static bool within_rate(struct log *log, const char *event, uint64_t second)
{
    struct log_rate *rate = find_rate(log, event);

    if (rate->second != second) {
        rate->second = second;
        rate->count = 0;
    }
    if (rate->count >= LINES_A_SECOND) {
        rate->suppressed++;
        stat_add(&log->lost, 1);
        return false;
    }
    rate->count++;
    return true;
}

void log_event(struct log *log, enum log_level level, const char *event, const char *format, ...)
{
    const uint64_t second = clock_now_ns() / CLOCK_NS_PER_S;
    va_list arguments;

    if (level > log->level) {
        return;
    }
    say_lost(log, second);
    if (!within_rate(log, event, second)) {
        return;
    }
    va_start(arguments, format);
    give_line(log, level, event, format, arguments);
    va_end(arguments);
}

/* ---- writing out */

/* A reader that has stopped must not stop the thread that serves signals and metrics. */
static bool may_write(int wait_ms)
{
    struct pollfd poll_error = { .fd = STDERR_FILENO, .events = POLLOUT };

    return poll(&poll_error, 1, wait_ms) > 0;
}

bool log_may_write(void)
{
    return may_write(0);
}

/* At most DRAIN_BYTES. */
static void write_all(const char *bytes, size_t byte_count, int wait_ms)
{
    while (byte_count > 0 && may_write(wait_ms)) {
        const ssize_t written = write(STDERR_FILENO, bytes, byte_count);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return;
        }
        bytes += written;
        byte_count -= (size_t)written;
    }
}

/* What is gathered will be written by one call, so only its beginning has to be allowed. */
static bool log_may_take(size_t gathered_bytes)
{
    return gathered_bytes != 0 || may_write(0);
}

bool log_drain(struct log *const *logs, uint32_t log_count)
{
    char bytes[DRAIN_BYTES];
    size_t byte_count = 0;
    bool any = false;

    for (uint32_t i = 0; i < log_count; i++) {
        const struct log_line *line;

        while (log_may_take(byte_count) && (line = mailbox_take(&logs[i]->lines)) != NULL) {
            HF_ASSERT(line->byte_count <= LINE_BYTES_MAX);
            memcpy(bytes + byte_count, line->bytes, line->byte_count);
            byte_count += line->byte_count;
            any = true;
            if (byte_count > sizeof bytes - LINE_BYTES_MAX) {
                write_all(bytes, byte_count, 0);
                byte_count = 0;
            }
        }
    }
    write_all(bytes, byte_count, 0);
    return any;
}

bool log_waits(struct log *const *logs, uint32_t log_count)
{
    for (uint32_t i = 0; i < log_count; i++) {
        if (!mailbox_empty(&logs[i]->lines)) {
            return true;
        }
    }
    return false;
}

void log_fatal(const char *event, const char *format, ...)
{
    char line[LINE_BYTES_MAX];
    va_list arguments;

    va_start(arguments, format);
    const size_t byte_count = put_line(line, LOG_ERROR, event, "thread=any", format, arguments);
    va_end(arguments);
    write_all(line, byte_count, FATAL_WAIT_MS);
}

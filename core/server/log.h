/*
 * log: structured events, one a line: time, level, event=..., who, key=value ... on standard error.
 *
 *   2026-01-31T12:00:00.123Z level=warning event=cursor_ahead thread=reactor core=1 user=42
 *
 * Owner    One struct log a thread, which formats into a bounded mailbox of lines; the node's
 *          thread writes them out (log_drain), so that no reactor waits for a terminal or pipe.
 * Thread   log_event: the owner of that struct log. log_drain: the node's. log_fatal: any.
 * Memory   Taken by log_open. Lines that find no room are dropped and counted; the count is logged.
 * Rate     At most 50 lines of one event a second and thread; the rest are counted in a line
 *          event=suppressed, at the thread's next event in a later second. Never a body, a token or
 *          a key.
 * Errors   What can't be written (a closed pipe) is lost: a server doesn't stop for its log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

enum log_level {
    LOG_ERROR,
    LOG_WARNING,
    LOG_INFO,
    LOG_DEBUG,
};

#define LOG_NO_CORE UINT32_MAX

struct log;
struct bell;

/*
 * `source`: "reactor", "door", ...; with `core` it names the thread. `bell` is rung when a line
 * waits and the node sleeps.
 */
struct log *log_open(const char *source, uint32_t core, enum log_level level, struct bell *bell,
                     struct hf_error *error) __attribute__((warn_unused_result));
void log_close(struct log *log);

/*
 * `event` is a literal: its pointer counts for the rate. The text is key=value pairs, and may be
 * empty; control characters in it (from peers) are written as '?'.
 */
void log_event(struct log *log, enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Writes out what the logs hold. Returns whether anything was. While standard error takes nothing (a
 * pipe that nobody reads) lines stay where they are, and what finds no room there is dropped.
 */
bool log_drain(struct log *const *logs, uint32_t log_count);

/* Whether standard error takes bytes now. */
bool log_may_write(void);

/* Whether a line waits: to be asked between bell_prepare and sleeping. */
bool log_waits(struct log *const *logs, uint32_t log_count);

/* Lines that found no room or were too many, since log_open. */
uint64_t log_get_lost(const struct log *log);

/*
 * Writes one line at once, at level error: the process is about to end. Waits for a pipe that is full,
 * but not for long.
 */
void log_fatal(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "error", "warning", "info", "debug". */
bool log_parse_level(const char *text, enum log_level *level) __attribute__((warn_unused_result));

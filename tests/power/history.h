/*
 * history: a log of the recorder (oplog.h), read whole, with beginnings and ends of operations
 * joined.
 *
 * Owner    The caller's. The log's file must stay: payloads are mapped.
 * Thread   Read by any, after history_open.
 * Errors   A log that can't be ends the program, and says where.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/power/oplog.h"

#define HISTORY_NONE SIZE_MAX

struct history_op {
    const struct op *op;
    const uint8_t *payload;
    size_t other; /* of a beginning its end, and the other way round; HISTORY_NONE */
};

struct history {
    const uint8_t *map;
    size_t map_bytes;
    struct history_op *ops;
    size_t count;
    size_t whole_bytes; /* of the log: behind it an op was cut off when its process was killed */
};

void history_open(struct history *history, const char *path);
void history_close(struct history *history);

/* What an op is, for a message: "write of 4096 at 8192". */
void history_describe(const struct history *history, size_t op, char *text, size_t room);

/* Ends the program with a message. */
void power_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void *power_grow(void *memory, size_t *room, size_t needed, size_t unit);

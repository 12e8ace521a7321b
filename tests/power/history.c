#include "tests/power/history.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define IN_FLIGHT_MAX 256

void power_die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("power_images: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    exit(70);
}

void *power_grow(void *memory, size_t *room, size_t needed, size_t unit)
{
    if (needed <= *room) {
        return memory;
    }
    *room = needed + needed / 2 + 16;
    memory = realloc(memory, *room * unit);
    if (memory == NULL) {
        power_die("no memory");
    }
    return memory;
}

/* Operations that have begun and not ended: few at a time. */
struct in_flight {
    size_t ops[IN_FLIGHT_MAX];
    size_t count;
};

static void join(struct history *history, struct in_flight *flight, size_t index)
{
    const struct op *op = history->ops[index].op;

    switch (op->kind) {
    case OP_START:
        flight->count = 0; /* what the last process had begun ends with it */
        break;
    case OP_WRITE:
    case OP_SYNC:
        if (flight->count == IN_FLIGHT_MAX) { /* syncs that failed never end */
            memmove(flight->ops, flight->ops + 1, (IN_FLIGHT_MAX - 1) * sizeof flight->ops[0]);
            flight->count--;
        }
        flight->ops[flight->count++] = index;
        break;
    case OP_WRITTEN:
    case OP_SYNCED:
        for (size_t i = flight->count; i-- > 0;) {
            if (history->ops[flight->ops[i]].op->id == op->id) {
                history->ops[index].other = flight->ops[i];
                history->ops[flight->ops[i]].other = index;
                flight->ops[i] = flight->ops[--flight->count];
                return;
            }
        }
        power_die("op %zu ends one that hasn't begun", index);
    default:
        break;
    }
}

void history_open(struct history *history, const char *path)
{
    struct stat status;
    struct in_flight flight = { .count = 0 };
    size_t room = 0;
    size_t at = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    memset(history, 0, sizeof *history);
    if (fd < 0 || fstat(fd, &status) != 0 || status.st_size == 0) {
        power_die("%s: no log", path);
    }
    history->map_bytes = (size_t)status.st_size;

    void *map = mmap(NULL, history->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);

    if (map == MAP_FAILED) {
        power_die("%s: mmap", path);
    }
    (void)close(fd);
    history->map = map;
    while (history->map_bytes - at >= sizeof(struct op)) {
        /* Payloads have any length: an op may lie anywhere, which this machine doesn't mind. */
        struct op *op = malloc(sizeof *op);

        if (op == NULL) {
            power_die("no memory");
        }
        memcpy(op, history->map + at, sizeof *op);
        if (op->magic != OP_MAGIC) {
            power_die("%s: no op at byte %zu", path, at);
        }
        if (op->payload_bytes > history->map_bytes - at - sizeof *op) {
            free(op);
            break;
        }
        history->ops = power_grow(history->ops, &room, history->count + 1, sizeof *history->ops);
        history->ops[history->count] =
            (struct history_op){ op, history->map + at + sizeof *op, HISTORY_NONE };
        join(history, &flight, history->count);
        history->count++;
        at += sizeof *op + (size_t)op->payload_bytes;
    }
    history->whole_bytes = at;
}

void history_close(struct history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        union {
            const struct op *in;
            struct op *out;
        } op = { .in = history->ops[i].op };
        free(op.out);
    }
    free(history->ops);

    union {
        const uint8_t *in;
        void *out;
    } map = { .in = history->map };
    (void)munmap(map.out, history->map_bytes);
    memset(history, 0, sizeof *history);
}

void history_describe(const struct history *history, size_t index, char *text, size_t room)
{
    static const char *const kinds[] = { "",       "start",         "write", "end of a write",
                                         "sync",   "end of a sync", "size",  "make",
                                         "rename", "unlink" };
    if (index >= history->count) {
        (void)snprintf(text, room, "the end");
        return;
    }
    const struct op *op = history->ops[index].op;

    (void)snprintf(text, room, "op %zu, a %s, inode %" PRIu64 ", %" PRIu64 " bytes at %" PRIu64,
                   index, op->kind <= OP_UNLINK ? kinds[op->kind] : "?", op->file, op->byte_count,
                   op->offset);
}

/*
 * The journal's writes, by the linker's --wrap: submitted in the reactor, and complete when the
 * reactor hears of it. One is in flight a core, and a core is a thread.
 */
#include <stdlib.h>

#include "core/io/ring_ops.h"
#include "core/server/storage.h"
#include "tests/power/record.h"

/* With --wrap=NAME, whoever calls NAME gets the one, and NAME itself is called as the other. */
#define WRAPPED(name) __asm__("__wrap_" #name)
#define REAL(name)    __asm__("__real_" #name)

void real_write_durable(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                        uint64_t offset, uint64_t tag) REAL(ring_write_durable);
void real_write(struct ring *ring, int fd, const void *bytes, uint32_t byte_count, uint64_t offset,
                uint64_t tag) REAL(ring_write);
bool real_on_written(struct storage *storage, const struct ring_event *event, uint64_t *ticket)
    REAL(storage_on_written);
int real_env_sync(void *env, int force) REAL(mdb_env_sync);

void record_write_durable(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                          uint64_t offset, uint64_t tag) WRAPPED(ring_write_durable);
void record_write(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                  uint64_t offset, uint64_t tag) WRAPPED(ring_write);
void record_datasync(struct ring *ring, int fd, uint64_t tag) WRAPPED(ring_datasync);
bool record_on_written(struct storage *storage, const struct ring_event *event, uint64_t *ticket)
    WRAPPED(storage_on_written);
int record_env_sync(void *env, int force) WRAPPED(mdb_env_sync);

/* The thread's write in flight. */
static _Thread_local struct {
    uint64_t id;
    uint64_t file;
    uint16_t flags;
    int fault;
} flight;

/* The descriptor to write to: -1, and nothing is written, where it is to fail. */
static int begin(int fd, const void *bytes, uint32_t byte_count, uint64_t offset, uint16_t flags)
{
    flight.fault = record_fault(RECORD_CALL_JOURNAL, fd, NULL);
    flight.flags = flags;
    flight.file = 0;
    if (flight.fault != 0) {
        return -1;
    }
    if (record_is_ours(fd, &flight.file)) {
        flight.id = record_begin(OP_WRITE, flags, flight.file, offset, bytes, byte_count);
    }
    return fd;
}

void record_write_durable(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                          uint64_t offset, uint64_t tag)
{
    real_write_durable(ring, begin(fd, bytes, byte_count, offset, OP_DURABLE), bytes, byte_count,
                       offset, tag);
}

void record_write(struct ring *ring, int fd, const void *bytes, uint32_t byte_count,
                  uint64_t offset, uint64_t tag)
{
    real_write(ring, begin(fd, bytes, byte_count, offset, 0), bytes, byte_count, offset, tag);
}

/* The server doesn't use it: whoever begins to must teach the recorder. */
void record_datasync(struct ring *ring, int fd, uint64_t tag)
{
    (void)ring;
    (void)fd;
    (void)tag;
    abort();
}

bool record_on_written(struct storage *storage, const struct ring_event *event, uint64_t *ticket)
{
    struct ring_event seen = *event;

    if (flight.fault != 0) {
        seen.result = -flight.fault;
    } else if (flight.file != 0 && seen.result > 0) {
        record_end(OP_WRITTEN, flight.flags, flight.id, flight.file, (uint64_t)seen.result);
    }
    return real_on_written(storage, &seen, ticket);
}

int record_env_sync(void *env, int force)
{
    record_explicit = true;

    const int code = real_env_sync(env, force);

    record_explicit = false;
    return code;
}

/*
 * storage: one core's share of the store, as its threads use it: the journal and its index in the
 * reactor, a flusher thread that carries the journal into the volumes, a reader thread for what may
 * touch the disk.
 *
 * Owner    The node opens it with the core's volumes and closes it after its threads have ended.
 * Thread   storage_flusher_run and storage_reader_run are thread bodies. The functions below the
 *          line "reactor" are the reactor's. struct storage_load goes back and forth by mail, and
 *          whoever has it owns it.
 * Memory   Taken by storage_open. The flusher takes memory for each flush, and gives it back.
 * Errors   A failed journal write or sync, a volume that can't be read or written, and damage that a
 *          flush meets stop the process by the callback `fail`: what is durable is no longer known,
 *          and a restart replays. A full disk doesn't: the flusher waits for room, the journal
 *          fills, and new SENDs are refused meanwhile. Nor does a damaged row that the reader meets:
 *          its user is refused (LOAD_DAMAGED), and storage_get_damage() names it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/engine/engine.h"
#include "core/io/ring.h"
#include "core/server/config.h"
#include "core/server/post.h"
#include "core/server/stats.h"
#include "store/directory.h"
#include "store/expire.h"
#include "store/reader.h"
#include "store/volume.h"

#define STORAGE_LOADS_MAX    64
#define STORAGE_ANSWER_BYTES 32768
#define STORAGE_PAUSE_NS_MAX UINT64_C(8000000)
#define STORAGE_PLACES_MAX   264 /* what the engine walks to find a page */

struct storage;

struct storage_options {
    const struct config *config;
    struct post *post;
    uint32_t index; /* of the core */
    const struct directory *directory;
    struct volume *const *volumes; /* by number; NULL: another core's */
    uint16_t volume_count;
    struct journal_config journal;
    /* Stops the process; may be called from any thread, and returns. */
    void (*fail)(void *context, const char *text);
    void *fail_context;
};

struct storage *storage_open(const struct storage_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
void storage_close(struct storage *storage);

/* Thread bodies: struct storage *. They end after storage_stop. */
void *storage_flusher_run(void *storage);
void *storage_reader_run(void *storage);
void storage_stop(struct storage *storage); /* any thread */

/* At start, before the threads run: tells the engine of each partition of the core's volumes. */
bool storage_open_partitions(struct storage *storage, struct engine *engine, struct hf_error *error)
    __attribute__((warn_unused_result));

/* ---- reactor ---- */

void storage_get_budget(const struct storage *storage, struct engine_budget *budget);
void storage_append(struct storage *storage, uint64_t ticket, const uint8_t *records,
                    size_t byte_count);

/* Submits the next write if none is in flight, and begins a flush when one is due. */
void storage_pump(struct storage *storage, struct ring *ring, uint64_t tag, uint64_t now_ns,
                  struct reactor_stats *stats);
/* That write's completion. True: *ticket and everything before it are durable. */
bool storage_on_written(struct storage *storage, const struct ring_event *event, uint64_t *ticket)
    __attribute__((warn_unused_result));

/*
 * How long the reactor should rest after it worked so long: the flusher may share its CPU, and when
 * new messages come faster than it can carry them off, they had better come slower than be refused.
 * 0 unless the journal fills up while it is flushed; as long as the work itself half-way to the
 * refusals.
 */
uint64_t storage_pause_ns(const struct storage *storage, uint64_t worked_ns);
/* The same, of a journal that is so full and a mark from which to rest. */
uint64_t storage_pause_for(uint64_t worked_ns, uint32_t used_permille, uint32_t from_permille);

/* How long until storage_pump has something to do by itself. */
uint64_t storage_wait_ns(const struct storage *storage, uint64_t now_ns);

/* The engine is short of cells: flush at the next opportunity. */
void storage_want_flush(struct storage *storage);
/* Asks the reader. Never refused: the engine has at most STORAGE_LOADS_MAX loads under way. */
void storage_load(struct storage *storage, const struct load *load);

/* An answer from the flusher: what was flushed. */
void storage_on_flushed(struct storage *storage, const struct mail *mail, uint64_t *ticket,
                        uint64_t *lsn);
/* A row of a volume that isn't what was written there. */
struct storage_damage {
    bool found;
    uint16_t volume;
    struct user_id user;
    char row[READER_ROW_BYTES];
};

/* The row that the answer should have come from, if that is damaged; as long as the answer. */
const struct storage_damage *storage_get_damage(const struct mail *mail);
/* The reader's answer, good until storage_end_load. */
const struct loaded *storage_get_loaded(const struct mail *mail);
void storage_end_load(struct storage *storage, const struct mail *mail);

/* Nothing more will be appended: what is durable is marked soon, and then all is idle. */
void storage_end(struct storage *storage);

/* What the reader's search for old entries came upon: of a user, or a damaged row. */
struct storage_expired {
    struct expire_found found;
    struct storage_damage damage;
};

/* That of MAIL_EXPIRED is taken: the reader may go on. */
void storage_end_expired(struct storage *storage, const struct mail *mail);

/* Nothing gathers, no write is in flight. */
bool storage_is_idle(const struct storage *storage);

/* True: *full, whether the flush waits for room on the disk, has changed since the last call. */
bool storage_full_changed(struct storage *storage, bool *full);

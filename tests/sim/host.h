/*
 * host: the server's process: virtual cores with the real engine, journal, index, flush and reader,
 * over the simulated disk. It does what reactors, flushers, readers and mailboxes do, one small
 * step at a time, each when the schedule says so.
 *
 *   host_boot (may meet a crash in recovery) -> steps ... -> host_crash -> host_boot -> ...
 *
 * Owner    The run.
 * Thread   The simulator's only.
 * Errors   What the real code reports as damage or as a broken disk is sim_fail(), for the
 *          simulated disk never lies.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/engine/engine.h"
#include "store/expire.h"
#include "store/flush.h"
#include "store/index.h"
#include "store/journal.h"
#include "store/reader.h"
#include "tests/sim/checks.h"
#include "tests/sim/disk.h"
#include "tests/sim/hazards.h"
#include "tests/sim/ledger.h"
#include "tests/sim/net.h"
#include "tests/sim/options.h"
#include "tests/sim/prng.h"

#define HOST_PARTITIONS_MAX 16
#define HOST_PLACES_MAX     64

/* A frame between cores, or the records of a ticket that isn't durable yet. */
struct parcel {
    struct parcel *next;
    uint64_t ticket;
    struct partition_id partition;
    uint16_t from_core;
    bool blocked;
    size_t byte_count;
    uint8_t bytes[];
};

struct parcels {
    struct parcel *first;
    struct parcel **end; /* NULL: empty */
};

enum load_step {
    STEP_FREE = 0,
    STEP_ASKED, /* nothing was read yet */
    STEP_READ,  /* the answer waits to be delivered */
};

struct host_load {
    enum load_step step;
    struct load load;
    /* Where its entries lay in the journal when it was asked. */
    uint64_t place_first;
    uint64_t flushes;    /* that had ended then */
    uint64_t held_until; /* event: it isn't read before, or before so many segments were begun */
    uint32_t held_segments;
    uint64_t places[HOST_PLACES_MAX];
    struct journal_span spans[DISK_SEGMENTS_MAX];
    uint32_t span_count;
    /* The answer: loaded.devices and entries point into these. */
    struct loaded loaded;
    struct loaded_device *devices;
    uint8_t *entries;
};

/* What was loaded before: a second time means that it was evicted. */
struct host_seen {
    enum load_kind kind;
    uint64_t user;
    uint64_t conversation;
};

struct host_link {
    struct partition_id source, destination;
    uint64_t number;
};

struct core {
    uint16_t number;
    struct engine *engine;
    struct journal *journal;
    struct index *index;
    struct reader *reader;
    struct volume *volumes[SCHEMA_VOLUMES_MAX];
    struct disk_core disk_core;
    struct journal_identity identity;

    struct parcels unwritten; /* appended, not durable */
    uint64_t durable_told;    /* ticket: of the engine */
    uint32_t segments_begun;
    bool flush_wanted; /* by the engine, or to close a partition */
    bool flushing;     /* begun */
    struct journal_flush flush_range;
    struct flush *flush;       /* once ready */
    struct flush *spare_flush; /* the last one, for the next, or NULL */
    uint32_t flush_slice_records;
    bool flushed_untold;
    uint64_t flushes;                     /* ended, and told */
    struct parcels inbox[DISK_CORES_MAX]; /* by source */
    struct parcels late;                  /* frames of links that were cut */
    bool
        inbox_waits; /* for the turn that was told of something loaded, flushed or durable to end */
    struct host_load loads[64];
    struct host_seen *seen;
    uint32_t seen_count, seen_capacity;
    struct volume_txn *sweep_readers[SCHEMA_VOLUMES_MAX];
    struct expire sweep; /* of retention by age */
    bool sweeping;
    bool has_expired; /* what the engine is to be told, or told again */
    struct expire_found expired;
    uint64_t cutoff_unix_ms;
};

enum partition_state {
    PARTITION_OPEN,
    PARTITION_CLOSING, /* takes no more input; waits for its records to be in the volume */
    PARTITION_CLOSED,
};

struct host_partition {
    struct partition_id id;
    enum partition_state state;
    uint64_t until_event; /* closed so long */
    uint64_t last_id;     /* of its messages: they rise, whatever clocks and crashes do */
};

struct host {
    const struct sim_options *options;
    struct prng *prng;
    struct hazards *hazards;
    struct ledger *ledger;
    struct net *net;
    struct disk *disk;
    const uint64_t *event;
    bool running;
    bool calm;
    bool drained;        /* nothing is left to deliver */
    uint64_t full_until; /* event: the volumes have no room so long */
    uint64_t now_unix_ms;
    uint16_t core_count;
    struct core cores[DISK_CORES_MAX];
    struct host_partition partitions[HOST_PARTITIONS_MAX];
    uint32_t partition_count;
    uint64_t users[HOST_PARTITIONS_MAX]; /* all whose logs there may be */
    uint32_t user_count;
    uint64_t effects_hash;
    struct checks checks;
    uint64_t loss_due[DISK_CORES_MAX][DISK_CORES_MAX]; /* event: frames were lost; 0: none were */
    struct host_link *links;
    uint32_t link_count, link_capacity;
};

void host_open(struct host *host);
void host_close(struct host *host); /* frees; not running */
void host_add_user(struct host *host, uint64_t user);

/* Recovers and starts; a crash may come between, or a refusal (then it isn't running). */
void host_boot(struct host *host);
/* The process dies; with `power`, the machine too, and what it hadn't synced. */
void host_crash(struct host *host, bool power);

/* ---- Steps; each returns false if there was nothing to do. ---- */

/* A turn of the core's reactor: some input, then all that follows. */
bool host_turn(struct host *host, uint16_t core);
/* The journal write under way completes, or the next one is submitted. */
bool host_disk_step(struct host *host, uint16_t core);
bool host_flush_step(struct host *host, uint16_t core);
bool host_load_step(struct host *host, uint16_t core);
bool host_expire_step(struct host *host, uint16_t core);

/* ---- Hazards ---- */

void host_cut_link(struct host *host);
/* Some frames between two cores are lost, which their engines are told only later. */
void host_lose_frames(struct host *host);
void host_loss_step(struct host *host);
void host_close_partition(struct host *host);
/* Goes on with partitions that are closing or closed. */
void host_partition_step(struct host *host);

/* No input, output, load or write is left. */
bool host_is_idle(const struct host *host);

/* ---- Between the host's files ---- */

uint16_t host_core_of(const struct host *host, struct partition_id partition);
struct host_partition *host_find_partition(struct host *host, struct partition_id partition);
void host_begin_turn(struct host *host, struct core *core);
/* Carries out what the engine wants now. */
void host_take_effects(struct host *host, struct core *core);
void host_run_engine(struct host *host, struct core *core);
void host_on_append(struct host *host, struct core *core, const struct effect *effect);
void host_on_stream(struct host *host, struct core *core, const struct effect *effect);
void host_on_load(struct host *host, struct core *core, const struct load *load);
void host_open_partition(struct host *host, struct core *core, struct host_partition *partition);
void host_tell_stored(struct host *host);
void host_core_open(struct host *host, struct core *core, uint64_t start_lsn);
void host_core_close(struct host *host, struct core *core);
void host_end_sweep(struct core *core);
/* Of an own message; `rising`: it is the newest of its partition. */
void host_check_id(struct host *host, const struct log_entry *entry, bool rising);
struct telling host_telling(struct host *host, const struct log_entry *entry);

void parcels_put(struct parcels *parcels, struct parcel *parcel);
struct parcel *parcels_take(struct parcels *parcels);
void parcels_clear(struct parcels *parcels);
struct parcel *parcel_new(const uint8_t *bytes, size_t byte_count);

static inline void host_count(const struct host *host, enum hazard hazard)
{
    host->hazards->counts[hazard]++;
}

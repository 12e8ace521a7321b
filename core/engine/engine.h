/*
 * engine: all chat logic of one core, as a deterministic state machine. Events go in by the
 * functions below; effects come out by engine_next_effect().
 *
 * Owner    One engine per reactor (or virtual core of the simulator).
 * Thread   The owner's only. Nothing blocks; no system call, clock, thread or randomness inside.
 * Memory   All of it is taken by engine_open(), as engine_config says (but for what
 *          engine_on_partition_open() finds beyond it). With `touch`, what doesn't follow the
 *          number of connections is committed then; users, devices and sessions come into use by
 *          the page. A pool that is full of what
 *          isn't flushed pushes back (RETRY, BUSY, ENGINE_BLOCKED); it never fails.
 * Time     now_unix_ms, wall time, by engine_begin_turn().
 * Errors   What clients and peers send is checked and answered; what the runtime does wrong (an
 *          unknown ticket, effects not taken) asserts.
 *
 * A turn:  engine_begin_turn(), then any events, after each of which the effects are taken and
 *          cleared (but for sent, durable and flushed, which give none); then engine_run() until it
 *          returns false, taking effects after each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/engine/effects.h"
#include "proto/frame.h"
#include "proto/message.h"

struct engine;

struct engine_config {
    uint32_t users_max; /* user cells: connected users and some */
    uint32_t devices_max;
    uint32_t heads_max;    /* conversation heads kept in memory */
    uint32_t outcomes_max; /* outcomes of SENDs kept in memory, of all devices together; >= 64 */
    uint32_t sessions_max; /* above the slot of any connection: the runtime's promise */
    uint32_t pending_max;  /* outputs that wait for durability */
    uint32_t outs_max;   /* stream records of this core that haven't ended; a start may find more */
    uint32_t links_max;  /* pairs of partitions with such records; and as many towards this core */
    uint32_t loads_max;  /* loads under way */
    size_t recent_bytes; /* memory for recent entries; a power of two */
    size_t effect_bytes; /* room for the effects of one call; >= 256 KB */
    uint64_t retention_count; /* entries kept a user; 0: all */
    uint64_t epoch_min;       /* no log's is below it: the store was restored. 0: it never was */
    uint64_t hash_seed;       /* unpredictable to clients, so that none can crowd a hash table */
    uint32_t out_quota; /* stream records outstanding a (source, destination) partition pair */
    uint64_t term;      /* the incarnation */
    uint32_t window_bytes_max; /* what HELLO's window is clamped to */
    bool accept_unknown_users;
    /*
     * Commits, at start, all memory whose size doesn't follow the number of connections: the
     * reactor never faults on a cold page of it, and what an idle connection costs stands alone.
     */
    bool touch;
};

struct engine_stats { /* counters since the start, gauges now; for metrics */
    uint64_t messages_accepted, entries_pushed, sends_refused, streams_sent, streams_received;
    uint64_t streams_behind, streams_refused, streams_repeated, loads, loads_repeated;
    uint64_t catchups_from_store, replaced, conflicts, hellos_resumed, hellos_reset;
    uint64_t trimmed_by_count, trimmed_by_age; /* entries that a floor has left below it */
    uint32_t users, devices, heads, sessions, outs, pending;
    uint64_t bytes_touched; /* at start, by engine_config's `touch` */
};

enum engine_result {
    ENGINE_TAKEN,
    ENGINE_BLOCKED, /* keep the frame and all behind it until EFFECT_UNBLOCK */
    ENGINE_CLOSED,  /* the session is over (EFFECT_CLOSE was given): drop the rest */
};

struct engine_budget {
    uint64_t append_bytes; /* the journal's room: never exceeded */
    bool refuse_sends;     /* pressure: new SENDs get RETRY */
    bool only_streams;     /* more pressure: nothing new but streams, their ends, and answers */
    uint32_t
        stream_frames; /* EFFECT_STREAMs that there is room for; a LINK_END, which is rare, may go beyond */
};

struct engine *engine_open(const struct engine_config *config, struct hf_error *error);
void engine_close(struct engine *engine);

void engine_begin_turn(struct engine *engine, uint64_t now_unix_ms,
                       const struct engine_budget *budget);

/* The partition is at home here from now on; its unended stream records in the order of their ids.
 */
void engine_on_partition_open(struct engine *engine, struct partition_id partition,
                              struct message_id last_id, const struct out_row *outs,
                              size_t out_count);
/* It goes elsewhere: its sessions are closed, its cells dropped. All its appends are durable. */
void engine_on_partition_close(struct engine *engine, struct partition_id partition);

/* accepted_at orders sockets by their accept (HELLO fences by it). The token has been checked. */
enum engine_result engine_on_hello(struct engine *engine, struct conn_ref conn,
                                   uint64_t accepted_at, const struct claims *claims,
                                   const struct message_hello *hello)
    __attribute__((warn_unused_result));
/* Any other frame of a connection with a session. PING, PONG, TOKEN and BYE are the runtime's. */
enum engine_result engine_on_frame(struct engine *engine, struct conn_ref conn,
                                   const struct frame_view *frame)
    __attribute__((warn_unused_result));
/* That many bytes of EFFECT_SEND frames have left for the connection. */
void engine_on_sent(struct engine *engine, struct conn_ref conn, size_t byte_count);
/* The connection is gone (whoever ended it, unless EFFECT_CLOSE did). */
void engine_on_closed(struct engine *engine, struct conn_ref conn);

/* Everything up to and with the ticket is durable. */
void engine_on_durable(struct engine *engine, uint64_t ticket);
/* Everything up to and with the ticket (which ends before lsn) is in the volumes, synced. */
void engine_on_flushed(struct engine *engine, uint64_t ticket, uint64_t lsn);
void engine_on_loaded(struct engine *engine, const struct loaded *loaded);
/*
 * All entries of that user below `floor` have outlived their age. What stream records still need
 * stays, and a floor never falls. ENGINE_BLOCKED: offer it again after the next loaded, flushed or
 * durable event; if it never is, the next sweep finds them again.
 */
enum engine_result engine_on_expired(struct engine *engine, struct user_id user, uint64_t floor)
    __attribute__((warn_unused_result));

/* A peer frame from another home, or from this one. ENGINE_BLOCKED: offer it again, in its order,
 * after the next loaded, flushed or durable event and engine_run(). Of a partition that isn't at
 * home here it is dropped. */
enum engine_result engine_on_stream(struct engine *engine, const uint8_t *bytes, size_t byte_count)
    __attribute__((warn_unused_result));
/*
 * What was on its way to or from the home of that partition may be lost: links begin anew. A frame
 * that was sent before must not reach a later home of the partition.
 */
void engine_on_link_down(struct engine *engine, struct partition_id partition);

/* Goes on with released output, pushes, streams. False: nothing more can be done now. */
bool engine_run(struct engine *engine);

/* New room for peer frames within a turn; and whether there are some that only wait for it. */
void engine_set_stream_frames(struct engine *engine, uint32_t stream_frames);
bool engine_waits_for_stream_frames(const struct engine *engine);

/* NULL: no more. */
const struct effect *engine_next_effect(struct engine *engine);
void engine_clear_effects(struct engine *engine);

void engine_get_stats(const struct engine *engine, struct engine_stats *stats);

/*
 * storage_internal: what storage.c (the reactor's side) and storage_threads.c (flusher and reader)
 * share.
 *
 * Thread   Each field says whose it is.
 * Errors   As storage.h.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "core/server/storage.h"
#include "store/flush.h"
#include "store/index.h"
#include "store/journal.h"

#define STORAGE_SPANS_MAX 256

struct storage_place {
    uint64_t seq;
    uint64_t pos;
};

/* A load on its way to the reader and back. */
struct storage_load {
    struct load load;
    uint64_t checkpoint_seq; /* the index had it; 0: ask the volume */
    uint32_t place_count;
    uint32_t span_count;
    struct storage_place places[STORAGE_PLACES_MAX];
    struct journal_span spans[STORAGE_SPANS_MAX];
    struct loaded answer;
    struct storage_damage damage;
    struct loaded_device devices[READER_DEVICES_MAX];
    uint8_t entries[STORAGE_ANSWER_BYTES + RECORD_BYTES_MAX];
};

/* A flush on its way to the flusher and back. */
struct storage_flush {
    struct journal_flush range;
    uint32_t span_count;
    struct journal_span spans[STORAGE_SPANS_MAX];
};

/* Reading ahead of the flush: the reader thread, when it has nothing else to do. */
struct storage_ahead {
    pthread_mutex_t lock;        /* between flusher and reader; the reactor never takes it */
    const struct flush *flush;   /* under lock; NULL: none, or its list of users is gone */
    size_t next_user;            /* under lock */
    struct volume_txn **readers; /* the reader thread's, by volume */
};

/*
 * Retention by age: the reader thread's sweeps. Each goes at such a pace that it takes half of the
 * time until the next, as far as the one before lets that be known.
 */
struct storage_expire {
    struct expire sweep;
    bool sweeping;
    bool lent; /* `expired` is the reactor's */
    struct storage_expired expired;
    uint64_t began_ns;
    uint64_t due_ns; /* of the next step, or the next sweep */
    uint64_t steps;  /* of this sweep */
    uint64_t pace_ns;
};

struct storage {
    struct storage_options options;
    struct post_core *mail;

    /* reactor */
    struct journal *journal;
    struct index *entries;
    struct storage_load *loads;
    struct storage_load *free_loads[STORAGE_LOADS_MAX];
    uint32_t free_load_count;
    uint64_t flush_due_ns;
    bool flush_wanted;
    bool flushing;
    bool flush_sent;
    bool failed;
    bool ending;
    bool full_told;
    uint64_t mark_due_ns;
    uint32_t write_segment;     /* of the write in flight, for a message */
    struct storage_flush flush; /* lent to the flusher while flush_sent */

    /* flusher thread */
    struct flush *flush_work; /* NULL: the last flush was long ago */

    /* reader thread (and the node at start) */
    struct reader *reader;
    struct storage_ahead ahead;
    struct storage_expire expire;

    /* all */
    _Atomic bool stopping; /* partners: storage_stop / the threads' loops */
    /* The flush waits for room. Relaxed: it guards nothing. Partners: run_flush / storage_is_full. */
    _Atomic bool full;
};

/* Stops the process: `what` failed, and `text` says how. `remedy` may be NULL. Any thread. */
void storage_fail(struct storage *storage, const char *what, const char *text, const char *remedy);
/* What a failed disk asks for. */
extern const char storage_mend_disk[];

bool storage_ahead_open(struct storage *storage, struct hf_error *error)
    __attribute__((warn_unused_result));
void storage_ahead_close(struct storage *storage);

void storage_expire_init(struct storage *storage);
/* The reader thread has nothing else to do: goes on with a sweep, if it is time. Returns how long,
 * in ms, it may sleep then; -1: until there is mail. */
int storage_expire_step(struct storage *storage);

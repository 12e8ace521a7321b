/*
 * swarm: one thread with a crowd of clients: rings, dials, handshakes, timers, the schedule.
 *
 * The director (main thread) gives orders, one at a time, and looks at counts; a swarm never waits
 * for it. Both users of a pair, and all their devices, are in one swarm: so a ledger needs no lock.
 *
 * Owner    The director opens, starts, stops and closes swarms. Between swarm_start and swarm_stop
 *          the thread owns all but the fields under "both".
 * Thread   swarm_order, swarm_answered, swarm_count: the director's. While the last order is
 *          answered and no other given, the director may read what lies under "measured": the
 *          answer's release publishes it.
 * Memory   Clients, rings and pools at swarm_open; afterwards mbedTLS alone allocates, for
 *          handshakes in progress.
 * Errors   swarm_open: struct hf_error.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/io/ring_group.h"
#include "core/io/timers.h"
#include "core/token/keys.h"
#include "loadgen/client.h"
#include "loadgen/dial.h"
#include "loadgen/schedule.h"
#include "loadgen/shake.h"

enum swarm_order_kind {
    SWARM_CONNECT, /* all clients are wanted; `full` handshakes before tickets are used */
    SWARM_WINDOW,  /* every sender keeps `window` messages unanswered */
    SWARM_PACE,    /* `rate` messages a second, from start_ns on, count_max in all */
    SWARM_QUIET,   /* no new messages; nobody leaves by himself any more */
    SWARM_CHURN,   /* `rate` clients a second leave, and come back to a page of `window` entries */
    SWARM_MARK,    /* measuring begins */
    SWARM_MEASURE, /* measuring ends: counts, time, CPU */
    SWARM_COLLECT, /* the same for latencies, when answers to measured messages have come */
    SWARM_DROP,    /* all connections end; clients come back */
    SWARM_REREAD,  /* all logs are read again from the start */
    SWARM_AUDIT,   /* logs against what was created */
    SWARM_LEAVE,   /* BYE; clients stay away */
    SWARM_FLOOD,   /* clients log in, leave, log in again; `window` 0: no longer */
    SWARM_QUIT,
};

struct swarm_order {
    enum swarm_order_kind kind;
    double rate;
    uint64_t start_ns;
    uint64_t count_max;
    uint32_t window;
    uint32_t full;
};

enum swarm_count {
#define SWARM_COUNT_ENUM(name, text) SWARM_COUNT_##name,
    CROWD_COUNTS(SWARM_COUNT_ENUM)
#undef SWARM_COUNT_ENUM
        SWARM_COUNTS
};

enum swarm_readiness {
    SWARM_STARTING,
    SWARM_RUNS,
    SWARM_FAILED, /* see start_error; the thread has ended */
};

/* What all swarms of a run are made from. Must outlive them. */
struct swarm_common {
    struct dial dial;
    struct payload_run run;
    const struct tls_pem *ca; /* NULL: no certificate is checked */
    const char *server_name;
    bool psk_ke; /* resumes by psk_ke only */
    const struct token_key *login_key;
    const char *audience;
    uint32_t back_off_max_s;
    uint32_t devices;
    uint16_t body_bytes;
    bool gather;
    bool one_way;
    uint64_t late_ns;
    uint32_t client_count; /* of the run */
    uint32_t swarm_count;
    uint32_t connect_rate; /* of the run; 0: no bound */
    uint32_t handshakes;   /* of the run */
    struct ring_features features;
    FILE *ledger_file; /* NULL: none; each audit writes a line a client */
};

struct swarm_options {
    const struct swarm_common *common;
    const uint64_t *users; /* ids, even count */
    uint32_t user_count;
    uint32_t index;        /* of the swarm */
    uint32_t first_client; /* of the run, for source addresses */
    int32_t cpu;           /* -1: unpinned */
};

struct swarm_measure {
    struct crowd_counts counts; /* since the mark */
    uint64_t ns;
    uint64_t cpu_ns;
    uint64_t late_max_ns;
    char fault_text[160]; /* of the first handshake that failed; "": none did */
};

struct swarm {
    struct swarm_options options;
    struct crowd crowd;
    struct ring_group group;
    struct timers timers;
    struct shakes shakes;
    pthread_t thread;
    bool started;
    bool quit;
    bool flood;
    bool paced;
    double churn_rate;     /* clients a second; 0: none */
    uint64_t churn_due_ns; /* of the next */
    uint32_t full_left;    /* handshakes that don't resume */
    uint32_t *queue;       /* clients that want to dial, a ring of crowd.count */
    uint32_t queue_first;
    uint32_t queue_count;
    uint64_t dial_next_ns;
    uint64_t random; /* for jitter */
    uint64_t now_unix_ms;
    struct schedule schedule;
    uint32_t due; /* sender of a message that is due */

    /* measured */
    struct swarm_measure mark;
    struct swarm_measure measured;
    struct histogram accepted;
    struct histogram delivered;
    struct ledger findings; /* of the last audit; without what was passed over */

    /* both */
    struct swarm_order order;       /* the director's until order_number says that it is there */
    _Atomic uint32_t order_number;  /* release: `order`; the swarm acquires it */
    _Atomic uint32_t answer_number; /* release: "measured"; the director acquires it */
    _Atomic uint32_t readiness;     /* release: start_error, of enum swarm_readiness */
    struct hf_error start_error;
    _Atomic uint64_t counts[SWARM_COUNTS]; /* relaxed: each is right by itself, a turn old */
};

bool swarm_open(struct swarm *swarm, const struct swarm_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Returns when the thread runs, or couldn't. */
bool swarm_start(struct swarm *swarm, struct hf_error *error) __attribute__((warn_unused_result));

/* Gives the next order; the last one must be answered. Seen within 20 ms. */
void swarm_order(struct swarm *swarm, const struct swarm_order *order);
bool swarm_answered(const struct swarm *swarm);

/* As of the swarm's last turn. */
uint64_t swarm_count(const struct swarm *swarm, enum swarm_count count);

/* Quits and joins. */
void swarm_stop(struct swarm *swarm);
void swarm_close(struct swarm *swarm);

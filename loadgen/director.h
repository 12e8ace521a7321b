/*
 * director: carries out the steps of a run, one after the other: gives the swarms their orders,
 * watches their counts, measures, and judges.
 *
 * Owner    main's.
 * Thread   The main thread.
 * Memory   Swarms and clients, at director_open.
 * Errors   director_open: struct hf_error. director_run: an exit code: 0, EX_DATAERR,
 *          EX_UNAVAILABLE, DIRECTOR_EXIT_VOID or 130; the worst that happened.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/tls/pem.h"
#include "loadgen/options.h"
#include "loadgen/proc.h"
#include "loadgen/report.h"
#include "loadgen/swarm.h"

#define DIRECTOR_EXIT_VOID        80
#define DIRECTOR_EXIT_INTERRUPTED 130

/* Connections lost and come back, seen from outside. */
struct director_watch {
    bool complete; /* all were logged in and current once */
    bool away;     /* not all are now */
    uint64_t lost_count;
    uint64_t awaited_count; /* of these, seen by await-restart */
    uint64_t away_at_ns;
    uint64_t first_back_at_ns;
    uint64_t full; /* as of away_at_ns */
    uint64_t resumed;
    uint64_t failures;
};

struct director {
    const struct options *options;
    struct report report;
    struct swarm_common common;
    struct tls_pem ca;
    struct token_keys *keys;
    uint64_t *users;
    struct swarm *swarms;
    uint32_t swarm_count;
    int signal_fd;
    bool interrupted;
    bool next;   /* SIGUSR1 */
    bool quiet;  /* the watch says nothing: a step counts by itself */
    bool churns; /* until it settles; clients come and go all the time */
    int exit_code;
    struct director_watch watch;
    struct ledger findings;
    struct crowd_counts counts; /* of the last look */
    bool baseline_taken;
    uint64_t anonymous_before; /* of the server */
    struct proc_kernel kernel_before;
    struct proc_kernel kernel_now;
    struct histogram accepted;
    struct histogram delivered;
};

/* Signals must not be blocked yet: it blocks those that it takes, before any thread is made. */
bool director_open(struct director *director, const struct options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
int director_run(struct director *director);
void director_close(struct director *director);

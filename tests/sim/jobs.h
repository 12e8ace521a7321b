/*
 * jobs: runs seeds, each in a process of its own, several at a time: what asserts, hangs or leaks
 * fails its seed and nothing else.
 *
 * Owner    main's.
 * Thread   One; children are forked from it, so it has no other.
 * Errors   A child's last words are in job_result.words.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/sim.h"

#define JOBS_MAX        64
#define JOB_WORDS_BYTES 600

struct job_result {
    struct sim_plan plan;
    bool good;
    struct sim_result run;
    char words[JOB_WORDS_BYTES]; /* of one that isn't good: the line that says why */
};

struct jobs_plan {
    struct sim_plan plan; /* without its seed */
    const uint64_t *seeds;
    uint64_t seed_count;
    bool schedules_only; /* the seeds are those of the schedule; the plan has its seed */
    unsigned at_once;
    unsigned seconds_max; /* a run that takes longer hangs */
    bool twice;           /* each seed again: the effects must be the same (I9) */
    bool verbose;
};

/* Calls `on_result` for each seed as it ends; false from it stops the rest. */
bool jobs_run(const struct jobs_plan *plan,
              bool (*on_result)(void *context, const struct job_result *result), void *context);

/*
 * shorten: looks for a smaller run with the same failure: fewer events, fewer kinds of fault, fewer
 * users and devices. What is left out changes everything that follows, so each step tries several
 * schedules. Two failures are the same when their words are, but for the numbers in them.
 *
 * Owner    main's.
 * Thread   One; runs are processes of their own (jobs.h).
 * Errors   False: the run that was given doesn't fail.
 * Source   Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", TSE 2002;
 *          simpler, since the parts of a plan are few.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/options.h"

struct shorten_limits {
    unsigned at_once;
    unsigned seconds; /* of all of it, about */
    unsigned run_seconds;
};

/* On success the plan is the smallest found, and words are its failure's. */
bool shorten(struct sim_plan *plan, const struct shorten_limits *limits, char *words,
             size_t words_bytes);

/* The words without what differs from run to run. */
void shorten_class(const char *words, char *to, size_t room);

/*
 * mutants: the deliberate bugs of core/base/mutant.h, in the build that can plant them
 * (sim_mutant): each must be found.
 *
 * Owner    main's.
 * Thread   One; runs are processes of their own (jobs.h).
 * Errors   False: one wasn't found.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/jobs.h"

/* Plants the bug of that name, in lower case. False: there is none. */
bool mutants_plant(const char *name);
/* Runs the plan's seeds with each, until one fails; prints a table. */
bool mutants_run_all(const struct jobs_plan *jobs);

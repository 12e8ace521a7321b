/*
 * fail: how a run ends when a rule was broken: one line that says which, at which event, and the
 * end of the process. A run has a process of its own (jobs.h), so nothing needs to be unwound.
 *
 * Thread   One a process.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SIM_EXIT_FAILED 1

/* What the line begins with from now on. */
void fail_set_context(uint64_t seed, const uint64_t *event);

/* Prints on standard error and exits with SIM_EXIT_FAILED. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The narrative of a run; printed when fail_set_verbose(true). */
void fail_set_verbose(bool verbose);
bool sim_verbose(void);
void sim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define SIM_CHECK(condition, ...) ((condition) ? (void)0 : sim_fail(__VA_ARGS__))

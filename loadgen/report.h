/*
 * report: what a run tells: lines for people, or one JSON object a line; progress on a terminal.
 *
 * Owner    The director's.
 * Thread   The director's.
 * Errors   None. Results go to standard output, progress to standard error if that is a terminal.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "loadgen/client.h"
#include "loadgen/histogram.h"
#include "loadgen/ledger.h"
#include "loadgen/options.h"
#include "loadgen/proc.h"

struct report {
    FILE *out;
    bool json;
    bool terminal;
    bool drawn; /* a progress line stands on the terminal */
    uint64_t started_ns;
};

void report_open(struct report *report, bool json);

/* Draws a line over the one before; nothing where nobody looks. share: 0 to 1, below 0: no bar. */
void report_progress(struct report *report, double share, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The run as it begins. */
void report_start(struct report *report, const struct options *options, uint32_t run);

/* An event that needs no more than a name and seconds. */
void report_event(struct report *report, const char *event, const char *step, double seconds);

struct report_logins {
    uint32_t clients; /* logged in now */
    uint64_t full;
    uint64_t resumed;
    uint64_t refused; /* dials, handshakes and HELLOs that failed */
    double seconds;
    double since_first_s; /* since the server took the first of them again; below 0: not known */
    const struct proc_cpu *server; /* CPU used meanwhile, or NULL */
};
/* "connected", "all_back", "storm", "flood". */
void report_logins(struct report *report, const char *event, const struct report_logins *logins);

void report_lost(struct report *report, uint64_t live, uint32_t clients);

struct report_measure {
    const struct step *step;
    double seconds;
    struct crowd_counts counts; /* of the time measured */
    const struct histogram *accepted;
    const struct histogram *delivered;
    double late_percent;
    double late_max_ms;
    double busy; /* of the busiest thread, 0 to 1 */
    bool is_void;
    const struct proc_cpu *server; /* or NULL */
};
void report_measure(struct report *report, const struct report_measure *measure);

struct report_memory {
    uint32_t clients;
    uint64_t anonymous_before; /* of the server; 0: not known */
    uint64_t anonymous_now;
    bool has_kernel;
    struct proc_kernel_growth kernel;
};
void report_memory(struct report *report, const struct report_memory *memory);

/* "settled" or "verified". */
void report_findings(struct report *report, const char *event, const struct ledger *ledger,
                     const struct crowd_counts *counts, bool complete, double seconds);

/* One line to standard error, without ceremony. */
void report_failure(struct report *report, const char *text);

void report_done(struct report *report, int exit_code);

/*
 * metrics: what the threads count, as Prometheus reads it (text format 0.0.4).
 *
 * Owner    The node; struct metrics only points at what others own.
 * Thread   The node's. Counters are read while their threads write them: see stats.h.
 * Memory   Rows are gathered anew for each call and given back: about 170 B each, 150 a core.
 * Errors   False where there's no memory: nothing was written.
 * Source   https://prometheus.io/docs/instrumenting/exposition_formats
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "core/server/door_stats.h"
#include "core/server/log.h"
#include "core/server/stats.h"

enum metrics_thread {
    METRICS_REACTOR,
    METRICS_DOOR,
    METRICS_FLUSHER,
    METRICS_READER,
    METRICS_THREADS,
};

struct metrics_core {
    const struct reactor_stats *reactor;
    const struct door_stats *door;
    clockid_t cpu_clocks[METRICS_THREADS]; /* of its threads: pthread_getcpuclockid */
};

struct metrics {
    const struct metrics_core *cores; /* NULL and 0 while starting */
    uint32_t core_count;
    struct log *const *logs;
    uint32_t log_count;
    uint64_t start_unix_ms;
    uint64_t incarnation; /* 0: not known yet */
    uint64_t max_connections;
    uint64_t data_free_bytes;
    bool data_free_known;
    bool ready;
};

bool metrics_print(const struct metrics *metrics, FILE *file) __attribute__((warn_unused_result));

/* "liburing 2.9", "LMDB 0.9.31": what this program was built with; tls_library_version has TLS. */
const char *metrics_uring_version(void);
const char *metrics_lmdb_version(void);

/*
 * clock: the two times of the machine. Everything below the server is told the time; only the loops
 * of threads read it, once a turn.
 *
 * Thread   Any. About 25 ns each (vDSO).
 * Units    clock_now_ns: monotonic, ns, stands still while the machine sleeps, means nothing to
 *          another process. clock_unix_ms: wall clock, ms since 1970, may jump both ways.
 * Errors   None.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_S  UINT64_C(1000000000)
#define CLOCK_NS_PER_MS UINT64_C(1000000)

static inline uint64_t clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline uint64_t clock_unix_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / CLOCK_NS_PER_MS;
}

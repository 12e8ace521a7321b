#include "core/io/thread.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/clock.h"

/*
 * The process's CPUs, not those of the thread, which may be pinned already. Kernels with more than
 * 1,024 CPUs refuse the call: then all configured CPUs count as ours.
 */
static bool process_cpus(cpu_set_t *cpus)
{
    return sched_getaffinity(getpid(), sizeof *cpus, cpus) == 0 && CPU_COUNT(cpus) > 0;
}

uint32_t thread_cpu_count(void)
{
    cpu_set_t cpus;

    if (process_cpus(&cpus)) {
        return (uint32_t)CPU_COUNT(&cpus);
    }
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (uint32_t)count : 1;
}

uint32_t thread_nth_cpu(uint32_t nth)
{
    cpu_set_t cpus;

    nth %= thread_cpu_count();
    if (!process_cpus(&cpus)) {
        return nth;
    }
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &cpus) && nth-- == 0) {
            return cpu;
        }
    }
    return 0;
}

bool thread_pin(uint32_t cpu, struct hf_error *error)
{
    cpu_set_t cpus;

    if (cpu >= CPU_SETSIZE) {
        hf_error_set(error, EX_CONFIG, EINVAL, "pin a thread to CPU %u", cpu);
        return false;
    }
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
        hf_error_set(error, EX_CONFIG, errno, "pin a thread to CPU %u", cpu);
        return false;
    }
    return true;
}

/* glibc has no wrapper before 2.41, and its <sched.h> and the kernel's header don't go together. */
struct thread_attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice_ns; /* sched_runtime */
    uint64_t deadline;
    uint64_t period;
};

#define URGENT_SLICE_NS 100000 /* the shortest that there is */

void thread_set_urgent(void)
{
    if (sched_getscheduler(0) != SCHED_OTHER) {
        return; /* somebody has decided otherwise */
    }
    errno = 0;

    const int nice_now = getpriority(PRIO_PROCESS, 0); /* 0 too when it fails */
    const struct thread_attributes attributes = {
        .size = sizeof attributes,
        .policy = SCHED_OTHER,
        .nice = nice_now,
        .slice_ns = URGENT_SLICE_NS,
    };

    (void)syscall(SYS_sched_setattr, 0, &attributes, 0U);
}

void thread_set_background(int nice_increment)
{
    const struct sched_param parameters = { 0 };

    (void)sched_setscheduler(0, SCHED_BATCH, &parameters);
    /* Of the thread: on Linux, nice belongs to it, whatever POSIX says. */
    errno = 0;
    (void)!nice(nice_increment);
}

void thread_rest(uint64_t ns)
{
    const struct timespec rest = { (time_t)(ns / CLOCK_NS_PER_S), (long)(ns % CLOCK_NS_PER_S) };

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, NULL);
}

void thread_give_way(void)
{
    (void)sched_yield();
}

void thread_set_name(const char *name)
{
    char cut[16];

    (void)snprintf(cut, sizeof cut, "%s", name);
    (void)pthread_setname_np(pthread_self(), cut);
}

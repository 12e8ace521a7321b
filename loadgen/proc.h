/*
 * proc: what /proc tells of a local server: CPU by thread, memory; and of the kernel's memory for
 * connections.
 *
 * Owner    Samples are the caller's plain structs.
 * Thread   Any. Reads files.
 * Units    Bytes, ns of CPU.
 * Errors   false, or a field that stays 0: a figure that can't be had is left out of a report.
 * Source   proc(5), slabinfo(5).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PROC_NAMES_MAX 16
#define PROC_SLABS_MAX 512

/* Threads of a process whose names are alike but for a number at the end: "hf-reactor". */
struct proc_threads {
    char name[16];
    uint32_t count;
    uint64_t cpu_ns;
};

struct proc_cpu {
    pid_t pid;
    uint64_t cpu_ns; /* all threads that are alive, in user and kernel mode */
    uint32_t name_count;
    struct proc_threads names[PROC_NAMES_MAX];
};

/* Who listens on that TCP port of this machine; 0: nobody; -1: a process that isn't ours to see. */
pid_t proc_find_listener(uint16_t port);

/* The number that stands in a file, or 0. */
pid_t proc_read_pid_file(const char *path);

/* False: it can't be had, and *cpu is all 0. */
bool proc_cpu_take(struct proc_cpu *cpu, pid_t pid);

/* What was used between two samples of one process, by name. False: it isn't the same process. */
bool proc_cpu_between(struct proc_cpu *used, const struct proc_cpu *before,
                      const struct proc_cpu *after) __attribute__((warn_unused_result));

/* Anonymous memory of a process, shared pages in proportion. 0: not known. */
uint64_t proc_anonymous_bytes(pid_t pid);

struct proc_slab {
    char name[32];
    double objects;
    double object_bytes; /* with its share of the slab's slack */
};

struct proc_kernel {
    uint32_t slab_count; /* 0: /proc/slabinfo isn't for us */
    struct proc_slab slabs[PROC_SLABS_MAX];
    double tcp_bytes; /* in socket buffers */
};

void proc_kernel_take(struct proc_kernel *kernel);

struct proc_kernel_growth {
    double both_bytes;   /* of both ends of a connection */
    double client_bytes; /* of the client's, one armed poll included */
    double server_bytes; /* the rest */
    double tcp_bytes;    /* socket buffers of both, not in these */
};

/* What each of `connections` that came between two samples, both ends here, costs. */
bool proc_kernel_between(struct proc_kernel_growth *growth, const struct proc_kernel *before,
                         const struct proc_kernel *after, uint32_t connections)
    __attribute__((warn_unused_result));

/*
 * ring_group: the rings of one thread, served as if they were one.
 *
 * A ring's file table can't be larger than RLIMIT_NOFILE, which a container may fix at 20,000; the
 * rule is per ring, so a thread with more connections has several. Ring 0 is the main ring, on
 * which the thread sleeps; it carries connections too and is filled first, so where one table
 * holds all connections, or few are there, the others cost nothing.
 *
 * How a sleeping thread learns of work on a child ring (1, 2, ...): completions of a child are
 * posted only when we enter it, so polling its descriptor misses them (20 of 20). All children
 * signal one registered eventfd when work is deferred to them, and the main ring polls it, armed
 * only for sleeping. While awake, the kernel's IORING_SQ_TASKRUN flag in a child's ring tells the
 * same without a system call: a child with nothing to do isn't entered.
 *
 * Owner    One thread: a reactor, a door, a swarm. Open and close may run in another.
 * Thread   ring_group_enable, and all after it, by the owner.
 * Memory   As ring.h for each ring; receive buffers in all `recv_buffers_bytes`.
 * Use      for (;;) { ring_group_turn(); while (budget-- && ring_group_take()) handle(); }
 *          Handling fills SQEs of any ring; they leave with the next turn.
 * Errors   As ring.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/io/buffers.h"
#include "core/io/ring.h"

#define RING_GROUP_RINGS_MAX    128
#define RING_GROUP_BUFFER_GROUP 1 /* of ring_recv on any ring of a group */

struct ring_group_config {
    uint32_t files;              /* direct descriptors in all: the share of max_connections */
    uint32_t files_per_ring_max; /* 0: the soft RLIMIT_NOFILE */
    uint32_t sq_entries;         /* of each ring; 0: as ring.h */
    uint32_t cq_entries;
    uint32_t recv_buffers_bytes; /* in all, shared out evenly; 0: no receive buffers */
    uint32_t recv_buffer_bytes;  /* of each: a multiple of 8 */
    struct ring_features features;
};

struct ring_group {
    struct ring *rings; /* rings[0]: the main one */
    struct recv_buffers *recv_buffers;
    uint32_t *files_taken_; /* by ring */
    uint32_t ring_count;
    uint32_t files_per_ring;
    uint32_t files_free;
    uint32_t cursor_;  /* ring that ring_group_take looks at */
    int children_fd_;  /* eventfd that all children signal; -1 with one ring */
    bool poll_armed_;  /* the main ring polls children_fd_ */
    uint64_t entered_; /* enters of child rings: for tests and metrics */
};

__attribute__((warn_unused_result)) bool ring_group_open(struct ring_group *group,
                                                         const struct ring_group_config *config,
                                                         struct hf_error *error);
__attribute__((warn_unused_result)) bool ring_group_enable(struct ring_group *group,
                                                           struct hf_error *error);
void ring_group_close(struct ring_group *group);

/*
 * A place for one more connection: the index of a ring whose table has a free slot that is now
 * spoken for, or UINT32_MAX. The kernel chooses the slot when the descriptor arrives.
 */
__attribute__((warn_unused_result)) uint32_t ring_group_take_file(struct ring_group *group);

/* That connection's close completed, or its descriptor never came. */
void ring_group_give_file(struct ring_group *group, uint32_t ring);

/*
 * Submits what all rings hold and runs what is ready. If then nothing is complete, sleeps until
 * something is, or a signal, or timeout_ns (RING_FOREVER; 0: doesn't sleep).
 */
void ring_group_turn(struct ring_group *group, uint64_t timeout_ns);

/* Takes one completion of any ring. False: another turn is needed. */
__attribute__((warn_unused_result)) bool ring_group_take(struct ring_group *group,
                                                         struct ring_event *event);

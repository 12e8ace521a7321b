/*
 * schedule: which sender is to send next, and when, in an open loop: message k is due at
 * start + k / rate, however slow the answers are. So a pause of server or generator shows in the
 * latencies of all messages that fell due in it, not in one.
 *
 * Owner    One swarm's.
 * Thread   Its owner's. Pure: time is passed in.
 * Units    Monotonic ns.
 * Errors   None. A message that is taken late counts as such: lateness is the generator's fault,
 *          and enough of it makes a run void.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct schedule {
    uint64_t start_ns;
    uint64_t count_max; /* messages in all; UINT64_MAX: until it is stopped */
    uint64_t count;     /* taken */
    double interval_ns;
    uint32_t senders;
    uint32_t sender_; /* next */
    uint32_t stride_; /* coprime with senders: all have had a turn before one has a second */
    uint64_t late_ns; /* what counts as late */
    uint64_t late_count;
    uint64_t late_max_ns;
};

/* rate_per_s above 0; senders from 1. */
void schedule_init(struct schedule *schedule, double rate_per_s, uint32_t senders,
                   uint64_t start_ns, uint64_t count_max, uint64_t late_ns);

/* When the next message is due; UINT64_MAX when all were taken. */
uint64_t schedule_next_ns(const struct schedule *schedule);

/* Takes the next message if it is due. */
__attribute__((warn_unused_result)) bool schedule_take(struct schedule *schedule, uint64_t now_ns,
                                                       uint32_t *sender, uint64_t *intended_ns);

/*
 * timers: the deadlines of one thread (handshake, idle, retry), as a hierarchical timing wheel.
 *
 * Owner    One struct timers per reactor or door. A timer is named by an index below `capacity`,
 *          which the owner chooses: that of the slab slot which it times.
 * Thread   The owning thread only. Nothing blocks.
 * Memory   12 B a timer (two 32-bit links, the deadline), mapped at open and committed as indices
 *          are first used; about 5 KB of slots.
 * Time     Monotonic ns, always passed in, so the simulator and tests use this file as it is.
 *          A timer fires up to one tick late, never early. A deadline more than 2^31 - 1 ticks
 *          ahead (248 days of 10 ms) is brought forward to that.
 * Cost     timers_set and timers_cancel are O(1). Putting off a running timer is one store: its
 *          place in the wheel stays, and when that comes it is filed anew. So "last activity" needs
 *          no field of its own: activity is timers_set(.., now + idle_timeout_ns).
 *          A timer moves at most TIMERS_LEVELS times between being put off.
 * Errors   Misuse (an index out of range, time going backwards) asserts.
 * Source   Varghese and Lauck, SOSP 1987, scheme 7.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMERS_NONE       UINT32_MAX
#define TIMERS_NEVER      UINT64_MAX
#define TIMERS_LEVELS     6
#define TIMERS_LEVEL_BITS 6
#define TIMERS_SLOTS      (1 << TIMERS_LEVEL_BITS)

struct hf_error;

struct timer_node {
    uint32_t next_; /* node numbers; 0: idle */
    uint32_t previous_;
    uint32_t deadline_; /* in ticks, low 32 bits */
};
_Static_assert(sizeof(struct timer_node) == 12, "paid by every connection");

struct timers {
    struct timer_node *nodes_; /* 0: unused; then the heads of lists; then the timers */
    uint64_t filled_[TIMERS_LEVELS];
    uint64_t tick_ns;
    uint64_t origin_ns_;
    uint64_t tick_;     /* all slots up to this one have been opened */
    uint32_t draining_; /* head of the slot being emptied, 0: none */
    uint32_t capacity;
    uint32_t running; /* timers not idle */
    size_t mapped_bytes_;
};

/* tick_ns >= 1; capacity: 1 to 2^31. */
__attribute__((warn_unused_result)) bool timers_open(struct timers *timers, uint32_t capacity,
                                                     uint64_t tick_ns, uint64_t now_ns,
                                                     struct hf_error *error);
void timers_close(struct timers *timers);

/* Starts an idle timer or moves a running one. A deadline already past fires at the next take. */
void timers_set(struct timers *timers, uint32_t index, uint64_t expires_at_ns);

/* An idle timer stays idle. */
void timers_cancel(struct timers *timers, uint32_t index);

bool timers_running(const struct timers *timers, uint32_t index);

/*
 * One expired timer, idle from now on, or TIMERS_NONE. Each timer looked at, fired or filed anew,
 * takes one from *budget; at 0 the answer is TIMERS_NONE though more may be due, and the next call
 * goes on there. A handler may set and cancel any timer.
 */
__attribute__((warn_unused_result)) uint32_t timers_take_expired(struct timers *timers,
                                                                 uint64_t now_ns, uint32_t *budget);

/*
 * How long a thread may sleep before it must call timers_take_expired again: 0 if something is due,
 * TIMERS_NEVER if nothing runs. May be too short (a slot to file anew), never too long.
 */
uint64_t timers_wait_ns(const struct timers *timers, uint64_t now_ns);

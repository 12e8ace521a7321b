/*
 * The wheel. Level 0 has a slot for each of the next 64 ticks, level 1 for each 64 ticks after
 * those, and so on. A timer lies on the level of the highest digit (base 64) in which its deadline
 * differs from tick_, in the slot named by the deadline's digit there. So, of two filled levels,
 * all of the lower one comes before all of the higher one, and the next slot to open is the first
 * filled one of the lowest filled level.
 *
 * A slot that comes up is emptied one timer at a time (draining_), so that a slot with a million
 * timers doesn't hold up the thread. A timer found there whose deadline lies ahead, because it was
 * put off or because its slot covers many ticks, is filed anew: on a lower level, or where its new
 * deadline says; never into the slot being drained, for that digit no longer differs.
 *
 * Node numbers: 0 is nobody; then the heads of the circular lists: DUE, and one for each slot; then
 * the timers, index + NODE_FIRST_TIMER. Fresh memory is zero, which is what an idle timer looks
 * like, so the array is mapped and never written in advance.
 */
#include "core/io/timers.h"

#include <errno.h>
#include <sys/mman.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/base/error.h"

enum {
    NODE_NONE = 0,
    NODE_DUE = 1,
    NODE_FIRST_SLOT = 2,
    NODE_FIRST_TIMER = NODE_FIRST_SLOT + TIMERS_LEVELS * TIMERS_SLOTS,
};

#define TICKS_AHEAD_MAX ((UINT64_C(1) << 31) - 1)

static uint32_t slot_head(unsigned level, unsigned slot)
{
    return NODE_FIRST_SLOT + level * TIMERS_SLOTS + slot;
}

static bool list_empty(const struct timers *timers, uint32_t head)
{
    return timers->nodes_[head].next_ == head;
}

static void list_append(struct timers *timers, uint32_t head, uint32_t node)
{
    struct timer_node *nodes = timers->nodes_;
    const uint32_t last = nodes[head].previous_;

    nodes[node].next_ = head;
    nodes[node].previous_ = last;
    nodes[last].next_ = node;
    nodes[head].previous_ = node;
}

static void list_remove(struct timers *timers, uint32_t node)
{
    struct timer_node *nodes = timers->nodes_;
    const uint32_t next = nodes[node].next_;
    const uint32_t previous = nodes[node].previous_;

    nodes[previous].next_ = next;
    nodes[next].previous_ = previous;
    nodes[node].next_ = NODE_NONE;

    /* Only a list's head can be its own neighbour now: its slot has become empty. */
    if (next == previous && next >= NODE_FIRST_SLOT && next < NODE_FIRST_TIMER) {
        const uint32_t slot = next - NODE_FIRST_SLOT;
        timers->filled_[slot / TIMERS_SLOTS] &= ~(UINT64_C(1) << slot % TIMERS_SLOTS);
    }
}

/* The low 32 bits are kept; what they stand for lies within 2^31 ticks of tick_. */
static uint64_t node_deadline(const struct timers *timers, uint32_t node)
{
    const int32_t ahead = (int32_t)(timers->nodes_[node].deadline_ - (uint32_t)timers->tick_);
    return timers->tick_ + (uint64_t)(int64_t)ahead;
}

static void file_node(struct timers *timers, uint32_t node, uint64_t deadline)
{
    if (deadline <= timers->tick_) {
        list_append(timers, NODE_DUE, node);
        return;
    }
    const unsigned digit_bit = 63 - (unsigned)__builtin_clzll(deadline ^ timers->tick_);
    const unsigned level = digit_bit / TIMERS_LEVEL_BITS;

    HF_ASSERT(level < TIMERS_LEVELS); /* else after 21 years of ticks of 10 ms */
    const unsigned slot = (unsigned)(deadline >> level * TIMERS_LEVEL_BITS) % TIMERS_SLOTS;

    list_append(timers, slot_head(level, slot), node);
    timers->filled_[level] |= UINT64_C(1) << slot;
}

/* The tick at which the next slot opens; false: all slots are empty. */
static bool next_slot(const struct timers *timers, uint64_t *tick, unsigned *level_found)
{
    for (unsigned level = 0; level < TIMERS_LEVELS; level++) {
        if (timers->filled_[level] != 0) {
            const unsigned slot = (unsigned)__builtin_ctzll(timers->filled_[level]);
            const unsigned shift = level * TIMERS_LEVEL_BITS;
            const uint64_t above = timers->tick_ >> shift >> TIMERS_LEVEL_BITS;

            *tick = (above << TIMERS_LEVEL_BITS | slot) << shift;
            *level_found = level;
            return true;
        }
    }
    return false;
}

bool timers_open(struct timers *timers, uint32_t capacity, uint64_t tick_ns, uint64_t now_ns,
                 struct hf_error *error)
{
    HF_ASSERT(capacity > 0 && capacity <= UINT32_C(1) << 31 && tick_ns > 0);

    *timers = (struct timers){
        .tick_ns = tick_ns,
        .origin_ns_ = now_ns,
        .capacity = capacity,
        .mapped_bytes_ = ((size_t)NODE_FIRST_TIMER + capacity) * sizeof *timers->nodes_,
    };
    void *nodes = mmap(NULL, timers->mapped_bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (nodes == MAP_FAILED) {
        hf_error_set(error, EX_OSERR, errno, "memory for %u timers", capacity);
        return false;
    }
    timers->nodes_ = nodes;
    for (uint32_t head = NODE_DUE; head < NODE_FIRST_TIMER; head++) {
        timers->nodes_[head].next_ = head;
        timers->nodes_[head].previous_ = head;
    }
    return true;
}

void timers_close(struct timers *timers)
{
    if (timers->nodes_ != NULL) {
        (void)munmap(timers->nodes_, timers->mapped_bytes_);
    }
    *timers = (struct timers){ 0 };
}

void timers_set(struct timers *timers, uint32_t index, uint64_t expires_at_ns)
{
    HF_ASSERT(index < timers->capacity);

    const uint32_t node = NODE_FIRST_TIMER + index;
    const bool running = timers->nodes_[node].next_ != NODE_NONE;
    uint64_t deadline = 0;

    if (expires_at_ns > timers->origin_ns_) { /* rounds up: late, never early */
        const uint64_t span_ns = expires_at_ns - timers->origin_ns_;
        deadline = span_ns / timers->tick_ns + (span_ns % timers->tick_ns != 0);
    }
    if (deadline < timers->tick_) {
        deadline = timers->tick_;
    } else if (deadline > timers->tick_ + TICKS_AHEAD_MAX) {
        deadline = timers->tick_ + TICKS_AHEAD_MAX;
    }

    /* Where it lies is no later than its deadline so far: put off, it is found there and moved. */
    const bool put_off = running && deadline >= node_deadline(timers, node);

    timers->nodes_[node].deadline_ = (uint32_t)deadline;
    if (put_off) {
        return;
    }
    if (running) {
        list_remove(timers, node);
    } else {
        timers->running++;
    }
    file_node(timers, node, deadline);
}

void timers_cancel(struct timers *timers, uint32_t index)
{
    HF_ASSERT(index < timers->capacity);

    const uint32_t node = NODE_FIRST_TIMER + index;

    if (timers->nodes_[node].next_ != NODE_NONE) {
        list_remove(timers, node);
        timers->running--;
    }
}

bool timers_running(const struct timers *timers, uint32_t index)
{
    HF_ASSERT(index < timers->capacity);
    return timers->nodes_[NODE_FIRST_TIMER + index].next_ != NODE_NONE;
}

/* Opens the next slot that has come; false: none has, and tick_ is now. */
static bool open_slot(struct timers *timers, uint64_t now_tick)
{
    uint64_t tick;
    unsigned level;

    if (!next_slot(timers, &tick, &level) || tick > now_tick) {
        timers->tick_ = now_tick;
        return false;
    }
    HF_ASSERT_SLOW(tick > timers->tick_);
    timers->tick_ = tick;
    timers->draining_ = slot_head(level, (unsigned)__builtin_ctzll(timers->filled_[level]));
    return true;
}

uint32_t timers_take_expired(struct timers *timers, uint64_t now_ns, uint32_t *budget)
{
    HF_ASSERT(now_ns >= timers->origin_ns_);

    const uint64_t now_tick = (now_ns - timers->origin_ns_) / timers->tick_ns;

    HF_ASSERT(now_tick >= timers->tick_);

    for (; *budget > 0; (*budget)--) {
        uint32_t head = NODE_DUE;

        /* What is due already goes first: handlers that set past deadlines can't starve a slot,
         * for each costs budget, but a slot of a million mustn't delay what is due. */
        if (list_empty(timers, NODE_DUE)) {
            while (timers->draining_ == NODE_NONE || list_empty(timers, timers->draining_)) {
                timers->draining_ = NODE_NONE;
                if (!open_slot(timers, now_tick)) {
                    return TIMERS_NONE;
                }
            }
            head = timers->draining_;
        }

        const uint32_t node = timers->nodes_[head].next_;
        const uint64_t deadline = node_deadline(timers, node);

        list_remove(timers, node);
        if (deadline <= timers->tick_) {
            timers->running--;
            (*budget)--;
            return node - NODE_FIRST_TIMER;
        }
        file_node(timers, node, deadline);
    }
    return TIMERS_NONE;
}

uint64_t timers_wait_ns(const struct timers *timers, uint64_t now_ns)
{
    uint64_t tick;
    unsigned level;

    if (!list_empty(timers, NODE_DUE) ||
        (timers->draining_ != NODE_NONE && !list_empty(timers, timers->draining_))) {
        return 0;
    }
    if (!next_slot(timers, &tick, &level)) {
        return TIMERS_NEVER;
    }
    const uint64_t at_ns = timers->origin_ns_ + tick * timers->tick_ns;

    return at_ns > now_ns ? at_ns - now_ns : 0;
}

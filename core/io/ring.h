/*
 * ring: one io_uring: its set-up, its tags, its turns. ring_ops.h fills SQEs; ring_group.h joins
 * several rings in one thread.
 *
 * Owner    One thread. ring_open and ring_close may run in another, before and after.
 * Thread   ring_open makes the ring disabled; the owner's first call is ring_enable, and from then
 *          on no other thread may use it (-EEXIST from the kernel). Its `fd` alone may be known to
 *          others, as the target of messages.
 * Memory   64 B an SQE, 16 B a CQE, in the kernel; 8 B a file slot.
 * Turn     Completions that had to wait are posted only inside the owner's ring_run or ring_wait
 *          (deferred task work): a thread that spins on ring_take sees nothing new. One enter runs
 *          about 20 of them; what is left over is found by ring_has_work.
 * Errors   Set-up: hf_error, EX_UNAVAILABLE where io_uring is absent, too old or forbidden, and the
 *          remedy in words. Afterwards each completion carries its own result; an SQ that stays
 *          full asserts, for then the kernel is out of memory for requests.
 * Source   io_uring_setup(2), io_uring_enter(2), io_uring_register(2), io_uring(7).
 */
#pragma once

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

struct hf_error;

/*
 * What newer kernels add to 6.1. Each is optional, found by trying it, and may be turned off by
 * name, so that the code for its absence can be tested everywhere.
 */
#define RING_FEATURES(X)                                                                           \
    X(no_sqarray, "6.6: submission without an index array")                                        \
    X(cmd_sock, "6.7: socket options of direct descriptors")

struct ring_features {
#define RING_FEATURE_FIELD(name, text) bool name;
    RING_FEATURES(RING_FEATURE_FIELD)
#undef RING_FEATURE_FIELD
};

/*
 * Tries io_uring as Holdfast uses it. To be called once, first thing at start, by any thread: false
 * means that this process can't serve, and says what the operator should change.
 */
__attribute__((warn_unused_result)) bool ring_probe(struct ring_features *features,
                                                    struct hf_error *error);

/* Turns off the feature of that name; false if there is none such. */
__attribute__((warn_unused_result)) bool ring_feature_turn_off(struct ring_features *features,
                                                               const char *name);

/* The facts from which a refusal is explained: ring_explain is pure. */
struct ring_refusal {
    int errno_value;            /* of io_uring_setup or what came after it */
    int io_uring_disabled;      /* kernel.io_uring_disabled; -1: no such setting */
    uint64_t memlock_bytes_max; /* RLIMIT_MEMLOCK; UINT64_MAX: unlimited */
    const char *kernel_release; /* of uname(2) */
};
void ring_explain(const struct ring_refusal *refusal, struct hf_error *error);

/* Whether a release as uname(2) has it ("6.1.0-28-amd64") is 6.1 or newer. */
bool ring_kernel_supported(const char *release);

/*
 * Tags: the user_data of an operation says which one it is, for which slot, in which life of that
 * slot (slab.h). A pointer there would, with a late completion, reach the next tenant.
 *   byte 7: op · bytes 4-6: generation · bytes 0-3: slot
 */
#define RING_OP_NONE           0U    /* completions are dropped by ring_take */
#define RING_OP_RESERVED_FIRST 0xf0U /* from here on: this room's own */
#define RING_TAG_NONE          UINT64_C(0)

static inline uint64_t ring_tag(uint8_t op, uint32_t slot, uint32_t generation)
{
    return (uint64_t)op << 56 | (uint64_t)(generation & 0xffffffU) << 32 | slot;
}

static inline uint8_t ring_tag_op(uint64_t tag)
{
    return (uint8_t)(tag >> 56);
}

static inline uint32_t ring_tag_slot(uint64_t tag)
{
    return (uint32_t)tag;
}

static inline uint32_t ring_tag_generation(uint64_t tag)
{
    return (uint32_t)(tag >> 32) & 0xffffffU;
}

struct ring_config {
    uint32_t sq_entries; /* power of two; 0: 1,024 */
    uint32_t cq_entries; /* power of two; 0: 16,384. Too small a CQ ends multishots early */
    uint32_t files;      /* slots of the file table, at most the soft RLIMIT_NOFILE; 0: no table */
    uint32_t index;      /* comes back in each event */
    struct ring_features features;
};

struct ring {
    struct io_uring uring_;
    int fd; /* where other rings send messages and descriptors */
    uint32_t index;
    uint32_t files;
    struct ring_features features;
    int owner_; /* thread id, from ring_enable on */
    bool enabled_;
};

/* One completion, copied out. */
struct ring_event {
    uint64_t tag;
    int32_t result;
    uint32_t flags; /* IORING_CQE_F_* */
    uint32_t ring;  /* index of the ring that it came from */
};

#define RING_FOREVER UINT64_MAX

__attribute__((warn_unused_result)) bool
ring_open(struct ring *ring, const struct ring_config *config, struct hf_error *error);
/* By the owning thread, before anything else. */
__attribute__((warn_unused_result)) bool ring_enable(struct ring *ring, struct hf_error *error);
/*
 * Gives the ring up. The kernel cancels what is in flight and closes the files of the table a
 * little later, so buffers must outlive both. A ring that failed to open, and one that is zeroed,
 * may be closed too.
 */
void ring_close(struct ring *ring);

/* A free SQE, zeroed by the prep function that fills it. When the SQ is full, submits and goes on.
 */
struct io_uring_sqe *ring_sqe(struct ring *ring);

/* Sees to it that the next `count` SQEs go in one submission: links don't reach over two. */
void ring_reserve(struct ring *ring, uint32_t count);

/* Whether ring_run would do anything: SQEs wait, or work is deferred to us. */
bool ring_has_work(const struct ring *ring);

/* Whether ring_take would say true. */
static inline bool ring_ready(const struct ring *ring)
{
    return io_uring_cq_ready(&ring->uring_) != 0;
}

/* One enter: submits, runs deferred work, doesn't wait. */
void ring_run(struct ring *ring);

/*
 * One enter: submits, runs deferred work, and if nothing is complete waits for one completion, at
 * most timeout_ns. Signals end it early.
 */
void ring_wait(struct ring *ring, uint64_t timeout_ns);

/* Takes one completion out. Those of RING_TAG_NONE are dropped here. */
__attribute__((warn_unused_result)) bool ring_take(struct ring *ring, struct ring_event *event);

/* Whether a multishot operation goes on after this completion. False: arm it again, whatever the
 * result (a full CQ ends multishots that succeeded: 8 of 32). */
static inline bool ring_event_more(const struct ring_event *event)
{
    return (event->flags & IORING_CQE_F_MORE) != 0;
}

#include "core/io/ring.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/error.h"
#include "core/io/clock.h"

#define SQ_ENTRIES_DEFAULT 1024
#define CQ_ENTRIES_DEFAULT 16384

/*
 * Kernel threads of this thread's rings, for what can't be done without blocking: journal writes
 * (one in flight), shutdown. Few, or a thousand shutdowns could start a thousand threads.
 */
#define WORKERS_BOUNDED_MAX   4
#define WORKERS_UNBOUNDED_MAX 4

/* So many fruitless submissions in a row mean that the kernel has no memory left for requests. */
#define SUBMIT_ATTEMPTS_MAX 10000

/*
 * Not io_uring_queue_init_params: liburing 2.9 tries NO_SQARRAY by itself, so it couldn't be turned
 * off. TASKRUN_FLAG is what ring_has_work looks at.
 */
static int ring_setup(struct ring *ring, const struct ring_config *config)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
                 IORING_SETUP_R_DISABLED |
                 (config->features.no_sqarray ? IORING_SETUP_NO_SQARRAY : 0),
        .cq_entries = config->cq_entries != 0 ? config->cq_entries : CQ_ENTRIES_DEFAULT,
    };
    struct io_uring *uring = &ring->uring_;
    const int fd =
        io_uring_setup(config->sq_entries != 0 ? config->sq_entries : SQ_ENTRIES_DEFAULT, &params);

    if (fd < 0) {
        return fd;
    }
    const int result = io_uring_queue_mmap(fd, &params, uring);
    if (result < 0) {
        (void)close(fd);
        return result;
    }
    uring->features = params.features;
    uring->flags = params.flags;
    uring->ring_fd = fd;
    uring->enter_ring_fd = fd;
    if (!config->features.no_sqarray) {
        for (unsigned i = 0; i < uring->sq.ring_entries; i++) {
            uring->sq.array[i] = i; /* SQEs are used in order, so the indirection never changes */
        }
    }
    ring->fd = fd;
    return 0;
}

/* What ring_explain needs, asked of the machine. */
static void explain_now(int errno_value, struct hf_error *error)
{
    struct utsname name = { 0 };
    struct rlimit memlock = { .rlim_cur = RLIM_INFINITY };
    struct ring_refusal refusal = {
        .errno_value = errno_value,
        .io_uring_disabled = -1,
    };
    FILE *file = fopen("/proc/sys/kernel/io_uring_disabled", "re");

    if (file != NULL) {
        const int digit = fgetc(file);
        if (digit >= '0' && digit <= '9') {
            refusal.io_uring_disabled = digit - '0';
        }
        (void)fclose(file);
    }
    (void)getrlimit(RLIMIT_MEMLOCK, &memlock);
    refusal.memlock_bytes_max = memlock.rlim_cur == RLIM_INFINITY ? UINT64_MAX : memlock.rlim_cur;
    (void)uname(&name);
    refusal.kernel_release = name.release;
    ring_explain(&refusal, error);
}

bool ring_open(struct ring *ring, const struct ring_config *config, struct hf_error *error)
{
    *ring = (struct ring){
        .fd = -1,
        .index = config->index,
        .files = config->files,
        .features = config->features,
    };
    int result = ring_setup(ring, config);

    if (result < 0) {
        explain_now(-result, error);
        return false;
    }
    if (config->files != 0) {
        result = io_uring_register_files_sparse(&ring->uring_, config->files);
    }
    if (result < 0) {
        struct rlimit files = { 0 };
        (void)getrlimit(RLIMIT_NOFILE, &files);
        hf_error_set(error, EX_OSERR, -result,
                     "io_uring: a table of %u descriptors (RLIMIT_NOFILE is %llu)", config->files,
                     (unsigned long long)files.rlim_cur);
        ring_close(ring);
        return false;
    }
    return true;
}

bool ring_enable(struct ring *ring, struct hf_error *error)
{
    unsigned workers[2] = { WORKERS_BOUNDED_MAX, WORKERS_UNBOUNDED_MAX };
    const int result = io_uring_enable_rings(&ring->uring_);

    if (result < 0) {
        hf_error_set(error, EX_OSERR, -result, "io_uring: enable");
        return false;
    }
    ring->enabled_ = true;
    ring->owner_ = gettid();
    /* A thread may register 16; beyond, an enter looks its file up, 20 ns more. */
    (void)io_uring_register_ring_fd(&ring->uring_);
    (void)io_uring_register_iowq_max_workers(&ring->uring_, workers);
    return true;
}

void ring_close(struct ring *ring)
{
    if (ring->uring_.sq.ring_ptr != NULL) {
        if (ring->owner_ != gettid()) {
            /* The owner's registration went with its thread; ours of that number is another ring.
             */
            ring->uring_.int_flags = 0;
        }
        io_uring_queue_exit(&ring->uring_);
    }
    *ring = (struct ring){ .fd = -1 };
}

/*
 * One enter. The results that a working program can see: EINTR and ETIME end a wait; EAGAIN: no
 * memory for a request, EBUSY: completions overflowed and the CQ has no room; in both cases the
 * SQEs stay in the SQ, and leave with the next enter.
 */
static void ring_check_enter(int result)
{
    HF_ASSERT(result >= 0 || result == -EINTR || result == -ETIME || result == -EAGAIN ||
              result == -EBUSY);
}

void ring_run(struct ring *ring)
{
    HF_ASSERT(ring->enabled_);
    ring_check_enter(io_uring_submit_and_get_events(&ring->uring_));
}

void ring_wait(struct ring *ring, uint64_t timeout_ns)
{
    struct io_uring_cqe *cqe;
    struct __kernel_timespec timeout;

    /* With completions at hand the library wouldn't ask for deferred work at all. */
    if (timeout_ns == 0 || ring_ready(ring)) {
        ring_run(ring);
        return;
    }
    HF_ASSERT(ring->enabled_);
    timeout.tv_sec = (long long)(timeout_ns / CLOCK_NS_PER_S);
    timeout.tv_nsec = (long long)(timeout_ns % CLOCK_NS_PER_S);
    ring_check_enter(io_uring_submit_and_wait_timeout(
        &ring->uring_, &cqe, 1, timeout_ns == RING_FOREVER ? NULL : &timeout, NULL));
}

void ring_reserve(struct ring *ring, uint32_t count)
{
    unsigned attempts = 0;

    HF_ASSERT(count <= ring->uring_.sq.ring_entries);
    while (io_uring_sq_space_left(&ring->uring_) < count) {
        HF_ASSERT(ring->enabled_ && attempts < SUBMIT_ATTEMPTS_MAX);
        attempts++;
        ring_check_enter(io_uring_submit(&ring->uring_));
    }
}

struct io_uring_sqe *ring_sqe(struct ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring_);

    if (sqe == NULL) {
        ring_reserve(ring, 1);
        sqe = io_uring_get_sqe(&ring->uring_);
        HF_ASSERT(sqe != NULL);
    }
    return sqe;
}

bool ring_has_work(const struct ring *ring)
{
    const unsigned flags = IO_URING_READ_ONCE(*ring->uring_.sq.kflags);

    return io_uring_sq_ready(&ring->uring_) != 0 ||
           (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

bool ring_take(struct ring *ring, struct ring_event *event)
{
    struct io_uring *uring = &ring->uring_;

    while (ring_ready(ring)) {
        const struct io_uring_cqe *cqe = &uring->cq.cqes[*uring->cq.khead & uring->cq.ring_mask];

        *event = (struct ring_event){
            .tag = cqe->user_data,
            .result = cqe->res,
            .flags = cqe->flags,
            .ring = ring->index,
        };
        io_uring_cq_advance(uring, 1);
        if (ring_tag_op(event->tag) != RING_OP_NONE) {
            return true;
        }
    }
    return false;
}

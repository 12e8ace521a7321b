/*
 * Why no child's work is lost. Before sleeping, in this order: S1 the eventfd is read (made 0),
 * S2 each child's flags are read, S3 the main ring's poll of the eventfd is armed, as part of the
 * enter that sleeps. The kernel, when it defers work to a child whose list was empty: K1 sets
 * IORING_SQ_TASKRUN, K2 adds to the eventfd. S1 and K2 take the same lock. If K2 came before S1, K1
 * is visible at S2, and we don't sleep. Otherwise the eventfd is above 0 at S3, and the poll
 * completes at once. Where the list wasn't empty, nobody is told anew, but then a run of the
 * child left work over, and the kernel has set IORING_SQ_TASKRUN again at the end of that run.
 * A poll that is armed already, and hasn't completed, has seen no K2 since it was armed.
 *
 * The poll is one-shot: one that another ring wakes ends without F_MORE in any case. While the
 * thread is awake it stays unarmed (but for one left from the last sleep), so that a busy child
 * costs the main ring nothing.
 */
#include "core/io/ring_group.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/error.h"

#define TAG_CHILDREN ring_tag(RING_OP_RESERVED_FIRST, 0, 0)

#define RECV_BUFFERS_MIN 16
#define RECV_BUFFERS_MAX 32768

static bool layout(struct ring_group *group, const struct ring_group_config *config,
                   struct hf_error *error)
{
    uint64_t per_ring = config->files_per_ring_max;

    HF_ASSERT(config->files > 0);
    if (per_ring == 0) {
        struct rlimit limit = { .rlim_cur = 1024 };
        (void)getrlimit(RLIMIT_NOFILE, &limit);
        per_ring = limit.rlim_cur;
    }
    if (per_ring > UINT32_C(1) << 20) {
        per_ring = UINT32_C(1) << 20; /* the kernel's bound for one table */
    }
    const uint64_t rings =
        per_ring == 0 ? UINT64_MAX : ((uint64_t)config->files + per_ring - 1) / per_ring;

    if (rings > RING_GROUP_RINGS_MAX) {
        hf_error_set(error, EX_CONFIG, 0,
                     "%u connections in one thread need more than %d rings of %llu descriptors: "
                     "raise RLIMIT_NOFILE or lower max_connections",
                     config->files, RING_GROUP_RINGS_MAX, (unsigned long long)per_ring);
        return false;
    }
    group->ring_count = (uint32_t)rings;
    group->files_per_ring = (uint32_t)((config->files + rings - 1) / rings);
    group->files_free = group->files_per_ring * group->ring_count;
    return true;
}

/* The largest power of two of buffers that fits a ring's share. */
static uint32_t recv_buffers_per_ring(const struct ring_group *group,
                                      const struct ring_group_config *config)
{
    const uint32_t share =
        config->recv_buffers_bytes / group->ring_count / config->recv_buffer_bytes;
    uint32_t count = RECV_BUFFERS_MIN;

    while (count < RECV_BUFFERS_MAX && count * 2 <= share) {
        count *= 2;
    }
    return count;
}

static bool open_ring(struct ring_group *group, const struct ring_group_config *config,
                      uint32_t index, struct hf_error *error)
{
    struct ring *ring = &group->rings[index];
    const struct ring_config ring_config = {
        .sq_entries = config->sq_entries,
        .cq_entries = config->cq_entries,
        .files = group->files_per_ring,
        .index = index,
        .features = config->features,
    };

    if (!ring_open(ring, &ring_config, error)) {
        return false;
    }
    if (config->recv_buffers_bytes != 0 &&
        !recv_buffers_open(&group->recv_buffers[index], ring, RING_GROUP_BUFFER_GROUP,
                           recv_buffers_per_ring(group, config), config->recv_buffer_bytes,
                           error)) {
        return false;
    }
    if (index > 0) {
        const int result = io_uring_register_eventfd(&ring->uring_, group->children_fd_);
        if (result < 0) {
            hf_error_set(error, EX_OSERR, -result, "register an eventfd");
            return false;
        }
    }
    return true;
}

bool ring_group_open(struct ring_group *group, const struct ring_group_config *config,
                     struct hf_error *error)
{
    *group = (struct ring_group){ .children_fd_ = -1 };
    if (!layout(group, config, error)) {
        return false;
    }
    group->rings = calloc(group->ring_count, sizeof *group->rings);
    group->recv_buffers = calloc(group->ring_count, sizeof *group->recv_buffers);
    group->files_taken_ = calloc(group->ring_count, sizeof *group->files_taken_);
    if (group->rings == NULL || group->recv_buffers == NULL || group->files_taken_ == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "memory for %u rings", group->ring_count);
        ring_group_close(group);
        return false;
    }
    if (group->ring_count > 1) {
        group->children_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (group->children_fd_ < 0) {
            hf_error_set(error, EX_OSERR, errno, "eventfd");
            ring_group_close(group);
            return false;
        }
    }
    for (uint32_t i = 0; i < group->ring_count; i++) {
        if (!open_ring(group, config, i, error)) {
            hf_error_prepend(error, "ring %u of %u", i + 1, group->ring_count);
            ring_group_close(group);
            return false;
        }
    }
    return true;
}

bool ring_group_enable(struct ring_group *group, struct hf_error *error)
{
    for (uint32_t i = 0; i < group->ring_count; i++) {
        if (!ring_enable(&group->rings[i], error)) {
            return false;
        }
    }
    return true;
}

void ring_group_close(struct ring_group *group)
{
    for (uint32_t i = 0; i < group->ring_count; i++) {
        if (group->rings != NULL) {
            ring_close(&group->rings[i]);
        }
        if (group->recv_buffers != NULL) {
            recv_buffers_close(&group->recv_buffers[i]);
        }
    }
    if (group->children_fd_ >= 0) {
        (void)close(group->children_fd_);
    }
    free(group->rings);
    free(group->recv_buffers);
    free(group->files_taken_);
    *group = (struct ring_group){ .children_fd_ = -1 };
}

uint32_t ring_group_take_file(struct ring_group *group)
{
    for (uint32_t i = 0; i < group->ring_count; i++) {
        if (group->files_taken_[i] < group->files_per_ring) {
            group->files_taken_[i]++;
            group->files_free--;
            return i;
        }
    }
    return UINT32_MAX;
}

void ring_group_give_file(struct ring_group *group, uint32_t ring)
{
    HF_ASSERT(ring < group->ring_count && group->files_taken_[ring] > 0);
    group->files_taken_[ring]--;
    group->files_free++;
}

/* Enters the children that have something to do; whether there is anything to take, or to run. */
static bool run_children(struct ring_group *group)
{
    bool found = false;

    for (uint32_t i = 1; i < group->ring_count; i++) {
        struct ring *child = &group->rings[i];

        if (ring_has_work(child)) {
            ring_run(child);
            group->entered_++;
        }
        found = found || ring_ready(child) || ring_has_work(child);
    }
    return found;
}

/* S1 to S3; false: a child has work by now. */
static bool may_sleep(struct ring_group *group)
{
    uint64_t count;

    if (group->poll_armed_) {
        return true;
    }
    if (read(group->children_fd_, &count, sizeof count) < 0) {
        HF_ASSERT(errno == EAGAIN || errno == EINTR); /* EAGAIN: it was 0 already */
    }
    for (uint32_t i = 1; i < group->ring_count; i++) {
        if (ring_has_work(&group->rings[i]) || ring_ready(&group->rings[i])) {
            return false;
        }
    }
    struct io_uring_sqe *sqe = ring_sqe(&group->rings[0]);

    io_uring_prep_poll_add(sqe, group->children_fd_, POLLIN);
    io_uring_sqe_set_data64(sqe, TAG_CHILDREN);
    group->poll_armed_ = true;
    return true;
}

void ring_group_turn(struct ring_group *group, uint64_t timeout_ns)
{
    struct ring *main_ring = &group->rings[0];

    if (group->ring_count == 1) {
        ring_wait(main_ring, timeout_ns);
        return;
    }
    if (run_children(group) || ring_ready(main_ring) || timeout_ns == 0 || !may_sleep(group)) {
        ring_run(main_ring);
        return;
    }
    ring_wait(main_ring, timeout_ns);
    (void)run_children(group);
}

bool ring_group_take(struct ring_group *group, struct ring_event *event)
{
    for (uint32_t tried = 0; tried < group->ring_count; tried++) {
        while (ring_take(&group->rings[group->cursor_], event)) {
            if (event->tag != TAG_CHILDREN) {
                return true;
            }
            group->poll_armed_ = false;
        }
        group->cursor_ = group->cursor_ + 1 == group->ring_count ? 0 : group->cursor_ + 1;
    }
    return false;
}

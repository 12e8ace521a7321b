#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "core/base/check.h"
#include "core/io/ring_group.h"
#include "tests/unit/io/loopback.h"
#include "tests/unit/io/random.h"

enum op {
    OP_POLL = 1,
    OP_RECV,
    OP_SEND,
    OP_NOP,
};

/* A lost wake-up is found after this long. */
#define LOST_NS (5 * CLOCK_NS_PER_S)

static void open_group(struct ring_group *group, uint32_t files, uint32_t files_per_ring,
                       bool plain)
{
    struct ring_features features = loopback_features();
    struct hf_error error;

    if (plain) { /* as on Linux 6.1 */
        features = (struct ring_features){ 0 };
    }
    const struct ring_group_config config = {
        .files = files,
        .files_per_ring_max = files_per_ring,
        .sq_entries = 256,
        .cq_entries = 4096,
        .recv_buffers_bytes = 64 * 1024,
        .recv_buffer_bytes = 256,
        .features = features,
    };
    if (!ring_group_open(group, &config, &error) || !ring_group_enable(group, &error)) {
        fail_msg("%s", error.text);
    }
}

/* A connection: one end in the table of a ring, the other a plain descriptor. */
struct pair {
    int peer_fd;
    uint32_t ring;
    uint32_t file;
};

static struct pair open_pair(struct ring_group *group)
{
    struct pair pair = { .ring = ring_group_take_file(group) };
    int fds[2];

    assert_true(pair.ring < group->ring_count);
    pair.file = group->files_taken_[pair.ring] - 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(ring_put_file(&group->rings[pair.ring], fds[0], pair.file), 0);
    (void)close(fds[0]);
    pair.peer_fd = fds[1];
    ring_poll(&group->rings[pair.ring], pair.file, ring_tag(OP_POLL, pair.file, 1));
    return pair;
}

static void rings_are_as_many_as_the_tables_need(void **state)
{
    (void)state;
    static const struct {
        uint32_t files;
        uint32_t per_ring_max;
        uint32_t rings;
        uint32_t per_ring;
    } rows[] = {
        { 8, 8, 1, 8 }, { 9, 8, 2, 5 }, { 16, 8, 2, 8 }, { 17, 8, 3, 6 }, { 1, 100, 1, 1 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ring_group group;

        open_group(&group, rows[i].files, rows[i].per_ring_max, false);
        assert_int_equal(group.ring_count, rows[i].rings);
        assert_int_equal(group.files_per_ring, rows[i].per_ring);
        assert_true(group.files_free >= rows[i].files);
        assert_int_equal(group.children_fd_ >= 0, rows[i].rings > 1);
        ring_group_close(&group);
    }
}

static void too_many_rings_are_refused(void **state)
{
    (void)state;
    struct ring_group group;
    struct hf_error error;
    const struct ring_group_config config = { .files = 1000, .files_per_ring_max = 2 };

    assert_false(ring_group_open(&group, &config, &error));
    assert_non_null(strstr(error.text, "raise RLIMIT_NOFILE or lower max_connections"));
}

static void tables_hold_more_connections_than_the_process_may_have_descriptors(void **state)
{
    (void)state;
    struct ring_group group;
    struct rlimit limit;
    int fds[2];

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur > 100000) {
        skip();
    }
    const uint32_t files = (uint32_t)limit.rlim_cur + 5;

    open_group(&group, files, 0, false);
    assert_int_equal(group.ring_count, 2);
    for (uint32_t i = 0; i < files; i += 2) { /* both ends in tables, none in the process */
        const uint32_t first = ring_group_take_file(&group);
        const uint32_t first_file = group.files_taken_[first] - 1;
        const uint32_t second = ring_group_take_file(&group);
        const uint32_t second_file = group.files_taken_[second] - 1;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(ring_put_file(&group.rings[first], fds[0], first_file), 0);
        assert_int_equal(ring_put_file(&group.rings[second], fds[1], second_file), 0);
        (void)close(fds[0]);
        (void)close(fds[1]);
    }
    assert_true(group.files_free <= 1);
    ring_group_close(&group);
}

static void files_fill_the_main_ring_first_and_end(void **state)
{
    (void)state;
    struct ring_group group;

    open_group(&group, 6, 2, false);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(ring_group_take_file(&group), i / 2);
    }
    assert_int_equal(group.files_free, 0);
    assert_int_equal(ring_group_take_file(&group), UINT32_MAX);
    ring_group_give_file(&group, 1);
    assert_int_equal(ring_group_take_file(&group), 1);
    ring_group_close(&group);
}

/*
 * A thread that writes a byte to a connection and waits for its echo, over and over. It spins, and
 * for a random time: so its writes meet the reactor at every point of falling asleep.
 */
enum { PAIRS = 12, ROUNDS = 10000 };

struct writer {
    struct pair pairs[PAIRS];
    bool together; /* writes to several connections at once */
};

static void *write_and_await_echo(void *argument)
{
    const struct writer *writer = argument;
    uint64_t random = 77;

    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t count = writer->together ? 1 + random_below(&random, PAIRS) : 1;
        const uint64_t first = random_below(&random, PAIRS);
        char byte = (char)round;

        for (volatile uint64_t spin = random_below(&random, 4000); spin > 0; spin--) {
        }
        for (uint64_t i = 0; i < count; i++) {
            const int fd = writer->pairs[(first + i) % PAIRS].peer_fd;
            HF_ASSERT(write(fd, &byte, 1) == 1);
        }
        for (uint64_t i = 0; i < count; i++) {
            const int fd = writer->pairs[(first + i) % PAIRS].peer_fd;
            char echo = 0;
            ssize_t got = -1;

            for (int spin = 0; spin < 200 && got < 0; spin++) {
                got = recv(fd, &echo, 1, MSG_DONTWAIT);
            }
            if (got < 0) { /* the CPU is taken */
                got = recv(fd, &echo, 1, 0);
            }
            HF_ASSERT(got == 1 && echo == byte);
        }
    }
    for (int i = 0; i < PAIRS; i++) {
        (void)close(writer->pairs[i].peer_fd);
    }
    return NULL;
}

/* Echoes until all peers have left; returns how often it slept till the time-out. */
static uint32_t echo_until_closed(struct ring_group *group)
{
    uint32_t open = PAIRS;
    uint32_t lost = 0;
    uint8_t bytes[4][PAIRS]; /* by ring and file */

    while (open > 0) {
        struct ring_event event;
        bool any = false;
        const uint64_t start_ns = clock_now_ns();

        ring_group_turn(group, LOST_NS);
        while (ring_group_take(group, &event)) {
            struct ring *ring = &group->rings[event.ring];
            const uint32_t file = ring_tag_slot(event.tag);
            uint16_t buffer;

            any = true;
            HF_ASSERT(event.ring < 4 && file < PAIRS);
            switch (ring_tag_op(event.tag)) {
            case OP_POLL:
                if (event.result < 0) {
                    break; /* cancelled by our close */
                }
                HF_ASSERT(ring_event_more(&event));
                ring_recv(ring, file, RING_GROUP_BUFFER_GROUP, ring_tag(OP_RECV, file, 1));
                break;
            case OP_RECV:
                if (event.result > 0) {
                    struct recv_buffers *buffers = &group->recv_buffers[event.ring];
                    bytes[event.ring][file] = *recv_buffers_take(buffers, &event, &buffer);
                    recv_buffers_give(buffers, buffer);
                    ring_send(ring, file, &bytes[event.ring][file], 1, ring_tag(OP_SEND, file, 1));
                } else if (event.result == 0) {
                    open--;
                    ring_close_file(ring, file, RING_TAG_NONE);
                } else {
                    HF_ASSERT(event.result == -EAGAIN);
                }
                break;
            default:
                break;
            }
        }
        if (!any && clock_now_ns() - start_ns >= LOST_NS) {
            lost++;
        }
    }
    return lost;
}

static void run_rounds(uint32_t files_per_ring, bool together, bool plain)
{
    struct ring_group group;
    struct writer writer = { .together = together };
    pthread_t thread;

    open_group(&group, PAIRS, files_per_ring, plain);
    for (int i = 0; i < PAIRS; i++) {
        writer.pairs[i] = open_pair(&group);
    }
    ring_group_turn(&group, 0);
    assert_int_equal(pthread_create(&thread, NULL, write_and_await_echo, &writer), 0);
    assert_int_equal(echo_until_closed(&group), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ring_group_close(&group);
}

static void no_wake_up_of_a_child_is_lost_in_10000_rounds(void **state)
{
    (void)state;
    run_rounds(4, false, false); /* three rings of four */
}

static void no_wake_up_is_lost_when_rings_are_woken_together(void **state)
{
    (void)state;
    run_rounds(3, true, false);
}

static void group_works_without_optional_features(void **state)
{
    (void)state;
    run_rounds(4, true, true);
}

static void one_ring_serves_alone(void **state)
{
    (void)state;
    run_rounds(PAIRS, true, false);
}

/*
 * The group's read of the eventfd, its last step before it looks at the children and sleeps, comes
 * here: so that something can happen in just that moment.
 */
static struct {
    int fd;
    int peer_fd; /* -1: nothing happens */
    bool after;  /* the read; else before it */
    uint32_t count;
} moment = { .fd = -1, .peer_fd = -1 };

/* Names that the linker's --wrap gives. */
// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming)
ssize_t __real_read(int fd, void *bytes, size_t byte_count);
ssize_t __wrap_read(int fd, void *bytes, size_t byte_count);

ssize_t __wrap_read(int fd, void *bytes, size_t byte_count)
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)
{
    if (fd != moment.fd || moment.peer_fd < 0) {
        return __real_read(fd, bytes, byte_count);
    }
    if (!moment.after) {
        HF_ASSERT(write(moment.peer_fd, "x", 1) == 1);
    }
    const ssize_t result = __real_read(fd, bytes, byte_count);

    if (moment.after) {
        HF_ASSERT(write(moment.peer_fd, "x", 1) == 1);
    }
    moment.peer_fd = -1;
    moment.count++;
    return result;
}

static void work_that_arrives_in_the_moment_of_falling_asleep_is_not_lost(void **state)
{
    (void)state;
    struct ring_group group;
    struct pair pairs[4];
    struct ring_event event;

    open_group(&group, 4, 2, false);
    for (int i = 0; i < 4; i++) {
        pairs[i] = open_pair(&group);
    }
    ring_group_turn(&group, 0);
    moment.fd = group.children_fd_;
    for (uint32_t i = 0; i < 100; i++) {
        const uint64_t start_ns = clock_now_ns();
        bool found = false;

        assert_int_equal(pairs[2].ring, 1);
        moment.peer_fd = pairs[2].peer_fd;
        moment.after = i % 2 == 1;
        moment.count = 0;
        /* The first turn may only clear what the round before left. */
        while (!found && clock_now_ns() - start_ns < LOST_NS) {
            ring_group_turn(&group, LOST_NS);
            while (ring_group_take(&group, &event)) {
                assert_int_equal(event.ring, 1);
                found = true;
            }
        }
        assert_int_equal(moment.count, 1);
        assert_true(found && clock_now_ns() - start_ns < LOST_NS);
    }
    moment.fd = -1;
    for (int i = 0; i < 4; i++) {
        (void)close(pairs[i].peer_fd);
    }
    ring_group_close(&group);
}

/* One enter runs about 20 completions; the rest must not wait for the next event. */
static void many_ready_connections_of_a_child_are_all_served_at_once(void **state)
{
    (void)state;
    enum { MANY = 200 };
    struct ring_group group;
    struct pair pairs[2 * MANY];
    uint32_t seen = 0;
    uint32_t turns = 0;

    open_group(&group, 2 * MANY, MANY, false);
    for (int i = 0; i < 2 * MANY; i++) {
        pairs[i] = open_pair(&group);
    }
    ring_group_turn(&group, 0);
    for (int round = 1; round <= 20; round++) {
        for (int i = MANY; i < 2 * MANY; i++) { /* all of ring 1 */
            assert_int_equal(pairs[i].ring, 1);
            assert_int_equal(write(pairs[i].peer_fd, "x", 1), 1);
        }
        while (seen < MANY * (uint32_t)round) {
            struct ring_event event;
            const uint64_t start_ns = clock_now_ns();

            ring_group_turn(&group, LOST_NS);
            turns++;
            if (clock_now_ns() - start_ns >= LOST_NS) {
                fail_msg("slept with %u of %d served", seen, MANY * round);
            }
            while (ring_group_take(&group, &event)) {
                assert_int_equal(event.ring, 1);
                seen++;
            }
        }
    }
    print_message("%u events in %u turns\n", seen, turns);
    for (int i = 0; i < 2 * MANY; i++) {
        (void)close(pairs[i].peer_fd);
    }
    ring_group_close(&group);
}

static void idle_children_are_not_entered(void **state)
{
    (void)state;
    struct ring_group group;
    struct pair pairs[4];
    struct ring_event event;

    open_group(&group, 4, 2, false);
    for (int i = 0; i < 4; i++) {
        pairs[i] = open_pair(&group);
    }
    ring_group_turn(&group, 0);
    const uint64_t entered = group.entered_;

    for (int i = 0; i < 100; i++) {
        assert_int_equal(pairs[0].ring, 0);
        assert_int_equal(write(pairs[0].peer_fd, "x", 1), 1);
        ring_group_turn(&group, LOST_NS);
        assert_true(ring_group_take(&group, &event));
        assert_int_equal(event.ring, 0);
        assert_false(ring_group_take(&group, &event));
    }
    assert_int_equal(group.entered_, entered);
    for (int i = 0; i < 4; i++) {
        (void)close(pairs[i].peer_fd);
    }
    ring_group_close(&group);
}

static void completions_left_by_a_budget_come_first_in_the_next_turn(void **state)
{
    (void)state;
    struct ring_group group;
    struct ring_event event;
    uint32_t taken = 0;

    open_group(&group, 4, 2, false);
    for (uint32_t i = 0; i < 20; i++) {
        struct io_uring_sqe *sqe = ring_sqe(&group.rings[i % 2]);
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data64(sqe, ring_tag(OP_NOP, i, 1));
    }
    while (taken < 20) {
        const uint64_t start_ns = clock_now_ns();
        ring_group_turn(&group, LOST_NS);
        assert_true(clock_now_ns() - start_ns < LOST_NS);
        for (int budget = 3; budget > 0 && ring_group_take(&group, &event); budget--) {
            taken++;
        }
    }
    ring_group_close(&group);
}

static void turn_ends_at_its_timeout(void **state)
{
    (void)state;

    for (uint32_t per_ring = 2; per_ring <= 4; per_ring += 2) {
        struct ring_group group;
        struct ring_event event;

        open_group(&group, 4, per_ring, false);
        for (int i = 0; i < 3; i++) {
            const uint64_t start_ns = clock_now_ns();
            ring_group_turn(&group, 10 * CLOCK_NS_PER_MS);
            assert_true(clock_now_ns() - start_ns >= 10 * CLOCK_NS_PER_MS);
            assert_false(ring_group_take(&group, &event));
        }
        ring_group_close(&group);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rings_are_as_many_as_the_tables_need),
        cmocka_unit_test(too_many_rings_are_refused),
        cmocka_unit_test(tables_hold_more_connections_than_the_process_may_have_descriptors),
        cmocka_unit_test(files_fill_the_main_ring_first_and_end),
        cmocka_unit_test(no_wake_up_of_a_child_is_lost_in_10000_rounds),
        cmocka_unit_test(no_wake_up_is_lost_when_rings_are_woken_together),
        cmocka_unit_test(work_that_arrives_in_the_moment_of_falling_asleep_is_not_lost),
        cmocka_unit_test(group_works_without_optional_features),
        cmocka_unit_test(one_ring_serves_alone),
        cmocka_unit_test(many_ready_connections_of_a_child_are_all_served_at_once),
        cmocka_unit_test(idle_children_are_not_entered),
        cmocka_unit_test(completions_left_by_a_budget_come_first_in_the_next_turn),
        cmocka_unit_test(turn_ends_at_its_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A door thread and a reactor thread: descriptors and messages from ring to ring. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>

#include "core/base/check.h"
#include "core/io/mailbox.h"
#include "core/io/ring_group.h"
#include "tests/unit/io/loopback.h"

enum op {
    OP_ACCEPT = 1,
    OP_PASS,
    OP_CLOSE,
    OP_ARRIVED,
    OP_DATA,
    OP_POLL,
    OP_RECV,
    OP_BELL,
    OP_MESSAGE,
};

enum { CONNECTIONS = 40, FILES_PER_RING = 16, MESSAGES = 1000 };

struct note {
    uint64_t connection;
};

/* What both threads know; the mailbox publishes the rest. */
struct shared {
    struct ring_group group;
    struct bell bell;
    struct mailbox mailbox;
    pthread_barrier_t enabled;
    char got[CONNECTIONS][8];
};

struct reactor {
    uint32_t arrived;
    uint32_t notes;
    uint32_t closed;
    uint32_t files[CONNECTIONS];
    uint32_t rings[CONNECTIONS];
};

static void reactor_on_recv(struct shared *shared, struct reactor *reactor,
                            const struct ring_event *event)
{
    const uint32_t connection = ring_tag_slot(event->tag);
    struct recv_buffers *buffers = &shared->group.recv_buffers[event->ring];
    uint16_t buffer;

    /* A multishot poll may tell of the same bytes twice; the file may be on its way out by then. */
    if (event->result < 0) {
        HF_ASSERT(event->result == -EAGAIN || event->result == -ECANCELED ||
                  event->result == -EBADF);
        return;
    }
    HF_ASSERT(event->result == 6);
    memcpy(shared->got[connection], recv_buffers_take(buffers, event, &buffer), 6);
    recv_buffers_give(buffers, buffer);
    ring_close_file(&shared->group.rings[event->ring], reactor->files[connection],
                    ring_tag(OP_CLOSE, connection, 1));
}

static void reactor_on_event(struct shared *shared, struct reactor *reactor,
                             const struct ring_event *event)
{
    const uint32_t connection = ring_tag_slot(event->tag);
    struct ring *ring = &shared->group.rings[event->ring];

    switch (ring_tag_op(event->tag)) {
    case OP_ARRIVED:
        HF_ASSERT(event->result >= 0 && event->result < FILES_PER_RING);
        reactor->files[connection] = (uint32_t)event->result;
        reactor->rings[connection] = event->ring;
        reactor->arrived++;
        ring_poll(ring, (uint32_t)event->result, ring_tag(OP_POLL, connection, 1));
        break;
    case OP_POLL:
        if (event->result > 0) {
            ring_recv(ring, reactor->files[connection], RING_GROUP_BUFFER_GROUP,
                      ring_tag(OP_RECV, connection, 1));
        }
        break;
    case OP_RECV:
        reactor_on_recv(shared, reactor, event);
        break;
    case OP_CLOSE:
        HF_ASSERT(event->result == 0);
        reactor->closed++;
        ring_group_give_file(&shared->group, event->ring);
        break;
    default:
        break;
    }
}

static void *run_reactor(void *argument)
{
    struct shared *shared = argument;
    struct reactor reactor = { 0 };
    struct hf_error error;

    HF_ASSERT(ring_group_enable(&shared->group, &error));
    ring_poll_fd(&shared->group.rings[0], shared->bell.fd, ring_tag(OP_BELL, 0, 0));
    (void)pthread_barrier_wait(&shared->enabled);

    while (reactor.closed < CONNECTIONS || reactor.notes < CONNECTIONS) {
        struct ring_event event;
        uint64_t timeout_ns = LOOPBACK_TIMEOUT_NS;
        const uint64_t start_ns = clock_now_ns();

        bell_prepare(&shared->bell);
        if (!mailbox_empty(&shared->mailbox)) {
            timeout_ns = 0;
        }
        ring_group_turn(&shared->group, timeout_ns);
        bell_cancel(&shared->bell);
        HF_ASSERT(clock_now_ns() - start_ns < LOOPBACK_TIMEOUT_NS);

        while (ring_group_take(&shared->group, &event)) {
            reactor_on_event(shared, &reactor, &event);
        }
        while (mailbox_take(&shared->mailbox) != NULL) {
            reactor.notes++;
        }
    }
    HF_ASSERT(reactor.arrived == CONNECTIONS);
    return NULL;
}

static void door_pass_one(struct ring *door, struct shared *shared, uint32_t connection,
                          const struct loopback *listener, int *fd)
{
    const struct note note = { .connection = connection };
    const uint64_t tag = ring_tag(OP_PASS, connection, 1);

    *fd = loopback_dial(listener);
    const struct ring_event accepted = loopback_await(door, ring_tag(OP_ACCEPT, 0, 0));
    const uint32_t file = (uint32_t)accepted.result;

    assert_true(accepted.result >= 0);
    ring_pass_file(door, shared->group.rings[connection / FILES_PER_RING].fd, file,
                   ring_tag(OP_ARRIVED, connection, 1), tag);
    const int slot = loopback_await(door, tag).result;
    assert_true(slot >= 0 && slot < FILES_PER_RING);
    ring_close_file(door, file, ring_tag(OP_CLOSE, file, 1));
    assert_int_equal(loopback_await(door, ring_tag(OP_CLOSE, file, 1)).result, 0);
    assert_true(mailbox_give(&shared->mailbox, &note));
    mailbox_send(&shared->mailbox);
}

static void connections_passed_to_any_ring_live_on_there(void **state)
{
    (void)state;
    static struct shared shared;
    struct hf_error error;
    struct ring door;
    struct loopback listener = loopback_listen();
    pthread_t thread;
    int fds[CONNECTIONS];
    const struct ring_group_config config = {
        .files = 3 * FILES_PER_RING,
        .files_per_ring_max = FILES_PER_RING,
        .sq_entries = 64,
        .cq_entries = 1024,
        .recv_buffers_bytes = 3 * 16 * 64,
        .recv_buffer_bytes = 64,
        .features = loopback_features(),
    };

    assert_true(bell_open(&shared.bell, &error));
    assert_true(mailbox_open(&shared.mailbox, sizeof(struct note), 64, &shared.bell, &error));
    assert_true(ring_group_open(&shared.group, &config, &error));
    for (int i = 0; i < CONNECTIONS; i++) { /* the grants */
        assert_int_equal(ring_group_take_file(&shared.group), i / FILES_PER_RING);
    }
    assert_int_equal(pthread_barrier_init(&shared.enabled, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_reactor, &shared), 0);
    (void)pthread_barrier_wait(&shared.enabled);

    loopback_open_ring(&door, 4);
    ring_accept_direct(&door, listener.fd, ring_tag(OP_ACCEPT, 0, 0));
    ring_run(&door);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        door_pass_one(&door, &shared, i, &listener, &fds[i]);
        loopback_write(fds[i], "moved!", 6);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        char byte;
        assert_memory_equal(shared.got[i], "moved!", 6);
        assert_int_equal(recv(fds[i], &byte, 1, 0), 0); /* closed there: nobody else holds it */
        (void)close(fds[i]);
    }
    ring_close(&door);
    (void)close(listener.fd);
    (void)pthread_barrier_destroy(&shared.enabled);
    ring_group_close(&shared.group);
    mailbox_close(&shared.mailbox);
    bell_close(&shared.bell);
}

static void pass_to_a_full_table_or_a_disabled_ring_is_refused(void **state)
{
    (void)state;
    const struct ring_config config = { .sq_entries = 4, .cq_entries = 8, .files = 1 };
    struct ring door;
    struct ring target;
    struct hf_error error;
    struct ring_event event;
    const uint64_t tag = ring_tag(OP_PASS, 0, 1);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    loopback_open_ring(&door, 4);
    assert_int_equal(ring_put_file(&door, fd, 0), 0);
    assert_true(ring_open(&target, &config, &error));
    ring_send_message(&door, target.fd, tag, 1, tag);
    assert_int_equal(loopback_await(&door, tag).result, -EBADFD);
    assert_true(ring_enable(&target, &error));
    ring_pass_file(&door, target.fd, 0, ring_tag(OP_ARRIVED, 0, 1), tag);
    assert_int_equal(loopback_await(&door, tag).result, 0);
    ring_pass_file(&door, target.fd, 0, ring_tag(OP_ARRIVED, 0, 1), tag);
    assert_int_equal(loopback_await(&door, tag).result, -ENFILE);
    event = loopback_await(&target, ring_tag(OP_ARRIVED, 0, 1));
    assert_int_equal(event.result, 0);
    (void)close(fd);
    ring_close(&target);
    ring_close(&door);
}

struct sender {
    int ring_fd;
};

static void *send_messages(void *argument)
{
    const struct sender *sender = argument;
    const struct ring_config config = { .sq_entries = 16, .cq_entries = 2048 };
    struct ring ring;
    struct ring_event event;
    struct hf_error error;

    HF_ASSERT(ring_open(&ring, &config, &error) && ring_enable(&ring, &error));
    for (uint32_t i = 0; i < MESSAGES; i++) {
        ring_send_message(&ring, sender->ring_fd, ring_tag(OP_DATA, i, 7), i * 3,
                          ring_tag(OP_MESSAGE, i, 1));
    }
    for (uint32_t i = 0; i < MESSAGES;) {
        ring_wait(&ring, LOOPBACK_TIMEOUT_NS);
        while (ring_take(&ring, &event)) {
            HF_ASSERT(event.result == 0);
            i++;
        }
    }
    ring_close(&ring);
    return NULL;
}

static void messages_between_rings_keep_their_order(void **state)
{
    (void)state;
    struct ring ring;
    pthread_t thread;

    loopback_open_ring(&ring, 0);
    struct sender sender = { .ring_fd = ring.fd };
    assert_int_equal(pthread_create(&thread, NULL, send_messages, &sender), 0);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        const struct ring_event event = loopback_await(&ring, ring_tag(OP_DATA, i, 7));
        assert_int_equal(event.result, i * 3);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    ring_close(&ring);
}

static void *enable_and_leave(void *argument)
{
    struct hf_error error;
    HF_ASSERT(ring_enable(argument, &error));
    return NULL;
}

static void ring_closed_by_another_thread_leaves_that_threads_rings_alone(void **state)
{
    (void)state;
    const struct ring_config config = { .sq_entries = 4, .cq_entries = 8 };
    struct ring ours;
    struct ring theirs;
    struct hf_error error;
    pthread_t thread;

    loopback_open_ring(&ours, 0);
    assert_true(ring_open(&theirs, &config, &error));
    assert_int_equal(pthread_create(&thread, NULL, enable_and_leave, &theirs), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ring_close(&theirs);

    struct io_uring_sqe *sqe = ring_sqe(&ours);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, ring_tag(OP_DATA, 1, 1));
    assert_int_equal(loopback_await(&ours, ring_tag(OP_DATA, 1, 1)).result, 0);
    ring_close(&ours);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_passed_to_any_ring_live_on_there),
        cmocka_unit_test(pass_to_a_full_table_or_a_disabled_ring_is_refused),
        cmocka_unit_test(messages_between_rings_keep_their_order),
        cmocka_unit_test(ring_closed_by_another_thread_leaves_that_threads_rings_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

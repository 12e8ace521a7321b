#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "core/io/buffers.h"
#include "tests/unit/io/loopback.h"

enum op {
    OP_ACCEPT = 1,
    OP_POLL,
    OP_RECV,
    OP_SEND,
    OP_CLOSE,
    OP_OTHER,
};

#define TAG(op, slot) ring_tag((op), (slot), 1)
#define GROUP         3
#define FILES         4
#define BUFFERS       4
#define BUFFER_BYTES  64

/* A ring with a listener whose clients it accepts, and receive buffers. */
struct fixture {
    struct ring ring;
    struct recv_buffers buffers;
    struct loopback listener;
};

static int open_fixture(void **state)
{
    static struct fixture fixture;
    struct hf_error error;

    loopback_open_ring(&fixture.ring, FILES);
    if (!recv_buffers_open(&fixture.buffers, &fixture.ring, GROUP, BUFFERS, BUFFER_BYTES, &error)) {
        fail_msg("%s", error.text);
    }
    fixture.listener = loopback_listen();
    ring_accept_direct(&fixture.ring, fixture.listener.fd, TAG(OP_ACCEPT, 0));
    ring_run(&fixture.ring);
    *state = &fixture;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *fixture = *state;

    ring_close(&fixture->ring);
    recv_buffers_close(&fixture->buffers);
    (void)close(fixture->listener.fd);
    return 0;
}

static int dial_accepted(struct fixture *fixture, uint32_t *file)
{
    const int fd = loopback_dial(&fixture->listener);
    const struct ring_event event = loopback_await(&fixture->ring, TAG(OP_ACCEPT, 0));

    assert_true(event.result >= 0 && event.result < FILES);
    assert_true(ring_event_more(&event));
    *file = (uint32_t)event.result;
    return fd;
}

/* One receive; what came lies at `bytes`, which is given back already. */
static struct ring_event receive(struct fixture *fixture, uint32_t file, uint8_t *bytes)
{
    ring_recv(&fixture->ring, file, GROUP, TAG(OP_RECV, file));
    const struct ring_event event = loopback_await(&fixture->ring, TAG(OP_RECV, file));

    if ((event.flags & IORING_CQE_F_BUFFER) != 0) {
        uint16_t buffer;
        memcpy(bytes, recv_buffers_take(&fixture->buffers, &event, &buffer), (size_t)event.result);
        recv_buffers_give(&fixture->buffers, buffer);
    }
    return event;
}

static void accept_direct_gives_each_client_a_slot(void **state)
{
    struct fixture *fixture = *state;
    uint32_t first;
    uint32_t second;
    const int one = dial_accepted(fixture, &first);
    const int two = dial_accepted(fixture, &second);

    assert_int_not_equal(first, second);
    (void)close(one);
    (void)close(two);
}

static void accept_direct_on_a_full_table_ends_and_loses_that_client(void **state)
{
    struct fixture *fixture = *state;
    int fds[FILES + 2];
    uint32_t file = 0;
    char byte;

    for (int i = 0; i < FILES; i++) {
        fds[i] = dial_accepted(fixture, &file);
    }
    fds[FILES] = loopback_dial(&fixture->listener);
    const struct ring_event event = loopback_await(&fixture->ring, TAG(OP_ACCEPT, 0));
    assert_int_equal(event.result, -ENFILE);
    assert_false(ring_event_more(&event));
    assert_int_equal(recv(fds[FILES], &byte, 1, 0), 0); /* accepted, then dropped */

    /* The next one waits in the backlog until there is room. */
    fds[FILES + 1] = loopback_dial(&fixture->listener);
    ring_close_file(&fixture->ring, file, TAG(OP_CLOSE, file));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_CLOSE, file)).result, 0);
    ring_accept_direct(&fixture->ring, fixture->listener.fd, TAG(OP_ACCEPT, 0));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_ACCEPT, 0)).result, (int)file);
    for (int i = 0; i < FILES + 2; i++) {
        (void)close(fds[i]);
    }
}

static void cancelled_accept_leaves_clients_in_the_backlog(void **state)
{
    struct fixture *fixture = *state;
    uint32_t file;

    ring_cancel(&fixture->ring, TAG(OP_ACCEPT, 0), RING_TAG_NONE);
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_ACCEPT, 0)).result, -ECANCELED);
    const int fd = loopback_dial(&fixture->listener);
    loopback_await_nothing(&fixture->ring);
    ring_accept_direct(&fixture->ring, fixture->listener.fd, TAG(OP_ACCEPT, 0));
    file = (uint32_t)loopback_await(&fixture->ring, TAG(OP_ACCEPT, 0)).result;
    assert_true(file < FILES);
    (void)close(fd);
}

static void accept_gives_plain_descriptors(void **state)
{
    struct fixture *fixture = *state;
    struct loopback listener = loopback_listen();

    ring_accept(&fixture->ring, listener.fd, TAG(OP_OTHER, 0));
    ring_run(&fixture->ring);
    const int fd = loopback_dial(&listener);
    const int accepted = loopback_await(&fixture->ring, TAG(OP_OTHER, 0)).result;
    assert_true(accepted > 2);
    assert_true((fcntl(accepted, F_GETFD) & FD_CLOEXEC) != 0);
    (void)close(accepted);
    (void)close(fd);
    (void)close(listener.fd);
}

static void poll_then_recv_until_nothing_is_left_reads_all(void **state)
{
    struct fixture *fixture = *state;
    uint8_t sent[5 * BUFFER_BYTES + 10];
    uint8_t got[sizeof sent];
    size_t got_bytes = 0;
    uint32_t file;
    const int fd = dial_accepted(fixture, &file);
    struct ring_event event;

    for (size_t i = 0; i < sizeof sent; i++) {
        sent[i] = (uint8_t)(i * 13);
    }
    ring_poll(&fixture->ring, file, TAG(OP_POLL, file));
    loopback_await_nothing(&fixture->ring);
    loopback_write(fd, sent, sizeof sent);
    event = loopback_await(&fixture->ring, TAG(OP_POLL, file));
    assert_true((event.result & POLLIN) != 0 && ring_event_more(&event));

    do { /* edge triggered: no second event comes for these bytes */
        event = receive(fixture, file, got + got_bytes);
        assert_true(event.result > 0);
        got_bytes += (size_t)event.result;
        assert_int_equal(ring_recv_again(&event), got_bytes < sizeof sent);
    } while (ring_recv_again(&event));
    assert_int_equal(got_bytes, sizeof sent);
    assert_memory_equal(got, sent, sizeof sent);
    loopback_await_nothing(&fixture->ring);
    assert_int_equal(receive(fixture, file, got).result, -EAGAIN); /* and doesn't wait */

    loopback_write(fd, "again", 5);
    event = loopback_await(&fixture->ring, TAG(OP_POLL, file));
    assert_int_equal(receive(fixture, file, got).result, 5);
    (void)close(fd);
}

static void recv_without_buffers_fails_and_works_once_one_is_back(void **state)
{
    struct fixture *fixture = *state;
    uint8_t bytes[(BUFFERS + 1) * BUFFER_BYTES] = { 0 };
    uint16_t buffers[BUFFERS];
    uint32_t file;
    const int fd = dial_accepted(fixture, &file);

    loopback_write(fd, bytes, sizeof bytes);
    for (int i = 0; i < BUFFERS; i++) {
        ring_recv(&fixture->ring, file, GROUP, TAG(OP_RECV, file));
        const struct ring_event event = loopback_await(&fixture->ring, TAG(OP_RECV, file));
        assert_int_equal(event.result, BUFFER_BYTES);
        assert_non_null(recv_buffers_take(&fixture->buffers, &event, &buffers[i]));
    }
    assert_int_equal(receive(fixture, file, bytes).result, -ENOBUFS);
    recv_buffers_give(&fixture->buffers, buffers[2]);
    assert_int_equal(receive(fixture, file, bytes).result, BUFFER_BYTES);
    (void)close(fd);
}

static void recv_at_the_peers_end_says_0_and_keeps_no_buffer(void **state)
{
    struct fixture *fixture = *state;
    uint8_t bytes[BUFFER_BYTES];
    uint32_t file;
    const int fd = dial_accepted(fixture, &file);

    ring_poll(&fixture->ring, file, TAG(OP_POLL, file));
    (void)close(fd);
    struct ring_event event = loopback_await(&fixture->ring, TAG(OP_POLL, file));
    assert_true(ring_event_more(&event)); /* stays armed: hence the cancel in ring_close_file */
    for (int i = 0; i < 3 * BUFFERS; i++) {
        event = receive(fixture, file, bytes);
        assert_int_equal(event.result, 0);
        assert_int_equal(event.flags & IORING_CQE_F_BUFFER, 0);
    }
    assert_int_equal(fixture->buffers.held, 0);
}

static void *drain(void *argument)
{
    uint64_t *total = calloc(1, sizeof *total);
    static char bytes[65536];
    ssize_t got;

    while ((got = recv(*(int *)argument, bytes, sizeof bytes, 0)) > 0) {
        *total += (uint64_t)got;
    }
    return total;
}

static void send_of_more_than_the_socket_holds_completes_whole(void **state)
{
    struct fixture *fixture = *state;
    enum { BYTES = 16 << 20 };
    uint8_t *bytes = calloc(1, BYTES);
    uint32_t file;
    int fd = dial_accepted(fixture, &file);
    pthread_t reader;
    void *total;
    uint32_t done = 0;

    ring_send(&fixture->ring, file, bytes, BYTES, TAG(OP_SEND, file));
    loopback_await_nothing(&fixture->ring); /* waits for room, and doesn't hold us */
    assert_int_equal(pthread_create(&reader, NULL, drain, &fd), 0);
    for (;;) {
        const struct ring_event event = loopback_await(&fixture->ring, TAG(OP_SEND, file));
        assert_true(event.result > 0);
        done += (uint32_t)event.result;
        if (done == BYTES) {
            break;
        }
        ring_send(&fixture->ring, file, bytes + done, BYTES - done, TAG(OP_SEND, file));
    }
    ring_close_file(&fixture->ring, file, TAG(OP_CLOSE, file));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_CLOSE, file)).result, 0);
    assert_int_equal(pthread_join(reader, &total), 0);
    assert_int_equal(*(uint64_t *)total, BYTES);
    free(total);
    free(bytes);
    (void)close(fd);
}

static void send_to_a_peer_that_left_fails_without_a_signal(void **state)
{
    struct fixture *fixture = *state;
    uint32_t file;
    const int fd = dial_accepted(fixture, &file);
    const struct linger reset = { .l_onoff = 1 };
    struct ring_event event;

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    (void)close(fd);
    for (int i = 0; i < 2; i++) {
        ring_send(&fixture->ring, file, "x", 1, TAG(OP_SEND, file));
        event = loopback_await(&fixture->ring, TAG(OP_SEND, file));
    }
    assert_int_equal(event.result, -EPIPE);
}

static void close_with_an_armed_poll_reaches_the_peer_and_frees_the_slot(void **state)
{
    struct fixture *fixture = *state;
    char byte;

    for (int i = 0; i < 3 * FILES; i++) { /* each slot several times */
        uint32_t file;
        const int fd = dial_accepted(fixture, &file);

        ring_poll(&fixture->ring, file, TAG(OP_POLL, file));
        loopback_await_nothing(&fixture->ring);
        ring_close_file(&fixture->ring, file, TAG(OP_CLOSE, file));
        assert_int_equal(loopback_await(&fixture->ring, TAG(OP_POLL, file)).result, -ECANCELED);
        assert_int_equal(loopback_await(&fixture->ring, TAG(OP_CLOSE, file)).result, 0);
        assert_int_equal(recv(fd, &byte, 1, 0), 0);
        (void)close(fd);
        loopback_await_nothing(&fixture->ring);
    }
}

static void close_ends_all_that_is_in_flight(void **state)
{
    struct fixture *fixture = *state;
    enum { BYTES = 16 << 20 };
    uint8_t *bytes = calloc(1, BYTES);
    uint32_t file;
    const int fd = dial_accepted(fixture, &file);
    bool seen[OP_OTHER] = { false };

    ring_send(&fixture->ring, file, bytes, BYTES, TAG(OP_SEND, file));
    ring_poll(&fixture->ring, file, TAG(OP_POLL, file));
    loopback_await_nothing(&fixture->ring);
    ring_close_file(&fixture->ring, file, TAG(OP_CLOSE, file));
    while (!seen[OP_CLOSE]) {
        struct ring_event event;

        ring_wait(&fixture->ring, LOOPBACK_TIMEOUT_NS);
        assert_true(ring_take(&fixture->ring, &event));
        assert_true(ring_tag_op(event.tag) < OP_OTHER);
        assert_true(event.result < BYTES);
        seen[ring_tag_op(event.tag)] = true;
    }
    assert_true(seen[OP_SEND] && seen[OP_POLL]); /* both before the close */
    free(bytes);
    (void)close(fd);
}

static void close_at_the_edge_of_the_queue_keeps_its_link(void **state)
{
    struct fixture *fixture = *state;
    uint32_t file;
    char byte;
    const int fd = dial_accepted(fixture, &file);

    ring_poll(&fixture->ring, file, TAG(OP_POLL, file));
    loopback_await_nothing(&fixture->ring);
    /* One SQE is free: cancel and close must not be torn apart. */
    while (io_uring_sq_space_left(&fixture->ring.uring_) > 1) {
        struct io_uring_sqe *sqe = ring_sqe(&fixture->ring);
        io_uring_prep_nop(sqe);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    }
    ring_close_file(&fixture->ring, file, TAG(OP_CLOSE, file));
    assert_int_equal(io_uring_sq_ready(&fixture->ring.uring_), 2);
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_POLL, file)).result, -ECANCELED);
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_CLOSE, file)).result, 0);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    (void)close(fd);
}

static void shutdown_ends_our_direction_only(void **state)
{
    struct fixture *fixture = *state;
    uint8_t bytes[BUFFER_BYTES];
    uint32_t file;
    const int fd = dial_accepted(fixture, &file);

    ring_poll(&fixture->ring, file, TAG(OP_POLL, file));
    ring_shutdown(&fixture->ring, file, SHUT_WR, TAG(OP_OTHER, file));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, file)).result, 0);
    assert_int_equal(recv(fd, bytes, 1, 0), 0);
    loopback_write(fd, "last words", 10);
    (void)loopback_await(&fixture->ring, TAG(OP_POLL, file));
    assert_int_equal(receive(fixture, file, bytes).result, 10);
    (void)close(fd);
}

static void connect_from_the_file_table_reaches_the_listener(void **state)
{
    struct fixture *fixture = *state;
    struct loopback listener = loopback_listen();
    struct loopback nobody = loopback_listen();
    char bytes[3];

    (void)close(nobody.fd);
    for (uint32_t file = 1; file <= 2; file++) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(ring_put_file(&fixture->ring, fd, file), 0);
        (void)close(fd);
    }
    ring_connect(&fixture->ring, 1, (const struct sockaddr *)&listener.address,
                 sizeof listener.address, TAG(OP_OTHER, 1));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 1)).result, 0);
    ring_connect(&fixture->ring, 2, (const struct sockaddr *)&nobody.address, sizeof nobody.address,
                 TAG(OP_OTHER, 2));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 2)).result, -ECONNREFUSED);

    const int accepted = accept(listener.fd, NULL, NULL);
    ring_send(&fixture->ring, 1, "abc", 3, RING_TAG_NONE);
    ring_run(&fixture->ring);
    assert_int_equal(recv(accepted, bytes, 3, MSG_WAITALL), 3);
    assert_int_equal(ring_put_file(&fixture->ring, -1, FILES), -EINVAL);
    (void)close(accepted);
    (void)close(listener.fd);
}

static void set_option_works_where_the_feature_is_on(void **state)
{
    struct fixture *fixture = *state;
    static const int lowat = 16384;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool available = fixture->ring.features.cmd_sock;
    int value = 0;
    socklen_t value_bytes = sizeof value;

    assert_int_equal(ring_put_file(&fixture->ring, fd, 0), 0);
    assert_int_equal(ring_set_option(&fixture->ring, 0, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat,
                                     sizeof lowat, TAG(OP_OTHER, 0)),
                     available);
    if (available) {
        assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 0)).result, 0);
        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &value, &value_bytes), 0);
        assert_int_equal(value, lowat);
    }
    fixture->ring.features.cmd_sock = false;
    assert_false(ring_set_option(&fixture->ring, 0, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat,
                                 sizeof lowat, TAG(OP_OTHER, 0)));
    loopback_await_nothing(&fixture->ring);
    (void)close(fd);
}

static void eventfd_that_is_never_read_wakes_at_each_write(void **state)
{
    struct fixture *fixture = *state;
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const uint64_t one = 1;

    ring_poll_fd(&fixture->ring, fd, TAG(OP_OTHER, 0));
    loopback_await_nothing(&fixture->ring);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(write(fd, &one, sizeof one), sizeof one);
        const struct ring_event event = loopback_await(&fixture->ring, TAG(OP_OTHER, 0));
        assert_true(ring_event_more(&event));
        loopback_await_nothing(&fixture->ring);
    }
    (void)close(fd);
}

static void durable_write_lands_where_it_was_sent(void **state)
{
    struct fixture *fixture = *state;
    const size_t block = 4096;
    char path[] = "/var/tmp/holdfast-test-XXXXXX";
    int fd = mkstemp(path);
    uint8_t *bytes = aligned_alloc(block, 4 * block);

    if (fd < 0 || bytes == NULL) {
        fail();
        return;
    }
    memset(bytes, 0, 4 * block);
    ring_write(&fixture->ring, fd, bytes, (uint32_t)(4 * block), 0, TAG(OP_OTHER, 1));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 1)).result, 4 * block);
    ring_datasync(&fixture->ring, fd, TAG(OP_OTHER, 2));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 2)).result, 0);
    (void)close(fd);

    fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0) { /* a file system without O_DIRECT */
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    memset(bytes, 0xab, 2 * block);
    ring_write_durable(&fixture->ring, fd, bytes, (uint32_t)(2 * block), block, TAG(OP_OTHER, 3));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 3)).result, 2 * block);
    memset(bytes, 0x11, 4 * block);
    ring_read(&fixture->ring, fd, bytes, (uint32_t)(4 * block), 0, TAG(OP_OTHER, 4));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 4)).result, 4 * block);
    assert_int_equal(bytes[block - 1], 0);
    assert_int_equal(bytes[block], 0xab);
    assert_int_equal(bytes[3 * block - 1], 0xab);
    assert_int_equal(bytes[3 * block], 0);
    ring_write_durable(&fixture->ring, -1, bytes, (uint32_t)block, 0, TAG(OP_OTHER, 5));
    assert_int_equal(loopback_await(&fixture->ring, TAG(OP_OTHER, 5)).result, -EBADF);
    free(bytes);
    (void)close(fd);
    (void)unlink(path);
}

#define OPS_TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPS_TEST(accept_direct_gives_each_client_a_slot),
        OPS_TEST(accept_direct_on_a_full_table_ends_and_loses_that_client),
        OPS_TEST(cancelled_accept_leaves_clients_in_the_backlog),
        OPS_TEST(accept_gives_plain_descriptors),
        OPS_TEST(poll_then_recv_until_nothing_is_left_reads_all),
        OPS_TEST(recv_without_buffers_fails_and_works_once_one_is_back),
        OPS_TEST(recv_at_the_peers_end_says_0_and_keeps_no_buffer),
        OPS_TEST(send_of_more_than_the_socket_holds_completes_whole),
        OPS_TEST(send_to_a_peer_that_left_fails_without_a_signal),
        OPS_TEST(close_with_an_armed_poll_reaches_the_peer_and_frees_the_slot),
        OPS_TEST(close_ends_all_that_is_in_flight),
        OPS_TEST(close_at_the_edge_of_the_queue_keeps_its_link),
        OPS_TEST(shutdown_ends_our_direction_only),
        OPS_TEST(connect_from_the_file_table_reaches_the_listener),
        OPS_TEST(set_option_works_where_the_feature_is_on),
        OPS_TEST(eventfd_that_is_never_read_wakes_at_each_write),
        OPS_TEST(durable_write_lands_where_it_was_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* loopback: sockets on 127.0.0.1 and rings for tests. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/clock.h"
#include "core/io/ring.h"
#include "core/io/ring_ops.h"

#define LOOPBACK_TIMEOUT_NS (10 * CLOCK_NS_PER_S) /* reached only when something is broken */

struct loopback {
    int fd;
    struct sockaddr_in address;
};

__attribute__((unused)) static struct loopback loopback_listen(void)
{
    struct loopback listener = {
        .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
        .address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
    };
    socklen_t address_bytes = sizeof listener.address;

    assert_true(listener.fd >= 0);
    assert_int_equal(bind(listener.fd, (struct sockaddr *)&listener.address, address_bytes), 0);
    assert_int_equal(listen(listener.fd, 1024), 0);
    assert_int_equal(getsockname(listener.fd, (struct sockaddr *)&listener.address, &address_bytes),
                     0);
    return listener;
}

__attribute__((unused)) static int loopback_dial(const struct loopback *listener)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval timeout = { .tv_sec = LOOPBACK_TIMEOUT_NS / CLOCK_NS_PER_S };

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout), 0);
    assert_int_equal(
        connect(fd, (const struct sockaddr *)&listener->address, sizeof listener->address), 0);
    return fd;
}

__attribute__((unused)) static void loopback_write(int fd, const void *bytes, size_t byte_count)
{
    assert_int_equal(send(fd, bytes, byte_count, MSG_NOSIGNAL), byte_count);
}

__attribute__((unused)) static struct ring_features loopback_features(void)
{
    struct ring_features features;
    struct hf_error error;

    if (!ring_probe(&features, &error)) {
        fail_msg("%s", error.text);
    }
    return features;
}

__attribute__((unused)) static void loopback_open_ring(struct ring *ring, uint32_t files)
{
    const struct ring_config config = {
        .sq_entries = 64,
        .cq_entries = 1024,
        .files = files,
        .features = loopback_features(),
    };
    struct hf_error error;

    if (!ring_open(ring, &config, &error) || !ring_enable(ring, &error)) {
        fail_msg("%s", error.text);
    }
}

/* The next completion, which must be of that tag. */
__attribute__((unused)) static struct ring_event loopback_await(struct ring *ring, uint64_t tag)
{
    struct ring_event event = { 0 };

    for (int i = 0; i < 100; i++) {
        if (ring_take(ring, &event)) {
            if (event.tag != tag) {
                fail_msg("completion of tag %llx, not %llx", (unsigned long long)event.tag,
                         (unsigned long long)tag);
            }
            return event;
        }
        ring_wait(ring, LOOPBACK_TIMEOUT_NS);
    }
    fail_msg("no completion of tag %llx", (unsigned long long)tag);
    return event;
}

/* That nothing more completes: after one turn. */
__attribute__((unused)) static void loopback_await_nothing(struct ring *ring)
{
    struct ring_event event;

    ring_run(ring);
    if (ring_take(ring, &event)) {
        fail_msg("completion of tag %llx, result %d", (unsigned long long)event.tag, event.result);
    }
}

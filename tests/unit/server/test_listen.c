/* Addresses that are taken, for good or for a moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "core/io/clock.h"
#include "core/io/thread.h"
#include "core/server/listen.h"

/* As a server has it: SO_REUSEPORT, listening. Puts the port that was free into `address`. */
static int listen_somewhere(struct listen_address *address)
{
    struct hf_error error;
    size_t count;
    int fd;

    assert_true(listen_parse("127.0.0.1:0", address, &count, &error));
    assert_true(listen_bind(address, &fd, 1, &error));
    assert_true(listen_begin(fd, 60, &error));
    return fd;
}

static void *close_later(void *fd)
{
    thread_rest(100 * CLOCK_NS_PER_MS);
    (void)close(*(int *)fd);
    return NULL;
}

static void address_of_a_server_that_is_just_going_is_waited_for(void **state)
{
    struct listen_address address;
    struct hf_error error = { 0 };
    int fd = listen_somewhere(&address);
    pthread_t thread;
    int fds[2];

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, close_later, &fd), 0);
    const bool bound = listen_bind(&address, fds, 2, &error);
    (void)pthread_join(thread, NULL);
    if (!bound) {
        fail_msg("%s", error.text);
    }
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void address_of_a_server_that_stays_is_refused(void **state)
{
    struct listen_address address;
    struct hf_error error = { 0 };
    const int fd = listen_somewhere(&address);
    int fds[1];

    (void)state;
    assert_false(listen_bind(&address, fds, 1, &error));
    assert_non_null(strstr(error.text, "another process listens there"));
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_of_a_server_that_is_just_going_is_waited_for),
        cmocka_unit_test(address_of_a_server_that_stays_is_refused),
    };

    return cmocka_run_group_tests_name("server/listen", tests, NULL, NULL);
}

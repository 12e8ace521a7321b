/*
 * Doors share nothing of this room but the process: each thread has its server, client and core.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/tls/fixture.h"

enum { THREADS = 4, ROUNDS = 12 };

struct worker {
    pthread_t thread;
    const struct tls_ticket_ring *ring;
    unsigned full;
    unsigned resumed;
    uint8_t session[TLS_SESSION_BYTES_MAX]; /* the last one, for another thread's server */
    size_t session_bytes;
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });

    tls_server_set_tickets(fixture->server, worker->ring);
    for (int round = 0; round < ROUNDS; round++) {
        struct link *link = link_open(fixture, worker->session, worker->session_bytes, SIZE_MAX);

        worker->full += !link->server.resumed;
        worker->resumed += link->server.resumed;
        worker->session_bytes =
            round % 4 == 3 ? 0
                           : link_session(fixture, link, worker->session, sizeof worker->session);
        link_close(fixture, link);
    }

    struct link *link = link_open(fixture, NULL, 0, SIZE_MAX);

    worker->session_bytes = link_session(fixture, link, worker->session, sizeof worker->session);
    link_close(fixture, link);
    fixture_close(fixture);
    return NULL;
}

static void threads_shake_hands_at_the_same_time(void **state)
{
    struct worker *workers = calloc(THREADS, sizeof *workers);
    struct fixture *fixture = fixture_open((struct fixture_options){ .tickets = 1 });

    (void)state;
    for (int index = 0; index < THREADS; index++) {
        workers[index].ring = &fixture->ring;
        assert_int_equal(pthread_create(&workers[index].thread, NULL, work, &workers[index]), 0);
    }
    for (int index = 0; index < THREADS; index++) {
        assert_int_equal(pthread_join(workers[index].thread, NULL), 0);
        assert_int_equal(workers[index].full, ROUNDS / 4);
        assert_int_equal(workers[index].resumed, ROUNDS - ROUNDS / 4);
    }

    /* A client may come back through any door. */
    for (int index = 0; index < THREADS; index++) {
        struct link *link =
            link_open(fixture, workers[index].session, workers[index].session_bytes, SIZE_MAX);

        assert_true(link->server.resumed);
        link_close(fixture, link);
    }
    fixture_close(fixture);
    free(workers);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(threads_shake_hands_at_the_same_time),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

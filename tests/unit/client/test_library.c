/* libholdfast against the model of a server behind real sockets and real TLS, in one thread. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "client/holdfast.h"
#include "client/library.h"
#include "tests/unit/client/scratch.h"
#include "tests/unit/client/tls_server.h"

#define USER       1001
#define DEVICE     7
#define PEER       1002
#define EVENTS_MAX 512

struct world {
    struct model *model;
    struct test_server *server;
    struct hf_client *client;
    const char *directory;
    struct hf_event events[EVENTS_MAX]; /* all since it was opened; bodies aren't kept, */
    char bodies[EVENTS_MAX][16];        /* but copied */
    size_t event_count;
};

/* ---- the world */

static struct world *make_world(const char *directory, bool ipv6)
{
    struct world *world = calloc(1, sizeof *world);

    assert_non_null(world);
    world->directory = directory;
    world->model = model_open(USER, DEVICE, 1);
    world->server = test_server_open(world->model, ipv6);
    return world;
}

static void open_client(struct world *world)
{
    char text[512];

    world->event_count = 0;
    if (hf_open(world->directory, &world->client, text, sizeof text) != HF_OK) {
        fail_msg("%s", text);
    }
}

static void log_in(struct world *world)
{
    if (hf_login(world->client, test_server_address(world->server), USER, DEVICE, "login",
                 test_server_ca(world->server)) != HF_OK) {
        fail_msg("%s", hf_error_text(world->client));
    }
}

static struct world *connected_world(const char *directory)
{
    struct world *world = make_world(directory, false);

    open_client(world);
    log_in(world);
    assert_int_equal(hf_start(world->client), HF_OK);
    return world;
}

static void end_world(struct world *world)
{
    hf_close(world->client);
    test_server_close(world->server);
    free(world->model);
    free(world);
}

/* As a crash would: nothing more is said or written. */
static void crash(struct world *world)
{
    world->client->up = false;
    hf_close(world->client);
    world->client = NULL;
}

static void take_events(struct world *world)
{
    struct hf_event event;
    int result;

    while ((result = hf_next_event(world->client, &event)) == HF_OK) {
        assert_true(world->event_count < EVENTS_MAX);
        world->events[world->event_count] = event;
        (void)snprintf(world->bodies[world->event_count], sizeof world->bodies[0], "%.*s",
                       (int)event.body_bytes, event.body_bytes > 0 ? (const char *)event.body : "");
        world->event_count++;
    }
    assert_int_equal(result, HF_NONE);
}

/* Both ends do what they can. Attempts to connect don't wait for their time. */
static void step(struct world *world)
{
    if (client_state(&world->client->machine) == CLIENT_WAITING) {
        world->client->machine.connect_at_ms_ = 0;
    }
    const bool served = test_server_step(world->server);
    assert_int_equal(hf_step(world->client), HF_OK);
    take_events(world);
    if (!served) {
        struct pollfd one = { .fd = hf_descriptor(world->client),
                              .events = hf_descriptor_events(world->client) };

        (void)poll(&one, 1, 1);
    }
}

static size_t count_of(const struct world *world, enum hf_event_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < world->event_count; i++) {
        count += world->events[i].kind == kind;
    }
    return count;
}

static const struct hf_event *last_of(const struct world *world, enum hf_event_kind kind)
{
    const struct hf_event *found = NULL;

    for (size_t i = 0; i < world->event_count; i++) {
        if (world->events[i].kind == kind) {
            found = &world->events[i];
        }
    }
    assert_non_null(found);
    return found;
}

static void step_until(struct world *world, enum hf_event_kind kind, size_t count)
{
    for (int i = 0; i < 20000 && count_of(world, kind) < count; i++) {
        step(world);
    }
    assert_int_equal(count_of(world, kind), count);
}

/* Everything sent is accepted and back, everything received acknowledged. */
static void settle(struct world *world)
{
    struct hf_status status;

    for (int i = 0; i < 20000; i++) {
        step(world);
        hf_status(world->client, &status);
        if (status.state == HF_STATE_CAUGHT_UP && status.waiting == 0 &&
            status.seq == world->model->count && world->client->machine.acked_seq_ == status.seq) {
            return;
        }
    }
    fail_msg("it never becomes quiet");
}

static uint64_t send_text(struct world *world, const char *text)
{
    uint64_t tag;

    assert_int_equal(hf_send(world->client, PEER, 0, text, strlen(text), &tag), HF_OK);
    return tag;
}

/* ---- tests */

static void message_is_accepted_and_comes_back_in_the_log(void **scratch)
{
    struct world *world = connected_world(*scratch);
    const uint64_t tag = send_text(world, "hello");

    settle(world);
    assert_int_equal(last_of(world, HF_EVENT_ACCEPTED)->tag, tag);
    assert_int_equal(last_of(world, HF_EVENT_ACCEPTED)->seq, 1);
    const struct hf_event *message = last_of(world, HF_EVENT_MESSAGE);
    assert_int_equal(message->seq, 1);
    assert_int_equal(message->flags, HF_OWN);
    assert_int_equal(message->n, 1);
    assert_string_equal(world->bodies[message - world->events], "hello");

    model_receive(world->model, PEER, "answer");
    step_until(world, HF_EVENT_MESSAGE, 2);
    message = last_of(world, HF_EVENT_MESSAGE);
    assert_int_equal(message->sender, PEER);
    assert_int_equal(message->cn, 1);
    assert_int_equal(count_of(world, HF_EVENT_ONLINE), 1);
    assert_int_equal(count_of(world, HF_EVENT_CAUGHT_UP), 1);
    end_world(world);
}

static void message_comes_again_in_each_life_until_it_is_seen(void **scratch)
{
    struct world *world = connected_world(*scratch);

    model_receive(world->model, PEER, "one");
    model_receive(world->model, PEER, "two");
    step_until(world, HF_EVENT_MESSAGE, 2);
    settle(world); /* the server knows that they are here */
    crash(world);

    open_client(world);
    take_events(world); /* without any connection */
    assert_int_equal(count_of(world, HF_EVENT_MESSAGE), 2);
    assert_int_equal(hf_seen(world->client, 1), HF_OK);
    crash(world);

    open_client(world);
    take_events(world);
    assert_int_equal(count_of(world, HF_EVENT_MESSAGE), 1);
    assert_string_equal(world->bodies[0], "two");
    assert_int_equal(hf_seen(world->client, 9), HF_INVALID);
    end_world(world);
}

static void queued_message_survives_a_crash_before_any_connection(void **scratch)
{
    struct world *world = make_world(*scratch, false);

    open_client(world);
    log_in(world);
    (void)send_text(world, "kept");
    crash(world);
    open_client(world);
    struct hf_unsent unsent;
    assert_int_equal(hf_unsent(world->client, 0, &unsent), HF_OK);
    assert_int_equal(unsent.status, HF_UNSENT_WAITING);
    assert_memory_equal(unsent.body, "kept", 4);
    assert_int_equal(hf_start(world->client), HF_OK);
    settle(world);
    assert_int_equal(world->model->count, 1);
    assert_int_equal(hf_unsent(world->client, 0, &unsent), HF_NONE);
    end_world(world);
}

/* One round of talk, with whatever the server does to the connection. */
static void talk(struct world *world, unsigned round)
{
    char text[16];

    (void)snprintf(text, sizeof text, "a%u", round);
    (void)send_text(world, text);
    (void)snprintf(text, sizeof text, "b%u", round);
    (void)send_text(world, text);
    (void)snprintf(text, sizeof text, "p%u", round);
    model_receive(world->model, PEER, text);
    settle(world);
}

static void assert_log_is_here_once(const struct world *world)
{
    uint64_t seq = 0;

    for (size_t i = 0; i < world->event_count; i++) {
        if (world->events[i].kind == HF_EVENT_MESSAGE) {
            const struct model_entry *entry = &world->model->entries[seq];

            seq++;
            assert_int_equal(world->events[i].seq, seq);
            assert_int_equal(world->events[i].id, entry->id.value);
            assert_memory_equal(world->bodies[i], entry->body, entry->body_bytes);
            assert_true(!entry->own || model_count(world->model, &entry->nonce) == 1);
        }
    }
    assert_int_equal(seq, world->model->count);
}

static void connection_cut_at_every_step_loses_and_doubles_nothing(void **scratch)
{
    struct world *world = connected_world(*scratch);
    unsigned round = 0;

    talk(world, round++);
    for (size_t at = 1; at < 2600; at += 131) {
        for (int up = 0; up < 2; up++) {
            const unsigned before = test_server_connections(world->server);

            test_server_cut_after(world->server, up ? SIZE_MAX : at, up ? at : SIZE_MAX);
            while (test_server_connections(world->server) == before) {
                /* Ends the present connection, so that the next one meets the knife. */
                transport_hang_up(world->client->transport);
                world->client->dialled = world->client->up = false;
                world->client->in_filled = 0;
                client_on_disconnected(&world->client->machine, library_now_ms());
                assert_int_equal(library_take_events(world->client), HF_OK);
                (void)send_text(world, "x");
                for (int i = 0; i < 40; i++) {
                    step(world);
                }
            }
            test_server_cut_after(world->server, SIZE_MAX, SIZE_MAX);
            talk(world, round++);
        }
        assert_log_is_here_once(world);
        for (size_t i = world->event_count; i > 0; i--) {
            if (world->events[i - 1].kind != HF_EVENT_MESSAGE) { /* makes room for more */
                memmove(&world->events[i - 1], &world->events[i],
                        (world->event_count - i) * sizeof world->events[0]);
                memmove(&world->bodies[i - 1], &world->bodies[i],
                        (world->event_count - i) * sizeof world->bodies[0]);
                world->event_count--;
            }
        }
    }
    end_world(world);
}

static void bytes_may_come_one_at_a_time(void **scratch)
{
    struct world *world = connected_world(*scratch);

    test_server_chop(world->server, 1);
    talk(world, 1);
    assert_log_is_here_once(world);
    end_world(world);
}

static void crash_after_any_step_loses_and_doubles_nothing(void **scratch)
{
    struct world *world = connected_world(*scratch);

    settle(world);
    for (int steps = 0; steps < 24; steps++) {
        (void)send_text(world, "a");
        (void)send_text(world, "b");
        model_receive(world->model, PEER, "p");
        for (int i = 0; i < steps; i++) {
            step(world);
        }
        crash(world);
        open_client(world);
        assert_int_equal(hf_start(world->client), HF_OK);
        settle(world);
        assert_log_is_here_once(world); /* nothing was seen: all of it comes in each life */
    }
    end_world(world);
}

static void next_connection_resumes_the_session(void **scratch)
{
    struct world *world = connected_world(*scratch);

    settle(world);
    assert_int_equal(test_server_resumed(world->server), 0);
    for (unsigned i = 1; i <= 3; i++) {
        hf_close(world->client);
        for (int j = 0; j < 5; j++) {
            (void)test_server_step(world->server);
        }
        assert_int_equal(test_server_byes(world->server), i);
        open_client(world);
        assert_int_equal(hf_start(world->client), HF_OK);
        settle(world);
        assert_int_equal(test_server_resumed(world->server), i);
    }
    end_world(world);
}

static void stop_says_bye_and_ends(void **scratch)
{
    struct world *world = connected_world(*scratch);

    settle(world);
    (void)send_text(world, "last words");
    assert_int_equal(hf_step(world->client), HF_OK); /* written */
    hf_stop(world->client);
    step_until(world, HF_EVENT_OFFLINE, 1);
    assert_int_equal(last_of(world, HF_EVENT_OFFLINE)->flags, HF_STOPPED);
    assert_int_equal(count_of(world, HF_EVENT_ACCEPTED), 1);
    while (test_server_step(world->server)) {
    }
    assert_int_equal(test_server_byes(world->server), 1);
    struct hf_status status;
    hf_status(world->client, &status);
    assert_int_equal(status.state, HF_STATE_STOPPED);
    assert_int_equal(hf_timeout_ms(world->client), -1);
    end_world(world);
}

static void stop_while_waiting_ends_at_once(void **scratch)
{
    struct world *world = connected_world(*scratch);

    hf_stop(world->client);
    take_events(world);
    assert_int_equal(last_of(world, HF_EVENT_OFFLINE)->flags, HF_STOPPED);
    assert_int_equal(hf_descriptor(world->client), -1);
    end_world(world);
}

static void certificate_of_a_stranger_is_not_trusted(void **scratch)
{
    struct world *world = make_world(*scratch, false);

    open_client(world);
    assert_int_equal(hf_login(world->client, test_server_address(world->server), USER, DEVICE,
                              "login", test_server_stranger(world->server)),
                     HF_OK);
    assert_int_equal(hf_start(world->client), HF_OK);
    for (int i = 0; i < 2000 && count_of(world, HF_EVENT_OFFLINE) == 0; i++) {
        step(world);
    }
    assert_int_equal(last_of(world, HF_EVENT_OFFLINE)->flags & HF_UNTRUSTED, HF_UNTRUSTED);
    assert_int_equal(count_of(world, HF_EVENT_ONLINE), 0);
    assert_int_equal(world->model->links, test_server_connections(world->server));
    end_world(world);
}

static void ipv6_address_is_dialled_and_verified(void **scratch)
{
    struct world *world = make_world(*scratch, true);

    open_client(world);
    log_in(world);
    assert_int_equal(hf_start(world->client), HF_OK);
    talk(world, 1);
    end_world(world);
}

static void nobody_there_is_told_and_tried_again(void **scratch)
{
    struct world *world = connected_world(*scratch);

    test_server_cut_after(world->server, SIZE_MAX, 0); /* accepts, and closes */
    step_until(world, HF_EVENT_OFFLINE, 3);
    const struct hf_event *offline = last_of(world, HF_EVENT_OFFLINE);
    assert_int_equal(offline->flags, 0);
    assert_true(offline->retry_in_ms <= 4000);
    test_server_cut_after(world->server, SIZE_MAX, SIZE_MAX);
    settle(world);
    end_world(world);
}

static void login_checks_what_it_is_given(void **scratch)
{
    struct world *world = make_world(*scratch, false);
    const char *ca = test_server_ca(world->server);
    uint64_t tag;

    open_client(world);
    assert_int_equal(hf_start(world->client), HF_NO_ACCOUNT);
    assert_int_equal(hf_send(world->client, PEER, 0, "x", 1, &tag), HF_NO_ACCOUNT);
    assert_int_equal(hf_login(world->client, "host", 1, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:0", 1, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:70000", 1, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "::1:7443x", 1, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:1", 0, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:1", UINT64_C(1) << 63, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:1", 1, 0, "t", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:1", 1, 1, "", ca), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:1", 1, 1, "t", "no PEM"), HF_INVALID);
    assert_int_equal(hf_login(world->client, "host:1", 1, 1, "t", ca), HF_OK);
    assert_int_equal(hf_login(world->client, "[::1]:1", 1, 1, "t", ca), HF_OK);
    assert_int_equal(hf_login(world->client, "host:1", 2, 1, "t", ca), HF_INVALID);
    assert_int_equal(hf_send(world->client, 0, 0, "x", 1, &tag), HF_INVALID);
    assert_int_equal(hf_send(world->client, PEER, 128, "x", 1, &tag), HF_INVALID);
    static const char body[HF_BODY_BYTES_MAX + 1];
    assert_int_equal(hf_send(world->client, PEER, 0, body, sizeof body, &tag), HF_TOO_LARGE);
    assert_int_equal(hf_send(world->client, PEER, 0, body, sizeof body - 1, &tag), HF_OK);
    end_world(world);
}

static void rejected_message_is_told_in_each_life_until_dismissed(void **scratch)
{
    struct world *world = connected_world(*scratch);
    uint64_t tag;

    assert_int_equal(hf_send(world->client, (UINT64_C(1) << 63) + 5, 0, "x", 1, &tag), HF_OK);
    step_until(world, HF_EVENT_REJECTED, 1);
    settle(world);
    crash(world);
    open_client(world);
    take_events(world);
    assert_int_equal(last_of(world, HF_EVENT_REJECTED)->tag, tag);
    assert_int_equal(last_of(world, HF_EVENT_REJECTED)->code, CODE_BAD_CONVERSATION);
    assert_int_equal(hf_dismiss(world->client, tag), HF_OK);
    assert_int_equal(hf_dismiss(world->client, tag), HF_NONE);
    crash(world);
    open_client(world);
    take_events(world);
    assert_int_equal(count_of(world, HF_EVENT_REJECTED), 0);
    end_world(world);
}

static void many_messages_are_pipelined_and_stay_in_order(void **scratch)
{
    struct world *world = connected_world(*scratch);

    for (int i = 0; i < 150; i++) {
        char text[16];

        (void)snprintf(text, sizeof text, "%d", i);
        (void)send_text(world, text);
    }
    settle(world);
    assert_log_is_here_once(world);
    for (uint64_t i = 0; i < 150; i++) {
        assert_int_equal(strtoull((const char *)world->model->entries[i].body, NULL, 10), i);
    }
    end_world(world);
}

static void full_disk_stops_the_client_and_loses_nothing(void **scratch)
{
    struct world *world = connected_world(*scratch);
    struct rlimit before;
    uint64_t tag;

    talk(world, 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*const handler)(int) = SIG_IGN;
    const struct sigaction ignore = { .sa_handler = handler };
    assert_int_equal(sigaction(SIGXFSZ, &ignore, NULL), 0);
    const struct rlimit tight = { .rlim_cur = world->client->state.file.end + 10,
                                  .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(hf_send(world->client, PEER, 0, "lost?", 5, &tag), HF_STORAGE);
    assert_non_null(strstr(hf_error_text(world->client), "account: write"));
    assert_int_equal(hf_step(world->client), HF_STORAGE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    crash(world);

    open_client(world);
    assert_int_equal(hf_start(world->client), HF_OK);
    settle(world);
    assert_log_is_here_once(world);
    assert_int_equal(world->model->count, 3);
    end_world(world);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(message_is_accepted_and_comes_back_in_the_log),
        TEST(message_comes_again_in_each_life_until_it_is_seen),
        TEST(queued_message_survives_a_crash_before_any_connection),
        TEST(connection_cut_at_every_step_loses_and_doubles_nothing),
        TEST(bytes_may_come_one_at_a_time),
        TEST(crash_after_any_step_loses_and_doubles_nothing),
        TEST(next_connection_resumes_the_session),
        TEST(stop_says_bye_and_ends),
        TEST(stop_while_waiting_ends_at_once),
        TEST(certificate_of_a_stranger_is_not_trusted),
        TEST(ipv6_address_is_dialled_and_verified),
        TEST(nobody_there_is_told_and_tried_again),
        TEST(login_checks_what_it_is_given),
        TEST(rejected_message_is_told_in_each_life_until_dismissed),
        TEST(many_messages_are_pipelined_and_stay_in_order),
        TEST(full_disk_stops_the_client_and_loses_nothing),
    };

    return cmocka_run_group_tests_name("client_library", tests, NULL, NULL);
}

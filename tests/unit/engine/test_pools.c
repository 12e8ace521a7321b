#include "tests/unit/engine/host.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

static struct host_conn *log_in(struct host *host, uint64_t user)
{
    return host_connect(host, (struct user_id){ user }, 1, nothing);
}

static struct engine_stats stats_of(const struct host *host)
{
    struct engine_stats stats;

    engine_get_stats(host->engine, &stats);
    return stats;
}

static void eight_users(struct engine_config *config)
{
    config->users_max = 8;
    config->devices_max = 8;
    config->heads_max = 8;
}

static void users_who_left_make_room_once_flushed(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, eight_users);
    struct host *host = &world.hosts[0];
    for (uint64_t user = 1; user <= 40; user++) {
        struct host_conn *conn = log_in(host, user);

        client_send(conn, 1, user, user, "note");
        world_settle(&world);
        assert_int_equal(client_accepted(conn).seq, 1);
        host_disconnect(host, conn);
        world_settle(&world);
        host_flush(host);
    }
    assert_int_equal(stats_of(host).users, 8);
    assert_int_equal(host->want_flush, 0);
    world_close(&world);
}

static void evicted_user_comes_back_whole(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, eight_users);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = log_in(host, 100);
    for (uint64_t i = 1; i <= 5; i++) {
        client_send(conn, i, i, 100, "note");
    }
    world_settle(&world);
    const uint64_t epoch = conn->welcome.epoch;
    host_disconnect(host, conn);
    world_settle(&world);
    host_flush(host);
    for (uint64_t user = 1; user <= 30; user++) {
        host_disconnect(host, log_in(host, user));
        world_settle(&world);
        host_flush(host);
    }
    world.now_unix_ms += 5000;
    conn = log_in(host, 100);
    assert_int_equal(conn->welcome.epoch, epoch);
    assert_int_equal(conn->welcome.head, 5);
    assert_int_equal(conn->welcome.last_counter, 5);
    client_send(conn, 6, 6, 100, "note");
    world_settle(&world);
    assert_int_equal(client_accepted(conn).seq, 6);
    assert_int_equal(host_last_record(host, RECORD_ENTRY, 100)->entry.n, 6);
    assert_int_equal(host_last_record(host, RECORD_ENTRY, 100)->entry.prev, 5);
    assert_int_equal(host_count_records(host, RECORD_USER, 100), 1);
    world_close(&world);
}

static void full_of_unflushed_users_hello_is_busy_until_a_flush(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, eight_users);
    struct host *host = &world.hosts[0];
    for (uint64_t user = 1; user <= 8; user++) {
        host_disconnect(host, log_in(host, user));
        world_settle(&world);
    }
    struct host_conn *conn = host_accept(host, (struct user_id){ 9 }, 1, nothing);
    host_offer(host, conn);
    assert_true(conn->closed);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    assert_int_equal(host->want_flush, 1);
    conn = host_accept(host, (struct user_id){ 10 }, 1, nothing);
    host_offer(host, conn);
    assert_true(conn->closed);
    assert_int_equal(host->want_flush, 1); /* said once */
    host_flush(host);
    log_in(host, 9);
    world_close(&world);
}

static void full_of_connected_users_hello_is_busy(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, eight_users);
    struct host *host = &world.hosts[0];
    struct host_conn *last = NULL;
    for (uint64_t user = 1; user <= 8; user++) {
        last = log_in(host, user);
    }
    host_flush(host);
    struct host_conn *conn = host_accept(host, (struct user_id){ 9 }, 1, nothing);
    host_offer(host, conn);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    host_disconnect(host, last);
    world_settle(&world);
    host_flush(host);
    log_in(host, 9);
    world_close(&world);
}

static void full_of_unflushed_heads_send_gets_retry(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, eight_users);
    struct host *host = &world.hosts[0];
    struct host_conn *a = log_in(host, 5);
    uint64_t counter = 1;
    bool refused = false;

    for (uint64_t peer = 200; peer < 220 && !refused; peer++) {
        client_send(a, counter, counter, peer, "anybody?");
        world_settle(&world);
        const struct frame_view view = client_next(a);
        refused = view.type == FRAME_TYPE_REJECTED;
        counter += refused ? 0 : 1;
    }
    assert_true(refused);
    assert_true(host->want_flush > 0);
    host_flush(host);
    world_settle(&world);
    client_skip(a);
    client_send(a, counter, counter, 5, "note");
    world_settle(&world);
    assert_int_equal(client_accepted(a).counter, counter);
    world_close(&world);
}

static void two_loads(struct engine_config *config)
{
    config->loads_max = 2;
}

static void hellos_wait_for_a_load_to_be_free(void **state)
{
    static struct world world;
    struct host_conn *conns[10];
    (void)state;
    world_open(&world, 1, two_loads);
    struct host *host = &world.hosts[0];
    for (uint32_t i = 0; i < 10; i++) {
        conns[i] = host_accept(host, (struct user_id){ 10 + i }, 1, nothing);
        host_offer(host, conns[i]);
        assert_true(conns[i]->blocked);
    }
    assert_int_equal(host->load_count, 2);
    world_settle(&world);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(conns[i]->welcomed);
    }
    world_close(&world);
}

static void small_ring_two_loads(struct engine_config *config)
{
    config->loads_max = 2;
    config->recent_bytes = 65536;
}

static void catch_ups_wait_for_a_load_to_be_free(void **state)
{
    static struct world world;
    struct host_conn *conns[10];
    (void)state;
    world_open(&world, 1, small_ring_two_loads);
    struct host *host = &world.hosts[0];
    struct host_conn *a = log_in(host, 5);
    for (uint64_t i = 1; i <= 30; i++) {
        client_send_bytes(a, i, i, 5, 5000);
        client_ack(a, i - 1);
        world_settle(&world);
    }
    for (uint32_t i = 0; i < 10; i++) {
        conns[i] = host_connect(host, (struct user_id){ 5 }, 2 + i, nothing);
    }
    for (uint32_t i = 0; i < 10; i++) {
        for (uint64_t seq = 1; seq <= 30; seq++) {
            if (client_waiting(conns[i]) == 0) {
                client_ack(conns[i], seq - 1);
                world_settle(&world);
            }
            assert_int_equal(client_entry(conns[i]).seq, seq);
        }
    }
    world_close(&world);
}

/* Its answer waits for the disk when it goes: the next one in its place is another. */
static void connection_with_the_slot_of_another_hears_nothing_of_it(void **state)
{
    static struct world world;
    struct frame_view view;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = log_in(host, 5);
    const struct conn_ref old = conn->ref;
    client_send(conn, 1, 1, 5, "note");
    while (host->appended == host->durable) {
        host_offer(host, conn);
        host_answer_loads(host);
    }
    host_disconnect(host, conn);

    conn->ref.generation++;
    conn->offered_hello = conn->welcomed = conn->closed = false;
    conn->unsent = 0;
    conn->hello.user.value = conn->claims.user.value = 6;
    host_offer(host, conn);
    world_settle(&world);
    assert_true(conn->welcomed);
    assert_int_equal(client_waiting(conn), 0);

    assert_int_equal(frame_parse(conn->in.items[0].at, conn->in.items[0].count, &view), FRAME_OK);
    host_begin_turn(host);
    assert_int_equal(engine_on_frame(host->engine, old, &view), ENGINE_CLOSED);
    engine_on_sent(host->engine, old, 1);
    engine_on_closed(host->engine, old);
    assert_int_equal(stats_of(host).sessions, 1);
    client_send(conn, 1, 1, 6, "note");
    world_settle(&world);
    assert_int_equal(client_accepted(conn).counter, 1);
    world_close(&world);
}

static void pending_256(struct engine_config *config)
{
    config->pending_max = 256;
}

static void input_waits_while_answers_wait_for_the_disk(void **state)
{
    static struct world world;
    struct host_conn *conns[20];
    (void)state;
    world_open(&world, 1, pending_256);
    struct host *host = &world.hosts[0];
    for (uint32_t i = 0; i < 20; i++) {
        conns[i] = log_in(host, 10 + i);
        client_send(conns[i], 1, 1, 10 + i, "note");
        world_settle(&world);
    }
    for (uint32_t i = 0; i < 20; i++) {
        for (uint64_t n = 2; n <= 30; n++) {
            client_send(conns[i], n, n, 10 + i, "note");
        }
    }
    for (uint32_t i = 0; i < 20; i++) {
        host_offer(host, conns[i]);
    }
    assert_true(conns[19]->blocked);
    assert_true(stats_of(host).pending <= 256);
    world_settle(&world);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(host_count_records(host, RECORD_ENTRY, 10 + i), 30);
    }
    world_close(&world);
}

/* Flushed isn't enough: what became durable must have been told before its user may go. */
static void user_whose_news_are_untold_isnt_evicted(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, eight_users);
    struct host *host = &world.hosts[0];
    for (uint64_t user = 1; user <= 6; user++) {
        host_disconnect(host, log_in(host, user));
    }
    struct host_conn *a = log_in(host, 7);
    world_settle(&world);
    host_flush(host);
    client_send(a, 1, 1, 6, "text");
    for (int i = 0; i < 4 && host_count_records(host, RECORD_ENTRY, 6) == 0; i++) {
        host_offer(host, a);
        host_answer_loads(host);
    }
    assert_int_equal(host_count_records(host, RECORD_ENTRY, 6), 1);
    host->durable = host->appended;
    host->flushed = host->appended;
    engine_on_durable(host->engine, host->durable);
    engine_on_flushed(host->engine, host->flushed, host->flushed);
    for (uint64_t user = 20; user < 28; user++) {
        struct host_conn *conn = host_accept(host, (struct user_id){ user }, 1, nothing);

        (void)!engine_on_hello(host->engine, conn->ref, conn->accepted_at, &conn->claims,
                               &conn->hello);
        host_take_effects(host);
    }
    host_run(host); /* asserts inside if the slot is another user's */
    assert_int_equal(client_accepted(a).counter, 1);
    world_close(&world);
}

/* Two thirds of the senders, as of a core with 25,000 connections. */
#define CROWD 240

static void pools_for_two_thirds(struct engine_config *config)
{
    config->users_max = 2 * CROWD;
    config->devices_max = 2 * CROWD;
    config->heads_max = 2 * CROWD;
    config->pending_max = 2 * (CROWD * 2 / 3); /* each has an answer and a link that wait */
    config->outs_max = CROWD * 2 / 3;
    config->links_max = CROWD * 2 / 3;
    config->out_quota = 4;
}

static void pools_for_two_thirds_but_pending(struct engine_config *config)
{
    pools_for_two_thirds(config);
    config->pending_max = 4 * CROWD;
}

/* Sends again what was refused for now; returns how many are still without ACCEPTED. */
static uint32_t send_refused_again(struct host_conn *conns[CROWD], const uint64_t peers[CROWD])
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < CROWD; i++) {
        if (client_waiting(conns[i]) == 0) {
            continue;
        }
        const struct frame_view view = client_next(conns[i]);

        client_skip(conns[i]);
        if (view.type == FRAME_TYPE_REJECTED) {
            struct message_rejected rejected;

            assert_int_equal(message_decode_rejected(&view, &rejected), CODE_OK);
            assert_int_equal(rejected.code, CODE_RETRY);
            client_send(conns[i], 1, 1, peers[i], "text");
            left++;
        } else {
            assert_int_equal(view.type, FRAME_TYPE_ACCEPTED);
        }
    }
    return left;
}

/*
 * All at once, each to a user at home elsewhere, with neither outs nor links enough for them.
 * Returns how many were refused at first.
 */
static uint32_t send_all_at_once(void (*pools)(struct engine_config *config))
{
    static struct world world;
    struct host_conn *conns[CROWD];
    uint64_t peers[CROWD];

    world_open(&world, 2, pools);
    struct host *host = &world.hosts[0];
    struct host *other = &world.hosts[1];
    for (uint32_t i = 0; i < CROWD; i++) {
        conns[i] = host_connect(host, world_user(&world, 0, i), 1, nothing);
        peers[i] = world_user(&world, 1, i).value;
        host_connect(other, (struct user_id){ peers[i] }, 1, nothing);
    }
    for (uint32_t i = 0; i < CROWD; i++) {
        client_send(conns[i], 1, 1, peers[i], "text");
    }
    for (int round = 0; round < 20; round++) { /* as far as it goes with nothing durable */
        for (uint32_t i = 0; i < CROWD; i++) {
            host_offer(host, conns[i]);
        }
        host_answer_loads(host);
    }
    assert_in_range(stats_of(host).outs, host->config.outs_max - 4, host->config.outs_max);
    world_settle(&world);
    const uint32_t refused = send_refused_again(conns, peers);
    uint32_t left = refused;
    for (int rounds = 0; left > 0 && rounds < 10; rounds++) {
        world_settle(&world);
        left = send_refused_again(conns, peers);
    }
    assert_int_equal(left, 0);
    assert_int_equal(stats_of(host).outs, 0);
    for (uint32_t i = 0; i < CROWD; i++) {
        assert_int_equal(host_count_records(other, RECORD_ENTRY, peers[i]), 1);
    }
    world_close(&world);
    return refused;
}

static void crowd_beyond_outs_and_links_is_accepted_when_it_tries_again(void **state)
{
    (void)state;
    assert_int_equal(send_all_at_once(pools_for_two_thirds_but_pending), CROWD - CROWD * 2 / 3);
}

static void crowd_beyond_pending_waits_and_is_accepted(void **state)
{
    (void)state;
    assert_true(send_all_at_once(pools_for_two_thirds) < CROWD - CROWD * 2 / 3);
}

static void touch(struct engine_config *config)
{
    config->touch = true;
}

static void more_connections(struct engine_config *config)
{
    touch(config);
    config->users_max *= 8;
    config->devices_max *= 8;
    config->sessions_max *= 8;
}

/* What is committed at start is the same for any number of connections. */
static void touched_bytes_dont_follow_the_connections(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    assert_int_equal(stats_of(&world.hosts[0]).bytes_touched, 0);
    world_close(&world);
    world_open(&world, 1, touch);
    const uint64_t bytes = stats_of(&world.hosts[0]).bytes_touched;
    assert_true(bytes > world.hosts[0].config.recent_bytes + world.hosts[0].config.effect_bytes);
    world_close(&world);
    world_open(&world, 1, more_connections);
    assert_int_equal(stats_of(&world.hosts[0]).bytes_touched, bytes);
    log_in(&world.hosts[0], 5);
    world_close(&world);
}

/* Partitions */

static void partition_that_goes_takes_its_sessions_along(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = log_in(host, 5);
    struct host_conn *b = log_in(host, 6);
    client_send(a, 1, 1, 6, "text");
    client_send(b, 1, 2, 5, "text");
    world_settle(&world);
    client_skip(a);
    client_skip(b);
    engine_on_partition_close(host->engine, partition_of(5));
    host_run(host);
    assert_true(a->closed);
    assert_int_equal(client_error(a).code, CODE_GOING_AWAY);
    assert_false(b->closed);

    /* A message for it waits in the outbox. */
    client_send(b, 2, 3, 5, "later");
    world_settle(&world);
    assert_int_equal(client_accepted(b).counter, 2);
    assert_int_equal(stats_of(host).outs, 1);
    struct host_conn *again = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    host_offer(host, again);
    assert_int_equal(client_error(again).code, CODE_BUSY);

    /* It comes back: so does its user, from the volume, and the message arrives. */
    host_flush(host);
    engine_on_partition_open(host->engine, partition_of(5), (struct message_id){ 1 }, NULL, 0);
    engine_on_link_down(host->engine, partition_of(5));
    host_run(host);
    world_settle(&world);
    again = log_in(host, 5);
    assert_int_equal(again->welcome.head, 3);
    assert_int_equal(stats_of(host).outs, 0);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        assert_int_equal(client_entry(again).seq, seq);
    }
    world_close(&world);
}

/* What was durable and not yet told when a partition went is told to those who stay. */
static void partition_that_goes_leaves_others_their_news(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = log_in(host, 5);
    struct host_conn *b = log_in(host, 6);
    client_send(a, 1, 1, 6, "one");
    world_settle(&world);
    client_skip(b);
    client_send(a, 2, 2, 6, "two");
    host_offer(host, a);
    host->durable = host->appended;
    engine_on_durable(host->engine, host->durable);
    engine_on_partition_close(host->engine, partition_of(5));
    host_run(host);
    assert_true(a->closed);
    assert_int_equal(client_entry(b).seq, 2);
    world_close(&world);
}

static void hello_that_waits_when_its_partition_goes_is_busy(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    host_offer(host, conn);
    assert_true(conn->blocked);
    engine_on_partition_close(host->engine, partition_of(5));
    host_run(host);
    assert_true(conn->unblocked);
    host_offer(host, conn);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    world_settle(&world); /* the answer to nobody */
    world_close(&world);
}

/* The same events give the same effects, byte for byte. */
static void same_events_give_same_records(void **state)
{
    static struct world worlds[2];
    (void)state;
    for (int w = 0; w < 2; w++) {
        world_open(&worlds[w], 1, eight_users);
        struct host *host = &worlds[w].hosts[0];
        for (uint64_t i = 0; i < 40; i++) {
            struct host_conn *conn = log_in(host, 1 + i % 6);

            client_send(conn, conn->welcome.last_counter + 1, i, 1 + (i * 7) % 9, "text");
            world_settle(&worlds[w]);
            host_disconnect(host, conn);
            world_settle(&worlds[w]);
            if (i % 5 == 0) {
                host_flush(host);
            }
        }
    }
    assert_int_equal(worlds[0].hosts[0].record_count, worlds[1].hosts[0].record_count);
    for (size_t i = 0; i < worlds[0].hosts[0].record_count; i++) {
        const struct bytes *one = &worlds[0].hosts[0].records[i].bytes;
        const struct bytes *two = &worlds[1].hosts[0].records[i].bytes;

        assert_int_equal(one->count, two->count);
        assert_memory_equal(one->at, two->at, one->count);
    }
    world_close(&worlds[0]);
    world_close(&worlds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_who_left_make_room_once_flushed),
        cmocka_unit_test(evicted_user_comes_back_whole),
        cmocka_unit_test(full_of_unflushed_users_hello_is_busy_until_a_flush),
        cmocka_unit_test(full_of_connected_users_hello_is_busy),
        cmocka_unit_test(full_of_unflushed_heads_send_gets_retry),
        cmocka_unit_test(hellos_wait_for_a_load_to_be_free),
        cmocka_unit_test(catch_ups_wait_for_a_load_to_be_free),
        cmocka_unit_test(connection_with_the_slot_of_another_hears_nothing_of_it),
        cmocka_unit_test(input_waits_while_answers_wait_for_the_disk),
        cmocka_unit_test(user_whose_news_are_untold_isnt_evicted),
        cmocka_unit_test(crowd_beyond_outs_and_links_is_accepted_when_it_tries_again),
        cmocka_unit_test(crowd_beyond_pending_waits_and_is_accepted),
        cmocka_unit_test(touched_bytes_dont_follow_the_connections),
        cmocka_unit_test(partition_that_goes_takes_its_sessions_along),
        cmocka_unit_test(partition_that_goes_leaves_others_their_news),
        cmocka_unit_test(hello_that_waits_when_its_partition_goes_is_busy),
        cmocka_unit_test(same_events_give_same_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A damaged row of the store concerns its user alone: nobody waits for it, nothing is built on it. */
#include "tests/unit/engine/two_homes.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

static void damage(struct host *host, struct user_id user, enum load_kind kind)
{
    host->damaged_user = user.value;
    host->damaged_kind = kind;
}

/* A, B and C have written to each other; B's host has forgotten what it had in memory. */
static void open_after_talk(struct two *two)
{
    two_open(two, NULL);
    two_log_in_b(two);
    host_connect(two->hb, two->c, 1, nothing);
    client_send(two->ca, 1, 11, two->b.value, "to b");
    client_send(two->ca, 2, 12, two->c.value, "to c");
    world_settle(&two->world);
    assert_int_equal(two_ended(two), 2);
    host_restart(two->hb);
}

static uint16_t last_refusal(const struct two *two)
{
    const struct record *last = host_last_record(two->ha, RECORD_ENTRY, two->a.value);

    return last->entry.form == LOG_ENTRY_REFUSED ? last->entry.code : 0;
}

static void hello_of_a_damaged_user_is_refused_and_others_are_let_in(void **state)
{
    static struct two two;
    (void)state;
    open_after_talk(&two);
    damage(two.hb, two.b, LOAD_USER);
    for (int round = 0; round < 2; round++) { /* from the store, then from memory */
        struct host_conn *conn = host_accept(two.hb, two.b, 1, nothing);

        host_offer(two.hb, conn);
        world_settle(&two.world);
        assert_true(conn->closed);
        assert_int_equal(client_error(conn).code, CODE_INTERNAL);
    }
    host_connect(two.hb, two.c, 1, nothing);
    two_close(&two);
}

static void messages_for_a_damaged_user_are_refused_and_hold_nobody_up(void **state)
{
    static const enum load_kind kinds[] = { LOAD_USER, LOAD_HEAD };
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        static struct two two;

        open_after_talk(&two);
        damage(two.hb, two.b, kinds[i]);
        const size_t entries = host_count_records(two.hb, RECORD_ENTRY, two.b.value);

        client_send(two.ca, 3, 13, two.b.value, "lost");
        client_send(two.ca, 4, 14, two.c.value, "comes");
        world_settle(&two.world);
        assert_int_equal(two_ended(&two), 4);
        assert_int_equal(last_refusal(&two), CODE_UNKNOWN);
        assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), entries);
        assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.c.value), 2);
        two_close(&two);
    }
}

static void accept_unknown(struct engine_config *config)
{
    config->accept_unknown_users = true;
}

/* It isn't taken for one that doesn't exist, and made anew. */
static void damaged_user_is_not_made_anew(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, accept_unknown);
    two_log_in_b(&two);
    host_restart(two.hb);
    damage(two.hb, two.b, LOAD_USER);
    client_send(two.ca, 1, 11, two.b.value, "text");
    world_settle(&two.world);
    assert_int_equal(last_refusal(&two), CODE_UNKNOWN);
    assert_int_equal(host_count_records(two.hb, RECORD_USER, two.b.value), 1);
    two_close(&two);
}

/* Both at home here, where one append would do for both sides. */
static void message_to_a_damaged_user_of_the_same_home_is_refused(void **state)
{
    static const enum load_kind kinds[] = { LOAD_USER, LOAD_HEAD };
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        static struct world world;
        const struct user_id b = { 6 };

        world_open(&world, 1, NULL);
        struct host *host = &world.hosts[0];

        host_connect(host, b, 1, nothing);
        host_restart(host);
        damage(host, b, kinds[i]);
        struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

        client_send(a, 1, 11, b.value, "lost");
        client_send(a, 2, 12, 5, "note");
        world_settle(&world);
        assert_int_equal(client_accepted(a).counter, 1);
        assert_int_equal(client_accepted(a).counter, 2);
        assert_int_equal(host_count_records(host, RECORD_ENTRY, b.value), 0);
        assert_int_equal(host_count_records(host, RECORD_OUT_END, 5), 1);
        world_close(&world);
    }
}

/* Only that conversation, and what stands behind its SEND goes on. */
static void own_damaged_head_refuses_its_conversation_alone(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    damage(host, (struct user_id){ 5 }, LOAD_HEAD);
    client_send(conn, 1, 11, 5, "note");
    world_settle(&world);
    assert_int_equal(client_rejected(conn).code, CODE_BAD_CONVERSATION);
    client_history(conn, 7, 5, HISTORY_BEFORE, 0, 10, 0);
    world_settle(&world);
    assert_int_equal(client_error(conn).code, CODE_UNAVAILABLE);
    host->damaged_user = 0;
    client_send(conn, 2, 12, 6, "other");
    world_settle(&world);
    assert_int_equal(client_accepted(conn).counter, 2);
    assert_false(conn->closed);
    world_close(&world);
}

static void damaged_entry_ends_the_catch_up(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_send(conn, 1, 11, 5, "note");
    world_settle(&world);
    host_restart(host);
    damage(host, (struct user_id){ 5 }, LOAD_RANGE);
    conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    host_offer(host, conn);
    world_settle(&world);
    assert_true(conn->closed);
    assert_int_equal(client_error(conn).code, CODE_INTERNAL);
    world_close(&world);
}

/* What the outbox can't read any more is refused, and what stands behind it is sent. */
static void damaged_stream_record_is_refused_and_the_rest_sent(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    host_connect(two.hb, two.c, 1, nothing);
    client_send(two.ca, 1, 11, two.b.value, "text");
    client_send(two.ca, 2, 12, two.c.value, "text");
    two_offer_and_send(&two);
    two.hb->streams.taken = two.hb->streams.count;
    host_restart(two.ha);
    damage(two.ha, two.a, LOAD_RANGE);
    two.ha->damaged_from = 1;
    world_settle(&two.world);
    two.world.now_unix_ms += 1500; /* the refusal itself had to wait for the sender's facts */
    host_run(two.ha);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 0);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.c.value), 1);
    assert_int_equal(two_ended(&two), 2);
    assert_int_equal(last_refusal(&two), CODE_UNKNOWN);
    two_close(&two);
}

/* After a restore no log goes on under its old epoch, and none begins below the new one. */
static void restored_store_gives_every_log_the_new_epoch(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    const uint64_t before = conn->welcome.epoch;
    const uint64_t after = before + 1000;

    client_send(conn, 1, 11, 5, "note");
    world_settle(&world);
    client_ack(conn, 1);
    world_settle(&world);
    host->config.epoch_min = after;
    host_restart(host);

    const struct message_cursor old = { .epoch = before, .seq = 1 };

    conn = host_connect(host, (struct user_id){ 5 }, 1, old);
    assert_int_equal(conn->welcome.epoch, after);
    assert_int_equal(conn->welcome.result, HELLO_RESULT_RESET);
    assert_int_equal(client_entry(conn).seq, 1);
    client_send(conn, 2, 12, 5, "note");
    world_settle(&world);
    assert_int_equal(host_last_record(host, RECORD_ENTRY, 5)->entry.epoch, after);
    conn = host_connect(host, (struct user_id){ 6 }, 1, nothing);
    assert_int_equal(conn->welcome.epoch, after);
    assert_int_equal(host_last_record(host, RECORD_USER, 6)->user.epoch, after);
    world.now_unix_ms = (after + 5) * 1000;
    conn = host_connect(host, (struct user_id){ 7 }, 1, nothing);
    assert_int_equal(conn->welcome.epoch, after + 5);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_of_a_damaged_user_is_refused_and_others_are_let_in),
        cmocka_unit_test(messages_for_a_damaged_user_are_refused_and_hold_nobody_up),
        cmocka_unit_test(damaged_user_is_not_made_anew),
        cmocka_unit_test(message_to_a_damaged_user_of_the_same_home_is_refused),
        cmocka_unit_test(own_damaged_head_refuses_its_conversation_alone),
        cmocka_unit_test(damaged_entry_ends_the_catch_up),
        cmocka_unit_test(damaged_stream_record_is_refused_and_the_rest_sent),
        cmocka_unit_test(restored_store_gives_every_log_the_new_epoch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

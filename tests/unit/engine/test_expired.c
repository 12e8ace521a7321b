#include "tests/unit/engine/two_homes.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

#define A     UINT64_C(5)
#define B     UINT64_C(6)
#define COUNT 10 /* messages from A to B */

static struct world world;
static struct host *host;
static struct host_conn *a;
static struct host_conn *b;

static void open_world(void (*change)(struct engine_config *config))
{
    world_open(&world, 1, change);
    host = &world.hosts[0];
    a = host_connect(host, (struct user_id){ A }, 1, nothing);
    b = host_connect(host, (struct user_id){ B }, 1, nothing);
    for (uint64_t i = 1; i <= COUNT; i++) {
        client_send(a, i, 1000 + i, B, "text");
    }
    world_settle(&world);
}

static enum engine_result expire(uint64_t user, uint64_t floor)
{
    host_begin_turn(host);
    const enum engine_result result =
        engine_on_expired(host->engine, (struct user_id){ user }, floor);
    host_take_effects(host);
    return result;
}

static struct engine_stats stats_of(const struct host *of)
{
    struct engine_stats stats;

    engine_get_stats(of->engine, &stats);
    return stats;
}

static struct message_cursor cursor_at(uint64_t seq)
{
    return (struct message_cursor){ .epoch = b->welcome.epoch, .seq = seq };
}

static void floor_of_a_present_user_rises_with_one_record(void **state)
{
    (void)state;
    open_world(NULL);
    assert_int_equal(expire(B, 4), ENGINE_TAKEN);
    assert_int_equal(host_count_records(host, RECORD_FLOOR, 0), 1);
    assert_int_equal(host_last_record(host, RECORD_FLOOR, B)->floor.floor, 4);
    assert_int_equal(stats_of(host).trimmed_by_age, 3);
    assert_int_equal(stats_of(host).trimmed_by_count, 0);
    assert_int_equal(expire(B, 4), ENGINE_TAKEN);
    assert_int_equal(expire(B, 2), ENGINE_TAKEN);
    assert_int_equal(host_count_records(host, RECORD_FLOOR, 0), 1); /* it never falls */
    world_settle(&world);

    const struct host_conn *again = host_connect(host, (struct user_id){ B }, 1, cursor_at(2));

    assert_int_equal(again->welcome.floor, 4);
    assert_int_equal(again->welcome.result, HELLO_RESULT_RESET);
    again = host_connect(host, (struct user_id){ B }, 1, cursor_at(3));
    assert_int_equal(again->welcome.result, HELLO_RESULT_RESUME);
    world_close(&world);
}

static void welcome_with_the_new_floor_waits_until_it_is_durable(void **state)
{
    (void)state;
    open_world(NULL);
    assert_int_equal(expire(B, 4), ENGINE_TAKEN);

    struct host_conn *again = host_accept(host, (struct user_id){ B }, 1, nothing);

    host_offer(host, again);
    host_run(host);
    assert_false(again->welcomed);
    host_durable(host);
    host_run(host);
    assert_true(again->welcomed);
    assert_int_equal(again->welcome.floor, 4);
    world_close(&world);
}

static void user_that_is_not_in_memory_is_loaded_first(void **state)
{
    (void)state;
    open_world(NULL);
    host_flush(host);
    host_restart(host);
    assert_int_equal(expire(B, 4), ENGINE_BLOCKED);
    assert_int_equal(host->load_count, 1);
    assert_int_equal(expire(B, 4), ENGINE_BLOCKED);
    assert_int_equal(host->load_count, 1);
    host_answer_loads(host);
    assert_int_equal(expire(B, 4), ENGINE_TAKEN);
    assert_int_equal(host_last_record(host, RECORD_FLOOR, B)->floor.floor, 4);
    assert_int_equal(expire(77, 4), ENGINE_BLOCKED); /* nobody */
    host_answer_loads(host);
    assert_int_equal(expire(77, 4), ENGINE_TAKEN);
    assert_int_equal(host_count_records(host, RECORD_FLOOR, 0), 1);
    world_close(&world);
}

static void log_that_is_all_old_begins_behind_its_head(void **state)
{
    (void)state;
    open_world(NULL);
    assert_int_equal(expire(B, COUNT + 5), ENGINE_TAKEN);
    assert_int_equal(host_last_record(host, RECORD_FLOOR, B)->floor.floor, COUNT + 1);
    world_settle(&world);
    assert_false(b->closed);
    const struct message_cursor at_head = cursor_at(COUNT);

    host_flush(host);
    host_restart(host);

    struct host_conn *known = host_connect(host, (struct user_id){ B }, 1, at_head);

    assert_int_equal(known->welcome.result, HELLO_RESULT_RESUME);
    assert_int_equal(known->welcome.floor, COUNT + 1);
    assert_int_equal(known->welcome.head, COUNT);

    struct host_conn *fresh = host_connect(host, (struct user_id){ B }, 2, nothing);

    assert_int_equal(fresh->welcome.result, HELLO_RESULT_RESET);
    a = host_connect(host, (struct user_id){ A }, 1, nothing);
    client_send(a, COUNT + 1, 5000, B, "the next");
    world_settle(&world);
    assert_int_equal(client_entry(fresh).seq, COUNT + 1);
    client_history(known, 1, A, HISTORY_BEFORE, 0, 10, 0);
    world_settle(&world);

    const struct message_page page = client_page(known);

    assert_int_equal(page.count, 1);
    assert_int_equal(page.flags, PAGE_FLAG_TRIMMED);
    world_close(&world);
}

static void history_of_a_log_that_is_all_old_is_empty_and_says_why(void **state)
{
    (void)state;
    open_world(NULL);
    assert_int_equal(expire(B, COUNT + 1), ENGINE_TAKEN);
    world_settle(&world);
    host_flush(host);
    for (uint32_t request = 1; request <= 2; request++) {
        client_history(b, request, A, request == 1 ? HISTORY_BEFORE : HISTORY_AFTER, 0, 10, 0);
        world_settle(&world);

        const struct message_page page = client_page(b);

        assert_int_equal(page.count, 0);
        assert_int_equal(page.flags, PAGE_FLAG_TRIMMED);
    }
    world_close(&world);
}

/* A page tells of floors too: of those that are durable, whenever they were raised. */
static void page_tells_of_a_floor_only_when_it_is_durable(void **state)
{
    struct message_page page;
    (void)state;
    open_world(NULL);
    client_skip(b);
    client_send(b, 1, 1, B, "note");
    client_history(b, 1, A, HISTORY_BEFORE, 0, 20, 0);
    for (int i = 0; i < 3; i++) {
        host_offer(host, b);
        host_answer_loads(host);
    }
    assert_int_equal(b->in.taken, b->in.count);
    host->durable = host->appended;
    assert_int_equal(expire(B, 4), ENGINE_TAKEN);
    client_history(b, 2, A, HISTORY_BEFORE, 0, 20, 0);
    host_offer(host, b);
    assert_int_equal(client_waiting(b), 0);
    engine_on_durable(host->engine, host->durable); /* the note, and not the floor */
    host_run(host);
    client_accepted(b);
    page = client_page(b);
    assert_int_equal(page.request, 1);
    assert_int_equal(page.count, COUNT);
    assert_int_equal(page.flags, 0);
    assert_int_equal(client_entry(b).seq, COUNT + 1);
    host_sent(host, b); /* there is room for the other page */
    assert_int_equal(client_waiting(b), 0);
    world_settle(&world);
    page = client_page(b);
    assert_int_equal(page.request, 2);
    assert_int_equal(page.count, COUNT - 3);
    assert_int_equal(page.flags, PAGE_FLAG_TRIMMED);
    world_close(&world);
}

static void device_that_is_behind_is_told_trimmed(void **state)
{
    (void)state;
    open_world(NULL);
    for (uint64_t i = 1; i <= 60; i++) {
        client_send_bytes(a, COUNT + i, 2000 + i, B, 15000);
        world_settle(&world);
        client_skip(a);
        client_ack(a, COUNT + i);
    }
    assert_false(b->closed); /* its window is full: the next entry waits for its ACK */
    assert_int_equal(expire(B, COUNT + 60), ENGINE_TAKEN);
    client_ack(b, COUNT);
    world_settle(&world);
    assert_true(b->closed);
    assert_int_equal(client_error(b).code, CODE_TRIMMED);
    world_close(&world);
}

static void floor_waits_while_the_store_is_short_of_room(void **state)
{
    (void)state;
    open_world(NULL);
    const struct engine_budget roomy = host->budget;

    host->budget.refuse_sends = true;
    assert_int_equal(expire(B, 4), ENGINE_BLOCKED);
    host->budget = roomy;
    host->budget.only_streams = true;
    assert_int_equal(expire(B, 4), ENGINE_BLOCKED);
    host->budget = roomy;
    host->budget.append_bytes = 10;
    assert_int_equal(expire(B, 4), ENGINE_BLOCKED);
    assert_int_equal(host_count_records(host, RECORD_FLOOR, 0), 0);
    host->budget = roomy;
    assert_int_equal(expire(B, 4), ENGINE_TAKEN);
    assert_int_equal(host_count_records(host, RECORD_FLOOR, 0), 1);
    world_close(&world);
}

static void few_users(struct engine_config *config)
{
    config->users_max = 4;
}

/* Floors of users who aren't here must not pin all cells: clients would have to wait for a flush. */
static void floors_stop_when_they_have_pinned_the_cells(void **state)
{
    (void)state;
    enum { USERS = 12 };
    uint32_t blocked = 0;

    world_open(&world, 1, NULL);
    host = &world.hosts[0];
    a = host_connect(host, (struct user_id){ A }, 1, nothing);
    for (uint64_t i = 1; i <= USERS; i++) {
        host_disconnect(host, host_connect(host, (struct user_id){ 100 + i }, 1, nothing));
        client_send(a, i, 1000 + i, 100 + i, "text");
        world_settle(&world);
    }
    host_flush(host);
    few_users(&host->config);
    host_restart(host);
    for (uint64_t i = 1; i <= USERS; i++) {
        for (int tries = 0; tries < 4 && expire(100 + i, 2) == ENGINE_BLOCKED; tries++) {
            blocked += tries == 3;
            host_answer_loads(host);
        }
    }
    assert_true(blocked >= USERS - 4 && blocked < USERS);
    assert_true(host->want_flush > 0);
    host_durable(host);
    host_flush(host);
    assert_int_equal(expire(100 + USERS, 2), ENGINE_BLOCKED);
    host_answer_loads(host);
    assert_int_equal(expire(100 + USERS, 2), ENGINE_TAKEN);
    assert_int_equal(host_last_record(host, RECORD_FLOOR, 100 + USERS)->floor.floor, 2);
    world_close(&world);
}

static void entry_that_a_stream_record_needs_stays(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.a.value, "note");
    client_send(two.ca, 2, 12, two.a.value, "note");
    world_settle(&two.world);
    client_send(two.ca, 3, 13, two.b.value, "waits");
    two_offer_and_send(&two);
    host = two.ha;
    assert_int_equal(expire(two.a.value, 4), ENGINE_TAKEN);
    assert_int_equal(host_last_record(two.ha, RECORD_FLOOR, two.a.value)->floor.floor, 3);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 1);
    assert_int_equal(expire(two.a.value, 4), ENGINE_TAKEN);
    assert_int_equal(host_last_record(two.ha, RECORD_FLOOR, two.a.value)->floor.floor, 4);
    assert_int_equal(expire(two.b.value, 4), ENGINE_TAKEN); /* at home elsewhere by now */
    assert_int_equal(host_count_records(two.ha, RECORD_FLOOR, 0), 2);
    two_close(&two);
}

static void keep_100(struct engine_config *config)
{
    config->retention_count = 100;
}

static void both_kinds_of_retention_raise_the_same_floor(void **state)
{
    (void)state;
    open_world(keep_100);
    assert_int_equal(expire(B, 6), ENGINE_TAKEN);
    for (uint64_t i = 1; i <= 200; i++) {
        client_send(a, COUNT + i, 2000 + i, B, "more");
        world_settle(&world);
        client_skip(a);
        client_ack(a, COUNT + i);
    }
    const uint64_t floor = host_last_record(host, RECORD_FLOOR, B)->floor.floor;

    assert_true(floor > 6);
    assert_int_equal(stats_of(host).trimmed_by_age, 5);
    assert_int_equal(expire(B, floor), ENGINE_TAKEN);
    assert_int_equal(host_last_record(host, RECORD_FLOOR, B)->floor.floor, floor);
    assert_int_equal(expire(B, floor + 7), ENGINE_TAKEN);
    assert_int_equal(stats_of(host).trimmed_by_age, 12);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floor_of_a_present_user_rises_with_one_record),
        cmocka_unit_test(welcome_with_the_new_floor_waits_until_it_is_durable),
        cmocka_unit_test(user_that_is_not_in_memory_is_loaded_first),
        cmocka_unit_test(log_that_is_all_old_begins_behind_its_head),
        cmocka_unit_test(history_of_a_log_that_is_all_old_is_empty_and_says_why),
        cmocka_unit_test(page_tells_of_a_floor_only_when_it_is_durable),
        cmocka_unit_test(device_that_is_behind_is_told_trimmed),
        cmocka_unit_test(floor_waits_while_the_store_is_short_of_room),
        cmocka_unit_test(floors_stop_when_they_have_pinned_the_cells),
        cmocka_unit_test(entry_that_a_stream_record_needs_stays),
        cmocka_unit_test(both_kinds_of_retention_raise_the_same_floor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

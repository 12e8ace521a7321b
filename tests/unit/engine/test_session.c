#include "tests/unit/engine/host.h"

static const struct message_cursor nothing = { 0, 0, 0 };

static struct message_cursor cursor_of(const struct host_conn *conn, uint64_t seq)
{
    return (struct message_cursor){ .epoch = conn->welcome.epoch, .seq = seq };
}

static void hello_of_unknown_user_creates_user_and_device(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    assert_int_equal(host_count_records(host, RECORD_USER, 5), 1);
    assert_int_equal(host_count_records(host, RECORD_DEVICE, 5), 1);
    assert_int_equal(host->notes[NOTE_USER_CREATED], 1);
    assert_int_equal(host->notes[NOTE_DEVICE_CREATED], 1);
    assert_int_equal(conn->welcome.epoch, world.now_unix_ms / 1000);
    assert_int_equal(conn->welcome.head, 0);
    assert_int_equal(conn->welcome.floor, 1);
    assert_int_equal(conn->welcome.last_counter, 0);
    assert_int_equal(conn->welcome.generation, 1);
    assert_int_equal(conn->welcome.result, HELLO_RESULT_RESET);
    assert_int_equal(conn->welcome.window, WINDOW_BYTES_DEFAULT);
    world_close(&world);
}

static void welcome_waits_for_the_users_last_append(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);

    host_offer(host, conn);
    assert_true(conn->blocked);
    host_answer_loads(host);
    assert_true(conn->unblocked);
    host_offer(host, conn);
    assert_int_equal(host->appended, 1);
    assert_false(conn->welcomed);
    host_durable(host);
    assert_true(conn->welcomed);
    world_close(&world);
}

static void message_reaches_both_after_it_is_durable(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    struct host_conn *b = host_connect(host, (struct user_id){ 6 }, 1, nothing);

    client_send(a, 1, 100, 6, "hello");
    host_offer(host, a);
    for (int i = 0; i < 4 && a->blocked; i++) {
        host_answer_loads(host);
        host_offer(host, a);
    }
    assert_int_equal(a->in.taken, 1);
    host_run(host);
    assert_int_equal(client_waiting(a), 0);
    assert_int_equal(client_waiting(b), 0);
    host_durable(host);

    const struct message_accepted accepted = client_accepted(a);
    struct seen_entry entry = client_entry(a);

    assert_int_equal(accepted.counter, 1);
    assert_int_equal(accepted.seq, 1);
    assert_int_equal(entry.seq, 1);
    assert_int_equal(entry.entry.form, ENTRY_SENT);
    assert_int_equal(entry.entry.sent.counter, 1);
    assert_int_equal(entry.entry.sent.id.value, accepted.id.value);
    entry = client_entry(b);
    assert_int_equal(entry.seq, 1);
    assert_int_equal(entry.entry.form, ENTRY_MESSAGE);
    assert_int_equal(entry.entry.message.id.value, accepted.id.value);
    assert_int_equal(entry.entry.message.sender.value, 5);
    assert_int_equal(entry.entry.message.conversation.value, 5);
    assert_int_equal(entry.entry.message.n, 1);
    assert_int_equal(entry.entry.message.cn, 1);
    assert_memory_equal(entry.entry.message.body.bytes, "hello", 5);
    assert_int_equal(client_waiting(a) + client_waiting(b), 0);
    world_close(&world);
}

static void hello_with_known_cursor_resumes_behind_it(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    for (uint64_t i = 1; i <= 3; i++) {
        client_send(a, i, i, 5, "note");
    }
    world_settle(&world);
    host_disconnect(host, a);
    struct host_conn *again = host_connect(host, (struct user_id){ 5 }, 1, cursor_of(a, 1));

    assert_int_equal(again->welcome.result, HELLO_RESULT_RESUME);
    assert_int_equal(again->welcome.head, 3);
    assert_int_equal(again->welcome.last_counter, 3);
    struct seen_entry entry = client_entry(again);
    assert_int_equal(entry.seq, 2);
    assert_int_equal(entry.entry.form, ENTRY_MESSAGE); /* another connection: whole */
    assert_int_equal(entry.entry.message.flags, ENTRY_FLAG_OWN);
    assert_int_equal(entry.entry.message.counter, 2);
    assert_int_equal(client_entry(again).seq, 3);
    assert_int_equal(client_waiting(again), 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_of_unknown_user_creates_user_and_device),
        cmocka_unit_test(welcome_waits_for_the_users_last_append),
        cmocka_unit_test(message_reaches_both_after_it_is_durable),
        cmocka_unit_test(hello_with_known_cursor_resumes_behind_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

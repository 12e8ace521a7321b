#include "tests/unit/engine/host.h"

#include <string.h>

#include "core/base/bytes.h"

static const struct message_cursor nothing = { 0, 0, 0 };

static struct message_cursor cursor_of(const struct host_conn *conn, uint64_t seq)
{
    return (struct message_cursor){ .epoch = conn->welcome.epoch, .seq = seq };
}

static void hello_of_unknown_user_creates_user_and_device(void **state)
{
    static struct world world;
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
    static struct world world;
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
    static struct world world;
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
    static struct world world;
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

static void hello_beyond_the_head_resets_and_is_noted(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_send(a, 1, 1, 5, "note");
    world_settle(&world);
    struct host_conn *again = host_connect(host, (struct user_id){ 5 }, 1, cursor_of(a, 2));

    assert_int_equal(again->welcome.result, HELLO_RESULT_RESET);
    assert_int_equal(host->notes[NOTE_STORE_ROLLED_BACK], 1);
    assert_int_equal(client_entry(again).seq, 1);
    world_close(&world);
}

static void hello_of_another_epoch_resets_without_a_note(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_send(a, 1, 1, 5, "note");
    world_settle(&world);
    struct message_cursor old = cursor_of(a, 1);
    old.epoch--;
    struct host_conn *again = host_connect(host, (struct user_id){ 5 }, 1, old);

    assert_int_equal(again->welcome.result, HELLO_RESULT_RESET);
    assert_int_equal(host->notes[NOTE_STORE_ROLLED_BACK], 0);
    assert_int_equal(client_entry(again).seq, 1);
    world_close(&world);
}

static void newer_socket_replaces_the_older(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *old = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    struct host_conn *new = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    assert_true(old->closed);
    assert_int_equal(client_error(old).code, CODE_REPLACED);
    assert_false(new->closed);
    assert_int_equal(host->notes[NOTE_REPLACED], 1);
    world_close(&world);
}

static void frame_of_a_replaced_socket_is_dropped(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *old = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    uint8_t bytes[64];
    struct frame_view view;

    host_connect(host, (struct user_id){ 5 }, 1, nothing);
    client_send(old, 1, 1, 5, "late");
    memcpy(bytes, old->in.items[0].at, old->in.items[0].count);
    assert_int_equal(frame_parse(bytes, old->in.items[0].count, &view), FRAME_OK);
    assert_int_equal(engine_on_frame(host->engine, old->ref, &view), ENGINE_CLOSED);
    host_run(host);
    assert_int_equal(host_count_records(host, RECORD_ENTRY, 5), 0);
    world_close(&world);
}

static void older_socket_that_says_hello_later_is_replaced_itself(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *older = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    struct host_conn *newer = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    host_offer(host, older);
    assert_true(older->closed);
    assert_false(older->welcomed);
    assert_int_equal(client_error(older).code, CODE_REPLACED);
    assert_false(newer->closed);

    /* The fence stays when the newer one goes. */
    host_disconnect(host, newer);
    struct host_conn *oldest = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    oldest->accepted_at = 1;
    host_offer(host, oldest);
    assert_true(oldest->closed);
    world_close(&world);
}

/* A SEND that waits for a load when its socket is fenced must not be accepted after HELLO_OK. */
static void send_that_waits_is_dropped_by_the_fence(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *old = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_send(old, 1, 1, 6, "waits");
    host_offer(host, old);
    assert_true(old->blocked);
    struct host_conn *new = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    host_offer(host, new);
    world_settle(&world);
    assert_true(new->welcomed);
    assert_int_equal(new->welcome.last_counter, 0);
    assert_int_equal(host_count_records(host, RECORD_ENTRY, 5), 0);
    client_send(new, 1, 2, 5, "mine");
    world_settle(&world);
    assert_int_equal(client_accepted(new).counter, 1);
    world_close(&world);
}

static void seventeenth_device_is_refused(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];

    for (uint32_t device = 1; device <= DEVICES_PER_USER_MAX; device++) {
        host_connect(host, (struct user_id){ 5 }, device, nothing);
    }
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 99, nothing);
    host_offer(host, conn);
    assert_true(conn->closed);
    assert_int_equal(client_error(conn).code, CODE_TOO_MANY_DEVICES);
    assert_int_equal(host_count_records(host, RECORD_DEVICE, 5), DEVICES_PER_USER_MAX);
    world_close(&world);
}

static enum code hello_with_claims(struct host *host, struct claims claims)
{
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);

    conn->claims = claims;
    host_offer(host, conn);
    world_settle(host->world);
    return conn->closed ? (enum code)client_error(conn).code : CODE_OK;
}

static void claims_must_name_user_device_and_generation(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    const struct claims good = { .user = { 5 }, .device = { 1 } };
    struct claims claims = good;

    claims.has_generation = true; /* a resume token of a device that isn't there */
    claims.generation = 1;
    assert_int_equal(hello_with_claims(host, claims), CODE_BAD_TOKEN);
    assert_int_equal(host_count_records(host, RECORD_DEVICE, 0), 0);
    assert_int_equal(hello_with_claims(host, good), CODE_OK);
    assert_int_equal(hello_with_claims(host, claims), CODE_OK);
    claims.generation = 2;
    assert_int_equal(hello_with_claims(host, claims), CODE_BAD_TOKEN);
    claims = good;
    claims.user.value = 6;
    assert_int_equal(hello_with_claims(host, claims), CODE_BAD_TOKEN);
    claims = good;
    claims.device.value = 2;
    assert_int_equal(hello_with_claims(host, claims), CODE_BAD_TOKEN);
    world_close(&world);
}

static void hello_for_a_partition_elsewhere_is_busy(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 2, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_accept(host, world_user(&world, 1, 0), 1, nothing);

    host_offer(host, conn);
    assert_true(conn->closed);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    world_close(&world);
}

static void hello_under_pressure_creates_nothing(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];

    host->budget.refuse_sends = true;
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    host_offer(host, conn);
    world_settle(&world);
    assert_true(conn->closed);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    assert_int_equal(host->appended, 0);
    host->budget.refuse_sends = false;
    host_connect(host, (struct user_id){ 5 }, 1, nothing);
    world_close(&world);
}

static void hello_whose_load_fails_is_busy(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);

    host->fail_loads = true;
    host_offer(host, conn);
    world_settle(&world);
    assert_true(conn->closed);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    world_close(&world);
}

static void end_of_a_session_writes_the_cursor_if_it_moved(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_send(a, 1, 1, 5, "note");
    world_settle(&world);
    client_ack(a, 1);
    world_settle(&world);
    host_disconnect(host, a);
    assert_int_equal(host_count_records(host, RECORD_CURSOR, 5), 1);
    assert_int_equal(host_last_record(host, RECORD_CURSOR, 5)->cursor.seq, 1);
    struct host_conn *again = host_connect(host, (struct user_id){ 5 }, 1, cursor_of(a, 1));
    host_disconnect(host, again);
    assert_int_equal(host_count_records(host, RECORD_CURSOR, 5), 1);
    world_close(&world);
}

static enum code error_for_frame(struct host *host, uint8_t type, size_t payload_bytes, bool *fatal)
{
    struct host_conn *conn = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    uint8_t bytes[64] = { 0 };

    client_skip(conn);
    store_be24(bytes, (uint32_t)payload_bytes);
    bytes[3] = type;
    client_frame(conn, bytes, FRAME_HEADER_BYTES + payload_bytes);
    world_settle(host->world);
    *fatal = conn->closed;
    return client_waiting(conn) > 0 ? (enum code)client_error(conn).code : CODE_OK;
}

static void hostile_frames_end_or_are_told(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    const struct {
        size_t payload_bytes;
        enum code code;
        uint8_t type;
        bool fatal;
    } rows[] = {
        { 0, CODE_UNEXPECTED, FRAME_TYPE_HELLO, true },
        { 0, CODE_UNEXPECTED, FRAME_TYPE_HELLO_OK, true },
        { 24, CODE_UNEXPECTED, FRAME_TYPE_ACCEPTED, true },
        { 10, CODE_UNEXPECTED, FRAME_TYPE_ENTRIES, true },
        { 15, CODE_UNEXPECTED, FRAME_TYPE_PAGE, true },
        { 3, CODE_BAD_FRAME, FRAME_TYPE_SEND, true },
        { 40, CODE_BAD_FIELD, FRAME_TYPE_SEND, true }, /* counter 0 */
        { 3, CODE_BAD_FRAME, FRAME_TYPE_ACK, true },
        { 3, CODE_BAD_FRAME, FRAME_TYPE_HISTORY, true },
        { 3, CODE_UNSUPPORTED, 99, false },
        { 3, CODE_OK, 200, false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool fatal;

        assert_int_equal(error_for_frame(host, rows[i].type, rows[i].payload_bytes, &fatal),
                         rows[i].code);
        assert_int_equal(fatal, rows[i].fatal);
    }
    world_close(&world);
}

static void ack_beyond_what_was_sent_ends_the_connection(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_ack(a, 1);
    world_settle(&world);
    assert_true(a->closed);
    assert_int_equal(client_error(a).code, CODE_BAD_FIELD);
    world_close(&world);
}

/* What HELLO queues behind itself is answered behind HELLO_OK, a repeat too. */
static void sends_with_hello_are_answered_after_welcome(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);

    client_send(a, 1, 1, 5, "one");
    world_settle(&world);
    struct host_conn *other = host_connect(host, (struct user_id){ 5 }, 2, nothing);
    client_send(other, 1, 50, 5, "busy");
    host_offer(host, other); /* the user's last append isn't durable */
    struct host_conn *again = host_accept(host, (struct user_id){ 5 }, 1, cursor_of(a, 1));
    client_send(again, 1, 1, 5, "one");
    client_send(again, 2, 2, 5, "two");
    host_offer(host, again); /* asserts in the host that no frame precedes HELLO_OK */
    assert_false(again->welcomed);
    world_settle(&world);
    assert_true(again->welcomed);
    assert_int_equal(again->welcome.last_counter, 1);
    assert_int_equal(client_accepted(again).counter, 1);
    assert_int_equal(client_accepted(again).counter, 2);
    world_close(&world);
}

/* Neither entries that became durable meanwhile, nor answers: the host asserts it of each frame. */
static void nothing_goes_out_before_hello_ok(void **state)
{
    static struct world world;
    uint8_t unknown[FRAME_HEADER_BYTES] = { 0, 0, 0, 99 };
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *other = host_connect(host, (struct user_id){ 5 }, 2, nothing);

    host_connect(host, (struct user_id){ 5 }, 1, nothing);
    client_send(other, 1, 50, 5, "one");
    world_settle(&world);
    client_send(other, 2, 51, 5, "two");
    client_send(other, 3, 52, 5, "three");
    host_offer(host, other);
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);
    host_offer(host, conn);
    host->durable = host->appended - 1; /* the second is durable, the third isn't */
    engine_on_durable(host->engine, host->durable);
    host_run(host);
    client_history(conn, 7, 5, HISTORY_BEFORE, 0, 10, 0);
    host_offer(host, conn);
    assert_true(conn->blocked);
    conn->in.taken++; /* instead, what isn't known */
    client_frame(conn, unknown, sizeof unknown);
    host_offer(host, conn);
    assert_true(conn->blocked);
    assert_false(conn->welcomed);
    assert_int_equal(client_waiting(conn), 0);
    world_settle(&world);
    assert_true(conn->welcomed);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        assert_int_equal(client_entry(conn).seq, seq);
    }
    assert_int_equal(client_error(conn).code, CODE_UNSUPPORTED);
    world_close(&world);
}

/* Though all that it tells of is durable already. */
static void error_that_ends_a_connection_comes_behind_its_hello_ok(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *conn = host_accept(host, (struct user_id){ 5 }, 1, nothing);

    host_offer(host, conn);
    host_answer_loads(host);
    host_offer(host, conn);
    host->durable = host->appended;
    engine_on_durable(host->engine, host->durable);
    client_ack(conn, 9);
    host_offer(host, conn);
    assert_true(conn->welcomed);
    assert_int_equal(client_error(conn).code, CODE_BAD_FIELD);
    assert_true(conn->closed);
    world_close(&world);
}

static void ids_that_nobody_can_have_are_refused(void **state)
{
    static const struct {
        uint64_t user;
        uint32_t device;
    } rows[] = { { 0, 1 }, { ID_GROUP_BIT | 5, 1 }, { 5, 0 } };
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct host_conn *conn =
            host_accept(host, (struct user_id){ rows[i].user }, rows[i].device, nothing);

        host_offer(host, conn);
        world_settle(&world);
        assert_true(conn->closed);
        assert_int_equal(client_error(conn).code, CODE_BAD_FIELD);
    }
    assert_int_equal(host->appended, 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_of_unknown_user_creates_user_and_device),
        cmocka_unit_test(welcome_waits_for_the_users_last_append),
        cmocka_unit_test(message_reaches_both_after_it_is_durable),
        cmocka_unit_test(hello_with_known_cursor_resumes_behind_it),
        cmocka_unit_test(hello_beyond_the_head_resets_and_is_noted),
        cmocka_unit_test(hello_of_another_epoch_resets_without_a_note),
        cmocka_unit_test(newer_socket_replaces_the_older),
        cmocka_unit_test(frame_of_a_replaced_socket_is_dropped),
        cmocka_unit_test(older_socket_that_says_hello_later_is_replaced_itself),
        cmocka_unit_test(send_that_waits_is_dropped_by_the_fence),
        cmocka_unit_test(seventeenth_device_is_refused),
        cmocka_unit_test(claims_must_name_user_device_and_generation),
        cmocka_unit_test(hello_for_a_partition_elsewhere_is_busy),
        cmocka_unit_test(hello_under_pressure_creates_nothing),
        cmocka_unit_test(hello_whose_load_fails_is_busy),
        cmocka_unit_test(end_of_a_session_writes_the_cursor_if_it_moved),
        cmocka_unit_test(hostile_frames_end_or_are_told),
        cmocka_unit_test(ack_beyond_what_was_sent_ends_the_connection),
        cmocka_unit_test(sends_with_hello_are_answered_after_welcome),
        cmocka_unit_test(nothing_goes_out_before_hello_ok),
        cmocka_unit_test(error_that_ends_a_connection_comes_behind_its_hello_ok),
        cmocka_unit_test(ids_that_nobody_can_have_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

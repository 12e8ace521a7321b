/* Room in the journal comes before any number; under pressure only what was promised goes on. */
#include "tests/unit/engine/two_homes.h"

static const struct message_cursor nothing = { 0, 0, 0 };

/* Room for one record without a body, and for no two. */
#define ROOM_OF_ONE ((uint64_t)RECORD_BYTES_MAX - RECORD_BODY_BYTES_MAX)

static void set_pressure(struct host *host, bool on)
{
    host->budget.refuse_sends = on;
    host->budget.only_streams = on;
}

/* A's message is accepted, and on its way to B, who hasn't got it. */
static void open_with_message_to(struct two *two, struct user_id to)
{
    client_send(two->ca, 1, 11, to.value, "text");
    two_offer_and_send(two);
    assert_int_equal(client_accepted(two->ca).counter, 1);
    assert_int_equal(host_count_records(two->hb, RECORD_ENTRY, to.value), 0);
}

static void streams_their_ends_and_refusals_go_on_under_pressure(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    open_with_message_to(&two, two.b);
    client_send(two.ca, 2, 12, two.c.value, "nobody there");
    two_offer_and_send(&two);
    set_pressure(two.ha, true);
    set_pressure(two.hb, true);
    world_settle(&two.world);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(two_ended(&two), 2);
    assert_int_equal(host_last_record(two.ha, RECORD_ENTRY, two.a.value)->entry.form,
                     LOG_ENTRY_REFUSED);
    two_close(&two);
}

static void under_the_highest_pressure_nothing_new_begins(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    two.ha->budget.only_streams = true; /* alone */
    const uint64_t appended = two.ha->appended;

    client_send(two.ca, 1, 11, two.b.value, "text");
    world_settle(&two.world);
    assert_int_equal(client_rejected(two.ca).code, CODE_RETRY);
    struct host_conn *conn = host_accept(two.ha, two.a, 2, nothing); /* a new device */
    host_offer(two.ha, conn);
    world_settle(&two.world);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    host_disconnect(two.ha, two.ca);
    assert_int_equal(two.ha->appended, appended);
    two_close(&two);
}

/* A device's cursor is only a note: it is written where there is room for it. */
static void cursor_without_room_isnt_written(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    for (int i = 0; i < 3; i++) {
        const uint64_t room = two.ha->budget.append_bytes;

        client_send(two.ca, (uint64_t)i + 1, (uint64_t)i + 11, two.a.value, "note");
        world_settle(&two.world);
        client_ack(two.ca, (uint64_t)i + 1);
        world_settle(&two.world);
        two.ha->budget.append_bytes = i == 0 ? ROOM_OF_ONE - 1 : room;
        two.ha->budget.only_streams = i == 1;
        host_disconnect(two.ha, two.ca);
        assert_int_equal(host_count_records(two.ha, RECORD_CURSOR, two.a.value), i == 2);
        two.ha->budget.append_bytes = room;
        two.ha->budget.only_streams = false;
        two.ca = host_connect(two.ha, two.a, 1, nothing);
    }
    two_close(&two);
}

static void received_message_waits_for_journal_room(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    open_with_message_to(&two, two.b);
    const uint64_t room = two.hb->budget.append_bytes;

    two.hb->budget.append_bytes = ROOM_OF_ONE;
    for (int i = 0; i < 4; i++) {
        assert_false(host_deliver_stream(two.hb));
        host_answer_loads(two.hb);
    }
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 0);
    two.hb->budget.append_bytes = room;
    world_settle(&two.world);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(two_ended(&two), 1);
    two_close(&two);
}

static void refusal_waits_for_journal_room(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    open_with_message_to(&two, two.b);
    const uint64_t room = two.ha->budget.append_bytes;

    host_deliver_all(two.hb);
    host_durable(two.hb);
    two.ha->budget.append_bytes = ROOM_OF_ONE;
    assert_false(host_deliver_stream(two.ha));
    assert_int_equal(two_ended(&two), 0);
    two.ha->budget.append_bytes = room;
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 1);
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 2);
    two_close(&two);
}

static void ends_wait_for_journal_room_and_as_many_as_fit_are_written(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    two_offer_and_send(&two);
    const uint64_t room = two.ha->budget.append_bytes;

    host_deliver_all(two.hb);
    host_durable(two.hb);
    two.ha->budget.append_bytes = ROOM_OF_ONE - 1;
    assert_false(host_deliver_stream(two.ha));
    assert_int_equal(two_ended(&two), 0);
    two.ha->budget.append_bytes = 2 * ROOM_OF_ONE;
    assert_false(host_deliver_stream(two.ha));
    assert_int_equal(two_ended(&two), 2);
    two.ha->budget.append_bytes = room;
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 3);
    two_close(&two);
}

/* What can't be recorded isn't refused for good: the counter isn't consumed. */
static void permanent_refusal_without_journal_room_is_one_for_now(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    const uint64_t appended = two.ha->appended;
    const uint64_t room = two.ha->budget.append_bytes;

    two.ha->budget.append_bytes = ROOM_OF_ONE - 1;
    client_send(two.ca, 1, 11, ID_GROUP_BIT | 9, "to a group");
    world_settle(&two.world);
    assert_int_equal(client_rejected(two.ca).code, CODE_RETRY);
    assert_int_equal(two.ha->appended, appended);
    two.ha->budget.append_bytes = room;
    client_send(two.ca, 1, 11, ID_GROUP_BIT | 9, "to a group");
    world_settle(&two.world);
    assert_int_equal(client_rejected(two.ca).code, CODE_BAD_CONVERSATION);
    two_close(&two);
}

static void new_user_without_journal_room_is_busy(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    const uint64_t appended = two.hb->appended;
    const uint64_t room = two.hb->budget.append_bytes;

    two.hb->budget.append_bytes = ROOM_OF_ONE;
    struct host_conn *conn = host_accept(two.hb, two.b, 1, nothing);
    host_offer(two.hb, conn);
    world_settle(&two.world);
    assert_int_equal(client_error(conn).code, CODE_BUSY);
    assert_int_equal(two.hb->appended, appended);
    two.hb->budget.append_bytes = room;
    two_log_in_b(&two);
    two_close(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_their_ends_and_refusals_go_on_under_pressure),
        cmocka_unit_test(under_the_highest_pressure_nothing_new_begins),
        cmocka_unit_test(cursor_without_room_isnt_written),
        cmocka_unit_test(received_message_waits_for_journal_room),
        cmocka_unit_test(refusal_waits_for_journal_room),
        cmocka_unit_test(ends_wait_for_journal_room_and_as_many_as_fit_are_written),
        cmocka_unit_test(permanent_refusal_without_journal_room_is_one_for_now),
        cmocka_unit_test(new_user_without_journal_room_is_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

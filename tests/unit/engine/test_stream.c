#include "tests/unit/engine/two_homes.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

static void message_goes_to_another_home_and_ends(void **state)
{
    static struct two two;
    struct engine_stats stats;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "over there");
    world_settle(&two.world);

    const struct message_accepted accepted = client_accepted(two.ca);
    const struct seen_entry entry = client_entry(two.cb);

    assert_int_equal(entry.entry.message.id.value, accepted.id.value);
    assert_int_equal(entry.entry.message.cn, 1);
    assert_memory_equal(entry.entry.message.body.bytes, "over there", 10);
    assert_true((host_last_record(two.ha, RECORD_ENTRY, two.a.value)->entry.flags &
                 LOG_ENTRY_FLAG_OUT) != 0);
    assert_int_equal(two_ended(&two), 1);
    engine_get_stats(two.ha->engine, &stats);
    assert_int_equal(stats.outs, 0);
    two_close(&two);
}

static void stream_record_leaves_only_when_durable(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    host_offer(two.ha, two.ca);
    host_answer_loads(two.ha);
    host_offer(two.ha, two.ca);
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 1);
    host_run(two.ha);
    assert_int_equal(two.hb->streams.count, 0);
    host_durable(two.ha);
    assert_int_equal(two.hb->streams.count, 1);
    two_close(&two);
}

/* A frame without a place would be lost, and with it all that its link has in flight. */
static void peer_frames_wait_for_room(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two.ha->budget.stream_frames = 0;
    two_offer_and_send(&two);
    assert_int_equal(two.hb->streams.count, 0);
    assert_true(engine_waits_for_stream_frames(two.ha->engine));
    engine_set_stream_frames(two.ha->engine, 1);
    two.ha->budget.stream_frames = 1;
    host_run(two.ha);
    assert_int_equal(two.hb->streams.count, 1);
    assert_false(engine_waits_for_stream_frames(two.ha->engine));
    two.ha->budget.stream_frames = UINT32_MAX;
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 1);
    two_close(&two);
}

static void acknowledgement_leaves_only_when_the_entry_is_durable(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two_offer_and_send(&two);
    while (!host_deliver_stream(two.hb)) {
        host_answer_loads(two.hb);
    }
    assert_int_equal(two.ha->streams.count, 0);
    assert_int_equal(client_waiting(two.cb), 0);
    host_durable(two.hb);
    assert_int_equal(two.ha->streams.count, 1);
    assert_int_equal(client_entry(two.cb).seq, 1);
    two_close(&two);
}

static void message_to_a_user_who_never_logged_in_is_refused(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "text");
    world_settle(&two.world);

    const struct message_accepted accepted = client_accepted(two.ca);

    assert_int_equal(client_entry(two.ca).entry.form, ENTRY_SENT);
    const struct seen_entry refused = client_entry(two.ca);
    assert_int_equal(refused.seq, 2);
    assert_int_equal(refused.entry.form, ENTRY_REFUSED);
    assert_int_equal(refused.entry.refused.code, CODE_UNKNOWN);
    assert_int_equal(refused.entry.refused.ref_seq, 1);
    assert_int_equal(refused.entry.refused.id.value, accepted.id.value);
    assert_int_equal(refused.entry.refused.conversation.value, two.b.value);
    assert_int_equal(two_ended(&two), 1);
    /* The end and the entry are one. */
    const struct kept_record *last = &two.ha->records[two.ha->record_count - 1];
    assert_int_equal(last[0].record.type, RECORD_ENTRY);
    assert_int_equal(last[-1].record.type, RECORD_OUT_END);
    assert_int_equal(last[0].ticket, last[-1].ticket);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, 0), 0);
    two_close(&two);
}

static void unknown_user_on_the_same_core_is_refused_alike(void **state)
{
    static struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    client_send(a, 1, 11, 6, "anybody?");
    client_send(a, 2, 12, 6, "hello?");
    world_settle(&world);
    assert_int_equal(client_accepted(a).seq, 1);
    assert_int_equal(client_accepted(a).seq, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(client_entry(a).entry.form, ENTRY_SENT);
    }
    assert_int_equal(client_entry(a).entry.refused.ref_seq, 1);
    assert_int_equal(client_entry(a).entry.refused.ref_seq, 2);
    assert_int_equal(host_count_records(host, RECORD_ENTRY, 6), 0);
    assert_int_equal(host_count_records(host, RECORD_OUT_END, 5), 2);
    world_close(&world);
}

static void accept_unknown(struct engine_config *config)
{
    config->accept_unknown_users = true;
}

static void unknown_user_is_created_where_that_is_allowed(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, accept_unknown);
    client_send(two.ca, 1, 11, two.b.value, "text");
    client_send(two.ca, 2, 12, two.b.value, "text");
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_USER, two.b.value), 1);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 2);
    two_log_in_b(&two);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(client_entry(two.cb).seq, 2);
    two_close(&two);
}

/*
 * A refused first message doesn't let the second overtake it: that is BEHIND, until the first has
 * ended for good; then it may be taken, since its receiver came to exist meanwhile.
 */
static void second_of_a_refused_first_is_behind_until_the_end_is_durable(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "first");
    client_send(two.ca, 2, 12, two.b.value, "second");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 2, "R1 B2");

    two_log_in_b_alone(&two); /* she exists from here on */
    while (two.ha->streams.taken < two.ha->streams.count) {
        host_deliver_stream(two.ha);
    }
    assert_int_equal(two_ended(&two), 1);
    /* The first's end isn't durable: the second, whose `after` passes over it, waits. */
    assert_int_equal(two.hb->streams.taken, two.hb->streams.count);
    host_durable(two.ha);
    assert_int_equal(two.hb->streams.taken + 1, two.hb->streams.count);
    world_settle(&two.world);
    const struct seen_entry entry = client_entry(two.cb);
    assert_int_equal(entry.seq, 1);
    assert_memory_equal(entry.entry.message.body.bytes, "second", 6);
    assert_int_equal(two_ended(&two), 2);
    two_close(&two);
}

/* Only the conversation waits: another one on the same link goes on. */
static void behind_holds_only_its_conversation(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.c.value, "to nobody");
    client_send(two.ca, 2, 12, two.b.value, "to somebody");
    client_send(two.ca, 3, 13, two.c.value, "to nobody again");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 3, "R1 B3");
    assert_int_equal(client_entry(two.cb).seq, 1);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 3);
    two_close(&two);
}

/* r2 and r3 are behind r1: they are sent again in their order, each naming its predecessor. */
static void records_behind_are_sent_again_in_order(void **state)
{
    static struct two two;
    struct stream_records records;
    struct stream_record record;
    uint64_t number;
    (void)state;
    two_open(&two, NULL);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 3, "R1 B2 B3");
    while (two.ha->streams.taken < two.ha->streams.count) {
        host_deliver_stream(two.ha);
        host_answer_loads(two.ha);
    }
    host_durable(two.ha);
    const struct bytes *frame = &two.hb->streams.items[two.hb->streams.count - 1];
    assert_true(stream_decode_records(frame->at, frame->count, &records));
    assert_int_equal(records.first, 4);
    assert_int_equal(records.count, 2);
    assert_true(stream_next(&records, &number, &record));
    assert_int_equal(record.origin.seq, 2);
    assert_int_equal(record.after.seq, 0);
    assert_true(stream_next(&records, &number, &record));
    assert_int_equal(record.origin.seq, 3);
    assert_int_equal(record.after.seq, 2);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 3);
    two_close(&two);
}

/* Gives that host an acknowledgement of all that its last stream frame held, with one exception. */
static void give_ack(struct host *to, const struct bytes *frame, uint64_t up_to, uint16_t code)
{
    struct stream_header header;
    struct stream_builder builder;
    uint8_t bytes[1024];

    assert_true(stream_decode_header(frame->at, frame->count, &header));
    stream_ack_begin(&builder, bytes, sizeof bytes, &header, 0, up_to);
    stream_ack_add(&builder, up_to, code);
    host_list_add(&to->streams, bytes, stream_ack_end(&builder));
    assert_true(host_deliver_stream(to));
}

static void outcome_that_comes_twice_counts_once(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.c.value, "nobody there");
    client_send(two.ca, 2, 12, two.b.value, "text");
    two_offer_and_send(&two);
    for (int i = 0; i < 2; i++) { /* the second time it has ended, though not durably */
        give_ack(two.ha, &two.hb->streams.items[0], 1, CODE_UNKNOWN);
        assert_int_equal(two_ended(&two), 1);
        assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 3);
    }
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 2);
    assert_int_equal(client_entry(two.cb).seq, 1);
    two_close(&two);
}

/* A peer's number is written into a log only if it is that of a refusal. */
static void code_that_is_no_refusal_is_taken_for_unknown(void **state)
{
    static const uint16_t codes[] = { 0xfffe, CODE_RETRY };
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        static struct two two;

        two_open(&two, NULL);
        client_send(two.ca, 1, 11, two.b.value, "text");
        two_offer_and_send(&two);
        give_ack(two.ha, &two.hb->streams.items[0], 1, codes[i]);
        assert_int_equal(host_last_record(two.ha, RECORD_ENTRY, two.a.value)->entry.code,
                         CODE_UNKNOWN);
        two_close(&two);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_goes_to_another_home_and_ends),
        cmocka_unit_test(stream_record_leaves_only_when_durable),
        cmocka_unit_test(peer_frames_wait_for_room),
        cmocka_unit_test(acknowledgement_leaves_only_when_the_entry_is_durable),
        cmocka_unit_test(message_to_a_user_who_never_logged_in_is_refused),
        cmocka_unit_test(unknown_user_on_the_same_core_is_refused_alike),
        cmocka_unit_test(unknown_user_is_created_where_that_is_allowed),
        cmocka_unit_test(second_of_a_refused_first_is_behind_until_the_end_is_durable),
        cmocka_unit_test(behind_holds_only_its_conversation),
        cmocka_unit_test(records_behind_are_sent_again_in_order),
        cmocka_unit_test(outcome_that_comes_twice_counts_once),
        cmocka_unit_test(code_that_is_no_refusal_is_taken_for_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

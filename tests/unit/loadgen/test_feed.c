/* What a client makes of its log: right ones, and every kind of wrong one. */
#include "tests/unit/loadgen/scripted.h"

#include <string.h>

static struct scripted *scripted;
static uint8_t body[BODY_BYTES_MAX];

static int set_up(void **state)
{
    (void)state;
    scripted = scripted_pair();
    scripted_login_all(scripted);
    for (uint32_t i = 0; i < 5; i++) { /* user 0 wrote five messages, user 1 two */
        assert_true(client_create(&scripted->crowd, scripted_client(scripted, 0), 1));
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(client_create(&scripted->crowd, scripted_client(scripted, 1), 1));
    }
    return 0;
}

static int set_up_devices(void **state)
{
    (void)state;
    scripted = scripted_open(&(struct crowd_options){
        .users = 2, .devices = 2, .body_bytes = 64, .pending = 64, .busy = 8 });
    scripted_login_all(scripted);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scripted_close(scripted);
    return 0;
}

static uint64_t faults(enum ledger_fault fault)
{
    return scripted->crowd.ledger.counts[fault];
}

/* Only these faults, and as often. */
static void expect_only(enum ledger_fault fault, uint64_t count)
{
    assert_int_equal(faults(fault), count);
    assert_int_equal(scripted->crowd.ledger.fault_count, count);
}

static enum client_verdict receive(uint32_t client, uint64_t seq, uint32_t from, uint32_t number,
                                   uint64_t n)
{
    const struct entry entry = scripted_message(scripted, client, from, number, n, body);

    return scripted_entry(scripted, client, seq, &entry);
}

static void audit_all(void)
{
    for (uint32_t i = 0; i < scripted->crowd.count; i++) {
        client_audit(&scripted->crowd, scripted_client(scripted, i));
    }
}

static void message_of_the_peer_is_counted_timed_and_acknowledged(void **state)
{
    struct frame_view view;
    struct message_ack ack = { 0 };

    (void)state;
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, 2, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.peer_entries, 2);
    assert_int_equal(scripted->crowd.delivered.count, 2);
    assert_int_equal(scripted->crowd.delivered.max, 1000);
    assert_true(scripted_hear(scripted, 1) >= 1);
    view = scripted_heard(scripted, 0); /* one for both, with the first SEND */
    assert_int_equal(view.type, FRAME_TYPE_ACK);
    assert_int_equal(message_decode_ack(&view, &ack), CODE_OK);
    assert_int_equal(ack.seq, 2);
    expect_only(LEDGER_LOST, 0);
}

static void own_message_may_come_short_or_whole(void **state)
{
    const struct entry sent = scripted_sent(1);

    (void)state;
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_GOES_ON);
    assert_int_equal(receive(0, 2, 0, 2, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.own_entries, 2);
    expect_only(LEDGER_LOST, 0);
}

static void skipped_seq_is_a_gap_and_ends_the_connection(void **state)
{
    (void)state;
    assert_int_equal(receive(1, 2, 0, 1, 1), CLIENT_ENDS);
    expect_only(LEDGER_GAP, 1);
}

static void repeated_seq_is_a_gap_and_ends_the_connection(void **state)
{
    (void)state;
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_ENDS);
    expect_only(LEDGER_GAP, 1);
}

static void message_twice_under_two_seqs_is_doubled(void **state)
{
    (void)state;
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, 1, 2), CLIENT_GOES_ON);
    expect_only(LEDGER_DOUBLED, 1);
}

static void own_message_twice_is_doubled(void **state)
{
    const struct entry sent = scripted_sent(1);

    (void)state;
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_GOES_ON);
    assert_int_equal(receive(0, 2, 0, 1, 2), CLIENT_GOES_ON);
    expect_only(LEDGER_DOUBLED, 1);
}

static void exchanged_messages_are_reordered(void **state)
{
    (void)state;
    assert_int_equal(receive(1, 1, 0, 2, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, 1, 2), CLIENT_GOES_ON);
    expect_only(LEDGER_REORDERED, 1);
}

static void missing_message_is_lost_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, 3, 2), CLIENT_GOES_ON);
    client_audit(&scripted->crowd, scripted_client(scripted, 1));
    assert_int_equal(faults(LEDGER_LOST), 1 + 2 + 2); /* 2; 4 and 5; and both of its own */
}

static void changed_body_is_damaged(void **state)
{
    struct entry entry = scripted_message(scripted, 1, 0, 1, 1, body);

    (void)state;
    body[50] ^= 1;
    assert_int_equal(scripted_entry(scripted, 1, 1, &entry), CLIENT_GOES_ON);
    expect_only(LEDGER_DAMAGED, 1);
}

static void wrong_sender_is_damaged(void **state)
{
    struct entry entry = scripted_message(scripted, 1, 0, 1, 1, body);

    (void)state;
    entry.message.sender.value++;
    assert_int_equal(scripted_entry(scripted, 1, 1, &entry), CLIENT_GOES_ON);
    expect_only(LEDGER_DAMAGED, 1);
}

static void wrong_nonce_of_an_own_message_is_damaged(void **state)
{
    struct entry entry = scripted_message(scripted, 0, 0, 1, 1, body);

    (void)state;
    entry.message.nonce.bytes[9] ^= 1;
    assert_int_equal(scripted_entry(scripted, 0, 1, &entry), CLIENT_GOES_ON);
    expect_only(LEDGER_DAMAGED, 1);
}

static void wrong_counter_of_an_own_message_is_damaged(void **state)
{
    struct entry entry = scripted_message(scripted, 0, 0, 1, 1, body);

    (void)state;
    entry.message.counter++;
    assert_int_equal(scripted_entry(scripted, 0, 1, &entry), CLIENT_GOES_ON);
    expect_only(LEDGER_DAMAGED, 1);
}

static void message_of_anothers_conversation_is_damaged(void **state)
{
    struct entry entry = scripted_message(scripted, 1, 0, 1, 1, body);

    (void)state;
    entry.message.conversation.value = 999;
    assert_int_equal(scripted_entry(scripted, 1, 1, &entry), CLIENT_GOES_ON);
    expect_only(LEDGER_DAMAGED, 1);
}

static void wrong_place_in_the_conversation_is_damaged(void **state)
{
    (void)state;
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, 2, 3), CLIENT_GOES_ON);
    expect_only(LEDGER_DAMAGED, 1);
}

static void message_that_nobody_created_is_unknown(void **state)
{
    const struct entry sent = scripted_sent(6);

    (void)state;
    assert_int_equal(receive(1, 1, 0, 6, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_GOES_ON);
    expect_only(LEDGER_UNKNOWN, 2);
}

static void refused_entry_is_a_fault(void **state)
{
    const struct entry entry = { .form = ENTRY_REFUSED,
                                 .refused = { CODE_UNKNOWN, 1, { 7 }, { SCRIPTED_USER + 1 } } };

    (void)state;
    assert_int_equal(receive(0, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_entry(scripted, 0, 2, &entry), CLIENT_GOES_ON);
    expect_only(LEDGER_REFUSED, 1);
}

static void entries_of_other_runs_are_no_fault(void **state)
{
    struct entry entry = scripted_message(scripted, 1, 0, 1, 1, body);

    (void)state;
    memset(body, 'x', 100);
    assert_int_equal(scripted_entry(scripted, 1, 1, &entry), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.foreign_entries, 1);
    expect_only(LEDGER_DAMAGED, 0);
}

static void client_is_current_when_it_has_what_hello_ok_named(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();

    (void)state;
    scripted_cut(scripted, 1);
    assert_int_equal(scripted->crowd.counts.current, 1);
    ok.result = HELLO_RESULT_RESUME;
    ok.head = 2;
    assert_int_equal(scripted_login(scripted, 1, &ok), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.current, 1);
    assert_int_equal(receive(1, 2, 0, 2, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.current, 2);
}

/* Four clients: both devices of user 0, both of user 1. One message from user 0. */
static void fill_devices(uint64_t id_of_second)
{
    const struct entry sent = scripted_sent(1);
    struct entry entry;

    assert_true(client_create(&scripted->crowd, scripted_client(scripted, 0), 1));
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_GOES_ON);
    entry = scripted_message(scripted, 1, 0, 1, 1, body);
    entry.message.id.value = id_of_second;
    assert_int_equal(scripted_entry(scripted, 1, 1, &entry), CLIENT_GOES_ON);
    for (uint32_t i = 2; i < 4; i++) {
        entry = scripted_message(scripted, i, 0, 1, 1, body);
        assert_int_equal(scripted_entry(scripted, i, 1, &entry), CLIENT_GOES_ON);
    }
}

static void devices_with_equal_logs_agree(void **state)
{
    (void)state;
    fill_devices(9001);
    audit_all();
    expect_only(LEDGER_DIVERGED, 0);
    assert_int_equal(scripted->crowd.counts.own_entries, 2);
    assert_int_equal(scripted->crowd.counts.peer_entries, 2);
}

static void devices_with_different_logs_diverge(void **state)
{
    (void)state;
    fill_devices(9002);
    audit_all();
    expect_only(LEDGER_DIVERGED, 1);
}

static void short_entry_on_another_device_is_a_fault(void **state)
{
    const struct entry sent = scripted_sent(1);

    (void)state;
    assert_true(client_create(&scripted->crowd, scripted_client(scripted, 0), 1));
    assert_int_equal(scripted_entry(scripted, 1, 1, &sent), CLIENT_GOES_ON);
    expect_only(LEDGER_PROTOCOL, 1);
}

/* Reads all of user 1's log again: `second` is what the second entry says this time. */
static void read_again(uint32_t second)
{
    struct message_hello_ok ok = scripted_hello_ok();
    struct client *client = scripted_client(scripted, 1);

    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, 2, 2), CLIENT_GOES_ON);
    ledger_clear(&scripted->crowd.ledger);
    scripted_cut(scripted, 1);
    client_reread(&scripted->crowd, client);
    assert_int_equal(scripted->crowd.counts.peer_entries, 0);
    ok.head = 2;
    assert_int_equal(scripted_login(scripted, 1, &ok), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 1, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(receive(1, 2, 0, second, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.delivered.count, 2); /* of the first reading only */
    client_audit(&scripted->crowd, client);
}

static void second_reading_of_the_same_log_agrees(void **state)
{
    (void)state;
    read_again(2);
    assert_int_equal(faults(LEDGER_DIVERGED), 0);
    assert_int_equal(faults(LEDGER_RESET), 0);
    assert_int_equal(faults(LEDGER_LOST), 3 + 2); /* nobody said the rest */
}

static void second_reading_that_differs_diverges(void **state)
{
    (void)state;
    read_again(3);
    assert_int_equal(faults(LEDGER_DIVERGED), 1);
}

int main(void)
{
#define TEST(name)    cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define DEVICES(name) cmocka_unit_test_setup_teardown(name, set_up_devices, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(message_of_the_peer_is_counted_timed_and_acknowledged),
        TEST(own_message_may_come_short_or_whole),
        TEST(skipped_seq_is_a_gap_and_ends_the_connection),
        TEST(repeated_seq_is_a_gap_and_ends_the_connection),
        TEST(message_twice_under_two_seqs_is_doubled),
        TEST(own_message_twice_is_doubled),
        TEST(exchanged_messages_are_reordered),
        TEST(missing_message_is_lost_at_the_end),
        TEST(changed_body_is_damaged),
        TEST(wrong_sender_is_damaged),
        TEST(wrong_nonce_of_an_own_message_is_damaged),
        TEST(wrong_counter_of_an_own_message_is_damaged),
        TEST(message_of_anothers_conversation_is_damaged),
        TEST(wrong_place_in_the_conversation_is_damaged),
        TEST(message_that_nobody_created_is_unknown),
        TEST(refused_entry_is_a_fault),
        TEST(entries_of_other_runs_are_no_fault),
        TEST(client_is_current_when_it_has_what_hello_ok_named),
        DEVICES(devices_with_equal_logs_agree),
        DEVICES(devices_with_different_logs_diverge),
        DEVICES(short_entry_on_another_device_is_a_fault),
        TEST(second_reading_of_the_same_log_agrees),
        TEST(second_reading_that_differs_diverges),
    };

    return cmocka_run_group_tests_name("feed", tests, NULL, NULL);
}

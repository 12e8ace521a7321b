/* A client against a server that says what the test wants: sending, refusals, loss, keepalive. */
#include "tests/unit/loadgen/scripted.h"

#include <string.h>

#include "core/io/clock.h"

static struct scripted *scripted;

static int set_up(void **state)
{
    (void)state;
    scripted = scripted_pair();
    scripted_login_all(scripted);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scripted_close(scripted);
    return 0;
}

static struct message_send heard_send(uint32_t nth)
{
    const struct frame_view view = scripted_heard(scripted, nth);
    struct message_send message;

    assert_int_equal(view.type, FRAME_TYPE_SEND);
    assert_int_equal(message_decode_send(&view, &message), CODE_OK);
    return message;
}

static void create(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_true(
            client_create(&scripted->crowd, scripted_client(scripted, 0), scripted->crowd.now_ns));
    }
}

static void expect_faults(enum ledger_fault fault, uint64_t count)
{
    assert_int_equal(scripted->crowd.ledger.counts[fault], count);
    assert_int_equal(scripted->crowd.ledger.fault_count, count);
}

static void hello_names_cursor_user_and_device(void **state)
{
    uint8_t frame[512];
    struct frame_view view;
    struct message_hello hello;
    struct client *client = scripted_client(scripted, 1);

    (void)state;
    client->seq = 17;

    const size_t bytes =
        client_hello(&scripted->crowd, client, (const uint8_t *)"t", 1, frame, sizeof frame);

    assert_int_equal(frame_parse(frame, bytes, &view), FRAME_OK);
    assert_int_equal(message_decode_hello(&view, &hello), CODE_OK);
    assert_int_equal(hello.user.value, SCRIPTED_USER + 1);
    assert_int_equal(hello.device.value, 1);
    assert_int_equal(hello.cursor.epoch, SCRIPTED_EPOCH);
    assert_int_equal(hello.cursor.seq, 17);
    assert_int_equal(hello.token.byte_count, 1);
}

static void message_has_the_next_counter_and_its_own_nonce(void **state)
{
    struct payload payload;

    (void)state;
    create(2);
    assert_int_equal(scripted_hear(scripted, 0), 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct message_send send = heard_send(i);
        const struct nonce nonce =
            payload_nonce(&scripted->crowd.run, (struct user_id){ SCRIPTED_USER }, i + 1);

        assert_int_equal(send.counter, i + 1);
        assert_int_equal(send.conversation.value, SCRIPTED_USER + 1);
        assert_memory_equal(&send.nonce, &nonce, sizeof nonce);
        assert_int_equal(payload_read(&scripted->crowd.run, send.body.bytes, send.body.byte_count,
                                      100, &payload),
                         PAYLOAD_OK);
        assert_int_equal(payload.number, i + 1);
    }
}

static void each_send_has_a_record_of_its_own_in_one_system_call(void **state)
{
    (void)state;
    create(5);
    assert_int_equal(scripted_hear(scripted, 0), 5);
    assert_int_equal(scripted->records, 5);
    assert_int_equal(scripted->sends, 1);
}

static void more_than_a_cell_holds_goes_in_several_sends(void **state)
{
    (void)state;
    create(SENDS_OUTSTANDING_MAX);
    assert_int_equal(scripted_hear(scripted, 0), SENDS_OUTSTANDING_MAX);
    assert_int_equal(scripted->records, SENDS_OUTSTANDING_MAX);
    assert_in_range(scripted->sends, 2, 4);
    for (uint32_t i = 0; i < SENDS_OUTSTANDING_MAX; i++) {
        assert_int_equal(heard_send(i).counter, i + 1);
    }
}

static void acknowledgement_goes_with_the_first_send(void **state)
{
    const struct entry sent = scripted_sent(1);

    (void)state;
    create(3);
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 4);
    assert_int_equal(scripted_heard(scripted, 0).type, FRAME_TYPE_ACK);
    assert_int_equal(scripted->records, 3);
}

static void largest_body_fits(void **state)
{
    (void)state;
    scripted_close(scripted);
    scripted = scripted_open(&(struct crowd_options){
        .users = 2, .devices = 1, .body_bytes = BODY_BYTES_MAX, .pending = 64, .busy = 8 });
    scripted_login_all(scripted);
    create(3);
    assert_int_equal(scripted_hear(scripted, 0), 3);
    assert_int_equal(scripted->records, 3);
}

static void gathered_sends_share_a_record(void **state)
{
    (void)state;
    scripted->crowd.gather = true;
    create(5);
    assert_int_equal(scripted_hear(scripted, 0), 5);
    assert_int_equal(scripted->records, 1);
}

static void counters_go_on_from_an_earlier_run(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();

    (void)state;
    scripted_close(scripted);
    scripted = scripted_pair();
    ok.last_counter = 500;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    create(1);
    assert_int_equal(scripted_hear(scripted, 0), 1);
    assert_int_equal(heard_send(0).counter, 501);
    assert_int_equal(scripted_accept(scripted, 0, 501, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.answered, 1);
    expect_faults(LEDGER_UNKNOWN, 0);
}

static void latency_counts_from_the_intended_time(void **state)
{
    (void)state;
    create(1);
    (void)scripted_hear(scripted, 0);
    scripted->crowd.now_ns += 5000000;
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.accepted.count, 1);
    assert_int_equal(scripted->crowd.accepted.max, 5000000);
}

static void window_is_kept_full(void **state)
{
    (void)state;
    scripted->crowd.window = 3;
    create(3);
    assert_int_equal(scripted_hear(scripted, 0), 3);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 1);
    assert_int_equal(heard_send(0).counter, 4);
    scripted->crowd.window = 0;
    assert_int_equal(scripted_accept(scripted, 0, 2, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 0);
}

static void never_more_than_the_server_allows_are_unanswered(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();

    (void)state;
    scripted_cut(scripted, 0);
    ok.result = HELLO_RESULT_RESUME;
    ok.sends_outstanding_max = 4;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    create(SENDS_OUTSTANDING_MAX);
    assert_int_equal(scripted_hear(scripted, 0), 4);
    assert_false(client_create(&scripted->crowd, scripted_client(scripted, 0), 1));
    assert_int_equal(scripted->crowd.counts.held, 1);
    assert_int_equal(scripted->crowd.counts.created, SENDS_OUTSTANDING_MAX);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 1);
    assert_int_equal(heard_send(0).counter, 5);
}

/* The rule of docs/protocol.md 6: wait for all answers, wait, then all again from `expected`. */
static void refused_pipeline_is_sent_again_in_order(void **state)
{
    struct client *client = scripted_client(scripted, 0);

    (void)state;
    create(3);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_reject(scripted, 0, 2, CODE_RETRY, 200, 2), CLIENT_GOES_ON);
    create(1);
    scripted->crowd.now_ns += 1000 * CLOCK_NS_PER_MS;
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
    assert_true((client->flags & CLIENT_HOLD) != 0); /* message 3 isn't answered */
    client->flags &= (uint16_t)~CLIENT_PING_DUE;
    assert_int_equal(scripted_hear(scripted, 0), 0);
    assert_int_equal(scripted_reject(scripted, 0, 3, CODE_ORDER, 0, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.rejected, 2);
    assert_true(client->resume_at_ns == scripted->crowd.now_ns + 200 * CLOCK_NS_PER_MS);
    assert_true(client_timer_ns(&scripted->crowd, client) == client->resume_at_ns);
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 0);
    scripted->crowd.now_ns = client->resume_at_ns;
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(heard_send(i).counter, i + 2);
    }
    expect_faults(LEDGER_PROTOCOL, 0);
}

static void longest_wait_of_several_refusals_holds(void **state)
{
    struct client *client = scripted_client(scripted, 0);

    (void)state;
    create(2);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_reject(scripted, 0, 1, CODE_RETRY, 300, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_reject(scripted, 0, 2, CODE_ORDER, 0, 1), CLIENT_GOES_ON);
    assert_true(client->resume_at_ns == scripted->crowd.now_ns + 300 * CLOCK_NS_PER_MS);
}

static void refusal_with_a_wrong_expected_counter_is_a_fault(void **state)
{
    struct client *client = scripted_client(scripted, 0);

    (void)state;
    create(1);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_reject(scripted, 0, 1, CODE_ORDER, 0, 7), CLIENT_GOES_ON);
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
    expect_faults(LEDGER_PROTOCOL, 1);
}

static void permanent_refusal_is_a_fault_and_an_answer(void **state)
{
    (void)state;
    create(2);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_reject(scripted, 0, 1, CODE_BAD_KIND, 0, 2), CLIENT_GOES_ON);
    expect_faults(LEDGER_REFUSED, 1);
    assert_int_equal(scripted->crowd.counts.pending, 1);
}

static void answer_to_nothing_is_a_fault(void **state)
{
    (void)state;
    create(1);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON); /* not even sent yet */
    expect_faults(LEDGER_UNKNOWN, 1);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    expect_faults(LEDGER_UNKNOWN, 2);
    assert_int_equal(scripted->crowd.counts.answered, 1);
}

static void unanswered_go_again_with_the_same_counters_and_nonces(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();
    struct nonce before[3];

    (void)state;
    create(3);
    (void)scripted_hear(scripted, 0);
    for (uint32_t i = 0; i < 3; i++) {
        before[i] = heard_send(i).nonce;
    }
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    scripted_cut(scripted, 0);
    create(1); /* while it is away */
    ok.result = HELLO_RESULT_RESUME;
    ok.last_counter = 2; /* message 2 was taken, its answer lost */
    ok.head = 2;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 3);
    for (uint32_t i = 0; i < 2; i++) {
        const struct nonce again = heard_send(i).nonce;
        assert_int_equal(heard_send(i).counter, i + 2);
        assert_memory_equal(&again, &before[i + 1], sizeof(struct nonce));
    }
    assert_int_equal(heard_send(2).counter, 4);
    expect_faults(LEDGER_RESET, 0);
}

static void server_that_forgot_an_answered_message_is_found_out(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();

    (void)state;
    create(2);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_accept(scripted, 0, 2, 2), CLIENT_GOES_ON);
    scripted_cut(scripted, 0);
    ok.result = HELLO_RESULT_RESUME;
    ok.last_counter = 1;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    expect_faults(LEDGER_RESET, 1);
}

static void other_epoch_is_a_fault(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();

    (void)state;
    scripted_cut(scripted, 0);
    ok.epoch++;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    expect_faults(LEDGER_RESET, 1);
}

static void resume_token_is_kept_until_it_is_refused(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();
    struct client *client = scripted_client(scripted, 0);

    (void)state;
    scripted_cut(scripted, 0);
    ok.result = HELLO_RESULT_RESUME;
    ok.resume_token = (struct message_bytes){ (const uint8_t *)"resume", 6 };
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    assert_int_equal(client->token_bytes, 6);
    assert_memory_equal(client->token, "resume", 6);
    assert_int_equal(scripted_error(scripted, 0, CODE_BAD_TOKEN, 0), CLIENT_ENDS);
    assert_int_equal(client->token_bytes, 0);
    expect_faults(LEDGER_PROTOCOL, 0);
}

static void conflict_is_a_fault_and_busy_is_none(void **state)
{
    (void)state;
    assert_int_equal(scripted_error(scripted, 0, CODE_BUSY, 100), CLIENT_ENDS);
    expect_faults(LEDGER_PROTOCOL, 0);
    assert_int_equal(scripted_error(scripted, 1, CODE_CONFLICT, 0), CLIENT_ENDS);
    expect_faults(LEDGER_PROTOCOL, 1);
}

static void back_off_doubles_and_hello_ok_ends_it(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();
    struct client *client = scripted_client(scripted, 0);
    uint64_t most_s = 1;

    (void)state;
    scripted_cut(scripted, 0);
    for (uint32_t attempt = 0; attempt < 12; attempt++) {
        uint64_t longest = 0;

        for (uint64_t random = 0; random < 300; random++) {
            client->attempts = (uint8_t)attempt;

            const uint64_t wait = client_back_off_ns(client, 60, random);

            assert_true(wait <= most_s * CLOCK_NS_PER_S);
            longest = wait > longest ? wait : longest;
        }
        assert_true(longest > most_s * CLOCK_NS_PER_S / 2); /* it is spread over all of it */
        most_s = most_s * 2 < 60 ? most_s * 2 : 60;
    }
    ok.result = HELLO_RESULT_RESUME;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    assert_int_equal(client->attempts, 0);
}

static void servers_retry_time_is_waited_for(void **state)
{
    struct client *client = scripted_client(scripted, 0);

    (void)state;
    assert_int_equal(scripted_error(scripted, 0, CODE_BUSY, 5000), CLIENT_ENDS);
    for (uint64_t random = 0; random < 100; random++) {
        client->wait_min_ms = 5000;
        client->wait_max_ms = 10000;
        client->attempts = 0;

        const uint64_t wait = client_back_off_ns(client, 60, random);

        assert_true(wait >= 5 * CLOCK_NS_PER_S && wait <= 10 * CLOCK_NS_PER_S);
    }
    assert_int_equal(client->wait_max_ms, 0); /* for one dial only */
}

static void goaway_is_answered_by_bye_when_all_is_answered(void **state)
{
    uint8_t frame[GOAWAY_FRAME_BYTES_MAX];
    const struct message_goaway goaway = { GOAWAY_RESTART, 100, 200, { NULL, 0 } };

    (void)state;
    create(1);
    (void)scripted_hear(scripted, 0);
    create(1);
    assert_int_equal(
        scripted_say(scripted, 0, frame, message_encode_goaway(frame, sizeof frame, &goaway)),
        CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 0);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 1);
    assert_int_equal(scripted_heard(scripted, 0).type, FRAME_TYPE_BYE);
    assert_true(scripted_client(scripted, 0)->flags & CLIENT_BYE_PUT);
}

static void ping_is_answered_with_its_opaque(void **state)
{
    uint8_t frame[PING_FRAME_BYTES];
    struct message_ping ping = { 77 };
    struct frame_view view;

    (void)state;
    assert_int_equal(
        scripted_say(scripted, 0, frame, message_encode_ping(frame, sizeof frame, &ping)),
        CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 1);
    view = scripted_heard(scripted, 0);
    assert_int_equal(view.type, FRAME_TYPE_PONG);
    assert_int_equal(message_decode_ping(&view, &ping), CODE_OK);
    assert_int_equal(ping.opaque, 77);
}

static void silence_is_broken_by_ping_then_given_up(void **state)
{
    struct client *client = scripted_client(scripted, 0);

    (void)state;
    assert_true(client_timer_ns(&scripted->crowd, client) ==
                scripted->crowd.now_ns + 90 * CLOCK_NS_PER_S); /* a tenth before keepalive_s */
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
    assert_int_equal(scripted_hear(scripted, 0), 1);
    assert_int_equal(scripted_heard(scripted, 0).type, FRAME_TYPE_PING);
    assert_true(client_timer_ns(&scripted->crowd, client) ==
                scripted->crowd.now_ns + 15 * CLOCK_NS_PER_S);
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_ENDS);
    assert_int_equal(scripted->crowd.counts.timed_out, 1);
}

static void any_frame_is_a_sign_of_life(void **state)
{
    struct client *client = scripted_client(scripted, 0);
    const struct entry sent = scripted_sent(1);

    (void)state;
    create(1);
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_GOES_ON);
    assert_int_equal(client_on_timer(&scripted->crowd, client), CLIENT_GOES_ON);
}

static void frame_before_hello_ok_ends_it(void **state)
{
    const struct entry sent = scripted_sent(1);

    (void)state;
    scripted_client(scripted, 0)->state = CLIENT_GREETING;
    scripted->crowd.counts.live--;
    scripted->crowd.counts.current--;
    assert_int_equal(scripted_entry(scripted, 0, 1, &sent), CLIENT_ENDS);
    expect_faults(LEDGER_PROTOCOL, 1);
}

static void unknown_frame_is_passed_over(void **state)
{
    static const uint8_t frame[] = { 0, 0, 2, 23, 1, 2 };

    (void)state;
    assert_int_equal(scripted_say(scripted, 0, frame, sizeof frame), CLIENT_GOES_ON);
    expect_faults(LEDGER_PROTOCOL, 0);
}

static void loss_is_counted_once(void **state)
{
    (void)state;
    assert_int_equal(scripted->crowd.counts.live, 2);
    assert_int_equal(scripted->crowd.counts.current, 2);
    scripted_cut(scripted, 0);
    scripted_cut(scripted, 0);
    assert_int_equal(scripted->crowd.counts.live, 1);
    assert_int_equal(scripted->crowd.counts.current, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(hello_names_cursor_user_and_device),
        TEST(message_has_the_next_counter_and_its_own_nonce),
        TEST(each_send_has_a_record_of_its_own_in_one_system_call),
        TEST(more_than_a_cell_holds_goes_in_several_sends),
        TEST(acknowledgement_goes_with_the_first_send),
        TEST(largest_body_fits),
        TEST(gathered_sends_share_a_record),
        TEST(counters_go_on_from_an_earlier_run),
        TEST(latency_counts_from_the_intended_time),
        TEST(window_is_kept_full),
        TEST(never_more_than_the_server_allows_are_unanswered),
        TEST(refused_pipeline_is_sent_again_in_order),
        TEST(longest_wait_of_several_refusals_holds),
        TEST(refusal_with_a_wrong_expected_counter_is_a_fault),
        TEST(permanent_refusal_is_a_fault_and_an_answer),
        TEST(answer_to_nothing_is_a_fault),
        TEST(unanswered_go_again_with_the_same_counters_and_nonces),
        TEST(server_that_forgot_an_answered_message_is_found_out),
        TEST(other_epoch_is_a_fault),
        TEST(resume_token_is_kept_until_it_is_refused),
        TEST(conflict_is_a_fault_and_busy_is_none),
        TEST(back_off_doubles_and_hello_ok_ends_it),
        TEST(servers_retry_time_is_waited_for),
        TEST(goaway_is_answered_by_bye_when_all_is_answered),
        TEST(ping_is_answered_with_its_opaque),
        TEST(silence_is_broken_by_ping_then_given_up),
        TEST(any_frame_is_a_sign_of_life),
        TEST(frame_before_hello_ok_ends_it),
        TEST(unknown_frame_is_passed_over),
        TEST(loss_is_counted_once),
    };

    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}

/* The machine's SENDs and their answers, by a server's words given by hand. */
#include <string.h>

#include "tests/unit/client/fixture.h"

/* ---- sending */

static void accepted_answers_its_send(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    assert_int_equal(queue(f, 1), 4);
    hear(f);
    ASSERT_SENDS(f, 4);
    give_accepted(f, 4, 99, 6);
    const struct client_event *answer = only(f, CLIENT_EVENT_ACCEPTED);
    assert_int_equal(answer->answer.tag, 1);
    assert_int_equal(answer->answer.id.value, 99);
    assert_int_equal(answer->answer.seq, 6);
    assert_int_equal(client_unanswered(&f->client), 0);
    struct entry entry = entry_sent(4, 99);
    give_entry(f, 6, &entry);
    assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.tag, 0);
    fixture_close(f);
}

static void entry_before_accepted_is_the_answer(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    (void)queue(f, 2);
    hear(f);
    struct entry entry = entry_sent(4, 99);
    give_entry(f, 6, &entry);
    assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.tag, 1);
    entry = entry_own(nonce_of(2), 5); /* whole, as a server may send it here too */
    give_entry(f, 7, &entry);
    assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.tag, 2);
    give_accepted(f, 4, 99, 6);
    give_accepted(f, 5, 88, 7);
    assert_int_equal(f->event_count, 0);
    assert_int_equal(client_state(&f->client), CLIENT_LIVE);
    fixture_close(f);
}

static void no_more_than_the_server_allows_are_outstanding(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    struct message_hello_ok ok = fixture_hello_ok(f, 5, 3);
    ok.sends_outstanding_max = 2;
    give_hello_ok(f, &ok);
    for (uint64_t tag = 1; tag <= 4; tag++) {
        (void)queue(f, tag);
    }
    hear(f);
    ASSERT_SENDS(f, 4, 5);
    give_accepted(f, 5, 100, 7);
    hear(f);
    ASSERT_SENDS(f, 6);
    fixture_close(f);
}

static void answers_that_overtake_never_outrun_the_servers_memory(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    for (uint64_t tag = 1; tag <= 40; tag++) {
        (void)queue(f, tag);
    }
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 32);
    for (uint64_t counter = 5; counter <= 35; counter++) {
        give_accepted(f, counter, counter, counter); /* all but the oldest */
    }
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
    give_accepted(f, 4, 4, 36);
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 8);
    fixture_close(f);
}

static void permanent_refusal_is_reported_and_the_rest_goes_on(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    (void)queue(f, 2);
    hear(f);
    give_rejected(f, 4, CODE_BAD_CONVERSATION, 0, 5);
    const struct client_event *answer = only(f, CLIENT_EVENT_REJECTED);
    assert_int_equal(answer->answer.tag, 1);
    assert_int_equal(answer->answer.code, CODE_BAD_CONVERSATION);
    give_accepted(f, 5, 99, 6);
    assert_int_equal(only(f, CLIENT_EVENT_ACCEPTED)->answer.tag, 2);
    assert_int_equal(queue(f, 3), 6);
    fixture_close(f);
}

static void temporary_refusal_waits_for_all_answers_then_numbers_anew(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    for (uint64_t tag = 1; tag <= 3; tag++) {
        (void)queue(f, tag);
    }
    hear(f);
    ASSERT_SENDS(f, 4, 5, 6);
    give_rejected(f, 4, CODE_BAD_KIND, 0, 5);
    give_rejected(f, 5, CODE_RETRY, 2000, 5);
    assert_int_equal(only(f, CLIENT_EVENT_DELAYED)->answer.tag, 2);
    (void)queue(f, 4);
    pass(f, 60000);
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0); /* one is unanswered yet */
    give_rejected(f, 6, CODE_ORDER, 0, 5);
    pass(f, 0);
    hear(f);
    ASSERT_SENDS(f, 5, 6, 7);
    assert_int_equal(f->said[0].send.nonce.bytes[15], 2);
    assert_int_equal(f->said[1].send.nonce.bytes[15], 3);
    assert_int_equal(f->said[2].send.nonce.bytes[15], 4);
    fixture_close(f);
}

static void retry_time_is_kept_and_grows_while_refusals_go_on(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    uint64_t longest = 0;

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    hear(f);
    for (int i = 0; i < 12; i++) {
        give_rejected(f, 4, CODE_FULL, 500, 4);
        hear(f);
        assert_int_equal(f->said_count, 0);
        const uint64_t wait = client_deadline_ms(&f->client) - f->now_ms;
        assert_true(wait >= 500);
        assert_true(wait <= 500 + 30000);
        longest = longest < wait ? wait : longest;
        pass(f, wait - 1);
        hear(f);
        assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
        pass(f, 1);
        hear(f);
        ASSERT_SENDS(f, 4);
        give_frame(f, (const uint8_t[]){ 0, 0, 8, FRAME_TYPE_PONG, 0, 0, 0, 0, 0, 0, 0, 0 }, 12);
    }
    assert_true(longest > 5000);
    fixture_close(f);
}

static void order_is_answered_at_once_from_expected(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    assert_int_equal(queue(f, 1), 4);
    hear(f);
    give_rejected(f, 4, CODE_ORDER, 0, 2); /* the server went back */
    assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 2);
    hear(f);
    ASSERT_SENDS(f, 2);
    assert_int_equal(queue(f, 2), 3);
    fixture_close(f);
}

static void refused_message_can_be_withdrawn_a_written_one_not(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    (void)queue(f, 2);
    hear(f);
    assert_false(client_withdraw(&f->client, 1));
    give_rejected(f, 4, CODE_FULL, 1000, 4);
    assert_false(client_withdraw(&f->client, 2));
    assert_true(client_withdraw(&f->client, 1));
    assert_false(client_withdraw(&f->client, 1));
    give_rejected(f, 5, CODE_ORDER, 0, 4);
    pass(f, 31000);
    assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 4);
    hear(f);
    ASSERT_SENDS(f, 4);
    assert_int_equal(f->said[f->said_count - 1].send.nonce.bytes[15], 2);
    (void)queue(f, 3);
    assert_true(client_withdraw(&f->client, 3)); /* never written */
    fixture_close(f);
}

static void unanswered_are_sent_again_after_a_reconnect_with_counter_and_nonce(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    for (uint64_t tag = 1; tag <= 3; tag++) {
        (void)queue(f, tag);
    }
    hear(f);
    give_accepted(f, 5, 99, 6); /* the second alone */
    cut(f);
    fixture_connect(f);
    ASSERT_SENDS(f, 4, 6);
    assert_int_equal(f->said[1].send.nonce.bytes[15], 1);
    assert_int_equal(f->said[2].send.nonce.bytes[15], 3);
    fixture_close(f);
}

static void answer_to_what_was_never_sent_ends_the_connection(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    give_accepted(f, 4, 99, 6);
    assert_true(client_wants_close(&f->client));
    cut(f);
    assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.why, CLIENT_WHY_VIOLATION);
    fixture_close(f);
}

static void body_beyond_the_servers_limit_is_refused_here(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    struct client_send send = { .tag = 1, .conversation = { PEER }, .body_bytes = 11 };

    fixture_connect(f);
    struct message_hello_ok ok = fixture_hello_ok(f, 5, 3);
    ok.body_bytes_max = 10;
    give_hello_ok(f, &ok);
    assert_int_equal(client_send(&f->client, &send), CLIENT_SEND_BODY_TOO_LARGE);
    fixture_close(f);
}

static void full_ring_refuses_until_it_grows(void **state)
{
    (void)state;
    struct fixture_options options = fixture_known;
    options.sends_capacity = 2;
    struct fixture *f = fixture_open(options);
    struct client_send more[4];
    struct client_send send = { .tag = 3, .conversation = { PEER } };

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    hear(f);
    give_accepted(f, 4, 9, 6);
    (void)queue(f, 1); /* the ring has turned */
    (void)queue(f, 2);
    assert_int_equal(client_send(&f->client, &send), CLIENT_SEND_FULL);
    client_grow(&f->client, more, 4);
    assert_int_equal(client_send(&f->client, &send), CLIENT_SEND_OK);
    hear(f);
    ASSERT_SENDS(f, 5, 6, 7);
    fixture_close(f);
}

/* ---- counters that can't be trusted */

static void restore(struct fixture *f, uint64_t tag, uint64_t counter)
{
    const struct client_send send = {
        .tag = tag, .counter = counter, .nonce = nonce_of(tag), .conversation = { PEER }
    };

    assert_true(client_restore(&f->client, &send));
}

static void conflict_catches_up_first_then_numbers_anew(void **state)
{
    (void)state;
    static const enum code codes[] = { CODE_CONFLICT, CODE_STALE };

    for (size_t i = 0; i < 2; i++) {
        struct fixture *f = fixture_open(fixture_known);

        restore(f, 1, 4);
        restore(f, 2, 5);
        fixture_connect(f);
        ASSERT_SENDS(f, 4, 5);
        struct message_hello_ok ok = fixture_hello_ok(f, 7, 5);
        give_hello_ok(f, &ok);
        give_error(f, codes[i], 0, 0);
        cut(f);
        fixture_connect(f);
        assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
        give_hello_ok(f, &ok);
        hear(f);
        assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
        struct entry entry = entry_own(nonce_of(1), 4);
        give_entry(f, 6, &entry);
        assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.tag, 1);
        hear(f);
        assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
        entry = entry_from_peer("x");
        give_entry(f, 7, &entry);
        assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 6);
        hear(f);
        ASSERT_SENDS(f, 6);
        fixture_close(f);
    }
}

static void counters_of_another_life_are_noticed_before_they_conflict(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    (void)queue(f, 1);
    struct message_hello_ok ok = fixture_hello_ok(f, 6, 12); /* we knew of 3, and queued 4 */
    give_hello_ok(f, &ok);
    assert_true(only(f, CLIENT_EVENT_ONLINE)->online.recounting);
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
    struct entry entry = entry_from_peer("x");
    give_entry(f, 6, &entry);
    hear(f);
    ASSERT_SENDS(f, 13);
    fixture_close(f);
}

static void new_epoch_discards_numbers_and_recounts(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    (void)queue(f, 1);
    fixture_connect(f);
    ASSERT_SENDS(f, 4);
    (void)queue(f, 2);
    struct message_hello_ok ok = fixture_hello_ok(f, 2, 1);
    ok.epoch = EPOCH + 1;
    ok.result = HELLO_RESULT_RESET;
    give_hello_ok(f, &ok);
    const struct client_event *online = only(f, CLIENT_EVENT_ONLINE);
    assert_int_equal(online->online.reset, CLIENT_RESET_ANEW);
    assert_true(online->online.recounting);
    assert_false(online->online.cut);
    assert_int_equal(online->online.cursor.epoch, EPOCH + 1);
    assert_int_equal(online->online.cursor.seq, 0);
    struct entry entry = entry_from_peer("x");
    give_entry(f, 1, &entry);
    give_entry(f, 2, &entry);
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0); /* 4, already written, is unanswered */
    give_rejected(f, 4, CODE_ORDER, 0, 2);
    assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 2);
    hear(f);
    ASSERT_SENDS(f, 2, 3);
    fixture_close(f);
}

static void head_that_went_back_in_the_same_epoch_recounts(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    restore(f, 1, 4);
    fixture_connect(f);
    struct message_hello_ok ok = fixture_hello_ok(f, 3, 2);
    ok.result = HELLO_RESULT_RESET;
    give_hello_ok(f, &ok);
    assert_int_equal(only(f, CLIENT_EVENT_ONLINE)->online.reset, CLIENT_RESET_ANEW);
    assert_true(only(f, CLIENT_EVENT_ONLINE)->online.recounting);
    fixture_close(f);
}

static void catch_up_that_was_cut_leaves_old_sends_with_an_unknown_fate(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    restore(f, 1, 4);
    fixture_connect(f);
    (void)queue(f, 2); /* never left: its fate is known */
    struct message_hello_ok ok = fixture_hello_ok(f, 20, 9);
    ok.epoch = EPOCH + 1;
    ok.result = HELLO_RESULT_RESET;
    ok.floor = 20;
    give_hello_ok(f, &ok);
    assert_true(only(f, CLIENT_EVENT_ONLINE)->online.cut);
    give_rejected(f, 4, CODE_ORDER, 0, 10);
    struct entry entry = entry_from_peer("x");
    give_entry(f, 20, &entry);
    assert_int_equal(only(f, CLIENT_EVENT_UNKNOWN_FATE)->answer.tag, 1);
    assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 10);
    hear(f);
    ASSERT_SENDS(f, 10);
    assert_int_equal(f->said[f->said_count - 1].send.nonce.bytes[15], 2);
    assert_int_equal(client_unanswered(&f->client), 1);
    fixture_close(f);
}

static void interrupted_recount_goes_on_in_the_next_life(void **state)
{
    (void)state;
    struct fixture_options options = fixture_known;
    options.recounting = true;
    struct fixture *f = fixture_open(options);

    restore(f, 1, 4);
    fixture_connect(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
    struct message_hello_ok ok = fixture_hello_ok(f, 5, 3);
    give_hello_ok(f, &ok);
    (void)only(f, CLIENT_EVENT_RENUMBERED); /* ends it, though 4 stays 4 */
    hear(f);
    ASSERT_SENDS(f, 4);
    fixture_close(f);
}

static void idle_device_adopts_the_servers_counter(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 8);
    assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 9);
    assert_int_equal(queue(f, 1), 9);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted_answers_its_send),
        cmocka_unit_test(entry_before_accepted_is_the_answer),
        cmocka_unit_test(no_more_than_the_server_allows_are_outstanding),
        cmocka_unit_test(answers_that_overtake_never_outrun_the_servers_memory),
        cmocka_unit_test(permanent_refusal_is_reported_and_the_rest_goes_on),
        cmocka_unit_test(temporary_refusal_waits_for_all_answers_then_numbers_anew),
        cmocka_unit_test(retry_time_is_kept_and_grows_while_refusals_go_on),
        cmocka_unit_test(order_is_answered_at_once_from_expected),
        cmocka_unit_test(refused_message_can_be_withdrawn_a_written_one_not),
        cmocka_unit_test(unanswered_are_sent_again_after_a_reconnect_with_counter_and_nonce),
        cmocka_unit_test(answer_to_what_was_never_sent_ends_the_connection),
        cmocka_unit_test(body_beyond_the_servers_limit_is_refused_here),
        cmocka_unit_test(full_ring_refuses_until_it_grows),
        cmocka_unit_test(conflict_catches_up_first_then_numbers_anew),
        cmocka_unit_test(counters_of_another_life_are_noticed_before_they_conflict),
        cmocka_unit_test(new_epoch_discards_numbers_and_recounts),
        cmocka_unit_test(head_that_went_back_in_the_same_epoch_recounts),
        cmocka_unit_test(catch_up_that_was_cut_leaves_old_sends_with_an_unknown_fate),
        cmocka_unit_test(interrupted_recount_goes_on_in_the_next_life),
        cmocka_unit_test(idle_device_adopts_the_servers_counter),
    };

    return cmocka_run_group_tests_name("client_sending", tests, NULL, NULL);
}

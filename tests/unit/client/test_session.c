/* The machine's connections: logging in, staying, leaving, returning, by a server's words given by
 * hand. */
#include "tests/unit/client/fixture.h"

static const struct fixture_options new_device;

/* ---- logging in */

static void hello_carries_cursor_and_prefers_the_resume_token(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    const struct message_hello *hello = &said_only(f, FRAME_TYPE_HELLO)->hello;
    assert_int_equal(hello->user.value, USER);
    assert_int_equal(hello->device.value, DEVICE);
    assert_int_equal(hello->cursor.epoch, EPOCH);
    assert_int_equal(hello->cursor.seq, 5);
    assert_memory_equal(hello->token.bytes, "resume", 6);
    fixture_close(f);
}

static void hello_ok_brings_the_new_resume_token(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    assert_memory_equal(only(f, CLIENT_EVENT_RESUME_TOKEN)->token.bytes, "fresh", 5);
    assert_int_equal(only(f, CLIENT_EVENT_ONLINE)->online.reset, CLIENT_RESET_NONE);
    (void)only(f, CLIENT_EVENT_CAUGHT_UP);
    fixture_close(f);
}

static void sends_follow_hello_without_waiting(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    assert_int_equal(queue(f, 1), 4);
    assert_int_equal(queue(f, 2), 5);
    fixture_connect(f);
    ASSERT_SENDS(f, 4, 5);
    fixture_close(f);
}

static void new_device_learns_its_counter_before_it_sends(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(new_device);

    (void)queue(f, 1);
    fixture_connect(f);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
    struct message_hello_ok ok = fixture_hello_ok(f, 0, 9);
    give_hello_ok(f, &ok);
    assert_int_equal(only(f, CLIENT_EVENT_ONLINE)->online.reset, CLIENT_RESET_FIRST);
    assert_int_equal(only(f, CLIENT_EVENT_RENUMBERED)->counter, 10);
    hear(f);
    ASSERT_SENDS(f, 10);
    fixture_close(f);
}

static void reset_after_trimming_keeps_what_is_there_and_shows_the_gap(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    struct message_hello_ok ok = fixture_hello_ok(f, 20, 3);
    ok.result = HELLO_RESULT_RESET;
    ok.floor = 11;
    give_hello_ok(f, &ok);
    const struct client_event *online = only(f, CLIENT_EVENT_ONLINE);
    assert_int_equal(online->online.reset, CLIENT_RESET_GAP);
    assert_int_equal(online->online.gap_first, 6);
    assert_int_equal(online->online.gap_last, 10);
    assert_int_equal(online->online.cursor.seq, 10);
    assert_false(online->online.recounting);
    struct entry entry = entry_from_peer("eleven");
    give_entry(f, 11, &entry);
    assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.seq, 11);
    fixture_close(f);
}

static void resume_that_does_not_fit_the_cursor_ends_the_connection(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    struct message_hello_ok ok = fixture_hello_ok(f, 4, 3); /* RESUME, but the head is below */
    give_hello_ok(f, &ok);
    assert_true(client_wants_close(&f->client));
    fixture_close(f);
}

static void refused_resume_token_gives_way_to_the_login_token(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    give_error(f, CODE_BAD_TOKEN, 0, 0);
    assert_true(client_wants_close(&f->client));
    cut(f);
    assert_int_equal(only(f, CLIENT_EVENT_RESUME_TOKEN)->token.byte_count, 0);
    assert_false(only(f, CLIENT_EVENT_OFFLINE)->offline.stopped);
    fixture_connect(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_HELLO)->hello.token.bytes, "login", 5);
    give_error(f, CODE_TOKEN_EXPIRED, 0, 0);
    cut(f);
    assert_true(only(f, CLIENT_EVENT_OFFLINE)->offline.needs_token);
    assert_int_equal(client_state(&f->client), CLIENT_STOPPED);
    assert_false(client_start(&f->client, f->now_ms));
    client_set_login_token(&f->client, (struct message_bytes){ (const uint8_t *)"new", 3 });
    fixture_connect(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_HELLO)->hello.token.bytes, "new", 3);
    fixture_close(f);
}

static void life_that_ran_out_keeps_the_resume_token(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    give_error(f, CODE_TOKEN_EXPIRED, 0, 0);
    cut(f);
    assert_int_equal(count_of(f, CLIENT_EVENT_RESUME_TOKEN), 0);
    fixture_connect(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_HELLO)->hello.token.bytes, "resume", 6);
    fixture_close(f);
}

static void fresh_token_is_asked_for_and_prolongs_the_login(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    struct message_hello_ok ok = fixture_hello_ok(f, 5, 3);
    ok.life_s = 100;
    ok.keepalive_s = 0;
    give_hello_ok(f, &ok);
    const uint64_t due = client_deadline_ms(&f->client);
    assert_in_range(due - f->now_ms, 50000, 75000);
    pass(f, due - f->now_ms);
    assert_in_range(only(f, CLIENT_EVENT_TOKEN_WANTED)->left_ms, 25000, 50000);
    pass(f, 1000);
    assert_int_equal(count_of(f, CLIENT_EVENT_TOKEN_WANTED), 0); /* once is enough */
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_TOKEN), 0);
    client_set_login_token(&f->client, (struct message_bytes){ (const uint8_t *)"new", 3 });
    hear(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_TOKEN)->token.token.bytes, "new", 3);

    uint8_t frame[64];
    const struct message_token token = { 200, { (const uint8_t *)"next", 4 } };
    give_frame(f, frame, message_encode_token(frame, sizeof frame, &token));
    assert_memory_equal(only(f, CLIENT_EVENT_RESUME_TOKEN)->token.bytes, "next", 4);
    assert_in_range(client_deadline_ms(&f->client) - f->now_ms, 100000, 150000);
    fixture_close(f);
}

static void fresh_token_that_is_refused_costs_the_connection_alone(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    client_set_login_token(&f->client, (struct message_bytes){ (const uint8_t *)"bad", 3 });
    hear(f);
    (void)said_only(f, FRAME_TYPE_TOKEN);
    give_error(f, CODE_BAD_TOKEN, 0, 0);
    cut(f);
    assert_false(only(f, CLIENT_EVENT_OFFLINE)->offline.stopped);
    fixture_connect(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_HELLO)->hello.token.bytes, "resume", 6);
    fixture_close(f);
}

static void fresh_token_goes_before_a_resume_token_once(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    client_set_login_token(&f->client, (struct message_bytes){ (const uint8_t *)"new", 3 });
    fixture_connect(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_HELLO)->hello.token.bytes, "new", 3);
    cut(f);
    fixture_connect(f);
    assert_memory_equal(said_only(f, FRAME_TYPE_HELLO)->hello.token.bytes, "resume", 6);
    fixture_close(f);
}

/* ---- keepalive */

static void ping_keeps_the_server_patient(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    assert_int_equal(client_deadline_ms(&f->client) - f->now_ms, 225000);
    pass(f, 225000);
    hear(f);
    (void)said_only(f, FRAME_TYPE_PING);
    give_frame(f, (const uint8_t[]){ 0, 0, 8, FRAME_TYPE_PONG, 0, 0, 0, 0, 0, 0, 0, 0 }, 12);
    pass(f, 20000);
    assert_int_equal(client_state(&f->client), CLIENT_LIVE);
    fixture_close(f);
}

static void silence_after_a_ping_gives_the_connection_up(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    hear(f);
    pass(f, 14999);
    hear(f);
    assert_int_equal(f->said_count, 0);
    pass(f, 1); /* an answer is overdue: is anybody there? */
    hear(f);
    (void)said_only(f, FRAME_TYPE_PING);
    pass(f, 14999);
    assert_false(client_wants_close(&f->client));
    pass(f, 1);
    assert_true(client_wants_close(&f->client));
    cut(f);
    assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.why, CLIENT_WHY_TIMEOUT);
    fixture_close(f);
}

static void several_pings_get_one_pong(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    give_frame(f, (const uint8_t[]){ 0, 0, 8, FRAME_TYPE_PING, 0, 0, 0, 0, 0, 0, 0, 1 }, 12);
    give_frame(f, (const uint8_t[]){ 0, 0, 8, FRAME_TYPE_PING, 0, 0, 0, 0, 0, 0, 0, 2 }, 12);
    hear(f);
    assert_int_equal(said_only(f, FRAME_TYPE_PONG)->ping.opaque, 2);
    fixture_close(f);
}

static void greeting_without_answer_is_given_up(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_connect(f);
    pass(f, client_deadline_ms(&f->client) - f->now_ms);
    assert_true(client_wants_close(&f->client));
    fixture_close(f);
}

/* ---- leaving and returning */

static void goaway_waits_for_answers_says_bye_and_returns_in_time(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    uint8_t frame[64];
    const struct message_goaway goaway = { GOAWAY_RESTART, 40000, 50000, { NULL, 0 } };

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    hear(f);
    give_frame(f, frame, message_encode_goaway(frame, sizeof frame, &goaway));
    (void)only(f, CLIENT_EVENT_GOAWAY);
    (void)queue(f, 2);
    hear(f);
    assert_int_equal(f->said_count, 0);
    give_accepted(f, 4, 9, 6);
    hear(f);
    (void)said_only(f, FRAME_TYPE_BYE);
    assert_int_equal(said_of(f, FRAME_TYPE_SEND), 0);
    assert_true(client_wants_close(&f->client));
    cut(f);
    assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.why, CLIENT_WHY_GOAWAY);
    assert_in_range(client_connect_at_ms(&f->client) - f->now_ms, 40000, 50000);
    fixture_connect(f);
    ASSERT_SENDS(f, 5);
    fixture_close(f);
}

static void goaway_does_not_wait_for_ever(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    uint8_t frame[64];
    const struct message_goaway goaway = { GOAWAY_SHUTDOWN, 0, 0, { NULL, 0 } };

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    hear(f);
    give_frame(f, frame, message_encode_goaway(frame, sizeof frame, &goaway));
    pass(f, client_deadline_ms(&f->client) - f->now_ms);
    hear(f);
    (void)said_only(f, FRAME_TYPE_BYE);
    fixture_close(f);
}

static void back_off_doubles_is_random_and_starts_anew_after_success(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    uint64_t waits[12];

    fixture_go_live(f, 5, 3);
    cut(f);
    assert_in_range(client_connect_at_ms(&f->client) - f->now_ms, 0, 1000);
    for (unsigned n = 2; n < 12; n++) {
        f->now_ms = client_connect_at_ms(&f->client);
        cut(f); /* the attempt fails */
        waits[n] = client_connect_at_ms(&f->client) - f->now_ms;
        assert_true(waits[n] <= (n - 1 < 6 ? UINT64_C(1000) << (n - 1) : 60000));
    }
    assert_true(waits[8] != waits[9] && waits[9] != waits[10]);
    fixture_go_live(f, 5, 3);
    cut(f);
    assert_in_range(client_connect_at_ms(&f->client) - f->now_ms, 0, 1000);
    fixture_close(f);
}

static void replaced_never_returns_by_itself(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    give_error(f, CODE_REPLACED, 0, 0);
    cut(f);
    assert_true(only(f, CLIENT_EVENT_OFFLINE)->offline.stopped);
    assert_int_equal(client_deadline_ms(&f->client), UINT64_MAX);
    fixture_connect(f); /* when the user asks */
    fixture_close(f);
}

static void each_fatal_code_leads_where_the_protocol_says(void **state)
{
    (void)state;
    static const struct {
        enum code code;
        bool stops;
    } cases[] = { { CODE_BAD_FRAME, false },       { CODE_VERSION, true },
                  { CODE_TOO_MANY_DEVICES, true }, { CODE_REPLACED, true },
                  { CODE_TRIMMED, false },         { CODE_IDLE, false },
                  { CODE_STALLED, false },         { CODE_BUSY, false },
                  { CODE_INTERNAL, false },        { CODE_GOING_AWAY, false } };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture *f = fixture_open(fixture_known);

        fixture_go_live(f, 5, 3);
        give_error(f, cases[i].code, 0, 70000);
        assert_int_equal(only(f, CLIENT_EVENT_ERROR)->error.code, cases[i].code);
        cut(f);
        assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.code, cases[i].code);
        assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.stopped, cases[i].stops);
        if (!cases[i].stops) {
            assert_in_range(client_connect_at_ms(&f->client) - f->now_ms, 70000, 140000);
        }
        fixture_close(f);
    }
}

static void leaving_says_bye_after_the_answers_and_stops(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    (void)queue(f, 1);
    hear(f);
    client_leave(&f->client, false, f->now_ms);
    hear(f);
    assert_int_equal(f->said_count, 0);
    give_accepted(f, 4, 9, 6);
    hear(f);
    (void)said_only(f, FRAME_TYPE_BYE);
    cut(f);
    assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.why, CLIENT_WHY_LEFT);
    assert_int_equal(client_state(&f->client), CLIENT_STOPPED);
    fixture_close(f);
}

/* ---- what a server may not do */

static void frames_out_of_place_end_the_connection(void **state)
{
    (void)state;
    static const struct {
        bool live;
        uint8_t frame[32];
        size_t frame_bytes;
    } cases[] = {
        { false, { 0, 0, 8, FRAME_TYPE_PONG }, 12 },               /* before HELLO_OK */
        { true, { 0, 0, 0, FRAME_TYPE_BYE }, 4 },                  /* a client's */
        { true, { 0, 0, 1, FRAME_TYPE_ACCEPTED }, 5 },             /* cut */
        { true, { 0, 0, 11, FRAME_TYPE_PING, [12] = 2 }, 15 },     /* a critical TLV */
        { true, { 0, 0, 22, FRAME_TYPE_REJECTED, [11] = 4 }, 26 }, /* expects 0, code 0 */
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture *f = fixture_open(fixture_known);

        if (cases[i].live) {
            fixture_go_live(f, 5, 3);
        } else {
            fixture_connect(f);
        }
        give_frame(f, cases[i].frame, cases[i].frame_bytes);
        assert_true(client_wants_close(&f->client));
        cut(f);
        assert_int_equal(only(f, CLIENT_EVENT_OFFLINE)->offline.why, CLIENT_WHY_VIOLATION);
        assert_true(client_connect_at_ms(&f->client) - f->now_ms <= 60000);
        fixture_close(f);
    }
}

static void unknown_frames_are_ignored(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);

    fixture_go_live(f, 5, 3);
    give_frame(f, (const uint8_t[]){ 0, 0, 1, 20, 0 }, 5);
    give_frame(f, (const uint8_t[]){ 0, 0, 1, 200, 0 }, 5);
    assert_int_equal(f->event_count, 0);
    assert_int_equal(client_state(&f->client), CLIENT_LIVE);
    fixture_close(f);
}

static void same_inputs_give_the_same_outputs(void **state)
{
    (void)state;
    struct fixture *one = fixture_open(fixture_known);
    struct fixture *two = fixture_open(fixture_known);

    for (int i = 0; i < 20; i++) {
        fixture_connect(one);
        fixture_connect(two);
        assert_int_equal(one->now_ms, two->now_ms);
        cut(one);
        cut(two);
    }
    fixture_close(one);
    fixture_close(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_carries_cursor_and_prefers_the_resume_token),
        cmocka_unit_test(hello_ok_brings_the_new_resume_token),
        cmocka_unit_test(sends_follow_hello_without_waiting),
        cmocka_unit_test(new_device_learns_its_counter_before_it_sends),
        cmocka_unit_test(reset_after_trimming_keeps_what_is_there_and_shows_the_gap),
        cmocka_unit_test(resume_that_does_not_fit_the_cursor_ends_the_connection),
        cmocka_unit_test(refused_resume_token_gives_way_to_the_login_token),
        cmocka_unit_test(life_that_ran_out_keeps_the_resume_token),
        cmocka_unit_test(fresh_token_is_asked_for_and_prolongs_the_login),
        cmocka_unit_test(fresh_token_that_is_refused_costs_the_connection_alone),
        cmocka_unit_test(fresh_token_goes_before_a_resume_token_once),
        cmocka_unit_test(ping_keeps_the_server_patient),
        cmocka_unit_test(silence_after_a_ping_gives_the_connection_up),
        cmocka_unit_test(several_pings_get_one_pong),
        cmocka_unit_test(greeting_without_answer_is_given_up),
        cmocka_unit_test(goaway_waits_for_answers_says_bye_and_returns_in_time),
        cmocka_unit_test(goaway_does_not_wait_for_ever),
        cmocka_unit_test(back_off_doubles_is_random_and_starts_anew_after_success),
        cmocka_unit_test(replaced_never_returns_by_itself),
        cmocka_unit_test(each_fatal_code_leads_where_the_protocol_says),
        cmocka_unit_test(leaving_says_bye_after_the_answers_and_stops),
        cmocka_unit_test(frames_out_of_place_end_the_connection),
        cmocka_unit_test(unknown_frames_are_ignored),
        cmocka_unit_test(same_inputs_give_the_same_outputs),
    };

    return cmocka_run_group_tests_name("client_session", tests, NULL, NULL);
}

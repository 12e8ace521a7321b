/* What the machine receives and acknowledges, and the history that it asks for. */
#include <string.h>

#include "tests/unit/client/fixture.h"

/* ---- receiving */

static void entries_out_of_sequence_end_the_connection(void **state)
{
    (void)state;
    static const uint64_t seqs[] = { 5, 7 }; /* a repeat, a gap */

    for (size_t i = 0; i < 2; i++) {
        struct fixture *f = fixture_open(fixture_known);
        struct entry entry = entry_from_peer("x");

        fixture_go_live(f, 9, 3);
        give_entry(f, seqs[i], &entry);
        assert_int_equal(f->event_count, 0);
        assert_true(client_wants_close(&f->client));
        cut(f);
        fixture_connect(f);
        assert_int_equal(said_only(f, FRAME_TYPE_HELLO)->hello.cursor.seq, 5);
        fixture_close(f);
    }
}

static void ack_follows_the_disk_not_the_wire(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    struct entry entry = entry_from_peer("x");

    f->store_by_hand = true;
    fixture_go_live(f, 9, 3);
    give_entry(f, 6, &entry);
    give_entry(f, 7, &entry);
    hear(f);
    assert_int_equal(said_of(f, FRAME_TYPE_ACK), 0);
    client_stored(&f->client, 6);
    client_stored(&f->client, 7);
    hear(f);
    assert_int_equal(said_only(f, FRAME_TYPE_ACK)->ack.seq, 7); /* one for both */
    hear(f);
    assert_int_equal(f->said_count, 0);
    give_entry(f, 8, &entry);
    cut(f);
    fixture_connect(f);
    assert_int_equal(said_only(f, FRAME_TYPE_HELLO)->hello.cursor.seq, 7);
    struct message_hello_ok ok = fixture_hello_ok(f, 9, 3);
    give_hello_ok(f, &ok);
    give_entry(f, 8, &entry); /* again, because it was never stored */
    assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.seq, 8);
    fixture_close(f);
}

static void ack_waits_for_more_input_up_to_half_the_window(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    static char body[9001];
    static uint8_t out[FRAME_BYTES_MAX];

    memset(body, 'x', sizeof body - 1);
    struct entry entry = entry_from_peer(body);
    fixture_go_live(f, 99, 3);
    for (uint64_t seq = 6; seq <= 8; seq++) {
        give_entry(f, seq, &entry);
        assert_int_equal(client_output(&f->client, out, sizeof out, f->now_ms, true), 0);
    }
    give_entry(f, 9, &entry); /* beyond 32,768 */
    assert_int_equal(client_output(&f->client, out, sizeof out, f->now_ms, true), ACK_FRAME_BYTES);
    fixture_close(f);
}

static void refused_entry_is_passed_on(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    struct entry entry = {
        .form = ENTRY_REFUSED,
        .refused = { .code = CODE_UNKNOWN, .ref_seq = 5, .id = { 9 }, .conversation = { PEER } },
    };

    fixture_go_live(f, 5, 3);
    give_entry(f, 6, &entry);
    assert_int_equal(only(f, CLIENT_EVENT_ENTRY)->entry.entry.refused.ref_seq, 5);
    fixture_close(f);
}

/* ---- history */

static void page_answers_its_request(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    static uint8_t frame[FRAME_BYTES_MAX];
    struct page_builder builder;

    assert_int_equal(
        client_history(&f->client, (struct conversation_id){ PEER }, HISTORY_BEFORE, 0, 9, 0), 0);
    fixture_go_live(f, 5, 3);
    const uint32_t request =
        client_history(&f->client, (struct conversation_id){ PEER }, HISTORY_BEFORE, 5, 9, 0);
    assert_int_not_equal(request, 0);
    hear(f);
    const struct message_history *history = &said_only(f, FRAME_TYPE_HISTORY)->history;
    assert_int_equal(history->request, request);
    assert_int_equal(history->anchor, 5);

    page_begin(&builder, frame, sizeof frame, request, (struct conversation_id){ PEER },
               HISTORY_BEFORE);
    struct entry entry = entry_from_peer("old");
    assert_true(page_add(&builder, 3, &entry.message));
    give_frame(f, frame, page_end(&builder, PAGE_FLAG_MORE));
    struct message_page page = only(f, CLIENT_EVENT_PAGE)->page;
    uint64_t seq;
    struct entry_message message;
    assert_true(page_next(&page, &seq, &message));
    assert_int_equal(seq, 3);
    assert_false(page_next(&page, &seq, &message));

    give_frame(f, frame, frame[2] + 4U); /* the same again answers nothing */
    assert_true(client_wants_close(&f->client));
    fixture_close(f);
}

static void requests_are_bounded_and_fail_by_error_or_with_the_connection(void **state)
{
    (void)state;
    struct fixture *f = fixture_open(fixture_known);
    uint32_t requests[REQUESTS_OUTSTANDING_MAX];

    fixture_go_live(f, 5, 3);
    for (size_t i = 0; i < REQUESTS_OUTSTANDING_MAX; i++) {
        requests[i] =
            client_history(&f->client, (struct conversation_id){ PEER }, HISTORY_AFTER, 0, 9, 0);
        assert_int_not_equal(requests[i], 0);
    }
    assert_int_equal(
        client_history(&f->client, (struct conversation_id){ PEER }, HISTORY_AFTER, 0, 9, 0), 0);
    hear(f);
    give_error(f, CODE_BAD_CURSOR, requests[2], 0);
    assert_int_equal(only(f, CLIENT_EVENT_REQUEST_FAILED)->failed.request, requests[2]);
    assert_int_equal(only(f, CLIENT_EVENT_REQUEST_FAILED)->failed.code, CODE_BAD_CURSOR);
    assert_int_equal(client_state(&f->client), CLIENT_LIVE);
    cut(f);
    assert_int_equal(count_of(f, CLIENT_EVENT_REQUEST_FAILED), 3);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_out_of_sequence_end_the_connection),
        cmocka_unit_test(ack_follows_the_disk_not_the_wire),
        cmocka_unit_test(ack_waits_for_more_input_up_to_half_the_window),
        cmocka_unit_test(refused_entry_is_passed_on),
        cmocka_unit_test(page_answers_its_request),
        cmocka_unit_test(requests_are_bounded_and_fail_by_error_or_with_the_connection),
    };

    return cmocka_run_group_tests_name("client_receiving", tests, NULL, NULL);
}

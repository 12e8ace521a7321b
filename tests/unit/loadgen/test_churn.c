/* Clients that come and go: the page that they ask for when they are back, and what isn't timed. */
#include "tests/unit/loadgen/scripted.h"

#include <string.h>

static struct scripted *scripted;
static uint8_t body[BODY_BYTES_MAX];

static int set_up(void **state)
{
    (void)state;
    scripted = scripted_pair();
    scripted->crowd.churned = true;
    scripted->crowd.page_n = 20;
    scripted_login_all(scripted);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scripted_close(scripted);
    return 0;
}

static struct client *reader(void)
{
    return scripted_client(scripted, 1);
}

static void create(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_true(client_create(&scripted->crowd, scripted_client(scripted, 0), 1));
    }
}

static void receive(uint64_t seq, uint32_t number, uint64_t n)
{
    const struct entry entry = scripted_message(scripted, 1, 0, number, n, body);

    assert_int_equal(scripted_entry(scripted, 1, seq, &entry), CLIENT_GOES_ON);
}

/* Client 1 has left and is back. */
static void come_back(uint64_t head)
{
    struct message_hello_ok ok = scripted_hello_ok();

    reader()->flags |= CLIENT_CHURNED;
    scripted_cut(scripted, 1);
    ok.head = head;
    ok.result = HELLO_RESULT_RESUME;
    assert_int_equal(scripted_login(scripted, 1, &ok), CLIENT_GOES_ON);
}

static void expect_question(void)
{
    struct message_history history;
    const uint32_t count = scripted_hear(scripted, 1);

    for (uint32_t i = 0; i < count; i++) {
        const struct frame_view view = scripted_heard(scripted, i);

        if (view.type == FRAME_TYPE_HISTORY) {
            assert_int_equal(message_decode_history(&view, &history), CODE_OK);
            assert_int_equal(history.conversation.value, SCRIPTED_USER);
            assert_int_equal(history.direction, HISTORY_BEFORE);
            assert_int_equal(history.anchor, 0);
            assert_int_equal(history.n, 20);
            return;
        }
    }
    fail_msg("no HISTORY");
}

/* A PAGE of the messages with these numbers, which are their n and seq as well. */
static enum client_verdict say_page(uint32_t request, uint32_t first, uint32_t count,
                                    uint32_t skipped, uint8_t flags)
{
    struct page_builder builder;
    static uint8_t frame[FRAME_BYTES_MAX];
    uint64_t before = first - 1;

    page_begin(&builder, frame, sizeof frame, request, (struct conversation_id){ SCRIPTED_USER },
               HISTORY_AFTER);
    for (uint32_t number = first; number < first + count; number++) {
        if (number == skipped) {
            continue;
        }
        struct entry entry = scripted_message(scripted, 1, 0, number, number, body);

        entry.message.prev = before;
        before = number;
        assert_true(page_add(&builder, number, &entry.message));
    }
    return scripted_say(scripted, 1, frame, page_end(&builder, flags));
}

static void expect_only(enum ledger_fault fault, uint64_t count)
{
    assert_int_equal(scripted->crowd.ledger.counts[fault], count);
    assert_int_equal(scripted->crowd.ledger.fault_count, count);
}

static void client_that_is_back_asks_once_it_has_what_it_missed(void **state)
{
    (void)state;
    create(3);
    receive(1, 1, 1);
    come_back(3);
    for (uint32_t i = 0, count = scripted_hear(scripted, 1); i < count; i++) {
        assert_int_not_equal(scripted_heard(scripted, i).type, FRAME_TYPE_HISTORY);
    }
    receive(2, 2, 2);
    receive(3, 3, 3);
    expect_question();
    assert_int_equal(scripted_hear(scripted, 1), 0); /* once */
    assert_int_equal(say_page(1, 1, 3, 0, 0), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.counts.pages, 1);
    assert_int_equal(scripted->crowd.counts.page_entries, 3);
    expect_only(LEDGER_GAP, 0);
}

static void page_with_a_gap_is_a_fault(void **state)
{
    (void)state;
    create(4);
    come_back(0);
    expect_question();
    assert_int_equal(say_page(1, 1, 4, 3, 0), CLIENT_GOES_ON);
    expect_only(LEDGER_GAP, 1);
}

static void page_that_lacks_the_newest_is_a_fault(void **state)
{
    (void)state;
    create(3);
    for (uint32_t i = 1; i <= 3; i++) {
        receive(i, i, i);
    }
    come_back(3);
    expect_question();
    assert_int_equal(say_page(1, 1, 2, 0, 0), CLIENT_GOES_ON);
    expect_only(LEDGER_GAP, 1);
}

static void page_may_be_empty_only_if_all_is_trimmed(void **state)
{
    (void)state;
    create(1);
    receive(1, 1, 1);
    come_back(1);
    expect_question();
    assert_int_equal(say_page(1, 1, 0, 0, PAGE_FLAG_TRIMMED), CLIENT_GOES_ON);
    expect_only(LEDGER_GAP, 0);
    assert_int_equal(say_page(1, 1, 0, 0, 0), CLIENT_GOES_ON);
    expect_only(LEDGER_GAP, 1);
}

static void page_of_what_nobody_wrote_is_a_fault(void **state)
{
    (void)state;
    create(2);
    come_back(0);
    expect_question();
    assert_int_equal(say_page(1, 2, 2, 0, 0), CLIENT_GOES_ON); /* there is no third */
    expect_only(LEDGER_DAMAGED, 1);
}

static void page_of_another_request_ends_the_connection(void **state)
{
    (void)state;
    assert_int_equal(say_page(7, 1, 0, 0, 0), CLIENT_ENDS);
    expect_only(LEDGER_PROTOCOL, 1);
}

static void what_waited_for_its_reader_is_not_timed(void **state)
{
    (void)state;
    create(3);
    receive(1, 1, 1);
    assert_int_equal(scripted->crowd.delivered.count, 1);
    come_back(2);
    receive(2, 2, 2);
    assert_int_equal(scripted->crowd.delivered.count, 1);
    receive(3, 3, 3); /* current again */
    assert_int_equal(scripted->crowd.delivered.count, 2);
}

static void what_waited_for_its_sender_is_not_timed(void **state)
{
    struct message_hello_ok ok = scripted_hello_ok();

    (void)state;
    scripted_cut(scripted, 0);
    create(1);
    ok.result = HELLO_RESULT_RESUME;
    assert_int_equal(scripted_login(scripted, 0, &ok), CLIENT_GOES_ON);
    create(1);
    (void)scripted_hear(scripted, 0);
    assert_int_equal(scripted_accept(scripted, 0, 1, 1), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.accepted.count, 0);
    receive(1, 1, 1);
    assert_int_equal(scripted->crowd.delivered.count, 0);
    assert_int_equal(scripted_accept(scripted, 0, 2, 2), CLIENT_GOES_ON);
    assert_int_equal(scripted->crowd.accepted.count, 1);
    receive(2, 2, 2);
    assert_int_equal(scripted->crowd.delivered.count, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(client_that_is_back_asks_once_it_has_what_it_missed),
        TEST(page_with_a_gap_is_a_fault),
        TEST(page_that_lacks_the_newest_is_a_fault),
        TEST(page_may_be_empty_only_if_all_is_trimmed),
        TEST(page_of_what_nobody_wrote_is_a_fault),
        TEST(page_of_another_request_ends_the_connection),
        TEST(what_waited_for_its_reader_is_not_timed),
        TEST(what_waited_for_its_sender_is_not_timed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/unit/engine/host.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

#define A UINT64_C(5)
#define B UINT64_C(6)
#define C UINT64_C(7)

/* A's log: 2 k - 1 is message k of the conversation with B, 2 k is a note. */
struct log {
    struct world world;
    struct host *host;
    struct host_conn *a;
};

static void open_log(struct log *log, uint64_t messages, size_t body_bytes,
                     void (*change)(struct engine_config *config))
{
    world_open(&log->world, 1, change);
    log->host = &log->world.hosts[0];
    host_connect(log->host, (struct user_id){ B }, 1, nothing);
    log->a = host_connect(log->host, (struct user_id){ A }, 1, nothing);
    for (uint64_t k = 1; k <= messages; k++) {
        client_send_bytes(log->a, 2 * k - 1, 4000 + k, B, body_bytes);
        client_send(log->a, 2 * k, 8000 + k, A, "note");
        world_settle(&log->world);
        client_ack(log->a, 2 * k);
    }
    world_settle(&log->world);
    client_skip(log->a);
}

static void small_ring(struct engine_config *config)
{
    config->recent_bytes = 65536;
}

static void keep_200(struct engine_config *config)
{
    config->retention_count = 200;
    config->recent_bytes = 65536;
}

static struct message_page ask(struct log *log, uint64_t conversation,
                               enum history_direction direction, uint64_t anchor, uint16_t n,
                               uint32_t bytes)
{
    client_history(log->a, 9, conversation, direction, anchor, n, bytes);
    world_settle(&log->world);

    const struct message_page page = client_page(log->a);

    assert_int_equal(page.request, 9);
    assert_int_equal(page.conversation.value, conversation);
    assert_int_equal(log->host->notes[NOTE_ENTRY_MISSING], 0);
    return page;
}

static enum code ask_wrongly(struct log *log, uint64_t conversation,
                             enum history_direction direction, uint64_t anchor)
{
    client_history(log->a, 9, conversation, direction, anchor, 10, 0);
    world_settle(&log->world);

    const struct message_error error = client_error(log->a);

    assert_int_equal(error.request, 9);
    assert_false(error.fatal);
    return (enum code)error.code;
}

/* Messages `first` to `last` of the conversation with B. */
static void expect_page(struct message_page page, uint64_t first, uint64_t last, uint8_t flags)
{
    struct entry_message message;
    uint64_t seq;

    for (uint64_t n = first; n <= last; n++) {
        assert_true(page_next(&page, &seq, &message));
        assert_int_equal(seq, 2 * n - 1);
        assert_int_equal(message.n, n);
    }
    assert_false(page_next(&page, &seq, &message));
    assert_int_equal(page.flags, flags);
}

static void before_goes_back_by_pages(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 25, 10, NULL);
    expect_page(ask(&log, B, HISTORY_BEFORE, 0, 10, 0), 16, 25, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_BEFORE, 31, 10, 0), 6, 15, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_BEFORE, 11, 10, 0), 1, 5, 0);
    expect_page(ask(&log, B, HISTORY_BEFORE, 1, 10, 0), 1, 0, 0);
    assert_int_equal(log.host->load_count, 0);
    world_close(&log.world);
}

static void before_goes_back_through_the_store(void **state)
{
    static struct log log;
    struct engine_stats before, after;
    (void)state;
    open_log(&log, 200, 200, small_ring);
    engine_get_stats(log.host->engine, &before);
    expect_page(ask(&log, B, HISTORY_BEFORE, 0, 10, 0), 191, 200, PAGE_FLAG_MORE);
    engine_get_stats(log.host->engine, &after);
    assert_int_equal(after.loads, before.loads); /* the newest are in memory */
    expect_page(ask(&log, B, HISTORY_BEFORE, 41, 10, 0), 11, 20, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_BEFORE, 21, 10, 0), 1, 10, 0);
    expect_page(ask(&log, B, HISTORY_BEFORE, 19, 10, 0), 1, 9, 0);
    engine_get_stats(log.host->engine, &after);
    assert_int_equal(after.loads, before.loads + 3);
    world_close(&log.world);
}

static void after_goes_forward_by_pages(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 200, 10, small_ring);
    expect_page(ask(&log, B, HISTORY_AFTER, 0, 10, 0), 1, 10, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 19, 10, 0), 11, 20, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 119, 10, 0), 61, 70, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 127, 64, 0), 65, 128, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 125, 65, 0), 64, 128, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 379, 10, 0), 191, 200, 0);
    expect_page(ask(&log, B, HISTORY_AFTER, 397, 10, 0), 200, 200, 0);
    expect_page(ask(&log, B, HISTORY_AFTER, 399, 10, 0), 1, 0, 0);
    world_close(&log.world);
}

static void page_ends_at_its_bytes_but_has_one_message(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 6, 900, NULL);
    expect_page(ask(&log, B, HISTORY_BEFORE, 0, 10, 2200), 5, 6, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_BEFORE, 0, 10, 1), 6, 6, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 0, 10, 2200), 1, 2, PAGE_FLAG_MORE);
    expect_page(ask(&log, B, HISTORY_AFTER, 3, 10, 1), 3, 3, PAGE_FLAG_MORE);
    world_close(&log.world);
}

/* Large messages: the walk down to the oldest wanted takes several loads. */
static void after_walks_down_over_large_messages(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 40, 9000, small_ring);
    for (uint64_t n = 0; n < 40; n++) {
        const struct message_page page = ask(&log, B, HISTORY_AFTER, n == 0 ? 0 : 2 * n - 1, 10, 0);

        expect_page(page, n + 1, n + 1, n + 1 < 40 ? PAGE_FLAG_MORE : 0);
    }
    world_close(&log.world);
}

/* However few bytes were asked for, and however large the anchor is. */
static void large_messages_come_one_by_one(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 12, 15000, small_ring);
    for (uint64_t n = 12; n >= 1; n--) {
        expect_page(ask(&log, B, HISTORY_BEFORE, n == 12 ? 0 : 2 * n + 1, 10, 1), n, n,
                    n > 1 ? PAGE_FLAG_MORE : 0);
        expect_page(ask(&log, B, HISTORY_AFTER, n == 1 ? 0 : 2 * n - 3, 10, 1), n, n,
                    n < 12 ? PAGE_FLAG_MORE : 0);
    }
    world_close(&log.world);
}

static void wrong_anchor_is_a_bad_cursor(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 100, 300, small_ring);
    /* A note, in memory and not; a seq that doesn't exist; another conversation. */
    assert_int_equal(ask_wrongly(&log, B, HISTORY_BEFORE, 198), CODE_BAD_CURSOR);
    assert_int_equal(ask_wrongly(&log, B, HISTORY_BEFORE, 2), CODE_BAD_CURSOR);
    assert_int_equal(ask_wrongly(&log, B, HISTORY_AFTER, 2), CODE_BAD_CURSOR);
    assert_int_equal(ask_wrongly(&log, B, HISTORY_BEFORE, 201), CODE_BAD_CURSOR);
    assert_int_equal(ask_wrongly(&log, B, HISTORY_AFTER, 201), CODE_BAD_CURSOR);
    assert_int_equal(ask_wrongly(&log, C, HISTORY_AFTER, 1), CODE_BAD_CURSOR);
    world_close(&log.world);
}

static void refused_entry_is_no_anchor(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 2, 10, NULL);
    client_send(log.a, 5, 1, C, "nobody there"); /* 5, and REFUSED 6 */
    client_send(log.a, 6, 2, C, "nobody there"); /* 7, and REFUSED 8 */
    world_settle(&log.world);
    client_skip(log.a);
    assert_int_equal(host_last_record(log.host, RECORD_ENTRY, A)->entry.form, LOG_ENTRY_REFUSED);
    const uint64_t refused = host_last_record(log.host, RECORD_ENTRY, A)->entry.seq;
    assert_int_equal(ask_wrongly(&log, C, HISTORY_BEFORE, refused), CODE_BAD_CURSOR);
    const struct message_page page = ask(&log, C, HISTORY_BEFORE, 0, 10, 0);
    assert_int_equal(page.count, 2);
    world_close(&log.world);
}

static void unknown_conversation_gives_an_empty_page(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 2, 10, NULL);
    expect_page(ask(&log, C, HISTORY_BEFORE, 0, 10, 0), 1, 0, 0);
    expect_page(ask(&log, C, HISTORY_AFTER, 0, 10, 0), 1, 0, 0);
    expect_page(ask(&log, ID_GROUP_BIT | 1, HISTORY_AFTER, 0, 10, 0), 1, 0, 0);
    world_close(&log.world);
}

static void page_says_where_the_log_was_trimmed(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 200, 10, keep_200); /* 400 entries */
    const uint64_t floor = host_last_record(log.host, RECORD_FLOOR, A)->floor.floor;
    const uint64_t oldest = (floor + 2) / 2; /* message in the conversation */

    assert_true(floor > 100 && oldest < 150);
    expect_page(ask(&log, B, HISTORY_BEFORE, 2 * oldest + 7, 10, 0), oldest, oldest + 3,
                PAGE_FLAG_TRIMMED);
    expect_page(ask(&log, B, HISTORY_BEFORE, 5, 10, 0), 1, 0, PAGE_FLAG_TRIMMED);
    expect_page(ask(&log, B, HISTORY_AFTER, 5, 10, 0), oldest, oldest + 9,
                PAGE_FLAG_MORE | PAGE_FLAG_TRIMMED);
    expect_page(ask(&log, B, HISTORY_AFTER, 0, 10, 0), oldest, oldest + 9,
                PAGE_FLAG_MORE | PAGE_FLAG_TRIMMED);
    expect_page(ask(&log, B, HISTORY_AFTER, 2 * oldest - 1, 3, 0), oldest + 1, oldest + 3,
                PAGE_FLAG_MORE);
    world_close(&log.world);
}

static void page_waits_until_what_it_shows_is_durable(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 3, 10, NULL);
    client_send(log.a, 7, 1, B, "not yet");
    client_history(log.a, 9, B, HISTORY_BEFORE, 0, 2, 0);
    host_offer(log.host, log.a);
    host_run(log.host);
    assert_int_equal(client_waiting(log.a), 0);
    host_durable(log.host);
    assert_int_equal(client_accepted(log.a).counter, 7);
    struct message_page page = client_page(log.a);
    struct entry_message message;
    uint64_t seq;
    assert_true(page_next(&page, &seq, &message));
    assert_int_equal(message.n, 3);
    assert_true(page_next(&page, &seq, &message));
    assert_int_equal(message.n, 4);
    assert_int_equal(seq, 7);
    world_close(&log.world);
}

static void fifth_request_is_refused(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 100, 300, small_ring);
    for (uint32_t i = 1; i <= 5; i++) {
        client_history(log.a, i, B, HISTORY_BEFORE, 21, 10, 0);
    }
    host_offer(log.host, log.a);
    const struct message_error error = client_error(log.a);
    assert_int_equal(error.code, CODE_TOO_MANY_REQUESTS);
    assert_int_equal(error.request, 5);
    world_settle(&log.world);
    for (uint32_t i = 1; i <= 4; i++) {
        expect_page(client_page(log.a), 1, 10, 0);
    }
    world_close(&log.world);
}

static void pages_wait_for_room(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 100, 1000, small_ring);
    log.host->keep_unsent = true;
    for (uint32_t i = 1; i <= 3; i++) {
        client_history(log.a, i, B, i == 2 ? HISTORY_AFTER : HISTORY_BEFORE, 41, 200, 0);
    }
    world_settle(&log.world);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(client_waiting(log.a), 1);
        assert_true(log.a->unsent <= 16384);
        client_page(log.a);
        host_sent(log.host, log.a);
        world_settle(&log.world);
    }
    assert_int_equal(client_waiting(log.a), 0);
    world_close(&log.world);
}

static void unreadable_history_is_unavailable(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 100, 300, small_ring);
    log.host->fail_loads = true;
    assert_int_equal(ask_wrongly(&log, B, HISTORY_BEFORE, 21), CODE_UNAVAILABLE);
    assert_int_equal(ask_wrongly(&log, B, HISTORY_AFTER, 21), CODE_UNAVAILABLE);
    assert_int_equal(ask_wrongly(&log, C, HISTORY_AFTER, 0), CODE_UNAVAILABLE);
    log.host->fail_loads = false;
    expect_page(ask(&log, B, HISTORY_BEFORE, 21, 10, 0), 1, 10, 0);
    world_close(&log.world);
}

static void request_dies_with_its_connection(void **state)
{
    static struct log log;
    (void)state;
    open_log(&log, 100, 300, small_ring);
    client_history(log.a, 1, B, HISTORY_BEFORE, 21, 10, 0);
    host_offer(log.host, log.a);
    assert_int_equal(log.host->load_count, 1);
    host_disconnect(log.host, log.a);
    world_settle(&log.world);
    assert_int_equal(client_waiting(log.a), 0);
    world_close(&log.world);
}

static void stale_page_is_asked_again(void **state)
{
    static struct log log;
    struct engine_stats stats;
    (void)state;
    open_log(&log, 100, 300, small_ring);
    host_flush(log.host);
    log.host->stale_at = 3;
    log.host->stale_answers = 2;
    expect_page(ask(&log, B, HISTORY_BEFORE, 21, 10, 0), 1, 10, 0);
    log.host->stale_answers = 2;
    expect_page(ask(&log, B, HISTORY_AFTER, 0, 10, 0), 1, 10, PAGE_FLAG_MORE);
    engine_get_stats(log.host->engine, &stats);
    assert_int_equal(stats.loads_repeated, 4);
    world_close(&log.world);
}

static void three_requests(struct engine_config *config)
{
    config->loads_max = 3;
}

static void client_that_does_not_read_yields_the_request_that_waits_longest(void **state)
{
    (void)state;
    struct log log;

    open_log(&log, 4, 12000, three_requests);

    struct host_conn *b = host_connect(log.host, (struct user_id){ B }, 2, nothing);

    world_settle(&log.world);
    client_skip(b);
    log.host->keep_unsent = true;
    for (uint32_t request = 1; request <= 4; request++) { /* one page leaves, three find no room */
        client_history(log.a, request, B, HISTORY_BEFORE, 0, 10, 0);
        world_settle(&log.world);
    }
    assert_int_equal(client_page(log.a).request, 1);
    assert_int_equal(client_waiting(log.a), 0);
    client_history(b, 5, A, HISTORY_BEFORE, 0, 10, 0);
    world_settle(&log.world);

    const struct message_error error = client_error(log.a);

    assert_int_equal(error.code, CODE_UNAVAILABLE);
    assert_int_equal(error.request, 2);
    assert_false(error.fatal);
    assert_int_equal(client_page(b).request, 5);
    log.host->keep_unsent = false;
    host_sent(log.host, log.a); /* it reads after all: the others' pages come */
    world_settle(&log.world);
    assert_int_not_equal(client_page(log.a).request, 2);
    assert_int_not_equal(client_page(log.a).request, 2);
    assert_int_equal(client_waiting(log.a), 0);
    world_close(&log.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(client_that_does_not_read_yields_the_request_that_waits_longest),
        cmocka_unit_test(before_goes_back_by_pages),
        cmocka_unit_test(before_goes_back_through_the_store),
        cmocka_unit_test(after_goes_forward_by_pages),
        cmocka_unit_test(page_ends_at_its_bytes_but_has_one_message),
        cmocka_unit_test(after_walks_down_over_large_messages),
        cmocka_unit_test(large_messages_come_one_by_one),
        cmocka_unit_test(wrong_anchor_is_a_bad_cursor),
        cmocka_unit_test(refused_entry_is_no_anchor),
        cmocka_unit_test(unknown_conversation_gives_an_empty_page),
        cmocka_unit_test(page_says_where_the_log_was_trimmed),
        cmocka_unit_test(page_waits_until_what_it_shows_is_durable),
        cmocka_unit_test(fifth_request_is_refused),
        cmocka_unit_test(pages_wait_for_room),
        cmocka_unit_test(unreadable_history_is_unavailable),
        cmocka_unit_test(request_dies_with_its_connection),
        cmocka_unit_test(stale_page_is_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

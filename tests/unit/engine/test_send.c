#include "tests/unit/engine/host.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

#define A UINT64_C(5)
#define B UINT64_C(6)

struct pair {
    struct world world;
    struct host *host;
    struct host_conn *a;
    struct host_conn *b;
};

static void open_pair(struct pair *pair, void (*change)(struct engine_config *config))
{
    world_open(&pair->world, 1, change);
    pair->host = &pair->world.hosts[0];
    pair->a = host_connect(pair->host, (struct user_id){ A }, 1, nothing);
    pair->b = host_connect(pair->host, (struct user_id){ B }, 1, nothing);
}

static struct message_accepted send_accepted(struct pair *pair, uint64_t counter, uint64_t nonce)
{
    client_send(pair->a, counter, nonce, B, "text");
    world_settle(&pair->world);

    const struct message_accepted accepted = client_accepted(pair->a);

    client_skip(pair->a);
    client_skip(pair->b);
    return accepted;
}

static void entries_hold_their_place_in_the_conversation(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 1);
    client_send(pair.b, 1, 1, A, "back");
    world_settle(&pair.world);
    send_accepted(&pair, 2, 2);

    const struct log_entry *mine = &host_last_record(pair.host, RECORD_ENTRY, A)->entry;
    const struct log_entry *theirs = &host_last_record(pair.host, RECORD_ENTRY, B)->entry;

    assert_int_equal(mine->seq, 3);
    assert_int_equal(mine->prev, 2);
    assert_int_equal(mine->n, 3);
    assert_int_equal(mine->cn, 1);
    assert_int_equal(mine->flags, LOG_ENTRY_FLAG_OWN);
    assert_int_equal(mine->conversation.value, B);
    assert_int_equal(theirs->prev, 2);
    assert_int_equal(theirs->n, 3);
    assert_int_equal(theirs->cn, 2);
    assert_int_equal(theirs->flags, 0);
    assert_int_equal(theirs->conversation.value, A);
    assert_int_equal(theirs->device.value, 1);
    assert_int_equal(theirs->origin.seq, mine->seq);
    assert_int_equal(theirs->origin.epoch, mine->epoch);
    assert_int_equal(theirs->id.value, mine->id.value);
    world_close(&pair.world);
}

static void both_entries_are_in_one_ticket(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 1);

    const struct kept_record *last = &pair.host->records[pair.host->record_count - 1];

    assert_int_equal(last[0].record.type, RECORD_ENTRY);
    assert_int_equal(last[-1].record.type, RECORD_ENTRY);
    assert_int_equal(last[0].ticket, last[-1].ticket);
    world_close(&pair.world);
}

static void message_ids_rise_whatever_the_clock_does(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    uint64_t last = send_accepted(&pair, 1, 1).id.value;
    pair.world.now_unix_ms -= 5000;
    for (uint64_t i = 2; i < 10; i++) {
        const uint64_t id = send_accepted(&pair, i, i).id.value;

        assert_true(id > last);
        last = id;
    }
    world_close(&pair.world);
}

static void message_ids_rise_over_a_restart_with_the_clock_set_back(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    const uint64_t before = send_accepted(&pair, 1, 1).id.value;

    pair.world.now_unix_ms -= 5000;
    host_restart(pair.host);
    pair.a = host_connect(pair.host, (struct user_id){ A }, 1, nothing);
    pair.b = host_connect(pair.host, (struct user_id){ B }, 1, nothing);
    client_skip(pair.a);
    client_skip(pair.b);
    assert_true(send_accepted(&pair, 2, 2).id.value > before);
    world_close(&pair.world);
}

static void note_to_oneself_is_one_entry(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    client_send(pair.a, 1, 1, A, "note");
    world_settle(&pair.world);

    const struct log_entry *note = &host_last_record(pair.host, RECORD_ENTRY, A)->entry;

    assert_int_equal(host_count_records(pair.host, RECORD_ENTRY, 0), 1);
    assert_int_equal(note->n, 1);
    assert_int_equal(note->cn, 0);
    assert_int_equal(note->flags, LOG_ENTRY_FLAG_OWN);
    assert_int_equal(client_accepted(pair.a).seq, 1);
    world_close(&pair.world);
}

static void repeat_gets_the_same_answer_by_its_own_counter(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    const struct message_accepted first = send_accepted(&pair, 1, 11);
    send_accepted(&pair, 2, 12);
    const uint64_t appended = pair.host->appended;

    client_send(pair.a, 1, 11, B, "text"); /* same counter */
    client_send(pair.a, 3, 11, B, "text"); /* another */
    world_settle(&pair.world);
    struct message_accepted again = client_accepted(pair.a);
    assert_int_equal(again.counter, 1);
    assert_int_equal(again.id.value, first.id.value);
    assert_int_equal(again.seq, first.seq);
    again = client_accepted(pair.a);
    assert_int_equal(again.counter, 3);
    assert_int_equal(again.id.value, first.id.value);
    assert_int_equal(pair.host->appended, appended);
    send_accepted(&pair, 3, 13); /* the repeat consumed nothing */
    world_close(&pair.world);
}

static void repeat_of_what_isnt_durable_waits(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    client_send(pair.a, 2, 12, B, "text");
    client_send(pair.a, 2, 12, B, "text");
    host_offer(pair.host, pair.a);
    assert_int_equal(pair.a->in.taken, pair.a->in.count);
    assert_int_equal(client_waiting(pair.a), 0);
    host_durable(pair.host);
    assert_int_equal(client_accepted(pair.a).counter, 2);
    assert_int_equal(client_accepted(pair.a).counter, 2);
    world_close(&pair.world);
}

static void repeat_of_an_undurable_refusal_waits(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    for (int i = 0; i < 2; i++) {
        client_send(pair.a, 1, 11, ID_GROUP_BIT | 9, "to a group");
    }
    host_offer(pair.host, pair.a);
    assert_int_equal(pair.a->in.taken, pair.a->in.count);
    assert_int_equal(client_waiting(pair.a), 0);
    host_durable(pair.host);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(client_rejected(pair.a).code, CODE_BAD_CONVERSATION);
    }
    world_close(&pair.world);
}

static void known_counter_with_another_nonce_is_a_conflict(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    client_send(pair.a, 1, 99, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_error(pair.a).code, CODE_CONFLICT);
    assert_true(pair.a->closed);
    world_close(&pair.world);
}

static void counter_beyond_the_kept_outcomes_is_stale(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    for (uint64_t i = 1; i <= OUTCOMES_KEPT + 1; i++) {
        send_accepted(&pair, i, 100 + i);
    }
    client_send(pair.a, 2, 102, B, "text"); /* the oldest that is kept */
    world_settle(&pair.world);
    assert_int_equal(client_accepted(pair.a).seq, 2);
    client_send(pair.a, 1, 101, B, "text"); /* the 33rd */
    world_settle(&pair.world);
    assert_int_equal(client_error(pair.a).code, CODE_STALE);
    assert_true(pair.a->closed);
    world_close(&pair.world);
}

/* CONFLICT tells of a counter that may not be durable: it waits like everything else. */
static void conflict_waits_for_what_it_tells(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    client_send(pair.a, 2, 12, B, "text");
    client_send(pair.a, 2, 99, B, "text");
    host_offer(pair.host, pair.a);
    assert_int_equal(client_waiting(pair.a), 0);
    assert_false(pair.a->closed);
    pair.a->in.taken = pair.a->in.count; /* behind it nothing is taken any more */
    client_send(pair.a, 3, 13, B, "text");
    host_offer(pair.host, pair.a);
    assert_int_equal(pair.a->in.taken + 1, pair.a->in.count);
    host_durable(pair.host);
    assert_int_equal(client_accepted(pair.a).counter, 2);
    assert_int_equal(client_error(pair.a).code, CODE_CONFLICT);
    assert_true(pair.a->closed);
    world_close(&pair.world);
}

static void gap_gets_order_and_consumes_nothing(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    client_send(pair.a, 3, 13, B, "text");
    world_settle(&pair.world);

    const struct message_rejected rejected = client_rejected(pair.a);

    assert_int_equal(rejected.code, CODE_ORDER);
    assert_int_equal(rejected.counter, 3);
    assert_int_equal(rejected.expected, 2);
    send_accepted(&pair, 2, 13);
    world_close(&pair.world);
}

static void order_waits_for_the_counter_that_it_tells(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    client_send(pair.a, 2, 12, B, "text");
    client_send(pair.a, 9, 19, B, "text");
    host_offer(pair.host, pair.a);
    assert_int_equal(client_waiting(pair.a), 0);
    host_durable(pair.host);
    assert_int_equal(client_accepted(pair.a).counter, 2);
    assert_int_equal(client_rejected(pair.a).expected, 3);
    world_close(&pair.world);
}

static void permanent_refusal_consumes_its_counter(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    client_send(pair.a, 1, 11, ID_GROUP_BIT | 9, "to a group");
    host_offer(pair.host, pair.a);
    assert_int_equal(client_waiting(pair.a), 0);
    world_settle(&pair.world);
    struct message_rejected rejected = client_rejected(pair.a);
    assert_int_equal(rejected.code, CODE_BAD_CONVERSATION);
    assert_int_equal(rejected.expected, 2);
    assert_int_equal(host_count_records(pair.host, RECORD_REJECT, A), 1);

    client_send(pair.a, 1, 11, ID_GROUP_BIT | 9, "to a group"); /* a repeat */
    client_send(pair.a, 2, 12, 0, "to nobody");
    world_settle(&pair.world);
    assert_int_equal(client_rejected(pair.a).code, CODE_BAD_CONVERSATION);
    assert_int_equal(client_rejected(pair.a).code, CODE_BAD_CONVERSATION);
    assert_int_equal(host_count_records(pair.host, RECORD_REJECT, A), 2);
    client_send_bytes(pair.a, 3, 13, B, BODY_BYTES_MAX + 1);
    world_settle(&pair.world);
    assert_int_equal(client_rejected(pair.a).code, CODE_BODY_TOO_LARGE);
    send_accepted(&pair, 4, 14);
    world_close(&pair.world);
}

static void pressure_refuses_for_now(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    pair.host->budget.refuse_sends = true;
    client_send(pair.a, 2, 12, B, "text");
    world_settle(&pair.world);
    struct message_rejected rejected = client_rejected(pair.a);
    assert_int_equal(rejected.code, CODE_RETRY);
    assert_int_equal(rejected.expected, 2);
    assert_true(rejected.retry_ms > 0);
    client_send(pair.a, 1, 11, B, "text"); /* what was answered is answered again */
    world_settle(&pair.world);
    assert_int_equal(client_accepted(pair.a).counter, 1);
    pair.host->budget.refuse_sends = false;
    send_accepted(&pair, 2, 12);
    world_close(&pair.world);
}

static void no_number_is_given_without_journal_room(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    const uint64_t appended = pair.host->appended;
    pair.host->budget.append_bytes = 500;
    client_send(pair.a, 2, 12, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_rejected(pair.a).code, CODE_RETRY);
    assert_int_equal(pair.host->appended, appended);
    world_close(&pair.world);
}

static void thirty_third_outstanding_is_refused(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    send_accepted(&pair, 1, 11);
    for (uint64_t i = 2; i <= 34; i++) {
        client_send(pair.a, i, 100 + i, B, "text");
    }
    host_offer(pair.host, pair.a);
    assert_int_equal(pair.a->in.taken, pair.a->in.count);
    world_settle(&pair.world);
    for (uint64_t i = 2; i <= 33; i++) {
        assert_int_equal(client_accepted(pair.a).counter, i);
    }
    const struct message_rejected rejected = client_rejected(pair.a);
    assert_int_equal(rejected.code, CODE_RETRY);
    assert_int_equal(rejected.counter, 34);
    assert_int_equal(rejected.expected, 34);
    world_close(&pair.world);
}

static void send_to_an_unreadable_head_is_refused_for_now(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    pair.host->fail_loads = true;
    client_send(pair.a, 1, 11, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_rejected(pair.a).code, CODE_RETRY);
    pair.host->fail_loads = false;
    send_accepted(&pair, 1, 11);
    world_close(&pair.world);
}

static void few_outcomes(struct engine_config *config)
{
    config->outcomes_max = 64;
    config->pending_max = 1024;
}

/* Flushed outcomes leave memory when new ones come: a repeat brings them back. */
static void repeat_is_known_after_its_outcome_was_evicted(void **state)
{
    static struct pair pair;
    struct message_accepted first = { 0 };
    (void)state;
    open_pair(&pair, few_outcomes);
    for (uint64_t i = 1; i <= 6; i++) {
        const struct message_accepted accepted = send_accepted(&pair, i, 10 + i);

        if (i == 1) {
            first = accepted;
        }
        host_flush(pair.host);
    }
    const size_t loads = pair.host->load_count;
    client_send(pair.a, 1, 11, B, "text");
    host_offer(pair.host, pair.a);
    assert_int_equal(pair.host->load_count, loads + 1); /* its outcomes were gone */
    world_settle(&pair.world);
    const struct message_accepted again = client_accepted(pair.a);
    assert_int_equal(again.id.value, first.id.value);
    assert_int_equal(again.seq, first.seq);
    client_send(pair.a, 3, 13, B, "text");
    host_offer(pair.host, pair.a);
    assert_int_equal(pair.host->load_count, loads); /* they all came */
    assert_int_equal(client_accepted(pair.a).counter, 3);
    send_accepted(&pair, 7, 17);
    client_send(pair.a, 2, 99, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_error(pair.a).code, CODE_CONFLICT); /* by the fingerprint alone */
    world_close(&pair.world);
}

/* What can't be told from a repeat now is not taken for new. */
static void repeat_whose_outcome_cant_be_read_ends_the_connection(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, few_outcomes);
    for (uint64_t i = 1; i <= 6; i++) {
        send_accepted(&pair, i, 10 + i);
        host_flush(pair.host);
    }
    const uint64_t appended = pair.host->appended;
    pair.host->fail_loads = true;
    client_send(pair.a, 7, 11, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_error(pair.a).code, CODE_BUSY);
    assert_true(pair.a->closed);
    pair.host->fail_loads = false;
    pair.a = host_connect(pair.host, (struct user_id){ A }, 1, nothing);
    client_send(pair.a, 7, 11, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_accepted(pair.a).seq, 1);
    assert_int_equal(pair.host->appended, appended);
    world_close(&pair.world);
}

static void send_is_refused_when_no_outcome_can_be_kept(void **state)
{
    static struct pair pair;
    uint32_t refused = 0;
    (void)state;
    open_pair(&pair, few_outcomes);
    for (uint32_t i = 0; i < 4; i++) {
        struct host_conn *conn = host_connect(pair.host, (struct user_id){ 100 + i }, 1, nothing);

        for (uint64_t counter = 1; counter <= 17; counter++) {
            client_send(conn, counter, counter, 100 + i, "note");
            world_settle(&pair.world);
            const struct frame_view view = client_next(conn);
            refused += view.type == FRAME_TYPE_REJECTED;
        }
    }
    assert_int_equal(refused, 4);
    assert_true(pair.host->want_flush > 0);
    host_flush(pair.host);
    send_accepted(&pair, 1, 11);
    world_close(&pair.world);
}

/* A repeat of each of these, by counters that tell nothing, gets what the first got. */
static void expect_known(struct pair *pair, const struct message_accepted *first, uint64_t from,
                         uint64_t to)
{
    for (uint64_t i = from; i <= to; i++) {
        client_send(pair->a, i % 2 == 0 ? i : to + 1, 100 + i, B, "text");
        world_settle(&pair->world);

        const struct message_accepted again = client_accepted(pair->a);

        assert_int_equal(again.id.value, first[i].id.value);
        assert_int_equal(again.seq, first[i].seq);
    }
}

static uint64_t loads_of(const struct pair *pair)
{
    struct engine_stats stats;

    engine_get_stats(pair->host->engine, &stats);
    return stats.loads;
}

static void each_of_the_last_outcomes_is_known_and_none_older(void **state)
{
    static struct pair pair;
    struct message_accepted first[41];
    (void)state;
    open_pair(&pair, NULL);
    for (uint64_t i = 1; i <= 40; i++) {
        first[i] = send_accepted(&pair, i, 100 + i);
    }
    const uint64_t loads = loads_of(&pair);
    expect_known(&pair, first, 9, 40);
    assert_int_equal(loads_of(&pair), loads);
    client_send(pair.a, 8, 108, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_error(pair.a).code, CODE_STALE);
    world_close(&pair.world);
}

static void outcomes_are_read_back_below_those_in_memory(void **state)
{
    static struct pair pair;
    struct message_accepted first[61];
    (void)state;
    open_pair(&pair, NULL);
    for (uint64_t i = 1; i <= 8; i++) {
        first[i] = send_accepted(&pair, i, 100 + i);
        if (i == 5) {
            host_flush(pair.host); /* the sixth takes the first five's places */
        }
    }
    const uint64_t loads = loads_of(&pair);
    expect_known(&pair, first, 6, 8);
    assert_int_equal(loads_of(&pair), loads);
    expect_known(&pair, first, 1, 8);
    assert_int_equal(loads_of(&pair), loads + 1);
    for (uint64_t i = 9; i <= 60; i++) {
        first[i] = send_accepted(&pair, i, 100 + i);
        expect_known(&pair, first, i > OUTCOMES_KEPT ? i - OUTCOMES_KEPT + 1 : 1, i);
    }
    assert_int_equal(loads_of(&pair), loads + 1);
    world_close(&pair.world);
}

static void outcomes_that_others_took_the_places_of_are_known(void **state)
{
    static struct pair pair;
    struct message_accepted first[33];
    (void)state;
    open_pair(&pair, few_outcomes);
    for (uint64_t i = 1; i <= 32; i++) {
        first[i] = send_accepted(&pair, i, 100 + i);
    }
    host_flush(pair.host);
    const uint64_t loads = loads_of(&pair);
    expect_known(&pair, first, 1, 32);
    assert_int_equal(loads_of(&pair), loads);
    struct host_conn *c = host_connect(pair.host, (struct user_id){ 7 }, 1, nothing);
    for (uint64_t i = 1; i <= 32; i++) {
        client_send(pair.b, i, 200 + i, B, "note");
        world_settle(&pair.world);
    }
    client_send(c, 1, 300, 7, "note");
    world_settle(&pair.world);
    const uint64_t loads_then = loads_of(&pair);
    host_flush(pair.host); /* or there's no room for A's */
    client_skip(pair.b);
    expect_known(&pair, first, 1, 32);
    assert_int_equal(loads_of(&pair), loads_then + 1);
    world_close(&pair.world);
}

static void outcomes_survive_a_restart(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    struct message_accepted first = { 0 };
    for (uint64_t i = 1; i <= 40; i++) {
        const struct message_accepted accepted = send_accepted(&pair, i, 100 + i);

        if (i == 9) {
            first = accepted;
        }
    }
    host_restart(pair.host);
    pair.a = host_connect(pair.host, (struct user_id){ A }, 1, nothing);
    assert_int_equal(pair.a->welcome.last_counter, 40);
    client_skip(pair.a);
    client_send(pair.a, 9, 109, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_accepted(pair.a).id.value, first.id.value);
    client_send(pair.a, 8, 108, B, "text");
    world_settle(&pair.world);
    assert_int_equal(client_error(pair.a).code, CODE_STALE);
    world_close(&pair.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_hold_their_place_in_the_conversation),
        cmocka_unit_test(both_entries_are_in_one_ticket),
        cmocka_unit_test(message_ids_rise_whatever_the_clock_does),
        cmocka_unit_test(message_ids_rise_over_a_restart_with_the_clock_set_back),
        cmocka_unit_test(note_to_oneself_is_one_entry),
        cmocka_unit_test(repeat_gets_the_same_answer_by_its_own_counter),
        cmocka_unit_test(repeat_of_what_isnt_durable_waits),
        cmocka_unit_test(repeat_of_an_undurable_refusal_waits),
        cmocka_unit_test(known_counter_with_another_nonce_is_a_conflict),
        cmocka_unit_test(counter_beyond_the_kept_outcomes_is_stale),
        cmocka_unit_test(conflict_waits_for_what_it_tells),
        cmocka_unit_test(gap_gets_order_and_consumes_nothing),
        cmocka_unit_test(order_waits_for_the_counter_that_it_tells),
        cmocka_unit_test(permanent_refusal_consumes_its_counter),
        cmocka_unit_test(pressure_refuses_for_now),
        cmocka_unit_test(no_number_is_given_without_journal_room),
        cmocka_unit_test(thirty_third_outstanding_is_refused),
        cmocka_unit_test(send_to_an_unreadable_head_is_refused_for_now),
        cmocka_unit_test(repeat_is_known_after_its_outcome_was_evicted),
        cmocka_unit_test(repeat_whose_outcome_cant_be_read_ends_the_connection),
        cmocka_unit_test(send_is_refused_when_no_outcome_can_be_kept),
        cmocka_unit_test(each_of_the_last_outcomes_is_known_and_none_older),
        cmocka_unit_test(outcomes_are_read_back_below_those_in_memory),
        cmocka_unit_test(outcomes_that_others_took_the_places_of_are_known),
        cmocka_unit_test(outcomes_survive_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

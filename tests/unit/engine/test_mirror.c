/*
 * A conversation of two users at home here remembers where the other side's cells are. Whoever took
 * such a cell over must not get the other's messages.
 */
#include "tests/unit/engine/host.h"

static const struct message_cursor nothing = { 0, 0, 0 };

#define A UINT64_C(5)
#define B UINT64_C(6)
#define C UINT64_C(10)

static struct world world;
static struct host *host;
static struct host_conn *a;
static struct host_conn *b;
static struct host_conn *c;

static struct host_conn *log_in(uint64_t user)
{
    return host_connect(host, (struct user_id){ user }, 1, nothing);
}

/* Each has written to the other: A's head of the conversation knows B's, which came first. */
static void open_after_talk(void (*change)(struct engine_config *config))
{
    world_open(&world, 1, change);
    host = &world.hosts[0];
    a = log_in(A);
    b = log_in(B);
    client_send(b, 1, 11, A, "from b");
    world_settle(&world);
    client_send(a, 1, 11, B, "from a");
    world_settle(&world);
}

static void four_heads(struct engine_config *config)
{
    config->heads_max = 4;
}

/*
 * Whose SEND it is takes the place of B's head, and then one of those of the notes: A's own is used
 * in between.
 */
static void take_the_place_of_bs_head(struct host_conn *sender, uint64_t counter, uint64_t to)
{
    struct host_conn *others[] = { log_in(7), log_in(9) };

    client_send(others[0], 1, 1, 7, "note");
    client_send(others[1], 1, 1, 9, "note");
    world_settle(&world);
    host_flush(host);
    client_send(sender, counter, 100, to, "text");
    host_offer(host, sender);
    assert_true(sender->blocked);
    client_history(a, 1, B, HISTORY_BEFORE, 0, 1, 0);
    host_offer(host, a);
    world_settle(&world);
    host_flush(host);
}

/* A's message of that counter: B wrote one before. */
static void expect_delivered_to_b(uint64_t counter)
{
    client_send(a, counter, 10 + counter, B, "again");
    world_settle(&world);

    const struct log_entry *entry = &host_last_record(host, RECORD_ENTRY, B)->entry;

    assert_int_equal(entry->conversation.value, A);
    assert_int_equal(entry->n, counter + 1);
    assert_int_equal(entry->cn, counter);
    assert_int_equal(entry->origin.seq, host_last_record(host, RECORD_ENTRY, A)->entry.seq);
}

static void message_never_follows_a_head_that_another_user_took(void **state)
{
    (void)state;
    open_after_talk(four_heads);
    c = log_in(C);
    take_the_place_of_bs_head(c, 1, A);
    expect_delivered_to_b(2);
    assert_int_equal(host_count_records(host, RECORD_ENTRY, C), 1); /* its own */
    world_close(&world);
}

static void message_never_follows_a_head_of_another_conversation(void **state)
{
    (void)state;
    open_after_talk(four_heads);
    c = log_in(C);
    take_the_place_of_bs_head(b, 2, C);
    expect_delivered_to_b(2);
    world_close(&world);
}

static void three_users(struct engine_config *config)
{
    config->users_max = 3;
}

static void message_never_follows_a_user_cell_that_another_took(void **state)
{
    (void)state;
    open_after_talk(three_users);
    expect_delivered_to_b(2); /* by what it remembers: now of the user's cell too */
    host_disconnect(host, b);
    world_settle(&world);
    struct host_conn *d = log_in(7);
    host_flush(host);
    c = log_in(C); /* B, who is gone and flushed, makes room */
    host_disconnect(host, d);
    world_settle(&world);
    host_flush(host);
    expect_delivered_to_b(3);
    assert_int_equal(host_count_records(host, RECORD_ENTRY, C), 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_never_follows_a_head_that_another_user_took),
        cmocka_unit_test(message_never_follows_a_head_of_another_conversation),
        cmocka_unit_test(message_never_follows_a_user_cell_that_another_took),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

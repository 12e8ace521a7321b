#include "tests/unit/engine/host.h"

#include <stdio.h>
#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

/* A at home on one host, B and C, of one partition, on the other. */
struct two {
    struct world world;
    struct host *ha, *hb;
    struct user_id a, b, c;
    struct host_conn *ca, *cb;
};

static void open_two(struct two *two, void (*change)(struct engine_config *config))
{
    world_open(&two->world, 2, change);
    two->ha = &two->world.hosts[0];
    two->hb = &two->world.hosts[1];
    two->a = world_user(&two->world, 0, 0);
    two->b = world_user(&two->world, 1, 0);
    for (uint64_t id = two->b.value + 1;; id++) {
        if (partition_of(id).value == partition_of(two->b.value).value) {
            two->c.value = id;
            break;
        }
    }
    two->ca = host_connect(two->ha, two->a, 1, nothing);
}

static void log_in_b(struct two *two)
{
    two->cb = host_connect(two->hb, two->b, 1, nothing);
}

/* While nothing else happens. */
static void log_in_b_alone(struct two *two)
{
    two->cb = host_accept(two->hb, two->b, 1, nothing);
    for (int i = 0; i < 4; i++) {
        if (!two->cb->offered_hello) {
            host_offer(two->hb, two->cb);
        }
        host_answer_loads(two->hb);
        host_durable(two->hb);
    }
    assert_true(two->cb->welcomed);
}

/* Until A's host has given its stream frames, but nothing of them was delivered. */
static void offer_and_send(struct two *two)
{
    for (int i = 0; i < 6; i++) {
        host_offer(two->ha, two->ca);
        host_answer_loads(two->ha);
    }
    host_durable(two->ha);
}

static void close_two(struct two *two)
{
    world_close(&two->world);
}

static size_t ended(const struct two *two)
{
    return host_count_records(two->ha, RECORD_OUT_END, two->a.value);
}

static void message_goes_to_another_home_and_ends(void **state)
{
    struct two two;
    struct engine_stats stats;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "over there");
    world_settle(&two.world);

    const struct message_accepted accepted = client_accepted(two.ca);
    const struct seen_entry entry = client_entry(two.cb);

    assert_int_equal(entry.entry.message.id.value, accepted.id.value);
    assert_int_equal(entry.entry.message.cn, 1);
    assert_memory_equal(entry.entry.message.body.bytes, "over there", 10);
    assert_true((host_last_record(two.ha, RECORD_ENTRY, two.a.value)->entry.flags &
                 LOG_ENTRY_FLAG_OUT) != 0);
    assert_int_equal(ended(&two), 1);
    engine_get_stats(two.ha->engine, &stats);
    assert_int_equal(stats.outs, 0);
    close_two(&two);
}

static void stream_record_leaves_only_when_durable(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    host_offer(two.ha, two.ca);
    host_answer_loads(two.ha);
    host_offer(two.ha, two.ca);
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 1);
    host_run(two.ha);
    assert_int_equal(two.hb->streams.count, 0);
    host_durable(two.ha);
    assert_int_equal(two.hb->streams.count, 1);
    close_two(&two);
}

static void acknowledgement_leaves_only_when_the_entry_is_durable(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    offer_and_send(&two);
    while (!host_deliver_stream(two.hb)) {
        host_answer_loads(two.hb);
    }
    assert_int_equal(two.ha->streams.count, 0);
    assert_int_equal(client_waiting(two.cb), 0);
    host_durable(two.hb);
    assert_int_equal(two.ha->streams.count, 1);
    assert_int_equal(client_entry(two.cb).seq, 1);
    close_two(&two);
}

static void message_to_a_user_who_never_logged_in_is_refused(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
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
    assert_int_equal(ended(&two), 1);
    /* The end and the entry are one. */
    const struct kept_record *last = &two.ha->records[two.ha->record_count - 1];
    assert_int_equal(last[0].record.type, RECORD_ENTRY);
    assert_int_equal(last[-1].record.type, RECORD_OUT_END);
    assert_int_equal(last[0].ticket, last[-1].ticket);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, 0), 0);
    close_two(&two);
}

static void unknown_user_on_the_same_core_is_refused_alike(void **state)
{
    struct world world;
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
    struct two two;
    (void)state;
    open_two(&two, accept_unknown);
    client_send(two.ca, 1, 11, two.b.value, "text");
    client_send(two.ca, 2, 12, two.b.value, "text");
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_USER, two.b.value), 1);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 2);
    log_in_b(&two);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(client_entry(two.cb).seq, 2);
    close_two(&two);
}

/* The exceptions of the last STREAM_ACK towards that host, as "REFUSED 1, BEHIND 2" and so on. */
static void expect_ack(const struct host *host, uint64_t up_to, const char *exceptions)
{
    const struct bytes *frame = &host->streams.items[host->streams.count - 1];
    struct stream_ack ack;
    char text[256] = "";

    assert_true(stream_decode_ack(frame->at, frame->count, &ack));
    assert_int_equal(ack.up_to, up_to);
    for (uint16_t i = 0; i < ack.count; i++) {
        uint64_t number;
        uint16_t code;
        char one[32];

        stream_exception(&ack, i, &number, &code);
        snprintf(one, sizeof one, "%s%c%d", i > 0 ? " " : "", code == STREAM_BEHIND ? 'B' : 'R',
                 (int)number);
        strcat(text, one);
    }
    assert_string_equal(text, exceptions);
}

static void deliver_all(struct host *host)
{
    for (int i = 0; i < 50 && host->streams.taken < host->streams.count; i++) {
        host_deliver_stream(host);
        host_answer_loads(host);
    }
    assert_int_equal(host->streams.taken, host->streams.count);
}

/*
 * A refused first message doesn't let the second overtake it: that is BEHIND, until the first has
 * ended for good; then it may be taken, since its receiver came to exist meanwhile.
 */
static void second_of_a_refused_first_is_behind_until_the_end_is_durable(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "first");
    client_send(two.ca, 2, 12, two.b.value, "second");
    offer_and_send(&two);
    deliver_all(two.hb);
    host_durable(two.hb);
    expect_ack(two.ha, 2, "R1 B2");

    log_in_b_alone(&two); /* she exists from here on */
    while (two.ha->streams.taken < two.ha->streams.count) {
        host_deliver_stream(two.ha);
    }
    assert_int_equal(ended(&two), 1);
    /* The first's end isn't durable: the second, whose `after` passes over it, waits. */
    assert_int_equal(two.hb->streams.taken, two.hb->streams.count);
    host_durable(two.ha);
    assert_int_equal(two.hb->streams.taken + 1, two.hb->streams.count);
    world_settle(&two.world);
    const struct seen_entry entry = client_entry(two.cb);
    assert_int_equal(entry.seq, 1);
    assert_memory_equal(entry.entry.message.body.bytes, "second", 6);
    assert_int_equal(ended(&two), 2);
    close_two(&two);
}

/* Only the conversation waits: another one on the same link goes on. */
static void behind_holds_only_its_conversation(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.c.value, "to nobody");
    client_send(two.ca, 2, 12, two.b.value, "to somebody");
    client_send(two.ca, 3, 13, two.c.value, "to nobody again");
    offer_and_send(&two);
    deliver_all(two.hb);
    host_durable(two.hb);
    expect_ack(two.ha, 3, "R1 B3");
    assert_int_equal(client_entry(two.cb).seq, 1);
    world_settle(&two.world);
    assert_int_equal(ended(&two), 3);
    close_two(&two);
}

/* r2 and r3 are behind r1: they are sent again in their order, each naming its predecessor. */
static void records_behind_are_sent_again_in_order(void **state)
{
    struct two two;
    struct stream_records records;
    struct stream_record record;
    uint64_t number;
    (void)state;
    open_two(&two, NULL);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    offer_and_send(&two);
    deliver_all(two.hb);
    host_durable(two.hb);
    expect_ack(two.ha, 3, "R1 B2 B3");
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
    assert_int_equal(ended(&two), 3);
    close_two(&two);
}

static void restarted_source_sends_all_again_in_order(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    for (uint64_t i = 1; i <= 5; i++) {
        client_send(two.ca, i, 10 + i, i % 2 == 0 ? two.c.value : two.b.value, "text");
    }
    offer_and_send(&two);
    deliver_all(two.hb);
    host_durable(two.hb);
    /* The acknowledgement is lost with the source. */
    host_restart(two.ha);
    world_settle(&two.world);
    assert_int_equal(ended(&two), 5);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 3);
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 5 + 2);
    close_two(&two);
}

static void restarted_receiver_takes_each_message_once(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    for (uint64_t i = 1; i <= 4; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    offer_and_send(&two);
    deliver_all(two.hb);
    host_durable(two.hb); /* they are in its log, its answer is lost */
    two.ha->streams.taken = two.ha->streams.count;
    host_restart(two.hb);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 4);
    assert_int_equal(ended(&two), 4);

    /* And what it had not made durable comes again. */
    client_send(two.ca, 5, 15, two.b.value, "text");
    offer_and_send(&two);
    deliver_all(two.hb);
    host_restart(two.hb);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 4);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 5);
    close_two(&two);
}

/* A repeat is acknowledged when what it repeats is durable, not before. */
static void repeat_of_an_undurable_entry_is_acknowledged_later(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    offer_and_send(&two);
    deliver_all(two.hb);
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_run(two.ha);
    assert_int_equal(two.hb->streams.count, 2);
    deliver_all(two.hb);
    assert_int_equal(two.ha->streams.count, 0);
    host_durable(two.hb);
    assert_true(two.ha->streams.count > 0);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 1);
    assert_int_equal(ended(&two), 1);
    close_two(&two);
}

/* An outcome of a link that isn't in use any more counts for nothing. */
static void outcome_of_an_old_link_is_ignored(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "text");
    offer_and_send(&two);
    deliver_all(two.hb);
    host_durable(two.hb);
    expect_ack(two.ha, 1, "R1");
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_run(two.ha);
    log_in_b(&two); /* settles: the old refusal is delivered first */
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 1);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(ended(&two), 1);
    close_two(&two);
}

static void frame_of_an_old_link_is_not_read(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "text");
    offer_and_send(&two);
    const struct bytes first = two.hb->streams.items[0];
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_run(two.ha);
    assert_int_equal(two.hb->streams.count, 2);
    two.hb->streams.taken = 1; /* the newer one overtakes */
    deliver_all(two.hb);
    host_durable(two.hb);
    expect_ack(two.ha, 1, "R1");
    world_settle(&two.world);
    assert_int_equal(ended(&two), 1);
    log_in_b(&two);
    host_list_add(&two.hb->streams, first.at, first.count);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 0);
    close_two(&two);
}

static void gap_ends_the_link_and_everything_comes_again(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "one");
    offer_and_send(&two);
    client_send(two.ca, 2, 12, two.b.value, "two");
    offer_and_send(&two);
    assert_int_equal(two.hb->streams.count, 2);
    two.hb->streams.taken = 1; /* the first is lost */
    world_settle(&two.world);
    assert_int_equal(ended(&two), 2);
    assert_memory_equal(client_entry(two.cb).entry.message.body.bytes, "one", 3);
    assert_memory_equal(client_entry(two.cb).entry.message.body.bytes, "two", 3);
    assert_int_equal(client_waiting(two.cb), 0);
    close_two(&two);
}

static void few_links(struct engine_config *config)
{
    config->links_max = 4;
}

static void receiver_forgets_idle_links_and_goes_on(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, few_links);
    log_in_b(&two);
    for (uint32_t k = 0; k < 12; k++) {
        const struct user_id user = world_user(&two.world, 0, 10 + k);
        struct host_conn *conn = host_connect(two.ha, user, 1, nothing);

        client_send(conn, 1, 1, two.b.value, "text");
        client_send(conn, 2, 2, two.b.value, "text");
        world_settle(&two.world);
        assert_int_equal(client_accepted(conn).counter, 1);
        assert_int_equal(client_accepted(conn).counter, 2);
        host_disconnect(two.ha, conn);
    }
    for (uint64_t seq = 1; seq <= 24; seq++) {
        assert_int_equal(client_entry(two.cb).seq, seq);
    }
    close_two(&two);
}

static void quota_of_2(struct engine_config *config)
{
    config->out_quota = 2;
}

static void destination_over_its_quota_is_full(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, quota_of_2);
    log_in_b(&two);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    offer_and_send(&two);
    client_accepted(two.ca);
    client_accepted(two.ca);
    struct message_rejected rejected = client_rejected(two.ca);
    assert_int_equal(rejected.code, CODE_FULL);
    assert_int_equal(rejected.expected, 3);
    world_settle(&two.world);
    client_send(two.ca, 3, 13, two.b.value, "text");
    world_settle(&two.world);
    client_accepted(two.ca);
    close_two(&two);
}

static void link_window_bounds_what_is_outstanding(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    for (uint64_t i = 1; i <= 8; i++) {
        client_send_bytes(two.ca, i, 10 + i, two.b.value, 14000);
    }
    offer_and_send(&two);
    size_t bytes = 0;
    for (size_t i = 0; i < two.hb->streams.count; i++) {
        bytes += two.hb->streams.items[i].count;
    }
    assert_true(bytes <= 65536 + 1000 && bytes > 50000);
    world_settle(&two.world);
    assert_int_equal(ended(&two), 8);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        assert_int_equal(client_entry(two.cb).seq, seq);
    }
    close_two(&two);
}

static void small_ring(struct engine_config *config)
{
    config->recent_bytes = 65536;
}

/* A record whose entry has left the ring is loaded, in its place. */
static void old_stream_record_is_loaded(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, small_ring);
    log_in_b(&two);
    for (uint64_t i = 1; i <= 20; i++) {
        client_send_bytes(two.ca, i, 10 + i, two.b.value, 9000);
    }
    offer_and_send(&two);
    world_settle(&two.world);
    assert_int_equal(ended(&two), 20);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 20);
    close_two(&two);
}

static void load_of_a_stream_record_that_fails_is_tried_later(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    offer_and_send(&two);
    two.hb->streams.taken = two.hb->streams.count;
    host_restart(two.ha);
    two.ha->fail_loads = true;
    world_settle(&two.world);
    assert_int_equal(ended(&two), 0);
    two.ha->fail_loads = false;
    world_settle(&two.world);
    assert_int_equal(ended(&two), 0);
    two.world.now_unix_ms += 1500;
    host_run(two.ha);
    world_settle(&two.world);
    assert_int_equal(ended(&two), 1);
    close_two(&two);
}

static void keep_64(struct engine_config *config)
{
    config->retention_count = 64;
}

static void floor_stays_below_what_a_stream_record_needs(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, keep_64);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "waits");
    offer_and_send(&two);
    const struct bytes_list held = two.hb->streams;
    memset(&two.hb->streams, 0, sizeof two.hb->streams);
    for (uint64_t i = 2; i <= 400; i++) {
        client_send(two.ca, i, 10 + i, two.a.value, "note");
        world_settle(&two.world);
    }
    assert_int_equal(host_count_records(two.ha, RECORD_FLOOR, two.a.value), 0);
    two.hb->streams = held;
    world_settle(&two.world);
    client_send(two.ca, 401, 9999, two.a.value, "note");
    world_settle(&two.world);
    assert_int_equal(host_last_record(two.ha, RECORD_FLOOR, two.a.value)->floor.floor, 401 - 63);
    close_two(&two);
}

/* What is still on its way to a destination isn't overtaken by the short cut. */
static void short_cut_waits_for_what_is_outstanding(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, 1, NULL);
    struct host *host = &world.hosts[0];
    struct host_conn *a = host_connect(host, (struct user_id){ 5 }, 1, nothing);
    client_send(a, 1, 11, 6, "first");
    for (int i = 0; i < 4; i++) {
        host_offer(host, a);
        host_answer_loads(host);
    }
    host_durable(host); /* its stream record is on its way to this very host */
    struct host_conn *b = host_accept(host, (struct user_id){ 6 }, 1, nothing);
    host_offer(host, b);
    host_answer_loads(host);
    host_offer(host, b);
    client_send(a, 2, 12, 6, "second");
    host_offer(host, a);
    assert_true((host_last_record(host, RECORD_ENTRY, 5)->entry.flags & LOG_ENTRY_FLAG_OUT) != 0);
    world_settle(&world);
    assert_memory_equal(client_entry(b).entry.message.body.bytes, "first", 5);
    assert_memory_equal(client_entry(b).entry.message.body.bytes, "second", 6);
    client_send(a, 3, 13, 6, "third");
    world_settle(&world);
    assert_int_equal(host_last_record(host, RECORD_ENTRY, 5)->entry.flags, LOG_ENTRY_FLAG_OWN);
    assert_memory_equal(client_entry(b).entry.message.body.bytes, "third", 5);
    world_close(&world);
}

static void hostile_stream_frames_change_nothing(void **state)
{
    struct two two;
    uint8_t bytes[512];
    (void)state;
    open_two(&two, NULL);
    log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    offer_and_send(&two);
    const struct bytes good = two.hb->streams.items[0];
    const size_t records = two.hb->record_count;

    assert_true(good.count < sizeof bytes);
    for (size_t cut = 0; cut < good.count; cut++) {
        assert_int_equal(engine_on_stream(two.hb->engine, good.at, cut), ENGINE_TAKEN);
        host_run(two.hb);
    }
    memcpy(bytes, good.at, good.count);
    bytes[0] = 9; /* no kind */
    assert_int_equal(engine_on_stream(two.hb->engine, bytes, good.count), ENGINE_TAKEN);
    memcpy(bytes, good.at, good.count);
    bytes[STREAM_RECORDS_BYTES + 39] ^= 1; /* a sender of another partition */
    assert_int_equal(engine_on_stream(two.hb->engine, bytes, good.count), ENGINE_TAKEN);
    host_run(two.hb);
    assert_int_equal(two.hb->record_count, records);
    assert_int_equal(two.ha->streams.count, 0);

    /* An acknowledgement of what was never sent. */
    struct stream_builder builder;
    struct stream_header header;
    assert_true(stream_decode_header(good.at, good.count, &header));
    stream_ack_begin(&builder, bytes, 1000, &header, 5);
    host_begin_turn(two.ha);
    assert_int_equal(engine_on_stream(two.ha->engine, bytes, stream_ack_end(&builder)),
                     ENGINE_TAKEN);
    host_run(two.ha);
    assert_int_equal(ended(&two), 0);
    world_settle(&two.world);
    assert_int_equal(ended(&two), 1);
    close_two(&two);
}

static void few_heads(struct engine_config *config)
{
    config->heads_max = 8;
    config->users_max = 8;
    config->loads_max = 4;
}

/* A full pool holds a stream up until a flush, and loses nothing. */
static void stream_waits_for_a_flush_when_pools_are_full(void **state)
{
    struct two two;
    (void)state;
    open_two(&two, few_heads);
    log_in_b(&two);
    uint64_t sent = 0;
    for (uint32_t k = 0; k < 20; k++) {
        const struct user_id user = world_user(&two.world, 0, 20 + k);
        struct host_conn *conn = host_connect(two.ha, user, 1, nothing);

        client_send(conn, 1, 1, two.b.value, "text");
        for (int i = 0; i < 6; i++) {
            host_offer(two.ha, conn);
            host_answer_loads(two.ha);
            host_durable(two.ha);
            host_flush(two.ha);
        }
        assert_int_equal(client_accepted(conn).counter, 1);
        host_disconnect(two.ha, conn);
        host_durable(two.ha);
        host_flush(two.ha);
        sent++;
    }
    for (int i = 0; i < 400 && ended(&two) + 19 < sent; i++) {
        host_deliver_stream(two.hb);
        host_answer_loads(two.hb);
        host_durable(two.hb);
        host_flush(two.hb);
    }
    for (int i = 0; i < 400; i++) {
        host_deliver_stream(two.hb);
        host_deliver_stream(two.ha);
        host_answer_loads(two.hb);
        host_answer_loads(two.ha);
        host_durable(two.hb);
        host_durable(two.ha);
        host_flush(two.hb);
        host_flush(two.ha);
    }
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), sent);
    assert_int_equal(host_count_records(two.ha, RECORD_OUT_END, 0), sent);
    close_two(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_goes_to_another_home_and_ends),
        cmocka_unit_test(stream_record_leaves_only_when_durable),
        cmocka_unit_test(acknowledgement_leaves_only_when_the_entry_is_durable),
        cmocka_unit_test(message_to_a_user_who_never_logged_in_is_refused),
        cmocka_unit_test(unknown_user_on_the_same_core_is_refused_alike),
        cmocka_unit_test(unknown_user_is_created_where_that_is_allowed),
        cmocka_unit_test(second_of_a_refused_first_is_behind_until_the_end_is_durable),
        cmocka_unit_test(behind_holds_only_its_conversation),
        cmocka_unit_test(records_behind_are_sent_again_in_order),
        cmocka_unit_test(restarted_source_sends_all_again_in_order),
        cmocka_unit_test(restarted_receiver_takes_each_message_once),
        cmocka_unit_test(repeat_of_an_undurable_entry_is_acknowledged_later),
        cmocka_unit_test(outcome_of_an_old_link_is_ignored),
        cmocka_unit_test(frame_of_an_old_link_is_not_read),
        cmocka_unit_test(gap_ends_the_link_and_everything_comes_again),
        cmocka_unit_test(receiver_forgets_idle_links_and_goes_on),
        cmocka_unit_test(destination_over_its_quota_is_full),
        cmocka_unit_test(link_window_bounds_what_is_outstanding),
        cmocka_unit_test(old_stream_record_is_loaded),
        cmocka_unit_test(load_of_a_stream_record_that_fails_is_tried_later),
        cmocka_unit_test(floor_stays_below_what_a_stream_record_needs),
        cmocka_unit_test(short_cut_waits_for_what_is_outstanding),
        cmocka_unit_test(hostile_stream_frames_change_nothing),
        cmocka_unit_test(stream_waits_for_a_flush_when_pools_are_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

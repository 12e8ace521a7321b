#include "tests/unit/engine/two_homes.h"

#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

static void restarted_source_sends_all_again_in_order(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    for (uint64_t i = 1; i <= 5; i++) {
        client_send(two.ca, i, 10 + i, i % 2 == 0 ? two.c.value : two.b.value, "text");
    }
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    /* The acknowledgement is lost with the source. */
    host_restart(two.ha);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 5);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 3);
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 5 + 2);
    two_close(&two);
}

/* However few places are configured: what was promised is kept, and nothing new is until then. */
static void restarted_source_holds_more_than_is_configured(void **state)
{
    static struct two two;
    struct engine_stats stats;
    (void)state;
    two_open_with_b(&two);
    for (uint64_t i = 1; i <= 60; i++) {
        client_send(two.ca, i, 10 + i, i % 2 == 0 ? two.c.value : two.b.value, "text");
        two_offer_and_send(&two);
    }
    two.ha->config.outs_max = 4;
    two.ha->config.links_max = 1;
    host_restart(two.ha);
    engine_get_stats(two.ha->engine, &stats);
    assert_int_equal(stats.outs, 60);
    two.ca = host_connect(two.ha, two.a, 1, nothing);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 60);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 30);
    two_close(&two);
}

static void restarted_receiver_takes_each_message_once(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    for (uint64_t i = 1; i <= 4; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb); /* they are in its log, its answer is lost */
    two.ha->streams.taken = two.ha->streams.count;
    host_restart(two.hb);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 4);
    assert_int_equal(two_ended(&two), 4);

    /* And what it had not made durable comes again. */
    client_send(two.ca, 5, 15, two.b.value, "text");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_restart(two.hb);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 4);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 5);
    two_close(&two);
}

/* A repeat is acknowledged when what it repeats is durable, not before. */
static void repeat_of_an_undurable_entry_is_acknowledged_later(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_run(two.ha);
    assert_int_equal(two.hb->streams.count, 2);
    host_deliver_all(two.hb);
    assert_int_equal(two.ha->streams.count, 0);
    host_durable(two.hb);
    assert_true(two.ha->streams.count > 0);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 1);
    assert_int_equal(two_ended(&two), 1);
    two_close(&two);
}

/* An outcome of a link that isn't in use any more counts for nothing. */
static void outcome_of_an_old_link_is_ignored(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 1, "R1");
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_run(two.ha);
    two_log_in_b(&two); /* settles: the old refusal is delivered first */
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 1);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(two_ended(&two), 1);
    two_close(&two);
}

/* A user of the same partition as B and C. */
static struct user_id another(const struct two *two)
{
    uint64_t id = two->c.value + 1;

    while (partition_of(id).value != partition_of(two->b.value).value) {
        id++;
    }
    return (struct user_id){ id };
}

/*
 * A refused message's frame that comes again by a link that isn't in use any more must not be
 * taken, though its receiver exists by now: its sender was told REFUSED.
 */
static void frame_of_an_old_link_is_not_read(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    const struct user_id d = another(&two);
    const uint64_t to[] = { two.b.value, two.c.value, d.value };
    for (uint64_t i = 1; i <= 3; i++) { /* one frame each */
        client_send(two.ca, i, 10 + i, to[i - 1], "text");
        two_offer_and_send(&two);
    }
    assert_int_equal(two.hb->streams.count, 3);
    const struct bytes third = two.hb->streams.items[2];
    while (!host_deliver_stream(two.hb)) {
        host_answer_loads(two.hb);
    }
    host_durable(two.hb);
    host_deliver_all(two.ha);
    assert_int_equal(two_ended(&two), 1);
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_durable(two.ha);
    assert_int_equal(two.hb->streams.count, 4);
    two.hb->streams.taken = 3; /* the newer link's overtakes */
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 2, "R1 R2");
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 3);
    host_connect(two.hb, d, 1, nothing);
    host_list_add(&two.hb->streams, third.at, third.count);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, d.value), 0);
    two_close(&two);
}

/* The links of two starts of a source may have the same number: their terms differ. */
static void outcome_of_an_older_start_is_ignored(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, NULL);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 1, "R1");
    const struct bytes refusal = two.ha->streams.items[two.ha->streams.count - 1];
    uint8_t late[256];

    assert_true(refusal.count <= sizeof late);
    memcpy(late, refusal.at, refusal.count);
    const size_t late_bytes = refusal.count;

    host_restart(two.ha);
    for (int i = 0; i < 4; i++) {
        host_answer_loads(two.ha);
    }
    assert_int_equal(two.hb->streams.count, 1); /* the same record, by link 1 again */
    host_list_add(&two.ha->streams, late, late_bytes);
    host_deliver_all(two.ha);
    assert_int_equal(two_ended(&two), 0);
    two_log_in_b(&two);
    assert_int_equal(client_entry(two.cb).seq, 1);
    assert_int_equal(two_ended(&two), 1);
    assert_int_equal(host_count_records(two.ha, RECORD_ENTRY, two.a.value), 1);
    two_close(&two);
}

/*
 * After a restore its sender's log has a new epoch, but the record has the one that its receiver
 * knows: else the message would be taken once more.
 */
static void stream_record_keeps_the_epoch_that_it_was_written_under(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "first");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb); /* it has arrived, and nobody heard of that */
    two.ha->config.epoch_min = two.world.now_unix_ms / 1000 + 1000;
    host_restart(two.ha);
    two.ca = host_connect(two.ha, two.a, 1, nothing);
    client_send(two.ca, 2, 12, two.b.value, "second");
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 2);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 2);
    assert_int_equal(host_last_record(two.hb, RECORD_ENTRY, two.b.value)->entry.origin.epoch,
                     two.ha->config.epoch_min);
    two_close(&two);
}

static void link_that_begins_anew_sends_in_order(void **state)
{
    static struct two two;
    struct stream_records records;
    struct stream_record record;
    uint64_t number;
    (void)state;
    two_open(&two, NULL);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    two_offer_and_send(&two);
    engine_on_link_down(two.ha->engine, partition_of(two.b.value));
    host_run(two.ha);
    const struct bytes *frame = &two.hb->streams.items[two.hb->streams.count - 1];
    assert_true(stream_decode_records(frame->at, frame->count, &records));
    assert_int_equal(records.first, 1);
    assert_int_equal(records.count, 3);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        assert_true(stream_next(&records, &number, &record));
        assert_int_equal(record.origin.seq, seq);
        assert_int_equal(record.after.seq, seq - 1);
    }
    two_close(&two);
}

static void gap_within_a_link_ends_it_too(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
        two_offer_and_send(&two);
    }
    while (!host_deliver_stream(two.hb)) {
        host_answer_loads(two.hb);
    }
    two.hb->streams.taken = 2; /* the second is lost */
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 3);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 3);
    two_close(&two);
}

static void gap_ends_the_link_and_everything_comes_again(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "one");
    two_offer_and_send(&two);
    client_send(two.ca, 2, 12, two.b.value, "two");
    two_offer_and_send(&two);
    assert_int_equal(two.hb->streams.count, 2);
    two.hb->streams.taken = 1; /* the first is lost */
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 2);
    assert_memory_equal(client_entry(two.cb).entry.message.body.bytes, "one", 3);
    assert_memory_equal(client_entry(two.cb).entry.message.body.bytes, "two", 3);
    assert_int_equal(client_waiting(two.cb), 0);
    two_close(&two);
}

/*
 * Links of different starts of a source may have the same number: what waited to be acknowledged
 * on the older one says nothing of the newer.
 */
static void acknowledgement_of_an_older_term_is_dropped(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    client_send(two.ca, 2, 12, two.c.value, "nobody there");
    two_offer_and_send(&two);
    host_deliver_all(two.hb); /* b's entry isn't durable: the acknowledgement waits */
    host_restart(two.ha);
    for (int i = 0; i < 4; i++) {
        host_answer_loads(two.ha);
    }
    assert_int_equal(two.hb->streams.count, 2);
    assert_true(host_deliver_stream(two.hb)); /* the first record, by link 1 again */
    host_durable(two.hb);
    host_expect_ack(two.ha, 1, "");
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 2);
    assert_int_equal(host_last_record(two.ha, RECORD_ENTRY, two.a.value)->entry.form,
                     LOG_ENTRY_REFUSED);
    two_close(&two);
}

/* What an acknowledgement that was lost had told isn't taken for delivered. */
static void lost_acknowledgement_makes_the_link_begin_anew(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.c.value, "nobody there");
    two_offer_and_send(&two);
    host_deliver_all(two.hb);
    host_durable(two.hb);
    host_expect_ack(two.ha, 1, "R1");
    two.ha->streams.taken = two.ha->streams.count; /* lost */
    client_send(two.ca, 2, 12, two.b.value, "text");
    two_offer_and_send(&two);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 2);
    assert_int_equal(host_last_record(two.ha, RECORD_ENTRY, two.a.value)->entry.form,
                     LOG_ENTRY_REFUSED);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 1);
    two_close(&two);
}

static void few_links(struct engine_config *config)
{
    config->links_max = 4;
}

static void receiver_forgets_idle_links_and_goes_on(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, few_links);
    two_log_in_b(&two);
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
    two_close(&two);
}

/* A link that isn't known any more was as old as those that are: its late frame isn't read. */
static void frame_of_a_forgotten_link_is_not_read(void **state)
{
    static struct two two;
    uint8_t late[256];
    (void)state;
    two_open(&two, few_links);
    two_log_in_b(&two);
    client_send(two.ca, 1, 11, two.c.value, "nobody there");
    two_offer_and_send(&two);
    const struct bytes first = two.hb->streams.items[0];

    assert_true(first.count <= sizeof late);
    memcpy(late, first.at, first.count);
    const size_t late_bytes = first.count;

    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 1);
    for (uint32_t k = 0; k < 12; k++) { /* each by a link of its own */
        struct host_conn *conn =
            host_connect(two.ha, world_user(&two.world, 0, 10 + k), 1, nothing);

        client_send(conn, 1, 1, two.b.value, "text");
        world_settle(&two.world);
        host_disconnect(two.ha, conn);
    }
    host_connect(two.hb, two.c, 1, nothing); /* she exists from here on */
    host_list_add(&two.hb->streams, late, late_bytes);
    world_settle(&two.world);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.c.value), 0);
    two_close(&two);
}

static void quota_of_2(struct engine_config *config)
{
    config->out_quota = 2;
}

static void destination_over_its_quota_is_full(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, quota_of_2);
    two_log_in_b(&two);
    for (uint64_t i = 1; i <= 3; i++) {
        client_send(two.ca, i, 10 + i, two.b.value, "text");
    }
    two_offer_and_send(&two);
    client_accepted(two.ca);
    client_accepted(two.ca);
    struct message_rejected rejected = client_rejected(two.ca);
    assert_int_equal(rejected.code, CODE_FULL);
    assert_int_equal(rejected.expected, 3);
    world_settle(&two.world);
    client_send(two.ca, 3, 13, two.b.value, "text");
    world_settle(&two.world);
    client_accepted(two.ca);
    two_close(&two);
}

static void link_window_bounds_what_is_outstanding(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    for (uint64_t i = 1; i <= 8; i++) {
        client_send_bytes(two.ca, i, 10 + i, two.b.value, 14000);
    }
    two_offer_and_send(&two);
    size_t bytes = 0;
    for (size_t i = 0; i < two.hb->streams.count; i++) {
        bytes += two.hb->streams.items[i].count;
    }
    assert_true(bytes <= 65536 + 1000 && bytes > 50000);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 8);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        assert_int_equal(client_entry(two.cb).seq, seq);
    }
    two_close(&two);
}

static void small_ring(struct engine_config *config)
{
    config->recent_bytes = 65536;
}

/* A record whose entry has left the ring is loaded, in its place. */
static void old_stream_record_is_loaded(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, small_ring);
    two_log_in_b(&two);
    for (uint64_t i = 1; i <= 20; i++) {
        client_send_bytes(two.ca, i, 10 + i, two.b.value, 9000);
    }
    two_offer_and_send(&two);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 20);
    assert_int_equal(host_count_records(two.hb, RECORD_ENTRY, two.b.value), 20);
    two_close(&two);
}

static void load_of_a_stream_record_that_fails_is_tried_later(void **state)
{
    static struct two two;
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two_offer_and_send(&two);
    two.hb->streams.taken = two.hb->streams.count;
    host_restart(two.ha);
    two.ha->fail_loads = true;
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 0);
    two.ha->fail_loads = false;
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 0);
    two.world.now_unix_ms += 1500;
    host_run(two.ha);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 1);
    two_close(&two);
}

static void keep_64(struct engine_config *config)
{
    config->retention_count = 64;
}

static void floor_stays_below_what_a_stream_record_needs(void **state)
{
    static struct two two;
    (void)state;
    two_open(&two, keep_64);
    two_log_in_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "waits");
    two_offer_and_send(&two);
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
    two_close(&two);
}

/* What is still on its way to a destination isn't overtaken by the short cut. */
static void short_cut_waits_for_what_is_outstanding(void **state)
{
    static struct world world;
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
    for (int k = 0; k < 4; k++) {
        if (a->in.taken < a->in.count) {
            host_offer(host, a);
        }
        host_answer_loads(host);
    }
    assert_int_equal(host_count_records(host, RECORD_ENTRY, 5), 2);
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
    static struct two two;
    uint8_t bytes[512] = { 0 };
    (void)state;
    two_open_with_b(&two);
    client_send(two.ca, 1, 11, two.b.value, "text");
    two_offer_and_send(&two);
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
    stream_ack_begin(&builder, bytes, 1000, &header, 0, 5);
    host_begin_turn(two.ha);
    assert_int_equal(engine_on_stream(two.ha->engine, bytes, stream_ack_end(&builder)),
                     ENGINE_TAKEN);
    host_run(two.ha);
    assert_int_equal(two_ended(&two), 0);
    world_settle(&two.world);
    assert_int_equal(two_ended(&two), 1);
    two_close(&two);
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
    static struct two two;
    (void)state;
    two_open(&two, few_heads);
    two_log_in_b(&two);
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
    for (int i = 0; i < 400 && two_ended(&two) + 19 < sent; i++) {
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
    two_close(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restarted_source_sends_all_again_in_order),
        cmocka_unit_test(restarted_source_holds_more_than_is_configured),
        cmocka_unit_test(restarted_receiver_takes_each_message_once),
        cmocka_unit_test(repeat_of_an_undurable_entry_is_acknowledged_later),
        cmocka_unit_test(outcome_of_an_old_link_is_ignored),
        cmocka_unit_test(frame_of_an_old_link_is_not_read),
        cmocka_unit_test(outcome_of_an_older_start_is_ignored),
        cmocka_unit_test(link_that_begins_anew_sends_in_order),
        cmocka_unit_test(stream_record_keeps_the_epoch_that_it_was_written_under),
        cmocka_unit_test(gap_within_a_link_ends_it_too),
        cmocka_unit_test(gap_ends_the_link_and_everything_comes_again),
        cmocka_unit_test(acknowledgement_of_an_older_term_is_dropped),
        cmocka_unit_test(lost_acknowledgement_makes_the_link_begin_anew),
        cmocka_unit_test(receiver_forgets_idle_links_and_goes_on),
        cmocka_unit_test(frame_of_a_forgotten_link_is_not_read),
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

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

/* Messages from A to B, all durable; A's frames are dropped. */
static void send_many(struct pair *pair, uint64_t from, uint64_t count, size_t body_bytes)
{
    for (uint64_t i = from; i < from + count; i++) {
        client_send_bytes(pair->a, i, 1000 + i, B, body_bytes);
        world_settle(&pair->world);
        client_skip(pair->a);
        client_ack(pair->a, i);
    }
    world_settle(&pair->world);
}

static void sender_hears_short_others_hear_whole(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    struct host_conn *a2 = host_connect(pair.host, (struct user_id){ A }, 2, nothing);
    client_send(pair.a, 1, 11, B, "text");
    world_settle(&pair.world);
    client_accepted(pair.a);
    assert_int_equal(client_entry(pair.a).entry.form, ENTRY_SENT);
    const struct seen_entry whole = client_entry(a2);
    assert_int_equal(whole.entry.form, ENTRY_MESSAGE);
    assert_int_equal(whole.entry.message.flags, ENTRY_FLAG_OWN);
    assert_int_equal(whole.entry.message.device.value, 1);
    assert_int_equal(whole.entry.message.counter, 1);
    world_close(&pair.world);
}

/* A second connection of the device hears whole what the first one sent. */
static void entry_is_whole_on_another_connection_of_the_device(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    client_send(pair.a, 1, 11, B, "text");
    host_offer(pair.host, pair.a);
    host_answer_loads(pair.host);
    host_offer(pair.host, pair.a);
    struct host_conn *again = host_accept(pair.host, (struct user_id){ A }, 1, nothing);
    host_offer(pair.host, again);
    world_settle(&pair.world);
    if (host_count_records(pair.host, RECORD_ENTRY, A) == 1) {
        assert_int_equal(again->welcome.last_counter, 1);
        assert_int_equal(client_entry(again).entry.form, ENTRY_MESSAGE);
    }
    world_close(&pair.world);
}

static void window_holds_back_until_acknowledged(void **state)
{
    static struct pair pair;
    (void)state;
    world_open(&pair.world, 1, NULL);
    pair.host = &pair.world.hosts[0];
    pair.a = host_connect(pair.host, (struct user_id){ A }, 1, nothing);
    pair.b = host_accept(pair.host, (struct user_id){ B }, 1, nothing);
    pair.b->hello.window = 1; /* clamped to one frame */
    host_offer(pair.host, pair.b);
    world_settle(&pair.world);
    assert_int_equal(pair.b->welcome.window, WINDOW_BYTES_MIN);
    send_many(&pair, 1, 3, 10000);
    assert_int_equal(client_waiting(pair.b), 1);
    assert_int_equal(client_entry(pair.b).seq, 1);
    client_ack(pair.b, 1);
    world_settle(&pair.world);
    assert_int_equal(client_entry(pair.b).seq, 2);
    assert_int_equal(client_waiting(pair.b), 0);
    client_ack(pair.b, 2);
    world_settle(&pair.world);
    assert_int_equal(client_entry(pair.b).seq, 3);
    world_close(&pair.world);
}

/* Whatever is acknowledged, what isn't never exceeds the window. */
static void unacknowledged_frames_never_exceed_the_window(void **state)
{
    static struct pair pair;
    uint64_t frame_end[200];
    size_t frame_bytes_of[200];
    size_t frames = 0;
    uint64_t acked = 0;
    (void)state;
    world_open(&pair.world, 1, NULL);
    pair.host = &pair.world.hosts[0];
    pair.a = host_connect(pair.host, (struct user_id){ A }, 1, nothing);
    pair.b = host_accept(pair.host, (struct user_id){ B }, 1, nothing);
    pair.b->hello.window = 32000;
    host_offer(pair.host, pair.b);
    world_settle(&pair.world);
    for (uint64_t i = 1; i <= 60; i++) {
        send_many(&pair, i, 1, i % 3 == 0 ? 14000 : 50 * i);
        while (client_waiting(pair.b) > 0) {
            const struct bytes *frame = &pair.b->feed.items[pair.b->feed.taken];
            frame_bytes_of[frames] = frame->count;
            pair.b->feed.taken++;
            const struct frame_view view = { .type = FRAME_TYPE_ENTRIES,
                                             .payload_bytes =
                                                 (uint32_t)(frame->count - FRAME_HEADER_BYTES),
                                             .payload = frame->at + FRAME_HEADER_BYTES };
            struct message_entries entries;

            assert_int_equal(message_decode_entries(&view, &entries), CODE_OK);
            frame_end[frames++] = entries.first + entries.count - 1;

            size_t open = 0;

            for (size_t f = 0; f < frames; f++) {
                open += frame_end[f] > acked ? frame_bytes_of[f] : 0;
            }
            assert_true(open <= 32000);
        }
        if (frames > 0 && i % 2 == 0) {
            acked = acked + (frame_end[frames - 1] - acked + 1) / 2;
            client_ack(pair.b, acked);
            world_settle(&pair.world);
        }
    }
    assert_true(frame_end[frames - 1] > 30);
    world_close(&pair.world);
}

static void room_holds_back_until_sent(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    pair.host->keep_unsent = true;
    for (uint64_t i = 1; i <= 4; i++) {
        client_send_bytes(pair.a, i, i, B, 9000);
        world_settle(&pair.world);
    }
    assert_int_equal(client_waiting(pair.b), 1);
    assert_true(pair.b->unsent <= 16384);
    assert_int_equal(client_entry(pair.b).seq, 1);
    for (uint64_t i = 2; i <= 4; i++) {
        host_sent(pair.host, pair.b);
        assert_int_equal(client_entry(pair.b).seq, i);
        assert_int_equal(client_waiting(pair.b), 0);
    }
    world_close(&pair.world);
}

/* Answers go on beyond the room, but a client that reads none isn't read for ever. */
static void client_that_reads_nothing_is_not_read(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, NULL);
    pair.host->keep_unsent = true;
    for (uint64_t i = 0; i < 2000; i++) {
        client_send(pair.a, 77, 1000 + i, B, "gap");
    }
    world_settle(&pair.world);
    assert_true(pair.a->blocked);
    assert_true(pair.a->unsent < 32768);
    assert_true(pair.a->in.taken < 1500);
    pair.host->keep_unsent = false;
    world_settle(&pair.world);
    assert_int_equal(pair.a->in.taken, pair.a->in.count);
    world_close(&pair.world);
}

static void small_ring(struct engine_config *config)
{
    config->recent_bytes = 65536;
}

static void reader_behind_the_ring_catches_up_from_the_store(void **state)
{
    static struct pair pair;
    struct engine_stats stats;
    (void)state;
    open_pair(&pair, small_ring);
    send_many(&pair, 1, 30, 5000); /* B's window is full long before */
    for (uint64_t seq = 1; seq <= 30; seq++) {
        if (client_waiting(pair.b) == 0) {
            client_ack(pair.b, seq - 1);
            world_settle(&pair.world);
        }
        const struct seen_entry entry = client_entry(pair.b);

        assert_int_equal(entry.seq, seq);
        assert_int_equal(entry.entry.message.body.byte_count, 5000);
    }
    engine_get_stats(pair.host->engine, &stats);
    assert_true(stats.catchups_from_store > 0);
    world_close(&pair.world);
}

static void small_messages_behind_the_ring_come_many_to_a_frame(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, small_ring);
    host_disconnect(pair.host, pair.b);
    send_many(&pair, 1, 300, 200);
    pair.b = host_connect(pair.host, (struct user_id){ B }, 1, nothing);
    for (uint64_t seq = 1; seq <= 300; seq++) {
        if (client_waiting(pair.b) == 0) {
            client_ack(pair.b, seq - 1);
            world_settle(&pair.world);
        }
        assert_int_equal(client_entry(pair.b).seq, seq);
    }
    assert_true(pair.b->feed.count < 20);
    world_close(&pair.world);
}

static void stale_snapshot_is_asked_again(void **state)
{
    static struct pair pair;
    struct engine_stats stats;
    (void)state;
    open_pair(&pair, small_ring);
    host_disconnect(pair.host, pair.b);
    send_many(&pair, 1, 40, 3000);
    host_flush(pair.host);
    pair.host->stale_answers = 3;
    pair.host->stale_at = 2;
    pair.b = host_connect(pair.host, (struct user_id){ B }, 1, nothing);
    world_settle(&pair.world);
    assert_int_equal(client_entry(pair.b).seq, 1);
    engine_get_stats(pair.host->engine, &stats);
    assert_int_equal(pair.host->stale_answers, 0);
    assert_int_equal(stats.loads_repeated, 3);
    assert_int_equal(pair.host->notes[NOTE_ENTRY_MISSING], 0);
    world_close(&pair.world);
}

static void missing_entry_is_noted_and_ends_the_connection(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, small_ring);
    host_disconnect(pair.host, pair.b);
    send_many(&pair, 1, 40, 3000);
    for (size_t i = 0; i < pair.host->record_count; i++) {
        struct record *record = &pair.host->records[i].record;

        if (record->type == RECORD_ENTRY && record->entry.user.value == B &&
            record->entry.seq == 1) {
            record->type = RECORD_OUT_END; /* the store forgot it */
        }
    }
    pair.b = host_connect(pair.host, (struct user_id){ B }, 1, nothing);
    assert_int_equal(pair.host->notes[NOTE_ENTRY_MISSING], 1);
    assert_true(pair.b->closed);
    assert_int_equal(client_error(pair.b).code, CODE_INTERNAL);
    world_close(&pair.world);
}

static void keep_100(struct engine_config *config)
{
    config->retention_count = 100;
    config->recent_bytes = 65536;
}

static void retention_raises_the_floor_with_slack(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, keep_100);
    host_disconnect(pair.host, pair.b);
    send_many(&pair, 1, 163, 10);
    assert_int_equal(host_count_records(pair.host, RECORD_FLOOR, 0), 0);
    send_many(&pair, 164, 1, 10);
    assert_int_equal(host_count_records(pair.host, RECORD_FLOOR, A), 1);
    assert_int_equal(host_last_record(pair.host, RECORD_FLOOR, B)->floor.floor, 65);
    struct host_conn *b = host_connect(pair.host, (struct user_id){ B }, 1, nothing);
    assert_int_equal(b->welcome.floor, 65);
    assert_int_equal(b->welcome.result, HELLO_RESULT_RESET);
    assert_int_equal(client_entry(b).seq, 65);
    struct message_cursor cursor = { b->welcome.epoch, 64, 0 };
    b = host_connect(pair.host, (struct user_id){ B }, 1, cursor);
    assert_int_equal(b->welcome.result, HELLO_RESULT_RESUME);
    cursor.seq = 63;
    b = host_connect(pair.host, (struct user_id){ B }, 1, cursor);
    assert_int_equal(b->welcome.result, HELLO_RESULT_RESET);
    world_close(&pair.world);
}

static void slow_reader_below_the_floor_is_told_trimmed(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, keep_100);
    send_many(&pair, 1, 160, 5000);
    assert_false(pair.b->closed); /* its window is full, its next entry is kept */
    send_many(&pair, 161, 10, 5000);
    assert_true(pair.b->closed);
    assert_int_equal(client_error(pair.b).code, CODE_TRIMMED);
    world_close(&pair.world);
}

static void load_that_fails_ends_the_catch_up(void **state)
{
    static struct pair pair;
    (void)state;
    open_pair(&pair, small_ring);
    host_disconnect(pair.host, pair.b);
    send_many(&pair, 1, 40, 3000);
    pair.b = host_accept(pair.host, (struct user_id){ B }, 1, nothing);
    host_offer(pair.host, pair.b);
    pair.host->fail_loads = true;
    world_settle(&pair.world);
    assert_true(pair.b->closed);
    assert_int_equal(client_error(pair.b).code, CODE_BUSY);
    world_close(&pair.world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sender_hears_short_others_hear_whole),
        cmocka_unit_test(entry_is_whole_on_another_connection_of_the_device),
        cmocka_unit_test(window_holds_back_until_acknowledged),
        cmocka_unit_test(unacknowledged_frames_never_exceed_the_window),
        cmocka_unit_test(room_holds_back_until_sent),
        cmocka_unit_test(client_that_reads_nothing_is_not_read),
        cmocka_unit_test(reader_behind_the_ring_catches_up_from_the_store),
        cmocka_unit_test(small_messages_behind_the_ring_come_many_to_a_frame),
        cmocka_unit_test(stale_snapshot_is_asked_again),
        cmocka_unit_test(missing_entry_is_noted_and_ends_the_connection),
        cmocka_unit_test(retention_raises_the_floor_with_slack),
        cmocka_unit_test(slow_reader_below_the_floor_is_told_trimmed),
        cmocka_unit_test(load_that_fails_ends_the_catch_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

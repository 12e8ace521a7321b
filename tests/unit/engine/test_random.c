/*
 * Random schedules: two homes, users with two devices, small pools; connections, crashes, links
 * and flushes come and go at any moment. At the end every message that was created is once in its
 * sender's log and once in its receiver's, or REFUSED, in order; and no device ever saw a gap.
 */
#include "tests/unit/engine/host.h"

#include <string.h>

#define USERS     8 /* the last two never log in */
#define DEVICES   2
#define LOGGED_IN 12U /* devices of the others, which are the first */
#define MESSAGES  24
#define STEPS     1500
#define SEEDS     300

struct message {
    uint64_t nonce;
    uint64_t to;
    uint64_t counter; /* 0: not sent */
    bool answered;
};

struct device {
    struct host *host;
    struct host_conn *conn;
    struct user_id user;
    uint32_t id;
    bool greeted;
    bool stopped; /* a SEND was refused for now: until all are answered */
    uint64_t expected;
    uint64_t next_counter;
    struct message messages[MESSAGES];
    uint32_t created;
    struct message_cursor cursor;
    uint64_t seen;
};

struct play {
    struct world world;
    struct device devices[USERS * DEVICES];
    struct user_id users[USERS];
    uint64_t random;
    uint64_t nonces;
};

static uint64_t draw(struct play *play, uint64_t below)
{
    play->random += UINT64_C(0x9e3779b97f4a7c15);
    return id_mix(play->random) % below;
}

static void small_pools(struct engine_config *config)
{
    config->users_max = 12;
    config->devices_max = 20;
    config->heads_max = 24;
    config->outcomes_max = 100;
    config->loads_max = 3;
    config->links_max = 24;
    config->recent_bytes = 65536;
    config->out_quota = 6;
}

static void small_pools_that_trim(struct engine_config *config)
{
    small_pools(config);
    config->retention_count = 8;
}

static void small_pools_that_accept(struct engine_config *config)
{
    small_pools(config);
    config->accept_unknown_users = true;
}

/* Clients */

static void send_message(struct device *device, struct message *message)
{
    message->counter = device->next_counter++;
    client_send_bytes(device->conn, message->counter, message->nonce, message->to,
                      50 + message->nonce % 2000);
}

static void on_welcome(struct device *device)
{
    const struct welcome *welcome = &device->conn->welcome;

    device->greeted = true;
    device->stopped = false;
    if (welcome->result == HELLO_RESULT_RESET) {
        assert_true(device->cursor.epoch == 0 || device->cursor.seq + 1 < welcome->floor);
        device->cursor =
            (struct message_cursor){ .epoch = welcome->epoch, .seq = welcome->floor - 1 };
    }
    device->seen = device->cursor.seq;
    /* What may have been taken keeps its counter; what wasn't is numbered anew. */
    device->next_counter = welcome->last_counter + 1;
    for (uint32_t i = 0; i < device->created; i++) {
        struct message *message = &device->messages[i];

        if (message->answered || message->counter == 0) {
            continue;
        }
        if (message->counter <= welcome->last_counter) {
            const uint64_t next = device->next_counter;

            device->next_counter = message->counter;
            send_message(device, message);
            device->next_counter = next;
        } else {
            send_message(device, message);
        }
    }
}

static struct message *message_of(struct device *device, uint64_t counter)
{
    for (uint32_t i = 0; i < device->created; i++) {
        if (device->messages[i].counter == counter && !device->messages[i].answered) {
            return &device->messages[i];
        }
    }
    return NULL;
}

static void renumber(struct device *device)
{
    for (uint32_t i = 0; i < device->created; i++) {
        if (!device->messages[i].answered && device->messages[i].counter != 0) {
            return; /* not all are answered */
        }
    }
    device->stopped = false;
    device->next_counter = device->expected;
}

/* A page holds messages of one conversation, none left out. */
static void check_page(const struct frame_view *view)
{
    struct message_page page;
    struct entry_message message;
    uint64_t seq = 0, last_seq = 0, last_n = 0;

    assert_int_equal(message_decode_page(view, &page), CODE_OK);
    while (page_next(&page, &seq, &message)) {
        assert_true(last_n == 0 || (message.n == last_n + 1 && message.prev == last_seq));
        last_seq = seq;
        last_n = message.n;
    }
}

static void check_error(const struct frame_view *view)
{
    struct message_error error;

    assert_int_equal(message_decode_error(view, &error), CODE_OK);
    if (error.request != 0) {
        assert_int_equal(code_class(error.code), CODE_CLASS_REQUEST);
    } else {
        assert_true(error.code == CODE_BUSY || error.code == CODE_REPLACED ||
                    error.code == CODE_TRIMMED);
    }
}

static void read_answers(struct device *device)
{
    struct host_conn *conn = device->conn;

    while (conn->out.taken < conn->out.count) {
        const struct frame_view view = client_next(conn);
        struct message_accepted accepted;
        struct message_rejected rejected;
        struct message *message;

        if (view.type == FRAME_TYPE_ACCEPTED) {
            assert_int_equal(message_decode_accepted(&view, &accepted), CODE_OK);
            message = message_of(device, accepted.counter);
            assert_non_null(message);
            message->answered = true;
        } else if (view.type == FRAME_TYPE_REJECTED) {
            assert_int_equal(message_decode_rejected(&view, &rejected), CODE_OK);
            assert_int_equal(code_class(rejected.code), CODE_CLASS_SEND_TEMPORARY);
            message = message_of(device, rejected.counter);
            assert_non_null(message);
            message->counter = 0;
            device->stopped = true;
            device->expected = rejected.expected;
        } else if (view.type == FRAME_TYPE_PAGE) {
            check_page(&view);
        } else {
            assert_int_equal(view.type, FRAME_TYPE_ERROR);
            check_error(&view);
        }
    }
    if (device->stopped) {
        renumber(device);
    }
}

static void read_feed(struct play *play, struct device *device)
{
    struct host_conn *conn = device->conn;

    while (conn->feed.taken < conn->feed.count) {
        const struct bytes *frame = &conn->feed.items[conn->feed.taken++];
        struct frame_view view;
        struct message_entries entries;

        assert_int_equal(frame_parse(frame->at, frame->count, &view), FRAME_OK);
        assert_int_equal(message_decode_entries(&view, &entries), CODE_OK);
        assert_int_equal(entries.first, device->seen + 1);
        device->seen += entries.count;
    }
    if (device->seen > device->cursor.seq && draw(play, 2) == 0) {
        device->cursor.seq += 1 + draw(play, device->seen - device->cursor.seq);
        client_ack(conn, device->cursor.seq);
    }
}

static void lose(struct device *device)
{
    device->conn = NULL;
    device->greeted = false;
}

static void step_device(struct play *play, struct device *device)
{
    if (device->conn == NULL) {
        device->conn = host_accept(device->host, device->user, device->id, device->cursor);
        host_offer(device->host, device->conn);
        return;
    }
    if (device->conn->welcomed && !device->greeted) {
        on_welcome(device);
    }
    if (device->greeted) {
        read_answers(device);
        read_feed(play, device);
    }
    if (device->conn->closed) {
        lose(device);
        return;
    }
    if (device->conn->blocked ? device->conn->unblocked : device->greeted) {
        host_offer(device->host, device->conn);
    }
    host_sent(device->host, device->conn);
}

static void create(struct play *play, struct device *device)
{
    if (device->created < MESSAGES) {
        device->messages[device->created++] =
            (struct message){ .nonce = ++play->nonces, .to = play->users[draw(play, USERS)].value };
    }
}

static void ask_history(struct play *play, struct device *device)
{
    if (device->greeted && !device->conn->closed) {
        client_history(device->conn, 1 + (uint32_t)draw(play, 1000),
                       play->users[draw(play, USERS)].value,
                       draw(play, 2) == 0 ? HISTORY_BEFORE : HISTORY_AFTER,
                       draw(play, 2) == 0 ? 0 : draw(play, device->seen + 2),
                       1 + (uint16_t)draw(play, 30), (uint32_t)draw(play, 20000));
    }
}

static void send_some(struct device *device)
{
    if (!device->greeted || device->stopped || device->conn->closed) {
        return;
    }
    for (uint32_t i = 0; i < device->created; i++) {
        if (!device->messages[i].answered && device->messages[i].counter == 0) {
            send_message(device, &device->messages[i]);
        }
    }
}

/* World */

static void answer_some(struct play *play, struct host *host)
{
    if (draw(play, 6) == 0) {
        host->stale_answers = 1;
        host->stale_at = draw(play, host->flushed + 1);
    }
    host->fail_loads = draw(play, 20) == 0;
    host_answer_loads(host);
    host->fail_loads = false;
    host->stale_answers = 0;
}

static void crash(struct play *play, struct host *host)
{
    host_restart(host);
    for (uint32_t i = 0; i < USERS * DEVICES; i++) {
        if (play->devices[i].host == host) {
            lose(&play->devices[i]);
        }
    }
}

static void step(struct play *play)
{
    struct device *device = &play->devices[draw(play, LOGGED_IN)];
    struct host *host = &play->world.hosts[draw(play, 2)];

    switch (draw(play, 25)) {
    case 0:
    case 1:
    case 2:
        create(play, device);
        send_some(device);
        break;
    case 3:
    case 4:
        host_durable(host);
        break;
    case 5:
        host_flush(host);
        break;
    case 6:
    case 7:
    case 8:
        answer_some(play, host);
        break;
    case 9:
    case 10:
    case 11:
        host_deliver_stream(host);
        break;
    case 12:
        if (device->conn != NULL && draw(play, 4) == 0) {
            host_disconnect(device->host, device->conn);
            lose(device);
        }
        break;
    case 13:
        if (draw(play, 25) == 0) {
            crash(play, host);
        }
        break;
    case 14:
        if (draw(play, 4) == 0) {
            /* What is on its way to the other home may be lost. */
            struct host *other = &play->world.hosts[host == &play->world.hosts[0] ? 1 : 0];

            for (uint32_t i = 0; i < USERS; i++) {
                engine_on_link_down(host->engine, partition_of(play->users[i].value));
                engine_on_link_down(other->engine, partition_of(play->users[i].value));
            }
            if (draw(play, 2) == 0) {
                other->streams.taken = other->streams.count;
            }
            host_run(host);
            host_run(other);
        }
        break;
    case 15:
        ask_history(play, device);
        break;
    default:
        step_device(play, device);
    }
    play->world.now_unix_ms += draw(play, 100);
}

static bool all_done(const struct play *play)
{
    for (int h = 0; h < 2; h++) {
        struct engine_stats stats;

        engine_get_stats(play->world.hosts[h].engine, &stats);
        if (stats.outs > 0 || stats.pending > 0) {
            return false;
        }
    }
    for (uint32_t i = 0; i < LOGGED_IN; i++) {
        for (uint32_t m = 0; m < play->devices[i].created; m++) {
            if (!play->devices[i].messages[m].answered) {
                return false;
            }
        }
    }
    return true;
}

static void heal(struct play *play)
{
    for (int round = 0; round < 400; round++) {
        for (uint32_t i = 0; i < LOGGED_IN; i++) {
            step_device(play, &play->devices[i]);
            send_some(&play->devices[i]);
        }
        for (int h = 0; h < 2; h++) {
            struct host *host = &play->world.hosts[h];

            host_answer_loads(host);
            host_durable(host);
            host_flush(host);
            while (host_deliver_stream(host)) {
            }
        }
        play->world.now_unix_ms += 100;
        if (round > 10 && all_done(play)) {
            break;
        }
    }
    assert_true(all_done(play));
}

/* Checks */

static const struct log_entry *find(const struct host *host, uint64_t user, uint64_t id,
                                    uint8_t form, size_t *count)
{
    const struct log_entry *found = NULL;

    *count = 0;
    for (size_t i = 0; i < host->record_count; i++) {
        const struct record *record = &host->records[i].record;

        if (record->type == RECORD_ENTRY && record->entry.user.value == user &&
            record->entry.id.value == id && record->entry.form == form) {
            found = &record->entry;
            (*count)++;
        }
    }
    return found;
}

static struct host *home_of(struct play *play, uint64_t user)
{
    return &play->world.hosts[partition_of(user).value % 2];
}

static void check_message(struct play *play, const struct device *device,
                          const struct message *message)
{
    const struct log_entry *own = NULL;
    size_t own_count = 0, received, refused;

    for (size_t i = 0; i < device->host->record_count; i++) {
        const struct record *record = &device->host->records[i].record;

        if (record->type == RECORD_ENTRY && record->entry.user.value == device->user.value &&
            (record->entry.flags & LOG_ENTRY_FLAG_OWN) != 0 &&
            memcmp(record->entry.nonce, &message->nonce, sizeof message->nonce) == 0) {
            own = &record->entry;
            own_count++;
        }
    }
    assert_int_equal(own_count, 1);
    assert_non_null(own);
    if (own == NULL) {
        return;
    }
    assert_int_equal(own->conversation.value, message->to);
    if (message->to == device->user.value) {
        return;
    }
    find(home_of(play, message->to), message->to, own->id.value, LOG_ENTRY_MESSAGE, &received);
    find(device->host, device->user.value, own->id.value, LOG_ENTRY_REFUSED, &refused);
    assert_int_equal(received + refused, 1);
}

static void check_log(struct play *play, uint64_t user)
{
    const struct host *host = home_of(play, user);
    uint64_t seq = 0;
    struct origin origins[USERS] = { 0 };
    uint64_t lasts[USERS] = { 0 };

    for (size_t i = 0; i < host->record_count; i++) {
        const struct record *record = &host->records[i].record;
        const struct log_entry *entry = &record->entry;

        if (record->type != RECORD_ENTRY || entry->user.value != user) {
            continue;
        }
        assert_int_equal(entry->seq, seq + 1);
        seq = entry->seq;
        for (uint32_t u = 0; u < USERS; u++) {
            if (entry->form != LOG_ENTRY_MESSAGE ||
                play->users[u].value != entry->conversation.value) {
                continue;
            }
            assert_int_equal(entry->prev, lasts[u]);
            lasts[u] = entry->seq;
            if ((entry->flags & LOG_ENTRY_FLAG_OWN) == 0) {
                assert_true(origin_compare(origins[u], entry->origin) < 0);
                origins[u] = entry->origin;
            }
        }
    }
}

static void play_seed(uint64_t seed)
{
    void (*const configs[])(struct engine_config *) = { small_pools, small_pools_that_trim,
                                                        small_pools_that_accept };
    static struct play play;

    memset(&play, 0, sizeof play);
    play.random = seed;
    world_open(&play.world, 2, configs[seed % 3]);
    for (uint32_t i = 0; i < USERS; i++) {
        play.users[i] = world_user(&play.world, i % 2, i / 2);
        for (uint32_t d = 0; d < DEVICES; d++) {
            play.devices[i * DEVICES + d] = (struct device){ .host = &play.world.hosts[i % 2],
                                                             .user = play.users[i],
                                                             .id = d + 1 };
        }
    }
    for (int i = 0; i < STEPS; i++) {
        step(&play);
    }
    heal(&play);
    for (uint32_t i = 0; i < LOGGED_IN; i++) {
        const struct device *device = &play.devices[i];

        for (uint32_t m = 0; m < device->created; m++) {
            check_message(&play, device, &device->messages[m]);
        }
    }
    for (uint32_t i = 0; i < USERS; i++) {
        check_log(&play, play.users[i].value);
    }
    for (int h = 0; h < 2; h++) {
        struct engine_stats stats;

        engine_get_stats(play.world.hosts[h].engine, &stats);
        assert_int_equal(stats.outs, 0);
        assert_int_equal(stats.pending, 0);
        assert_int_equal(play.world.hosts[h].notes[NOTE_ENTRY_MISSING], 0);
        assert_int_equal(play.world.hosts[h].notes[NOTE_STORE_ROLLED_BACK], 0);
    }
    world_close(&play.world);
}

static uint64_t playing; /* 0: all is well */

static int tell_seed(void **state)
{
    (void)state;
    if (playing != 0) {
        print_error("seed %llu failed\n", (unsigned long long)playing);
    }
    return 0;
}

static void every_message_arrives_once_in_order_whatever_happens(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        playing = seed;
        play_seed(seed);
    }
    playing = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_message_arrives_once_in_order_whatever_happens, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/unit/engine/host.h"

#include <stdlib.h>
#include <string.h>

#define NOW_UNIX_MS UINT64_C(1790000000000)

static struct bytes copy_bytes(const uint8_t *from, size_t count)
{
    struct bytes bytes = { malloc(count > 0 ? count : 1), count };

    memcpy(bytes.at, from, count);
    return bytes;
}

void host_list_add(struct bytes_list *list, const uint8_t *from, size_t count)
{
    list->items = realloc(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = copy_bytes(from, count);
}

static void list_free(struct bytes_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].at);
    }
    free(list->items);
    *list = (struct bytes_list){ 0 };
}

static bool is_home(const struct host *host, uint16_t partition)
{
    return host->world->host_count == 1 || (partition % 2 == 1) == host->parity;
}

void host_begin_turn(struct host *host)
{
    engine_begin_turn(host->engine, host->world->now_unix_ms, &host->budget);
}

/* Store */

struct out_found {
    struct out_row row;
    bool ended;
};

static void open_partitions(struct host *host)
{
    for (uint32_t p = 0; p < PARTITION_COUNT; p++) {
        static struct out_row rows[512];
        size_t count = 0;
        uint64_t last_id = 0;

        if (!is_home(host, (uint16_t)p)) {
            continue;
        }
        for (size_t i = 0; i < host->record_count; i++) {
            const struct record *record = &host->records[i].record;

            if (record->partition.value != p) {
                continue;
            }
            if (record->type == RECORD_ENTRY && (record->entry.flags & LOG_ENTRY_FLAG_OWN) != 0) {
                last_id = record->entry.id.value;
            }
            if (record->type == RECORD_ENTRY && (record->entry.flags & LOG_ENTRY_FLAG_OUT) != 0) {
                assert_true(count < 512);
                rows[count++] = (struct out_row){ .id = record->entry.id,
                                                  .user = record->entry.user,
                                                  .epoch = record->entry.epoch,
                                                  .seq = record->entry.seq,
                                                  .to = { record->entry.conversation.value } };
            }
            if (record->type == RECORD_OUT_END) {
                for (size_t j = 0; j < count; j++) {
                    if (rows[j].id.value == record->out_end.id.value) {
                        memmove(&rows[j], &rows[j + 1], (count - j - 1) * sizeof rows[0]);
                        count--;
                        break;
                    }
                }
            }
        }
        engine_on_partition_open(host->engine, (struct partition_id){ (uint16_t)p },
                                 (struct message_id){ last_id }, rows, count);
    }
}

static void start(struct host *host)
{
    struct hf_error error;

    host->config.term = ++host->world->term;
    host->engine = engine_open(&host->config, &error);
    assert_non_null(host->engine);
    host_begin_turn(host);
    open_partitions(host);
}

void world_open(struct world *world, uint32_t host_count,
                void (*change)(struct engine_config *config))
{
    memset(world, 0, sizeof *world);
    world->host_count = host_count;
    world->now_unix_ms = NOW_UNIX_MS;
    client_forget();
    for (uint32_t i = 0; i < host_count; i++) {
        struct host *host = &world->hosts[i];

        host->world = world;
        host->parity = i == 1;
        host->next_accept = 1;
        host->budget = (struct engine_budget){ .append_bytes = UINT64_C(1) << 40,
                                               .stream_frames = UINT32_MAX };
        host->config = (struct engine_config){ .users_max = 64,
                                               .devices_max = 128,
                                               .heads_max = 128,
                                               .outcomes_max = 1024,
                                               .sessions_max = HOST_CONNS,
                                               .pending_max = 512,
                                               .outs_max = 256,
                                               .links_max = 64,
                                               .loads_max = 32,
                                               .recent_bytes = (size_t)1 << 20,
                                               .effect_bytes = (size_t)1 << 20,
                                               .hash_seed = 7,
                                               .out_quota = 128,
                                               .window_bytes_max = WINDOW_BYTES_MAX };
        if (change != NULL) {
            change(&host->config);
        }
        start(host);
    }
}

static void free_conns(struct host *host)
{
    for (uint32_t i = 0; i < host->conn_count; i++) {
        list_free(&host->conns[i].in);
        list_free(&host->conns[i].out);
        list_free(&host->conns[i].feed);
        host->conns[i] = (struct host_conn){ 0 };
    }
    host->conn_count = 0;
}

static void free_record(struct kept_record *kept)
{
    free(kept->bytes.at);
}

void world_close(struct world *world)
{
    for (uint32_t i = 0; i < world->host_count; i++) {
        struct host *host = &world->hosts[i];

        engine_close(host->engine);
        free_conns(host);
        for (size_t j = 0; j < host->record_count; j++) {
            free_record(&host->records[j]);
        }
        free(host->records);
        free(host->loads);
        list_free(&host->streams);
    }
}

void host_restart(struct host *host)
{
    size_t kept = 0;

    engine_close(host->engine);
    free_conns(host);
    for (size_t i = 0; i < host->record_count; i++) {
        if (host->records[i].ticket <= host->durable) {
            host->records[i].ticket = 0;
            host->records[kept++] = host->records[i];
        } else {
            free_record(&host->records[i]);
        }
    }
    host->record_count = kept;
    host->appended = 0;
    host->durable = 0;
    host->flushed = 0;
    host->load_count = 0;
    list_free(&host->streams);
    for (uint32_t i = 0; i < host->world->host_count; i++) {
        struct host *other = &host->world->hosts[i];

        if (other == host) {
            continue;
        }
        list_free(&other->streams);
        for (uint32_t p = 0; p < PARTITION_COUNT; p++) {
            engine_on_link_down(other->engine, (struct partition_id){ (uint16_t)p });
        }
    }
    start(host);
    for (uint32_t i = 0; i < host->world->host_count; i++) {
        host_run(&host->world->hosts[i]);
    }
}

struct user_id world_user(const struct world *world, uint32_t host, uint32_t k)
{
    for (uint64_t id = 1000;; id++) {
        if (is_home(&world->hosts[host], partition_of(id).value) && k-- == 0) {
            return (struct user_id){ id };
        }
    }
}

/* Effects */

static void keep_append(struct host *host, const struct effect *effect)
{
    size_t at = 0;

    assert_int_equal(effect->ticket, host->appended + 1);
    host->appended = effect->ticket;
    assert_true(effect->byte_count > 0);
    while (at < effect->byte_count) {
        struct record record;
        size_t bytes;

        assert_int_equal(record_parse(effect->bytes + at, effect->byte_count - at, &record, &bytes),
                         RECORD_OK);
        host->records = realloc(host->records, (host->record_count + 1) * sizeof *host->records);

        struct kept_record *kept = &host->records[host->record_count++];

        kept->ticket = effect->ticket;
        kept->bytes = copy_bytes(effect->bytes + at, bytes);
        assert_int_equal(record_parse(kept->bytes.at, bytes, &kept->record, &bytes), RECORD_OK);
        assert_int_equal(partition_of(kept->record.user.user.value).value,
                         kept->record.partition.value);
        at += bytes;
    }
}

static struct host_conn *conn_of(struct host *host, struct conn_ref ref)
{
    assert_true(ref.slot < host->conn_count);
    assert_int_equal(ref.generation, host->conns[ref.slot].ref.generation);
    return &host->conns[ref.slot];
}

static void give_stream(struct host *host, const struct effect *effect)
{
    for (uint32_t i = 0; i < host->world->host_count; i++) {
        struct host *to = &host->world->hosts[i];

        if (is_home(to, effect->partition.value)) {
            host_list_add(&to->streams, effect->bytes, effect->byte_count);
        }
    }
}

static void take_effect(struct host *host, const struct effect *effect)
{
    struct host_conn *conn;

    switch (effect->kind) {
    case EFFECT_APPEND:
        keep_append(host, effect);
        break;
    case EFFECT_SEND:
        conn = conn_of(host, effect->conn);
        assert_false(conn->closed);
        assert_true(conn->welcomed || effect->bytes[3] == FRAME_TYPE_ERROR);
        host_list_add(effect->bytes[3] == FRAME_TYPE_ENTRIES ? &conn->feed : &conn->out,
                      effect->bytes, effect->byte_count);
        conn->unsent += effect->byte_count;
        break;
    case EFFECT_WELCOME:
        conn = conn_of(host, effect->conn);
        assert_false(conn->welcomed);
        conn->welcomed = true;
        conn->welcome = effect->welcome;
        break;
    case EFFECT_CLOSE:
        conn_of(host, effect->conn)->closed = true;
        break;
    case EFFECT_UNBLOCK:
        conn_of(host, effect->conn)->unblocked = true;
        break;
    case EFFECT_STREAM:
        give_stream(host, effect);
        break;
    case EFFECT_LOAD:
        host->loads = realloc(host->loads, (host->load_count + 1) * sizeof *host->loads);
        host->loads[host->load_count++] = effect->load;
        break;
    case EFFECT_WANT_FLUSH:
        host->want_flush++;
        break;
    case EFFECT_NOTE:
        host->notes[effect->note.kind]++;
        break;
    }
}

void host_take_effects(struct host *host)
{
    const struct effect *effect;

    while ((effect = engine_next_effect(host->engine)) != NULL) {
        take_effect(host, effect);
    }
    engine_clear_effects(host->engine);
}

void host_run(struct host *host)
{
    bool more;

    host_begin_turn(host);
    host_take_effects(host);
    do {
        more = engine_run(host->engine);
        host_take_effects(host);
    } while (more);
}

void host_durable(struct host *host)
{
    host->durable = host->appended;
    engine_on_durable(host->engine, host->durable);
    host_run(host);
}

void host_flush(struct host *host)
{
    host->flushed = host->durable;
    engine_on_flushed(host->engine, host->flushed, host->flushed);
    host_run(host);
}

/* Streams */

bool host_deliver_stream(struct host *host)
{
    if (host->streams.taken == host->streams.count) {
        return false;
    }
    const struct bytes *frame = &host->streams.items[host->streams.taken];

    host_begin_turn(host);

    const enum engine_result result = engine_on_stream(host->engine, frame->at, frame->count);

    if (result == ENGINE_TAKEN) {
        host->streams.taken++;
    }
    host_run(host);
    return result == ENGINE_TAKEN;
}

/* Connections */

struct host_conn *host_accept(struct host *host, struct user_id user, uint32_t device,
                              struct message_cursor cursor)
{
    assert_true(host->conn_count < HOST_CONNS);

    struct host_conn *conn = &host->conns[host->conn_count];

    *conn = (struct host_conn){ .ref = { host->conn_count, 77 },
                                .hello = { .version = PROTOCOL_VERSION,
                                           .user = user,
                                           .device = { device },
                                           .cursor = cursor },
                                .claims = { .user = user, .device = { device } },
                                .accepted_at = host->next_accept++ };
    host->conn_count++;
    return conn;
}

void host_offer(struct host *host, struct host_conn *conn)
{
    while (!conn->closed) {
        enum engine_result result;

        host_begin_turn(host);
        conn->unblocked = false;
        if (!conn->offered_hello) {
            result = engine_on_hello(host->engine, conn->ref, conn->accepted_at, &conn->claims,
                                     &conn->hello);
        } else if (conn->in.taken < conn->in.count) {
            const struct bytes *frame = &conn->in.items[conn->in.taken];
            struct frame_view view;

            assert_int_equal(frame_parse(frame->at, frame->count, &view), FRAME_OK);
            result = engine_on_frame(host->engine, conn->ref, &view);
        } else {
            return;
        }
        conn->blocked = result == ENGINE_BLOCKED;
        if (result == ENGINE_TAKEN) {
            if (conn->offered_hello) {
                conn->in.taken++;
            }
            conn->offered_hello = true;
        }
        host_run(host);
        if (result != ENGINE_TAKEN) {
            return;
        }
    }
}

void host_disconnect(struct host *host, struct host_conn *conn)
{
    host_begin_turn(host);
    conn->closed = true;
    engine_on_closed(host->engine, conn->ref);
    host_run(host);
}

void host_sent(struct host *host, struct host_conn *conn)
{
    if (conn->unsent > 0) {
        engine_on_sent(host->engine, conn->ref, conn->unsent);
        conn->unsent = 0;
        host_run(host);
    }
}

struct host_conn *host_connect(struct host *host, struct user_id user, uint32_t device,
                               struct message_cursor cursor)
{
    struct host_conn *conn = host_accept(host, user, device, cursor);

    host_offer(host, conn);
    world_settle(host->world);
    assert_true(conn->welcomed);
    return conn;
}

static bool settle_conn(struct host *host, struct host_conn *conn)
{
    bool worked = false;

    if (conn->unsent > 0 && !host->keep_unsent) {
        host_sent(host, conn);
        worked = true;
    }
    const bool has_input = conn->offered_hello && conn->in.taken < conn->in.count;

    if (!conn->closed && ((conn->blocked && conn->unblocked) || (!conn->blocked && has_input))) {
        host_offer(host, conn);
        worked = true;
    }
    return worked;
}

static bool settle_host(struct host *host)
{
    bool worked = false;

    for (uint32_t i = 0; i < host->conn_count; i++) {
        worked = settle_conn(host, &host->conns[i]) || worked;
    }
    if (host->load_count > 0) {
        host_answer_loads(host);
        worked = true;
    }
    if (host->durable < host->appended) {
        host_durable(host);
        worked = true;
    }
    while (host_deliver_stream(host)) {
        worked = true;
    }
    return worked || host->load_count > 0;
}

void world_settle(struct world *world)
{
    bool worked = true;

    for (int rounds = 0; worked; rounds++) {
        worked = false;
        assert_true(rounds < 2000); /* it never comes to rest */
        for (uint32_t i = 0; i < world->host_count; i++) {
            worked = settle_host(&world->hosts[i]) || worked;
        }
    }
}

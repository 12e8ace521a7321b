/* One core's reactor: turns, input, and what the engine wants done. */
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "store/recover.h"
#include "tests/sim/fail.h"
#include "tests/sim/host.h"

#define INDEX_ENTRIES    65536
#define READ_BYTES_MAX   (64U * 1024)
#define RING_BYTES       65536 /* of a journal */
#define EFFECT_BYTES     524288
#define DOWN_BYTES_MAX   49152 /* room, a frame, and the answers */
#define TURN_INPUT_MAX   6
#define RUNS_MAX         100000 /* of one turn: an engine that never ends is a bug */
#define MORE_FRAMES      300    /* in a thousand, of the turns that lack room for them */
#define PRESSURE_SENDS   750
#define PRESSURE_STREAMS 900
#define KEEPALIVE_S      300
#define LIFE_S           86400
#define RESUME_BYTES     4

/* ---- Open and close ---- */

static void open_engine(struct host *host, struct core *core)
{
    const struct sim_options *options = host->options;
    struct hf_error error = { 0 };
    const struct engine_config engine = {
        .users_max = options->users_max,
        .devices_max = options->devices_max,
        .heads_max = options->heads_max,
        .outcomes_max = options->outcomes_max,
        .sessions_max = NET_CONNECTIONS_MAX,
        .pending_max = options->pending_max,
        .outs_max = options->outs_max, /* a start may find more */
        .links_max = options->links_max,
        .loads_max = options->loads_max,
        .recent_bytes = options->recent_bytes,
        .effect_bytes = EFFECT_BYTES,
        .retention_count = options->retention_count,
        .hash_seed = options->seed,
        .out_quota = options->out_quota,
        .term = host->disk->manifest.incarnation,
        .window_bytes_max = options->window_bytes_max,
        .accept_unknown_users = options->accept_unknown_users != 0,
        .touch = options->touch != 0,
    };
    core->engine = engine_open(&engine, &error);
    SIM_CHECK(core->engine != NULL, "engine: %s", error.text);
}

void host_core_open(struct host *host, struct core *core, uint64_t start_lsn)
{
    const struct manifest *manifest = &host->disk->manifest;
    struct hf_error error = { 0 };
    const struct journal_config journal = {
        .identity = {
            .directory_id = recover_block_id(manifest->directory_id),
            .incarnation = manifest->incarnation,
            .core = core->number,
        },
        .start_lsn = start_lsn,
        .segment_bytes = manifest->segment_bytes,
        .segment_count = manifest->segment_count,
        .ring_bytes = RING_BYTES,
        .marks = true,
    };

    core->identity = journal.identity;
    core->disk_core = (struct disk_core){ .disk = host->disk, .core = core->number };
    for (uint16_t i = 0; i < manifest->volume_count; i++) {
        core->volumes[i] =
            manifest->core_of_volume[i] == core->number ? host->disk->volumes[i] : NULL;
    }
    core->journal = journal_open(&journal, &error);
    SIM_CHECK(core->journal != NULL, "journal: %s", error.text);
    core->index = index_open(INDEX_ENTRIES, &error);
    SIM_CHECK(core->index != NULL, "index: %s", error.text);
    core->reader = reader_open(core->volumes, manifest->volume_count, READ_BYTES_MAX, &error);
    SIM_CHECK(core->reader != NULL, "reader: %s", error.text);
    open_engine(host, core);
}

static void free_load(struct host_load *load)
{
    free(load->devices);
    free(load->entries);
    *load = (struct host_load){ 0 };
}

/* What only the engine knows of what it met. */
static void count_stats(struct host *host, const struct core *core)
{
    struct engine_stats stats;
    uint64_t *counts = host->hazards->counts;

    engine_get_stats(core->engine, &stats);
    counts[HAZARD_LOADS_REPEATED] += stats.loads_repeated;
    counts[HAZARD_PUSHED] += stats.entries_pushed;
    counts[HAZARD_CATCHUPS] += stats.catchups_from_store;
    counts[HAZARD_STREAMED] += stats.streams_received;
    counts[HAZARD_BEHIND] += stats.streams_behind;
    counts[HAZARD_STREAM_REPEATED] += stats.streams_repeated;
}

void host_core_close(struct host *host, struct core *core)
{
    count_stats(host, core);
    engine_close(core->engine);
    journal_close(core->journal);
    index_close(core->index);
    flush_close(core->flush);
    flush_close(core->spare_flush);
    reader_close(core->reader);
    host_end_sweep(core);
    parcels_clear(&core->unwritten);
    parcels_clear(&core->late);
    for (uint16_t i = 0; i < DISK_CORES_MAX; i++) {
        parcels_clear(&core->inbox[i]);
    }
    for (size_t i = 0; i < sizeof core->loads / sizeof core->loads[0]; i++) {
        free_load(&core->loads[i]);
    }
    free(core->seen);
}

/* ---- Effects ---- */

static void hash_bytes(struct host *host, const void *bytes, size_t byte_count)
{
    const uint8_t *byte = bytes;
    uint64_t hash = host->effects_hash;

    for (size_t i = 0; i < byte_count; i++) {
        hash = (hash ^ byte[i]) * UINT64_C(1099511628211);
    }
    host->effects_hash = hash;
}

static void hash_number(struct host *host, uint64_t number)
{
    hash_bytes(host, &number, sizeof number);
}

/* Field by field, for what lies between them is nobody's. */
static void hash_effect(struct host *host, const struct core *core, const struct effect *effect)
{
    hash_number(host, (uint64_t)core->number << 32 | (uint64_t)effect->kind);
    hash_number(host, (uint64_t)effect->conn.slot << 32 | effect->conn.generation);
    hash_number(host, effect->ticket << 16 | effect->partition.value);
    hash_bytes(host, effect->bytes, effect->byte_count);
    if (effect->kind == EFFECT_LOAD) {
        hash_number(host, (uint64_t)effect->load.id << 32 | (uint64_t)effect->load.kind);
        hash_number(host, effect->load.user.value);
        hash_number(host, effect->load.conversation.value);
        hash_number(host, effect->load.from);
        hash_number(host, effect->load.to);
        hash_number(host, effect->load.need_lsn);
    } else if (effect->kind == EFFECT_WELCOME) {
        hash_number(host, effect->welcome.user.value);
        hash_number(host, effect->welcome.epoch);
        hash_number(host, effect->welcome.head);
        hash_number(host, effect->welcome.floor);
        hash_number(host, effect->welcome.last_counter);
    }
}

static void on_welcome(struct host *host, const struct effect *effect)
{
    struct connection *connection = net_find(host->net, effect->conn);
    const struct welcome *welcome = &effect->welcome;
    uint8_t frame[HELLO_OK_FRAME_BYTES_MAX];
    uint8_t token[RESUME_BYTES];
    const struct message_hello_ok ok = {
        .time_unix_ms = host->now_unix_ms,
        .epoch = welcome->epoch,
        .head = welcome->head,
        .floor = welcome->floor,
        .sver = welcome->sver,
        .last_counter = welcome->last_counter,
        .result = (enum hello_result)welcome->result,
        .keepalive_s = KEEPALIVE_S,
        .life_s = LIFE_S,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .sends_outstanding_max = SENDS_OUTSTANDING_MAX,
        .requests_outstanding_max = REQUESTS_OUTSTANDING_MAX,
        .window = welcome->window,
        .resume_token = { .bytes = token, .byte_count = RESUME_BYTES },
    };

    SIM_CHECK(connection != NULL && connection->server_end, "a welcome for nobody");
    checks_on_welcome(host, connection, welcome);
    store_be32(token, welcome->generation);

    const size_t byte_count = message_encode_hello_ok(frame, sizeof frame, &ok);

    HF_ASSERT(byte_count > 0);
    queue_put(&connection->down, frame, byte_count);
}

static void on_send(struct host *host, const struct effect *effect)
{
    struct connection *connection = net_find(host->net, effect->conn);
    const struct byte_queue frame = {
        .bytes = (uint8_t *)(uintptr_t)effect->bytes,
        .end = effect->byte_count,
    };
    struct frame_view view;

    SIM_CHECK(connection != NULL && connection->server_end, "a frame for nobody");
    SIM_CHECK(queue_peek(&frame, &view) && frame_bytes(&view) == effect->byte_count,
              "the engine sends what isn't one frame");
    checks_on_send(host, connection, &view);
    if (connection->client_end) {
        queue_put(&connection->down, effect->bytes, effect->byte_count);
        SIM_CHECK(queue_bytes(&connection->down) <= DOWN_BYTES_MAX,
                  "%zu bytes wait for one connection (I6)", queue_bytes(&connection->down));
    }
}

static void on_close(struct host *host, const struct effect *effect)
{
    struct connection *connection = net_find(host->net, effect->conn);

    SIM_CHECK(connection != NULL && connection->server_end, "a close of what is closed");
    sim_say("connection %u.%u is closed by the engine, %zu frames unread", effect->conn.slot,
            effect->conn.generation, queue_frames(&connection->up));
    host->hazards->counts[HAZARD_FENCED_SENDS] +=
        connection->client_end ? 0 : queue_frames(&connection->up);
    net_server_leaves(connection, queue_bytes(&connection->down));
}

static void on_note(struct host *host, const struct effect *effect)
{
    switch (effect->note.kind) {
    case NOTE_REPLACED:
        host_count(host, HAZARD_FENCED);
        break;
    case NOTE_ENTRY_MISSING:
        sim_fail("user %llx: the engine misses an entry",
                 (unsigned long long)effect->note.user.value);
    case NOTE_STORE_ROLLED_BACK:
        SIM_CHECK(host->options->client_rogue > 0, "user %llx, device %u: a cursor beyond the head",
                  (unsigned long long)effect->note.user.value, effect->note.device.value);
        break;
    case NOTE_USER_CREATED:
    case NOTE_DEVICE_CREATED:
        break;
    }
}

static void on_effect(struct host *host, struct core *core, const struct effect *effect)
{
    struct connection *connection;

    hash_effect(host, core, effect);
    switch (effect->kind) {
    case EFFECT_APPEND:
        host_on_append(host, core, effect);
        break;
    case EFFECT_SEND:
        on_send(host, effect);
        break;
    case EFFECT_WELCOME:
        on_welcome(host, effect);
        break;
    case EFFECT_CLOSE:
        on_close(host, effect);
        break;
    case EFFECT_UNBLOCK:
        connection = net_find(host->net, effect->conn);
        SIM_CHECK(connection != NULL && connection->server_end, "an unblock of nobody");
        connection->blocked = false;
        break;
    case EFFECT_STREAM:
        host_on_stream(host, core, effect);
        break;
    case EFFECT_LOAD:
        host_on_load(host, core, &effect->load);
        break;
    case EFFECT_WANT_FLUSH:
        core->flush_wanted = true;
        break;
    case EFFECT_NOTE:
        on_note(host, effect);
        break;
    }
}

void host_take_effects(struct host *host, struct core *core)
{
    const struct effect *effect;

    while ((effect = engine_next_effect(core->engine)) != NULL) {
        on_effect(host, core, effect);
    }
    engine_clear_effects(core->engine);
}

void host_run_engine(struct host *host, struct core *core)
{
    int runs = 0;
    bool more;

    do {
        more = engine_run(core->engine);
        host_take_effects(host, core);
        SIM_CHECK(++runs < RUNS_MAX, "core %u: engine_run() never ends", core->number);
        if (!more && engine_waits_for_stream_frames(core->engine) &&
            prng_chance(host->prng, MORE_FRAMES)) {
            engine_set_stream_frames(core->engine, host->options->stream_frames);
            more = true;
        }
    } while (more);
}

void host_begin_turn(struct host *host, struct core *core)
{
    const uint32_t used = journal_used_permille(core->journal);
    const struct engine_budget budget = {
        .append_bytes = journal_room(core->journal),
        .stream_frames = host->calm ? UINT32_MAX : host->options->stream_frames,
        .refuse_sends = used >= PRESSURE_SENDS,
        .only_streams = used >= PRESSURE_STREAMS,
    };

    if (budget.refuse_sends) {
        host_count(host, HAZARD_JOURNAL_PRESSURE);
    }
    engine_begin_turn(core->engine, host->now_unix_ms, &budget);
}

/* ---- Input ---- */

enum input_kind {
    INPUT_DURABLE,
    INPUT_FLUSHED,
    INPUT_LOADED,
    INPUT_MAIL,
    INPUT_LATE,
    INPUT_FRAME,
    INPUT_ENDED,
    INPUT_SENT,
};

struct input {
    enum input_kind kind;
    uint32_t index;
};

struct inputs {
    uint32_t count;
    struct input list[3 * NET_CONNECTIONS_MAX];
};

static void add_input(struct inputs *inputs, enum input_kind kind, uint32_t index)
{
    HF_ASSERT(inputs->count < sizeof inputs->list / sizeof inputs->list[0]);
    inputs->list[inputs->count++] = (struct input){ .kind = kind, .index = index };
}

/* A partition of this core is closing: until then nothing new comes in. */
static bool is_quiet(const struct host *host, const struct core *core)
{
    for (uint32_t i = 0; i < host->partition_count; i++) {
        if (host->partitions[i].state == PARTITION_CLOSING &&
            host_core_of(host, host->partitions[i].id) == core->number) {
            return true;
        }
    }
    return false;
}

static void add_connections(struct host *host, const struct core *core, bool quiet,
                            struct inputs *inputs)
{
    for (uint32_t i = 0; i < NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &host->net->connections[i];
        struct frame_view view;

        if (!connection->server_end) {
            continue;
        }

        const struct partition_id partition = partition_of(host->users[connection->user]);

        if (host_core_of(host, partition) != core->number ||
            host_find_partition(host, partition)->state == PARTITION_CLOSED) {
            continue;
        }

        const bool has_frame = queue_peek(&connection->up, &view);

        if (has_frame && !connection->blocked && !quiet) {
            add_input(inputs, INPUT_FRAME, i);
        }
        /* A reactor that sees the end of a connection may do so before it has read all of it. */
        if (!connection->client_end && !(has_frame && !connection->blocked)) {
            add_input(inputs, INPUT_ENDED, i);
        }
        if (connection->left_bytes > 0 && connection->has_session) {
            add_input(inputs, INPUT_SENT, i);
        }
    }
}

static void gather_inputs(struct host *host, struct core *core, struct inputs *inputs)
{
    const bool quiet = is_quiet(host, core);

    inputs->count = 0;
    if (journal_durable_ticket(core->journal) > core->durable_told) {
        add_input(inputs, INPUT_DURABLE, 0);
        add_input(inputs, INPUT_DURABLE, 0);
    }
    if (core->flushed_untold) {
        add_input(inputs, INPUT_FLUSHED, 0);
    }
    for (uint32_t i = 0; i < sizeof core->loads / sizeof core->loads[0]; i++) {
        if (core->loads[i].step == STEP_READ) {
            add_input(inputs, INPUT_LOADED, i);
        }
    }
    const bool slow = !host->calm && prng_chance(host->prng, host->options->slow_peers);

    for (uint32_t i = 0; i < host->core_count && !quiet && !slow; i++) {
        if (core->inbox[i].first != NULL && !core->inbox[i].first->blocked) {
            add_input(inputs, INPUT_MAIL, i);
            add_input(inputs, INPUT_MAIL, i);
        }
    }
    if (core->late.first != NULL && !quiet) {
        add_input(inputs, INPUT_LATE, 0);
    }
    add_connections(host, core, quiet, inputs);
}

/* What waited for it is offered again when the engine has run, in another turn: with new room. */
static void unblock_mail(struct core *core)
{
    if (!core->inbox_waits) {
        return;
    }
    core->inbox_waits = false;
    for (uint32_t i = 0; i < DISK_CORES_MAX; i++) {
        if (core->inbox[i].first != NULL) {
            core->inbox[i].first->blocked = false;
        }
    }
}

static void input_durable(struct core *core)
{
    core->durable_told = journal_durable_ticket(core->journal);
    engine_on_durable(core->engine, core->durable_told);
    core->inbox_waits = true;
}

static void input_flushed(struct core *core)
{
    core->flushed_untold = false;
    journal_flush_end(core->journal);
    index_drop(core->index);
    core->flushes++;
    if (core->durable_told < core->flush_range.upto_ticket) {
        input_durable(core); /* what is in a volume was durable before */
    }
    engine_on_flushed(core->engine, core->flush_range.upto_ticket, core->flush_range.upto_lsn);
    core->inbox_waits = true;
}

static void input_loaded(struct host *host, struct core *core, uint32_t index)
{
    struct host_load *load = &core->loads[index];

    engine_on_loaded(core->engine, &load->loaded);
    free_load(load);
    core->inbox_waits = true;
    (void)host;
}

static void input_mail(struct host *host, struct core *core, struct parcels *inbox, bool late)
{
    struct parcel *parcel = inbox->first;
    const enum engine_result result =
        engine_on_stream(core->engine, parcel->bytes, parcel->byte_count);

    SIM_CHECK(result != ENGINE_CLOSED, "a stream frame was refused");
    if (result == ENGINE_BLOCKED && !late) {
        parcel->blocked = true;
        host_count(host, HAZARD_BLOCKED);
        return;
    }
    if (late) {
        host_count(host, HAZARD_LINK_LATE);
    }
    free(parcels_take(inbox)); /* a late one that is blocked is lost after all */
}

static enum engine_result offer_hello(struct host *host, struct core *core,
                                      struct connection *connection, const struct frame_view *view)
{
    struct message_hello hello;
    const uint16_t code = (uint16_t)message_decode_hello(view, &hello);

    SIM_CHECK(code == CODE_OK && hello.token.byte_count == 17, "HELLO: %s", code_name(code));

    const struct claims claims = {
        .user = { load_be64(hello.token.bytes) },
        .device = { load_be32(hello.token.bytes + 8) },
        .has_generation = hello.token.bytes[12] != 0,
        .generation = load_be32(hello.token.bytes + 13),
    };

    for (uint32_t i = 0; i < NET_CONNECTIONS_MAX; i++) {
        const struct connection *other = &host->net->connections[i];

        if (other->has_session && other->client == connection->client &&
            other->accepted_at > connection->accepted_at) {
            host_count(host, HAZARD_LATE_HELLO);
        }
    }
    checks_on_hello(host, connection, hello.device);
    connection->offered = true;
    return engine_on_hello(core->engine, connection->ref, connection->accepted_at, &claims, &hello);
}

static void input_frame(struct host *host, struct core *core, struct connection *connection)
{
    struct frame_view view;
    enum engine_result result;
    const bool there = queue_peek(&connection->up, &view);

    HF_ASSERT(there);
    if (connection->has_session) {
        result = engine_on_frame(core->engine, connection->ref, &view);
    } else {
        result = offer_hello(host, core, connection, &view);
        connection->has_session = result == ENGINE_TAKEN;
    }
    switch (result) {
    case ENGINE_TAKEN:
        queue_take(&connection->up, &view);
        break;
    case ENGINE_BLOCKED:
        connection->blocked = true;
        host_count(host, HAZARD_BLOCKED);
        break;
    case ENGINE_CLOSED:
        break; /* EFFECT_CLOSE drops the rest */
    }
}

static void take_input(struct host *host, struct core *core, const struct input *input)
{
    struct connection *connection = &host->net->connections[input->index % NET_CONNECTIONS_MAX];

    switch (input->kind) {
    case INPUT_DURABLE:
        input_durable(core);
        break;
    case INPUT_FLUSHED:
        input_flushed(core);
        break;
    case INPUT_LOADED:
        input_loaded(host, core, input->index);
        break;
    case INPUT_MAIL:
        input_mail(host, core, &core->inbox[input->index], false);
        break;
    case INPUT_LATE:
        input_mail(host, core, &core->late, true);
        break;
    case INPUT_FRAME:
        input_frame(host, core, connection);
        break;
    case INPUT_ENDED:
        if (connection->offered) {
            engine_on_closed(core->engine, connection->ref);
        }
        net_server_leaves(connection, 0);
        break;
    case INPUT_SENT:
        engine_on_sent(core->engine, connection->ref, connection->left_bytes);
        connection->left_bytes = 0;
        break;
    }
}

bool host_turn(struct host *host, uint16_t number)
{
    struct core *core = &host->cores[number];
    struct inputs inputs;
    bool any = false;

    host_begin_turn(host, core);
    for (uint64_t i = prng_between(host->prng, 1, TURN_INPUT_MAX); i > 0; i--) {
        gather_inputs(host, core, &inputs);
        if (inputs.count == 0) {
            break;
        }
        any = true;
        take_input(host, core, &inputs.list[prng_below(host->prng, inputs.count)]);
        host_take_effects(host, core);
    }
    host_run_engine(host, core);
    unblock_mail(core);
    return any;
}

bool host_is_idle(const struct host *host)
{
    for (uint16_t i = 0; i < host->core_count; i++) {
        const struct core *core = &host->cores[i];
        struct engine_stats stats;

        engine_get_stats(core->engine, &stats);
        if (stats.outs > 0 || core->unwritten.first != NULL || core->late.first != NULL ||
            core->durable_told != journal_durable_ticket(core->journal)) {
            return false;
        }
        for (uint16_t from = 0; from < host->core_count; from++) {
            if (core->inbox[from].first != NULL) {
                return false;
            }
        }
    }
    for (uint32_t i = 0; i < host->partition_count; i++) {
        if (host->partitions[i].state != PARTITION_OPEN) {
            return false;
        }
    }
    return true;
}

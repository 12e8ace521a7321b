#include "core/engine/engine.h"

#include <stdlib.h>

#include "core/engine/history.h"
#include "core/engine/inside.h"
#include "core/engine/send.h"
#include "core/engine/stream_frame.h"
#include "core/engine/timeline.h"

#define ENGINE_EXIT_NO_MEMORY 71 /* EX_OSERR of sysexits.h */

static bool pools_open(struct engine *engine, const struct engine_config *config)
{
    const struct cell_pools_config cells = { .users_max = config->users_max,
                                             .devices_max = config->devices_max,
                                             .heads_max = config->heads_max,
                                             .outcomes_max = config->outcomes_max,
                                             .hash_seed = config->hash_seed };
    const uint32_t requests_max = config->loads_max;

    return emit_open(&engine->emit, config->effect_bytes) &&
           pendings_open(&engine->pendings, config->pending_max) &&
           recent_open(&engine->recent, config->recent_bytes) &&
           cell_pools_open(&engine->cells, &cells) &&
           (engine->sessions =
                calloc((size_t)config->sessions_max + 1, sizeof *engine->sessions)) != NULL &&
           ready_open(&engine->ready_sessions, config->sessions_max) &&
           ready_open(&engine->stalled_pushes, config->sessions_max) &&
           pool_open(&engine->loads, config->loads_max, sizeof(struct load_cell)) &&
           pool_open(&engine->requests, requests_max, sizeof(struct request)) &&
           ready_open(&engine->ready_requests, requests_max) &&
           outbox_open(&engine->outbox, config) && inbound_open(&engine->inbound, config) &&
           (engine->partitions = calloc(PARTITION_COUNT, sizeof *engine->partitions)) != NULL;
}

/* All but users, devices, sessions and what is found by those. */
static size_t touch_pools(struct engine *engine)
{
    return memory_touch(engine, sizeof *engine) +
           memory_touch(engine->emit.effects, EMIT_EFFECTS * sizeof *engine->emit.effects) +
           memory_touch(engine->emit.arena, engine->emit.arena_bytes) +
           memory_touch(engine->pendings.items,
                        ((size_t)engine->pendings.mask + 1) * sizeof *engine->pendings.items) +
           memory_touch(engine->recent.bytes, engine->recent.size) +
           cell_pools_touch(&engine->cells) + pool_touch(&engine->loads) +
           pool_touch(&engine->requests) + ready_touch(&engine->ready_requests) +
           outbox_touch(&engine->outbox) + inbound_touch(&engine->inbound) +
           memory_touch(engine->partitions, PARTITION_COUNT * sizeof *engine->partitions);
}

struct engine *engine_open(const struct engine_config *config, struct hf_error *error)
{
    struct engine *engine = calloc(1, sizeof *engine);

    HF_ASSERT(config->window_bytes_max >= WINDOW_BYTES_MIN && config->term > 0);
    HF_ASSERT(config->effect_bytes >= (size_t)256 * 1024 && config->pending_max >= 256);
    HF_ASSERT(config->outcomes_max >= 64 && config->out_quota > 0);
    HF_ASSERT(config->sessions_max > 0 && config->sessions_max < UINT32_MAX);
    HF_ASSERT(config->loads_max < WAIT_SENT); /* so a slot has 16 bits in users and sessions */
    if (engine == NULL) {
        hf_error_set(error, ENGINE_EXIT_NO_MEMORY, 0, "engine: no memory");
        return NULL;
    }
    engine->config = *config;
    if (!pools_open(engine, config)) {
        hf_error_set(error, ENGINE_EXIT_NO_MEMORY, 0, "engine: no memory for its pools");
        engine_close(engine);
        return NULL;
    }
    if (config->touch) {
        engine->stats.bytes_touched = touch_pools(engine);
    }
    return engine;
}

void engine_close(struct engine *engine)
{
    emit_close(&engine->emit);
    pendings_close(&engine->pendings);
    recent_close(&engine->recent);
    cell_pools_close(&engine->cells);
    free(engine->sessions);
    ready_close(&engine->ready_sessions);
    ready_close(&engine->stalled_pushes);
    pool_close(&engine->loads);
    pool_close(&engine->requests);
    ready_close(&engine->ready_requests);
    outbox_close(&engine->outbox);
    inbound_close(&engine->inbound);
    free(engine->partitions);
    free(engine);
}

static void begin_call(const struct engine *engine)
{
    /* Else the effects of calls before weren't taken and cleared. */
    HF_ASSERT(emit_has_room(&engine->emit, EMIT_CALL_EFFECTS, EMIT_CALL_BYTES));
}

void engine_begin_turn(struct engine *engine, uint64_t now_unix_ms,
                       const struct engine_budget *budget)
{
    engine->now_unix_ms = now_unix_ms;
    engine->budget = *budget;
    outbox_on_time(engine);
}

void engine_want_flush(struct engine *engine)
{
    engine->cells.wants_flush = false;
    if (!engine->flush_wanted) {
        engine->flush_wanted = true;
        emit_add(&engine->emit, EFFECT_WANT_FLUSH);
    }
}

/* Appends */

void engine_append_begin(struct engine *engine)
{
    HF_ASSERT(engine->append_at == NULL);
    engine->append_at = emit_reserve(&engine->emit, &engine->append_room);
    engine->append_bytes = 0;
}

const uint8_t *engine_append(struct engine *engine, const struct record *record, size_t *bytes)
{
    uint8_t *at = engine->append_at + engine->append_bytes;

    *bytes = record_encode(record, at, engine->append_room - engine->append_bytes);
    engine->append_bytes += *bytes;
    return at;
}

void engine_append_end(struct engine *engine)
{
    struct effect *effect = emit_add(&engine->emit, EFFECT_APPEND);

    HF_ASSERT(engine->append_at != NULL && engine->append_bytes > 0);
    HF_ASSERT(engine->append_bytes <= engine->budget.append_bytes);
    engine->budget.append_bytes -= engine->append_bytes;
    effect->ticket = ++engine->ticket;
    effect->byte_count = engine->append_bytes;
    effect->bytes = emit_commit(&engine->emit, engine->append_bytes);
    engine->append_at = NULL;
}

void engine_emit_stream(struct engine *engine, struct partition_id to, size_t byte_count)
{
    struct effect *effect = emit_add(&engine->emit, EFFECT_STREAM);

    if (engine->budget.stream_frames > 0) { /* LINK_END, which is rare, may go beyond */
        engine->budget.stream_frames--;
    }
    effect->partition = to;
    effect->byte_count = byte_count;
    effect->bytes = emit_commit(&engine->emit, byte_count);
}

/* Cells */

enum cell_state engine_find_user(struct engine *engine, struct user_id id, uint32_t *user,
                                 uint32_t *load)
{
    *user = user_find(&engine->cells, id);
    *load = SLOT_NONE;
    if (*user != SLOT_NONE) {
        const struct user_cell *cell = user_get(&engine->cells, *user);

        *load = cell->load;
        return cell->state;
    }
    const struct load ask = { .kind = LOAD_USER, .user = id };
    const uint32_t slot = user_take(&engine->cells, id);

    if (slot == SLOT_NONE) {
        engine_want_flush(engine);
        return CELL_LOADING;
    }
    *load = loads_start(engine, &ask, LOAD_FOR_USER, slot);
    if (*load == SLOT_NONE) {
        user_drop(&engine->cells, slot);
        *load = WAIT_STALLED;
        return CELL_LOADING;
    }
    user_get(&engine->cells, slot)->load = (uint16_t)*load;
    *user = slot;
    return CELL_LOADING;
}

enum cell_state engine_find_head(struct engine *engine, struct user_id id,
                                 struct conversation_id conversation, uint32_t *head,
                                 uint32_t *load)
{
    *head = head_find(&engine->cells, id, conversation);
    *load = SLOT_NONE;
    if (*head != SLOT_NONE) {
        const struct head_cell *cell = head_get(&engine->cells, *head);

        *load = cell->load;
        return cell->state;
    }
    const struct load ask = { .kind = LOAD_HEAD, .user = id, .conversation = conversation };
    const uint32_t slot = head_take(&engine->cells, id, conversation);

    if (slot == SLOT_NONE) {
        engine_want_flush(engine);
        return CELL_LOADING;
    }
    *load = loads_start(engine, &ask, LOAD_FOR_HEAD, slot);
    if (*load == SLOT_NONE) {
        head_drop(&engine->cells, slot);
        *load = WAIT_STALLED;
        return CELL_LOADING;
    }
    head_get(&engine->cells, slot)->load = *load;
    *head = slot;
    return CELL_LOADING;
}

enum engine_result engine_block(struct engine *engine, uint32_t session, uint32_t load)
{
    loads_block(engine, session, load);
    return ENGINE_BLOCKED;
}

/* Events */

enum engine_result engine_on_hello(struct engine *engine, struct conn_ref conn,
                                   uint64_t accepted_at, const struct claims *claims,
                                   const struct message_hello *hello)
{
    begin_call(engine);
    return session_on_hello(engine, conn, accepted_at, claims, hello);
}

enum engine_result engine_on_frame(struct engine *engine, struct conn_ref conn,
                                   const struct frame_view *frame)
{
    begin_call(engine);

    const uint32_t slot = session_find(engine, conn);

    if (slot == SLOT_NONE || session_get(engine, slot)->state == SESSION_CLOSING) {
        return ENGINE_CLOSED;
    }
    return session_on_frame(engine, slot, frame);
}

void engine_on_sent(struct engine *engine, struct conn_ref conn, size_t byte_count)
{
    const uint32_t slot = session_find(engine, conn);

    if (slot == SLOT_NONE) {
        return;
    }
    struct session *session = session_get(engine, slot);

    HF_ASSERT(byte_count <= session->out_bytes);
    session->out_bytes -= (uint32_t)byte_count;
    ready_mark(&engine->ready_sessions, slot, SESSION_READY_PUSH);
    if (session->wait_on == WAIT_SENT && session->out_bytes <= SESSION_ROOM_BYTES) {
        session->wait_on = WAIT_NOTHING;
        ready_mark(&engine->ready_sessions, slot, SESSION_READY_UNBLOCK);
    }
    for (uint32_t i = session->requests; i != SLOT_NONE;
         i = ((struct request *)pool_get(&engine->requests, i))->next) {
        ready_mark(&engine->ready_requests, i, 1);
    }
}

void engine_on_closed(struct engine *engine, struct conn_ref conn)
{
    begin_call(engine);

    const uint32_t slot = session_find(engine, conn);

    if (slot != SLOT_NONE) {
        session_end(engine, slot, false);
    }
}

static void update_evictable(struct engine *engine)
{
    const struct pending *first = pendings_first(&engine->pendings);
    const uint64_t told = first != NULL && first->ticket <= engine->durable_ticket
                              ? first->ticket - 1
                              : engine->durable_ticket;

    engine->cells.evictable_ticket = engine->flushed_ticket < told ? engine->flushed_ticket : told;
}

void engine_on_durable(struct engine *engine, uint64_t ticket)
{
    HF_ASSERT(ticket >= engine->durable_ticket && ticket <= engine->ticket);
    engine->durable_ticket = ticket;
}

void engine_on_flushed(struct engine *engine, uint64_t ticket, uint64_t lsn)
{
    HF_ASSERT(ticket >= engine->flushed_ticket && ticket <= engine->durable_ticket);
    HF_ASSERT(lsn >= engine->flushed_lsn);
    engine->flushed_ticket = ticket;
    engine->flushed_lsn = lsn;
    engine->flush_wanted = false;
    update_evictable(engine);
    loads_wake_stalled(engine);
}

enum engine_result engine_on_expired(struct engine *engine, struct user_id user, uint64_t floor)
{
    begin_call(engine);
    return timeline_on_expired(engine, user, floor);
}

/* Goes on */

static void release_message(struct engine *engine, const struct pending *item)
{
    struct session *session = session_get(engine, item->slot);

    if (session->state != SESSION_FREE && session->generation == item->generation) {
        HF_ASSERT(session->sends_outstanding > 0);
        session->sends_outstanding--;
        send_answer(engine, item->slot, item->counter, item->id, item->seq_a, item->code);
    }
    if (item->kind != PENDING_MESSAGE) {
        return;
    }
    timeline_advance(engine, item->user_a, item->seq_a);
    if (item->user_b != SLOT_NONE) {
        timeline_advance(engine, item->user_b, item->seq_b);
    }
}

static void release_about_session(struct engine *engine, const struct pending *item)
{
    const struct session *session = session_get(engine, item->slot);

    if (session->state == SESSION_FREE || session->generation != item->generation) {
        return;
    }
    if (item->kind == PENDING_WELCOME) {
        session_on_welcome(engine, item->slot, item->counter, item->id, item->result);
    } else {
        session_fail_now(engine, item->slot, (enum code)item->code, 0);
    }
}

static void release(struct engine *engine, const struct pending *item)
{
    switch ((enum pending_kind)item->kind) {
    case PENDING_NONE:
        break;
    case PENDING_MESSAGE:
    case PENDING_ANSWER:
        release_message(engine, item);
        break;
    case PENDING_WELCOME:
    case PENDING_ERROR:
        release_about_session(engine, item);
        break;
    case PENDING_ADVANCE:
        timeline_advance(engine, item->user_a, item->seq_a);
        break;
    case PENDING_LINK:
        outbox_on_durable(engine, item->slot);
        break;
    case PENDING_ACK:
        inbound_on_durable(engine, item->slot, item->id, item->counter, item->seq_a);
        break;
    case PENDING_REQUEST:
        history_run(engine, item->slot);
        break;
    }
}

static bool run_pendings(struct engine *engine)
{
    const struct pending *first = pendings_first(&engine->pendings);

    if (first == NULL || !engine_is_durable(engine, first->ticket)) {
        return false;
    }
    do {
        if (!emit_has_step(&engine->emit)) {
            return true;
        }
        const struct pending item = *first;

        pendings_drop_first(&engine->pendings);
        release(engine, &item);
        first = pendings_first(&engine->pendings);
    } while (first != NULL && engine_is_durable(engine, first->ticket));
    update_evictable(engine);
    loads_wake_stalled(engine);
    return false;
}

static void run_session(struct engine *engine, uint32_t slot, uint8_t flags)
{
    if ((flags & SESSION_READY_UNBLOCK) != 0) {
        emit_add(&engine->emit, EFFECT_UNBLOCK)->conn =
            session_conn(engine, session_get(engine, slot));
    }
    if ((flags & SESSION_READY_PUSH) != 0) {
        timeline_push(engine, slot);
    }
}

static bool run_sessions(struct engine *engine)
{
    uint32_t slot;
    uint8_t flags;

    while (engine->ready_sessions.count > 0) {
        if (!emit_has_step(&engine->emit)) {
            return true;
        }
        if (ready_take(&engine->ready_sessions, &slot, &flags) && flags != 0) {
            run_session(engine, slot, flags);
        }
    }
    return false;
}

/*
 * Runs `run` for what is ready; what sends peer frames, only for as many as there is room for. True:
 * there's more than there is room for effects.
 */
static bool run_ready(struct engine *engine, struct ready *ready, bool streams,
                      void (*run)(struct engine *engine, uint32_t slot))
{
    uint32_t slot;
    uint8_t flags;

    while (ready->count > 0 && (!streams || engine_may_stream(engine))) {
        if (!emit_has_step(&engine->emit)) {
            return true;
        }
        if (ready_take(ready, &slot, &flags) && flags != 0) {
            run(engine, slot);
        }
    }
    return false;
}

void engine_set_stream_frames(struct engine *engine, uint32_t stream_frames)
{
    engine->budget.stream_frames = stream_frames;
}

bool engine_waits_for_stream_frames(const struct engine *engine)
{
    return !engine_may_stream(engine) &&
           engine->inbound.ready_links.count + engine->outbox.ready_links.count > 0;
}

bool engine_run(struct engine *engine)
{
    if (engine->cells.wants_flush) {
        engine_want_flush(engine); /* before clients feel it */
    }
    return run_pendings(engine) ||
           run_ready(engine, &engine->inbound.ready_links, true, inbound_send_ack) ||
           run_ready(engine, &engine->outbox.ready_links, true, outbox_send) ||
           run_ready(engine, &engine->ready_requests, false, history_run) || run_sessions(engine);
}

/* Effects */

const struct effect *engine_next_effect(struct engine *engine)
{
    struct emit *emit = &engine->emit;

    return emit->taken < emit->count ? &emit->effects[emit->taken++] : NULL;
}

void engine_clear_effects(struct engine *engine)
{
    HF_ASSERT(engine->emit.taken == engine->emit.count);
    engine->emit.taken = 0;
    engine->emit.count = 0;
    engine->emit.used = 0;
}

void engine_get_stats(const struct engine *engine, struct engine_stats *stats)
{
    *stats = engine->stats;
    stats->users = engine->cells.users.count;
    stats->devices = engine->cells.devices.count;
    stats->heads = engine->cells.heads.count;
    stats->sessions = engine->session_count;
    stats->outs = engine->outbox.outs.count;
    stats->pending = engine->pendings.count;
}

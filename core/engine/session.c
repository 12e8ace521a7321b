#include "core/engine/session.h"

#include "core/engine/history.h"
#include "core/engine/inside.h"
#include "core/engine/send.h"
#include "core/engine/timeline.h"

/* What an answer of a call may need. */
#define PENDING_CALL 4

uint32_t session_find(const struct engine *engine, struct conn_ref conn)
{
    const uint32_t slot = conn.slot + 1;

    HF_ASSERT(conn.slot < engine->config.sessions_max);

    const struct session *session = session_get(engine, slot);

    if (session->state == SESSION_FREE || session->generation != conn.generation) {
        return SLOT_NONE;
    }
    return slot;
}

void session_emit_frame(struct engine *engine, struct session *session, size_t byte_count)
{
    struct effect *effect = emit_add(&engine->emit, EFFECT_SEND);

    HF_ASSERT(byte_count > 0);
    effect->conn = session_conn(engine, session);
    effect->byte_count = byte_count;
    effect->bytes = emit_commit(&engine->emit, byte_count);
    session->out_bytes += (uint32_t)byte_count;
}

static void emit_error(struct engine *engine, struct conn_ref conn, enum code code,
                       uint32_t retry_ms)
{
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);
    struct effect *effect = emit_add(&engine->emit, EFFECT_SEND);

    effect->conn = conn;
    effect->byte_count = message_encode_error_code(to, room, code, 0, retry_ms);
    effect->bytes = emit_commit(&engine->emit, effect->byte_count);
}

void session_notice(struct engine *engine, uint32_t slot, enum code code, uint32_t request,
                    uint32_t retry_ms)
{
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);

    session_emit_frame(engine, session_get(engine, slot),
                       message_encode_error_code(to, room, code, request, retry_ms));
}

/* The end */

static void write_cursor(struct engine *engine, const struct session *session)
{
    struct user_cell *user = user_get(&engine->cells, session->user);
    struct device_cell *device = device_get(&engine->cells, session->device);
    size_t bytes;

    /* It is a note for later (push, marks): clients bring their own. So no room is kept for it. */
    if (session->acked == device->cursor_seq || engine->budget.only_streams ||
        engine->budget.refuse_sends || !engine_may_append(engine, RECORD_REST_BYTES)) {
        return;
    }
    const struct record record = { .type = RECORD_CURSOR,
                                   .partition = partition_of(user->id),
                                   .cursor = { .user = { user->id },
                                               .device = { device->id },
                                               .epoch = user->epoch,
                                               .seq = session->acked } };

    device->cursor_seq = session->acked;
    user->ticket = engine_next_ticket(engine);
    engine_append_begin(engine);
    (void)engine_append(engine, &record, &bytes);
    engine_append_end(engine);
}

static void leave_user(struct engine *engine, uint32_t slot)
{
    struct session *session = session_get(engine, slot);
    struct user_cell *user = user_get(&engine->cells, session->user);
    struct device_cell *device = device_get(&engine->cells, session->device);
    uint32_t *link = &user->sessions;

    write_cursor(engine, session);
    while (*link != slot) {
        HF_ASSERT(*link != SLOT_NONE);
        link = &session_get(engine, *link)->next;
    }
    *link = session->next;
    if (device->session == slot) {
        device->session = SLOT_NONE;
    }
    cell_pools_search_again(&engine->cells);
}

void session_end(struct engine *engine, uint32_t slot, bool close)
{
    struct session *session = session_get(engine, slot);

    HF_ASSERT(session->state != SESSION_FREE);
    loads_unblock(engine, slot);
    history_drop_all(engine, slot);
    if (session->load != SLOT_NONE) {
        loads_abandon(engine, session->load);
    }
    if (session->state != SESSION_HELLO) {
        leave_user(engine, slot);
    }
    if (close) {
        emit_add(&engine->emit, EFFECT_CLOSE)->conn = session_conn(engine, session);
    }
    ready_forget(&engine->ready_sessions, slot);
    ready_forget(&engine->stalled_pushes, slot);
    *session = (struct session){ .state = SESSION_FREE };
    engine->session_count--;
}

void session_fail_now(struct engine *engine, uint32_t slot, enum code code, uint32_t retry_ms)
{
    emit_error(engine, session_conn(engine, session_get(engine, slot)), code, retry_ms);
    session_end(engine, slot, true);
}

enum engine_result session_fail(struct engine *engine, uint32_t slot, enum code code)
{
    struct session *session = session_get(engine, slot);
    const uint64_t ticket = user_get(&engine->cells, session->user)->ticket;

    if (engine_is_durable(engine, ticket) && session->state == SESSION_LIVE) {
        session_fail_now(engine, slot, code, 0);
        return ENGINE_CLOSED;
    }
    if (pendings_room(&engine->pendings) == 0) {
        return ENGINE_BLOCKED;
    }
    struct pending *item = pendings_add(&engine->pendings, PENDING_ERROR, ticket);

    item->slot = slot;
    item->generation = session->generation;
    item->code = (uint16_t)code;
    session->state = SESSION_CLOSING;
    return ENGINE_CLOSED;
}

/* HELLO */

/* A connection whose HELLO is refused has no session any more. */
static enum engine_result refuse_hello(struct engine *engine, uint32_t slot, struct conn_ref conn,
                                       enum code code)
{
    const uint32_t retry_ms = code == CODE_BUSY ? 1000 : 0;

    if (slot != SLOT_NONE) {
        session_fail_now(engine, slot, code, retry_ms);
    } else {
        emit_error(engine, conn, code, retry_ms);
        emit_add(&engine->emit, EFFECT_CLOSE)->conn = conn;
    }
    return ENGINE_CLOSED;
}

static uint32_t take_session(struct engine *engine, struct conn_ref conn)
{
    const uint32_t slot = conn.slot + 1;
    struct session *session = session_get(engine, slot);

    HF_ASSERT(session->state == SESSION_FREE); /* the connection before is closed */
    session->generation = conn.generation;
    session->state = SESSION_HELLO;
    engine->session_count++;
    return slot;
}

/* Creates what HELLO needs and isn't there: the user, the device. */
static enum code make_device(struct engine *engine, uint32_t user_slot, struct device_id id,
                             uint32_t *device_slot)
{
    struct user_cell *user = user_get(&engine->cells, user_slot);
    const struct user_id user_id = { user->id };
    const struct partition_id partition = partition_of(user->id);
    const bool user_is_new = user->state == CELL_ABSENT;
    size_t bytes;

    if (user->device_count >= DEVICES_PER_USER_MAX) {
        return CODE_TOO_MANY_DEVICES;
    }
    if (engine->budget.refuse_sends || engine->budget.only_streams ||
        !engine_may_append(engine, (size_t)2 * RECORD_REST_BYTES)) {
        return CODE_BUSY;
    }
    if (user_is_new) {
        timeline_make_user(engine, user_slot); /* evictions spare it from here on */
    }
    *device_slot = device_take(&engine->cells, user_slot, id);
    if (*device_slot == SLOT_NONE) {
        if (user_is_new) {
            user->state = CELL_ABSENT;
        }
        engine_want_flush(engine);
        return CODE_BUSY;
    }
    const struct record record = { .type = RECORD_DEVICE,
                                   .partition = partition,
                                   .device = { .user = user_id,
                                               .device = id,
                                               .generation = 1,
                                               .created_unix_ms = engine->now_unix_ms } };

    device_get(&engine->cells, *device_slot)->generation = 1;
    engine_append_begin(engine);
    if (user_is_new) {
        timeline_append_user(engine, user_slot);
    }
    (void)engine_append(engine, &record, &bytes);
    user->ticket = engine_next_ticket(engine);
    engine_append_end(engine);
    emit_note(&engine->emit, NOTE_DEVICE_CREATED, user_id, id);
    return CODE_OK;
}

/*
 * The fence: of a device's sockets only the one accepted last may speak. The older one's frames
 * that wait are dropped with its session, before the last counter is looked at.
 */
static enum code pass_fence(struct engine *engine, uint32_t user, uint32_t device_slot,
                            uint64_t accepted_at)
{
    struct device_cell *device = device_get(&engine->cells, device_slot);

    if (accepted_at < device->accepted_at) {
        return CODE_REPLACED;
    }
    device->accepted_at = accepted_at;
    if (device->session == SLOT_NONE) {
        return CODE_OK;
    }
    emit_note(&engine->emit, NOTE_REPLACED, (struct user_id){ user_get(&engine->cells, user)->id },
              (struct device_id){ device->id });
    engine->stats.replaced++;
    if (!HF_MUTANT(SEND_AFTER_FENCE)) {
        session_fail_now(engine, device->session, CODE_REPLACED, 0);
    }
    return CODE_OK;
}

static uint32_t clamp_window(const struct engine *engine, uint32_t wanted)
{
    const uint32_t max = engine->config.window_bytes_max;

    if (wanted == 0) {
        wanted = WINDOW_BYTES_DEFAULT;
    }
    if (wanted < WINDOW_BYTES_MIN) {
        wanted = WINDOW_BYTES_MIN;
    }
    return wanted < max ? wanted : max;
}

/* Where the push begins: after the cursor when its numbers still mean something, else at the
 * floor. */
static enum hello_result set_cursor(struct engine *engine, struct session *session,
                                    const struct message_cursor *cursor)
{
    const struct user_cell *user = user_get(&engine->cells, session->user);
    const bool same = cursor->epoch == user->epoch;

    if (same && cursor->seq + 1 >= user->floor &&
        (cursor->seq <= user->head || HF_MUTANT(CURSOR_BEYOND_HEAD_RESUMES))) {
        session->sent = cursor->seq;
        session->acked = cursor->seq;
        if (HF_MUTANT(CURSOR_SKIPS_ONE) && session->sent < user->head) {
            session->sent++;
        }
        session->recent_at = session->sent == user->head ? user->recent_at : 0;
        engine->stats.hellos_resumed++;
        return HELLO_RESULT_RESUME;
    }
    if (same && cursor->seq > user->head) {
        emit_note(&engine->emit, NOTE_STORE_ROLLED_BACK, (struct user_id){ user->id },
                  (struct device_id){ device_get(&engine->cells, session->device)->id });
    }
    session->sent = user->floor - 1;
    session->acked = user->floor - 1;
    session->recent_at = 0;
    engine->stats.hellos_reset++;
    return HELLO_RESULT_RESET;
}

static enum engine_result begin_session(struct engine *engine, uint32_t slot, uint32_t user_slot,
                                        uint32_t device_slot, const struct message_hello *hello)
{
    struct session *session = session_get(engine, slot);
    struct user_cell *user = user_get(&engine->cells, user_slot);
    struct device_cell *device = device_get(&engine->cells, device_slot);

    session->user = user_slot;
    session->device = device_slot;
    session->next = user->sessions;
    user->sessions = slot;
    device->session = slot;
    session->hello_counter = device->last_counter;
    if (HF_MUTANT(HELLO_COUNTER_TOO_LOW) && !engine_is_durable(engine, user->ticket) &&
        device->last_counter > 0) {
        session->hello_counter--;
    }
    session->window = clamp_window(engine, hello->window);
    session->load_failed = 0;
    session->state = SESSION_WELCOMING;

    const enum hello_result result = set_cursor(engine, session, &hello->cursor);

    if (engine_is_durable(engine, user->ticket) || HF_MUTANT(WELCOME_BEFORE_DURABLE)) {
        session_on_welcome(engine, slot, user->head, user->floor, (uint8_t)result);
        return ENGINE_TAKEN;
    }
    struct pending *item = pendings_add(&engine->pendings, PENDING_WELCOME, user->ticket);

    item->slot = slot;
    item->generation = session->generation;
    item->result = (uint8_t)result;
    item->counter = user->head;
    item->id = user->floor;
    return ENGINE_TAKEN;
}

static enum code judge_hello(const struct engine *engine, const struct claims *claims,
                             const struct message_hello *hello)
{
    if (!user_id_valid(hello->user) || hello->device.value == 0) {
        return CODE_BAD_FIELD;
    }
    if (claims->user.value != hello->user.value || claims->device.value != hello->device.value) {
        return CODE_BAD_TOKEN;
    }
    return engine_is_home(engine, partition_of(hello->user.value)) ? CODE_OK : CODE_BUSY;
}

enum engine_result session_on_hello(struct engine *engine, struct conn_ref conn,
                                    uint64_t accepted_at, const struct claims *claims,
                                    const struct message_hello *hello)
{
    enum code code = judge_hello(engine, claims, hello);
    uint32_t slot = session_find(engine, conn);
    uint32_t user, load;

    if (code != CODE_OK) {
        return refuse_hello(engine, slot, conn, code);
    }
    if (slot == SLOT_NONE) {
        slot = take_session(engine, conn);
    }
    struct session *session = session_get(engine, slot);

    HF_ASSERT(session->state == SESSION_HELLO); /* a second HELLO is a frame like others */
    loads_unblock(engine, slot);
    if (pendings_room(&engine->pendings) < PENDING_CALL) {
        return engine_block(engine, slot, WAIT_STALLED);
    }
    const enum cell_state state = engine_find_user(engine, hello->user, &user, &load);

    if (state == CELL_LOADING) {
        if (load == SLOT_NONE || session->load_failed) {
            return refuse_hello(engine, slot, conn, CODE_BUSY);
        }
        return engine_block(engine, slot, load);
    }
    if (state == CELL_DAMAGED) {
        return refuse_hello(engine, slot, conn, CODE_INTERNAL);
    }
    uint32_t device = device_find(&engine->cells, user_get(&engine->cells, user), hello->device);

    if (claims->has_generation &&
        (device == SLOT_NONE ||
         device_get(&engine->cells, device)->generation != claims->generation)) {
        return refuse_hello(engine, slot, conn, CODE_BAD_TOKEN);
    }
    if (device == SLOT_NONE) {
        code = make_device(engine, user, hello->device, &device);
    }
    if (code == CODE_OK) {
        code = pass_fence(engine, user, device, accepted_at);
    }
    if (code != CODE_OK) {
        return refuse_hello(engine, slot, conn, code);
    }
    return begin_session(engine, slot, user, device, hello);
}

void session_on_welcome(struct engine *engine, uint32_t slot, uint64_t head, uint64_t floor,
                        uint8_t result)
{
    struct session *session = session_get(engine, slot);
    const struct user_cell *user = user_get(&engine->cells, session->user);
    const struct device_cell *device = device_get(&engine->cells, session->device);

    if (session->state != SESSION_WELCOMING) {
        HF_ASSERT(session->state == SESSION_CLOSING); /* it sent nonsense with its HELLO */
    } else {
        session->state = SESSION_LIVE;
    }
    struct effect *effect = emit_add(&engine->emit, EFFECT_WELCOME);

    effect->conn = session_conn(engine, session);
    effect->welcome = (struct welcome){ .user = { user->id },
                                        .device = { device->id },
                                        .generation = device->generation,
                                        .epoch = user->epoch,
                                        .head = head,
                                        .floor = floor,
                                        .last_counter = session->hello_counter,
                                        .window = session->window,
                                        .result = result };
    ready_mark(&engine->ready_sessions, slot, SESSION_READY_PUSH);
}

/* Frames */

static enum engine_result on_ack(struct engine *engine, uint32_t slot,
                                 const struct frame_view *frame)
{
    struct message_ack ack;
    enum code code = message_decode_ack(frame, &ack);

    if (code == CODE_OK) {
        code = timeline_on_ack(engine, slot, &ack);
    }
    return code == CODE_OK ? ENGINE_TAKEN : session_fail(engine, slot, code);
}

static enum engine_result on_history(struct engine *engine, uint32_t slot,
                                     const struct frame_view *frame)
{
    struct message_history history;
    const enum code code = message_decode_history(frame, &history);

    return code == CODE_OK ? history_on_request(engine, slot, &history)
                           : session_fail(engine, slot, code);
}

static enum engine_result on_other(struct engine *engine, uint32_t slot,
                                   const struct frame_view *frame)
{
    if (frame_type_origin(frame->type) != FRAME_FROM_NOBODY) {
        return session_fail(engine, slot, CODE_UNEXPECTED);
    }
    if (frame->type >= FRAME_TYPE_OPTIONAL_MIN) {
        return ENGINE_TAKEN;
    }
    if (session_get(engine, slot)->state != SESSION_LIVE) {
        return engine_block(engine, slot, WAIT_STALLED); /* nothing may precede HELLO_OK */
    }
    session_notice(engine, slot, CODE_UNSUPPORTED, 0, 0);
    return ENGINE_TAKEN;
}

enum engine_result session_on_frame(struct engine *engine, uint32_t slot,
                                    const struct frame_view *frame)
{
    struct session *session = session_get(engine, slot);
    enum engine_result result;

    HF_ASSERT(session->state == SESSION_LIVE || session->state == SESSION_WELCOMING);
    if (session->wait_on != WAIT_NOTHING) {
        loads_unblock(engine, slot);
    }
    if (frame->type == FRAME_TYPE_ACK) {
        result = on_ack(engine, slot, frame); /* always taken, or a full window never opens */
    } else if (session->out_bytes > SESSION_OUT_BYTES_MAX) {
        return engine_block(engine, slot, WAIT_SENT);
    } else if (pendings_room(&engine->pendings) < PENDING_CALL) {
        return engine_block(engine, slot, WAIT_STALLED);
    } else if (frame->type == FRAME_TYPE_SEND) {
        result = send_on_frame(engine, slot, frame);
    } else if (frame->type == FRAME_TYPE_HISTORY) {
        result = on_history(engine, slot, frame);
    } else {
        result = on_other(engine, slot, frame);
    }
    if (result == ENGINE_BLOCKED && session->wait_on == WAIT_NOTHING) {
        loads_block(engine, slot, WAIT_STALLED);
    }
    return result;
}

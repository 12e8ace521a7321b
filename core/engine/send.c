#include "core/engine/send.h"

#include "core/engine/inside.h"
#include "core/engine/timeline.h"

#define SEND_RETRY_MS 1000

/* The sides of a message: cells that are all there. */
struct delivery {
    uint32_t user;
    uint32_t head;
    uint32_t peer; /* SLOT_NONE: by stream, or a note to oneself */
    uint32_t peer_head;
    struct user_id to;
};

void send_answer(struct engine *engine, uint32_t slot, uint64_t counter, uint64_t id,
                 uint64_t seq_or_expected, enum code code)
{
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);
    size_t bytes;

    if (code == CODE_OK) {
        const struct message_accepted accepted = { .counter = counter,
                                                   .id = { id },
                                                   .seq = seq_or_expected };

        bytes = message_encode_accepted(to, room, &accepted);
    } else {
        const bool later = code == CODE_RETRY || code == CODE_FULL;
        const struct message_rejected rejected = { .counter = counter,
                                                   .code = (uint16_t)code,
                                                   .retry_ms = later ? SEND_RETRY_MS : 0,
                                                   .expected = seq_or_expected };

        bytes = message_encode_rejected(to, room, &rejected);
    }
    session_emit_frame(engine, session_get(engine, slot), bytes);
}

/* An answer that nothing was appended for: when what it tells of is durable. */
static enum engine_result answer(struct engine *engine, uint32_t slot, uint64_t ticket,
                                 uint64_t counter, uint64_t id, uint64_t seq_or_expected,
                                 enum code code)
{
    struct session *session = session_get(engine, slot);

    if (code != CODE_OK) { /* where the client goes on */
        seq_or_expected = device_get(&engine->cells, session->device)->last_counter + 1;
        if (HF_MUTANT(ORDER_EXPECTS_ONE_MORE) && code == CODE_ORDER) {
            seq_or_expected++;
        }
    }
    if (engine_is_durable(engine, ticket) && session->state == SESSION_LIVE) {
        send_answer(engine, slot, counter, id, seq_or_expected, code);
        return ENGINE_TAKEN;
    }
    struct pending *item = pendings_add(&engine->pendings, PENDING_ANSWER, ticket);

    item->slot = slot;
    item->generation = session->generation;
    item->code = (uint16_t)code;
    item->counter = counter;
    item->id = id;
    item->seq_a = seq_or_expected;
    session->sends_outstanding++;
    return ENGINE_TAKEN;
}

static uint64_t user_ticket(const struct engine *engine, uint32_t slot)
{
    return user_get(&engine->cells, session_get(engine, slot)->user)->ticket;
}

/* Takes nothing; the client may send it again. */
static enum engine_result refuse(struct engine *engine, uint32_t slot, uint64_t counter,
                                 enum code code)
{
    engine->stats.sends_refused++;
    if (HF_MUTANT(RETRY_CONSUMES_COUNTER)) {
        device_get(&engine->cells, session_get(engine, slot)->device)->last_counter++;
    }
    return answer(engine, slot, user_ticket(engine, slot), counter, 0, 0, code);
}

/* Refused for ever: that is a record, and consumes the counter. */
static enum engine_result reject(struct engine *engine, uint32_t slot,
                                 const struct message_send *send, enum code code)
{
    struct session *session = session_get(engine, slot);
    struct user_cell *user = user_get(&engine->cells, session->user);
    struct device_cell *device = device_get(&engine->cells, session->device);
    struct record record = { .type = RECORD_REJECT,
                             .partition = partition_of(user->id),
                             .reject = { .user = { user->id },
                                         .device = { device->id },
                                         .counter = send->counter,
                                         .code = (uint16_t)code } };
    size_t bytes;

    if (!engine_may_append(engine, RECORD_REST_BYTES)) {
        return refuse(engine, slot, send->counter, CODE_RETRY);
    }
    memcpy(record.reject.nonce, send->nonce.bytes, NONCE_BYTES);
    engine_append_begin(engine);
    (void)engine_append(engine, &record, &bytes);
    user->ticket = engine_next_ticket(engine);
    if (!HF_MUTANT(REJECT_KEEPS_COUNTER)) {
        outcome_add(&engine->cells, device, &send->nonce, 0, code);
    }
    engine_append_end(engine);
    engine->stats.sends_refused++;
    return answer(engine, slot, user->ticket, send->counter, 0, 0, code);
}

/* The same answer again, to the counter that asks. */
static enum engine_result repeat(struct engine *engine, uint32_t slot, uint64_t counter,
                                 const struct kept_outcome *kept)
{
    const struct user_cell *user = user_get(&engine->cells, session_get(engine, slot)->user);

    if (kept->id == 0) {
        return answer(engine, slot, user->ticket, counter, 0, 0, (enum code)kept->seq);
    }
    const bool durable = kept->seq <= user_durable_head(user) || HF_MUTANT(REPEAT_BEFORE_DURABLE);

    return answer(engine, slot, durable ? 0 : user->ticket, counter, kept->id, kept->seq, CODE_OK);
}

/*
 * It may be a repeat: that can only be told by outcomes that aren't in memory. When they can't be
 * had the session ends: a refusal would have to stop what is behind it, and mustn't be one of an
 * old counter, whose `expected` is no place to go on from.
 */
static enum engine_result reload_outcomes(struct engine *engine, uint32_t slot)
{
    struct session *session = session_get(engine, slot);
    struct user_cell *user = user_get(&engine->cells, session->user);

    if (session->reloaded || session->load_failed) {
        session_fail_now(engine, slot, CODE_BUSY, SEND_RETRY_MS);
        return ENGINE_CLOSED;
    }
    if (user->load == SLOT_NONE) {
        const struct load load = { .kind = LOAD_USER, .user = { user->id } };

        user->load = (uint16_t)loads_start(engine, &load, LOAD_FOR_OUTCOMES, session->user);
        if (user->load == SLOT_NONE) {
            return engine_block(engine, slot, WAIT_STALLED);
        }
    }
    session->reloaded = 1;
    return engine_block(engine, slot, user->load);
}

/* Appending */

/* Both entries of a message differ in these alone. */
static void set_place(struct record *record, struct head_cell *head, uint64_t ticket)
{
    record->entry.prev = head->last;
    record->entry.n = head->n + 1;
    record->entry.cn = head->cn;
    head->n++;
    head->ticket = ticket;
}

static void set_message(struct engine *engine, struct record *record, const struct session *session,
                        const struct message_send *send)
{
    const struct user_cell *user = user_get(&engine->cells, session->user);
    const struct partition_id partition = partition_of(user->id);
    struct partition_cell *home = &engine->partitions[partition.value];
    struct log_entry *entry = &record->entry;

    home->last_id =
        message_id_next((struct message_id){ home->last_id }, partition, engine->now_unix_ms).value;
    entry->id.value = home->last_id;
    entry->conversation = send->conversation;
    entry->sender.value = user->id;
    entry->device.value = device_get(&engine->cells, session->device)->id;
    entry->form = LOG_ENTRY_MESSAGE;
    entry->flags = LOG_ENTRY_FLAG_OWN;
    entry->kind = send->kind;
    entry->counter = send->counter;
    memcpy(entry->nonce, send->nonce.bytes, NONCE_BYTES);
    entry->origin = (struct origin){ user->epoch, user->head + 1 };
    entry->body = send->body.bytes;
    entry->body_bytes = send->body.byte_count;
}

/* The receiver's entry, in the same append: its head's origin is what it dedupes by. */
static void append_peer_entry(struct engine *engine, const struct delivery *delivery,
                              struct record *record)
{
    struct head_cell *head = head_get(&engine->cells, delivery->peer_head);
    const struct origin origin = record->entry.origin;

    head->cn++;
    set_place(record, head, engine_next_ticket(engine));
    record->entry.conversation.value = record->entry.sender.value;
    record->entry.flags = 0;
    if (HF_MUTANT(DEDUPE_OUTSIDE_BATCH)) {
        record->entry.origin = head->origin; /* this one's mark goes with the next entry */
    }
    (void)timeline_append(engine, delivery->peer, record);
    head->last = record->entry.seq;
    head->origin = origin;
}

static enum engine_result append_message(struct engine *engine, uint32_t slot,
                                         const struct message_send *send,
                                         const struct delivery *delivery)
{
    struct session *session = session_get(engine, slot);
    struct head_cell *head = head_get(&engine->cells, delivery->head);
    const uint64_t ticket = engine_next_ticket(engine);
    struct record record;

    engine_append_begin(engine);
    set_message(engine, &record, session, send);
    if (HF_MUTANT(CN_COUNTS_OWN)) {
        head->cn++;
    }
    set_place(&record, head, ticket);
    if (delivery->peer == SLOT_NONE && delivery->to.value != 0) {
        record.entry.flags |= LOG_ENTRY_FLAG_OUT;
    }
    const uint64_t recent_at = timeline_append(engine, delivery->user, &record);
    const uint64_t seq = record.entry.seq;

    head->last = seq;
    outcome_add(&engine->cells, device_get(&engine->cells, session->device), &send->nonce,
                record.entry.id.value, seq);

    struct pending *item = pendings_add(&engine->pendings, PENDING_MESSAGE, ticket);

    item->slot = slot;
    item->generation = session->generation;
    item->code = CODE_OK;
    item->user_a = delivery->user;
    item->user_b = delivery->peer;
    item->counter = send->counter;
    item->id = record.entry.id.value;
    item->seq_a = seq;
    session->sends_outstanding++;
    engine->stats.messages_accepted++;
    if (delivery->peer != SLOT_NONE) {
        append_peer_entry(engine, delivery, &record);
        item->seq_b = record.entry.seq;
    } else if (delivery->to.value != 0) {
        const struct out_row row = { .id = record.entry.id,
                                     .user = record.entry.user,
                                     .epoch = record.entry.epoch,
                                     .seq = seq,
                                     .to = delivery->to };

        outbox_add(engine, &row, ticket, recent_at);
    }
    engine_append_end(engine);
    return ENGINE_TAKEN;
}

/* Finding the sides */

/* A cell is being loaded, or can't be. */
static enum engine_result wait_for(struct engine *engine, uint32_t slot, uint64_t counter,
                                   uint32_t load)
{
    struct session *session = session_get(engine, slot);

    if (load == SLOT_NONE || session->load_failed) {
        session->load_failed = 0;
        return refuse(engine, slot, counter, CODE_RETRY);
    }
    return engine_block(engine, slot, load);
}

/*
 * The peer's cells for the short cut. True: *result says how it went, else the delivery is whole:
 * with a peer, or without one when there is no such user, or its row is damaged (its home, here,
 * will refuse).
 */
static bool find_peer(struct engine *engine, uint32_t slot, uint64_t counter,
                      struct delivery *delivery, enum engine_result *result)
{
    struct cell_pools *cells = &engine->cells;
    struct head_cell *head = head_get(cells, delivery->head);
    const struct conversation_id back = { head->user };
    uint32_t load;

    if (head->mirror != SLOT_NONE) {
        struct head_cell *mirror = head_get(cells, head->mirror);

        if (mirror->state == CELL_PRESENT && mirror->user == delivery->to.value &&
            mirror->conversation == back.value) {
            delivery->peer = head_user(cells, mirror);
            if (delivery->peer != SLOT_NONE &&
                user_get(cells, delivery->peer)->state == CELL_PRESENT) {
                mirror->used = 1;
                delivery->peer_head = head->mirror;
                return false;
            }
        }
    }
    const enum cell_state state = engine_find_user(engine, delivery->to, &delivery->peer, &load);

    if (state == CELL_LOADING) {
        *result = wait_for(engine, slot, counter, load);
        return true;
    }
    if (state != CELL_PRESENT) {
        delivery->peer = SLOT_NONE;
        return false;
    }
    switch (engine_find_head(engine, delivery->to, back, &delivery->peer_head, &load)) {
    case CELL_PRESENT:
        head->mirror = delivery->peer_head;
        return false;
    case CELL_DAMAGED:
        delivery->peer = SLOT_NONE;
        return false;
    case CELL_FREE:
    case CELL_LOADING:
    case CELL_ABSENT:
        break;
    }
    *result = wait_for(engine, slot, counter, load);
    return true;
}

static enum engine_result deliver(struct engine *engine, uint32_t slot,
                                  const struct message_send *send)
{
    struct session *session = session_get(engine, slot);
    const struct user_cell *user = user_get(&engine->cells, session->user);
    const struct user_id self = { user->id };
    struct delivery delivery = { .user = session->user };
    enum engine_result result;
    uint32_t load;

    switch (engine_find_head(engine, self, send->conversation, &delivery.head, &load)) {
    case CELL_PRESENT:
        break;
    case CELL_DAMAGED:
        /* For good, so that what stands behind it isn't kept waiting. */
        return reject(engine, slot, send, CODE_BAD_CONVERSATION);
    case CELL_FREE:
    case CELL_LOADING:
    case CELL_ABSENT:
        return wait_for(engine, slot, send->counter, load);
    }
    if (send->conversation.value != self.value) {
        const struct partition_id source = partition_of(self.value);
        const struct partition_id destination = partition_of(send->conversation.value);

        delivery.to.value = send->conversation.value;
        /* Behind nothing that is still on its way, or it would overtake. */
        if (engine_is_home(engine, destination) &&
            (outbox_is_clear(engine, source, destination) || HF_MUTANT(SHORT_CUT_OVERTAKES)) &&
            find_peer(engine, slot, send->counter, &delivery, &result)) {
            return result;
        }
        if (delivery.peer == SLOT_NONE) {
            const enum code code = outbox_room(engine, source, destination);

            if (code != CODE_OK) {
                return refuse(engine, slot, send->counter, code);
            }
        }
    }
    session->load_failed = 0;
    /* Room first, then numbers. */
    if (!engine_may_append(engine, 2 * ((size_t)send->body.byte_count + TIMELINE_APPEND_BYTES))) {
        return refuse(engine, slot, send->counter, CODE_RETRY);
    }
    return append_message(engine, slot, send, &delivery);
}

static enum code permanent_code(const struct message_send *send)
{
    const struct user_id peer = { send->conversation.value };

    if (!user_id_valid(peer)) {
        return CODE_BAD_CONVERSATION; /* groups too: there are none yet */
    }
    if (send->kind > KIND_MAX) {
        return CODE_BAD_KIND;
    }
    return send->body.byte_count > BODY_BYTES_MAX ? CODE_BODY_TOO_LARGE : CODE_OK;
}

enum engine_result send_on_frame(struct engine *engine, uint32_t slot,
                                 const struct frame_view *frame)
{
    struct session *session = session_get(engine, slot);
    struct device_cell *device = device_get(&engine->cells, session->device);
    const struct kept_outcome *kept = NULL;
    struct message_send send;
    enum code code = message_decode_send(frame, &send);

    if (code != CODE_OK) {
        return session_fail(engine, slot, code);
    }
    if (session->sends_outstanding >= SENDS_OUTSTANDING_MAX) {
        /* More than it may: refused, as long as the refusals themselves don't pile up. */
        return session->sends_outstanding < 2 * SENDS_OUTSTANDING_MAX
                   ? refuse(engine, slot, send.counter, CODE_RETRY)
                   : engine_block(engine, slot, WAIT_STALLED);
    }
    switch (outcome_find(&engine->cells, device, &send.nonce, &kept)) {
    case OUTCOME_THERE:
        session->reloaded = 0;
        return repeat(engine, slot, send.counter, kept);
    case OUTCOME_UNLOADED:
        return reload_outcomes(engine, slot);
    case OUTCOME_NONE:
        session->reloaded = 0;
        break;
    }
    if (send.counter <= device->last_counter) {
        engine->stats.conflicts++;
        return session_fail(engine, slot,
                            device->last_counter - send.counter < OUTCOMES_KEPT ? CODE_CONFLICT
                                                                                : CODE_STALE);
    }
    if (send.counter > device->last_counter + 1) {
        engine->stats.sends_refused++;
        return answer(engine, slot, user_ticket(engine, slot), send.counter, 0, 0, CODE_ORDER);
    }
    if (engine->budget.refuse_sends || engine->budget.only_streams) {
        return refuse(engine, slot, send.counter, CODE_RETRY);
    }
    if (!outcome_reserve(&engine->cells, device)) {
        engine_want_flush(engine);
        return refuse(engine, slot, send.counter, CODE_RETRY);
    }
    code = permanent_code(&send);
    return code == CODE_OK ? deliver(engine, slot, &send) : reject(engine, slot, &send, code);
}

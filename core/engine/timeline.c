#include "core/engine/timeline.h"

#include "core/engine/inside.h"

/* A floor is written when so many entries more than wanted are there. */
static uint64_t retention_slack(uint64_t retention_count)
{
    return retention_count / 16 > 64 ? retention_count / 16 : 64;
}

/*
 * Inside an append: the log begins at `floor` from now on, or lower, where a stream record still
 * needs an entry. Returns how many entries that leaves below.
 */
static uint64_t raise_floor(struct engine *engine, struct user_cell *user, uint64_t floor)
{
    const struct user_id id = { user->id };
    const uint64_t before = user->floor;
    size_t bytes;

    if (floor <= before) {
        return 0;
    }
    const struct record record = { .type = RECORD_FLOOR,
                                   .partition = partition_of(user->id),
                                   .floor = { .user = id, .floor = floor } };

    user->floor = floor;
    (void)engine_append(engine, &record, &bytes);
    return floor - before;
}

static uint64_t highest_floor(const struct engine *engine, const struct user_cell *user,
                              uint64_t wanted)
{
    const uint64_t needed = outbox_lowest_seq(engine, (struct user_id){ user->id });
    const uint64_t above = user->head + 1;

    wanted = wanted < needed || HF_MUTANT(RETENTION_TAKES_UNSENT) ? wanted : needed;
    return wanted < above ? wanted : above;
}

static void trim(struct engine *engine, struct user_cell *user)
{
    const uint64_t keep = engine->config.retention_count;

    if (keep == 0 || user->head - user->floor + 1 < keep + retention_slack(keep)) {
        return;
    }
    const uint64_t floor = highest_floor(engine, user, user->head - keep + 1);

    engine->stats.trimmed_by_count += raise_floor(engine, user, floor);
}

/*
 * A floor can wait, so it never takes what clients need: no room of a journal under pressure, and no
 * cell where they are all pinned by what isn't flushed.
 */
static bool floor_must_wait(const struct engine *engine)
{
    return engine->flush_wanted || engine->budget.refuse_sends || engine->budget.only_streams ||
           !engine_may_append(engine, RECORD_REST_BYTES);
}

enum engine_result timeline_on_expired(struct engine *engine, struct user_id id, uint64_t floor)
{
    uint32_t slot, load;

    if (!engine_is_home(engine, partition_of(id.value))) {
        return ENGINE_TAKEN;
    }
    if (floor_must_wait(engine)) {
        return ENGINE_BLOCKED;
    }
    const enum cell_state state = engine_find_user(engine, id, &slot, &load);

    if (state != CELL_PRESENT) {
        return state == CELL_LOADING ? ENGINE_BLOCKED : ENGINE_TAKEN;
    }
    struct user_cell *user = user_get(&engine->cells, slot);

    floor = highest_floor(engine, user, floor);
    if (floor <= user->floor) {
        return ENGINE_TAKEN; /* its record waits for the flush, or retention by count was faster */
    }
    engine_append_begin(engine);
    user->ticket = engine_next_ticket(engine);
    engine->stats.trimmed_by_age += raise_floor(engine, user, floor);
    engine_append_end(engine);
    return ENGINE_TAKEN;
}

uint64_t timeline_append(struct engine *engine, uint32_t slot, struct record *record)
{
    struct user_cell *user = user_get(&engine->cells, slot);
    size_t bytes;

    HF_ASSERT(user->state == CELL_PRESENT);
    user->head++;
    user->not_durable++;
    user->ticket = engine_next_ticket(engine);
    record->type = RECORD_ENTRY;
    record->partition = partition_of(user->id);
    record->entry.user.value = user->id;
    record->entry.epoch = user->epoch;
    record->entry.seq = user->head;

    const uint8_t *encoded = engine_append(engine, record, &bytes);

    user->recent_at =
        recent_add(&engine->recent, user->recent_at, slot, user->head, encoded, bytes);
    trim(engine, user);
    if (HF_MUTANT(PUSH_BEFORE_DURABLE)) {
        timeline_advance(engine, slot, user->head);
    }
    return user->recent_at;
}

uint64_t timeline_epoch(const struct engine *engine, uint64_t epoch)
{
    const uint64_t min = engine->config.epoch_min > 0 ? engine->config.epoch_min : 1;

    return epoch > min ? epoch : min;
}

void timeline_make_user(struct engine *engine, uint32_t slot)
{
    struct user_cell *user = user_get(&engine->cells, slot);

    HF_ASSERT(user->state == CELL_ABSENT);
    user->state = CELL_PRESENT;
    user->epoch = timeline_epoch(engine, engine->now_unix_ms / 1000);
    user->head = 0;
    user->not_durable = 0;
    user->floor = 1;
}

void timeline_append_user(struct engine *engine, uint32_t slot)
{
    struct user_cell *user = user_get(&engine->cells, slot);
    const struct record record = { .type = RECORD_USER,
                                   .partition = partition_of(user->id),
                                   .user = { .user = { user->id },
                                             .epoch = user->epoch,
                                             .created_unix_ms = engine->now_unix_ms } };
    size_t bytes;

    user->ticket = engine_next_ticket(engine);
    (void)engine_append(engine, &record, &bytes);
    emit_note(&engine->emit, NOTE_USER_CREATED, (struct user_id){ user->id },
              (struct device_id){ 0 });
}

void timeline_advance(struct engine *engine, uint32_t slot, uint64_t seq)
{
    struct user_cell *user = user_get(&engine->cells, slot);

    HF_ASSERT(user->state == CELL_PRESENT && seq <= user->head);
    if (seq <= user_durable_head(user)) {
        return;
    }
    user->not_durable = (uint32_t)(user->head - seq);
    for (uint32_t i = user->sessions; i != SLOT_NONE; i = session_get(engine, i)->next) {
        ready_mark(&engine->ready_sessions, i, SESSION_READY_PUSH);
    }
}

/* From stored to wire */

void timeline_message_of(const struct log_entry *entry, struct entry_message *message)
{
    const bool own = (entry->flags & LOG_ENTRY_FLAG_OWN) != 0;

    message->flags = own ? ENTRY_FLAG_OWN : 0;
    message->kind = entry->kind;
    message->device = entry->device;
    message->id = entry->id;
    message->conversation = entry->conversation;
    message->sender = entry->sender;
    message->prev = entry->prev;
    message->n = entry->n;
    message->cn = entry->cn;
    message->body.bytes = entry->body;
    message->body.byte_count = entry->body_bytes;
    if (own) {
        memcpy(message->nonce.bytes, entry->nonce, NONCE_BYTES);
        message->counter = entry->counter;
    }
}

/* Short on the connection that its SEND came on, which is known by its counter. */
static void wire_entry_of(const struct engine *engine, const struct session *session,
                          const struct log_entry *entry, struct entry *wire)
{
    if (entry->form == LOG_ENTRY_REFUSED) {
        wire->form = ENTRY_REFUSED;
        wire->refused.code = entry->code;
        wire->refused.ref_seq = entry->ref_seq;
        wire->refused.id = entry->id;
        wire->refused.conversation = entry->conversation;
        return;
    }
    if ((entry->flags & LOG_ENTRY_FLAG_OWN) != 0 && entry->counter > session->hello_counter &&
        entry->device.value == device_get(&engine->cells, session->device)->id) {
        wire->form = ENTRY_SENT;
        wire->sent.counter = entry->counter;
        wire->sent.id = entry->id;
        return;
    }
    wire->form = ENTRY_MESSAGE;
    timeline_message_of(entry, &wire->message);
}

/* Push */

/* How large the next ENTRIES frame may be; 0: it must wait. */
static size_t frame_cap(const struct session *session)
{
    const size_t out = session->out_bytes;
    const size_t unacked = (size_t)session->unacked_old + session->unacked_new;
    size_t cap = FRAME_BYTES_MAX;

    if (out > 0) {
        const size_t room = out < SESSION_ROOM_BYTES ? SESSION_ROOM_BYTES - out : 0;

        cap = room < cap ? room : cap;
    }
    if (unacked > 0) {
        const size_t window = unacked < session->window ? session->window - unacked : 0;

        cap = window < cap ? window : cap;
    }
    return cap;
}

/* The ring's item of the entry after `sent`, NULL when it isn't there (any more). */
static struct recent_item *next_recent(const struct engine *engine, const struct session *session,
                                       const struct user_cell *user, uint64_t *at)
{
    struct recent_item *item = recent_get(&engine->recent, session->recent_at);

    if (item != NULL) {
        HF_ASSERT_SLOW(item->seq == session->sent);
        *at = item->after;
        return recent_get(&engine->recent, *at);
    }
    *at = user->recent_at;
    item = recent_get(&engine->recent, *at);
    while (item != NULL && item->seq > session->sent + 1) {
        *at = item->before;
        item = recent_get(&engine->recent, *at);
    }
    return item;
}

static void parse_entry(const uint8_t *bytes, size_t byte_count, struct record *record)
{
    size_t record_bytes;
    const enum record_status status = record_parse(bytes, byte_count, record, &record_bytes);

    HF_ASSERT(status == RECORD_OK && record->type == RECORD_ENTRY); /* our own, from memory */
}

static void count_pushed(struct engine *engine, struct session *session, size_t bytes,
                         uint32_t entries)
{
    session_emit_frame(engine, session, bytes);
    if (session->unacked_old == 0) {
        session->unacked_old = (uint32_t)bytes;
        session->window_mark = session->sent;
    } else {
        session->unacked_new += (uint32_t)bytes;
    }
    engine->stats.entries_pushed += entries;
}

/* One frame of entries from the ring, beginning with `item`. False: none fits into it. */
static bool push_recent(struct engine *engine, struct session *session,
                        const struct user_cell *user, struct recent_item *item, uint64_t at,
                        size_t cap)
{
    struct entries_builder builder;
    struct record record;
    struct entry wire;
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);

    HF_ASSERT(room >= cap);
    entries_begin(&builder, to, cap, session->sent + 1);
    while (item != NULL && item->seq <= user_durable_head(user)) {
        HF_ASSERT_SLOW(item->seq == session->sent + 1);
        parse_entry(item->record, item->record_bytes, &record);
        wire_entry_of(engine, session, &record.entry, &wire);
        if (!entries_add(&builder, &wire)) {
            break;
        }
        session->sent = item->seq;
        session->recent_at = at;
        at = item->after;
        item = recent_get(&engine->recent, at);
    }
    const uint32_t count = entries_count(&builder);
    const size_t bytes = entries_end(&builder);

    if (bytes > 0) {
        count_pushed(engine, session, bytes, count);
    }
    return bytes > 0;
}

static void load_entries(struct engine *engine, uint32_t slot, const struct user_cell *user)
{
    struct session *session = session_get(engine, slot);
    const struct load load = { .kind = LOAD_RANGE,
                               .user = { user->id },
                               .from = session->sent + 1,
                               .to = user_durable_head(user),
                               .bytes = FRAME_BYTES_MAX };

    session->load = (uint16_t)loads_start(engine, &load, LOAD_FOR_SESSION, slot);
    if (session->load != SLOT_NONE) {
        engine->stats.catchups_from_store++;
    } else {
        ready_mark(&engine->stalled_pushes, slot, SESSION_READY_PUSH);
    }
}

void timeline_push(struct engine *engine, uint32_t slot)
{
    struct session *session = session_get(engine, slot);

    if (session->state != SESSION_LIVE || session->load != SLOT_NONE) {
        return;
    }
    const struct user_cell *user = user_get(&engine->cells, session->user);

    if (session->sent >= user_durable_head(user)) {
        return;
    }
    if (session->sent + 1 < user->floor) {
        if (session_fail(engine, slot, CODE_TRIMMED) == ENGINE_BLOCKED) {
            ready_mark(&engine->stalled_pushes, slot, SESSION_READY_PUSH);
        }
        return;
    }
    const size_t cap = frame_cap(session);
    uint64_t at;

    if (cap < FRAME_HEADER_BYTES + ENTRIES_FIXED_BYTES) {
        return; /* an ACK, or what has been sent, brings it back */
    }
    struct recent_item *item = next_recent(engine, session, user, &at);

    if (item == NULL) {
        /* Only with all of window and room, since what comes isn't kept until they are there. */
        if (cap == FRAME_BYTES_MAX) {
            load_entries(engine, slot, user);
        }
        return;
    }
    if (push_recent(engine, session, user, item, at, cap) &&
        session->sent < user_durable_head(user)) {
        ready_mark(&engine->ready_sessions, slot, SESSION_READY_PUSH);
    }
}

static void entry_missing(struct engine *engine, uint32_t slot)
{
    const struct session *session = session_get(engine, slot);

    emit_note(&engine->emit, NOTE_ENTRY_MISSING,
              (struct user_id){ user_get(&engine->cells, session->user)->id },
              (struct device_id){ device_get(&engine->cells, session->device)->id });
    session_fail_now(engine, slot, CODE_INTERNAL, 0);
}

/* One frame of entries from the store. False: they aren't what was asked for. */
static bool push_loaded(struct engine *engine, struct session *session,
                        const struct user_cell *user, const struct loaded *loaded)
{
    struct entries_builder builder;
    struct record record;
    struct entry wire;
    const uint8_t *from = loaded->entries;
    size_t left = loaded->entries_bytes;
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);
    bool good = true;

    HF_ASSERT(room >= FRAME_BYTES_MAX);
    entries_begin(&builder, to, FRAME_BYTES_MAX, session->sent + 1);
    while (left > 0) {
        size_t bytes;

        good = record_parse(from, left, &record, &bytes) == RECORD_OK &&
               record.type == RECORD_ENTRY && record.entry.user.value == user->id &&
               record.entry.seq == session->sent + 1 && record.entry.seq <= user_durable_head(user);
        if (!good) {
            break;
        }
        wire_entry_of(engine, session, &record.entry, &wire);
        if (!entries_add(&builder, &wire)) {
            break;
        }
        session->sent++;
        from += bytes;
        left -= bytes;
    }
    session->recent_at = 0;

    const uint32_t count = entries_count(&builder);
    const size_t bytes = entries_end(&builder);

    if (bytes > 0) {
        count_pushed(engine, session, bytes, count);
    }
    return good && bytes > 0;
}

void timeline_on_loaded(struct engine *engine, uint32_t slot, const struct load *load,
                        const struct loaded *loaded)
{
    struct session *session = session_get(engine, slot);
    const struct user_cell *user = user_get(&engine->cells, session->user);

    session->load = SLOT_NONE;
    if (session->state != SESSION_LIVE) {
        return;
    }
    HF_ASSERT(load->from == session->sent + 1);
    ready_mark(&engine->ready_sessions, slot, SESSION_READY_PUSH);
    if (load->from < user->floor) {
        return; /* trimmed meanwhile: the push says so */
    }
    if (loaded->status == LOAD_FAILED) {
        session_fail_now(engine, slot, CODE_BUSY, 1000);
        return;
    }
    if (loaded->status == LOAD_DAMAGED) {
        session_fail_now(engine, slot, CODE_INTERNAL, 0);
        return;
    }
    if (loaded->status == LOAD_ABSENT || !push_loaded(engine, session, user, loaded)) {
        entry_missing(engine, slot);
    }
}

/*
 * A frame is acknowledged with its last entry. Not every frame is remembered, only which came
 * before a mark: what is above it counts until all up to it is acknowledged.
 */
enum code timeline_on_ack(struct engine *engine, uint32_t slot, const struct message_ack *ack)
{
    struct session *session = session_get(engine, slot);

    if (ack->seq > session->sent) {
        return CODE_BAD_FIELD;
    }
    if (ack->seq <= session->acked) {
        return CODE_OK;
    }
    session->acked = ack->seq;
    if (ack->seq == session->sent) {
        session->unacked_old = 0;
        session->unacked_new = 0;
    } else if (ack->seq >= session->window_mark) {
        session->unacked_old = session->unacked_new;
        session->unacked_new = 0;
        session->window_mark = session->sent;
    }
    if (session->sent < user_durable_head(user_get(&engine->cells, session->user))) {
        ready_mark(&engine->ready_sessions, slot, SESSION_READY_PUSH);
    }
    return CODE_OK;
}

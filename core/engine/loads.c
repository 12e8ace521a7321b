#include "core/engine/loads.h"

#include "core/engine/history.h"
#include "core/engine/inside.h"
#include "core/engine/timeline.h"

static void emit_load(struct engine *engine, uint32_t slot)
{
    struct load_cell *cell = load_get(engine, slot);

    cell->load.id = slot;
    cell->load.need_lsn = engine->flushed_lsn;
    emit_add(&engine->emit, EFFECT_LOAD)->load = cell->load;
    engine->stats.loads++;
}

uint32_t loads_start(struct engine *engine, const struct load *load, enum load_purpose purpose,
                     uint32_t owner)
{
    const uint32_t slot = pool_take(&engine->loads);

    if (slot == SLOT_NONE) {
        return SLOT_NONE;
    }
    struct load_cell *cell = load_get(engine, slot);

    *cell = (struct load_cell){
        .load = *load, .owner = owner, .purpose = (uint8_t)purpose, .in_use = true
    };
    emit_load(engine, slot);
    return slot;
}

static struct wait_list *list_of(struct engine *engine, uint32_t wait_on)
{
    return wait_on == WAIT_STALLED ? &engine->stalled : &load_get(engine, wait_on)->waiters;
}

void loads_block(struct engine *engine, uint32_t slot, uint32_t wait_on)
{
    struct session *session = session_get(engine, slot);

    HF_ASSERT(session->wait_on == WAIT_NOTHING && wait_on != WAIT_NOTHING);
    HF_ASSERT(wait_on <= UINT16_MAX);
    session->wait_on = (uint16_t)wait_on;
    if (wait_on == WAIT_SENT) {
        return;
    }
    struct wait_list *list = list_of(engine, wait_on);

    session->wait_prev = list->last;
    session->wait_next = SLOT_NONE;
    if (list->last != SLOT_NONE) {
        session_get(engine, list->last)->wait_next = slot;
    } else {
        list->first = slot;
    }
    list->last = slot;
}

void loads_unblock(struct engine *engine, uint32_t slot)
{
    struct session *session = session_get(engine, slot);

    if (session->wait_on != WAIT_NOTHING && session->wait_on != WAIT_SENT) {
        struct wait_list *list = list_of(engine, session->wait_on);

        if (session->wait_prev != SLOT_NONE) {
            session_get(engine, session->wait_prev)->wait_next = session->wait_next;
        } else {
            list->first = session->wait_next;
        }
        if (session->wait_next != SLOT_NONE) {
            session_get(engine, session->wait_next)->wait_prev = session->wait_prev;
        } else {
            list->last = session->wait_prev;
        }
    }
    session->wait_on = WAIT_NOTHING;
    session->wait_prev = SLOT_NONE;
    session->wait_next = SLOT_NONE;
}

static void wake_list(struct engine *engine, struct wait_list *list, bool failed)
{
    uint32_t slot = list->first;

    *list = (struct wait_list){ SLOT_NONE, SLOT_NONE };
    while (slot != SLOT_NONE) {
        struct session *session = session_get(engine, slot);
        const uint32_t next = session->wait_next;

        session->wait_on = WAIT_NOTHING;
        session->wait_prev = SLOT_NONE;
        session->wait_next = SLOT_NONE;
        if (failed) {
            session->load_failed = 1;
        }
        ready_mark(&engine->ready_sessions, slot, SESSION_READY_UNBLOCK);
        slot = next;
    }
}

void loads_abandon(struct engine *engine, uint32_t slot)
{
    struct load_cell *cell = load_get(engine, slot);

    HF_ASSERT(cell->in_use);
    cell->purpose = LOAD_FOR_NOBODY;
    cell->owner = SLOT_NONE;
    wake_list(engine, &cell->waiters, false);
}

void loads_wake_stalled(struct engine *engine)
{
    uint32_t slot;
    uint8_t flags;

    wake_list(engine, &engine->stalled, false);
    while (ready_take(&engine->stalled_pushes, &slot, &flags)) {
        ready_mark(&engine->ready_sessions, slot, flags);
    }
}

/* Entries that must be there are missing from the answer. */
static bool lacks_entries(const struct load *load, const struct loaded *loaded)
{
    switch (load->kind) {
    case LOAD_RANGE:
    case LOAD_CHAIN:
    case LOAD_CHECKPOINT:
        return loaded->status == LOAD_ABSENT;
    case LOAD_USER:
    case LOAD_HEAD:
        break;
    }
    return false;
}

/*
 * A snapshot from before the flush that is over is blind to what that flush put into the volume
 * and took out of the index of unflushed entries. Cells can't change while they aren't here, so
 * they need what was flushed when they were asked for; entries are forgotten by the index at any
 * time.
 */
static bool is_stale(const struct engine *engine, const struct load *load,
                     const struct loaded *loaded)
{
    if (loaded->status == LOAD_FAILED || loaded->status == LOAD_DAMAGED ||
        HF_MUTANT(LOAD_WITHOUT_LSN_CHECK)) {
        return false;
    }
    return loaded->snapshot_lsn < load->need_lsn ||
           (lacks_entries(load, loaded) && loaded->snapshot_lsn < engine->flushed_lsn);
}

/* False: those who wait for it must go on without. */
static bool give_answer(struct engine *engine, const struct load_cell *cell,
                        const struct loaded *loaded);

void engine_on_loaded(struct engine *engine, const struct loaded *loaded)
{
    HF_ASSERT(loaded->id != SLOT_NONE && loaded->id <= engine->loads.fresh);
    HF_ASSERT(emit_has_room(&engine->emit, EMIT_CALL_EFFECTS, EMIT_CALL_BYTES));

    struct load_cell *cell = load_get(engine, loaded->id);

    HF_ASSERT(cell->in_use);
    if (is_stale(engine, &cell->load, loaded) && cell->purpose != LOAD_FOR_NOBODY) {
        engine->stats.loads_repeated++;
        emit_load(engine, loaded->id);
        return;
    }
    struct load_cell answered = *cell;

    pool_give(&engine->loads, loaded->id);
    cell_pools_search_again(&engine->cells);
    wake_list(engine, &answered.waiters, !give_answer(engine, &answered, loaded));
    loads_wake_stalled(engine);
}

static bool on_user(struct engine *engine, uint32_t slot, const struct loaded *loaded)
{
    struct cell_pools *cells = &engine->cells;
    struct user_cell *user = user_get(cells, slot);

    HF_ASSERT(user->state == CELL_LOADING);
    user->load = SLOT_NONE;
    if (loaded->status == LOAD_FAILED) {
        user_drop(cells, slot);
        return false;
    }
    if (loaded->status == LOAD_ABSENT || loaded->status == LOAD_DAMAGED) {
        user->state = loaded->status == LOAD_ABSENT ? CELL_ABSENT : CELL_DAMAGED;
        return true;
    }
    HF_ASSERT(loaded->floor >= 1 && loaded->floor <= loaded->head + 1);
    user->state = CELL_PRESENT;
    user->epoch = timeline_epoch(engine, loaded->epoch);
    user->head = loaded->head;
    user->not_durable = 0; /* what is in a volume is durable */
    user->floor = loaded->floor;
    /* Newest first in memory; the order of ids would do as well, but must be the same each time. */
    for (uint32_t i = 0; i < loaded->device_count; i++) {
        const struct loaded_device *row = &loaded->devices[i];
        const uint32_t device_slot = device_take(cells, slot, row->device);

        if (device_slot == SLOT_NONE) {
            /* No room for all: as if it had never been loaded. */
            user_drop(cells, slot);
            engine_want_flush(engine);
            return false;
        }
        struct device_cell *device = device_get(cells, device_slot);

        device->generation = row->generation;
        device->last_counter = row->last_counter;
        device->cursor_seq = row->cursor.epoch == user->epoch ? row->cursor.seq : 0;
        outcomes_set_fingerprints(device, row->outcomes, row->outcome_count);
    }
    return true;
}

static bool on_outcomes(struct engine *engine, uint32_t slot, const struct loaded *loaded)
{
    struct cell_pools *cells = &engine->cells;
    struct user_cell *user = user_get(cells, slot);

    user->load = SLOT_NONE;
    for (uint32_t i = 0; loaded->status == LOAD_FOUND && i < loaded->device_count; i++) {
        const struct loaded_device *row = &loaded->devices[i];
        const uint32_t device = device_find(cells, user, row->device);

        const uint32_t session =
            device == SLOT_NONE ? SLOT_NONE : device_get(cells, device)->session;

        if (session == SLOT_NONE || !session_get(engine, session)->reloaded) {
            continue; /* nobody asks for these, and another's might go for them */
        }
        if (!outcomes_reload(cells, device_get(cells, device), row->outcomes, row->outcome_count)) {
            engine_want_flush(engine);
            return false;
        }
    }
    return loaded->status == LOAD_FOUND || loaded->status == LOAD_ABSENT;
}

static bool on_head(struct engine *engine, uint32_t slot, const struct loaded *loaded)
{
    struct head_cell *head = head_get(&engine->cells, slot);

    HF_ASSERT(head->state == CELL_LOADING);
    head->load = SLOT_NONE;
    if (loaded->status == LOAD_FAILED) {
        head_drop(&engine->cells, slot);
        return false;
    }
    head->state = loaded->status == LOAD_DAMAGED ? CELL_DAMAGED : CELL_PRESENT;
    if (loaded->status == LOAD_FOUND) {
        head->last = loaded->conversation_head.last;
        head->n = loaded->conversation_head.n;
        head->cn = loaded->conversation_head.cn;
        head->origin = loaded->conversation_head.origin;
    }
    return true;
}

static bool give_answer(struct engine *engine, const struct load_cell *cell,
                        const struct loaded *loaded)
{
    switch ((enum load_purpose)cell->purpose) {
    case LOAD_FOR_NOBODY:
        break;
    case LOAD_FOR_USER:
        return on_user(engine, cell->owner, loaded);
    case LOAD_FOR_OUTCOMES:
        return on_outcomes(engine, cell->owner, loaded);
    case LOAD_FOR_HEAD:
        return on_head(engine, cell->owner, loaded);
    case LOAD_FOR_SESSION:
        timeline_on_loaded(engine, cell->owner, &cell->load, loaded);
        break;
    case LOAD_FOR_REQUEST:
        history_on_loaded(engine, cell->owner, &cell->load, loaded);
        break;
    case LOAD_FOR_LINK:
        outbox_on_loaded(engine, cell->owner, &cell->load, loaded);
        break;
    }
    return true;
}

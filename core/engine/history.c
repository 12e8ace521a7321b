#include "core/engine/history.h"

#include "core/engine/inside.h"
#include "core/engine/timeline.h"

#define HISTORY_MESSAGES_MAX 200 /* a page */
#define CHECKPOINT_EVERY     64
/* What is walked to find the oldest of the wanted: those, and up to the next checkpoint. */
#define WALK_MAX      (HISTORY_MESSAGES_MAX + CHECKPOINT_EVERY)
#define WALK_BYTES    (64 * 1024)
#define RECENT_STEPS  1024 /* in the ring, before the store is asked instead */
#define RETRY_MS      1000
#define READY_REQUEST 0x01

static struct request *request_get(const struct engine *engine, uint32_t slot)
{
    return pool_get(&engine->requests, slot);
}

static const struct user_cell *user_of(const struct engine *engine, const struct request *request)
{
    return user_get(&engine->cells, session_get(engine, request->session)->user);
}

/* Ends */

static void drop_request(struct engine *engine, uint32_t slot)
{
    struct request *request = request_get(engine, slot);
    struct session *session = session_get(engine, request->session);
    uint16_t *link = &session->requests;

    if (request->load != SLOT_NONE) {
        loads_abandon(engine, request->load);
    }
    while (*link != slot) {
        HF_ASSERT(*link != SLOT_NONE);
        link = &request_get(engine, *link)->next;
    }
    *link = request->next;
    session->request_count--;
    ready_forget(&engine->ready_requests, slot);
    request->session = SLOT_NONE;
    pool_give(&engine->requests, slot);
    for (uint32_t i = session->requests; i != SLOT_NONE; i = request_get(engine, i)->next) {
        ready_mark(&engine->ready_requests, i, READY_REQUEST); /* it may have waited for this one */
    }
}

void history_drop_all(struct engine *engine, uint32_t session)
{
    while (session_get(engine, session)->requests != SLOT_NONE) {
        drop_request(engine, session_get(engine, session)->requests);
    }
}

static void fail(struct engine *engine, uint32_t slot, enum code code)
{
    const struct request *request = request_get(engine, slot);

    session_notice(engine, request->session, code, request->id,
                   code == CODE_UNAVAILABLE ? RETRY_MS : 0);
    drop_request(engine, slot);
}

static void fail_missing(struct engine *engine, uint32_t slot)
{
    emit_note(&engine->emit, NOTE_ENTRY_MISSING,
              (struct user_id){ user_of(engine, request_get(engine, slot))->id },
              (struct device_id){ 0 });
    fail(engine, slot, CODE_UNAVAILABLE);
}

/* Pages */

struct page {
    struct page_builder builder;
    size_t bytes;
    size_t wanted; /* bytes at most, but for the first message */
    uint16_t n;
    uint64_t last_prev;
    uint64_t last_n;
};

static void begin_page(struct engine *engine, const struct request *request, struct page *page)
{
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);

    HF_ASSERT(room >= FRAME_BYTES_MAX);
    *page = (struct page){ .bytes = FRAME_HEADER_BYTES + PAGE_FIXED_BYTES,
                           .wanted = request->bytes,
                           .n = request->n };
    page_begin(&page->builder, to, FRAME_BYTES_MAX, request->id,
               (struct conversation_id){ request->conversation },
               (enum history_direction)request->direction);
}

/* False: the page is full. */
static bool add_to_page(struct page *page, const struct log_entry *entry)
{
    struct entry_message message;

    timeline_message_of(entry, &message);

    const size_t bytes = PAGE_SEQ_BYTES + entry_message_bytes(&message);
    const uint16_t count = page_count(&page->builder);

    if (count == page->n || (count > 0 && page->bytes + bytes > page->wanted) ||
        !page_add(&page->builder, entry->seq, &message)) {
        return false;
    }
    page->bytes += bytes;
    page->last_prev = entry->prev;
    page->last_n = entry->n;
    return true;
}

static void give_page(struct engine *engine, uint32_t slot, struct page *page, uint8_t flags)
{
    session_emit_frame(engine, session_get(engine, request_get(engine, slot)->session),
                       page_end(&page->builder, flags));
    drop_request(engine, slot);
}

static void give_empty(struct engine *engine, uint32_t slot, uint8_t flags)
{
    struct page page;

    begin_page(engine, request_get(engine, slot), &page);
    give_page(engine, slot, &page, flags);
}

/* What lies behind the oldest of a page that goes backwards. */
static uint8_t flags_before(const struct request *request, uint64_t prev)
{
    if (prev == 0) {
        return 0;
    }
    return prev >= request->floor ? PAGE_FLAG_MORE : PAGE_FLAG_TRIMMED;
}

/* Asking the store */

static void ask(struct engine *engine, uint32_t slot, const struct load *load)
{
    struct request *request = request_get(engine, slot);

    request->load = loads_start(engine, load, LOAD_FOR_REQUEST, slot);
    if (request->load == SLOT_NONE) {
        fail(engine, slot, CODE_UNAVAILABLE);
    }
}

static void ask_checkpoint(struct engine *engine, uint32_t slot, uint64_t block)
{
    const struct request *request = request_get(engine, slot);
    const struct load load = { .kind = LOAD_CHECKPOINT,
                               .user = { user_of(engine, request)->id },
                               .conversation = { request->conversation },
                               .block = block };

    ask(engine, slot, &load);
}

static void ask_chain(struct engine *engine, uint32_t slot)
{
    const struct request *request = request_get(engine, slot);
    struct load load = { .kind = LOAD_CHAIN,
                         .user = { user_of(engine, request)->id },
                         .conversation = { request->conversation },
                         .from = request->from,
                         .count = WALK_MAX,
                         .bytes = WALK_BYTES };

    if (request->direction == HISTORY_BEFORE) {
        /* The anchor comes too, to be looked at, and one behind it must fit whatever their sizes.
         */
        load.count = request->n + (request->anchor != 0 ? 1U : 0U);
        load.bytes = request->anchor != 0 ? FRAME_BYTES_MAX + RECORD_BYTES_MAX : request->bytes;
    }
    ask(engine, slot, &load);
}

/* Another page of this session is being read: the room is for one. */
static bool is_reading_page(const struct engine *engine, const struct session *session)
{
    for (uint32_t i = session->requests; i != SLOT_NONE; i = request_get(engine, i)->next) {
        const struct request *request = request_get(engine, i);

        if (request->step == REQUEST_CHAIN && request->load != SLOT_NONE) {
            return true;
        }
    }
    return false;
}

/* From memory, if all of it is there. The newest messages of a conversation mostly are. */
static bool page_from_recent(struct engine *engine, uint32_t slot)
{
    const struct request *request = request_get(engine, slot);
    const struct user_cell *user = user_of(engine, request);
    const struct recent_item *item = recent_get(&engine->recent, user->recent_at);
    uint64_t wanted = request->from;
    struct page page;
    struct record record;
    size_t bytes;

    begin_page(engine, request, &page);
    for (uint32_t steps = 0; item != NULL && steps < RECENT_STEPS; steps++) {
        if (item->seq != wanted) {
            item = recent_get(&engine->recent, item->before);
            continue;
        }
        HF_ASSERT(record_parse(item->record, item->record_bytes, &record, &bytes) == RECORD_OK);
        if (record.entry.conversation.value != request->conversation ||
            record.entry.form != LOG_ENTRY_MESSAGE) {
            HF_ASSERT(wanted == request->anchor);
            fail(engine, slot, CODE_BAD_CURSOR);
            return true;
        }
        const bool is_anchor = wanted == request->anchor;

        if (!is_anchor && !add_to_page(&page, &record.entry)) {
            give_page(engine, slot, &page, flags_before(request, wanted));
            return true;
        }
        wanted = record.entry.prev;
        if (wanted < request->floor || page_count(&page.builder) == request->n) {
            give_page(engine, slot, &page, flags_before(request, wanted));
            return true;
        }
    }
    return false;
}

static void read_page(struct engine *engine, uint32_t slot)
{
    struct request *request = request_get(engine, slot);
    const struct session *session = session_get(engine, request->session);

    request->step = REQUEST_CHAIN;
    if (!session_has_room(session, request->bytes) || is_reading_page(engine, session)) {
        return; /* what has been sent, or the other page, brings it back */
    }
    if (request->direction == HISTORY_BEFORE && page_from_recent(engine, slot)) {
        return;
    }
    ask_chain(engine, slot);
}

/* Steps */

/* After: from the first checkpoint at or above the last that is wanted, or the top. */
static void go_above(struct engine *engine, uint32_t slot)
{
    struct request *request = request_get(engine, slot);
    const uint64_t last = request->anchor_n + request->n;
    const uint64_t block = (last + CHECKPOINT_EVERY - 1) / CHECKPOINT_EVERY;

    if (request->anchor_n >= request->top_n) {
        give_empty(engine, slot, 0);
        return;
    }
    if (block * CHECKPOINT_EVERY >= request->top_n) {
        request->from = request->top;
        read_page(engine, slot);
        return;
    }
    request->step = REQUEST_ABOVE;
    ask_checkpoint(engine, slot, block);
}

/* The lowest checkpoint that is kept, by halving: what is below a floor has no number by name. */
static void search(struct engine *engine, uint32_t slot)
{
    struct request *request = request_get(engine, slot);

    if (request->low < request->high) {
        request->step = REQUEST_SEARCH;
        ask_checkpoint(engine, slot, request->low + (request->high - request->low) / 2);
        return;
    }
    read_page(engine, slot); /* `from` is the last that was found, or the top */
}

static void begin_after(struct engine *engine, uint32_t slot)
{
    struct request *request = request_get(engine, slot);

    if (request->anchor >= request->floor) {
        const struct load load = { .kind = LOAD_RANGE,
                                   .user = { user_of(engine, request)->id },
                                   .from = request->anchor,
                                   .to = request->anchor,
                                   .bytes = RECORD_BYTES_MAX };

        request->step = REQUEST_ANCHOR;
        ask(engine, slot, &load);
        return;
    }
    request->trimmed = request->anchor != 0;
    if (request->floor == 1) {
        go_above(engine, slot);
        return;
    }
    request->lowest = true;
    request->from = request->top;
    request->low = 1;
    request->high = request->top_n / CHECKPOINT_EVERY + 1;
    search(engine, slot);
}

static void begin(struct engine *engine, uint32_t slot)
{
    struct request *request = request_get(engine, slot);
    const bool is_kept = request->top != 0 && request->top >= request->floor;

    if (request->anchor > request->top) {
        fail(engine, slot, CODE_BAD_CURSOR);
    } else if (!is_kept || (request->direction == HISTORY_BEFORE && request->anchor != 0 &&
                            request->anchor < request->floor)) {
        give_empty(engine, slot, request->top != 0 ? PAGE_FLAG_TRIMMED : 0);
    } else if (request->direction == HISTORY_BEFORE) {
        request->from = request->anchor != 0 ? request->anchor : request->top;
        read_page(engine, slot);
    } else {
        begin_after(engine, slot);
    }
}

void history_run(struct engine *engine, uint32_t slot)
{
    const struct request *request = request_get(engine, slot);

    if (request->session == SLOT_NONE || request->load != SLOT_NONE) {
        return; /* gone, or busy */
    }
    if (request->step == REQUEST_CHAIN) {
        read_page(engine, slot);
    } else if (request->step == REQUEST_DURABLE && engine_is_durable(engine, request->ticket) &&
               user_durable_head(user_of(engine, request)) >= request->top) {
        begin(engine, slot);
    }
}

/* Answers */

/* An entry that must be of that user and seq, and of the conversation unless it is the anchor. */
static bool parse_link(const struct user_cell *user, uint64_t seq, const uint8_t *bytes,
                       size_t byte_count, struct record *record, size_t *record_bytes)
{
    return record_parse(bytes, byte_count, record, record_bytes) == RECORD_OK &&
           record->type == RECORD_ENTRY && record->entry.user.value == user->id &&
           record->entry.seq == seq;
}

static bool is_of_conversation(const struct request *request, const struct log_entry *entry)
{
    return entry->conversation.value == request->conversation && entry->form == LOG_ENTRY_MESSAGE;
}

static void on_chain_before(struct engine *engine, uint32_t slot, const struct loaded *loaded)
{
    struct request *request = request_get(engine, slot);
    const struct user_cell *user = user_of(engine, request);
    const uint8_t *at = loaded->entries;
    size_t left = loaded->entries_bytes;
    uint64_t wanted = request->from;
    struct page page;

    begin_page(engine, request, &page);
    while (left > 0 && wanted >= request->floor && wanted != 0) {
        struct record record;
        size_t bytes;

        if (!parse_link(user, wanted, at, left, &record, &bytes)) {
            fail_missing(engine, slot);
            return;
        }
        if (!is_of_conversation(request, &record.entry)) {
            if (wanted == request->anchor) {
                fail(engine, slot, CODE_BAD_CURSOR);
            } else {
                fail_missing(engine, slot);
            }
            return;
        }
        if (wanted != request->anchor && !add_to_page(&page, &record.entry)) {
            break;
        }
        wanted = record.entry.prev;
        at += bytes;
        left -= bytes;
    }
    if (page_count(&page.builder) == 0 && wanted >= request->floor && wanted != 0) {
        /* The chain stopped behind the anchor, where the next entry lies elsewhere. */
        request->from = wanted;
        read_page(engine, slot);
        return;
    }
    give_page(engine, slot, &page, flags_before(request, wanted));
}

/* The chain down to the oldest wanted is there: the page goes upwards from it. */
static void give_upwards(struct engine *engine, uint32_t slot, const struct loaded *loaded,
                         const uint32_t offsets[], uint32_t count)
{
    const struct request *request = request_get(engine, slot);
    struct page page;
    struct record record;
    uint8_t flags = request->trimmed ? PAGE_FLAG_TRIMMED : 0;
    size_t bytes;

    begin_page(engine, request, &page);
    for (uint32_t i = count; i > 0; i--) {
        const uint32_t offset = offsets[i - 1];

        HF_ASSERT(record_parse(loaded->entries + offset, loaded->entries_bytes - offset, &record,
                               &bytes) == RECORD_OK);
        if (i == count && request->lowest && record.entry.n > 1) {
            flags |= PAGE_FLAG_TRIMMED;
        }
        if (!add_to_page(&page, &record.entry)) {
            break;
        }
    }
    if (page.last_n < request->top_n) {
        flags |= PAGE_FLAG_MORE;
    }
    give_page(engine, slot, &page, flags);
}

static void on_chain_after(struct engine *engine, uint32_t slot, const struct loaded *loaded)
{
    struct request *request = request_get(engine, slot);
    const struct user_cell *user = user_of(engine, request);
    uint32_t offsets[WALK_MAX];
    uint32_t count = 0;
    uint64_t wanted = request->from;
    size_t at = 0;
    bool reached = false;

    while (at < loaded->entries_bytes && count < WALK_MAX && !reached) {
        struct record record;
        size_t bytes;

        if (!parse_link(user, wanted, loaded->entries + at, loaded->entries_bytes - at, &record,
                        &bytes) ||
            !is_of_conversation(request, &record.entry)) {
            fail_missing(engine, slot);
            return;
        }
        offsets[count++] = (uint32_t)at;
        at += bytes;
        wanted = record.entry.prev;
        reached = record.entry.n == request->anchor_n + 1;
        if (!reached && wanted < request->floor) {
            request->trimmed = true;
            reached = true;
        }
    }
    if (reached) {
        give_upwards(engine, slot, loaded, offsets, count);
        return;
    }
    if (count == 0) {
        fail_missing(engine, slot);
        return;
    }
    request->from = wanted; /* large messages: further down */
    read_page(engine, slot);
}

static void on_anchor(struct engine *engine, uint32_t slot, const struct loaded *loaded)
{
    struct request *request = request_get(engine, slot);
    struct record record;
    size_t bytes;

    if (!parse_link(user_of(engine, request), request->anchor, loaded->entries,
                    loaded->entries_bytes, &record, &bytes)) {
        fail_missing(engine, slot);
    } else if (!is_of_conversation(request, &record.entry) && !HF_MUTANT(FOREIGN_ANCHOR_ACCEPTED)) {
        fail(engine, slot, CODE_BAD_CURSOR);
    } else {
        request->anchor_n = record.entry.n;
        go_above(engine, slot);
    }
}

static void on_checkpoint(struct engine *engine, uint32_t slot, const struct load *load,
                          const struct loaded *loaded)
{
    struct request *request = request_get(engine, slot);
    const bool is_kept =
        loaded->status == LOAD_FOUND && loaded->seq >= user_of(engine, request)->floor;

    if (request->step == REQUEST_SEARCH) {
        if (is_kept) {
            request->high = load->block;
            request->from = loaded->seq;
        } else {
            request->low = load->block + 1;
        }
        search(engine, slot);
    } else if (!is_kept) {
        fail(engine, slot, CODE_UNAVAILABLE); /* trimmed meanwhile */
    } else {
        request->from = loaded->seq;
        read_page(engine, slot);
    }
}

void history_on_loaded(struct engine *engine, uint32_t slot, const struct load *load,
                       const struct loaded *loaded)
{
    struct request *request = request_get(engine, slot);

    request->load = SLOT_NONE;
    if (loaded->status == LOAD_FAILED || loaded->status == LOAD_DAMAGED ||
        (load->kind != LOAD_CHECKPOINT && load->from < user_of(engine, request)->floor)) {
        fail(engine, slot, CODE_UNAVAILABLE); /* or trimmed meanwhile: ask again */
    } else if (load->kind == LOAD_CHECKPOINT) {
        on_checkpoint(engine, slot, load, loaded);
    } else if (loaded->status == LOAD_ABSENT) {
        fail_missing(engine, slot);
    } else if (request->step == REQUEST_ANCHOR) {
        on_anchor(engine, slot, loaded);
    } else if (request->direction == HISTORY_BEFORE) {
        on_chain_before(engine, slot, loaded);
    } else {
        on_chain_after(engine, slot, loaded);
    }
}

/* Requests */

static enum engine_result refuse(struct engine *engine, uint32_t session,
                                 const struct message_history *history, enum code code)
{
    session_get(engine, session)->load_failed = 0;
    session_notice(engine, session, code, history->request,
                   code == CODE_UNAVAILABLE ? RETRY_MS : 0);
    return ENGINE_TAKEN;
}

static bool waits_for_room(const struct engine *engine, const struct request *request)
{
    return request->session != SLOT_NONE && request->step == REQUEST_CHAIN &&
           request->load == SLOT_NONE &&
           !session_has_room(session_get(engine, request->session), request->bytes);
}

/*
 * A few clients that ask and don't read would hold every request there is, and nobody else could ask.
 * So the one that has waited longest for room in its connection is told UNAVAILABLE, and its client
 * may ask again.
 */
static uint32_t take_slot(struct engine *engine)
{
    uint32_t slot = pool_take(&engine->requests);
    uint32_t found = SLOT_NONE;

    if (slot != SLOT_NONE) {
        return slot;
    }
    for (slot = 1; slot <= engine->requests.fresh; slot++) {
        const struct request *request = request_get(engine, slot);

        if (waits_for_room(engine, request) &&
            (found == SLOT_NONE || request->number < request_get(engine, found)->number)) {
            found = slot;
        }
    }
    if (found == SLOT_NONE) {
        return SLOT_NONE;
    }
    fail(engine, found, CODE_UNAVAILABLE);
    return pool_take(&engine->requests);
}

static void take_request(struct engine *engine, uint32_t slot, uint32_t session_slot,
                         const struct message_history *history, const struct head_cell *head)
{
    struct session *session = session_get(engine, session_slot);
    const struct user_cell *user = user_get(&engine->cells, session->user);
    struct request *request = request_get(engine, slot);

    *request = (struct request){
        .next = session->requests,
        .session = session_slot,
        .number = ++engine->requests_taken,
        .id = history->request,
        .conversation = history->conversation.value,
        .anchor = history->anchor,
        .top = head->last,
        .top_n = head->n,
        .floor = user->floor,
        .ticket = user->ticket,
        .bytes = history->bytes == 0 || history->bytes > FRAME_BYTES_MAX ? FRAME_BYTES_MAX
                                                                         : history->bytes,
        .n = history->n < HISTORY_MESSAGES_MAX ? history->n : HISTORY_MESSAGES_MAX,
        .direction = (uint8_t)history->direction,
        .step = REQUEST_DURABLE,
    };
    session->requests = (uint16_t)slot;
    session->request_count++;
    session->load_failed = 0;
}

enum engine_result history_on_request(struct engine *engine, uint32_t session_slot,
                                      const struct message_history *history)
{
    const struct session *session = session_get(engine, session_slot);
    const struct user_id self = { user_get(&engine->cells, session->user)->id };
    uint32_t head, load;

    if (session->state != SESSION_LIVE) {
        return engine_block(engine, session_slot, WAIT_STALLED); /* nothing precedes HELLO_OK */
    }
    if (session->request_count >= REQUESTS_OUTSTANDING_MAX) {
        return refuse(engine, session_slot, history, CODE_TOO_MANY_REQUESTS);
    }
    const enum cell_state state =
        engine_find_head(engine, self, history->conversation, &head, &load);

    if (state == CELL_DAMAGED ||
        (state == CELL_LOADING && (load == SLOT_NONE || session->load_failed))) {
        return refuse(engine, session_slot, history, CODE_UNAVAILABLE);
    }
    if (state == CELL_LOADING) {
        return engine_block(engine, session_slot, load);
    }
    const uint32_t slot = take_slot(engine);

    if (slot == SLOT_NONE) {
        return refuse(engine, session_slot, history, CODE_UNAVAILABLE);
    }
    take_request(engine, slot, session_slot, history, head_get(&engine->cells, head));

    const uint64_t ticket = request_get(engine, slot)->ticket;

    if (engine_is_durable(engine, ticket)) {
        ready_mark(&engine->ready_requests, slot, READY_REQUEST);
    } else {
        pendings_add(&engine->pendings, PENDING_REQUEST, ticket)->slot = slot;
    }
    return ENGINE_TAKEN;
}

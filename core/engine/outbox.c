#include "core/engine/outbox.h"

#include "core/engine/inside.h"
#include "core/engine/outbox_records.h"
#include "core/engine/stream_frame.h"
#include "core/engine/timeline.h"

#define LOAD_RETRY_MS 1000

/* Sending */

static bool window_takes(const struct out_link *link, size_t byte_count)
{
    return link->flight_count == 0 || (link->flight_count < LINK_WINDOW_RECORDS &&
                                       link->flight_bytes + byte_count <= LINK_WINDOW_BYTES);
}

static void record_of(const struct outbox *outbox, const struct out *out,
                      const struct log_entry *entry, struct stream_record *record)
{
    *record = (struct stream_record){ .origin = { out->epoch, out->seq },
                                      .from = { out->user },
                                      .to = { out->to },
                                      .device = entry->device,
                                      .id = entry->id,
                                      .kind = entry->kind,
                                      .body_bytes = entry->body_bytes,
                                      .body = entry->body };
    if (out->talk_prev != SLOT_NONE && !HF_MUTANT(AFTER_LEFT_OUT)) {
        const struct out *before = outbox_out(outbox, out->talk_prev);

        record->after = (struct origin){ before->epoch, before->seq };
    }
}

#ifdef HF_MUTANTS
static void keep_first_after(struct out *out, struct stream_record *record)
{
    if (!HF_MUTANT(AFTER_NOT_REFRESHED)) {
        return;
    }
    if (out->was_sent) {
        record->after = out->first_after;
    }
    out->first_after = record->after;
    out->was_sent = true;
}
#endif

static bool is_entry_of(const struct out *out, const struct record *record)
{
    return record->type == RECORD_ENTRY && record->entry.user.value == out->user &&
           record->entry.seq == out->seq && record->entry.id.value == out->id;
}

/* The first unsent record's entry isn't in memory. */
static void load_entry(struct engine *engine, uint32_t slot)
{
    struct out_link *link = outbox_link(&engine->outbox, slot);
    const struct out *out = outbox_out(&engine->outbox, link->unsent.first);
    const struct load load = { .kind = LOAD_RANGE,
                               .user = { out->user },
                               .from = out->seq,
                               .to = out->seq,
                               .bytes = RECORD_BYTES_MAX };

    link->load = loads_start(engine, &load, LOAD_FOR_LINK, slot);
    if (link->load == SLOT_NONE) {
        link->must_wait = true;
        engine->outbox.retry_at_unix_ms = engine->now_unix_ms; /* the next turn */
    }
}

/* Its entry: the one that was loaded for it, or from memory. False: it must be loaded. */
static bool find_entry(const struct engine *engine, const struct out *out,
                       const struct record *loaded, struct record *record)
{
    const struct recent_item *item = recent_get(&engine->recent, out->recent_at);
    size_t bytes;

    if (loaded != NULL && is_entry_of(out, loaded)) {
        *record = *loaded;
        return true;
    }
    if (item == NULL) {
        return false;
    }
    HF_ASSERT(record_parse(item->record, item->record_bytes, record, &bytes) == RECORD_OK &&
              is_entry_of(out, record));
    return true;
}

/* One frame of what may leave now. The first record's entry was loaded, or is NULL. */
static void send_frame(struct engine *engine, uint32_t slot, const struct record *loaded)
{
    struct outbox *outbox = &engine->outbox;
    struct out_link *link = outbox_link(outbox, slot);
    const struct stream_header header = { .source = link->source,
                                          .destination = link->destination,
                                          .term = engine->config.term,
                                          .number = link->number };
    struct stream_builder builder;
    struct record record;
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);
    uint32_t first;

    HF_ASSERT(room >= STREAM_FRAME_BYTES_MAX);
    stream_begin(&builder, to, STREAM_FRAME_BYTES_MAX, &header, link->next);
    while ((first = link->unsent.first) != SLOT_NONE) {
        const struct out *out = outbox_out(outbox, first);
        struct stream_record stream_record;

        if (!engine_is_durable(engine, out->ticket) || !find_entry(engine, out, loaded, &record)) {
            break;
        }
        record_of(outbox, out, &record.entry, &stream_record);
#ifdef HF_MUTANTS
        keep_first_after(outbox_out(outbox, first), &stream_record);
#endif

        const size_t bytes = STREAM_RECORD_FIXED_BYTES + (size_t)stream_record.body_bytes;

        if (!window_takes(link, bytes) || !stream_add(&builder, &stream_record)) {
            break;
        }
        outbox_take_off(outbox, link, first, (uint32_t)bytes);
        engine->stats.streams_sent++;
    }
    const size_t bytes = stream_end(&builder);

    if (bytes == 0) {
        return;
    }
    engine_emit_stream(engine, link->destination, bytes);
    if (link->unsent.first != SLOT_NONE) {
        ready_mark(&outbox->ready_links, slot, OUT_READY_SEND);
    }
}

void outbox_send(struct engine *engine, uint32_t slot)
{
    struct outbox *outbox = &engine->outbox;
    const struct out_link *link = outbox_link(outbox, slot);

    if (link->unsent.first == SLOT_NONE || link->load != SLOT_NONE || link->must_wait) {
        return;
    }
    const struct out *out = outbox_out(outbox, link->unsent.first);

    if (engine_is_durable(engine, out->ticket) && window_takes(link, RECORD_BYTES_MAX) &&
        recent_get(&engine->recent, out->recent_at) == NULL) {
        load_entry(engine, slot);
        return;
    }
    send_frame(engine, slot, NULL);
}

void outbox_on_durable(struct engine *engine, uint32_t slot)
{
    /* It may be another link by now, for which this is no news. */
    ready_mark(&engine->outbox.ready_links, slot, OUT_READY_SEND);
}

static void append_end(struct engine *engine, const struct out *out)
{
    const struct record record = { .type = RECORD_OUT_END,
                                   .partition = partition_of(out->user),
                                   .out_end = { .user = { out->user }, .id = { out->id } } };
    size_t bytes;

    (void)engine_append(engine, &record, &bytes);
}

/* The record's end and the sender's REFUSED entry, in one append. False: not yet. */
static bool refuse_out(struct engine *engine, uint32_t slot, uint16_t code)
{
    const struct out *out = outbox_out(&engine->outbox, slot);
    const uint64_t ticket = engine_next_ticket(engine);
    uint32_t user, load;
    const enum cell_state state =
        engine_find_user(engine, (struct user_id){ out->user }, &user, &load);

    if (state == CELL_LOADING || !engine_may_append(engine, (size_t)3 * RECORD_REST_BYTES) ||
        pendings_room(&engine->pendings) == 0) {
        return false;
    }
    engine_append_begin(engine);
    append_end(engine, out);
    if (state == CELL_PRESENT) {
        struct record record = {
            .entry = { .id = { out->id },
                       .conversation = { out->to },
                       .sender = { out->user },
                       .form = LOG_ENTRY_REFUSED,
                       .code = code_class(code) == CODE_CLASS_REFUSED ? code : CODE_UNKNOWN,
                       .ref_seq = out->seq }
        };

        record.entry.origin = (struct origin){ user_get(&engine->cells, user)->epoch,
                                               user_get(&engine->cells, user)->head + 1 };
        (void)timeline_append(engine, user, &record);

        struct pending *item = pendings_add(&engine->pendings, PENDING_ADVANCE, ticket);

        item->user_a = user;
        item->seq_a = record.entry.seq;
    } else {
        emit_note(&engine->emit, NOTE_ENTRY_MISSING, (struct user_id){ out->user },
                  (struct device_id){ 0 });
    }
    outbox_drop(engine, slot, ticket);
    engine_append_end(engine);
    return true;
}

/* The first unsent record's entry can never be sent: it is refused, or all behind it would wait. */
static bool refuse_unsent(struct engine *engine, uint32_t slot)
{
    const struct out_link *link = outbox_link(&engine->outbox, slot);
    const uint32_t first = link->unsent.first;
    const bool last = link->count == 1; /* its end takes the link with it */

    if (!refuse_out(engine, first, CODE_UNKNOWN)) {
        return false;
    }
    if (!last) {
        ready_mark(&engine->outbox.ready_links, slot, OUT_READY_SEND);
    }
    return true;
}

void outbox_on_loaded(struct engine *engine, uint32_t slot, const struct load *load,
                      const struct loaded *loaded)
{
    struct outbox *outbox = &engine->outbox;
    struct out_link *link = outbox_link(outbox, slot);
    struct record record;
    size_t bytes;

    link->load = SLOT_NONE;
    if (link->unsent.first == SLOT_NONE) {
        return;
    }
    const struct out *out = outbox_out(outbox, link->unsent.first);

    if (out->user != load->user.value || out->seq != load->from || !engine_may_stream(engine)) {
        /* Another is first now; or there is no room for a frame, and it is loaded again then. */
        ready_mark(&outbox->ready_links, slot, OUT_READY_SEND);
        return;
    }
    if (loaded->status == LOAD_FOUND &&
        record_parse(loaded->entries, loaded->entries_bytes, &record, &bytes) == RECORD_OK &&
        is_entry_of(out, &record)) {
        send_frame(engine, slot, &record);
        return;
    }
    if (loaded->status == LOAD_DAMAGED && refuse_unsent(engine, slot)) {
        return;
    }
    if (loaded->status == LOAD_FOUND || loaded->status == LOAD_ABSENT) {
        emit_note(&engine->emit, NOTE_ENTRY_MISSING, load->user, (struct device_id){ 0 });
    }
    link->must_wait = true;
    outbox->retry_at_unix_ms = engine->now_unix_ms + LOAD_RETRY_MS;
}

void outbox_on_time(struct engine *engine)
{
    struct outbox *outbox = &engine->outbox;
    const uint64_t at = outbox->retry_at_unix_ms;

    /* Further away than it can have been set: the clock was set back. */
    if (at == 0 || (engine->now_unix_ms < at && at - engine->now_unix_ms <= LOAD_RETRY_MS)) {
        return;
    }
    outbox->retry_at_unix_ms = 0;
    for (uint32_t slot = 1; slot <= outbox->links.fresh; slot++) {
        struct out_link *link = outbox_link(outbox, slot);

        if (link->count > 0 && link->must_wait) {
            link->must_wait = false;
            ready_mark(&outbox->ready_links, slot, OUT_READY_SEND);
        }
    }
}

/* Outcomes */

static struct out_link *find_present_link(struct engine *engine, const struct stream_header *header,
                                          uint32_t *slot)
{
    struct outbox *outbox = &engine->outbox;

    *slot = outbox_find_link(outbox, header->source, header->destination);
    if (*slot == SLOT_NONE || header->term != engine->config.term ||
        (outbox_link(outbox, *slot)->number != header->number &&
         !HF_MUTANT(OLD_LINK_OUTCOME_BELIEVED))) {
        return NULL;
    }
    return outbox_link(outbox, *slot);
}

void outbox_on_link_end(struct engine *engine, const struct stream_header *header)
{
    uint32_t slot;

    if (find_present_link(engine, header, &slot) != NULL) {
        outbox_renumber(&engine->outbox, slot);
    }
}

/* The receiver's side has it: one append for a run of these. */
static void end_run(struct engine *engine, uint32_t link_slot, uint64_t up_to)
{
    struct outbox *outbox = &engine->outbox;
    struct out_link *link = outbox_link(outbox, link_slot);
    const uint64_t ticket = engine_next_ticket(engine);
    uint64_t room = engine->budget.append_bytes;
    uint32_t first = link->flight.first;
    bool begun = false;

    while (first != SLOT_NONE && outbox_out(outbox, first)->number <= up_to &&
           room >= RECORD_REST_BYTES) {
        const struct out *out = outbox_out(outbox, first);
        const uint32_t next = out->link_next;

        if (!begun) {
            engine_append_begin(engine);
            begun = true;
        }
        append_end(engine, out);
        room -= RECORD_REST_BYTES;
        outbox_drop(engine, first, ticket); /* the last one takes the link with it */
        first = next;
    }
    if (begun) {
        engine_append_end(engine);
    }
}

/* After outcomes: the window is open, and what waited for an end may wait for its append. */
static void go_on(struct engine *engine, const struct stream_header *header)
{
    struct outbox *outbox = &engine->outbox;
    const uint32_t slot = outbox_find_link(outbox, header->source, header->destination);

    if (slot == SLOT_NONE) {
        return;
    }
    /* Also when all are in flight: they may have to be sent again, by another number. */
    ready_mark(&outbox->ready_links, slot, OUT_READY_SEND);
    if (!engine_is_durable(engine, engine->ticket)) {
        pendings_add(&engine->pendings, PENDING_LINK, engine->ticket)->slot = slot;
    }
}

/* All up to an exception. Nothing in flight up to there afterwards, or not yet: blocked. */
static bool take_outcomes(struct engine *engine, const struct stream_header *header, uint64_t up_to,
                          bool is_exception, uint16_t code)
{
    struct outbox *outbox = &engine->outbox;
    uint32_t slot;
    struct out_link *link = find_present_link(engine, header, &slot);

    if (link == NULL || link->flight.first == SLOT_NONE) {
        return true;
    }
    end_run(engine, slot, is_exception ? up_to - 1 : up_to);
    link = find_present_link(engine, header, &slot);
    if (link == NULL || link->flight.first == SLOT_NONE) {
        return true;
    }
    const uint32_t first = link->flight.first;
    const uint64_t number = outbox_out(outbox, first)->number;

    if (number > up_to) {
        return true;
    }
    if (!is_exception || number != up_to) {
        return false; /* no room for all the ends */
    }
    if (code == STREAM_BEHIND && !HF_MUTANT(BEHIND_AS_REFUSED)) {
        engine->stats.streams_behind++;
        outbox_unsend(outbox, link, first);
        return true;
    }
    if (!refuse_out(engine, first, code)) {
        return false;
    }
    engine->stats.streams_refused++;
    return true;
}

enum engine_result outbox_on_ack(struct engine *engine, const struct stream_ack *ack)
{
    uint32_t slot;
    const struct out_link *link = find_present_link(engine, &ack->header, &slot);
    bool all = true;

    if (link == NULL || ack->up_to >= link->next) {
        return ENGINE_TAKEN; /* not of this link, or of what was never sent */
    }
    if (link->flight.first != SLOT_NONE &&
        outbox_out(&engine->outbox, link->flight.first)->number <= ack->above) {
        outbox_renumber(&engine->outbox, slot); /* outcomes were lost: they must be told again */
        return ENGINE_TAKEN;
    }
    if (pendings_room(&engine->pendings) < STREAM_RECORDS_MAX + 1) {
        return ENGINE_BLOCKED;
    }
    for (uint16_t i = 0; i < ack->count && all; i++) {
        uint64_t number;
        uint16_t code;

        stream_exception(ack, i, &number, &code);
        all = take_outcomes(engine, &ack->header, number, true, code);
    }
    if (all) {
        all = take_outcomes(engine, &ack->header, ack->up_to, false, 0);
    }
    go_on(engine, &ack->header);
    return all ? ENGINE_TAKEN : ENGINE_BLOCKED;
}

/* Homes move */

void outbox_on_link_down(struct engine *engine, struct partition_id partition)
{
    struct outbox *outbox = &engine->outbox;

    for (uint32_t slot = 1; slot <= outbox->links.fresh; slot++) {
        const struct out_link *link = outbox_link(outbox, slot);

        if (link->count > 0 &&
            (link->source.value == partition.value || link->destination.value == partition.value)) {
            outbox_renumber(outbox, slot);
        }
    }
}

void outbox_drop_partition(struct engine *engine, struct partition_id partition)
{
    struct outbox *outbox = &engine->outbox;

    for (uint32_t slot = 1; slot <= outbox->links.fresh; slot++) {
        const struct out_link *link = outbox_link(outbox, slot);

        while (link->count > 0 && link->source.value == partition.value) {
            outbox_drop(engine,
                        link->unsent.first != SLOT_NONE ? link->unsent.first : link->flight.first,
                        0);
        }
    }
}

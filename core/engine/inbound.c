#include "core/engine/inbound.h"

#include "core/engine/inside.h"
#include "core/engine/stream_frame.h"
#include "core/engine/timeline.h"

bool inbound_open(struct inbound *inbound, const struct engine_config *config)
{
    *inbound = (struct inbound){ .hash_seed = config->hash_seed };
    return pool_open(&inbound->links, config->links_max, sizeof(struct in_link)) &&
           table_open(&inbound->links_by_pair, config->links_max) &&
           ready_open(&inbound->ready_links, config->links_max);
}

size_t inbound_touch(const struct inbound *inbound)
{
    return pool_touch(&inbound->links) + table_touch(&inbound->links_by_pair) +
           ready_touch(&inbound->ready_links);
}

void inbound_close(struct inbound *inbound)
{
    pool_close(&inbound->links);
    table_close(&inbound->links_by_pair);
    ready_close(&inbound->ready_links);
}

/* Links */

static struct in_link *link_get(const struct inbound *inbound, uint32_t slot)
{
    return pool_get(&inbound->links, slot);
}

static uint32_t find_link(const struct inbound *inbound, const struct stream_header *header)
{
    const uint32_t hash = hash_of_pair(inbound->hash_seed, header->source, header->destination);
    uint32_t at = hash;
    uint32_t slot;

    while ((slot = table_next(&inbound->links_by_pair, hash, &at)) != SLOT_NONE) {
        const struct in_link *link = link_get(inbound, slot);

        if (link->source.value == header->source.value &&
            link->destination.value == header->destination.value) {
            break;
        }
    }
    return slot;
}

static int compare_links(uint64_t term_a, uint64_t number_a, uint64_t term_b, uint64_t number_b)
{
    return origin_compare((struct origin){ term_a, number_a }, (struct origin){ term_b, number_b });
}

/* What is known of it goes, but for how new it was. */
static void forget_link(struct engine *engine, uint32_t slot)
{
    struct inbound *inbound = &engine->inbound;
    const struct in_link *link = link_get(inbound, slot);
    struct partition_cell *source = &engine->partitions[link->source.value];

    if (compare_links(link->term, link->number, source->seen_term, source->seen_number) > 0) {
        source->seen_term = link->term;
        source->seen_number = link->number;
    }
    table_remove(&inbound->links_by_pair,
                 hash_of_pair(inbound->hash_seed, link->source, link->destination), slot);
    ready_forget(&inbound->ready_links, slot);
    pool_give(&inbound->links, slot);
}

static bool evict_link(struct engine *engine)
{
    struct inbound *inbound = &engine->inbound;

    for (uint64_t left = 2 * (uint64_t)inbound->links.fresh; left > 0; left--) {
        const uint32_t slot = pool_turn(&inbound->links);
        struct in_link *link = link_get(inbound, slot);

        if (!link->in_use || link->waiting > 0 || link->acked != link->ackable ||
            (link->next != 0 && link->next != link->acked + 1)) {
            continue; /* something of it is still to be told */
        }
        if (link->used) {
            link->used = 0;
            continue;
        }
        forget_link(engine, slot);
        return true;
    }
    return false;
}

static void begin_link(struct in_link *link, const struct stream_header *header, uint64_t next)
{
    const uint32_t waiting = link->waiting;

    *link = (struct in_link){ .number = header->number,
                              .term = header->term,
                              .next = next,
                              .waiting = waiting,
                              .source = header->source,
                              .destination = header->destination,
                              .used = 1,
                              .in_use = true };
}

static uint32_t take_link(struct engine *engine, const struct stream_header *header)
{
    struct inbound *inbound = &engine->inbound;
    uint32_t slot = pool_take(&inbound->links);

    if (slot == SLOT_NONE && evict_link(engine)) {
        slot = pool_take(&inbound->links);
    }
    if (slot == SLOT_NONE) {
        return SLOT_NONE;
    }
    begin_link(link_get(inbound, slot), header, 1);
    table_add(&inbound->links_by_pair,
              hash_of_pair(inbound->hash_seed, header->source, header->destination), slot);
    return slot;
}

static void send_link_end(struct engine *engine, const struct stream_header *header)
{
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);

    engine_emit_stream(engine, header->source, stream_encode_link_end(to, room, header));
}

/*
 * The link of a frame whose records are expected next, or have been seen in part (a frame that was
 * blocked). True: *result says what became of a frame that isn't to be read now or ever.
 */
static bool accept_frame(struct engine *engine, const struct stream_records *records,
                         uint32_t *slot, enum engine_result *result)
{
    const struct stream_header *header = &records->header;
    const struct partition_cell *source = &engine->partitions[header->source.value];

    *slot = find_link(&engine->inbound, header);
    *result = ENGINE_TAKEN;
    if (*slot == SLOT_NONE) {
        /* Of a link that isn't known any more, or older than one that was: it begins anew. */
        if (records->first != 1 || compare_links(header->term, header->number, source->seen_term,
                                                 source->seen_number) <= 0) {
            send_link_end(engine, header);
            return true;
        }
        *slot = take_link(engine, header);
        if (*slot == SLOT_NONE) {
            *result = ENGINE_BLOCKED;
            return true;
        }
        return false;
    }
    struct in_link *link = link_get(&engine->inbound, *slot);
    const int newer = compare_links(header->term, header->number, link->term, link->number);

    link->used = 1;
    if (newer < 0 && !HF_MUTANT(OLD_LINK_READ)) {
        return true; /* nothing is read from a link once a newer one was seen */
    }
    if (newer > 0) {
        begin_link(link, header, 1);
    }
    if (link->next == 0 || (records->first > link->next && !HF_MUTANT(GAP_UNNOTICED)) ||
        records->first + records->count - 1 > link->acked + LINK_WINDOW_RECORDS) {
        link->next = 0; /* a gap: what was lost can only be told by its source */
        send_link_end(engine, header);
        return true;
    }
    return records->first + records->count <= link->next; /* a repeat of what was read */
}

/* Records */

/* Starts what the records behind a blocked one will need, so that they don't wait in turn. */
static void load_ahead(struct engine *engine, struct stream_records records)
{
    struct stream_record record;
    uint64_t number;
    uint32_t user, head, load;

    for (int ahead = 0; ahead < 16 && stream_next(&records, &number, &record); ahead++) {
        if (engine->loads.count + 2 > engine->loads.cell_max) {
            return;
        }
        const enum cell_state state = engine_find_user(engine, record.to, &user, &load);

        if (user == SLOT_NONE) {
            return;
        }
        if (state == CELL_PRESENT && /* a damaged one is refused at once */
            engine_find_head(engine, record.to, (struct conversation_id){ record.from.value },
                             &head, &load) == CELL_LOADING &&
            head == SLOT_NONE) {
            return;
        }
    }
}

static void wait_for_ticket(struct in_link *link, uint64_t ticket)
{
    if (link->ticket < ticket) {
        link->ticket = ticket;
    }
}

static void append_record(struct engine *engine, struct in_link *link, uint32_t user,
                          uint32_t head_slot, const struct stream_record *from)
{
    struct head_cell *head = head_get(&engine->cells, head_slot);
    const uint64_t ticket = engine_next_ticket(engine);
    struct record record = { .entry = { .id = from->id,
                                        .conversation = { from->from.value },
                                        .sender = from->from,
                                        .device = from->device,
                                        .form = LOG_ENTRY_MESSAGE,
                                        .kind = from->kind,
                                        .prev = head->last,
                                        .n = head->n + 1,
                                        .cn = head->cn + 1,
                                        .origin = from->origin,
                                        .body = from->body,
                                        .body_bytes = from->body_bytes } };

    if (HF_MUTANT(DEDUPE_OUTSIDE_BATCH)) {
        record.entry.origin = head->origin; /* this one's mark goes with the next entry */
    }
    engine_append_begin(engine);
    if (user_get(&engine->cells, user)->state == CELL_ABSENT) {
        timeline_make_user(engine, user);
        timeline_append_user(engine, user);
    }
    (void)timeline_append(engine, user, &record);
    head->last = record.entry.seq;
    head->n++;
    head->cn++;
    head->origin = from->origin;
    head->ticket = ticket;
    wait_for_ticket(link, ticket);

    struct pending *item = pendings_add(&engine->pendings, PENDING_ADVANCE, ticket);

    item->user_a = user;
    item->seq_a = record.entry.seq;
    engine_append_end(engine);
}

/* False: something isn't there yet; nothing has changed. */
static bool take_record(struct engine *engine, struct in_link *link, uint64_t number,
                        const struct stream_record *record)
{
    const uint64_t bit = UINT64_C(1) << (number % LINK_WINDOW_RECORDS);
    struct origin seen = { 0, 0 };
    uint32_t user, load;
    uint32_t head = SLOT_NONE;
    const enum cell_state state = engine_find_user(engine, record->to, &user, &load);

    if (state == CELL_LOADING) {
        return false;
    }
    if (state == CELL_DAMAGED) {
        link->refused |= bit; /* BEHIND for ever else, and everybody behind it */
        return true;
    }
    if (state == CELL_PRESENT || engine->config.accept_unknown_users) {
        switch (engine_find_head(engine, record->to, (struct conversation_id){ record->from.value },
                                 &head, &load)) {
        case CELL_DAMAGED:
            link->refused |= bit;
            return true;
        case CELL_PRESENT:
            seen = head_get(&engine->cells, head)->origin;
            break;
        case CELL_FREE:
        case CELL_LOADING:
        case CELL_ABSENT:
            return false;
        }
    }
    if (origin_compare(seen, record->origin) >= 0) {
        wait_for_ticket(link, head_get(&engine->cells, head)->ticket);
        engine->stats.streams_repeated++;
        return true;
    }
    if (origin_compare(seen, record->after) < 0) {
        link->behind |= bit;
        return true;
    }
    if (head == SLOT_NONE) {
        link->refused |= bit; /* nobody there */
        return true;
    }
    if (!engine_may_append(engine, record->body_bytes + (size_t)TIMELINE_APPEND_BYTES +
                                       RECORD_REST_BYTES)) {
        return false;
    }
    append_record(engine, link, user, head, record);
    engine->stats.streams_received++;
    return true;
}

enum engine_result inbound_on_records(struct engine *engine, struct stream_records *records)
{
    struct stream_record record;
    enum engine_result result;
    uint64_t number;
    uint32_t slot;

    if (accept_frame(engine, records, &slot, &result)) {
        return result;
    }
    struct in_link *link = link_get(&engine->inbound, slot);
    struct stream_records rest = *records;

    while (stream_next(records, &number, &record)) {
        if (number >= link->next) {
            if (pendings_room(&engine->pendings) < 2 ||
                !take_record(engine, link, number, &record)) {
                load_ahead(engine, rest);
                return ENGINE_BLOCKED;
            }
            link->next = number + 1;
        }
        rest = *records;
    }
    struct pending *item = pendings_add(&engine->pendings, PENDING_ACK, link->ticket);

    item->slot = slot;
    item->counter = link->number;
    item->id = link->term;
    item->seq_a = link->next - 1;
    link->waiting++;
    if (HF_MUTANT(ACK_BEFORE_DURABLE)) {
        link->waiting++;
        inbound_on_durable(engine, slot, link->term, link->number, link->next - 1);
    }
    return ENGINE_TAKEN;
}

/* Acknowledging */

void inbound_on_durable(struct engine *engine, uint32_t slot, uint64_t term, uint64_t number,
                        uint64_t up_to)
{
    struct in_link *link = link_get(&engine->inbound, slot);

    HF_ASSERT(link->in_use && link->waiting > 0);
    link->waiting--;
    if (link->term == term && link->number == number && up_to > link->ackable) {
        link->ackable = up_to;
        ready_mark(&engine->inbound.ready_links, slot, IN_READY_ACK);
    }
}

void inbound_send_ack(struct engine *engine, uint32_t slot)
{
    struct in_link *link = link_get(&engine->inbound, slot);
    const struct stream_header header = { .source = link->source,
                                          .destination = link->destination,
                                          .term = link->term,
                                          .number = link->number };
    struct stream_builder builder;
    size_t room;
    uint8_t *to = emit_reserve(&engine->emit, &room);

    if (link->acked == link->ackable) {
        return;
    }
    stream_ack_begin(&builder, to, room, &header, link->acked, link->ackable);
    for (uint64_t number = link->acked + 1; number <= link->ackable; number++) {
        const uint64_t bit = UINT64_C(1) << (number % LINK_WINDOW_RECORDS);

        if ((link->behind & bit) != 0) {
            stream_ack_add(&builder, number, STREAM_BEHIND);
        } else if ((link->refused & bit) != 0) {
            stream_ack_add(&builder, number, CODE_UNKNOWN);
        }
        link->behind &= ~bit;
        link->refused &= ~bit;
    }
    link->acked = link->ackable;

    engine_emit_stream(engine, link->source, stream_ack_end(&builder));
}

void inbound_drop_partition(struct engine *engine, struct partition_id partition)
{
    for (uint32_t slot = 1; slot <= engine->inbound.links.fresh; slot++) {
        const struct in_link *link = link_get(&engine->inbound, slot);

        if (link->in_use && link->destination.value == partition.value) {
            forget_link(engine, slot);
        }
    }
}

#include "core/engine/outbox.h"

#include "core/engine/inside.h"
#include "core/engine/outbox_records.h"

bool outbox_open(struct outbox *outbox, const struct engine_config *config)
{
    *outbox = (struct outbox){ .hash_seed = config->hash_seed, .touch = config->touch };
    return pool_open(&outbox->outs, config->outs_max, sizeof(struct out)) &&
           pool_open(&outbox->links, config->links_max, sizeof(struct out_link)) &&
           table_open(&outbox->links_by_pair, config->links_max) &&
           table_open(&outbox->newest_by_talk, config->outs_max) &&
           table_open(&outbox->oldest_by_user, config->outs_max) &&
           ready_open(&outbox->ready_links, config->links_max);
}

/* Doubling, since partitions come one by one. */
static uint32_t larger_max(const struct pool *pool, uint32_t more)
{
    const uint32_t needed = pool->count + more;
    uint32_t max = pool->cell_max;

    while (max < needed) {
        max *= 2;
    }
    return max;
}

bool outbox_reserve(struct outbox *outbox, uint32_t out_count)
{
    const uint32_t outs_max = larger_max(&outbox->outs, out_count);
    const uint32_t links_max = larger_max(&outbox->links, out_count);

    if (outs_max == outbox->outs.cell_max && links_max == outbox->links.cell_max) {
        return true;
    }
    if (!pool_reserve(&outbox->outs, outs_max) || !pool_reserve(&outbox->links, links_max) ||
        !table_reserve(&outbox->newest_by_talk, outs_max) ||
        !table_reserve(&outbox->oldest_by_user, outs_max) ||
        !table_reserve(&outbox->links_by_pair, links_max) ||
        !ready_reserve(&outbox->ready_links, links_max)) {
        return false;
    }
    if (outbox->touch) {
        (void)outbox_touch(outbox);
    }
    return true;
}

size_t outbox_touch(const struct outbox *outbox)
{
    return pool_touch(&outbox->outs) + pool_touch(&outbox->links) +
           table_touch(&outbox->links_by_pair) + table_touch(&outbox->newest_by_talk) +
           table_touch(&outbox->oldest_by_user) + ready_touch(&outbox->ready_links);
}

void outbox_close(struct outbox *outbox)
{
    pool_close(&outbox->outs);
    pool_close(&outbox->links);
    table_close(&outbox->links_by_pair);
    table_close(&outbox->newest_by_talk);
    table_close(&outbox->oldest_by_user);
    ready_close(&outbox->ready_links);
}

static uint32_t hash_of_talk(const struct outbox *outbox, uint64_t user, uint64_t to)
{
    return (uint32_t)id_mix(id_mix(user ^ outbox->hash_seed) + to);
}

static uint32_t hash_of_user(const struct outbox *outbox, uint64_t user)
{
    return (uint32_t)id_mix(user ^ outbox->hash_seed);
}

uint32_t outbox_find_link(const struct outbox *outbox, struct partition_id source,
                          struct partition_id destination)
{
    const uint32_t hash = hash_of_pair(outbox->hash_seed, source, destination);
    uint32_t at = hash;
    uint32_t slot;

    while ((slot = table_next(&outbox->links_by_pair, hash, &at)) != SLOT_NONE) {
        const struct out_link *link = outbox_link(outbox, slot);

        if (link->source.value == source.value && link->destination.value == destination.value) {
            break;
        }
    }
    return slot;
}

static uint32_t find_newest(const struct outbox *outbox, uint64_t user, uint64_t to)
{
    const uint32_t hash = hash_of_talk(outbox, user, to);
    uint32_t at = hash;
    uint32_t slot;

    while ((slot = table_next(&outbox->newest_by_talk, hash, &at)) != SLOT_NONE) {
        const struct out *out = outbox_out(outbox, slot);

        if (out->user == user && out->to == to) {
            break;
        }
    }
    return slot;
}

static uint32_t find_oldest(const struct outbox *outbox, uint64_t user)
{
    const uint32_t hash = hash_of_user(outbox, user);
    uint32_t at = hash;
    uint32_t slot;

    while ((slot = table_next(&outbox->oldest_by_user, hash, &at)) != SLOT_NONE &&
           outbox_out(outbox, slot)->user != user) {
    }
    return slot;
}

bool outbox_is_clear(const struct engine *engine, struct partition_id source,
                     struct partition_id destination)
{
    const struct outbox *outbox = &engine->outbox;

    /* A link lives as long as it has records. */
    return outbox->outs.count == 0 || outbox_find_link(outbox, source, destination) == SLOT_NONE;
}

enum code outbox_room(const struct engine *engine, struct partition_id source,
                      struct partition_id destination)
{
    const struct outbox *outbox = &engine->outbox;
    const uint32_t link = outbox_find_link(outbox, source, destination);

    if (link != SLOT_NONE && outbox_link(outbox, link)->count >= engine->config.out_quota) {
        return CODE_FULL;
    }
    if (outbox->outs.count >= engine->config.outs_max ||
        (link == SLOT_NONE && outbox->links.count >= engine->config.links_max)) {
        return CODE_RETRY;
    }
    return CODE_OK;
}

uint64_t outbox_lowest_seq(const struct engine *engine, struct user_id user)
{
    const uint32_t slot = find_oldest(&engine->outbox, user.value);

    return slot != SLOT_NONE ? outbox_out(&engine->outbox, slot)->seq : UINT64_MAX;
}

/* Lists */

static void list_insert_after(struct outbox *outbox, struct out_list *list, uint32_t slot,
                              uint32_t after)
{
    struct out *out = outbox_out(outbox, slot);

    out->link_prev = after;
    out->link_next = after != SLOT_NONE ? outbox_out(outbox, after)->link_next : list->first;
    if (out->link_next != SLOT_NONE) {
        outbox_out(outbox, out->link_next)->link_prev = slot;
    } else {
        list->last = slot;
    }
    if (after != SLOT_NONE) {
        outbox_out(outbox, after)->link_next = slot;
    } else {
        list->first = slot;
    }
}

static void list_remove(struct outbox *outbox, struct out_list *list, const struct out *out)
{
    if (out->link_prev != SLOT_NONE) {
        outbox_out(outbox, out->link_prev)->link_next = out->link_next;
    } else {
        list->first = out->link_next;
    }
    if (out->link_next != SLOT_NONE) {
        outbox_out(outbox, out->link_next)->link_prev = out->link_prev;
    } else {
        list->last = out->link_prev;
    }
}

static void join_talk(struct outbox *outbox, uint32_t slot)
{
    struct out *out = outbox_out(outbox, slot);
    const uint32_t hash = hash_of_talk(outbox, out->user, out->to);

    out->talk_prev = find_newest(outbox, out->user, out->to);
    if (out->talk_prev == SLOT_NONE) {
        table_add(&outbox->newest_by_talk, hash, slot);
        return;
    }
    outbox_out(outbox, out->talk_prev)->talk_next = slot;
    table_replace(&outbox->newest_by_talk, hash, out->talk_prev, slot);
}

/* The next one's `after` will pass over this end, which must be durable before it leaves. */
static void leave_talk(struct outbox *outbox, uint32_t slot, uint64_t end_ticket)
{
    const struct out *out = outbox_out(outbox, slot);
    const uint32_t hash = hash_of_talk(outbox, out->user, out->to);

    if (out->talk_prev != SLOT_NONE) {
        outbox_out(outbox, out->talk_prev)->talk_next = out->talk_next;
    }
    if (out->talk_next != SLOT_NONE) {
        struct out *next = outbox_out(outbox, out->talk_next);

        next->talk_prev = out->talk_prev;
        if (next->ticket < end_ticket && !HF_MUTANT(AFTER_PASSES_UNDURABLE_END)) {
            next->ticket = end_ticket;
        }
    } else if (out->talk_prev != SLOT_NONE) {
        table_replace(&outbox->newest_by_talk, hash, slot, out->talk_prev);
    } else {
        table_remove(&outbox->newest_by_talk, hash, slot);
    }
}

static void join_user(struct outbox *outbox, uint32_t slot)
{
    struct out *out = outbox_out(outbox, slot);
    const uint32_t oldest = find_oldest(outbox, out->user);

    if (oldest == SLOT_NONE) {
        out->user_prev = slot;
        out->user_next = slot;
        table_add(&outbox->oldest_by_user, hash_of_user(outbox, out->user), slot);
        return;
    }
    struct out *first = outbox_out(outbox, oldest);

    out->user_next = oldest;
    out->user_prev = first->user_prev;
    outbox_out(outbox, first->user_prev)->user_next = slot;
    first->user_prev = slot;
}

static void leave_user(struct outbox *outbox, uint32_t slot)
{
    const struct out *out = outbox_out(outbox, slot);
    const uint32_t hash = hash_of_user(outbox, out->user);
    const bool is_oldest = find_oldest(outbox, out->user) == slot;

    if (out->user_next == slot) {
        table_remove(&outbox->oldest_by_user, hash, slot);
        return;
    }
    outbox_out(outbox, out->user_prev)->user_next = out->user_next;
    outbox_out(outbox, out->user_next)->user_prev = out->user_prev;
    if (is_oldest) {
        table_replace(&outbox->oldest_by_user, hash, slot, out->user_next);
    }
}

/* Records come and go */

static uint32_t take_link(struct outbox *outbox, struct partition_id source,
                          struct partition_id destination)
{
    const uint32_t slot = pool_take(&outbox->links);

    HF_ASSERT(slot != SLOT_NONE); /* outbox_room was asked */
    struct out_link *link = outbox_link(outbox, slot);

    link->number = ++outbox->link_number;
    link->next = 1;
    link->source = source;
    link->destination = destination;
    table_add(&outbox->links_by_pair, hash_of_pair(outbox->hash_seed, source, destination), slot);
    return slot;
}

static void give_link(struct engine *engine, uint32_t slot)
{
    struct outbox *outbox = &engine->outbox;
    const struct out_link *link = outbox_link(outbox, slot);

    if (link->load != SLOT_NONE) {
        loads_abandon(engine, link->load);
    }
    table_remove(&outbox->links_by_pair,
                 hash_of_pair(outbox->hash_seed, link->source, link->destination), slot);
    ready_forget(&outbox->ready_links, slot);
    pool_give(&outbox->links, slot);
}

void outbox_add(struct engine *engine, const struct out_row *row, uint64_t ticket,
                uint64_t recent_at)
{
    struct outbox *outbox = &engine->outbox;
    const struct partition_id source = partition_of(row->user.value);
    const struct partition_id destination = partition_of(row->to.value);
    uint32_t link_slot = outbox_find_link(outbox, source, destination);
    const uint32_t slot = pool_take(&outbox->outs);

    HF_ASSERT(slot != SLOT_NONE);
    if (link_slot == SLOT_NONE) {
        link_slot = take_link(outbox, source, destination);
    }
    struct out_link *link = outbox_link(outbox, link_slot);
    struct out *out = outbox_out(outbox, slot);

    *out = (struct out){ .id = row->id.value,
                         .user = row->user.value,
                         .epoch = row->epoch,
                         .seq = row->seq,
                         .to = row->to.value,
                         .ticket = ticket,
                         .recent_at = recent_at,
                         .link = link_slot };
    HF_ASSERT(link->unsent.last == SLOT_NONE ||
              outbox_out(outbox, link->unsent.last)->id < out->id);
    list_insert_after(outbox, &link->unsent, slot, link->unsent.last);
    join_talk(outbox, slot);
    join_user(outbox, slot);
    link->count++;
    if (engine_is_durable(engine, ticket)) {
        ready_mark(&outbox->ready_links, link_slot, OUT_READY_SEND);
    } else {
        pendings_add(&engine->pendings, PENDING_LINK, ticket)->slot = link_slot;
    }
}

void outbox_drop(struct engine *engine, uint32_t slot, uint64_t end_ticket)
{
    struct outbox *outbox = &engine->outbox;
    const struct out *out = outbox_out(outbox, slot);
    const uint32_t link_slot = out->link;
    struct out_link *link = outbox_link(outbox, link_slot);

    if (out->number != 0) {
        list_remove(outbox, &link->flight, out);
        link->flight_count--;
        link->flight_bytes -= out->bytes;
    } else {
        list_remove(outbox, &link->unsent, out);
    }
    leave_talk(outbox, slot, end_ticket);
    leave_user(outbox, slot);
    pool_give(&outbox->outs, slot);
    if (--link->count == 0) {
        give_link(engine, link_slot);
    }
}

void outbox_unsend(struct outbox *outbox, struct out_link *link, uint32_t slot)
{
    struct out *out = outbox_out(outbox, slot);
    uint32_t after = SLOT_NONE;

    list_remove(outbox, &link->flight, out);
    link->flight_count--;
    link->flight_bytes -= out->bytes;
    out->number = 0;
    for (uint32_t i = link->unsent.first; i != SLOT_NONE && outbox_out(outbox, i)->id < out->id;
         i = outbox_out(outbox, i)->link_next) {
        after = i;
    }
    list_insert_after(outbox, &link->unsent, slot, after);
}

void outbox_take_off(struct outbox *outbox, struct out_link *link, uint32_t slot, uint32_t bytes)
{
    struct out *out = outbox_out(outbox, slot);

    list_remove(outbox, &link->unsent, out);
    list_insert_after(outbox, &link->flight, slot, link->flight.last);
    out->number = link->next++;
    out->bytes = bytes;
    link->flight_count++;
    link->flight_bytes += bytes;
}

void outbox_renumber(struct outbox *outbox, uint32_t slot)
{
    struct out_link *link = outbox_link(outbox, slot);

    while (link->flight.last != SLOT_NONE) {
        outbox_unsend(outbox, link, link->flight.last);
    }
    link->number = ++outbox->link_number;
    link->next = 1;
    ready_mark(&outbox->ready_links, slot, OUT_READY_SEND);
}

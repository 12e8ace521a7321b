/*
 * partition: what comes to be at home here and what goes, and the frames between homes.
 */
#include "core/engine/history.h"
#include "core/engine/inside.h"
#include "core/engine/stream_frame.h"

void engine_on_partition_open(struct engine *engine, struct partition_id partition,
                              struct message_id last_id, const struct out_row *outs,
                              size_t out_count)
{
    struct partition_cell *cell = &engine->partitions[partition.value];

    HF_ASSERT(partition.value < PARTITION_COUNT && !cell->at_home);
    cell->at_home = true;
    cell->last_id = last_id.value;
    HF_ASSERT(out_count < UINT32_MAX / 4 && outbox_reserve(&engine->outbox, (uint32_t)out_count));
    for (size_t i = 0; i < out_count; i++) {
        HF_ASSERT(partition_of(outs[i].user.value).value == partition.value);
        outbox_add(engine, &outs[i], 0, 0);
    }
}

static bool is_of(uint64_t user, struct partition_id partition)
{
    return partition_of(user).value == partition.value;
}

/* What waits to be told of cells that go; what it tells of others stays. */
static void void_pendings(struct engine *engine, struct partition_id partition)
{
    const struct cell_pools *cells = &engine->cells;

    for (uint32_t i = 0; i < engine->pendings.count; i++) {
        struct pending *item = pendings_at(&engine->pendings, i);

        if (item->kind == PENDING_MESSAGE) {
            if (item->user_b != SLOT_NONE && is_of(user_get(cells, item->user_b)->id, partition)) {
                item->user_b = SLOT_NONE;
            }
            if (is_of(user_get(cells, item->user_a)->id, partition)) {
                item->kind = item->user_b != SLOT_NONE ? PENDING_ADVANCE : PENDING_NONE;
                item->user_a = item->user_b;
                item->seq_a = item->seq_b;
            }
        } else if (item->kind == PENDING_ADVANCE) {
            if (is_of(user_get(cells, item->user_a)->id, partition)) {
                item->kind = PENDING_NONE;
            }
        } else if (item->kind == PENDING_ACK) {
            const struct in_link *link = pool_get(&engine->inbound.links, item->slot);

            if (link->destination.value == partition.value) {
                item->kind = PENDING_NONE;
            }
        }
    }
}

static void drop_cells(struct engine *engine, struct partition_id partition)
{
    struct cell_pools *cells = &engine->cells;

    for (uint32_t slot = 1; slot <= cells->users.fresh; slot++) {
        const struct user_cell *user = user_get(cells, slot);

        if (user->state != CELL_FREE && is_of(user->id, partition)) {
            if (user->load != SLOT_NONE) {
                loads_abandon(engine, user->load);
            }
            user_drop(cells, slot);
        }
    }
    for (uint32_t slot = 1; slot <= cells->heads.fresh; slot++) {
        const struct head_cell *head = head_get(cells, slot);

        if (head->state != CELL_FREE && is_of(head->user, partition)) {
            if (head->load != SLOT_NONE) {
                loads_abandon(engine, head->load);
            }
            head_drop(cells, slot);
        }
    }
    cell_pools_search_again(cells);
}

void engine_on_partition_close(struct engine *engine, struct partition_id partition)
{
    HF_ASSERT(engine_is_home(engine, partition));
    HF_ASSERT(engine->durable_ticket == engine->ticket);
    engine->partitions[partition.value].at_home = false;
    void_pendings(engine, partition);
    /* No cursor is written any more: what is appended now might not be seen by the next home. */
    engine->budget.only_streams = true;
    for (uint32_t slot = 1; slot <= engine->config.sessions_max; slot++) {
        const struct session *session = session_get(engine, slot);

        if (session->state != SESSION_FREE && session->state != SESSION_HELLO &&
            is_of(user_get(&engine->cells, session->user)->id, partition)) {
            session_fail_now(engine, slot, CODE_GOING_AWAY, 0);
        }
    }
    drop_cells(engine, partition);
    outbox_drop_partition(engine, partition);
    inbound_drop_partition(engine, partition);
}

void engine_on_link_down(struct engine *engine, struct partition_id partition)
{
    outbox_on_link_down(engine, partition);
}

enum engine_result engine_on_stream(struct engine *engine, const uint8_t *bytes, size_t byte_count)
{
    struct stream_header header;
    struct stream_records records;
    struct stream_ack ack;

    HF_ASSERT(emit_has_room(&engine->emit, EMIT_CALL_EFFECTS, EMIT_CALL_BYTES));
    if (!stream_decode_header(bytes, byte_count, &header)) {
        return ENGINE_TAKEN; /* of a peer gone mad: its link ends by the gap */
    }
    switch (header.kind) {
    case STREAM_RECORDS:
        if (engine_is_home(engine, header.destination) &&
            stream_decode_records(bytes, byte_count, &records)) {
            return inbound_on_records(engine, &records);
        }
        break;
    case STREAM_ACK:
        if (engine_is_home(engine, header.source) && stream_decode_ack(bytes, byte_count, &ack)) {
            return outbox_on_ack(engine, &ack);
        }
        break;
    case STREAM_LINK_END:
        outbox_on_link_end(engine, &header);
        break;
    }
    return ENGINE_TAKEN;
}

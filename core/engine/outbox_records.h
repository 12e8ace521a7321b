/*
 * outbox_records: which stream records there are, and where each stands: on its link, behind which
 * other of its conversation, and among those of its sender.
 *
 * Thread   The engine's only.
 * Use      Only by outbox.c; others use outbox.h.
 * Errors   None: outbox_room was asked before.
 */
#pragma once

#include "core/engine/outbox.h"

static inline struct out *outbox_out(const struct outbox *outbox, uint32_t slot)
{
    return pool_get(&outbox->outs, slot);
}

static inline struct out_link *outbox_link(const struct outbox *outbox, uint32_t slot)
{
    return pool_get(&outbox->links, slot);
}

uint32_t outbox_find_link(const struct outbox *outbox, struct partition_id source,
                          struct partition_id destination);

/* The first unsent record goes: it gets the link's next number. */
void outbox_take_off(struct outbox *outbox, struct out_link *link, uint32_t slot, uint32_t bytes);
/* From in flight back among the unsent, in the order of ids. */
void outbox_unsend(struct outbox *outbox, struct out_link *link, uint32_t slot);
/* The link begins anew: everything is unsent. */
void outbox_renumber(struct outbox *outbox, uint32_t link);
/* It has ended, in the append of that ticket, or its partition goes (0). A link without records
 * goes with it. */
void outbox_drop(struct engine *engine, uint32_t slot, uint64_t end_ticket);

/*
 * inbound: the destination's side of streams: dedupes, judges, appends, and acknowledges what is
 * durable.
 *
 * Each record is, in this order: repeated (the conversation's head is at or beyond its origin:
 * acknowledged when what it repeats is durable), BEHIND (the head is below its `after`), REFUSED
 * (judged anew each time, never stored), or appended. A head is all that a receiver needs to know;
 * what is kept of a link only tells frames of older links, and gaps.
 *
 * Owner    One per engine.
 * Thread   The engine's only.
 * Memory   A fixed pool of links. One that is idle may be forgotten for another: a later frame of
 *          it is answered by LINK_END, and its source begins anew.
 * Errors   What breaks a link's order ends the link; nothing else is believed without a check.
 * Source   docs/architecture.md, "Streams".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "core/engine/engine.h"
#include "core/engine/pool.h"

struct stream_records;

#define IN_READY_ACK 0x01

struct in_link {
    uint64_t number;
    uint64_t term;
    uint64_t next;    /* number of the record expected; 0: ended, by a gap */
    uint64_t acked;   /* up to here acknowledged */
    uint64_t ackable; /* up to here what is acknowledged is durable */
    uint64_t behind;  /* of those above `acked`, by number mod 64 */
    uint64_t refused; /* likewise: UNKNOWN */
    uint64_t ticket;  /* what the records of the frame under way need */
    uint32_t waiting; /* acknowledgements in pending */
    struct partition_id source;
    struct partition_id destination;
    uint8_t used;
    bool in_use;
};

struct inbound {
    struct pool links;
    struct table links_by_pair;
    struct ready ready_links;
    uint64_t hash_seed;
};

bool inbound_open(struct inbound *inbound, const struct engine_config *config)
    __attribute__((warn_unused_result));
size_t inbound_touch(const struct inbound *inbound); /* pool.h */
void inbound_close(struct inbound *inbound);

enum engine_result inbound_on_records(struct engine *engine, struct stream_records *records);
/* What is up to that number of that link is durable; the slot may have a newer one by now. */
void inbound_on_durable(struct engine *engine, uint32_t slot, uint64_t term, uint64_t number,
                        uint64_t up_to);
void inbound_send_ack(struct engine *engine, uint32_t slot);
void inbound_drop_partition(struct engine *engine, struct partition_id partition);

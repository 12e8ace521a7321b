/*
 * outbox: the source's side of streams: the messages of this core's users that other homes must
 * have, from the append of the sender's entry until an end (OUT_END) is in a batch.
 *
 *      outbox_add --> unsent --frame--> in flight --answered--> ended
 *                       ^                  |
 *                       +---- BEHIND, a new link number --------+
 *
 * All records of one (source, destination) pair of partitions go over one link, in the order of
 * their ids; a link numbers what it sends. Only outcomes on the present number of a link count. A
 * record's `after` is made when its frame is: the conversation's preceding record that hasn't
 * ended; the frame waits until the ends that it passes over are durable.
 *
 * Owner    One per engine.
 * Thread   The engine's only.
 * Memory   Fixed pools of records and links, larger only where a start finds more. A link without
 *          records is given back: the numbers of links rise over all of them, so the next one is
 *          newer.
 * Errors   outbox_room says before an append whether there is a place.
 * Source   docs/architecture.md, "Streams".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/engine/effects.h"
#include "core/engine/engine.h"
#include "core/engine/pool.h"

struct stream_ack;
struct stream_header;

/* Outstanding on a link at most: what a receiver keeps outcomes of (a mask of 64). */
#define LINK_WINDOW_RECORDS 64
#define LINK_WINDOW_BYTES   ((size_t)64 * 1024)

#define OUT_READY_SEND 0x01

struct out {
    uint64_t id;
    uint64_t user; /* the sender */
    uint64_t epoch;
    uint64_t seq;
    uint64_t to;
    uint64_t ticket;    /* its append, and the ends that its `after` passes over */
    uint64_t recent_at; /* of the entry, in the ring */
    uint64_t number;    /* on the link, while in flight; 0: unsent */
    uint32_t link;
    uint32_t link_prev, link_next;
    uint32_t talk_prev, talk_next; /* of the same user and peer, by id */
    uint32_t user_prev, user_next; /* of the same user, by id, in a ring */
    uint32_t bytes;                /* in its frame */
#ifdef HF_MUTANTS
    struct origin first_after;
    bool was_sent;
#endif
};

struct out_list {
    uint32_t first;
    uint32_t last;
};

struct out_link {
    uint64_t number;
    uint64_t next; /* number of the next record */
    struct partition_id source;
    struct partition_id destination;
    struct out_list unsent; /* by id */
    struct out_list flight; /* by number */
    uint32_t count;
    uint32_t flight_count;
    uint32_t flight_bytes;
    uint32_t load;  /* of the entry of the first unsent record */
    bool must_wait; /* that load failed: not before outbox.retry_at_unix_ms */
};

struct outbox {
    struct pool outs;
    struct pool links;
    struct table links_by_pair;
    struct table newest_by_talk; /* a user's with a peer */
    struct table oldest_by_user;
    struct ready ready_links;
    uint64_t link_number; /* the newest given */
    uint64_t retry_at_unix_ms;
    uint64_t hash_seed;
    bool touch; /* engine_config: what is made larger is committed too */
};

bool outbox_open(struct outbox *outbox, const struct engine_config *config)
    __attribute__((warn_unused_result));
/* Room for so many more, however many those are: they are there, and were promised. New ones stay
 * within the configuration. */
bool outbox_reserve(struct outbox *outbox, uint32_t out_count) __attribute__((warn_unused_result));
size_t outbox_touch(const struct outbox *outbox); /* pool.h */
void outbox_close(struct outbox *outbox);

/* Nothing from that source to that destination is outstanding. */
bool outbox_is_clear(const struct engine *engine, struct partition_id source,
                     struct partition_id destination);

/* CODE_OK: there is a place for one more. CODE_FULL: the pair's quota. CODE_RETRY: the pools. */
enum code outbox_room(const struct engine *engine, struct partition_id source,
                      struct partition_id destination);

/* An entry that is being appended is a stream record too. It waits for that ticket. */
void outbox_add(struct engine *engine, const struct out_row *row, uint64_t ticket,
                uint64_t recent_at);

/* The lowest seq of that user's log that a record which hasn't ended needs; UINT64_MAX: none. */
uint64_t outbox_lowest_seq(const struct engine *engine, struct user_id user);

/* Link `slot` may have something to send: one frame at most; marks itself ready for more. */
void outbox_send(struct engine *engine, uint32_t slot);
/* What a link waited for is durable. */
void outbox_on_durable(struct engine *engine, uint32_t slot);
void outbox_on_link_end(struct engine *engine, const struct stream_header *header);
void outbox_on_loaded(struct engine *engine, uint32_t slot, const struct load *load,
                      const struct loaded *loaded);
enum engine_result outbox_on_ack(struct engine *engine, const struct stream_ack *ack);

/* Links to or from that partition begin anew. */
void outbox_on_link_down(struct engine *engine, struct partition_id partition);
/* The source partition goes: its records with it. */
void outbox_drop_partition(struct engine *engine, struct partition_id partition);
/* Time passed: links whose loads failed try again. */
void outbox_on_time(struct engine *engine);

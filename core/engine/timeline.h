/*
 * timeline: a user's log as its devices see it: entries are appended to it, and pushed from after
 * each session's cursor, from memory while they are there, else from the store. There is no other
 * way of delivery.
 *
 * Thread   The engine's only.
 * Memory   None of its own.
 * Errors   What can't be read, or is gone, ends the session with an ERROR.
 */
#pragma once

#include <stdint.h>

#include "core/engine/engine.h"
#include "proto/entries.h"

/*
 * Inside an append: the next entry of a present user. Sets the record's user, epoch, seq and
 * partition, and trims the log when it is due. Returns where the entry is in the ring.
 */
uint64_t timeline_append(struct engine *engine, uint32_t user, struct record *record);
/* Bytes to be had for it beside the body. */
#define TIMELINE_APPEND_BYTES ((size_t)2 * RECORD_REST_BYTES)

/* A log's epoch: what the volume or the clock says, but never below the last restore's. */
uint64_t timeline_epoch(const struct engine *engine, uint64_t epoch);

/* As engine_on_expired(). */
enum engine_result timeline_on_expired(struct engine *engine, struct user_id id, uint64_t floor)
    __attribute__((warn_unused_result));

/* An absent user becomes a present one, with an empty log; its record goes into the append that
 * follows. */
void timeline_make_user(struct engine *engine, uint32_t user);
void timeline_append_user(struct engine *engine, uint32_t user);

/* Entries up to seq are durable. */
void timeline_advance(struct engine *engine, uint32_t user, uint64_t seq);

/* One frame of what lies after the cursor, if window and room allow it. */
void timeline_push(struct engine *engine, uint32_t session);
void timeline_on_loaded(struct engine *engine, uint32_t session, const struct load *load,
                        const struct loaded *loaded);
enum code timeline_on_ack(struct engine *engine, uint32_t session, const struct message_ack *ack);

/* A stored message in the form that clients read. */
void timeline_message_of(const struct log_entry *entry, struct entry_message *message);

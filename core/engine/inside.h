/*
 * inside: the engine as its own files see it.
 *
 * Owner    engine_open and engine_close.
 * Thread   The engine's only.
 * Use      Only by core/engine; others use engine.h.
 * Errors   None: what is wrong here is ours, and asserts.
 */
#pragma once

#include "core/base/mutant.h"
#include "core/engine/cells.h"
#include "core/engine/emit.h"
#include "core/engine/engine.h"
#include "core/engine/inbound.h"
#include "core/engine/loads.h"
#include "core/engine/outbox.h"
#include "core/engine/pending.h"
#include "core/engine/pool.h"
#include "core/engine/recent.h"
#include "core/engine/session.h"

/* The most that a record takes beside its body. */
#define RECORD_REST_BYTES (RECORD_BYTES_MAX - RECORD_BODY_BYTES_MAX)

struct partition_cell {
    uint64_t last_id;
    bool at_home;
    /* The newest link of that source of which no inbound link tells any more. */
    uint64_t seen_term;
    uint64_t seen_number;
};

struct engine {
    struct engine_config config;
    uint64_t now_unix_ms;
    struct engine_budget budget;

    uint64_t ticket; /* the newest given */
    uint64_t durable_ticket;
    uint64_t flushed_ticket;
    uint64_t flushed_lsn;

    /* The append that is being written. */
    uint8_t *append_at;
    size_t append_room;
    size_t append_bytes;

    struct emit emit;
    struct pendings pendings;
    struct recent recent;
    struct cell_pools cells;

    struct session *sessions; /* that of a connection is at its slot + 1: 0 is SLOT_NONE */
    uint32_t session_count;
    struct ready ready_sessions;
    struct pool loads;
    struct wait_list stalled; /* connections that wait for a place in a pool */
    struct ready stalled_pushes;
    struct pool requests;
    uint64_t requests_taken; /* since the start */
    struct ready ready_requests;

    struct outbox outbox;
    struct inbound inbound;
    struct partition_cell *partitions;

    bool flush_wanted; /* was said since the last flush */
    struct engine_stats stats;
};

static inline struct session *session_get(const struct engine *engine, uint32_t slot)
{
    HF_ASSERT_SLOW(slot != SLOT_NONE && slot <= engine->config.sessions_max);
    return &engine->sessions[slot];
}

static inline struct conn_ref session_conn(const struct engine *engine,
                                           const struct session *session)
{
    return (struct conn_ref){ .slot = (uint32_t)(session - engine->sessions) - 1,
                              .generation = session->generation };
}

static inline struct load_cell *load_get(const struct engine *engine, uint32_t slot)
{
    return pool_get(&engine->loads, slot);
}

static inline bool engine_is_durable(const struct engine *engine, uint64_t ticket)
{
    return ticket <= engine->durable_ticket;
}

static inline bool engine_is_home(const struct engine *engine, struct partition_id partition)
{
    return engine->partitions[partition.value].at_home;
}

/* Of the links between two partitions, on either side. */
static inline uint32_t hash_of_pair(uint64_t hash_seed, struct partition_id source,
                                    struct partition_id destination)
{
    return (uint32_t)id_mix(((uint64_t)source.value << 16 | destination.value) ^ hash_seed);
}

/* A pool is full of what isn't flushed: says so, once a flush. */
void engine_want_flush(struct engine *engine);

/*
 * An append: begin, any records (all in one ticket, so in one batch), end. What changes with it
 * takes the ticket that engine_next_ticket() says before the end. The caller has asked for the
 * room first, before any number was given.
 */
static inline bool engine_may_append(const struct engine *engine, size_t byte_count)
{
    return byte_count <= engine->budget.append_bytes;
}

/*
 * A peer frame is given only where the runtime has room for it: a lost one would have to be sent
 * again with all that its link has in flight, and under load that never ends.
 */
static inline bool engine_may_stream(const struct engine *engine)
{
    return engine->budget.stream_frames > 0;
}

/* The frame lies where emit_reserve said. */
void engine_emit_stream(struct engine *engine, struct partition_id to, size_t byte_count);

static inline uint64_t engine_next_ticket(const struct engine *engine)
{
    return engine->ticket + 1;
}

void engine_append_begin(struct engine *engine);
/* Returns the encoded record, which stays where it is until the effects are cleared. */
const uint8_t *engine_append(struct engine *engine, const struct record *record, size_t *bytes);
void engine_append_end(struct engine *engine);

/* Cells, wherever they come from. CELL_LOADING: a load is under way, *load says which, or is
 * SLOT_NONE when a pool is empty (engine_want_flush was said where that helps). */
enum cell_state engine_find_user(struct engine *engine, struct user_id id, uint32_t *user,
                                 uint32_t *load);
enum cell_state engine_find_head(struct engine *engine, struct user_id id,
                                 struct conversation_id conversation, uint32_t *head,
                                 uint32_t *load);

/* Blocks a session by what engine_find_* said. */
enum engine_result engine_block(struct engine *engine, uint32_t session, uint32_t load);

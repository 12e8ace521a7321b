/*
 * history: HISTORY requests: pages of one conversation, backwards by the chain of `prev`, forwards
 * from a checkpoint above and back down the chain.
 *
 * Owner    The engine's pool of requests; at most REQUESTS_OUTSTANDING_MAX a session.
 * Thread   The engine's only.
 * Memory   A fixed pool. A page is built when the connection has room for it, so that none waits in
 *          memory. Where the pool is empty, that request yields which has waited longest for room: it
 *          is its client who doesn't read.
 * Errors   A wrong anchor or an unreadable store is told by an ERROR that names the request.
 */
#pragma once

#include <stdint.h>

#include "core/engine/engine.h"
#include "core/engine/pool.h"
#include "proto/message.h"

enum request_step {
    REQUEST_DURABLE, /* waits until its top and its floor are durable */
    REQUEST_ANCHOR,  /* reads its anchor */
    REQUEST_SEARCH,  /* looks for the lowest checkpoint that is kept */
    REQUEST_ABOVE,   /* looks for the checkpoint above what is wanted */
    REQUEST_CHAIN,   /* follows the chain down */
};

struct request {
    uint16_t next;    /* of the session */
    uint32_t session; /* SLOT_NONE: none is here */
    uint64_t number;  /* rising: what has waited longest has the lowest */
    uint32_t id;      /* the client's */
    uint32_t load;
    uint64_t conversation;
    uint64_t anchor;   /* 0: the end */
    uint64_t anchor_n; /* 0: unknown, or before the first */
    uint64_t top;      /* the newest that it may show */
    uint64_t top_n;
    uint64_t floor;     /* of the log when it came */
    uint64_t ticket;    /* of the log's last change then: with it top and floor are durable */
    uint64_t from;      /* where the chain goes on */
    uint64_t low, high; /* SEARCH: blocks */
    uint32_t bytes;
    uint16_t n;
    uint8_t direction;
    uint8_t step;
    bool trimmed; /* what it should begin with is below what is kept */
    bool lowest;  /* it begins at the oldest that is kept */
};

enum engine_result history_on_request(struct engine *engine, uint32_t session,
                                      const struct message_history *history);
/* Its top is durable, or there may be room now: go on. */
void history_run(struct engine *engine, uint32_t request);
void history_on_loaded(struct engine *engine, uint32_t request, const struct load *load,
                       const struct loaded *loaded);
/* The session ends. */
void history_drop_all(struct engine *engine, uint32_t session);

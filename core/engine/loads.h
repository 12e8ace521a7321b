/*
 * loads: what the engine has asked the store for and not yet heard, and which connections wait.
 *
 * Owner    One per engine.
 * Thread   The engine's only.
 * Memory   A fixed pool. When it is empty, whoever asks waits until an answer comes.
 * Errors   An answer whose snapshot is older than what the load needs is asked for again, and so is
 *          one that lacks entries and may do so because a flush ended meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/engine/effects.h"
#include "core/engine/pool.h"

struct engine;

enum load_purpose {
    LOAD_FOR_NOBODY, /* the asker is gone: the answer is dropped */
    LOAD_FOR_USER,
    LOAD_FOR_HEAD,
    LOAD_FOR_OUTCOMES, /* of a user that is in memory */
    LOAD_FOR_SESSION,  /* entries to push */
    LOAD_FOR_REQUEST,
    LOAD_FOR_LINK, /* the entry of a stream record */
};

/* Connections, in the order in which they came. */
struct wait_list {
    uint32_t first;
    uint32_t last;
};

struct load_cell {
    struct load load;
    struct wait_list waiters;
    uint32_t owner; /* slot of the cell, session, request or link */
    uint8_t purpose;
    bool in_use;
};

/* What a session's wait_on says when it isn't the slot of a load. */
#define WAIT_NOTHING 0
#define WAIT_STALLED UINT16_MAX       /* for a place in some pool */
#define WAIT_SENT    (UINT16_MAX - 1) /* for its own output to leave; in no list */

/* Asks; SLOT_NONE when the pool is empty. need_lsn and id are filled in. */
uint32_t loads_start(struct engine *engine, const struct load *load, enum load_purpose purpose,
                     uint32_t owner) __attribute__((warn_unused_result));

/* The asker goes; the answer will be dropped. Who waits for it tries again. */
void loads_abandon(struct engine *engine, uint32_t slot);

/* The session's connection is blocked until the load is answered, or WAIT_STALLED or WAIT_SENT. */
void loads_block(struct engine *engine, uint32_t session, uint32_t wait_on);
/* Takes it out again without a word. */
void loads_unblock(struct engine *engine, uint32_t session);
/* Something in a pool became free: all that wait for such try again. */
void loads_wake_stalled(struct engine *engine);

/*
 * pending: what may only leave, or be shown, when something is durable: a FIFO by ticket. This is
 * the output rule: nothing that depends on an append goes out before it.
 *
 * Owner    One per engine.
 * Thread   The engine's only.
 * Memory   A fixed ring. A call that might add to it makes sure of the room first.
 * Errors   None.
 *
 * An item may wait for less than those before it (a repeat's answer): it is released behind them,
 * which is later than need be, never earlier.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/check.h"
#include "core/engine/effects.h"

enum pending_kind {
    PENDING_NONE,    /* what it was about is gone */
    PENDING_MESSAGE, /* a SEND's answer, and the entries that became durable with it */
    PENDING_ANSWER,  /* a SEND's answer alone: a repeat, a refusal */
    PENDING_WELCOME,
    PENDING_ERROR,   /* ERROR, then the session is over */
    PENDING_ADVANCE, /* entries of a user became durable */
    PENDING_LINK,    /* a link's stream records may leave */
    PENDING_ACK,     /* received stream records may be acknowledged */
    PENDING_REQUEST, /* a request reads what wasn't durable when it came */
};

struct pending {
    uint64_t ticket;
    uint8_t kind;
    uint8_t result;      /* WELCOME: of enum hello_result */
    uint16_t code;       /* ANSWER, ERROR; 0: accepted */
    uint32_t slot;       /* of the session, link, inbound link or request */
    uint32_t generation; /* of the session's connection: another one may have its slot */
    uint32_t user_a;     /* MESSAGE: the sender. ADVANCE: whose entries */
    uint32_t user_b;     /* MESSAGE: the receiver, or SLOT_NONE */
    uint64_t counter;    /* MESSAGE, ANSWER. ACK: the link's number. WELCOME: head */
    uint64_t id;         /* MESSAGE, ANSWER. WELCOME: floor. ACK: the link's term */
    uint64_t seq_a;      /* MESSAGE, ANSWER, ADVANCE. Of a refusal: expected. ACK: up to */
    uint64_t seq_b;      /* MESSAGE */
};
_Static_assert(sizeof(struct pending) == 64, "a cache line");

struct pendings {
    struct pending *items;
    uint32_t max;
    uint32_t mask;
    uint32_t first;
    uint32_t count;
};

bool pendings_open(struct pendings *pendings, uint32_t max) __attribute__((warn_unused_result));
void pendings_close(struct pendings *pendings);

static inline uint32_t pendings_room(const struct pendings *pendings)
{
    return pendings->max - pendings->count;
}

/* The caller sets all the fields that the kind has. */
static inline struct pending *pendings_add(struct pendings *pendings, enum pending_kind kind,
                                           uint64_t ticket)
{
    HF_ASSERT(pendings->count < pendings->max);

    struct pending *item = &pendings->items[(pendings->first + pendings->count++) & pendings->mask];

    item->kind = (uint8_t)kind;
    item->ticket = ticket;
    return item;
}

static inline const struct pending *pendings_first(const struct pendings *pendings)
{
    return pendings->count > 0 ? &pendings->items[pendings->first & pendings->mask] : NULL;
}

static inline void pendings_drop_first(struct pendings *pendings)
{
    HF_ASSERT(pendings->count > 0);
    pendings->first++;
    if (--pendings->count == 0) {
        pendings->first = 0; /* the warm end of the ring */
    }
}

/* The i-th from the front, to look for what goes. */
static inline struct pending *pendings_at(struct pendings *pendings, uint32_t i)
{
    return &pendings->items[(pendings->first + i) & pendings->mask];
}

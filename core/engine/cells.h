/*
 * cells: what the engine keeps in memory of users, their devices and their conversations: a cache
 * of the volumes that runs ahead of them.
 *
 * Owner    One struct cell_pools per engine.
 * Thread   The engine's only.
 * Memory   Fixed pools. A cell that was changed stays until its last change is in the volumes
 *          (`ticket` <= the evictable one): so what is loaded after an eviction is whole. Which one
 *          goes is decided by a clock hand that spares, once, what was used since its last round.
 * Errors   A take returns SLOT_NONE when nothing can be evicted now.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/bytes.h"
#include "core/base/ids.h"
#include "core/engine/pool.h"
#include "proto/limits.h"
#include "proto/message.h"
#include "store/record.h"

enum cell_state {
    CELL_FREE = 0,
    CELL_LOADING,
    CELL_ABSENT, /* it is known that there is none */
    CELL_PRESENT,
    /* Its row can't be believed: it is refused as long as it is in memory, and nothing is built on
     * it, for that would overwrite what may still be saved. */
    CELL_DAMAGED,
};

struct user_cell {
    uint64_t id;
    uint64_t epoch;
    uint64_t head;        /* seq of the newest entry */
    uint64_t floor;       /* the oldest kept */
    uint64_t ticket;      /* of the last change of the user or a device */
    uint64_t recent_at;   /* of the newest entry in the ring of recent ones */
    uint32_t not_durable; /* so many of the newest entries, which may not be shown yet */
    uint32_t devices;     /* first of a list by device_cell.next */
    uint32_t sessions;    /* first of a list by session.next */
    uint16_t load;        /* while CELL_LOADING, or while outcomes are loaded again */
    uint8_t state;
    uint8_t used : 1;
    uint8_t device_count : 7;
};
_Static_assert(sizeof(struct user_cell) == 64, "one per connected user: docs/capacity.md");
_Static_assert(DEVICES_PER_USER_MAX < 128, "its count has seven bits");

/* The newest entry that may be shown. */
static inline uint64_t user_durable_head(const struct user_cell *user)
{
    return user->head - user->not_durable;
}

struct device_cell {
    uint32_t id;
    uint32_t generation;
    uint64_t last_counter;
    uint64_t cursor_seq;  /* as in its last record, in the user's epoch */
    uint64_t accepted_at; /* the fence: of the newest socket that said HELLO */
    uint32_t user;
    uint32_t next;
    uint32_t session; /* the one inside the fence, or SLOT_NONE */
    uint32_t newest;  /* of a ring of the newest outcomes, SLOT_NONE when none are in memory */
    /* of the nonce of each of the last 32 counters, by counter mod 32 */
    uint16_t fingerprints[OUTCOMES_KEPT];
};
_Static_assert(sizeof(struct device_cell) == 112, "one per connected user: docs/capacity.md");

/* One of a device's ring, which has no gaps: each cell's counter is one above that before it. */
struct kept_outcome {
    uint32_t next; /* the next newer one; of the newest: the oldest */
    uint32_t kept; /* of the newest: how many there are */
    uint8_t nonce[NONCE_BYTES];
    uint64_t id;  /* 0: refused */
    uint64_t seq; /* or the code */
};
_Static_assert(sizeof(struct kept_outcome) == 40, "docs/capacity.md");

struct head_cell {
    uint64_t user;
    uint64_t conversation;
    uint64_t last;
    uint64_t n;
    uint64_t cn;
    struct origin origin;
    uint64_t ticket;
    uint32_t user_slot; /* where `user` was last found: checked before use */
    uint32_t mirror;    /* where the peer's head of this conversation was: likewise */
    uint32_t load;      /* while CELL_LOADING */
    uint8_t state;      /* never CELL_ABSENT: a conversation without messages has a head of zeros */
    uint8_t used;
};
_Static_assert(sizeof(struct head_cell) == 80, "docs/capacity.md");

/* Of the searches for something to evict: how much of a pool waits for a flush. */
struct cell_pools_round {
    uint32_t seen;
    uint32_t pinned;
};

struct cell_pools {
    uint64_t hash_seed;
    uint64_t evictable_ticket; /* changes up to here are in the volumes and told to all */
    /* The pool was searched in vain at that evictable ticket: don't until it rises. */
    uint64_t users_full_at, devices_full_at, heads_full_at, outcomes_full_at;
    struct cell_pools_round users_round, heads_round, devices_round;
    bool wants_flush; /* most of a pool can't be evicted before */
    struct pool users;
    struct pool devices;
    struct pool heads;
    struct pool outcomes;
    struct table users_by_id;
    struct table heads_by_key;
};

struct cell_pools_config {
    uint32_t users_max;
    uint32_t devices_max;
    uint32_t heads_max;
    uint32_t outcomes_max;
    uint64_t hash_seed;
};

bool cell_pools_open(struct cell_pools *cells, const struct cell_pools_config *config)
    __attribute__((warn_unused_result));
/* What doesn't follow the number of connections: heads and outcomes; pool.h. */
size_t cell_pools_touch(const struct cell_pools *cells);
void cell_pools_close(struct cell_pools *cells);

/* Something that couldn't be evicted may be now (a session went, a load was answered). */
static inline void cell_pools_search_again(struct cell_pools *cells)
{
    cells->users_full_at = UINT64_MAX;
    cells->devices_full_at = UINT64_MAX;
    cells->heads_full_at = UINT64_MAX;
    cells->outcomes_full_at = UINT64_MAX;
}

static inline struct user_cell *user_get(const struct cell_pools *cells, uint32_t slot)
{
    return pool_get(&cells->users, slot);
}

static inline struct device_cell *device_get(const struct cell_pools *cells, uint32_t slot)
{
    return pool_get(&cells->devices, slot);
}

static inline struct head_cell *head_get(const struct cell_pools *cells, uint32_t slot)
{
    return pool_get(&cells->heads, slot);
}

/* In whatever state; SLOT_NONE when there is no cell. */
uint32_t user_find(struct cell_pools *cells, struct user_id id);
uint32_t head_find(struct cell_pools *cells, struct user_id user,
                   struct conversation_id conversation);

/* A new cell, CELL_LOADING, that isn't there yet. */
uint32_t user_take(struct cell_pools *cells, struct user_id id) __attribute__((warn_unused_result));
uint32_t head_take(struct cell_pools *cells, struct user_id user,
                   struct conversation_id conversation) __attribute__((warn_unused_result));
void user_drop(struct cell_pools *cells, uint32_t slot); /* with its devices */
void head_drop(struct cell_pools *cells, uint32_t slot);

/* A device of a present user. SLOT_NONE when the pool is full. */
uint32_t device_take(struct cell_pools *cells, uint32_t user, struct device_id id)
    __attribute__((warn_unused_result));
uint32_t device_find(const struct cell_pools *cells, const struct user_cell *user,
                     struct device_id id);

/* The slot of the head's user, SLOT_NONE when it isn't in memory; remembers it. */
uint32_t head_user(struct cell_pools *cells, struct head_cell *head);

/* Outcomes */

enum outcome_found {
    OUTCOME_NONE,     /* no such nonce among the last 32 */
    OUTCOME_THERE,    /* *outcome is set */
    OUTCOME_UNLOADED, /* perhaps: outcomes_reload() must come first */
};

enum outcome_found outcome_find(const struct cell_pools *cells, const struct device_cell *device,
                                const struct nonce *nonce, const struct kept_outcome **outcome);

/*
 * Of the counter after the device's last, which becomes the last. outcome_reserve() makes sure of
 * a place before a number is given; false: there is none. Where the older ones are in the volumes,
 * they go: so what is kept is what isn't flushed, and little more.
 */
bool outcome_reserve(struct cell_pools *cells, struct device_cell *device)
    __attribute__((warn_unused_result));
void outcome_add(struct cell_pools *cells, struct device_cell *device, const struct nonce *nonce,
                 uint64_t id, uint64_t seq_or_code);

/* What the volume says of the last 32, into a cell that has none yet. */
void outcomes_set_fingerprints(struct device_cell *device, const struct outcome *outcomes,
                               uint32_t count);
/* Puts the older outcomes of a volume's row below those that are in memory. False: no room. */
bool outcomes_reload(struct cell_pools *cells, struct device_cell *device,
                     const struct outcome *outcomes, uint32_t count)
    __attribute__((warn_unused_result));

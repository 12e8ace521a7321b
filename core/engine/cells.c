#include "core/engine/cells.h"

#include <string.h>

#include "core/base/mutant.h"

bool cell_pools_open(struct cell_pools *cells, const struct cell_pools_config *config)
{
    *cells = (struct cell_pools){ .hash_seed = config->hash_seed,
                                  .users_full_at = UINT64_MAX,
                                  .devices_full_at = UINT64_MAX,
                                  .heads_full_at = UINT64_MAX,
                                  .outcomes_full_at = UINT64_MAX };
    return pool_open(&cells->users, config->users_max, sizeof(struct user_cell)) &&
           pool_open(&cells->devices, config->devices_max, sizeof(struct device_cell)) &&
           pool_open(&cells->heads, config->heads_max, sizeof(struct head_cell)) &&
           pool_open(&cells->outcomes, config->outcomes_max, sizeof(struct kept_outcome)) &&
           table_open(&cells->users_by_id, config->users_max) &&
           table_open(&cells->heads_by_key, config->heads_max);
}

size_t cell_pools_touch(const struct cell_pools *cells)
{
    return pool_touch(&cells->heads) + pool_touch(&cells->outcomes) +
           table_touch(&cells->heads_by_key);
}

void cell_pools_close(struct cell_pools *cells)
{
    pool_close(&cells->users);
    pool_close(&cells->devices);
    pool_close(&cells->heads);
    pool_close(&cells->outcomes);
    table_close(&cells->users_by_id);
    table_close(&cells->heads_by_key);
}

static uint32_t hash_of_user(const struct cell_pools *cells, uint64_t id)
{
    return (uint32_t)id_mix(id ^ cells->hash_seed);
}

static uint32_t hash_of_head(const struct cell_pools *cells, uint64_t user, uint64_t conversation)
{
    return (uint32_t)id_mix(id_mix(user ^ cells->hash_seed) + conversation);
}

uint32_t user_find(struct cell_pools *cells, struct user_id id)
{
    const uint32_t hash = hash_of_user(cells, id.value);
    uint32_t at = hash;
    uint32_t slot;

    while ((slot = table_next(&cells->users_by_id, hash, &at)) != SLOT_NONE) {
        struct user_cell *user = user_get(cells, slot);

        if (user->id == id.value) {
            user->used = 1;
            return slot;
        }
    }
    return SLOT_NONE;
}

uint32_t head_find(struct cell_pools *cells, struct user_id user,
                   struct conversation_id conversation)
{
    const uint32_t hash = hash_of_head(cells, user.value, conversation.value);
    uint32_t at = hash;
    uint32_t slot;

    while ((slot = table_next(&cells->heads_by_key, hash, &at)) != SLOT_NONE) {
        struct head_cell *head = head_get(cells, slot);

        if (head->user == user.value && head->conversation == conversation.value) {
            head->used = 1;
            return slot;
        }
    }
    return SLOT_NONE;
}

static struct kept_outcome *outcome_get(const struct cell_pools *cells, uint32_t slot)
{
    return pool_get(&cells->outcomes, slot);
}

/* The newest so many are in memory. */
static uint32_t outcomes_kept(const struct cell_pools *cells, const struct device_cell *device)
{
    return device->newest != SLOT_NONE ? outcome_get(cells, device->newest)->kept : 0;
}

static void drop_outcomes(struct cell_pools *cells, struct device_cell *device)
{
    uint32_t slot = device->newest;

    for (uint32_t left = outcomes_kept(cells, device); left > 0; left--) {
        const uint32_t next = outcome_get(cells, slot)->next;

        pool_give(&cells->outcomes, slot);
        slot = next;
    }
    device->newest = SLOT_NONE;
}

void user_drop(struct cell_pools *cells, uint32_t slot)
{
    struct user_cell *user = user_get(cells, slot);

    HF_ASSERT(user->sessions == SLOT_NONE);
    while (user->devices != SLOT_NONE) {
        struct device_cell *device = device_get(cells, user->devices);
        const uint32_t next = device->next;

        drop_outcomes(cells, device);
        pool_give(&cells->devices, user->devices);
        user->devices = next;
    }
    table_remove(&cells->users_by_id, hash_of_user(cells, user->id), slot);
    pool_give(&cells->users, slot);
}

void head_drop(struct cell_pools *cells, uint32_t slot)
{
    const struct head_cell *head = head_get(cells, slot);

    table_remove(&cells->heads_by_key, hash_of_head(cells, head->user, head->conversation), slot);
    pool_give(&cells->heads, slot);
}

static bool user_evictable(const struct cell_pools *cells, const struct user_cell *user)
{
    return user->state != CELL_FREE && user->state != CELL_LOADING && user->sessions == SLOT_NONE &&
           user->load == SLOT_NONE &&
           (user->ticket <= cells->evictable_ticket || HF_MUTANT(DIRTY_USER_EVICTED));
}

/* Counts a cell that a search came by; whole rounds tell how full the pool is of unflushed ones. */
static void count_seen(struct cell_pools *cells, struct cell_pools_round *round,
                       const struct pool *pool, uint64_t ticket)
{
    round->seen++;
    if (ticket > cells->evictable_ticket) {
        round->pinned++;
    }
    if (round->seen >= pool->fresh) {
        if (round->pinned > round->seen - round->seen / 4) {
            cells->wants_flush = true;
        }
        *round = (struct cell_pools_round){ 0, 0 };
    }
}

/* Two rounds find everything: the first may only take marks of use away. */
static bool evict_user(struct cell_pools *cells, bool with_devices)
{
    for (uint64_t left = 2 * (uint64_t)cells->users.fresh; left > 0; left--) {
        const uint32_t slot = pool_turn(&cells->users);
        struct user_cell *user = user_get(cells, slot);

        count_seen(cells, &cells->users_round, &cells->users, user->ticket);
        if (!user_evictable(cells, user) || (with_devices && user->devices == SLOT_NONE)) {
            continue;
        }
        if (user->used) {
            user->used = 0;
            continue;
        }
        user_drop(cells, slot);
        return true;
    }
    return false;
}

static bool evict_head(struct cell_pools *cells)
{
    for (uint64_t left = 2 * (uint64_t)cells->heads.fresh; left > 0; left--) {
        const uint32_t slot = pool_turn(&cells->heads);
        struct head_cell *head = head_get(cells, slot);

        count_seen(cells, &cells->heads_round, &cells->heads, head->ticket);
        if (head->state == CELL_FREE || head->state == CELL_LOADING ||
            (head->ticket > cells->evictable_ticket && !HF_MUTANT(DIRTY_HEAD_EVICTED))) {
            continue;
        }
        if (head->used) {
            head->used = 0;
            continue;
        }
        head_drop(cells, slot);
        return true;
    }
    return false;
}

/* Outcomes whose user is in the volumes can be loaded again when a repeat asks for them. */
static bool evict_outcomes(struct cell_pools *cells)
{
    for (uint64_t left = cells->devices.fresh; left > 0; left--) {
        struct device_cell *device = device_get(cells, pool_turn(&cells->devices));

        if (device->user == SLOT_NONE || device->newest == SLOT_NONE) {
            continue;
        }
        const uint64_t ticket = user_get(cells, device->user)->ticket;

        count_seen(cells, &cells->devices_round, &cells->devices, ticket);
        if (ticket > cells->evictable_ticket) {
            continue;
        }
        drop_outcomes(cells, device);
        return true;
    }
    return false;
}

uint32_t user_take(struct cell_pools *cells, struct user_id id)
{
    uint32_t slot = pool_take(&cells->users);

    if (slot == SLOT_NONE && cells->users_full_at != cells->evictable_ticket) {
        if (evict_user(cells, false)) {
            slot = pool_take(&cells->users);
        } else {
            cells->users_full_at = cells->evictable_ticket;
        }
    }
    if (slot == SLOT_NONE) {
        return SLOT_NONE;
    }
    struct user_cell *user = user_get(cells, slot);

    user->id = id.value;
    user->state = CELL_LOADING;
    user->used = 1;
    table_add(&cells->users_by_id, hash_of_user(cells, id.value), slot);
    return slot;
}

uint32_t head_take(struct cell_pools *cells, struct user_id user,
                   struct conversation_id conversation)
{
    uint32_t slot = pool_take(&cells->heads);

    if (slot == SLOT_NONE && cells->heads_full_at != cells->evictable_ticket) {
        if (evict_head(cells)) {
            slot = pool_take(&cells->heads);
        } else {
            cells->heads_full_at = cells->evictable_ticket;
        }
    }
    if (slot == SLOT_NONE) {
        return SLOT_NONE;
    }
    struct head_cell *head = head_get(cells, slot);

    head->user = user.value;
    head->conversation = conversation.value;
    head->state = CELL_LOADING;
    head->used = 1;
    table_add(&cells->heads_by_key, hash_of_head(cells, user.value, conversation.value), slot);
    return slot;
}

uint32_t device_take(struct cell_pools *cells, uint32_t user_slot, struct device_id id)
{
    uint32_t slot = pool_take(&cells->devices);

    if (slot == SLOT_NONE && cells->devices_full_at != cells->evictable_ticket) {
        struct user_cell *keep = user_get(cells, user_slot);
        const uint16_t load = keep->load;

        keep->load = UINT16_MAX; /* whoever asks for a device isn't evicted for it */
        if (evict_user(cells, true)) {
            slot = pool_take(&cells->devices);
        } else {
            cells->devices_full_at = cells->evictable_ticket;
        }
        keep->load = load;
    }
    if (slot == SLOT_NONE) {
        return SLOT_NONE;
    }
    struct device_cell *device = device_get(cells, slot);
    struct user_cell *user = user_get(cells, user_slot);

    device->id = id.value;
    device->user = user_slot;
    device->next = user->devices;
    user->devices = slot;
    user->device_count++;
    return slot;
}

uint32_t device_find(const struct cell_pools *cells, const struct user_cell *user,
                     struct device_id id)
{
    uint32_t slot = user->devices;

    while (slot != SLOT_NONE && device_get(cells, slot)->id != id.value) {
        slot = device_get(cells, slot)->next;
    }
    return slot;
}

uint32_t head_user(struct cell_pools *cells, struct head_cell *head)
{
    if (head->user_slot != SLOT_NONE) {
        struct user_cell *user = user_get(cells, head->user_slot);

        /* A freed cell has a link where its id was, but its state says so. */
        if (user->state != CELL_FREE && user->id == head->user) {
            user->used = 1;
            return head->user_slot;
        }
    }
    head->user_slot = user_find(cells, (struct user_id){ head->user });
    return head->user_slot;
}

/* Outcomes */

static uint16_t fingerprint_of(const uint8_t nonce[NONCE_BYTES])
{
    /* Mixed, since a client's "random" may be a counter with zeros around it. */
    return (uint16_t)id_mix(load_be64(nonce) ^ id_mix(load_be64(nonce + 8)));
}

/* Of the last counter but `older`. */
static const struct kept_outcome *kept_at(const struct cell_pools *cells,
                                          const struct device_cell *device, uint32_t older)
{
    const struct kept_outcome *kept = outcome_get(cells, device->newest);

    /* The newest is the last that the ring comes to. */
    for (uint32_t left = kept->kept - older; left > 0; left--) {
        kept = outcome_get(cells, kept->next);
    }
    return kept;
}

enum outcome_found outcome_find(const struct cell_pools *cells, const struct device_cell *device,
                                const struct nonce *nonce, const struct kept_outcome **outcome)
{
    const uint16_t fingerprint = fingerprint_of(nonce->bytes);
    const uint64_t last = device->last_counter;
    const uint32_t in_memory = outcomes_kept(cells, device);
    enum outcome_found found = OUTCOME_NONE;

    for (uint32_t i = 0; i < OUTCOMES_KEPT && i < last; i++) {
        if (device->fingerprints[(last - i) % OUTCOMES_KEPT] != fingerprint) {
            continue;
        }
        if (i >= in_memory) {
            found = OUTCOME_UNLOADED;
            continue;
        }
        const struct kept_outcome *kept = kept_at(cells, device, i);

        if (memcmp(kept->nonce, nonce->bytes, NONCE_BYTES) == 0) {
            *outcome = kept;
            return OUTCOME_THERE;
        }
    }
    return found;
}

static uint32_t take_outcome(struct cell_pools *cells)
{
    uint32_t slot = pool_take(&cells->outcomes);

    if (slot == SLOT_NONE && cells->outcomes_full_at != cells->evictable_ticket) {
        if (evict_outcomes(cells)) {
            slot = pool_take(&cells->outcomes);
        } else {
            cells->outcomes_full_at = cells->evictable_ticket;
        }
    }
    return slot;
}

bool outcome_reserve(struct cell_pools *cells, struct device_cell *device)
{
    if (device->newest != SLOT_NONE &&
        user_get(cells, device->user)->ticket <= cells->evictable_ticket) {
        drop_outcomes(cells, device);
    }
    if (outcomes_kept(cells, device) == OUTCOMES_KEPT ||
        cells->outcomes.count < cells->outcomes.cell_max) {
        return true;
    }
    const uint32_t slot = take_outcome(cells);

    if (slot == SLOT_NONE) {
        return false;
    }
    pool_give(&cells->outcomes, slot);
    return true;
}

static void set_outcome(struct kept_outcome *kept, const uint8_t nonce[NONCE_BYTES], uint64_t id,
                        uint64_t seq_or_code)
{
    memcpy(kept->nonce, nonce, NONCE_BYTES);
    kept->id = id;
    kept->seq = seq_or_code;
}

/* A new cell between the newest, whose count it enters, and the oldest: it is either from now on. */
static uint32_t insert_outcome(struct cell_pools *cells, struct device_cell *device)
{
    const uint32_t slot = take_outcome(cells);

    HF_ASSERT(slot != SLOT_NONE); /* there was made room for it */
    if (device->newest == SLOT_NONE) {
        outcome_get(cells, slot)->next = slot;
        device->newest = slot;
    } else {
        struct kept_outcome *newest = outcome_get(cells, device->newest);

        outcome_get(cells, slot)->next = newest->next;
        newest->next = slot;
    }
    outcome_get(cells, device->newest)->kept++;
    return slot;
}

void outcome_add(struct cell_pools *cells, struct device_cell *device, const struct nonce *nonce,
                 uint64_t id, uint64_t seq_or_code)
{
    const uint64_t counter = device->last_counter + 1;
    /* Of a full ring the oldest is overwritten. */
    const uint32_t slot = outcomes_kept(cells, device) == OUTCOMES_KEPT
                              ? outcome_get(cells, device->newest)->next
                              : insert_outcome(cells, device);
    struct kept_outcome *kept = outcome_get(cells, slot);

    kept->kept = outcomes_kept(cells, device);
    device->newest = slot;
    set_outcome(kept, nonce->bytes, id, seq_or_code);
    device->last_counter = counter;
    device->fingerprints[counter % OUTCOMES_KEPT] = fingerprint_of(nonce->bytes);
}

void outcomes_set_fingerprints(struct device_cell *device, const struct outcome *outcomes,
                               uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        device->fingerprints[outcomes[i].counter % OUTCOMES_KEPT] =
            fingerprint_of(outcomes[i].nonce);
    }
}

static const struct outcome *loaded_at(const struct outcome *outcomes, uint32_t count,
                                       uint64_t counter)
{
    for (uint32_t i = 0; i < count; i++) {
        if (outcomes[i].counter == counter) {
            return &outcomes[i];
        }
    }
    return NULL;
}

bool outcomes_reload(struct cell_pools *cells, struct device_cell *device,
                     const struct outcome *outcomes, uint32_t count)
{
    /* All that can be needed is made free first: an eviction on the way could be of this device. */
    while (cells->outcomes.cell_max - cells->outcomes.count <
           OUTCOMES_KEPT - outcomes_kept(cells, device)) {
        if (!evict_outcomes(cells)) {
            return false;
        }
    }
    for (uint32_t kept = outcomes_kept(cells, device);
         kept < OUTCOMES_KEPT && kept < device->last_counter; kept++) {
        const struct outcome *loaded = loaded_at(outcomes, count, device->last_counter - kept);

        if (loaded == NULL) {
            break; /* the store never knew it: older than what is kept there */
        }
        set_outcome(outcome_get(cells, insert_outcome(cells, device)), loaded->nonce, loaded->id,
                    loaded->id != 0 ? loaded->seq : loaded->code);
    }
    return true;
}

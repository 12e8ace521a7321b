#include "core/engine/cells.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define DEVICES   3
#define COUNTERS  4000
#define STEPS     20000
#define POOL_SIZE 70 /* two devices and a bit: the third's go */

/* What each device was ever told, and how much of that is flushed. */
static struct {
    struct outcome outcomes[COUNTERS + 1];
    uint64_t last;
    uint64_t flushed;
    uint32_t user;
    uint32_t slot;
} model[DEVICES];

static struct nonce nonce_of(uint32_t device, uint64_t counter)
{
    struct nonce nonce = { { 0 } };

    store_be64(nonce.bytes, id_mix(counter * 16 + device + 1));
    return nonce;
}

static void open_devices(struct cell_pools *cells)
{
    const struct cell_pools_config config = {
        .users_max = DEVICES, .devices_max = DEVICES, .heads_max = 1, .outcomes_max = POOL_SIZE
    };

    memset(model, 0, sizeof model);
    assert_true(cell_pools_open(cells, &config));
    for (uint32_t i = 0; i < DEVICES; i++) {
        model[i].user = user_take(cells, (struct user_id){ i + 1 });
        user_get(cells, model[i].user)->state = CELL_PRESENT;
        user_get(cells, model[i].user)->sessions = 1;
        model[i].slot = device_take(cells, model[i].user, (struct device_id){ 1 });
    }
}

static void flush(struct cell_pools *cells, uint64_t ticket)
{
    cells->evictable_ticket = ticket;
    for (uint32_t i = 0; i < DEVICES; i++) {
        model[i].flushed = model[i].last;
    }
}

static void add(struct cell_pools *cells, uint32_t i, uint64_t ticket)
{
    struct device_cell *device = device_get(cells, model[i].slot);
    const struct nonce nonce = nonce_of(i, model[i].last + 1);

    if (!outcome_reserve(cells, device)) {
        assert_true(cells->outcomes.count == POOL_SIZE);
        return;
    }
    const uint64_t counter = ++model[i].last;
    struct outcome *outcome = &model[i].outcomes[counter];

    *outcome = (struct outcome){ .counter = counter, .id = counter % 5, .seq = counter * 3 };
    if (outcome->id == 0) {
        outcome->code = (uint16_t)(counter % 1000);
    }
    memcpy(outcome->nonce, nonce.bytes, NONCE_BYTES);
    user_get(cells, model[i].user)->ticket = ticket;
    outcome_add(cells, device, &nonce, outcome->id,
                outcome->id != 0 ? outcome->seq : outcome->code);
    assert_int_equal(device->last_counter, counter);
}

static void find(struct cell_pools *cells, uint32_t i, uint64_t older)
{
    struct device_cell *device = device_get(cells, model[i].slot);
    const uint64_t last = model[i].last;

    if (older >= last) {
        return;
    }
    const struct outcome *expected = &model[i].outcomes[last - older];
    const struct nonce nonce = nonce_of(i, last - older);
    const struct kept_outcome *kept = NULL;
    enum outcome_found found = outcome_find(cells, device, &nonce, &kept);

    if (older >= OUTCOMES_KEPT) {
        assert_int_not_equal(found, OUTCOME_THERE);
        return;
    }
    if (found == OUTCOME_UNLOADED) {
        const uint64_t flushed = model[i].flushed;
        const uint64_t first = flushed > OUTCOMES_KEPT ? flushed - OUTCOMES_KEPT + 1 : 1;

        assert_true(last - older <= flushed);
        if (!outcomes_reload(cells, device, &model[i].outcomes[first],
                             (uint32_t)(flushed + 1 - first))) {
            return;
        }
        found = outcome_find(cells, device, &nonce, &kept);
    }
    assert_int_equal(found, OUTCOME_THERE);
    assert_memory_equal(kept->nonce, nonce.bytes, NONCE_BYTES);
    assert_int_equal(kept->id, expected->id);
    assert_int_equal(kept->seq, expected->id != 0 ? expected->seq : expected->code);
}

/* Adds, flushes, finds of all ages, and reloads, against all that ever was. */
static void rings_hold_what_was_added_and_reloaded(void **state)
{
    struct cell_pools cells;
    uint64_t random = 1;
    uint64_t ticket = 0;
    (void)state;
    open_devices(&cells);
    for (uint32_t step = 0; step < STEPS; step++) {
        random = id_mix(random + step);

        const uint32_t i = (uint32_t)(random >> 8) % DEVICES;
        const uint32_t what = (uint32_t)(random % 64);

        if (what == 0) {
            flush(&cells, ticket);
        } else if (what < 20) {
            add(&cells, i, ++ticket);
        } else {
            find(&cells, i, (random >> 16) % (OUTCOMES_KEPT + 8));
        }
    }
    assert_true(model[0].last > 500 && model[0].last < COUNTERS);
    for (uint32_t i = 0; i < DEVICES; i++) {
        user_get(&cells, model[i].user)->sessions = SLOT_NONE;
        user_drop(&cells, model[i].user);
    }
    assert_int_equal(cells.outcomes.count, 0); /* none was lost */
    cell_pools_close(&cells);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rings_hold_what_was_added_and_reloaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

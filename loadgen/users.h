/*
 * users: which user ids the clients have. Pairs whose two users are at home on different cores of
 * the server cost it a stream; so a run may ask for half of them to be such.
 *
 * Thread   Any. Pure.
 * Errors   None.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* As the server was started: it spreads its volumes over its cores in turn. */
struct users_layout {
    uint32_t cores;
    uint32_t volumes;
};

/* The core that a user is at home on. */
uint32_t users_home(const struct users_layout *layout, uint64_t user);

/*
 * Fills `ids` with `count` (even) rising ids from `first` on; 2k and 2k + 1 are a pair. With a
 * layout, the two of every second pair have different homes and those of the others the same, and
 * ids that don't suit are left out. NULL: just one after the other.
 */
void users_assign(const struct users_layout *layout, uint64_t first, uint64_t *ids, uint32_t count);

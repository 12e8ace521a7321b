/*
 * volume_map: store/volume.h over an ordered map in memory, with what only a simulator can do to a
 * volume. Nothing reaches a disk: what a crash may take back is decided by volume_map_crash().
 *
 * Owner    The simulated disk's: a volume_map outlives the process that has it open.
 * Thread   The simulator's only.
 * Memory   A persistent treap: versions share what they have in common, so that a snapshot, and the
 *          versions that a crash may go back to, cost a reference each. Its shape follows from the
 *          keys alone.
 * Errors   As volume.h says; VOLUME_FULL and VOLUME_BROKEN only on demand.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/volume.h"
#include "tests/sim/prng.h"

struct volume *volume_map_open(void);

/*
 * The machine dies: transactions and readers are gone (their handles too), and so are, newest
 * first, some of the commits that weren't synced. Returns how many.
 */
uint32_t volume_map_crash(struct volume *volume, struct prng *prng);

/* The process alone dies: likewise, but all that was committed is there, and may still be lost. */
void volume_map_kill(struct volume *volume);

/* The process that recovered the volume begins to serve: no reader of it is older than this. */
void volume_map_forget_versions(struct volume *volume);

/* The next reader that begins sees so many commits less than there are, as one that began earlier
 * would. Only that one: what begins after something else was read is newer than that. */
void volume_map_set_lag(struct volume *volume, uint32_t commits);

/* Transactions are refused for want of room. */
void volume_map_set_full(struct volume *volume, bool full);

/* What is read comes back damaged by a bit, or not at all, so often in a thousand. */
void volume_map_set_rot(struct volume *volume, struct prng *prng, uint32_t per_mille);

/* Shared by what dies together: every put, commit and sync counts it down, and from 0 on all of
 * them fail. NULL: never. */
void volume_map_set_fuse(struct volume *volume, uint64_t *fuse);

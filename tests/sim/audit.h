/*
 * audit: reads all rows of the volumes after a recovery, and checks that they agree: nothing lies
 * below a floor or is missing above it, bodies are there as long as something names them and are
 * named by as many as they say, checkpoints and heads and outcomes are those of the log.
 *
 * Owner    None: it keeps nothing.
 * Thread   The simulator's only.
 * Errors   A broken rule is sim_fail().
 * Source   store/schema.h; docs/architecture.md on the store.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/volume.h"

/* `drained`: everything was delivered, so no stream record may be left. Returns the rows read. */
uint64_t audit_volume(struct volume *volume, uint16_t number, uint16_t volume_count, bool drained);

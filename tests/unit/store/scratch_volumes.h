/*
 * scratch_volumes: LMDB volumes in a directory of their own, in memory where there is /dev/shm.
 *
 * Owner    The test's. Failures fail the test.
 */
#pragma once

#include <stdint.h>

#include "store/volume.h"

#define SCRATCH_VOLUMES_MAX 16

struct scratch_volumes {
    char path[64];
    struct volume *volumes[SCRATCH_VOLUMES_MAX];
    uint16_t count;
};

void scratch_volumes_open(struct scratch_volumes *scratch, uint16_t count);
/* Closes them, and opens the same files. */
void scratch_volumes_reopen(struct scratch_volumes *scratch);
/* Empties all tables, which is faster than new files. */
void scratch_volumes_empty(struct scratch_volumes *scratch);
/* The files go. */
void scratch_volumes_close(struct scratch_volumes *scratch);

/*
 * volume_lmdb: opens a volume that lives in an LMDB file. All else is in volume.h.
 *
 * Owner    As volume.h says.
 * Thread   Any one; a file is opened once a process.
 * Errors   NULL, and `error` says why.
 * Source   LMDB 0.9.31, lmdb.h; docs/decisions on what is flushed when.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/volume.h"

struct volume_options {
    uint64_t map_bytes;     /* the file can't grow beyond it; address space only. 0: the default */
    uint64_t reserve_bytes; /* room left on the file system for others */
    bool create;
    bool buffered; /* zeros go through the page cache too, as without O_DIRECT */
};

/* The path names the file. The directory's lock must be held: nobody else may have it open. */
struct volume *volume_open(const char *path, const struct volume_options *options,
                           struct hf_error *error);
/* The size of the file, and how much of it is in use. The writer's thread only. */
void volume_get_bytes(const struct volume *volume, uint64_t *file_bytes, uint64_t *used_bytes);

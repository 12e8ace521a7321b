/*
 * manifest: what a data directory is, and how its journals are being written: a small text file,
 * replaced whole. Replacing it is the instant at which the journals before it no longer matter.
 *
 *   holdfast 2
 *   directory 0123456789abcdef0123456789abcdef
 *   volumes 16
 *   incarnation 7
 *   epoch 0
 *   start_lsn 1048576
 *   journal_set 1
 *   segment_bytes 16777216
 *   segments 8
 *   cores 2
 *   map 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1
 *   applied 1048576 1048576 ... (of each volume)
 *   crc32c 89abcdef
 *
 * Thread   Any. Pure.
 * Errors   Decoding distrusts: damaged and newer files get a message that says so.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/schema.h"

#define MANIFEST_BYTES_MAX 2560
#define MANIFEST_CORES_MAX 256

struct manifest {
    uint8_t directory_id[SCHEMA_DIRECTORY_ID_BYTES];
    uint16_t volume_count;
    uint64_t incarnation; /* of the last start; 0: never started */
    uint64_t epoch;       /* no log's is below it: of the last restore, or 0 */
    uint64_t start_lsn;   /* of its journals */
    uint32_t journal_set; /* names their folder; 0: there are none */
    uint32_t segment_bytes;
    uint32_t segment_count; /* of each core */
    uint16_t core_count;
    uint16_t core_of_volume[SCHEMA_VOLUMES_MAX];
    uint64_t applied[SCHEMA_VOLUMES_MAX]; /* what each volume had at the last start, synced */
};

/* Returns the length; the room must be MANIFEST_BYTES_MAX. */
size_t manifest_encode(const struct manifest *manifest, char *to);
bool manifest_decode(const char *text, size_t byte_count, struct manifest *manifest,
                     struct hf_error *error);

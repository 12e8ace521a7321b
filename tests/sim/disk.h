/*
 * disk: what survives a crash: the manifest, the volumes, and the segments of the journals. A write
 * to a segment is durable when it is completed; one that a crash meets under way leaves each of its
 * sectors old, new or torn, in any combination.
 *
 * Owner    The run. The host (the process) comes and goes; the disk stays.
 * Thread   The simulator's only.
 * Memory   Freed by disk_close().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/journal.h"
#include "store/manifest.h"
#include "store/volume.h"
#include "tests/sim/hazards.h"
#include "tests/sim/prng.h"

#define DISK_CORES_MAX    8
#define DISK_SEGMENTS_MAX 16
#define DISK_SECTOR_BYTES 512

struct disk_write {
    bool active;
    uint32_t segment;
    uint64_t offset;
    const uint8_t *bytes; /* the writer's, which keeps them until it is told */
    size_t byte_count;
};

/* The segments of one run of the server, or several of the same shape: a folder. */
struct disk_set {
    uint16_t core_count;
    uint32_t segment_count;
    uint32_t segment_bytes;
    uint8_t *segments[DISK_CORES_MAX][DISK_SEGMENTS_MAX + 1]; /* behind them, the marks */
};

struct disk {
    struct hazards *hazards;
    struct prng *prng;
    struct manifest manifest;
    char manifest_text[MANIFEST_BYTES_MAX]; /* as it lies in its file; empty: it has none yet */
    size_t manifest_bytes;
    struct volume *volumes[SCHEMA_VOLUMES_MAX];
    struct disk_set set;
    struct disk_write writes[DISK_CORES_MAX];
    uint32_t rot; /* in a thousand */
    bool rot_blocks;
    uint64_t fuse; /* of whatever runs now: see volume_map.h */
};

void disk_open(struct disk *disk, struct hazards *hazards, struct prng *prng,
               uint16_t volume_count);
void disk_close(struct disk *disk);

/* Zeroed segments, unless they are there in this shape: then they hold what they held. */
void disk_make_segments(struct disk *disk, uint16_t core_count, uint32_t segment_count,
                        uint32_t segment_bytes);

/* What a start says in each core's marks, for the manifest's incarnation and start LSN. */
void disk_write_start_marks(struct disk *disk);
/* The manifest as it is now takes the place of the file before. */
void disk_put_manifest(struct disk *disk);
/* Reads the file, which must say what was put. */
bool disk_get_manifest(struct disk *disk, struct hf_error *error);

/* For reading one core's segments, as directory_source() is. */
struct disk_core {
    struct disk *disk;
    uint16_t core;
};
struct journal_source disk_source(struct disk_core *core);

void disk_submit(struct disk *disk, uint16_t core, const struct journal_write *write);
/* The write under way has become durable, but for what lies behind `byte_count`. */
void disk_complete(struct disk *disk, uint16_t core, size_t byte_count);

/* The machine dies: first the writes under way (their bytes are still there), then, when nothing
 * has the volumes open any more, these. */
void disk_tear_writes(struct disk *disk);
/* Without power, only the process dies: what it committed is still there, though not synced. */
void disk_crash(struct disk *disk, bool power);

/* Rows come back damaged or not at all, so often in a thousand; of the journals, blocks that can't be
 * read, and with `blocks` damaged ones (else they would pass for a torn tail, in recovery). */
void disk_set_rot(struct disk *disk, uint32_t per_mille, bool blocks);

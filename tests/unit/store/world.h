/*
 * world: a journal on a disk in memory, its index, chat that fills them, and volumes.
 *
 * Owner    The test's. Failures fail the test (cmocka).
 */
#pragma once

#include <stdint.h>

#include "store/flush.h"
#include "store/index.h"
#include "store/journal.h"
#include "tests/unit/store/chat_model.h"
#include "tests/unit/store/memory_disk.h"
#include "tests/unit/store/scratch_volumes.h"

#define WORLD_VOLUMES      3
#define WORLD_SEGMENTS_MAX 16
#define WORLD_RING_BYTES   ((size_t)128 * 1024)
#define WORLD_START_LSN    4096

struct world {
    struct journal_identity identity;
    struct memory_disk disk;
    struct journal *journal;
    struct index *index;
    struct chat_model model;
    struct scratch_volumes scratch;
    struct flush *flush; /* world_flush's, used again while slice_records is the same */
    uint32_t flush_slice_records;
    uint64_t ticket;
    unsigned batch_tickets; /* about so many tickets make a batch */
};

void world_init(struct world *world, uint64_t seed, uint32_t segment_bytes, uint32_t segment_count);
void world_deinit(struct world *world);

/* One ticket; it becomes durable with its batch. */
void world_append(struct world *world, const uint8_t *bytes, size_t byte_count);
/* So many tickets of chat, all durable. */
void world_chat(struct world *world, unsigned steps);

struct flush *world_open_flush(struct world *world, uint64_t from_lsn, uint64_t upto_lsn,
                               uint32_t slice_records, size_t memory_max);
/* Steps until done, or `steps` times. */
enum flush_status world_run_flush(struct flush *flush, unsigned steps);
/* All that the journal has, as the server would. */
void world_flush(struct world *world, uint32_t slice_records, size_t memory_max);

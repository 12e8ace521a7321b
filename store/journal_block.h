/*
 * journal_block: the layout of a block's header, and a walk over the records of whole batches.
 *
 *   0 magic 4 | 4 crc32c 4 (over all that follows) | 8 directory id 8 | 16 incarnation 8
 *   24 own LSN 8 | 32 batch's first LSN 8 | 40 batch's blocks 4 | 44 batch's crc32c 4
 *   48 core 2 | 50 payload length 2 | 52 segment 2 | 54 zero 2 | 56 payload
 *
 * Owner    Of the room `store` only.
 * Thread   The walk's owner.
 * Errors   By status; the caller names the batch (journal_walk_batch_lsn()).
 */
#pragma once

#include "core/base/mutant.h"
#include "store/journal.h"

#define BLOCK_MAGIC UINT32_C(0x48464a01) /* "HFJ", version 1 */

/* Writes the header into a block whose payload is in place and padded with zeros. */
void journal_block_seal(uint8_t *bytes, const struct journal_identity *identity,
                        const struct journal_block *block);

/* Whether a sound block lies where it was written, by this run: else it is what the segment held
 * in a former life. */
static inline bool journal_block_is_at(const struct journal_block *block,
                                       const struct journal_identity *identity, uint64_t lsn)
{
    return (block->incarnation == identity->incarnation && block->lsn == lsn) ||
           HF_MUTANT(STALE_TAIL_ACCEPTED);
}

enum walk_status {
    WALK_RECORD,
    WALK_END,
    WALK_DAMAGED, /* a block or batch isn't what was found there before */
    WALK_BROKEN,  /* the disk */
};

struct journal_walk {
    struct journal_source source;
    struct journal_identity identity;
    const struct journal_span *spans;
    uint32_t span_count;
    uint64_t upto_lsn;
    /* The block being read, and what has been read of its batch. */
    uint64_t lsn;
    uint64_t batch_lsn;
    uint32_t batch_blocks;
    uint32_t batch_crc;
    uint32_t batch_crc_wanted;
    const uint8_t *block;
    uint32_t at; /* offset in the block */
    uint32_t end;
    /* Blocks read at once, and where they begin. */
    uint8_t *buffer;
    uint64_t buffer_lsn;
    uint32_t buffer_blocks;
    uint8_t record[RECORD_BYTES_MAX]; /* one that runs over a block's end */
};

/* From a batch's first block at from_lsn to upto_lsn. False: no memory. The spans must stay. */
bool journal_walk_open(struct journal_walk *walk, const struct journal_source *source,
                       const struct journal_identity *identity, const struct journal_span *spans,
                       uint32_t span_count, uint64_t from_lsn, uint64_t upto_lsn);
void journal_walk_close(struct journal_walk *walk);

/* The next record's bytes (until the next call), unparsed but of the length that they say. A
 * batch's checksum is known to be right only when the record after its last has been asked for. */
enum walk_status journal_walk_next(struct journal_walk *walk, const uint8_t **bytes,
                                   size_t *byte_count);
/* Where the walk stands, for messages: the batch that it is in; and for `applied`. */
uint64_t journal_walk_batch_lsn(const struct journal_walk *walk);

/*
 * mark: how far a journal has come, said beside its segments, so that an end that was lost (a
 * newest segment that is gone, empty or an old copy) isn't taken for the end that a crash leaves.
 *
 *   The file of marks of a core is its segment number `segment_count`: MARK_BLOCKS blocks, each
 *   {magic 4, crc32c 4 (over all that follows), directory id 8, incarnation 8, durable LSN 8,
 *    newest LSN 8, newest segment 4, core 2, zero}
 *
 *   blocks 0, 1   written in turn while a run goes on: before a segment's first write, and a
 *                 second after the last. Each says only what is durable already, so that a power
 *                 cut can't make it untrue; and one that it tears leaves the one before.
 *   blocks 2, 3   by the start, before the manifest names its incarnation: in turn too, so that a
 *                 start that dies leaves what the run before it said.
 *
 * Owner    Of the room `store`.
 * Thread   Any. Pure, but for mark_load(): it reads.
 * Errors   mark_load(): `error` is the message for the operator.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/journal.h"

#define MARK_BLOCKS     4
#define MARK_FILE_BYTES ((size_t)MARK_BLOCKS * JOURNAL_BLOCK_BYTES)

struct mark {
    uint64_t durable_lsn; /* everything below it is on the disk */
    uint64_t newest_lsn;  /* where the newest segment begins: none was begun above it */
    uint32_t newest_segment;
};

/* Which block the start of that incarnation writes. */
static inline uint32_t mark_start_block(uint64_t incarnation)
{
    return 2 + (uint32_t)(incarnation & 1);
}

/* Fills one block. */
void mark_seal(uint8_t *block, const struct journal_identity *identity, const struct mark *mark);

/*
 * The newest mark of the identity's incarnation. `file` is its number with the source, `scratch`
 * MARK_FILE_BYTES, aligned. False: there is none, or one of elsewhere, of a newer version, or of a
 * start that the manifest doesn't know.
 */
bool mark_load(const struct journal_source *source, uint32_t file,
               const struct journal_identity *identity, uint8_t *scratch, struct mark *mark,
               struct hf_error *error);

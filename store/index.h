/*
 * index: where the entries lie that are in the journal and not yet in a volume: (user, seq) -> pos,
 * and the checkpoints (user, conversation, n / 64) -> seq. In two generations: index_rotate() when
 * a flush begins, index_drop() when all that was there at that moment is in the volumes.
 *
 * Owner    The reactor's, or the simulator's core.
 * Thread   The owner's.
 * Memory   68 B a block, which holds those entries of a user whose seqs differ in the last three
 *          bits only: 8.5 B an entry for a user who has many, 68 B for one who has one. 52 B a
 *          checkpoint, one of which comes with 64 entries of a conversation. Address space for
 *          entries_max in both generations, each in a block of its own, is reserved at open; pages
 *          are used as entries come, and kept. Nothing is allocated later.
 * Time     Insert and find are O(1), without a rehash: the table grows by one bucket a block
 *          (linear hashing: Litwin, VLDB 1980). Drop is O(1).
 * Errors   Inserting more than entries_max asserts: size it by the journal's bytes. So does
 *          a number that is given twice in a generation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/ids.h"
#include "store/record.h"

/* Every so many entries of a conversation one has a checkpoint. */
#define INDEX_CHECKPOINT_EVERY 64

struct index;

/* What a journal of so many bytes can hold. */
#define INDEX_ENTRIES_FOR(journal_bytes) ((journal_bytes) / RECORD_ENTRY_MIN + 1)

struct index *index_open(uint64_t entries_max, struct hf_error *error);
void index_close(struct index *index);

/* No pos of a generation lies before its first one, nor as far as 2^40 - 1 beyond. */
void index_insert(struct index *index, struct user_id user, uint64_t seq, uint64_t pos);
void index_insert_checkpoint(struct index *index, struct user_id user,
                             struct conversation_id conversation, uint64_t block, uint64_t seq);

/* Inserts what the index must know of the records of one append, the first of which lies at pos. */
void index_insert_records(struct index *index, const uint8_t *records, size_t byte_count,
                          uint64_t pos);

/* The entry's pos, or 0. */
uint64_t index_find(const struct index *index, struct user_id user, uint64_t seq);
/* The seq of that conversation's entry number 64 * block, or 0. */
uint64_t index_find_checkpoint(const struct index *index, struct user_id user,
                               struct conversation_id conversation, uint64_t block);

/* What was inserted so far is the older generation now; the one before it must be dropped. */
void index_rotate(struct index *index);
/* The older generation is in the volumes. */
void index_drop(struct index *index);

uint64_t index_entry_count(const struct index *index);
/* Memory in use, to within a few pages: for a gauge. */
uint64_t index_bytes(const struct index *index);

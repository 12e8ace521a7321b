/*
 * index: where the entries lie that are in the journal and not yet in a volume: (user, seq) -> pos,
 * and the checkpoints (user, conversation, n / 64) -> seq. In two generations: index_rotate() when
 * a flush begins, index_drop() when all that was there at that moment is in the volumes.
 *
 * Owner    The reactor's, or the simulator's core.
 * Thread   The owner's.
 * Memory   32 B an entry, 40 B a checkpoint, one of which comes with 64 entries of a conversation.
 *          Address space for entries_max in both generations is reserved at open; pages are used
 *          as entries come, and kept. Nothing is allocated later.
 * Time     Insert and find are O(1), without a rehash: the table grows by one bucket an insert
 *          (linear hashing: Litwin, VLDB 1980). Drop is O(1).
 * Errors   Inserting more than entries_max asserts: size it by the journal's bytes.
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
/* Memory in use, for a gauge. */
uint64_t index_bytes(const struct index *index);

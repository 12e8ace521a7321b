/*
 * recover: brings the volumes up to the end of the journals of the last run, before anything is
 * served. It scans every segment, decides for each journal where its last whole batch ends, and
 * applies everything from the volumes' `applied` up to there (by flush.h), synced.
 *
 *   A bad batch at the end is torn: its write never completed, and nobody was told of it.
 *   A bad batch with a valid block of a later batch anywhere is damage: refused, with its place.
 *   Blocks of an older incarnation, or with an LSN that isn't their place's, are what the segment
 *   held in a former life. A newer incarnation than the manifest's: the manifest is old; refused.
 *   A journal that ends below a volume's `applied` or below its own mark (mark.h), or begins above
 *   `applied`, is refused. So is a block in another segment than it was written to, and a volume
 *   that has applied less than when the directory was last started: an old copy of it.
 *
 * Afterwards the caller opens new journals at recover_next_lsn(), under a new incarnation, and
 * makes both durable (the manifest) before anything leaves. Until then recovery may be repeated.
 *
 * Owner    The thread that starts the server, or the simulator.
 * Thread   The owner's.
 * Memory   32 B a block, while scanning; then what flush.h says.
 * Errors   RECOVER_REFUSED: `error` is the message for the operator. RECOVER_FULL: no room in a
 *          volume; step again when there is.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/journal.h"
#include "store/mark.h"
#include "store/schema.h"
#include "store/volume.h"

struct recover_config {
    uint8_t directory_id[SCHEMA_DIRECTORY_ID_BYTES];
    /* Of the manifest: how the journals were written. No cores: there are none. */
    uint64_t incarnation;
    uint64_t start_lsn;
    uint16_t core_count;
    uint32_t segment_bytes;
    uint32_t segment_count;
    bool marks; /* each journal has them */
    const uint16_t *core_of_volume;
    const struct journal_source *sources; /* one a core */
    const uint64_t *applied_min;          /* by volume, of the manifest */
    struct volume *const *volumes;        /* all, by number */
    uint16_t volume_count;
    size_t memory_max;      /* of flush_config */
    uint32_t slice_records; /* of flush_config */
};

enum recover_status {
    RECOVER_MORE,
    RECOVER_DONE,
    RECOVER_FULL,
    RECOVER_REFUSED,
};

struct recover_stats {
    uint64_t records;
    uint64_t bytes;        /* of journal between `applied` and the ends, as far as was scanned */
    uint32_t permille;     /* of the work, about: journals, and records of the present one */
    uint32_t torn_batches; /* journals that ended in one */
};

struct recover;

/* NULL: refused. Opens nothing, changes nothing; the arrays must stay. */
struct recover *recover_open(const struct recover_config *config, struct hf_error *error);
void recover_close(struct recover *recover);

/* Scans one journal, or applies one slice: a crash may come between any two steps. */
enum recover_status recover_step(struct recover *recover, struct hf_error *error)
    __attribute__((warn_unused_result));

/* After RECOVER_DONE: above every LSN of the journals, and every `applied`. */
uint64_t recover_next_lsn(const struct recover *recover);
void recover_get_stats(const struct recover *recover, struct recover_stats *stats);

/* The directory id in block headers. */
uint64_t recover_block_id(const uint8_t directory_id[SCHEMA_DIRECTORY_ID_BYTES]);

/* ---- Its parts ---- */

struct recover_journal {
    struct journal_source source;
    struct journal_identity identity;
    uint32_t segment_bytes;
    uint32_t segment_count;
    uint64_t start_lsn;
    uint64_t needed_from;    /* the lowest of max(start_lsn, applied), over its volumes */
    uint64_t needed_upto;    /* the highest applied */
    const struct mark *mark; /* NULL: it has none */
};

struct recover_run {
    uint64_t end_lsn;           /* of the last whole batch */
    bool torn;                  /* blocks of one more batch were found */
    uint32_t span_count;        /* in order, covering [needed_from, end_lsn) */
    struct journal_span *spans; /* the caller's, segment_count of them */
};

/* RECOVER_DONE or RECOVER_REFUSED. */
enum recover_status recover_scan(const struct recover_journal *journal, struct recover_run *run,
                                 struct hf_error *error) __attribute__((warn_unused_result));

/*
 * Writes the identity into a new volume, or compares it with what is there. False: of another
 * directory, in another's place, newer or damaged; `error` says it.
 */
bool recover_prepare_volume(struct volume *volume, const struct schema_identity *identity,
                            struct hf_error *error);

/* The volume's `applied`; 0: nothing was ever put into it. False: damaged, or the disk. */
bool recover_read_applied(struct volume *volume, uint64_t *lsn, struct hf_error *error);

/* Raises *epoch to the highest of the volume's users, and adds their number. A walk over all. */
bool recover_find_epoch(struct volume *volume, uint64_t *epoch, uint64_t *users,
                        struct hf_error *error);

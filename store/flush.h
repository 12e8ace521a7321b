/*
 * flush: carries redo records from a core's journal into its volumes, sorted, in bounded
 * transactions. First a plan (the records of [from, upto) that a volume doesn't have yet, by
 * volume, partition, user and order), then slices of whole runs of users, then the volume's
 * `applied`, then a sync. Recovery uses it as it is.
 *
 * Applying the same records again, or some of them and then all, gives the same volume: log rows
 * are put by their number, outcomes merge by counter, floors only rise and what lies below them is
 * skipped, references to bodies are counted by the rows that hold them, and of all else the last
 * record says what holds. So a flush that a crash interrupted after any slice is simply done again.
 *
 * Owner    Opened for one flush by the flusher thread (or the simulator). flush_restart() uses it
 *          for another, whose copy goes where the last one's was: memory that is new costs more
 *          than what is copied into it. Closed when no flush follows soon.
 * Thread   The opener's. The list of users may be read by another thread as it says there.
 * Memory   A copy of the planned records (memory_max; one volume's at least), 24 B for each, and
 *          fixed 1 MB. Volumes are planned in groups that fit.
 * Errors   By status; flush_text() says what and where. FLUSH_FULL is nobody's fault: call
 *          flush_step() again later, it goes on with the same slice. After FLUSH_DAMAGED (a record
 *          or row that can't be, so either the journal or the volume is wrong) and FLUSH_BROKEN
 *          (the disk) stop the process.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/ids.h"
#include "store/journal.h"
#include "store/volume.h"

struct flush_config {
    struct journal_source source;
    struct journal_identity identity;
    const struct journal_span *spans; /* of [from_lsn, upto_lsn); copied */
    uint32_t span_count;
    uint64_t from_lsn; /* a batch begins here; what is below a volume's `applied` is passed over */
    uint64_t upto_lsn; /* a batch ends here */
    struct volume *const *volumes; /* all of the directory, by number; NULL: not this core's */
    uint16_t volume_count;
    size_t memory_max;      /* 0: 64 MB */
    uint32_t slice_records; /* 0: 2,000 */
    /*
     * 0: 32. Each user dirties pages of its own, and as long as a volume is open LMDB keeps the
     * memory of the most that one transaction ever had.
     */
    uint32_t slice_users;
    uint32_t drops_max; /* 0: 500. Deletes for retention in one transaction, about */
};

enum flush_status {
    FLUSH_PLANNED,   /* flush_get_users() gives the users of the slices to come */
    FLUSH_SLICE,     /* a transaction was committed */
    FLUSH_GROUP_END, /* the same, and the next step takes the list of users away */
    FLUSH_DONE,      /* every volume's `applied` is upto_lsn, synced */
    FLUSH_FULL,
    FLUSH_DAMAGED,
    FLUSH_BROKEN,
};

struct flush;

struct flush *flush_open(const struct flush_config *config, struct hf_error *error);
void flush_close(struct flush *flush);
/*
 * From here on as if newly opened with this configuration, whose slice_records is the same. False:
 * no memory, and it is as it was.
 */
bool flush_restart(struct flush *flush, const struct flush_config *config, struct hf_error *error)
    __attribute__((warn_unused_result));

/* One step: a plan, or a transaction. */
enum flush_status flush_step(struct flush *flush) __attribute__((warn_unused_result));
const char *flush_text(const struct flush *flush);

struct flush_stats {
    uint64_t records;
    uint64_t records_planned; /* of all volumes; 0 before the first plan */
    uint64_t users;           /* visits */
    uint64_t slices;
    uint64_t entries_dropped; /* by retention */
};
void flush_get_stats(const struct flush *flush, struct flush_stats *stats);

/*
 * A user that a slice to come will visit. For reading ahead (a cold tree costs four times more
 * without it): another thread may walk the list from FLUSH_PLANNED until FLUSH_GROUP_END, calling
 * flush_touch() with readers of its own, which brings the user's pages into memory.
 */
struct flush_user {
    struct user_id user;
    uint16_t volume;
};
size_t flush_get_user_count(const struct flush *flush);
void flush_get_user(const struct flush *flush, size_t index, struct flush_user *user);
void flush_touch(struct volume_txn *reader, const struct flush_user *user);

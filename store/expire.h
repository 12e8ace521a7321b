/*
 * expire: finds what has outlived its age. A sweep goes over all users of a core's volumes in the
 * order of their keys, in short steps, and tells of each whose oldest entries are older than the
 * cutoff where the log may begin from now on. It changes nothing: the floor that it names becomes a
 * redo record of the engine, and the flush drops what lies below it.
 *
 * An entry is as old as its message id says: the time of its sender's home. A log is in the order
 * of arrival, so these times rise only nearly: a message that waited for a full disk or a restart is
 * behind younger ones. The floor rises up to the first entry that is young enough, so no entry goes
 * before its age, and an older one behind a younger stays as long as that.
 *
 * Owner    struct expire is the caller's; readers and the array of them as well.
 * Thread   The readers' own. A step is one read transaction.
 * Memory   None is allocated.
 * Time     Wall time, passed in; it stands for the whole sweep.
 * Errors   EXPIRE_DAMAGED: a row isn't what was written there; its user keeps all entries, and the
 *          sweep goes on behind it. EXPIRE_FAILED: the disk; the sweep is over.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/schema.h"
#include "store/volume.h"

struct expire {
    struct volume_txn *const *readers_; /* by volume; NULL: another core's */
    uint16_t volume_count_;
    uint16_t volume_;
    bool in_log_;            /* the user has old entries, and what was read of its log is old */
    struct schema_key next_; /* the step begins here */
    struct user_id user_;
    uint64_t kept_;  /* its present floor, once in_log_ */
    uint64_t floor_; /* what it may be, as far as the log was read */
    uint64_t cutoff_unix_ms_;
    uint64_t users;          /* seen in this sweep */
    uint16_t damaged_volume; /* EXPIRE_DAMAGED */
    const char *damaged_row; /* EXPIRE_DAMAGED */
    struct hf_error error;   /* EXPIRE_FAILED */
};

enum expire_status {
    EXPIRE_MORE,    /* go on with another step */
    EXPIRE_FOUND,   /* the same, and *found is set */
    EXPIRE_DAMAGED, /* the same, and found->user has the row */
    EXPIRE_SWEPT,   /* all volumes are done */
    EXPIRE_FAILED,
};

/* Entries of that user below `floor` are all older than the cutoff. */
struct expire_found {
    struct user_id user;
    uint64_t floor;
};

/* A new sweep: older are entries from before the cutoff. */
void expire_begin(struct expire *expire, struct volume_txn *const *readers, uint16_t volume_count,
                  uint64_t cutoff_unix_ms);

/* Looks at so many rows at most. */
enum expire_status expire_step(struct expire *expire, uint32_t rows_max, struct expire_found *found)
    __attribute__((warn_unused_result));

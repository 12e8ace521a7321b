/*
 * apply: what a run of one user's redo records does to the tables. flush.h says why doing it again
 * changes nothing.
 *
 * Owner    Of the room `store` only: the flush.
 * Thread   The transaction's.
 * Memory   Scratch for records_max records, from apply_open().
 * Errors   SCHEMA_DAMAGED, and apply.text says what.
 *
 * What retention drops is bounded for each transaction, since a floor may rise over any number of
 * entries: `more` says that some are left below it. The same records applied again, in the next
 * transaction, drop the next of them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/record.h"
#include "store/schema.h"
#include "store/volume.h"

/* Deletes that one log row may take beyond those that were left: of itself, and of the checkpoints
 * and bodies of two dozen entries without their bodies. */
#define APPLY_DROPS_REST 256

/* A record of the run, under what it is sorted by: a conversation, a device, a message id. */
struct apply_item {
    uint64_t key;
    uint32_t index;
};

struct apply {
    struct apply_item *items;
    uint32_t records_max;
    uint32_t drops_left;      /* deletes for retention in this transaction; set by its owner */
    bool more;                /* of the last visit: entries below the floor are left */
    uint64_t entries_dropped; /* by retention */
    const char *text;
};

bool apply_open(struct apply *apply, uint32_t records_max);
void apply_close(struct apply *apply);

/* Records of one user, in their order. */
enum schema_status apply_user(struct apply *apply, struct volume_txn *txn,
                              const struct record *records, uint32_t record_count)
    __attribute__((warn_unused_result));

/*
 * recent: the newest ENTRY records of all users, in a ring of bytes: what is pushed live, and what
 * a connection that is one send behind needs, costs no load.
 *
 *      item: | before 8 | after 8 | seq 8 | bytes 4 | user 4 | ENTRY record ... | padding to 8
 *
 * `before` and `after` are the places of the user's entries on either side, so a reader goes from
 * one of a user's entries to the next without looking at those of others.
 *
 * Owner    One per engine. Items are the ring's, until it has gone round.
 * Thread   The engine's only.
 * Memory   One ring, whose size is a power of two. A place is a position in an endless ring: it is
 *          never used again, and recent_get tells whether its item is still there.
 * Errors   None: what is gone is read from the store.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/check.h"

struct recent_item {
    uint64_t before; /* 0: none */
    uint64_t after;  /* 0: none yet */
    uint64_t seq;
    uint32_t record_bytes;
    uint32_t user; /* slot, for assertions */
    uint8_t record[];
};
_Static_assert(sizeof(struct recent_item) == 32, "as drawn above");

#define RECENT_BYTES_MIN (UINT32_C(1) << 16) /* some of the largest records */

struct recent {
    uint8_t *bytes;
    uint64_t size;
    uint64_t end; /* where the next item goes, at the earliest */
};

bool recent_open(struct recent *recent, size_t size) __attribute__((warn_unused_result));
void recent_close(struct recent *recent);

/* NULL: that place has been used again (or is 0, which is none). */
static inline struct recent_item *recent_get(const struct recent *recent, uint64_t at)
{
    if (at == 0 || recent->end - at > recent->size) {
        return NULL;
    }
    return (struct recent_item *)(void *)(recent->bytes + (at & (recent->size - 1)));
}

/* Puts a copy of a user's next entry behind its newest (`before`, or 0), and returns its place. */
uint64_t recent_add(struct recent *recent, uint64_t before, uint32_t user, uint64_t seq,
                    const uint8_t *record, size_t record_bytes);

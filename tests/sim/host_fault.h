/*
 * host_fault: what somebody, or age, does to the files of a server that is down. It must refuse to
 * start (then the harm is undone), unless what was harmed isn't needed any more.
 *
 * Owner    The host, for one start.
 * Thread   The simulator's only.
 * Errors   None.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/journal.h"
#include "store/schema.h"
#include "tests/sim/host.h"

enum harm_kind {
    HARM_NONE,
    HARM_BIT,     /* of a block of the journal, but for the last batch */
    HARM_ZEROS,   /* likewise, the whole block */
    HARM_SEGMENT, /* all of a segment that the last batch isn't in */
    HARM_NEWER,   /* a block of a version to come */
    HARM_FOREIGN, /* a block of another core's journal */
    HARM_OLD_MANIFEST,
    HARM_MANIFEST, /* a bit of it */
    HARM_SWAPPED_VOLUMES,
    HARM_NEWER_VOLUME,
    HARM_OTHER_DIRECTORY,
    HARM_META, /* a row of `meta` rots */
    HARM_KINDS,
};

struct harm {
    enum harm_kind kind;
    uint16_t core;
    uint32_t segment;
    uint64_t offset;
    uint8_t *before; /* what stood there */
    size_t byte_count;
    uint16_t volume, other_volume;
    struct schema_key key;
    struct schema_row row;
};

/* False: there was nothing to harm. */
bool harm_do(struct host *host, struct harm *harm);
void harm_undo(struct host *host, struct harm *harm);
/* It can't be that recovery doesn't meet it. */
bool harm_is_certain(const struct harm *harm);

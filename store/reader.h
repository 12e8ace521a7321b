/*
 * reader: answers loads from the volumes, and from the journal for entries that no volume has yet.
 * Whoever asks finds first in the index (index.h) which entries those are, and where.
 *
 * Every answer carries the LSN that its snapshot covers (`applied` of that volume). An entry comes
 * in one form wherever it was found: as the ENTRY record of record.h, whole.
 *
 * Owner    One a reading thread.
 * Thread   The opener's. It may read the disk.
 * Memory   Taken by reader_open(): answers_bytes and a few pages. An answer's bytes are good until
 *          the next call.
 * Errors   READ_FAILED: the disk, or damage; reader_text() says which. Damage (`damaged`) is one
 *          row's: others can be read. After an error of the disk stop the process. READ_ABSENT only
 *          says that the snapshot has no such thing: compare snapshot_lsn with what it should cover.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/ids.h"
#include "store/journal.h"
#include "store/record.h"
#include "store/schema.h"
#include "store/volume.h"

#define READER_DEVICES_MAX 16
#define READER_ROW_BYTES   64 /* "head of conversation 18446744073709551615" */

enum read_kind {
    READ_USER,  /* facts, and all devices with their outcomes */
    READ_HEAD,  /* one conversation's head */
    READ_RANGE, /* entries from, from + 1 ... up to `to`, as many as fit `bytes`, one at least */
    READ_CHAIN, /* entries of one conversation: from, its prev ...; at most count and bytes */
    READ_CHECKPOINT, /* the seq of the conversation's entry number 64 * block */
};

struct read_request {
    enum read_kind kind;
    struct user_id user;
    struct conversation_id conversation;
    uint64_t from;
    uint64_t to;
    uint64_t block;
    uint32_t count;
    uint32_t bytes;
};

/*
 * Where entries lie in the journal, as known when the request was made. A range or chain stops
 * short where an entry is neither in the volume nor named here: ask again from there.
 */
struct read_places {
    void *context;
    uint64_t (*find)(void *context, struct user_id user, uint64_t seq); /* pos, or 0 */
    struct journal_source source;
    struct journal_identity identity;
    const struct journal_span *spans;
    uint32_t span_count;
};

enum read_status {
    READ_FOUND,
    READ_ABSENT, /* no such user, head or checkpoint; no entry at `from` */
    READ_FAILED,
};

struct read_device {
    struct device_id device;
    struct schema_device state;
};

struct read_answer {
    enum read_status status;
    bool damaged;    /* READ_FAILED: by this row, of this volume and the user's */
    uint16_t volume; /* that was read */
    char row[READER_ROW_BYTES];
    uint64_t snapshot_lsn;
    struct schema_facts facts;         /* READ_USER */
    uint32_t device_count;             /* READ_USER */
    const struct read_device *devices; /* READ_USER */
    struct head head;                  /* READ_HEAD */
    uint64_t seq;                      /* READ_CHECKPOINT */
    uint32_t entry_count;              /* READ_RANGE, READ_CHAIN */
    const uint8_t *entries;            /* records end to end */
    size_t entries_bytes;
};

struct reader;

/* The volumes by number; NULL: not this core's. `bytes_max` bounds read_request.bytes. */
struct reader *reader_open(struct volume *const *volumes, uint16_t volume_count, uint32_t bytes_max,
                           struct hf_error *error);
void reader_close(struct reader *reader);

/* `places` may be NULL: volumes only. */
void reader_load(struct reader *reader, const struct read_request *request,
                 const struct read_places *places, struct read_answer *answer);

struct read_out {
    struct message_id id;
    struct user_id user;
    uint64_t epoch;
    uint64_t seq;
    struct user_id to;
};

struct read_partition {
    enum read_status status;
    struct message_id last_id;   /* 0: none yet */
    const struct read_out *outs; /* in the order of their ids; good until the next call */
    size_t out_count;
};

/* What a home must know of a partition before it serves it. */
void reader_load_partition(struct reader *reader, struct partition_id partition,
                           struct read_partition *answer);

const char *reader_text(const struct reader *reader);

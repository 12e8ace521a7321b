/*
 * effects: the seam between the engine and the world: what may happen to it (events) and what it
 * wants done (effects). Everything crosses as data, so that a run can be logged, replayed and
 * compared; the same engine runs on io_uring in the server and in the simulator.
 *
 * Owner    An event's bytes are the caller's, for the call. An effect's bytes are the engine's,
 *          until the next engine_clear_effects().
 * Thread   The owner of the engine.
 * Time     `now_unix_ms`, wall time, is passed in with each turn.
 * Output   An effect may be carried out at once: the engine gives it only when all that it depends
 *          on is durable. Appends are the exception: they are what makes things durable.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "proto/message.h"
#include "store/record.h"

/*
 * A connection as the runtime names it. Its slot is below engine_config's sessions_max, and used
 * again only when the engine has forgotten it (EFFECT_CLOSE, engine_on_closed); with another
 * generation, by which what comes late is told.
 */
struct conn_ref {
    uint32_t slot;
    uint32_t generation;
};

/* Whom the token speaks for. A log-in token says nothing of the generation. */
struct claims {
    struct user_id user;
    struct device_id device;
    uint32_t generation;
    bool has_generation;
};

enum load_kind {
    LOAD_USER,       /* the user's facts and all its devices, with their outcomes */
    LOAD_HEAD,       /* one conversation's head */
    LOAD_RANGE,      /* entries `from`, from + 1, ... up to `to`, as many as fit `bytes` */
    LOAD_CHAIN,      /* entries of a conversation: `from`, its prev, ... at most `count`, `bytes`;
                      * ends early where the next isn't kept any more */
    LOAD_CHECKPOINT, /* the seq of the conversation's entry number 64 * block, 0 if there's none */
};

/* Of entries the first is given whatever `bytes` says: a reader could never get past it else. */
struct load {
    uint32_t id; /* the engine's; comes back with the answer */
    enum load_kind kind;
    struct user_id user;
    struct conversation_id conversation;
    uint64_t from;
    uint64_t to;
    uint64_t block;
    uint32_t count;
    uint32_t bytes;
    uint64_t need_lsn; /* the answer's snapshot must cover it */
};

enum load_status {
    LOAD_FOUND,
    LOAD_ABSENT,  /* no such user, head or checkpoint; no entry at `from` */
    LOAD_FAILED,  /* not now; asked again, it may succeed */
    LOAD_DAMAGED, /* what is there can't be: nobody gets it, and nothing is built on it */
};

struct loaded_device {
    struct device_id device;
    uint32_t generation;
    uint64_t last_counter;
    struct origin cursor; /* (epoch, seq) last acknowledged */
    uint64_t cursor_sver;
    uint32_t outcome_count;
    struct outcome outcomes[OUTCOMES_KEPT]; /* oldest first */
};

/* The answer to a load: exactly one for each EFFECT_LOAD. */
struct loaded {
    uint32_t id;
    enum load_status status;
    uint64_t snapshot_lsn; /* UINT64_MAX where no volume had to be read */
    /* LOAD_USER */
    uint64_t epoch;
    uint64_t head;
    uint64_t floor;
    uint32_t device_count;
    const struct loaded_device *devices;
    /* LOAD_HEAD */
    struct head conversation_head;
    /* LOAD_CHECKPOINT */
    uint64_t seq;
    /* LOAD_RANGE (ascending, without a gap) and LOAD_CHAIN (descending): ENTRY records end to end
     */
    uint32_t entry_count;
    const uint8_t *entries;
    size_t entries_bytes;
};

/* A stream record that hasn't ended, as it stands in the `out` table. */
struct out_row {
    struct message_id id;
    struct user_id user; /* the sender: the message is in its log at `seq` */
    uint64_t epoch;
    uint64_t seq;
    struct user_id to;
};

enum effect_kind {
    EFFECT_APPEND,     /* bytes: one ticket's records, to go into one batch */
    EFFECT_SEND,       /* conn, bytes: one frame */
    EFFECT_WELCOME,    /* conn, welcome: HELLO_OK, to which the runtime adds what it knows */
    EFFECT_CLOSE,      /* conn: after what was sent; the engine has forgotten it */
    EFFECT_UNBLOCK,    /* conn: offer the frame that was blocked again */
    EFFECT_STREAM,     /* partition, bytes: a peer frame to the home of that partition */
    EFFECT_LOAD,       /* load */
    EFFECT_WANT_FLUSH, /* a pool is full of what isn't flushed yet */
    EFFECT_NOTE,       /* note: for the log and a metric */
};

enum note_kind {
    NOTE_STORE_ROLLED_BACK, /* a cursor beyond the head of its own epoch */
    NOTE_REPLACED,          /* a device's older connection was closed */
    NOTE_ENTRY_MISSING,     /* the store lacks an entry that it should have: damage */
    NOTE_USER_CREATED,
    NOTE_DEVICE_CREATED,
};

struct welcome {
    struct user_id user;
    struct device_id device;
    uint32_t generation;
    uint64_t epoch;
    uint64_t head;
    uint64_t floor;
    uint64_t sver;
    uint64_t last_counter;
    uint32_t window;
    uint8_t result; /* of enum hello_result in proto/message.h */
};

struct effect {
    enum effect_kind kind;
    struct conn_ref conn;
    struct partition_id partition;
    uint64_t ticket;
    const uint8_t *bytes;
    size_t byte_count;
    union {
        struct load load;
        struct welcome welcome;
        struct {
            enum note_kind kind;
            struct user_id user;
            struct device_id device;
        } note;
    };
};

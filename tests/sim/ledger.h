/*
 * ledger: the oracles. Every message that a client creates is entered here, and everything that
 * anybody is told about a log; a second telling must say the same (I2), whatever crashed between.
 *
 * Two sources tell of logs: the clients, by what the server sent them (`seen`), and the host, by
 * what it knows to be durable and by reading the volumes after each recovery (`durable`): what was
 * seen must be found there (nothing leaves before it is durable).
 *
 * Owner    The run's one ledger.
 * Thread   The owner's only.
 * Memory   Grows with the run; freed by ledger_close().
 * Errors   A broken rule is sim_fail().
 * Source   DESIGN: the invariants I1 to I4.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "tests/sim/hazards.h"

#define SIM_NONCE_BYTES 16

enum message_fate {
    FATE_OPEN,      /* not answered yet */
    FATE_ACCEPTED,  /* answered, or met in the own log */
    FATE_REJECTED,  /* refused for ever: in no log */
    FATE_UNKNOWN,   /* the catch-up that would tell was cut: in the logs at most once */
    FATE_FORGOTTEN, /* its phone was restored to a time before it: at most once */
};

struct sim_message {
    uint32_t index; /* from 1; in the body, so that a log entry names its message */
    uint32_t order; /* of creation on its device; 0: sent late, so it has none */
    uint64_t from;
    uint64_t conversation;
    uint32_t device;
    uint8_t nonce[SIM_NONCE_BYTES];
    uint8_t kind;
    uint32_t body_bytes;
    bool invalid;     /* made to be refused for ever */
    uint32_t sends;   /* how often it was sent */
    uint64_t sent_on; /* accepted_at of the connection that it was last sent on */
    enum message_fate fate;
    bool arrived;        /* it is in its receiver's log, durable */
    bool receiver_known; /* its receiver existed when it was accepted: it can't be refused */
    uint64_t id;         /* once anybody was told; the same in both logs */
    uint64_t seq;        /* in the sender's log, once the sender was told */
    uint64_t epoch;
    /* Counted by ledger_check_end(). */
    uint32_t in_sender, in_receiver, refused;
};

enum telling_source {
    TELLING_SEEN,    /* a client got the whole entry */
    TELLING_SHORT,   /* a client got its own in short form: only id and counter */
    TELLING_DURABLE, /* the host's journal says so */
    TELLING_STORED,  /* read from the volumes after a recovery */
};

/* An entry of a log, as anybody tells of it. */
struct telling {
    bool refused;
    /* Index: the message, or the one that was refused. 0: retention took what was refused before
     * anybody was told of it. */
    uint32_t message;
    uint64_t id;
    uint64_t conversation;
    uint64_t sender;
    uint32_t device;
    uint8_t nonce[SIM_NONCE_BYTES]; /* own entries; else zeros */
    uint64_t counter;
    uint8_t flags;
    uint8_t kind;
    uint16_t code;
    uint64_t ref_seq;
    uint64_t prev;
    uint64_t n;
    uint64_t cn;
};

struct ledger_entry {
    struct telling said;
    bool whole; /* all fields are known, not only those of the short form */
    bool seen;
    bool durable;
};

/* What is known of a user's log. */
struct ledger_log {
    uint64_t user;
    uint64_t epoch;               /* 0: nobody has been told yet */
    uint64_t head_seen;           /* the highest head or seq that a client was told */
    uint64_t head_known;          /* the highest seq with an entry below */
    uint64_t head_durable;        /* the highest seq that is durable */
    uint64_t floor;               /* the highest that anybody knows of */
    uint64_t floor_seen;          /* the highest that a client was told */
    uint64_t expired;             /* what is below was found to be beyond its age */
    struct ledger_entry *entries; /* by seq; 0 isn't used */
    size_t capacity;
};

struct ledger {
    struct hazards *hazards;
    struct sim_message *messages; /* by index; 0 isn't used */
    uint32_t message_count;
    uint32_t message_capacity;
    struct ledger_log *logs;
    uint32_t log_count;
    bool unknown_accepted; /* accept_unknown_users */
};

void ledger_open(struct ledger *ledger, struct hazards *hazards, bool accept_unknown_users);
void ledger_close(struct ledger *ledger);

/* A message of a device, made now; pointers into the ledger last until the next one. */
struct sim_message *ledger_create(struct ledger *ledger, uint64_t from, uint32_t device,
                                  uint64_t conversation);
struct sim_message *ledger_message(struct ledger *ledger, uint32_t index);
/* Its body; `to` has room for body_bytes. */
void ledger_body(const struct sim_message *message, uint8_t *to);
/* The message that this body belongs to, all of it compared. */
uint32_t ledger_message_of_body(struct ledger *ledger, const uint8_t *body, size_t body_bytes);

struct ledger_log *ledger_log(struct ledger *ledger, uint64_t user);
/* The entry, or NULL if nobody told of it. */
const struct ledger_entry *ledger_entry_at(struct ledger *ledger, uint64_t user, uint64_t seq);

void ledger_tell(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t seq,
                 const struct telling *telling, enum telling_source source);
/* A client was told the state of its user's log; what it asked for can't be older than what any
 * device had been told when it asked. */
void ledger_tell_head(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t head,
                      uint64_t floor, uint64_t head_asked, uint64_t floor_asked);
/* What is below may be gone. */
void ledger_tell_floor(struct ledger *ledger, uint64_t user, uint64_t floor);
/* A sweep says that all below is from before the cutoff: none may go before its age. */
void ledger_tell_expired(struct ledger *ledger, uint64_t user, uint64_t floor,
                         uint64_t cutoff_unix_ms);
/* A floor is raised: for what is beyond its age, or more than `count` entries (0: any). */
void ledger_check_floor(struct ledger *ledger, uint64_t user, uint64_t floor, uint64_t count);
void ledger_tell_accepted(struct ledger *ledger, uint32_t message, uint64_t id, uint64_t seq,
                          uint64_t epoch);
void ledger_tell_rejected(struct ledger *ledger, uint32_t message);

/* After a recovery: the log is this, and everything that was ever told is in it. Entries have been
 * told with TELLING_STORED before. */
void ledger_check_recovered(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t head,
                            uint64_t floor);

/* All has drained: counts every message in every log, and checks their order and their chains. */
void ledger_check_end(struct ledger *ledger);

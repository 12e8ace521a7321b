/*
 * ledger: whether each message created is in both logs exactly once, in order.
 *
 * Each user's messages of a run are numbered 1, 2, 3 ... and all go to one peer. So a log is right
 * when its entries of that sender say 1, 2, 3 ... up to what was created, and the ledger of a log
 * is one number a sender: how far it has come. Only what breaks the sequence costs memory.
 *
 * Owner    One struct ledger a swarm; the two numbers of each log lie in its client.
 * Thread   The swarm's; others may read it once the swarm has answered an order.
 * Memory   Allocated by ledger_open: bounded. Numbers that were passed over beyond that bound count
 *          as lost at once, and would count as doubled if they came after all: a run with so many
 *          faults is void of detail, not of result.
 * Errors   Faults are counted by kind; the first ones are kept whole, for the report.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

/* name, what it means */
#define LEDGER_FAULTS(X)                                                                           \
    X(LOST, lost, "created, but not in the log")                                                   \
    X(DOUBLED, doubled, "twice in the log")                                                        \
    X(REORDERED, reordered, "behind a later one of the same sender")                               \
    X(GAP, gaps, "an entry's seq isn't the next one")                                              \
    X(DAMAGED, damaged, "a body, nonce, counter or sender isn't what was sent")                    \
    X(UNKNOWN, unknown, "never created, but in the log, or answered")                              \
    X(REFUSED, refused, "accepted, then refused, or refused for good")                             \
    X(RESET, resets, "the server gave up what the device had")                                     \
    X(DIVERGED, diverged, "two devices of a user, or two readings, differ")                        \
    X(PROTOCOL, protocol, "the server broke the protocol")

enum ledger_fault {
#define LEDGER_FAULT_ENUM(name, label, text) LEDGER_##name,
    LEDGER_FAULTS(LEDGER_FAULT_ENUM)
#undef LEDGER_FAULT_ENUM
        LEDGER_FAULT_KINDS
};

const char *ledger_fault_label(enum ledger_fault fault);
const char *ledger_fault_text(enum ledger_fault fault);

/* A log's two senders. */
enum ledger_side {
    LEDGER_OWN,  /* the user's own messages in his own log */
    LEDGER_PEER, /* the other's */
};

struct ledger_record {
    enum ledger_fault fault;
    enum ledger_side side;
    uint32_t client;
    uint64_t number; /* of the message; a seq for GAP, a code for REFUSED and PROTOCOL */
};

#define LEDGER_RECORDS_MAX 32
#define LEDGER_PASSED_MAX  65536

struct ledger_passed {
    uint32_t client;
    uint32_t number;
    uint8_t side;
};

struct ledger {
    uint64_t counts[LEDGER_FAULT_KINDS];
    uint64_t fault_count; /* of all kinds */
    struct ledger_record records[LEDGER_RECORDS_MAX];
    uint32_t record_count;
    uint32_t passed_count;        /* numbers passed over that may still come */
    struct ledger_passed *passed; /* in no order: faults are few */
};

bool ledger_open(struct ledger *ledger, struct hf_error *error) __attribute__((warn_unused_result));
void ledger_close(struct ledger *ledger);

/* Forgets all, for another reading. */
void ledger_clear(struct ledger *ledger);

/* Counts a fault that was seen elsewhere. */
void ledger_note(struct ledger *ledger, enum ledger_fault fault, enum ledger_side side,
                 uint32_t client, uint64_t number);

/*
 * A log has `number` of that sender next. True: it wasn't there before. *seen is how far the log
 * has come.
 */
bool ledger_on_entry(struct ledger *ledger, uint32_t client, enum ledger_side side, uint32_t *seen,
                     uint32_t number);

/* Nothing more will come: what is missing of `created` is lost. */
void ledger_on_end(struct ledger *ledger, uint32_t client, enum ledger_side side, uint32_t seen,
                   uint32_t created);

/* Adds the counts of `from`, and its records while there is room. */
void ledger_merge(struct ledger *to, const struct ledger *from);

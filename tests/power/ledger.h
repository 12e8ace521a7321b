/*
 * ledger: what clients of the recorded server were told, and when they had read it: so it had left
 * the server before. One fact a line:
 *
 *   accepted AT USER DEVICE COUNTER NONCE SEQ ID PEER     ACCEPTED
 *   entry AT USER SEQ ID                                  in ENTRIES, of the user's log
 *   acked AT USER DEVICE SEQ                              the client was about to send this cursor
 *
 * AT is CLOCK_MONOTONIC in ns, as in the log of operations.
 *
 * Owner    The caller's.
 * Thread   Read by any after ledger_open.
 * Errors   A file that can't be ends the program.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum fact_kind {
    FACT_ACCEPTED,
    FACT_ENTRY,
    FACT_ACKED,
};

struct fact {
    enum fact_kind kind;
    uint32_t device;
    uint64_t at_ns;
    uint64_t user;
    uint64_t seq;
    uint64_t id;
    uint64_t counter;
    uint64_t peer;
    uint8_t nonce[16];
};

struct ledger {
    struct fact *facts; /* by time */
    size_t count;
    uint64_t *users; /* each once */
    size_t user_count;
};

void ledger_open(struct ledger *ledger, const char *path);
void ledger_close(struct ledger *ledger);

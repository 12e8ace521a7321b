/*
 * check: opens a data directory as a start of the server does, by the node's own code, and compares
 * what is there then with what clients had been told.
 *
 *   - the start isn't refused
 *   - every log is whole: numbers without a gap from the floor to the head, ids once, bodies as
 *     they were sent, the messages of a device in the order in which it sent them
 *   - what was accepted is in the sender's log under that number, and in the receiver's or on its
 *     way there (an `out` row); what was shown to anybody is still what that number means
 *   - a device's outcomes say what ACCEPTED said; a cursor isn't beyond what it acknowledged
 *   - retention took no more than it may
 *
 * Owner    The caller's process, which should end afterwards: the node isn't wound up in full.
 * Thread   One.
 * Errors   False, and `text` says what is wrong.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/power/ledger.h"

#define CHECK_TEXT_BYTES 640

struct check {
    const char *folder;
    const struct ledger *ledger;
    uint64_t upto_ns; /* facts before this count */
    uint32_t cores;
    uint64_t retention_count;
};

bool check_image(const struct check *check, char text[CHECK_TEXT_BYTES]);

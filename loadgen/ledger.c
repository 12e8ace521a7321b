#include "loadgen/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"

const char *ledger_fault_label(enum ledger_fault fault)
{
    static const char *const labels[] = {
#define LEDGER_FAULT_LABEL(name, label, text) #label,
        LEDGER_FAULTS(LEDGER_FAULT_LABEL)
#undef LEDGER_FAULT_LABEL
    };

    HF_ASSERT((unsigned)fault < LEDGER_FAULT_KINDS);
    return labels[fault];
}

const char *ledger_fault_text(enum ledger_fault fault)
{
    static const char *const texts[] = {
#define LEDGER_FAULT_TEXT(name, label, text) text,
        LEDGER_FAULTS(LEDGER_FAULT_TEXT)
#undef LEDGER_FAULT_TEXT
    };

    HF_ASSERT((unsigned)fault < LEDGER_FAULT_KINDS);
    return texts[fault];
}

bool ledger_open(struct ledger *ledger, struct hf_error *error)
{
    memset(ledger, 0, sizeof *ledger);
    ledger->passed = calloc(LEDGER_PASSED_MAX, sizeof *ledger->passed);
    if (ledger->passed == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "ledger");
        return false;
    }
    return true;
}

void ledger_close(struct ledger *ledger)
{
    free(ledger->passed);
    ledger->passed = NULL;
}

void ledger_clear(struct ledger *ledger)
{
    memset(ledger->counts, 0, sizeof ledger->counts);
    ledger->fault_count = 0;
    ledger->record_count = 0;
    ledger->passed_count = 0;
}

void ledger_note(struct ledger *ledger, enum ledger_fault fault, enum ledger_side side,
                 uint32_t client, uint64_t number)
{
    ledger->counts[fault]++;
    ledger->fault_count++;
    if (ledger->record_count < LEDGER_RECORDS_MAX) {
        ledger->records[ledger->record_count++] = (struct ledger_record){
            .fault = fault,
            .side = side,
            .client = client,
            .number = number,
        };
    }
}

static void pass_over(struct ledger *ledger, uint32_t client, enum ledger_side side,
                      uint32_t number)
{
    if (ledger->passed_count == LEDGER_PASSED_MAX) {
        ledger_note(ledger, LEDGER_LOST, side, client, number);
        return;
    }
    ledger->passed[ledger->passed_count++] = (struct ledger_passed){
        .client = client,
        .number = number,
        .side = (uint8_t)side,
    };
}

/* A number that was passed over comes after all. */
static bool take_passed(struct ledger *ledger, uint32_t client, enum ledger_side side,
                        uint32_t number)
{
    for (uint32_t i = 0; i < ledger->passed_count; i++) {
        const struct ledger_passed *passed = &ledger->passed[i];

        if (passed->client == client && passed->number == number && passed->side == side) {
            ledger->passed[i] = ledger->passed[--ledger->passed_count];
            return true;
        }
    }
    return false;
}

bool ledger_on_entry(struct ledger *ledger, uint32_t client, enum ledger_side side, uint32_t *seen,
                     uint32_t number)
{
    if (number == *seen + 1) {
        *seen = number;
        return true;
    }
    if (number > *seen) {
        const uint32_t first = *seen + 1;

        *seen = number;
        for (uint32_t i = first; i < number; i++) {
            pass_over(ledger, client, side, i);
        }
        return true;
    }
    if (take_passed(ledger, client, side, number)) {
        ledger_note(ledger, LEDGER_REORDERED, side, client, number);
        return true;
    }
    ledger_note(ledger, LEDGER_DOUBLED, side, client, number);
    return false;
}

void ledger_on_end(struct ledger *ledger, uint32_t client, enum ledger_side side, uint32_t seen,
                   uint32_t created)
{
    for (uint32_t i = 0; i < ledger->passed_count;) {
        const struct ledger_passed passed = ledger->passed[i];

        if (passed.client == client && passed.side == side) {
            ledger->passed[i] = ledger->passed[--ledger->passed_count];
            ledger_note(ledger, LEDGER_LOST, side, client, passed.number);
        } else {
            i++;
        }
    }
    for (uint32_t number = seen + 1; number <= created; number++) {
        ledger_note(ledger, LEDGER_LOST, side, client, number);
    }
    if (seen > created) {
        ledger_note(ledger, LEDGER_UNKNOWN, side, client, seen);
    }
}

void ledger_merge(struct ledger *to, const struct ledger *from)
{
    for (uint32_t i = 0; i < LEDGER_FAULT_KINDS; i++) {
        to->counts[i] += from->counts[i];
    }
    to->fault_count += from->fault_count;
    for (uint32_t i = 0; i < from->record_count && to->record_count < LEDGER_RECORDS_MAX; i++) {
        to->records[to->record_count++] = from->records[i];
    }
}

#include "tests/power/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/power/history.h"

#define LINE_BYTES 512

static int compare_times(const void *left, const void *right)
{
    const struct fact *a = left;
    const struct fact *b = right;

    return a->at_ns < b->at_ns ? -1 : a->at_ns > b->at_ns;
}

static uint64_t take_number(char **rest, int base)
{
    const char *word = strsep(rest, " \n");
    char *end = NULL;
    const uint64_t number = word != NULL ? strtoull(word, &end, base) : 0;

    if (word == NULL || end == word || *end != '\0') {
        power_die("the ledger has no number where there should be one");
    }
    return number;
}

static void take_nonce(char **rest, uint8_t nonce[16])
{
    const char *word = strsep(rest, " \n");

    if (word == NULL || strlen(word) != 32) {
        power_die("the ledger has no nonce where there should be one");
    }
    for (size_t i = 0; i < 16; i++) {
        const char pair[3] = { word[2 * i], word[2 * i + 1], '\0' };

        nonce[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
}

static void take_line(char *line, struct fact *fact)
{
    char *rest = line;
    const char *kind = strsep(&rest, " ");

    memset(fact, 0, sizeof *fact);
    fact->at_ns = take_number(&rest, 10);
    fact->user = take_number(&rest, 10);
    if (strcmp(kind, "accepted") == 0) {
        fact->kind = FACT_ACCEPTED;
        fact->device = (uint32_t)take_number(&rest, 10);
        fact->counter = take_number(&rest, 10);
        take_nonce(&rest, fact->nonce);
        fact->seq = take_number(&rest, 10);
        fact->id = take_number(&rest, 10);
        fact->peer = take_number(&rest, 10);
    } else if (strcmp(kind, "entry") == 0) {
        fact->kind = FACT_ENTRY;
        fact->seq = take_number(&rest, 10);
        fact->id = take_number(&rest, 10);
    } else if (strcmp(kind, "acked") == 0) {
        fact->kind = FACT_ACKED;
        fact->device = (uint32_t)take_number(&rest, 10);
        fact->seq = take_number(&rest, 10);
    } else {
        power_die("the ledger has a line of kind %s", kind);
    }
}

static void note_user(struct ledger *ledger, size_t *room, uint64_t user)
{
    for (size_t i = 0; i < ledger->user_count; i++) {
        if (ledger->users[i] == user) {
            return;
        }
    }
    ledger->users = power_grow(ledger->users, room, ledger->user_count + 1, sizeof *ledger->users);
    ledger->users[ledger->user_count++] = user;
}

void ledger_open(struct ledger *ledger, const char *path)
{
    FILE *file = fopen(path, "re");
    char line[LINE_BYTES];
    size_t room = 0;
    size_t user_room = 0;

    memset(ledger, 0, sizeof *ledger);
    if (file == NULL) {
        power_die("%s: no ledger", path);
    }
    while (fgets(line, sizeof line, file) != NULL) {
        ledger->facts = power_grow(ledger->facts, &room, ledger->count + 1, sizeof *ledger->facts);
        take_line(line, &ledger->facts[ledger->count]);
        note_user(ledger, &user_room, ledger->facts[ledger->count].user);
        ledger->count++;
    }
    (void)fclose(file);
    if (ledger->count > 1) {
        qsort(ledger->facts, ledger->count, sizeof *ledger->facts, compare_times);
    }
}

void ledger_close(struct ledger *ledger)
{
    free(ledger->facts);
    free(ledger->users);
    memset(ledger, 0, sizeof *ledger);
}

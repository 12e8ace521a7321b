#include "tests/sim/mutants.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/base/mutant.h"

#define NAME_BYTES  40
#define WORDS_SHOWN 110

enum hf_mutant hf_mutant_planted = HF_MUTANT_NONE;

struct mutant {
    enum hf_mutant which;
    const char *name;
    const char *rule;
};

static const struct mutant mutants[] = {
#define MUTANT_ROW(NAME, rule) { HF_MUTANT_##NAME, #NAME, rule },
    HF_MUTANT_LIST(MUTANT_ROW)
#undef MUTANT_ROW
};
#define MUTANT_COUNT (sizeof mutants / sizeof mutants[0])

struct found {
    uint64_t runs;
    bool failed;
    char words[JOB_WORDS_BYTES];
};

static void name_of(const struct mutant *mutant, char name[NAME_BYTES])
{
    size_t i = 0;

    for (; mutant->name[i] != '\0' && i + 1 < NAME_BYTES; i++) {
        name[i] = (char)tolower((unsigned char)mutant->name[i]);
    }
    name[i] = '\0';
}

bool mutants_plant(const char *wanted)
{
    for (size_t i = 0; i < MUTANT_COUNT; i++) {
        char name[NAME_BYTES];

        name_of(&mutants[i], name);
        if (strcmp(name, wanted) == 0) {
            hf_mutant_planted = mutants[i].which;
            return true;
        }
    }
    return false;
}

static bool on_result(void *context, const struct job_result *result)
{
    struct found *found = context;

    found->runs++;
    if (!result->good && !found->failed) {
        found->failed = true;
        memcpy(found->words, result->words, sizeof found->words);
    }
    return !found->failed;
}

bool mutants_run_all(const struct jobs_plan *jobs)
{
    size_t missed = 0;

    for (size_t i = 0; i < MUTANT_COUNT; i++) {
        struct found found = { 0 };
        char name[NAME_BYTES];

        hf_mutant_planted = mutants[i].which;
        name_of(&mutants[i], name);
        (void)jobs_run(jobs, on_result, &found);
        missed += found.failed ? 0 : 1;
        if (found.failed) {
            (void)printf("%-28s %5" PRIu64 "  %.*s\n", name, found.runs, WORDS_SHOWN, found.words);
        } else {
            (void)printf("%-28s NOT FOUND in %" PRIu64 " seeds: %s\n", name, found.runs,
                         mutants[i].rule);
        }
        (void)fflush(stdout);
    }
    hf_mutant_planted = HF_MUTANT_NONE;
    (void)printf("%zu of %zu bugs found\n", MUTANT_COUNT - missed, MUTANT_COUNT);
    return missed == 0;
}

#include "tests/sim/shorten.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/sim/jobs.h"

#define SCHEDULES  12 /* tried of each candidate */
#define EVENTS_MIN 20

struct search {
    const struct shorten_limits *limits;
    time_t ends_at;
    char wanted[JOB_WORDS_BYTES]; /* the class of the failure */
    /* The last that failed so. */
    struct sim_plan found;
    char words[JOB_WORDS_BYTES];
    bool any;
};

/* Numbers, and with them ids, become one sign; what stands before the first colon is the place. */
void shorten_class(const char *words, char *to, size_t room)
{
    size_t length = 0;

    if (strncmp(words, "seed ", 5) == 0 && strchr(words, ':') != NULL) {
        words = strchr(words, ':') + 1;
    }
    while (*words != '\0' && length + 1 < room) {
        const size_t token =
            strspn(words, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST"
                          "UVWXYZ_");
        bool digits = false;

        for (size_t i = 0; i < token; i++) {
            digits = digits || isdigit((unsigned char)words[i]) != 0;
        }
        if (digits) {
            to[length++] = '#';
            words += token;
            continue;
        }
        for (size_t i = 0; i < (token > 0 ? token : 1) && length + 1 < room; i++) {
            to[length++] = *words++;
        }
    }
    to[length] = '\0';
}

static bool on_result(void *context, const struct job_result *result)
{
    struct search *search = context;
    char class[JOB_WORDS_BYTES];

    if (result->good || search->any) {
        return !search->any;
    }
    shorten_class(result->words, class, sizeof class);
    if (search->wanted[0] == '\0') {
        memcpy(search->wanted, class, sizeof class);
    }
    if (strcmp(class, search->wanted) == 0) {
        search->any = true;
        search->found = result->plan;
        memcpy(search->words, result->words, sizeof search->words);
    }
    return !search->any;
}

/* Whether the candidate fails in the same way, by its own schedule or another. */
static bool fails(struct search *search, const struct sim_plan *plan, unsigned schedules)
{
    uint64_t seeds[SCHEDULES];
    const struct jobs_plan jobs = {
        .plan = *plan,
        .seeds = seeds,
        .seed_count = schedules,
        .schedules_only = true,
        .at_once = search->limits->at_once,
        .seconds_max = search->limits->run_seconds,
    };

    if (time(NULL) >= search->ends_at) {
        return false;
    }
    for (unsigned i = 0; i < schedules; i++) {
        seeds[i] = plan->schedule + i;
    }
    search->any = false;
    (void)jobs_run(&jobs, on_result, search);
    return search->any;
}

/* Takes the candidate over if it fails. */
static bool try_plan(struct search *search, struct sim_plan *plan, const struct sim_plan *candidate)
{
    if (!fails(search, candidate, SCHEDULES)) {
        return false;
    }
    *plan = search->found;
    return true;
}

static bool fewer_events(struct search *search, struct sim_plan *plan)
{
    static const uint64_t parts[] = { 8, 4, 2 }; /* so many of them are one too many */
    bool any = false;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0];) {
        struct sim_plan candidate = *plan;

        candidate.events =
            i == 0 ? plan->events / parts[0] : plan->events - plan->events / parts[i];
        if (candidate.events < EVENTS_MIN || candidate.events == plan->events ||
            !try_plan(search, plan, &candidate)) {
            i++;
        } else {
            any = true;
        }
    }
    return any;
}

/* All that is still on at once, then one by one. */
static bool fewer_switches(struct search *search, struct sim_plan *plan)
{
    const uint64_t all = (UINT64_C(1) << SIM_SWITCH_COUNT) - 1;
    struct sim_plan candidate = *plan;
    bool any = false;

    candidate.off = all;
    if (candidate.off != plan->off && try_plan(search, plan, &candidate)) {
        return true;
    }
    for (int i = 0; i < SIM_SWITCH_COUNT; i++) {
        candidate = *plan;
        candidate.off |= UINT64_C(1) << i;
        if (candidate.off != plan->off && try_plan(search, plan, &candidate)) {
            any = true;
        }
    }
    return any;
}

static bool fewer_people(struct search *search, struct sim_plan *plan)
{
    bool any = false;

    for (uint32_t users = 1; users < (plan->users > 0 ? plan->users : 7); users++) {
        struct sim_plan candidate = *plan;

        candidate.users = users;
        if (try_plan(search, plan, &candidate)) {
            any = true;
            break;
        }
    }
    for (uint32_t devices = 1; devices < (plan->devices > 0 ? plan->devices : 3); devices++) {
        struct sim_plan candidate = *plan;

        candidate.devices = devices;
        if (try_plan(search, plan, &candidate)) {
            any = true;
            break;
        }
    }
    return any;
}

bool shorten(struct sim_plan *plan, const struct shorten_limits *limits, char *words,
             size_t words_bytes)
{
    struct search search = { .limits = limits, .ends_at = time(NULL) + (time_t)limits->seconds };
    bool more = true;

    if (!fails(&search, plan, 1)) {
        return false;
    }
    (void)snprintf(words, words_bytes, "%s", search.words);
    while (more && time(NULL) < search.ends_at) {
        const struct sim_plan before = *plan;

        (void)fewer_events(&search, plan);
        (void)fewer_switches(&search, plan);
        (void)fewer_people(&search, plan);
        more = memcmp(&before, plan, sizeof before) != 0;
    }
    (void)snprintf(words, words_bytes, "%s", search.words);
    return true;
}

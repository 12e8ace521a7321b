/* sim: runs seeds of the simulator, says what they met, and how to run again what failed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/fail.h"
#include "tests/sim/jobs.h"
#include "tests/sim/options.h"
#include "tests/sim/shorten.h"
#ifdef HF_MUTANTS
#include "tests/sim/mutants.h"
#endif

#define EVENTS_DEFAULT   3000
#define SECONDS_DEFAULT  120
#define SHORTEN_SECONDS  90
#define SEED_LINE_MAX    256
#define SEED_LIST_MAX    10000
#define FAILED_SHOWN_MAX 20

static const char usage[] =
    "usage: sim [options]\n"
    "  --seeds N         run so many seeds (1000)\n"
    "  --first S         beginning with this one (1)\n"
    "  --seed S          this one alone, with its options\n"
    "  --shorten S       this one, which fails: look for less that fails in the same way (90 s)\n"
    "  --list FILE       the seeds in FILE, one a line; what follows a # is a comment\n"
    "  --events M        events before the calm (3000)\n"
    "  --schedule T      what happens as seed T has it, the options as the seed has them\n"
    "  --off A,B,...     without these faults and features; --off help tells which there are\n"
    "  --users N         so many users at most\n"
    "  --devices N       so many devices a user at most\n"
    "  --jobs J          so many at once (the number of cores)\n"
    "  --twice K         every K-th seed twice, to compare the effects (0: none)\n"
    "  --seconds T       a run that takes longer has failed (120)\n"
    "  --until-failure   stop at the first seed that fails\n"
    "  --expect-failure  exit with 0 if one fails, else with 1: for a build with a bug in it\n"
    "  --verbose         tell all that happens (with --seed)\n"
#ifdef HF_MUTANTS
    "  --mutant NAME     plant this bug\n"
    "  --mutants         for each bug that there is: how many seeds until it is found\n"
#endif
    "  --help            this text\n"
    "Exits with 0 if all were good, 1 if one failed, 64 if the options are wrong.\n";

struct settings {
    struct sim_plan plan; /* what its seed is changed by */
    uint64_t seeds;
    uint64_t first;
    uint64_t schedule;
    uint64_t jobs;
    uint64_t twice;
    uint64_t seconds;
    const char *list;
    bool one;
    bool scheduled;
    bool shorten;
    bool mutants;
    bool verbose;
    bool until_failure;
    bool expect_failure;
};

struct tally {
    const struct settings *settings;
    const char *program;
    uint64_t total;
    uint64_t good;
    uint64_t failed;
    uint64_t hash;
    struct hazards hazards;
    bool terminal;
    time_t shown_at;
};

/* ---- Options ---- */

static bool read_number(const char *text, uint64_t *number)
{
    char *end;

    if (text == NULL || *text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool read_flag(const char *name, struct settings *settings)
{
    if (strcmp(name, "--verbose") == 0) {
        settings->verbose = true;
    } else if (strcmp(name, "--until-failure") == 0) {
        settings->until_failure = true;
    } else if (strcmp(name, "--expect-failure") == 0) {
        settings->expect_failure = true;
        settings->until_failure = true;
#ifdef HF_MUTANTS
    } else if (strcmp(name, "--mutants") == 0) {
        settings->mutants = true;
#endif
    } else {
        return false;
    }
    return true;
}

static bool read_small(const char *text, uint32_t *number)
{
    uint64_t wide = 0;
    const bool good = read_number(text, &wide) && wide > 0 && wide < UINT32_MAX;

    *number = (uint32_t)wide;
    return good;
}

/* What makes a run less than its seed says. */
static bool read_less(const char *name, const char *value, struct settings *settings)
{
    if (strcmp(name, "--events") == 0) {
        return read_number(value, &settings->plan.events) && settings->plan.events > 0;
    }
    if (strcmp(name, "--off") == 0) {
        return value != NULL && switches_parse(value, &settings->plan.off);
    }
    if (strcmp(name, "--users") == 0) {
        return read_small(value, &settings->plan.users);
    }
    if (strcmp(name, "--devices") == 0) {
        return read_small(value, &settings->plan.devices);
    }
#ifdef HF_MUTANTS
    if (strcmp(name, "--mutant") == 0) {
        return value != NULL && mutants_plant(value);
    }
#endif
    return false;
}

static bool read_valued(const char *name, const char *value, struct settings *settings)
{
    if (strcmp(name, "--seeds") == 0) {
        return read_number(value, &settings->seeds);
    }
    if (strcmp(name, "--first") == 0) {
        return read_number(value, &settings->first);
    }
    if (strcmp(name, "--schedule") == 0) {
        settings->scheduled = true;
        return read_number(value, &settings->schedule);
    }
    if (strcmp(name, "--seed") == 0 || strcmp(name, "--shorten") == 0) {
        settings->shorten = strcmp(name, "--shorten") == 0;
        settings->one = true;
        settings->seeds = 1;
        return read_number(value, &settings->first);
    }
    if (strcmp(name, "--list") == 0) {
        settings->list = value;
        return value != NULL;
    }
    if (strcmp(name, "--jobs") == 0) {
        return read_number(value, &settings->jobs) && settings->jobs >= 1 &&
               settings->jobs <= JOBS_MAX;
    }
    if (strcmp(name, "--twice") == 0) {
        return read_number(value, &settings->twice);
    }
    if (strcmp(name, "--seconds") == 0) {
        return read_number(value, &settings->seconds) && settings->seconds >= 1 &&
               settings->seconds <= 86400;
    }
    return read_less(name, value, settings);
}

static bool read_settings(int count, char **arguments, struct settings *settings)
{
    for (int i = 1; i < count; i++) {
        if (read_flag(arguments[i], settings)) {
            continue;
        }
        if (!read_valued(arguments[i], arguments[i + 1], settings)) {
            return false;
        }
        i++;
    }
    return settings->seeds > 0 && ((!settings->verbose && !settings->scheduled) || settings->one);
}

/* One number a line. Returns how many; 0: the file can't be read, or isn't such a list. */
static uint64_t read_list(const char *path, uint64_t *seeds)
{
    char line[SEED_LINE_MAX];
    uint64_t count = 0;
    bool good = true;
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        return 0;
    }
    while (good && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "# \t\n")] = '\0';
        if (line[0] != '\0') {
            good = count < SEED_LIST_MAX && read_number(line, &seeds[count]);
            count++;
        }
    }
    (void)fclose(file);
    return good ? count : 0;
}

/* ---- Telling ---- */

static void show_progress(struct tally *tally)
{
    const time_t now = time(NULL);
    const uint64_t done = tally->good + tally->failed;

    if (!tally->terminal || now == tally->shown_at) {
        return;
    }
    tally->shown_at = now;
    (void)printf("\r%llu of %llu seeds, %llu failed ", (unsigned long long)done,
                 (unsigned long long)tally->total, (unsigned long long)tally->failed);
    (void)fflush(stdout);
}

static bool on_result(void *context, const struct job_result *result)
{
    struct tally *tally = context;

    if (result->good) {
        tally->good++;
        tally->hash = result->run.effects_hash;
        for (int i = 0; i < HAZARD_COUNT; i++) {
            tally->hazards.counts[i] += result->run.hazards.counts[i];
        }
    } else {
        tally->failed++;
        if (tally->failed <= FAILED_SHOWN_MAX) {
            (void)printf("%sFAILED: %s\n  %s ", tally->terminal ? "\r" : "", result->words,
                         tally->program);
            plan_print(&result->plan, stdout);
            (void)printf(" --verbose (or --shorten %llu)\n", (unsigned long long)result->plan.seed);
            (void)fflush(stdout);
        }
    }
    show_progress(tally);
    return result->good || !tally->settings->until_failure;
}

static void show_hazards(const struct hazards *hazards)
{
    static const char *const texts[HAZARD_COUNT] = {
#define HAZARD_TEXT(name, text) [HAZARD_##name] = (text),
        HAZARDS(HAZARD_TEXT)
#undef HAZARD_TEXT
    };

    for (int i = 0; i < HAZARD_COUNT; i++) {
        (void)printf("%12llu  %s\n", (unsigned long long)hazards->counts[i], texts[i]);
    }
}

/* ---- Running ---- */

static bool run_some(struct tally *tally, const uint64_t *seeds, uint64_t count, bool twice)
{
    const struct settings *settings = tally->settings;
    const struct jobs_plan plan = {
        .plan = settings->plan,
        .seeds = settings->scheduled ? &settings->schedule : seeds,
        .seed_count = count,
        .schedules_only = settings->scheduled,
        .at_once = (unsigned)settings->jobs,
        .seconds_max = (unsigned)settings->seconds,
        .twice = twice,
        .verbose = settings->verbose,
    };

    return count == 0 || jobs_run(&plan, on_result, tally);
}

static void run_all(struct tally *tally, const uint64_t *seeds, uint64_t count)
{
    uint64_t *sorted = calloc(count, sizeof *sorted);
    uint64_t twice = 0;

    if (sorted == NULL) {
        return;
    }
    tally->total = count;
    /* Those that run twice first: they take longest. */
    for (uint64_t i = 0; i < count && tally->settings->twice > 0; i += tally->settings->twice) {
        sorted[twice++] = seeds[i];
    }
    if (run_some(tally, sorted, twice, true)) {
        uint64_t once = 0;

        for (uint64_t i = 0; i < count; i++) {
            if (tally->settings->twice == 0 || i % tally->settings->twice != 0) {
                sorted[once++] = seeds[i];
            }
        }
        (void)run_some(tally, sorted, once, false);
    }
    free(sorted);
}

static uint64_t *make_seeds(const struct settings *settings, uint64_t *count)
{
    uint64_t *seeds;

    *count = settings->list != NULL ? SEED_LIST_MAX : settings->seeds;
    seeds = calloc(*count, sizeof *seeds);
    if (seeds == NULL) {
        return NULL;
    }
    if (settings->list != NULL) {
        *count = read_list(settings->list, seeds);
        return seeds;
    }
    for (uint64_t i = 0; i < *count; i++) {
        seeds[i] = settings->first + i;
    }
    return seeds;
}

static int conclude(struct tally *tally, time_t began)
{
    if (tally->terminal) {
        (void)printf("\r%40s\r", "");
    }
    if (tally->good > 0) {
        show_hazards(&tally->hazards);
    }
    if (tally->settings->one && tally->good == 1) {
        (void)printf("effects %016llx\n", (unsigned long long)tally->hash);
    }
    (void)printf("%llu seeds good, %llu failed, in %lld s\n", (unsigned long long)tally->good,
                 (unsigned long long)tally->failed, (long long)(time(NULL) - began));
    if (tally->settings->expect_failure) {
        return tally->failed > 0 ? EX_OK : 1;
    }
    return tally->failed == 0 && tally->good > 0 ? EX_OK : 1;
}

static unsigned at_once(const struct settings *settings)
{
    return (unsigned)settings->jobs;
}

static int run_shorten(const struct settings *settings, const char *program)
{
    struct sim_plan plan = settings->plan;
    char words[JOB_WORDS_BYTES];
    const struct shorten_limits limits = {
        .at_once = at_once(settings),
        .seconds = SHORTEN_SECONDS,
        .run_seconds = (unsigned)settings->seconds,
    };

    if (!shorten(&plan, &limits, words, sizeof words)) {
        (void)printf("seed %llu doesn't fail\n", (unsigned long long)plan.seed);
        return 1;
    }
    (void)printf("%s\n  %s ", words, program);
    plan_print(&plan, stdout);
    (void)puts(" --verbose");
    return EX_OK;
}

#ifdef HF_MUTANTS
static int run_mutants(const struct settings *settings, const uint64_t *seeds, uint64_t count)
{
    const struct jobs_plan jobs = {
        .plan = settings->plan,
        .seeds = seeds,
        .seed_count = count,
        .at_once = at_once(settings),
        .seconds_max = (unsigned)settings->seconds,
    };

    return mutants_run_all(&jobs) ? EX_OK : 1;
}
#endif

static int run(struct settings *settings, const uint64_t *seeds, uint64_t count,
               const char *program)
{
    const time_t began = time(NULL);
    struct tally tally = {
        .settings = settings,
        .program = program,
        .terminal = isatty(STDOUT_FILENO) == 1,
    };

#ifdef HF_MUTANTS
    if (settings->mutants) {
        return run_mutants(settings, seeds, count);
    }
#endif
    if (settings->one) {
        struct sim_options options;

        settings->plan.seed = settings->first;
        settings->plan.schedule = settings->scheduled ? settings->schedule : settings->first;
        options_draw(&options, &settings->plan);
        options_print(&options, stdout);
        if (settings->shorten) {
            return run_shorten(settings, program);
        }
    } else if (settings->list == NULL) {
        (void)printf("seeds %llu to %llu, %llu events each\n", (unsigned long long)settings->first,
                     (unsigned long long)(settings->first + settings->seeds - 1),
                     (unsigned long long)settings->plan.events);
    }
    run_all(&tally, seeds, count);
    return conclude(&tally, began);
}

static int show_switches(void)
{
    for (int i = 0; i < SIM_SWITCH_COUNT; i++) {
        (void)puts(switch_name((enum sim_switch)i));
    }
    return EX_OK;
}

int main(int count, char **arguments)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct settings settings = {
        .seeds = 1000,
        .first = 1,
        .plan = { .events = EVENTS_DEFAULT },
        .jobs = cores > 0 && cores <= JOBS_MAX ? (uint64_t)cores : 1,
        .seconds = SECONDS_DEFAULT,
    };
    uint64_t seed_count;

    if (count == 2 && strcmp(arguments[1], "--help") == 0) {
        (void)fputs(usage, stdout);
        return EX_OK;
    }
    if (count == 3 && strcmp(arguments[1], "--off") == 0 && strcmp(arguments[2], "help") == 0) {
        return show_switches();
    }
    if (!read_settings(count, arguments, &settings)) {
        (void)fputs(usage, stderr);
        return EX_USAGE;
    }

    uint64_t *seeds = make_seeds(&settings, &seed_count);

    if (seeds == NULL || seed_count == 0) {
        (void)fprintf(stderr, "sim: no seeds%s%s\n", settings.list != NULL ? " in " : "",
                      settings.list != NULL ? settings.list : "");
        free(seeds);
        return EX_NOINPUT;
    }

    const int result = run(&settings, seeds, seed_count, arguments[0]);

    free(seeds);
    return result;
}

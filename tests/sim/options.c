#include "tests/sim/options.h"

#include <inttypes.h>
#include <string.h>

#include "tests/sim/prng.h"

/* The least holds both entries of the largest message. */
#define SEGMENT_BYTES (32U * 1024)
#define CRASHES_MIN   2

/* A rate is often moderate, sometimes zero and sometimes wild: each finds other bugs. */
static uint32_t rate(struct prng *prng, uint32_t usual)
{
    switch (prng_below(prng, 8)) {
    case 0:
        return 0;
    case 1:
        return usual * 4;
    default:
        return (uint32_t)prng_between(prng, usual / 3, (uint64_t)usual * 2);
    }
}

static uint32_t between(struct prng *prng, uint32_t low, uint32_t high)
{
    return (uint32_t)prng_between(prng, low, high);
}

/* So many times in a thousand one of the range, else 0. */
static uint32_t perhaps(struct prng *prng, unsigned per_mille, uint32_t low, uint32_t high)
{
    const uint32_t value = between(prng, low, high);

    return prng_chance(prng, per_mille) ? value : 0;
}

static void draw_server(struct sim_options *options, struct prng *prng)
{
    const bool tiny = prng_chance(prng, 600);

    options->cores = between(prng, 1, 3);
    options->cores_max = 4;
    options->volumes = between(prng, 4, 6); /* as many as cores at least */
    options->segment_bytes = SEGMENT_BYTES * between(prng, 1, 2);
    options->segments = between(prng, 3, 7);
    options->recent_bytes = 1U << between(prng, 16, tiny ? 17 : 18);
    /* All that are connected must have a place; hardly any other. */
    options->users_max = options->users + (tiny ? between(prng, 1, 3) : 24);
    options->devices_max = options->users * options->devices + options->third_devices;
    options->devices_max += tiny ? between(prng, 0, 4) : 64;
    options->heads_max = 2 * options->users + (tiny ? between(prng, 2, 8) : 100);
    options->outcomes_max = tiny ? between(prng, 64, 140) : 32 * options->devices_max;
    options->pending_max = tiny ? between(prng, 256, 300) : 1024;
    options->outs_max = tiny ? between(prng, 16, 64) : 512;
    options->out_quota = between(prng, 8, 64);
    options->links_max = tiny ? between(prng, 12, 40) : 128;
    options->loads_max = between(prng, 2, 16);
    options->window_bytes_max = 16000U * between(prng, 1, 8);
    options->stream_frames = prng_chance(prng, 200) ? between(prng, 1, 6) : UINT32_MAX;
    options->retention_count = perhaps(prng, 350, 1, prng_chance(prng, 500) ? 10 : 100);
    options->age = perhaps(prng, 250, 200, 20000);
    options->touch = prng_chance(prng, 100) ? 1 : 0;
    options->accept_unknown_users = prng_chance(prng, 250) ? 1 : 0;
}

static void draw_rates(struct sim_options *options, struct prng *prng)
{
    options->large_bodies = perhaps(prng, 500, 5, 60);
    options->favourite = perhaps(prng, 300, 200, 900);
    options->bursts = prng_chance(prng, 300) ? between(prng, 200, 700) : 60;
    options->doubled = rate(prng, 20);
    options->crash = rate(prng, 12);
    options->kill = rate(prng, 250);
    options->flush_crash = rate(prng, 20);
    options->link_cut = rate(prng, 20);
    options->frame_loss = rate(prng, 15);
    options->partition_move = rate(prng, 8);
    options->clock_jump = rate(prng, 20);
    options->disk_full = perhaps(prng, 300, 5, 40);
    options->damage = rate(prng, 150);
    options->cores_change = rate(prng, 250);
    options->flush = prng_chance(prng, 400) ? 0 : between(prng, 1, 120);
    options->flush_permille = between(prng, 100, 900);
    options->rot = perhaps(prng, 200, 1, 20);
    options->slow_flush = perhaps(prng, 500, 0, 990);
    options->stale_load = rate(prng, 150);
    options->late_reads = perhaps(prng, 300, 50, 500);
    options->slow_reader = perhaps(prng, 400, 0, 990);
    options->slow_peers = perhaps(prng, 300, 300, 980);
    options->failed_load = perhaps(prng, 100, 20, 20);
    options->client_leave = rate(prng, 25);
    options->history = rate(prng, 60);
    options->bad_sends = rate(prng, 15);
    options->client_restore = rate(prng, 60);
    options->client_back = rate(prng, 100);
    options->client_rogue = perhaps(prng, 250, 5, 40);
    options->slow_disk = between(prng, 0, 900);
    options->recovery_crash = rate(prng, 200);
}

/* Now and then several things that seldom come together do, with all else on. */
static bool draw_theme(struct sim_options *options, struct prng *prng)
{
    switch (prng_below(prng, 12)) {
    case 0: /* long flushes of logs that are cut, interrupted */
        options->cores = between(prng, 1, 2);
        options->cores_max = 2;
        options->volumes = 2; /* several users in each */
        options->segments = 7;
        options->retention_count = between(prng, 1, 10);
        options->age = between(prng, 50, 2000);
        options->bursts = between(prng, 300, 700);
        options->flush = 0;
        options->flush_permille = between(prng, 500, 900);
        options->flush_crash = between(prng, 30, 120);
        options->kill = between(prng, 300, 900);
        break;
    case 1:
    case 2: /* a journal that goes round quickly, and readers that are late */
        options->segment_bytes = SEGMENT_BYTES;
        options->segments = 3;
        options->recent_bytes = 1U << 16;
        options->bursts = between(prng, 300, 700);
        options->flush_permille = between(prng, 100, 300);
        options->slow_flush = 0;
        options->slow_disk = between(prng, 0, 200);
        options->late_reads = between(prng, 500, 900);
        options->client_leave = between(prng, 50, 200);
        break;
    default:
        return false;
    }
    return true;
}

/* Most runs do without some of it. */
static uint64_t draw_off(struct prng *prng)
{
    const unsigned chance = prng_chance(prng, 300) ? 0 : between(prng, 50, 500);
    uint64_t off = 0;

    for (int i = 0; i < SIM_SWITCH_COUNT; i++) {
        if (prng_chance(prng, chance)) {
            off |= UINT64_C(1) << i;
        }
    }
    return off & ~(UINT64_C(1) << SIM_SWITCH_CRASH); /* nothing else tells of what was lost */
}

static void switch_off(struct sim_options *options)
{
#define SIM_SWITCH_OFF(NAME, name, field)                                                          \
    if ((options->off >> SIM_SWITCH_##NAME & 1) != 0) {                                            \
        options->field = 0;                                                                        \
    }
    SIM_SWITCHES(SIM_SWITCH_OFF)
#undef SIM_SWITCH_OFF
    if ((options->off >> SIM_SWITCH_CRASH & 1) != 0) {
        options->crashes_min = 0;
    }
}

struct sim_plan plan_of_seed(uint64_t seed, uint64_t events)
{
    return (struct sim_plan){ .seed = seed, .schedule = seed, .events = events };
}

void options_draw(struct sim_options *options, const struct sim_plan *plan)
{
    struct prng prng = prng_of(plan->seed);

    *options = (struct sim_options){
        .seed = plan->seed,
        .events = plan->events,
        .crashes_min = CRASHES_MIN,
        .devices = plan->devices == 1 ? 1 : 2,
    };
    options->users = between(&prng, prng_chance(&prng, 200) ? 2 : 3, 7);
    options->third_devices = between(&prng, 0, 2);
    options->late_users = between(&prng, 0, 2);
    options->strangers = between(&prng, 1, 2);
    if (plan->users > 0 && plan->users < options->users) {
        options->users = plan->users;
    }
    if (plan->devices > 0 && plan->devices < 3) {
        options->third_devices = 0;
    }
    draw_server(options, &prng);
    draw_rates(options, &prng);

    const bool has_theme = draw_theme(options, &prng);
    const uint64_t off = draw_off(&prng);

    options->off = plan->off | (has_theme ? 0 : off);
    switch_off(options);
    if (options->third_devices > options->users) {
        options->third_devices = options->users;
    }
    if (options->late_users > options->users) {
        options->late_users = options->users;
    }
}

/* ---- In words ---- */

static const char *const names[SIM_SWITCH_COUNT] = {
#define SIM_SWITCH_NAME(NAME, name, field) [SIM_SWITCH_##NAME] = (name),
    SIM_SWITCHES(SIM_SWITCH_NAME)
#undef SIM_SWITCH_NAME
};

const char *switch_name(enum sim_switch which)
{
    return names[which];
}

bool switches_parse(const char *list, uint64_t *off)
{
    *off = 0;
    while (*list != '\0') {
        const size_t length = strcspn(list, ",");
        int which = 0;

        while (which < SIM_SWITCH_COUNT &&
               (strlen(names[which]) != length || strncmp(names[which], list, length) != 0)) {
            which++;
        }
        if (which == SIM_SWITCH_COUNT) {
            return false;
        }
        *off |= UINT64_C(1) << which;
        list += length + (list[length] == ',' ? 1 : 0);
    }
    return true;
}

static void print_off(uint64_t off, FILE *to)
{
    const char *between_them = "";

    for (int i = 0; i < SIM_SWITCH_COUNT; i++) {
        if ((off >> i & 1) != 0) {
            (void)fprintf(to, "%s%s", between_them, names[i]);
            between_them = ",";
        }
    }
}

void plan_print(const struct sim_plan *plan, FILE *to)
{
    (void)fprintf(to, "--seed %" PRIu64, plan->seed);
    if (plan->schedule != plan->seed) {
        (void)fprintf(to, " --schedule %" PRIu64, plan->schedule);
    }
    (void)fprintf(to, " --events %" PRIu64, plan->events);
    if (plan->users != 0) {
        (void)fprintf(to, " --users %u", plan->users);
    }
    if (plan->devices != 0) {
        (void)fprintf(to, " --devices %u", plan->devices);
    }
    if (plan->off != 0) {
        (void)fputs(" --off ", to);
        print_off(plan->off, to);
    }
}

void options_print(const struct sim_options *o, FILE *to)
{
    (void)fprintf(to,
                  "seed %" PRIu64 ", %" PRIu64
                  " events: %u cores (%u at most), %u volumes, journal "
                  "%u x %u KB, recent %u KB, cells %u/%u/%u/%u, pending %u, outs %u (quota %u), "
                  "links %u, loads %u, window %u, frames %u\n",
                  o->seed, o->events, o->cores, o->cores_max, o->volumes, o->segments,
                  o->segment_bytes / 1024, o->recent_bytes / 1024, o->users_max, o->devices_max,
                  o->heads_max, o->outcomes_max, o->pending_max, o->outs_max, o->out_quota,
                  o->links_max, o->loads_max, o->window_bytes_max, o->stream_frames);
    (void)fprintf(to, "  %u users with %u devices, favourite %u, bursts %u, flush %u (at %u)\n ",
                  o->users, o->devices, o->favourite, o->bursts, o->flush, o->flush_permille);
#define SIM_SWITCH_PRINT(NAME, name, field)                                                        \
    if (o->field != 0) {                                                                           \
        (void)fprintf(to, " %s %u", name, o->field);                                               \
    }
    SIM_SWITCHES(SIM_SWITCH_PRINT)
#undef SIM_SWITCH_PRINT
    (void)fputs("\n  off: ", to);
    print_off(o->off, to);
    (void)fputs(o->off == 0 ? "nothing\n" : "\n", to);
}

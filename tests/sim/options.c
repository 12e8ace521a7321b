#include "tests/sim/options.h"

#include "tests/sim/prng.h"

#define SEGMENT_BYTES (64U * 1024)

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

static void draw_server(struct sim_options *options, struct prng *prng)
{
    const bool tiny = prng_chance(prng, 600);

    options->cores = between(prng, 1, 3);
    options->cores_max = 4;
    options->volumes = between(prng, 4, 6); /* as many as cores at least */
    options->segment_bytes = SEGMENT_BYTES;
    options->segments = between(prng, 3, 7);
    options->recent_bytes = 1U << between(prng, 16, tiny ? 17 : 18);
    /* All that are connected must have a place; hardly any other. */
    options->users_max = options->users + (tiny ? between(prng, 1, 3) : 24);
    options->devices_max = options->users * 2 + options->third_devices;
    options->devices_max += tiny ? between(prng, 0, 4) : 64;
    options->heads_max = 2 * options->users + (tiny ? between(prng, 2, 8) : 100);
    options->outcomes_max = tiny ? between(prng, 64, 140) : 32 * options->devices_max;
    options->pending_max = tiny ? between(prng, 256, 300) : 1024;
    options->outs_max = tiny ? between(prng, 16, 64) : 512;
    options->out_quota = between(prng, 8, 64);
    options->links_max = tiny ? between(prng, 12, 40) : 128;
    options->loads_max = between(prng, 2, 16);
    options->window_bytes_max = 16000U * between(prng, 1, 8);
    options->retention_count = prng_chance(prng, 300) ? between(prng, 5, 100) : 0;
    options->accept_unknown_users = prng_chance(prng, 250);
}

void options_draw(struct sim_options *options, uint64_t seed, uint64_t events)
{
    struct prng prng = prng_of(seed);

    *options = (struct sim_options){ .seed = seed, .events = events };
    options->users = between(&prng, 3, 7);
    options->third_devices = between(&prng, 0, 2);
    options->late_users = between(&prng, 0, 2);
    options->strangers = between(&prng, 1, 2);
    draw_server(options, &prng);
    options->large_bodies = prng_chance(&prng, 500) ? between(&prng, 5, 60) : 0;
    options->crash = rate(&prng, 12);
    options->link_cut = rate(&prng, 20);
    /* A partition that comes back needs room for its stream records. */
    options->partition_move = options->outs_max >= 512 ? rate(&prng, 8) : 0;
    options->clock_jump = rate(&prng, 20);
    options->disk_full = prng_chance(&prng, 300) ? between(&prng, 5, 40) : 0;
    options->flush = prng_chance(&prng, 400) ? 0 : between(&prng, 1, 120);
    options->flush_permille = between(&prng, 100, 900);
    options->slow_flush = prng_chance(&prng, 500) ? between(&prng, 0, 990) : 0;
    options->stale_load = rate(&prng, 150);
    options->slow_reader = prng_chance(&prng, 400) ? between(&prng, 0, 990) : 0;
    options->failed_load = prng_chance(&prng, 100) ? 20 : 0;
    options->client_leave = rate(&prng, 25);
    options->client_restore = rate(&prng, 60);
    options->client_back = rate(&prng, 100);
    options->client_rogue = prng_chance(&prng, 250) ? between(&prng, 5, 40) : 0;
    options->slow_disk = between(&prng, 0, 900);
    options->recovery_crash = rate(&prng, 200);
}

void options_print(const struct sim_options *o, FILE *to)
{
    (void)fprintf(
        to,
        "seed %llu, %llu events: %u cores (%u at most), %u volumes, journal %u x %u KB, "
        "recent %u KB, cells %u/%u/%u/%u, pending %u, outs %u (quota %u), links %u, loads "
        "%u, window %u, retention %llu, unknown users %s\n",
        (unsigned long long)o->seed, (unsigned long long)o->events, o->cores, o->cores_max,
        o->volumes, o->segments, o->segment_bytes / 1024, o->recent_bytes / 1024, o->users_max,
        o->devices_max, o->heads_max, o->outcomes_max, o->pending_max, o->outs_max, o->out_quota,
        o->links_max, o->loads_max, o->window_bytes_max, (unsigned long long)o->retention_count,
        o->accept_unknown_users ? "accepted" : "refused");
    (void)fprintf(
        to,
        "  %u users (%u with three devices, %u late), %u strangers; rates: large %u, "
        "crash %u, cut %u, move %u, clock %u, flush %u (%u, slow %u), stale %u, slow reader %u, failed %u, disk full %u, leave %u, "
        "restore %u, back %u, rogue %u, slow disk %u, recovery crash %u\n",
        o->users, o->third_devices, o->late_users, o->strangers, o->large_bodies, o->crash,
        o->link_cut, o->partition_move, o->clock_jump, o->flush, o->flush_permille, o->slow_flush,
        o->stale_load, o->slow_reader, o->failed_load, o->disk_full, o->client_leave,
        o->client_restore, o->client_back, o->client_rogue, o->slow_disk, o->recovery_crash);
}

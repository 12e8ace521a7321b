#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/sim/fail.h"
#include "tests/sim/sim.h"

#define USER_FIRST      UINT64_C(0x1000)
#define USER_STEP       UINT64_C(1000000) /* so that none is made twice */
#define CALM_EVENTS_MAX 100000
#define CLOCK_START_MS  UINT64_C(1760000000000)
#define CLOCK_JUMP_MS   UINT64_C(7200000)

/* ---- Setting up ---- */

static void add_clients(struct sim *sim, uint32_t user_index, uint64_t user, uint32_t devices,
                        uint64_t wakes_at)
{
    for (uint32_t i = 0; i < devices; i++) {
        struct client *client = &sim->clients[sim->client_count];

        HF_ASSERT(sim->client_count < SIM_CLIENTS_MAX);
        client_open(client, &sim->world, sim->client_count, user_index, user,
                    100 + sim->client_count);
        client->wakes_at = wakes_at;
        sim->client_count++;
    }
}

/* Everybody writes to some of the others, perhaps to strangers, and to themselves. */
static void choose_peers(struct sim *sim, struct client *client)
{
    const struct sim_options *options = &sim->options;
    uint64_t *peers = client->peers;

    for (uint32_t i = 0; i < options->users + options->strangers; i++) {
        const bool seldom = i >= options->users || sim->host.users[i] == client->user;

        HF_ASSERT(client->peer_count < CLIENT_PEERS_MAX);
        peers[client->peer_count++] = sim->host.users[i];
        if (prng_chance(&sim->prng, seldom ? 300 : 700)) {
            const uint64_t other = peers[client->talk_count];

            peers[client->talk_count++] = sim->host.users[i];
            peers[client->peer_count - 1] = other;
        }
    }
}

/* Another user of the same partition, above `from`. */
static uint64_t neighbour_of(uint64_t user, uint64_t from)
{
    const struct partition_id partition = partition_of(user);

    do {
        from += USER_STEP;
    } while (partition_of(from).value != partition.value);
    return from;
}

static void open_world(struct sim *sim)
{
    const struct sim_options *options = &sim->options;

    for (uint32_t i = 0; i < options->users + options->strangers; i++) {
        uint64_t user = USER_FIRST + prng_below(&sim->prng, 1000) * 100 + i;

        if (i > 0 && prng_chance(&sim->prng, 100)) {
            user = neighbour_of(sim->host.users[0], user);
        }
        host_add_user(&sim->host, user);
    }
    for (uint32_t i = 0; i < options->users; i++) {
        const bool late = i >= options->users - options->late_users;

        add_clients(sim, i, sim->host.users[i],
                    i < options->third_devices ? options->devices + 1 : options->devices,
                    late ? options->events / 2 : 0);
    }
    for (uint32_t i = 0; i < sim->client_count; i++) {
        choose_peers(sim, &sim->clients[i]);
    }
}

static void open_sim(struct sim *sim, const struct sim_plan *plan)
{
    options_draw(&sim->options, plan);
    sim->prng = prng_of(plan->schedule ^ UINT64_C(0x5eed));
    ledger_open(&sim->ledger, &sim->hazards, sim->options.accept_unknown_users != 0);
    disk_open(&sim->disk, &sim->hazards, &sim->prng, (uint16_t)sim->options.volumes);
    sim->host = (struct host){
        .options = &sim->options,
        .prng = &sim->prng,
        .hazards = &sim->hazards,
        .ledger = &sim->ledger,
        .net = &sim->net,
        .disk = &sim->disk,
        .event = &sim->event,
        .now_unix_ms = CLOCK_START_MS,
    };
    host_open(&sim->host);
    sim->world = (struct client_world){
        .prng = &sim->prng,
        .ledger = &sim->ledger,
        .net = &sim->net,
        .hazards = &sim->hazards,
        .event = &sim->event,
        .large_bodies = sim->options.large_bodies,
        .leave = sim->options.client_leave,
        .restore = sim->options.client_restore,
        .back = sim->options.client_back,
        .rogue = sim->options.client_rogue,
        .history = sim->options.history,
        .bad_sends = sim->options.bad_sends,
        .favourite = sim->options.favourite,
        .bursts = sim->options.bursts,
        .doubled = sim->options.doubled,
        .retention = sim->options.retention_count != 0 || sim->options.age != 0,
    };
    open_world(sim);
}

static void close_sim(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->client_count; i++) {
        client_close(&sim->clients[i]);
    }
    host_close(&sim->host);
    disk_close(&sim->disk);
    net_close(&sim->net);
    ledger_close(&sim->ledger);
}

/* ---- One event ---- */

static void pass_time(struct sim *sim)
{
    struct host *host = &sim->host;

    host->now_unix_ms += prng_below(&sim->prng, 20);
    if (sim->calm || prng_below(&sim->prng, 10000) >= sim->options.clock_jump) {
        return;
    }
    if (prng_chance(&sim->prng, 500)) {
        host->now_unix_ms += prng_below(&sim->prng, CLOCK_JUMP_MS);
    } else {
        host->now_unix_ms -= prng_below(&sim->prng, CLOCK_JUMP_MS);
        sim->hazards.counts[HAZARD_CLOCK_BACK]++;
    }
}

static bool draw(struct sim *sim, uint32_t in_ten_thousand)
{
    return prng_below(&sim->prng, 10000) < in_ten_thousand;
}

/* Every run has its crashes, whatever its rate. */
static bool crash_is_due(struct sim *sim)
{
    const uint64_t crashes = sim->hazards.counts[HAZARD_CRASHES];

    return crashes < sim->options.crashes_min &&
           sim->event >= sim->options.events * (crashes + 1) / 3;
}

static void misfortune(struct sim *sim)
{
    if (draw(sim, sim->options.crash) || crash_is_due(sim)) {
        host_crash(&sim->host, !prng_chance(&sim->prng, sim->options.kill));
        return;
    }
    if (draw(sim, sim->options.link_cut)) {
        host_cut_link(&sim->host);
    }
    if (draw(sim, sim->options.frame_loss)) {
        host_lose_frames(&sim->host);
    }
    if (draw(sim, sim->options.disk_full)) {
        sim->host.full_until = sim->event + prng_between(&sim->prng, 20, 600);
        sim->hazards.counts[HAZARD_DISK_FULL]++;
    }
    if (draw(sim, sim->options.partition_move)) {
        host_close_partition(&sim->host);
    }
}

static void receive_some(struct sim *sim)
{
    const uint32_t first = (uint32_t)prng_below(&sim->prng, sim->client_count);

    for (uint32_t i = 0; i < sim->client_count; i++) {
        struct client *client = &sim->clients[(first + i) % sim->client_count];

        if (client_can_receive(client)) {
            for (uint64_t n = prng_between(&sim->prng, 1, 4); n > 0 && client_can_receive(client);
                 n--) {
                client_receive(client, &sim->world);
            }
            return;
        }
    }
}

static void step_core(struct sim *sim)
{
    struct host *host = &sim->host;
    const uint16_t core = (uint16_t)prng_below(&sim->prng, host->core_count);

    switch (prng_below(&sim->prng, 8)) {
    case 0:
    case 1:
    case 2:
        (void)host_turn(host, core);
        break;
    case 3:
    case 4:
        if (!sim->calm && prng_chance(&sim->prng, sim->options.slow_disk)) {
            break;
        }
        (void)host_disk_step(host, core);
        break;
    case 5:
        if (prng_chance(&sim->prng, 250)) {
            (void)host_expire_step(host, core);
            break;
        }
        (void)host_flush_step(host, core);
        break;
    default:
        (void)host_load_step(host, core);
        break;
    }
}

static void one_event(struct sim *sim)
{
    struct host *host = &sim->host;

    sim->event++;
    sim->hazards.counts[HAZARD_EVENTS]++;
    pass_time(sim);
    if (!host->running) {
        host_boot(host);
        return;
    }
    host_partition_step(host);
    host_loss_step(host);
    switch (prng_below(&sim->prng, 10)) {
    case 0:
    case 1:
        client_act(&sim->clients[prng_below(&sim->prng, sim->client_count)], &sim->world);
        break;
    case 2:
    case 3:
        receive_some(sim);
        break;
    default:
        step_core(sim);
        break;
    }
    if (!sim->calm && host->running) {
        misfortune(sim);
    }
}

/* ---- The calm at the end ---- */

static bool all_drained(const struct sim *sim)
{
    for (uint32_t i = 0; i < sim->client_count; i++) {
        if (!client_is_drained(&sim->clients[i], &sim->world)) {
            return false;
        }
    }
    return sim->host.running && host_is_idle(&sim->host);
}

static void fail_undrained(const struct sim *sim)
{
    for (uint32_t i = 0; i < sim->client_count; i++) {
        const struct client *client = &sim->clients[i];

        if (!client_is_drained(client, &sim->world)) {
            sim_fail(
                "no progress: client %u (%s), %u in the outbox, %u unanswered, at %llu of %llu, "
                "acknowledged %llu, history of %u of %u conversations%s",
                client->index, client->welcomed ? "welcomed" : "not welcomed",
                client->store.outbox_count, client->outstanding,
                (unsigned long long)client->store.seq,
                (unsigned long long)ledger_log(&((struct sim *)(uintptr_t)sim)->ledger,
                                               client->user)
                    ->head_known,
                (unsigned long long)client->acked, client->audit_peer, client->peer_count,
                client->store.resync ? ", numbers anew" : "");
        }
    }
    for (uint16_t i = 0; i < sim->host.core_count; i++) {
        struct engine_stats stats;

        engine_get_stats(sim->host.cores[i].engine, &stats);
        sim_say(
            "core %u: %u stream records haven't ended; journal %u permille full, room %zu%s%s%s", i,
            stats.outs, journal_used_permille(sim->host.cores[i].journal),
            journal_room(sim->host.cores[i].journal),
            sim->host.cores[i].flushing ? ", flushing" : "",
            sim->host.cores[i].flushed_untold ? ", flushed but not told" : "",
            journal_idle(sim->host.cores[i].journal) ? "" : ", not all written");
        for (uint16_t from = 0; from < sim->host.core_count; from++) {
            const struct parcel *first = sim->host.cores[i].inbox[from].first;

            if (first != NULL) {
                sim_say("core %u: mail of core %u waits%s", i, from,
                        first->blocked ? ", blocked" : "");
            }
        }
    }
    sim_fail("no progress: the clients have drained, the server hasn't");
}

static void become_calm(struct sim *sim)
{
    sim_say("calm");
    sim->calm = true;
    sim->world.calm = true;
    sim->host.calm = true;
    for (uint32_t i = 0; i < sim->client_count; i++) {
        client_audit_begin(&sim->clients[i]);
        sim->clients[i].wakes_at = 0;
    }
}

void run_seed(const struct sim_plan *plan, struct sim_result *result)
{
    struct sim *sim = calloc(1, sizeof *sim);

    SIM_CHECK(sim != NULL, "out of memory");
    fail_set_context(plan->seed, &sim->event);
    open_sim(sim, plan);
    if (sim_verbose()) {
        options_print(&sim->options, stdout);
    }
    while (sim->event < plan->events ||
           sim->hazards.counts[HAZARD_CRASHES] < sim->options.crashes_min) {
        one_event(sim);
    }
    become_calm(sim);
    while (!all_drained(sim)) {
        one_event(sim);
        if (sim->event > plan->events + CALM_EVENTS_MAX) {
            fail_undrained(sim);
        }
    }
    sim->host.drained = true;
    host_crash(&sim->host, true);
    host_boot(&sim->host);
    ledger_check_end(&sim->ledger);
    result->hazards = sim->hazards;
    result->effects_hash = sim->host.effects_hash;
    host_crash(&sim->host, true);
    close_sim(sim);
    free(sim);
}

/*
 * sim: one run: clients, network, server and disk, from a seed. run_seed() makes it all, lets so
 * many events happen, stops the faults, waits until all has drained, and checks the ledger.
 *
 *   until `events`  anything may happen: see options.h
 *   then, calm      no faults; everybody connects, sends what waits, reads all of its log and all
 *                   history in both directions; progress is demanded
 *   at last         a crash and a recovery more, and the ledger's final check
 *
 * Owner    The process: one run each.
 * Thread   One.
 * Errors   sim_fail(), or an assertion of the code under test.
 */
#pragma once

#include <stdint.h>

#include "tests/sim/client.h"
#include "tests/sim/disk.h"
#include "tests/sim/hazards.h"
#include "tests/sim/host.h"
#include "tests/sim/ledger.h"
#include "tests/sim/net.h"
#include "tests/sim/options.h"
#include "tests/sim/prng.h"

#define SIM_CLIENTS_MAX 32

struct sim {
    struct sim_options options;
    struct prng prng;
    struct hazards hazards;
    struct ledger ledger;
    struct net net;
    struct disk disk;
    struct host host;
    struct client_world world;
    struct client clients[SIM_CLIENTS_MAX];
    uint32_t client_count;
    uint64_t event;
    bool calm;
};

struct sim_result {
    struct hazards hazards;
    uint64_t effects_hash; /* equal for equal seeds (I9) */
};

void run_seed(const struct sim_plan *plan, struct sim_result *result);

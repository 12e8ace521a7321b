/*
 * checks: what may leave the server, and when. Each frame and each stream record is compared, at
 * the moment at which the engine gives it out, with what the disks hold then: nobody may be told
 * what a crash could take back.
 *
 * Owner    The host's.
 * Thread   The simulator's only.
 * Memory   Grows with the run; freed by checks_close().
 * Errors   A broken rule is sim_fail().
 */
#pragma once

#include <stdint.h>

#include "core/engine/effects.h"
#include "store/reader.h"
#include "tests/sim/net.h"

struct host;

/* A stream record that is durable, and whose end isn't. */
struct checks_out {
    uint64_t id;
    uint64_t user;
    uint64_t to;
    struct origin origin;
};

/* A device's last counter, as far as it is durable. */
struct checks_device {
    uint64_t user;
    uint32_t device;
    uint64_t counter;
};

struct checks {
    struct checks_out *outs;
    uint32_t out_count, out_capacity;
    struct checks_device *devices;
    uint32_t device_count, device_capacity;
};

void checks_close(struct checks *checks);
/* After a recovery: what the volumes say is all that there is. */
void checks_on_recovered(struct host *host, struct reader *reader);

void checks_on_append(struct host *host, const struct effect *effect);
void checks_on_durable(struct host *host, const struct record *record);
void checks_on_hello(struct host *host, struct connection *connection, struct device_id device);
void checks_on_welcome(struct host *host, const struct connection *connection,
                       const struct welcome *welcome);
void checks_on_send(struct host *host, const struct connection *connection,
                    const struct frame_view *view);
void checks_on_stream(struct host *host, const struct effect *effect);

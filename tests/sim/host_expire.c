/* Retention by age: a sweep over a core's volumes, and what the engine makes of what it finds. */
#include "core/base/check.h"
#include "tests/sim/fail.h"
#include "tests/sim/host.h"
#include "tests/sim/volume_map.h"

#define SWEEP_RATE 500 /* in a thousand, of the steps of a core that has none under way */
#define ROWS_MAX   40  /* of a step */
#define LAG_MAX    5

static void begin_sweep(struct host *host, struct core *core)
{
    const uint64_t age = host->options->age;
    struct hf_error error = { 0 };

    for (uint16_t i = 0; i < host->disk->manifest.volume_count; i++) {
        core->sweep_readers[i] =
            core->volumes[i] != NULL ? volume_reader_open(core->volumes[i], &error) : NULL;
        SIM_CHECK(core->volumes[i] == NULL || core->sweep_readers[i] != NULL, "%s", error.text);
    }
    core->cutoff_unix_ms = host->now_unix_ms > age ? host->now_unix_ms - age : 0;
    expire_begin(&core->sweep, core->sweep_readers, host->disk->manifest.volume_count,
                 core->cutoff_unix_ms);
    core->sweeping = true;
}

void host_end_sweep(struct core *core)
{
    for (uint16_t i = 0; i < SCHEMA_VOLUMES_MAX; i++) {
        volume_reader_close(core->sweep_readers[i]);
        core->sweep_readers[i] = NULL;
    }
    core->sweeping = false;
    core->has_expired = false;
}

/* Readers may have begun before the last commits. */
static void set_lag(struct host *host, struct core *core, uint32_t lag)
{
    for (uint16_t i = 0; i < host->disk->manifest.volume_count; i++) {
        if (core->sweep_readers[i] != NULL) {
            volume_map_set_lag(core->volumes[i], lag);
        }
    }
}

/* Told as the reactor tells it: in a turn, and again later if it blocks. */
static void offer(struct host *host, struct core *core)
{
    host_begin_turn(host, core);

    const enum engine_result result =
        engine_on_expired(core->engine, core->expired.user, core->expired.floor);

    host_take_effects(host, core);
    host_run_engine(host, core);
    SIM_CHECK(result != ENGINE_CLOSED, "the engine closes what has expired");
    core->has_expired = result == ENGINE_BLOCKED && !prng_chance(host->prng, 100);
}

bool host_expire_step(struct host *host, uint16_t number)
{
    struct core *core = &host->cores[number];

    for (uint32_t i = 0; i < host->partition_count; i++) {
        if (host->partitions[i].state != PARTITION_OPEN) {
            return false; /* one that closes takes no input */
        }
    }
    if (host->options->age == 0 || host->calm) {
        return false;
    }
    if (core->has_expired) {
        offer(host, core);
        return true;
    }
    if (!core->sweeping) {
        if (!prng_chance(host->prng, SWEEP_RATE)) {
            return false;
        }
        begin_sweep(host, core);
    }
    if (prng_chance(host->prng, host->options->stale_load)) {
        set_lag(host, core, (uint32_t)prng_between(host->prng, 1, LAG_MAX));
    }

    const enum expire_status status =
        expire_step(&core->sweep, (uint32_t)prng_between(host->prng, 1, ROWS_MAX), &core->expired);

    set_lag(host, core, 0);
    switch (status) {
    case EXPIRE_MORE:
        break;
    case EXPIRE_FOUND:
        ledger_tell_expired(host->ledger, core->expired.user.value, core->expired.floor,
                            core->cutoff_unix_ms);
        host_count(host, HAZARD_EXPIRED);
        core->has_expired = true;
        break;
    case EXPIRE_SWEPT:
        host_count(host, HAZARD_SWEEPS);
        host_end_sweep(core);
        break;
    case EXPIRE_DAMAGED:
    case EXPIRE_FAILED:
        sim_fail("core %u: a sweep: %s", number, core->sweep.error.text);
    }
    return true;
}

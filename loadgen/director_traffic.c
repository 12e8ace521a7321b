/* Steps that send: window, pace, greet. */
#include <inttypes.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "loadgen/director_internal.h"

#define START_LEAD_NS  (50 * CLOCK_NS_PER_MS) /* until all swarms have their order */
#define ANSWERS_MAX_NS (5 * CLOCK_NS_PER_S)
#define BUSY_LIMIT     0.95

static double seconds_since(uint64_t began_ns)
{
    return (double)(clock_now_ns() - began_ns) / 1e9;
}

static uint32_t senders(const struct director *director)
{
    const uint32_t users = director->options->clients / director->options->devices;

    return director->options->one_way ? users / 2 : users;
}

/* Each swarm takes its share of the rate, and they take turns. */
static void order_pace(struct director *director, double rate, bool once)
{
    const uint64_t start_ns = clock_now_ns() + START_LEAD_NS;
    const uint32_t all = senders(director);

    for (uint32_t i = 0; i < director->swarm_count; i++) {
        struct swarm *swarm = &director->swarms[i];
        const uint32_t own = swarm->crowd.users / (director->options->one_way ? 2 : 1);

        swarm_order(swarm, &(struct swarm_order){
                               .kind = SWARM_PACE,
                               .rate = rate * own / all,
                               .start_ns = start_ns + (uint64_t)(1e9 / rate * i),
                               .count_max = once ? own : UINT64_MAX,
                           });
    }
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        while (!swarm_answered(&director->swarms[i])) {
            director_look(director);
        }
    }
}

static void wait_seconds(struct director *director, const char *what, double seconds)
{
    const uint64_t began_ns = clock_now_ns();

    while (seconds_since(began_ns) < seconds && !director->interrupted && !director->next) {
        director_look(director);
        report_progress(&director->report, seconds_since(began_ns) / seconds,
                        "%s: %" PRIu64 " accepted, %" PRIu64 " unanswered, %" PRIu64 " faults",
                        what, director->counts.answered, director->counts.pending,
                        director->counts.faults);
    }
}

/* Adds up what the swarms measured. */
static void gather(struct director *director, struct report_measure *measure)
{
    uint64_t ns_max = 0;

    histogram_init(&director->accepted);
    histogram_init(&director->delivered);
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        const struct swarm *swarm = &director->swarms[i];
        const struct swarm_measure *measured = &swarm->measured;
        const double busy = measured->ns > 0 ? (double)measured->cpu_ns / (double)measured->ns : 0;
        const double late_max_ms = (double)measured->late_max_ns / 1e6;

#define ADD(name, text) measure->counts.name += measured->counts.name;
        CROWD_COUNTS(ADD)
#undef ADD
        ns_max = measured->ns > ns_max ? measured->ns : ns_max;
        measure->busy = busy > measure->busy ? busy : measure->busy;
        measure->late_max_ms =
            late_max_ms > measure->late_max_ms ? late_max_ms : measure->late_max_ms;
        histogram_merge(&director->accepted, &swarm->accepted);
        histogram_merge(&director->delivered, &swarm->delivered);
    }
    measure->seconds = (double)ns_max / 1e9;
    if (measure->counts.created > 0) {
        measure->late_percent =
            100.0 * (double)measure->counts.late / (double)measure->counts.created;
    }
    measure->accepted = &director->accepted;
    measure->delivered = &director->delivered;
}

/* Answers to what was created while measuring still count. */
static void await_answers(struct director *director)
{
    const uint64_t began_ns = clock_now_ns();

    do {
        director_look(director);
    } while (director->counts.pending > 0 && clock_now_ns() - began_ns < ANSWERS_MAX_NS &&
             !director->interrupted);
}

static void measure_step(struct director *director, const struct step *step)
{
    struct report_measure measure = { .step = step };
    struct proc_cpu before = { 0 };
    struct proc_cpu after = { 0 };
    struct proc_cpu used;

    wait_seconds(director, "warming up", director->options->warm_s);
    director_order_kind(director, SWARM_MARK);
    (void)proc_cpu_take(&before, director_server_pid(director));
    if (step->seconds > 0) {
        wait_seconds(director, step->text, step->seconds);
    } else {
        wait_seconds(director, step->text, 1e9);
    }
    director_order_kind(director, SWARM_MEASURE);

    const bool has_cpu = proc_cpu_take(&after, director_server_pid(director)) &&
                         proc_cpu_between(&used, &before, &after);

    if (!step->keep) {
        director_order_kind(director, SWARM_QUIET);
        await_answers(director);
    }
    director_order_kind(director, SWARM_COLLECT);
    gather(director, &measure);
    measure.server = has_cpu ? &used : NULL;
    measure.is_void = step->kind == STEP_PACE && measure.busy > BUSY_LIMIT &&
                      measure.late_percent > director->options->late_percent;
    report_measure(&director->report, &measure);
    if (measure.is_void) {
        director_fail(director, DIRECTOR_EXIT_VOID,
                      "void: a thread of the generator was %.0f %% busy, and %.1f %% of the "
                      "messages were created late",
                      measure.busy * 100, measure.late_percent);
    }
}

static bool greet(struct director *director, const struct step *step)
{
    const uint64_t created = director->counts.created;
    const double seconds = senders(director) / step->number;
    const uint64_t began_ns = clock_now_ns();

    order_pace(director, step->number, true);
    while (!director->interrupted && (director->counts.created < created + senders(director) ||
                                      director->counts.pending > 0)) {
        director_look(director);
        if (seconds_since(began_ns) > seconds + director->options->settle_timeout_s) {
            director_fail(director, EX_UNAVAILABLE, "greet: %" PRIu64 " messages are unanswered",
                          director->counts.pending);
            return false;
        }
        report_progress(&director->report, seconds_since(began_ns) / seconds,
                        "greet: %" PRIu64 " accepted", director->counts.answered);
    }
    director_order_kind(director, SWARM_QUIET);
    return !director->interrupted;
}

bool director_traffic(struct director *director, const struct step *step)
{
    director->next = false;
    if (step->kind == STEP_GREET) {
        return greet(director, step);
    }
    if (step->kind == STEP_PACE) {
        order_pace(director, step->number, false);
    } else {
        director_order(director, &(struct swarm_order){ .kind = SWARM_WINDOW,
                                                        .window = (uint32_t)step->number });
    }
    if (step->keep && step->seconds <= 0) {
        return true; /* goes on until a later step ends it */
    }
    measure_step(director, step);
    return !director->interrupted;
}

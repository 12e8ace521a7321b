/* The steps but traffic: each waits for what it is about, or gives up. */
#include <inttypes.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "loadgen/director_internal.h"

#define LINGER_NS       (500 * CLOCK_NS_PER_MS) /* for doubles that come late */
#define AWAIT_DEFAULT_S 300
#define LEAVE_MAX_NS    (5 * CLOCK_NS_PER_S)

static double seconds_since(uint64_t began_ns)
{
    return (double)(clock_now_ns() - began_ns) / 1e9;
}

/* The first words that a failed handshake had, if any. */
static const char *fault_text(const struct director *director)
{
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        if (director->swarms[i].measured.fault_text[0] != '\0') {
            return director->swarms[i].measured.fault_text;
        }
    }
    return "none";
}

static void fail_unreached(struct director *director, const char *what)
{
    const struct crowd_counts *counts = &director->counts;

    /* Answered orders publish the text. */
    director_order_kind(director, SWARM_MEASURE);
    director_fail(director, EX_UNAVAILABLE,
                  "%s: %" PRIu64 " of %u clients are logged in and current; dials refused %" PRIu64
                  ", handshakes failed %" PRIu64 " (first reason: %s), HELLOs refused %" PRIu64
                  ", timed out %" PRIu64,
                  what, counts->current, director->options->clients, counts->dial_refused,
                  counts->shake_failed, fault_text(director), counts->login_refused,
                  counts->timed_out);
}

/* Until all are logged in and current; gives up when nothing moves any more. */
static bool await_all(struct director *director, const char *what)
{
    const uint32_t clients = director->options->clients;
    const uint64_t patience_ns = director->options->connect_timeout_s * CLOCK_NS_PER_S;
    uint64_t progress = 0;
    uint64_t moved_at_ns = clock_now_ns();

    for (;;) {
        director_look(director);

        const struct crowd_counts *counts = &director->counts;
        const uint64_t now_progress = counts->full + counts->resumed + counts->current +
                                      counts->own_entries + counts->peer_entries;

        if (counts->current == clients) {
            return true;
        }
        if (director->interrupted) {
            return false;
        }
        if (now_progress != progress) {
            progress = now_progress;
            moved_at_ns = clock_now_ns();
        } else if (clock_now_ns() - moved_at_ns > patience_ns) {
            fail_unreached(director, what);
            return false;
        }
        report_progress(&director->report, (double)counts->current / clients,
                        "%s: %" PRIu64 " of %u clients; %" PRIu64 " full handshakes, %" PRIu64
                        " resumed",
                        what, counts->current, clients, counts->full, counts->resumed);
    }
}

/* What logging in took, from `before` to now. */
static void tell_logins(struct director *director, const char *event, uint64_t began_ns,
                        const struct crowd_counts *before, const struct proc_cpu *cpu_before)
{
    struct proc_cpu after;
    struct proc_cpu used;
    const bool has_cpu = proc_cpu_take(&after, director_server_pid(director)) &&
                         proc_cpu_between(&used, cpu_before, &after);
    const struct report_logins logins = {
        .clients = (uint32_t)director->counts.live,
        .full = director->counts.full - before->full,
        .resumed = director->counts.resumed - before->resumed,
        .refused = director_failures(&director->counts) - director_failures(before),
        .seconds = seconds_since(began_ns),
        .since_first_s = -1,
        .server = has_cpu ? &used : NULL,
    };

    report_logins(&director->report, event, &logins);
}

/* What the server and the kernel take before the first connection; of the first time only. */
static void take_baseline(struct director *director)
{
    const uint64_t patience_ns = director->options->connect_timeout_s * CLOCK_NS_PER_S;
    const uint64_t began_ns = clock_now_ns();

    if (!director->common.dial.loopback || director->baseline_taken) {
        return;
    }
    director->baseline_taken = true;
    while (director_server_pid(director) == 0 && !director->interrupted &&
           clock_now_ns() - began_ns < patience_ns) {
        director_look(director); /* it may just be starting */
    }
    director->anonymous_before = proc_anonymous_bytes(director_server_pid(director));
    proc_kernel_take(&director->kernel_before);
}

static bool step_connect(struct director *director)
{
    const struct crowd_counts before = director->counts;
    const uint64_t began_ns = clock_now_ns();
    struct proc_cpu cpu;

    take_baseline(director);
    (void)proc_cpu_take(&cpu, director_server_pid(director));
    director_order(director, &(struct swarm_order){
                                 .kind = SWARM_CONNECT,
                                 .full = (director->options->full + director->swarm_count - 1) /
                                         director->swarm_count });
    if (!await_all(director, "connect")) {
        return false;
    }
    tell_logins(director, "connected", began_ns, &before, &cpu);
    return true;
}

static bool step_idle(struct director *director, const struct step *step)
{
    const uint64_t began_ns = clock_now_ns();
    struct report_memory memory = { .clients = (uint32_t)director->counts.live,
                                    .anonymous_before = director->anonymous_before };

    while (seconds_since(began_ns) < step->seconds && !director->interrupted) {
        director_look(director);
        report_progress(&director->report, seconds_since(began_ns) / step->seconds,
                        "idle: %" PRIu64 " clients", director->counts.live);
    }
    memory.anonymous_now = proc_anonymous_bytes(director_server_pid(director));
    if (director->common.dial.loopback) {
        proc_kernel_take(&director->kernel_now);
        memory.has_kernel = proc_kernel_between(&memory.kernel, &director->kernel_before,
                                                &director->kernel_now, memory.clients);
    }
    report_memory(&director->report, &memory);
    return true;
}

static bool step_hold(struct director *director)
{
    director->next = false;
    while (!director->next && !director->interrupted) {
        director_look(director);
        report_progress(&director->report, -1,
                        "%" PRIu64 " clients; %" PRIu64 " messages created, %" PRIu64
                        " accepted; SIGUSR1 ends this",
                        director->counts.live, director->counts.created, director->counts.answered);
    }
    return true;
}

static bool step_await(struct director *director, const struct step *step)
{
    const double patience_s = step->seconds > 0 ? step->seconds : AWAIT_DEFAULT_S;
    const uint64_t began_ns = clock_now_ns();
    struct director_watch *watch = &director->watch;

    for (;;) {
        director_look(director);
        if (watch->lost_count > watch->awaited_count && !watch->away) {
            watch->awaited_count = watch->lost_count;
            return true;
        }
        if (director->interrupted) {
            return false;
        }
        if (seconds_since(began_ns) > patience_s) {
            fail_unreached(director, watch->away ? "not all came back" : "no client was lost");
            return false;
        }
        if (!watch->away) {
            report_progress(&director->report, -1, "waiting for the server to be restarted");
        }
    }
}

static bool step_drop(struct director *director)
{
    const struct crowd_counts before = director->counts;
    const uint64_t began_ns = clock_now_ns();
    struct proc_cpu cpu;

    (void)proc_cpu_take(&cpu, director_server_pid(director));
    director->quiet = true;
    director_order_kind(director, SWARM_DROP);

    const bool back = await_all(director, "storm");

    director->quiet = false;
    director->watch.lost_count = director->counts.lost;
    director->watch.awaited_count = director->counts.lost;
    if (back) {
        tell_logins(director, "storm", began_ns, &before, &cpu);
    }
    return back;
}

static bool step_flood(struct director *director, const struct step *step)
{
    const struct crowd_counts before = director->counts;
    const uint64_t began_ns = clock_now_ns();
    struct proc_cpu cpu;

    (void)proc_cpu_take(&cpu, director_server_pid(director));
    director->quiet = true;
    director_order(director, &(struct swarm_order){ .kind = SWARM_FLOOD,
                                                    .window = 1,
                                                    .full = step->resumed ? 1 : UINT32_MAX });
    while (seconds_since(began_ns) < step->seconds && !director->interrupted) {
        director_look(director);
        report_progress(&director->report, seconds_since(began_ns) / step->seconds,
                        "flood: %" PRIu64 " handshakes",
                        director->counts.full + director->counts.resumed);
    }
    director_look(director);
    tell_logins(director, "flood", began_ns, &before, &cpu);
    director_order(director, &(struct swarm_order){ .kind = SWARM_FLOOD });
    director_order_kind(director, SWARM_LEAVE);
    director->quiet = false;
    return true;
}

/* Whether everything created is answered, and everywhere where it should be. */
static bool all_there(const struct director *director)
{
    const struct crowd_counts *counts = &director->counts;
    const uint64_t entries = counts->created * director->options->devices;

    return counts->current == director->options->clients && counts->pending == 0 &&
           counts->own_entries >= entries && counts->peer_entries >= entries;
}

/* Until all is there, or patience ends; then judges. */
static bool settle(struct director *director, const char *event)
{
    const uint64_t began_ns = clock_now_ns();
    uint64_t there_at_ns = 0;

    while (!director->interrupted) {
        director_look(director);
        there_at_ns = !all_there(director) ? 0 : there_at_ns == 0 ? clock_now_ns() : there_at_ns;
        if (there_at_ns != 0 && clock_now_ns() - there_at_ns >= LINGER_NS) {
            break;
        }
        if (seconds_since(began_ns) > director->options->settle_timeout_s) {
            break;
        }
        report_progress(&director->report, -1,
                        "%s: %" PRIu64 " clients; %" PRIu64 " unanswered; %" PRIu64 " + %" PRIu64
                        " entries of %" PRIu64 " messages",
                        event, director->counts.current, director->counts.pending,
                        director->counts.own_entries, director->counts.peer_entries,
                        director->counts.created);
    }

    const bool complete = there_at_ns != 0;
    const double seconds = seconds_since(began_ns);
    struct ledger *findings = &director->findings;

    ledger_clear(findings);
    director_order_kind(director, SWARM_AUDIT);
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        ledger_merge(findings, &director->swarms[i].findings);
    }
    director_look(director);
    report_findings(&director->report, event, findings, &director->counts, complete, seconds);
    return complete;
}

static void tell_faults(struct director *director)
{
    const struct ledger *findings = &director->findings;
    uint32_t told = findings->record_count < 8 ? findings->record_count : 8;

    for (uint32_t i = 0; i < told; i++) {
        const struct ledger_record *record = &findings->records[i];

        director_fail(director, EX_DATAERR,
                      "%s: %s log of client %u of its thread, number %" PRIu64 " (%s)",
                      ledger_fault_label(record->fault),
                      record->side == LEDGER_OWN ? "own messages in the" : "peer's messages in the",
                      record->client, record->number, ledger_fault_text(record->fault));
    }
    director_fail(director, EX_DATAERR, "%" PRIu64 " faults in the logs", findings->fault_count);
}

static bool judge(struct director *director, const char *event)
{
    const bool complete = settle(director, event);

    if (director->interrupted) {
        return false;
    }
    if (!complete && director->counts.current < director->options->clients) {
        fail_unreached(director, event); /* what is missing may be there, but can't be read */
        return false;
    }
    if (director->findings.fault_count > 0) {
        tell_faults(director);
    }
    return complete;
}

/* Each swarm has its share of those who leave. */
static bool step_churn(struct director *director, const struct step *step)
{
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        const double share =
            (double)director->swarms[i].crowd.count / (double)director->options->clients;

        swarm_order(&director->swarms[i],
                    &(struct swarm_order){ .kind = SWARM_CHURN,
                                           .rate = step->number * share,
                                           .window = (uint32_t)step->entries });
    }
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        while (!swarm_answered(&director->swarms[i])) {
            director_look(director);
        }
    }
    director->churns = true;
    director->quiet = true;
    return true;
}

/* Nobody leaves any more, and all are back: from now on a loss is one again. */
static void end_churn(struct director *director)
{
    if (director->churns) {
        director->churns = false;
        director->quiet = false;
        director->watch.lost_count = director->counts.lost;
        director->watch.awaited_count = director->counts.lost;
    }
}

static bool step_settle(struct director *director)
{
    director_order_kind(director, SWARM_QUIET);

    const bool settled = judge(director, "settled");

    end_churn(director);
    return settled;
}

static bool step_verify(struct director *director)
{
    const struct crowd_counts before = director->counts;

    director_order_kind(director, SWARM_QUIET);
    director->quiet = true;
    director_order_kind(director, SWARM_REREAD);

    const bool read = await_all(director, "verify");

    director->quiet = false;
    director->watch.lost_count = director->counts.lost;
    director->watch.awaited_count = director->counts.lost;
    HF_ASSERT(director->counts.created >= before.created);
    return read && judge(director, "verified");
}

static bool step_leave(struct director *director)
{
    const uint64_t began_ns = clock_now_ns();

    director->quiet = true;
    director_order_kind(director, SWARM_LEAVE);
    while (director->counts.live > 0 && clock_now_ns() - began_ns < LEAVE_MAX_NS) {
        director_look(director);
    }
    director->quiet = false;
    director->watch.complete = false;
    return true;
}

bool director_step(struct director *director, const struct step *step)
{
    switch (step->kind) {
    case STEP_CONNECT:
        return step_connect(director);
    case STEP_GREET:
    case STEP_WINDOW:
    case STEP_PACE:
        return director_traffic(director, step);
    case STEP_IDLE:
        return step_idle(director, step);
    case STEP_HOLD:
        return step_hold(director);
    case STEP_AWAIT:
        return step_await(director, step);
    case STEP_DROP:
        return step_drop(director);
    case STEP_CHURN:
        return step_churn(director, step);
    case STEP_FLOOD:
        return step_flood(director, step);
    case STEP_SETTLE:
        return step_settle(director);
    case STEP_VERIFY:
        return step_verify(director);
    case STEP_LEAVE:
        return step_leave(director);
    }
    return false;
}

/* What a swarm does when it is told to. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/io/clock.h"
#include "loadgen/swarm_internal.h"

#define CHURN_AWAY_MS_MAX 20000

static uint64_t thread_cpu_ns(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * CLOCK_NS_PER_S + (uint64_t)time.tv_nsec;
}

static void counts_subtract(struct crowd_counts *counts, const struct crowd_counts *less)
{
#define SUBTRACT(name, text) counts->name -= less->name;
    CROWD_COUNTS(SUBTRACT)
#undef SUBTRACT
}

static void connect_all(struct swarm *swarm, uint32_t full)
{
    swarm->full_left = full;
    for (uint32_t i = 0; i < swarm->crowd.count; i++) {
        struct client *client = &swarm->crowd.clients[i];

        if ((client->flags & CLIENT_WANTED) != 0) {
            continue;
        }
        client->flags |= CLIENT_WANTED;
        if (client->state == CLIENT_AWAY && !timers_running(&swarm->timers, i)) {
            swarm_enqueue(swarm, i);
        }
    }
}

static void keep_windows(struct swarm *swarm, uint32_t window)
{
    swarm->crowd.window = (uint16_t)window;
    for (uint32_t i = 0; i < swarm->crowd.count; i++) {
        struct client *client = &swarm->crowd.clients[i];

        if (!client_sends(&swarm->crowd, client)) {
            continue;
        }
        while (client->pending_count < window &&
               client_create(&swarm->crowd, client, swarm->crowd.now_ns)) {
        }
        swarm_flush(swarm, i);
    }
}

static void pace(struct swarm *swarm, const struct swarm_order *order)
{
    const uint32_t senders = swarm->crowd.users / (swarm->crowd.one_way ? 2 : 1);

    schedule_init(&swarm->schedule, order->rate, senders, order->start_ns, order->count_max,
                  swarm->options.common->late_ns);
    swarm->paced = true;
}

static void be_quiet(struct swarm *swarm)
{
    swarm->crowd.window = 0;
    swarm->paced = false;
}

static void begin_churn(struct swarm *swarm, const struct swarm_order *order)
{
    swarm->churn_rate = order->rate;
    swarm->churn_due_ns = swarm->crowd.now_ns;
    swarm->crowd.page_n = (uint16_t)order->window;
    swarm->crowd.churned = true;
}

/* How it leaves is left to chance: it says so, or is just gone. */
static void leave_for_a_while(struct swarm *swarm, uint32_t client)
{
    struct client *one = &swarm->crowd.clients[client];

    if (one->state != CLIENT_LIVE || (one->flags & CLIENT_CURRENT) == 0) {
        return; /* it is away already */
    }
    one->flags |= CLIENT_CHURNED;
    one->wait_min_ms = 0;
    one->wait_max_ms = CHURN_AWAY_MS_MAX;
    swarm->crowd.counts.churned++;
    if ((swarm->random >> 32 & 1) != 0) {
        swarm_lose(swarm, client);
        return;
    }
    one->state = CLIENT_LEAVING;
    one->resume_at_ns = swarm->crowd.now_ns + CLOCK_NS_PER_S;
    swarm_flush(swarm, client);
}

void swarm_churn(struct swarm *swarm)
{
    const uint64_t interval_ns = (uint64_t)(1e9 / swarm->churn_rate);

    while (swarm->churn_due_ns <= swarm->crowd.now_ns) {
        swarm->churn_due_ns += interval_ns;
        swarm->random = id_mix(swarm->random + 1);
        leave_for_a_while(swarm, (uint32_t)(swarm->random % swarm->crowd.count));
    }
}

static void mark(struct swarm *swarm)
{
    swarm->mark = (struct swarm_measure){
        .counts = swarm->crowd.counts,
        .ns = swarm->crowd.now_ns,
        .cpu_ns = thread_cpu_ns(),
    };
    swarm->schedule.late_max_ns = 0;
    histogram_init(&swarm->crowd.accepted);
    histogram_init(&swarm->crowd.delivered);
}

static void measure(struct swarm *swarm)
{
    swarm->measured = (struct swarm_measure){
        .counts = swarm->crowd.counts,
        .ns = swarm->crowd.now_ns - swarm->mark.ns,
        .cpu_ns = thread_cpu_ns() - swarm->mark.cpu_ns,
        .late_max_ns = swarm->schedule.late_max_ns,
    };
    memcpy(swarm->measured.fault_text, swarm->shakes.fault_text, sizeof swarm->measured.fault_text);
    counts_subtract(&swarm->measured.counts, &swarm->mark.counts);
}

static void drop_all(struct swarm *swarm, bool reread)
{
    if (reread) {
        ledger_clear(&swarm->crowd.ledger);
    }
    for (uint32_t i = 0; i < swarm->crowd.count; i++) {
        struct client *client = &swarm->crowd.clients[i];

        if (reread) {
            client->flags |= CLIENT_AT_ONCE; /* no storm is meant */
        }
        swarm_lose(swarm, i);
        if (reread) {
            client_reread(&swarm->crowd, client);
        }
    }
}

/* One call a line: several swarms write at once, and stdio keeps lines whole. */
static void write_ledger(const struct swarm *swarm, const struct client *client)
{
    const struct client *sender = client_sender(&swarm->crowd, client);
    const struct client *peer = client_peer(&swarm->crowd, client);

    (void)fprintf(swarm->options.common->ledger_file,
                  "{\"user\":%" PRIu64 ",\"device\":%u,\"peer\":%" PRIu64
                  ",\"created\":%u,\"unanswered\":%u,\"own_in_log\":%u,\"peer_created\":%u,"
                  "\"peer_in_log\":%u,\"epoch\":%" PRIu64 ",\"seq\":%" PRIu64 "}\n",
                  client->user, client_device(&swarm->crowd, client), peer->user, sender->created,
                  sender->pending_count, client->own_seen, peer->created, client->peer_seen,
                  client->epoch, client->seq);
}

static void audit(struct swarm *swarm)
{
    for (uint32_t i = 0; i < swarm->crowd.count; i++) {
        client_audit(&swarm->crowd, &swarm->crowd.clients[i]);
        if (swarm->options.common->ledger_file != NULL) {
            write_ledger(swarm, &swarm->crowd.clients[i]);
        }
    }
    swarm->findings = swarm->crowd.ledger;
    swarm->findings.passed = NULL; /* it stays the crowd's */
    swarm->findings.passed_count = 0;
}

static void leave(struct swarm *swarm)
{
    be_quiet(swarm);
    swarm->churn_rate = 0;
    for (uint32_t i = 0; i < swarm->crowd.count; i++) {
        struct client *client = &swarm->crowd.clients[i];

        client->flags &= (uint16_t)~CLIENT_WANTED;
        if (client->state == CLIENT_LIVE) {
            client->state = CLIENT_LEAVING;
            client->resume_at_ns = swarm->crowd.now_ns + CLOCK_NS_PER_S;
            swarm_flush(swarm, i);
        } else if (client->state == CLIENT_AWAY) {
            timers_cancel(&swarm->timers, i);
        } else {
            swarm_lose(swarm, i);
        }
    }
}

void swarm_obey(struct swarm *swarm, const struct swarm_order *order)
{
    switch (order->kind) {
    case SWARM_CONNECT:
        connect_all(swarm, order->full);
        break;
    case SWARM_WINDOW:
        be_quiet(swarm);
        keep_windows(swarm, order->window);
        break;
    case SWARM_PACE:
        be_quiet(swarm);
        pace(swarm, order);
        break;
    case SWARM_QUIET:
        be_quiet(swarm);
        swarm->churn_rate = 0;
        break;
    case SWARM_CHURN:
        begin_churn(swarm, order);
        break;
    case SWARM_MARK:
        mark(swarm);
        break;
    case SWARM_MEASURE:
        measure(swarm);
        break;
    case SWARM_COLLECT:
        swarm->accepted = swarm->crowd.accepted;
        swarm->delivered = swarm->crowd.delivered;
        break;
    case SWARM_DROP:
        drop_all(swarm, false);
        break;
    case SWARM_REREAD:
        drop_all(swarm, true);
        break;
    case SWARM_AUDIT:
        audit(swarm);
        break;
    case SWARM_LEAVE:
        leave(swarm);
        break;
    case SWARM_FLOOD:
        swarm->flood = order->window != 0;
        connect_all(swarm, order->full);
        break;
    case SWARM_QUIT:
        swarm->quit = true;
        break;
    }
}

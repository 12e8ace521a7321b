#include "loadgen/swarm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sysexits.h>
#include <time.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/thread.h"
#include "loadgen/swarm_internal.h"

#define NAP_NS_MAX         (20 * CLOCK_NS_PER_MS) /* until an order is seen */
#define EVENTS_A_TURN      256
#define TIMERS_A_TURN      4096
#define RECV_BUFFER_BYTES  4096
#define RECV_BUFFERS_BYTES (8U << 20)
#define BUSY_CLIENTS_MAX   16384
#define PENDING_MAX        (4U << 20)

/* ---- open and close */

static bool open_crowd(struct swarm *swarm, struct hf_error *error)
{
    const struct swarm_options *options = &swarm->options;
    const struct swarm_common *common = options->common;
    const uint32_t clients = options->user_count * common->devices;
    const uint64_t pending = (uint64_t)options->user_count * SENDS_OUTSTANDING_MAX;
    const struct crowd_options crowd_options = {
        .users = options->user_count,
        .devices = common->devices,
        .body_bytes = common->body_bytes,
        .gather = common->gather,
        .one_way = common->one_way,
        .pending = (uint32_t)(pending < PENDING_MAX ? pending : PENDING_MAX),
        .busy = clients < BUSY_CLIENTS_MAX ? clients : BUSY_CLIENTS_MAX,
        .run = &common->run,
    };

    if (!crowd_open(&swarm->crowd, &crowd_options, error)) {
        return false;
    }
    for (uint32_t i = 0; i < clients; i++) {
        swarm->crowd.clients[i].user = options->users[i / common->devices];
    }
    return true;
}

static bool open_rings(struct swarm *swarm, struct hf_error *error)
{
    const struct swarm_common *common = swarm->options.common;
    const struct ring_group_config config = {
        .files = swarm->crowd.count,
        .recv_buffers_bytes = RECV_BUFFERS_BYTES,
        .recv_buffer_bytes = RECV_BUFFER_BYTES,
        .features = common->features,
    };

    return ring_group_open(&swarm->group, &config, error);
}

bool swarm_open(struct swarm *swarm, const struct swarm_options *options, struct hf_error *error)
{
    const struct swarm_common *common = options->common;
    const uint32_t share = common->handshakes / common->swarm_count;
    const struct shakes_options shakes_options = {
        .places =
            (uint16_t)(share + (options->index < common->handshakes % common->swarm_count ? 1 : 0)),
        .ca = common->ca,
        .server_name = common->server_name,
        .psk_ke = common->psk_ke,
    };

    memset(swarm, 0, sizeof *swarm);
    swarm->options = *options;
    swarm->random = id_mix(common->run.nonce_words[0] + options->index);
    histogram_init(&swarm->accepted);
    histogram_init(&swarm->delivered);
    if (!open_crowd(swarm, error) || !open_rings(swarm, error) ||
        !timers_open(&swarm->timers, swarm->crowd.count, SWARM_TICK_NS, clock_now_ns(), error) ||
        !shakes_open(&swarm->shakes, &shakes_options, error)) {
        hf_error_prepend(error, "thread %u", options->index + 1);
        swarm_close(swarm);
        return false;
    }
    swarm->queue = calloc(swarm->crowd.count, sizeof *swarm->queue);
    if (swarm->queue == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "queue of dials");
        swarm_close(swarm);
        return false;
    }
    return true;
}

void swarm_close(struct swarm *swarm)
{
    HF_ASSERT(!swarm->started);
    if (swarm->group.rings != NULL) {
        ring_group_close(&swarm->group);
    }
    shakes_close(&swarm->shakes);
    timers_close(&swarm->timers);
    free(swarm->queue);
    swarm->queue = NULL;
    crowd_close(&swarm->crowd);
}

/* ---- the thread */

static void publish(struct swarm *swarm)
{
    struct crowd_counts *counts = &swarm->crowd.counts;

    counts->faults = swarm->crowd.ledger.fault_count;
#define PUBLISH(name, text)                                                                        \
    atomic_store_explicit(&swarm->counts[SWARM_COUNT_##name], counts->name, memory_order_relaxed);
    CROWD_COUNTS(PUBLISH)
#undef PUBLISH
}

static void take_order(struct swarm *swarm)
{
    const uint32_t number = atomic_load_explicit(&swarm->order_number, memory_order_acquire);

    if (number == atomic_load_explicit(&swarm->answer_number, memory_order_relaxed)) {
        return;
    }
    swarm_obey(swarm, &swarm->order);
    publish(swarm);
    /* Pairs with swarm_answered. */
    atomic_store_explicit(&swarm->answer_number, number, memory_order_release);
}

static void take_timers(struct swarm *swarm)
{
    uint32_t budget = TIMERS_A_TURN;

    for (;;) {
        const uint32_t client = timers_take_expired(&swarm->timers, swarm->crowd.now_ns, &budget);

        if (client == TIMERS_NONE) {
            return;
        }

        struct client *one = &swarm->crowd.clients[client];

        if (one->state == CLIENT_AWAY) {
            swarm_enqueue(swarm, client);
        } else if (one->state == CLIENT_DIALING || one->state == CLIENT_GREETING) {
            swarm->crowd.counts.timed_out++;
            swarm_lose(swarm, client);
        } else if (one->state == CLIENT_LIVE || one->state == CLIENT_LEAVING) {
            if (client_on_timer(&swarm->crowd, one) != CLIENT_GOES_ON) {
                swarm_lose(swarm, client);
            } else {
                timers_set(&swarm->timers, client, client_timer_ns(&swarm->crowd, one));
                swarm_flush(swarm, client);
            }
        }
    }
}

/* The n-th sender of this swarm. */
static uint32_t sender_at(const struct swarm *swarm, uint32_t n)
{
    return n * (swarm->crowd.one_way ? 2 : 1) * swarm->crowd.devices;
}

static void take_schedule(struct swarm *swarm)
{
    uint32_t sender;
    uint64_t intended_ns;

    for (uint32_t i = 0; i < EVENTS_A_TURN; i++) {
        if (!schedule_take(&swarm->schedule, swarm->crowd.now_ns, &sender, &intended_ns)) {
            break;
        }

        const uint32_t client = sender_at(swarm, sender);

        if (client_create(&swarm->crowd, &swarm->crowd.clients[client], intended_ns)) {
            swarm_flush(swarm, client);
        }
    }
    swarm->crowd.counts.late = swarm->schedule.late_count;
}

static uint64_t nap_ns(const struct swarm *swarm, uint64_t dial_ns)
{
    const uint64_t now_ns = swarm->crowd.now_ns;
    uint64_t nap = timers_wait_ns(&swarm->timers, now_ns);
    uint64_t until_ns = dial_ns;

    if (swarm->paced && schedule_next_ns(&swarm->schedule) < until_ns) {
        until_ns = schedule_next_ns(&swarm->schedule);
    }
    if (until_ns <= now_ns) {
        return 0;
    }
    nap = nap < until_ns - now_ns ? nap : until_ns - now_ns;
    return nap < NAP_NS_MAX ? nap : NAP_NS_MAX;
}

static void turn(struct swarm *swarm)
{
    struct ring_event event;

    swarm->crowd.now_ns = clock_now_ns();
    swarm->now_unix_ms = clock_unix_ms();
    take_order(swarm);
    take_timers(swarm);
    if (swarm->paced) {
        take_schedule(swarm);
    }
    if (swarm->churn_rate > 0) {
        swarm_churn(swarm);
    }
    ring_group_turn(&swarm->group, nap_ns(swarm, swarm_dial(swarm)));
    for (uint32_t i = 0; i < EVENTS_A_TURN; i++) {
        if (!ring_group_take(&swarm->group, &event)) {
            break;
        }
        swarm_on_event(swarm, &event);
    }
    publish(swarm);
}

static bool prepare_thread(struct swarm *swarm)
{
    char name[16];

    (void)snprintf(name, sizeof name, "swarm-%u", swarm->options.index);
    thread_set_name(name);
    thread_set_urgent();
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* or a schedule is 50 us late by itself */
    return (swarm->options.cpu < 0 ||
            thread_pin((uint32_t)swarm->options.cpu, &swarm->start_error)) &&
           ring_group_enable(&swarm->group, &swarm->start_error);
}

static void *run(void *argument)
{
    struct swarm *swarm = argument;
    const bool runs = prepare_thread(swarm);

    /* Pairs with swarm_start. */
    atomic_store_explicit(&swarm->readiness, runs ? SWARM_RUNS : SWARM_FAILED,
                          memory_order_release);
    while (runs && !swarm->quit) {
        turn(swarm);
    }
    return NULL;
}

/* ---- the director's side */

bool swarm_start(struct swarm *swarm, struct hf_error *error)
{
    const int result = pthread_create(&swarm->thread, NULL, run, swarm);
    uint32_t readiness;

    if (result != 0) {
        hf_error_set(error, EX_OSERR, result, "thread");
        return false;
    }
    while ((readiness = atomic_load_explicit(&swarm->readiness, memory_order_acquire)) ==
           SWARM_STARTING) {
        (void)poll(NULL, 0, 1);
    }
    if (readiness == SWARM_FAILED) {
        *error = swarm->start_error;
        hf_error_prepend(error, "thread %u", swarm->options.index + 1);
        (void)pthread_join(swarm->thread, NULL);
        return false;
    }
    swarm->started = true;
    return true;
}

void swarm_order(struct swarm *swarm, const struct swarm_order *order)
{
    HF_ASSERT(swarm_answered(swarm));
    swarm->order = *order;
    /* Pairs with take_order. */
    atomic_fetch_add_explicit(&swarm->order_number, 1, memory_order_release);
}

bool swarm_answered(const struct swarm *swarm)
{
    return atomic_load_explicit(&swarm->answer_number, memory_order_acquire) ==
           atomic_load_explicit(&swarm->order_number, memory_order_relaxed);
}

uint64_t swarm_count(const struct swarm *swarm, enum swarm_count count)
{
    return atomic_load_explicit(&swarm->counts[count], memory_order_relaxed);
}

void swarm_stop(struct swarm *swarm)
{
    const struct swarm_order quit = { .kind = SWARM_QUIT };

    if (!swarm->started) {
        return;
    }
    swarm_order(swarm, &quit);
    (void)pthread_join(swarm->thread, NULL);
    swarm->started = false;
}

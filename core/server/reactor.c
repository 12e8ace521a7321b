#include "core/server/reactor_internal.h"

#include <stdlib.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/io/thread.h"

#define RECV_BUFFER_BYTES  4096
#define RECV_BUFFERS_BYTES (2 << 20)
#define KEYED_CONTEXTS     1024
#define TICK_NS            (100 * CLOCK_NS_PER_MS)
#define EVENTS_A_TURN      4096
#define SLEEP_NS_MAX       (250 * CLOCK_NS_PER_MS)

bool slot_queue_open(struct slot_queue *queue, uint32_t capacity)
{
    uint32_t power = 16;

    while (power < capacity) {
        power *= 2;
    }
    *queue = (struct slot_queue){ .capacity = power };
    queue->slots = calloc(power, sizeof *queue->slots);
    return queue->slots != NULL;
}

void slot_queue_close(struct slot_queue *queue)
{
    free(queue->slots);
    queue->slots = NULL;
}

void slot_queue_put(struct slot_queue *queue, uint32_t slot)
{
    HF_ASSERT(queue->count < queue->capacity);
    queue->slots[(queue->head + queue->count) & (queue->capacity - 1)] = slot;
    queue->count++;
}

uint32_t slot_queue_take(struct slot_queue *queue)
{
    if (queue->count == 0) {
        return SLAB_NONE;
    }

    const uint32_t slot = queue->slots[queue->head];

    queue->head = (queue->head + 1) & (queue->capacity - 1);
    if (--queue->count == 0) {
        queue->head = 0; /* so that only as much of the ring is touched as was ever filled */
    }
    return slot;
}

/* ---- opening */

static uint32_t share_of(const struct reactor_options *options)
{
    const uint32_t cores = options->post->core_count;
    const uint64_t all = options->config->max_connections;

    /* Users aren't spread quite evenly over the cores: an eighth more, where there are several. */
    return (uint32_t)((all + cores - 1) / cores + (cores > 1 ? all / cores / 8 + 64 : 0));
}

static struct engine *open_engine(const struct reactor_options *options, uint32_t share,
                                  struct hf_error *error)
{
    const struct config *config = options->config;
    const struct engine_config engine = {
        .users_max = share + share / 4 + 4096,
        .devices_max = share + share / 2 + 8192,
        .heads_max = 32768,
        .outcomes_max = 40960,
        .sessions_max = share,
        .pending_max = 16384,
        .outs_max = 12288,
        .links_max = 12288,
        .loads_max = STORAGE_LOADS_MAX,
        .recent_bytes = config->recent_bytes,
        .effect_bytes = REACTOR_EFFECT_BYTES,
        .retention_count = config->retention_count,
        .epoch_min = options->epoch_min,
        .hash_seed = options->hash_seed,
        .out_quota = (uint32_t)config->out_quota,
        .term = options->incarnation,
        .window_bytes_max = (uint32_t)config->window_bytes_max,
        .accept_unknown_users = config->accept_unknown_users,
        .touch = true,
    };

    return engine_open(&engine, error);
}

static bool open_io(struct reactor *reactor, const struct reactor_options *options, uint32_t share,
                    struct hf_error *error)
{
    const struct ring_group_config group = {
        .files = share,
        .recv_buffers_bytes = RECV_BUFFERS_BYTES,
        .recv_buffer_bytes = RECV_BUFFER_BYTES,
        .features = options->features,
    };
    /* A busy connection holds a cell for output; few hold one for a partial record. */
    const uint32_t cells[CELL_CLASSES] = { 2048, 576, 128 };
    const uint32_t input_cells[CELL_CLASSES] = { 768, 128, 40 };
    const uint32_t stream_cells[CELL_CLASSES] = POST_STREAM_CELLS;

    return ring_group_open(&reactor->group, &group, error) &&
           slab_open(&reactor->conns, sizeof(struct conn), share, 0, error) &&
           timers_open(&reactor->timers, share, TICK_NS, reactor->start_ns, error) &&
           cells_noted_open(&reactor->cells, cells, error) &&
           cells_noted_open(&reactor->input_cells, input_cells, error) &&
           cells_open(&reactor->stream_cells, stream_cells, error) &&
           tls_core_open(&reactor->tls, KEYED_CONTEXTS, error) == 0;
}

static bool queues_open(struct reactor *reactor, uint32_t share, struct hf_error *error)
{
    reactor->streams = calloc(reactor->post->core_count, sizeof *reactor->streams);
    reactor->tokens = calloc(REACTOR_TOKENS, TOKEN_BYTES_MAX);
    if (reactor->streams == NULL || reactor->tokens == NULL ||
        !slot_queue_open(&reactor->dirty, share) || !slot_queue_open(&reactor->again, share) ||
        !slot_queue_open(&reactor->roomless, share) ||
        !slot_queue_open(&reactor->cellless, share) || !slot_queue_open(&reactor->forget, share) ||
        !slot_queue_open(&reactor->leaving, share)) {
        hf_error_set(error, EX_OSERR, 0, "no memory");
        return false;
    }
    return true;
}

struct reactor *reactor_open(const struct reactor_options *options, struct hf_error *error)
{
    struct reactor *reactor = aligned_alloc(64, (sizeof *reactor + 63) / 64 * 64);
    const uint32_t share = share_of(options);

    if (reactor == NULL) {
        hf_error_set(error, EX_OSERR, 0, "reactor: no memory");
        return NULL;
    }
    memset(reactor, 0, sizeof *reactor);
    reactor->config = options->config;
    reactor->post = options->post;
    reactor->mail = &options->post->cores[options->index];
    reactor->storage = options->storage;
    reactor->core_of_volume = options->core_of_volume;
    reactor->volume_count = options->volume_count;
    reactor->log = options->log;
    reactor->index = options->index;
    reactor->resume = *options->resume;
    reactor->start_ns = clock_now_ns();
    reactor->now_ns = reactor->start_ns;
    reactor->now_s = 1;
    reactor->pools = (struct link_pools){
        .in = { .cells = &reactor->input_cells },
        .out = { .cells = &reactor->cells },
        .tls = &reactor->tls,
    };
    atomic_init(&reactor->empty, true);

    reactor->engine = open_engine(options, share, error);
    if (reactor->engine == NULL || !open_io(reactor, options, share, error) ||
        !queues_open(reactor, share, error) ||
        !storage_open_partitions(reactor->storage, reactor->engine, error)) {
        hf_error_prepend(error, "core %u", options->index);
        reactor_close(reactor);
        return NULL;
    }
    engine_clear_effects(reactor->engine);
    return reactor;
}

void reactor_close(struct reactor *reactor)
{
    if (reactor == NULL) {
        return;
    }
    ring_group_close(&reactor->group);
    for (uint32_t slot = 0; slot < reactor->conns.fresh_; slot++) {
        if (slab_alive(&reactor->conns, slot)) {
            tls_keys_clear(&reactor->tls, &reactor_conn(reactor, slot)->link.keys);
        }
    }
    slab_close(&reactor->conns);
    timers_close(&reactor->timers);
    cells_close(&reactor->cells);
    cells_close(&reactor->input_cells);
    cells_close(&reactor->stream_cells);
    tls_core_close(&reactor->tls);
    resume_ring_clear(&reactor->resume);
    if (reactor->engine != NULL) {
        engine_close(reactor->engine);
    }
    slot_queue_close(&reactor->dirty);
    slot_queue_close(&reactor->again);
    slot_queue_close(&reactor->roomless);
    slot_queue_close(&reactor->cellless);
    slot_queue_close(&reactor->forget);
    slot_queue_close(&reactor->leaving);
    free(reactor->streams);
    free(reactor->tokens);
    free(reactor);
}

const struct reactor_stats *reactor_get_stats(const struct reactor *reactor)
{
    return &reactor->stats;
}

bool reactor_is_empty(const struct reactor *reactor)
{
    return atomic_load_explicit(&reactor->empty, memory_order_acquire);
}

/* ---- turning */

static void on_written(struct reactor *reactor, const struct ring_event *event)
{
    uint64_t ticket;

    if (storage_on_written(reactor->storage, event, &ticket)) {
        engine_on_durable(reactor->engine, ticket);
        reactor_take_effects(reactor);
    }
}

static void on_bell(struct reactor *reactor, const struct ring_event *event)
{
    if (!ring_event_more(event)) {
        ring_poll_fd(&reactor->group.rings[0], reactor->mail->reactor_bell.fd,
                     ring_tag(OP_BELL, 0, 0));
    }
}

static void on_event(struct reactor *reactor, struct ring_event *event)
{
    switch ((enum reactor_op)ring_tag_op(event->tag)) {
    case OP_POLL:
        reactor_on_poll(reactor, event);
        return;
    case OP_RECV:
        reactor_on_recv(reactor, event);
        return;
    case OP_SEND:
        reactor_on_send(reactor, event);
        return;
    case OP_CLOSE:
        reactor_on_close(reactor, event);
        return;
    case OP_ADOPTED:
        reactor_on_adopted(reactor, event);
        return;
    case OP_BELL:
        on_bell(reactor, event);
        return;
    case OP_JOURNAL:
        on_written(reactor, event);
        return;
    case OP_NONE:
        return;
    }
}

static void read_clocks(struct reactor *reactor)
{
    reactor->now_ns = clock_now_ns();
    reactor->now_unix_ms = clock_unix_ms();
    reactor->now_s = (uint32_t)((reactor->now_ns - reactor->start_ns) / CLOCK_NS_PER_S) + 1;
}

static void publish_stats(struct reactor *reactor)
{
    struct engine_stats engine;
    struct reactor_stats *stats = &reactor->stats;

    engine_get_stats(reactor->engine, &engine);
    stat_set(&stats->messages_accepted, engine.messages_accepted);
    stat_set(&stats->entries_pushed, engine.entries_pushed);
    stat_set(&stats->sends_refused, engine.sends_refused);
    stat_set(&stats->streams_sent, engine.streams_sent);
    stat_set(&stats->streams_received, engine.streams_received);
    stat_set(&stats->loads, engine.loads);
    stat_set(&stats->loads_repeated, engine.loads_repeated);
    stat_set(&stats->catchups, engine.catchups_from_store);
    stat_set(&stats->replaced, engine.replaced);
    stat_set(&stats->conflicts, engine.conflicts);
    stat_set(&stats->hellos_resumed, engine.hellos_resumed);
    stat_set(&stats->hellos_reset, engine.hellos_reset);
    stat_set(&stats->trimmed_by_count, engine.trimmed_by_count);
    stat_set(&stats->trimmed_by_age, engine.trimmed_by_age);
    stat_set(&stats->users_cached, engine.users);
    stat_set(&stats->heads_cached, engine.heads);
    stat_set(&stats->outs, engine.outs);
    stat_add(&stats->turns, 1);
    atomic_store_explicit(&reactor->empty, reactor->conns.in_use == 0, memory_order_release);
}

/* How long the thread may sleep when nothing comes. */
static uint64_t sleep_ns(struct reactor *reactor)
{
    if (reactor->stopping || reactor->engine_has_more || reactor->again.count != 0 ||
        reactor->dirty.count != 0) {
        return 0;
    }

    uint64_t wait_ns = timers_wait_ns(&reactor->timers, reactor->now_ns);
    const uint64_t storage_ns = storage_wait_ns(reactor->storage, reactor->now_ns);

    wait_ns = storage_ns < wait_ns ? storage_ns : wait_ns;
    /* The sweep, and what waits for another thread's mailbox. */
    return wait_ns < SLEEP_NS_MAX ? wait_ns : SLEEP_NS_MAX;
}

static void say_full(struct reactor *reactor)
{
    bool full;

    if (!storage_full_changed(reactor->storage, &full)) {
        return;
    }
    stat_set(&reactor->stats.disk_full, full);
    if (full) {
        log_event(reactor->log, LOG_ERROR, "disk_full",
                  "note=\"the journal can't be emptied: when it is three quarters full, messages "
                  "are refused until there is room\"");
    } else {
        log_event(reactor->log, LOG_INFO, "disk_has_room", "%s", "");
    }
}

static void turn(struct reactor *reactor)
{
    struct ring_event event;
    struct engine_budget budget;

    read_clocks(reactor);
    storage_get_budget(reactor->storage, &budget);
    reactor->room_bytes =
        budget.refuse_sends || budget.only_streams ? UINT64_MAX : budget.append_bytes;
    budget.stream_frames = reactor_stream_room(reactor);
    engine_begin_turn(reactor->engine, reactor->now_unix_ms, &budget);
    for (uint32_t n = 0; n < EVENTS_A_TURN && ring_group_take(&reactor->group, &event); n++) {
        on_event(reactor, &event);
    }
    reactor_take_mail(reactor);
    reactor_run_timers(reactor);
    reactor_yield_cells(reactor);
    reactor_release_cellless(reactor);
    reactor_release_roomless(reactor);
    reactor_run_again(reactor);
    reactor_run_engine(reactor);
    storage_pump(reactor->storage, &reactor->group.rings[0], ring_tag(OP_JOURNAL, 0, 0),
                 reactor->now_ns, &reactor->stats);
    reactor_send_dirty(reactor);
    say_full(reactor);
    publish_stats(reactor);

    const uint64_t pause_ns = storage_pause_ns(reactor->storage, clock_now_ns() - reactor->now_ns);

    if (pause_ns != 0) {
        ring_group_turn(&reactor->group, 0); /* what was prepared goes out first */
        thread_rest(pause_ns);
        return;
    }

    const uint64_t wait_ns = sleep_ns(reactor);

    if (wait_ns == 0) {
        ring_group_turn(&reactor->group, 0);
        return;
    }
    bell_prepare(&reactor->mail->reactor_bell);
    ring_group_turn(&reactor->group, reactor_mail_waits(reactor) ? 0 : wait_ns);
    bell_cancel(&reactor->mail->reactor_bell);
}

void *reactor_run(void *argument)
{
    struct reactor *reactor = argument;
    struct hf_error error;

    thread_set_name("hf-reactor");
    thread_set_urgent();
    if (reactor->config->pin_cores && !thread_pin(thread_nth_cpu(reactor->index), &error)) {
        log_event(reactor->log, LOG_WARNING, "not_pinned", "core=%u reason=\"%s\"", reactor->index,
                  error.text);
    }
    if (!ring_group_enable(&reactor->group, &error)) {
        /* At once: the process ends before anybody writes this thread's log. */
        log_fatal("ring_failed", "thread=reactor core=%u reason=\"%s\"", reactor->index,
                  error.text);
        return NULL;
    }
    ring_poll_fd(&reactor->group.rings[0], reactor->mail->reactor_bell.fd, ring_tag(OP_BELL, 0, 0));
    while (!reactor->stopping || !storage_is_idle(reactor->storage)) {
        turn(reactor);
    }
    return NULL;
}

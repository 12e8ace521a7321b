#include "core/server/door_internal.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/thread.h"

#define TICK_NS           (10 * CLOCK_NS_PER_MS)
#define SLOTS_WAITING     4096 /* beyond handshakes_max: what one enter may take from a backlog */
#define SLOTS_WAITING_MIN 16
#define RECV_BUFFERS      64
#define RECV_BUFFER_BYTES 4096
#define KEYED_CONTEXTS    64
#define REARM_NS          (100 * CLOCK_NS_PER_MS)
#define TICKETS           1
#define WORK_A_TURN       16 /* each may be a millisecond of public-key cryptography */
#define TRIM_PEAK         32 /* handshakes at once that leave memory worth giving back */
#define TRIM_CALM_NS      CLOCK_NS_PER_S
#define DOOR_NICE         15 /* a thirtieth of a CPU that is needed for who is in already */
#define ACCEPTED_AT_STEP  64 /* the low bits are the core's: no two sockets are of one instant */

_Static_assert(POST_CORES_MAX <= ACCEPTED_AT_STEP, "else cores share an instant");

bool door_bytes_reserve(struct door_bytes *bytes, uint32_t more)
{
    uint32_t capacity = bytes->capacity == 0 ? 1024 : bytes->capacity;

    if (bytes->capacity - bytes->byte_count >= more) {
        return true;
    }
    while (capacity - bytes->byte_count < more) {
        capacity *= 2;
    }

    uint8_t *grown = malloc(capacity);

    if (grown == NULL) {
        return false;
    }
    if (bytes->byte_count != 0) {
        memcpy(grown, bytes->bytes, bytes->byte_count);
        explicit_bzero(bytes->bytes, bytes->byte_count);
    }
    free(bytes->bytes);
    bytes->bytes = grown;
    bytes->capacity = capacity;
    return true;
}

void door_bytes_skip(struct door_bytes *bytes, uint32_t byte_count)
{
    HF_ASSERT(byte_count <= bytes->byte_count);
    bytes->byte_count -= byte_count;
    memmove(bytes->bytes, bytes->bytes + byte_count, bytes->byte_count);
}

void door_bytes_free(struct door_bytes *bytes)
{
    if (bytes->bytes != NULL) {
        explicit_bzero(bytes->bytes, bytes->capacity);
        free(bytes->bytes);
    }
    *bytes = (struct door_bytes){ 0 };
}

/* ---- opening */

static struct door_identity *open_identity(const struct credentials *credentials,
                                           const struct config *config, struct hf_error *error)
{
    const struct tls_server_options options = {
        .certificate = &credentials->certificate,
        .key = &credentials->key,
        .tickets_per_handshake = TICKETS,
        .psk_ke = config->tls_psk_ke,
    };
    struct door_identity *identity = calloc(1, sizeof *identity);

    if (identity == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory");
        return NULL;
    }
    identity->users = 1;
    identity->server = tls_server_open(&options, error);
    if (identity->server == NULL) {
        free(identity);
        return NULL;
    }
    return identity;
}

void door_identity_drop(struct door_identity *identity)
{
    if (identity != NULL && --identity->users == 0) {
        tls_server_close(identity->server);
        free(identity);
    }
}

/* One slot in the ring's table each; the table can't be larger than RLIMIT_NOFILE. */
static bool count_slots(const struct config *config, uint32_t *slots, struct hf_error *error)
{
    const uint64_t needed = config->handshakes_max + SLOTS_WAITING_MIN;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < needed) {
        hf_error_set(
            error, EX_OSERR, 0,
            "handshakes_max = %llu needs an open-file limit (RLIMIT_NOFILE) of %llu or more",
            (unsigned long long)config->handshakes_max, (unsigned long long)needed);
        return false;
    }
    const uint64_t wanted = config->handshakes_max + SLOTS_WAITING;

    *slots = (uint32_t)(wanted < limit.rlim_cur ? wanted : limit.rlim_cur);
    return true;
}

static bool open_io(struct door *door, const struct door_options *options, struct hf_error *error)
{
    uint32_t slots;

    if (!count_slots(options->config, &slots, error)) {
        return false;
    }

    const struct ring_config ring = { .files = slots, .features = options->features };

    return ring_open(&door->ring, &ring, error) &&
           recv_buffers_open(&door->recv_buffers, &door->ring, DOOR_BUFFER_GROUP, RECV_BUFFERS,
                             RECV_BUFFER_BYTES, error) &&
           slab_open(&door->conns, sizeof(struct door_conn), slots, 0, error) &&
           timers_open(&door->timers, slots, TICK_NS, door->now_ns, error) &&
           tls_core_open(&door->tls, KEYED_CONTEXTS, error) == 0 &&
           door_queue_open(&door->work, slots, error);
}

bool door_queue_open(struct door_queue *queue, uint32_t capacity, struct hf_error *error)
{
    queue->slots = calloc(capacity, sizeof *queue->slots);
    queue->capacity = capacity;
    if (queue->slots == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory");
        return false;
    }
    return true;
}

void door_queue_put(struct door_queue *queue, uint32_t slot)
{
    HF_ASSERT(queue->count < queue->capacity);
    queue->slots[(queue->first + queue->count) % queue->capacity] = slot;
    queue->count++;
}

uint32_t door_queue_take(struct door_queue *queue)
{
    HF_ASSERT(queue->count > 0);

    const uint32_t slot = queue->slots[queue->first];

    queue->first = (queue->first + 1) % queue->capacity;
    queue->count--;
    return slot;
}

struct door *door_open(const struct door_options *options, struct hf_error *error)
{
    struct door *door = aligned_alloc(64, (sizeof *door + 63) / 64 * 64);
    const uint64_t cores = options->post->core_count;

    if (door == NULL) {
        hf_error_set(error, EX_OSERR, 0, "door %u: no memory", options->index);
        for (uint32_t i = 0; i < options->listener_count; i++) {
            (void)close(options->listeners[i]);
        }
        return NULL;
    }
    memset(door, 0, sizeof *door);
    door->config = options->config;
    door->post = options->post;
    door->mail = &options->post->cores[options->index];
    door->log = options->log;
    door->core_of_volume = options->core_of_volume;
    door->volume_count = options->volume_count;
    door->index = options->index;
    door->address_max = (options->config->connections_per_address_max + cores - 1) / cores;
    door->now_ns = clock_now_ns();
    door->waiting_first = SLAB_NONE;
    door->waiting_last = SLAB_NONE;
    atomic_init(&door->listening, false);
    for (uint32_t i = 0; i < options->listener_count; i++) {
        door->listeners[i].fd = options->listeners[i];
    }
    door->listener_count = options->listener_count;

    door->login_keys = options->credentials->login_keys;
    door->resume = options->credentials->resume;
    door->certificate_version = options->credentials->certificate_version;
    address_counts_open(&door->addresses, &options->hash_key);
    door->identity = open_identity(options->credentials, options->config, error);
    if (door->identity == NULL ||
        !networks_parse(options->config->proxy_from, &door->proxies, error) ||
        !open_io(door, options, error)) {
        hf_error_prepend(error, "door %u", options->index);
        door_close(door);
        return NULL;
    }
    tls_server_set_tickets(door->identity->server, &options->credentials->tickets);
    return door;
}

bool door_begin_listening(struct door *door, struct hf_error *error)
{
    for (uint32_t i = 0; i < door->listener_count; i++) {
        if (!listen_begin(door->listeners[i].fd, door->config->send_timeout_s, error)) {
            return false;
        }
    }
    return true;
}

static void free_conn(struct door *door, struct door_conn *conn)
{
    tls_handshake_end(conn->handshake);
    conn->handshake = NULL;
    door_identity_drop(conn->identity);
    conn->identity = NULL;
    tls_keys_clear(&door->tls, &conn->keys);
    door_bytes_free(&conn->in);
    door_bytes_free(&conn->plain);
    door_bytes_free(&conn->out);
}

void door_close(struct door *door)
{
    if (door == NULL) {
        return;
    }
    ring_close(&door->ring); /* nothing is in flight from here on */
    recv_buffers_close(&door->recv_buffers);
    for (uint32_t slot = 0; slot < door->conns.fresh_; slot++) {
        if (slab_alive(&door->conns, slot)) {
            free_conn(door, door_conn(door, slot));
            door_free_lent(door_conn(door, slot)->lent);
        }
    }
    for (uint32_t i = 0; i < door->listener_count; i++) {
        if (door->listeners[i].fd >= 0) {
            (void)close(door->listeners[i].fd);
        }
    }
    slab_close(&door->conns);
    timers_close(&door->timers);
    tls_core_close(&door->tls);
    address_counts_close(&door->addresses);
    door_identity_drop(door->identity);
    resume_ring_clear(&door->resume);
    free(door->work.slots);
    free(door);
}

const struct door_stats *door_get_stats(const struct door *door)
{
    return &door->stats;
}

bool door_is_listening(const struct door *door)
{
    return atomic_load_explicit(&door->listening, memory_order_acquire);
}

/* ---- places */

void door_give_place(struct door *door, struct door_conn *conn)
{
    if (conn->busy && !conn->asked && conn->lent == NULL) {
        conn->busy = false;
        door->busy--;
    }
}

void door_leave(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    door_give_place(door, conn);
    if (!conn->closed || conn->asked || conn->lent != NULL || conn->queued) {
        return;
    }
    door_uncount_address(door, conn);
    free_conn(door, conn);
    timers_cancel(&door->timers, slot);
    slab_give(&door->conns, slot);
}

static void take_place(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    conn->busy = true;
    door->busy++;
    conn->state = conn->proxied ? DOOR_PROXIED : DOOR_SHAKING;
    timers_set(&door->timers, slot,
               conn->accepted_at + door->config->handshake_timeout_ms * CLOCK_NS_PER_MS);
    door_receive(door, slot);
}

static void put_waiting(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    conn->state = DOOR_WAITING;
    conn->next_waiting = SLAB_NONE;
    if (door->waiting_first == SLAB_NONE) {
        door->waiting_first = slot;
    } else {
        door_conn(door, door->waiting_last)->next_waiting = slot;
    }
    door->waiting_last = slot;
    door->waiting_count++;
}

static uint32_t take_waiting(struct door *door)
{
    const uint32_t slot = door->waiting_first;

    door->waiting_first = door_conn(door, slot)->next_waiting;
    if (door->waiting_first == SLAB_NONE) {
        door->waiting_last = SLAB_NONE;
    }
    door->waiting_count--;
    return slot;
}

/* They came in order, and all have the same time: the first is the first whose time is over. */
static void drop_late_waiting(struct door *door)
{
    const uint64_t timeout_ns = door->config->handshake_timeout_ms * CLOCK_NS_PER_MS;

    while (door->waiting_first != SLAB_NONE &&
           door->now_ns >= door_conn(door, door->waiting_first)->accepted_at + timeout_ns) {
        stat_add(&door->stats.handshakes_timeout, 1);
        door_kill(door, take_waiting(door));
    }
}

static void admit_waiting(struct door *door)
{
    drop_late_waiting(door);
    while (door->waiting_first != SLAB_NONE && door->busy < door->config->handshakes_max) {
        take_place(door, take_waiting(door));
    }
}

/* ---- accepting */

/* Counted before it is in the table: what is there stays open until its slot's next tenant. */
static bool put_client(struct door *door, int fd, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    if (!conn->proxied && !door_count_address(door, conn)) {
        return false;
    }
    if (ring_put_file(&door->ring, fd, slot) != 0) {
        stat_add(&door->stats.accept_failures, 1);
        door_uncount_address(door, conn);
        return false;
    }
    return true;
}

static uint64_t next_accepted_at(struct door *door)
{
    uint64_t at = clock_now_ns() / ACCEPTED_AT_STEP * ACCEPTED_AT_STEP;

    if (at <= door->last_accepted_at) {
        at = door->last_accepted_at + ACCEPTED_AT_STEP;
    }
    door->last_accepted_at = at;
    return at | door->index;
}

/*
 * Plain descriptors, moved into the table here: for a direct one there's no getpeername. It costs
 * three system calls, a microsecond and a half beside a handshake's thousand. And where descriptors
 * run out, a plain accept leaves the client in the backlog; a direct one has lost it.
 */
static void take_client(struct door *door, int fd)
{
    const uint32_t slot = slab_take(&door->conns);

    stat_add(&door->stats.accepted, 1);
    if (slot == SLAB_NONE) {
        stat_add(&door->stats.limit_waiting, 1);
        (void)close(fd);
        return;
    }

    struct door_conn *conn = door_conn(door, slot);
    socklen_t peer_bytes = sizeof conn->peer;

    /* Else it has gone already. */
    bool good = getpeername(fd, &conn->peer.any, &peer_bytes) == 0;

    conn->proxied = good && networks_have(&door->proxies, &conn->peer.any);
    good = good && put_client(door, fd, slot);
    (void)close(fd);
    if (!good) {
        slab_give(&door->conns, slot);
        return;
    }
    conn->accepted_at = next_accepted_at(door);
    put_waiting(door, slot);
}

static void on_accept(struct door *door, const struct ring_event *event)
{
    const uint32_t i = ring_tag_slot(event->tag);
    struct door_listener *listener = &door->listeners[i];

    HF_ASSERT(i < door->listener_count);
    if (!ring_event_more(event) &&
        ring_tag_generation(event->tag) == (listener->life & SLAB_GENERATION_MASK)) {
        listener->state = LISTENER_IDLE;
        listener->rearm_at_ns = 0;
    }
    if (event->result >= 0) {
        if (door->draining) {
            (void)close(event->result);
        } else {
            take_client(door, event->result);
        }
        return;
    }
    if (event->result == -ECANCELED || event->result == -ECONNABORTED) {
        return;
    }
    stat_add(&door->stats.accept_failures, 1);
    listener->rearm_at_ns = door->now_ns + REARM_NS;
    log_event(door->log, LOG_WARNING, "accept_failed", "errno=%d", -event->result);
}

static uint64_t accept_tag(const struct door *door, uint32_t i)
{
    return ring_tag(DOOR_OP_ACCEPT, i, door->listeners[i].life);
}

/* Stops at the bound, and begins again when an eighth of it is free. */
static void steer_listeners(struct door *door)
{
    const uint64_t max = door->config->handshakes_max;
    const bool full = door->waiting_count != 0 || door->busy >= max;
    const bool roomy = door->waiting_count == 0 && door->busy + max / 8 < max;

    for (uint32_t i = 0; i < door->listener_count; i++) {
        struct door_listener *listener = &door->listeners[i];

        if (listener->state == LISTENER_ARMED && (full || door->draining)) {
            if (full) {
                stat_add(&door->stats.limit_handshakes, 1);
            }
            ring_cancel(&door->ring, accept_tag(door, i), RING_TAG_NONE);
            listener->state = LISTENER_CANCELLING;
        } else if (listener->state == LISTENER_IDLE && roomy && !door->draining &&
                   door->now_ns >= listener->rearm_at_ns) {
            listener->life++;
            listener->state = LISTENER_ARMED;
            ring_accept(&door->ring, listener->fd, accept_tag(door, i));
        }
    }
}

void door_begin_drain(struct door *door)
{
    door->draining = true;
    steer_listeners(door);
    for (uint32_t i = 0; i < door->listener_count; i++) {
        (void)close(door->listeners[i].fd);
        door->listeners[i].fd = -1;
    }
    atomic_store_explicit(&door->listening, false, memory_order_release);
}

void door_reload(struct door *door, struct credentials *credentials)
{
    struct hf_error error;

    if (credentials->certificate_version != door->certificate_version) {
        struct door_identity *identity = open_identity(credentials, door->config, &error);

        if (identity == NULL) {
            log_event(door->log, LOG_ERROR, "reload_failed", "reason=\"%s\"", error.text);
        } else {
            door_identity_drop(door->identity); /* handshakes under way keep theirs */
            door->identity = identity;
            door->certificate_version = credentials->certificate_version;
        }
    }
    tls_server_set_tickets(door->identity->server, &credentials->tickets);
    door->login_keys = credentials->login_keys;
    door->resume = credentials->resume;
    credentials_took(credentials);
}

/* ---- turning */

static void on_event(struct door *door, const struct ring_event *event)
{
    switch ((enum door_op)ring_tag_op(event->tag)) {
    case DOOR_OP_ACCEPT:
        on_accept(door, event);
        return;
    case DOOR_OP_RECV:
        door_on_recv(door, event);
        return;
    case DOOR_OP_SEND:
        door_on_send(door, event);
        return;
    case DOOR_OP_PASS:
        door_on_pass(door, event);
        return;
    case DOOR_OP_CLOSE:
        door_on_close(door, event);
        return;
    case DOOR_OP_BELL:
        if (!ring_event_more(event)) {
            ring_poll_fd(&door->ring, door->mail->door_bell.fd, ring_tag(DOOR_OP_BELL, 0, 0));
        }
        return;
    case DOOR_OP_NONE:
        return;
    }
}

static void run_timers(struct door *door)
{
    uint32_t budget = 1024;

    for (;;) {
        const uint32_t slot = timers_take_expired(&door->timers, door->now_ns, &budget);

        if (slot == TIMERS_NONE) {
            return;
        }
        door_on_deadline(door, slot);
    }
}

static void run_work(struct door *door)
{
    for (uint32_t n = 0; n < WORK_A_TURN && door->work.count > 0; n++) {
        const uint32_t slot = door_queue_take(&door->work);

        door_conn(door, slot)->queued = false;
        door_go_on(door, slot);
        thread_give_way();
    }
}

/*
 * A handshake takes 42 KB. After a storm the heap keeps what hundreds of them had, since some block
 * that lives on lies above it; so it is given back once they are few again for a while.
 */
static void give_back_memory(struct door *door)
{
    if (door->busy > door->busy_peak) {
        door->busy_peak = door->busy;
    }
    if (door->busy_peak < TRIM_PEAK || door->busy > door->busy_peak / 8) {
        door->calm_at_ns = 0;
        return;
    }
    if (door->calm_at_ns == 0) {
        door->calm_at_ns = door->now_ns;
    }
    if (door->now_ns - door->calm_at_ns >= TRIM_CALM_NS) {
        (void)malloc_trim(0);
        door->busy_peak = door->busy;
        door->calm_at_ns = 0;
    }
}

static uint64_t sleep_ns(const struct door *door)
{
    uint64_t wait_ns = timers_wait_ns(&door->timers, door->now_ns);

    if (door->calm_at_ns != 0 && wait_ns > TRIM_CALM_NS) {
        wait_ns = TRIM_CALM_NS;
    }

    if (door->work.count != 0 || door->stopping) {
        return 0;
    }
    for (uint32_t i = 0; i < door->listener_count; i++) {
        if (door->listeners[i].state == LISTENER_IDLE && door->listeners[i].rearm_at_ns != 0 &&
            wait_ns > REARM_NS) {
            wait_ns = REARM_NS;
        }
    }
    return wait_ns;
}

static void turn(struct door *door)
{
    struct ring_event event;

    door->now_ns = clock_now_ns();
    door->now_unix_ms = clock_unix_ms();

    /*
     * Accepts are seen, and stamped, before any cryptography: the order of sockets is that of their
     * stamps, also between cores.
     */
    while (ring_take(&door->ring, &event)) {
        on_event(door, &event);
    }
    door_take_mail(door);
    run_timers(door);
    run_work(door);
    admit_waiting(door);
    steer_listeners(door);
    give_back_memory(door);
    stat_set(&door->stats.waiting, door->waiting_count);
    stat_set(&door->stats.in_progress, door->busy);

    const uint64_t wait_ns = sleep_ns(door);

    if (wait_ns == 0) {
        ring_run(&door->ring);
        return;
    }
    bell_prepare(&door->mail->door_bell);
    if (door_mail_waits(door)) {
        ring_run(&door->ring);
    } else {
        ring_wait(&door->ring, wait_ns);
    }
    bell_cancel(&door->mail->door_bell);
}

void *door_run(void *argument)
{
    struct door *door = argument;
    struct hf_error error;

    thread_set_name("hf-door");
    thread_set_background(DOOR_NICE);
    if (!ring_enable(&door->ring, &error)) {
        /* At once: the process ends before anybody writes this thread's log. */
        log_fatal("ring_failed", "thread=door core=%u reason=\"%s\"", door->index, error.text);
        return NULL;
    }
    ring_poll_fd(&door->ring, door->mail->door_bell.fd, ring_tag(DOOR_OP_BELL, 0, 0));
    door->now_ns = clock_now_ns();
    steer_listeners(door);
    ring_run(&door->ring);
    atomic_store_explicit(&door->listening, true, memory_order_release);
    while (!door->stopping) {
        turn(door);
    }
    return NULL;
}

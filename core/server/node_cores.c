#include "core/server/node_internal.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/token/random.h"
#include "store/recover.h"

/* ---- addresses */

/* Both loopback addresses are the default: where a machine has no IPv6, one of them will do. */
static bool may_go_without(const struct node *node, size_t i, const struct hf_error *error)
{
    struct config fallback;

    config_init(&fallback);
    return strcmp(node->config->listen, fallback.listen) == 0 &&
           node->addresses[i].address.ss_family == AF_INET6 &&
           (error->errno_value == EAFNOSUPPORT || error->errno_value == EADDRNOTAVAIL);
}

bool node_bind(struct node *node, struct hf_error *error)
{
    size_t kept = 0;
    size_t count;

    if (!listen_parse(node->config->listen, node->addresses, &count, error)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct listen_address *address = &node->addresses[i];

        if (!listen_bind(address, node->listeners[kept], node->core_count, error)) {
            if (may_go_without(node, i, error)) {
                log_event(node->log, LOG_WARNING, "address_left_out", "reason=\"%s\"", error->text);
                continue;
            }
            return false;
        }
        node->addresses[kept] = *address;
        kept++;
        node->address_count = kept;
    }
    if (kept == 0) {
        hf_error_prepend(error, "no address is left");
        return false;
    }
    return true;
}

/* ---- opening */

static struct log *add_log(struct node *node, const char *source, uint32_t core,
                           struct hf_error *error)
{
    struct log *log = log_open(source, core, node->level, &node->bell, error);

    if (log != NULL) {
        node->logs[node->log_count++] = log;
    }
    return log;
}

static struct storage *open_storage(struct node *node, uint32_t i, struct volume **mine,
                                    struct hf_error *error)
{
    const struct manifest *manifest = directory_manifest(node->directory);
    const struct storage_options options = {
        .config = node->config,
        .post = &node->post,
        .index = i,
        .directory = node->directory,
        .volumes = mine,
        .volume_count = node->volume_count,
        .journal = {
            .identity = { recover_block_id(manifest->directory_id), manifest->incarnation,
                          (uint16_t)i },
            .start_lsn = node->start_lsn,
            .segment_bytes = node->journal.segment_bytes,
            .segment_count = node->journal.segment_count,
            .ring_bytes = node->journal.ring_bytes,
            .marks = true,
        },
        .fail = node_fail,
        .fail_context = node,
    };

    return storage_open(&options, error);
}

/* What tables are hashed with: unknown to clients, who choose what goes into them. */
static bool draw_random(void *bytes, size_t byte_count, struct hf_error *error)
{
    if (token_random(NULL, bytes, byte_count) != 0) {
        hf_error_set(error, EX_OSERR, errno, "the system gives no random bytes");
        return false;
    }
    return true;
}

static bool open_door(struct node *node, uint32_t i, struct hf_error *error)
{
    struct node_core *core = &node->cores[i];
    struct door_options options = {
        .config = node->config,
        .post = &node->post,
        .credentials = node->present,
        .features = node->features,
        .index = i,
        .core_of_volume = node->core_of_volume,
        .volume_count = node->volume_count,
        .listener_count = (uint32_t)node->address_count,
        .log = core->door_log,
    };

    if (!draw_random(&options.hash_key, sizeof options.hash_key, error)) {
        return false;
    }
    for (size_t a = 0; a < node->address_count; a++) {
        options.listeners[a] = node->listeners[a][i];
        node->listeners[a][i] = -1;
    }
    core->door = door_open(&options, error);
    return core->door != NULL;
}

static bool open_core(struct node *node, uint32_t i, struct hf_error *error)
{
    const struct manifest *manifest = directory_manifest(node->directory);
    struct node_core *core = &node->cores[i];

    for (uint16_t v = 0; v < node->volume_count; v++) {
        core->volumes[v] = node->core_of_volume[v] == i ? node->volumes[v] : NULL;
    }
    core->reactor_log = add_log(node, "reactor", i, error);
    core->door_log = core->reactor_log == NULL ? NULL : add_log(node, "door", i, error);
    if (core->door_log == NULL) {
        return false;
    }
    core->storage = open_storage(node, i, core->volumes, error);
    if (core->storage == NULL) {
        return false;
    }

    struct reactor_options options = {
        .config = node->config,
        .post = &node->post,
        .storage = core->storage,
        .resume = &node->present->resume,
        .features = node->features,
        .index = i,
        .incarnation = node->incarnation,
        .epoch_min = manifest->epoch,
        .core_of_volume = node->core_of_volume,
        .volume_count = node->volume_count,
        .log = core->reactor_log,
    };

    if (!draw_random(&options.hash_seed, sizeof options.hash_seed, error)) {
        return false;
    }
    core->reactor = reactor_open(&options, error);
    return core->reactor != NULL && open_door(node, i, error);
}

bool node_open_cores(struct node *node, struct hf_error *error)
{
    if (!post_open(&node->post, node->core_count, node->config, error)) {
        return false;
    }
    for (uint32_t i = 0; i < node->core_count; i++) {
        if (!open_core(node, i, error)) {
            hf_error_prepend(error, "core %u", i);
            return false;
        }
    }
    return true;
}

void node_close_cores(struct node *node)
{
    for (uint32_t i = 0; i < node->core_count; i++) {
        struct node_core *core = &node->cores[i];

        door_close(core->door);
        reactor_close(core->reactor);
        storage_close(core->storage);
        for (size_t a = 0; a < node->address_count; a++) {
            if (node->listeners[a][i] >= 0) {
                (void)close(node->listeners[a][i]);
            }
        }
    }
    post_close(&node->post);
}

/* ---- threads */

static void *run_thread(void *argument)
{
    struct node_thread *thread = argument;

    (void)thread->run(thread->argument);
    if (!atomic_load_explicit(&thread->node->stopping, memory_order_acquire)) {
        char text[64];

        (void)snprintf(text, sizeof text, "the %s thread has ended", thread->name);
        node_fail(thread->node, text);
    }
    return NULL;
}

static bool start_thread(struct node_thread *thread, struct hf_error *error)
{
    const int reason = pthread_create(&thread->thread, NULL, run_thread, thread);

    if (reason != 0) {
        hf_error_set(error, EX_OSERR, reason, "start the %s thread", thread->name);
        return false;
    }
    thread->started = true;
    return true;
}

static bool start_core(struct node *node, uint32_t i, struct hf_error *error)
{
    static const enum metrics_thread order[] = { METRICS_FLUSHER, METRICS_READER, METRICS_REACTOR,
                                                 METRICS_DOOR };
    struct node_core *core = &node->cores[i];

    core->threads[METRICS_FLUSHER] =
        (struct node_thread){ node, storage_flusher_run, core->storage, "flusher", 0, false };
    core->threads[METRICS_READER] =
        (struct node_thread){ node, storage_reader_run, core->storage, "reader", 0, false };
    core->threads[METRICS_REACTOR] =
        (struct node_thread){ node, reactor_run, core->reactor, "reactor", 0, false };
    core->threads[METRICS_DOOR] =
        (struct node_thread){ node, door_run, core->door, "door", 0, false };
    for (size_t n = 0; n < METRICS_THREADS; n++) {
        if (!start_thread(&core->threads[order[n]], error)) {
            return false;
        }
    }

    struct metrics_core *metrics = &node->metrics[i];

    metrics->reactor = reactor_get_stats(core->reactor);
    metrics->door = door_get_stats(core->door);
    for (size_t n = 0; n < METRICS_THREADS; n++) {
        if (pthread_getcpuclockid(core->threads[n].thread, &metrics->cpu_clocks[n]) != 0) {
            metrics->cpu_clocks[n] = -1; /* clock_gettime refuses it */
        }
    }
    node->metrics_count = i + 1;
    return true;
}

bool node_start_cores(struct node *node, struct hf_error *error)
{
    for (uint32_t i = 0; i < node->core_count; i++) {
        if (!start_core(node, i, error)) {
            hf_error_prepend(error, "core %u", i);
            return false;
        }
    }
    return true;
}

bool node_cores_listen(const struct node *node)
{
    for (uint32_t i = 0; i < node->core_count; i++) {
        if (!door_is_listening(node->cores[i].door)) {
            return false;
        }
    }
    return true;
}

bool node_cores_empty(const struct node *node)
{
    for (uint32_t i = 0; i < node->core_count; i++) {
        if (!reactor_is_empty(node->cores[i].reactor)) {
            return false;
        }
    }
    return true;
}

static void tell_all(struct node *node, const struct mail *mail)
{
    for (uint32_t i = 0; i < node->core_count; i++) {
        const bool given = post_give(&node->post.cores[i].node_to_door, mail) &&
                           post_give(&node->post.cores[i].node_to_reactor, mail);
        HF_ASSERT(given); /* three messages at most: see node_hand_out */
    }
}

void node_drain_cores(struct node *node, uint64_t until_ns)
{
    const struct mail mail = { .kind = MAIL_DRAIN, .number = until_ns };

    tell_all(node, &mail);
}

static void join(struct node_core *core, enum metrics_thread which)
{
    if (core->threads[which].started) {
        (void)pthread_join(core->threads[which].thread, NULL);
        core->threads[which].started = false;
    }
}

/* Reactors end when their last write is durable; until then flusher and reader must be there. */
void node_stop_cores(struct node *node)
{
    const struct mail mail = { .kind = MAIL_STOP };

    if (node->post.cores == NULL) {
        return;
    }
    atomic_store_explicit(&node->stopping, true, memory_order_release);
    tell_all(node, &mail);
    for (uint32_t i = 0; i < node->core_count; i++) {
        join(&node->cores[i], METRICS_DOOR);
        join(&node->cores[i], METRICS_REACTOR);
    }
    for (uint32_t i = 0; i < node->core_count; i++) {
        if (node->cores[i].storage != NULL) {
            storage_stop(node->cores[i].storage);
        }
    }
    for (uint32_t i = 0; i < node->core_count; i++) {
        join(&node->cores[i], METRICS_FLUSHER);
        join(&node->cores[i], METRICS_READER);
    }
    node->metrics_count = 0;
}

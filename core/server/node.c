#include "core/server/node_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/thread.h"
#include "core/server/bus_error.h"
#include "core/tls/aead.h"
#include "core/tls/handshake.h"

/* Behind the reason why a disk doesn't let us start. */
#define DISK_REMEDY "; the disk failed: mend or replace it, then start again"

#define TURN_NS  (500 * CLOCK_NS_PER_MS)
#define DRAIN_NS (20 * CLOCK_NS_PER_MS)

#define HEAP_BLOCK_BYTES_MAX (256 << 10)
#define HEAP_TOP_BYTES_MAX   (1 << 20)

/* ---- failing */

void node_fail(void *context, const char *text)
{
    (void)context;
    log_fatal("failed", "reason=\"%s\"", text);
    _exit(EX_IOERR);
}

/* ---- waiting */

static void take_signals(struct node *node)
{
    struct signalfd_siginfo info;

    while (read(node->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            node->reload_wanted = true;
        } else {
            node->stop_signals++;
        }
    }
}

static void empty_bell(struct node *node)
{
    uint64_t rings;

    if (read(node->bell.fd, &rings, sizeof rings) != (ssize_t)sizeof rings) {
        return; /* nothing was there */
    }
}

void node_wait(struct node *node, uint64_t timeout_ns)
{
    struct pollfd polls[2 + ADMIN_POLLS_MAX] = {
        { .fd = node->signal_fd, .events = POLLIN },
        { .fd = node->bell.fd, .events = POLLIN },
    };
    const uint32_t admin_count = node->admin == NULL ? 0 : admin_get_polls(node->admin, polls + 2);

    (void)log_drain(node->logs, node->log_count);
    bell_prepare(&node->bell);
    if (log_waits(node->logs, node->log_count) && log_may_write()) {
        timeout_ns = 0;
    }
    const int ready = poll(polls, 2 + admin_count, (int)(timeout_ns / CLOCK_NS_PER_MS));
    bell_cancel(&node->bell);

    if (ready > 0 && polls[1].revents != 0) {
        empty_bell(node);
    }
    (void)log_drain(node->logs, node->log_count);
    take_signals(node);
    if (node->admin != NULL) {
        admin_run(node->admin, polls + 2, ready > 0 ? admin_count : 0, clock_now_ns());
    }
}

/* ---- pages */

static const char *not_ready(void *context)
{
    const struct node *node = context;

    if (node->draining) {
        return "draining";
    }
    return node->serving ? NULL : "starting";
}

static bool print_metrics(void *context, FILE *file)
{
    struct node *node = context;
    struct metrics metrics = {
        .cores = node->metrics,
        .core_count = node->metrics_count,
        .logs = node->logs,
        .log_count = node->log_count,
        .start_unix_ms = node->start_unix_ms,
        .incarnation = node->incarnation,
        .max_connections = node->config->max_connections,
        .ready = not_ready(node) == NULL,
    };

    metrics.data_free_known =
        node->directory != NULL && directory_free_bytes(node->directory, &metrics.data_free_bytes);
    return metrics_print(&metrics, file);
}

/* ---- starting */

static bool block_signals(struct node *node, struct hf_error *error)
{
    sigset_t signals;
    struct sigaction ignored = { .sa_handler = SIG_IGN };

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &signals, &node->old_signals) != 0 ||
        sigaction(SIGPIPE, &ignored, NULL) != 0) {
        hf_error_set(error, EX_OSERR, errno, "signals");
        return false;
    }
    node->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (node->signal_fd < 0) {
        hf_error_set(error, EX_OSERR, errno, "signalfd");
        return false;
    }
    return true;
}

/* The soft limit is for programs that select(); the hard one is what we were given. */
static void raise_limits(struct node *node)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        const uint64_t share =
            (node->config->max_connections + node->core_count - 1) / node->core_count;

        /* Connections aren't descriptors of the process, but a ring's table has this bound. */
        log_event(node->log, LOG_INFO, "limits",
                  "open_files=%" PRIu64 " max_connections=%" PRIu64
                  " cores=%u rings_per_core=%" PRIu64,
                  (uint64_t)limit.rlim_cur, node->config->max_connections, node->core_count,
                  (share + limit.rlim_cur - 1) / limit.rlim_cur);
    }
}

static bool choose_features(const struct config *config, struct ring_features *features,
                            bool *buffered, struct hf_error *error)
{
    char names[CONFIG_TEXT_BYTES_MAX];
    char *rest = names;
    char *name;

    if (!ring_probe(features, error)) {
        return false;
    }
    (void)snprintf(names, sizeof names, "%s", config->io_features_off);
    while ((name = strsep(&rest, ", ")) != NULL) {
        if (strcmp(name, "o_direct") == 0) {
            *buffered = true;
        } else if (name[0] != '\0' && !ring_feature_turn_off(features, name)) {
            hf_error_set(error, EX_CONFIG, 0, "io_features_off: there is no feature %.64s", name);
            return false;
        }
    }
    return true;
}

static bool choose_cores(const struct config *config, uint32_t *core_count, struct hf_error *error)
{
    uint64_t cores = config->cores != 0 ? config->cores : thread_cpu_count();

    if (config->cores == 0 && cores > config->volumes) {
        cores = config->volumes;
    }
    if (cores > POST_CORES_MAX) {
        cores = POST_CORES_MAX;
    }
    *core_count = (uint32_t)cores;
    struct node_journal journal;
    return node_plan_journal(config, *core_count, &journal, error);
}

static bool open_admin(struct node *node, struct hf_error *error)
{
    const struct admin_pages pages = { node, print_metrics, not_ready };
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    char text[LISTEN_TEXT_BYTES];
    size_t count;
    int fd;

    if (!listen_parse(node->config->admin_listen, addresses, &count, error)) {
        return false;
    }
    if (count == 0) {
        return true;
    }
    if (!listen_bind(&addresses[0], &fd, 1, error)) {
        hf_error_prepend(error, "admin_listen");
        return false;
    }
    node->admin = admin_open(fd, &pages, error);
    if (node->admin == NULL) {
        return false;
    }
    listen_format((const struct sockaddr *)&addresses[0].address, text);
    log_event(node->log, LOG_INFO, "admin_listening", "address=%s", text);
    return true;
}

static bool open_logs(struct node *node, struct hf_error *error)
{
    if (!bell_open(&node->bell, error)) {
        return false;
    }
    node->log = log_open("node", LOG_NO_CORE, node->level, &node->bell, error);
    if (node->log == NULL) {
        return false;
    }
    node->logs[node->log_count++] = node->log;
    log_event(node->log, LOG_INFO, "starting",
              "version=%s pid=%d tls=\"%s\" liburing=%s lmdb=%s data_dir=\"%s\"", HOLDFAST_VERSION,
              (int)getpid(), tls_library_version(), metrics_uring_version(), metrics_lmdb_version(),
              node->config->data_dir);
    return true;
}

static bool begin_listening(struct node *node, struct hf_error *error)
{
    for (uint32_t i = 0; i < node->core_count; i++) {
        if (!door_begin_listening(node->cores[i].door, error)) {
            hf_error_prepend(error, "core %u", i);
            return false;
        }
    }
    return true;
}

/* Everything up to the threads. False with exit code 0: a signal came. */
static bool start(struct node *node, struct hf_error *error)
{
    const struct config *config = node->config;

    /* TLS before the log, whose first line says its version. */
    if (!config_check(config, error) || !log_parse_level(config->log_level, &node->level) ||
        !block_signals(node, error) || !bus_error_watch(error) || tls_global_init(error) != 0 ||
        !open_logs(node, error) || !choose_cores(config, &node->core_count, error) ||
        !node_plan_journal(config, node->core_count, &node->journal, error)) {
        return false;
    }
    raise_limits(node);
    if (!choose_features(config, &node->features, &node->buffered, error)) {
        return false;
    }
    if (node->restoring) {
        return node_open_directory(node, error) && node_open_store(node, error);
    }
    node->present = credentials_open(config, error);
    return node->present != NULL && node_open_directory(node, error) && node_bind(node, error) &&
           open_admin(node, error) && node_open_store(node, error) &&
           credentials_load_rings(node->present, config, clock_unix_ms(), error) &&
           node_open_cores(node, error) && begin_listening(node, error) &&
           node_start_cores(node, error);
}

static void say_listening(struct node *node)
{
    char text[LISTEN_TEXT_BYTES];

    for (size_t i = 0; i < node->address_count; i++) {
        listen_format((const struct sockaddr *)&node->addresses[i].address, text);
        log_event(node->log, LOG_INFO, "listening", "address=%s", text);
    }
    log_event(node->log, LOG_INFO, "ready", "incarnation=%" PRIu64 " cores=%u ms=%" PRIu64,
              node->incarnation, node->core_count,
              (clock_now_ns() - node->start_ns) / CLOCK_NS_PER_MS);
}

/* ---- serving and ending */

static void serve(struct node *node)
{
    while (node->stop_signals == 0 && !node_cores_listen(node)) {
        node_wait(node, CLOCK_NS_PER_MS);
    }
    node->serving = true;
    say_listening(node);
    while (node->stop_signals == 0) {
        node_wait(node, TURN_NS);
        node_run_keys(node);
    }
}

static void drain(struct node *node)
{
    const uint64_t until_ns = clock_now_ns() + node->config->drain_timeout_s * CLOCK_NS_PER_S;

    node->draining = true;
    log_event(node->log, LOG_INFO, "draining", "timeout_s=%" PRIu64, node->config->drain_timeout_s);
    node_drain_cores(node, until_ns);
    do {
        node_wait(node, DRAIN_NS); /* at least once: the cores hear of it */
    } while (node->stop_signals < 2 && !node_cores_empty(node) && clock_now_ns() < until_ns);
    log_event(node->log, LOG_INFO, "drained", "all_left=%s",
              node_cores_empty(node) ? "true" : "false");
}

static void end(struct node *node)
{
    node_stop_cores(node);
    (void)log_drain(node->logs, node->log_count);
    node_close_cores(node);
    node_close_store(node);
    admin_close(node->admin);
    credentials_close_old(node->old, node->present);
    credentials_close(node->present);
    (void)log_drain(node->logs, node->log_count);
    for (uint32_t i = 0; i < node->log_count; i++) {
        log_close(node->logs[i]);
    }
    bell_close(&node->bell);
    if (node->signal_fd >= 0) {
        (void)close(node->signal_fd);
    }
    (void)pthread_sigmask(SIG_SETMASK, &node->old_signals, NULL);
}

/*
 * What a flush copies is mapped apart, and goes when it is freed. By itself the heap would learn from
 * the first such block to keep all later ones, and a thread's heap never gives back its top.
 */
static void set_heap(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES_MAX);
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_TOP_BYTES_MAX);
}

static int run(const struct config *config, bool restoring)
{
    struct hf_error error = { 0 };
    struct node *node = aligned_alloc(64, (sizeof *node + 63) / 64 * 64);

    if (node == NULL) {
        log_fatal("failed", "reason=\"no memory\"");
        return EX_OSERR;
    }
    memset(node, 0, sizeof *node);
    node->config = config;
    node->restoring = restoring;
    node->signal_fd = -1;
    node->bell.fd = -1;
    node->start_ns = clock_now_ns();
    node->start_unix_ms = clock_unix_ms();
    memset(node->listeners, 0xff, sizeof node->listeners); /* -1: none */
    set_heap();
    (void)pthread_sigmask(SIG_BLOCK, NULL, &node->old_signals);

    const bool started = start(node, &error);

    if (started && restoring) {
        log_event(node->log, LOG_INFO, "restored",
                  "epoch=%" PRIu64 " users=%" PRIu64 " ms=%" PRIu64,
                  directory_manifest(node->directory)->epoch, node->users,
                  (clock_now_ns() - node->start_ns) / CLOCK_NS_PER_MS);
    } else if (started) {
        serve(node);
        drain(node);
    } else if (error.exit_code != 0) {
        (void)log_drain(node->logs, node->log_count);
        log_fatal("not_started", "reason=\"%s%s\"", error.text,
                  error.exit_code == EX_IOERR ? DISK_REMEDY : "");
    }
    end(node);
    free(node);
    return started ? EX_OK : error.exit_code;
}

int node_run(const struct config *config)
{
    return run(config, false);
}

int node_restore(const struct config *config)
{
    return run(config, true);
}

/* ---- checking */

bool node_check(const struct config *config, struct hf_error *error)
{
    struct ring_features features;
    bool buffered;
    uint32_t core_count;

    if (!config_check(config, error) || !choose_cores(config, &core_count, error) ||
        tls_global_init(error) != 0 || !choose_features(config, &features, &buffered, error)) {
        return false;
    }

    struct credentials *credentials = credentials_open(config, error);
    const bool good = credentials != NULL && credentials_check_rings(credentials, config, error) &&
                      node_check_directory(config, error);

    credentials_close(credentials);
    return good;
}

void node_print_version(FILE *file)
{
    struct hf_error error;

    if (tls_global_init(&error) != 0) { /* mbedTLS says its version from then on */
        (void)fprintf(file, "%s\n", error.text);
    }
    (void)fprintf(file, "holdfastd %s\n%s\nrecords by %s\nliburing %s\nLMDB %s\n", HOLDFAST_VERSION,
                  tls_library_version(), aead_library_name(), metrics_uring_version(),
                  metrics_lmdb_version());
}

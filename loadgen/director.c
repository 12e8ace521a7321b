#include "loadgen/director.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/thread.h"
#include "core/tls/handshake.h"
#include "core/token/keys.h"
#include "core/token/token.h"
#include "loadgen/director_internal.h"
#include "loadgen/users.h"

#define LOOK_MS 50

/* ---- open */

static bool open_signals(struct director *director, struct hf_error *error)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    director->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (director->signal_fd < 0) {
        hf_error_set(error, EX_OSERR, errno, "signalfd");
        return false;
    }
    return true;
}

static bool open_keys(struct director *director, struct hf_error *error)
{
    const struct options *options = director->options;
    const struct token_claims claims = { .user = { 1 }, .device = { 1 }, .expires_at_unix_s = 1 };
    char token[TOKEN_JWT_BYTES_MAX];
    size_t token_bytes;

    if (!token_keys_open(&director->keys, options->login_keys, TOKEN_KEYS_SIGN, error)) {
        return false;
    }
    director->common.login_key =
        token_keys_find(director->keys, options->kid, strlen(options->kid));
    if (director->common.login_key == NULL) {
        hf_error_set(error, EX_CONFIG, 0, "%s: no key \"%s\" in it", options->login_keys,
                     options->kid);
        return false;
    }
    if (options->audience != NULL && !token_audience_is_plain(options->audience)) {
        hf_error_set(error, EX_USAGE, 0, "--audience: not a plain name");
        return false;
    }

    const enum token_status status = token_sign(
        director->common.login_key, &claims, options->audience, token, sizeof token, &token_bytes);

    if (status != TOKEN_OK) {
        hf_error_set(error, EX_CONFIG, 0, "%s: key \"%s\": %s", options->login_keys, options->kid,
                     token_status_text(status));
        return false;
    }
    return true;
}

static bool open_common(struct director *director, struct hf_error *error)
{
    const struct options *options = director->options;
    struct swarm_common *common = &director->common;

    *common = (struct swarm_common){
        .server_name = options->server_name,
        .psk_ke = options->psk_ke,
        .audience = options->audience,
        .back_off_max_s = options->back_off_max_s,
        .devices = options->devices,
        .body_bytes = (uint16_t)options->body_bytes,
        .gather = options->gather,
        .one_way = options->one_way,
        .late_ns = options->late_ms * CLOCK_NS_PER_MS,
        .client_count = options->clients,
        .swarm_count = options->threads,
        .connect_rate = options->connect_rate,
        .handshakes = options->handshakes,
    };
    if (getrandom(&common->run, sizeof common->run, 0) != (ssize_t)sizeof common->run) {
        hf_error_set(error, EX_OSERR, errno, "getrandom");
        return false;
    }
    if (!ring_probe(&common->features, error) ||
        !dial_resolve(&common->dial, options->server, options->allow_remote, error) ||
        !dial_set_source(&common->dial, options->source_base, options->per_source, error) ||
        tls_global_init(error) != 0) {
        return false;
    }
    if (options->ca != NULL) {
        if (tls_pem_load(&director->ca, options->ca, TLS_PEM_CERTIFICATE, error) != 0) {
            return false;
        }
        common->ca = &director->ca;
    }
    if (options->ledger != NULL) {
        common->ledger_file = fopen(options->ledger, "we");
        if (common->ledger_file == NULL) {
            hf_error_set(error, EX_CANTCREAT, errno, "%s", options->ledger);
            return false;
        }
    }
    return open_keys(director, error);
}

/* Pairs stay together: swarm i gets the pairs from pairs * i / swarms on. */
static bool open_swarms(struct director *director, struct hf_error *error)
{
    const struct options *options = director->options;
    const uint32_t users = options->clients / options->devices;
    const uint64_t pairs = users / 2;

    director->users = calloc(users, sizeof *director->users);
    director->swarms = calloc(options->threads, sizeof *director->swarms);
    if (director->users == NULL || director->swarms == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%u users", users);
        return false;
    }
    users_assign(options->cross_core ? &(struct users_layout){ options->cores, options->volumes }
                                     : NULL,
                 options->first_user, director->users, users);
    for (uint32_t i = 0; i < options->threads; i++) {
        const uint32_t first = (uint32_t)(pairs * i / options->threads) * 2;
        const uint32_t last = (uint32_t)(pairs * (i + 1) / options->threads) * 2;
        const struct swarm_options swarm_options = {
            .common = &director->common,
            .users = director->users + first,
            .user_count = last - first,
            .index = i,
            .first_client = first * options->devices,
            .cpu = options->cpu_count > 0 ? (int32_t)options->cpus[i % options->cpu_count] : -1,
        };

        if (!swarm_open(&director->swarms[i], &swarm_options, error)) {
            return false;
        }
        director->swarm_count++;
    }
    return true;
}

bool director_open(struct director *director, const struct options *options, struct hf_error *error)
{
    memset(director, 0, sizeof *director);
    director->options = options;
    director->signal_fd = -1;
    report_open(&director->report, options->json);
    if (!open_signals(director, error) || !open_common(director, error) ||
        !ledger_open(&director->findings, error) || !open_swarms(director, error)) {
        director_close(director);
        return false;
    }
    return true;
}

void director_close(struct director *director)
{
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        swarm_stop(&director->swarms[i]);
        swarm_close(&director->swarms[i]);
    }
    free(director->swarms);
    free(director->users);
    ledger_close(&director->findings);
    token_keys_close(director->keys);
    tls_pem_free(&director->ca);
    if (director->common.ledger_file != NULL) {
        (void)fclose(director->common.ledger_file);
    }
    if (director->signal_fd >= 0) {
        (void)close(director->signal_fd);
    }
    memset(director, 0, sizeof *director);
}

/* ---- orders */

static void wait_for_answers(const struct director *director)
{
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        while (!swarm_answered(&director->swarms[i])) {
            (void)poll(NULL, 0, 1);
        }
    }
}

void director_order(struct director *director, const struct swarm_order *order)
{
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        swarm_order(&director->swarms[i], order);
    }
    wait_for_answers(director);
}

void director_order_kind(struct director *director, enum swarm_order_kind kind)
{
    director_order(director, &(struct swarm_order){ .kind = kind });
}

/* ---- looking */

static void take_signals(struct director *director, int timeout_ms)
{
    struct pollfd ready = { .fd = director->signal_fd, .events = POLLIN };
    struct signalfd_siginfo info;

    if (poll(&ready, 1, timeout_ms) <= 0) {
        return;
    }
    while (read(director->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGUSR1) {
            director->next = true;
        } else {
            director->interrupted = true;
        }
    }
}

static void take_counts(struct director *director)
{
    memset(&director->counts, 0, sizeof director->counts);
    for (uint32_t i = 0; i < director->swarm_count; i++) {
#define ADD(name, text)                                                                            \
    director->counts.name += swarm_count(&director->swarms[i], SWARM_COUNT_##name);
        CROWD_COUNTS(ADD)
#undef ADD
    }
}

uint64_t director_failures(const struct crowd_counts *counts)
{
    return counts->dial_refused + counts->shake_failed + counts->login_refused + counts->timed_out +
           counts->cells_short;
}

static void on_all_back(struct director *director, uint64_t now_ns)
{
    struct director_watch *watch = &director->watch;
    const struct report_logins logins = {
        .clients = director->options->clients,
        .full = director->counts.full - watch->full,
        .resumed = director->counts.resumed - watch->resumed,
        .refused = director_failures(&director->counts) - watch->failures,
        .seconds = (double)(now_ns - watch->away_at_ns) / 1e9,
        .since_first_s =
            watch->first_back_at_ns != 0 ? (double)(now_ns - watch->first_back_at_ns) / 1e9 : -1,
    };

    watch->away = false;
    report_logins(&director->report, "all_back", &logins);
}

/* Tells when clients were lost, and when all of them are back and have what they missed. */
static void watch_clients(struct director *director)
{
    struct director_watch *watch = &director->watch;
    const struct crowd_counts *counts = &director->counts;
    const uint64_t now_ns = clock_now_ns();
    const bool all = counts->current == director->options->clients;

    if (director->quiet || (!watch->complete && !all)) {
        return;
    }
    if (!watch->complete) {
        watch->complete = true;
        watch->lost_count = counts->lost; /* before all had come: no loss to tell of */
        watch->awaited_count = counts->lost;
    }
    if (!watch->away && counts->lost > watch->lost_count) {
        watch->away = true;
        watch->lost_count = counts->lost;
        watch->away_at_ns = now_ns;
        watch->first_back_at_ns = 0;
        watch->full = counts->full;
        watch->resumed = counts->resumed;
        watch->failures = director_failures(counts);
        report_lost(&director->report, counts->live, director->options->clients);
    }
    if (!watch->away) {
        return;
    }
    if (watch->first_back_at_ns == 0 &&
        counts->full + counts->resumed > watch->full + watch->resumed) {
        watch->first_back_at_ns = now_ns;
    }
    watch->lost_count = counts->lost;
    if (all) {
        on_all_back(director, now_ns);
    } else {
        report_progress(&director->report,
                        (double)counts->current / (double)director->options->clients,
                        "%llu of %u clients are back", (unsigned long long)counts->current,
                        director->options->clients);
    }
}

void director_look(struct director *director)
{
    take_signals(director, LOOK_MS);
    take_counts(director);
    watch_clients(director);
}

pid_t director_server_pid(const struct director *director)
{
    const struct options *options = director->options;

    if (options->server_pid != 0) {
        return (pid_t)options->server_pid;
    }
    if (options->server_pid_file != NULL) {
        return proc_read_pid_file(options->server_pid_file);
    }
    return director->common.dial.loopback ? proc_find_listener(director->common.dial.port) : 0;
}

/* ---- the run */

static int badness(int exit_code)
{
    static const int order[] = { 0, DIRECTOR_EXIT_INTERRUPTED, DIRECTOR_EXIT_VOID, EX_UNAVAILABLE,
                                 EX_DATAERR };

    for (int i = 0; i < (int)(sizeof order / sizeof order[0]); i++) {
        if (order[i] == exit_code) {
            return i;
        }
    }
    return INT32_MAX;
}

void director_fail(struct director *director, int exit_code, const char *format, ...)
{
    char text[HF_ERROR_TEXT_BYTES];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    report_failure(&director->report, text);
    if (badness(exit_code) > badness(director->exit_code)) {
        director->exit_code = exit_code;
    }
}

static bool start(struct director *director, struct hf_error *error)
{
    const struct options *options = director->options;

    if (options->cpu_count > 0 && !thread_pin(options->cpus[0], error)) {
        return false;
    }
    for (uint32_t i = 0; i < director->swarm_count; i++) {
        if (!swarm_start(&director->swarms[i], error)) {
            return false;
        }
    }
    return true;
}

int director_run(struct director *director)
{
    const struct options *options = director->options;
    struct hf_error error = { 0 };

    if (!start(director, &error)) {
        report_failure(&director->report, error.text);
        return error.exit_code;
    }
    report_start(&director->report, options, director->common.run.run);
    for (uint32_t i = 0; i < options->step_count; i++) {
        const uint64_t began_ns = clock_now_ns();

        report_event(&director->report, "begin", options->steps[i].text, 0);

        const bool goes_on = director_step(director, &options->steps[i]);

        report_event(&director->report, "end", options->steps[i].text,
                     (double)(clock_now_ns() - began_ns) / 1e9);
        if (director->interrupted) {
            director_fail(director, DIRECTOR_EXIT_INTERRUPTED, "interrupted at step %s",
                          options->steps[i].text);
            break;
        }
        if (!goes_on) {
            break;
        }
    }
    report_done(&director->report, director->exit_code);
    return director->exit_code;
}

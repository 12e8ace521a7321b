/*
 * options: the command line of holdfast-loadgen: scenario, steps, numbers.
 *
 * Owner    The caller's struct; its texts point into argv.
 * Thread   Main, before the others start; afterwards all may read.
 * Errors   struct hf_error, EX_USAGE, naming the option.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/error.h"

#define OPTIONS_STEPS_MAX   64
#define OPTIONS_CPUS_MAX    64
#define OPTIONS_THREADS_MAX 64

/* name, what its arguments are, what it does */
#define STEPS(X)                                                                                   \
    X(CONNECT, "connect", "", "all clients log in")                                                \
    X(GREET, "greet", "[:RATE]", "each sender sends one message")                                  \
    X(IDLE, "idle", ":SECONDS", "nothing; then the memory of the server, if it is local")          \
    X(WINDOW, "window", ":W:SECONDS[:keep]", "each sender keeps W messages unanswered")            \
    X(PACE, "pace", ":RATE:SECONDS[:keep]", "RATE messages a second in all, in an open loop")      \
    X(CHURN, "churn", ":RATE[:N]",                                                                 \
      "from now on RATE clients a second leave and come back, to read N entries")                  \
    X(HOLD, "hold", "", "goes on as it is until SIGUSR1")                                          \
    X(AWAIT, "await-restart", "[:SECONDS]",                                                        \
      "until clients were lost and all are back and current")                                      \
    X(DROP, "drop", "", "all connections are dropped at once; until all are back")                 \
    X(FLOOD, "flood", ":SECONDS[:resumed]", "each client logs in, leaves, and logs in again")      \
    X(SETTLE, "settle", "", "no new messages; until all are in both logs; checks")                 \
    X(VERIFY, "verify", "", "reads all logs again from the start, and compares")                   \
    X(LEAVE, "leave", "", "all clients say BYE")

enum step_kind {
#define STEP_ENUM(name, text, arguments, help) STEP_##name,
    STEPS(STEP_ENUM)
#undef STEP_ENUM
};

struct step {
    enum step_kind kind;
    double number;    /* RATE or W */
    double entries;   /* CHURN: N */
    double seconds;   /* 0: without end, or the default */
    bool keep;        /* its messages go on after it */
    bool resumed;     /* FLOOD: resumed handshakes */
    const char *text; /* as given, NUL-terminated */
};

struct options {
    const char *scenario;
    const char *server;
    const char *server_name;
    const char *ca; /* NULL: certificates aren't checked */
    const char *login_keys;
    const char *kid;
    const char *audience;
    const char *source_base;
    const char *ledger; /* file, or NULL */
    const char *server_pid_file;
    uint64_t server_pid; /* 0: whoever listens on the server's port */
    uint64_t first_user;
    uint32_t clients;
    uint32_t devices;
    uint32_t threads;
    uint32_t cpus[OPTIONS_CPUS_MAX];
    uint32_t cpu_count;
    uint32_t per_source;
    uint32_t connect_rate; /* dials a second in all; 0: as fast as handshakes allow */
    uint32_t handshakes;   /* in progress at once, in all */
    uint32_t full;         /* handshakes that don't resume, in all */
    uint32_t back_off_max_s;
    uint32_t window;
    double rate;
    uint32_t body_bytes;
    double for_s;
    double warm_s;
    uint32_t connect_timeout_s; /* without any progress */
    uint32_t settle_timeout_s;
    uint32_t cores; /* of the server */
    uint32_t volumes;
    uint32_t late_ms;
    double late_percent;
    bool insecure;
    bool psk_ke;
    bool allow_remote;
    bool gather;
    bool one_way;
    bool cross_core;
    bool json;
    bool help;
    bool version;
    struct step steps[OPTIONS_STEPS_MAX];
    uint32_t step_count;
    char step_text_[2048];
};

/* False: see error. --help and --version need nothing else. */
bool options_parse(struct options *options, int argc, char **argv, struct hf_error *error)
    __attribute__((warn_unused_result));

/* "connect,idle:5,pace:5000:10:keep". Used by options_parse; apart for tests. */
bool options_parse_steps(struct options *options, const char *text, struct hf_error *error)
    __attribute__((warn_unused_result));

const char *step_name(enum step_kind kind);
void options_print_help(FILE *file);

/*
 * node_internal: what the files of the node share. node.c runs, node_store.c opens the data
 * directory and recovers, node_cores.c opens, starts and stops what each core has, node_keys.c
 * hands out keys.
 *
 * Thread   The main thread, but for node_fail.
 * Errors   As each function says.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "core/io/clock.h"
#include "core/io/mailbox.h"
#include "core/io/ring.h"
#include "core/server/admin.h"
#include "core/server/credentials.h"
#include "core/server/door.h"
#include "core/server/listen.h"
#include "core/server/log.h"
#include "core/server/metrics.h"
#include "core/server/node.h"
#include "core/server/post.h"
#include "core/server/reactor.h"
#include "core/server/storage.h"
#include "store/directory.h"
#include "store/schema.h"
#include "store/volume.h"

struct node;

/* A thread that must not end before it is told to. */
struct node_thread {
    struct node *node;
    void *(*run)(void *argument);
    void *argument;
    const char *name;
    pthread_t thread;
    bool started;
};

struct node_core {
    struct log *reactor_log;
    struct log *door_log;
    struct volume *volumes[SCHEMA_VOLUMES_MAX]; /* its own; NULL: another core's */
    struct storage *storage;
    struct reactor *reactor;
    struct door *door;
    struct node_thread threads[METRICS_THREADS];
};

/* How each core's journal is cut. */
struct node_journal {
    uint32_t segment_bytes;
    uint32_t segment_count;
    uint32_t ring_bytes;
};

struct node {
    struct bell bell; /* rung by whoever logs while we sleep */
    const struct config *config;
    uint64_t start_ns;
    uint64_t start_unix_ms;
    struct ring_features features;
    bool buffered;  /* without O_DIRECT */
    bool restoring; /* node_restore: nobody is served */
    enum log_level level;
    uint32_t core_count;

    uint32_t log_count;
    struct log *log;
    struct log *logs[1 + 2 * POST_CORES_MAX]; /* all, for log_drain */
    struct admin *admin;
    sigset_t old_signals;
    int signal_fd;
    uint32_t stop_signals;
    bool serving;
    bool draining;
    bool reload_wanted;
    _Atomic bool stopping; /* partners: node_stop_cores / the bodies of threads */

    struct node_journal journal;
    struct directory *directory;
    struct volume *volumes[SCHEMA_VOLUMES_MAX];
    uint8_t core_of_volume[SCHEMA_VOLUMES_MAX];
    uint64_t start_lsn;
    uint64_t users;       /* counted by a restore */
    uint64_t incarnation; /* 0: not begun yet */
    uint16_t volume_count;

    uint32_t metrics_count; /* cores whose threads run */
    struct metrics_core metrics[POST_CORES_MAX];
    struct node_core cores[POST_CORES_MAX];
    struct post post;
    struct credentials *present;
    struct credentials *old; /* until all threads have taken the present ones */
    uint64_t refresh_at_ns;
    size_t address_count;
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    int listeners[LISTEN_ADDRESSES_MAX][POST_CORES_MAX]; /* -1: none, or a door's */
};

/* Waits for signals, log lines and admin clients, and serves them. */
void node_wait(struct node *node, uint64_t timeout_ns);

/*
 * What the disk or a thread can't go on after: logs, and ends the process at once, from any thread.
 * Nothing that wasn't promised yet is promised any more; a restart replays.
 */
void node_fail(void *node, const char *text);

/* node_store.c */
bool node_plan_journal(const struct config *config, uint32_t core_count,
                       struct node_journal *journal, struct hf_error *error)
    __attribute__((warn_unused_result));
bool node_open_directory(struct node *node, struct hf_error *error)
    __attribute__((warn_unused_result));
/* Opens the volumes, recovers, begins the run. False with exit code 0: a signal wants the end. */
bool node_open_store(struct node *node, struct hf_error *error) __attribute__((warn_unused_result));
void node_close_store(struct node *node);
bool node_check_directory(const struct config *config, struct hf_error *error)
    __attribute__((warn_unused_result));

/* node_cores.c */
bool node_bind(struct node *node, struct hf_error *error) __attribute__((warn_unused_result));
bool node_open_cores(struct node *node, struct hf_error *error) __attribute__((warn_unused_result));
bool node_start_cores(struct node *node, struct hf_error *error)
    __attribute__((warn_unused_result));
bool node_cores_listen(const struct node *node);
bool node_cores_empty(const struct node *node);
void node_drain_cores(struct node *node, uint64_t until_ns);
/* Joins all threads. */
void node_stop_cores(struct node *node);
void node_close_cores(struct node *node);

/* node_keys.c */
/* Reads anew what is due or asked for, and hands it out. */
void node_run_keys(struct node *node);
void node_hand_out(struct node *node, struct credentials *next);

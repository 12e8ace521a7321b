/*
 * reactor: the thread of a core that has the connections of the users at home here, the engine and
 * the journal. It alone touches them.
 *
 * Owner    The node opens reactors before their threads start and closes them after they ended.
 * Thread   reactor_run is the thread's body. Everything else: the node's, before and after.
 * Memory   Taken by reactor_open; nothing is allocated afterwards but what mbedTLS needs to key an
 *          AEAD context.
 * Turn     Completions, mail, timers; then the engine goes on with what became possible; then one
 *          journal write, one record for each connection with output; then one enter of the ring.
 * Errors   Set-up: hf_error. Afterwards a connection's fault ends that connection; a failed journal
 *          write stops the process (node_fail), since what is durable is no longer known.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/engine/engine.h"
#include "core/io/ring.h"
#include "core/server/config.h"
#include "core/server/post.h"
#include "core/server/stats.h"
#include "core/server/storage.h"
#include "core/token/resume.h"

struct reactor;

struct reactor_options {
    const struct config *config;
    struct post *post;
    struct storage *storage;          /* of this core; open */
    const struct resume_ring *resume; /* copied */
    struct ring_features features;
    uint32_t index;
    uint64_t incarnation;
    uint64_t epoch_min;            /* of engine_config */
    uint64_t hash_seed;            /* random */
    const uint8_t *core_of_volume; /* volume -> core, for routing streams */
    uint16_t volume_count;
    struct log *log; /* this thread's */
};

struct reactor *reactor_open(const struct reactor_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
void reactor_close(struct reactor *reactor);

/* The thread's body: struct reactor *. Ends after MAIL_STOP, when the last write is durable. */
void *reactor_run(void *reactor);

const struct reactor_stats *reactor_get_stats(const struct reactor *reactor);

/* Whether the last connection has gone: a drain has ended. Any thread. */
bool reactor_is_empty(const struct reactor *reactor);

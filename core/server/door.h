/*
 * door: the thread of a core that lets clients in: it accepts, shakes hands by TLS, reads HELLO,
 * checks its token, asks the user's home reactor for a place, and hands the connection over to it.
 * All public-key cryptography happens here.
 *
 * Owner    The node opens doors before their threads start and closes them after they ended.
 * Thread   door_run is the thread's body; it isn't pinned and gives way to reactors.
 * Memory   Bounded by handshakes_max: 42 KB each from the first byte to the end of the handshake,
 *          then what HELLO needs (24 KB at most). A few thousand clients more wait outside, for
 *          4 KB of the kernel's each.
 * Bounds   handshakes_max connections between accept and their home; each has
 *          handshake_timeout_ms for all of it. At the bound the door stops accepting: the kernel's
 *          backlog holds the rest. Each core counts an address by itself, and allows it
 *          connections_per_address_max / cores, rounded up.
 * Errors   Set-up: hf_error. A client's fault ends that client: by an alert in the handshake, by
 *          ERROR behind it, and is counted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/siphash.h"
#include "core/io/ring.h"
#include "core/server/config.h"
#include "core/server/credentials.h"
#include "core/server/door_stats.h"
#include "core/server/listen.h"
#include "core/server/log.h"
#include "core/server/post.h"

struct door;

struct door_options {
    const struct config *config;
    struct post *post;
    const struct credentials *credentials; /* the first; later ones come by mail */
    struct ring_features features;
    uint32_t index;
    const uint8_t *core_of_volume;
    uint16_t volume_count;
    struct siphash_key hash_key;         /* random */
    int listeners[LISTEN_ADDRESSES_MAX]; /* given: the door closes them */
    uint32_t listener_count;
    struct log *log;
};

/* On failure the listeners are closed too. */
struct door *door_open(const struct door_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
void door_close(struct door *door);

/* From here on clients are queued; the thread's first turn accepts them. */
bool door_begin_listening(struct door *door, struct hf_error *error)
    __attribute__((warn_unused_result));

/* The thread's body: struct door *. Ends after MAIL_STOP. */
void *door_run(void *door);

const struct door_stats *door_get_stats(const struct door *door);

/* Whether it accepts clients. Any thread. */
bool door_is_listening(const struct door *door);

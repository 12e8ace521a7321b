/*
 * post: all mailboxes and bells of a process: who can talk to whom.
 *
 * Owner    The node, which opens it before the threads start and closes it after they have ended.
 * Thread   Each mailbox has one producer and one consumer thread, named by its field.
 * Memory   cores * cores mailboxes between doors and reactors, and between reactors.
 * Errors   Sizes are chosen so that what may be outstanding fits; where it can't be bounded
 *          (MAIL_LEFT), the sender keeps what doesn't fit and tries again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/mailbox.h"
#include "core/server/config.h"
#include "core/server/mail.h"

#define POST_CORES_MAX 64

/* Log-in tokens that a reactor has lent to doors at once. */
#define POST_TOKENS_MAX 16

/* Peer frames that a core may have lent at once, by size (CELL_SMALL, _MEDIUM, _LARGE). */
#define POST_STREAM_CELLS                                                                          \
    {                                                                                              \
        2048, 96, 32                                                                               \
    }
#define POST_STREAM_CELLS_ALL (2048 + 96 + 32)

/* Of one core; [i]: from or to the thread of core i. */
struct post_core {
    struct bell reactor_bell;
    struct bell door_bell;
    struct bell flusher_bell;
    struct bell reader_bell;
    struct mailbox *door_to_reactor;    /* [door]: this reactor is the consumer */
    struct mailbox *reactor_to_door;    /* [reactor]: this door is the consumer */
    struct mailbox *reactor_to_reactor; /* [from]: this reactor is the consumer */
    struct mailbox reactor_to_flusher;
    struct mailbox flusher_to_reactor;
    struct mailbox reactor_to_reader;
    struct mailbox reader_to_reactor;
    struct mailbox node_to_reactor;
    struct mailbox node_to_door;
};

struct post {
    uint32_t core_count;
    struct post_core *cores;
};

bool post_open(struct post *post, uint32_t core_count, const struct config *config,
               struct hf_error *error) __attribute__((warn_unused_result));
void post_close(struct post *post);

/* Gives and sends one message; false: full, try again in a later turn. */
bool post_give(struct mailbox *mailbox, const struct mail *mail)
    __attribute__((warn_unused_result));

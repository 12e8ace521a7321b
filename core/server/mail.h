/*
 * mail: what the threads of a process tell each other. Every pair that talks has one mailbox
 * (core/io/mailbox.h) in each direction; a message is one struct mail.
 *
 * Owner    What `bytes` points at belongs to the sender's pool and is lent with the message; the
 *          receiver gives it back by the RETURN of the same kind, and never frees it. So no thread
 *          frees another's memory, and a sender whose pool is empty feels it as back-pressure.
 * Thread   Sender and receiver of each kind are named below.
 */
#pragma once

#include <stdint.h>

#include "core/base/ids.h"

enum mail_kind {
    MAIL_NONE = 0,

    /* door -> reactor. A place for a logged-in connection is asked for, taken, or not needed. */
    MAIL_GRANT_ASK,    /* a: door slot, b: its generation */
    MAIL_ADOPT,        /* conn: the granted place; bytes: struct conn_frozen */
    MAIL_GRANT_CANCEL, /* conn */
    MAIL_TOKEN_ANSWER, /* conn, a as asked; code: enum token_status; number: user, b: device */

    /* reactor -> door */
    MAIL_GRANTED,      /* a, b as asked; conn: slot and generation; number: ring descriptor */
    MAIL_REFUSED,      /* a, b as asked; code: of proto/codes.h */
    MAIL_ADOPT_RETURN, /* bytes: as lent by MAIL_ADOPT; code: CODE_OK, or it wasn't adopted */
    MAIL_LEFT,         /* number: address key of a connection that has ended */
    MAIL_TOKEN_ASK,    /* conn; bytes, byte_count: a log-in token that needs public keys */

    /* reactor -> reactor */
    MAIL_STREAM,        /* partition; bytes, byte_count: a peer frame of the engine; a: its cell */
    MAIL_STREAM_RETURN, /* a: the cell */

    /* reactor -> flusher, and back */
    MAIL_FLUSH,   /* number: flush everything below this LSN */
    MAIL_FLUSHED, /* number: that LSN; everything below it is in the volumes, synced */

    /* reactor -> reader, and back */
    MAIL_LOAD,   /* bytes: struct storage_load */
    MAIL_LOADED, /* bytes: the same struct, answered; the reactor owns it again */

    /* reader -> reactor, and back: retention by age */
    MAIL_EXPIRED,        /* bytes: struct storage_expired, one at a time */
    MAIL_EXPIRED_RETURN, /* bytes: the same, taken */
    MAIL_SWEPT,          /* number: the users that a sweep has seen */

    /* node -> every thread */
    MAIL_DRAIN, /* number: monotonic ns by which all must be gone */
    MAIL_STOP,
    MAIL_RELOAD, /* bytes: struct credentials; credentials_took when done with them */
};

/*
 * The descriptor itself goes by ring: it completes in the granted ring under the tag
 * ring_tag(MAIL_OP_ADOPTED, conn_slot, conn_generation). One of enum reactor_op.
 */
#define MAIL_OP_ADOPTED 5

struct mail {
    uint8_t kind; /* enum mail_kind */
    uint8_t from; /* core of the sender */
    uint16_t code;
    struct partition_id partition;
    uint16_t zero_;
    uint32_t a;
    uint32_t b;
    uint32_t conn_slot;
    uint32_t conn_generation;
    uint64_t number;
    void *bytes;
    uint32_t byte_count;
    uint32_t zero2_;
};
_Static_assert(sizeof(struct mail) == 48, "copied through mailboxes");

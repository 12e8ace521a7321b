/*
 * conn: one client's connection after log-in, as its reactor keeps it; and the record as which a
 * door hands it over. What arrives and leaves is core/link's; what a frame means is the engine's.
 *
 * Owner    The reactor's slab of connections.
 * Thread   The reactor's.
 * Memory   sizeof(struct conn) each, paid by every connection.
 * Errors   None here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "core/link/link.h"

struct conn_frozen;

enum conn_state {
    CONN_GRANTED = 0, /* a place for a connection that the door still has */
    CONN_HELLO,       /* adopted; HELLO is being answered */
    CONN_LIVE,        /* it has a session in the engine */
    CONN_ENDING,      /* what is queued is still sent, then close_notify, then shutdown */
    CONN_DRAINING, /* everything is sent: reads on until the peer's end, so that no RST eats it */
    CONN_CLOSING,  /* close is submitted; the slot lives until it completes */
};

enum conn_flags {
    CONN_BLOCKED = 1 << 0,     /* the engine can't take the next frame yet */
    CONN_RECEIVING = 1 << 1,   /* a receive is in flight */
    CONN_CELLLESS = 1 << 2,    /* on the list of those whose input waits for cells */
    CONN_DIRTY = 1 << 3,       /* on the reactor's list of those with output to seal */
    CONN_PONG_DUE = 1 << 4,    /* pong_opaque is to be answered */
    CONN_TOKEN_ASKED = 1 << 5, /* a door is checking a token for it */
    CONN_PEER_DONE = 1 << 6,   /* the peer's close_notify or FIN has come */
    CONN_GRANT_FILE = 1 << 7,  /* the descriptor has arrived */
    CONN_GRANT_MAIL = 1 << 8,  /* the frozen record has arrived */
    CONN_STARVED = 1 << 9,     /* on the list of those that wait for receive buffers */
    CONN_SESSION = 1 << 10,    /* the engine knows it, and must be told of its end */
    CONN_FORGETTING = 1 << 11, /* on the list of those that the engine is to be told of */
    CONN_SAID_ALL = 1 << 12,   /* close_notify or an alert was sealed */
    CONN_ROOMLESS = 1 << 13,   /* on the list of those that wait for the journal's next batch */
};

struct conn {
    struct link link; /* bytes 0-255 */
    struct user_id user;
    struct device_id device;
    uint32_t generation; /* of the device, for its resume tokens */
    union {
        struct conn_frozen *frozen; /* GRANTED, HELLO: lent by the door */
        uint64_t pong_opaque;       /* later */
    };
    uint64_t address_key;  /* for the bound on connections an address */
    uint32_t file;         /* slot in the ring's table */
    uint32_t expires_at_s; /* of the login, seconds of the reactor's clock */
    uint32_t sending_since_s;
    uint32_t frames_left; /* of the rate budget */
    uint32_t bytes_left;
    uint32_t budget_at_s;
    uint32_t partial_since_s; /* a record or frame has been begun; 0: none, or it waits for us */
    uint16_t held_bytes;      /* received and not used yet, in a receive buffer; 0: none */
    uint16_t held_buffer;     /* which one */
    uint16_t flags;           /* enum conn_flags */
    uint8_t state;            /* enum conn_state */
    uint8_t ring;             /* index in the reactor's group */
    uint8_t door;             /* core of the door that accepted it */
    uint8_t error;            /* why it ends: enum code, of those below 128; 0: by the peer */
    uint8_t alert;            /* its last record: enum tls_alert; 0 is close_notify */
};
_Static_assert(sizeof(struct conn) <= 328, "paid by every connection: docs/capacity.md");

/*
 * A connection on its way from a door to a reactor, as one flat record: keys, whom the token speaks
 * for, HELLO, and the bytes that had already been read. `version` first: one day it will go to
 * another process. The door allocates it and frees it when it comes back.
 */
#define CONN_FROZEN_VERSION 1

struct conn_frozen {
    uint32_t version;
    uint32_t hello_bytes;  /* HELLO's whole frame, at bytes[0] */
    uint32_t plain_bytes;  /* decrypted and not yet parsed, behind it */
    uint32_t cipher_bytes; /* read and not yet opened, behind that */
    uint64_t accepted_at;  /* orders sockets by their accept: monotonic ns */
    uint64_t address_key;
    struct user_id user;
    struct device_id device;
    uint32_t generation;
    uint32_t has_generation;
    uint64_t login_expires_at_unix_s; /* of a resume token; 0: a new login */
    struct tls_keys keys;
    uint8_t bytes[];
};

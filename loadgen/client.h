/*
 * client: one simulated client of a crowd, after TLS: what it says and what it makes of the
 * answers, as docs/protocol.md has it. It checks every entry against what was created.
 *
 *                    HELLO put        HELLO_OK          GOAWAY           BYE sent, lost
 *   AWAY --> DIALING --------> GREETING ------> LIVE ---------> LEAVING ---------------> AWAY
 *              ^                                                                          |
 *              +--------------------------- back-off -------------------------------------+
 *
 * Who is who: clients lie by user and device: client u * devices + d is device d + 1 of user u of
 * this crowd. Users 2k and 2k + 1 are a pair and in the same crowd. Device 1 sends and receives,
 * the others receive.
 *
 * Numbers and counters: a user's messages are numbered 1, 2, 3 ... in this run, and none is ever
 * given up, so message k always goes under counter `counter_base` + k, however often it is sent.
 *
 * Owner    A swarm owns the crowd; link.h says what of a client the link owns.
 * Thread   The swarm's. Nothing blocks. No sockets, rings or TLS handshakes here.
 * Memory   sizeof(struct client) each, 16 bytes for each unanswered message, cells while something
 *          is on its way. Nothing is allocated after crowd_open.
 * Units    Monotonic ns.
 * Errors   What the server does wrong goes into the ledger; what ends the connection is returned.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/slab.h"
#include "core/link/link.h"
#include "loadgen/histogram.h"
#include "loadgen/ledger.h"
#include "loadgen/payload.h"
#include "proto/message.h"

#define CLIENT_DEVICES_MAX DEVICES_PER_USER_MAX
#define CLIENT_NONE        UINT32_MAX
#define CLIENT_SHAKE_NONE  UINT16_MAX

enum client_state {
    CLIENT_AWAY,     /* no connection, and perhaps waiting to dial */
    CLIENT_DIALING,  /* from socket to handshake */
    CLIENT_GREETING, /* HELLO is out */
    CLIENT_LIVE,
    CLIENT_LEAVING, /* no more SENDs; BYE when all are answered */
    CLIENT_CLOSING, /* the kernel still has the socket */
};

enum client_flag {
    CLIENT_KNOWN = 1 << 0,       /* counter_base is known */
    CLIENT_CURRENT = 1 << 1,     /* has the head that HELLO_OK named */
    CLIENT_ACK_DUE = 1 << 2,     /* entries came that aren't acknowledged */
    CLIENT_PING_DUE = 1 << 3,    /* nothing was sent for long */
    CLIENT_PING_OUT = 1 << 4,    /* and its PONG hasn't come */
    CLIENT_PONG_DUE = 1 << 5,    /* the server sent a PING */
    CLIENT_HOLD = 1 << 6,        /* after a temporary refusal */
    CLIENT_BYE_PUT = 1 << 7,     /* close when it is sent */
    CLIENT_WANTED = 1 << 8,      /* comes back when it is lost */
    CLIENT_AT_ONCE = 1 << 9,     /* and without back-off */
    CLIENT_RECEIVING = 1 << 10,  /* owned by the swarm: a receive is in flight */
    CLIENT_COUNTED_N = 1 << 11,  /* conversation_n is known */
    CLIENT_FIRST_READ = 1 << 12, /* latencies count: this isn't a second reading */
    CLIENT_QUEUED = 1 << 13,     /* owned by the swarm: wants to dial */
    CLIENT_SENDING = 1 << 14,    /* `out` is the kernel's */
    CLIENT_CHURNED = 1 << 15,    /* left by itself; looks at its history when it is back */
};

struct client {
    struct link link;                      /* bytes 0-255 */
    uint8_t token[RESUME_TOKEN_BYTES_MAX]; /* 256-319: for the next HELLO; a log-in token if none */
    uint64_t user;                         /* 320 */
    uint64_t epoch;                        /* of the cursor; 0: nothing yet */
    uint64_t seq;                          /* of the cursor */
    uint64_t sver;
    uint64_t counter_base;   /* 352 */
    uint64_t current_at_seq; /* what HELLO_OK called the head */
    uint64_t log_hash;       /* of all entries up to seq */
    uint64_t earlier_seq;    /* of the first reading */
    uint64_t earlier_hash;   /* 384 */
    uint64_t pong_opaque;
    uint64_t resume_at_ns;   /* when SENDs go on after a refusal, once all are answered */
    uint32_t created;        /* messages of this user: of device 1 */
    uint32_t own_seen;       /* of these, how far this device's log has come */
    uint32_t peer_seen;      /* and of the peer's */
    uint32_t conversation_n; /* n of the newest message of the pair's conversation */
    uint32_t pending_first;  /* 424: unanswered messages, oldest first */
    uint32_t pending_last;
    uint32_t pending_unsent; /* the first that wasn't sent on this connection */
    uint32_t expected;       /* the number that the last REJECTED asked for */
    uint32_t wait_min_ms;    /* 440: that the server asked for, before SENDs or the next dial */
    uint32_t wait_max_ms;
    uint32_t generation; /* of the connection */
    struct cell out;     /* sealed records on their way */
    uint16_t pending_count;
    uint16_t in_flight; /* of these, sent on this connection */
    uint16_t flags;
    uint16_t keepalive_s;
    uint16_t shake; /* 464: owned by the swarm */
    uint8_t token_bytes;
    uint8_t state;
    uint8_t attempts; /* dials in a row that didn't reach HELLO_OK */
    uint8_t sends_max;
    uint16_t out_bytes; /* of `out` */
    uint16_t out_sent;  /* 472: of these, taken by the kernel */
    uint16_t spare_;
    uint32_t untimed; /* messages up to this number have waited for somebody to come back */
    uint32_t asked_n; /* 480: conversation_n when a page was asked for */
    uint32_t spare2_;
};
_Static_assert(sizeof(struct client) == 488, "paid by every client; with timer below 700");

/* A message that isn't answered. */
struct client_pending {
    uint64_t intended_ns;
    uint32_t number;
    uint32_t next;
};
_Static_assert(sizeof(struct client_pending) == 16, "paid by every unanswered message");

/* name, and what it counts */
#define CROWD_COUNTS(X)                                                                            \
    X(live, "clients logged in")                                                                   \
    X(current, "and have all that the server had")                                                 \
    X(full, "full handshakes")                                                                     \
    X(resumed, "resumed handshakes")                                                               \
    X(dial_refused, "connections refused or reset before TLS")                                     \
    X(shake_failed, "handshakes that failed")                                                      \
    X(login_refused, "HELLOs refused")                                                             \
    X(timed_out, "connections given up for silence")                                               \
    X(lost, "logged-in connections lost")                                                          \
    X(cells_short, "connections given up for want of memory here")                                 \
    X(created, "messages created")                                                                 \
    X(held, "messages not created: 32 of that sender were unanswered")                             \
    X(sent, "SENDs, repeats included")                                                             \
    X(answered, "messages accepted")                                                               \
    X(rejected, "temporary refusals")                                                              \
    X(pending, "messages unanswered now")                                                          \
    X(own_entries, "own messages found in logs")                                                   \
    X(peer_entries, "messages received")                                                           \
    X(foreign_entries, "entries of earlier runs")                                                  \
    X(faults, "faults")                                                                            \
    X(late, "messages created late")                                                               \
    X(churned, "times that a client left by itself")                                               \
    X(pages, "pages of history")                                                                   \
    X(page_entries, "entries on them")                                                             \
    X(pages_refused, "pages that the server had no time for")

struct crowd_counts {
#define CROWD_COUNT_FIELD(name, text) uint64_t name;
    CROWD_COUNTS(CROWD_COUNT_FIELD)
#undef CROWD_COUNT_FIELD
};

struct crowd_options {
    uint32_t users;   /* even */
    uint32_t devices; /* each */
    uint16_t body_bytes;
    bool gather;      /* what is due together goes in one record */
    bool one_way;     /* only the first user of each pair sends */
    uint32_t pending; /* unanswered messages at most, in all */
    uint32_t busy;    /* clients that are busy at once: bounds contexts and cells */
    const struct payload_run *run;
};

struct crowd {
    struct client *clients; /* users * devices */
    uint32_t count;
    uint32_t devices;
    uint32_t users;
    uint16_t body_bytes;
    uint16_t window; /* messages that each sender keeps unanswered; 0: none */
    uint16_t page_n; /* entries of a page that a churned client asks for; 0: none */
    bool churned;    /* clients come and go: what has waited for one of them isn't timed */
    bool gather;
    bool one_way;
    uint64_t now_ns; /* set by the swarm before it calls anything here */
    struct payload_run run;
    struct cells cells;
    struct tls_core tls;
    struct link_pools pools;
    struct slab pending;
    struct ledger ledger;
    struct crowd_counts counts;
    struct histogram accepted;     /* ns from the intended time to ACCEPTED */
    struct histogram delivered;    /* ns from the intended time to the receiver's entry */
    uint8_t body_[BODY_BYTES_MAX]; /* scratch of one call */
    uint8_t plain_[TLS_PLAINTEXT_BYTES_MAX];
};

bool crowd_open(struct crowd *crowd, const struct crowd_options *options, struct hf_error *error)
    __attribute__((warn_unused_result));
void crowd_close(struct crowd *crowd);

static inline uint32_t client_index(const struct crowd *crowd, const struct client *client)
{
    return (uint32_t)(client - crowd->clients);
}

/* Devices are numbered from 1. */
static inline uint32_t client_device(const struct crowd *crowd, const struct client *client)
{
    return client_index(crowd, client) % crowd->devices + 1;
}

/* Device 1 of the same user. */
static inline struct client *client_sender(const struct crowd *crowd, const struct client *client)
{
    return &crowd->clients[client_index(crowd, client) -
                           client_index(crowd, client) % crowd->devices];
}

/* Whether it sends messages in this run. */
static inline bool client_sends(const struct crowd *crowd, const struct client *client)
{
    const uint32_t index = client_index(crowd, client);

    return index % crowd->devices == 0 && !(crowd->one_way && index / crowd->devices % 2 == 1);
}

/* Device 1 of the other user of the pair. */
static inline struct client *client_peer(const struct crowd *crowd, const struct client *client)
{
    const uint32_t user = client_index(crowd, client) / crowd->devices;

    return &crowd->clients[(size_t)(user ^ 1) * crowd->devices];
}

/* Writes the HELLO that this client says now. Bytes, or 0 when `cap` is too small. */
size_t client_hello(const struct crowd *crowd, const struct client *client, const uint8_t *token,
                    size_t token_bytes, uint8_t *to, size_t cap)
    __attribute__((warn_unused_result));

/*
 * A message is due: it is created, and queued behind the unanswered ones. False: too many of that
 * sender are unanswered, and it isn't created.
 */
bool client_create(struct crowd *crowd, struct client *client, uint64_t intended_ns);

enum client_verdict {
    CLIENT_GOES_ON,
    CLIENT_ENDS,   /* the connection is to be closed; the client may come back */
    CLIENT_NO_CELL /* the same, for want of memory */
};

/* A frame came. */
enum client_verdict client_on_frame(struct crowd *crowd, struct client *client,
                                    const struct frame_view *view)
    __attribute__((warn_unused_result));

/*
 * Seals what is to be sent next, as records in one cell: each SEND in one of its own, unless they
 * are to be gathered; what else there is goes with the first. The bytes stay until client_sent.
 * NULL: there is nothing, or a send is in flight.
 *
 * Not by link.h, which sends one record at a time: with a window of 16 that would be 16 system
 * calls at this end and up to 16 at the server's, where a real client has one.
 */
enum client_verdict client_output(struct crowd *crowd, struct client *client, const uint8_t **bytes,
                                  size_t *byte_count) __attribute__((warn_unused_result));

/* The kernel took so many of these bytes. What is still to be sent of them, or NULL. */
const uint8_t *client_sent(struct crowd *crowd, struct client *client, size_t byte_count,
                           size_t *rest_bytes) __attribute__((warn_unused_result));

/*
 * The client's timer fired while it is live. Returns when it wants the next (client_timer_ns), or
 * says that the connection is dead.
 */
enum client_verdict client_on_timer(struct crowd *crowd, struct client *client)
    __attribute__((warn_unused_result));
uint64_t client_timer_ns(const struct crowd *crowd, const struct client *client);

/* The connection is gone: nothing of it counts any more. */
void client_on_lost(struct crowd *crowd, struct client *client);

/* And the kernel has nothing of it any more: gives back its cells, zeroes its keys. */
void client_drop(struct crowd *crowd, struct client *client);

/* How long to wait before the next dial; `random` is any number. */
uint64_t client_back_off_ns(struct client *client, uint32_t back_off_max_s, uint64_t random);

/* The client is to read its log again from the start: its next HELLO says so. */
void client_reread(struct crowd *crowd, struct client *client);

/* All has come that ever will: compares with what was created. */
void client_audit(struct crowd *crowd, struct client *client);

/*
 * client: a virtual phone. It follows docs/protocol.md with code of its own, so that it also
 * checks what the document says; what it is told goes to the ledger.
 *
 * Owner    The run.
 * Thread   The owner's only.
 * Errors   An answer that the protocol doesn't allow is sim_fail().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/entries.h"
#include "proto/message.h"
#include "tests/sim/hazards.h"
#include "tests/sim/ledger.h"
#include "tests/sim/net.h"
#include "tests/sim/prng.h"

#define CLIENT_OUTBOX_MAX    48
#define CLIENT_PEERS_MAX     16
#define CLIENT_ROGUE_REQUEST UINT32_C(0x80000000) /* request ids from here on expect nothing */

struct outbox_item {
    uint32_t message;
    uint64_t counter; /* 0: not numbered */
    bool sent_here;   /* on the connection of now */
    bool cut; /* a RESET skipped entries while it waited: a catch-up can't tell its fate any more */
};

/* What a phone has on its disk, and what a backup of it has. */
struct client_store {
    uint64_t epoch;
    uint64_t seq; /* has all entries up to here */
    uint64_t last_counter;
    uint32_t generation;
    bool has_generation;
    bool resync;   /* number anew, once caught up */
    bool mistaken; /* it has skipped a counter: may be told ORDER */
    uint32_t outbox_count;
    struct outbox_item outbox[CLIENT_OUTBOX_MAX];
};

struct client_send {
    uint64_t counter;
    uint32_t message;
    bool answered;
};

/* A frame of entries that isn't acknowledged. */
struct client_frame {
    uint64_t last_seq;
    size_t byte_count;
};

struct client_request {
    uint32_t id; /* 0: free */
    uint64_t conversation;
    enum history_direction direction;
    uint64_t anchor;
    uint64_t anchor_n;
    bool anchor_bogus;
    uint16_t n;
    uint32_t bytes;
    uint64_t newest; /* the newest entry of the conversation that was seen when it was asked */
    bool audit;      /* one of the complete walk at the end */
};

struct client_style {
    bool sends_early;     /* right behind HELLO */
    bool notices_counter; /* a last counter beyond its own: it has been restored */
    uint32_t window;
    uint32_t outstanding_max;
    uint32_t ack_chance; /* in a thousand, after each frame of entries */
    uint32_t talk;       /* in a thousand, of its actions: a new message */
};

struct client {
    uint32_t index;
    uint32_t user_index;
    uint64_t user;
    uint32_t device;
    struct client_style style;
    uint64_t peers[CLIENT_PEERS_MAX]; /* everybody; the first `talk_count` it writes to */
    uint32_t peer_count;
    uint32_t talk_count;

    struct client_store store;
    struct client_store backup;
    bool has_backup;
    bool restored;         /* ever: only then may it be told CONFLICT or STALE */
    uint64_t wakes_at;     /* event; does nothing before */
    uint64_t counter_seen; /* the highest counter answered for good */

    /* Of the connection of now. */
    struct connection *connection;
    bool welcomed;
    bool misbehaved; /* may be told so */
    bool paused;     /* a temporary refusal: waits for all answers, then numbers anew */
    bool ordered;    /* one of them was ORDER */
    bool refused;    /* one of them wasn't */
    uint64_t hello_epoch, hello_seq;
    uint64_t hello_head, hello_floor; /* that any device had been told when HELLO was sent */
    uint64_t welcome_head, welcome_counter;
    uint64_t acked;
    uint32_t window;
    uint64_t unacked_bytes;
    struct client_frame *frames;
    uint32_t frame_first, frame_count, frame_capacity;
    uint64_t number_from;
    uint32_t outstanding;
    struct client_send *sends; /* all of this connection */
    uint32_t send_count, send_capacity;
    struct client_request requests[REQUESTS_OUTSTANDING_MAX];
    uint32_t last_request;

    /* The complete walk through the history at the end. */
    uint32_t audit_peer;
    enum history_direction audit_direction;
    uint32_t audit_n; /* 0: draw another; the same again until it is answered by a page */
    uint64_t audit_anchor;
};

/* What a client knows of the world. */
struct client_world {
    struct prng *prng;
    struct ledger *ledger;
    struct net *net;
    struct hazards *hazards;
    const uint64_t *event;
    uint32_t large_bodies;
    uint32_t leave, restore, back, rogue, history, bad_sends, favourite, bursts,
        doubled;    /* in a thousand */
    bool retention; /* logs are cut at their beginning */
    bool calm;      /* the faults have stopped: drain */
};

void client_open(struct client *client, const struct client_world *world, uint32_t index,
                 uint32_t user_index, uint64_t user, uint32_t device);
void client_close(struct client *client);

/* Something that a person or a phone does: writes, acknowledges, reads, goes, comes. */
void client_act(struct client *client, const struct client_world *world);
bool client_can_receive(const struct client *client);
/* Takes one frame, or sees that the server has gone. */
void client_receive(struct client *client, const struct client_world *world);
/* Nothing is left to send, receive, or walk through. */
bool client_is_drained(const struct client *client, const struct client_world *world);

/* An entry as a client was shown it, in the live feed or on a page. */
void client_tell_message(struct client *client, const struct client_world *world, uint64_t seq,
                         const struct entry_message *entry);

/* client_history.c */
void client_ask_history(struct client *client, const struct client_world *world);
void client_on_page(struct client *client, const struct client_world *world,
                    const struct frame_view *view);
void client_on_request_error(struct client *client, const struct client_world *world,
                             const struct message_error *error);
void client_audit_begin(struct client *client);
bool client_audit_step(struct client *client, const struct client_world *world); /* false: done */

/* client_rogue.c */
void client_misbehave(struct client *client, const struct client_world *world);
bool client_may_be_told(const struct client *client, uint16_t code);

/* client_send.c */
void client_create(struct client *client, const struct client_world *world);
void client_send_some(struct client *client, const struct client_world *world);
void client_on_accepted(struct client *client, const struct client_world *world,
                        const struct frame_view *view);
void client_on_rejected(struct client *client, const struct client_world *world,
                        const struct frame_view *view);
/* An own entry has come: it is an answer to what still waits. */
void client_answered(struct client *client, uint32_t message);
const struct client_send *client_find_send(const struct client *client, uint64_t counter);
/* Goes on after a pause or a resync if nothing stands against it any more. */
void client_settle(struct client *client, const struct client_world *world);
void client_backup(struct client *client);
void client_restore(struct client *client, const struct client_world *world);

static inline void client_count(const struct client_world *world, enum hazard hazard)
{
    world->hazards->counts[hazard]++;
}

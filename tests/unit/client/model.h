/*
 * model: a server of one user and one device, as small as docs/protocol.md allows, that tests drive
 * by hand: frames in, frames out, and the hazards that a client must survive.
 *
 * It keeps what a real server keeps (log, last counter, 32 outcomes), and asserts what a client may
 * not do (more SENDs outstanding than allowed, an ACK beyond what was sent).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/entries.h"
#include "proto/message.h"

enum {
    MODEL_ENTRIES_MAX = 4096,
    MODEL_BODY_BYTES = 32,
    MODEL_OUT_BYTES = 1 << 20,
};

struct model_entry {
    struct message_id id;
    struct conversation_id conversation;
    struct nonce nonce; /* own */
    uint64_t counter;   /* own */
    uint64_t link;      /* own: the connection that the SEND came on */
    uint64_t prev, n, cn;
    uint8_t body[MODEL_BODY_BYTES];
    uint8_t body_bytes;
    uint8_t kind;
    bool own;
};

struct model_outcome {
    uint64_t counter;
    struct nonce nonce;
    uint16_t code; /* 0: accepted */
    struct message_id id;
    uint64_t seq;
};

struct model {
    uint64_t user;
    uint32_t device;
    uint64_t epoch;
    uint64_t floor;
    uint64_t count; /* of entries: the head */
    struct model_entry entries[MODEL_ENTRIES_MAX];
    uint64_t last_counter;
    struct model_outcome outcomes[OUTCOMES_KEPT];
    uint64_t outcome_count;
    uint64_t next_id;
    uint64_t links;          /* connections so far */
    unsigned refuse_percent; /* of new SENDs, for now */
    uint64_t random;
};

struct model_link {
    uint64_t number;
    bool greeted;
    bool closed;       /* nothing more from this side */
    uint64_t next_seq; /* of the entry to send */
    uint8_t *out;      /* MODEL_OUT_BYTES */
    size_t out_bytes;
};

struct model *model_open(uint64_t user, uint32_t device, uint64_t seed);
uint64_t model_random(struct model *model, uint64_t below);

/* A connection; the earlier one is fenced by forgetting it. */
void model_connect(struct model *model, struct model_link *link);

/* Handles a frame; answers are appended to link->out. */
void model_input(struct model *model, struct model_link *link, const struct frame_view *view);

/* Appends the entries that this link hasn't had, some in one frame. */
void model_push(struct model *model, struct model_link *link);

/* A message of another user arrives. */
void model_receive(struct model *model, uint64_t sender, const char *body);

/* Bytes of `out` were taken. */
void model_take(struct model_link *link, size_t byte_count);

/* How often an own message with this nonce stands in the log. */
unsigned model_count(const struct model *model, const struct nonce *nonce);

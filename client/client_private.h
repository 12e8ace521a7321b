/*
 * client_private: what the files of the machine (client.c, client_in.c, client_out.c) share.
 */
#pragma once

#include "client/client.h"
#include "core/base/check.h"

/* How long to wait for HELLO_OK; for anything at all after a PING; for answers before leaving. */
#define CLIENT_GREETING_MS UINT64_C(30000)
#define CLIENT_SILENCE_MS  UINT64_C(15000)
#define CLIENT_LEAVING_MS  UINT64_C(3000)

#define CLIENT_BACK_OFF_MS_MAX    UINT64_C(60000)
#define CLIENT_BACK_OFF_MS        UINT64_C(1000)
#define CLIENT_RESEND_MS          UINT64_C(100)
#define CLIENT_RESEND_MS_MAX      UINT64_C(30000)
#define CLIENT_BACK_OFF_SHIFT_MAX 16

/* No device gets so far; a server that says so could make our counters wrap. */
#define CLIENT_COUNTER_MAX (UINT64_C(1) << 62)

/* Frames to write. */
enum {
    SAY_HELLO = 1 << 0,
    SAY_TOKEN = 1 << 1,
    SAY_ACK = 1 << 2,
    SAY_PONG = 1 << 3,
    SAY_PING = 1 << 4,
    SAY_BYE = 1 << 5,
};

/* Events to be taken, in this order. */
enum {
    EVENT_ERROR = 1 << 0,
    EVENT_GOAWAY = 1 << 1,
    EVENT_ONLINE = 1 << 2,
    EVENT_TOKEN = 1 << 3,
    EVENT_FORGET_TOKEN = 1 << 4,
    EVENT_ANSWER = 1 << 5,
    EVENT_ENTRIES = 1 << 6,
    EVENT_PAGE = 1 << 7,
    EVENT_REQUEST_FAILED = 1 << 8,
    EVENT_UNKNOWN_FATE = 1 << 9,
    EVENT_RENUMBERED = 1 << 10,
    EVENT_CAUGHT_UP = 1 << 11,
    EVENT_TOKEN_WANTED = 1 << 12,
    EVENT_REQUESTS_LOST = 1 << 13,
    EVENT_OFFLINE = 1 << 14,
};

enum send_state {
    SEND_EMPTY = 0, /* answered, but between others */
    SEND_QUEUED,    /* not written on this connection */
    SEND_WRITTEN,   /* unanswered on this connection */
    SEND_REFUSED,   /* for now */
    SEND_UNKNOWN,   /* its event is to be taken */
};

static inline struct client_send *client_slot(const struct client *client, uint32_t offset)
{
    HF_ASSERT(offset < client->count_);

    const uint32_t index = client->first_ + offset;

    return &client
                ->sends_[index < client->sends_capacity_ ? index : index - client->sends_capacity_];
}

/* Evenly distributed from 0 to `span`, both included. */
static inline uint64_t client_random(struct client *client, uint64_t span)
{
    client->jitter_ += UINT64_C(0x9e3779b97f4a7c15);

    const uint64_t value = id_mix(client->jitter_);

    return span == UINT64_MAX ? value : value % (span + 1);
}

/* A login of so many seconds begins: a token is wanted between a half and three quarters of it. */
void client_set_life(struct client *client, uint32_t life_s);

/* Ends the connection for this reason, unless another one came first. */
void client_end(struct client *client, enum client_why why, unsigned code);

/* The send at `offset` needs no answer any more. */
void client_forget_send(struct client *client, uint32_t offset);

/*
 * Numbers all sends from `counter` and lets them be written again. True: some number is another.
 */
bool client_renumber(struct client *client, uint64_t counter);

/* Offset of the send that is written under this counter; count_ if there is none. */
uint32_t client_find_written(const struct client *client, uint64_t counter);

/* A send that was written under this counter has its answer. */
void client_count_answer(struct client *client, uint64_t counter);

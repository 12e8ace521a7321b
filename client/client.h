/*
 * client: one device's side of the protocol, as a machine without I/O: frames and time go in,
 * frames and events come out.
 *
 * Purpose  Logs in, sends, receives, acknowledges, keeps alive, renews its token, leaves and says
 *          when to come back, as docs/protocol.md asks of a client. The host owns the socket, the
 *          disk and the clock; under libholdfast that is library.c and transport.c, in the load
 *          generator its own rings.
 * Owner    The host's memory: struct client, its ring of sends, its requests, tokens and bodies.
 *          A body is needed until its send is answered (ACCEPTED, REJECTED, UNKNOWN_FATE, or an
 *          ENTRY that names it) or withdrawn; a token until another one is set.
 * Thread   One at a time. Nothing blocks, nothing is allocated.
 * Memory   sizeof(struct client), and sizeof(struct client_send) for each message that may wait.
 *          struct client_scratch is needed only between a call and the last of its events: one for
 *          all clients of a thread will do.
 * Units    `now_ms`: monotonic milliseconds, never going back.
 * Errors   What a server does wrong ends the connection (client_wants_close). Misuse asserts.
 * Random   Nonces come from the caller, with each message. Waiting times are spread by a small
 *          generator that starts from client_options.jitter_seed; the same inputs give the same
 *          outputs.
 * Source   docs/protocol.md.
 *
 * The host's turn, after any of client_on_connected, _on_frame, _on_time, _on_disconnected and
 * _start, and before the bytes of a frame go away:
 *
 *     while (client_next_event(client, &event)) { ... write down what must survive ... }
 *     client_stored(client, seq of the last entry that is on disk);
 *     count = client_output(client, buffer, room, now_ms, more_input);   until it gives 0
 *     if (client_wants_close(client)) { flush, close; client_on_disconnected(client, now_ms); }
 *
 * Nothing is lost or doubled if the host keeps this order: a send is on disk before client_send is
 * followed by client_output; events are on disk before client_output; entries are on disk before
 * client_stored. On disk a send is {tag, counter, nonce, conversation, kind, body}; RENUMBERED
 * gives all unanswered sends, in order, new counters.
 *
 *      STOPPED --start--> WAITING --on_connected--> GREETING --HELLO_OK--> LIVE
 *         ^                  ^                          |                    |
 *         |                  |              fatal ERROR |       GOAWAY, leave|
 *         |                  |                          v                    v
 *         |                  +-- on_disconnected --- CLOSING <--answers-- LEAVING
 *         +-- on_disconnected: REPLACED, VERSION, TOO_MANY_DEVICES, no token, left
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "proto/codes.h"
#include "proto/entries.h"
#include "proto/frame.h"
#include "proto/limits.h"
#include "proto/message.h"

enum client_state {
    CLIENT_STOPPED,  /* wants no connection until client_start */
    CLIENT_WAITING,  /* wants one from client_connect_at_ms on */
    CLIENT_GREETING, /* HELLO is out, or about to be */
    CLIENT_LIVE,
    CLIENT_LEAVING, /* no SEND any more; waits for answers, then says BYE */
    CLIENT_CLOSING, /* the host closes when client_output has given all */
};

/* A message that waits for its answer. */
struct client_send {
    uint64_t tag;     /* the host's name for it, never 0 */
    uint64_t counter; /* set by client_send */
    struct nonce nonce;
    struct conversation_id conversation;
    const uint8_t *body;
    uint16_t body_bytes;
    uint8_t kind;
    uint8_t state_;
    /*
     * May have left in an earlier life: it comes from the disk, or was written on some connection.
     * Such a one, when the catch-up that would have shown it was cut, has an unknown fate.
     */
    bool maybe_written;
    bool cut; /* entries were skipped since it was queued */
    uint16_t code_;
};

/* A HISTORY that waits for its PAGE. */
struct client_request {
    struct message_history history; /* request 0: free */
    bool written_;
};

struct client_requests {
    uint32_t last_request_;
    struct client_request request[REQUESTS_OUTSTANDING_MAX];
};

/* What a frame said, until its events are taken. */
struct client_scratch {
    union {
        struct message_hello_ok hello_ok;
        struct message_token token;
        struct message_goaway goaway;
        struct message_error error;
        struct message_entries entries;
        struct message_page page;
    } in;
    uint64_t tag;       /* of the send that was answered */
    uint64_t id;        /* ACCEPTED */
    uint64_t seq;       /* ACCEPTED */
    uint64_t counter;   /* ACCEPTED, REJECTED */
    uint64_t gap_first; /* RESET */
    uint64_t gap_last;
    uint32_t retry_ms;
    uint32_t request; /* REQUEST_FAILED */
    uint16_t code;
    uint8_t answer; /* enum client_event_kind */
    uint8_t reset;  /* enum client_reset */
    bool cut;
};

struct client_options {
    struct user_id user;
    struct device_id device;
    struct message_cursor cursor; /* of what is stored */
    uint64_t last_counter;        /* of the last send that was queued; 0: none yet */
    bool recounting;              /* a RESET with recounting was stored, and no RENUMBERED since */
    struct message_bytes login_token;
    struct message_bytes resume_token; /* preferred, when there is one */
    struct message_bytes name;         /* of the program, for the server's logs */
    uint32_t window;                   /* bytes of ENTRIES; 0: the server's choice */
    uint64_t jitter_seed;
    struct client_send *sends; /* ring */
    uint32_t sends_capacity;
    struct client_requests *requests; /* zeroed; NULL: asks for no history */
    struct client_scratch *scratch;
};

struct client {
    struct client_send *sends_;
    struct client_requests *requests_;
    struct client_scratch *scratch_;
    struct message_bytes login_token_;
    struct message_bytes resume_token_;
    struct message_bytes name_;
    struct user_id user_;
    struct message_cursor cursor_; /* seq: received */
    uint64_t stored_seq_;
    uint64_t acked_seq_;
    uint64_t head_;                /* of HELLO_OK */
    uint64_t last_counter_;        /* given to a send */
    uint64_t next_counter_;        /* that the server will take, as far as it told us */
    uint64_t written_counter_max_; /* on this connection */
    uint64_t now_ms_;
    uint64_t connect_at_ms_;
    uint64_t resume_at_ms_; /* sends wait until then */
    uint64_t renew_at_ms_;
    uint64_t life_end_at_ms_;
    uint64_t deadline_at_ms_; /* GREETING, LEAVING: the end of patience */
    uint64_t last_rx_ms_;
    uint64_t last_tx_ms_;
    uint64_t ping_at_ms_; /* when our unanswered PING left; 0: none */
    uint64_t pong_opaque_;
    uint64_t jitter_;
    struct device_id device_;
    uint32_t window_wish_;
    uint32_t window_;
    uint32_t unacked_bytes_;
    uint32_t keepalive_ms_;
    uint32_t wait_min_ms_; /* before the next attempt */
    uint32_t wait_max_ms_;
    uint32_t sends_capacity_;
    uint32_t first_; /* oldest send, index into the ring */
    uint32_t count_; /* of the ring in use, answered ones between others too */
    uint32_t next_;  /* behind first_: the next one to write */
    uint32_t outstanding_;
    uint32_t body_bytes_max_;
    uint32_t events_;   /* to be taken: EVENT_ bits of client_private.h */
    uint32_t to_say_;   /* to be written: SAY_ bits */
    uint32_t failures_; /* attempts in a row that didn't reach HELLO_OK */
    uint16_t outstanding_max_;
    uint16_t requests_max_;
    uint16_t refusals_; /* temporary ones in a row */
    uint16_t end_code_;
    uint8_t state_;
    uint8_t end_;
    bool used_resume_token_;
    bool fresh_login_token_; /* not used yet: prolongs a login */
    bool renewing_;          /* it is on its way in a TOKEN */
    bool token_wanted_;      /* the host was told so */
    bool recounting_;
    bool paused_; /* by a temporary refusal */
    bool caught_up_;
    bool online_;      /* this connection reached HELLO_OK */
    bool leave_;       /* by the host's wish: no return */
    bool needs_token_; /* stopped for want of one */
};

void client_init(struct client *client, const struct client_options *options);

/*
 * Before client_start: a send from the disk, oldest first, with the counter that it had. False: the
 * ring is full.
 */
bool client_restore(struct client *client, const struct client_send *send)
    __attribute__((warn_unused_result));

/* Gives the ring more room; `sends` is at least as large, and the old one is free afterwards. */
void client_grow(struct client *client, struct client_send *sends, uint32_t sends_capacity);

/* ---- connections */

/*
 * Wants a connection, at once. Also after having stopped, whatever the reason. False: there is no
 * token to log in with.
 */
bool client_start(struct client *client, uint64_t now_ms) __attribute__((warn_unused_result));

/* Says BYE when what is written was answered (at once with `now`), and stops. */
void client_leave(struct client *client, bool now, uint64_t now_ms);

static inline enum client_state client_state(const struct client *client)
{
    return (enum client_state)client->state_;
}

/* WAITING: when to dial. */
static inline uint64_t client_connect_at_ms(const struct client *client)
{
    return client->connect_at_ms_;
}

/* TLS is up. */
void client_on_connected(struct client *client, uint64_t now_ms);

/* The connection is gone, or an attempt at one has failed. */
void client_on_disconnected(struct client *client, uint64_t now_ms);

/* A whole frame. Its bytes stay until the events are taken. Ignored when CLOSING. */
void client_on_frame(struct client *client, const struct frame_view *view, uint64_t now_ms);

/* What can't be a frame: frame_parse said FRAME_TOO_LARGE. */
void client_on_bad_stream(struct client *client, uint64_t now_ms);

/* At client_deadline_ms, or at any time. */
void client_on_time(struct client *client, uint64_t now_ms);

/* When client_on_time is wanted; UINT64_MAX: never. WAITING: when to dial. */
uint64_t client_deadline_ms(const struct client *client);

/*
 * Writes whole frames; 0: nothing to say now, or not enough room for it (FRAME_BYTES_MAX always
 * is). What is written counts as sent: if it can't be, the connection must end. All events must
 * have been taken. `more_input`: more bytes are waiting to be read, so an ACK may wait for them.
 */
size_t client_output(struct client *client, uint8_t *to, size_t capacity, uint64_t now_ms,
                     bool more_input) __attribute__((warn_unused_result));

/* The connection is to be closed, once what client_output gave is flushed. */
static inline bool client_wants_close(const struct client *client)
{
    return client->state_ == CLIENT_CLOSING && client->to_say_ == 0;
}

/*
 * Good until another is set. A log-in token that is set after client_init is fresh: it prolongs the
 * login, at once if there is a connection. A resume token takes effect with the next HELLO.
 */
void client_set_login_token(struct client *client, struct message_bytes token);
void client_set_resume_token(struct client *client, struct message_bytes token);

/* ---- sending and receiving */

enum client_send_result {
    CLIENT_SEND_OK,
    CLIENT_SEND_FULL,           /* the ring: try again after an answer, or client_grow */
    CLIENT_SEND_BODY_TOO_LARGE, /* for this server */
};

/*
 * Queues a message: tag, nonce, conversation, kind (at most KIND_MAX), body and body_bytes are the
 * caller's; sets its counter.
 */
enum client_send_result client_send(struct client *client, struct client_send *send)
    __attribute__((warn_unused_result));

/* Takes a message back that surely isn't on the server: never written, or refused for now. */
bool client_withdraw(struct client *client, uint64_t tag) __attribute__((warn_unused_result));

static inline bool client_has_room(const struct client *client)
{
    return client->count_ < client->sends_capacity_;
}

/* Messages that have no answer yet. */
uint32_t client_unanswered(const struct client *client);

/* Every entry up to `seq`, received before, is on disk: may be acknowledged. */
void client_stored(struct client *client, uint64_t seq);

/* The number of the request, or 0: too many are unanswered, or the client isn't LIVE. */
uint32_t client_history(struct client *client, struct conversation_id conversation,
                        enum history_direction direction, uint64_t anchor, uint16_t n,
                        uint32_t bytes) __attribute__((warn_unused_result));

/* What was received, whether stored or not. */
static inline struct message_cursor client_cursor(const struct client *client)
{
    return client->cursor_;
}

/* A body may have so many bytes, as far as the server has told. */
static inline uint32_t client_body_bytes_max(const struct client *client)
{
    return client->body_bytes_max_;
}

/* The counter of the last send that was queued; the next one gets it + 1. */
static inline uint64_t client_last_counter(const struct client *client)
{
    return client->last_counter_;
}

/* All entries that were there at log-in have come. */
static inline bool client_caught_up(const struct client *client)
{
    return client->caught_up_;
}

/* ---- events */

enum client_event_kind {
    CLIENT_EVENT_ONLINE,         /* HELLO_OK: `online`. Store the cursor if `reset` isn't NONE */
    CLIENT_EVENT_RESUME_TOKEN,   /* `token`: keep it, set it; empty: forget the old one */
    CLIENT_EVENT_TOKEN_WANTED,   /* `left_ms`: then the login ends, unless a fresh token comes */
    CLIENT_EVENT_CAUGHT_UP,      /* all that was there at log-in has come */
    CLIENT_EVENT_ENTRY,          /* `entry`; with a tag it is also the answer to that send */
    CLIENT_EVENT_ACCEPTED,       /* `answer` */
    CLIENT_EVENT_REJECTED,       /* `answer`: for good */
    CLIENT_EVENT_DELAYED,        /* `answer`: for now; it will be sent again by itself */
    CLIENT_EVENT_UNKNOWN_FATE,   /* `answer`: may have been accepted or not; no longer tried */
    CLIENT_EVENT_RENUMBERED,     /* `counter`: all unanswered sends, in order, count from it */
    CLIENT_EVENT_PAGE,           /* `page` */
    CLIENT_EVENT_REQUEST_FAILED, /* `failed`; code 0: the connection went */
    CLIENT_EVENT_ERROR,          /* `error`: the server's words, fatal or not */
    CLIENT_EVENT_GOAWAY,         /* `goaway` */
    CLIENT_EVENT_OFFLINE,        /* `offline`: the connection, or the attempt, is over */
};

enum client_reset {
    CLIENT_RESET_NONE,  /* RESUME */
    CLIENT_RESET_GAP,   /* entries first to last are lost to this device; keep the rest */
    CLIENT_RESET_ANEW,  /* another log: every seq, prev, n, cn known is void */
    CLIENT_RESET_FIRST, /* there was nothing yet */
};

enum client_why {
    CLIENT_WHY_LOST,      /* no connection, or it ended without a word */
    CLIENT_WHY_TIMEOUT,   /* nothing came for too long */
    CLIENT_WHY_VIOLATION, /* the server broke the protocol */
    CLIENT_WHY_ERROR,     /* a fatal ERROR: `code` */
    CLIENT_WHY_GOAWAY,
    CLIENT_WHY_LEFT, /* client_leave */
};

struct client_event {
    enum client_event_kind kind;
    union {
        struct {
            struct message_cursor cursor; /* the next entry is behind it */
            uint64_t head;
            uint64_t floor;
            uint64_t time_unix_ms;
            uint64_t gap_first; /* CLIENT_RESET_GAP */
            uint64_t gap_last;
            enum client_reset reset;
            bool cut;        /* entries were skipped: unanswered sends carry `cut` from now on */
            bool recounting; /* sends wait for the catch-up */
        } online;
        struct message_bytes token;
        struct {
            uint64_t seq;
            uint64_t tag; /* of the own send that it answers; 0: none */
            struct entry entry;
        } entry;
        struct {
            uint64_t tag;
            uint64_t counter;
            struct message_id id; /* ACCEPTED */
            uint64_t seq;         /* ACCEPTED */
            uint16_t code;        /* REJECTED, DELAYED */
            uint32_t retry_ms;    /* DELAYED */
        } answer;
        uint64_t counter;
        uint64_t left_ms;
        struct message_page page;
        struct {
            uint32_t request;
            uint16_t code;
            uint32_t retry_ms;
        } failed;
        struct message_error error;
        struct message_goaway goaway;
        struct {
            enum client_why why;
            uint16_t code;        /* of the ERROR, or of the violation */
            bool stopped;         /* no return before client_start */
            bool needs_token;     /* nor before client_set_login_token */
            uint64_t retry_in_ms; /* else */
            uint32_t failures;    /* attempts in a row */
        } offline;
    };
};

/* False: none is left. */
bool client_next_event(struct client *client, struct client_event *event)
    __attribute__((warn_unused_result));

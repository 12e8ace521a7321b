/*
 * holdfast: chat by a Holdfast server, for programs in C and whatever binds to it.
 *
 *     struct hf_client *client;
 *     if (hf_open("/var/lib/me", &client, text, sizeof text) != HF_OK) ...
 *     hf_login(client, "chat.example:7443", 1001, 7, token, ca_pem);      once in a life
 *     hf_start(client);
 *     for (;;) {
 *         hf_wait(client, 1000);                                or poll(2), then hf_step
 *         while (hf_next_event(client, &event) == HF_OK) ...
 *     }
 *
 * Purpose  One device of one user: stays connected, sends, receives, and keeps on disk what must
 *          not be lost: received messages, the cursor, messages that have no answer yet. A message
 *          given to hf_send is sent once, and an event for a message comes once, whatever crashes.
 * Owner    hf_open gives a client, hf_close takes it back. It owns its directory: no other process
 *          can use it meanwhile. Pointers in an event are good until the next hf_next_event.
 * Thread   One at a time for one client; any number of clients. There are no callbacks and no
 *          threads of its own. hf_step never waits for the network, but for the disk (and when it
 *          dials, for the name service).
 * Memory   About 400 KB a client; 16 bytes for each message on disk; bodies of unanswered ones.
 * Units    Named in each field. Ids and seqs as in docs/protocol.md.
 * Errors   enum hf_result, and one line of text in hf_error_text. After HF_STORAGE the client can
 *          only be closed; nothing is lost, and it may be opened again.
 * Stable   What begins with hf_ or HF_ stays as it is within a major version; structs may get new
 *          fields in place of their reserved ones, enums new values.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HF_API __attribute__((visibility("default")))

enum hf_result {
    HF_OK = 0,
    HF_NONE = 1,        /* nothing there: no event, no such thing */
    HF_INVALID = -1,    /* an argument can't be right */
    HF_NO_ACCOUNT = -2, /* hf_login comes first */
    HF_STORAGE = -3,    /* the directory can't be written or read */
    HF_NO_MEMORY = -4,
    HF_TOO_LARGE = -5, /* the body, for this server */
    HF_NOT_NOW = -6,   /* not connected, or too many requests */
    HF_IN_USE = -7,    /* another process uses the directory */
    HF_DAMAGED = -8,   /* the directory holds what no Holdfast client wrote */
    HF_FORBIDDEN = -9, /* the directory's permissions */
};

struct hf_client;

/* "0.1.0" */
HF_API const char *hf_version(void);

/*
 * Opens or makes the directory in which the device keeps its things. On failure *client is NULL and
 * `text` says why.
 */
HF_API int hf_open(const char *directory, struct hf_client **client, char *text, size_t text_bytes);

/* Says BYE if there is a connection (without waiting for answers), and frees all. NULL is ignored.
 */
HF_API void hf_close(struct hf_client *client);

/* What the last call that failed had to say: one line, never NULL. */
HF_API const char *hf_error_text(const struct hf_client *client);

/* ---- account */

/*
 * Sets where and who, durably. `server` is host:port ([address]:port for IPv6); `token` a log-in
 * token from the operator's identity service, for this user and device; `ca_pem` the authorities to
 * trust. Again for the same user and device: replaces server, token and authorities. Not while
 * started.
 */
HF_API int hf_login(struct hf_client *client, const char *server, uint64_t user, uint32_t device,
                    const char *token, const char *ca_pem);

/*
 * A new log-in token, at any time: when HF_EVENT_TOKEN_WANTED asked for one, the login goes on
 * without a break; when HF_NEEDS_TOKEN did, hf_start comes next.
 */
HF_API int hf_set_token(struct hf_client *client, const char *token);

enum hf_state {
    HF_STATE_STOPPED = 0, /* hf_start is needed */
    HF_STATE_WAITING,     /* for the time of the next attempt */
    HF_STATE_CONNECTING,
    HF_STATE_ONLINE,
    HF_STATE_CAUGHT_UP, /* online, and everything that was there at log-in has come */
};

struct hf_status {
    const char *server; /* "": no account yet */
    uint64_t user;
    uint32_t device;
    uint32_t state; /* enum hf_state */
    uint64_t epoch; /* of the log; 0: never connected */
    uint64_t seq;   /* of the newest entry on disk */
    uint64_t seen_seq;
    uint64_t stored;  /* entries on disk */
    uint64_t waiting; /* messages without an answer */
    uint64_t reserved[4];
};

HF_API void hf_status(const struct hf_client *client, struct hf_status *status);

/* ---- connection */

/* Wants to be connected from now on. Also after HF_EVENT_OFFLINE with HF_STOPPED. */
HF_API int hf_start(struct hf_client *client);

/* Leaves: waits for answers for some seconds, then HF_EVENT_OFFLINE comes. */
HF_API void hf_stop(struct hf_client *client);

/* Does what can be done without waiting. */
HF_API int hf_step(struct hf_client *client);

/* hf_step, after waiting for something to do: timeout_ms at most, for ever if it is negative. */
HF_API int hf_wait(struct hf_client *client, int timeout_ms);

/* For one's own poll(2): descriptor (-1: none), events, and hf_step is due after so many ms. */
HF_API int hf_descriptor(const struct hf_client *client);
HF_API short hf_descriptor_events(const struct hf_client *client);
HF_API int hf_timeout_ms(const struct hf_client *client);

/* ---- messages */

#define HF_BODY_BYTES_MAX 15000
#define HF_KIND_MAX       127

/*
 * Queues a message; when this returns HF_OK it is on disk, and will be sent, once, now or after any
 * number of restarts. `kind` is the application's own, 0 to HF_KIND_MAX. *tag names the message in
 * events.
 */
HF_API int hf_send(struct hf_client *client, uint64_t conversation, uint8_t kind, const void *body,
                   size_t body_bytes, uint64_t *tag);

/* Takes back a message that surely isn't on the server yet; HF_NONE: too late. */
HF_API int hf_withdraw(struct hf_client *client, uint64_t tag);

/* The user knows what became of a rejected message, or of one with an unknown fate. */
HF_API int hf_dismiss(struct hf_client *client, uint64_t tag);

/*
 * The user has seen all messages up to here: they won't come as events again. What wasn't seen
 * comes again after a restart.
 */
HF_API int hf_seen(struct hf_client *client, uint64_t seq);

enum hf_direction {
    HF_BEFORE = 1, /* older than the anchor; 0: from the newest */
    HF_AFTER = 2,  /* newer; 0: from the oldest kept */
};

/*
 * Asks the server for up to n messages of a conversation; they come as HF_EVENT_HISTORY, oldest
 * first, then HF_EVENT_HISTORY_END. Needs a connection: HF_NOT_NOW.
 */
HF_API int hf_history(struct hf_client *client, uint64_t conversation, enum hf_direction direction,
                      uint64_t anchor_seq, uint16_t n, uint32_t *request);

/* ---- events */

enum hf_event_kind {
    HF_EVENT_ONLINE = 1,
    HF_EVENT_CAUGHT_UP,    /* everything that was there at log-in has come */
    HF_EVENT_OFFLINE,      /* text, code; retry_in_ms, or HF_STOPPED */
    HF_EVENT_NOTICE,       /* text, code: the server's words; nothing needs to be done */
    HF_EVENT_TOKEN_WANTED, /* the login ends in retry_in_ms, unless hf_set_token comes before */

    HF_EVENT_MESSAGE, /* of another, or one's own (HF_OWN), from any device */
    HF_EVENT_REFUSED, /* ref_seq: that own message was not taken by its receiver's side; code */
    HF_EVENT_GAP,     /* entries first_seq to last_seq are no longer kept by the server */
    HF_EVENT_ANEW,    /* the server was restored: all seqs known before are void */

    HF_EVENT_ACCEPTED,     /* tag: is on the server's disk, as seq */
    HF_EVENT_DELAYED,      /* tag: not taken for now, code; it will be sent again by itself */
    HF_EVENT_REJECTED,     /* tag: never taken, code; comes again after a restart until dismissed */
    HF_EVENT_UNKNOWN_FATE, /* tag: may have been sent or not; the same */

    HF_EVENT_HISTORY,        /* request: a message of the page */
    HF_EVENT_HISTORY_END,    /* request: HF_MORE, HF_TRIMMED */
    HF_EVENT_HISTORY_FAILED, /* request: code, or 0 when the connection went */
};

enum hf_event_flags {
    HF_OWN = 1 << 0,         /* a message of this user */
    HF_UNCOUNTED = 1 << 1,   /* n, cn and prev aren't known */
    HF_MORE = 1 << 2,        /* the server has more in that direction */
    HF_TRIMMED = 1 << 3,     /* older messages are no longer kept */
    HF_STOPPED = 1 << 4,     /* no further attempt before hf_start */
    HF_NEEDS_TOKEN = 1 << 5, /* nor before hf_set_token */
    HF_REPLACED = 1 << 6,    /* this device is connected somewhere else */
    HF_UNTRUSTED = 1 << 7,   /* the server's certificate isn't trusted: check ca_pem */
};

struct hf_event {
    uint32_t kind;  /* enum hf_event_kind */
    uint32_t flags; /* enum hf_event_flags */
    uint32_t code;  /* of docs/protocol.md, section 12 */
    uint32_t request;
    uint64_t tag;
    uint64_t seq;
    uint64_t id;
    uint64_t conversation;
    uint64_t sender;
    uint32_t device;
    uint32_t message_kind;
    uint64_t n; /* the message's place in its conversation, from 1 */
    uint64_t cn;
    uint64_t prev_seq;
    uint64_t ref_seq;
    uint64_t first_seq;
    uint64_t last_seq;
    uint64_t sent_unix_ms; /* by the server's clock */
    uint64_t retry_in_ms;
    const uint8_t *body;
    size_t body_bytes;
    const char *text; /* for people, never NULL */
    uint64_t reserved[4];
};

/* HF_OK, or HF_NONE: nothing has happened. */
HF_API int hf_next_event(struct hf_client *client, struct hf_event *event);

/* ---- what is on disk */

struct hf_conversation {
    uint64_t conversation;
    uint64_t seq; /* of its newest message */
    uint64_t n;   /* messages in it; 0: not known */
    uint64_t cn;  /* of these, from others */
    uint64_t received_unix_ms;
    uint64_t reserved[4];
};

/* By rising id, from index 0; HF_NONE: that's all. */
HF_API int hf_conversation(const struct hf_client *client, size_t index,
                           struct hf_conversation *conversation);

/* The first message on disk behind `seq` (in the form of HF_EVENT_MESSAGE or _REFUSED); HF_NONE. */
HF_API int hf_stored(struct hf_client *client, uint64_t after_seq, struct hf_event *event);

enum hf_unsent_status {
    HF_UNSENT_WAITING = 0,
    HF_UNSENT_ACCEPTED, /* on the server, but not yet back in the log here */
    HF_UNSENT_REJECTED,
    HF_UNSENT_UNKNOWN_FATE,
};

struct hf_unsent {
    uint64_t tag;
    uint64_t conversation;
    uint64_t queued_unix_ms;
    uint32_t status; /* enum hf_unsent_status */
    uint32_t code;
    uint32_t message_kind;
    uint32_t reserved_32;
    const uint8_t *body; /* good until the next call */
    size_t body_bytes;
    uint64_t reserved[4];
};

/* Own messages that aren't in the log yet, oldest first, from index 0; HF_NONE: that's all. */
HF_API int hf_unsent(const struct hf_client *client, size_t index, struct hf_unsent *unsent);

/* "unknown": a code's name in words that a person may be shown. Never NULL. */
HF_API const char *hf_code_text(uint32_t code);

#ifdef __cplusplus
}
#endif

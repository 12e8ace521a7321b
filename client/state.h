/*
 * state: what a device must not forget, in one directory that nobody else can read.
 *
 *      account     who and where, tokens, cursor, entries received, sends unanswered (batch_file.h)
 *      session     a TLS session, good once; losing it costs a full handshake
 *      lock        held by the process that uses the directory
 *
 * Purpose  Changes are put one by one, and are durable after state_commit. An entry in the file is
 *          the cursor too, and the answer to the send whose nonce it carries: none of these can be
 *          there without the others, so nothing is lost or doubled whenever the process dies.
 * Owner    One struct state a directory; the lock keeps other processes out.
 * Thread   One at a time. Blocks on the disk.
 * Memory   16 bytes an entry, 48 a conversation, and the sends with their bodies.
 * Units    Wall clock, Unix ms, passed in.
 * Errors   struct hf_error. After a failed commit the file is good, but memory is ahead of it:
 *          close, and open again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/batch_file.h"
#include "core/base/error.h"
#include "core/base/ids.h"
#include "proto/entries.h"
#include "proto/limits.h"
#include "proto/message.h"

#define STATE_SERVER_BYTES_MAX  263 /* host, colon, port */
#define STATE_SESSION_BYTES_MAX 4096

enum state_send_status {
    STATE_SEND_WAITING,  /* for its answer */
    STATE_SEND_ACCEPTED, /* its entry is still to come */
    STATE_SEND_REJECTED, /* until dismissed */
    STATE_SEND_UNKNOWN,  /* until dismissed: may have been accepted or not */
};

struct state_send {
    struct state_send *next;
    uint64_t tag; /* 1, 2, 3 ... */
    uint64_t counter;
    uint64_t id;  /* ACCEPTED */
    uint64_t seq; /* ACCEPTED; 0: of a log that is gone */
    uint64_t queued_unix_ms;
    struct conversation_id conversation;
    struct nonce nonce;
    uint16_t code; /* REJECTED */
    uint16_t body_bytes;
    uint8_t kind;
    uint8_t status; /* enum state_send_status */
    bool cut;
    uint8_t body[];
};

struct state_place {
    uint64_t seq;
    uint64_t offset;
};

struct state_conversation {
    struct conversation_id id;
    uint64_t seq; /* of its newest message */
    uint64_t n;   /* of that one, where it is known */
    uint64_t cn;
    uint64_t unix_ms; /* when that one was received */
    bool counted;     /* n and cn are known */
};

struct state {
    struct batch_file file;
    char directory[BATCH_PATH_BYTES - 64]; /* leaves room for names */
    int lock_;

    char server[STATE_SERVER_BYTES_MAX + 1]; /* host:port; "": no account yet */
    struct user_id user;
    struct device_id device;
    uint8_t *ca; /* PEM */
    size_t ca_bytes;
    uint8_t login_token[TOKEN_BYTES_MAX];
    uint8_t resume_token[TOKEN_BYTES_MAX];
    uint16_t login_token_bytes;
    uint16_t resume_token_bytes;

    struct message_cursor cursor;
    uint64_t seen_seq;
    uint64_t last_counter;
    bool recounting;
    bool complete; /* every entry of the log, from 1 to the cursor, is here */

    struct state_send *sends; /* oldest first */
    uint64_t last_tag;

    struct state_place *places; /* of the entries, seq rising; there may be gaps */
    size_t place_count;
    size_t place_room_;
    struct state_conversation *conversations; /* sorted by id */
    size_t conversation_count;
    size_t conversation_room_;
    uint64_t base_seq_;   /* the log here begins behind it */
    uint64_t live_bytes_; /* of the file, about: the rest is garbage */
};

/* Makes the directory if need be, locks it, reads what is there. 0 or -1. */
int state_open(struct state *state, const char *directory, struct hf_error *error)
    __attribute__((warn_unused_result));
void state_close(struct state *state);

/* ---- changes: true, or false: no memory. Durable after state_commit. */

bool state_put_account(struct state *state, const char *server, struct user_id user,
                       struct device_id device) __attribute__((warn_unused_result));
bool state_put_ca(struct state *state, const uint8_t *pem, size_t pem_bytes)
    __attribute__((warn_unused_result));
bool state_put_login_token(struct state *state, struct message_bytes token)
    __attribute__((warn_unused_result));
bool state_put_resume_token(struct state *state, struct message_bytes token)
    __attribute__((warn_unused_result));

/* `send` has all but tag and status; the tag is set. */
bool state_put_send(struct state *state, struct state_send *send, const uint8_t *body)
    __attribute__((warn_unused_result));
bool state_put_answer(struct state *state, uint64_t tag, enum state_send_status status,
                      uint16_t code, uint64_t id, uint64_t seq) __attribute__((warn_unused_result));

/* The user knows of a REJECTED or UNKNOWN one, or has withdrawn a waiting one. */
bool state_put_dismissed(struct state *state, uint64_t tag) __attribute__((warn_unused_result));

/* All WAITING ones, in order, count from here; a recount is over. */
bool state_put_renumbered(struct state *state, uint64_t counter)
    __attribute__((warn_unused_result));

/* `anew`: what is here belongs to another log. A copy of it is left in account.EPOCH. */
int state_reset(struct state *state, struct message_cursor cursor, bool anew, bool cut,
                bool recounting, struct hf_error *error) __attribute__((warn_unused_result));

enum state_entry_result {
    STATE_ENTRY_OK,
    STATE_ENTRY_NO_MEMORY,
    STATE_ENTRY_UNKNOWN, /* SENT, of a message that isn't here */
};

/* The entry behind the cursor; `tag` as in CLIENT_EVENT_ENTRY. */
enum state_entry_result state_put_entry(struct state *state, uint64_t seq,
                                        const struct entry *entry, uint64_t tag, uint64_t unix_ms)
    __attribute__((warn_unused_result));

/* The user has seen all up to here. */
bool state_put_seen(struct state *state, uint64_t seq) __attribute__((warn_unused_result));

int state_commit(struct state *state, struct hf_error *error) __attribute__((warn_unused_result));

/* ---- looking */

struct state_send *state_find_send(const struct state *state, uint64_t tag);

/* The first entry behind seq; place_count if there is none. */
size_t state_place_after(const struct state *state, uint64_t seq);

struct state_message {
    uint64_t seq;
    uint64_t unix_ms;   /* received */
    bool counted;       /* n, cn and prev are known */
    struct entry entry; /* MESSAGE or REFUSED; points into the buffer */
};

#define STATE_MESSAGE_BYTES (FRAME_BYTES_MAX + 64)

/* Reads the entry at an index of `places`. 0 or -1. */
int state_read(const struct state *state, size_t index, uint8_t buffer[STATE_MESSAGE_BYTES],
               struct state_message *message, struct hf_error *error)
    __attribute__((warn_unused_result));

/* ---- the TLS session: best effort, no errors */

/* Takes it away, so that it is used once. 0: there is none. */
size_t state_take_session(struct state *state, uint8_t out[STATE_SESSION_BYTES_MAX]);
void state_keep_session(struct state *state, const uint8_t *session, size_t session_bytes);

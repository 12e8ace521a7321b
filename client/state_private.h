/*
 * state_private: the records of the account file, shared by state.c (what they do) and
 * state_directory.c (files, and writing them anew).
 */
#pragma once

#include "client/state.h"

/* On disk for ever: never change a number or a layout, add types. */
enum record_type {
    RECORD_ACCOUNT = 1,      /* user u64, device u32, server */
    RECORD_CA = 2,           /* PEM */
    RECORD_LOGIN_TOKEN = 3,  /* bytes */
    RECORD_RESUME_TOKEN = 4, /* bytes */
    RECORD_RESET = 5,        /* epoch, seq, sver u64, flags u8 */
    RECORD_ENTRY = 6,        /* received u64, flags u8, ENTRIES frame of one entry */
    RECORD_SEND = 7,      /* tag, counter, conversation, queued u64, nonce, kind, flags u8, body */
    RECORD_ANSWER = 8,    /* tag, id, seq u64, code u16, status u8 */
    RECORD_DISMISSED = 9, /* tag u64 */
    RECORD_RENUMBERED = 10, /* counter u64 */
    RECORD_SEEN = 11,       /* seq u64 */
    RECORD_COUNTER = 12,    /* last counter, last tag u64, recounting u8 */
};

enum {
    RESET_ANEW = 1 << 0,
    RESET_CUT = 1 << 1,
    RESET_RECOUNTING = 1 << 2,
    ENTRY_UNCOUNTED = 1 << 0,
    SEND_CUT = 1 << 0,
};

#define RESET_BYTES        (3 * 8 + 1)
#define ENTRY_HEAD_BYTES   (8 + 1)
#define SEND_HEAD_BYTES    (4 * 8 + NONCE_BYTES + 2)
#define ANSWER_BYTES       (3 * 8 + 2 + 1)
#define COUNTER_BYTES      (2 * 8 + 1)
#define ACCOUNT_HEAD_BYTES (8 + 4)

/* Does what the record says. False: it makes no sense here, or there is no memory (errno ENOMEM).
 */
bool state_apply(struct state *state, const struct batch_record *record);

/* Adds it to the file's batch, and to memory. False: nothing can be committed any more. */
bool state_put(struct state *state, enum record_type type, const void *head, size_t head_bytes,
               const void *body, size_t body_bytes);

/* Writes the file anew, without what is out of date. 0 or -1. */
int state_compact(struct state *state, struct hf_error *error) __attribute__((warn_unused_result));

void state_encode_send(const struct state_send *send, uint8_t head[SEND_HEAD_BYTES]);
void state_encode_answer(const struct state_send *send, uint8_t head[ANSWER_BYTES]);

/* Forgets entries and conversations: another log begins. */
void state_forget_log(struct state *state);
void state_forget_sends(struct state *state);

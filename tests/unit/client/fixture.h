/*
 * fixture: a client machine with a host that writes down what a disk would keep, and a server whose
 * words are given by hand.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* after the four that it needs */
#include <cmocka.h>

#include "client/client.h"
#include "proto/entries.h"
#include "proto/message.h"
#include "tests/unit/proto/any_message.h"

#define USER   1001
#define DEVICE 7
#define PEER   1002
#define EPOCH  1764000000

enum {
    EVENTS_MAX = 256,
    FRAMES_MAX = 128,
    SENDS_MAX = 64,
    OUTPUT_BYTES = 1 << 18,
};

struct fixture {
    struct client client;
    struct client_send sends[SENDS_MAX];
    struct client_requests requests;
    struct client_scratch scratch;
    uint64_t now_ms;
    bool store_by_hand; /* entries aren't stored as they come */

    /* Of the last call. */
    struct client_event events[EVENTS_MAX];
    size_t event_count;
    uint8_t output[OUTPUT_BYTES];
    struct any_message said[FRAMES_MAX]; /* into output */
    size_t said_count;
};

struct fixture_options {
    struct message_cursor cursor;
    uint64_t last_counter;
    bool recounting;
    bool no_login_token;
    bool no_resume_token;
    uint32_t sends_capacity; /* 0: SENDS_MAX */
};

/* A device that has entries 1 to 5 of EPOCH and has used counters 1 to 3. */
extern const struct fixture_options fixture_known;

struct fixture *fixture_open(struct fixture_options options);
void fixture_close(struct fixture *fixture);

/* Starts, connects, and checks that HELLO is said first. */
void fixture_connect(struct fixture *fixture);

/* fixture_connect, and HELLO_OK for the options' cursor: RESUME with this head. */
void fixture_go_live(struct fixture *fixture, uint64_t head, uint64_t last_counter);

/* What HELLO_OK says unless a test changes it. */
struct message_hello_ok fixture_hello_ok(const struct fixture *fixture, uint64_t head,
                                         uint64_t last_counter);

/* The server's words; each takes all events into `events`, and says nothing. */
void give_frame(struct fixture *fixture, const uint8_t *frame, size_t frame_bytes);
void give_hello_ok(struct fixture *fixture, const struct message_hello_ok *ok);
void give_accepted(struct fixture *fixture, uint64_t counter, uint64_t id, uint64_t seq);
void give_rejected(struct fixture *fixture, uint64_t counter, enum code code, uint32_t retry_ms,
                   uint64_t expected);
void give_error(struct fixture *fixture, enum code code, uint32_t request, uint32_t retry_ms);
void give_entry(struct fixture *fixture, uint64_t seq, const struct entry *entry);

/* Others' and own entries. */
struct entry entry_from_peer(const char *body);
struct entry entry_own(struct nonce nonce, uint64_t counter);
struct entry entry_sent(uint64_t counter, uint64_t id);

/* Lets time pass, and takes the events. */
void pass(struct fixture *fixture, uint64_t ms);

/* Takes all output into `said`. */
void hear(struct fixture *fixture);

/* The connection goes, from either end; takes the events. */
void cut(struct fixture *fixture);

/* Queues a message "m<tag>" to PEER, with a nonce made of its tag. Returns its counter. */
uint64_t queue(struct fixture *fixture, uint64_t tag);
struct nonce nonce_of(uint64_t tag);

/* The one event of this kind among `events`; fails if there is none or another. */
const struct client_event *only(const struct fixture *fixture, enum client_event_kind kind);
size_t count_of(const struct fixture *fixture, enum client_event_kind kind);

/* Frames of this type among `said`, and the counters of the SENDs among them. */
size_t said_of(const struct fixture *fixture, enum frame_type type);
const struct any_message *said_only(const struct fixture *fixture, enum frame_type type);
void assert_sends(const struct fixture *fixture, size_t count, const uint64_t *counters);

#define ASSERT_SENDS(fixture, ...)                                                                 \
    assert_sends(fixture, sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t),                  \
                 (uint64_t[]){ __VA_ARGS__ })

/*
 * scripted: a crowd whose server is the test: what clients say is heard as frames, and whatever
 * frames the test writes are said to them, through TLS records both ways.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loadgen/client.h"
#include "proto/entries.h"

#define SCRIPTED_CLIENTS_MAX 8
#define SCRIPTED_EPOCH       1764000000
#define SCRIPTED_USER        5001 /* the first */

/* The server's end of each connection. */
struct scripted {
    struct crowd crowd;
    struct cells cells;
    struct tls_core tls;
    struct link_pools pools;
    struct link links[SCRIPTED_CLIENTS_MAX];
    uint8_t heard[65536]; /* frames, one behind the other */
    size_t heard_bytes;
    uint32_t records; /* that they came in */
    uint32_t sends;   /* and these */
};

struct scripted *scripted_open(const struct crowd_options *options);
void scripted_close(struct scripted *scripted);

/* Two users with one device each, bodies of 100 bytes. */
struct scripted *scripted_pair(void);

static inline struct client *scripted_client(struct scripted *scripted, uint32_t client)
{
    return &scripted->crowd.clients[client];
}

/* What HELLO_OK says to a client of an empty log, to be changed where it should say more. */
struct message_hello_ok scripted_hello_ok(void);

/* A new connection of that client, on which HELLO was said and this is the answer. */
enum client_verdict scripted_login(struct scripted *scripted, uint32_t client,
                                   const struct message_hello_ok *ok);

/* All of them, into empty logs. */
void scripted_login_all(struct scripted *scripted);

/* The connection ends. */
void scripted_cut(struct scripted *scripted, uint32_t client);

/* Says one frame. */
enum client_verdict scripted_say(struct scripted *scripted, uint32_t client, const uint8_t *frame,
                                 size_t frame_bytes);

/* Hears all that the client has to say now; returns how many frames that is. */
uint32_t scripted_hear(struct scripted *scripted, uint32_t client);

/* The nth frame heard, from 0. */
struct frame_view scripted_heard(const struct scripted *scripted, uint32_t nth);

/* Frames that tests say often. */
enum client_verdict scripted_accept(struct scripted *scripted, uint32_t client, uint64_t counter,
                                    uint64_t seq);
enum client_verdict scripted_reject(struct scripted *scripted, uint32_t client, uint64_t counter,
                                    uint16_t code, uint32_t retry_ms, uint64_t expected);
enum client_verdict scripted_entry(struct scripted *scripted, uint32_t client, uint64_t seq,
                                   const struct entry *entry);
enum client_verdict scripted_error(struct scripted *scripted, uint32_t client, uint16_t code,
                                   uint32_t retry_ms);

/* Message `number` of `from`, as it stands in the log of `client` as the nth of its conversation;
 * the body lies in `body`. */
struct entry scripted_message(struct scripted *scripted, uint32_t client, uint32_t from,
                              uint32_t number, uint64_t n, uint8_t *body);
struct entry scripted_sent(uint64_t counter);

/*
 * net: the simulated connections between clients and the server. Bytes arrive in order or not at
 * all; either end may go, and what was on its way is lost in part. An end that the client has left
 * still has the server's side, with input that hasn't been read: the race that fencing is for.
 *
 * Owner    The run. A connection is free again when both ends have left it.
 * Thread   The owner's only.
 * Memory   Queues grow as they need; freed by net_close().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/engine/effects.h"
#include "proto/frame.h"

#define NET_CONNECTIONS_MAX 256

/* Whole frames, or the beginning of one at the end of what was cut. */
struct byte_queue {
    uint8_t *bytes;
    size_t begin;
    size_t end;
    size_t capacity;
};

struct connection {
    struct conn_ref ref;
    uint64_t accepted_at; /* the order in which the server accepted: rises for ever */
    uint32_t client;
    uint32_t user; /* the index of the client's user: the host's */
    bool client_end;
    bool server_end;
    bool offered;           /* HELLO, to an engine, which hasn't closed it since */
    bool has_session;       /* HELLO was taken */
    bool blocked;           /* the first frame of `up` waits for EFFECT_UNBLOCK */
    struct byte_queue up;   /* to the server */
    struct byte_queue down; /* to the client */
    size_t left_bytes;      /* of `down`: taken by the client, the engine not told yet */
    /* What was durable when HELLO came: HELLO_OK can't say less. */
    uint64_t least_head, least_counter;
};

struct net {
    struct connection connections[NET_CONNECTIONS_MAX];
    uint64_t accepted;
};

void net_close(struct net *net);

/* NULL: all are in use. */
struct connection *net_connect(struct net *net, uint32_t client, uint32_t user);
struct connection *net_find(struct net *net, struct conn_ref ref); /* NULL: gone */

void queue_put(struct byte_queue *queue, const uint8_t *bytes, size_t byte_count);
/* The first whole frame, good until the queue is changed. */
bool queue_peek(const struct byte_queue *queue, struct frame_view *view);
void queue_take(struct byte_queue *queue, const struct frame_view *view);
static inline size_t queue_bytes(const struct byte_queue *queue)
{
    return queue->end - queue->begin;
}
size_t queue_frames(const struct byte_queue *queue);

/* The client's end goes; only so many bytes of its unread input still reach the server. */
void net_client_leaves(struct connection *connection, size_t keep_bytes);
/* The server's end goes; only so many bytes still reach the client. */
void net_server_leaves(struct connection *connection, size_t keep_bytes);

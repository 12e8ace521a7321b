#include "tests/sim/net.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/sim/fail.h"

static void queue_clear(struct byte_queue *queue)
{
    free(queue->bytes);
    *queue = (struct byte_queue){ 0 };
}

void net_close(struct net *net)
{
    for (size_t i = 0; i < NET_CONNECTIONS_MAX; i++) {
        queue_clear(&net->connections[i].up);
        queue_clear(&net->connections[i].down);
    }
}

struct connection *net_connect(struct net *net, uint32_t client, uint32_t user)
{
    for (uint32_t i = 0; i < NET_CONNECTIONS_MAX; i++) {
        struct connection *connection = &net->connections[i];

        if (connection->client_end || connection->server_end) {
            continue;
        }

        const uint32_t generation = connection->ref.generation + 1;

        queue_clear(&connection->up);
        queue_clear(&connection->down);
        *connection = (struct connection){
            .ref = { .slot = i, .generation = generation },
            .accepted_at = ++net->accepted,
            .client = client,
            .user = user,
            .client_end = true,
            .server_end = true,
        };
        return connection;
    }
    return NULL;
}

struct connection *net_find(struct net *net, struct conn_ref ref)
{
    HF_ASSERT(ref.slot < NET_CONNECTIONS_MAX);

    struct connection *connection = &net->connections[ref.slot];

    return connection->ref.generation == ref.generation ? connection : NULL;
}

void queue_put(struct byte_queue *queue, const uint8_t *bytes, size_t byte_count)
{
    if (queue->begin == queue->end) {
        queue->begin = queue->end = 0;
    }
    if (queue->capacity - queue->end < byte_count) {
        queue->capacity = queue->capacity * 2 + byte_count + 256;
        queue->bytes = realloc(queue->bytes, queue->capacity);
        SIM_CHECK(queue->bytes != NULL, "out of memory");
    }
    memcpy(queue->bytes + queue->end, bytes, byte_count);
    queue->end += byte_count;
}

bool queue_peek(const struct byte_queue *queue, struct frame_view *view)
{
    if (queue->begin == queue->end) {
        return false;
    }
    return frame_parse(queue->bytes + queue->begin, queue_bytes(queue), view) == FRAME_OK;
}

void queue_take(struct byte_queue *queue, const struct frame_view *view)
{
    HF_ASSERT(frame_bytes(view) <= queue_bytes(queue));
    queue->begin += frame_bytes(view);
}

size_t queue_frames(const struct byte_queue *queue)
{
    struct byte_queue rest = *queue;
    struct frame_view view;
    size_t count = 0;

    while (queue_peek(&rest, &view)) {
        queue_take(&rest, &view);
        count++;
    }
    return count;
}

static void queue_keep(struct byte_queue *queue, size_t keep_bytes)
{
    if (queue_bytes(queue) > keep_bytes) {
        queue->end = queue->begin + keep_bytes;
    }
}

void net_client_leaves(struct connection *connection, size_t keep_bytes)
{
    HF_ASSERT(connection->client_end);
    connection->client_end = false;
    queue_keep(&connection->up, keep_bytes);
    queue_keep(&connection->down, 0);
}

void net_server_leaves(struct connection *connection, size_t keep_bytes)
{
    HF_ASSERT(connection->server_end);
    connection->server_end = false;
    connection->offered = false;
    connection->has_session = false;
    connection->blocked = false;
    queue_keep(&connection->down, keep_bytes);
    queue_keep(&connection->up, 0);
}

/* What a broken or hostile client may do: it ends its own connection, and nothing else (I7). */
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "tests/sim/client.h"
#include "tests/sim/fail.h"

#define FAR_AHEAD 100000

static void put_bad_ack(struct client *client)
{
    uint8_t frame[ACK_FRAME_BYTES];
    const struct message_ack ack = { .seq = client->store.seq + FAR_AHEAD };
    const size_t byte_count = message_encode_ack(frame, sizeof frame, &ack);

    queue_put(&client->connection->up, frame, byte_count);
}

static void put_second_hello(struct client *client)
{
    uint8_t frame[256];
    const uint8_t token = 0;
    const struct message_hello hello = {
        .version = PROTOCOL_VERSION,
        .user = { client->user },
        .device = { client->device },
        .token = { .bytes = &token, .byte_count = 1 },
    };
    const size_t byte_count = message_encode_hello(frame, sizeof frame, &hello);

    queue_put(&client->connection->up, frame, byte_count);
}

/* A frame of that type whose payload is noise. */
static void put_noise(struct client *client, const struct client_world *world, enum frame_type type)
{
    uint8_t frame[FRAME_HEADER_BYTES + 64];
    const size_t payload = prng_below(world->prng, 64);

    store_be24(frame, (uint32_t)payload);
    frame[3] = (uint8_t)type;
    for (size_t i = 0; i < payload; i++) {
        frame[FRAME_HEADER_BYTES + i] = (uint8_t)prng_next(world->prng);
    }
    queue_put(&client->connection->up, frame, FRAME_HEADER_BYTES + payload);
}

/* More than may be outstanding; those too many are refused, and taken for what they are. */
static void put_many_requests(struct client *client)
{
    uint8_t frame[HISTORY_FRAME_BYTES];

    for (uint32_t i = 0; i < 2 * REQUESTS_OUTSTANDING_MAX; i++) {
        const struct message_history history = {
            .request = CLIENT_ROGUE_REQUEST + i,
            .conversation = { client->user },
            .direction = HISTORY_BEFORE,
            .n = 1,
        };
        const size_t byte_count = message_encode_history(frame, sizeof frame, &history);

        queue_put(&client->connection->up, frame, byte_count);
    }
}

void client_misbehave(struct client *client, const struct client_world *world)
{
    static const enum frame_type noise[] = {
        FRAME_TYPE_SEND, FRAME_TYPE_ACK, FRAME_TYPE_HISTORY, FRAME_TYPE_ENTRIES, FRAME_TYPE_HELLO,
    };

    HF_ASSERT(client->connection != NULL);
    client->misbehaved = true;
    client_count(world, HAZARD_ROGUE);
    sim_say("client %u: misbehaves", client->index);
    switch (prng_below(world->prng, 4)) {
    case 0:
        put_bad_ack(client);
        break;
    case 1:
        put_second_hello(client);
        break;
    case 2:
        put_many_requests(client);
        break;
    default:
        put_noise(client, world, noise[prng_below(world->prng, sizeof noise / sizeof noise[0])]);
        break;
    }
}

bool client_may_be_told(const struct client *client, uint16_t code)
{
    return client->misbehaved &&
           (code == CODE_BAD_FIELD || code == CODE_BAD_FRAME || code == CODE_UNEXPECTED ||
            code == CODE_UNSUPPORTED_TLV || code == CODE_VERSION);
}

/*
 * swarm_internal: what the files of a swarm share.
 */
#pragma once

#include "loadgen/swarm.h"

enum swarm_op {
    SWARM_OP_CONNECT = 1,
    SWARM_OP_POLL,
    SWARM_OP_RECV,
    SWARM_OP_SEND,
    SWARM_OP_CLOSE,
};

#define SWARM_DIAL_TIMEOUT_NS (20 * CLOCK_NS_PER_S)
#define SWARM_TICK_NS         (2 * CLOCK_NS_PER_MS)

/* Each client has its own slot of a file table for good. */
static inline struct ring *swarm_ring(const struct swarm *swarm, uint32_t client)
{
    return &swarm->group.rings[client / swarm->group.files_per_ring];
}

static inline uint32_t swarm_file(const struct swarm *swarm, uint32_t client)
{
    return client % swarm->group.files_per_ring;
}

static inline uint64_t swarm_tag(const struct swarm *swarm, enum swarm_op op, uint32_t client)
{
    return ring_tag((uint8_t)op, client, swarm->crowd.clients[client].generation);
}

/* Puts the client at the end of those that want to dial. */
void swarm_enqueue(struct swarm *swarm, uint32_t client);

/* Dials while there are clients that want to, places, and time. When to come again. */
uint64_t swarm_dial(struct swarm *swarm);

/* The connection ends, whatever its state; the rest follows when the kernel has closed it. */
void swarm_lose(struct swarm *swarm, uint32_t client);

/* Seals and sends what the client has to say, if no send is in flight. */
void swarm_flush(struct swarm *swarm, uint32_t client);

/* Those leave whose time has come; they return as everybody does who was lost, only later. */
void swarm_churn(struct swarm *swarm);

void swarm_on_connected(struct swarm *swarm, uint32_t client, int32_t result);
void swarm_on_shake_received(struct swarm *swarm, uint32_t client, const uint8_t *bytes,
                             size_t byte_count);
void swarm_on_shake_sent(struct swarm *swarm, uint32_t client, int32_t result);

/* Frames out of what came; `received` may be changed, and isn't used afterwards. */
void swarm_on_received(struct swarm *swarm, uint32_t client, uint8_t *received, size_t byte_count);

void swarm_on_event(struct swarm *swarm, const struct ring_event *event);

/* Carries out one order. */
void swarm_obey(struct swarm *swarm, const struct swarm_order *order);

/*
 * mailbox: bounded messages of one fixed size from one thread to one other; and bell: how a thread
 * that sleeps on its ring is woken when something was sent to it.
 *
 * Owner    A mailbox has one producer and one consumer thread; the fields of each lie on cache
 *          lines of their own. A bell belongs to one consumer, who may have many mailboxes, all
 *          hung on the same bell. Ownership of what a message names goes with the message.
 * Thread   mailbox_give and mailbox_send: the producer. mailbox_take, mailbox_empty and bell_*
 *          (but bell_ring): the consumer. open, close: while neither runs.
 * Memory   capacity * message_bytes, touched at open. Nothing is allocated afterwards.
 * Use      Producer: mailbox_give for each message, then one mailbox_send: it publishes all of
 *          them, and wakes the consumer only if it sleeps (a wake-up costs the notifier 6.5 us and
 *          is seen after 17-22 us, by eventfd and by MSG_RING alike, so there is only the eventfd).
 *          Consumer, each turn: take until NULL; then, if it has nothing to do: bell_prepare;
 *          if any mailbox isn't empty, bell_cancel and go on; else sleep in ring_group_turn with
 *          bell_fd polled by the ring (ring_poll_fd, never read: an eventfd's poll is edge
 *          triggered by each write); then bell_cancel.
 * Errors   mailbox_give says false when the mailbox is full: back-pressure, the producer keeps the
 *          message and tries again in a later turn. It must not wait: two threads that wait for
 *          each other's mailbox stand still for ever.
 */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hf_error;

struct bell {
    alignas(64) _Atomic uint32_t sleeping_; /* partners: bell_prepare / mailbox_send */
    int fd;
};

struct mailbox {
    /* Bytes 0-63: set at open, then only read. */
    alignas(64) uint8_t *cells_;
    struct bell *bell_;
    uint32_t capacity; /* a power of two */
    uint32_t message_bytes;

    /* Bytes 64-127: the producer's; tail_ is read by the consumer. */
    alignas(64) _Atomic uint32_t tail_; /* messages sent so far, modulo 2^32 */
    uint32_t given_;                    /* the same, with those not sent yet */
    uint32_t head_seen_;                /* head_ as last read: it is read only when we seem full */
    uint64_t refused;                   /* mailbox_give that found no room: for metrics */

    /* Bytes 128-191: the consumer's; head_ is read by the producer. */
    alignas(64) _Atomic uint32_t head_; /* messages whose cell is free again */
    uint32_t taken_;                    /* the same, with the one that the consumer looks at */
    uint32_t tail_seen_;
};
_Static_assert(sizeof(struct mailbox) == 192, "three cache lines");

__attribute__((warn_unused_result)) bool bell_open(struct bell *bell, struct hf_error *error);
void bell_close(struct bell *bell);

/* The consumer is about to sleep: from now on mailbox_send wakes it. */
void bell_prepare(struct bell *bell);
/* The consumer is awake. */
void bell_cancel(struct bell *bell);
/* Wakes the consumer, whether it sleeps or not: any thread (to stop it, for instance). */
void bell_ring(struct bell *bell);

/* message_bytes: a multiple of 8. capacity: a power of two. `bell` may be NULL: nobody is woken. */
__attribute__((warn_unused_result)) bool mailbox_open(struct mailbox *mailbox, size_t message_bytes,
                                                      uint32_t capacity, struct bell *bell,
                                                      struct hf_error *error);
void mailbox_close(struct mailbox *mailbox);

/* Copies one message in; it leaves with the next mailbox_send. False: full. */
__attribute__((warn_unused_result)) bool mailbox_give(struct mailbox *mailbox, const void *message);

/* How many more messages mailbox_give will take for certain: to refuse work before doing half. */
uint32_t mailbox_room(struct mailbox *mailbox);

/* Publishes what was given and wakes the consumer if it sleeps. Nothing given: nothing done. */
void mailbox_send(struct mailbox *mailbox);

/* The next message, or NULL. It stays valid until the next mailbox_take of this mailbox. */
const void *mailbox_take(struct mailbox *mailbox);

/*
 * The nth (from 0) of the messages that mailbox_take hasn't given yet, or NULL. It may be changed: the
 * consumer marks what it has dealt with before its turn, and passes over it later.
 */
void *mailbox_look(struct mailbox *mailbox, uint32_t nth);

/* Whether mailbox_take would say NULL. Seen from the consumer, right after bell_prepare too. */
bool mailbox_empty(struct mailbox *mailbox);

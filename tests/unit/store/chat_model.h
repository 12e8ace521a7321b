/*
 * chat_model: a few users who chat at random, as redo records; and, kept apart by the plainest
 * means, what the volumes must hold when those are applied.
 *
 * Owner    The test's.
 * Memory   From malloc; chat_model_deinit() frees it.
 * Errors   None: a difference fails the test (cmocka).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/record.h"
#include "store/schema.h"
#include "store/volume.h"

#define CHAT_USERS        6
#define CHAT_DEVICES      2
#define CHAT_ENTRIES_MAX  3000
#define CHAT_TICKET_BYTES 40000

struct chat_out {
    struct log_entry entry;
    uint64_t to;
    bool ended;
};

struct chat_user {
    bool exists;
    struct user_id id;
    struct schema_facts facts;
    struct head heads[CHAT_USERS]; /* by peer; itself: notes */
    bool device_exists[CHAT_DEVICES];
    struct schema_device devices[CHAT_DEVICES];
    struct outcome *outcomes[CHAT_DEVICES]; /* all that ever were */
    uint32_t outcome_counts[CHAT_DEVICES];
    struct message_id last_id;
    struct log_entry *entries; /* [seq - 1]; bodies by chat_body() */
};

struct chat_model {
    uint64_t random;
    uint64_t now_unix_ms;
    bool large_bodies;
    struct chat_user users[CHAT_USERS];
    struct chat_out *outs;
    uint32_t out_count;
};

void chat_model_init(struct chat_model *model, uint64_t seed);
void chat_model_deinit(struct chat_model *model);

/* Something happens: the records of one ticket. Returns their bytes, above 0. */
size_t chat_model_step(struct chat_model *model, uint8_t to[CHAT_TICKET_BYTES]);

/* The body of the message with this id; the same bytes whenever it is asked for. */
void chat_body(struct message_id id, uint16_t body_bytes, uint8_t *to);

/* Fails unless the volumes hold exactly that, and `applied` is so. */
void chat_model_compare(struct chat_model *model, struct volume *const *volumes,
                        uint16_t volume_count, uint64_t applied);

/* A checksum over all rows of all volumes but `applied`. */
uint64_t volumes_digest(struct volume *const *volumes, uint16_t volume_count);

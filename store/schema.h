/*
 * schema: the keys and rows of a volume's tables. Every row begins with a CRC32C over its key and
 * the rest of the row, so that a row that rotted, or is in the wrong place, is never believed.
 *
 *   table  key                                          row
 *   user   partition 2, user 8, 1, conversation 8, n/64 8   checkpoint: seq
 *          partition 2, user 8, 2, first seq 8              log: ENTRY records (large bodies apart)
 *          partition 2, user 8, 3, conversation 8           head
 *          partition 2, user 8, 4, device 4                 device, with its outcomes
 *          partition 2, user 8, 5                           facts: epoch, head, floor
 *   body   id 8, 0 (2)                                  how many rows name it, length, CRC
 *          id 8, part 2 (from 1)                        1,900 bytes at most
 *   out    partition 2, id 8                            a stream record that hasn't ended
 *   meta   "applied", "identity", "last" partition 2
 *
 * The log stands between the user's other rows, so that its end, where all writing is, shares its
 * page with them. A log row holds entries of successive seqs, as many as fit: what a page keeps,
 * and what a commit writes, is then the entries, hardly their keys.
 *
 * Owner    Keys and rows are written into the caller's memory; nothing is allocated.
 * Thread   Any. Pure, but for the functions that take a transaction: its thread.
 * Errors   Rows are distrusted: SCHEMA_DAMAGED. Encoders assert.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "store/record.h"
#include "store/volume.h"

#define SCHEMA_OUTCOMES_MAX       32   /* a device; SENDs that may be outstanding */
#define SCHEMA_CHECKPOINT_EVERY   64   /* entries of a conversation */
#define SCHEMA_BODY_INLINE_MAX    512  /* larger bodies lie in the table `body` */
#define SCHEMA_BODY_PART_BYTES    1900 /* beyond about 2,000 a value takes pages of its own */
#define SCHEMA_ROW_BYTES_MAX      VOLUME_VALUE_BYTES_MAX
#define SCHEMA_FORMAT             2
#define SCHEMA_VOLUMES_MAX        64
#define SCHEMA_DIRECTORY_ID_BYTES 16
#define SCHEMA_USER_PREFIX_BYTES  10 /* of the keys of one user: partition and id */

/* For ever: the place of a partition within a directory of so many volumes. */
static inline uint16_t schema_volume_of(struct partition_id partition, uint16_t volume_count)
{
    return (uint16_t)(partition.value % volume_count);
}

enum schema_status {
    SCHEMA_OK = 0,
    SCHEMA_ABSENT,
    SCHEMA_DAMAGED, /* the row is wrong, or rows contradict each other */
    SCHEMA_FULL,    /* of the volume */
    SCHEMA_BROKEN,  /* of the volume */
};

struct schema_key {
    size_t byte_count;
    uint8_t bytes[32];
};

struct schema_row {
    size_t byte_count;
    uint8_t bytes[SCHEMA_ROW_BYTES_MAX];
};

static inline struct volume_bytes schema_key_bytes(const struct schema_key *key)
{
    return (struct volume_bytes){ key->bytes, key->byte_count };
}

static inline struct volume_bytes schema_row_bytes(const struct schema_row *row)
{
    return (struct volume_bytes){ row->bytes, row->byte_count };
}

struct schema_key schema_key_checkpoint(struct user_id user, struct conversation_id conversation,
                                        uint64_t block);
struct schema_key schema_key_log(struct user_id user, uint64_t seq);
struct schema_key schema_key_head(struct user_id user, struct conversation_id conversation);
struct schema_key schema_key_device(struct user_id user, struct device_id device);
struct schema_key schema_key_facts(struct user_id user);
struct schema_key schema_key_beyond(struct user_id user); /* no row's: above all of the user's */
struct schema_key schema_key_body(struct message_id id, uint16_t part); /* 0: its references */
struct schema_key schema_key_out(struct partition_id partition, struct message_id id);
struct schema_key schema_key_applied(void);
struct schema_key schema_key_identity(void);
struct schema_key schema_key_last(struct partition_id partition);

struct schema_facts {
    uint64_t epoch;
    uint64_t head;  /* the newest seq; 0: none */
    uint64_t floor; /* the lowest seq kept, from 1 */
    uint64_t created_unix_ms;
};

struct schema_device {
    uint32_t generation;
    uint64_t created_unix_ms;
    uint64_t last_counter;
    struct origin cursor;
    uint64_t cursor_sver;
    uint32_t outcome_count;
    struct outcome outcomes[SCHEMA_OUTCOMES_MAX]; /* oldest first */
};

/* An entry of a log row; entry.body is set if it is inline. */
struct schema_log {
    struct log_entry entry;
    bool body_apart;
    uint16_t body_bytes;
    uint32_t body_crc;
};

/* A log row while it is filled. */
struct schema_log_writer {
    struct schema_key key;
    struct schema_row row; /* whole after schema_log_end() */
    uint64_t first;
    uint32_t count;
};

/* The entries of a log row, one by one. `bad`: it doesn't hold what it says. */
struct schema_log_reader {
    const uint8_t *at;
    const uint8_t *end;
    uint64_t first;
    uint32_t count;
    uint32_t taken;
    struct user_id user;
    bool bad;
};

struct schema_body {
    uint32_t references;
    uint16_t body_bytes;
    uint32_t body_crc;
};

struct schema_out {
    struct user_id user;
    uint64_t epoch;
    uint64_t seq;
    struct user_id to;
    bool body_apart; /* it is one of the body's references */
};

struct schema_identity {
    uint16_t format;
    uint8_t directory_id[SCHEMA_DIRECTORY_ID_BYTES];
    uint16_t volume;
    uint16_t volume_count;
};

/* Each encoder makes the row that belongs under the key; each decoder checks both. */
void schema_encode_number(const struct schema_key *key, uint64_t number, struct schema_row *row);
void schema_encode_facts(const struct schema_key *key, const struct schema_facts *facts,
                         struct schema_row *row);
void schema_encode_head(const struct schema_key *key, const struct head *head,
                        struct schema_row *row);
void schema_encode_device(const struct schema_key *key, const struct schema_device *device,
                          struct schema_row *row);
/* Whether the entry's body lies apart: it isn't in the log row then. */
bool schema_log_apart(const struct log_entry *entry);
void schema_log_begin(struct schema_log_writer *writer, struct user_id user, uint64_t first);
/* Goes on with a row that is there. False: it is damaged. */
bool schema_log_resume(struct schema_log_writer *writer, struct volume_bytes key,
                       struct volume_bytes row) __attribute__((warn_unused_result));
/* The entry behind the last one. False: the row is full; a new one always takes one. */
bool schema_log_add(struct schema_log_writer *writer, const struct log_entry *entry)
    __attribute__((warn_unused_result));
void schema_log_end(struct schema_log_writer *writer);
void schema_encode_body(const struct schema_key *key, const struct schema_body *body,
                        struct schema_row *row);
void schema_encode_part(const struct schema_key *key, const uint8_t *bytes, size_t byte_count,
                        struct schema_row *row);
void schema_encode_out(const struct schema_key *key, const struct schema_out *out,
                       struct schema_row *row);
void schema_encode_identity(const struct schema_key *key, const struct schema_identity *identity,
                            struct schema_row *row);

bool schema_decode_number(struct volume_bytes key, struct volume_bytes row, uint64_t *number);
bool schema_decode_facts(struct volume_bytes key, struct volume_bytes row,
                         struct schema_facts *facts);
bool schema_decode_head(struct volume_bytes key, struct volume_bytes row, struct head *head);
bool schema_decode_device(struct volume_bytes key, struct volume_bytes row,
                          struct schema_device *device);
/* Whether the key is one of this user's log rows. */
bool schema_is_log(struct volume_bytes key, struct user_id user);
bool schema_log_open(struct schema_log_reader *reader, struct volume_bytes key,
                     struct volume_bytes row);
/* The next entry. False: there's none, or the row is bad. */
bool schema_log_next(struct schema_log_reader *reader, struct schema_log *log);
/* The entry of that seq, from wherever the reader is; the next one is behind it. */
bool schema_log_find(struct schema_log_reader *reader, uint64_t seq, struct schema_log *log);
bool schema_decode_body(struct volume_bytes key, struct volume_bytes row, struct schema_body *body);
bool schema_decode_part(struct volume_bytes key, struct volume_bytes row,
                        struct volume_bytes *part);
bool schema_decode_out(struct volume_bytes key, struct volume_bytes row, struct schema_out *out);
bool schema_decode_identity(struct volume_bytes key, struct volume_bytes row,
                            struct schema_identity *identity);

/* Whose row it is, of the table `user`; false: there can't be such a key. */
bool schema_key_owner(struct volume_bytes key, struct user_id *user);
/* And where it stands beside that user's log, which is between the other rows. */
enum schema_place { SCHEMA_BEFORE_LOG, SCHEMA_IN_LOG, SCHEMA_BEHIND_LOG };
enum schema_place schema_key_place(struct volume_bytes key);

enum schema_status schema_status_of(enum volume_status status);

/* What the tables say, in any transaction. */
enum schema_status schema_get_number(struct volume_txn *txn, enum volume_table table,
                                     const struct schema_key *key, uint64_t *number);
/* 0 in a new volume. */
enum schema_status schema_get_applied(struct volume_txn *txn, uint64_t *lsn);

/* Records the outcome under its counter, unless it is older than all that are kept. */
void schema_device_note_outcome(struct schema_device *device, const struct outcome *outcome);

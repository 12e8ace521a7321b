/*
 * record: the redo records of the journal: what has become true, in the order in which it did. They
 * hold results, never inputs, so applying one twice, or after what a later one made true, changes
 * nothing (flush.h says how each is applied).
 *
 * Owner    Views point into the caller's bytes, which must outlive them. Nothing is allocated.
 * Thread   Any. Pure.
 * Units    Sizes in bytes; integers big-endian on disk; `_unix_ms` is wall time.
 * Errors   record_parse() distrusts its bytes (they come from a disk): RECORD_BAD when type, length
 *          or a field's range is wrong. Encoders assert their input and that the room is there.
 * Format   A record is {length u24 (of the whole record), type u8, partition u16, fields}. One
 *          record is at most RECORD_BYTES_MAX. The encodings are on disk: a change needs a new
 *          type number or a new format version of the data directory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"

#define RECORD_NONCE_BYTES    16
#define RECORD_BODY_BYTES_MAX 15000
#define RECORD_BYTES_MAX      15360 /* body and the largest fixed part */
#define RECORD_HEADER_BYTES   6
#define RECORD_ENTRY_MIN      37 /* no entry is shorter: what an index of entries must hold */

enum record_type {
    RECORD_USER = 1,    /* a user exists: epoch */
    RECORD_DEVICE = 2,  /* a device exists, or its generation changed */
    RECORD_ENTRY = 3,   /* one entry of a user's log, with all that follows from it */
    RECORD_REJECT = 4,  /* a SEND refused for ever: it consumed its counter */
    RECORD_OUT_END = 5, /* a stream record has ended: its receiver has it, or refused it */
    RECORD_FLOOR = 6,   /* retention: entries below `floor` are gone */
    RECORD_CURSOR = 7,  /* what a device has acknowledged */
};

enum log_entry_form {
    LOG_ENTRY_MESSAGE = 1,
    LOG_ENTRY_REFUSED = 3, /* of the same number as on the wire */
};

#define LOG_ENTRY_FLAG_OWN 0x01 /* sent by this user: device, counter and nonce are set */
#define LOG_ENTRY_FLAG_OUT 0x02 /* it is a stream record too, until RECORD_OUT_END */

/* Where a log's entry comes from: what the receiver dedupes by. Ordered by epoch, then seq. */
struct origin {
    uint64_t epoch;
    uint64_t seq;
};

/*
 * One entry of a user's log. A message: `prev`, `n` and `cn` are its place in the conversation
 * (the seq of the entry before; its number from 1; how many messages of others up to and with it).
 * Refused: `ref_seq` and `id` name the own message that was refused, `code` says why; it has no
 * place in the conversation (prev, n and cn are 0) and no body.
 * `origin` is the sender's (epoch, seq); of an own message, the entry's own.
 */
struct log_entry {
    struct user_id user; /* whose log */
    uint64_t epoch;
    uint64_t seq;
    struct message_id id;
    struct conversation_id conversation;
    struct user_id sender;
    struct device_id device; /* of the sender */
    uint8_t form;            /* enum log_entry_form */
    uint8_t flags;
    uint8_t kind;
    uint16_t code;
    uint64_t ref_seq;
    uint64_t counter;
    uint8_t nonce[RECORD_NONCE_BYTES];
    uint64_t prev;
    uint64_t n;
    uint64_t cn;
    struct origin origin;
    const uint8_t *body;
    uint16_t body_bytes;
};

struct record_user {
    struct user_id user;
    uint64_t epoch;
    uint64_t created_unix_ms;
};

struct record_device {
    struct user_id user;
    struct device_id device;
    uint32_t generation;
    uint64_t created_unix_ms;
};

struct record_reject {
    struct user_id user;
    struct device_id device;
    uint64_t counter;
    uint8_t nonce[RECORD_NONCE_BYTES];
    uint16_t code;
};

/* Ends the stream record of the message with this id, of that user's log. */
struct record_out_end {
    struct user_id user;
    struct message_id id;
};

struct record_floor {
    struct user_id user;
    uint64_t floor; /* the lowest seq kept */
};

struct record_cursor {
    struct user_id user;
    struct device_id device;
    uint64_t epoch;
    uint64_t seq;
    uint64_t sver;
};

struct record {
    enum record_type type;
    struct partition_id partition; /* of the user whose record it is */
    union {
        struct record_user user;
        struct record_device device;
        struct log_entry entry;
        struct record_reject reject;
        struct record_out_end out_end;
        struct record_floor floor;
        struct record_cursor cursor;
    };
};

enum record_status {
    RECORD_OK = 0,
    RECORD_SHORT, /* the bytes end before the record does */
    RECORD_BAD,
};

/* Reads the record at the front of the bytes; *record_bytes is then its length. */
enum record_status record_parse(const uint8_t *bytes, size_t byte_count, struct record *record,
                                size_t *record_bytes) __attribute__((warn_unused_result));

/* What an index of entries needs to know of a record. */
struct record_outline {
    size_t byte_count; /* of the whole record */
    enum record_type type;
    /* The rest of entries only; n of a refused one is 0, as its record's is. */
    uint8_t form;
    struct user_id user;
    struct conversation_id conversation;
    uint64_t seq;
    uint64_t n;
};

/*
 * The outline of the record at the front of bytes that record_encode() wrote in this process: a
 * fraction of record_parse()'s work, for the path of every append. Of the rules of a record it
 * asserts only those that keep it within the bytes.
 */
struct record_outline record_outline(const uint8_t *bytes, size_t byte_count);

/* The length that record_encode() will write. */
size_t record_bytes(const struct record *record);

/* Whose record it is. */
struct user_id record_owner(const struct record *record);

/* Writes the record and returns its length, record_bytes(). The room must be there. */
size_t record_encode(const struct record *record, uint8_t *to, size_t room);

/* Orders by epoch, then seq: below 0, 0, above 0. */
static inline int origin_compare(struct origin a, struct origin b)
{
    if (a.epoch != b.epoch) {
        return a.epoch < b.epoch ? -1 : 1;
    }
    if (a.seq != b.seq) {
        return a.seq < b.seq ? -1 : 1;
    }
    return 0;
}

/* What became of a SEND: 32 a device are kept, newest counter last. */
struct outcome {
    uint64_t counter;
    uint64_t id; /* 0: refused, and `code` says why */
    uint64_t seq;
    uint8_t nonce[RECORD_NONCE_BYTES];
    uint16_t code; /* of proto/codes.h; 0: accepted */
};

/* The head of a conversation of one user's log. */
struct head {
    uint64_t last; /* seq of its newest message; 0: none */
    uint64_t n;
    uint64_t cn;
    struct origin origin; /* of the last message that came from the peer */
};

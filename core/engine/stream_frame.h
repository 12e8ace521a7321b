/*
 * stream_frame: the frames that go between the homes of two partitions: stream records, their
 * acknowledgement, and the end of a link.
 *
 *      | kind 1 | source 2 | destination 2 | term 8 | link number 8 |
 *      STREAM       first number 8, count 2, records: after 16, origin 16, from 8, to 8, device 4,
 *                   id 8, kind 1, body length 2, body
 *      STREAM_ACK   above 8, up to 8, count 2, exceptions: number 8, code 2
 *      LINK_END
 *
 * Source and destination are those of the link in all three: an answer goes from the destination.
 * An origin, and an `after`, is an (epoch, seq) of the sender's log.
 *
 * Owner    Builders and decoded frames point into the caller's bytes.
 * Thread   Any. Pure: no allocation, no I/O.
 * Errors   Decoders distrust their bytes, since later they come from other nodes: false for
 *          anything that isn't a whole, well-formed frame. What a record says may still be wrong.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "store/record.h"

enum stream_kind {
    STREAM_RECORDS = 1,
    STREAM_ACK = 2,
    STREAM_LINK_END = 3,
};

struct stream_header {
    enum stream_kind kind;
    struct partition_id source;
    struct partition_id destination;
    uint64_t term;
    uint64_t number; /* of the link */
};

struct stream_record {
    struct origin after; /* {0, 0}: none */
    struct origin origin;
    struct user_id from;
    struct user_id to;
    struct device_id device;
    struct message_id id;
    uint8_t kind;
    uint16_t body_bytes;
    const uint8_t *body;
};

struct stream_records {
    struct stream_header header;
    uint64_t first; /* number of the first record */
    uint16_t count;
    uint16_t left_;
    const uint8_t *at_;
};

/* An exception's code: of proto/codes.h, for a refusal, or this. */
#define STREAM_BEHIND 0

struct stream_ack {
    struct stream_header header;
    /* Covers the numbers above the one, up to the other. */
    uint64_t above;
    uint64_t up_to;
    uint16_t count;
    const uint8_t *exceptions_;
};

#define STREAM_HEADER_BYTES       (1 + 2 + 2 + 8 + 8)
#define STREAM_RECORDS_BYTES      (STREAM_HEADER_BYTES + 8 + 2)
#define STREAM_RECORD_FIXED_BYTES ((size_t)16 + 16 + 8 + 8 + 4 + 8 + 1 + 2)
#define STREAM_EXCEPTION_BYTES    ((size_t)8 + 2)
#define STREAM_ACK_BYTES          (STREAM_HEADER_BYTES + 8 + 8 + 2)

/* A receiver takes no more. */
#define STREAM_RECORDS_MAX     64
#define STREAM_FRAME_BYTES_MAX ((size_t)17 * 1024) /* what lies in one cell of a core's mail */
_Static_assert(STREAM_RECORDS_BYTES + STREAM_RECORD_FIXED_BYTES + RECORD_BODY_BYTES_MAX <=
                   STREAM_FRAME_BYTES_MAX,
               "each record fits a frame");

/* The header, which all kinds have; false: nothing of ours. */
bool stream_decode_header(const uint8_t *bytes, size_t byte_count, struct stream_header *header)
    __attribute__((warn_unused_result));
bool stream_decode_records(const uint8_t *bytes, size_t byte_count, struct stream_records *out)
    __attribute__((warn_unused_result));
bool stream_decode_ack(const uint8_t *bytes, size_t byte_count, struct stream_ack *out)
    __attribute__((warn_unused_result));

/* Takes the next record and its number; false after the last. */
bool stream_next(struct stream_records *records, uint64_t *number, struct stream_record *out)
    __attribute__((warn_unused_result));
/* The i-th exception; they rise by number. */
void stream_exception(const struct stream_ack *ack, uint16_t i, uint64_t *number, uint16_t *code);

struct stream_builder {
    uint8_t *frame_;
    size_t cap_;
    size_t used_;
    uint16_t count_;
};

/* Of records; cap is at most STREAM_FRAME_BYTES_MAX. */
void stream_begin(struct stream_builder *builder, uint8_t *to, size_t cap,
                  const struct stream_header *header, uint64_t first);
/* False, and nothing changed, when it doesn't fit any more. */
bool stream_add(struct stream_builder *builder, const struct stream_record *record)
    __attribute__((warn_unused_result));
/* Bytes of the frame; 0 when it has no record. */
size_t stream_end(struct stream_builder *builder);

/* An acknowledgement: begin, exceptions in rising order, end. At most STREAM_RECORDS_MAX. */
void stream_ack_begin(struct stream_builder *builder, uint8_t *to, size_t cap,
                      const struct stream_header *header, uint64_t above, uint64_t up_to);
void stream_ack_add(struct stream_builder *builder, uint64_t number, uint16_t code);
size_t stream_ack_end(struct stream_builder *builder);

size_t stream_encode_link_end(uint8_t *to, size_t cap, const struct stream_header *header);

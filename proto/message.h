/*
 * message: what each frame but ENTRIES and PAGE (entries.h) says, as a checked struct, and back.
 *
 * Use      message_decode_NAME takes a view whose type is FRAME_TYPE_NAME (asserted) and fills
 *          `out` if it returns CODE_OK. What it lets through keeps every rule that docs/protocol.md
 *          gives for the frame alone; rules that need more than the frame (who sends, counters, the
 *          size of a body, permissions) are the caller's. TLVs are checked here: unknown critical
 *          ones refused, unknown optional ones skipped.
 *          message_encode_NAME writes one whole frame to `to` and returns its bytes, or 0 and
 *          nothing written when `cap` is too small. A struct that breaks a rule (a token too long)
 *          is a programmer's error and asserts.
 * Owner    Decoded structs point into the frame's bytes, and are good as long as those are.
 * Thread   Any. Pure: no allocation, no I/O.
 * Errors   Decoders return enum code: BAD_FRAME (cut short, trailing bytes, a TLV twice), BAD_FIELD
 *          (a value that is never allowed), UNSUPPORTED_TLV, VERSION. All of these end the
 *          connection.
 * Source   docs/protocol.md, "Messages".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/check.h"
#include "core/base/ids.h"
#include "proto/codes.h"
#include "proto/frame.h"
#include "proto/limits.h"
#include "proto/wire.h"

#define MESSAGE_CHECKED __attribute__((warn_unused_result))

/* A string of bytes inside a frame; absent: NULL and 0. Text is UTF-8 without control characters.
 */
struct message_bytes {
    const uint8_t *bytes;
    uint16_t byte_count;
};

/* Chosen at random by the sender, once for each message: what makes a SEND recognisable. */
struct nonce {
    uint8_t bytes[NONCE_BYTES];
};

/* What a device has acknowledged of both feeds. {0, 0, 0}: it has nothing. */
struct message_cursor {
    uint64_t epoch;
    uint64_t seq;
    uint64_t sver;
};

#define HELLO_MODE_LIVE 0

struct message_hello {
    uint16_t version; /* PROTOCOL_VERSION */
    uint64_t caps;    /* none are defined yet: 0 from us, unknown bits are ignored */
    struct user_id user;
    struct device_id device;
    struct message_cursor cursor;
    uint32_t max_catchup; /* entries; 0: the server's choice */
    uint8_t mode;         /* HELLO_MODE_LIVE */
    uint32_t window;      /* bytes of unacknowledged ENTRIES; 0: the server's choice */
    struct message_bytes token;
    struct message_bytes client; /* text, optional, for logs */
};

enum hello_result {
    HELLO_RESULT_RESUME = 1,
    HELLO_RESULT_RESET = 3, /* 2, SNAPSHOT, is reserved */
};

struct message_hello_ok {
    uint64_t caps;
    uint64_t time_unix_ms;
    uint64_t epoch; /* never 0 */
    uint64_t head;
    uint64_t floor; /* head + 1 when nothing is kept */
    uint64_t sver;
    uint64_t last_counter;
    enum hello_result result;
    uint32_t keepalive_s;
    uint32_t life_s;
    uint32_t frame_bytes_max;
    uint32_t body_bytes_max;
    uint16_t sends_outstanding_max;
    uint16_t requests_outstanding_max;
    uint32_t window;
    struct message_bytes resume_token; /* optional, RESUME_TOKEN_BYTES_MAX */
};

/* From a client: a log-in token, life_s 0. From the server: its resume token and new life. */
struct message_token {
    uint32_t life_s;
    struct message_bytes token;
};

/* PING and PONG. */
struct message_ping {
    uint64_t opaque;
};

enum goaway_why {
    GOAWAY_RESTART = 1,
    GOAWAY_SHUTDOWN = 2,
    GOAWAY_OVERLOAD = 3,
};

struct message_goaway {
    uint16_t why; /* of enum goaway_why, or a newer one */
    uint32_t wait_min_ms;
    uint32_t wait_max_ms;
    struct message_bytes alternative; /* text, optional: host:port */
};

struct message_error {
    uint16_t code; /* of enum code, or a newer one; never 0 */
    uint32_t request;
    uint32_t retry_ms;
    bool fatal;
    struct message_bytes text; /* optional */
};

struct message_send {
    uint64_t counter; /* never 0 */
    struct nonce nonce;
    struct conversation_id conversation;
    uint8_t kind;              /* any: the caller refuses those above KIND_MAX */
    struct message_bytes body; /* any that fits the frame: the caller refuses BODY_TOO_LARGE */
};

struct message_accepted {
    uint64_t counter;
    struct message_id id;
    uint64_t seq;
};

struct message_rejected {
    uint64_t counter;
    uint16_t code; /* of a SEND class, or a newer one; never 0 */
    uint32_t retry_ms;
    uint64_t expected;
};

struct message_ack {
    uint64_t seq;
    uint64_t sver;
};

enum history_direction {
    HISTORY_BEFORE = 1, /* entries older than the anchor; 0: from the newest */
    HISTORY_AFTER = 2,  /* entries newer than the anchor; 0: from the oldest kept */
};

struct message_history {
    uint32_t request; /* never 0 */
    struct conversation_id conversation;
    enum history_direction direction;
    uint64_t anchor; /* seq */
    uint16_t n;      /* entries at most, never 0 */
    uint32_t bytes;  /* of the PAGE frame at most; 0: the server's choice */
};

/* Sizes of the fixed fields. */
#define HELLO_FIXED_BYTES    (2 + 8 + 8 + 4 + 8 + 8 + 8 + 4 + 1 + 4)
#define HELLO_OK_FIXED_BYTES (7 * 8 + 1 + 4 * 4 + 2 * 2 + 4)
#define TOKEN_FIXED_BYTES    4
#define PING_FIXED_BYTES     8
#define GOAWAY_FIXED_BYTES   (2 + 4 + 4)
#define ERROR_FIXED_BYTES    (2 + 4 + 4 + 1)
#define SEND_FIXED_BYTES     (8 + NONCE_BYTES + 8 + 1 + 2)
#define ACCEPTED_FIXED_BYTES (8 + 8 + 8)
#define REJECTED_FIXED_BYTES (8 + 2 + 4 + 8)
#define ACK_FIXED_BYTES      (8 + 8)
#define HISTORY_FIXED_BYTES  (4 + 8 + 1 + 8 + 2 + 4)

/* Whole frames of a size that never changes: room to set aside for an answer. */
#define ACCEPTED_FRAME_BYTES (FRAME_HEADER_BYTES + ACCEPTED_FIXED_BYTES)
#define REJECTED_FRAME_BYTES (FRAME_HEADER_BYTES + REJECTED_FIXED_BYTES)
#define PING_FRAME_BYTES     (FRAME_HEADER_BYTES + PING_FIXED_BYTES)
#define ACK_FRAME_BYTES      (FRAME_HEADER_BYTES + ACK_FIXED_BYTES)
#define BYE_FRAME_BYTES      FRAME_HEADER_BYTES
#define HISTORY_FRAME_BYTES  (FRAME_HEADER_BYTES + HISTORY_FIXED_BYTES)

/* The largest of those that carry text or tokens of ours. */
#define TLV_HEADER_BYTES 3
#define HELLO_OK_FRAME_BYTES_MAX                                                                   \
    (FRAME_HEADER_BYTES + HELLO_OK_FIXED_BYTES + TLV_HEADER_BYTES + RESUME_TOKEN_BYTES_MAX)
#define ERROR_FRAME_BYTES_MAX                                                                      \
    (FRAME_HEADER_BYTES + ERROR_FIXED_BYTES + TLV_HEADER_BYTES + ERROR_TEXT_BYTES_MAX)
#define GOAWAY_FRAME_BYTES_MAX                                                                     \
    (FRAME_HEADER_BYTES + GOAWAY_FIXED_BYTES + TLV_HEADER_BYTES + ADDRESS_BYTES_MAX)

MESSAGE_CHECKED enum code message_decode_hello(const struct frame_view *view,
                                               struct message_hello *out);
MESSAGE_CHECKED enum code message_decode_hello_ok(const struct frame_view *view,
                                                  struct message_hello_ok *out);
MESSAGE_CHECKED enum code message_decode_token(const struct frame_view *view,
                                               struct message_token *out);
/* Of either type. */
MESSAGE_CHECKED enum code message_decode_ping(const struct frame_view *view,
                                              struct message_ping *out);
MESSAGE_CHECKED enum code message_decode_goaway(const struct frame_view *view,
                                                struct message_goaway *out);
MESSAGE_CHECKED enum code message_decode_bye(const struct frame_view *view);
MESSAGE_CHECKED enum code message_decode_error(const struct frame_view *view,
                                               struct message_error *out);
MESSAGE_CHECKED enum code message_decode_accepted(const struct frame_view *view,
                                                  struct message_accepted *out);
MESSAGE_CHECKED enum code message_decode_rejected(const struct frame_view *view,
                                                  struct message_rejected *out);
MESSAGE_CHECKED enum code message_decode_history(const struct frame_view *view,
                                                 struct message_history *out);

MESSAGE_CHECKED size_t message_encode_hello(uint8_t *to, size_t cap,
                                            const struct message_hello *in);
MESSAGE_CHECKED size_t message_encode_hello_ok(uint8_t *to, size_t cap,
                                               const struct message_hello_ok *in);
MESSAGE_CHECKED size_t message_encode_token(uint8_t *to, size_t cap,
                                            const struct message_token *in);
MESSAGE_CHECKED size_t message_encode_ping(uint8_t *to, size_t cap, const struct message_ping *in);
MESSAGE_CHECKED size_t message_encode_pong(uint8_t *to, size_t cap, const struct message_ping *in);
MESSAGE_CHECKED size_t message_encode_goaway(uint8_t *to, size_t cap,
                                             const struct message_goaway *in);
MESSAGE_CHECKED size_t message_encode_bye(uint8_t *to, size_t cap);
MESSAGE_CHECKED size_t message_encode_error(uint8_t *to, size_t cap,
                                            const struct message_error *in);
MESSAGE_CHECKED size_t message_encode_history(uint8_t *to, size_t cap,
                                              const struct message_history *in);

/* An ERROR with the code's own text and fatality, about no request or about one. */
MESSAGE_CHECKED size_t message_encode_error_code(uint8_t *to, size_t cap, enum code code,
                                                 uint32_t request, uint32_t retry_ms);

/* Checks a tail of TLVs of a frame that defines none. */
MESSAGE_CHECKED enum code message_check_tail(const uint8_t *at, const uint8_t *end);

/* The hot path: inline. */

MESSAGE_CHECKED static inline enum code message_decode_send(const struct frame_view *view,
                                                            struct message_send *out)
{
    HF_ASSERT(view->type == FRAME_TYPE_SEND);
    if (view->payload_bytes < SEND_FIXED_BYTES) {
        return CODE_BAD_FRAME;
    }

    const uint8_t *at = view->payload;
    const uint8_t *end = at + view->payload_bytes;

    out->counter = wire_take_u64(&at);
    wire_take_bytes(&at, out->nonce.bytes, NONCE_BYTES);
    out->conversation.value = wire_take_u64(&at);
    out->kind = wire_take_u8(&at);
    out->body.byte_count = wire_take_u16(&at);
    out->body.bytes = at;
    if ((size_t)(end - at) < out->body.byte_count) {
        return CODE_BAD_FRAME;
    }
    at += out->body.byte_count;
    if (out->counter == 0) {
        return CODE_BAD_FIELD;
    }
    return at == end ? CODE_OK : message_check_tail(at, end);
}

MESSAGE_CHECKED static inline enum code message_decode_ack(const struct frame_view *view,
                                                           struct message_ack *out)
{
    HF_ASSERT(view->type == FRAME_TYPE_ACK);
    if (view->payload_bytes < ACK_FIXED_BYTES) {
        return CODE_BAD_FRAME;
    }

    const uint8_t *at = view->payload;
    const uint8_t *end = at + view->payload_bytes;

    out->seq = wire_take_u64(&at);
    out->sver = wire_take_u64(&at);
    return at == end ? CODE_OK : message_check_tail(at, end);
}

/* Header of a frame whose whole size is known; used by the encoders. */
static inline void message_put_header(uint8_t **at, enum frame_type type, size_t whole_bytes)
{
    wire_put_u24(at, (uint32_t)(whole_bytes - FRAME_HEADER_BYTES));
    wire_put_u8(at, (uint8_t)type);
}

/* A body beyond what any frame holds also gives 0. */
MESSAGE_CHECKED static inline size_t message_encode_send(uint8_t *to, size_t cap,
                                                         const struct message_send *in)
{
    const size_t whole_bytes = FRAME_HEADER_BYTES + SEND_FIXED_BYTES + (size_t)in->body.byte_count;

    HF_ASSERT(in->counter != 0);
    if (cap < whole_bytes || whole_bytes > FRAME_BYTES_MAX) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_SEND, whole_bytes);
    wire_put_u64(&to, in->counter);
    wire_put_bytes(&to, in->nonce.bytes, NONCE_BYTES);
    wire_put_u64(&to, in->conversation.value);
    wire_put_u8(&to, in->kind);
    wire_put_u16(&to, in->body.byte_count);
    wire_put_bytes(&to, in->body.bytes, in->body.byte_count);
    return whole_bytes;
}

MESSAGE_CHECKED static inline size_t message_encode_ack(uint8_t *to, size_t cap,
                                                        const struct message_ack *in)
{
    if (cap < ACK_FRAME_BYTES) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_ACK, ACK_FRAME_BYTES);
    wire_put_u64(&to, in->seq);
    wire_put_u64(&to, in->sver);
    return ACK_FRAME_BYTES;
}

MESSAGE_CHECKED static inline size_t message_encode_accepted(uint8_t *to, size_t cap,
                                                             const struct message_accepted *in)
{
    HF_ASSERT(in->counter != 0 && in->seq != 0);
    if (cap < ACCEPTED_FRAME_BYTES) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_ACCEPTED, ACCEPTED_FRAME_BYTES);
    wire_put_u64(&to, in->counter);
    wire_put_u64(&to, in->id.value);
    wire_put_u64(&to, in->seq);
    return ACCEPTED_FRAME_BYTES;
}

MESSAGE_CHECKED static inline size_t message_encode_rejected(uint8_t *to, size_t cap,
                                                             const struct message_rejected *in)
{
    HF_ASSERT(in->counter != 0 && in->code != CODE_OK);
    if (cap < REJECTED_FRAME_BYTES) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_REJECTED, REJECTED_FRAME_BYTES);
    wire_put_u64(&to, in->counter);
    wire_put_u16(&to, in->code);
    wire_put_u32(&to, in->retry_ms);
    wire_put_u64(&to, in->expected);
    return REJECTED_FRAME_BYTES;
}

/*
 * frame: where one frame ends in a stream of bytes.
 *
 *      0         3      4
 *      | length  | type | payload ...
 *
 * `length` counts the payload alone. A frame, header included, has at most FRAME_BYTES_MAX.
 *
 * Owner    A view belongs to nobody: it points into the bytes that were parsed, and is good as long
 *          as they are.
 * Thread   Any. Pure.
 * Errors   enum frame_result.
 * Source   docs/protocol.md, "Frames".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/base/bytes.h"
#include "proto/limits.h"

enum frame_origin {
    FRAME_FROM_NOBODY = 0, /* not a type of this version */
    FRAME_FROM_CLIENT = 1,
    FRAME_FROM_SERVER = 2,
    FRAME_FROM_BOTH = 3, /* a mask of the two */
};

/* X(name, number, who may send it, metric label) */
#define FRAME_TYPES(X)                                                                             \
    X(HELLO, 1, FRAME_FROM_CLIENT, "hello")                                                        \
    X(HELLO_OK, 2, FRAME_FROM_SERVER, "hello_ok")                                                  \
    X(TOKEN, 3, FRAME_FROM_BOTH, "token")                                                          \
    X(PING, 5, FRAME_FROM_BOTH, "ping")                                                            \
    X(PONG, 6, FRAME_FROM_BOTH, "pong")                                                            \
    X(GOAWAY, 8, FRAME_FROM_SERVER, "goaway")                                                      \
    X(BYE, 9, FRAME_FROM_CLIENT, "bye")                                                            \
    X(ERROR, 10, FRAME_FROM_SERVER, "error")                                                       \
    X(SEND, 16, FRAME_FROM_CLIENT, "send")                                                         \
    X(ACCEPTED, 17, FRAME_FROM_SERVER, "accepted")                                                 \
    X(REJECTED, 18, FRAME_FROM_SERVER, "rejected")                                                 \
    X(ENTRIES, 19, FRAME_FROM_SERVER, "entries")                                                   \
    X(ACK, 21, FRAME_FROM_CLIENT, "ack")                                                           \
    X(HISTORY, 33, FRAME_FROM_CLIENT, "history")                                                   \
    X(PAGE, 34, FRAME_FROM_SERVER, "page")

enum frame_type {
#define FRAME_TYPE_ENUMERATOR(name, number, origin, label) FRAME_TYPE_##name = (number),
    FRAME_TYPES(FRAME_TYPE_ENUMERATOR)
#undef FRAME_TYPE_ENUMERATOR
};

/* Types from here on are ignored by who doesn't know them; below, the server says UNSUPPORTED. */
#define FRAME_TYPE_OPTIONAL_MIN 128

enum frame_result {
    FRAME_OK = 0,
    FRAME_NEED_MORE,
    FRAME_TOO_LARGE, /* the stream can't be followed any further */
};

struct frame_view {
    uint8_t type; /* of enum frame_type, or one that this version doesn't know */
    uint32_t payload_bytes;
    const uint8_t *payload;
};

/* The whole frame: how far to go on to the next one. */
static inline size_t frame_bytes(const struct frame_view *view)
{
    return FRAME_HEADER_BYTES + (size_t)view->payload_bytes;
}

/*
 * Looks at the first frame of `bytes`. FRAME_OK fills the view. FRAME_NEED_MORE fills it except the
 * payload when the header is there (so that the caller knows the room to find), else sets
 * payload_bytes to 0.
 */
__attribute__((warn_unused_result)) static inline enum frame_result
frame_parse(const uint8_t *bytes, size_t byte_count, struct frame_view *view)
{
    view->type = 0;
    view->payload_bytes = 0;
    view->payload = NULL;
    if (byte_count < 3) {
        return FRAME_NEED_MORE;
    }

    const uint32_t length = load_be24(bytes);

    if (length > FRAME_PAYLOAD_BYTES_MAX) {
        return FRAME_TOO_LARGE;
    }
    if (byte_count < FRAME_HEADER_BYTES) {
        return FRAME_NEED_MORE;
    }
    view->type = bytes[3];
    view->payload_bytes = length;
    if (byte_count - FRAME_HEADER_BYTES < length) {
        return FRAME_NEED_MORE;
    }
    view->payload = bytes + FRAME_HEADER_BYTES;
    return FRAME_OK;
}

/* Who may send this type; FRAME_FROM_NOBODY for one that this version doesn't have. */
enum frame_origin frame_type_origin(uint8_t type);

/* "HELLO" and "hello"; "OTHER" and "other" for a type that this version doesn't have. */
const char *frame_type_name(uint8_t type);
const char *frame_type_label(uint8_t type);

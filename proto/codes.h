/*
 * codes: why something was refused or ended. ERROR, REJECTED and REFUSED entries carry these
 * numbers; decoders return them.
 *
 * Use      CODE_OK (0) is never on the wire. A number from a peer may be one that this version
 *          doesn't know: it stays a uint16_t and is treated by its class, which is its range.
 * Thread   Any. Pure.
 * Errors   None.
 * Source   docs/protocol.md, "Codes".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * X(name, number, metric label, text)
 *
 *    1..127   ends the connection
 *  128..255   about the connection, which goes on
 *  256..511   a SEND, temporary: consumed nothing, may be sent again
 *  512..767   a SEND, permanent: consumed its counter, never sent again
 *  768..1023  a REFUSED entry: the receiver's side would not take an accepted message
 * 1024..1279  a request
 */
#define CODES(X)                                                                                   \
    X(BAD_FRAME, 1, "bad_frame", "the frame is malformed")                                         \
    X(FRAME_TOO_LARGE, 2, "frame_too_large", "the frame is larger than allowed")                   \
    X(BAD_FIELD, 3, "bad_field", "a field has a value that is not allowed")                        \
    X(UNSUPPORTED_TLV, 4, "unsupported_tlv", "a critical TLV is not supported")                    \
    X(UNEXPECTED, 5, "unexpected", "this frame is not allowed here")                               \
    X(VERSION, 6, "version", "this protocol version is not supported")                             \
    X(HELLO_EXPECTED, 7, "hello_expected", "HELLO must come first, and in time")                   \
    X(BAD_TOKEN, 8, "bad_token", "the token is not valid for this user and device")                \
    X(TOKEN_EXPIRED, 9, "token_expired", "the token or the login has expired")                     \
    X(REPLACED, 10, "replaced", "a newer connection of this device has taken over")                \
    X(CONFLICT, 11, "conflict", "this counter was used with another nonce")                        \
    X(STALE, 12, "stale", "this counter is older than the kept outcomes")                          \
    X(TRIMMED, 13, "trimmed", "the next entry is no longer kept; connect again")                   \
    X(IDLE, 14, "idle",                                                                            \
      "nothing was received for too long, or a frame that was begun wasn't ended")                 \
    X(STALLED, 15, "stalled", "nothing could be sent for too long")                                \
    X(TOO_MANY_DEVICES, 16, "too_many_devices", "this user has too many devices")                  \
    X(BUSY, 17, "busy", "the server is at a limit; try again later")                               \
    X(INTERNAL, 18, "internal", "the server failed")                                               \
    X(GOING_AWAY, 19, "going_away", "the server is going away")                                    \
    X(UNSUPPORTED, 128, "unsupported", "this frame type is not supported")                         \
    X(RETRY, 256, "retry", "the server can't take messages now; send again later")                 \
    X(FULL, 257, "full", "too much is waiting for this receiver; send again later")                \
    X(ORDER, 258, "order", "this counter is not the expected one")                                 \
    X(BAD_CONVERSATION, 512, "bad_conversation", "there can be no such conversation")              \
    X(BODY_TOO_LARGE, 513, "body_too_large", "the body is larger than allowed")                    \
    X(BAD_KIND, 514, "bad_kind", "this kind is reserved")                                          \
    X(UNKNOWN, 768, "unknown", "the receiver can't be reached")                                    \
    X(BAD_CURSOR, 1024, "bad_cursor", "the anchor is no entry of this conversation")               \
    X(TOO_MANY_REQUESTS, 1025, "too_many_requests", "too many requests are outstanding")           \
    X(NOT_FOUND, 1026, "not_found", "there is nothing by that name")                               \
    X(UNAVAILABLE, 1027, "unavailable", "that can't be read now; ask again later")

enum code {
    CODE_OK = 0,
#define CODE_ENUMERATOR(name, number, label, text) CODE_##name = (number),
    CODES(CODE_ENUMERATOR)
#undef CODE_ENUMERATOR
};

enum code_class {
    CODE_CLASS_NONE, /* 0, and numbers beyond every range */
    CODE_CLASS_FATAL,
    CODE_CLASS_NOTICE,
    CODE_CLASS_SEND_TEMPORARY,
    CODE_CLASS_SEND_PERMANENT,
    CODE_CLASS_REFUSED,
    CODE_CLASS_REQUEST,
};

/* By range, so that it also holds for numbers that this version doesn't know. */
static inline enum code_class code_class(uint16_t code)
{
    if (code == 0) {
        return CODE_CLASS_NONE;
    }
    if (code < 256) {
        return code < 128 ? CODE_CLASS_FATAL : CODE_CLASS_NOTICE;
    }
    if (code < 768) {
        return code < 512 ? CODE_CLASS_SEND_TEMPORARY : CODE_CLASS_SEND_PERMANENT;
    }
    if (code < 1280) {
        return code < 1024 ? CODE_CLASS_REFUSED : CODE_CLASS_REQUEST;
    }
    return CODE_CLASS_NONE;
}

static inline bool code_is_fatal(uint16_t code)
{
    return code_class(code) == CODE_CLASS_FATAL;
}

/* "BAD_FRAME", "bad_frame", "the frame is malformed"; for an unknown number one fixed text each. */
const char *code_name(uint16_t code);
const char *code_label(uint16_t code);
const char *code_text(uint16_t code);

/*
 * session: a device's connection, from HELLO to its end: the fence, the cursor, the window, and
 * what is on its way.
 *
 *      HELLO --blocked--> SESSION_HELLO --> SESSION_WELCOMING --durable--> SESSION_LIVE
 *                              |                   |                            |
 *                              +---- refused ------+---- an ERROR that waits ---+--> CLOSING
 *
 * A closing session takes no more frames; it is freed when its ERROR was given out. Others are
 * freed at once.
 *
 * Owner    The engine, by the connection's slot. Its user can't be evicted while it lives.
 * Thread   The engine's only.
 * Memory   88 B a connection; all else that it may cause is bounded by its window, by its room and
 *          by the counts below.
 * Errors   What a client does wrong ends its session with an ERROR.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/engine/cells.h"
#include "core/engine/engine.h"

enum session_state {
    SESSION_FREE = 0,
    SESSION_HELLO, /* its HELLO waits for a load */
    SESSION_WELCOMING,
    SESSION_LIVE,
    SESSION_CLOSING,
};

/* What engine_run has to do for a session: flags of `ready`. */
#define SESSION_READY_PUSH    0x01
#define SESSION_READY_UNBLOCK 0x02

struct session {
    uint64_t sent;          /* seq of the newest entry pushed */
    uint64_t acked;         /* seq that the device acknowledged */
    uint64_t hello_counter; /* the device's last counter at HELLO: later ones came on here */
    uint64_t recent_at;     /* of entry `sent` in the ring, or 0 */
    uint64_t window_mark;   /* seq: the frames up to it are acknowledged as one */
    uint32_t generation;    /* of the connection; its slot is the session's */
    uint32_t user;
    uint32_t device;
    uint32_t next;      /* of the same user */
    uint32_t wait_prev; /* others that are blocked by the same */
    uint32_t wait_next;
    uint32_t window;
    uint32_t unacked_old;      /* bytes of ENTRIES up to the mark, if it isn't acknowledged */
    uint32_t unacked_new;      /* bytes of ENTRIES above it */
    uint32_t out_bytes;        /* given to the runtime and not yet sent */
    uint16_t wait_on;          /* what it is blocked by: loads.h */
    uint16_t load;             /* of entries to push */
    uint16_t requests;         /* first of a list by request.next */
    uint8_t sends_outstanding; /* SENDs whose answers are in pending */
    uint8_t state : 3;
    uint8_t request_count : 3;
    uint8_t load_failed : 1; /* what it was blocked by couldn't be read */
    uint8_t reloaded : 1;    /* its device's outcomes were, for the frame that is blocked */
};
_Static_assert(sizeof(struct session) == 88, "one per connection: docs/capacity.md");
_Static_assert(SESSION_CLOSING < 8 && REQUESTS_OUTSTANDING_MAX < 8, "three bits each");

/* Frames under way to a connection: more only when it takes nothing else, or for answers. */
#define SESSION_ROOM_BYTES 16384
/* Answers may go beyond; what would cause still more isn't read until some have left. */
#define SESSION_OUT_BYTES_MAX (SESSION_ROOM_BYTES + 8192)

static inline bool session_has_room(const struct session *session, uint32_t byte_count)
{
    return session->out_bytes == 0 || session->out_bytes + byte_count <= SESSION_ROOM_BYTES;
}

uint32_t session_find(const struct engine *engine, struct conn_ref conn);

enum engine_result session_on_hello(struct engine *engine, struct conn_ref conn,
                                    uint64_t accepted_at, const struct claims *claims,
                                    const struct message_hello *hello);
enum engine_result session_on_frame(struct engine *engine, uint32_t slot,
                                    const struct frame_view *frame);

/* The user's last append is durable: HELLO_OK. */
void session_on_welcome(struct engine *engine, uint32_t slot, uint64_t head, uint64_t floor,
                        uint8_t result);

/* ERROR, then the end: at once, or when all that the engine knows of the user is durable. */
void session_fail_now(struct engine *engine, uint32_t slot, enum code code, uint32_t retry_ms);
enum engine_result session_fail(struct engine *engine, uint32_t slot, enum code code);

/* The end, without a word: the connection is gone, or EFFECT_CLOSE says so (close). */
void session_end(struct engine *engine, uint32_t slot, bool close);

/* An ERROR that ends nothing. */
void session_notice(struct engine *engine, uint32_t slot, enum code code, uint32_t request,
                    uint32_t retry_ms);

/* Bytes were written at emit_reserve: they are a frame for that session. */
void session_emit_frame(struct engine *engine, struct session *session, size_t byte_count);

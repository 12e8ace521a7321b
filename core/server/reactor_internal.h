/*
 * reactor_internal: what the files of the reactor share. reactor.c turns, reactor_input.c and
 * reactor_output.c move bytes, reactor_cells.c says who gives way when memory is short,
 * reactor_life.c begins and ends connections, reactor_effects.c does what the engine wants,
 * reactor_mail.c talks to other threads.
 *
 * Thread   The reactor's.
 * Errors   As each function says.
 */
#pragma once

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "core/io/clock.h"
#include "core/io/ring_group.h"
#include "core/io/ring_ops.h"
#include "core/io/slab.h"
#include "core/io/timers.h"
#include "core/server/conn.h"
#include "core/server/log.h"
#include "core/server/reactor.h"

enum reactor_op {
    OP_NONE = RING_OP_NONE,
    OP_POLL,
    OP_RECV,
    OP_SEND,
    OP_CLOSE,
    OP_ADOPTED = MAIL_OP_ADOPTED, /* a descriptor came from a door */
    OP_BELL,
    OP_JOURNAL,
};

#define REACTOR_TOKENS POST_TOKENS_MAX

/* Room for what one call of the engine wants done. */
#define REACTOR_EFFECT_BYTES (320U << 10)

/* It sends at most so much, in frames that may each want a large cell. */
#define OUTPUT_LARGE_CELLS (REACTOR_EFFECT_BYTES / (CELL_MEDIUM_BYTES - 64))

/* Slots of connections, in a fixed ring: each is in it at most once (a flag says so). */
struct slot_queue {
    uint32_t *slots;
    uint32_t capacity; /* a power of two */
    uint32_t head;
    uint32_t count;
};

/* The peer frame from one core at which the engine is blocked; those behind it wait in the mailbox,
 * so that they keep their order and cost nothing. */
struct held_stream {
    struct mail frame;
    bool held;
};

struct reactor {
    const struct config *config;
    struct post *post;
    struct post_core *mail; /* post->cores[index] */
    struct storage *storage;
    struct engine *engine;
    struct log *log;
    const uint8_t *core_of_volume;
    uint16_t volume_count;
    uint32_t index;
    bool engine_has_more;

    struct ring_group group;
    struct slab conns;
    struct timers timers; /* by slot: silence, and how long an ending may take */
    struct cells cells;   /* for output */
    struct cells
        input_cells; /* for partial records and frames: who sends can't starve who receives */
    struct tls_core tls;
    struct link_pools pools;
    struct resume_ring resume;

    struct slot_queue dirty;    /* output to seal */
    struct slot_queue again;    /* input to go on with: unblocked, or starved of buffers */
    struct slot_queue roomless; /* a SEND or HELLO waits until the next batch of the journal */
    struct slot_queue cellless; /* what came waits in its receive buffer for a cell */
    struct slot_queue forget;   /* the engine is to be told of their end */
    struct slot_queue leaving;  /* ended, but MAIL_LEFT didn't fit */

    struct mail expired; /* found by the reader, until the engine takes it; MAIL_NONE: nothing */

    struct held_stream *streams; /* by source core */
    struct cells stream_cells;   /* lent with MAIL_STREAM, to itself too */

    uint8_t *tokens;       /* REACTOR_TOKENS log-in tokens, lent to a door while it checks one */
    uint32_t tokens_taken; /* a bit each */

    uint64_t room_bytes; /* that the engine may still append in this turn */
    bool releasing;      /* those that waited longest go first */

    uint64_t now_ns;
    uint64_t now_unix_ms;
    uint64_t start_ns;
    uint32_t now_s;    /* of the reactor's own clock, from 1 */
    uint32_t sweep_at; /* slot where the sweep goes on */
    uint64_t sweep_due_ns;
    uint64_t
        yield_due_ns; /* before then nobody else yields: the cells of the last are on their way */
    uint64_t drain_until_ns; /* 0: not draining */
    uint32_t drain_at;       /* slots below have been told to leave */
    bool stopping;
    _Atomic bool empty;

    struct reactor_stats stats;
};

static inline struct conn *reactor_conn(struct reactor *reactor, uint32_t slot)
{
    return slab_get(&reactor->conns, slot);
}

static inline struct ring *conn_ring(struct reactor *reactor, const struct conn *conn)
{
    return &reactor->group.rings[conn->ring];
}

/* Whose cells are those that are taken from now on. */
static inline struct cell_note conn_note(const struct reactor *reactor, const struct conn *conn,
                                         uint32_t slot)
{
    return (struct cell_note){ conn->user.value, slot, reactor->now_s };
}

static inline struct conn_ref conn_ref_of(struct reactor *reactor, uint32_t slot)
{
    return (struct conn_ref){ slot, slab_generation(&reactor->conns, slot) };
}

bool slot_queue_open(struct slot_queue *queue, uint32_t capacity)
    __attribute__((warn_unused_result));
void slot_queue_close(struct slot_queue *queue);
void slot_queue_put(struct slot_queue *queue, uint32_t slot);
uint32_t slot_queue_take(struct slot_queue *queue); /* SLAB_NONE: empty */

/* reactor_input.c */
void reactor_on_poll(struct reactor *reactor, struct ring_event *event);
void reactor_on_recv(struct reactor *reactor, struct ring_event *event);
/*
 * Works off kept input and what was received. Returns how many bytes, the last of them, found no
 * cell: they are to be offered again.
 */
size_t reactor_work_input(struct reactor *reactor, uint32_t slot, uint8_t *received,
                          size_t received_bytes) __attribute__((warn_unused_result));
/* Whether the connection may send as much as so many frames now; counts the limit if not. */
bool reactor_take_frame_budget(struct reactor *reactor, struct conn *conn, uint32_t frames)
    __attribute__((warn_unused_result));
/* For want of cells: BUSY. */
void reactor_end_for_cells(struct reactor *reactor, uint32_t slot);
void reactor_run_again_later(struct reactor *reactor, uint32_t slot);
void reactor_run_again(struct reactor *reactor);
void reactor_drop_held(struct reactor *reactor, struct conn *conn);
/*
 * Whether the engine may be offered what appends a message. If not, because the present batch is
 * full while the one before it is being written, the connection waits for the next: a refusal would
 * stop the client's pipeline for what is over in a millisecond. (A full journal is the engine's to
 * refuse.)
 */
bool reactor_has_room(struct reactor *reactor, uint32_t slot) __attribute__((warn_unused_result));
void reactor_release_roomless(struct reactor *reactor);

/* reactor_cells.c */
/* Where cells are short, those who have held one for long, or too many, are ended. */
void reactor_yield_cells(struct reactor *reactor);
/* Who waits for cells tries again, as many as there may be cells for. */
void reactor_release_cellless(struct reactor *reactor);

/* reactor_output.c */
/* Queues a frame of ours or the engine's; ends the connection when there's no room. */
void reactor_put_frame(struct reactor *reactor, uint32_t slot, const uint8_t *frame,
                       size_t frame_bytes, bool of_engine);
void reactor_mark_dirty(struct reactor *reactor, uint32_t slot);
void reactor_send_dirty(struct reactor *reactor);
void reactor_on_send(struct reactor *reactor, struct ring_event *event);

/* reactor_life.c */
void reactor_on_adopted(struct reactor *reactor, struct ring_event *event);
void reactor_grant(struct reactor *reactor, const struct mail *ask);
void reactor_ungrant(struct reactor *reactor, uint32_t slot, uint32_t generation);
void reactor_adopt(struct reactor *reactor, const struct mail *mail);
void reactor_begin_session(struct reactor *reactor, uint32_t slot);
/* A client that is silent for twice keepalive_s from now on is closed: IDLE. */
void reactor_expect_input(struct reactor *reactor, uint32_t slot);
/* So is one that doesn't end in time what it has begun. */
void reactor_expect_rest(struct reactor *reactor, uint32_t slot);
/* Orderly: what is queued, then ERROR (code != CODE_OK), then close_notify, then the end. */
void reactor_end(struct reactor *reactor, uint32_t slot, enum code code);
/* The engine has forgotten it (EFFECT_CLOSE). */
void reactor_end_forgotten(struct reactor *reactor, uint32_t slot);
/* After a record of the peer's that fails: what is queued, then its alert, then the end. */
void reactor_end_by_alert(struct reactor *reactor, uint32_t slot, enum tls_alert alert);
/* At once: nothing more can be said. */
void reactor_kill(struct reactor *reactor, uint32_t slot);
/* An ending connection's output is sent: what comes next. */
void reactor_go_on_ending(struct reactor *reactor, uint32_t slot);
void reactor_on_close(struct reactor *reactor, struct ring_event *event);
void reactor_run_timers(struct reactor *reactor);
void reactor_leave(struct reactor *reactor, uint32_t slot);
void reactor_begin_drain(struct reactor *reactor, uint64_t until_ns);

/* reactor_effects.c */
void reactor_take_effects(struct reactor *reactor);
uint32_t reactor_stream_room(const struct reactor *reactor);
void reactor_run_engine(struct reactor *reactor);
void reactor_run_streams(struct reactor *reactor);

/* reactor_mail.c */
void reactor_take_mail(struct reactor *reactor);
bool reactor_mail_waits(struct reactor *reactor);
enum engine_result reactor_on_token(struct reactor *reactor, uint32_t slot,
                                    const struct frame_view *view)
    __attribute__((warn_unused_result));

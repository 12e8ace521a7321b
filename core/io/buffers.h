/*
 * buffers: memory for bytes on their way: receive buffers that the kernel picks from, and cells in
 * which partial records wait.
 *
 * Owner    One thread's. recv_buffers belong to one ring: the kernel keeps its place in the buffer
 *          ring for each ring apart, so two can't share one.
 * Thread   The owning thread only (open and close: before and after it runs).
 * Memory   All of it is committed at open; nothing grows.
 * Notes    A pool may keep for each cell whose it is and since when, so that its owner can find who
 *          must yield when peers hold too many. 16 B each.
 * Errors   None left: recv ends with -ENOBUFS, cells_take says CELL_NONE. Both are back-pressure.
 *          Under ASan, buffers that the kernel owns and cells that are free are poisoned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/ring.h"
#include "core/io/slab.h"

struct recv_buffers {
    struct ring *ring_;
    struct io_uring_buf_ring *kernel_;
    uint8_t *memory_;
    uint32_t count;
    uint32_t buffer_bytes;
    uint32_t held; /* taken and not given back */
    uint16_t group;
};

/* count: a power of two, at most 32,768. buffer_bytes: a multiple of 8. `ring`: open. */
__attribute__((warn_unused_result)) bool recv_buffers_open(struct recv_buffers *buffers,
                                                           struct ring *ring, uint16_t group,
                                                           uint32_t count, uint32_t buffer_bytes,
                                                           struct hf_error *error);
/* After ring_close only: until then the kernel may still write there. */
void recv_buffers_close(struct recv_buffers *buffers);

/*
 * The bytes of a receive (event->result of them), ours until given back under *buffer: for each
 * event with IORING_CQE_F_BUFFER (what ends with 0 or an error has none). They may be changed:
 * records are opened in place.
 */
__attribute__((warn_unused_result)) uint8_t *
recv_buffers_take(struct recv_buffers *buffers, const struct ring_event *event, uint16_t *buffer);
/* The bytes of one that was taken and not given back. */
uint8_t *recv_buffers_get(const struct recv_buffers *buffers, uint16_t buffer);
void recv_buffers_give(struct recv_buffers *buffers, uint16_t buffer);

enum cell_class {
    CELL_SMALL,
    CELL_MEDIUM,
    CELL_LARGE,
    CELL_CLASSES,
};

#define CELL_SMALL_BYTES  256U
#define CELL_MEDIUM_BYTES 4096U  /* what a window of 16 short messages takes */
#define CELL_LARGE_BYTES  17408U /* 17 KiB; a TLS record: 5 + 16,384 + 256 B at most */

/* Four bytes in the connection instead of pointer and size. */
struct cell {
    uint32_t value;
};
#define CELL_NONE ((struct cell){ 0 })

/*
 * Who has a cell, and since when: for pools whose holders may have to yield, since peers decide how
 * long a cell is held.
 */
struct cell_note {
    uint64_t user;    /* whose share it counts for */
    uint32_t holder;  /* the owner's name for it; CELL_HOLDER_NONE: it is on its way back */
    uint32_t since_s; /* of the owner's clock; CELL_SINCE_NEVER: its holder needn't yield */
};

#define CELL_HOLDER_NONE UINT32_MAX
#define CELL_SINCE_NEVER UINT32_MAX

struct cells {
    struct slab classes_[CELL_CLASSES];
    struct cell_note *notes_[CELL_CLASSES]; /* NULL: not kept */
};

/* Who is to yield: see cells_find_holder. */
struct cell_claim {
    uint32_t share;         /* cells of one user beyond which it yields first */
    uint32_t over_before_s; /* of those beyond: held since before then */
    uint32_t before_s;      /* of the others */
};

/* counts: of each class; 0 is allowed. */
__attribute__((warn_unused_result)) bool
cells_open(struct cells *cells, const uint32_t counts[CELL_CLASSES], struct hf_error *error);
/* The same, with a note for each cell. */
__attribute__((warn_unused_result)) bool
cells_noted_open(struct cells *cells, const uint32_t counts[CELL_CLASSES], struct hf_error *error);
void cells_close(struct cells *cells);

/*
 * A cell of the smallest class that holds byte_count (at most CELL_LARGE_BYTES), its bytes as they
 * happen to be. CELL_NONE if that class has none left: a larger one isn't broken for it, or many
 * small waits would starve the few large ones.
 */
__attribute__((warn_unused_result)) struct cell cells_take(struct cells *cells, size_t byte_count);
/* The capacity of the cell that cells_take would give for so many bytes. */
uint32_t cells_capacity_for(size_t byte_count);
/* The same, and whose it is; without notes as cells_take. */
__attribute__((warn_unused_result)) struct cell
cells_take_noted(struct cells *cells, size_t byte_count, const struct cell_note *note);
void cells_give(struct cells *cells, struct cell cell);
/* How many cells of that class could be taken now. */
static inline uint32_t cells_free(const struct cells *cells, enum cell_class class)
{
    return cells->classes_[class].capacity - cells->classes_[class].in_use;
}

/* Its note, to be changed; NULL: none is kept. */
struct cell_note *cells_note(const struct cells *cells, struct cell cell);

/*
 * The holder of that class who is to yield: of those whose user holds more than its share the
 * longest, or else the longest. CELL_HOLDER_NONE: none has held for long enough. Users are told
 * apart by a hash, in one pass over the notes: who shares another's yields before its time, at worst.
 */
uint32_t cells_find_holder(const struct cells *cells, enum cell_class class,
                           const struct cell_claim *claim);

uint8_t *cells_bytes(const struct cells *cells, struct cell cell);
uint32_t cell_capacity(struct cell cell);

static inline bool cell_is_none(struct cell cell)
{
    return cell.value == 0;
}

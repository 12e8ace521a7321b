#include "core/io/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>

#include "core/base/error.h"
#include "core/base/ids.h"
#include "core/io/poison.h"

static size_t recv_buffers_bytes(const struct recv_buffers *buffers)
{
    return (size_t)buffers->count * buffers->buffer_bytes;
}

static uint8_t *recv_buffer(const struct recv_buffers *buffers, uint16_t buffer)
{
    return buffers->memory_ + (size_t)buffer * buffers->buffer_bytes;
}

static void recv_buffers_put(struct recv_buffers *buffers, uint16_t buffer)
{
    POISON(recv_buffer(buffers, buffer), buffers->buffer_bytes);
    io_uring_buf_ring_add(buffers->kernel_, recv_buffer(buffers, buffer), buffers->buffer_bytes,
                          buffer, io_uring_buf_ring_mask(buffers->count), 0);
    io_uring_buf_ring_advance(buffers->kernel_, 1);
}

bool recv_buffers_open(struct recv_buffers *buffers, struct ring *ring, uint16_t group,
                       uint32_t count, uint32_t buffer_bytes, struct hf_error *error)
{
    HF_ASSERT(count > 0 && count <= 32768 && (count & (count - 1)) == 0);
    HF_ASSERT(buffer_bytes > 0 && buffer_bytes % 8 == 0);

    *buffers = (struct recv_buffers){
        .ring_ = ring,
        .count = count,
        .buffer_bytes = buffer_bytes,
        .group = group,
    };
    void *memory = mmap(NULL, recv_buffers_bytes(buffers), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        hf_error_set(error, EX_OSERR, errno, "memory for %u receive buffers", count);
        *buffers = (struct recv_buffers){ 0 };
        return false;
    }
    buffers->memory_ = memory;

    int reason = 0;
    buffers->kernel_ = io_uring_setup_buf_ring(&ring->uring_, count, group, 0, &reason);
    if (buffers->kernel_ == NULL) {
        recv_buffers_close(buffers);
        hf_error_set(error, EX_OSERR, -reason, "register %u receive buffers%s", count,
                     reason == -ENOMEM ? " (is RLIMIT_MEMLOCK too low?)" : "");
        return false;
    }
    for (uint32_t buffer = 0; buffer < count; buffer++) {
        recv_buffers_put(buffers, (uint16_t)buffer);
    }
    return true;
}

void recv_buffers_close(struct recv_buffers *buffers)
{
    if (buffers->kernel_ != NULL) {
        /* The ring is closed, so the kernel has let go; what is left is our mapping. */
        (void)munmap(buffers->kernel_, buffers->count * sizeof(struct io_uring_buf));
    }
    if (buffers->memory_ != NULL) {
        UNPOISON(buffers->memory_, recv_buffers_bytes(buffers));
        (void)munmap(buffers->memory_, recv_buffers_bytes(buffers));
    }
    *buffers = (struct recv_buffers){ 0 };
}

uint8_t *recv_buffers_take(struct recv_buffers *buffers, const struct ring_event *event,
                           uint16_t *buffer)
{
    HF_ASSERT((event->flags & IORING_CQE_F_BUFFER) != 0 && event->result >= 0);

    const uint32_t number = event->flags >> IORING_CQE_BUFFER_SHIFT;

    HF_ASSERT(number < buffers->count && (uint32_t)event->result <= buffers->buffer_bytes);
    *buffer = (uint16_t)number;
    buffers->held++;
    UNPOISON(recv_buffer(buffers, *buffer), (size_t)event->result);
    return recv_buffer(buffers, *buffer);
}

uint8_t *recv_buffers_get(const struct recv_buffers *buffers, uint16_t buffer)
{
    HF_ASSERT(buffer < buffers->count);
    return recv_buffer(buffers, buffer);
}

void recv_buffers_give(struct recv_buffers *buffers, uint16_t buffer)
{
    HF_ASSERT(buffer < buffers->count && buffers->held > 0);
    buffers->held--;
    recv_buffers_put(buffers, buffer);
}

static const uint32_t cell_bytes[CELL_CLASSES] = {
    [CELL_SMALL] = CELL_SMALL_BYTES,
    [CELL_MEDIUM] = CELL_MEDIUM_BYTES,
    [CELL_LARGE] = CELL_LARGE_BYTES,
};

/* Bits 30-31: class + 1, so that 0 is none. Bits 0-29: slot. */
#define CELL_SLOT_BITS 30
#define CELL_SLOT_MASK ((UINT32_C(1) << CELL_SLOT_BITS) - 1)

/* Of users, when their cells are counted: 2 KB of stack. */
#define HOLDER_BUCKETS 1024

static enum cell_class cell_class_of(struct cell cell)
{
    HF_ASSERT(!cell_is_none(cell));
    return (enum cell_class)((cell.value >> CELL_SLOT_BITS) - 1);
}

bool cells_open(struct cells *cells, const uint32_t counts[CELL_CLASSES], struct hf_error *error)
{
    *cells = (struct cells){ 0 };
    for (int i = 0; i < CELL_CLASSES; i++) {
        HF_ASSERT(counts[i] <= CELL_SLOT_MASK);
        cells->classes_[i].free_ = SLAB_NONE; /* a class without cells is full */
        if (counts[i] != 0 && !slab_open(&cells->classes_[i], cell_bytes[i], counts[i],
                                         SLAB_TOUCH | SLAB_DIRTY, error)) {
            hf_error_prepend(error, "cells of %u bytes", cell_bytes[i]);
            cells_close(cells);
            return false;
        }
    }
    return true;
}

bool cells_noted_open(struct cells *cells, const uint32_t counts[CELL_CLASSES],
                      struct hf_error *error)
{
    if (!cells_open(cells, counts, error)) {
        return false;
    }
    for (int i = 0; i < CELL_CLASSES; i++) {
        const size_t byte_count = (counts[i] + 1) * sizeof(struct cell_note);

        cells->notes_[i] = malloc(byte_count);
        if (cells->notes_[i] == NULL) {
            hf_error_set(error, EX_OSERR, 0, "no memory for notes of %u cells", counts[i]);
            cells_close(cells);
            return false;
        }
        memset(cells->notes_[i], 0xff, byte_count); /* CELL_HOLDER_NONE */
    }
    return true;
}

void cells_close(struct cells *cells)
{
    for (int i = 0; i < CELL_CLASSES; i++) {
        slab_close(&cells->classes_[i]);
        free(cells->notes_[i]);
        cells->notes_[i] = NULL;
    }
}

struct cell cells_take_noted(struct cells *cells, size_t byte_count, const struct cell_note *note)
{
    const struct cell cell = cells_take(cells, byte_count);
    struct cell_note *kept = cell_is_none(cell) ? NULL : cells_note(cells, cell);

    if (kept != NULL) {
        *kept = *note;
    }
    return cell;
}

static uint32_t smallest_class(size_t byte_count)
{
    uint32_t class = CELL_SMALL;

    HF_ASSERT(byte_count <= CELL_LARGE_BYTES);
    while (cell_bytes[class] < byte_count) {
        class ++;
    }
    return class;
}

uint32_t cells_capacity_for(size_t byte_count)
{
    return cell_bytes[smallest_class(byte_count)];
}

struct cell cells_take(struct cells *cells, size_t byte_count)
{
    const uint32_t class = smallest_class(byte_count);
    const uint32_t slot = slab_take(&cells->classes_[class]);

    return slot == SLAB_NONE ? CELL_NONE : (struct cell){ (class + 1) << CELL_SLOT_BITS | slot };
}

void cells_give(struct cells *cells, struct cell cell)
{
    struct cell_note *note = cells_note(cells, cell);

    if (note != NULL) {
        note->holder = CELL_HOLDER_NONE;
    }
    slab_give(&cells->classes_[cell_class_of(cell)], cell.value & CELL_SLOT_MASK);
}

struct cell_note *cells_note(const struct cells *cells, struct cell cell)
{
    struct cell_note *notes = cells->notes_[cell_class_of(cell)];

    return notes == NULL ? NULL : &notes[cell.value & CELL_SLOT_MASK];
}

static uint16_t *bucket_of(uint16_t held[HOLDER_BUCKETS], uint64_t user)
{
    return &held[id_mix(user) % HOLDER_BUCKETS];
}

uint32_t cells_find_holder(const struct cells *cells, enum cell_class class,
                           const struct cell_claim *claim)
{
    const struct cell_note *notes = cells->notes_[class];
    const uint32_t count = cells->classes_[class].fresh_;
    uint16_t held[HOLDER_BUCKETS] = { 0 };
    const struct cell_note *found = NULL;
    bool found_over = false;

    HF_ASSERT(notes != NULL);
    for (uint32_t i = 0; i < count; i++) {
        if (notes[i].holder != CELL_HOLDER_NONE) {
            (*bucket_of(held, notes[i].user))++;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const bool over = *bucket_of(held, notes[i].user) > claim->share;

        if (notes[i].holder == CELL_HOLDER_NONE ||
            notes[i].since_s >= (over ? claim->over_before_s : claim->before_s)) {
            continue;
        }
        if (found == NULL || (over && !found_over) ||
            (over == found_over && notes[i].since_s < found->since_s)) {
            found = &notes[i];
            found_over = over;
        }
    }
    return found == NULL ? CELL_HOLDER_NONE : found->holder;
}

uint8_t *cells_bytes(const struct cells *cells, struct cell cell)
{
    return slab_get(&cells->classes_[cell_class_of(cell)], cell.value & CELL_SLOT_MASK);
}

uint32_t cell_capacity(struct cell cell)
{
    return cell_bytes[cell_class_of(cell)];
}

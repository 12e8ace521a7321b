#include "core/link/link.h"

#include <string.h>

#include "core/base/check.h"

static bool cell_reserve(const struct link_cells *pool, struct cell *cell, size_t kept_bytes,
                         size_t byte_count)
{
    struct cells *cells = pool->cells;

    if (!cell_is_none(*cell) && cell_capacity(*cell) >= byte_count) {
        return true;
    }

    const struct cell larger = cells_take_noted(cells, byte_count, &pool->taker);

    if (cell_is_none(larger)) {
        return false;
    }
    if (!cell_is_none(*cell)) {
        memcpy(cells_bytes(cells, larger), cells_bytes(cells, *cell), kept_bytes);
        cells_give(cells, *cell);
    }
    *cell = larger;
    return true;
}

static void cell_release(struct cells *cells, struct cell *cell)
{
    if (!cell_is_none(*cell)) {
        cells_give(cells, *cell);
        *cell = CELL_NONE;
    }
}

/* A record that was begun before: it grows in its cell until it is whole, and no further. */
static bool complete_kept_record(struct link_pools *pools, struct link *link, uint8_t **received,
                                 size_t *received_bytes)
{
    while (*received_bytes > 0) {
        size_t wanted = TLS_RECORD_HEADER_BYTES;

        if (link->cipher_bytes >= TLS_RECORD_HEADER_BYTES) {
            const uint8_t *header = cells_bytes(pools->in.cells, link->cipher);
            wanted += (size_t)header[3] << 8 | header[4];
        }
        if (wanted > TLS_RECORD_BYTES_MAX || link->cipher_bytes >= wanted) {
            return true; /* whole, or too long: opening it says so */
        }

        const size_t missing = wanted - link->cipher_bytes;
        const size_t taken = missing < *received_bytes ? missing : *received_bytes;

        if (!cell_reserve(&pools->in, &link->cipher, link->cipher_bytes,
                          link->cipher_bytes + taken)) {
            return false;
        }
        memcpy(cells_bytes(pools->in.cells, link->cipher) + link->cipher_bytes, *received, taken);
        link->cipher_bytes = (uint16_t)(link->cipher_bytes + taken);
        *received += taken;
        *received_bytes -= taken;
    }
    return true;
}

enum link_next link_input_begin(struct link_pools *pools, struct link *link, uint8_t *received,
                                size_t received_bytes, struct link_input *input)
{
    memset(input, 0, sizeof *input);
    if (link->rest_bytes != 0) {
        input->plain = cells_bytes(pools->in.cells, link->rest);
        input->plain_bytes = link->rest_bytes;
    }
    if (link->cipher_bytes == 0) {
        input->cipher = received;
        input->cipher_bytes = received_bytes;
        return LINK_NEXT_NONE;
    }
    if (!complete_kept_record(pools, link, &received, &received_bytes)) {
        input->left_bytes_ = received_bytes;
        return LINK_NEXT_NO_ROOM;
    }
    input->cipher = cells_bytes(pools->in.cells, link->cipher);
    input->cipher_bytes = link->cipher_bytes;
    input->received_ = received;
    input->received_bytes_ = received_bytes;
    return LINK_NEXT_NONE;
}

/* Moves bytes behind the kept head of a frame, until that frame is whole. */
static enum link_next complete_kept_frame(struct link_pools *pools, struct link *link,
                                          struct link_input *input, struct frame_view *view)
{
    for (;;) {
        const uint8_t *head = cells_bytes(pools->in.cells, link->plain);
        const enum frame_result parsed = frame_parse(head, link->plain_bytes, view);

        if (parsed == FRAME_OK) {
            input->frame_bytes_ = frame_bytes(view);
            input->frame_in_cell_ = true;
            return LINK_NEXT_FRAME;
        }
        if (parsed == FRAME_TOO_LARGE) {
            return LINK_NEXT_TOO_LARGE;
        }
        if (input->plain_bytes == 0) {
            return LINK_NEXT_NONE;
        }

        const size_t whole =
            link->plain_bytes < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : frame_bytes(view);
        const size_t missing = whole - link->plain_bytes;
        const size_t taken = missing < input->plain_bytes ? missing : input->plain_bytes;

        if (!cell_reserve(&pools->in, &link->plain, link->plain_bytes, link->plain_bytes + taken)) {
            return LINK_NEXT_NO_ROOM;
        }
        memcpy(cells_bytes(pools->in.cells, link->plain) + link->plain_bytes, input->plain, taken);
        link->plain_bytes = (uint16_t)(link->plain_bytes + taken);
        input->plain += taken;
        input->plain_bytes -= taken;
    }
}

static enum link_next frame_from_plain(struct link_pools *pools, struct link *link,
                                       struct link_input *input, struct frame_view *view)
{
    const enum frame_result parsed = frame_parse(input->plain, input->plain_bytes, view);

    if (parsed == FRAME_TOO_LARGE) {
        return LINK_NEXT_TOO_LARGE;
    }
    if (parsed == FRAME_OK) {
        input->frame_bytes_ = frame_bytes(view);
        input->frame_in_cell_ = false;
        input->plain += input->frame_bytes_;
        input->plain_bytes -= input->frame_bytes_;
        return LINK_NEXT_FRAME;
    }
    if (input->plain_bytes > 0) {
        if (!cell_reserve(&pools->in, &link->plain, 0, input->plain_bytes)) {
            return LINK_NEXT_NO_ROOM;
        }
        memcpy(cells_bytes(pools->in.cells, link->plain), input->plain, input->plain_bytes);
        link->plain_bytes = (uint16_t)input->plain_bytes;
        input->plain_bytes = 0;
    }
    return LINK_NEXT_NONE;
}

/*
 * Several records were kept, and the last isn't whole: its rest is among what was received. It
 * moves to the front of its cell, where no plaintext lies any more, and is completed there.
 */
static bool go_on_in_received(struct link_pools *pools, struct link *link, struct link_input *input)
{
    HF_ASSERT(input->plain_bytes == 0);
    memmove(cells_bytes(pools->in.cells, link->cipher), input->cipher, input->cipher_bytes);
    link->cipher_bytes = (uint16_t)input->cipher_bytes;
    if (!complete_kept_record(pools, link, &input->received_, &input->received_bytes_)) {
        return false;
    }
    input->cipher = cells_bytes(pools->in.cells, link->cipher);
    input->cipher_bytes = link->cipher_bytes;
    return true;
}

/* NONE: no whole record is left; else plaintext was found (FRAME, in a manner of speaking). */
static enum link_next open_next_record(struct link_pools *pools, struct link *link,
                                       struct link_input *input, struct tls_opened *opened)
{
    for (;;) {
        if (input->cipher_bytes == 0 && input->received_bytes_ > 0) {
            /* The kept record is used up; the rest of what came needs no copy. */
            input->cipher = input->received_;
            input->cipher_bytes = input->received_bytes_;
            input->received_bytes_ = 0;
        }
        if (input->cipher_bytes == 0) {
            return LINK_NEXT_NONE;
        }
        const uint64_t key_updates = pools->tls->key_updates_received;

        tls_record_open(pools->tls, &link->keys, input->cipher, input->cipher_bytes, opened);
        input->key_updates += (uint32_t)(pools->tls->key_updates_received - key_updates);
        input->quiet_records += opened->result == TLS_OPEN_HANDLED;
        if (opened->result == TLS_OPEN_MORE) {
            if (input->received_bytes_ == 0) {
                return LINK_NEXT_NONE;
            }
            if (!go_on_in_received(pools, link, input)) {
                return LINK_NEXT_NO_ROOM;
            }
            continue;
        }
        if (opened->result == TLS_OPEN_CLOSED) {
            return LINK_NEXT_CLOSED;
        }
        if (opened->result == TLS_OPEN_FATAL) {
            return LINK_NEXT_TLS_FAULT;
        }
        if (opened->result == TLS_OPEN_DATA) {
            input->plain = input->cipher + opened->data_offset;
            input->plain_bytes = opened->data_bytes;
        }
        input->cipher += opened->record_bytes;
        input->cipher_bytes -= opened->record_bytes;
        if (opened->result == TLS_OPEN_DATA) {
            return LINK_NEXT_FRAME;
        }
    }
}

enum link_next link_input_next(struct link_pools *pools, struct link *link,
                               struct link_input *input, struct frame_view *view,
                               struct tls_opened *opened)
{
    if (input->frame_in_cell_) { /* that frame was taken */
        link->plain_bytes = 0;
        cell_release(pools->in.cells, &link->plain);
        input->frame_in_cell_ = false;
    }
    for (;;) {
        const enum link_next next = link->plain_bytes != 0
                                        ? complete_kept_frame(pools, link, input, view)
                                        : frame_from_plain(pools, link, input, view);
        if (next != LINK_NEXT_NONE) {
            return next;
        }

        const enum link_next found = open_next_record(pools, link, input, opened);

        if (found != LINK_NEXT_FRAME) {
            return found;
        }
    }
}

void link_input_put_back(struct link *link, struct link_input *input)
{
    if (input->frame_in_cell_) {
        HF_ASSERT(link->plain_bytes == input->frame_bytes_);
        input->frame_in_cell_ = false;
        return;
    }
    input->plain -= input->frame_bytes_;
    input->plain_bytes += input->frame_bytes_;
}

/*
 * Keeps the bytes in the cell, in which they may already lie. Few bytes leave a large cell if there
 * is a smaller one: else the head of a record would go on holding what the record before it needed.
 */
static bool keep(const struct link_cells *pool, struct cell *cell, uint16_t *kept_bytes,
                 const uint8_t *bytes, size_t byte_count)
{
    struct cells *cells = pool->cells;

    if (byte_count == 0) {
        *kept_bytes = 0;
        cell_release(cells, cell);
        return true;
    }

    struct cell target = *cell;

    if (cell_is_none(target) || cell_capacity(target) != cells_capacity_for(byte_count)) {
        target = cells_take_noted(cells, byte_count, &pool->taker);
    }
    if (cell_is_none(target)) {
        if (cell_is_none(*cell) || cell_capacity(*cell) < byte_count) {
            return false;
        }
        target = *cell;
    }
    memmove(cells_bytes(cells, target), bytes, byte_count);
    if (target.value != cell->value) {
        cell_release(cells, cell);
    }
    *cell = target;
    *kept_bytes = (uint16_t)byte_count;
    return true;
}

bool link_input_end(struct link_pools *pools, struct link *link, struct link_input *input)
{
    if (input->frame_in_cell_) {
        link->plain_bytes = 0;
        cell_release(pools->in.cells, &link->plain);
    }

    /*
     * Plaintext that isn't used may lie in the cipher's cell, since records are opened in place: so
     * it is moved out first.
     */
    if (!keep(&pools->in, &link->rest, &link->rest_bytes, input->plain, input->plain_bytes)) {
        return false;
    }
    if (input->received_bytes_ == 0) {
        if (keep(&pools->in, &link->cipher, &link->cipher_bytes, input->cipher,
                 input->cipher_bytes)) {
            return true;
        }
        /* They lie where they were received: what was kept is used up. */
        link->cipher_bytes = 0;
        cell_release(pools->in.cells, &link->cipher);
        input->left_bytes_ = input->cipher_bytes;
        return false;
    }

    /* Blocked with a kept record that isn't used up and received bytes behind it: both stay. */
    const size_t kept = input->cipher_bytes;
    const size_t all = kept + input->received_bytes_;

    if (!keep(&pools->in, &link->cipher, &link->cipher_bytes, input->cipher, kept)) {
        return false;
    }
    if (all > CELL_LARGE_BYTES || !cell_reserve(&pools->in, &link->cipher, kept, all)) {
        input->left_bytes_ = input->received_bytes_;
        return false;
    }
    memcpy(cells_bytes(pools->in.cells, link->cipher) + kept, input->received_,
           input->received_bytes_);
    link->cipher_bytes = (uint16_t)all;
    return true;
}

bool link_input_left(const struct link_input *input, size_t *byte_count)
{
    *byte_count = input->left_bytes_;
    return input->left_bytes_ != 0;
}

static void note_since(struct cells *cells, struct cell cell, uint32_t since_s)
{
    struct cell_note *note = cell_is_none(cell) ? NULL : cells_note(cells, cell);

    if (note != NULL) {
        note->since_s = since_s;
    }
}

void link_note_input(struct link_pools *pools, struct link *link, uint32_t since_s)
{
    note_since(pools->in.cells, link->plain, since_s);
    note_since(pools->in.cells, link->rest, since_s);
    note_since(pools->in.cells, link->cipher, since_s);
}

bool link_keep_plain(struct link_pools *pools, struct link *link, const uint8_t *bytes,
                     size_t byte_count)
{
    HF_ASSERT(!link_has_input(link));
    return keep(&pools->in, &link->rest, &link->rest_bytes, bytes, byte_count);
}

void link_drop_input(struct link_pools *pools, struct link *link)
{
    link->plain_bytes = 0;
    link->rest_bytes = 0;
    link->cipher_bytes = 0;
    cell_release(pools->in.cells, &link->plain);
    cell_release(pools->in.cells, &link->rest);
    cell_release(pools->in.cells, &link->cipher);
}

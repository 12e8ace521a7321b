#include "core/link/link.h"

#include <string.h>

#include "core/base/check.h"

/*
 * Plaintext lies in its cell where sealing will leave it: behind room for a KeyUpdate record and a
 * record header, before room for the content type and the tag. So sealing copies nothing.
 */
#define OUT_HEAD_BYTES (TLS_KEY_UPDATE_RECORD_BYTES + TLS_RECORD_HEADER_BYTES)
#define OUT_TAIL_BYTES (TLS_RECORD_OVERHEAD - TLS_RECORD_HEADER_BYTES)
#define OUT_PLAIN_MAX  TLS_PLAINTEXT_BYTES_MAX
_Static_assert(OUT_HEAD_BYTES + OUT_PLAIN_MAX + OUT_TAIL_BYTES <= CELL_LARGE_BYTES,
               "one cell holds one record");

/* Output can't be put off any more when it comes here, so a larger cell is broken for it. */
static struct cell take_out_cell(const struct link_cells *pool, size_t byte_count)
{
    struct cell cell = cells_take_noted(pool->cells, byte_count, &pool->taker);

    if (cell_is_none(cell) && byte_count <= CELL_MEDIUM_BYTES) {
        cell = cells_take_noted(pool->cells, CELL_MEDIUM_BYTES, &pool->taker);
    }
    if (cell_is_none(cell)) {
        cell = cells_take_noted(pool->cells, CELL_LARGE_BYTES, &pool->taker);
    }
    return cell;
}

static bool out_append(const struct link_cells *pool, struct cell *cell, uint16_t *out_bytes,
                       const uint8_t *frame, size_t frame_bytes)
{
    struct cells *cells = pool->cells;
    const size_t whole = OUT_HEAD_BYTES + *out_bytes + frame_bytes + OUT_TAIL_BYTES;

    if (cell_is_none(*cell) || cell_capacity(*cell) < whole) {
        const struct cell larger = take_out_cell(pool, whole);

        if (cell_is_none(larger)) {
            return false;
        }
        if (!cell_is_none(*cell)) {
            memcpy(cells_bytes(cells, larger) + OUT_HEAD_BYTES,
                   cells_bytes(cells, *cell) + OUT_HEAD_BYTES, *out_bytes);
            cells_give(cells, *cell);
        }
        *cell = larger;
    }
    memcpy(cells_bytes(cells, *cell) + OUT_HEAD_BYTES + *out_bytes, frame, frame_bytes);
    *out_bytes = (uint16_t)(*out_bytes + frame_bytes);
    return true;
}

bool link_put_frame(struct link_pools *pools, struct link *link, const uint8_t *frame,
                    size_t frame_bytes, bool counted)
{
    uint32_t i = link->sending ? 1 : 0;

    HF_ASSERT(frame_bytes <= FRAME_BYTES_MAX);
    while (i + 1 < LINK_OUT_CELLS && link->out_bytes[i + 1] != 0) {
        i++; /* order: behind what was queued last */
    }
    if (link->out_bytes[i] + frame_bytes > OUT_PLAIN_MAX) {
        i++;
        if (i == LINK_OUT_CELLS) {
            return false;
        }
    }
    if (!out_append(&pools->out, &link->out[i], &link->out_bytes[i], frame, frame_bytes)) {
        return false;
    }
    if (counted) {
        link->counted_bytes[i] = (uint16_t)(link->counted_bytes[i] + frame_bytes);
    }
    return true;
}

const uint8_t *link_seal(struct link_pools *pools, struct link *link, size_t *sealed_bytes)
{
    HF_ASSERT(link_has_output(link));

    uint8_t *cell = cells_bytes(pools->out.cells, link->out[0]);
    const size_t headroom = tls_record_headroom(pools->tls, &link->keys);
    uint8_t *start = cell + OUT_HEAD_BYTES - headroom;
    const struct iovec part = { cell + OUT_HEAD_BYTES, link->out_bytes[0] };

    *sealed_bytes = tls_record_seal(pools->tls, &link->keys, &part, 1, start,
                                    headroom + link->out_bytes[0] + OUT_TAIL_BYTES);
    if (*sealed_bytes == 0) {
        return NULL;
    }
    link->sending = true;
    link->wide = headroom > TLS_RECORD_HEADER_BYTES;
    link->out_bytes[0] = (uint16_t)*sealed_bytes;
    link->sent_bytes = 0;
    return start;
}

const uint8_t *link_seal_alert(struct link_pools *pools, struct link *link, enum tls_alert alert,
                               size_t *sealed_bytes)
{
    HF_ASSERT(!link->sending && link->out_bytes[0] == 0);

    const struct cell cell = take_out_cell(&pools->out, OUT_HEAD_BYTES + TLS_ALERT_RECORD_BYTES);

    if (cell_is_none(cell)) {
        return NULL;
    }

    uint8_t *start = cells_bytes(pools->out.cells, cell) + OUT_HEAD_BYTES - TLS_RECORD_HEADER_BYTES;

    *sealed_bytes =
        tls_record_seal_alert(pools->tls, &link->keys, alert, start, TLS_ALERT_RECORD_BYTES);
    if (*sealed_bytes == 0) {
        cells_give(pools->out.cells, cell);
        return NULL;
    }
    link->sending = true;
    link->wide = false;
    link->out[0] = cell;
    link->out_bytes[0] = (uint16_t)*sealed_bytes;
    link->counted_bytes[0] = 0;
    link->sent_bytes = 0;
    return start;
}

const uint8_t *link_unsent(struct link_pools *pools, const struct link *link, size_t *byte_count)
{
    HF_ASSERT(link->sending);

    const size_t headroom = link->wide ? OUT_HEAD_BYTES : TLS_RECORD_HEADER_BYTES;

    *byte_count = link->out_bytes[0] - link->sent_bytes;
    return cells_bytes(pools->out.cells, link->out[0]) + OUT_HEAD_BYTES - headroom +
           link->sent_bytes;
}

bool link_sent(struct link_pools *pools, struct link *link, size_t byte_count,
               size_t *counted_bytes)
{
    HF_ASSERT(link->sending);
    HF_ASSERT(link->sent_bytes + byte_count <= link->out_bytes[0]);

    link->sent_bytes += (uint32_t)byte_count;
    if (link->sent_bytes < link->out_bytes[0]) {
        return false;
    }
    *counted_bytes = link->counted_bytes[0];
    cells_give(pools->out.cells, link->out[0]);
    for (uint32_t i = 0; i + 1 < LINK_OUT_CELLS; i++) {
        link->out[i] = link->out[i + 1];
        link->out_bytes[i] = link->out_bytes[i + 1];
        link->counted_bytes[i] = link->counted_bytes[i + 1];
    }
    link->out[LINK_OUT_CELLS - 1] = CELL_NONE;
    link->out_bytes[LINK_OUT_CELLS - 1] = 0;
    link->counted_bytes[LINK_OUT_CELLS - 1] = 0;
    link->sending = false;
    return true;
}

void link_drop(struct link_pools *pools, struct link *link)
{
    link_drop_input(pools, link);
    for (uint32_t i = 0; i < LINK_OUT_CELLS; i++) {
        if (!cell_is_none(link->out[i])) {
            cells_give(pools->out.cells, link->out[i]);
            link->out[i] = CELL_NONE;
        }
        link->out_bytes[i] = 0;
        link->counted_bytes[i] = 0;
    }
    tls_keys_clear(pools->tls, &link->keys);
}

void link_disown_output(struct link_pools *pools, struct link *link)
{
    for (uint32_t i = 0; i < LINK_OUT_CELLS; i++) {
        struct cell_note *note =
            cell_is_none(link->out[i]) ? NULL : cells_note(pools->out.cells, link->out[i]);

        if (note != NULL) {
            note->holder = CELL_HOLDER_NONE;
        }
    }
}

/*
 * link: one established TLS connection as bytes: what arrives becomes frames, frames become sealed
 * bytes. Server connections and the load generator's clients are both built on it. It knows
 * records, frames and memory, not sockets, rings or what a frame means.
 *
 * Owner    A struct link lies in its owner's connection. Cells come from the owner's pools and are
 *          given back by link_drop at the latest.
 * Thread   The owner's. Nothing blocks.
 * Memory   sizeof(struct link) each; a cell only while a frame or record is incomplete, while a
 *          frame was put back, or while output waits. At most three of the largest for input (a
 *          frame, plaintext behind it, records behind that), three for output. A cell is as large as
 *          what has come, never as what a header promises.
 * Errors   enum link_next for input; link_put_frame says false when there's no cell, and then the
 *          connection must be closed: what the peer should have got can't be left out.
 * Source   RFC 8446 for records, docs/protocol.md for frames.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/buffers.h"
#include "core/tls/record.h"
#include "proto/frame.h"

#define LINK_OUT_CELLS 3

struct link {
    struct tls_keys keys; /* bytes 0-207 */
    struct cell plain;    /* the head of a frame, or a whole one that was put back */
    struct cell rest;     /* plaintext behind it */
    struct cell cipher;   /* records behind that, the last perhaps not whole */
    struct cell out[LINK_OUT_CELLS];
    uint32_t sent_bytes; /* of out[0], already taken by the kernel */
    uint16_t plain_bytes;
    uint16_t rest_bytes;
    uint16_t cipher_bytes;
    uint16_t out_bytes[LINK_OUT_CELLS];     /* plaintext; of out[0] while sending: sealed */
    uint16_t counted_bytes[LINK_OUT_CELLS]; /* of which frames that link_sent reports */
    bool sending;                           /* out[0] is sealed, and the kernel may have it */
    bool wide;                              /* its sealed bytes begin with a KeyUpdate */
};
_Static_assert(sizeof(struct link) == 256, "paid by every connection: docs/capacity.md");

/* Cells, and for whom they are noted from now on: the owner says so before each call that takes any. */
struct link_cells {
    struct cells *cells;
    struct cell_note taker;
};

/* What a link needs of its thread. Input and output may have the same cells. */
struct link_pools {
    struct link_cells in;
    struct link_cells out;
    struct tls_core *tls;
};

/*
 * Input that is being worked off: what the connection kept, then what was received. Plain comes
 * before cipher.
 */
struct link_input {
    uint8_t *plain;
    size_t plain_bytes;
    uint8_t *cipher;
    size_t cipher_bytes;
    uint8_t *received_; /* behind a kept record, which is opened in its cell first */
    size_t received_bytes_;
    size_t left_bytes_;     /* of those received: what found no cell */
    size_t frame_bytes_;    /* of the frame last given */
    bool frame_in_cell_;    /* and whether it lies in link->plain */
    uint32_t quiet_records; /* without application data, since the owner last set it to 0 */
    uint32_t key_updates;   /* of them */
};

enum link_next {
    LINK_NEXT_FRAME,
    LINK_NEXT_NONE,      /* all input is used, or no whole frame is left */
    LINK_NEXT_CLOSED,    /* the peer's close_notify */
    LINK_NEXT_TLS_FAULT, /* input->fault in *opened: send its alert, close */
    LINK_NEXT_TOO_LARGE, /* a frame longer than allowed */
    LINK_NEXT_NO_ROOM,   /* no cell: see link_input_left */
};

/*
 * Begins with received bytes (NULL and 0: go on with what was kept, after a block). They may be
 * changed in place, and must stay until link_input_end.
 */
enum link_next link_input_begin(struct link_pools *pools, struct link *link, uint8_t *received,
                                size_t received_bytes, struct link_input *input)
    __attribute__((warn_unused_result));

/* The next frame; the view is good until the next call. */
enum link_next link_input_next(struct link_pools *pools, struct link *link,
                               struct link_input *input, struct frame_view *view,
                               struct tls_opened *opened) __attribute__((warn_unused_result));

/* The frame last given isn't taken: it will be the next again, in this or a later round. */
void link_input_put_back(struct link *link, struct link_input *input);

/* Keeps what is left in cells. False: there's none, see link_input_left. */
bool link_input_end(struct link_pools *pools, struct link *link, struct link_input *input)
    __attribute__((warn_unused_result));

/*
 * After NO_ROOM of link_input_begin, or false of link_input_end: those of the received bytes that
 * the link hasn't kept, the last *byte_count of them. They may be received again, by a later round,
 * when there are cells. False: the link can't go on; its input is to be dropped.
 */
bool link_input_left(const struct link_input *input, size_t *byte_count)
    __attribute__((warn_unused_result));

/* Has the notes of all kept input say since when it is held. */
void link_note_input(struct link_pools *pools, struct link *link, uint32_t since_s);

/* Has the notes of all output say that it is on its way back: the connection is being closed. */
void link_disown_output(struct link_pools *pools, struct link *link);

/*
 * Begins with decrypted bytes that came with the connection; no input may have been kept before.
 * False: no cell.
 */
bool link_keep_plain(struct link_pools *pools, struct link *link, const uint8_t *bytes,
                     size_t byte_count) __attribute__((warn_unused_result));

/* Forgets all input: it comes from a socket whose session is over. */
void link_drop_input(struct link_pools *pools, struct link *link);

/* Whether input was kept that link_input_next may go on with. */
static inline bool link_has_input(const struct link *link)
{
    return link->plain_bytes + link->rest_bytes + link->cipher_bytes != 0;
}

/* Queues one frame. `counted`: link_sent will report it. */
bool link_put_frame(struct link_pools *pools, struct link *link, const uint8_t *frame,
                    size_t frame_bytes, bool counted) __attribute__((warn_unused_result));

/* Whether link_seal would give bytes: something is queued, and no send is in flight. */
static inline bool link_has_output(const struct link *link)
{
    return !link->sending && link->out_bytes[0] != 0;
}

/*
 * Seals the first queued cell in place as one record (or appends an alert to nothing, see
 * link_seal_alert) and marks the link sending. The bytes stay until link_sent. NULL: no
 * memory for a cipher context.
 */
const uint8_t *link_seal(struct link_pools *pools, struct link *link, size_t *sealed_bytes)
    __attribute__((warn_unused_result));

/* The same for the connection's last record. NULL: none can be sealed any more. */
const uint8_t *link_seal_alert(struct link_pools *pools, struct link *link, enum tls_alert alert,
                               size_t *sealed_bytes) __attribute__((warn_unused_result));

/*
 * The kernel took so many bytes of what was sealed. True: all of it; the cell is given back, and
 * *counted_bytes of the counted frames have left. False: the rest is still to be sent.
 */
bool link_sent(struct link_pools *pools, struct link *link, size_t byte_count,
               size_t *counted_bytes) __attribute__((warn_unused_result));

/* What is still to be sent of the sealed bytes. */
const uint8_t *link_unsent(struct link_pools *pools, const struct link *link, size_t *byte_count);

/* Gives back every cell and zeroes the keys: the connection is over, and no send is in flight. */
void link_drop(struct link_pools *pools, struct link *link);

/*
 * entries: the frames that carry log entries: ENTRIES (the live feed) and PAGE (an answer to
 * HISTORY), built one entry at a time, and read back.
 *
 * Use      Build: begin, add while it returns true, end. A builder never writes beyond `cap` nor
 *          beyond FRAME_BYTES_MAX, so "as much as goes into one frame" is simply to add until
 *          false; pass a smaller cap for a smaller frame (a window, a client's wish).
 *          Read: decode checks the whole frame once; then next until false, which can't fail.
 * Owner    Builders and decoded frames point into the caller's bytes; entries given to add are
 *          copied.
 * Thread   Any. Pure: no allocation, no I/O.
 * Errors   As message.h.
 * Source   docs/protocol.md, "Entries" and "History".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/ids.h"
#include "proto/codes.h"
#include "proto/frame.h"
#include "proto/limits.h"
#include "proto/message.h"

enum entry_form {
    ENTRY_MESSAGE = 1,
    ENTRY_SENT = 2,    /* one's own, short: only on the connection that its SEND came on */
    ENTRY_REFUSED = 3, /* an accepted message that its receiver's side didn't take */
};

#define ENTRY_FLAG_OWN 0x01 /* sent by this user: nonce and counter are there */

/* Unknown flags in here may change the layout and are refused; above, they are ignored. */
#define ENTRY_FLAGS_CRITICAL 0x0f

struct entry_message {
    uint8_t flags;
    uint8_t kind;
    struct device_id device; /* the sender's */
    struct message_id id;
    struct conversation_id conversation;
    struct user_id sender;
    uint64_t prev; /* seq of the conversation's entry before this one; 0: it is the first */
    uint64_t n;    /* its place in the conversation, from 1 */
    uint64_t cn;   /* messages of others in the conversation up to and with this one */
    struct message_bytes body;
    struct nonce nonce; /* these two iff ENTRY_FLAG_OWN */
    uint64_t counter;
};

struct entry_sent {
    uint64_t counter;
    struct message_id id;
};

struct entry_refused {
    uint16_t code;    /* of enum code, or a newer one; never 0 */
    uint64_t ref_seq; /* the own entry that was refused */
    struct message_id id;
    struct conversation_id conversation;
};

struct entry {
    enum entry_form form;
    union {
        struct entry_message message;
        struct entry_sent sent;
        struct entry_refused refused;
    };
};

#define ENTRIES_FIXED_BYTES (8 + 2)
#define PAGE_FIXED_BYTES    (4 + 8 + 1 + 2)

/* An entry's bytes on the wire, its form byte included. */
#define ENTRY_MESSAGE_FIXED_BYTES (1 + 1 + 1 + 8 + 8 + 8 + 4 + 8 + 8 + 8 + 2)
#define ENTRY_OWN_BYTES           (NONCE_BYTES + 8)
#define ENTRY_SENT_BYTES          (1 + 8 + 8)
#define ENTRY_REFUSED_BYTES       (1 + 2 + 8 + 8 + 8)

/* In a PAGE each entry has its seq before it. */
#define PAGE_SEQ_BYTES 8

_Static_assert(FRAME_HEADER_BYTES + PAGE_FIXED_BYTES + PAGE_SEQ_BYTES + ENTRY_MESSAGE_FIXED_BYTES +
                       ENTRY_OWN_BYTES + BODY_BYTES_MAX <=
                   FRAME_BYTES_MAX,
               "every entry must fit a frame of its own, or a reader could never get past it");

static inline size_t entry_message_bytes(const struct entry_message *message)
{
    return ENTRY_MESSAGE_FIXED_BYTES + (size_t)message->body.byte_count +
           ((message->flags & ENTRY_FLAG_OWN) != 0 ? ENTRY_OWN_BYTES : 0);
}

size_t entry_bytes(const struct entry *entry);

/* ENTRIES */

struct entries_builder {
    uint8_t *frame_;
    size_t cap_;
    size_t used_;
    uint64_t first_;
    uint16_t count_;
};

/* The first entry added has seq `first` (never 0), the next one first + 1, ... */
void entries_begin(struct entries_builder *builder, uint8_t *to, size_t cap, uint64_t first);

/* False, and nothing changed, when the entry doesn't fit any more. */
MESSAGE_CHECKED bool entries_add(struct entries_builder *builder, const struct entry *entry);

static inline uint16_t entries_count(const struct entries_builder *builder)
{
    return builder->count_;
}

/* Bytes of the frame; 0, and no frame, when no entry was added. */
MESSAGE_CHECKED size_t entries_end(struct entries_builder *builder);

struct message_entries {
    uint64_t first;
    uint16_t count;
    uint16_t left_;
    const uint8_t *at_;
    const uint8_t *end_;
};

MESSAGE_CHECKED enum code message_decode_entries(const struct frame_view *view,
                                                 struct message_entries *out);

/* Takes the next entry and its seq; false after the last. */
MESSAGE_CHECKED bool entries_next(struct message_entries *entries, uint64_t *seq,
                                  struct entry *out);

/* PAGE */

#define PAGE_FLAG_MORE    0x01 /* there are more entries in that direction */
#define PAGE_FLAG_TRIMMED 0x02 /* the chain goes on below the floor, where nothing is kept */

/*
 * A page goes out in rising order of seq, but may be found in falling order (following `prev`):
 * with HISTORY_BEFORE entries are added newest first, with HISTORY_AFTER oldest first.
 */
struct page_builder {
    uint8_t *frame_;
    size_t cap_;
    size_t used_; /* of entries: below the end with HISTORY_BEFORE, else behind the fixed fields */
    uint64_t last_seq_;
    uint32_t request_;
    struct conversation_id conversation_;
    enum history_direction direction_;
    uint16_t count_;
};

void page_begin(struct page_builder *builder, uint8_t *to, size_t cap, uint32_t request,
                struct conversation_id conversation, enum history_direction direction);

/* False, and nothing changed, when it doesn't fit any more or PAGE_ENTRIES_MAX are there. */
MESSAGE_CHECKED bool page_add(struct page_builder *builder, uint64_t seq,
                              const struct entry_message *message);

static inline uint16_t page_count(const struct page_builder *builder)
{
    return builder->count_;
}

/* Bytes of the frame, which may have no entries; 0 when cap is too small for even that. */
MESSAGE_CHECKED size_t page_end(struct page_builder *builder, uint8_t flags);

struct message_page {
    uint32_t request;
    struct conversation_id conversation;
    uint8_t flags;
    uint16_t count;
    uint16_t left_;
    const uint8_t *at_;
    const uint8_t *end_;
};

MESSAGE_CHECKED enum code message_decode_page(const struct frame_view *view,
                                              struct message_page *out);

/* Takes the next entry and its seq; false after the last. */
MESSAGE_CHECKED bool page_next(struct message_page *page, uint64_t *seq, struct entry_message *out);

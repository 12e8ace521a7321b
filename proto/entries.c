#include "proto/entries.h"

#include <string.h>

#include "core/base/check.h"
#include "proto/wire.h"

size_t entry_bytes(const struct entry *entry)
{
    switch (entry->form) {
    case ENTRY_MESSAGE:
        return entry_message_bytes(&entry->message);
    case ENTRY_SENT:
        return ENTRY_SENT_BYTES;
    case ENTRY_REFUSED:
        return ENTRY_REFUSED_BYTES;
    }
    HF_ASSERT(false && "entry form");
    return 0;
}

/* Writing: the caller has made sure of the room. */

static void put_message(uint8_t **at, const struct entry_message *message)
{
    HF_ASSERT(message->body.byte_count <= BODY_BYTES_MAX);
    HF_ASSERT((message->flags & ENTRY_FLAGS_CRITICAL & ~ENTRY_FLAG_OWN) == 0);

    wire_put_u8(at, ENTRY_MESSAGE);
    wire_put_u8(at, message->flags);
    wire_put_u8(at, message->kind);
    wire_put_u64(at, message->id.value);
    wire_put_u64(at, message->conversation.value);
    wire_put_u64(at, message->sender.value);
    wire_put_u32(at, message->device.value);
    wire_put_u64(at, message->prev);
    wire_put_u64(at, message->n);
    wire_put_u64(at, message->cn);
    wire_put_u16(at, message->body.byte_count);
    wire_put_bytes(at, message->body.bytes, message->body.byte_count);
    if ((message->flags & ENTRY_FLAG_OWN) != 0) {
        wire_put_bytes(at, message->nonce.bytes, NONCE_BYTES);
        wire_put_u64(at, message->counter);
    }
}

static void put_entry(uint8_t **at, const struct entry *entry)
{
    switch (entry->form) {
    case ENTRY_MESSAGE:
        put_message(at, &entry->message);
        break;
    case ENTRY_SENT:
        wire_put_u8(at, ENTRY_SENT);
        wire_put_u64(at, entry->sent.counter);
        wire_put_u64(at, entry->sent.id.value);
        break;
    case ENTRY_REFUSED:
        HF_ASSERT(entry->refused.code != CODE_OK);
        wire_put_u8(at, ENTRY_REFUSED);
        wire_put_u16(at, entry->refused.code);
        wire_put_u64(at, entry->refused.ref_seq);
        wire_put_u64(at, entry->refused.id.value);
        wire_put_u64(at, entry->refused.conversation.value);
        break;
    }
}

/* Reading. */

/* Moves behind the entry, or returns what is wrong with it. `seq` is that of the entry. */
static enum code take_message(const uint8_t **at, const uint8_t *end, uint64_t seq,
                              struct entry_message *out)
{
    if (end - *at < ENTRY_MESSAGE_FIXED_BYTES - 1) {
        return CODE_BAD_FRAME;
    }
    out->flags = wire_take_u8(at);
    out->kind = wire_take_u8(at);
    out->id.value = wire_take_u64(at);
    out->conversation.value = wire_take_u64(at);
    out->sender.value = wire_take_u64(at);
    out->device.value = wire_take_u32(at);
    out->prev = wire_take_u64(at);
    out->n = wire_take_u64(at);
    out->cn = wire_take_u64(at);
    out->body.byte_count = wire_take_u16(at);
    out->body.bytes = *at;
    memset(out->nonce.bytes, 0, sizeof out->nonce.bytes);
    out->counter = 0;

    const bool own = (out->flags & ENTRY_FLAG_OWN) != 0;
    const size_t tail_bytes = (size_t)out->body.byte_count + (own ? ENTRY_OWN_BYTES : 0);

    if ((size_t)(end - *at) < tail_bytes) {
        return CODE_BAD_FRAME;
    }
    *at += out->body.byte_count;
    if (own) {
        wire_take_bytes(at, out->nonce.bytes, NONCE_BYTES);
        out->counter = wire_take_u64(at);
    }
    if ((out->flags & ENTRY_FLAGS_CRITICAL & ~ENTRY_FLAG_OWN) != 0 ||
        out->body.byte_count > BODY_BYTES_MAX || out->prev >= seq || out->n == 0 ||
        out->cn > out->n) {
        return CODE_BAD_FIELD;
    }
    return CODE_OK;
}

static enum code take_entry(const uint8_t **at, const uint8_t *end, uint64_t seq, struct entry *out)
{
    if (*at == end) {
        return CODE_BAD_FRAME;
    }

    const uint8_t form = wire_take_u8(at);
    const size_t left = (size_t)(end - *at);

    switch (form) {
    case ENTRY_MESSAGE:
        out->form = ENTRY_MESSAGE;
        return take_message(at, end, seq, &out->message);
    case ENTRY_SENT:
        if (left < ENTRY_SENT_BYTES - 1) {
            return CODE_BAD_FRAME;
        }
        out->form = ENTRY_SENT;
        out->sent.counter = wire_take_u64(at);
        out->sent.id.value = wire_take_u64(at);
        return out->sent.counter == 0 ? CODE_BAD_FIELD : CODE_OK;
    case ENTRY_REFUSED:
        if (left < ENTRY_REFUSED_BYTES - 1) {
            return CODE_BAD_FRAME;
        }
        out->form = ENTRY_REFUSED;
        out->refused.code = wire_take_u16(at);
        out->refused.ref_seq = wire_take_u64(at);
        out->refused.id.value = wire_take_u64(at);
        out->refused.conversation.value = wire_take_u64(at);
        return out->refused.code == CODE_OK || out->refused.ref_seq == 0 ||
                       out->refused.ref_seq >= seq
                   ? CODE_BAD_FIELD
                   : CODE_OK;
    default:
        /* Of unknown length: nothing behind it could be found. */
        return CODE_BAD_FIELD;
    }
}

/* ENTRIES */

static size_t frame_cap(size_t cap)
{
    return cap < FRAME_BYTES_MAX ? cap : FRAME_BYTES_MAX;
}

void entries_begin(struct entries_builder *builder, uint8_t *to, size_t cap, uint64_t first)
{
    HF_ASSERT(first != 0);
    *builder = (struct entries_builder){
        .frame_ = to,
        .cap_ = frame_cap(cap),
        .used_ = FRAME_HEADER_BYTES + ENTRIES_FIXED_BYTES,
        .first_ = first,
    };
}

bool entries_add(struct entries_builder *builder, const struct entry *entry)
{
    const size_t wanted = entry_bytes(entry);

    if (builder->cap_ < builder->used_ || builder->cap_ - builder->used_ < wanted) {
        return false;
    }

    uint8_t *at = builder->frame_ + builder->used_;

    put_entry(&at, entry);
    builder->used_ += wanted;
    builder->count_++;
    HF_ASSERT(at == builder->frame_ + builder->used_);
    return true;
}

size_t entries_end(struct entries_builder *builder)
{
    if (builder->count_ == 0) {
        return 0;
    }

    uint8_t *at = builder->frame_;

    message_put_header(&at, FRAME_TYPE_ENTRIES, builder->used_);
    wire_put_u64(&at, builder->first_);
    wire_put_u16(&at, builder->count_);
    return builder->used_;
}

enum code message_decode_entries(const struct frame_view *view, struct message_entries *out)
{
    HF_ASSERT(view->type == FRAME_TYPE_ENTRIES);
    if (view->payload_bytes < ENTRIES_FIXED_BYTES) {
        return CODE_BAD_FRAME;
    }

    const uint8_t *at = view->payload;
    const uint8_t *end = at + view->payload_bytes;

    out->first = wire_take_u64(&at);
    out->count = wire_take_u16(&at);
    out->left_ = out->count;
    out->at_ = at;
    out->end_ = end;
    if (out->first == 0 || out->count == 0 || out->first > UINT64_MAX - out->count) {
        return CODE_BAD_FIELD;
    }
    for (uint16_t i = 0; i < out->count; i++) {
        struct entry entry;
        const enum code code = take_entry(&at, end, out->first + i, &entry);

        if (code != CODE_OK) {
            return code;
        }
    }
    return message_check_tail(at, end);
}

bool entries_next(struct message_entries *entries, uint64_t *seq, struct entry *out)
{
    if (entries->left_ == 0) {
        return false;
    }
    *seq = entries->first + (entries->count - entries->left_);
    entries->left_--;

    const enum code code = take_entry(&entries->at_, entries->end_, *seq, out);

    HF_ASSERT(code == CODE_OK);
    return true;
}

/* PAGE */

void page_begin(struct page_builder *builder, uint8_t *to, size_t cap, uint32_t request,
                struct conversation_id conversation, enum history_direction direction)
{
    HF_ASSERT(request != 0);
    HF_ASSERT(direction == HISTORY_BEFORE || direction == HISTORY_AFTER);
    *builder = (struct page_builder){
        .frame_ = to,
        .cap_ = frame_cap(cap),
        .request_ = request,
        .conversation_ = conversation,
        .direction_ = direction,
    };
}

bool page_add(struct page_builder *builder, uint64_t seq, const struct entry_message *message)
{
    const size_t head_bytes = FRAME_HEADER_BYTES + PAGE_FIXED_BYTES;
    const size_t wanted = PAGE_SEQ_BYTES + entry_message_bytes(message);
    const bool falling = builder->direction_ == HISTORY_BEFORE;

    HF_ASSERT(message->conversation.value == builder->conversation_.value);
    HF_ASSERT(builder->count_ == 0 ||
              (falling ? seq < builder->last_seq_ : seq > builder->last_seq_));
    if (builder->count_ == PAGE_ENTRIES_MAX || builder->cap_ < head_bytes + builder->used_ ||
        builder->cap_ - head_bytes - builder->used_ < wanted) {
        return false;
    }

    uint8_t *at = falling ? builder->frame_ + builder->cap_ - builder->used_ - wanted
                          : builder->frame_ + head_bytes + builder->used_;
    const uint8_t *behind = at + wanted;

    wire_put_u64(&at, seq);
    put_message(&at, message);
    HF_ASSERT(at == behind);
    builder->used_ += wanted;
    builder->last_seq_ = seq;
    builder->count_++;
    return true;
}

size_t page_end(struct page_builder *builder, uint8_t flags)
{
    const size_t head_bytes = FRAME_HEADER_BYTES + PAGE_FIXED_BYTES;

    if (builder->cap_ < head_bytes) {
        return 0;
    }
    if (builder->direction_ == HISTORY_BEFORE && builder->count_ > 0) {
        memmove(builder->frame_ + head_bytes, builder->frame_ + builder->cap_ - builder->used_,
                builder->used_);
    }

    uint8_t *at = builder->frame_;

    message_put_header(&at, FRAME_TYPE_PAGE, head_bytes + builder->used_);
    wire_put_u32(&at, builder->request_);
    wire_put_u64(&at, builder->conversation_.value);
    wire_put_u8(&at, flags);
    wire_put_u16(&at, builder->count_);
    return head_bytes + builder->used_;
}

static enum code take_page_entry(const uint8_t **at, const uint8_t *end, uint64_t *seq,
                                 struct entry_message *out)
{
    if (end - *at < PAGE_SEQ_BYTES + 1) {
        return CODE_BAD_FRAME;
    }
    *seq = wire_take_u64(at);
    if (wire_take_u8(at) != ENTRY_MESSAGE) {
        return CODE_BAD_FIELD;
    }
    return take_message(at, end, *seq, out);
}

enum code message_decode_page(const struct frame_view *view, struct message_page *out)
{
    HF_ASSERT(view->type == FRAME_TYPE_PAGE);
    if (view->payload_bytes < PAGE_FIXED_BYTES) {
        return CODE_BAD_FRAME;
    }

    const uint8_t *at = view->payload;
    const uint8_t *end = at + view->payload_bytes;
    uint64_t last_seq = 0;

    out->request = wire_take_u32(&at);
    out->conversation.value = wire_take_u64(&at);
    out->flags = wire_take_u8(&at);
    out->count = wire_take_u16(&at);
    out->left_ = out->count;
    out->at_ = at;
    out->end_ = end;
    if (out->request == 0) {
        return CODE_BAD_FIELD;
    }
    for (uint16_t i = 0; i < out->count; i++) {
        struct entry_message message;
        uint64_t seq;
        const enum code code = take_page_entry(&at, end, &seq, &message);

        if (code != CODE_OK) {
            return code;
        }
        if (seq <= last_seq || message.conversation.value != out->conversation.value) {
            return CODE_BAD_FIELD;
        }
        last_seq = seq;
    }
    return message_check_tail(at, end);
}

bool page_next(struct message_page *page, uint64_t *seq, struct entry_message *out)
{
    if (page->left_ == 0) {
        return false;
    }
    page->left_--;

    const enum code code = take_page_entry(&page->at_, page->end_, seq, out);

    HF_ASSERT(code == CODE_OK);
    return true;
}

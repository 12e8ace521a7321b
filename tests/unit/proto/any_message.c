#include "tests/unit/proto/any_message.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/base/check.h"

enum code any_decode(const struct frame_view *view, struct any_message *out)
{
    out->type = (enum frame_type)view->type;
    switch (out->type) {
    case FRAME_TYPE_HELLO:
        return message_decode_hello(view, &out->hello);
    case FRAME_TYPE_HELLO_OK:
        return message_decode_hello_ok(view, &out->hello_ok);
    case FRAME_TYPE_TOKEN:
        return message_decode_token(view, &out->token);
    case FRAME_TYPE_PING:
    case FRAME_TYPE_PONG:
        return message_decode_ping(view, &out->ping);
    case FRAME_TYPE_GOAWAY:
        return message_decode_goaway(view, &out->goaway);
    case FRAME_TYPE_BYE:
        return message_decode_bye(view);
    case FRAME_TYPE_ERROR:
        return message_decode_error(view, &out->error);
    case FRAME_TYPE_SEND:
        return message_decode_send(view, &out->send);
    case FRAME_TYPE_ACCEPTED:
        return message_decode_accepted(view, &out->accepted);
    case FRAME_TYPE_REJECTED:
        return message_decode_rejected(view, &out->rejected);
    case FRAME_TYPE_ENTRIES:
        return message_decode_entries(view, &out->entries);
    case FRAME_TYPE_ACK:
        return message_decode_ack(view, &out->ack);
    case FRAME_TYPE_HISTORY:
        return message_decode_history(view, &out->history);
    case FRAME_TYPE_PAGE:
        return message_decode_page(view, &out->page);
    }
    HF_ASSERT(false && "a type of this version");
    return CODE_OK;
}

static size_t encode_entries(uint8_t *to, size_t cap, struct message_entries entries)
{
    struct entries_builder builder;
    struct entry entry;
    uint64_t seq;

    entries_begin(&builder, to, cap, entries.first);
    while (entries_next(&entries, &seq, &entry)) {
        HF_ASSERT(seq == entries.first + entries_count(&builder));
        if (!entries_add(&builder, &entry)) {
            return 0;
        }
    }
    return entries_end(&builder);
}

static size_t encode_page(uint8_t *to, size_t cap, struct message_page page)
{
    struct page_builder builder;
    struct entry_message message;
    uint64_t seq;

    page_begin(&builder, to, cap, page.request, page.conversation, HISTORY_AFTER);
    while (page_next(&page, &seq, &message)) {
        if (!page_add(&builder, seq, &message)) {
            return 0;
        }
    }
    return page_end(&builder, page.flags);
}

size_t any_encode(uint8_t *to, size_t cap, const struct any_message *in)
{
    switch (in->type) {
    case FRAME_TYPE_HELLO:
        return message_encode_hello(to, cap, &in->hello);
    case FRAME_TYPE_HELLO_OK:
        return message_encode_hello_ok(to, cap, &in->hello_ok);
    case FRAME_TYPE_TOKEN:
        return message_encode_token(to, cap, &in->token);
    case FRAME_TYPE_PING:
        return message_encode_ping(to, cap, &in->ping);
    case FRAME_TYPE_PONG:
        return message_encode_pong(to, cap, &in->ping);
    case FRAME_TYPE_GOAWAY:
        return message_encode_goaway(to, cap, &in->goaway);
    case FRAME_TYPE_BYE:
        return message_encode_bye(to, cap);
    case FRAME_TYPE_ERROR:
        return message_encode_error(to, cap, &in->error);
    case FRAME_TYPE_SEND:
        return message_encode_send(to, cap, &in->send);
    case FRAME_TYPE_ACCEPTED:
        return message_encode_accepted(to, cap, &in->accepted);
    case FRAME_TYPE_REJECTED:
        return message_encode_rejected(to, cap, &in->rejected);
    case FRAME_TYPE_ENTRIES:
        return encode_entries(to, cap, in->entries);
    case FRAME_TYPE_ACK:
        return message_encode_ack(to, cap, &in->ack);
    case FRAME_TYPE_HISTORY:
        return message_encode_history(to, cap, &in->history);
    case FRAME_TYPE_PAGE:
        return encode_page(to, cap, in->page);
    }
    HF_ASSERT(false && "a type of this version");
    return 0;
}

/* Text that grows. */
struct writer {
    char *text;
    size_t used;
    size_t cap;
    const char *separator; /* before the next field */
};

__attribute__((format(printf, 2, 3))) static void write_text(struct writer *writer,
                                                             const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    const int wanted =
        vsnprintf(writer->text + writer->used, writer->cap - writer->used, format, arguments);
    va_end(arguments);
    HF_ASSERT(wanted >= 0 && (size_t)wanted < writer->cap - writer->used);
    writer->used += (size_t)wanted;
}

static void write_open(struct writer *writer, const char *bracket)
{
    write_text(writer, "%s%s", writer->separator, bracket);
    writer->separator = "";
}

static void write_close(struct writer *writer, const char *bracket)
{
    write_text(writer, "%s", bracket);
    writer->separator = ", ";
}

static void write_key(struct writer *writer, const char *name)
{
    write_text(writer, "%s\"%s\": ", writer->separator, name);
    writer->separator = ", ";
}

static void write_number(struct writer *writer, const char *name, uint64_t value)
{
    write_key(writer, name);
    write_text(writer, "%" PRIu64, value);
}

static void write_hex(struct writer *writer, const char *name, const uint8_t *bytes,
                      size_t byte_count)
{
    write_key(writer, name);
    write_text(writer, "\"");
    for (size_t i = 0; i < byte_count; i++) {
        write_text(writer, "%02x", bytes[i]);
    }
    write_text(writer, "\"");
}

static void write_optional_hex(struct writer *writer, const char *name, struct message_bytes value)
{
    if (value.byte_count > 0) {
        write_hex(writer, name, value.bytes, value.byte_count);
    }
}

static void write_optional_text(struct writer *writer, const char *name, struct message_bytes value)
{
    if (value.byte_count > 0) {
        write_key(writer, name);
        write_text(writer, "\"%.*s\"", (int)value.byte_count, (const char *)value.bytes);
    }
}

static void describe_hello(struct writer *writer, const struct message_hello *hello)
{
    write_number(writer, "version", hello->version);
    write_number(writer, "caps", hello->caps);
    write_number(writer, "user", hello->user.value);
    write_number(writer, "device", hello->device.value);
    write_number(writer, "epoch", hello->cursor.epoch);
    write_number(writer, "seq", hello->cursor.seq);
    write_number(writer, "sver", hello->cursor.sver);
    write_number(writer, "max_catchup", hello->max_catchup);
    write_number(writer, "mode", hello->mode);
    write_number(writer, "window", hello->window);
    write_optional_hex(writer, "token", hello->token);
    write_optional_text(writer, "client", hello->client);
}

static void describe_hello_ok(struct writer *writer, const struct message_hello_ok *ok)
{
    write_number(writer, "caps", ok->caps);
    write_number(writer, "time_unix_ms", ok->time_unix_ms);
    write_number(writer, "epoch", ok->epoch);
    write_number(writer, "head", ok->head);
    write_number(writer, "floor", ok->floor);
    write_number(writer, "sver", ok->sver);
    write_number(writer, "last_counter", ok->last_counter);
    write_number(writer, "result", (uint64_t)ok->result);
    write_number(writer, "keepalive_s", ok->keepalive_s);
    write_number(writer, "life_s", ok->life_s);
    write_number(writer, "frame_bytes_max", ok->frame_bytes_max);
    write_number(writer, "body_bytes_max", ok->body_bytes_max);
    write_number(writer, "sends_outstanding_max", ok->sends_outstanding_max);
    write_number(writer, "requests_outstanding_max", ok->requests_outstanding_max);
    write_number(writer, "window", ok->window);
    write_optional_hex(writer, "resume_token", ok->resume_token);
}

static void describe_message(struct writer *writer, const struct entry_message *message)
{
    write_number(writer, "form", ENTRY_MESSAGE);
    write_number(writer, "flags", message->flags);
    write_number(writer, "kind", message->kind);
    write_number(writer, "id", message->id.value);
    write_number(writer, "conversation", message->conversation.value);
    write_number(writer, "sender", message->sender.value);
    write_number(writer, "device", message->device.value);
    write_number(writer, "prev", message->prev);
    write_number(writer, "n", message->n);
    write_number(writer, "cn", message->cn);
    write_hex(writer, "body", message->body.bytes, message->body.byte_count);
    if ((message->flags & ENTRY_FLAG_OWN) != 0) {
        write_hex(writer, "nonce", message->nonce.bytes, NONCE_BYTES);
        write_number(writer, "counter", message->counter);
    }
}

static void describe_entry(struct writer *writer, const struct entry *entry)
{
    write_open(writer, "{");
    switch (entry->form) {
    case ENTRY_MESSAGE:
        describe_message(writer, &entry->message);
        break;
    case ENTRY_SENT:
        write_number(writer, "form", ENTRY_SENT);
        write_number(writer, "counter", entry->sent.counter);
        write_number(writer, "id", entry->sent.id.value);
        break;
    case ENTRY_REFUSED:
        write_number(writer, "form", ENTRY_REFUSED);
        write_number(writer, "code", entry->refused.code);
        write_number(writer, "ref_seq", entry->refused.ref_seq);
        write_number(writer, "id", entry->refused.id.value);
        write_number(writer, "conversation", entry->refused.conversation.value);
        break;
    }
    write_close(writer, "}");
}

static void describe_entries(struct writer *writer, struct message_entries entries)
{
    struct entry entry;
    uint64_t seq;

    write_number(writer, "first", entries.first);
    write_key(writer, "entries");
    writer->separator = "";
    write_open(writer, "[");
    while (entries_next(&entries, &seq, &entry)) {
        describe_entry(writer, &entry);
    }
    write_close(writer, "]");
}

static void describe_page(struct writer *writer, struct message_page page)
{
    struct entry_message message;
    uint64_t seq;

    write_number(writer, "request", page.request);
    write_number(writer, "conversation", page.conversation.value);
    write_number(writer, "flags", page.flags);
    write_key(writer, "entries");
    writer->separator = "";
    write_open(writer, "[");
    while (page_next(&page, &seq, &message)) {
        write_open(writer, "{");
        write_number(writer, "seq", seq);
        describe_message(writer, &message);
        write_close(writer, "}");
    }
    write_close(writer, "]");
}

static void describe_error(struct writer *writer, const struct message_error *error)
{
    write_number(writer, "code", error->code);
    write_number(writer, "request", error->request);
    write_number(writer, "retry_ms", error->retry_ms);
    write_number(writer, "fatal", error->fatal ? 1 : 0);
    write_optional_text(writer, "text", error->text);
}

static void describe_send(struct writer *writer, const struct message_send *send)
{
    write_number(writer, "counter", send->counter);
    write_hex(writer, "nonce", send->nonce.bytes, NONCE_BYTES);
    write_number(writer, "conversation", send->conversation.value);
    write_number(writer, "kind", send->kind);
    write_hex(writer, "body", send->body.bytes, send->body.byte_count);
}

static void describe_history(struct writer *writer, const struct message_history *history)
{
    write_number(writer, "request", history->request);
    write_number(writer, "conversation", history->conversation.value);
    write_number(writer, "direction", (uint64_t)history->direction);
    write_number(writer, "anchor", history->anchor);
    write_number(writer, "n", history->n);
    write_number(writer, "bytes", history->bytes);
}

static void describe_fields(struct writer *writer, const struct any_message *in)
{
    switch (in->type) {
    case FRAME_TYPE_HELLO:
        describe_hello(writer, &in->hello);
        break;
    case FRAME_TYPE_HELLO_OK:
        describe_hello_ok(writer, &in->hello_ok);
        break;
    case FRAME_TYPE_TOKEN:
        write_number(writer, "life_s", in->token.life_s);
        write_optional_hex(writer, "token", in->token.token);
        break;
    case FRAME_TYPE_PING:
    case FRAME_TYPE_PONG:
        write_number(writer, "opaque", in->ping.opaque);
        break;
    case FRAME_TYPE_GOAWAY:
        write_number(writer, "why", in->goaway.why);
        write_number(writer, "wait_min_ms", in->goaway.wait_min_ms);
        write_number(writer, "wait_max_ms", in->goaway.wait_max_ms);
        write_optional_text(writer, "alternative", in->goaway.alternative);
        break;
    case FRAME_TYPE_BYE:
        break;
    case FRAME_TYPE_ERROR:
        describe_error(writer, &in->error);
        break;
    case FRAME_TYPE_SEND:
        describe_send(writer, &in->send);
        break;
    case FRAME_TYPE_ACCEPTED:
        write_number(writer, "counter", in->accepted.counter);
        write_number(writer, "id", in->accepted.id.value);
        write_number(writer, "seq", in->accepted.seq);
        break;
    case FRAME_TYPE_REJECTED:
        write_number(writer, "counter", in->rejected.counter);
        write_number(writer, "code", in->rejected.code);
        write_number(writer, "retry_ms", in->rejected.retry_ms);
        write_number(writer, "expected", in->rejected.expected);
        break;
    case FRAME_TYPE_ENTRIES:
        describe_entries(writer, in->entries);
        break;
    case FRAME_TYPE_ACK:
        write_number(writer, "seq", in->ack.seq);
        write_number(writer, "sver", in->ack.sver);
        break;
    case FRAME_TYPE_HISTORY:
        describe_history(writer, &in->history);
        break;
    case FRAME_TYPE_PAGE:
        describe_page(writer, in->page);
        break;
    }
}

void any_describe(const struct any_message *in, char *text, size_t text_bytes)
{
    struct writer writer = { .text = text, .cap = text_bytes, .separator = "" };

    write_open(&writer, "{");
    describe_fields(&writer, in);
    write_close(&writer, "}");
}

#include "proto/message.h"

#include <string.h>

#include "proto/tlv.h"

/* Odd tags may be ignored by who doesn't know them, even ones may not. */
#define TLV_HELLO_CLIENT       1
#define TLV_HELLO_TOKEN        2
#define TLV_HELLO_OK_TOKEN     2
#define TLV_TOKEN_TOKEN        2
#define TLV_GOAWAY_ALTERNATIVE 1
#define TLV_ERROR_TEXT         1

/* Where reading begins, or NULL when the frame is shorter than its fixed fields. */
static const uint8_t *fixed_begin(const struct frame_view *view, enum frame_type type,
                                  size_t fixed_bytes)
{
    HF_ASSERT(view->type == type);
    return view->payload_bytes < fixed_bytes ? NULL : view->payload;
}

static const uint8_t *view_end(const struct frame_view *view)
{
    return view->payload + view->payload_bytes;
}

enum code message_decode_hello(const struct frame_view *view, struct message_hello *out)
{
    HF_ASSERT(view->type == FRAME_TYPE_HELLO);
    /* Before anything else: another version may have another layout behind this field. */
    if (view->payload_bytes >= 2 && load_be16(view->payload) != PROTOCOL_VERSION) {
        return CODE_VERSION;
    }

    const uint8_t *at = fixed_begin(view, FRAME_TYPE_HELLO, HELLO_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->version = wire_take_u16(&at);
    out->caps = wire_take_u64(&at);
    out->user.value = wire_take_u64(&at);
    out->device.value = wire_take_u32(&at);
    out->cursor.epoch = wire_take_u64(&at);
    out->cursor.seq = wire_take_u64(&at);
    out->cursor.sver = wire_take_u64(&at);
    out->max_catchup = wire_take_u32(&at);
    out->mode = wire_take_u8(&at);
    out->window = wire_take_u32(&at);
    if (!user_id_valid(out->user) || out->device.value == 0 || out->mode != HELLO_MODE_LIVE) {
        return CODE_BAD_FIELD;
    }

    const struct tlv_known known[] = {
        { TLV_HELLO_TOKEN, true, false, 1, TOKEN_BYTES_MAX, &out->token },
        { TLV_HELLO_CLIENT, false, true, 1, CLIENT_NAME_BYTES_MAX, &out->client },
    };
    return tlv_decode(at, view_end(view), known, sizeof known / sizeof known[0]);
}

size_t message_encode_hello(uint8_t *to, size_t cap, const struct message_hello *in)
{
    const size_t whole_bytes =
        FRAME_HEADER_BYTES + HELLO_FIXED_BYTES + tlv_bytes(in->token) + tlv_bytes(in->client);

    HF_ASSERT(in->version == PROTOCOL_VERSION && in->mode == HELLO_MODE_LIVE);
    HF_ASSERT(user_id_valid(in->user) && in->device.value != 0);
    HF_ASSERT(in->token.byte_count >= 1 && in->token.byte_count <= TOKEN_BYTES_MAX);
    HF_ASSERT(in->client.byte_count <= CLIENT_NAME_BYTES_MAX);
    HF_ASSERT_SLOW(text_valid(in->client.bytes, in->client.byte_count));
    if (cap < whole_bytes) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_HELLO, whole_bytes);
    wire_put_u16(&to, in->version);
    wire_put_u64(&to, in->caps);
    wire_put_u64(&to, in->user.value);
    wire_put_u32(&to, in->device.value);
    wire_put_u64(&to, in->cursor.epoch);
    wire_put_u64(&to, in->cursor.seq);
    wire_put_u64(&to, in->cursor.sver);
    wire_put_u32(&to, in->max_catchup);
    wire_put_u8(&to, in->mode);
    wire_put_u32(&to, in->window);
    tlv_put(&to, TLV_HELLO_TOKEN, in->token);
    tlv_put(&to, TLV_HELLO_CLIENT, in->client);
    return whole_bytes;
}

/* An empty log has floor head + 1; so has one of which nothing is kept. Epoch 0 is the cursor of a
 * device that has nothing. */
static bool hello_ok_valid(const struct message_hello_ok *ok)
{
    return (ok->result == HELLO_RESULT_RESUME || ok->result == HELLO_RESULT_RESET) &&
           ok->epoch != 0 && ok->floor >= 1 && ok->floor - 1 <= ok->head;
}

enum code message_decode_hello_ok(const struct frame_view *view, struct message_hello_ok *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_HELLO_OK, HELLO_OK_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->caps = wire_take_u64(&at);
    out->time_unix_ms = wire_take_u64(&at);
    out->epoch = wire_take_u64(&at);
    out->head = wire_take_u64(&at);
    out->floor = wire_take_u64(&at);
    out->sver = wire_take_u64(&at);
    out->last_counter = wire_take_u64(&at);
    out->result = (enum hello_result)wire_take_u8(&at);
    out->keepalive_s = wire_take_u32(&at);
    out->life_s = wire_take_u32(&at);
    out->frame_bytes_max = wire_take_u32(&at);
    out->body_bytes_max = wire_take_u32(&at);
    out->sends_outstanding_max = wire_take_u16(&at);
    out->requests_outstanding_max = wire_take_u16(&at);
    out->window = wire_take_u32(&at);
    if (!hello_ok_valid(out)) {
        return CODE_BAD_FIELD;
    }

    const struct tlv_known known[] = {
        { TLV_HELLO_OK_TOKEN, false, false, 1, RESUME_TOKEN_BYTES_MAX, &out->resume_token },
    };
    return tlv_decode(at, view_end(view), known, sizeof known / sizeof known[0]);
}

size_t message_encode_hello_ok(uint8_t *to, size_t cap, const struct message_hello_ok *in)
{
    const size_t whole_bytes =
        FRAME_HEADER_BYTES + HELLO_OK_FIXED_BYTES + tlv_bytes(in->resume_token);

    HF_ASSERT(hello_ok_valid(in));
    HF_ASSERT(in->resume_token.byte_count <= RESUME_TOKEN_BYTES_MAX);
    if (cap < whole_bytes) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_HELLO_OK, whole_bytes);
    wire_put_u64(&to, in->caps);
    wire_put_u64(&to, in->time_unix_ms);
    wire_put_u64(&to, in->epoch);
    wire_put_u64(&to, in->head);
    wire_put_u64(&to, in->floor);
    wire_put_u64(&to, in->sver);
    wire_put_u64(&to, in->last_counter);
    wire_put_u8(&to, (uint8_t)in->result);
    wire_put_u32(&to, in->keepalive_s);
    wire_put_u32(&to, in->life_s);
    wire_put_u32(&to, in->frame_bytes_max);
    wire_put_u32(&to, in->body_bytes_max);
    wire_put_u16(&to, in->sends_outstanding_max);
    wire_put_u16(&to, in->requests_outstanding_max);
    wire_put_u32(&to, in->window);
    tlv_put(&to, TLV_HELLO_OK_TOKEN, in->resume_token);
    return whole_bytes;
}

enum code message_decode_token(const struct frame_view *view, struct message_token *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_TOKEN, TOKEN_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->life_s = wire_take_u32(&at);

    const struct tlv_known known[] = {
        { TLV_TOKEN_TOKEN, true, false, 1, TOKEN_BYTES_MAX, &out->token },
    };
    return tlv_decode(at, view_end(view), known, sizeof known / sizeof known[0]);
}

size_t message_encode_token(uint8_t *to, size_t cap, const struct message_token *in)
{
    const size_t whole_bytes = FRAME_HEADER_BYTES + TOKEN_FIXED_BYTES + tlv_bytes(in->token);

    HF_ASSERT(in->token.byte_count >= 1 && in->token.byte_count <= TOKEN_BYTES_MAX);
    if (cap < whole_bytes) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_TOKEN, whole_bytes);
    wire_put_u32(&to, in->life_s);
    tlv_put(&to, TLV_TOKEN_TOKEN, in->token);
    return whole_bytes;
}

enum code message_decode_ping(const struct frame_view *view, struct message_ping *out)
{
    HF_ASSERT(view->type == FRAME_TYPE_PING || view->type == FRAME_TYPE_PONG);
    if (view->payload_bytes < PING_FIXED_BYTES) {
        return CODE_BAD_FRAME;
    }

    const uint8_t *at = view->payload;

    out->opaque = wire_take_u64(&at);
    return message_check_tail(at, view_end(view));
}

static size_t encode_ping_or_pong(uint8_t *to, size_t cap, enum frame_type type,
                                  const struct message_ping *in)
{
    if (cap < PING_FRAME_BYTES) {
        return 0;
    }
    message_put_header(&to, type, PING_FRAME_BYTES);
    wire_put_u64(&to, in->opaque);
    return PING_FRAME_BYTES;
}

size_t message_encode_ping(uint8_t *to, size_t cap, const struct message_ping *in)
{
    return encode_ping_or_pong(to, cap, FRAME_TYPE_PING, in);
}

size_t message_encode_pong(uint8_t *to, size_t cap, const struct message_ping *in)
{
    return encode_ping_or_pong(to, cap, FRAME_TYPE_PONG, in);
}

enum code message_decode_goaway(const struct frame_view *view, struct message_goaway *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_GOAWAY, GOAWAY_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->why = wire_take_u16(&at);
    out->wait_min_ms = wire_take_u32(&at);
    out->wait_max_ms = wire_take_u32(&at);
    if (out->wait_min_ms > out->wait_max_ms) {
        return CODE_BAD_FIELD;
    }

    const struct tlv_known known[] = {
        { TLV_GOAWAY_ALTERNATIVE, false, true, 1, ADDRESS_BYTES_MAX, &out->alternative },
    };
    return tlv_decode(at, view_end(view), known, sizeof known / sizeof known[0]);
}

size_t message_encode_goaway(uint8_t *to, size_t cap, const struct message_goaway *in)
{
    const size_t whole_bytes = FRAME_HEADER_BYTES + GOAWAY_FIXED_BYTES + tlv_bytes(in->alternative);

    HF_ASSERT(in->wait_min_ms <= in->wait_max_ms);
    HF_ASSERT(in->alternative.byte_count <= ADDRESS_BYTES_MAX);
    HF_ASSERT_SLOW(text_valid(in->alternative.bytes, in->alternative.byte_count));
    if (cap < whole_bytes) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_GOAWAY, whole_bytes);
    wire_put_u16(&to, in->why);
    wire_put_u32(&to, in->wait_min_ms);
    wire_put_u32(&to, in->wait_max_ms);
    tlv_put(&to, TLV_GOAWAY_ALTERNATIVE, in->alternative);
    return whole_bytes;
}

enum code message_decode_bye(const struct frame_view *view)
{
    HF_ASSERT(view->type == FRAME_TYPE_BYE);
    return message_check_tail(view->payload, view_end(view));
}

size_t message_encode_bye(uint8_t *to, size_t cap)
{
    if (cap < BYE_FRAME_BYTES) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_BYE, BYE_FRAME_BYTES);
    return BYE_FRAME_BYTES;
}

enum code message_decode_error(const struct frame_view *view, struct message_error *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_ERROR, ERROR_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->code = wire_take_u16(&at);
    out->request = wire_take_u32(&at);
    out->retry_ms = wire_take_u32(&at);

    const uint8_t fatal = wire_take_u8(&at);

    out->fatal = fatal != 0;
    if (out->code == CODE_OK || fatal > 1) {
        return CODE_BAD_FIELD;
    }

    const struct tlv_known known[] = {
        { TLV_ERROR_TEXT, false, true, 1, ERROR_TEXT_BYTES_MAX, &out->text },
    };
    return tlv_decode(at, view_end(view), known, sizeof known / sizeof known[0]);
}

size_t message_encode_error(uint8_t *to, size_t cap, const struct message_error *in)
{
    const size_t whole_bytes = FRAME_HEADER_BYTES + ERROR_FIXED_BYTES + tlv_bytes(in->text);

    HF_ASSERT(in->code != CODE_OK);
    HF_ASSERT(in->text.byte_count <= ERROR_TEXT_BYTES_MAX);
    HF_ASSERT_SLOW(text_valid(in->text.bytes, in->text.byte_count));
    if (cap < whole_bytes) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_ERROR, whole_bytes);
    wire_put_u16(&to, in->code);
    wire_put_u32(&to, in->request);
    wire_put_u32(&to, in->retry_ms);
    wire_put_u8(&to, in->fatal ? 1 : 0);
    tlv_put(&to, TLV_ERROR_TEXT, in->text);
    return whole_bytes;
}

size_t message_encode_error_code(uint8_t *to, size_t cap, enum code code, uint32_t request,
                                 uint32_t retry_ms)
{
    const char *text = code_text((uint16_t)code);
    const struct message_error error = {
        .code = (uint16_t)code,
        .request = request,
        .retry_ms = retry_ms,
        .fatal = code_is_fatal((uint16_t)code),
        .text = { (const uint8_t *)text, (uint16_t)strlen(text) },
    };

    return message_encode_error(to, cap, &error);
}

enum code message_decode_accepted(const struct frame_view *view, struct message_accepted *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_ACCEPTED, ACCEPTED_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->counter = wire_take_u64(&at);
    out->id.value = wire_take_u64(&at);
    out->seq = wire_take_u64(&at);
    if (out->counter == 0 || out->seq == 0) {
        return CODE_BAD_FIELD;
    }
    return message_check_tail(at, view_end(view));
}

enum code message_decode_rejected(const struct frame_view *view, struct message_rejected *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_REJECTED, REJECTED_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->counter = wire_take_u64(&at);
    out->code = wire_take_u16(&at);
    out->retry_ms = wire_take_u32(&at);
    out->expected = wire_take_u64(&at);
    if (out->counter == 0 || out->code == CODE_OK) {
        return CODE_BAD_FIELD;
    }
    return message_check_tail(at, view_end(view));
}

static bool history_valid(const struct message_history *history)
{
    return history->request != 0 && history->n != 0 &&
           (history->direction == HISTORY_BEFORE || history->direction == HISTORY_AFTER);
}

enum code message_decode_history(const struct frame_view *view, struct message_history *out)
{
    const uint8_t *at = fixed_begin(view, FRAME_TYPE_HISTORY, HISTORY_FIXED_BYTES);

    if (at == NULL) {
        return CODE_BAD_FRAME;
    }
    out->request = wire_take_u32(&at);
    out->conversation.value = wire_take_u64(&at);
    out->direction = (enum history_direction)wire_take_u8(&at);
    out->anchor = wire_take_u64(&at);
    out->n = wire_take_u16(&at);
    out->bytes = wire_take_u32(&at);
    if (!history_valid(out)) {
        return CODE_BAD_FIELD;
    }
    return message_check_tail(at, view_end(view));
}

size_t message_encode_history(uint8_t *to, size_t cap, const struct message_history *in)
{
    HF_ASSERT(history_valid(in));
    if (cap < HISTORY_FRAME_BYTES) {
        return 0;
    }
    message_put_header(&to, FRAME_TYPE_HISTORY, HISTORY_FRAME_BYTES);
    wire_put_u32(&to, in->request);
    wire_put_u64(&to, in->conversation.value);
    wire_put_u8(&to, (uint8_t)in->direction);
    wire_put_u64(&to, in->anchor);
    wire_put_u16(&to, in->n);
    wire_put_u32(&to, in->bytes);
    return HISTORY_FRAME_BYTES;
}

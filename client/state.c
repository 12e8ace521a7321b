#include "client/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "client/state_private.h"
#include "core/base/bytes.h"
#include "core/base/check.h"

/* ---- sends */

struct state_send *state_find_send(const struct state *state, uint64_t tag)
{
    for (struct state_send *send = state->sends; send != NULL; send = send->next) {
        if (send->tag == tag) {
            return send;
        }
    }
    return NULL;
}

static void append_send(struct state *state, struct state_send *send)
{
    struct state_send **link = &state->sends;

    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = send;
    send->next = NULL;
}

static void remove_send(struct state *state, struct state_send *gone)
{
    for (struct state_send **link = &state->sends; *link != NULL; link = &(*link)->next) {
        if (*link == gone) {
            *link = gone->next;
            free(gone);
            return;
        }
    }
}

void state_forget_sends(struct state *state)
{
    while (state->sends != NULL) {
        remove_send(state, state->sends);
    }
}

static bool apply_send(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count < SEND_HEAD_BYTES || byte_count - SEND_HEAD_BYTES > BODY_BYTES_MAX) {
        return false;
    }

    const size_t body_bytes = byte_count - SEND_HEAD_BYTES;
    struct state_send *send = calloc(1, sizeof *send + body_bytes);

    if (send == NULL) {
        return false;
    }
    send->tag = load_be64(bytes);
    send->counter = load_be64(bytes + 8);
    send->conversation.value = load_be64(bytes + 16);
    send->queued_unix_ms = load_be64(bytes + 24);
    memcpy(send->nonce.bytes, bytes + 32, NONCE_BYTES);
    send->kind = bytes[32 + NONCE_BYTES];
    send->cut = (bytes[32 + NONCE_BYTES + 1] & SEND_CUT) != 0;
    send->body_bytes = (uint16_t)body_bytes;
    memcpy(send->body, bytes + SEND_HEAD_BYTES, body_bytes);
    if (send->tag <= state->last_tag || send->counter == 0 || send->kind > KIND_MAX) {
        free(send);
        return false;
    }
    append_send(state, send);
    state->last_tag = send->tag;
    if (state->last_counter < send->counter) {
        state->last_counter = send->counter;
    }
    return true;
}

static bool apply_answer(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count != ANSWER_BYTES || bytes[26] > STATE_SEND_UNKNOWN) {
        return false;
    }

    struct state_send *send = state_find_send(state, load_be64(bytes));

    if (send != NULL) {
        send->id = load_be64(bytes + 8);
        send->seq = load_be64(bytes + 16);
        send->code = load_be16(bytes + 24);
        send->status = bytes[26];
    }
    return true;
}

static bool apply_dismissed(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count != 8) {
        return false;
    }

    struct state_send *send = state_find_send(state, load_be64(bytes));

    if (send != NULL) {
        remove_send(state, send);
    }
    return true;
}

static bool apply_renumbered(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count != 8 || load_be64(bytes) == 0) {
        return false;
    }

    uint64_t counter = load_be64(bytes);

    for (struct state_send *send = state->sends; send != NULL; send = send->next) {
        if (send->status == STATE_SEND_WAITING) {
            send->counter = counter++;
        }
    }
    state->last_counter = counter - 1;
    state->recounting = false;
    return true;
}

static bool apply_counter(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count != COUNTER_BYTES) {
        return false;
    }
    state->last_counter = load_be64(bytes);
    state->last_tag = load_be64(bytes + 8);
    state->recounting = bytes[16] != 0;
    return true;
}

/* ---- the log */

void state_forget_log(struct state *state)
{
    free(state->places);
    free(state->conversations);
    state->places = NULL;
    state->place_count = 0;
    state->place_room_ = 0;
    state->conversations = NULL;
    state->conversation_count = 0;
    state->conversation_room_ = 0;
}

static bool apply_reset(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count != RESET_BYTES) {
        return false;
    }

    const uint8_t flags = bytes[24];
    const uint64_t seq = load_be64(bytes + 8);
    struct state_send *next;

    if ((flags & RESET_ANEW) != 0) {
        state_forget_log(state);
        state->base_seq_ = seq;
        state->seen_seq = seq;
        state->live_bytes_ = 0;
        state->complete = seq == 0;
    } else if (seq < state->cursor.seq) {
        return false;
    } else {
        state->complete = false;
    }
    state->cursor.epoch = load_be64(bytes);
    state->cursor.seq = seq;
    state->cursor.sver = load_be64(bytes + 16);
    state->recounting = state->recounting || (flags & RESET_RECOUNTING) != 0;
    for (size_t i = 0; i < state->conversation_count; i++) {
        state->conversations[i].counted = false;
    }
    for (struct state_send *send = state->sends; send != NULL; send = next) {
        next = send->next;
        send->cut = send->cut || (flags & RESET_CUT) != 0;
        if (send->status == STATE_SEND_ACCEPTED) {
            if ((flags & RESET_ANEW) != 0) {
                send->seq = 0; /* the catch-up will show whether the server still has it */
            } else if (send->seq <= seq) {
                remove_send(state, send); /* its entry is one of those skipped */
            }
        }
    }
    return true;
}

/* The conversation's place in the sorted table, whether it is there or not. */
static size_t conversation_place(const struct state *state, struct conversation_id id)
{
    size_t low = 0;
    size_t high = state->conversation_count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (state->conversations[middle].id.value < id.value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct state_conversation *find_conversation(const struct state *state,
                                                    struct conversation_id id)
{
    const size_t at = conversation_place(state, id);

    return at < state->conversation_count && state->conversations[at].id.value == id.value
               ? &state->conversations[at]
               : NULL;
}

static struct state_conversation *make_conversation(struct state *state, struct conversation_id id)
{
    struct state_conversation *found = find_conversation(state, id);

    if (found != NULL) {
        return found;
    }
    if (state->conversation_count == state->conversation_room_) {
        const size_t room = state->conversation_room_ > 0 ? 2 * state->conversation_room_ : 16;
        struct state_conversation *grown =
            realloc(state->conversations, room * sizeof *state->conversations);

        if (grown == NULL) {
            return NULL;
        }
        state->conversations = grown;
        state->conversation_room_ = room;
    }

    const size_t at = conversation_place(state, id);

    memmove(&state->conversations[at + 1], &state->conversations[at],
            (state->conversation_count - at) * sizeof *state->conversations);
    state->conversation_count++;
    state->conversations[at] = (struct state_conversation){ .id = id };
    return &state->conversations[at];
}

static bool add_place(struct state *state, uint64_t seq, uint64_t offset)
{
    if (state->place_count == state->place_room_) {
        const size_t room = state->place_room_ > 0 ? 2 * state->place_room_ : 64;
        struct state_place *grown = realloc(state->places, room * sizeof *state->places);

        if (grown == NULL) {
            return false;
        }
        state->places = grown;
        state->place_room_ = room;
    }
    state->places[state->place_count++] = (struct state_place){ .seq = seq, .offset = offset };
    return true;
}

/* The entry of an ENTRY record; the caller checks what it must be. */
static bool decode_entry(const struct batch_record *record, struct state_message *message)
{
    struct frame_view view;
    struct message_entries entries;

    if (record->byte_count < ENTRY_HEAD_BYTES) {
        return false;
    }
    message->unix_ms = load_be64(record->bytes);
    message->counted = (record->bytes[8] & ENTRY_UNCOUNTED) == 0;
    return frame_parse(record->bytes + ENTRY_HEAD_BYTES, record->byte_count - ENTRY_HEAD_BYTES,
                       &view) == FRAME_OK &&
           view.type == FRAME_TYPE_ENTRIES && message_decode_entries(&view, &entries) == CODE_OK &&
           entries.count == 1 && entries_next(&entries, &message->seq, &message->entry) &&
           message->entry.form != ENTRY_SENT;
}

static bool apply_message(struct state *state, const struct state_message *message)
{
    const struct entry_message *of = &message->entry.message;
    struct state_conversation *conversation = make_conversation(state, of->conversation);

    if (conversation == NULL) {
        return false;
    }
    conversation->seq = message->seq;
    conversation->n = of->n;
    conversation->cn = of->cn;
    conversation->counted = message->counted;
    conversation->unix_ms = message->unix_ms;
    if ((of->flags & ENTRY_FLAG_OWN) != 0) {
        for (struct state_send *send = state->sends; send != NULL; send = send->next) {
            if (memcmp(&send->nonce, &of->nonce, sizeof of->nonce) == 0) {
                remove_send(state, send);
                break;
            }
        }
    }
    return true;
}

static bool apply_entry(struct state *state, const struct batch_record *record)
{
    struct state_message message;

    if (!decode_entry(record, &message) || message.seq != state->cursor.seq + 1 ||
        !add_place(state, message.seq, record->offset)) {
        return false;
    }
    state->live_bytes_ += record->byte_count;
    state->cursor.seq = message.seq;
    return message.entry.form != ENTRY_MESSAGE || apply_message(state, &message);
}

/* ---- the account */

static bool apply_account(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    if (byte_count <= ACCOUNT_HEAD_BYTES ||
        byte_count - ACCOUNT_HEAD_BYTES > STATE_SERVER_BYTES_MAX) {
        return false;
    }
    state->user.value = load_be64(bytes);
    state->device.value = load_be32(bytes + 8);
    memcpy(state->server, bytes + ACCOUNT_HEAD_BYTES, byte_count - ACCOUNT_HEAD_BYTES);
    state->server[byte_count - ACCOUNT_HEAD_BYTES] = '\0';
    return user_id_valid(state->user) && state->device.value != 0;
}

static bool apply_ca(struct state *state, const uint8_t *bytes, size_t byte_count)
{
    uint8_t *ca = malloc(byte_count + 1);

    if (ca == NULL) {
        return false;
    }
    memcpy(ca, bytes, byte_count);
    ca[byte_count] = '\0';
    free(state->ca);
    state->ca = ca;
    state->ca_bytes = byte_count;
    return true;
}

static bool apply_token(uint8_t *token, uint16_t *token_bytes, const uint8_t *bytes,
                        size_t byte_count)
{
    if (byte_count > TOKEN_BYTES_MAX) {
        return false;
    }
    memcpy(token, bytes, byte_count);
    *token_bytes = (uint16_t)byte_count;
    return true;
}

bool state_apply(struct state *state, const struct batch_record *record)
{
    const uint8_t *bytes = record->bytes;
    const size_t byte_count = record->byte_count;

    switch (record->type) {
    case RECORD_ACCOUNT:
        return apply_account(state, bytes, byte_count);
    case RECORD_CA:
        return apply_ca(state, bytes, byte_count);
    case RECORD_LOGIN_TOKEN:
        return apply_token(state->login_token, &state->login_token_bytes, bytes, byte_count);
    case RECORD_RESUME_TOKEN:
        return apply_token(state->resume_token, &state->resume_token_bytes, bytes, byte_count);
    case RECORD_RESET:
        return apply_reset(state, bytes, byte_count);
    case RECORD_ENTRY:
        return apply_entry(state, record);
    case RECORD_SEND:
        return apply_send(state, bytes, byte_count);
    case RECORD_ANSWER:
        return apply_answer(state, bytes, byte_count);
    case RECORD_DISMISSED:
        return apply_dismissed(state, bytes, byte_count);
    case RECORD_RENUMBERED:
        return apply_renumbered(state, bytes, byte_count);
    case RECORD_SEEN:
        state->seen_seq = byte_count == 8 ? load_be64(bytes) : state->seen_seq;
        return byte_count == 8;
    case RECORD_COUNTER:
        return apply_counter(state, bytes, byte_count);
    default:
        return false;
    }
}

/* ---- changes */

bool state_put(struct state *state, enum record_type type, const void *head, size_t head_bytes,
               const void *body, size_t body_bytes)
{
    struct batch_record record;

    /* By the code that will read it: what can't be read back is never written. */
    if (!batch_file_add(&state->file, (uint8_t)type, head, head_bytes, body, body_bytes, &record) ||
        !state_apply(state, &record)) {
        state->file.broken = true;
        return false;
    }
    return true;
}

bool state_put_account(struct state *state, const char *server, struct user_id user,
                       struct device_id device)
{
    uint8_t head[ACCOUNT_HEAD_BYTES];

    store_be64(head, user.value);
    store_be32(head + 8, device.value);
    return state_put(state, RECORD_ACCOUNT, head, sizeof head, server, strlen(server));
}

bool state_put_ca(struct state *state, const uint8_t *pem, size_t pem_bytes)
{
    return state_put(state, RECORD_CA, NULL, 0, pem, pem_bytes);
}

bool state_put_login_token(struct state *state, struct message_bytes token)
{
    return state_put(state, RECORD_LOGIN_TOKEN, NULL, 0, token.bytes, token.byte_count);
}

bool state_put_resume_token(struct state *state, struct message_bytes token)
{
    return state_put(state, RECORD_RESUME_TOKEN, NULL, 0, token.bytes, token.byte_count);
}

void state_encode_send(const struct state_send *send, uint8_t head[SEND_HEAD_BYTES])
{
    store_be64(head, send->tag);
    store_be64(head + 8, send->counter);
    store_be64(head + 16, send->conversation.value);
    store_be64(head + 24, send->queued_unix_ms);
    memcpy(head + 32, send->nonce.bytes, NONCE_BYTES);
    head[32 + NONCE_BYTES] = send->kind;
    head[32 + NONCE_BYTES + 1] = send->cut ? SEND_CUT : 0;
}

bool state_put_send(struct state *state, struct state_send *send, const uint8_t *body)
{
    uint8_t head[SEND_HEAD_BYTES];

    send->tag = state->last_tag + 1;
    state_encode_send(send, head);
    return state_put(state, RECORD_SEND, head, sizeof head, body, send->body_bytes);
}

void state_encode_answer(const struct state_send *send, uint8_t head[ANSWER_BYTES])
{
    store_be64(head, send->tag);
    store_be64(head + 8, send->id);
    store_be64(head + 16, send->seq);
    store_be16(head + 24, send->code);
    head[26] = send->status;
}

bool state_put_answer(struct state *state, uint64_t tag, enum state_send_status status,
                      uint16_t code, uint64_t id, uint64_t seq)
{
    uint8_t head[ANSWER_BYTES];
    const struct state_send answer = {
        .tag = tag, .id = id, .seq = seq, .code = code, .status = (uint8_t)status
    };

    state_encode_answer(&answer, head);
    return state_put(state, RECORD_ANSWER, head, sizeof head, NULL, 0);
}

static bool put_number(struct state *state, enum record_type type, uint64_t number)
{
    uint8_t head[8];

    store_be64(head, number);
    return state_put(state, type, head, sizeof head, NULL, 0);
}

bool state_put_dismissed(struct state *state, uint64_t tag)
{
    return put_number(state, RECORD_DISMISSED, tag);
}

bool state_put_renumbered(struct state *state, uint64_t counter)
{
    return put_number(state, RECORD_RENUMBERED, counter);
}

bool state_put_seen(struct state *state, uint64_t seq)
{
    return seq <= state->seen_seq || put_number(state, RECORD_SEEN, seq);
}

/* The message that a SENT entry is short for: the send says what, the conversation says where. */
static void complete_sent(const struct state *state, const struct state_send *send,
                          const struct entry_sent *sent, struct state_message *message)
{
    const struct state_conversation *conversation = find_conversation(state, send->conversation);

    message->counted = conversation != NULL ? conversation->counted : state->complete;
    message->entry = (struct entry){
        .form = ENTRY_MESSAGE,
        .message = { .flags = ENTRY_FLAG_OWN,
                     .kind = send->kind,
                     .device = state->device,
                     .id = sent->id,
                     .conversation = send->conversation,
                     .sender = state->user,
                     .prev = conversation != NULL ? conversation->seq : 0,
                     .n = conversation != NULL && message->counted ? conversation->n + 1 : 1,
                     .cn = conversation != NULL && message->counted ? conversation->cn : 0,
                     .body = { send->body, send->body_bytes },
                     .nonce = send->nonce,
                     .counter = sent->counter },
    };
}

enum state_entry_result state_put_entry(struct state *state, uint64_t seq,
                                        const struct entry *entry, uint64_t tag, uint64_t unix_ms)
{
    struct state_message message = { .counted = true, .entry = *entry };
    uint8_t head[ENTRY_HEAD_BYTES];
    uint8_t *frame;
    struct entries_builder builder;
    bool put = false;

    if (entry->form == ENTRY_SENT) {
        const struct state_send *send = state->sends;

        while (send != NULL &&
               (tag != 0 ? send->tag != tag
                         : send->status != STATE_SEND_ACCEPTED || send->seq != seq)) {
            send = send->next;
        }
        if (send == NULL) {
            return STATE_ENTRY_UNKNOWN;
        }
        complete_sent(state, send, &entry->sent, &message);
    }
    frame = malloc(FRAME_BYTES_MAX);
    if (frame == NULL) {
        return STATE_ENTRY_NO_MEMORY;
    }
    store_be64(head, unix_ms);
    head[8] = message.counted ? 0 : ENTRY_UNCOUNTED;
    entries_begin(&builder, frame, FRAME_BYTES_MAX, seq);
    if (entries_add(&builder, &message.entry)) {
        const size_t frame_bytes = entries_end(&builder);

        put = state_put(state, RECORD_ENTRY, head, sizeof head, frame, frame_bytes);
    }
    free(frame);
    return put ? STATE_ENTRY_OK : STATE_ENTRY_NO_MEMORY;
}

/* ---- looking */

size_t state_place_after(const struct state *state, uint64_t seq)
{
    size_t low = 0;
    size_t high = state->place_count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (state->places[middle].seq <= seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int state_read(const struct state *state, size_t index, uint8_t buffer[STATE_MESSAGE_BYTES],
               struct state_message *message, struct hf_error *error)
{
    struct batch_record record;

    HF_ASSERT(index < state->place_count);
    if (batch_file_read(&state->file, state->places[index].offset, buffer, STATE_MESSAGE_BYTES,
                        &record, error) != 0) {
        return -1;
    }
    if (record.type != RECORD_ENTRY || !decode_entry(&record, message) ||
        message->seq != state->places[index].seq) {
        hf_error_set(error, EX_DATAERR, 0, "%s: an entry has changed on disk", state->file.path);
        return -1;
    }
    return 0;
}

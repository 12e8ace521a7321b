/* libholdfast: what the machine says is written down, then told to the program. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "client/holdfast.h"
#include "client/library.h"
#include "core/base/check.h"
#include "proto/codes.h"

#define MESSAGE_ID_TIME_SHIFT (PARTITION_BITS + MESSAGE_COUNT_BITS)

/* ---- events that wait */

bool library_queue(struct hf_client *client, const struct hf_event *event)
{
    struct library_event *queued = calloc(1, sizeof *queued + event->body_bytes);

    if (queued == NULL) {
        return false;
    }
    queued->after_seq = client->state.cursor.seq;
    queued->event = *event;
    if (event->body_bytes > 0) {
        memcpy(queued->body, event->body, event->body_bytes);
    }
    queued->event.body = queued->body;
    (void)snprintf(queued->text, sizeof queued->text, "%s", event->text != NULL ? event->text : "");
    queued->event.text = queued->text;
    *client->events_end = queued;
    client->events_end = &queued->next;
    return true;
}

static uint64_t time_of(struct message_id id)
{
    return (id.value >> MESSAGE_ID_TIME_SHIFT) + MESSAGE_ID_EPOCH_MS;
}

static void fill_from_message(struct hf_event *event, uint64_t seq,
                              const struct entry_message *message, bool counted)
{
    const bool own = (message->flags & ENTRY_FLAG_OWN) != 0;

    *event = (struct hf_event){
        .kind = HF_EVENT_MESSAGE,
        .flags = (own ? HF_OWN : 0U) | (counted ? 0U : HF_UNCOUNTED),
        .seq = seq,
        .id = message->id.value,
        .conversation = message->conversation.value,
        .sender = message->sender.value,
        .device = message->device.value,
        .message_kind = message->kind,
        .n = counted ? message->n : 0,
        .cn = counted ? message->cn : 0,
        .prev_seq = counted ? message->prev : 0,
        .sent_unix_ms = time_of(message->id),
        .body = message->body.bytes,
        .body_bytes = message->body.byte_count,
        .text = "",
    };
}

void library_fill_message(struct hf_event *event, const struct state_message *message)
{
    if (message->entry.form == ENTRY_MESSAGE) {
        fill_from_message(event, message->seq, &message->entry.message, message->counted);
        return;
    }

    const struct entry_refused *refused = &message->entry.refused;

    *event = (struct hf_event){
        .kind = HF_EVENT_REFUSED,
        .code = refused->code,
        .seq = message->seq,
        .id = refused->id.value,
        .conversation = refused->conversation.value,
        .ref_seq = refused->ref_seq,
        .sent_unix_ms = message->unix_ms,
        .text = code_text(refused->code),
    };
}

bool library_queue_undismissed(struct hf_client *client)
{
    for (const struct state_send *send = client->state.sends; send != NULL; send = send->next) {
        const struct hf_event event = {
            .kind = send->status == STATE_SEND_REJECTED ? HF_EVENT_REJECTED : HF_EVENT_UNKNOWN_FATE,
            .tag = send->tag,
            .code = send->code,
            .conversation = send->conversation.value,
            .text = hf_code_text(send->code),
        };

        if ((send->status == STATE_SEND_REJECTED || send->status == STATE_SEND_UNKNOWN) &&
            !library_queue(client, &event)) {
            return false;
        }
    }
    return true;
}

/* The next message on disk up to `limit` that wasn't an event yet. HF_NONE: none. */
static int next_message(struct hf_client *client, uint64_t limit, struct hf_event *event)
{
    const struct state *state = &client->state;
    const size_t index = state_place_after(state, client->delivered_seq);

    if (index >= state->place_count || state->places[index].seq > limit) {
        return HF_NONE;
    }

    const int result = hf_stored(client, client->delivered_seq, event);

    if (result == HF_OK) {
        client->delivered_seq = event->seq;
    }
    return result;
}

int hf_next_event(struct hf_client *client, struct hf_event *event)
{
    struct library_event *queued = client->events;

    free(client->taken);
    client->taken = NULL;
    if (client->failed) {
        return HF_STORAGE;
    }

    /* Messages and the rest in the order in which they came. */
    const int result = next_message(client, queued != NULL ? queued->after_seq : UINT64_MAX, event);

    if (result != HF_NONE || queued == NULL) {
        return result;
    }
    client->events = queued->next;
    if (client->events == NULL) {
        client->events_end = &client->events;
    }
    client->taken = queued;
    *event = queued->event;
    return HF_OK;
}

/* ---- what the machine says */

static bool on_online(struct hf_client *client, const struct client_event *from,
                      struct hf_error *error)
{
    const bool anew = from->online.reset == CLIENT_RESET_ANEW;
    struct hf_event event = { .kind = HF_EVENT_ONLINE };

    client->said[0] = '\0';
    client->alternative[0] = '\0';
    if (from->online.reset != CLIENT_RESET_NONE &&
        state_reset(&client->state, from->online.cursor, from->online.reset != CLIENT_RESET_GAP,
                    from->online.cut, from->online.recounting, error) != 0) {
        return false;
    }
    if (from->online.reset == CLIENT_RESET_ANEW || from->online.reset == CLIENT_RESET_FIRST) {
        client->delivered_seq = client->state.cursor.seq;
        for (struct library_event *old = client->events; old != NULL; old = old->next) {
            old->after_seq = 0; /* the messages that went before them are gone */
        }
    }
    if (!library_queue(client, &event)) {
        return false;
    }
    if (anew || from->online.reset == CLIENT_RESET_GAP) {
        event = (struct hf_event){
            .kind = anew ? HF_EVENT_ANEW : HF_EVENT_GAP,
            .first_seq = anew ? 0 : from->online.gap_first,
            .last_seq = anew ? 0 : from->online.gap_last,
        };
        return library_queue(client, &event);
    }
    return true;
}

static bool on_resume_token(struct hf_client *client, struct message_bytes token)
{
    struct state *state = &client->state;

    if (!state_put_resume_token(state, token)) {
        return false;
    }
    client_set_resume_token(
        &client->machine,
        (struct message_bytes){ state->resume_token_bytes > 0 ? state->resume_token : NULL,
                                state->resume_token_bytes });
    return true;
}

static bool queue_answer(struct hf_client *client, enum hf_event_kind kind,
                         const struct client_event *from)
{
    const struct state_send *send = state_find_send(&client->state, from->answer.tag);
    const struct hf_event event = {
        .kind = kind,
        .code = from->answer.code,
        .tag = from->answer.tag,
        .seq = from->answer.seq,
        .id = from->answer.id.value,
        .conversation = send != NULL ? send->conversation.value : 0,
        .retry_in_ms = from->answer.retry_ms,
        .text = hf_code_text(from->answer.code),
    };

    return library_queue(client, &event);
}

static bool on_answer(struct hf_client *client, const struct client_event *from)
{
    struct state *state = &client->state;
    const uint64_t tag = from->answer.tag;
    struct client_event unknown;

    if (from->kind == CLIENT_EVENT_ACCEPTED) {
        return queue_answer(client, HF_EVENT_ACCEPTED, from) &&
               state_put_answer(state, tag, STATE_SEND_ACCEPTED, 0, from->answer.id.value,
                                from->answer.seq);
    }
    if (from->kind == CLIENT_EVENT_REJECTED) {
        return queue_answer(client, HF_EVENT_REJECTED, from) &&
               state_put_answer(state, tag, STATE_SEND_REJECTED, from->answer.code, 0, 0);
    }
    if (from->kind == CLIENT_EVENT_UNKNOWN_FATE) {
        unknown = (struct client_event){ .kind = from->kind, .answer = { .tag = tag } };
        return queue_answer(client, HF_EVENT_UNKNOWN_FATE, &unknown) &&
               state_put_answer(state, tag, STATE_SEND_UNKNOWN, 0, 0, 0);
    }
    return queue_answer(client, HF_EVENT_DELAYED, from);
}

static bool on_entry(struct hf_client *client, const struct client_event *from)
{
    const uint64_t tag = from->entry.tag;

    if (client->drop) {
        return true; /* comes again, whole, on the next connection */
    }
    if (tag != 0) {
        const struct client_event answer = {
            .kind = CLIENT_EVENT_ACCEPTED,
            .answer = { .tag = tag,
                        .seq = from->entry.seq,
                        .id = from->entry.entry.form == ENTRY_SENT ? from->entry.entry.sent.id
                                                                   : from->entry.entry.message.id },
        };

        if (!queue_answer(client, HF_EVENT_ACCEPTED, &answer)) {
            return false;
        }
    }
    switch (state_put_entry(&client->state, from->entry.seq, &from->entry.entry, tag,
                            library_now_unix_ms())) {
    case STATE_ENTRY_OK:
        return true;
    case STATE_ENTRY_UNKNOWN:
        client->drop = true;
        return true;
    case STATE_ENTRY_NO_MEMORY:
        break;
    }
    return false;
}

/* After a restored server's catch-up: what it had accepted, and doesn't have any more. */
static bool on_caught_up(struct hf_client *client)
{
    const struct hf_event event = { .kind = HF_EVENT_CAUGHT_UP };

    for (struct state_send *send = client->state.sends; send != NULL; send = send->next) {
        if (send->status == STATE_SEND_ACCEPTED && send->seq == 0) {
            const struct client_event unknown = { .kind = CLIENT_EVENT_UNKNOWN_FATE,
                                                  .answer = { .tag = send->tag } };

            if (!on_answer(client, &unknown)) {
                return false;
            }
        }
    }
    return library_queue(client, &event);
}

static bool on_page(struct hf_client *client, const struct client_event *from)
{
    struct message_page page = from->page;
    struct entry_message message;
    struct hf_event event;
    uint64_t seq;

    while (page_next(&page, &seq, &message)) {
        fill_from_message(&event, seq, &message, true);
        event.kind = HF_EVENT_HISTORY;
        event.request = page.request;
        if (!library_queue(client, &event)) {
            return false;
        }
    }
    event = (struct hf_event){
        .kind = HF_EVENT_HISTORY_END,
        .flags = ((page.flags & PAGE_FLAG_MORE) != 0 ? HF_MORE : 0U) |
                 ((page.flags & PAGE_FLAG_TRIMMED) != 0 ? HF_TRIMMED : 0U),
        .request = page.request,
        .conversation = page.conversation.value,
    };
    return library_queue(client, &event);
}

static bool on_error(struct hf_client *client, const struct message_error *error)
{
    struct hf_event event = { .kind = HF_EVENT_NOTICE, .code = error->code, .text = client->said };

    if (error->text.byte_count > 0) {
        (void)snprintf(client->said, sizeof client->said, "%.*s", (int)error->text.byte_count,
                       (const char *)error->text.bytes);
    } else {
        (void)snprintf(client->said, sizeof client->said, "%s", code_text(error->code));
    }
    return error->fatal || library_queue(client, &event);
}

static bool on_goaway(struct hf_client *client, const struct message_goaway *goaway)
{
    const struct hf_event event = {
        .kind = HF_EVENT_NOTICE,
        .code = CODE_GOING_AWAY,
        .retry_in_ms = goaway->wait_max_ms,
        .text = code_text(CODE_GOING_AWAY),
    };

    (void)snprintf(client->alternative, sizeof client->alternative, "%.*s",
                   (int)goaway->alternative.byte_count,
                   goaway->alternative.byte_count > 0 ? (const char *)goaway->alternative.bytes
                                                      : "");
    return library_queue(client, &event);
}

static const char *text_of_end(const struct hf_client *client, const struct client_event *from)
{
    switch (from->offline.why) {
    case CLIENT_WHY_TIMEOUT:
        return "nothing came from the server for too long";
    case CLIENT_WHY_VIOLATION:
        return "the server broke the protocol";
    case CLIENT_WHY_ERROR:
        return client->said[0] != '\0' ? client->said : code_text(from->offline.code);
    case CLIENT_WHY_GOAWAY:
        return "the server is going away";
    case CLIENT_WHY_LEFT:
        return "left";
    case CLIENT_WHY_LOST:
        break;
    }
    if (client->drop) {
        return "the server answered a message that isn't here";
    }
    return client->transport != NULL && transport_text(client->transport)[0] != '\0'
               ? transport_text(client->transport)
               : "the connection was lost";
}

static bool on_offline(struct hf_client *client, const struct client_event *from)
{
    const struct hf_event event = {
        .kind = HF_EVENT_OFFLINE,
        .code = from->offline.code,
        .flags = (from->offline.stopped ? HF_STOPPED : 0U) |
                 (from->offline.needs_token ? HF_NEEDS_TOKEN : 0U) |
                 (from->offline.why == CLIENT_WHY_ERROR && from->offline.code == CODE_REPLACED
                      ? HF_REPLACED
                      : 0U) |
                 (client->transport != NULL && transport_untrusted(client->transport) ? HF_UNTRUSTED
                                                                                      : 0U),
        .retry_in_ms = from->offline.retry_in_ms,
        .text = text_of_end(client, from),
    };

    if (from->offline.needs_token &&
        !state_put_login_token(&client->state, (struct message_bytes){ NULL, 0 })) {
        return false;
    }
    return library_queue(client, &event);
}

static bool on_event(struct hf_client *client, const struct client_event *from,
                     struct hf_error *error)
{
    const struct hf_event failed = {
        .kind = HF_EVENT_HISTORY_FAILED,
        .code = from->failed.code,
        .request = from->failed.request,
        .retry_in_ms = from->failed.retry_ms,
        .text = from->failed.code != 0 ? code_text(from->failed.code) : "the connection was lost",
    };

    const struct hf_event wanted = {
        .kind = HF_EVENT_TOKEN_WANTED,
        .retry_in_ms = from->left_ms,
        .text = "the login ends soon, unless a new token is given",
    };

    switch (from->kind) {
    case CLIENT_EVENT_ONLINE:
        return on_online(client, from, error);
    case CLIENT_EVENT_RESUME_TOKEN:
        return on_resume_token(client, from->token);
    case CLIENT_EVENT_TOKEN_WANTED:
        return library_queue(client, &wanted);
    case CLIENT_EVENT_CAUGHT_UP:
        return on_caught_up(client);
    case CLIENT_EVENT_ENTRY:
        return on_entry(client, from);
    case CLIENT_EVENT_ACCEPTED:
    case CLIENT_EVENT_REJECTED:
    case CLIENT_EVENT_DELAYED:
    case CLIENT_EVENT_UNKNOWN_FATE:
        return on_answer(client, from);
    case CLIENT_EVENT_RENUMBERED:
        return state_put_renumbered(&client->state, from->counter);
    case CLIENT_EVENT_PAGE:
        return on_page(client, from);
    case CLIENT_EVENT_REQUEST_FAILED:
        return library_queue(client, &failed);
    case CLIENT_EVENT_ERROR:
        return on_error(client, &from->error);
    case CLIENT_EVENT_GOAWAY:
        return on_goaway(client, &from->goaway);
    case CLIENT_EVENT_OFFLINE:
        return on_offline(client, from);
    }
    HF_ASSERT(false && "an event");
    return false;
}

int library_take_events(struct hf_client *client)
{
    struct client_event event;
    struct hf_error error;

    while (client_next_event(&client->machine, &event)) {
        hf_error_set(&error, EX_OSERR, ENOMEM, "%s", client->state.file.path);
        if (!on_event(client, &event, &error)) {
            return library_fail_error(client, &error);
        }
    }
    return HF_OK;
}

/* The machine's events, handed out one at a time; and what falls due between them. */
#include <string.h>

#include "client/client.h"
#include "client/client_private.h"

/* The unanswered send with this nonce, written or not; count_ if there is none. */
static uint32_t find_nonce(const struct client *client, const struct nonce *nonce)
{
    for (uint32_t i = 0; i < client->count_; i++) {
        const struct client_send *slot = client_slot(client, i);

        if (slot->state_ != SEND_EMPTY && memcmp(&slot->nonce, nonce, sizeof *nonce) == 0) {
            return i;
        }
    }
    return client->count_;
}

/* Sets `tag` to the send that this entry answers, or 0. False: it can't be. */
static bool match_entry(struct client *client, const struct entry *entry, uint64_t *tag)
{
    uint32_t at = client->count_;

    *tag = 0;
    switch (entry->form) {
    case ENTRY_SENT:
        if (entry->sent.counter > client->written_counter_max_) {
            return false;
        }
        at = client_find_written(client, entry->sent.counter);
        break;
    case ENTRY_MESSAGE:
        if ((entry->message.flags & ENTRY_FLAG_OWN) != 0 && client->count_ > 0) {
            at = find_nonce(client, &entry->message.nonce);
        }
        break;
    case ENTRY_REFUSED:
        break;
    }
    if (at < client->count_) {
        const struct client_send *slot = client_slot(client, at);

        *tag = slot->tag;
        if (slot->state_ == SEND_WRITTEN) {
            client_count_answer(client, slot->counter);
        }
        client_forget_send(client, at);
    }
    return true;
}

static bool next_entry(struct client *client, struct client_event *event)
{
    struct message_entries *entries = &client->scratch_->in.entries;

    if (!entries_next(entries, &event->entry.seq, &event->entry.entry)) {
        client->events_ &= ~(uint32_t)EVENT_ENTRIES;
        return false;
    }
    if (!match_entry(client, &event->entry.entry, &event->entry.tag)) {
        client_end(client, CLIENT_WHY_VIOLATION, CODE_BAD_FIELD);
        client->events_ &= ~(uint32_t)EVENT_ENTRIES;
        return false;
    }
    HF_ASSERT(event->entry.seq == client->cursor_.seq + 1);
    client->cursor_.seq = event->entry.seq;
    event->kind = CLIENT_EVENT_ENTRY;
    return true;
}

/* After the catch-up: what the log didn't show is sent under new counters, or its fate is unknown.
 */
static void end_recount(struct client *client)
{
    client->recounting_ = false;
    client->paused_ = false;
    for (uint32_t i = 0; i < client->count_; i++) {
        struct client_send *slot = client_slot(client, i);

        if (slot->state_ != SEND_EMPTY && slot->cut) {
            slot->state_ = SEND_UNKNOWN;
            client->events_ |= EVENT_UNKNOWN_FATE;
        }
    }
    (void)client_renumber(client, client->next_counter_);
    client->events_ |= EVENT_RENUMBERED; /* even if no number is another: it ends the recount */
}

/* What is due when all events are taken; true: there are new ones. */
static bool settle(struct client *client)
{
    if (client->state_ != CLIENT_LIVE && client->state_ != CLIENT_LEAVING) {
        return false;
    }
    if (client->online_ && !client->caught_up_ && client->cursor_.seq >= client->head_) {
        client->caught_up_ = true;
        client->events_ |= EVENT_CAUGHT_UP;
    }
    if (client->state_ == CLIENT_LIVE && client->outstanding_ == 0) {
        if (client->recounting_ && client->caught_up_) {
            end_recount(client);
        } else if (!client->recounting_ && client->paused_ &&
                   client->now_ms_ >= client->resume_at_ms_) {
            client->paused_ = false;
            if (client_renumber(client, client->next_counter_)) {
                client->events_ |= EVENT_RENUMBERED;
            }
        }
    }
    return client->events_ != 0;
}

static bool next_unknown(struct client *client, struct client_event *event)
{
    for (uint32_t i = 0; i < client->count_; i++) {
        const struct client_send *slot = client_slot(client, i);

        if (slot->state_ == SEND_UNKNOWN) {
            event->kind = CLIENT_EVENT_UNKNOWN_FATE;
            event->answer.tag = slot->tag;
            event->answer.counter = slot->counter;
            client_forget_send(client, i);
            return true;
        }
    }
    client->events_ &= ~(uint32_t)EVENT_UNKNOWN_FATE;
    return false;
}

static bool next_lost_request(struct client *client, struct client_event *event)
{
    for (uint32_t i = 0; i < REQUESTS_OUTSTANDING_MAX; i++) {
        struct client_request *request = &client->requests_->request[i];

        if (request->history.request != 0) {
            event->kind = CLIENT_EVENT_REQUEST_FAILED;
            event->failed.request = request->history.request;
            event->failed.code = CODE_OK;
            event->failed.retry_ms = 0;
            request->history.request = 0;
            return true;
        }
    }
    client->events_ &= ~(uint32_t)EVENT_REQUESTS_LOST;
    return false;
}

static void fill_online(const struct client *client, struct client_event *event)
{
    const struct client_scratch *scratch = client->scratch_;

    event->kind = CLIENT_EVENT_ONLINE;
    event->online.cursor = client->cursor_;
    event->online.head = scratch->in.hello_ok.head;
    event->online.floor = scratch->in.hello_ok.floor;
    event->online.time_unix_ms = scratch->in.hello_ok.time_unix_ms;
    event->online.gap_first = scratch->gap_first;
    event->online.gap_last = scratch->gap_last;
    event->online.reset = (enum client_reset)scratch->reset;
    event->online.cut = scratch->cut;
    event->online.recounting = client->recounting_;
}

static void fill_answer(const struct client *client, struct client_event *event)
{
    const struct client_scratch *scratch = client->scratch_;

    event->kind = (enum client_event_kind)scratch->answer;
    event->answer.tag = scratch->tag;
    event->answer.counter = scratch->counter;
    event->answer.id.value = scratch->id;
    event->answer.seq = scratch->seq;
    event->answer.code = scratch->code;
    event->answer.retry_ms = scratch->retry_ms;
}

static void fill_offline(const struct client *client, struct client_event *event)
{
    event->kind = CLIENT_EVENT_OFFLINE;
    event->offline.why = (enum client_why)client->end_;
    event->offline.code = client->end_code_;
    event->offline.stopped = client->state_ == CLIENT_STOPPED;
    event->offline.needs_token = client->needs_token_;
    event->offline.retry_in_ms =
        event->offline.stopped ? 0 : client->connect_at_ms_ - client->now_ms_;
    event->offline.failures = client->failures_;
}

/* Those that come one a frame. */
static void fill_event(const struct client *client, uint32_t bit, struct client_event *event)
{
    const struct client_scratch *scratch = client->scratch_;

    switch (bit) {
    case EVENT_ERROR:
        event->kind = CLIENT_EVENT_ERROR;
        event->error = scratch->in.error;
        break;
    case EVENT_GOAWAY:
        event->kind = CLIENT_EVENT_GOAWAY;
        event->goaway = scratch->in.goaway;
        break;
    case EVENT_ONLINE:
        fill_online(client, event);
        break;
    case EVENT_TOKEN:
        event->kind = CLIENT_EVENT_RESUME_TOKEN;
        event->token = scratch->in.hello_ok.resume_token;
        break;
    case EVENT_FORGET_TOKEN:
        event->kind = CLIENT_EVENT_RESUME_TOKEN;
        event->token = (struct message_bytes){ NULL, 0 };
        break;
    case EVENT_ANSWER:
        fill_answer(client, event);
        break;
    case EVENT_PAGE:
        event->kind = CLIENT_EVENT_PAGE;
        event->page = scratch->in.page;
        break;
    case EVENT_REQUEST_FAILED:
        event->kind = CLIENT_EVENT_REQUEST_FAILED;
        event->failed.request = scratch->request;
        event->failed.code = scratch->code;
        event->failed.retry_ms = scratch->retry_ms;
        break;
    case EVENT_RENUMBERED:
        event->kind = CLIENT_EVENT_RENUMBERED;
        event->counter = client->last_counter_ - client_unanswered(client) + 1;
        break;
    case EVENT_TOKEN_WANTED:
        event->kind = CLIENT_EVENT_TOKEN_WANTED;
        event->left_ms = client->life_end_at_ms_ > client->now_ms_
                             ? client->life_end_at_ms_ - client->now_ms_
                             : 0;
        break;
    case EVENT_CAUGHT_UP:
        event->kind = CLIENT_EVENT_CAUGHT_UP;
        break;
    case EVENT_OFFLINE:
        fill_offline(client, event);
        break;
    default:
        HF_ASSERT(false && "an event");
    }
}

bool client_next_event(struct client *client, struct client_event *event)
{
    while (client->events_ != 0 || settle(client)) {
        const uint32_t bit = client->events_ & (~client->events_ + 1); /* the lowest */

        if (bit == EVENT_ENTRIES) {
            if (next_entry(client, event)) {
                return true;
            }
        } else if (bit == EVENT_UNKNOWN_FATE) {
            if (next_unknown(client, event)) {
                return true;
            }
        } else if (bit == EVENT_REQUESTS_LOST) {
            if (next_lost_request(client, event)) {
                return true;
            }
        } else {
            client->events_ &= ~bit;
            fill_event(client, bit, event);
            return true;
        }
    }
    return false;
}

#include "client/client.h"

#include <string.h>

#include "client/client_private.h"

void client_init(struct client *client, const struct client_options *options)
{
    HF_ASSERT(user_id_valid(options->user) && options->device.value != 0);
    HF_ASSERT(options->scratch != NULL);
    HF_ASSERT(options->sends != NULL || options->sends_capacity == 0);

    memset(client, 0, sizeof *client);
    client->sends_ = options->sends;
    client->sends_capacity_ = options->sends_capacity;
    client->requests_ = options->requests;
    client->scratch_ = options->scratch;
    client->login_token_ = options->login_token;
    client->resume_token_ = options->resume_token;
    client->name_ = options->name;
    client->user_ = options->user;
    client->device_ = options->device;
    client->cursor_ = options->cursor;
    client->stored_seq_ = options->cursor.seq;
    client->last_counter_ = options->last_counter;
    client->recounting_ = options->recounting;
    client->window_wish_ = options->window;
    client->jitter_ = options->jitter_seed;
    client->outstanding_max_ = SENDS_OUTSTANDING_MAX;
    client->body_bytes_max_ = BODY_BYTES_MAX;
    client->state_ = CLIENT_STOPPED;
    client->resume_at_ms_ = 0;
}

/* ---- the ring of sends */

static struct client_send *append_send(struct client *client, const struct client_send *send)
{
    HF_ASSERT(send->tag != 0 && send->kind <= KIND_MAX);

    client->count_++;

    struct client_send *slot = client_slot(client, client->count_ - 1);

    *slot = *send;
    slot->state_ = SEND_QUEUED;
    slot->code_ = 0;
    return slot;
}

bool client_restore(struct client *client, const struct client_send *send)
{
    HF_ASSERT(client->state_ == CLIENT_STOPPED && send->counter != 0);
    HF_ASSERT(client->count_ == 0 ||
              client_slot(client, client->count_ - 1)->counter < send->counter);

    if (client->count_ == client->sends_capacity_) {
        return false;
    }

    struct client_send *slot = append_send(client, send);

    slot->maybe_written = true; /* this copy of the state may not be the one that wrote it */
    if (client->last_counter_ < slot->counter) {
        client->last_counter_ = slot->counter;
    }
    return true;
}

void client_grow(struct client *client, struct client_send *sends, uint32_t sends_capacity)
{
    HF_ASSERT(sends_capacity >= client->sends_capacity_);

    for (uint32_t i = 0; i < client->count_; i++) {
        sends[i] = *client_slot(client, i);
    }
    client->first_ = 0;
    client->sends_ = sends;
    client->sends_capacity_ = sends_capacity;
}

enum client_send_result client_send(struct client *client, struct client_send *send)
{
    if (send->body_bytes > client->body_bytes_max_) {
        return CLIENT_SEND_BODY_TOO_LARGE;
    }
    if (client->count_ == client->sends_capacity_) {
        return CLIENT_SEND_FULL;
    }
    send->counter = ++client->last_counter_;
    send->maybe_written = false;
    send->cut = false;
    (void)append_send(client, send);
    return CLIENT_SEND_OK;
}

void client_forget_send(struct client *client, uint32_t offset)
{
    struct client_send *slot = client_slot(client, offset);

    if (slot->state_ == SEND_WRITTEN) {
        HF_ASSERT(client->outstanding_ > 0);
        client->outstanding_--;
    }
    slot->state_ = SEND_EMPTY;
    slot->body = NULL;
    while (client->count_ > 0 && client_slot(client, 0)->state_ == SEND_EMPTY) {
        client->first_ = client->first_ + 1 == client->sends_capacity_ ? 0 : client->first_ + 1;
        client->count_--;
        if (client->next_ > 0) {
            client->next_--;
        }
    }
    if (client->count_ == 0) {
        client->next_ = 0;
    }
}

bool client_withdraw(struct client *client, uint64_t tag)
{
    for (uint32_t i = 0; i < client->count_; i++) {
        const struct client_send *slot = client_slot(client, i);

        if (slot->state_ != SEND_EMPTY && slot->tag == tag) {
            const bool unwritten = slot->state_ == SEND_QUEUED && !slot->maybe_written;

            if (!unwritten && slot->state_ != SEND_REFUSED) {
                return false;
            }
            /* Leaves a hole among the counters, which the server will answer by ORDER. */
            client_forget_send(client, i);
            return true;
        }
    }
    return false;
}

uint32_t client_unanswered(const struct client *client)
{
    uint32_t unanswered = 0;

    for (uint32_t i = 0; i < client->count_; i++) {
        const struct client_send *slot = client_slot(client, i);

        unanswered += slot->state_ != SEND_EMPTY && slot->state_ != SEND_UNKNOWN;
    }
    return unanswered;
}

bool client_renumber(struct client *client, uint64_t counter)
{
    uint32_t kept = 0;
    bool changed = false;

    HF_ASSERT(client->outstanding_ == 0);
    for (uint32_t i = 0; i < client->count_; i++) {
        struct client_send slot = *client_slot(client, i);

        if (slot.state_ == SEND_EMPTY) {
            continue;
        }
        if (slot.state_ != SEND_UNKNOWN) {
            changed = changed || slot.counter != counter;
            slot.counter = counter++;
            slot.state_ = SEND_QUEUED;
        }
        *client_slot(client, kept++) = slot;
    }
    client->count_ = kept;
    client->next_ = 0;
    changed = changed || client->last_counter_ != counter - 1;
    client->last_counter_ = counter - 1;
    return changed;
}

/* ---- receiving */

void client_stored(struct client *client, uint64_t seq)
{
    HF_ASSERT(seq <= client->cursor_.seq);

    if (client->stored_seq_ < seq) {
        client->stored_seq_ = seq;
    }
}

uint32_t client_history(struct client *client, struct conversation_id conversation,
                        enum history_direction direction, uint64_t anchor, uint16_t n,
                        uint32_t bytes)
{
    struct client_requests *requests = client->requests_;
    const uint32_t limit = client->requests_max_ < REQUESTS_OUTSTANDING_MAX
                               ? client->requests_max_
                               : REQUESTS_OUTSTANDING_MAX;

    HF_ASSERT(requests != NULL && n != 0);
    if (client->state_ != CLIENT_LIVE) {
        return 0;
    }
    for (uint32_t i = 0; i < limit; i++) {
        struct client_request *request = &requests->request[i];

        if (request->history.request == 0) {
            requests->last_request_++;
            if (requests->last_request_ == 0) {
                requests->last_request_ = 1;
            }
            request->written_ = false;
            request->history = (struct message_history){
                .request = requests->last_request_,
                .conversation = conversation,
                .direction = direction,
                .anchor = anchor,
                .n = n,
                .bytes = bytes,
            };
            return request->history.request;
        }
    }
    return 0;
}

/* ---- connections */

void client_set_login_token(struct client *client, struct message_bytes token)
{
    client->login_token_ = token;
    client->fresh_login_token_ = token.byte_count > 0;
    if (client->fresh_login_token_ && client->state_ == CLIENT_LIVE && !client->renewing_) {
        client->renewing_ = true;
        client->to_say_ |= SAY_TOKEN;
    }
}

void client_set_resume_token(struct client *client, struct message_bytes token)
{
    client->resume_token_ = token;
}

bool client_start(struct client *client, uint64_t now_ms)
{
    if (client->login_token_.byte_count == 0 && client->resume_token_.byte_count == 0) {
        return false;
    }
    client->now_ms_ = now_ms;
    client->leave_ = false;
    if (client->state_ != CLIENT_STOPPED && client->state_ != CLIENT_WAITING) {
        return true;
    }
    client->state_ = CLIENT_WAITING;
    client->connect_at_ms_ = now_ms;
    client->failures_ = 0;
    client->needs_token_ = false;
    return true;
}

void client_on_connected(struct client *client, uint64_t now_ms)
{
    HF_ASSERT(client->state_ == CLIENT_WAITING);
    HF_ASSERT(client->events_ == 0 && client->outstanding_ == 0);

    client->now_ms_ = now_ms;
    client->state_ = CLIENT_GREETING;
    client->to_say_ = SAY_HELLO;
    client->deadline_at_ms_ = now_ms + CLIENT_GREETING_MS;
    client->last_rx_ms_ = now_ms;
    client->last_tx_ms_ = now_ms;
    client->ping_at_ms_ = 0;
    client->end_ = CLIENT_WHY_LOST;
    client->end_code_ = 0;
    client->acked_seq_ = client->stored_seq_;
    client->unacked_bytes_ = 0;
    client->written_counter_max_ = 0;
    client->wait_min_ms_ = 0;
    client->wait_max_ms_ = 0;
    client->online_ = false;
    client->renewing_ = false;
    client->caught_up_ = false;
    client->token_wanted_ = false;
    client->used_resume_token_ =
        client->resume_token_.byte_count > 0 && !client->fresh_login_token_;
    HF_ASSERT(client->used_resume_token_ || client->login_token_.byte_count > 0);
}

void client_end(struct client *client, enum client_why why, unsigned code)
{
    if (client->state_ != CLIENT_CLOSING) {
        client->state_ = CLIENT_CLOSING;
        client->to_say_ = 0;
        client->end_ = (uint8_t)why;
        client->end_code_ = (uint16_t)code;
    }
}

/* A token that the server didn't take is of no use again. */
static void drop_token(struct client *client)
{
    const bool by_hello = !client->online_;

    if (by_hello && client->used_resume_token_) {
        client->resume_token_ = (struct message_bytes){ NULL, 0 };
        client->events_ |= EVENT_FORGET_TOKEN;
    } else if (by_hello || client->renewing_) {
        client->login_token_ = (struct message_bytes){ NULL, 0 };
        client->fresh_login_token_ = false;
    } /* else the login's life is over; HELLO will tell whether the tokens' is, too */
}

static bool must_stop(struct client *client)
{
    if (client->leave_) {
        return true;
    }
    if (client->end_ == CLIENT_WHY_ERROR) {
        switch (client->end_code_) {
        case CODE_REPLACED: /* by a twin: coming back would replace it, and so on for ever */
        case CODE_VERSION:
        case CODE_TOO_MANY_DEVICES:
            return true;
        case CODE_BAD_TOKEN:
        case CODE_TOKEN_EXPIRED:
            drop_token(client);
            break;
        default:
            break;
        }
    }
    if (client->login_token_.byte_count == 0 && client->resume_token_.byte_count == 0) {
        client->needs_token_ = true;
        return true;
    }
    return false;
}

/* One of the two ends has a fault that the next attempt would only meet again. */
static bool is_fault(const struct client *client)
{
    return client->end_ == CLIENT_WHY_VIOLATION ||
           (client->end_ == CLIENT_WHY_ERROR && client->end_code_ >= CODE_BAD_FRAME &&
            client->end_code_ <= CODE_HELLO_EXPECTED);
}

static uint64_t back_off_ms(struct client *client)
{
    const uint32_t shift = client->failures_ - 1 < CLIENT_BACK_OFF_SHIFT_MAX
                               ? client->failures_ - 1
                               : CLIENT_BACK_OFF_SHIFT_MAX;
    uint64_t span_ms = CLIENT_BACK_OFF_MS << shift;

    if (span_ms > CLIENT_BACK_OFF_MS_MAX || is_fault(client)) {
        span_ms = CLIENT_BACK_OFF_MS_MAX;
    }

    uint64_t wait_ms = client_random(client, span_ms);

    if (client->wait_max_ms_ > 0) {
        const uint64_t told_ms = client->wait_min_ms_ +
                                 client_random(client, client->wait_max_ms_ - client->wait_min_ms_);

        if (wait_ms < told_ms) {
            wait_ms = told_ms;
        }
    }
    return wait_ms;
}

/* What was written on this connection is unanswered for ever there: it will be written again. */
static void rewind_sends(struct client *client)
{
    for (uint32_t i = 0; i < client->count_; i++) {
        struct client_send *slot = client_slot(client, i);

        if (slot->state_ == SEND_WRITTEN || slot->state_ == SEND_REFUSED) {
            slot->state_ = SEND_QUEUED;
        }
    }
    client->next_ = 0;
    client->outstanding_ = 0;
    client->paused_ = false;
}

void client_on_disconnected(struct client *client, uint64_t now_ms)
{
    HF_ASSERT(client->state_ != CLIENT_STOPPED);
    HF_ASSERT(client->events_ == 0);

    client->now_ms_ = now_ms;
    if (client->state_ == CLIENT_WAITING) {
        client->end_ = CLIENT_WHY_LOST;
        client->end_code_ = 0;
        client->online_ = false;
        client->wait_min_ms_ = 0;
        client->wait_max_ms_ = 0;
    }
    rewind_sends(client);
    client->to_say_ = 0;
    client->cursor_.seq = client->stored_seq_;
    client->caught_up_ = false;
    client->failures_ = client->online_ ? 1 : client->failures_ + 1;
    client->events_ = EVENT_OFFLINE;
    if (client->requests_ != NULL) {
        client->events_ |= EVENT_REQUESTS_LOST;
    }
    if (must_stop(client)) {
        client->state_ = CLIENT_STOPPED;
    } else {
        client->state_ = CLIENT_WAITING;
        client->connect_at_ms_ = now_ms + back_off_ms(client);
    }
    client->online_ = false;
}

void client_leave(struct client *client, bool now, uint64_t now_ms)
{
    client->now_ms_ = now_ms;
    client->leave_ = true;
    switch (client_state(client)) {
    case CLIENT_STOPPED:
    case CLIENT_CLOSING:
        break;
    case CLIENT_WAITING:
        client->state_ = CLIENT_STOPPED;
        break;
    case CLIENT_GREETING:
    case CLIENT_LIVE:
    case CLIENT_LEAVING:
        /* HELLO must stand before BYE. */
        if (client->end_ != CLIENT_WHY_GOAWAY) {
            client->end_ = CLIENT_WHY_LEFT;
        }
        client->state_ = CLIENT_LEAVING;
        client->deadline_at_ms_ = now ? now_ms : now_ms + CLIENT_LEAVING_MS;
        break;
    }
}

/* ---- time */

void client_set_life(struct client *client, uint32_t life_s)
{
    const uint64_t life_ms = (life_s > 0 ? life_s : 1) * UINT64_C(1000);

    client->token_wanted_ = false;
    client->life_end_at_ms_ = client->now_ms_ + life_ms;
    client->renew_at_ms_ = client->now_ms_ + life_ms / 2 + client_random(client, life_ms / 4);
}

static bool waits_for_something(const struct client *client)
{
    if (client->outstanding_ > 0) {
        return true;
    }
    for (uint32_t i = 0; client->requests_ != NULL && i < REQUESTS_OUTSTANDING_MAX; i++) {
        const struct client_request *request = &client->requests_->request[i];

        if (request->history.request != 0 && request->written_) {
            return true;
        }
    }
    return false;
}

/* When a PING is due: to keep the server's patience, or to see whether it is still there. */
static uint64_t ping_due_ms(const struct client *client)
{
    uint64_t due_ms = UINT64_MAX;

    if (client->keepalive_ms_ > 0) {
        due_ms = client->last_tx_ms_ + (uint64_t)client->keepalive_ms_ / 4 * 3;
    }
    if (client->ping_at_ms_ == 0 && waits_for_something(client)) {
        const uint64_t since_ms =
            client->last_rx_ms_ > client->last_tx_ms_ ? client->last_rx_ms_ : client->last_tx_ms_;

        if (due_ms > since_ms + CLIENT_SILENCE_MS) {
            due_ms = since_ms + CLIENT_SILENCE_MS;
        }
    }
    return due_ms;
}

/* Sends that wait for the end of a pause, and for nothing else. */
static bool pause_runs(const struct client *client)
{
    return client->count_ > 0 && client->outstanding_ == 0 &&
           client->resume_at_ms_ > client->now_ms_;
}

static void keep_alive(struct client *client)
{
    const uint64_t now_ms = client->now_ms_;

    if (client->ping_at_ms_ != 0 && now_ms >= client->ping_at_ms_ + CLIENT_SILENCE_MS) {
        client_end(client, CLIENT_WHY_TIMEOUT, 0);
        return;
    }
    if (now_ms >= ping_due_ms(client)) {
        client->to_say_ |= SAY_PING;
    }
    if (now_ms >= client->renew_at_ms_ && !client->renewing_ && !client->token_wanted_) {
        client->token_wanted_ = true;
        client->events_ |= EVENT_TOKEN_WANTED;
    }
}

void client_on_time(struct client *client, uint64_t now_ms)
{
    HF_ASSERT(now_ms >= client->now_ms_);

    client->now_ms_ = now_ms;
    switch (client_state(client)) {
    case CLIENT_STOPPED:
    case CLIENT_WAITING:
    case CLIENT_CLOSING:
        break;
    case CLIENT_GREETING:
        if (now_ms >= client->deadline_at_ms_) {
            client_end(client, CLIENT_WHY_TIMEOUT, 0);
        }
        break;
    case CLIENT_LIVE:
        keep_alive(client);
        break;
    case CLIENT_LEAVING:
        break; /* client_output looks at the time */
    }
}

static uint64_t earlier(uint64_t one_ms, uint64_t other_ms)
{
    return one_ms < other_ms ? one_ms : other_ms;
}

uint64_t client_deadline_ms(const struct client *client)
{
    uint64_t deadline_ms = UINT64_MAX;

    switch (client_state(client)) {
    case CLIENT_STOPPED:
    case CLIENT_CLOSING:
        break;
    case CLIENT_WAITING:
        deadline_ms = client->connect_at_ms_;
        break;
    case CLIENT_GREETING:
    case CLIENT_LEAVING:
        deadline_ms = client->deadline_at_ms_;
        break;
    case CLIENT_LIVE:
        deadline_ms = ping_due_ms(client);
        if (client->ping_at_ms_ != 0) {
            deadline_ms = earlier(deadline_ms, client->ping_at_ms_ + CLIENT_SILENCE_MS);
        }
        if (!client->renewing_ && !client->token_wanted_) {
            deadline_ms = earlier(deadline_ms, client->renew_at_ms_);
        }
        if (pause_runs(client)) {
            deadline_ms = earlier(deadline_ms, client->resume_at_ms_);
        }
        break;
    }
    return deadline_ms;
}

/* The machine's input: what a frame changes, and which events it brings. */
#include "client/client.h"
#include "client/client_private.h"

/* ---- HELLO_OK */

static void mark_cut(struct client *client)
{
    for (uint32_t i = 0; i < client->count_; i++) {
        struct client_send *slot = client_slot(client, i);

        slot->cut = slot->cut || slot->maybe_written;
    }
}

static bool has_maybe_written(const struct client *client)
{
    for (uint32_t i = 0; i < client->count_; i++) {
        if (client_slot(client, i)->maybe_written) {
            return true;
        }
    }
    return false;
}

/* RESUME or RESET as section 5 has it; false: the server contradicts itself. */
static bool adopt_cursor(struct client *client, const struct message_hello_ok *ok)
{
    struct client_scratch *scratch = client->scratch_;
    const struct message_cursor had = client->cursor_;

    client->cursor_.sver = ok->sver;
    scratch->reset = CLIENT_RESET_NONE;
    scratch->cut = false;
    if (ok->result == HELLO_RESULT_RESUME) {
        return ok->epoch == had.epoch && had.seq <= ok->head && had.seq >= ok->floor - 1;
    }
    if (ok->floor == 0 || ok->floor - 1 > ok->head) {
        return false;
    }
    scratch->cut = ok->floor > 1;
    if (had.epoch == 0) {
        scratch->reset = CLIENT_RESET_FIRST;
        if (ok->last_counter == 0) {
            scratch->cut = false; /* this device has never sent anything */
        } else {
            client->recounting_ = client->recounting_ || has_maybe_written(client);
        }
    } else if (had.epoch == ok->epoch && had.seq < ok->floor - 1) {
        scratch->reset = CLIENT_RESET_GAP;
        scratch->gap_first = had.seq + 1;
        scratch->gap_last = ok->floor - 1;
    } else {
        /* Another epoch, or entries that the server no longer has: it was restored. */
        scratch->reset = CLIENT_RESET_ANEW;
        client->recounting_ = true;
    }
    client->cursor_.epoch = ok->epoch;
    client->cursor_.seq = ok->floor - 1;
    client->stored_seq_ = client->cursor_.seq;
    client->acked_seq_ = client->cursor_.seq;
    if (scratch->cut) {
        mark_cut(client);
    }
    return true;
}

/* What the server says of our counters. */
static void adopt_counter(struct client *client, const struct message_hello_ok *ok, bool was_new)
{
    client->next_counter_ = ok->last_counter + 1;
    if (client->recounting_) {
        return;
    }
    if (was_new || client->count_ == 0) {
        /*
         * Nothing of ours is unanswered, or nothing ever left: go on from where the server is.
         * (A device that has nothing writes no SEND before HELLO_OK.)
         */
        if (client_renumber(client, ok->last_counter + 1)) {
            client->events_ |= EVENT_RENUMBERED;
        }
    } else if (ok->last_counter > client->last_counter_) {
        client->recounting_ = true; /* it has counters of ours that we don't know: a backup's */
    }
}

static bool limits_make_sense(const struct message_hello_ok *ok)
{
    return ok->last_counter < CLIENT_COUNTER_MAX &&
           ok->frame_bytes_max >= FRAME_HEADER_BYTES + SEND_FIXED_BYTES;
}

static void on_hello_ok(struct client *client, const struct frame_view *view)
{
    struct message_hello_ok *ok = &client->scratch_->in.hello_ok;
    const enum code code = message_decode_hello_ok(view, ok);
    const bool was_new = client->cursor_.epoch == 0;

    if (code != CODE_OK || client->online_ || !limits_make_sense(ok) || !adopt_cursor(client, ok)) {
        client_end(client, CLIENT_WHY_VIOLATION, code != CODE_OK ? code : CODE_UNEXPECTED);
        return;
    }

    const uint32_t room = ok->frame_bytes_max - FRAME_HEADER_BYTES - SEND_FIXED_BYTES;

    client->online_ = true;
    if (client->state_ == CLIENT_GREETING) {
        client->state_ = CLIENT_LIVE;
    }
    client->failures_ = 0;
    client->head_ = ok->head;
    client->window_ = ok->window;
    client->keepalive_ms_ = ok->keepalive_s <= UINT32_MAX / 1000 ? ok->keepalive_s * 1000 : 0;
    client->outstanding_max_ = ok->sends_outstanding_max;
    client->requests_max_ = ok->requests_outstanding_max;
    client->body_bytes_max_ = ok->body_bytes_max < room ? ok->body_bytes_max : room;
    client->events_ |= EVENT_ONLINE;
    adopt_counter(client, ok, was_new);
    if (ok->resume_token.byte_count > 0) {
        client->events_ |= EVENT_TOKEN;
    }
    client_set_life(client, ok->life_s);
}

static void on_token(struct client *client, const struct frame_view *view)
{
    struct message_token token;
    const enum code code = message_decode_token(view, &token);

    if (code != CODE_OK) {
        client_end(client, CLIENT_WHY_VIOLATION, code);
        return;
    }
    client->scratch_->in.hello_ok.resume_token = token.token;
    client->events_ |= EVENT_TOKEN;
    client->renewing_ = false;
    client_set_life(client, token.life_s);
}

/* ---- answers to SENDs */

uint32_t client_find_written(const struct client *client, uint64_t counter)
{
    if (client->count_ == 0) {
        return 0;
    }

    const uint64_t first = client_slot(client, 0)->counter;

    /* Where the counters have no hole, which is nearly always. */
    if (counter >= first && counter - first < client->count_) {
        const struct client_send *slot = client_slot(client, (uint32_t)(counter - first));

        if (slot->counter == counter && slot->state_ == SEND_WRITTEN) {
            return (uint32_t)(counter - first);
        }
    }
    for (uint32_t i = 0; i < client->count_; i++) {
        const struct client_send *slot = client_slot(client, i);

        if (slot->counter == counter && slot->state_ == SEND_WRITTEN) {
            return i;
        }
    }
    return client->count_;
}

void client_count_answer(struct client *client, uint64_t counter)
{
    client->refusals_ = 0;
    if (counter == client->next_counter_) {
        client->next_counter_++;
    }
}

static void put_answer(struct client *client, enum client_event_kind kind, uint64_t tag,
                       uint64_t counter)
{
    client->scratch_->answer = (uint8_t)kind;
    client->scratch_->tag = tag;
    client->scratch_->counter = counter;
    client->scratch_->code = 0;
    client->scratch_->retry_ms = 0;
    client->events_ |= EVENT_ANSWER;
}

static void on_accepted(struct client *client, const struct frame_view *view)
{
    struct message_accepted accepted;
    const enum code code = message_decode_accepted(view, &accepted);

    if (code != CODE_OK || accepted.counter > client->written_counter_max_) {
        client_end(client, CLIENT_WHY_VIOLATION, code != CODE_OK ? code : CODE_BAD_FIELD);
        return;
    }

    const uint32_t at = client_find_written(client, accepted.counter);

    if (at == client->count_) {
        return; /* its entry came before it, and was the answer */
    }
    put_answer(client, CLIENT_EVENT_ACCEPTED, client_slot(client, at)->tag, accepted.counter);
    client->scratch_->id = accepted.id.value;
    client->scratch_->seq = accepted.seq;
    client_forget_send(client, at);
    client_count_answer(client, accepted.counter);
}

/* Doubles with each refusal in a row, so that a full server is asked less and less often. */
static uint64_t resend_wait_ms(struct client *client, uint32_t retry_ms)
{
    const unsigned shift = client->refusals_ < CLIENT_BACK_OFF_SHIFT_MAX
                               ? client->refusals_
                               : CLIENT_BACK_OFF_SHIFT_MAX;
    uint64_t span_ms = CLIENT_RESEND_MS << shift;

    if (span_ms > CLIENT_RESEND_MS_MAX) {
        span_ms = CLIENT_RESEND_MS_MAX;
    }
    return retry_ms + client_random(client, span_ms);
}

static void on_refused_for_now(struct client *client, uint32_t at,
                               const struct message_rejected *rejected)
{
    struct client_send *slot = client_slot(client, at);

    slot->state_ = SEND_REFUSED;
    slot->code_ = rejected->code;
    client->outstanding_--;
    if (!client->paused_) {
        client->paused_ = true;
        client->resume_at_ms_ = client->now_ms_;
        if (client->refusals_ < UINT16_MAX) {
            client->refusals_++;
        }
    }

    /* The first ORDER only tells us where to count from; what follows a RETRY adds nothing. */
    if (rejected->code != CODE_ORDER || client->refusals_ > 1) {
        const uint64_t at_ms = client->now_ms_ + resend_wait_ms(client, rejected->retry_ms);

        if (client->resume_at_ms_ < at_ms) {
            client->resume_at_ms_ = at_ms;
        }
    }
    put_answer(client, CLIENT_EVENT_DELAYED, slot->tag, rejected->counter);
    client->scratch_->code = rejected->code;
    client->scratch_->retry_ms = rejected->retry_ms;
}

static void on_rejected(struct client *client, const struct frame_view *view)
{
    struct message_rejected rejected;
    enum code code = message_decode_rejected(view, &rejected);

    if (code == CODE_OK && (rejected.expected == 0 || rejected.expected > CLIENT_COUNTER_MAX ||
                            rejected.counter > client->written_counter_max_)) {
        code = CODE_BAD_FIELD;
    }
    if (code != CODE_OK) {
        client_end(client, CLIENT_WHY_VIOLATION, code);
        return;
    }

    const uint32_t at = client_find_written(client, rejected.counter);

    client->next_counter_ = rejected.expected;
    if (at == client->count_) {
        return;
    }
    switch (code_class(rejected.code)) {
    case CODE_CLASS_SEND_TEMPORARY:
        on_refused_for_now(client, at, &rejected);
        break;
    case CODE_CLASS_SEND_PERMANENT:
        client->refusals_ = 0;
        put_answer(client, CLIENT_EVENT_REJECTED, client_slot(client, at)->tag, rejected.counter);
        client->scratch_->code = rejected.code;
        client_forget_send(client, at);
        break;
    case CODE_CLASS_NONE:
    case CODE_CLASS_FATAL:
    case CODE_CLASS_NOTICE:
    case CODE_CLASS_REFUSED:
    case CODE_CLASS_REQUEST:
        client_end(client, CLIENT_WHY_VIOLATION, CODE_BAD_FIELD);
        break;
    }
}

/* ---- entries and pages */

static void on_entries(struct client *client, const struct frame_view *view)
{
    struct message_entries *entries = &client->scratch_->in.entries;
    const enum code code = message_decode_entries(view, entries);

    if (code != CODE_OK || entries->first != client->cursor_.seq + 1) {
        /* A gap or a repeat: what comes can't be trusted, what is stored can. */
        client_end(client, CLIENT_WHY_VIOLATION, code != CODE_OK ? code : CODE_BAD_FIELD);
        return;
    }
    client->unacked_bytes_ += (uint32_t)frame_bytes(view);
    client->events_ |= EVENT_ENTRIES;
}

static struct client_request *find_request(const struct client *client, uint32_t request)
{
    for (uint32_t i = 0; client->requests_ != NULL && i < REQUESTS_OUTSTANDING_MAX; i++) {
        struct client_request *found = &client->requests_->request[i];

        if (found->history.request == request && request != 0 && found->written_) {
            return found;
        }
    }
    return NULL;
}

static void on_page(struct client *client, const struct frame_view *view)
{
    struct message_page *page = &client->scratch_->in.page;
    enum code code = message_decode_page(view, page);
    struct client_request *request = NULL;

    if (code == CODE_OK) {
        request = find_request(client, page->request);
        if (request == NULL || request->history.conversation.value != page->conversation.value) {
            code = CODE_BAD_FIELD;
        }
    }
    if (code != CODE_OK) {
        client_end(client, CLIENT_WHY_VIOLATION, code);
        return;
    }
    request->history.request = 0;
    client->events_ |= EVENT_PAGE;
}

/* ---- the others */

static void on_error(struct client *client, const struct frame_view *view)
{
    struct message_error *error = &client->scratch_->in.error;
    const enum code code = message_decode_error(view, error);

    if (code != CODE_OK) {
        client_end(client, CLIENT_WHY_VIOLATION, code);
        return;
    }

    struct client_request *request = find_request(client, error->request);

    if (request != NULL && !error->fatal) {
        request->history.request = 0;
        client->scratch_->request = error->request;
        client->scratch_->code = error->code;
        client->scratch_->retry_ms = error->retry_ms;
        client->events_ |= EVENT_REQUEST_FAILED;
        return;
    }
    client->events_ |= EVENT_ERROR;
    if (!error->fatal) {
        return;
    }
    if (client->wait_max_ms_ < error->retry_ms) {
        client->wait_min_ms_ = error->retry_ms;
        client->wait_max_ms_ = error->retry_ms <= UINT32_MAX / 2 ? 2 * error->retry_ms : UINT32_MAX;
    }
    if (error->code == CODE_CONFLICT || error->code == CODE_STALE) {
        client->recounting_ = true;
    }
    if (client->end_ == CLIENT_WHY_GOAWAY && error->code == CODE_GOING_AWAY) {
        client_end(client, CLIENT_WHY_GOAWAY, 0);
    } else {
        client_end(client, CLIENT_WHY_ERROR, error->code);
    }
}

static void on_goaway(struct client *client, const struct frame_view *view)
{
    struct message_goaway *goaway = &client->scratch_->in.goaway;
    const enum code code = message_decode_goaway(view, goaway);

    if (code != CODE_OK) {
        client_end(client, CLIENT_WHY_VIOLATION, code);
        return;
    }
    client->events_ |= EVENT_GOAWAY;
    client->end_ = CLIENT_WHY_GOAWAY;
    client->wait_min_ms_ = goaway->wait_min_ms;
    client->wait_max_ms_ = goaway->wait_max_ms;
    if (client->state_ != CLIENT_LEAVING) {
        client->state_ = CLIENT_LEAVING;
        client->deadline_at_ms_ = client->now_ms_ + CLIENT_LEAVING_MS;
    }
}

static void on_ping(struct client *client, const struct frame_view *view)
{
    struct message_ping ping;
    const enum code code = message_decode_ping(view, &ping);

    if (code != CODE_OK) {
        client_end(client, CLIENT_WHY_VIOLATION, code);
    } else if (view->type == FRAME_TYPE_PING) {
        client->pong_opaque_ = ping.opaque; /* of several, the latest */
        client->to_say_ |= SAY_PONG;
    }
}

static void dispatch(struct client *client, const struct frame_view *view)
{
    switch (view->type) {
    case FRAME_TYPE_HELLO_OK:
        on_hello_ok(client, view);
        return;
    case FRAME_TYPE_ERROR:
        on_error(client, view);
        return;
    case FRAME_TYPE_GOAWAY:
        on_goaway(client, view);
        return;
    default:
        break;
    }
    if (!client->online_) {
        client_end(client, CLIENT_WHY_VIOLATION, CODE_UNEXPECTED);
        return;
    }
    switch (view->type) {
    case FRAME_TYPE_TOKEN:
        on_token(client, view);
        break;
    case FRAME_TYPE_PING:
    case FRAME_TYPE_PONG:
        on_ping(client, view);
        break;
    case FRAME_TYPE_ACCEPTED:
        on_accepted(client, view);
        break;
    case FRAME_TYPE_REJECTED:
        on_rejected(client, view);
        break;
    case FRAME_TYPE_ENTRIES:
        on_entries(client, view);
        break;
    case FRAME_TYPE_PAGE:
        on_page(client, view);
        break;
    default: /* only a client's to send */
        client_end(client, CLIENT_WHY_VIOLATION, CODE_UNEXPECTED);
        break;
    }
}

void client_on_frame(struct client *client, const struct frame_view *view, uint64_t now_ms)
{
    HF_ASSERT(client->state_ != CLIENT_STOPPED && client->state_ != CLIENT_WAITING);
    HF_ASSERT(client->events_ == 0 && now_ms >= client->now_ms_);

    client->now_ms_ = now_ms;
    if (client->state_ == CLIENT_CLOSING) {
        return;
    }
    client->last_rx_ms_ = now_ms;
    client->ping_at_ms_ = 0;
    if (frame_type_origin(view->type) != FRAME_FROM_NOBODY) {
        dispatch(client, view);
    }
}

void client_on_bad_stream(struct client *client, uint64_t now_ms)
{
    client->now_ms_ = now_ms;
    client_end(client, CLIENT_WHY_VIOLATION, CODE_FRAME_TOO_LARGE);
}

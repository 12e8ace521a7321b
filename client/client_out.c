/* The machine's output: which frame is next. */
#include "client/client.h"
#include "client/client_private.h"

static size_t say_hello(struct client *client, uint8_t *to, size_t capacity)
{
    struct message_cursor cursor = client->cursor_;

    cursor.seq = client->stored_seq_;

    const struct message_hello hello = {
        .version = PROTOCOL_VERSION,
        .user = client->user_,
        .device = client->device_,
        .cursor = cursor,
        .mode = HELLO_MODE_LIVE,
        .window = client->window_wish_,
        .token = client->used_resume_token_ ? client->resume_token_ : client->login_token_,
        .client = client->name_,
    };

    const size_t written = message_encode_hello(to, capacity, &hello);

    if (written > 0 && !client->used_resume_token_) {
        client->fresh_login_token_ = false;
    }
    return written;
}

/* A log-in token: a resume token ends with the login that gave it. */
static size_t say_token(struct client *client, uint8_t *to, size_t capacity)
{
    const struct message_token token = {
        .life_s = 0,
        .token = client->login_token_,
    };
    const size_t written = message_encode_token(to, capacity, &token);

    if (written > 0) {
        client->fresh_login_token_ = false;
    }
    return written;
}

static size_t say_ack(struct client *client, uint8_t *to, size_t capacity)
{
    const struct message_ack ack = { .seq = client->stored_seq_, .sver = client->cursor_.sver };
    const size_t written = message_encode_ack(to, capacity, &ack);

    if (written > 0) {
        client->acked_seq_ = client->stored_seq_;
        if (client->acked_seq_ == client->cursor_.seq) {
            client->unacked_bytes_ = 0;
        }
    }
    return written;
}

static size_t say_ping(struct client *client, uint8_t *to, size_t capacity)
{
    const struct message_ping ping = { .opaque = client->now_ms_ };
    const size_t written = message_encode_ping(to, capacity, &ping);

    if (written > 0 && client->ping_at_ms_ == 0) {
        client->ping_at_ms_ = client->now_ms_;
    }
    return written;
}

static size_t say(struct client *client, uint32_t bit, uint8_t *to, size_t capacity)
{
    const struct message_ping pong = { .opaque = client->pong_opaque_ };

    switch (bit) {
    case SAY_HELLO:
        return say_hello(client, to, capacity);
    case SAY_TOKEN:
        return say_token(client, to, capacity);
    case SAY_ACK:
        return say_ack(client, to, capacity);
    case SAY_PONG:
        return message_encode_pong(to, capacity, &pong);
    case SAY_PING:
        return say_ping(client, to, capacity);
    case SAY_BYE:
        return message_encode_bye(to, capacity);
    default:
        HF_ASSERT(false && "a frame");
        return 0;
    }
}

static bool ack_due(const struct client *client, bool more_input)
{
    return client->online_ && client->stored_seq_ > client->acked_seq_ &&
           (!more_input || client->unacked_bytes_ >= client->window_ / 2);
}

static size_t write_request(struct client *client, uint8_t *to, size_t capacity)
{
    for (uint32_t i = 0; client->requests_ != NULL && i < REQUESTS_OUTSTANDING_MAX; i++) {
        struct client_request *request = &client->requests_->request[i];

        if (request->history.request != 0 && !request->written_) {
            const size_t written = message_encode_history(to, capacity, &request->history);

            request->written_ = written > 0;
            return written;
        }
    }
    return 0;
}

/* Whether SENDs may be written now at all. */
static bool sends_flow(const struct client *client)
{
    if (client->recounting_ || client->paused_ || client->now_ms_ < client->resume_at_ms_) {
        return false;
    }
    /* Right behind HELLO, unless the server must first tell where we are. */
    return client->state_ == CLIENT_LIVE ||
           (client->state_ == CLIENT_GREETING && client->cursor_.epoch != 0);
}

static size_t write_send(struct client *client, uint8_t *to, size_t capacity)
{
    while (client->next_ < client->count_ &&
           client_slot(client, client->next_)->state_ != SEND_QUEUED) {
        client->next_++;
    }
    if (client->next_ == client->count_ || client->outstanding_ >= client->outstanding_max_) {
        return 0;
    }

    struct client_send *slot = client_slot(client, client->next_);

    /* Else more answers could follow that of the oldest than the server remembers. */
    if (slot->counter - client_slot(client, 0)->counter >= OUTCOMES_KEPT) {
        return 0;
    }

    const struct message_send send = {
        .counter = slot->counter,
        .nonce = slot->nonce,
        .conversation = slot->conversation,
        .kind = slot->kind,
        .body = { slot->body, slot->body_bytes },
    };
    const size_t written = message_encode_send(to, capacity, &send);

    if (written > 0) {
        slot->state_ = SEND_WRITTEN;
        slot->maybe_written = true;
        client->outstanding_++;
        client->next_++;
        if (client->written_counter_max_ < slot->counter) {
            client->written_counter_max_ = slot->counter;
        }
    }
    return written;
}

static bool requests_open(const struct client *client)
{
    for (uint32_t i = 0; client->requests_ != NULL && i < REQUESTS_OUTSTANDING_MAX; i++) {
        if (client->requests_->request[i].history.request != 0) {
            return true;
        }
    }
    return false;
}

/* Has the last words said when nothing more is expected, or patience is at its end. */
static void leave_if_done(struct client *client)
{
    const bool answered = client->online_ && client->outstanding_ == 0 && !requests_open(client);

    if (client->state_ != CLIENT_LEAVING ||
        (!answered && client->now_ms_ < client->deadline_at_ms_ &&
         (client->online_ || client->end_ != CLIENT_WHY_GOAWAY))) {
        return;
    }
    if (client->online_ && client->stored_seq_ > client->acked_seq_) {
        client->to_say_ |= SAY_ACK;
    }
    client->to_say_ = (client->to_say_ & (SAY_HELLO | SAY_ACK)) | SAY_BYE;
    client->state_ = CLIENT_CLOSING;
}

/* One frame, or 0. */
static size_t write_frame(struct client *client, uint8_t *to, size_t capacity)
{
    if (client->to_say_ != 0) {
        const uint32_t bit = client->to_say_ & (~client->to_say_ + 1); /* the lowest */
        const size_t written = say(client, bit, to, capacity);

        if (written > 0) {
            client->to_say_ &= ~bit;
        }
        return written;
    }
    if (client->state_ == CLIENT_LIVE) {
        const size_t written = write_request(client, to, capacity);

        if (written > 0) {
            return written;
        }
    }
    return sends_flow(client) ? write_send(client, to, capacity) : 0;
}

size_t client_output(struct client *client, uint8_t *to, size_t capacity, uint64_t now_ms,
                     bool more_input)
{
    size_t written = 0;

    HF_ASSERT(client->events_ == 0 && now_ms >= client->now_ms_);

    client->now_ms_ = now_ms;
    if (client->state_ == CLIENT_STOPPED || client->state_ == CLIENT_WAITING) {
        return 0;
    }
    if (ack_due(client, more_input) && client->state_ != CLIENT_CLOSING) {
        client->to_say_ |= SAY_ACK;
    }
    leave_if_done(client);
    for (;;) {
        const size_t frame = write_frame(client, to + written, capacity - written);

        if (frame == 0) {
            break;
        }
        written += frame;
    }
    if (written > 0) {
        client->last_tx_ms_ = now_ms;
    }
    return written;
}

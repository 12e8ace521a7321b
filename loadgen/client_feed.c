/* The two streams of a client: entries that come and are checked, frames that leave. */
#include <string.h>

#include "core/base/check.h"
#include "loadgen/client.h"
#include "loadgen/client_internal.h"
#include "proto/entries.h"

/* ---- entries */

static void on_own(struct crowd *crowd, struct client *client, uint64_t number)
{
    const struct client *sender = client_sender(crowd, client);

    if (number == 0 || number > sender->created) {
        client_fault(crowd, client, LEDGER_UNKNOWN, LEDGER_OWN, number);
        return;
    }
    if (ledger_on_entry(&crowd->ledger, client_index(crowd, client), LEDGER_OWN, &client->own_seen,
                        (uint32_t)number)) {
        crowd->counts.own_entries++;
    }
}

static void on_peer(struct crowd *crowd, struct client *client, const struct payload *payload)
{
    const struct client *peer = client_peer(crowd, client);

    if (payload->number == 0 || payload->number > peer->created) {
        client_fault(crowd, client, LEDGER_UNKNOWN, LEDGER_PEER, payload->number);
        return;
    }
    if (!ledger_on_entry(&crowd->ledger, client_index(crowd, client), LEDGER_PEER,
                         &client->peer_seen, payload->number)) {
        return;
    }
    crowd->counts.peer_entries++;
    if ((client->flags & CLIENT_FIRST_READ) != 0 && payload->number > peer->untimed &&
        (!crowd->churned || (client->flags & CLIENT_CURRENT) != 0)) {
        histogram_add(&crowd->delivered, crowd->now_ns - payload->intended_ns);
    }
}

/* n counts the pair's conversation without a gap. */
static void check_n(struct crowd *crowd, struct client *client, uint64_t n)
{
    if ((client->flags & CLIENT_COUNTED_N) != 0 && n != (uint64_t)client->conversation_n + 1) {
        client_fault(crowd, client, LEDGER_DAMAGED, LEDGER_PEER, n);
    }
    client->flags |= CLIENT_COUNTED_N;
    client->conversation_n = (uint32_t)n;
}

static void on_message(struct crowd *crowd, struct client *client,
                       const struct entry_message *message)
{
    const struct client *sender = client_sender(crowd, client);
    const struct client *peer = client_peer(crowd, client);
    const bool own = (message->flags & ENTRY_FLAG_OWN) != 0;
    struct payload payload;

    if (message->conversation.value == peer->user) {
        check_n(crowd, client, message->n);
    }

    const enum payload_result result = payload_read(
        &crowd->run, message->body.bytes, message->body.byte_count, crowd->body_bytes, &payload);

    if (result == PAYLOAD_FOREIGN) {
        crowd->counts.foreign_entries++;
        return;
    }

    bool good = result == PAYLOAD_OK && message->conversation.value == peer->user &&
                message->device.value == 1 && message->sender.value == payload.user.value &&
                payload.user.value == (own ? sender->user : peer->user);

    if (good && own) {
        const struct nonce nonce = payload_nonce(&crowd->run, payload.user, payload.number);

        /* The base is known when device 1 has said HELLO, before it created anything. */
        good = memcmp(&nonce, &message->nonce, sizeof nonce) == 0 &&
               message->counter == sender->counter_base + payload.number;
    }
    if (!good) {
        client_fault(crowd, client, LEDGER_DAMAGED, own ? LEDGER_OWN : LEDGER_PEER,
                     message->id.value);
    } else if (own) {
        on_own(crowd, client, payload.number);
    } else {
        on_peer(crowd, client, &payload);
    }
}

static uint64_t on_entry(struct crowd *crowd, struct client *client, const struct entry *entry)
{
    switch (entry->form) {
    case ENTRY_MESSAGE:
        on_message(crowd, client, &entry->message);
        return entry->message.id.value;
    case ENTRY_SENT:
        if (client_sender(crowd, client) != client) {
            client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, entry->sent.counter);
        }
        if ((client->flags & CLIENT_COUNTED_N) != 0) {
            client->conversation_n++;
        }
        on_own(crowd, client, entry->sent.counter - client->counter_base);
        return entry->sent.id.value;
    case ENTRY_REFUSED:
        client_fault(crowd, client, LEDGER_REFUSED, LEDGER_OWN, entry->refused.code);
        return entry->refused.id.value ^ UINT64_MAX;
    }
    return 0;
}

enum client_verdict client_on_entries(struct crowd *crowd, struct client *client,
                                      const struct frame_view *view)
{
    struct message_entries entries;
    struct entry entry;
    uint64_t seq;

    if (message_decode_entries(view, &entries) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_PEER, view->type);
        return CLIENT_ENDS;
    }
    if (entries.first != client->seq + 1) {
        client_fault(crowd, client, LEDGER_GAP, LEDGER_PEER, entries.first);
        return CLIENT_ENDS; /* docs/protocol.md 7: it must */
    }
    while (entries_next(&entries, &seq, &entry)) {
        const uint64_t id = on_entry(crowd, client, &entry);

        client->seq = seq;
        client->log_hash = id_mix(client->log_hash ^ id_mix(id)) + seq;
    }
    client->flags |= CLIENT_ACK_DUE;
    if (client->seq >= client->current_at_seq && (client->flags & CLIENT_CURRENT) == 0) {
        client->flags |= CLIENT_CURRENT;
        crowd->counts.current++;
    }
    return CLIENT_GOES_ON;
}

/* ---- what leaves */

#define GATHER_BYTES_MAX 8192 /* of plaintext in a record, where SENDs share one */

static bool may_send(const struct client *client)
{
    return client->state == CLIENT_LIVE && client->pending_unsent != CLIENT_NONE &&
           client->in_flight < client->sends_max && (client->flags & CLIENT_HOLD) == 0;
}

static size_t send_frame_bytes(const struct crowd *crowd)
{
    return FRAME_HEADER_BYTES + SEND_FIXED_BYTES + (size_t)crowd->body_bytes;
}

/* Writes the next SEND behind what `plain_` holds. */
static size_t put_send(struct crowd *crowd, struct client *client, size_t at)
{
    const struct client_pending *pending = slab_get(&crowd->pending, client->pending_unsent);
    const struct payload payload = { { client->user }, pending->number, pending->intended_ns };

    payload_write(&crowd->run, &payload, crowd->body_, crowd->body_bytes);

    const struct message_send message = {
        .counter = client->counter_base + pending->number,
        .nonce = payload_nonce(&crowd->run, payload.user, payload.number),
        .conversation = { client_peer(crowd, client)->user },
        .body = { crowd->body_, crowd->body_bytes },
    };
    const size_t bytes =
        message_encode_send(crowd->plain_ + at, sizeof crowd->plain_ - at, &message);

    HF_ASSERT(bytes > 0);
    client->pending_unsent = pending->next;
    client->in_flight++;
    crowd->counts.sent++;
    return bytes;
}

/* All but SENDs: at the start of `plain_`. */
static size_t put_small(struct crowd *crowd, struct client *client)
{
    uint8_t *to = crowd->plain_;
    const size_t cap = sizeof crowd->plain_;
    size_t at = 0;

    if ((client->flags & CLIENT_PONG_DUE) != 0) {
        at += message_encode_pong(to, cap, &(struct message_ping){ client->pong_opaque });
    }
    if ((client->flags & CLIENT_ACK_DUE) != 0) {
        at += message_encode_ack(to + at, cap - at,
                                 &(struct message_ack){ client->seq, client->sver });
    }
    if ((client->flags & CLIENT_PING_DUE) != 0) {
        at += message_encode_ping(to + at, cap - at, &(struct message_ping){ client->seq });
        client->flags |= CLIENT_PING_OUT;
    }
    if ((client->flags & CLIENT_CHURNED) != 0 && (client->flags & CLIENT_CURRENT) != 0 &&
        client->state == CLIENT_LIVE) {
        at += client_put_history(crowd, client, to + at, cap - at);
    }
    client->flags &= (uint16_t) ~(CLIENT_PONG_DUE | CLIENT_ACK_DUE | CLIENT_PING_DUE);
    if (client->state == CLIENT_LEAVING && client->in_flight == 0 &&
        (client->flags & CLIENT_BYE_PUT) == 0) {
        at += message_encode_bye(to + at, cap - at);
        client->flags |= CLIENT_BYE_PUT;
    }
    return at;
}

/* The plaintext of the next record, of which `at` bytes are there. */
static size_t put_record(struct crowd *crowd, struct client *client, size_t at)
{
    while (may_send(client)) {
        at += put_send(crowd, client, at);
        if (!crowd->gather || at + send_frame_bytes(crowd) > GATHER_BYTES_MAX) {
            break;
        }
    }
    return at;
}

/* A cell for this record, and for more if more is to follow. */
static bool take_cell(struct crowd *crowd, struct client *client, size_t record_bytes)
{
    if (may_send(client) && record_bytes < CELL_MEDIUM_BYTES) {
        client->out = cells_take(&crowd->cells, CELL_MEDIUM_BYTES);
    }
    if (cell_is_none(client->out)) {
        client->out = cells_take(&crowd->cells, record_bytes);
    }
    return !cell_is_none(client->out);
}

enum client_verdict client_output(struct crowd *crowd, struct client *client, const uint8_t **bytes,
                                  size_t *byte_count)
{
    struct tls_keys *keys = &client->link.keys;
    size_t used = 0;

    *bytes = NULL;
    *byte_count = 0;
    if ((client->state != CLIENT_LIVE && client->state != CLIENT_LEAVING) ||
        (client->flags & CLIENT_SENDING) != 0) {
        return CLIENT_GOES_ON;
    }
    for (size_t plain_bytes = put_record(crowd, client, put_small(crowd, client)); plain_bytes > 0;
         plain_bytes = put_record(crowd, client, 0)) {
        const struct iovec part = { crowd->plain_, plain_bytes };
        const size_t needed = tls_record_sealed_bytes(&crowd->tls, keys, plain_bytes);

        if (cell_is_none(client->out) && !take_cell(crowd, client, needed)) {
            return CLIENT_NO_CELL;
        }

        const size_t capacity = cell_capacity(client->out);
        const size_t sealed =
            tls_record_seal(&crowd->tls, keys, &part, 1,
                            cells_bytes(&crowd->cells, client->out) + used, capacity - used);

        if (sealed == 0) {
            return CLIENT_NO_CELL;
        }
        used += sealed;
        if (used + tls_record_sealed_bytes(&crowd->tls, keys,
                                           crowd->gather ? GATHER_BYTES_MAX
                                                         : send_frame_bytes(crowd)) >
            capacity) {
            break; /* the rest goes with the next send */
        }
    }
    if (used > 0) {
        client->flags |= CLIENT_SENDING;
        client->out_bytes = (uint16_t)used;
        client->out_sent = 0;
        *bytes = cells_bytes(&crowd->cells, client->out);
        *byte_count = used;
    }
    return CLIENT_GOES_ON;
}

const uint8_t *client_sent(struct crowd *crowd, struct client *client, size_t byte_count,
                           size_t *rest_bytes)
{
    HF_ASSERT((client->flags & CLIENT_SENDING) != 0);
    HF_ASSERT(byte_count <= (size_t)(client->out_bytes - client->out_sent));
    client->out_sent = (uint16_t)(client->out_sent + byte_count);
    *rest_bytes = (size_t)(client->out_bytes - client->out_sent);
    if (*rest_bytes > 0) {
        return cells_bytes(&crowd->cells, client->out) + client->out_sent;
    }
    client->flags &= (uint16_t)~CLIENT_SENDING;
    cells_give(&crowd->cells, client->out);
    client->out = CELL_NONE;
    return NULL;
}

/* ---- a second reading, and the end */

void client_reread(struct crowd *crowd, struct client *client)
{
    client->earlier_seq = client->seq;
    client->earlier_hash = client->log_hash;
    client->epoch = 0;
    client->seq = 0;
    client->sver = 0;
    client->log_hash = 0;
    crowd->counts.own_entries -= client->own_seen;
    crowd->counts.peer_entries -= client->peer_seen;
    client->own_seen = 0;
    client->peer_seen = 0;
    client->flags &= (uint16_t) ~(CLIENT_FIRST_READ | CLIENT_COUNTED_N);
}

void client_audit(struct crowd *crowd, struct client *client)
{
    const struct client *sender = client_sender(crowd, client);
    const struct client *peer = client_peer(crowd, client);
    const uint32_t index = client_index(crowd, client);
    const bool second = (client->flags & CLIENT_FIRST_READ) == 0;

    ledger_on_end(&crowd->ledger, index, LEDGER_OWN, client->own_seen, sender->created);
    ledger_on_end(&crowd->ledger, index, LEDGER_PEER, client->peer_seen, peer->created);
    if (client->seq != sender->seq || client->log_hash != sender->log_hash) {
        client_fault(crowd, client, LEDGER_DIVERGED, LEDGER_OWN, client->seq);
    }
    if (second &&
        (client->seq != client->earlier_seq || client->log_hash != client->earlier_hash)) {
        client_fault(crowd, client, LEDGER_DIVERGED, LEDGER_PEER, client->seq);
    }
}

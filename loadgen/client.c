#include "loadgen/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "loadgen/client_internal.h"

#define SILENCE_MAX_NS (15 * CLOCK_NS_PER_S) /* docs/protocol.md 9 */
#define LEAVE_MAX_NS   (2 * CLOCK_NS_PER_S)
#define NEVER_SOON_NS  (3600 * CLOCK_NS_PER_S)

/* Of a record and a KeyUpdate before it. */
#define OUT_OVERHEAD_BYTES 64

static void cell_counts(const struct crowd_options *options, uint32_t counts[CELL_CLASSES])
{
    const uint32_t out_bytes = OUT_OVERHEAD_BYTES + FRAME_HEADER_BYTES + SEND_FIXED_BYTES +
                               ACK_FRAME_BYTES + options->body_bytes;
    const uint32_t share = options->busy / 16;

    counts[CELL_SMALL] = options->busy;
    /* Several records in one send need a medium one; without, they go one by one. */
    counts[CELL_MEDIUM] = out_bytes > CELL_SMALL_BYTES ? options->busy : options->busy / 4 + 256;
    counts[CELL_LARGE] = out_bytes > CELL_MEDIUM_BYTES ? options->busy / 2 : share / 16 + 256;
}

bool crowd_open(struct crowd *crowd, const struct crowd_options *options, struct hf_error *error)
{
    uint32_t counts[CELL_CLASSES];

    HF_ASSERT(options->users % 2 == 0 && options->users > 0);
    memset(crowd, 0, sizeof *crowd);
    crowd->users = options->users;
    crowd->devices = options->devices;
    crowd->count = options->users * options->devices;
    crowd->body_bytes = options->body_bytes;
    crowd->gather = options->gather;
    crowd->one_way = options->one_way;
    crowd->run = *options->run;
    crowd->clients = calloc(crowd->count, sizeof *crowd->clients);
    if (crowd->clients == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "%u clients", crowd->count);
        return false;
    }
    cell_counts(options, counts);
    if (!cells_open(&crowd->cells, counts, error) || !ledger_open(&crowd->ledger, error) ||
        !slab_open(&crowd->pending, sizeof(struct client_pending), options->pending, SLAB_DIRTY,
                   error) ||
        tls_core_open(&crowd->tls, (size_t)options->busy * 2, error) != 0) {
        crowd_close(crowd);
        return false;
    }
    crowd->pools = (struct link_pools){
        .in = { .cells = &crowd->cells },
        .out = { .cells = &crowd->cells },
        .tls = &crowd->tls,
    };
    for (uint32_t i = 0; i < crowd->count; i++) {
        struct client *client = &crowd->clients[i];

        client->pending_first = CLIENT_NONE;
        client->pending_last = CLIENT_NONE;
        client->pending_unsent = CLIENT_NONE;
        client->shake = CLIENT_SHAKE_NONE;
        client->flags = CLIENT_FIRST_READ;
    }
    return true;
}

void crowd_close(struct crowd *crowd)
{
    tls_core_close(&crowd->tls);
    slab_close(&crowd->pending);
    ledger_close(&crowd->ledger);
    cells_close(&crowd->cells);
    free(crowd->clients);
    memset(crowd, 0, sizeof *crowd);
}

void client_fault(struct crowd *crowd, const struct client *client, enum ledger_fault fault,
                  enum ledger_side side, uint64_t number)
{
    ledger_note(&crowd->ledger, fault, side, client_index(crowd, client), number);
}

size_t client_hello(const struct crowd *crowd, const struct client *client, const uint8_t *token,
                    size_t token_bytes, uint8_t *to, size_t cap)
{
    static const char name[] = "holdfast-loadgen";
    const struct message_hello hello = {
        .version = PROTOCOL_VERSION,
        .user = { client->user },
        .device = { client_device(crowd, client) },
        .cursor = { client->epoch, client->seq, client->sver },
        .mode = HELLO_MODE_LIVE,
        .token = { token, (uint16_t)token_bytes },
        .client = { (const uint8_t *)name, sizeof name - 1 },
    };

    return message_encode_hello(to, cap, &hello);
}

/* ---- unanswered messages: a list in order of number */

bool client_create(struct crowd *crowd, struct client *client, uint64_t intended_ns)
{
    HF_ASSERT(client_sends(crowd, client));
    if (client->pending_count == SENDS_OUTSTANDING_MAX) {
        crowd->counts.held++;
        return false;
    }

    const uint32_t slot = slab_take(&crowd->pending);

    if (slot == SLAB_NONE) {
        crowd->counts.held++;
        return false;
    }

    struct client_pending *pending = slab_get(&crowd->pending, slot);

    *pending = (struct client_pending){ intended_ns, ++client->created, CLIENT_NONE };
    if (client->pending_last == CLIENT_NONE) {
        client->pending_first = slot;
    } else {
        struct client_pending *last = slab_get(&crowd->pending, client->pending_last);
        last->next = slot;
    }
    client->pending_last = slot;
    if (client->pending_unsent == CLIENT_NONE) {
        client->pending_unsent = slot;
    }
    if (crowd->churned && client->state != CLIENT_LIVE) {
        client->untimed = client->created;
    }
    client->pending_count++;
    crowd->counts.created++;
    crowd->counts.pending++;
    return true;
}

/* The message of that number if it was sent on this connection and isn't answered; *before: the
 * one in front of it. */
static uint32_t pending_find(const struct crowd *crowd, const struct client *client,
                             uint64_t number, uint32_t *before)
{
    *before = CLIENT_NONE;
    for (uint32_t slot = client->pending_first; slot != client->pending_unsent;) {
        const struct client_pending *pending = slab_get(&crowd->pending, slot);

        if (pending->number == number) {
            return slot;
        }
        *before = slot;
        slot = pending->next;
    }
    return CLIENT_NONE;
}

/* Takes it out; returns when it was meant to be sent. */
static uint64_t pending_remove(struct crowd *crowd, struct client *client, uint32_t slot,
                               uint32_t before)
{
    const struct client_pending pending =
        *(const struct client_pending *)slab_get(&crowd->pending, slot);

    if (before == CLIENT_NONE) {
        client->pending_first = pending.next;
    } else {
        struct client_pending *previous = slab_get(&crowd->pending, before);
        previous->next = pending.next;
    }
    if (client->pending_last == slot) {
        client->pending_last = before;
    }
    slab_give(&crowd->pending, slot);
    client->pending_count--;
    crowd->counts.pending--;
    return pending.intended_ns;
}

/* One SEND of this connection has its answer. */
static void one_answered(struct crowd *crowd, struct client *client)
{
    client->in_flight--;
    if ((client->flags & CLIENT_HOLD) != 0 && client->in_flight == 0) {
        const uint64_t wait_ms = client->wait_min_ms;
        client->resume_at_ns = crowd->now_ns + wait_ms * CLOCK_NS_PER_MS;
    }
}

/* ---- answers */

static enum client_verdict on_accepted(struct crowd *crowd, struct client *client,
                                       const struct frame_view *view)
{
    struct message_accepted accepted;

    if (message_decode_accepted(view, &accepted) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }

    const uint64_t number = accepted.counter - client->counter_base;
    uint32_t before;
    const uint32_t slot = pending_find(crowd, client, number, &before);

    if (slot == CLIENT_NONE || client->in_flight == 0) {
        client_fault(crowd, client, LEDGER_UNKNOWN, LEDGER_OWN, number);
        return CLIENT_GOES_ON;
    }

    const uint64_t intended_ns = pending_remove(crowd, client, slot, before);

    crowd->counts.answered++;
    if (number > client->untimed) {
        histogram_add(&crowd->accepted, crowd->now_ns - intended_ns);
    }
    one_answered(crowd, client);
    if (client->pending_count < crowd->window) {
        (void)client_create(crowd, client, crowd->now_ns);
    }
    return CLIENT_GOES_ON;
}

static enum client_verdict on_rejected(struct crowd *crowd, struct client *client,
                                       const struct frame_view *view)
{
    struct message_rejected rejected;

    if (message_decode_rejected(view, &rejected) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }

    const uint64_t number = rejected.counter - client->counter_base;
    uint32_t before;
    const uint32_t slot = pending_find(crowd, client, number, &before);

    if (slot == CLIENT_NONE || client->in_flight == 0) {
        client_fault(crowd, client, LEDGER_UNKNOWN, LEDGER_OWN, number);
        return CLIENT_GOES_ON;
    }
    if (code_class(rejected.code) == CODE_CLASS_SEND_TEMPORARY) {
        crowd->counts.rejected++;
        client->flags |= CLIENT_HOLD;
        client->expected = (uint32_t)(rejected.expected - client->counter_base);
        if (rejected.retry_ms > client->wait_min_ms) {
            client->wait_min_ms = rejected.retry_ms; /* of several, the longest */
        }
    } else {
        client_fault(crowd, client, LEDGER_REFUSED, LEDGER_OWN, rejected.code);
        (void)pending_remove(crowd, client, slot, before);
    }
    one_answered(crowd, client);
    return CLIENT_GOES_ON;
}

/* ---- the connection */

static void adopt_cursor(struct crowd *crowd, struct client *client,
                         const struct message_hello_ok *ok)
{
    const bool first = client->epoch == 0;

    if (!first && (ok->result == HELLO_RESULT_RESET || ok->epoch != client->epoch)) {
        /* This program keeps its cursor: whatever the server can't go on from was lost. */
        client_fault(crowd, client, LEDGER_RESET, LEDGER_OWN, client->seq);
    }
    if (ok->result == HELLO_RESULT_RESET) {
        client->seq = ok->floor - 1;
        client->flags &= (uint16_t)~CLIENT_COUNTED_N;
        if (ok->floor == 1) {
            client->flags |= CLIENT_COUNTED_N;
            client->conversation_n = 0;
        }
    } else if (first) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, ok->result);
    }
    client->epoch = ok->epoch;
    client->sver = ok->sver;
    if (ok->head < client->seq) {
        client_fault(crowd, client, LEDGER_RESET, LEDGER_OWN, ok->head);
    }
    client->current_at_seq = ok->head;
    if (client->seq >= ok->head) {
        client->flags |= CLIENT_CURRENT;
        crowd->counts.current++;
    }
}

static void adopt_counter(struct crowd *crowd, struct client *client,
                          const struct message_hello_ok *ok)
{
    if ((client->flags & CLIENT_KNOWN) == 0) {
        client->counter_base = ok->last_counter;
        client->flags |= CLIENT_KNOWN;
        return;
    }

    /* All answered messages used up their counters, and none was ever numbered beyond `created`. */
    const uint64_t used_min = client->counter_base + client->created - client->pending_count;
    const uint64_t used_max = client->counter_base + client->created;

    if (ok->last_counter < used_min || ok->last_counter > used_max) {
        client_fault(crowd, client, LEDGER_RESET, LEDGER_OWN, ok->last_counter);
    }
}

static enum client_verdict on_hello_ok(struct crowd *crowd, struct client *client,
                                       const struct frame_view *view)
{
    struct message_hello_ok ok;

    if (client->state != CLIENT_GREETING || message_decode_hello_ok(view, &ok) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }
    client->state = CLIENT_LIVE;
    client->attempts = 0;
    client->wait_min_ms = 0;
    client->wait_max_ms = 0;
    client->keepalive_s = ok.keepalive_s > UINT16_MAX ? UINT16_MAX : (uint16_t)ok.keepalive_s;
    client->sends_max = ok.sends_outstanding_max < SENDS_OUTSTANDING_MAX
                            ? (uint8_t)ok.sends_outstanding_max
                            : SENDS_OUTSTANDING_MAX;
    if (ok.resume_token.byte_count > 0) {
        memcpy(client->token, ok.resume_token.bytes, ok.resume_token.byte_count);
        client->token_bytes = (uint8_t)ok.resume_token.byte_count;
    }
    crowd->counts.live++;
    adopt_cursor(crowd, client, &ok);
    adopt_counter(crowd, client, &ok);
    while (crowd->window > client->pending_count && client_sends(crowd, client)) {
        if (!client_create(crowd, client, crowd->now_ns)) {
            break;
        }
    }
    return CLIENT_GOES_ON;
}

static enum client_verdict on_error(struct crowd *crowd, struct client *client,
                                    const struct frame_view *view)
{
    struct message_error error;

    if (message_decode_error(view, &error) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }
    if (!error.fatal) {
        crowd->counts.pages_refused += error.request != 0 ? 1 : 0;
        return CLIENT_GOES_ON;
    }
    client->wait_min_ms = error.retry_ms;
    client->wait_max_ms = error.retry_ms > UINT32_MAX / 2 ? UINT32_MAX : error.retry_ms * 2;
    if (client->state == CLIENT_GREETING) {
        crowd->counts.login_refused++;
    }
    if (error.code == CODE_BAD_TOKEN || error.code == CODE_TOKEN_EXPIRED) {
        client->token_bytes = 0; /* a log-in token next time */
    } else if (error.code <= CODE_HELLO_EXPECTED || error.code == CODE_CONFLICT ||
               error.code == CODE_STALE) {
        /* One of us is wrong: these never come to a client that does as this one does. */
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, error.code);
    }
    return CLIENT_ENDS;
}

static enum client_verdict on_goaway(struct crowd *crowd, struct client *client,
                                     const struct frame_view *view)
{
    struct message_goaway goaway;

    if (message_decode_goaway(view, &goaway) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }
    client->wait_min_ms = goaway.wait_min_ms;
    client->wait_max_ms = goaway.wait_max_ms;
    if (client->state != CLIENT_LIVE) {
        return CLIENT_ENDS;
    }
    client->state = CLIENT_LEAVING;
    client->resume_at_ns = crowd->now_ns + LEAVE_MAX_NS;
    return CLIENT_GOES_ON;
}

static enum client_verdict on_token(struct crowd *crowd, struct client *client,
                                    const struct frame_view *view)
{
    struct message_token token;

    if (message_decode_token(view, &token) != CODE_OK ||
        token.token.byte_count > RESUME_TOKEN_BYTES_MAX) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }
    memcpy(client->token, token.token.bytes, token.token.byte_count);
    client->token_bytes = (uint8_t)token.token.byte_count;
    return CLIENT_GOES_ON;
}

static enum client_verdict on_ping(struct crowd *crowd, struct client *client,
                                   const struct frame_view *view)
{
    struct message_ping ping;

    if (message_decode_ping(view, &ping) != CODE_OK) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }
    if (view->type == FRAME_TYPE_PING) {
        client->pong_opaque = ping.opaque; /* of several, the latest is answered */
        client->flags |= CLIENT_PONG_DUE;
    }
    return CLIENT_GOES_ON;
}

enum client_verdict client_on_frame(struct crowd *crowd, struct client *client,
                                    const struct frame_view *view)
{
    client->flags &= (uint16_t)~CLIENT_PING_OUT; /* any sign of life is one */
    if (client->state == CLIENT_GREETING && view->type != FRAME_TYPE_HELLO_OK &&
        view->type != FRAME_TYPE_ERROR && view->type != FRAME_TYPE_GOAWAY) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, view->type);
        return CLIENT_ENDS;
    }
    switch (view->type) {
    case FRAME_TYPE_ENTRIES:
        return client_on_entries(crowd, client, view);
    case FRAME_TYPE_ACCEPTED:
        return on_accepted(crowd, client, view);
    case FRAME_TYPE_REJECTED:
        return on_rejected(crowd, client, view);
    case FRAME_TYPE_HELLO_OK:
        return on_hello_ok(crowd, client, view);
    case FRAME_TYPE_ERROR:
        return on_error(crowd, client, view);
    case FRAME_TYPE_PAGE:
        return client_on_page(crowd, client, view);
    case FRAME_TYPE_GOAWAY:
        return on_goaway(crowd, client, view);
    case FRAME_TYPE_TOKEN:
        return on_token(crowd, client, view);
    case FRAME_TYPE_PING:
    case FRAME_TYPE_PONG:
        return on_ping(crowd, client, view);
    default:
        return CLIENT_GOES_ON; /* unknown types are ignored */
    }
}

/* ---- time and loss */

enum client_verdict client_on_timer(struct crowd *crowd, struct client *client)
{
    if (client->state == CLIENT_LEAVING) {
        return crowd->now_ns >= client->resume_at_ns ? CLIENT_ENDS : CLIENT_GOES_ON;
    }
    if ((client->flags & CLIENT_HOLD) != 0 && client->in_flight == 0) {
        if (crowd->now_ns < client->resume_at_ns) {
            return CLIENT_GOES_ON;
        }
        client->flags &= (uint16_t)~CLIENT_HOLD;
        client->wait_min_ms = 0;
        client->pending_unsent = client->pending_first;
        if (client->pending_first != CLIENT_NONE) {
            const struct client_pending *first = slab_get(&crowd->pending, client->pending_first);

            if (first->number != client->expected) {
                client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_OWN, client->expected);
            }
        }
        return CLIENT_GOES_ON;
    }
    if ((client->flags & CLIENT_PING_OUT) != 0) {
        crowd->counts.timed_out++;
        return CLIENT_ENDS;
    }
    if (client->keepalive_s != 0) {
        client->flags |= CLIENT_PING_DUE;
    }
    return CLIENT_GOES_ON;
}

uint64_t client_timer_ns(const struct crowd *crowd, const struct client *client)
{
    if (client->state == CLIENT_LEAVING ||
        ((client->flags & CLIENT_HOLD) != 0 && client->in_flight == 0)) {
        return client->resume_at_ns;
    }
    if ((client->flags & CLIENT_PING_OUT) != 0) {
        return crowd->now_ns + SILENCE_MAX_NS;
    }
    if (client->keepalive_s == 0) {
        return crowd->now_ns + NEVER_SOON_NS;
    }
    /* A tenth early: the server counts from what reached it. */
    return crowd->now_ns + client->keepalive_s * (CLOCK_NS_PER_S / 10 * 9);
}

void client_on_lost(struct crowd *crowd, struct client *client)
{
    if (client->state == CLIENT_LIVE || client->state == CLIENT_LEAVING) {
        crowd->counts.live--;
        if ((client->flags & CLIENT_CURRENT) != 0) {
            crowd->counts.current--;
        }
    }
    client->flags &= (uint16_t) ~(CLIENT_CURRENT | CLIENT_ACK_DUE | CLIENT_PING_DUE |
                                  CLIENT_PING_OUT | CLIENT_PONG_DUE | CLIENT_HOLD | CLIENT_BYE_PUT);
    if (crowd->churned) {
        client->untimed = client->created;
    }
    client->in_flight = 0;
    client->pending_unsent = client->pending_first; /* sent again, same counters, same nonces */
}

void client_drop(struct crowd *crowd, struct client *client)
{
    link_drop(&crowd->pools, &client->link);
    memset(&client->link, 0, sizeof client->link);
    if (!cell_is_none(client->out)) {
        cells_give(&crowd->cells, client->out);
        client->out = CELL_NONE;
    }
    client->flags &= (uint16_t)~CLIENT_SENDING;
}

uint64_t client_back_off_ns(struct client *client, uint32_t back_off_max_s, uint64_t random)
{
    const uint64_t most_s = client->attempts < 16 ? UINT64_C(1) << client->attempts : 65536;
    const uint64_t span_ns = (most_s < back_off_max_s ? most_s : back_off_max_s) * CLOCK_NS_PER_S;
    const uint64_t least_ns = client->wait_min_ms * CLOCK_NS_PER_MS;
    uint64_t wait_ns = id_mix(random) % (span_ns + 1);

    if (client->wait_max_ms > 0) {
        const uint64_t spread_ms = client->wait_max_ms - client->wait_min_ms;
        const uint64_t asked_ns = least_ns + id_mix(random + 1) % (spread_ms * CLOCK_NS_PER_MS + 1);

        wait_ns = asked_ns > wait_ns ? asked_ns : wait_ns;
    }
    client->wait_min_ms = 0;
    client->wait_max_ms = 0;
    if (client->attempts < UINT8_MAX) {
        client->attempts++;
    }
    return wait_ns;
}

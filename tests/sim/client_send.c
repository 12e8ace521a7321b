/* The sending half of client.h: outbox, counters, refusals, and what a backup does to them. */
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "tests/sim/client.h"
#include "tests/sim/fail.h"

#define BODY_SMALL_MAX 100

static uint32_t draw_body_bytes(const struct client_world *world)
{
    struct prng *prng = world->prng;

    if (!prng_chance(prng, world->large_bodies)) {
        return (uint32_t)prng_between(prng, 4, BODY_SMALL_MAX);
    }
    switch (prng_below(prng, 4)) {
    case 0:
        return (uint32_t)prng_between(prng, 500, 520); /* about where a body leaves its entry */
    case 1:
        return (uint32_t)prng_between(prng, 1800, 4000);
    case 2:
        return (uint32_t)prng_between(prng, 14000, BODY_BYTES_MAX);
    default:
        return (uint32_t)prng_between(prng, BODY_SMALL_MAX, 1900);
    }
}

/* A message that must be refused for ever. */
static void make_invalid(struct sim_message *message, struct prng *prng)
{
    message->invalid = true;
    switch (prng_below(prng, 3)) {
    case 0:
        message->conversation = prng_chance(prng, 500) ? 0 : ID_GROUP_BIT | 7;
        break;
    case 1:
        message->kind = (uint8_t)prng_between(prng, KIND_MAX + 1, 255);
        break;
    default:
        message->body_bytes = BODY_BYTES_MAX + (uint32_t)prng_between(prng, 1, 500);
        break;
    }
}

void client_create(struct client *client, const struct client_world *world)
{
    struct client_store *store = &client->store;

    if (store->outbox_count == CLIENT_OUTBOX_MAX || client->talk_count == 0) {
        return;
    }

    const bool favourite = prng_chance(world->prng, world->favourite);
    const uint64_t peer =
        client->peers[favourite ? 0 : prng_below(world->prng, client->talk_count)];
    struct sim_message *message = ledger_create(world->ledger, client->user, client->device, peer);

    message->kind = (uint8_t)prng_below(world->prng, KIND_MAX + 1);
    message->body_bytes = draw_body_bytes(world);
    store_be64(message->nonce, prng_next(world->prng));
    store_be64(message->nonce + 8, prng_next(world->prng));
    if (prng_chance(world->prng, world->bad_sends)) {
        make_invalid(message, world->prng);
    }
    store->outbox[store->outbox_count++] = (struct outbox_item){ .message = message->index };
    sim_say("client %u: message %u to %llx, %u B", client->index, message->index,
            (unsigned long long)message->conversation, message->body_bytes);
}

static void put_send(struct client *client, const struct client_world *world,
                     struct outbox_item *item)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    static uint8_t body[FRAME_BYTES_MAX];
    struct sim_message *message = ledger_message(world->ledger, item->message);
    struct message_send send = {
        .counter = item->counter,
        .conversation = { message->conversation },
        .kind = message->kind,
        .body = { .bytes = body, .byte_count = (uint16_t)message->body_bytes },
    };

    ledger_body(message, body);
    memcpy(send.nonce.bytes, message->nonce, NONCE_BYTES);

    const size_t byte_count = message_encode_send(frame, sizeof frame, &send);

    HF_ASSERT(byte_count > 0);
    queue_put(&client->connection->up, frame, byte_count);
    if (client->send_count == client->send_capacity) {
        client->send_capacity = client->send_capacity * 2 + 32;
        client->sends = realloc(client->sends, client->send_capacity * sizeof *client->sends);
        SIM_CHECK(client->sends != NULL, "out of memory");
    }
    client->sends[client->send_count++] =
        (struct client_send){ .counter = item->counter, .message = item->message };
    client->outstanding++;
    item->sent_here = true;
    message->sends++;
    message->sent_on = client->connection->accepted_at;
}

/* The server forgets the outcomes of older counters. The outbox is in the counters' order. */
static bool in_reach(const struct client *client, uint64_t counter)
{
    return counter < client->store.outbox[0].counter + OUTCOMES_KEPT;
}

static bool may_send(const struct client *client)
{
    return client->connection != NULL && !client->store.resync && !client->paused &&
           (client->welcomed || client->style.sends_early) &&
           client->outstanding < client->style.outstanding_max;
}

void client_send_some(struct client *client, const struct client_world *world)
{
    struct client_store *store = &client->store;

    for (uint32_t i = 0; i < store->outbox_count && may_send(client); i++) {
        struct outbox_item *item = &store->outbox[i];

        if (item->sent_here) {
            continue;
        }
        if (item->counter == 0) {
            if (i > 0 && !in_reach(client, store->last_counter + 1)) {
                break;
            }
            item->counter = store->last_counter + 1;
            if (!world->calm && prng_chance(world->prng, world->bad_sends / 3)) {
                store->mistaken = true;
                item->counter++; /* a mistake: ORDER says what was expected */
            }
            store->last_counter = item->counter;
        }
        put_send(client, world, item);
        sim_say("client %u: SEND %llu, message %u", client->index,
                (unsigned long long)item->counter, item->message);
        if (!client->restored && may_send(client) && prng_chance(world->prng, world->doubled)) {
            put_send(client, world, item); /* the same answer again */
            client_count(world, HAZARD_DOUBLED);
        }
        if (prng_chance(world->prng, 300)) {
            break;
        }
    }
}

/* ---- answers */

const struct client_send *client_find_send(const struct client *client, uint64_t counter)
{
    for (uint32_t i = client->send_count; i > 0; i--) {
        if (client->sends[i - 1].counter == counter) {
            return &client->sends[i - 1];
        }
    }
    return NULL;
}

/* The SEND that this answers. A counter is outstanding once at most. */
static uint32_t take_answered(struct client *client, uint64_t counter)
{
    struct client_send *send = NULL;

    for (uint32_t i = client->send_count; i > 0 && send == NULL; i--) {
        if (client->sends[i - 1].counter == counter && !client->sends[i - 1].answered) {
            send = &client->sends[i - 1];
        }
    }
    SIM_CHECK(send != NULL, "client %u: an answer to SEND %llu, which isn't outstanding",
              client->index, (unsigned long long)counter);
    send->answered = true;
    client->outstanding--;
    return send->message;
}

static struct outbox_item *outbox_find(struct client *client, uint32_t message)
{
    for (uint32_t i = 0; i < client->store.outbox_count; i++) {
        if (client->store.outbox[i].message == message) {
            return &client->store.outbox[i];
        }
    }
    return NULL;
}

void client_answered(struct client *client, uint32_t message)
{
    struct client_store *store = &client->store;
    struct outbox_item *item = outbox_find(client, message);

    if (item != NULL) {
        const size_t behind = store->outbox_count - (size_t)(item - store->outbox) - 1;

        memmove(item, item + 1, behind * sizeof *item);
        store->outbox_count--;
    }
}

/* An answer to a repeat names a counter that it didn't consume, but only a restored phone repeats
 * under another number. */
static void note_consumed(struct client *client, uint64_t counter)
{
    if (!client->restored && client->counter_seen < counter) {
        client->counter_seen = counter;
    }
}

void client_on_accepted(struct client *client, const struct client_world *world,
                        const struct frame_view *view)
{
    struct message_accepted accepted;
    const uint16_t code = (uint16_t)message_decode_accepted(view, &accepted);

    SIM_CHECK(code == CODE_OK, "client %u: ACCEPTED: %s", client->index, code_name(code));

    const uint32_t message = take_answered(client, accepted.counter);

    sim_say("client %u: ACCEPTED %llu, message %u at %llu", client->index,
            (unsigned long long)accepted.counter, message, (unsigned long long)accepted.seq);
    if (ledger_message(world->ledger, message)->sends > 1) {
        client_count(world, HAZARD_REPEATED);
    }
    ledger_tell_accepted(world->ledger, message, accepted.id.value, accepted.seq,
                         client->store.epoch);
    client_answered(client, message);
    note_consumed(client, accepted.counter);
    client_settle(client, world);
}

static void on_temporary(struct client *client, const struct client_world *world,
                         const struct message_rejected *rejected, uint32_t message)
{
    struct outbox_item *item = outbox_find(client, message);

    client->refused |= rejected->code != CODE_ORDER;
    switch (rejected->code) {
    case CODE_ORDER:
        client->ordered = true;
        client_count(world, HAZARD_ORDER);
        break;
    case CODE_FULL:
        client_count(world, HAZARD_FULL);
        break;
    default:
        client_count(world, HAZARD_RETRY);
        break;
    }
    SIM_CHECK(rejected->expected > 0, "client %u: REJECTED %s expects the counter 0", client->index,
              code_name(rejected->code));
    if (item != NULL) {
        item->sent_here = false;
    }
    client->number_from = rejected->expected;
    client->paused = true;
    client->wakes_at = *world->event + prng_below(world->prng, 40);
}

void client_on_rejected(struct client *client, const struct client_world *world,
                        const struct frame_view *view)
{
    struct message_rejected rejected;
    const uint16_t code = (uint16_t)message_decode_rejected(view, &rejected);

    SIM_CHECK(code == CODE_OK, "client %u: REJECTED: %s", client->index, code_name(code));

    const uint32_t message = take_answered(client, rejected.counter);

    sim_say("client %u: REJECTED %llu, message %u: %s, expected %llu", client->index,
            (unsigned long long)rejected.counter, message, code_name(rejected.code),
            (unsigned long long)rejected.expected);
    if (code_class(rejected.code) == CODE_CLASS_SEND_TEMPORARY) {
        on_temporary(client, world, &rejected, message);
    } else {
        SIM_CHECK(code_class(rejected.code) == CODE_CLASS_SEND_PERMANENT,
                  "client %u: REJECTED with %s", client->index, code_name(rejected.code));
        client_count(world, HAZARD_REJECTED);
        ledger_tell_rejected(world->ledger, message);
        client_answered(client, message);
        note_consumed(client, rejected.counter);
    }
    client_settle(client, world);
}

/* ---- numbering anew */

static void number_anew(struct client *client, uint64_t last_counter)
{
    client->store.last_counter = last_counter;
    client->store.mistaken = false;
    for (uint32_t i = 0; i < client->store.outbox_count; i++) {
        client->store.outbox[i].counter = 0;
        client->store.outbox[i].sent_here = false;
    }
}

/*
 * Caught up after a CONFLICT or STALE: what is still in the outbox isn't in the log. But where a
 * RESET cut the catch-up it may have been there: that isn't sent again.
 */
static void finish_resync(struct client *client, const struct client_world *world)
{
    struct client_store *store = &client->store;

    for (uint32_t i = 0; i < store->outbox_count;) {
        struct sim_message *message = ledger_message(world->ledger, store->outbox[i].message);

        if (!store->outbox[i].cut) {
            i++;
            continue;
        }
        if (message->fate == FATE_OPEN) {
            message->fate = FATE_UNKNOWN;
        }
        client_count(world, HAZARD_FATE_UNKNOWN);
        client_answered(client, message->index);
    }
    number_anew(client, client->welcome_counter);
    store->resync = false;
    client_count(world, HAZARD_RESYNC);
    sim_say("client %u: numbers %u messages anew from %llu", client->index, store->outbox_count,
            (unsigned long long)client->welcome_counter + 1);
}

void client_settle(struct client *client, const struct client_world *world)
{
    if (client->connection == NULL || !client->welcomed || client->outstanding > 0) {
        return;
    }
    if (client->store.resync && client->store.seq >= client->welcome_head) {
        finish_resync(client, world);
        client->paused = false;
    }
    if (client->paused && *world->event >= client->wakes_at && !client->store.resync) {
        /* Answers may overtake each other: only now can it be told what the first of them was. */
        SIM_CHECK(!client->ordered || client->refused || client->store.mistaken || client->restored,
                  "client %u: ORDER, but it skipped no counter, and nothing was refused before",
                  client->index);
        client->ordered = false;
        client->refused = false;
        number_anew(client, client->number_from - 1 > client->counter_seen ? client->number_from - 1
                                                                           : client->counter_seen);
        client->paused = false;
    }
}

/* ---- backups */

void client_backup(struct client *client)
{
    client->backup = client->store;
    client->has_backup = true;
}

static bool store_has(const struct client_store *store, uint32_t message)
{
    for (uint32_t i = 0; i < store->outbox_count; i++) {
        if (store->outbox[i].message == message) {
            return true;
        }
    }
    return false;
}

/* The phone is again what it was at the backup, and knows nothing of what came after. */
void client_restore(struct client *client, const struct client_world *world)
{
    HF_ASSERT(client->connection == NULL && client->has_backup);
    for (uint32_t i = 0; i < client->store.outbox_count; i++) {
        struct sim_message *message =
            ledger_message(world->ledger, client->store.outbox[i].message);

        if (message->fate == FATE_OPEN && !store_has(&client->backup, message->index)) {
            message->fate = FATE_FORGOTTEN;
        }
    }
    client->store = client->backup;
    client->restored = true;
    for (uint32_t i = 0; i < client->store.outbox_count; i++) {
        struct outbox_item *item = &client->store.outbox[i];
        struct sim_message *message = ledger_message(world->ledger, item->message);

        item->sent_here = false;
        if (message->fate == FATE_UNKNOWN) {
            /* It had been given up, and is sent after all, later than those behind it. */
            message->fate = FATE_OPEN;
            message->order = 0;
        }
    }
    client_count(world, HAZARD_RESTORED);
    sim_say("client %u: restored to seq %llu, last counter %llu, %u in the outbox", client->index,
            (unsigned long long)client->store.seq, (unsigned long long)client->store.last_counter,
            client->store.outbox_count);
}

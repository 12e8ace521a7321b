#include "tests/sim/client.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "tests/sim/fail.h"

void client_open(struct client *client, const struct client_world *world, uint32_t index,
                 uint32_t user_index, uint64_t user, uint32_t device)
{
    struct prng *prng = world->prng;

    *client = (struct client){
        .index = index,
        .user_index = user_index,
        .user = user,
        .device = device,
        .style = {
            .sends_early = prng_chance(prng, 600),
            .notices_counter = prng_chance(prng, 500),
            .window = prng_chance(prng, 500) ? 0 : (uint32_t)prng_between(prng, 1000, 60000),
            .outstanding_max = prng_chance(prng, 500) ? SENDS_OUTSTANDING_MAX
                                                      : (uint32_t)prng_between(prng, 1, 31),
            .ack_chance = (uint32_t)prng_between(prng, 100, 1000),
            .talk = (uint32_t)prng_between(prng, 50, 600),
        },
    };
}

void client_close(struct client *client)
{
    free(client->sends);
    free(client->frames);
    client->sends = NULL;
    client->frames = NULL;
}

/* ---- connecting */

static void put(struct client *client, const uint8_t *frame, size_t byte_count)
{
    HF_ASSERT(byte_count > 0 && client->connection != NULL);
    queue_put(&client->connection->up, frame, byte_count);
}

/* The token says what the host must know: whose it is, and the generation if it is a resume token.
 */
static uint16_t make_token(const struct client *client, const struct client_world *world,
                           uint8_t token[17])
{
    const bool resume = client->store.has_generation && prng_chance(world->prng, 700);

    store_be64(token, client->user);
    store_be32(token + 8, client->device);
    token[12] = resume ? 1 : 0;
    store_be32(token + 13, client->store.generation);
    return 17;
}

static void connect_now(struct client *client, const struct client_world *world)
{
    uint8_t frame[512];
    uint8_t token[17];
    struct client_store *store = &client->store;

    client->connection = net_connect(world->net, client->index, client->user_index);
    if (client->connection == NULL) {
        return; /* the server has too many: later */
    }
    if (!world->calm && store->seq > 0 && prng_chance(world->prng, world->back)) {
        store->seq -= prng_between(world->prng, 1, store->seq < 20 ? store->seq : 20);
        client_count(world, HAZARD_CURSOR_BACK);
    }
    client->welcomed = false;
    client->misbehaved = false;
    client->paused = false;
    client->ordered = false;
    client->refused = false;
    client->send_count = 0;
    client->outstanding = 0;
    client->unacked_bytes = 0;
    client->frame_first = 0;
    client->frame_count = 0;
    memset(client->requests, 0, sizeof client->requests);
    for (uint32_t i = 0; i < store->outbox_count; i++) {
        store->outbox[i].sent_here = false;
    }
    client->hello_epoch = store->epoch;
    client->hello_seq = store->seq;
    if (!world->calm && prng_chance(world->prng, world->rogue)) {
        client->hello_seq += 1000; /* as if the server had lost entries */
        client_count(world, HAZARD_CURSOR_AHEAD);
    }
    client->hello_head = ledger_log(world->ledger, client->user)->head_seen;
    client->hello_floor = ledger_log(world->ledger, client->user)->floor_seen;

    const struct message_hello hello = {
        .version = PROTOCOL_VERSION,
        .user = { client->user },
        .device = { client->device },
        .cursor = { .epoch = store->epoch, .seq = client->hello_seq },
        .mode = HELLO_MODE_LIVE,
        .window = client->style.window,
        .token = { .bytes = token, .byte_count = make_token(client, world, token) },
    };

    put(client, frame, message_encode_hello(frame, sizeof frame, &hello));
    client_count(world, HAZARD_CONNECTIONS);
    sim_say("client %u (user %llx): connection %u.%u, HELLO from (%llu, %llu)%s", client->index,
            (unsigned long long)client->user, client->connection->ref.slot,
            client->connection->ref.generation, (unsigned long long)store->epoch,
            (unsigned long long)store->seq, store->resync ? ", numbers anew" : "");
    client_send_some(client, world);
}

static void disconnected(struct client *client, const struct client_world *world, uint64_t wait)
{
    client->connection = NULL;
    client->welcomed = false;
    client->paused = false;
    client->outstanding = 0;
    client->wakes_at = *world->event + prng_below(world->prng, wait + 1);
}

/* Goes away; what is on its way is lost in part, and some of it is read only later. */
static void leave(struct client *client, const struct client_world *world)
{
    struct connection *connection = client->connection;
    const size_t on_its_way = queue_bytes(&connection->up);
    size_t keep = on_its_way;

    if (on_its_way > 0 && prng_chance(world->prng, 500)) {
        keep = prng_below(world->prng, on_its_way);
        client_count(world, HAZARD_INPUT_LOST);
    }
    sim_say("client %u: leaves connection %u.%u, %zu of %zu bytes still arrive", client->index,
            connection->ref.slot, connection->ref.generation, keep, on_its_way);
    net_client_leaves(connection, keep);
    disconnected(client, world, prng_chance(world->prng, 300) ? 300 : 10);
}

/* ---- acting */

static void put_ack(struct client *client, const struct client_world *world, bool all)
{
    uint8_t frame[ACK_FRAME_BYTES];
    const uint64_t unacked = client->store.seq - client->acked;

    if (unacked == 0) {
        return;
    }

    const uint64_t seq =
        all ? client->store.seq : client->acked + prng_between(world->prng, 1, unacked);
    const struct message_ack ack = { .seq = seq };

    put(client, frame, message_encode_ack(frame, sizeof frame, &ack));
    client->acked = seq;
    while (client->frame_first < client->frame_count &&
           client->frames[client->frame_first].last_seq <= seq) {
        client->unacked_bytes -= client->frames[client->frame_first++].byte_count;
    }
}

static void act_offline(struct client *client, const struct client_world *world)
{
    if (!world->calm) {
        if (client->has_backup && prng_chance(world->prng, world->restore)) {
            client_restore(client, world);
        }
        if (prng_chance(world->prng, client->style.talk / 2)) {
            client_create(client, world);
        }
        if (prng_chance(world->prng, 100)) {
            client_backup(client);
        }
    }
    if (*world->event >= client->wakes_at) {
        connect_now(client, world);
    }
}

void client_act(struct client *client, const struct client_world *world)
{
    if (client->connection == NULL) {
        act_offline(client, world);
        return;
    }
    client_settle(client, world);
    client_send_some(client, world);
    if (world->calm) {
        if (client->welcomed) {
            put_ack(client, world, true);
            (void)client_audit_step(client, world);
        }
        return;
    }
    if (prng_chance(world->prng, world->leave)) {
        leave(client, world);
        return;
    }
    if (client->welcomed && prng_chance(world->prng, world->rogue)) {
        client_misbehave(client, world);
    }
    if (prng_chance(world->prng, client->style.talk)) {
        const uint64_t burst = prng_chance(world->prng, world->bursts) ? 20 : 3;

        for (uint64_t i = prng_between(world->prng, 1, burst); i > 0; i--) {
            client_create(client, world);
        }
        client_send_some(client, world);
    }
    if (client->welcomed && prng_chance(world->prng, 200)) {
        put_ack(client, world, prng_chance(world->prng, 500));
    }
    if (client->welcomed && prng_chance(world->prng, world->history)) {
        client_ask_history(client, world);
    }
    if (prng_chance(world->prng, 20)) {
        client_backup(client);
    }
}

/* ---- receiving */

/* What HELLO_OK's result must be, given the cursor that was sent. */
static void check_result(const struct client *client, const struct message_hello_ok *ok)
{
    const bool same = client->hello_epoch == ok->epoch;
    const bool within = client->hello_seq + 1 >= ok->floor && client->hello_seq <= ok->head;

    if (ok->result == HELLO_RESULT_RESUME) {
        SIM_CHECK(same && within,
                  "client %u: RESUME from (%llu, %llu), but epoch %llu, floor %llu, head %llu",
                  client->index, (unsigned long long)client->hello_epoch,
                  (unsigned long long)client->hello_seq, (unsigned long long)ok->epoch,
                  (unsigned long long)ok->floor, (unsigned long long)ok->head);
    } else {
        SIM_CHECK(ok->result == HELLO_RESULT_RESET && !(same && within),
                  "client %u: RESET of a good cursor (%llu, %llu): epoch %llu, floor %llu, head "
                  "%llu",
                  client->index, (unsigned long long)client->hello_epoch,
                  (unsigned long long)client->hello_seq, (unsigned long long)ok->epoch,
                  (unsigned long long)ok->floor, (unsigned long long)ok->head);
    }
}

static void note_reset(struct client *client, const struct message_hello_ok *ok)
{
    struct client_store *store = &client->store;

    if (store->epoch != 0 && store->epoch != ok->epoch) {
        store->resync = true;
    }
    if (ok->floor > 1) {
        for (uint32_t i = 0; i < store->outbox_count; i++) {
            store->outbox[i].cut = true;
        }
    }
    store->epoch = ok->epoch;
    store->seq = ok->floor - 1;
}

static void on_hello_ok(struct client *client, const struct client_world *world,
                        const struct frame_view *view)
{
    struct message_hello_ok ok;
    struct client_store *store = &client->store;
    const uint16_t code = (uint16_t)message_decode_hello_ok(view, &ok);

    SIM_CHECK(code == CODE_OK, "client %u: HELLO_OK: %s", client->index, code_name(code));
    SIM_CHECK(!client->welcomed, "client %u: two HELLO_OK", client->index);
    sim_say("client %u: HELLO_OK %s, epoch %llu, floor %llu, head %llu, last counter %llu",
            client->index, ok.result == HELLO_RESULT_RESUME ? "RESUME" : "RESET",
            (unsigned long long)ok.epoch, (unsigned long long)ok.floor, (unsigned long long)ok.head,
            (unsigned long long)ok.last_counter);
    check_result(client, &ok);
    ledger_tell_head(world->ledger, client->user, ok.epoch, ok.head, ok.floor, client->hello_head,
                     client->hello_floor);
    SIM_CHECK(ok.last_counter >= client->counter_seen,
              "client %u: HELLO_OK says last counter %llu, but %llu was answered", client->index,
              (unsigned long long)ok.last_counter, (unsigned long long)client->counter_seen);
    SIM_CHECK(client->restored || ok.last_counter <= store->last_counter,
              "client %u: HELLO_OK says last counter %llu, but %llu was the last that it used",
              client->index, (unsigned long long)ok.last_counter,
              (unsigned long long)store->last_counter);
    if (ok.result == HELLO_RESULT_RESET) {
        client_count(world, HAZARD_RESET);
        note_reset(client, &ok);
    } else {
        client_count(world, HAZARD_RESUME);
    }
    if (ok.last_counter > store->last_counter && client->style.notices_counter) {
        store->resync = true;
    }
    SIM_CHECK(ok.resume_token.byte_count == 4, "client %u: no resume token", client->index);
    store->generation = load_be32(ok.resume_token.bytes);
    store->has_generation = true;
    client->welcomed = true;
    client->welcome_head = ok.head;
    client->welcome_counter = ok.last_counter;
    client->acked = store->seq;
    client->window = ok.window;
    client_settle(client, world);
}

/* The message at that place of the log; 0: it isn't known. */
static uint32_t message_at(const struct client_world *world, uint64_t user, uint64_t seq)
{
    const struct ledger_entry *entry = ledger_entry_at(world->ledger, user, seq);

    return entry != NULL && !entry->said.refused ? entry->said.message : 0;
}

static struct telling tell_message(struct ledger *ledger, const struct entry_message *entry)
{
    struct telling telling = {
        .message = ledger_message_of_body(ledger, entry->body.bytes, entry->body.byte_count),
        .id = entry->id.value,
        .conversation = entry->conversation.value,
        .sender = entry->sender.value,
        .device = entry->device.value,
        .flags = entry->flags,
        .kind = entry->kind,
        .prev = entry->prev,
        .n = entry->n,
        .cn = entry->cn,
    };

    if ((entry->flags & ENTRY_FLAG_OWN) != 0) {
        telling.counter = entry->counter;
        memcpy(telling.nonce, entry->nonce.bytes, sizeof telling.nonce);
    }
    return telling;
}

void client_tell_message(struct client *client, const struct client_world *world, uint64_t seq,
                         const struct entry_message *entry)
{
    const struct telling telling = tell_message(world->ledger, entry);

    ledger_tell(world->ledger, client->user, client->store.epoch, seq, &telling, TELLING_SEEN);
}

/* An own entry beyond HELLO_OK's head: its SEND came on this connection, for older ones of this
 * device are fenced. */
static void on_own(struct client *client, const struct client_world *world, uint64_t seq,
                   uint32_t index)
{
    const struct sim_message *message = ledger_message(world->ledger, index);

    if (message->from != client->user || message->device != client->device) {
        return;
    }
    SIM_CHECK(seq <= client->welcome_head || message->sent_on == client->connection->accepted_at,
              "client %u: message %u, at %llu, was sent on an older connection, and HELLO_OK said "
              "that the log ends at %llu (fence)",
              client->index, index, (unsigned long long)seq,
              (unsigned long long)client->welcome_head);
    ledger_tell_accepted(world->ledger, index, message->id, seq, client->store.epoch);
    client_answered(client, index);
}

static void on_short(struct client *client, const struct client_world *world, uint64_t seq,
                     const struct entry_sent *sent)
{
    const struct client_send *send = client_find_send(client, sent->counter);

    SIM_CHECK(send != NULL,
              "client %u: entry %llu in short form, of SEND %llu, which it didn't "
              "make on this connection",
              client->index, (unsigned long long)seq, (unsigned long long)sent->counter);

    const struct telling telling = {
        .message = send->message,
        .id = sent->id.value,
        .counter = sent->counter,
    };

    ledger_tell(world->ledger, client->user, client->store.epoch, seq, &telling, TELLING_SHORT);
    on_own(client, world, seq, send->message);
}

static void on_refused(struct client *client, const struct client_world *world, uint64_t seq,
                       const struct entry_refused *refused)
{
    const uint32_t index = message_at(world, client->user, refused->ref_seq);
    const struct telling telling = {
        .refused = true,
        .message = index,
        .id = refused->id.value,
        .conversation = refused->conversation.value,
        .code = refused->code,
        .ref_seq = refused->ref_seq,
    };

    SIM_CHECK(index != 0 || refused->ref_seq < ledger_log(world->ledger, client->user)->floor,
              "client %u: entry %llu refuses entry %llu, which is no message", client->index,
              (unsigned long long)seq, (unsigned long long)refused->ref_seq);
    ledger_tell(world->ledger, client->user, client->store.epoch, seq, &telling, TELLING_SEEN);
}

/* Never more than the window is unacknowledged; a frame is so until its last entry is. */
static void note_unacked(struct client *client, size_t byte_count)
{
    if (client->frame_count == client->frame_capacity) {
        client->frame_capacity = client->frame_capacity * 2 + 16;
        client->frames = realloc(client->frames, client->frame_capacity * sizeof *client->frames);
        SIM_CHECK(client->frames != NULL, "out of memory");
    }
    client->frames[client->frame_count++] =
        (struct client_frame){ .last_seq = client->store.seq, .byte_count = byte_count };
    client->unacked_bytes += byte_count;
    SIM_CHECK(client->unacked_bytes <= client->window,
              "client %u: %llu bytes of entries are unacknowledged, the window is %u",
              client->index, (unsigned long long)client->unacked_bytes, client->window);
}

static void on_entries(struct client *client, const struct client_world *world,
                       const struct frame_view *view)
{
    struct message_entries entries;
    struct entry entry;
    uint64_t seq;
    const uint16_t code = (uint16_t)message_decode_entries(view, &entries);

    SIM_CHECK(code == CODE_OK, "client %u: ENTRIES: %s", client->index, code_name(code));
    SIM_CHECK(client->welcomed, "client %u: ENTRIES before HELLO_OK", client->index);
    sim_say("client %u: ENTRIES %llu + %u", client->index, (unsigned long long)entries.first,
            entries.count);
    while (entries_next(&entries, &seq, &entry)) {
        SIM_CHECK(seq == client->store.seq + 1, "client %u: entry %llu follows entry %llu (%s)",
                  client->index, (unsigned long long)seq, (unsigned long long)client->store.seq,
                  seq <= client->store.seq ? "I4" : "I2: a gap");
        switch (entry.form) {
        case ENTRY_MESSAGE:
            client_tell_message(client, world, seq, &entry.message);
            on_own(client, world, seq, message_at(world, client->user, seq));
            break;
        case ENTRY_SENT:
            on_short(client, world, seq, &entry.sent);
            break;
        case ENTRY_REFUSED:
            on_refused(client, world, seq, &entry.refused);
            break;
        }
        client->store.seq = seq;
    }
    note_unacked(client, frame_bytes(view));
    if (prng_chance(world->prng, world->calm ? 1000 : client->style.ack_chance)) {
        put_ack(client, world, world->calm || prng_chance(world->prng, 700));
    }
    client_settle(client, world);
}

/* Whether a correct client may be told this now. */
static void check_fatal(const struct client *client, const struct client_world *world,
                        const struct message_error *error)
{
    switch (error->code) {
    case CODE_CONFLICT:
    case CODE_STALE:
        SIM_CHECK(client->restored, "client %u: %s, but it was never restored", client->index,
                  code_name(error->code));
        client_count(world, error->code == CODE_CONFLICT ? HAZARD_CONFLICT : HAZARD_STALE);
        break;
    case CODE_TRIMMED:
        client_count(world, HAZARD_TRIMMED);
        break;
    case CODE_BUSY:
        client_count(world, HAZARD_BUSY);
        break;
    case CODE_GOING_AWAY:
        break;
    default:
        SIM_CHECK(client_may_be_told(client, error->code), "client %u: ERROR %s", client->index,
                  code_name(error->code));
        client_count(world, HAZARD_ROGUE_ENDED);
        break;
    }
}

static void on_error(struct client *client, const struct client_world *world,
                     const struct frame_view *view)
{
    struct message_error error;
    const uint16_t code = (uint16_t)message_decode_error(view, &error);

    SIM_CHECK(code == CODE_OK, "client %u: ERROR: %s", client->index, code_name(code));
    sim_say("client %u: ERROR %s", client->index, code_name(error.code));
    if (!error.fatal && error.request < CLIENT_ROGUE_REQUEST) {
        client_on_request_error(client, world, &error);
        return;
    }
    if (!error.fatal) {
        return;
    }
    check_fatal(client, world, &error);
    if (error.code == CODE_CONFLICT || error.code == CODE_STALE) {
        client->store.resync = true;
    }
    net_client_leaves(client->connection, 0);
    disconnected(client, world, error.code == CODE_BUSY ? 60 : 5);
}

bool client_can_receive(const struct client *client)
{
    return client->connection != NULL &&
           (queue_bytes(&client->connection->down) > 0 || !client->connection->server_end);
}

void client_receive(struct client *client, const struct client_world *world)
{
    struct connection *connection = client->connection;
    struct frame_view view;

    if (!queue_peek(&connection->down, &view)) {
        HF_ASSERT(!connection->server_end);
        sim_say("client %u: the server has closed", client->index);
        net_client_leaves(connection, 0);
        disconnected(client, world, 20);
        return;
    }
    switch (view.type) {
    case FRAME_TYPE_HELLO_OK:
        on_hello_ok(client, world, &view);
        break;
    case FRAME_TYPE_ENTRIES:
        on_entries(client, world, &view);
        break;
    case FRAME_TYPE_ACCEPTED:
        client_on_accepted(client, world, &view);
        break;
    case FRAME_TYPE_REJECTED:
        client_on_rejected(client, world, &view);
        break;
    case FRAME_TYPE_PAGE:
        client_on_page(client, world, &view);
        break;
    case FRAME_TYPE_ERROR:
        on_error(client, world, &view);
        break;
    default:
        sim_fail("client %u: a %s", client->index, frame_type_name(view.type));
    }
    if (client->connection != NULL) {
        queue_take(&connection->down, &view);
        if (view.type != FRAME_TYPE_HELLO_OK) {
            connection->left_bytes += frame_bytes(&view); /* it was the engine's */
        }
    }
}

bool client_is_drained(const struct client *client, const struct client_world *world)
{
    const struct ledger_log *log = ledger_log(world->ledger, client->user);

    return client->connection != NULL && client->welcomed && client->store.outbox_count == 0 &&
           client->outstanding == 0 && client->store.seq == log->head_known &&
           client->acked == client->store.seq && client->audit_peer == client->peer_count;
}

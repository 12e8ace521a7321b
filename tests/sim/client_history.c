/* The reading half of client.h: pages of history, compared with what the ledger knows of the log.
 */
#include <string.h>

#include "core/base/check.h"
#include "tests/sim/client.h"
#include "tests/sim/fail.h"

static bool is_of(const struct ledger_entry *entry, uint64_t conversation)
{
    return entry != NULL && entry->whole && !entry->said.refused &&
           entry->said.conversation == conversation;
}

/* The newest entry of a conversation that any client was shown; 0: none. */
static uint64_t newest_seen(const struct client *client, const struct client_world *world,
                            uint64_t conversation)
{
    const struct ledger_log *log = ledger_log(world->ledger, client->user);

    for (uint64_t seq = log->head_known; seq > 0; seq--) {
        const struct ledger_entry *entry = ledger_entry_at(world->ledger, client->user, seq);

        if (is_of(entry, conversation) && entry->seen) {
            return seq;
        }
    }
    return 0;
}

/* Some seq of the log; whether it is an anchor for the conversation is another question. */
static uint64_t draw_anchor(const struct client *client, const struct client_world *world,
                            uint64_t conversation)
{
    if (client->store.seq == 0 || prng_chance(world->prng, 250)) {
        return 0;
    }

    uint64_t seq = prng_between(world->prng, 1, client->store.seq);

    if (prng_chance(world->prng, 950)) {
        while (seq > 0 && !is_of(ledger_entry_at(world->ledger, client->user, seq), conversation)) {
            seq--;
        }
    }
    return seq;
}

static struct client_request *ask(struct client *client, const struct client_world *world,
                                  const struct client_request *wanted)
{
    uint8_t frame[HISTORY_FRAME_BYTES];
    struct client_request *request = NULL;

    for (int i = 0; i < REQUESTS_OUTSTANDING_MAX && request == NULL; i++) {
        if (client->requests[i].id == 0) {
            request = &client->requests[i];
        }
    }
    if (request == NULL) {
        return NULL;
    }

    const struct ledger_entry *anchor =
        ledger_entry_at(world->ledger, client->user, wanted->anchor);

    *request = *wanted;
    request->id = ++client->last_request;
    request->newest = newest_seen(client, world, request->conversation);
    request->anchor_bogus = request->anchor != 0 && !is_of(anchor, request->conversation);
    request->anchor_n = request->anchor != 0 && !request->anchor_bogus ? anchor->said.n : 0;

    const struct message_history history = {
        .request = request->id,
        .conversation = { request->conversation },
        .direction = request->direction,
        .anchor = request->anchor,
        .n = request->n,
        .bytes = request->bytes,
    };
    const size_t byte_count = message_encode_history(frame, sizeof frame, &history);

    HF_ASSERT(byte_count > 0);
    queue_put(&client->connection->up, frame, byte_count);
    sim_say("client %u: HISTORY %u of %llx, %s %llu, %u entries, %u bytes", client->index,
            request->id, (unsigned long long)request->conversation,
            request->direction == HISTORY_BEFORE ? "before" : "after",
            (unsigned long long)request->anchor, request->n, request->bytes);
    return request;
}

void client_ask_history(struct client *client, const struct client_world *world)
{
    if (client->peer_count == 0) {
        return;
    }

    struct client_request wanted = {
        .conversation = client->peers[prng_below(world->prng, client->peer_count)],
        .direction = prng_chance(world->prng, 500) ? HISTORY_BEFORE : HISTORY_AFTER,
        .n = (uint16_t)prng_between(world->prng, 1, prng_chance(world->prng, 700) ? 12 : 300),
        .bytes = prng_chance(world->prng, 600) ? 0 : (uint32_t)prng_between(world->prng, 50, 5000),
    };

    wanted.anchor = draw_anchor(client, world, wanted.conversation);
    (void)ask(client, world, &wanted);
}

/* ---- Answers ---- */

static struct client_request *find_request(struct client *client, uint32_t id)
{
    for (int i = 0; i < REQUESTS_OUTSTANDING_MAX; i++) {
        if (client->requests[i].id == id && id != 0) {
            return &client->requests[i];
        }
    }
    return NULL;
}

void client_on_request_error(struct client *client, const struct client_world *world,
                             const struct message_error *error)
{
    struct client_request *request = find_request(client, error->request);

    SIM_CHECK(request != NULL, "client %u: ERROR %s, but there is no request %u", client->index,
              code_name(error->code), error->request);
    if (error->code == CODE_BAD_CURSOR) {
        SIM_CHECK(request->anchor_bogus, "client %u: BAD_CURSOR for entry %llu, which is one",
                  client->index, (unsigned long long)request->anchor);
        client_count(world, HAZARD_BAD_CURSOR);
    } else {
        SIM_CHECK(error->code == CODE_UNAVAILABLE ||
                      (error->code == CODE_TOO_MANY_REQUESTS && client->misbehaved),
                  "client %u: a request got %s", client->index, code_name(error->code));
    }
    request->id = 0;
}

struct page_read {
    uint64_t first_seq, first_n, first_prev;
    uint64_t last_seq, last_n;
    uint32_t count;
};

/* Reads the page's entries, each of which must be the successor of the one before. */
static struct page_read read_page(struct client *client, const struct client_world *world,
                                  struct message_page *page)
{
    struct page_read read = { 0 };
    struct entry_message entry;
    uint64_t seq;

    while (page_next(page, &seq, &entry)) {
        SIM_CHECK(entry.conversation.value == page->conversation.value,
                  "client %u: a page has an entry of another conversation", client->index);
        if (read.count == 0) {
            read.first_seq = seq;
            read.first_n = entry.n;
            read.first_prev = entry.prev;
        } else {
            SIM_CHECK(entry.prev == read.last_seq && entry.n == read.last_n + 1,
                      "client %u: a page has a gap: n %llu at %llu, then n %llu at %llu",
                      client->index, (unsigned long long)read.last_n,
                      (unsigned long long)read.last_seq, (unsigned long long)entry.n,
                      (unsigned long long)seq);
        }
        client_tell_message(client, world, seq, &entry);
        read.last_seq = seq;
        read.last_n = entry.n;
        read.count++;
    }
    return read;
}

static void check_before(const struct client *client, const struct client_request *request,
                         const struct page_read *read, const struct message_page *page)
{
    const bool more = (page->flags & PAGE_FLAG_MORE) != 0;
    const bool trimmed = (page->flags & PAGE_FLAG_TRIMMED) != 0;

    if (read->count == 0) {
        SIM_CHECK(trimmed || (request->anchor == 0 ? request->newest == 0 : request->anchor_n == 1),
                  "client %u: nothing before %llu (n %llu)", client->index,
                  (unsigned long long)request->anchor, (unsigned long long)request->anchor_n);
        return;
    }
    if (request->anchor == 0) {
        SIM_CHECK(read->last_seq >= request->newest,
                  "client %u: the newest is %llu, but %llu was seen", client->index,
                  (unsigned long long)read->last_seq, (unsigned long long)request->newest);
    } else {
        SIM_CHECK(read->last_n + 1 == request->anchor_n, "client %u: before n %llu comes n %llu",
                  client->index, (unsigned long long)request->anchor_n,
                  (unsigned long long)read->last_n);
    }
    SIM_CHECK(more || trimmed || read->first_n == 1, "client %u: nothing before n %llu?",
              client->index, (unsigned long long)read->first_n);
    SIM_CHECK(!more || read->first_n > 1, "client %u: more before the first?", client->index);
}

static void check_after(const struct client *client, const struct client_request *request,
                        const struct page_read *read, const struct message_page *page)
{
    const bool more = (page->flags & PAGE_FLAG_MORE) != 0;
    const bool trimmed = (page->flags & PAGE_FLAG_TRIMMED) != 0;

    if (read->count == 0) {
        SIM_CHECK(trimmed || request->newest <= request->anchor,
                  "client %u: nothing after %llu, but %llu was seen", client->index,
                  (unsigned long long)request->anchor, (unsigned long long)request->newest);
        return;
    }
    if (request->anchor != 0) {
        SIM_CHECK(trimmed || read->first_n == request->anchor_n + 1,
                  "client %u: after n %llu comes n %llu", client->index,
                  (unsigned long long)request->anchor_n, (unsigned long long)read->first_n);
    } else {
        SIM_CHECK(trimmed || read->first_n == 1, "client %u: the oldest is n %llu", client->index,
                  (unsigned long long)read->first_n);
    }
    SIM_CHECK(more || read->last_seq >= request->newest,
              "client %u: nothing after %llu, but %llu was seen", client->index,
              (unsigned long long)read->last_seq, (unsigned long long)request->newest);
}

static void audit_page(struct client *client, const struct page_read *read,
                       const struct message_page *page);

void client_on_page(struct client *client, const struct client_world *world,
                    const struct frame_view *view)
{
    struct message_page page;
    const uint16_t code = (uint16_t)message_decode_page(view, &page);

    SIM_CHECK(code == CODE_OK, "client %u: PAGE: %s", client->index, code_name(code));

    if (page.request >= CLIENT_ROGUE_REQUEST && client->misbehaved) {
        return;
    }

    struct client_request *request = find_request(client, page.request);

    SIM_CHECK(request != NULL, "client %u: PAGE of request %u, which there isn't", client->index,
              page.request);
    SIM_CHECK(page.conversation.value == request->conversation,
              "client %u: PAGE of another "
              "conversation",
              client->index);
    /* An anchor below the floor isn't checked; the floor may be on its way to the disk. */
    SIM_CHECK(!request->anchor_bogus || world->retention,
              "client %u: a page from %llu, which isn't in the conversation", client->index,
              (unsigned long long)request->anchor);
    SIM_CHECK(world->retention || (page.flags & PAGE_FLAG_TRIMMED) == 0,
              "client %u: TRIMMED without retention", client->index);

    const struct message_page header = page;
    const struct page_read read = read_page(client, world, &page);

    sim_say("client %u: PAGE %u, %u entries, n %llu to %llu, flags %x", client->index, request->id,
            read.count, (unsigned long long)read.first_n, (unsigned long long)read.last_n,
            header.flags);
    SIM_CHECK(read.count <= request->n, "client %u: PAGE of %u entries, not %u", client->index,
              read.count, request->n);
    SIM_CHECK(request->bytes == 0 || read.count <= 1 || frame_bytes(view) <= request->bytes,
              "client %u: PAGE of %zu bytes, not %u", client->index, frame_bytes(view),
              request->bytes);
    if (request->direction == HISTORY_BEFORE) {
        check_before(client, request, &read, &header);
    } else {
        check_after(client, request, &read, &header);
    }
    client_count(world, HAZARD_PAGES);
    if ((header.flags & PAGE_FLAG_TRIMMED) != 0) {
        client_count(world, HAZARD_PAGES_TRIMMED);
    }
    if (request->audit) {
        audit_page(client, &read, &header);
    }
    request->id = 0;
}

/* ---- The walk through all history, when the faults have stopped ---- */

void client_audit_begin(struct client *client)
{
    client->audit_peer = 0;
    client->audit_direction = HISTORY_BEFORE;
    client->audit_anchor = 0;
    client->audit_n = 0;
}

static void audit_page(struct client *client, const struct page_read *read,
                       const struct message_page *page)
{
    client->audit_n = 0;
    if (read->count > 0 && (page->flags & PAGE_FLAG_MORE) != 0) {
        client->audit_anchor =
            client->audit_direction == HISTORY_BEFORE ? read->first_seq : read->last_seq;
        return;
    }
    client->audit_anchor = 0;
    if (client->audit_direction == HISTORY_BEFORE) {
        client->audit_direction = HISTORY_AFTER;
    } else {
        client->audit_direction = HISTORY_BEFORE;
        client->audit_peer++;
    }
}

bool client_audit_step(struct client *client, const struct client_world *world)
{
    if (client->audit_peer == client->peer_count) {
        return false;
    }
    for (int i = 0; i < REQUESTS_OUTSTANDING_MAX; i++) {
        if (client->requests[i].id != 0) {
            return true; /* one after the other */
        }
    }

    if (client->audit_n == 0) {
        client->audit_n =
            (uint32_t)prng_between(world->prng, 5, prng_chance(world->prng, 500) ? 40 : 200);
    }

    const struct client_request wanted = {
        .conversation = client->peers[client->audit_peer],
        .direction = client->audit_direction,
        .anchor = client->audit_anchor,
        .n = (uint16_t)client->audit_n,
        .bytes = prng_chance(world->prng, 700) ? 0 : (uint32_t)prng_between(world->prng, 400, 9000),
        .audit = true,
    };

    (void)ask(client, world, &wanted);
    return true;
}

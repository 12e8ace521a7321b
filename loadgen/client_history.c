/* A client that has come back looks at the newest page of its conversation, as people do. */
#include "loadgen/client.h"
#include "loadgen/client_internal.h"
#include "proto/entries.h"

#define REQUEST_ID 1 /* one at a time */

size_t client_put_history(const struct crowd *crowd, struct client *client, uint8_t *to, size_t cap)
{
    const struct message_history history = {
        .request = REQUEST_ID,
        .conversation = { client_peer(crowd, client)->user },
        .direction = HISTORY_BEFORE,
        .n = crowd->page_n,
    };

    client->flags &= (uint16_t)~CLIENT_CHURNED;
    if (crowd->page_n == 0) {
        return 0;
    }
    client->asked_n = (client->flags & CLIENT_COUNTED_N) != 0 ? client->conversation_n : 0;
    return message_encode_history(to, cap, &history);
}

/* Whether the body is what its sender wrote; of earlier runs nothing is known. */
static bool is_good(const struct crowd *crowd, const struct client *client,
                    const struct entry_message *message)
{
    const struct client *sender = client_sender(crowd, client);
    const struct client *peer = client_peer(crowd, client);
    const bool own = (message->flags & ENTRY_FLAG_OWN) != 0;
    const struct client *from = own ? sender : peer;
    struct payload payload;
    const enum payload_result result = payload_read(
        &crowd->run, message->body.bytes, message->body.byte_count, crowd->body_bytes, &payload);

    if (message->conversation.value != peer->user) {
        return false;
    }
    return result == PAYLOAD_FOREIGN || (result == PAYLOAD_OK && payload.user.value == from->user &&
                                         message->sender.value == from->user &&
                                         payload.number >= 1 && payload.number <= from->created);
}

/* Each entry is the successor of that before it; the last is no older than what was known. */
enum client_verdict client_on_page(struct crowd *crowd, struct client *client,
                                   const struct frame_view *view)
{
    struct message_page page;
    struct entry_message message;
    uint64_t seq;
    uint64_t last_seq = 0;
    uint64_t last_n = 0;

    if (message_decode_page(view, &page) != CODE_OK || page.request != REQUEST_ID) {
        client_fault(crowd, client, LEDGER_PROTOCOL, LEDGER_PEER, view->type);
        return CLIENT_ENDS;
    }
    while (page_next(&page, &seq, &message)) {
        if (!is_good(crowd, client, &message)) {
            client_fault(crowd, client, LEDGER_DAMAGED, LEDGER_PEER, message.id.value);
        }
        if (last_n != 0 && (message.n != last_n + 1 || message.prev != last_seq)) {
            client_fault(crowd, client, LEDGER_GAP, LEDGER_PEER, message.n);
        }
        last_seq = seq;
        last_n = message.n;
        crowd->counts.page_entries++;
    }
    if (last_n < client->asked_n && (last_n != 0 || (page.flags & PAGE_FLAG_TRIMMED) == 0)) {
        client_fault(crowd, client, LEDGER_GAP, LEDGER_PEER, client->asked_n);
    }
    crowd->counts.pages++;
    return CLIENT_GOES_ON;
}

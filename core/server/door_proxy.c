#include "core/server/door_internal.h"

#include "core/base/check.h"

bool door_count_address(struct door *door, struct door_conn *conn)
{
    const uint64_t key = listen_address_key(&conn->peer.any);

    if (door->address_max == 0) {
        return true;
    }
    if (address_counts_get(&door->addresses, key) >= door->address_max) {
        stat_add(&door->stats.limit_address, 1);
        return false;
    }
    if (!address_counts_add(&door->addresses, key)) {
        stat_add(&door->stats.accept_failures, 1);
        return false;
    }
    conn->address_key = key;
    return true;
}

void door_uncount_address(struct door *door, struct door_conn *conn)
{
    if (conn->address_key != 0) {
        address_counts_remove(&door->addresses, conn->address_key);
        conn->address_key = 0;
    }
}

void door_format_peer(const struct door_conn *conn, char text[LISTEN_TEXT_BYTES])
{
    listen_format(&conn->peer.any, text);
}

/*
 * A listed proxy that sends no header, or a wrong one, is closed without a word, as the protocol
 * demands: what it passed on would be taken for its own.
 */
void door_read_proxy_header(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);
    struct proxy_header header;
    char text[LISTEN_TEXT_BYTES];

    switch (proxy_header_parse(conn->in.bytes, conn->in.byte_count, &header)) {
    case PROXY_HEADER_MORE:
        door_receive(door, slot);
        return;
    case PROXY_HEADER_BAD:
        stat_add(&door->stats.proxy_headers_bad, 1);
        door_format_peer(conn, text);
        log_event(door->log, LOG_WARNING, "proxy_header_refused", "address=%s", text);
        door_kill(door, slot);
        return;
    case PROXY_HEADER_DONE:
        break;
    }
    stat_add(&door->stats.proxy_headers, 1);
    door_bytes_skip(&conn->in, header.byte_count);
    if (header.has_address) { /* else it is the proxy's own, which has no bound */
        conn->peer = header.source;
        if (!door_count_address(door, conn)) {
            door_kill(door, slot);
            return;
        }
    }
    conn->state = DOOR_SHAKING;
    door_go_on(door, slot);
}

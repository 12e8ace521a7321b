#include "tests/unit/engine/host.h"

#include <string.h>

/* The ENTRIES frame that client_entry() is in. */
static struct {
    const struct host_conn *conn;
    size_t frame;
    struct message_entries entries;
} reading;

void client_forget(void)
{
    reading.conn = NULL;
}

/* Clients */

void client_frame(struct host_conn *conn, const uint8_t *bytes, size_t byte_count)
{
    host_list_add(&conn->in, bytes, byte_count);
}

static void send_body(struct host_conn *conn, uint64_t counter, uint64_t nonce, uint64_t to,
                      const uint8_t *body, size_t body_bytes)
{
    struct message_send send = { .counter = counter,
                                 .conversation = { to },
                                 .kind = 1,
                                 .body = { body, (uint16_t)body_bytes } };
    static uint8_t bytes[FRAME_BYTES_MAX];

    memcpy(send.nonce.bytes, &nonce, sizeof nonce);
    memcpy(send.nonce.bytes + 8, &nonce, sizeof nonce);
    client_frame(conn, bytes, message_encode_send(bytes, sizeof bytes, &send));
}

void client_send(struct host_conn *conn, uint64_t counter, uint64_t nonce, uint64_t to,
                 const char *body)
{
    send_body(conn, counter, nonce, to, (const uint8_t *)body, strlen(body));
}

void client_send_bytes(struct host_conn *conn, uint64_t counter, uint64_t nonce, uint64_t to,
                       size_t body_bytes)
{
    static uint8_t body[FRAME_BYTES_MAX];

    memset(body, (int)(nonce & 0xff), body_bytes);
    send_body(conn, counter, nonce, to, body, body_bytes);
}

void client_ack(struct host_conn *conn, uint64_t seq)
{
    const struct message_ack ack = { .seq = seq };
    uint8_t bytes[ACK_FRAME_BYTES];

    client_frame(conn, bytes, message_encode_ack(bytes, sizeof bytes, &ack));
}

void client_history(struct host_conn *conn, uint32_t request, uint64_t conversation,
                    enum history_direction direction, uint64_t anchor, uint16_t n, uint32_t bytes)
{
    const struct message_history history = { .request = request,
                                             .conversation = { conversation },
                                             .direction = direction,
                                             .anchor = anchor,
                                             .n = n,
                                             .bytes = bytes };
    uint8_t frame[HISTORY_FRAME_BYTES];

    client_frame(conn, frame, message_encode_history(frame, sizeof frame, &history));
}

size_t client_waiting(const struct host_conn *conn)
{
    return conn->out.count - conn->out.taken + conn->feed.count - conn->feed.taken;
}

static struct frame_view take_frame(struct bytes_list *list)
{
    struct frame_view view;

    assert_true(list->taken < list->count);

    const struct bytes *frame = &list->items[list->taken++];

    assert_int_equal(frame_parse(frame->at, frame->count, &view), FRAME_OK);
    assert_int_equal(frame_bytes(&view), frame->count);
    return view;
}

struct frame_view client_next(struct host_conn *conn)
{
    return take_frame(&conn->out);
}

void client_skip(struct host_conn *conn)
{
    conn->out.taken = conn->out.count;
    conn->feed.taken = conn->feed.count;
}

struct message_accepted client_accepted(struct host_conn *conn)
{
    const struct frame_view view = client_next(conn);
    struct message_accepted accepted;

    assert_int_equal(view.type, FRAME_TYPE_ACCEPTED);
    assert_int_equal(message_decode_accepted(&view, &accepted), CODE_OK);
    return accepted;
}

struct message_rejected client_rejected(struct host_conn *conn)
{
    const struct frame_view view = client_next(conn);
    struct message_rejected rejected;

    assert_int_equal(view.type, FRAME_TYPE_REJECTED);
    assert_int_equal(message_decode_rejected(&view, &rejected), CODE_OK);
    return rejected;
}

struct message_error client_error(struct host_conn *conn)
{
    const struct frame_view view = client_next(conn);
    struct message_error error;

    assert_int_equal(view.type, FRAME_TYPE_ERROR);
    assert_int_equal(message_decode_error(&view, &error), CODE_OK);
    return error;
}

struct message_page client_page(struct host_conn *conn)
{
    const struct frame_view view = client_next(conn);
    struct message_page page;

    assert_int_equal(view.type, FRAME_TYPE_PAGE);
    assert_int_equal(message_decode_page(&view, &page), CODE_OK);
    return page;
}

struct seen_entry client_entry(struct host_conn *conn)
{
    struct seen_entry seen;

    if (reading.conn == conn && reading.frame == conn->feed.taken &&
        entries_next(&reading.entries, &seen.seq, &seen.entry)) {
        return seen;
    }
    const struct frame_view view = take_frame(&conn->feed);

    assert_int_equal(view.type, FRAME_TYPE_ENTRIES);
    assert_int_equal(message_decode_entries(&view, &reading.entries), CODE_OK);
    reading.conn = conn;
    reading.frame = conn->feed.taken;
    assert_true(entries_next(&reading.entries, &seen.seq, &seen.entry));
    return seen;
}

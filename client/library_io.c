/* libholdfast: the connection. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "client/holdfast.h"
#include "client/library.h"
#include "core/base/check.h"

/* Of input that one hf_step works off, so that it returns when a server never stops. */
#define STEP_BYTES_MAX ((size_t)1 << 20)

int hf_start(struct hf_client *client)
{
    if (client->failed) {
        return HF_STORAGE;
    }
    if (!client->ready) {
        return library_fail(client, HF_NO_ACCOUNT, "there is no account: log in first");
    }
    if (!client_start(&client->machine, library_now_ms())) {
        return library_fail(client, HF_NO_ACCOUNT,
                            "the log-in token isn't good any more: log in with a new one");
    }
    return HF_OK;
}

void hf_stop(struct hf_client *client)
{
    const struct hf_event event = { .kind = HF_EVENT_OFFLINE, .flags = HF_STOPPED, .text = "left" };

    if (!client->ready) {
        return;
    }

    const bool waited = client_state(&client->machine) == CLIENT_WAITING;

    client_leave(&client->machine, false, library_now_ms());
    if (waited && !library_queue(client, &event)) {
        client->failed = true;
    }
}

/* Writes down what the machine said, and lets it acknowledge what is on disk now. */
static int settle(struct hf_client *client)
{
    struct hf_error error;
    const int taken = library_take_events(client);

    if (taken != HF_OK) {
        return taken;
    }
    if (state_commit(&client->state, &error) != 0) {
        return library_fail_error(client, &error);
    }
    if (client->state.cursor.epoch == client_cursor(&client->machine).epoch) {
        client_stored(&client->machine, client->state.cursor.seq);
    }
    return HF_OK;
}

/* The attempt, or the connection, is over. */
static int lose(struct hf_client *client, uint64_t now_ms)
{
    transport_hang_up(client->transport);
    client->dialled = false;
    client->up = false;
    client->in_filled = 0;
    if (client_state(&client->machine) == CLIENT_STOPPED) {
        return HF_OK; /* hf_stop, before there was a connection */
    }
    client_on_disconnected(&client->machine, now_ms);

    const int settled = settle(client);

    client->drop = false;
    return settled;
}

static int dial(struct hf_client *client, uint64_t now_ms)
{
    uint8_t session[STATE_SESSION_BYTES_MAX];
    char host[TRANSPORT_HOST_BYTES_MAX + 1];
    char port[TRANSPORT_PORT_BYTES_MAX + 1] = "";
    struct hf_error error;

    if (client->transport == NULL) {
        client->transport = transport_open((const char *)client->state.ca, &error);
        if (client->transport == NULL) {
            hf_error_prepend(&error, "the authorities of hf_login");
            return library_fail_error(client, &error);
        }
    }
    if (client->alternative[0] == '\0' || !transport_split(client->alternative, host, port) ||
        port[0] == '\0') {
        const bool split = transport_split(client->state.server, host, port);

        HF_ASSERT(split && port[0] != '\0'); /* hf_login looked at it */
    }
    client->alternative[0] = '\0';

    const size_t session_bytes = state_take_session(&client->state, session);

    client->dialled = true;
    transport_dial(client->transport, host, port, session, session_bytes, now_ms);
    explicit_bzero(session, sizeof session);
    return HF_OK;
}

static void keep_session(struct hf_client *client)
{
    uint8_t session[STATE_SESSION_BYTES_MAX];
    const size_t session_bytes = transport_session(client->transport, session, sizeof session);

    if (session_bytes > 0) {
        state_keep_session(&client->state, session, session_bytes);
        explicit_bzero(session, sizeof session);
    }
}

/* Gives the machine each whole frame that came. */
static int take_frames(struct hf_client *client, uint64_t now_ms)
{
    size_t used = 0;
    int result = HF_OK;

    while (result == HF_OK && !client->drop) {
        struct frame_view view;
        const enum frame_result parsed =
            frame_parse(client->in + used, client->in_filled - used, &view);

        if (parsed == FRAME_TOO_LARGE) {
            client_on_bad_stream(&client->machine, now_ms);
            break;
        }
        if (parsed == FRAME_NEED_MORE) {
            break;
        }
        client_on_frame(&client->machine, &view, now_ms);
        result = library_take_events(client);
        used += frame_bytes(&view);
    }
    memmove(client->in, client->in + used, client->in_filled - used);
    client->in_filled -= used;
    return result;
}

/* Writes what the machine has to say, as far as the socket takes it. */
static int give_output(struct hf_client *client, uint64_t now_ms)
{
    for (;;) {
        const size_t room = transport_room(client->transport);
        const size_t written =
            client_output(&client->machine, client->out,
                          room < sizeof client->out ? room : sizeof client->out, now_ms, false);

        if (written == 0 || !transport_write(client->transport, client->out, written)) {
            return HF_OK;
        }
        (void)transport_step(client->transport, now_ms, library_now_unix_ms());
    }
}

/* Reads until nothing is there; what came is on disk when this returns. 1: the server has gone. */
static int take_input(struct hf_client *client, uint64_t now_ms, bool *gone)
{
    size_t total = 0;

    while (total < STEP_BYTES_MAX) {
        const ptrdiff_t got =
            transport_read(client->transport, client->in + client->in_filled,
                           sizeof client->in - client->in_filled, library_now_unix_ms());

        if (got <= 0) {
            *gone = got < 0;
            break;
        }
        client->in_filled += (size_t)got;
        total += (size_t)got;

        const int taken = take_frames(client, now_ms);

        if (taken != HF_OK) {
            return taken;
        }
    }
    keep_session(client);
    return settle(client);
}

static int step_connection(struct hf_client *client, uint64_t now_ms)
{
    bool gone = false;
    int result;

    if (!client->up) {
        client->up = true;
        client_on_connected(&client->machine, now_ms);
    }
    result = take_input(client, now_ms, &gone);
    if (result != HF_OK) {
        return result;
    }
    client_on_time(&client->machine, now_ms);
    result = settle(client);
    if (result == HF_OK && !gone && !client->drop) {
        result = give_output(client, now_ms);
    }
    if (result != HF_OK) {
        return result;
    }
    if (gone || client->drop || transport_status(client->transport) == TRANSPORT_FAILED ||
        (client_wants_close(&client->machine) && transport_flushed(client->transport))) {
        return lose(client, now_ms);
    }
    return HF_OK;
}

int hf_step(struct hf_client *client)
{
    const uint64_t now_ms = library_now_ms();
    int result = HF_OK;

    if (client->failed) {
        return HF_STORAGE;
    }
    if (!client->ready) {
        return HF_OK;
    }
    if (!client->dialled && client_state(&client->machine) == CLIENT_WAITING &&
        now_ms >= client_connect_at_ms(&client->machine)) {
        result = dial(client, now_ms);
    }
    if (result != HF_OK || !client->dialled) {
        return result;
    }
    if (!client->up && client_state(&client->machine) == CLIENT_STOPPED) {
        return lose(client, now_ms);
    }
    switch (transport_step(client->transport, now_ms, library_now_unix_ms())) {
    case TRANSPORT_DOWN:
    case TRANSPORT_CONNECTING:
    case TRANSPORT_HANDSHAKING:
        return HF_OK;
    case TRANSPORT_UP:
        return step_connection(client, now_ms);
    case TRANSPORT_FAILED:
        break;
    }
    return lose(client, now_ms);
}

/* ---- waiting */

int hf_descriptor(const struct hf_client *client)
{
    return client->dialled ? transport_descriptor(client->transport) : -1;
}

short hf_descriptor_events(const struct hf_client *client)
{
    if (!client->dialled) {
        return 0;
    }
    return transport_events(client->transport);
}

int hf_timeout_ms(const struct hf_client *client)
{
    const uint64_t now_ms = library_now_ms();
    uint64_t at_ms = UINT64_MAX;

    if (client->events != NULL ||
        state_place_after(&client->state, client->delivered_seq) < client->state.place_count) {
        return 0;
    }
    if (client->ready && (client->up || !client->dialled)) {
        at_ms = client_deadline_ms(&client->machine);
    } else if (client->dialled) {
        at_ms = transport_deadline_ms(client->transport);
    }
    if (at_ms == UINT64_MAX) {
        return -1;
    }
    if (at_ms <= now_ms) {
        return 0;
    }
    return at_ms - now_ms < INT32_MAX ? (int)(at_ms - now_ms) : INT32_MAX;
}

int hf_wait(struct hf_client *client, int timeout_ms)
{
    const int step = hf_step(client); /* queued sends may be written without any event */
    int wait_ms = hf_timeout_ms(client);

    if (step != HF_OK) {
        return step;
    }
    if (timeout_ms >= 0 && (wait_ms < 0 || wait_ms > timeout_ms)) {
        wait_ms = timeout_ms;
    }

    struct pollfd one = { .fd = hf_descriptor(client), .events = hf_descriptor_events(client) };

    /* An interrupted wait is the caller's chance to look at what its signal handler set. */
    (void)poll(&one, 1, wait_ms);
    return hf_step(client);
}

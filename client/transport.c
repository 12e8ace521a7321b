#include "client/transport.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/tls/handshake.h"
#include "core/tls/pem.h"
#include "core/tls/record.h"

#define IN_BYTES   ((size_t)2 * TLS_RECORD_BYTES_MAX)
#define TEXT_BYTES 256

struct transport {
    struct tls_client *tls;
    struct tls_core core;
    struct tls_handshake *handshake; /* until a ticket came, or data */
    struct tls_keys keys;
    struct addrinfo *addresses;
    struct addrinfo *address; /* that is tried now */
    uint64_t deadline_at_ms;  /* of connect and handshake */
    uint64_t address_at_ms;   /* then the next address is tried */
    enum transport_status status;
    int descriptor;
    bool untrusted;
    bool session_ready;
    uint32_t session_bytes;
    char host[TRANSPORT_HOST_BYTES_MAX + 1];
    char text[TEXT_BYTES];
    uint8_t session[TLS_SESSION_BYTES_MAX]; /* to resume, then the new one */
    size_t in_used;                         /* taken from the front of `in` */
    size_t in_filled;
    size_t out_used; /* sent from the front of `out` */
    size_t out_filled;
    uint32_t data_used; /* of an opened record, whose plaintext lies in `in` */
    uint32_t data_bytes;
    uint32_t data_offset;
    uint32_t record_bytes;
    uint8_t in[IN_BYTES];
    uint8_t out[TRANSPORT_OUT_BYTES];
};

/* ---- opening */

static struct transport *give_up(struct transport *transport)
{
    transport_close(transport);
    return NULL;
}

struct transport *transport_open(const char *ca, struct hf_error *error)
{
    struct transport *transport = calloc(1, sizeof *transport);
    struct tls_pem pem = { NULL, 0 };

    if (transport == NULL) {
        hf_error_set(error, EX_OSERR, ENOMEM, "TLS");
        return NULL;
    }
    transport->descriptor = -1;
    if (tls_global_init(error) != 0 || tls_core_open(&transport->core, 4, error) != 0 ||
        tls_pem_copy(&pem, ca, error) != 0) {
        return give_up(transport);
    }

    const struct tls_client_options options = { .ca = &pem };

    transport->tls = tls_client_open(&options, error);
    tls_pem_free(&pem);
    return transport->tls != NULL ? transport : give_up(transport);
}

static void close_socket(struct transport *transport)
{
    if (transport->descriptor >= 0) {
        (void)close(transport->descriptor);
        transport->descriptor = -1;
    }
}

static void drop_connection(struct transport *transport)
{
    close_socket(transport);
    tls_handshake_end(transport->handshake);
    transport->handshake = NULL;
    tls_keys_clear(&transport->core, &transport->keys);
    if (transport->addresses != NULL) {
        freeaddrinfo(transport->addresses);
        transport->addresses = NULL;
    }
    transport->in_used = 0;
    transport->in_filled = 0;
    transport->out_used = 0;
    transport->out_filled = 0;
    transport->data_used = 0;
    transport->data_bytes = 0;
    explicit_bzero(transport->in, sizeof transport->in);
}

void transport_close(struct transport *transport)
{
    if (transport != NULL) {
        drop_connection(transport);
        if (transport->core.aead != NULL) {
            tls_core_close(&transport->core);
        }
        tls_client_close(transport->tls);
        explicit_bzero(transport, sizeof *transport);
        free(transport);
    }
}

static enum transport_status fail(struct transport *transport, const char *what, const char *why)
{
    (void)snprintf(transport->text, sizeof transport->text, "%s%s%s", what,
                   why[0] != '\0' ? ": " : "", why);
    transport->status = TRANSPORT_FAILED;
    return TRANSPORT_FAILED;
}

static enum transport_status fail_errno(struct transport *transport, const char *what, int number)
{
    char reason[128];

    return fail(transport, what, strerror_r(number, reason, sizeof reason));
}

/* ---- dialling */

bool transport_split(const char *server, char host[TRANSPORT_HOST_BYTES_MAX + 1],
                     char port[TRANSPORT_PORT_BYTES_MAX + 1])
{
    const char *end = server + strlen(server);
    const char *colon = strrchr(server, ':');

    if (server[0] == '[') {
        end = strchr(++server, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':')) {
            return false;
        }
        colon = end[1] == ':' ? end + 1 : NULL;
    } else if (colon != NULL && strchr(server, ':') != colon) {
        colon = NULL; /* a bare IPv6 address */
    } else if (colon != NULL) {
        end = colon;
    }
    if (end == server || end - server > TRANSPORT_HOST_BYTES_MAX) {
        return false;
    }
    if (colon != NULL) {
        const size_t digits = strspn(colon + 1, "0123456789");

        if (digits == 0 || digits > 5 || colon[1 + digits] != '\0' ||
            strtoul(colon + 1, NULL, 10) > UINT16_MAX || strtoul(colon + 1, NULL, 10) == 0) {
            return false;
        }
        (void)snprintf(port, TRANSPORT_PORT_BYTES_MAX + 1, "%s", colon + 1);
    }
    memcpy(host, server, (size_t)(end - server));
    host[end - server] = '\0';
    return true;
}

static void begin(struct transport *transport, const char *host, const uint8_t *session,
                  size_t session_bytes, uint64_t now_ms)
{
    HF_ASSERT(transport->status == TRANSPORT_DOWN);
    HF_ASSERT(strlen(host) <= TRANSPORT_HOST_BYTES_MAX);

    (void)snprintf(transport->host, sizeof transport->host, "%s", host);
    transport->session_bytes = 0;
    transport->session_ready = false;
    if (session != NULL && session_bytes <= sizeof transport->session) {
        memcpy(transport->session, session, session_bytes);
        transport->session_bytes = (uint32_t)session_bytes;
    }
    transport->deadline_at_ms = now_ms + TRANSPORT_CONNECT_MS;
    transport->text[0] = '\0';
    transport->untrusted = false;
}

/* Connects to `address`, or to the first behind it that doesn't refuse at once. */
static enum transport_status try_addresses(struct transport *transport, uint64_t now_ms)
{
    int failed = ETIMEDOUT;

    for (; transport->address != NULL; transport->address = transport->address->ai_next) {
        const struct addrinfo *address = transport->address;
        const int on = 1;

        transport->descriptor =
            socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (transport->descriptor < 0) {
            failed = errno;
            continue;
        }
        (void)setsockopt(transport->descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(transport->descriptor, address->ai_addr, address->ai_addrlen) == 0 ||
            errno == EINPROGRESS) {
            transport->status = TRANSPORT_CONNECTING;
            transport->address_at_ms =
                address->ai_next != NULL ? now_ms + TRANSPORT_ADDRESS_MS : UINT64_MAX;
            return TRANSPORT_CONNECTING;
        }
        failed = errno;
        close_socket(transport);
    }
    return fail_errno(transport, "connect", failed);
}

void transport_dial(struct transport *transport, const char *host, const char *port,
                    const uint8_t *session, size_t session_bytes, uint64_t now_ms)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICSERV };

    begin(transport, host, session, session_bytes, now_ms);

    const int failed = getaddrinfo(host, port, &hints, &transport->addresses);

    if (failed != 0) {
        (void)fail(transport, host, gai_strerror(failed));
        return;
    }
    transport->address = transport->addresses;
    (void)try_addresses(transport, now_ms);
}

void transport_adopt(struct transport *transport, int descriptor, const char *host,
                     const uint8_t *session, size_t session_bytes, uint64_t now_ms)
{
    begin(transport, host, session, session_bytes, now_ms);
    transport->descriptor = descriptor;
    transport->address = NULL;
    transport->address_at_ms = UINT64_MAX;
    transport->status = TRANSPORT_CONNECTING;
}

static enum transport_status next_address(struct transport *transport, int failed, uint64_t now_ms)
{
    if (transport->address == NULL || transport->address->ai_next == NULL) {
        return fail_errno(transport, "connect", failed);
    }
    close_socket(transport);
    transport->address = transport->address->ai_next;
    return try_addresses(transport, now_ms);
}

static enum transport_status step_connect(struct transport *transport, uint64_t now_ms,
                                          uint64_t now_unix_ms)
{
    struct pollfd poll_one = { .fd = transport->descriptor, .events = POLLOUT };
    int failed = 0;
    socklen_t failed_bytes = sizeof failed;

    if (poll(&poll_one, 1, 0) <= 0) {
        return now_ms >= transport->address_at_ms ? next_address(transport, ETIMEDOUT, now_ms)
                                                  : TRANSPORT_CONNECTING;
    }
    if (getsockopt(transport->descriptor, SOL_SOCKET, SO_ERROR, &failed, &failed_bytes) != 0) {
        failed = errno;
    }
    if (failed != 0) {
        return next_address(transport, failed, now_ms);
    }
    transport->handshake = tls_handshake_connect(
        transport->tls, transport->host, transport->session_bytes > 0 ? transport->session : NULL,
        transport->session_bytes, now_unix_ms);
    explicit_bzero(transport->session, sizeof transport->session);
    transport->session_bytes = 0;
    if (transport->handshake == NULL) {
        return fail(transport, "TLS", "no memory");
    }
    transport->status = TRANSPORT_HANDSHAKING;
    return TRANSPORT_HANDSHAKING;
}

/* ---- the socket */

/* False: it failed. */
static bool send_out(struct transport *transport)
{
    while (transport->out_used < transport->out_filled) {
        const ssize_t sent =
            send(transport->descriptor, transport->out + transport->out_used,
                 transport->out_filled - transport->out_used, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN) {
                return false;
            }
            memmove(transport->out, transport->out + transport->out_used,
                    transport->out_filled - transport->out_used);
            transport->out_filled -= transport->out_used;
            transport->out_used = 0;
            return true;
        }
        transport->out_used += (size_t)sent;
    }
    transport->out_used = 0;
    transport->out_filled = 0;
    return true;
}

/* 1: something came; 0: nothing now; -1: the end (errno 0), or an error. */
static int receive_in(struct transport *transport)
{
    if (transport->in_used > 0) {
        memmove(transport->in, transport->in + transport->in_used,
                transport->in_filled - transport->in_used);
        transport->in_filled -= transport->in_used;
        transport->in_used = 0;
    }
    for (;;) {
        const ssize_t got = recv(transport->descriptor, transport->in + transport->in_filled,
                                 sizeof transport->in - transport->in_filled, MSG_DONTWAIT);

        if (got > 0) {
            transport->in_filled += (size_t)got;
            return 1;
        }
        if (got == 0) {
            errno = 0;
            return -1;
        }
        if (errno != EINTR) {
            return errno == EAGAIN ? 0 : -1;
        }
    }
}

static enum transport_status fail_receive(struct transport *transport)
{
    return errno == 0 ? fail(transport, "the server closed the connection", "")
                      : fail_errno(transport, "the connection broke", errno);
}

/* ---- handshake */

static enum transport_status refuse_handshake(struct transport *transport)
{
    (void)send_out(transport); /* the alert, as far as it goes */
    transport->untrusted =
        tls_handshake_fault(transport->handshake) == TLS_HANDSHAKE_FAULT_CERTIFICATE;
    return fail(transport, "TLS", tls_handshake_text(transport->handshake));
}

static enum transport_status step_handshake(struct transport *transport, uint64_t now_unix_ms)
{
    for (;;) {
        struct tls_handshake_io io = {
            .in = transport->in + transport->in_used,
            .in_bytes = transport->in_filled - transport->in_used,
            .out = transport->out,
            .out_capacity = sizeof transport->out,
            .out_bytes = transport->out_filled,
            .now_unix_ms = now_unix_ms,
        };
        const enum tls_handshake_status status = tls_handshake_step(transport->handshake, &io);

        transport->in_used += io.in_used;
        transport->out_filled = io.out_bytes;
        if (status == TLS_HANDSHAKE_FAILED) {
            return refuse_handshake(transport);
        }
        if (!send_out(transport)) {
            return fail_errno(transport, "the connection broke", errno);
        }
        if (status == TLS_HANDSHAKE_DONE) {
            tls_handshake_take_keys(transport->handshake, &transport->keys);
            transport->status = TRANSPORT_UP;
            return TRANSPORT_UP;
        }
        if (status == TLS_HANDSHAKE_WANT_ROOM) {
            if (transport->out_filled == sizeof transport->out) {
                return TRANSPORT_HANDSHAKING;
            }
            continue;
        }

        const int received = receive_in(transport);

        if (received < 0) {
            return fail_receive(transport);
        }
        if (received == 0) {
            return TRANSPORT_HANDSHAKING;
        }
    }
}

enum transport_status transport_step(struct transport *transport, uint64_t now_ms,
                                     uint64_t now_unix_ms)
{
    if ((transport->status == TRANSPORT_CONNECTING || transport->status == TRANSPORT_HANDSHAKING) &&
        now_ms >= transport->deadline_at_ms) {
        return fail_errno(transport,
                          transport->status == TRANSPORT_CONNECTING ? "connect" : "TLS handshake",
                          ETIMEDOUT);
    }
    if (transport->status == TRANSPORT_CONNECTING) {
        (void)step_connect(transport, now_ms, now_unix_ms);
    }
    if (transport->status == TRANSPORT_HANDSHAKING) {
        (void)step_handshake(transport, now_unix_ms);
    }
    if (transport->status == TRANSPORT_UP && !send_out(transport)) {
        /* What the server said before it went may still be read. */
        transport->out_used = 0;
        transport->out_filled = 0;
    }
    return transport->status;
}

/* ---- records */

static void end_handshake_if_done(struct transport *transport)
{
    if (!tls_handshake_wants_ticket(transport->handshake)) {
        const size_t session_bytes = tls_handshake_session(transport->handshake, transport->session,
                                                           sizeof transport->session);

        transport->session_bytes = (uint32_t)session_bytes;
        transport->session_ready = session_bytes > 0;
        tls_handshake_end(transport->handshake);
        transport->handshake = NULL;
    }
}

static void open_record(struct transport *transport, uint64_t now_unix_ms,
                        struct tls_opened *opened)
{
    uint8_t *bytes = transport->in + transport->in_used;
    const size_t byte_count = transport->in_filled - transport->in_used;

    if (transport->handshake != NULL) {
        tls_handshake_open(transport->handshake, &transport->core, &transport->keys, bytes,
                           byte_count, now_unix_ms, opened);
        end_handshake_if_done(transport);
    } else {
        tls_record_open(&transport->core, &transport->keys, bytes, byte_count, opened);
    }
}

static ptrdiff_t fail_record(struct transport *transport, const struct tls_opened *opened)
{
    const size_t room = sizeof transport->out - transport->out_filled;

    if (opened->alert != TLS_ALERT_NONE && room >= TLS_ALERT_RECORD_BYTES) {
        transport->out_filled +=
            tls_record_seal_alert(&transport->core, &transport->keys, opened->alert,
                                  transport->out + transport->out_filled, room);
        (void)send_out(transport);
    }
    (void)fail(transport, "TLS", tls_fault_text(opened->fault));
    return -1;
}

/* Hands out what is left of the opened record. */
static size_t take_data(struct transport *transport, uint8_t *to, size_t room)
{
    const size_t left = transport->data_bytes - transport->data_used;
    const size_t taken = left < room ? left : room;

    memcpy(to, transport->in + transport->in_used + transport->data_offset + transport->data_used,
           taken);
    transport->data_used += (uint32_t)taken;
    if (transport->data_used == transport->data_bytes) {
        transport->in_used += transport->record_bytes;
        transport->data_used = 0;
        transport->data_bytes = 0;
    }
    return taken;
}

ptrdiff_t transport_read(struct transport *transport, uint8_t *to, size_t room,
                         uint64_t now_unix_ms)
{
    size_t read = 0;

    if (transport->status != TRANSPORT_UP) {
        return transport->status == TRANSPORT_FAILED ? -1 : 0;
    }
    while (read < room) {
        struct tls_opened opened;

        if (transport->data_bytes > 0) {
            read += take_data(transport, to + read, room - read);
            continue;
        }
        open_record(transport, now_unix_ms, &opened);
        switch (opened.result) {
        case TLS_OPEN_DATA:
            transport->data_bytes = opened.data_bytes;
            transport->data_offset = opened.data_offset;
            transport->record_bytes = opened.record_bytes;
            continue;
        case TLS_OPEN_HANDLED:
            transport->in_used += opened.record_bytes;
            continue;
        case TLS_OPEN_CLOSED:
            (void)fail(transport, "the server closed the connection", "");
            return read > 0 ? (ptrdiff_t)read : -1;
        case TLS_OPEN_FATAL:
            (void)fail_record(transport, &opened);
            return read > 0 ? (ptrdiff_t)read : -1;
        case TLS_OPEN_MORE:
            break;
        }

        const int received = receive_in(transport);

        if (received < 0) {
            (void)fail_receive(transport);
            return read > 0 ? (ptrdiff_t)read : -1;
        }
        if (received == 0) {
            break;
        }
    }
    return (ptrdiff_t)read;
}

size_t transport_room(const struct transport *transport)
{
    const size_t left = sizeof transport->out - transport->out_filled;

    if (transport->status != TRANSPORT_UP) {
        return 0;
    }

    const size_t overhead = tls_record_sealed_bytes(&transport->core, &transport->keys, 1) - 1;
    const size_t room = left > overhead ? left - overhead : 0;

    return room < TLS_PLAINTEXT_BYTES_MAX ? room : TLS_PLAINTEXT_BYTES_MAX;
}

bool transport_write(struct transport *transport, const uint8_t *bytes, size_t byte_count)
{
    uint8_t *out = transport->out + transport->out_filled;

    HF_ASSERT(transport->status == TRANSPORT_UP && byte_count > 0);
    HF_ASSERT(byte_count <= transport_room(transport));

    const struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = byte_count };
    const size_t sealed = tls_record_seal(&transport->core, &transport->keys, &part, 1, out,
                                          sizeof transport->out - transport->out_filled);

    if (sealed == 0) {
        (void)fail(transport, "TLS", "no memory");
        return false;
    }
    transport->out_filled += sealed;
    return true;
}

bool transport_flushed(const struct transport *transport)
{
    return transport->out_used == transport->out_filled;
}

/* ---- the caller's loop */

enum transport_status transport_status(const struct transport *transport)
{
    return transport->status;
}

int transport_descriptor(const struct transport *transport)
{
    return transport->descriptor;
}

short transport_events(const struct transport *transport)
{
    if (transport->status == TRANSPORT_CONNECTING) {
        return POLLOUT;
    }
    return (short)(POLLIN | (transport_flushed(transport) ? 0 : POLLOUT));
}

uint64_t transport_deadline_ms(const struct transport *transport)
{
    if (transport->status != TRANSPORT_CONNECTING && transport->status != TRANSPORT_HANDSHAKING) {
        return UINT64_MAX;
    }
    return transport->status == TRANSPORT_CONNECTING &&
                   transport->address_at_ms < transport->deadline_at_ms
               ? transport->address_at_ms
               : transport->deadline_at_ms;
}

void transport_hang_up(struct transport *transport)
{
    const size_t room = sizeof transport->out - transport->out_filled;

    if (transport->status == TRANSPORT_UP && room >= TLS_ALERT_RECORD_BYTES) {
        transport->out_filled +=
            tls_record_seal_alert(&transport->core, &transport->keys, TLS_ALERT_CLOSE_NOTIFY,
                                  transport->out + transport->out_filled, room);
        (void)send_out(transport);
    }
    drop_connection(transport);
    transport->status = TRANSPORT_DOWN;
}

const char *transport_text(const struct transport *transport)
{
    return transport->text;
}

bool transport_untrusted(const struct transport *transport)
{
    return transport->untrusted;
}

size_t transport_session(struct transport *transport, uint8_t *out, size_t capacity)
{
    if (!transport->session_ready || transport->session_bytes > capacity) {
        return 0;
    }
    memcpy(out, transport->session, transport->session_bytes);
    explicit_bzero(transport->session, sizeof transport->session);
    transport->session_ready = false;
    return transport->session_bytes;
}

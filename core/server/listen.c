#include "core/server/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/io/thread.h"

#define BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */

/* What may lie unsent in the kernel for a client that doesn't read: 16 KB instead of 2.8 MB. */
#define NOTSENT_LOWAT 16384

#define BIND_PATIENCE_NS (2 * CLOCK_NS_PER_S)
#define BIND_RETRY_NS    (20 * CLOCK_NS_PER_MS)

static bool refuse(struct hf_error *error, const char *text, size_t text_bytes, const char *why)
{
    hf_error_set(error, EX_CONFIG, 0, "%.*s: %s", (int)(text_bytes < 64 ? text_bytes : 64), text,
                 why);
    return false;
}

static bool parse_port(const char *text, in_port_t *port)
{
    char *end;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    const unsigned long number = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || number > UINT16_MAX) {
        return false;
    }
    *port = htons((uint16_t)number);
    return true;
}

static bool parse_v6(const char *text, struct listen_address *address)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->address;

    v6->sin6_family = AF_INET6;
    address->byte_count = sizeof *v6;
    return inet_pton(AF_INET6, text, &v6->sin6_addr) == 1;
}

static bool parse_v4(const char *text, struct listen_address *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->address;

    v4->sin_family = AF_INET;
    address->byte_count = sizeof *v4;
    return inet_pton(AF_INET, text, &v4->sin_addr) == 1;
}

static bool parse_one(const char *text, size_t text_bytes, struct listen_address *address,
                      struct hf_error *error)
{
    char copy[LISTEN_TEXT_BYTES];
    in_port_t port;

    memset(address, 0, sizeof *address);
    if (text_bytes >= sizeof copy) {
        return refuse(error, text, text_bytes, "too long for an address");
    }
    memcpy(copy, text, text_bytes);
    copy[text_bytes] = '\0';

    char *colon = strrchr(copy, ':');

    if (colon == NULL || !parse_port(colon + 1, &port)) {
        return refuse(error, text, text_bytes, "expected ADDRESS:PORT");
    }
    *colon = '\0';
    if (copy[0] == '[' && colon > copy + 1 && colon[-1] == ']') {
        colon[-1] = '\0';
        if (!parse_v6(copy + 1, address)) {
            return refuse(error, text, text_bytes, "not an IPv6 address in brackets");
        }
        ((struct sockaddr_in6 *)&address->address)->sin6_port = port;
        return true;
    }
    if (!parse_v4(copy, address)) {
        return refuse(error, text, text_bytes,
                      "not an address: write 192.0.2.1:PORT or [2001:db8::1]:PORT");
    }
    ((struct sockaddr_in *)&address->address)->sin_port = port;
    return true;
}

bool listen_parse(const char *text, struct listen_address addresses[LISTEN_ADDRESSES_MAX],
                  size_t *count, struct hf_error *error)
{
    *count = 0;
    text += strspn(text, " ");
    if (*text == '\0') {
        return true;
    }
    for (;;) {
        const size_t length = strcspn(text, ", ");

        if (*count == LISTEN_ADDRESSES_MAX) {
            hf_error_set(error, EX_CONFIG, 0, "more than %d addresses", LISTEN_ADDRESSES_MAX);
            return false;
        }
        if (!parse_one(text, length, &addresses[*count], error)) {
            return false;
        }
        (*count)++;
        text += length;
        text += strspn(text, " ");
        if (*text == '\0') {
            return true;
        }
        if (*text != ',') {
            return refuse(error, text, strlen(text), "expected a comma");
        }
        text++;
        text += strspn(text, " ");
    }
}

void listen_format(const struct sockaddr *address, char text[LISTEN_TEXT_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;

        (void)inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        (void)snprintf(text, LISTEN_TEXT_BYTES, "[%s]:%u", host, ntohs(v6->sin6_port));
        return;
    }
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;

    (void)inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    (void)snprintf(text, LISTEN_TEXT_BYTES, "%s:%u", host, ntohs(v4->sin_port));
}

static bool set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

static int bind_one(const struct listen_address *address, bool reuse_port, struct hf_error *error)
{
    const int family = address->address.ss_family;
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        hf_error_set(error, EX_UNAVAILABLE, errno, "socket");
        return -1;
    }
    if (!set(fd, SOL_SOCKET, SO_REUSEADDR, 1) ||
        (reuse_port && !set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) ||
        (family == AF_INET6 && !set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1))) {
        hf_error_set(error, EX_OSERR, errno, "socket options");
        (void)close(fd);
        return -1;
    }
    if (bind(fd, (const struct sockaddr *)&address->address, address->byte_count) != 0) {
        const int reason = errno;

        hf_error_set(error, EX_UNAVAILABLE, reason, "bind");
        if (reason == EADDRINUSE) {
            hf_error_prepend(error, "another process listens there");
        }
        (void)close(fd);
        return -1;
    }
    return fd;
}

/*
 * Without SO_REUSEPORT: or we would share the port with a server that has it, unknowingly. With
 * patience: a server that was killed is gone before its listeners are, for the kernel takes its
 * rings down in the background.
 */
static bool is_free(const struct listen_address *address, struct hf_error *error)
{
    const uint64_t until_ns = clock_now_ns() + BIND_PATIENCE_NS;
    int probe;

    while ((probe = bind_one(address, false, error)) < 0 && error->errno_value == EADDRINUSE &&
           clock_now_ns() < until_ns) {
        thread_rest(BIND_RETRY_NS);
    }
    if (probe < 0) {
        return false;
    }
    (void)close(probe);
    return true;
}

bool listen_bind(struct listen_address *address, int *fds, uint32_t core_count,
                 struct hf_error *error)
{
    char text[LISTEN_TEXT_BYTES];

    listen_format((const struct sockaddr *)&address->address, text);
    if (!is_free(address, error)) {
        hf_error_prepend(error, "listen on %s", text);
        return false;
    }
    for (uint32_t i = 0; i < core_count; i++) {
        fds[i] = bind_one(address, true, error);
        if (fds[i] >= 0 &&
            getsockname(fds[i], (struct sockaddr *)&address->address, &address->byte_count) != 0) {
            hf_error_set(error, EX_OSERR, errno, "getsockname");
            (void)close(fds[i]);
            fds[i] = -1;
        }
        if (fds[i] < 0) {
            hf_error_prepend(error, "listen on %s", text);
            while (i > 0) {
                i--;
                (void)close(fds[i]);
                fds[i] = -1;
            }
            return false;
        }
    }
    return true;
}

bool listen_begin(int fd, uint64_t send_timeout_s, struct hf_error *error)
{
    if (!set(fd, IPPROTO_TCP, TCP_NODELAY, 1) ||
        !set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT) ||
        !set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)send_timeout_s * 1000)) {
        hf_error_set(error, EX_OSERR, errno, "socket options");
        return false;
    }
    if (listen(fd, BACKLOG) != 0) {
        hf_error_set(error, EX_UNAVAILABLE, errno, "listen");
        return false;
    }
    return true;
}

uint64_t listen_address_key(const struct sockaddr *address)
{
    const uint64_t v4_mark = UINT64_C(1) << 32; /* no /64 in use begins with 31 zero bits */

    if (address->sa_family != AF_INET6) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;

        return v4_mark | ntohl(v4->sin_addr.s_addr);
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;

    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        return v4_mark | load_be32(v6->sin6_addr.s6_addr + 12);
    }
    const uint64_t prefix = load_be64(v6->sin6_addr.s6_addr);

    return prefix == 0 ? 1 : prefix; /* ::1 */
}

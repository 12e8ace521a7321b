#include "loadgen/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define HOST_BYTES_MAX 256

static bool split(const char *server, char host[HOST_BYTES_MAX], const char **port,
                  struct hf_error *error)
{
    const char *colon = strrchr(server, ':');
    const char *first = server;
    const char *end = colon;

    if (colon == NULL || colon[1] == '\0') {
        hf_error_set(error, EX_USAGE, 0, "\"%s\" isn't ADDRESS:PORT", server);
        return false;
    }
    if (*first == '[' && end > first + 1 && end[-1] == ']') {
        first++;
        end--;
    } else if (memchr(first, ':', (size_t)(end - first)) != NULL) {
        hf_error_set(error, EX_USAGE, 0, "\"%s\": an IPv6 address stands in brackets", server);
        return false;
    }
    if (end == first || end - first >= HOST_BYTES_MAX) {
        hf_error_set(error, EX_USAGE, 0, "\"%s\" names no host", server);
        return false;
    }
    memcpy(host, first, (size_t)(end - first));
    host[end - first] = '\0';
    *port = colon + 1;
    return true;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }

    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) != 0;
}

bool dial_resolve(struct dial *dial, const char *server, bool allow_remote, struct hf_error *error)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICSERV };
    char host[HOST_BYTES_MAX];
    const char *port = NULL;
    struct addrinfo *found = NULL;

    memset(dial, 0, sizeof *dial);
    if (!split(server, host, &port, error)) {
        return false;
    }

    const int result = getaddrinfo(host, port, &hints, &found);

    if (result != 0) {
        hf_error_set(error, EX_NOHOST, 0, "%s: %s", server, gai_strerror(result));
        return false;
    }
    memcpy(&dial->server, found->ai_addr, found->ai_addrlen);
    dial->server_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    dial->port = ntohs(dial->server.ss_family == AF_INET
                           ? ((const struct sockaddr_in *)&dial->server)->sin_port
                           : ((const struct sockaddr_in6 *)&dial->server)->sin6_port);
    dial->loopback = is_loopback(&dial->server);
    if (!dial->loopback && !allow_remote) {
        hf_error_set(error, EX_USAGE, 0,
                     "%s isn't this machine's loopback: load on others needs their consent, and "
                     "--allow-remote",
                     server);
        return false;
    }
    return true;
}

bool dial_set_source(struct dial *dial, const char *base, uint32_t per_source,
                     struct hf_error *error)
{
    struct in_addr address;

    if (inet_pton(AF_INET, base, &address) != 1 || ntohl(address.s_addr) >> 24 != 127) {
        hf_error_set(error, EX_USAGE, 0, "\"%s\" isn't an address of 127.0.0.0/8", base);
        return false;
    }
    if (dial->server.ss_family == AF_INET && dial->loopback) {
        dial->source_base = ntohl(address.s_addr);
    }
    dial->per_source = per_source;
    return true;
}

int dial_socket(const struct dial *dial, uint32_t client)
{
    const int one = 1;
    const int fd = socket(dial->server.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
        goto failed;
    }
    if (dial->source_base != 0) {
        const struct sockaddr_in source = {
            .sin_family = AF_INET,
            .sin_addr.s_addr = htonl(dial->source_base + client / dial->per_source),
        };

        /* The port is chosen by connect, when the whole 4-tuple is known. */
        if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) != 0 ||
            bind(fd, (const struct sockaddr *)&source, sizeof source) != 0) {
            goto failed;
        }
    }
    return fd;

failed:;
    const int error = errno;
    (void)close(fd);
    return -error;
}

/*
 * listen: addresses as the configuration names them, and the sockets that listen on them.
 *
 * Owner    The node opens the sockets before threads start, and lends or gives them away.
 * Thread   Any.
 * Errors   struct hf_error: EX_CONFIG for a text that is no address, EX_UNAVAILABLE where the
 *          address can't be had, with the likely reason.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/base/error.h"

#define LISTEN_ADDRESSES_MAX 16
#define LISTEN_TEXT_BYTES    64 /* "[0123:...:4567]:65535" and more */

struct listen_address {
    struct sockaddr_storage address;
    socklen_t byte_count;
};

/*
 * "127.0.0.1:7443, [::1]:7443": numbers, not names, so that starting depends on no name server.
 * Port 0: one that is free. An empty text gives a count of 0.
 */
bool listen_parse(const char *text, struct listen_address addresses[LISTEN_ADDRESSES_MAX],
                  size_t *count, struct hf_error *error) __attribute__((warn_unused_result));

/* "127.0.0.1:7443" */
void listen_format(const struct sockaddr *address, char text[LISTEN_TEXT_BYTES]);

/*
 * One socket for each core, all bound to the address (SO_REUSEPORT: the kernel spreads clients over
 * them), none listening yet. An address that another process has is refused, though it may have
 * SO_REUSEPORT too; but not before two seconds, since a server that was killed has its addresses a
 * little longer than its process. The port that was chosen for port 0 is put into the address.
 */
bool listen_bind(struct listen_address *address, int *fds, uint32_t core_count,
                 struct hf_error *error) __attribute__((warn_unused_result));

/* Options of clients' sockets, which inherit them. */
bool listen_begin(int fd, uint64_t send_timeout_s, struct hf_error *error)
    __attribute__((warn_unused_result));

/*
 * What counts as one address, for bounds: an IPv4 address, or the /64 of an IPv6 one, since that is
 * what one customer gets. Never 0.
 */
uint64_t listen_address_key(const struct sockaddr *address);

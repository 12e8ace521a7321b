/*
 * dial: sockets to the server, from many source addresses: 28,000 ports are too few for 50,000
 * clients of one address, and past half of an address's ports the kernel's search for a free one
 * makes connect ten times slower.
 *
 * Owner    struct dial is plain data.
 * Thread   Any.
 * Errors   dial_resolve: struct hf_error. dial_socket: -errno.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/base/error.h"

struct dial {
    struct sockaddr_storage server;
    socklen_t server_bytes;
    uint16_t port;        /* of the server */
    bool loopback;        /* the server is this machine */
    uint32_t source_base; /* IPv4, host order; 0: the kernel's choice */
    uint32_t per_source;  /* clients of one source address */
};

/*
 * "ADDRESS:PORT", "[ADDRESS]:PORT" or "NAME:PORT". An address that isn't this machine's loopback is
 * refused unless allow_remote: load is an attack on whoever hasn't asked for it.
 */
bool dial_resolve(struct dial *dial, const char *server, bool allow_remote, struct hf_error *error)
    __attribute__((warn_unused_result));

/* "127.1.0.1": where source addresses begin. Used only with an IPv4 loopback server. */
bool dial_set_source(struct dial *dial, const char *base, uint32_t per_source,
                     struct hf_error *error) __attribute__((warn_unused_result));

/* A socket for that client of the whole run, bound where need be, not connected. -errno. */
int dial_socket(const struct dial *dial, uint32_t client) __attribute__((warn_unused_result));

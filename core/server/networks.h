/*
 * networks: lists of networks as the configuration names them, and whether an address is in one.
 *
 * Owner    A plain value.
 * Thread   Any. Pure.
 * Errors   struct hf_error, EX_CONFIG: which text isn't a network, and why.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/base/error.h"

#define NETWORKS_MAX 32

struct network {
    uint8_t address[16]; /* an IPv4 address as ::ffff:192.0.2.1 */
    uint8_t bits;        /* of it, that count: 0 to 128 */
};

struct networks {
    struct network rows[NETWORKS_MAX];
    uint32_t count;
};

/* "192.0.2.0/24, 2001:db8::/32, 10.0.0.7": one address where no bits are given. Empty: none. */
bool networks_parse(const char *text, struct networks *networks, struct hf_error *error)
    __attribute__((warn_unused_result));

bool networks_have(const struct networks *networks, const struct sockaddr *address);

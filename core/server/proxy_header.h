/*
 * proxy_header: what a proxy says about the client whose connection it passes on, before that
 * client's first byte: the PROXY protocol, version 2.
 *
 * Owner    Plain values.
 * Thread   Any. Pure.
 * Use      Only of peers that are trusted to tell the truth: anybody can write such a header.
 * Errors   PROXY_HEADER_BAD for what isn't one; the connection is closed, as the source demands.
 * Source   HAProxy, proxy-protocol.txt, section 2.2. Version 1, the text, isn't taken.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROXY_HEADER_FIXED_BYTES = 16,
    PROXY_HEADER_BYTES_MAX = 4096, /* addresses, and TLVs that we pass over */
};

enum proxy_header_result {
    PROXY_HEADER_MORE, /* the beginning of one */
    PROXY_HEADER_DONE,
    PROXY_HEADER_BAD,
};

union proxy_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct proxy_header {
    uint32_t byte_count; /* the client's own bytes begin behind them */
    bool has_address;    /* else (LOCAL, UNSPEC, a socket of another kind) it is the proxy's own */
    union proxy_address source;
};

/*
 * `header` is set when it is DONE. Whatever the split, the same bytes give the same: MORE until all
 * of them are there, unless what is there is wrong already.
 */
enum proxy_header_result proxy_header_parse(const uint8_t *bytes, size_t byte_count,
                                            struct proxy_header *header)
    __attribute__((warn_unused_result));

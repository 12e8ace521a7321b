/*
 * devcert: a certificate authority and a server certificate for development and tests, P-256.
 *
 * Owner    The caller frees the four texts with devcert_free, which zeroes.
 * Thread   Any, after tls_global_init. Slow (key generation): at set-up only.
 * Errors   struct hf_error.
 * Source   RFC 5280 (profile), RFC 6125 (names).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/tls/pem.h"

struct devcert_address {
    uint8_t bytes[16]; /* network order */
    size_t byte_count; /* 4 or 16 */
};

struct devcert_options {
    const char *ca_name;      /* common name of the authority, e.g. "Holdfast development CA" */
    const char *const *names; /* DNS names of the server; the first is its common name too */
    size_t name_count;        /* 1 to 16 */
    const struct devcert_address *addresses; /* of the server, for clients that dial by number */
    size_t address_count;                    /* 0 to 16 */
    uint64_t now_unix_ms;                    /* valid from a day before */
    uint32_t days;                           /* valid for that long */
};

struct devcert {
    struct tls_pem ca_certificate;
    struct tls_pem ca_key;
    struct tls_pem certificate; /* the leaf alone */
    struct tls_pem key;
};

/* 0 or -1. */
int devcert_make(struct devcert *made, const struct devcert_options *options,
                 struct hf_error *error) __attribute__((warn_unused_result));
void devcert_free(struct devcert *made);

/*
 * client_hello: what a ClientHello says of resumption, which mbedTLS doesn't show to the function
 * that opens its tickets.
 *
 * Thread   Any. Pure.
 * Memory   None: it reads the bytes it is given.
 * Units    An offer's age in ms, as the client sent it: ticket_age_add is still in it.
 * Errors   false or 0 for what isn't there or can't be read. Lengths are checked anew, whoever may
 *          have done so before.
 * Source   RFC 8446 4.1.2 (ClientHello), 4.2.9 (psk_key_exchange_modes), 4.2.11 (pre_shared_key).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One ClientHello, behind its handshake header, and where its parts lie. */
struct client_hello {
    const uint8_t *suites;
    size_t suites_bytes;
    const uint8_t *extensions;
    size_t extensions_bytes;
};

bool client_hello_read(struct client_hello *hello, const uint8_t *bytes, size_t byte_count)
    __attribute__((warn_unused_result));

/* Whether the client resumes without a Diffie-Hellman exchange, and in no other way. */
bool client_hello_only_psk_ke(const struct client_hello *hello);

/*
 * The suite to resume a session of `suite` with: itself if the client offers it, else the first of
 * ours in its list with the same hash (RFC 8446 4.2.11: the PSK is bound to the hash alone); 0: none.
 */
uint16_t client_hello_suite_for(const struct client_hello *hello, uint16_t suite);

/* The obfuscated age that the client states of the ticket that begins with these bytes. */
bool client_hello_ticket_age(const struct client_hello *hello, const uint8_t *ticket_start,
                             size_t start_bytes, uint32_t *obfuscated_age)
    __attribute__((warn_unused_result));

/*
 * libssl: an OpenSSL connection over memory, the other end in the tests of core/tls.
 */
#pragma once

#include <openssl/ssl.h>

#include "tests/unit/tls/fixture.h"

struct libssl_options {
    const char *suite;  /* "TLS_AES_128_GCM_SHA256"; NULL: all */
    const char *groups; /* "P-256:X25519"; NULL: its own choice */
    const char *alpn;   /* length-prefixed, as on the wire; NULL: none */
    int version_max;    /* TLS1_3_VERSION by default */
    int tickets;        /* a server's */
};

#define LIBSSL_ALPN "\x0aholdfast/1"

struct libssl {
    SSL_CTX *context;
    SSL *ssl;
    SSL_SESSION *session; /* the last one that came */
    int sessions;
    int client_hellos; /* sent */
};

void libssl_open(struct libssl *libssl, bool client, const struct devcert *cert,
                 struct libssl_options options);
void libssl_close(struct libssl *libssl);

/* A new connection of the same context; a client's with the session given, if any. */
void libssl_again(struct libssl *libssl, bool client, SSL_SESSION *session);

/* Moves what it wrote to `to`, and what `from` holds to it. */
void libssl_flush(struct libssl *libssl, struct wire *to);
void libssl_feed(struct libssl *libssl, struct wire *from);

/* Steps its handshake with all that `from` holds; true when it is done. */
bool libssl_step(struct libssl *libssl, struct wire *from, struct wire *to);

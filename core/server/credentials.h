/*
 * credentials: what a process proves itself with and checks others by: certificate and key, the
 * keys of log-in tokens, the rings of ticket and resume keys. The node reads, rotates and hands
 * them out; doors and reactors take copies of what is small.
 *
 * Owner    The node. A set that was handed out is changed by nobody; `takers` counts the threads
 *          that haven't taken it yet. When it is 0 all threads use this set, and the set before it
 *          may be closed: that is why one hand-out ends before the next begins.
 * Thread   credentials_took: each taker. All else: the node's. Files block: never a reactor.
 * Memory   About 20 KB and the certificate; zeroed when closed.
 * Errors   struct hf_error that names the file; the set in use stays in use.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/server/config.h"
#include "core/tls/pem.h"
#include "core/tls/tickets.h"
#include "core/token/keys.h"
#include "core/token/resume.h"

struct credentials {
    _Atomic uint32_t takers;      /* partners: credentials_took / credentials_are_taken */
    uint64_t certificate_version; /* rises when certificate or key were read anew */
    struct tls_pem certificate;
    struct tls_pem key;
    struct token_keys *login_keys; /* read by all doors, changed by none */
    struct tls_ticket_ring tickets;
    struct resume_ring resume;
};

/* Paths of the key files that the server itself writes. */
struct credentials_paths {
    char tickets[CONFIG_TEXT_BYTES_MAX + 16];
    char resume[CONFIG_TEXT_BYTES_MAX + 16];
};
void credentials_get_paths(const struct config *config, struct credentials_paths *paths);

/* Reads certificate, key and log-in keys, and tries whether they fit. NULL: refused. */
struct credentials *credentials_open(const struct config *config, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Reads the rings too, or makes them where there are none; adds the keys that are due. */
bool credentials_load_rings(struct credentials *credentials, const struct config *config,
                            uint64_t now_unix_ms, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Whether the rings could be read, without making or changing any. */
bool credentials_check_rings(struct credentials *credentials, const struct config *config,
                             struct hf_error *error) __attribute__((warn_unused_result));

/*
 * A copy of `old` whose rings are read anew from their files, with the keys that are due by now.
 * Its log-in keys and certificate are moved from `old` only by credentials_close_old. NULL: see
 * error.
 */
struct credentials *credentials_refresh(const struct credentials *old, const struct config *config,
                                        uint64_t now_unix_ms, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Zeroes and frees; NULL is allowed. */
void credentials_close(struct credentials *credentials);

/* Gives up `old`, which `present` was made from: what both share lives on in `present`. */
void credentials_close_old(struct credentials *old, const struct credentials *present);

/* This thread has what it needs of them. */
static inline void credentials_took(struct credentials *credentials)
{
    (void)atomic_fetch_sub_explicit(&credentials->takers, 1, memory_order_release);
}

/* Whether all have. */
static inline bool credentials_are_taken(const struct credentials *credentials)
{
    return atomic_load_explicit(&credentials->takers, memory_order_acquire) == 0;
}

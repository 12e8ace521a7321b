#include "core/server/credentials.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/tls/handshake.h"

/* A new resume key signs once every thread has it for certain. */
#define ACTIVE_AFTER_S 60

void credentials_get_paths(const struct config *config, struct credentials_paths *paths)
{
    const struct {
        const char *given;
        const char *name;
        char *path;
        size_t room;
    } files[] = {
        { config->ticket_keys, "ticket-keys", paths->tickets, sizeof paths->tickets },
        { config->resume_keys, "resume-keys", paths->resume, sizeof paths->resume },
    };

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i].given[0] != '\0') {
            (void)snprintf(files[i].path, files[i].room, "%s", files[i].given);
        } else {
            (void)snprintf(files[i].path, files[i].room, "%s/%s", config->data_dir, files[i].name);
        }
    }
}

/* Certificate and key must fit each other, and be of a kind that a door can serve with. */
static bool try_certificate(const struct credentials *credentials, struct hf_error *error)
{
    const struct tls_server_options options = {
        .certificate = &credentials->certificate,
        .key = &credentials->key,
    };
    struct tls_server *server = tls_server_open(&options, error);

    tls_server_close(server);
    return server != NULL;
}

struct credentials *credentials_open(const struct config *config, struct hf_error *error)
{
    struct credentials *credentials = calloc(1, sizeof *credentials);

    if (credentials == NULL) {
        hf_error_set(error, EX_OSERR, 0, "keys: no memory");
        return NULL;
    }
    credentials->certificate_version = 1;
    tls_tickets_init(&credentials->tickets, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);

    if (tls_pem_load(&credentials->certificate, config->tls_cert, TLS_PEM_CERTIFICATE, error) !=
        0) {
        hf_error_prepend(error, "tls_cert");
    } else if (tls_pem_load(&credentials->key, config->tls_key, TLS_PEM_PRIVATE_KEY, error) != 0) {
        hf_error_prepend(error, "tls_key");
    } else if (!try_certificate(credentials, error)) {
        hf_error_prepend(error, "tls_cert %s, tls_key %s", config->tls_cert, config->tls_key);
    } else if (!token_keys_open(&credentials->login_keys, config->login_keys, TOKEN_KEYS_VERIFY,
                                error)) {
        hf_error_prepend(error, "login_keys");
    } else {
        return credentials;
    }
    credentials_close(credentials);
    return NULL;
}

bool credentials_load_rings(struct credentials *credentials, const struct config *config,
                            uint64_t now_unix_ms, struct hf_error *error)
{
    const uint64_t now_unix_s = now_unix_ms / 1000;
    struct credentials_paths paths;

    credentials_get_paths(config, &paths);
    if (tls_tickets_refresh(&credentials->tickets, paths.tickets, now_unix_ms, error) != 0) {
        hf_error_prepend(error, "ticket_keys");
        return false;
    }
    if (!resume_ring_open(&credentials->resume, paths.resume, now_unix_s, error) ||
        (resume_ring_is_due(&credentials->resume, now_unix_s, config->login_life_s / 4) &&
         !resume_ring_rotate(&credentials->resume, paths.resume, now_unix_s,
                             now_unix_s + ACTIVE_AFTER_S, config->login_life_s, error))) {
        hf_error_prepend(error, "resume_keys");
        return false;
    }
    return true;
}

bool credentials_check_rings(struct credentials *credentials, const struct config *config,
                             struct hf_error *error)
{
    struct credentials_paths paths;

    credentials_get_paths(config, &paths);
    if (tls_tickets_load(&credentials->tickets, paths.tickets, error) < 0) { /* 1: there is none */
        hf_error_prepend(error, "ticket_keys");
        return false;
    }
    if (access(paths.resume, F_OK) == 0 &&
        !resume_ring_open(&credentials->resume, paths.resume, 0, error)) {
        hf_error_prepend(error, "resume_keys");
        return false;
    }
    return true;
}

struct credentials *credentials_refresh(const struct credentials *old, const struct config *config,
                                        uint64_t now_unix_ms, struct hf_error *error)
{
    struct credentials *credentials = calloc(1, sizeof *credentials);

    if (credentials == NULL) {
        hf_error_set(error, EX_OSERR, 0, "keys: no memory");
        return NULL;
    }
    credentials->certificate_version = old->certificate_version;
    credentials->tickets = old->tickets;
    credentials->resume = old->resume;
    if (!credentials_load_rings(credentials, config, now_unix_ms, error)) {
        credentials_close(credentials);
        return NULL;
    }
    credentials->certificate = old->certificate;
    credentials->key = old->key;
    credentials->login_keys = old->login_keys;
    return credentials;
}

void credentials_close(struct credentials *credentials)
{
    if (credentials == NULL) {
        return;
    }
    tls_pem_free(&credentials->certificate);
    tls_pem_free(&credentials->key);
    token_keys_close(credentials->login_keys);
    tls_tickets_clear(&credentials->tickets);
    resume_ring_clear(&credentials->resume);
    free(credentials);
}

void credentials_close_old(struct credentials *old, const struct credentials *present)
{
    if (old == NULL) {
        return;
    }
    if (old->certificate.bytes == present->certificate.bytes) {
        memset(&old->certificate, 0, sizeof old->certificate);
        memset(&old->key, 0, sizeof old->key);
    }
    if (old->login_keys == present->login_keys) {
        old->login_keys = NULL;
    }
    credentials_close(old);
}

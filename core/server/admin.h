/*
 * admin: /metrics, /ready and /live for the operator's machines: as little of HTTP/1.1 as they
 * need.
 *
 *   GET or HEAD   /metrics   Prometheus text
 *                 /ready     200 while clients are let in, else 503 and why
 *                 /live      200
 *
 * Owner    The node.
 * Thread   The node's: poll says what is ready, admin_run does it; nothing blocks.
 * Memory   4 KB a connection, of which there are 8 at most, and the page that is being sent.
 * Bounds   A request has 4,096 bytes and, with its answer, 5 seconds; every answer ends its
 *          connection. More clients than connections wait in the backlog.
 * Errors   Set-up: hf_error. A bad request gets 400, 404, 405, 431 or 505.
 * Source   RFC 9110, RFC 9112.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/error.h"

#define ADMIN_CONNECTIONS_MAX 8
#define ADMIN_POLLS_MAX       (ADMIN_CONNECTIONS_MAX + 1)

struct admin_pages {
    void *context;
    bool (*metrics)(void *context, FILE *file);
    const char *(*not_ready)(void *context); /* NULL: it is ready */
};

struct admin;

/* Takes the listening socket, which is closed by admin_close, or here on failure. */
struct admin *admin_open(int fd, const struct admin_pages *pages, struct hf_error *error)
    __attribute__((warn_unused_result));
void admin_close(struct admin *admin);

/* Fills in what is to be waited for; returns how many. */
uint32_t admin_get_polls(const struct admin *admin, struct pollfd polls[ADMIN_POLLS_MAX]);

/* After poll, with the same array. */
void admin_run(struct admin *admin, const struct pollfd *polls, uint32_t poll_count,
               uint64_t now_ns);

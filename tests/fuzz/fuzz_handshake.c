/*
 * Anybody may send anything to a door. No bytes do more than fail their own handshake, with one
 * alert at most, and what becomes of them doesn't depend on how they are split.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/tls/devcert.h"
#include "core/tls/handshake.h"
#include "tests/fuzz/fuzz.h"

#define NOW_UNIX_MS UINT64_C(1764000000000)

static struct tls_server *server;

static void start(void)
{
    static const char *const names[] = { "chat.example" };
    const struct devcert_options options = { .ca_name = "Authority",
                                             .names = names,
                                             .name_count = 1,
                                             .now_unix_ms = NOW_UNIX_MS,
                                             .days = 1 };
    static struct tls_ticket_ring ring;
    struct devcert cert;
    struct hf_error error;

    if (server != NULL) {
        return;
    }
    HF_ASSERT(tls_global_init(&error) == 0);
    HF_ASSERT(devcert_make(&cert, &options, &error) == 0);
    server = tls_server_open(&(struct tls_server_options){ .certificate = &cert.certificate,
                                                           .key = &cert.key,
                                                           .tickets_per_handshake = 1 },
                             &error);
    HF_ASSERT(server != NULL);
    devcert_free(&cert);
    tls_tickets_init(&ring, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    HF_ASSERT(tls_tickets_rotate(&ring, NOW_UNIX_MS) == TLS_TICKETS_CHANGED);
    tls_server_set_tickets(server, &ring);
}

/* Feeds all bytes, `step` at a time. Nobody finishes without having seen our answer. */
static enum tls_handshake_fault shake(const uint8_t *bytes, size_t byte_count, size_t step)
{
    struct tls_handshake *handshake = tls_handshake_accept(server);
    enum tls_handshake_status status = TLS_HANDSHAKE_WANT_INPUT;
    enum tls_handshake_fault fault;
    uint8_t out[TLS_HANDSHAKE_OUT_BYTES];
    size_t used = 0;

    HF_ASSERT(handshake != NULL);
    while (status != TLS_HANDSHAKE_FAILED &&
           (used < byte_count || status == TLS_HANDSHAKE_WANT_ROOM)) {
        const size_t left = byte_count - used;
        struct tls_handshake_io io = { .in = bytes + used,
                                       .in_bytes = left < step ? left : step,
                                       .out = out,
                                       .out_capacity = sizeof out,
                                       .now_unix_ms = NOW_UNIX_MS };

        status = tls_handshake_step(handshake, &io);
        HF_ASSERT(status != TLS_HANDSHAKE_DONE);
        HF_ASSERT(io.in_used == io.in_bytes || status != TLS_HANDSHAKE_WANT_INPUT);
        used += io.in_used;
    }
    fault = tls_handshake_fault(handshake);
    HF_ASSERT((fault != TLS_HANDSHAKE_FAULT_NONE) == (status == TLS_HANDSHAKE_FAILED));
    HF_ASSERT(fault != TLS_HANDSHAKE_FAULT_INTERNAL && fault != TLS_HANDSHAKE_FAULT_NO_MEMORY);
    HF_ASSERT(strlen(tls_handshake_server_name(handshake)) <= TLS_SERVER_NAME_BYTES_MAX);
    tls_handshake_end(handshake);
    return fault;
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    start();

    const enum tls_handshake_fault fault = shake(bytes, byte_count, SIZE_MAX);

    HF_ASSERT(shake(bytes, byte_count, 1U + (byte_count == 0 ? 0 : bytes[0] % 61U)) == fault);
}

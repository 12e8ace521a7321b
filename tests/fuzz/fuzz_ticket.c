/*
 * What comes back from clients as tickets, from the disk as a ring of ticket keys, and to a client
 * as a session that it once saved: none does more than be refused.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/tls/handshake.h"
#include "core/tls/tickets.h"
#include "tests/fuzz/fuzz.h"

#define NOW_UNIX_MS UINT64_C(1764000000000)

/* The first byte says what the others are. */
enum { TICKET, TICKET_OF_OUR_KEY, TICKET_SEALED, RING, RING_WITH_CRC, SESSION, KINDS };

static struct tls_ticket_ring ring;
static struct tls_client *client;

static void start(void)
{
    struct hf_error error;

    if (client != NULL) {
        return;
    }
    tls_tickets_init(&ring, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    HF_ASSERT(tls_tickets_rotate(&ring, NOW_UNIX_MS) == TLS_TICKETS_CHANGED);
    HF_ASSERT(tls_global_init(&error) == 0);
    client = tls_client_open(&(struct tls_client_options){ .insecure = true }, &error);
    HF_ASSERT(client != NULL);
}

static void one_ticket(uint8_t *bytes, size_t byte_count)
{
    struct tls_ticket_opened opened;

    HF_ASSERT(tls_ticket_open(&ring, NOW_UNIX_MS, bytes, byte_count, &opened) ==
              TLS_TICKET_UNKNOWN);
}

/* What we sealed is what we open, and no other key does. */
static void one_sealed_ticket(const uint8_t *state, size_t state_bytes)
{
    static const uint8_t nonce[TLS_TICKET_NONCE_BYTES] = { 1 };
    const size_t capacity = state_bytes + TLS_TICKET_OVERHEAD;
    uint8_t *ticket = malloc(capacity);
    struct tls_ticket_opened opened;

    HF_ASSERT(ticket != NULL);
    HF_ASSERT(tls_ticket_seal(&ring, NOW_UNIX_MS, nonce, state, state_bytes, ticket, capacity) ==
              capacity);
    HF_ASSERT(tls_ticket_open(&ring, NOW_UNIX_MS + 7, ticket, capacity, &opened) == TLS_TICKET_OK);
    HF_ASSERT(opened.age_ms == 7 && opened.state_bytes == state_bytes);
    HF_ASSERT(memcmp(opened.state, state, state_bytes) == 0);
    free(ticket);
}

/* A ring that is accepted is written again as it was. */
static void one_ring(const uint8_t *bytes, size_t byte_count)
{
    static struct tls_ticket_ring decoded;
    static uint8_t again[TLS_TICKET_RING_BYTES_MAX];

    tls_tickets_init(&decoded, TLS_TICKET_LIFETIME_MS, TLS_TICKET_ROTATE_MS);
    if (tls_tickets_decode(&decoded, bytes, byte_count) == NULL) {
        HF_ASSERT(decoded.key_count <= TLS_TICKET_KEYS_MAX);
        HF_ASSERT(tls_tickets_encode(&decoded, again) == byte_count);
        HF_ASSERT(memcmp(again, bytes, byte_count) == 0);
        HF_ASSERT(tls_tickets_rotate(&decoded, NOW_UNIX_MS) != TLS_TICKETS_FAILED);
        HF_ASSERT(tls_tickets_can_seal(&decoded, NOW_UNIX_MS));
        HF_ASSERT(tls_tickets_rotate(&decoded, NOW_UNIX_MS) == TLS_TICKETS_SAME);
    }
}

static void one_session(const uint8_t *bytes, size_t byte_count)
{
    uint8_t out[2048]; /* a ClientHello: the session is offered in it */
    struct tls_handshake_io io = { .out = out, .out_capacity = sizeof out };
    struct tls_handshake *handshake =
        tls_handshake_connect(client, "chat.example", bytes, byte_count, NOW_UNIX_MS);
    enum tls_handshake_status status;

    HF_ASSERT(handshake != NULL);
    do {
        io.out_bytes = 0;
        status = tls_handshake_step(handshake, &io);
    } while (status == TLS_HANDSHAKE_WANT_ROOM);
    HF_ASSERT(status == TLS_HANDSHAKE_WANT_INPUT || status == TLS_HANDSHAKE_FAILED);
    tls_handshake_end(handshake);
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    start();
    if (byte_count == 0) {
        return;
    }

    const size_t rest_bytes = byte_count - 1;
    uint8_t *rest = malloc(rest_bytes + 1);

    HF_ASSERT(rest != NULL);
    memcpy(rest, bytes + 1, rest_bytes);
    switch (bytes[0] % KINDS) {
    case TICKET_OF_OUR_KEY:
        memcpy(rest, ring.keys[0].name,
               rest_bytes < TLS_TICKET_NAME_BYTES ? rest_bytes : TLS_TICKET_NAME_BYTES);
        one_ticket(rest, rest_bytes);
        break;
    case TICKET_SEALED:
        one_sealed_ticket(rest, rest_bytes);
        break;
    case RING_WITH_CRC:
        if (rest_bytes >= 4) {
            store_be32(rest + rest_bytes - 4, crc32c(0, rest, rest_bytes - 4));
        }
        one_ring(rest, rest_bytes);
        break;
    case RING:
        one_ring(rest, rest_bytes);
        break;
    case SESSION:
        one_session(rest, rest_bytes);
        break;
    default:
        one_ticket(rest, rest_bytes);
        break;
    }
    free(rest);
}

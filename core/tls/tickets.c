#include "core/tls/tickets.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <mbedtls/platform_util.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/tls/aead.h"

/*
 * A ticket:
 *      0  name of the key        16   also the additional data
 *     16  nonce                  12
 *     28  issued at, Unix ms      8   sealed from here on
 *     36  state
 *         tag                    16
 */
enum {
    TICKET_NONCE_AT = TLS_TICKET_NAME_BYTES,
    TICKET_SEALED_AT = TICKET_NONCE_AT + TLS_TICKET_NONCE_BYTES,
    TICKET_STATE_AT = TICKET_SEALED_AT + 8,
    TICKET_CLOCK_SKEW_MS = 5000, /* between the clocks of two nodes, or a small step back */
};
_Static_assert(TICKET_STATE_AT + AEAD_TAG_BYTES == TLS_TICKET_OVERHEAD, "documented in the header");

void tls_tickets_init(struct tls_ticket_ring *ring, uint64_t lifetime_ms, uint64_t rotate_ms)
{
    HF_ASSERT(lifetime_ms >= 1000 && lifetime_ms <= TLS_TICKET_LIFETIME_MS_MAX);
    HF_ASSERT(rotate_ms >= 1000 && rotate_ms >= lifetime_ms / 168);
    memset(ring, 0, sizeof *ring);
    ring->lifetime_ms = lifetime_ms;
    ring->rotate_ms = rotate_ms;
}

void tls_tickets_clear(struct tls_ticket_ring *ring)
{
    mbedtls_platform_zeroize(ring, sizeof *ring);
}

static void ring_remove(struct tls_ticket_ring *ring, uint32_t index)
{
    ring->key_count--;
    memmove(&ring->keys[index], &ring->keys[index + 1],
            (ring->key_count - index) * sizeof ring->keys[0]);
    mbedtls_platform_zeroize(&ring->keys[ring->key_count], sizeof ring->keys[0]);
}

static bool ring_random(uint8_t *bytes, size_t byte_count)
{
    while (byte_count > 0) {
        const ssize_t n = getrandom(bytes, byte_count, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes += n;
        byte_count -= (size_t)n;
    }
    return true;
}

/* Keeps the order; the oldest gives way when the ring is full. */
static bool ring_add(struct tls_ticket_ring *ring, uint64_t use_from_unix_ms)
{
    struct tls_ticket_key key = { .use_from_unix_ms = use_from_unix_ms };
    uint32_t index = 0;

    if (!ring_random(key.name, sizeof key.name) || !ring_random(key.secret, sizeof key.secret)) {
        return false;
    }
    if (ring->key_count == TLS_TICKET_KEYS_MAX) {
        ring_remove(ring, 0);
    }
    while (index < ring->key_count && ring->keys[index].use_from_unix_ms < use_from_unix_ms) {
        index++;
    }
    memmove(&ring->keys[index + 1], &ring->keys[index],
            (ring->key_count - index) * sizeof ring->keys[0]);
    ring->keys[index] = key;
    ring->key_count++;
    mbedtls_platform_zeroize(&key, sizeof key);
    return true;
}

/* The newest key that may seal now, or NULL. */
static const struct tls_ticket_key *ring_newest(const struct tls_ticket_ring *ring,
                                                uint64_t now_unix_ms)
{
    for (uint32_t count = ring->key_count; count > 0; count--) {
        if (ring->keys[count - 1].use_from_unix_ms <= now_unix_ms) {
            return &ring->keys[count - 1];
        }
    }
    return NULL;
}

enum tls_tickets_change tls_tickets_rotate(struct tls_ticket_ring *ring, uint64_t now_unix_ms)
{
    enum tls_tickets_change change = TLS_TICKETS_SAME;

    for (uint32_t index = 0; index < ring->key_count;) {
        const uint64_t use_from = ring->keys[index].use_from_unix_ms;
        const bool expired = now_unix_ms >= ring->rotate_ms + ring->lifetime_ms &&
                             use_from <= now_unix_ms - ring->rotate_ms - ring->lifetime_ms;
        /* From a time when the clock was wrong: it would hold up the rotation. */
        const bool far_off = use_from > now_unix_ms && use_from - now_unix_ms > 2 * ring->rotate_ms;

        if (expired || far_off) {
            ring_remove(ring, index);
            change = TLS_TICKETS_CHANGED;
        } else {
            index++;
        }
    }

    const struct tls_ticket_key *current = ring_newest(ring, now_unix_ms);

    if (current == NULL || now_unix_ms - current->use_from_unix_ms >= ring->rotate_ms) {
        if (!ring_add(ring, now_unix_ms)) {
            return TLS_TICKETS_FAILED;
        }
        change = TLS_TICKETS_CHANGED;
        current = ring_newest(ring, now_unix_ms);
    }
    if (current == &ring->keys[ring->key_count - 1]) { /* none to come */
        if (!ring_add(ring, current->use_from_unix_ms + ring->rotate_ms)) {
            return TLS_TICKETS_FAILED;
        }
        change = TLS_TICKETS_CHANGED;
    }
    return change;
}

/* Late timers are forgiven one interval; beyond it a key would outlive what it may open. */
static const struct tls_ticket_key *ring_sealing(const struct tls_ticket_ring *ring,
                                                 uint64_t now_unix_ms)
{
    const struct tls_ticket_key *key = ring_newest(ring, now_unix_ms);

    return key != NULL && now_unix_ms - key->use_from_unix_ms < 2 * ring->rotate_ms ? key : NULL;
}

bool tls_tickets_can_seal(const struct tls_ticket_ring *ring, uint64_t now_unix_ms)
{
    return ring_sealing(ring, now_unix_ms) != NULL;
}

static struct aead_key ticket_aead_key(const struct tls_ticket_key *key, const uint8_t *nonce)
{
    struct aead_key made;

    memcpy(made.key, key->secret, sizeof made.key);
    memcpy(made.iv, nonce, sizeof made.iv);
    return made;
}

size_t tls_ticket_seal(const struct tls_ticket_ring *ring, uint64_t now_unix_ms,
                       const uint8_t nonce[TLS_TICKET_NONCE_BYTES], const uint8_t *state,
                       size_t state_bytes, uint8_t *ticket, size_t ticket_capacity)
{
    const struct tls_ticket_key *key = ring_sealing(ring, now_unix_ms);

    if (key == NULL || ticket_capacity < TLS_TICKET_OVERHEAD ||
        state_bytes > ticket_capacity - TLS_TICKET_OVERHEAD) {
        return 0;
    }
    if (state != ticket + TICKET_STATE_AT) {
        memmove(ticket + TICKET_STATE_AT, state, state_bytes);
    }
    memcpy(ticket, key->name, TLS_TICKET_NAME_BYTES);
    memcpy(ticket + TICKET_NONCE_AT, nonce, TLS_TICKET_NONCE_BYTES);
    store_be64(ticket + TICKET_SEALED_AT, now_unix_ms);

    struct aead_key aead = ticket_aead_key(key, nonce);
    const enum aead_result sealed = aead_seal(
        NULL, AEAD_AES_256_GCM_SHA384, &aead, 0, ticket, TLS_TICKET_NAME_BYTES,
        ticket + TICKET_SEALED_AT, 8 + state_bytes, ticket + TICKET_STATE_AT + state_bytes);

    mbedtls_platform_zeroize(&aead, sizeof aead);
    if (sealed != AEAD_OK) {
        mbedtls_platform_zeroize(ticket, TLS_TICKET_OVERHEAD + state_bytes);
        return 0;
    }
    return TLS_TICKET_OVERHEAD + state_bytes;
}

static const struct tls_ticket_key *ring_named(const struct tls_ticket_ring *ring,
                                               const uint8_t *name)
{
    for (uint32_t count = ring->key_count; count > 0; count--) { /* the newest are the likeliest */
        if (memcmp(ring->keys[count - 1].name, name, TLS_TICKET_NAME_BYTES) == 0) {
            return &ring->keys[count - 1];
        }
    }
    return NULL;
}

enum tls_ticket_result tls_ticket_open(const struct tls_ticket_ring *ring, uint64_t now_unix_ms,
                                       uint8_t *ticket, size_t ticket_bytes,
                                       struct tls_ticket_opened *opened)
{
    const struct tls_ticket_key *key;

    *opened = (struct tls_ticket_opened){ 0 };
    if (ticket_bytes < TLS_TICKET_OVERHEAD || (key = ring_named(ring, ticket)) == NULL) {
        return TLS_TICKET_UNKNOWN;
    }

    const size_t sealed_bytes = ticket_bytes - TICKET_SEALED_AT - AEAD_TAG_BYTES;
    struct aead_key aead = ticket_aead_key(key, ticket + TICKET_NONCE_AT);
    const enum aead_result result =
        aead_open(NULL, AEAD_AES_256_GCM_SHA384, &aead, 0, ticket, TLS_TICKET_NAME_BYTES,
                  ticket + TICKET_SEALED_AT, sealed_bytes, ticket + ticket_bytes - AEAD_TAG_BYTES);

    mbedtls_platform_zeroize(&aead, sizeof aead);
    if (result != AEAD_OK) {
        return TLS_TICKET_UNKNOWN;
    }

    const uint64_t issued_unix_ms = load_be64(ticket + TICKET_SEALED_AT);
    const bool future = issued_unix_ms > now_unix_ms;

    if (future ? issued_unix_ms - now_unix_ms > TICKET_CLOCK_SKEW_MS
               : now_unix_ms - issued_unix_ms > ring->lifetime_ms) {
        mbedtls_platform_zeroize(ticket, ticket_bytes);
        return TLS_TICKET_EXPIRED;
    }
    opened->state = ticket + TICKET_STATE_AT;
    opened->state_bytes = sealed_bytes - 8;
    opened->age_ms = future ? 0 : now_unix_ms - issued_unix_ms;
    return TLS_TICKET_OK;
}

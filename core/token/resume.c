#include "core/token/resume.h"

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/token/private_file.h"
#include "core/token/random.h"

#include <inttypes.h>
#include <mbedtls/constant_time.h>
#include <mbedtls/platform_util.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#define SIGNED_BYTES         32
#define RING_FILE_BYTES_MAX  4096
#define RING_FIRST_LINE      "holdfast resume keys "
#define RING_FORMAT          1
#define RING_TIME_MAX_UNIX_S UINT64_C(999999999999999)

_Static_assert(SIGNED_BYTES + HMAC_BYTES == RESUME_TOKEN_BYTES, "the diagram in resume.h");

static void key_set(struct resume_key *key, uint32_t id, uint64_t active_at_unix_s,
                    const uint8_t secret[RESUME_SECRET_BYTES])
{
    key->id = id;
    key->active_at_unix_s = active_at_unix_s;
    memcpy(key->secret_, secret, RESUME_SECRET_BYTES);
    hmac_key_set(&key->hmac_, secret, RESUME_SECRET_BYTES);
}

void resume_ring_clear(struct resume_ring *ring)
{
    mbedtls_platform_zeroize(ring, sizeof *ring);
}

/* What is left of the file's text. */
struct text {
    const char *at;
    const char *end;
};

static bool take_word(struct text *text, const char *word)
{
    const size_t word_bytes = strlen(word);

    if ((size_t)(text->end - text->at) < word_bytes || memcmp(text->at, word, word_bytes) != 0) {
        return false;
    }
    text->at += word_bytes;
    return true;
}

/* One spelling for a number: no sign, no leading zero. */
static bool take_number(struct text *text, uint64_t number_max, uint64_t *number)
{
    const char *begin = text->at;

    *number = 0;
    while (text->at < text->end && *text->at >= '0' && *text->at <= '9') {
        *number = *number * 10 + (uint64_t)(*text->at++ - '0');
        if (*number > number_max) {
            return false;
        }
    }
    return text->at > begin && (*begin != '0' || text->at == begin + 1);
}

static bool take_secret(struct text *text, uint8_t secret[RESUME_SECRET_BYTES])
{
    if ((size_t)(text->end - text->at) < 2 * (size_t)RESUME_SECRET_BYTES) {
        return false;
    }
    for (size_t i = 0; i < 2 * (size_t)RESUME_SECRET_BYTES; i++) {
        const char digit = *text->at++;
        uint8_t value;

        if (digit >= '0' && digit <= '9') {
            value = (uint8_t)(digit - '0');
        } else if (digit >= 'a' && digit <= 'f') {
            value = (uint8_t)(digit - 'a' + 10);
        } else {
            return false;
        }
        secret[i / 2] = (uint8_t)((i % 2 == 0 ? 0 : secret[i / 2] << 4) | value);
    }
    return true;
}

static bool take_key(struct text *text, struct resume_ring *ring)
{
    const struct resume_key *last = ring->count == 0 ? NULL : &ring->keys[ring->count - 1];
    uint64_t id;
    uint64_t active_at_unix_s;
    uint8_t secret[RESUME_SECRET_BYTES];
    const bool good =
        take_number(text, RESUME_KEY_ID_MAX, &id) && take_word(text, " ") &&
        take_number(text, RING_TIME_MAX_UNIX_S, &active_at_unix_s) && take_word(text, " ") &&
        take_secret(text, secret) && take_word(text, "\n") && ring->count < RESUME_KEYS_MAX &&
        (last == NULL || (id > last->id && active_at_unix_s >= last->active_at_unix_s));

    if (good) {
        key_set(&ring->keys[ring->count++], (uint32_t)id, active_at_unix_s, secret);
    }
    mbedtls_platform_zeroize(secret, sizeof secret);
    return good;
}

bool resume_ring_parse(struct resume_ring *ring, const char *text, size_t byte_count,
                       struct hf_error *error)
{
    struct text rest = { text, text + byte_count };
    unsigned line = 1;
    uint64_t number;

    memset(ring, 0, sizeof *ring);
    if (!take_word(&rest, RING_FIRST_LINE) || !take_number(&rest, UINT32_MAX, &number) ||
        !take_word(&rest, "\n")) {
        hf_error_set(error, EX_DATAERR, 0, "not a file of resume keys");
        return false;
    }
    if (number != RING_FORMAT) {
        hf_error_set(error, EX_DATAERR, 0,
                     "format %" PRIu64 ", this version reads format %d: made by a newer version?",
                     number, RING_FORMAT);
        return false;
    }
    for (;;) {
        line++;
        if (take_word(&rest, "end ")) {
            break;
        }
        if (!take_key(&rest, ring)) {
            hf_error_set(error, EX_DATAERR, 0, "line %u is damaged", line);
            resume_ring_clear(ring);
            return false;
        }
    }
    if (!take_number(&rest, RESUME_KEYS_MAX, &number) || !take_word(&rest, "\n") ||
        rest.at != rest.end || number != ring->count || ring->count == 0) {
        hf_error_set(error, EX_DATAERR, 0, "its last line is damaged, or keys are missing");
        resume_ring_clear(ring);
        return false;
    }
    return true;
}

static bool ring_write(const struct resume_ring *ring, const char *path, struct hf_error *error)
{
    char text[RING_FILE_BYTES_MAX];
    size_t used = (size_t)snprintf(text, sizeof text, RING_FIRST_LINE "%d\n", RING_FORMAT);

    for (size_t i = 0; i < ring->count; i++) {
        const struct resume_key *key = &ring->keys[i];

        used += (size_t)snprintf(text + used, sizeof text - used, "%" PRIu32 " %" PRIu64 " ",
                                 key->id, key->active_at_unix_s);
        for (size_t j = 0; j < sizeof key->secret_; j++) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%02x", key->secret_[j]);
        }
        used += (size_t)snprintf(text + used, sizeof text - used, "\n");
    }
    used += (size_t)snprintf(text + used, sizeof text - used, "end %zu\n", ring->count);
    HF_ASSERT(used < sizeof text);

    const bool good = private_file_replace(path, text, used, error);
    mbedtls_platform_zeroize(text, sizeof text);
    return good;
}

static bool ring_add(struct resume_ring *ring, uint32_t id, uint64_t active_at_unix_s,
                     struct hf_error *error)
{
    uint8_t secret[RESUME_SECRET_BYTES];
    const bool good = token_random(NULL, secret, sizeof secret) == 0;

    if (good) {
        key_set(&ring->keys[ring->count++], id, active_at_unix_s, secret);
    } else {
        hf_error_set(error, EX_OSERR, 0, "no random numbers for a new key");
    }
    mbedtls_platform_zeroize(secret, sizeof secret);
    return good;
}

bool resume_ring_open(struct resume_ring *ring, const char *path, uint64_t now_unix_s,
                      struct hf_error *error)
{
    char *text;
    size_t byte_count = 0;
    bool absent;
    bool good;

    memset(ring, 0, sizeof *ring);
    if (private_file_read(path, RING_FILE_BYTES_MAX, &text, &byte_count, &absent, error)) {
        good = resume_ring_parse(ring, text, byte_count, error);
        private_bytes_free(text, byte_count);
        if (!good) {
            hf_error_prepend(error, "%s", path);
        }
        return good;
    }
    if (!absent) {
        return false;
    }
    good = ring_add(ring, 1, now_unix_s, error) && ring_write(ring, path, error);
    if (!good) {
        resume_ring_clear(ring);
    }
    return good;
}

/* A key is done when the last token of its time has expired: its successor then signed for long. */
static size_t expired_count(const struct resume_ring *ring, uint64_t now_unix_s,
                            uint64_t life_max_s)
{
    size_t count = 0;

    while (count + 1 < ring->count &&
           ring->keys[count + 1].active_at_unix_s + life_max_s <= now_unix_s) {
        count++;
    }
    return count;
}

bool resume_ring_rotate(struct resume_ring *ring, const char *path, uint64_t now_unix_s,
                        uint64_t active_at_unix_s, uint64_t life_max_s, struct hf_error *error)
{
    struct resume_ring next;

    size_t dropped = expired_count(ring, now_unix_s, life_max_s);
    bool good = false;

    HF_ASSERT(ring->count > 0 && now_unix_s <= RING_TIME_MAX_UNIX_S &&
              active_at_unix_s <= RING_TIME_MAX_UNIX_S && life_max_s <= UINT32_MAX);

    const struct resume_key *newest = &ring->keys[ring->count - 1];
    if (active_at_unix_s < newest->active_at_unix_s) {
        active_at_unix_s = newest->active_at_unix_s; /* the clock was set back: times still rise */
    }
    if (ring->count - dropped == RESUME_KEYS_MAX) {
        dropped++;
    }
    memset(&next, 0, sizeof next);
    next.count = ring->count - dropped;
    memcpy(next.keys, ring->keys + dropped, next.count * sizeof next.keys[0]);
    if (newest->id == RESUME_KEY_ID_MAX) {
        hf_error_set(error, EX_SOFTWARE, 0, "%s: no key id is left: remove the file", path);
    } else {
        good = ring_add(&next, newest->id + 1, active_at_unix_s, error) &&
               ring_write(&next, path, error);
    }
    if (good) {
        *ring = next;
    }
    resume_ring_clear(&next);
    return good;
}

bool resume_ring_is_due(const struct resume_ring *ring, uint64_t now_unix_s, uint64_t period_s)
{
    HF_ASSERT(ring->count > 0);
    return now_unix_s >= ring->keys[ring->count - 1].active_at_unix_s + period_s;
}

/* If the clock was set back before every key, the oldest signs: all nodes have had it longest. */
static const struct resume_key *signing_key(const struct resume_ring *ring, uint64_t now_unix_s)
{
    size_t i = ring->count - 1;

    while (i > 0 && ring->keys[i].active_at_unix_s > now_unix_s) {
        i--;
    }
    return &ring->keys[i];
}

void resume_sign(const struct resume_ring *ring, const struct resume_claims *claims,
                 uint8_t token[RESUME_TOKEN_BYTES])
{
    HF_ASSERT(ring->count > 0);
    HF_ASSERT(user_id_valid(claims->user) && claims->device.value != 0);
    HF_ASSERT(claims->expires_at_unix_s >= claims->issued_at_unix_s &&
              claims->expires_at_unix_s - claims->issued_at_unix_s <= UINT32_MAX);

    const struct resume_key *key = signing_key(ring, claims->issued_at_unix_s);
    token[0] = RESUME_TOKEN_VERSION;
    store_be24(token + 1, key->id);
    store_be64(token + 4, claims->user.value);
    store_be32(token + 12, claims->device.value);
    store_be32(token + 16, claims->generation);
    store_be64(token + 20, claims->issued_at_unix_s);
    store_be32(token + 28, (uint32_t)(claims->expires_at_unix_s - claims->issued_at_unix_s));
    hmac_compute(&key->hmac_, token, SIGNED_BYTES, token + SIGNED_BYTES);
}

enum token_status resume_verify(const struct resume_ring *ring, uint64_t now_unix_s,
                                const void *token, size_t byte_count, struct resume_claims *claims)
{
    const uint8_t *bytes = token;
    uint8_t expected[HMAC_BYTES];
    const struct resume_key *key = NULL;

    if (byte_count != RESUME_TOKEN_BYTES || bytes[0] != RESUME_TOKEN_VERSION) {
        return TOKEN_MALFORMED;
    }
    for (size_t i = 0; i < ring->count && key == NULL; i++) {
        if (ring->keys[i].id == load_be24(bytes + 1)) {
            key = &ring->keys[i];
        }
    }
    if (key == NULL) {
        return TOKEN_UNKNOWN_KEY;
    }
    hmac_compute(&key->hmac_, bytes, SIGNED_BYTES, expected);
    const bool equal = mbedtls_ct_memcmp(expected, bytes + SIGNED_BYTES, sizeof expected) == 0;
    mbedtls_platform_zeroize(expected, sizeof expected);
    if (!equal) {
        return TOKEN_BAD_SIGNATURE;
    }

    const uint64_t issued_at_unix_s = load_be64(bytes + 20);
    const struct resume_claims found = {
        .user = { load_be64(bytes + 4) },
        .device = { load_be32(bytes + 12) },
        .generation = load_be32(bytes + 16),
        .issued_at_unix_s = issued_at_unix_s,
        .expires_at_unix_s = issued_at_unix_s + load_be32(bytes + 28),
    };
    /* Signed by us, so within bounds, unless the key is shared with something that isn't. */
    if (!user_id_valid(found.user) || found.device.value == 0 ||
        found.expires_at_unix_s < issued_at_unix_s) {
        return TOKEN_MALFORMED;
    }
    if (now_unix_s >= found.expires_at_unix_s) {
        return TOKEN_EXPIRED;
    }
    *claims = found;
    return TOKEN_OK;
}

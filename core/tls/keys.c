/*
 * The keys of a connection: derived, stepped, checked, zeroed. Part of record.h.
 */
#include "core/tls/record.h"

#include <string.h>

#include <mbedtls/hkdf.h>
#include <mbedtls/md.h>
#include <mbedtls/platform_util.h>

#include "core/base/check.h"

static const mbedtls_md_info_t *keys_hash(uint16_t suite)
{
    return mbedtls_md_info_from_type(suite == AEAD_AES_256_GCM_SHA384 ? MBEDTLS_MD_SHA384
                                                                      : MBEDTLS_MD_SHA256);
}

static size_t keys_secret_bytes(uint16_t suite)
{
    return suite == AEAD_AES_256_GCM_SHA384 ? 48 : 32;
}

/* HKDF-Expand-Label with an empty context: RFC 8446 7.1. */
static bool keys_expand(uint16_t suite, const uint8_t *secret, const char *label, uint8_t *out,
                        size_t out_bytes)
{
    static const char prefix[] = "tls13 ";
    uint8_t info[32];
    const size_t label_bytes = strlen(label);
    size_t used = 0;

    HF_ASSERT(4 + sizeof prefix - 1 + label_bytes <= sizeof info && out_bytes <= 255);
    info[used++] = 0;
    info[used++] = (uint8_t)out_bytes;
    info[used++] = (uint8_t)(sizeof prefix - 1 + label_bytes);
    memcpy(info + used, prefix, sizeof prefix - 1);
    used += sizeof prefix - 1;
    memcpy(info + used, label, label_bytes);
    used += label_bytes;
    info[used++] = 0;
    return mbedtls_hkdf_expand(keys_hash(suite), secret, keys_secret_bytes(suite), info, used, out,
                               out_bytes) == 0;
}

/* Key and IV from the secret (RFC 8446 7.3). */
static bool keys_derive(struct tls_direction *direction, uint16_t suite)
{
    memset(&direction->aead, 0, sizeof direction->aead);
    return keys_expand(suite, direction->secret, "key", direction->aead.key,
                       aead_key_bytes(suite)) &&
           keys_expand(suite, direction->secret, "iv", direction->aead.iv, AEAD_IV_BYTES);
}

bool tls_direction_update(struct tls_direction *direction, uint16_t suite)
{
    struct tls_direction next = { .secret = { 0 } };
    const bool derived = keys_expand(suite, direction->secret, "traffic upd", next.secret,
                                     keys_secret_bytes(suite)) &&
                         keys_derive(&next, suite);

    if (derived) {
        *direction = next;
    }
    mbedtls_platform_zeroize(&next, sizeof next);
    return derived;
}

bool tls_keys_init(struct tls_keys *keys, uint16_t suite, bool client, const uint8_t *rx_secret,
                   const uint8_t *tx_secret)
{
    HF_ASSERT(aead_key_bytes(suite) != 0);
    memset(keys, 0, sizeof *keys);
    keys->suite = suite;
    keys->version = TLS_KEYS_VERSION;
    keys->flags = client ? TLS_KEYS_CLIENT : 0;
    memcpy(keys->rx.secret, rx_secret, keys_secret_bytes(suite));
    memcpy(keys->tx.secret, tx_secret, keys_secret_bytes(suite));
    if (!keys_derive(&keys->rx, suite) || !keys_derive(&keys->tx, suite)) {
        mbedtls_platform_zeroize(keys, sizeof *keys);
        return false;
    }
    return true;
}

bool tls_keys_valid(const struct tls_keys *keys)
{
    const unsigned flags = TLS_KEYS_CLIENT | TLS_KEYS_UPDATE_DUE | TLS_KEYS_ASK_PEER |
                           TLS_KEYS_TX_CLOSED | TLS_KEYS_RX_CLOSED;
    const bool within_key_update = keys->header_bytes_ > TLS_KEYS_WITHIN_KEY_UPDATE;
    const bool within_ticket =
        (keys->header_bytes_ != 0 && !within_key_update) || keys->skip_bytes_ != 0;

    return keys->version == TLS_KEYS_VERSION && aead_key_bytes(keys->suite) != 0 &&
           (keys->flags & ~flags) == 0 && keys->quiet_records <= TLS_QUIET_RECORDS_MAX &&
           keys->header_bytes_ != TLS_KEYS_WITHIN_KEY_UPDATE &&
           keys->header_bytes_ <= 2 * TLS_KEYS_WITHIN_KEY_UPDATE &&
           (keys->skip_bytes_ == 0 || !within_key_update) && keys->rx_number != UINT64_MAX &&
           keys->tx_number != UINT64_MAX && (!within_ticket || (keys->flags & TLS_KEYS_CLIENT));
}

void tls_keys_forget(struct tls_core *core, const struct tls_keys *keys)
{
    aead_cache_forget(core->aead, keys->suite, &keys->rx.aead);
    aead_cache_forget(core->aead, keys->suite, &keys->tx.aead);
}

void tls_keys_clear(struct tls_core *core, struct tls_keys *keys)
{
    if (core != NULL && keys->suite != 0) {
        tls_keys_forget(core, keys);
    }
    mbedtls_platform_zeroize(keys, sizeof *keys);
}

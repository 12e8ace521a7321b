#include "core/tls/aead.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/tls/aead_context.h"

/*
 * The cache is set-associative, four ways: the first bytes of an IV, which are as good as random
 * and need no secrecy, choose a set; the oldest of its four gives way. What is compared on each
 * lookup (heads) lies apart from the contexts, four in one cache line and a half.
 */
enum { AEAD_WAYS = 4 };

struct aead_head {
    uint64_t id;      /* the first eight bytes of the IV */
    uint64_t used_at; /* of operations counted; 0: the entry is empty */
    uint16_t suite;
};

struct aead_cache {
    size_t entry_count;
    uint64_t set_mask;
    struct aead_counters counters;
    struct aead_library *library;
    struct aead_head *heads;
    struct aead_context *contexts;
};

size_t aead_key_bytes(uint16_t suite)
{
    switch (suite) {
    case AEAD_AES_128_GCM_SHA256:
        return 16;
    case AEAD_AES_256_GCM_SHA384:
    case AEAD_CHACHA20_POLY1305_SHA256:
        return 32;
    default:
        return 0;
    }
}

struct aead_cache *aead_cache_open(size_t entry_count)
{
    struct aead_cache *cache = calloc(1, sizeof *cache);
    size_t rounded = AEAD_WAYS;

    if (cache == NULL) {
        return NULL;
    }
    while (rounded < entry_count) {
        rounded *= 2;
    }
    cache->entry_count = rounded;
    cache->set_mask = rounded / AEAD_WAYS - 1;
    cache->heads = calloc(rounded, sizeof *cache->heads);
    cache->contexts = calloc(rounded, sizeof *cache->contexts);
    if (cache->heads == NULL || cache->contexts == NULL || !aead_library_open(&cache->library)) {
        aead_cache_close(cache);
        return NULL;
    }
    return cache;
}

void aead_cache_close(struct aead_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    if (cache->contexts != NULL) {
        for (size_t entry = 0; entry < cache->entry_count; entry++) {
            aead_context_free(&cache->contexts[entry]);
        }
    }
    aead_library_close(cache->library);
    free(cache->contexts);
    free(cache->heads);
    free(cache);
}

void aead_cache_count(const struct aead_cache *cache, struct aead_counters *counters)
{
    *counters = cache->counters;
}

static size_t aead_set_of(const struct aead_cache *cache, uint64_t id)
{
    return (size_t)(id & cache->set_mask) * AEAD_WAYS;
}

/* The entry that holds this very key, or entry_count. The id alone could be another's. */
static size_t aead_find(const struct aead_cache *cache, uint16_t suite, const struct aead_key *key,
                        uint64_t id)
{
    const size_t first = aead_set_of(cache, id);

    for (size_t entry = first; entry < first + AEAD_WAYS; entry++) {
        const struct aead_head *head = &cache->heads[entry];

        if (head->used_at != 0 && head->id == id && head->suite == suite &&
            memcmp(&cache->contexts[entry].key, key, sizeof *key) == 0) {
            return entry;
        }
    }
    return cache->entry_count;
}

static size_t aead_oldest(const struct aead_cache *cache, uint64_t id)
{
    const size_t first = aead_set_of(cache, id);
    size_t oldest = first;

    for (size_t entry = first + 1; entry < first + AEAD_WAYS; entry++) {
        if (cache->heads[entry].used_at < cache->heads[oldest].used_at) {
            oldest = entry;
        }
    }
    return oldest;
}

static void aead_forget(struct aead_cache *cache, size_t entry)
{
    if (cache->heads[entry].used_at != 0) {
        cache->counters.keyed_contexts--;
    }
    cache->heads[entry] = (struct aead_head){ 0 };
}

void aead_cache_forget(struct aead_cache *cache, uint16_t suite, const struct aead_key *key)
{
    if (cache == NULL) {
        return;
    }
    const size_t entry = aead_find(cache, suite, key, load_be64(key->iv));

    if (entry != cache->entry_count) {
        aead_forget(cache, entry);
        aead_context_clear(&cache->contexts[entry]);
    }
}

/* The context keyed with `key`, from the cache or made now in the oldest place; NULL: no memory. */
static struct aead_context *aead_cache_get(struct aead_cache *cache, uint16_t suite,
                                           const struct aead_key *key)
{
    const uint64_t id = load_be64(key->iv);
    size_t entry = aead_find(cache, suite, key, id);

    cache->counters.operations++;
    if (entry == cache->entry_count) {
        entry = aead_oldest(cache, id);
        aead_forget(cache, entry);
        cache->counters.key_setups++;
        if (aead_context_set(&cache->contexts[entry], cache->library, suite, key) != AEAD_OK) {
            aead_context_clear(&cache->contexts[entry]);
            cache->counters.no_memory++;
            return NULL;
        }
        cache->counters.keyed_contexts++;
        cache->heads[entry] = (struct aead_head){ .id = id, .suite = suite };
    }
    cache->heads[entry].used_at = cache->counters.operations;
    return &cache->contexts[entry];
}

static void aead_nonce(uint8_t nonce[AEAD_IV_BYTES], const struct aead_key *key, uint64_t number)
{
    memcpy(nonce, key->iv, AEAD_IV_BYTES);
    store_be64(nonce + 4, load_be64(nonce + 4) ^ number);
}

/* A context for one call: what keys a ticket, once a handshake. */
static enum aead_result aead_once_open(struct aead_context *once, struct aead_library **library,
                                       uint16_t suite, const struct aead_key *key)
{
    enum aead_result result = AEAD_NO_MEMORY;

    memset(once, 0, sizeof *once);
    if (aead_library_open(library)) {
        result = aead_context_set(once, *library, suite, key);
    }
    return result;
}

static void aead_once_close(struct aead_context *once, struct aead_library *library)
{
    aead_context_free(once);
    aead_library_close(library);
}

enum aead_result aead_seal(struct aead_cache *cache, uint16_t suite, const struct aead_key *key,
                           uint64_t number, const void *aad, size_t aad_bytes, uint8_t *bytes,
                           size_t byte_count, uint8_t tag[AEAD_TAG_BYTES])
{
    uint8_t nonce[AEAD_IV_BYTES];

    aead_nonce(nonce, key, number);
    if (cache != NULL) {
        struct aead_context *kept = aead_cache_get(cache, suite, key);

        return kept == NULL
                   ? AEAD_NO_MEMORY
                   : aead_context_seal(kept, nonce, aad, aad_bytes, bytes, byte_count, tag);
    }

    struct aead_library *library = NULL;
    struct aead_context once;
    enum aead_result result = aead_once_open(&once, &library, suite, key);

    if (result == AEAD_OK) {
        result = aead_context_seal(&once, nonce, aad, aad_bytes, bytes, byte_count, tag);
    }
    aead_once_close(&once, library);
    return result;
}

enum aead_result aead_open(struct aead_cache *cache, uint16_t suite, const struct aead_key *key,
                           uint64_t number, const void *aad, size_t aad_bytes, uint8_t *bytes,
                           size_t byte_count, const uint8_t tag[AEAD_TAG_BYTES])
{
    uint8_t nonce[AEAD_IV_BYTES];

    aead_nonce(nonce, key, number);
    if (cache != NULL) {
        struct aead_context *kept = aead_cache_get(cache, suite, key);

        return kept == NULL
                   ? AEAD_NO_MEMORY
                   : aead_context_open(kept, nonce, aad, aad_bytes, bytes, byte_count, tag);
    }

    struct aead_library *library = NULL;
    struct aead_context once;
    enum aead_result result = aead_once_open(&once, &library, suite, key);

    if (result == AEAD_OK) {
        result = aead_context_open(&once, nonce, aad, aad_bytes, bytes, byte_count, tag);
    }
    aead_once_close(&once, library);
    return result;
}

/*
 * aead: the three AEADs of TLS 1.3 behind one small door, and a fixed cache of keyed contexts.
 *
 * Purpose  Seals and opens bytes in place under a key, an IV and a record number: by libcrypto
 *          where the build found it (more than twice as fast), else by mbedTLS. No type of either
 *          library is seen here.
 * Owner    One struct aead_cache per core. A key itself lives in what it belongs to (a connection,
 *          a ticket) and may be copied: the cache finds a context by the key's content, so moving
 *          a connection or updating its key needs no call here but aead_cache_forget.
 * Thread   The owning thread only; no lock is taken. With a NULL cache, any thread: the context is
 *          made for that one call.
 * Memory   Bounded: one keyed context an entry, whose library memory (about 1 KB) is allocated when
 *          it is first keyed, and by mbedTLS in part (304 B) whenever it gets another key; counted.
 *          A key that is forgotten or gives way is zeroed or overwritten.
 * Errors   enum aead_result. After anything but AEAD_OK the bytes are undefined: never use them.
 * Source   RFC 8446 5.2, 5.3 (nonce = IV xor record number), RFC 5116.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define AEAD_KEY_BYTES_MAX 32
#define AEAD_IV_BYTES      12
#define AEAD_TAG_BYTES     16

/* The TLS 1.3 cipher suites; the numbers are IANA's. */
enum aead_suite {
    AEAD_AES_128_GCM_SHA256 = 0x1301,
    AEAD_AES_256_GCM_SHA384 = 0x1302,
    AEAD_CHACHA20_POLY1305_SHA256 = 0x1303,
};

struct aead_key {
    uint8_t key[AEAD_KEY_BYTES_MAX]; /* bytes beyond the suite's length are 0 */
    uint8_t iv[AEAD_IV_BYTES];
};
_Static_assert(sizeof(struct aead_key) == 44, "paid twice by every connection");

enum aead_result {
    AEAD_OK = 0,
    AEAD_BAD_TAG,   /* forged, damaged, or another key */
    AEAD_NO_MEMORY, /* no context could be keyed */
};

struct aead_counters {
    uint64_t operations;
    uint64_t key_setups;     /* operations that found no keyed context */
    uint64_t no_memory;      /* of these, failed */
    uint64_t keyed_contexts; /* now alive */
};

struct aead_cache;

/* Rounds entry_count up to a power of two, 4 at least. NULL: no memory. About 1.1 KB an entry. */
struct aead_cache *aead_cache_open(size_t entry_count) __attribute__((warn_unused_result));

/* Zeroes and frees all. NULL is ignored. */
void aead_cache_close(struct aead_cache *cache);

/* Zeroes what the cache keeps of this key, if anything. A NULL cache is ignored. */
void aead_cache_forget(struct aead_cache *cache, uint16_t suite, const struct aead_key *key);

void aead_cache_count(const struct aead_cache *cache, struct aead_counters *counters);

/* Bytes of the suite's key: 16 or 32; 0 for a number that is no suite of ours. */
size_t aead_key_bytes(uint16_t suite);

/* Encrypts `bytes` in place and writes the tag. A (key, number) pair must never be used twice. */
enum aead_result aead_seal(struct aead_cache *cache, uint16_t suite, const struct aead_key *key,
                           uint64_t number, const void *aad, size_t aad_bytes, uint8_t *bytes,
                           size_t byte_count, uint8_t tag[AEAD_TAG_BYTES])
    __attribute__((warn_unused_result));

/* Checks the tag in constant time and decrypts `bytes` in place. */
enum aead_result aead_open(struct aead_cache *cache, uint16_t suite, const struct aead_key *key,
                           uint64_t number, const void *aad, size_t aad_bytes, uint8_t *bytes,
                           size_t byte_count, const uint8_t tag[AEAD_TAG_BYTES])
    __attribute__((warn_unused_result));

/* The library that does it, and its version: "OpenSSL 3.0.17", "Mbed TLS 3.6.4". */
const char *aead_library_name(void);

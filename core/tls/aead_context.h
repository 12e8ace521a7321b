/*
 * aead_context: a cipher keyed for one suite, by one of two libraries. aead_mbedtls.c and
 * aead_libcrypto.c have these functions; the build takes one of them (meson option libcrypto), and
 * the unit tests are built with both.
 *
 * Owner    Of aead.c only: an array of contexts in a cache, or one on the stack for one call.
 * Thread   The owner's; no lock is taken, but by aead_library_open.
 * Memory   A context holds library memory from its first aead_context_set on, until
 *          aead_context_free. Keying it anew allocates only where the other suite needs it, or
 *          (mbedTLS, 304 B) each time.
 * Errors   enum aead_result.
 * Source   RFC 5116; the libraries' own manuals.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/tls/aead.h"

/* What is looked up once for all contexts of a cache; NULL where a library needs nothing. */
struct aead_library;

struct aead_context {
    struct aead_key key;
    uint16_t suite; /* 0: no key */
    uint16_t made;  /* the suite that `handle` was made for; 0: none */
    void *handle;   /* the library's */
};

/* False: no memory, or the library lacks a cipher. */
bool aead_library_open(struct aead_library **library) __attribute__((warn_unused_result));
void aead_library_close(struct aead_library *library);

/* Keys the context, whatever it was keyed with before. Zeroed memory is a context without a key. */
enum aead_result aead_context_set(struct aead_context *context, const struct aead_library *library,
                                  uint16_t suite, const struct aead_key *key)
    __attribute__((warn_unused_result));
/* Zeroes the key wherever it is. */
void aead_context_clear(struct aead_context *context);
/* The same, and gives the library's memory back. */
void aead_context_free(struct aead_context *context);

enum aead_result aead_context_seal(struct aead_context *context, const uint8_t *nonce,
                                   const void *aad, size_t aad_bytes, uint8_t *bytes,
                                   size_t byte_count, uint8_t *tag)
    __attribute__((warn_unused_result));
enum aead_result aead_context_open(struct aead_context *context, const uint8_t *nonce,
                                   const void *aad, size_t aad_bytes, uint8_t *bytes,
                                   size_t byte_count, const uint8_t *tag)
    __attribute__((warn_unused_result));

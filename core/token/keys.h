/*
 * keys: the keys that log-in tokens are checked, and signed, with: a JSON Web Key Set.
 *
 *      {"keys":[{"kty":"oct","kid":"2024-a","alg":"HS256","k":"..."},
 *               {"kty":"EC","crv":"P-256","kid":"2024-b","alg":"ES256","x":"...","y":"..."}]}
 *
 * Owner    token_keys_open gives a set to the caller, who closes it; a struct token_key belongs to
 *          its set.
 * Thread   Any. A set isn't changed once it is open (but by token_keys_add), so any number of
 *          threads may look in it and verify with it at once.
 * Memory   On the heap, zeroed when closed. At most TOKEN_KEYS_MAX keys, 64 KB of file.
 * Files    Mode 0600 or 0400, owned by whoever runs the program or by root; anything else is
 *          refused, and the error names file, mode and remedy. Writing replaces the file in one
 *          step, and it is on disk before the call returns.
 * Errors   struct hf_error: "keys.jwks: key 2 (kid "b"): x and y aren't a point on P-256".
 *          Keys of other types, uses and algorithms are skipped (RFC 7517 section 5) and counted;
 *          a key of ours that is broken, or has no kid or that of another, refuses the file.
 * Source   RFC 7517 (JWK), 7518 sections 6.2 and 6.4; 3.2: an HS256 key has at least 32 bytes.
 */
#pragma once

#include "core/base/error.h"
#include "core/token/hmac.h"

#include <mbedtls/ecp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_KEYS_MAX         64
#define TOKEN_KID_BYTES_MAX    128
#define TOKEN_SECRET_BYTES_MIN 32
#define TOKEN_SECRET_BYTES_MAX 256

enum token_alg {
    TOKEN_ALG_HS256,
    TOKEN_ALG_ES256,
};

/* "HS256" and so on. */
const char *token_alg_name(enum token_alg alg);

enum token_keys_use {
    TOKEN_KEYS_VERIFY, /* the server's file: a private key (d) in it is refused */
    TOKEN_KEYS_SIGN,   /* the issuer's file */
};

struct token_key {
    char kid[TOKEN_KID_BYTES_MAX + 1]; /* printable ASCII, no quote, no backslash */
    size_t kid_bytes;
    enum token_alg alg;
    bool can_sign;
    /* HS256 */
    struct hmac_key hmac_;
    uint8_t secret_[TOKEN_SECRET_BYTES_MAX];
    size_t secret_bytes_;
    /* ES256 */
    mbedtls_ecp_point public_;
    mbedtls_mpi private_; /* 0 unless can_sign */
};

struct token_keys {
    size_t count;
    size_t skipped_count; /* in the file, but not for us */
    struct token_key *keys[TOKEN_KEYS_MAX];
};

/* Reads a file. False, and *error, if it is refused; *keys is then NULL. */
bool token_keys_open(struct token_keys **keys, const char *path, enum token_keys_use use,
                     struct hf_error *error) __attribute__((warn_unused_result));

/* The same from text in memory, which is written over (strings are unescaped in place). */
bool token_keys_parse(struct token_keys **keys, char *text, size_t byte_count,
                      enum token_keys_use use, struct hf_error *error)
    __attribute__((warn_unused_result));

/* An empty set, to add keys to. NULL: no memory. */
struct token_keys *token_keys_new(void) __attribute__((warn_unused_result));

/* Zeroes and frees. NULL is allowed. */
void token_keys_close(struct token_keys *keys);

/* The key of that name, or NULL. */
const struct token_key *token_keys_find(const struct token_keys *keys, const char *kid,
                                        size_t kid_bytes);

/* Makes a random key and adds it to the set. */
bool token_keys_add(struct token_keys *keys, enum token_alg alg, const char *kid,
                    struct hf_error *error) __attribute__((warn_unused_result));

/*
 * Adds the half of `key` that a verifier needs: of ES256 the public one; an HS256 key has no
 * halves, so its secret.
 */
bool token_keys_add_verifier(struct token_keys *keys, const struct token_key *key,
                             struct hf_error *error) __attribute__((warn_unused_result));

/* Replaces the file, mode 0600. */
bool token_keys_write(const struct token_keys *keys, const char *path, struct hf_error *error)
    __attribute__((warn_unused_result));

/*
 * Signatures over bytes, as JWS has them (RFC 7518 3.2, 3.4): 32 bytes of HMAC, or r and s, 64.
 */
enum token_signature_result {
    TOKEN_SIGNATURE_GOOD,
    TOKEN_SIGNATURE_BAD,
    TOKEN_SIGNATURE_FAILED, /* no memory, no random numbers */
};

#define TOKEN_SIGNATURE_BYTES_MAX 64

size_t token_signature_bytes(enum token_alg alg);

enum token_signature_result token_key_verify(const struct token_key *key, const void *bytes,
                                             size_t byte_count, const uint8_t *signature,
                                             size_t signature_bytes)
    __attribute__((warn_unused_result));

/* Writes token_signature_bytes(key->alg) bytes. The key can sign. */
enum token_signature_result token_key_sign(const struct token_key *key, const void *bytes,
                                           size_t byte_count,
                                           uint8_t signature[TOKEN_SIGNATURE_BYTES_MAX])
    __attribute__((warn_unused_result));

/*
 * token: log-in tokens, JSON Web Tokens signed by the operator's identity service: read and
 * checked here, and made here for tests, the load generator and holdfast-token.
 *
 *      header   {"alg":"ES256" or "HS256", "kid":"..."}     kid chooses the key, alg must be its own
 *      claims   {"sub":"42", "dev":"7", "exp":1300819380}   ids as canonical decimal strings
 *               optional: "nbf", "iat" (numbers), "aud" (text or list); all others are ignored
 *
 * Owner    Nothing is kept: keys, rules and time are the caller's.
 * Thread   Any, several at once on one struct token_keys. Never a reactor: ES256 is public-key
 *          work (about a millisecond) and allocates; HS256 takes a few microseconds.
 * Memory   About 6 KB of stack. ES256 takes what mbedTLS's bignums need and gives it back.
 * Time     Wall clock in Unix seconds, always passed in.
 * Errors   enum token_status: one list, also for resume tokens, with text and metric label. A
 *          refused token leaves *claims untouched. Signature before claims: nothing that isn't
 *          signed is believed, so TOKEN_EXPIRED says that the token was once good.
 * Source   RFC 7515 (JWS, compact form), 7518 sections 3.2 and 3.4, 7519, 8725 (what goes wrong).
 */
#pragma once

#include "core/base/ids.h"
#include "core/token/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_JWT_BYTES_MAX      4096
#define TOKEN_AUDIENCE_BYTES_MAX 256

/* The name, its metric label, and what a client or an operator is told. */
#define TOKEN_STATUS_LIST(X)                                                                       \
    X(TOKEN_OK, "ok", "valid")                                                                     \
    X(TOKEN_TOO_LONG, "too_long", "longer than 4096 bytes")                                        \
    X(TOKEN_MALFORMED, "malformed", "not a token of a known form")                                 \
    X(TOKEN_BAD_BASE64, "bad_base64", "a part isn't strict base64url without padding")             \
    X(TOKEN_BAD_JSON, "bad_json", "header or claims aren't a strict JSON object")                  \
    X(TOKEN_CRITICAL, "critical", "the header demands an extension (crit) that isn't known")       \
    X(TOKEN_BAD_ALG, "bad_alg", "alg is missing, or neither ES256 nor HS256")                      \
    X(TOKEN_NO_KEY_ID, "no_key_id", "the header names no key (kid)")                               \
    X(TOKEN_UNKNOWN_KEY, "unknown_key", "signed with a key that isn't in the key file")            \
    X(TOKEN_ALG_MISMATCH, "alg_mismatch", "alg isn't that of the key named by kid")                \
    X(TOKEN_BAD_SIGNATURE, "bad_signature", "the signature is wrong")                              \
    X(TOKEN_BAD_USER, "bad_user", "sub isn't a user id, written in decimal as text")               \
    X(TOKEN_BAD_DEVICE, "bad_device", "dev isn't a device id, written in decimal as text")         \
    X(TOKEN_BAD_TIME, "bad_time", "exp is missing, or exp, nbf or iat isn't a time in seconds")    \
    X(TOKEN_BAD_AUDIENCE, "bad_audience", "aud doesn't name this service")                         \
    X(TOKEN_NOT_YET_VALID, "not_yet_valid", "not valid yet (nbf)")                                 \
    X(TOKEN_EXPIRED, "expired", "expired")                                                         \
    X(TOKEN_LIVES_TOO_LONG, "lives_too_long", "expires later than this service allows")            \
    X(TOKEN_NO_ROOM, "no_room", "out of memory, or no room for the token")                         \
    X(TOKEN_CANNOT_SIGN, "cannot_sign", "the key has no private part")

enum token_status {
#define TOKEN_STATUS_NAME(name, label, text) name,
    TOKEN_STATUS_LIST(TOKEN_STATUS_NAME)
#undef TOKEN_STATUS_NAME
        TOKEN_STATUS_COUNT
};

/* For a person; and the value of a metric's label, snake_case. */
const char *token_status_text(enum token_status status);
const char *token_status_label(enum token_status status);

/* What a token is, by its first byte alone: every JSON object in base64url begins with 'e'. */
enum token_kind {
    TOKEN_KIND_UNKNOWN,
    TOKEN_KIND_JWT,    /* token_verify */
    TOKEN_KIND_RESUME, /* resume_verify */
};

enum token_kind token_kind(const void *token, size_t byte_count);

struct token_claims {
    struct user_id user;
    struct device_id device;
    uint64_t expires_at_unix_s;
    uint64_t not_before_unix_s; /* 0: not said */
    uint64_t issued_at_unix_s;  /* 0: not said */
};

struct token_rules {
    uint64_t now_unix_s;
    uint64_t leeway_s;    /* how far the issuer's clock may be from ours */
    uint64_t life_max_s;  /* how far ahead exp may lie; 0: any time */
    const char *audience; /* the name that aud must hold; NULL: tokens with an aud are refused,
                           * as RFC 7519 section 4.1.3 has it: they are for somebody else */
};

enum token_status token_verify(const struct token_keys *keys, const struct token_rules *rules,
                               const void *token, size_t byte_count, struct token_claims *claims)
    __attribute__((warn_unused_result));

/* 1 to TOKEN_AUDIENCE_BYTES_MAX of printable ASCII without quotes and backslashes. */
bool token_audience_is_plain(const char *audience);

/*
 * Writes a token, without a NUL, into `token`, and its length. `audience` may be NULL, else
 * token_audience_is_plain. TOKEN_JWT_BYTES_MAX bytes are always room enough.
 */
enum token_status token_sign(const struct token_key *key, const struct token_claims *claims,
                             const char *audience, char *token, size_t token_bytes_max,
                             size_t *byte_count) __attribute__((warn_unused_result));

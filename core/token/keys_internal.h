/*
 * keys_internal: what keys.c and jwks.c share, and nobody else uses.
 *
 * Owner    token_keys_give takes a key into a set; before that it is whoever made it, who frees it.
 * Thread   As keys.h.
 * Errors   struct hf_error without the place in the file: jwks.c puts it before.
 */
#pragma once

#include "core/token/keys.h"

struct token_key *token_key_new(void) __attribute__((warn_unused_result));

/* Zeroes and frees. NULL is allowed. */
void token_key_free(struct token_key *key);

bool token_kid_set(struct token_key *key, const char *kid, size_t kid_bytes, struct hf_error *error)
    __attribute__((warn_unused_result));

/* TOKEN_SECRET_BYTES_MIN to _MAX bytes. */
void token_secret_set(struct token_key *key, const uint8_t *secret, size_t secret_bytes);

/* Takes the key, or frees it if its kid is taken or the set is full. */
bool token_keys_give(struct token_keys *keys, struct token_key *key, struct hf_error *error)
    __attribute__((warn_unused_result));

/* The caller frees the group, also after false. */
bool token_p256_open(mbedtls_ecp_group *group) __attribute__((warn_unused_result));

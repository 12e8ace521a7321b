/*
 * pem: certificate and key files, read whole and checked for who else may read them.
 *
 * Owner    The caller frees with tls_pem_free, which zeroes.
 * Thread   Any. Blocks on the disk: at start and on reload only.
 * Errors   struct hf_error that names the file, and the remedy where there is one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* Text of one or several PEM blocks, NUL-terminated as mbedTLS wants it. */
struct tls_pem {
    uint8_t *bytes;
    size_t byte_count; /* the NUL included */
};

enum tls_pem_kind {
    TLS_PEM_CERTIFICATE, /* public */
    TLS_PEM_PRIVATE_KEY, /* refused if others than owner and group may read it */
};

/* 0 or -1. */
int tls_pem_load(struct tls_pem *pem, const char *path, enum tls_pem_kind kind,
                 struct hf_error *error) __attribute__((warn_unused_result));

/* From text in memory. 0 or -1. */
int tls_pem_copy(struct tls_pem *pem, const char *text, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Zeroes and frees. */
void tls_pem_free(struct tls_pem *pem);

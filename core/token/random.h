/*
 * random: bytes of the kernel's generator, for keys and for blinding.
 *
 * Thread   Any. Blocks only before the machine's generator is ready.
 * Errors   0, or MBEDTLS_ERR_ENTROPY_SOURCE_FAILED.
 */
#pragma once

#include <stddef.h>

/* Has the form of mbedTLS's f_rng; `context` is unused. */
int token_random(void *context, unsigned char *bytes, size_t byte_count)
    __attribute__((warn_unused_result));

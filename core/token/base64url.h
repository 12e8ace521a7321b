/*
 * base64url: bytes as text, without padding, in exactly one way.
 *
 * Thread   Any. Pure.
 * Errors   Decoding refuses padding, white space, the other alphabet ('+', '/'), lengths that no
 *          bytes have, and spare bits that aren't 0, so no two texts mean the same bytes.
 * Source   RFC 4648 sections 5 and 3.5; RFC 7515 section 2.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room that `byte_count` bytes need as text, no NUL; and at most as bytes again. */
#define BASE64URL_TEXT_BYTES(byte_count) (((byte_count)*4 + 2) / 3)
#define BASE64URL_BYTES_MAX(text_bytes)  ((text_bytes)*3 / 4)

/* Returns the number of characters written: BASE64URL_TEXT_BYTES(byte_count). */
size_t base64url_encode(char *text, const void *bytes, size_t byte_count);

/* False if the text isn't base64url or decodes to more than `bytes_max` bytes. */
bool base64url_decode(void *bytes, size_t bytes_max, size_t *byte_count, const char *text,
                      size_t text_bytes) __attribute__((warn_unused_result));

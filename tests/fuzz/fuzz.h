/*
 * fuzz: what each target defines; with_libfuzzer.c or without_libfuzzer.c calls it.
 *
 * Thread   One.
 * Errors   A target aborts (HF_ASSERT) when a rule is broken; the input is then a test case.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The bytes are on a heap block of exactly that size, so that the sanitizer sees one too many. */
void fuzz_one(const uint8_t *bytes, size_t byte_count);

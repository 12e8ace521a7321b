/*
 * scratch: a directory of a test's own, gone after it with what is in it.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after the four that it needs */
#include <cmocka.h>

#define SCRATCH_PATH_BYTES 128

/* cmocka's set-up and teardown; *state is the path. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* path/name */
void scratch_path(const char *directory, const char *name, char path[SCRATCH_PATH_BYTES]);

/* The whole file, to be freed. */
uint8_t *scratch_read(const char *directory, const char *name, size_t *byte_count);
void scratch_write(const char *directory, const char *name, const uint8_t *bytes,
                   size_t byte_count);

/*
 * private_file: files that hold secrets, read only if nobody else could have read or changed them.
 *
 * Owner    private_file_read gives the caller bytes to be freed with private_bytes_free.
 * Thread   Any. Blocks on the disk.
 * Errors   struct hf_error, with the path, the mode and the remedy.
 */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * Reads a regular file of mode 0600 or 0400 that this user or root owns, of at most `bytes_max`
 * bytes. `*absent` (may be NULL) tells a file that isn't there from other failures.
 */
bool private_file_read(const char *path, size_t bytes_max, char **bytes, size_t *byte_count,
                       bool *absent, struct hf_error *error) __attribute__((warn_unused_result));

/* Zeroes, then frees. NULL is allowed. */
void private_bytes_free(char *bytes, size_t byte_count);

/*
 * Puts a file of mode 0600 in place of what is there, in one step: whoever opens the path sees the
 * old bytes or the new ones. Both the file and its name are on disk before it returns.
 */
bool private_file_replace(const char *path, const void *bytes, size_t byte_count,
                          struct hf_error *error) __attribute__((warn_unused_result));

/*
 * Keeps other callers of private_file_lock on this path's directory out until the descriptor is
 * closed, so that read, change, replace loses nobody's change. -1 on failure.
 */
int private_file_lock(const char *path, struct hf_error *error) __attribute__((warn_unused_result));

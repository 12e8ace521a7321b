/*
 * error: what went wrong on the set-up path (start, files, configuration), as one line of text that
 * gains a prefix on its way up: "volume 3: open: lock file: Permission denied".
 *
 * Owner    The caller's, usually on its stack. No memory is allocated.
 * Thread   Any; one thread at a time for one struct.
 * Use      The place that fails calls hf_error_set; each caller prepends what it was doing; the
 *          outermost prints `text` and exits with `exit_code`. Hot paths use their module's own
 *          enum instead.
 * Errors   None. Text that doesn't fit is cut at its end.
 */
#pragma once

#include <stddef.h>

#define HF_ERROR_TEXT_BYTES 480

struct hf_error {
    int exit_code;   /* of sysexits.h; 0: no error */
    int errno_value; /* 0: not from a system call */
    char text[HF_ERROR_TEXT_BYTES];
};

/* Sets code and text; a non-zero errno_value appends ": " and its strerror. */
void hf_error_set(struct hf_error *error, int exit_code, int errno_value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts formatted text and ": " before what is there. */
void hf_error_prepend(struct hf_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

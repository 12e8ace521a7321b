#include "core/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"

void hf_error_set(struct hf_error *error, int exit_code, int errno_value, const char *format, ...)
{
    va_list arguments;

    HF_ASSERT(exit_code != 0);

    error->exit_code = exit_code;
    error->errno_value = errno_value;
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);

    if (errno_value != 0) {
        char reason[128];
        const size_t used = strlen(error->text);

        /* The GNU form: it returns the text, which need not be in `reason`. */
        (void)snprintf(error->text + used, sizeof error->text - used, ": %s",
                       strerror_r(errno_value, reason, sizeof reason));
    }
}

void hf_error_prepend(struct hf_error *error, const char *format, ...)
{
    char prefix[HF_ERROR_TEXT_BYTES];
    char joined[2 * HF_ERROR_TEXT_BYTES + 2];
    va_list arguments;

    HF_ASSERT(error->exit_code != 0);

    va_start(arguments, format);
    (void)vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);

    (void)snprintf(joined, sizeof joined, "%s: %s", prefix, error->text);
    const size_t kept = strnlen(joined, sizeof error->text - 1);
    memcpy(error->text, joined, kept);
    error->text[kept] = '\0';
}

#include "core/base/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void hf_check_failed(const char *file, int line, const char *expression)
{
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
    abort();
}

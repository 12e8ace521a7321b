#include "tests/sim/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* One run a process: its name tags every line that the process prints. */
static uint64_t fail_seed;
static const uint64_t *fail_event;
static bool fail_verbose;

void fail_set_context(uint64_t seed, const uint64_t *event)
{
    fail_seed = seed;
    fail_event = event;
}

void sim_fail(const char *format, ...)
{
    va_list arguments;

    (void)fflush(stdout);
    (void)fprintf(stderr, "seed %llu, event %llu: ", (unsigned long long)fail_seed,
                  (unsigned long long)(fail_event == NULL ? 0 : *fail_event));
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    (void)fflush(stderr);
    _exit(SIM_EXIT_FAILED);
}

void fail_set_verbose(bool verbose)
{
    fail_verbose = verbose;
}

bool sim_verbose(void)
{
    return fail_verbose;
}

void sim_say(const char *format, ...)
{
    if (!fail_verbose) {
        return;
    }

    va_list arguments;

    (void)printf("%6llu  ", (unsigned long long)(fail_event == NULL ? 0 : *fail_event));
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    (void)putchar('\n');
    (void)fflush(stdout);
}

/*
 * holdfast-loadgen: many TLS clients for a Holdfast server, which send, receive, and check that
 * nothing is lost, doubled or out of order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "core/base/error.h"
#include "loadgen/director.h"
#include "loadgen/options.h"

static int fail(const struct hf_error *error)
{
    (void)fprintf(stderr, "holdfast-loadgen: %s\n", error->text);
    return error->exit_code;
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct director director;
    struct hf_error error = { 0 };

    if (!options_parse(&options, argc, argv, &error)) {
        return fail(&error);
    }
    if (options.help) {
        options_print_help(stdout);
        return EXIT_SUCCESS;
    }
    if (options.version) {
        (void)puts("holdfast-loadgen " HOLDFAST_VERSION);
        return EXIT_SUCCESS;
    }
    if (!director_open(&director, &options, &error)) {
        return fail(&error);
    }

    const int exit_code = director_run(&director);

    director_close(&director);
    return exit_code;
}

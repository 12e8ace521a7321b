/*
 * holdfastd: the server. This file is its command line; core/server/node runs it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/error.h"
#include "core/server/config.h"
#include "core/server/node.h"

static const char usage_text[] =
    "usage: holdfastd [--config FILE] [--KEY VALUE]...\n"
    "       holdfastd --check [--config FILE] [--KEY VALUE]...\n"
    "       holdfastd --restored [--config FILE] [--KEY VALUE]...\n"
    "       holdfastd --help | --version | --config-table\n"
    "\n"
    "Holdfast's server: holds the connections of chat clients, passes their messages, and\n"
    "remembers them.\n"
    "\n"
    "  --config FILE    lines of key = value; HOLDFAST_CONFIG names one too\n"
    "  --check          says whether the server would start, and starts nothing\n"
    "  --restored       once, after a backup was put in the place of data_dir, before the next\n"
    "                   start: gives all logs a new epoch, and serves nobody\n"
    "  --help           this\n"
    "  --version        versions of the server and its libraries\n"
    "  --config-table   the keys below as a Markdown table\n"
    "\n"
    "Every key of the file is also a flag and a variable: keepalive_s, --keepalive-s,\n"
    "HOLDFAST_KEEPALIVE_S. A flag wins over a variable, that over the file.\n"
    "\n";

static const char exit_text[] =
    "\n"
    "SIGTERM and SIGINT drain: clients are told to leave, then the server ends; a second one\n"
    "ends it at once. SIGHUP reads certificate and keys anew.\n"
    "Exit codes are those of sysexits.h: 64 wrong usage, 69 an address or io_uring can't be\n"
    "had, 74 the disk failed, 75 another server has the data directory, 78 wrong configuration.\n";

enum action {
    SERVE,
    CHECK,
    RESTORED,
    HELP,
    VERSION,
    CONFIG_TABLE,
};

struct arguments {
    enum action action;
    const char *config_file;
};

static int fail(const struct hf_error *error)
{
    (void)fprintf(stderr, "holdfastd: %s\n", error->text);
    return error->exit_code;
}

/* What isn't a key. True: it was taken. */
static bool take_own(struct arguments *arguments, char *const *argv, int argc, int *used)
{
    static const struct {
        const char *name;
        enum action action;
    } actions[] = {
        { "--check", CHECK }, { "--restored", RESTORED }, { "--help", HELP },
        { "-h", HELP },       { "--version", VERSION },   { "--config-table", CONFIG_TABLE },
    };
    const char *argument = argv[*used];

    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(argument, actions[i].name) == 0) {
            arguments->action = actions[i].action;
            (*used)++;
            return true;
        }
    }
    if (strncmp(argument, "--config=", 9) == 0) {
        arguments->config_file = argument + 9;
        (*used)++;
        return true;
    }
    if (strcmp(argument, "--config") == 0 && *used + 1 < argc) {
        arguments->config_file = argv[*used + 1];
        *used += 2;
        return true;
    }
    return false;
}

/* Looks at all of them, but puts only the keys into `config`: flags come last, after the file. */
static bool take_arguments(struct arguments *arguments, struct config *config, int argc,
                           char *const *argv, struct hf_error *error)
{
    for (int used = 1; used < argc;) {
        const int before = used;

        if (take_own(arguments, argv, argc, &used) ||
            config_load_argument(config, argv, argc, &used, error)) {
            continue;
        }
        if (error->exit_code == 0) {
            hf_error_set(error, EX_USAGE, 0, "%.100s: no such option (try --help)", argv[before]);
        }
        return false;
    }
    return true;
}

static bool load(struct arguments *arguments, struct config *config, int argc, char *const *argv,
                 struct hf_error *error)
{
    struct config scratch;

    config_init(&scratch);
    config_init(config);
    arguments->config_file = getenv("HOLDFAST_CONFIG");
    if (!take_arguments(arguments, &scratch, argc, argv, error)) {
        return false;
    }
    if (arguments->config_file != NULL && arguments->config_file[0] != '\0' &&
        !config_load_file(config, arguments->config_file, error)) {
        return false;
    }
    return config_load_environment(config, error) &&
           take_arguments(arguments, config, argc, argv, error);
}

static int check(const struct config *config)
{
    struct hf_error error = { 0 };

    if (!node_check(config, &error)) {
        return fail(&error);
    }
    (void)printf("OK\n");
    return EX_OK;
}

int main(int argc, char **argv)
{
    static struct config config; /* 6 KB, and load() has another on the stack */
    struct arguments arguments = { 0 };
    struct hf_error error = { 0 };

    if (!load(&arguments, &config, argc, argv, &error)) {
        return fail(&error);
    }
    switch (arguments.action) {
    case HELP:
        (void)fputs(usage_text, stdout);
        config_print_help(stdout);
        (void)fputs(exit_text, stdout);
        return EX_OK;
    case VERSION:
        node_print_version(stdout);
        return EX_OK;
    case CONFIG_TABLE:
        config_print_markdown(stdout);
        return EX_OK;
    case CHECK:
        return check(&config);
    case RESTORED:
        return node_restore(&config);
    case SERVE:
        return node_run(&config);
    }
    return EX_SOFTWARE;
}

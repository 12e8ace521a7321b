/*
 * holdfast: a chat client for a terminal and for scripts.
 */
#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "client/cli.h"

#define PATH_BYTES 1900
#define LEAVE_MS   UINT64_C(5000)

static const char help_text[] =
    "usage: holdfast login HOST:PORT --user ID --device ID --ca FILE\n"
    "                      --token TOKEN | --token-file FILE | --token-file -\n"
    "       holdfast send USER TEXT | -           [--timeout TIME]\n"
    "       holdfast listen                       [--count N] [--for TIME]\n"
    "       holdfast chat USER\n"
    "       holdfast history USER                 [--before SEQ | --after SEQ] [--n N]\n"
    "       holdfast conversations\n"
    "       holdfast status\n"
    "       holdfast --help | --version\n"
    "\n"
    "Chats by a Holdfast server. Messages are kept on disk before they are acknowledged, and sent\n"
    "once, whatever crashes meanwhile.\n"
    "\n"
    "login          sets who this is and which server to use, and connects once\n"
    "  --user ID          a number, from the operator of the server\n"
    "  --device ID        a number that no other client of this user has\n"
    "  --token TOKEN      a log-in token; others can see it in the list of processes\n"
    "  --token-file FILE  the same from a file, - for standard input\n"
    "  --ca FILE          the certificate authorities to trust, PEM\n"
    "send           sends one message (- reads it from standard input), waits until it is accepted\n"
    "  --timeout TIME     and no longer than this (default 30s); it stays queued then\n"
    "listen         prints messages that weren't seen yet, and new ones as they come\n"
    "  --count N          ends after N of them\n"
    "  --for TIME         ends after that time\n"
    "chat           a conversation: each line typed is a message; /quit or Ctrl-D ends it\n"
    "history        prints older messages of a conversation, from the server\n"
    "  --before SEQ       those before this one; default: the newest\n"
    "  --after SEQ        those after it; 0: from the oldest kept\n"
    "  --n N              that many at most (default 20)\n"
    "conversations  lists those that this device has seen\n"
    "status         says who this is, and what waits to be sent\n"
    "\n"
    "  --state DIR        where the device keeps its things (default $XDG_STATE_HOME/holdfast,\n"
    "                     ~/.local/state/holdfast); one directory a device\n"
    "  --json             one JSON object a line\n"
    "  --quiet            no notes about the connection\n"
    "\n"
    "TIME is a number with ms, s, m, h or d. Exit codes are those of sysexits.h: 64 wrong usage,\n"
    "67 the receiver can't be reached, 69 no server, 75 not sent yet, 77 not allowed, and so on.\n";

volatile sig_atomic_t cli_interrupted;

enum command {
    LOGIN = 1,
    SEND = 2,
    LISTEN = 4,
    HISTORY = 8,
    CONVERSATIONS = 16,
    STATUS = 32,
    CHAT = 64,
    EVERY = 127,
};

static const struct {
    const char *name;
    enum command command;
    size_t argument_count;
    int (*run)(struct cli *cli);
} commands[] = {
    { "login", LOGIN, 1, cli_login },
    { "send", SEND, 2, cli_send },
    { "listen", LISTEN, 0, cli_listen },
    { "history", HISTORY, 1, cli_history },
    { "conversations", CONVERSATIONS, 0, cli_conversations },
    { "status", STATUS, 0, cli_status },
    { "chat", CHAT, 1, cli_chat },
};

#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static const struct {
    const char *name;
    unsigned commands; /* that have it */
    int has_argument;
    size_t place; /* in struct cli */
} option_table[] = {
    { "state", EVERY, required_argument, offsetof(struct cli, state) },
    { "user", LOGIN, required_argument, offsetof(struct cli, user) },
    { "device", LOGIN, required_argument, offsetof(struct cli, device) },
    { "token", LOGIN, required_argument, offsetof(struct cli, token) },
    { "token-file", LOGIN, required_argument, offsetof(struct cli, token_file) },
    { "ca", LOGIN, required_argument, offsetof(struct cli, ca) },
    { "count", LISTEN, required_argument, offsetof(struct cli, count) },
    { "for", LISTEN, required_argument, offsetof(struct cli, duration) },
    { "before", HISTORY, required_argument, offsetof(struct cli, before) },
    { "after", HISTORY, required_argument, offsetof(struct cli, after) },
    { "n", HISTORY, required_argument, offsetof(struct cli, n) },
    { "timeout", SEND, required_argument, offsetof(struct cli, timeout) },
    { "json", EVERY, no_argument, offsetof(struct cli, json_given) },
    { "quiet", EVERY, no_argument, offsetof(struct cli, quiet_given) },
    { "help", EVERY, no_argument, offsetof(struct cli, help_given) },
    { "version", EVERY, no_argument, offsetof(struct cli, version_given) },
};

#define OPTION_COUNT (sizeof option_table / sizeof option_table[0])

/* ---- words */

int cli_fail(int exit_code, const char *format, ...)
{
    va_list arguments;

    (void)fputs("holdfast: ", stderr);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputs("\n", stderr);
    return exit_code;
}

static int exit_code_of(int result)
{
    switch (result) {
    case HF_INVALID:
        return EX_USAGE;
    case HF_NO_ACCOUNT:
        return EX_CONFIG;
    case HF_NO_MEMORY:
        return EX_OSERR;
    case HF_TOO_LARGE:
    case HF_DAMAGED:
        return EX_DATAERR;
    case HF_NOT_NOW:
    case HF_IN_USE:
        return EX_TEMPFAIL;
    case HF_FORBIDDEN:
        return EX_NOPERM;
    default:
        return EX_IOERR;
    }
}

int cli_fail_result(const struct cli *cli, int result)
{
    return cli_fail(exit_code_of(result), "%s%s", hf_error_text(cli->client),
                    result == HF_NO_ACCOUNT ? " (holdfast login)" : "");
}

void cli_note(const struct cli *cli, const char *format, ...)
{
    va_list arguments;

    if (cli->quiet || isatty(STDERR_FILENO) == 0) {
        return;
    }
    (void)fputs(cli->colour ? "\033[2m-- " : "-- ", stderr);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputs(cli->colour ? "\033[0m\n" : "\n", stderr);
}

bool cli_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
    char *end;

    if (text[0] < '0' || text[0] > '9') {
        return false; /* strtoull takes signs and spaces */
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *number >= min && *number <= max;
}

bool cli_duration(const char *text, uint64_t *ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = { { "", 1000 },   { "ms", 1 },      { "s", 1000 },
                  { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
    const size_t digits = strspn(text, "0123456789");
    char number[16];

    if (digits == 0 || digits >= sizeof number) {
        return false;
    }
    memcpy(number, text, digits);
    number[digits] = '\0';
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + digits, units[i].name) == 0) {
            if (!cli_number(number, 0, UINT64_C(315360000000) / units[i].ms, ms)) {
                return false;
            }
            *ms *= units[i].ms;
            return true;
        }
    }
    return false;
}

uint64_t cli_now_ms(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        abort();
    }
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the connection, as all commands see it */

int cli_wait(const struct cli *cli, uint64_t until_ms)
{
    const uint64_t now_ms = cli_now_ms();
    const uint64_t left_ms = until_ms > now_ms ? until_ms - now_ms : 0;
    const int result = hf_wait(cli->client, left_ms < CLI_WAIT_MS ? (int)left_ms : CLI_WAIT_MS);

    return result == HF_OK ? 0 : cli_fail_result(cli, result);
}

int cli_offline(const struct cli *cli, const struct hf_event *event)
{
    if ((event->flags & HF_REPLACED) != 0) {
        return cli_fail(EX_UNAVAILABLE,
                        "this device is connected somewhere else, which ended this connection");
    }
    if ((event->flags & HF_NEEDS_TOKEN) != 0) {
        return cli_fail(EX_NOPERM, "%s: log in again with a new token (holdfast login)",
                        event->text);
    }
    if ((event->flags & HF_UNTRUSTED) != 0) {
        return cli_fail(EX_NOPERM, "%s (is --ca the authority of this server?)", event->text);
    }
    if ((event->flags & HF_STOPPED) != 0) {
        return cli_fail(EX_UNAVAILABLE, "%s", event->text);
    }
    cli_note(cli, "%s; trying again in %llu.%llu s", event->text,
             (unsigned long long)event->retry_in_ms / 1000,
             (unsigned long long)event->retry_in_ms % 1000 / 100);
    return 0;
}

void cli_leave(const struct cli *cli)
{
    const uint64_t until_ms = cli_now_ms() + LEAVE_MS;
    struct hf_status status;

    hf_stop(cli->client);
    for (;;) {
        hf_status(cli->client, &status);
        if (status.state == HF_STATE_STOPPED || cli_now_ms() >= until_ms ||
            hf_step(cli->client) != HF_OK) {
            return;
        }

        struct hf_event event;

        /* What came meanwhile isn't marked as seen: the next command shows it. */
        while (hf_next_event(cli->client, &event) == HF_OK) {
        }
        hf_status(cli->client, &status);
        if (status.state != HF_STATE_STOPPED && hf_wait(cli->client, 100) != HF_OK) {
            return;
        }
    }
}

/* ---- main */

static void on_signal(int number)
{
    (void)number;
    cli_interrupted = 1;
}

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };

    (void)sigaction(SIGINT, &action, NULL); /* without SA_RESTART: poll and read end */
    (void)sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &action, NULL);
}

static const char **place_of(struct cli *cli, size_t option)
{
    return (const char **)((char *)cli + option_table[option].place);
}

/* 0, or an exit code. *command is the index of the command, COMMAND_COUNT if there is none. */
static int parse(struct cli *cli, int argc, char **argv, size_t *command)
{
    struct option options[OPTION_COUNT + 1] = { 0 };
    unsigned given = 0;
    int found;

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        options[i].name = option_table[i].name;
        options[i].has_arg = option_table[i].has_argument;
        options[i].val = (int)i + 1;
    }
    opterr = 0;
    while ((found = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (found == '?' || found < 1 || (size_t)found > OPTION_COUNT) {
            return cli_fail(EX_USAGE, "%s isn't an option, or lacks its value (try --help)",
                            argv[optind - 1]);
        }
        *place_of(cli, (size_t)found - 1) = optarg != NULL ? optarg : "";
        given |= 1U << (found - 1);
    }
    *command = COMMAND_COUNT;
    if (cli->help_given != NULL || cli->version_given != NULL) {
        return 0;
    }
    if (optind == argc) {
        return cli_fail(EX_USAGE, "which command? (try --help)");
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[optind], commands[i].name) == 0) {
            *command = i;
        }
    }
    if (*command == COMMAND_COUNT) {
        return cli_fail(EX_USAGE, "%s is no command (try --help)", argv[optind]);
    }
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if ((given & 1U << i) != 0 &&
            (option_table[i].commands & commands[*command].command) == 0) {
            return cli_fail(EX_USAGE, "%s has no --%s (try --help)", commands[*command].name,
                            option_table[i].name);
        }
    }
    cli->argument_count = (size_t)(argc - optind - 1);
    if (cli->argument_count != commands[*command].argument_count) {
        return cli_fail(EX_USAGE, "%s wants %zu argument%s behind it, not %zu (try --help)",
                        commands[*command].name, commands[*command].argument_count,
                        commands[*command].argument_count == 1 ? "" : "s", cli->argument_count);
    }
    for (size_t i = 0; i < cli->argument_count; i++) {
        cli->arguments[i] = argv[optind + 1 + (int)i];
    }
    return 0;
}

static int default_state(char path[PATH_BYTES])
{
    const char *state_home = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");

    if (state_home != NULL && state_home[0] == '/') {
        (void)snprintf(path, PATH_BYTES, "%s/holdfast", state_home);
        return 0;
    }
    if (home == NULL || home[0] == '\0') {
        return cli_fail(EX_CONFIG, "neither XDG_STATE_HOME nor HOME is set: give --state DIR");
    }
    (void)snprintf(path, PATH_BYTES, "%s/.local/state/holdfast", home);
    return 0;
}

static void look_at_terminal(struct cli *cli)
{
    const char *no_colour = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    (void)setlocale(LC_CTYPE, "");
    cli->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    cli->json = cli->json_given != NULL;
    cli->quiet = cli->quiet_given != NULL;
    cli->terminal = isatty(STDOUT_FILENO) != 0;
    cli->colour = cli->terminal && (no_colour == NULL || no_colour[0] == '\0') && term != NULL &&
                  strcmp(term, "dumb") != 0;
}

int main(int argc, char **argv)
{
    struct cli cli = { 0 };
    char path[PATH_BYTES];
    char text[512];
    size_t command = COMMAND_COUNT;
    int exit_code = parse(&cli, argc, argv, &command);

    if (exit_code != 0) {
        return exit_code;
    }
    if (command == COMMAND_COUNT) {
        const bool help = cli.help_given != NULL;

        (void)printf("%s%s", help ? help_text : "holdfast ", help ? "" : hf_version());
        (void)fputs(help ? "" : "\n", stdout);
        return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
    }
    look_at_terminal(&cli);
    if (cli.state == NULL) {
        exit_code = default_state(path);
        if (exit_code != 0) {
            return exit_code;
        }
        cli.state = path;
    }
    catch_signals();

    const int opened = hf_open(cli.state, &cli.client, text, sizeof text);

    if (opened != HF_OK) {
        return cli_fail(exit_code_of(opened), "%s", text);
    }
    exit_code = commands[command].run(&cli);
    hf_close(cli.client);
    if (fflush(stdout) != 0 && exit_code == EX_OK) {
        exit_code = EX_IOERR;
    }
    return exit_code;
}

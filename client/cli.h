/*
 * cli: what the files of the `holdfast` program share. It uses libholdfast by its public header
 * alone, as any other program would.
 *
 * Owner    struct cli lies in main.
 * Thread   The main thread; a signal handler only sets a flag.
 * Errors   Exit codes of sysexits.h, and one line on standard error.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/holdfast.h"

struct cli {
    /* Options; NULL or false where not given. */
    const char *state;
    const char *user;
    const char *device;
    const char *token;
    const char *token_file;
    const char *ca;
    const char *count;
    const char *duration;
    const char *before;
    const char *after;
    const char *n;
    const char *timeout;
    const char *json_given;
    const char *quiet_given;
    const char *help_given;
    const char *version_given;

    bool json;
    bool quiet;
    bool colour;   /* standard output is a terminal that has some */
    bool terminal; /* standard output is one */
    bool utf8;
    struct hf_client *client;
    const char *arguments[4]; /* behind the command */
    size_t argument_count;
};

/* Set by SIGINT and SIGTERM; looked at so often, for one that comes just before a wait. */
#define CLI_WAIT_MS 1000
extern volatile sig_atomic_t cli_interrupted;

/* Prints "holdfast: ..." and gives back `exit_code`. */
int cli_fail(int exit_code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a call of the library, with what to do about it. */
int cli_fail_result(const struct cli *cli, int result);

/* About the connection, on standard error; nothing with --quiet, or where nobody looks. */
void cli_note(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Decimal digits alone. */
bool cli_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
    __attribute__((warn_unused_result));

/* "1500ms", "90s", "15m", "1h", "7d", or seconds. */
bool cli_duration(const char *text, uint64_t *ms) __attribute__((warn_unused_result));

uint64_t cli_now_ms(void);

/* Waits for something to happen, until `until_ms` at most. 0, or an exit code. */
int cli_wait(const struct cli *cli, uint64_t until_ms) __attribute__((warn_unused_result));

/*
 * Tells of an OFFLINE event; 0: the library will try again, else the exit code to end with.
 */
int cli_offline(const struct cli *cli, const struct hf_event *event)
    __attribute__((warn_unused_result));

/* Says BYE and waits for the end of the connection, a few seconds at most. */
void cli_leave(const struct cli *cli);

/* ---- cli_print.c: false from these: standard output is gone */

bool cli_print_message(const struct cli *cli, const struct hf_event *event)
    __attribute__((warn_unused_result));
bool cli_print_conversation(const struct cli *cli, const struct hf_conversation *conversation)
    __attribute__((warn_unused_result));
bool cli_print_status(const struct cli *cli) __attribute__((warn_unused_result));

/* What became of a message: "accepted", "rejected" ... */
bool cli_print_fate(const struct cli *cli, const char *fate, const struct hf_event *event)
    __attribute__((warn_unused_result));

/* Bytes of strangers, harmless on a terminal: one line, control characters written out. */
void cli_put_text(const uint8_t *bytes, size_t byte_count);

/* ---- commands: exit codes */

int cli_login(struct cli *cli);
int cli_send(struct cli *cli);
int cli_listen(struct cli *cli);
int cli_history(struct cli *cli);
int cli_conversations(struct cli *cli);
int cli_status(struct cli *cli);
int cli_chat(struct cli *cli);

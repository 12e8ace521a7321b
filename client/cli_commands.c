/* holdfast: the commands but chat. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/cli.h"

#define LOGIN_MS      UINT64_C(20000)
#define SEND_MS       UINT64_C(30000)
#define REFUSAL_MS    UINT64_C(1000) /* a receiver's side usually refuses much sooner */
#define HISTORY_MS    UINT64_C(30000)
#define HISTORY_N     20
#define HISTORY_N_MAX 1000000
#define PAGE_N        200
#define FILE_MAX      (1 << 20)
#define TOKEN_MAX     4096

/* ---- input */

/* All of a file, or of standard input for "-", as a string to be freed. NULL: said why. */
static char *read_file(const char *path, size_t most_bytes, size_t *byte_count)
{
    const bool standard = strcmp(path, "-") == 0;
    const int file = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    char *text = malloc(most_bytes + 2);
    size_t filled = 0;
    ssize_t got = 0;
    char reason[128];

    if (file < 0 || text == NULL) {
        (void)cli_fail(EX_NOINPUT, "%s: %s", path, strerror_r(errno, reason, sizeof reason));
        free(text);
        return NULL;
    }
    while (filled <= most_bytes &&
           ((got = read(file, text + filled, most_bytes + 1 - filled)) > 0 ||
            (got < 0 && errno == EINTR && cli_interrupted == 0))) {
        filled += got > 0 ? (size_t)got : 0;
    }
    if (got < 0) {
        (void)cli_fail(EX_NOINPUT, "%s: %s", path, strerror_r(errno, reason, sizeof reason));
    } else if (filled > most_bytes) {
        (void)cli_fail(EX_DATAERR, "%s: longer than %zu bytes", path, most_bytes);
    }
    if (!standard) {
        (void)close(file);
    }
    if (got < 0 || filled > most_bytes) {
        free(text);
        return NULL;
    }
    text[filled] = '\0';
    *byte_count = filled;
    return text;
}

static int parse_user(const char *text, uint64_t *user)
{
    if (!cli_number(text, 1, INT64_MAX, user)) {
        return cli_fail(EX_USAGE, "%s is no user: a number from 1 to 9223372036854775807", text);
    }
    return 0;
}

/* ---- login */

static int login_with(const struct cli *cli, const char *token, const char *ca)
{
    uint64_t user;
    uint64_t device;
    char text[TOKEN_MAX + 1];

    if (!cli_number(cli->user, 1, INT64_MAX, &user) ||
        !cli_number(cli->device, 1, UINT32_MAX, &device)) {
        return cli_fail(EX_USAGE, "--user and --device are numbers (try --help)");
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)strcspn(token, " \t\r\n"), token);

    const int result = hf_login(cli->client, cli->arguments[0], user, (uint32_t)device, text, ca);

    explicit_bzero(text, sizeof text);
    return result == HF_OK ? 0 : cli_fail_result(cli, result);
}

/* Connects once, so that a wrong token, name or authority shows now. */
static int try_login(const struct cli *cli)
{
    const uint64_t until_ms = cli_now_ms() + LOGIN_MS;
    struct hf_event event;
    struct hf_status status;
    int failed = hf_start(cli->client) == HF_OK ? 0 : EX_CONFIG;

    while (failed == 0 && cli_interrupted == 0 && cli_now_ms() < until_ms) {
        failed = cli_wait(cli, until_ms);
        while (failed == 0 && hf_next_event(cli->client, &event) == HF_OK) {
            if (event.kind == HF_EVENT_OFFLINE) {
                failed = cli_offline(cli, &event);
                return failed != 0
                           ? failed
                           : cli_fail(EX_UNAVAILABLE,
                                      "%s: %s (the account is kept: the next command tries again)",
                                      cli->arguments[0], event.text);
            }
            if (event.kind == HF_EVENT_ONLINE) {
                hf_status(cli->client, &status);
                if (cli->json) {
                    (void)printf("{\"event\":\"online\",\"user\":\"%llu\",\"device\":%u}\n",
                                 (unsigned long long)status.user, status.device);
                } else if (!cli->quiet) {
                    (void)printf("logged in as user %llu, device %u, at %s\n",
                                 (unsigned long long)status.user, status.device, status.server);
                }
                cli_leave(cli);
                return 0;
            }
        }
    }
    return failed != 0 ? failed
                       : cli_fail(EX_UNAVAILABLE, "%s doesn't answer (the account is kept)",
                                  cli->arguments[0]);
}

int cli_login(struct cli *cli)
{
    char *token = NULL;
    size_t token_bytes = 0;
    size_t ca_bytes = 0;

    if (cli->user == NULL || cli->device == NULL || cli->ca == NULL ||
        (cli->token == NULL) == (cli->token_file == NULL)) {
        return cli_fail(EX_USAGE, "login wants --user, --device, --ca, and --token or "
                                  "--token-file (try --help)");
    }

    char *ca = read_file(cli->ca, FILE_MAX, &ca_bytes);

    if (ca == NULL) {
        return EX_NOINPUT;
    }
    if (cli->token_file != NULL) {
        token = read_file(cli->token_file, TOKEN_MAX, &token_bytes);
    }
    int failed = EX_NOINPUT;

    if (cli->token != NULL || token != NULL) {
        failed = login_with(cli, cli->token != NULL ? cli->token : token, ca);
    }
    if (token != NULL) {
        explicit_bzero(token, token_bytes);
    }
    free(token);
    free(ca);
    return failed != 0 ? failed : try_login(cli);
}

/* ---- send */

static bool has_written(const struct cli *cli, uint64_t user)
{
    struct hf_conversation conversation;

    for (size_t i = 0; hf_conversation(cli->client, i, &conversation) == HF_OK; i++) {
        if (conversation.conversation == user) {
            return conversation.cn > 0;
        }
    }
    return false;
}

struct sending {
    uint64_t tag;
    uint64_t seq;      /* 0: not accepted yet */
    uint64_t until_ms; /* then give up, or be content */
    bool heard_of;     /* the receiver has written before, and so will hardly refuse */
};

/* 0: go on; -1: done; else an exit code. */
static int on_send_event(const struct cli *cli, struct sending *sending,
                         const struct hf_event *event)
{
    switch (event->kind) {
    case HF_EVENT_ACCEPTED:
        if (event->tag == sending->tag) {
            sending->seq = event->seq;
            sending->until_ms = sending->heard_of ? 0 : cli_now_ms() + REFUSAL_MS;
            if (!cli->quiet && !cli_print_fate(cli, "accepted", event)) {
                return EX_IOERR;
            }
        }
        return 0;
    case HF_EVENT_REFUSED:
        if (sending->seq != 0 && event->ref_seq == sending->seq) {
            return cli_fail(EX_NOUSER, "user %llu: %s", (unsigned long long)event->conversation,
                            event->text);
        }
        return 0;
    case HF_EVENT_REJECTED:
    case HF_EVENT_UNKNOWN_FATE:
        if (event->tag == sending->tag) {
            (void)hf_dismiss(cli->client, event->tag);
            return cli_fail(EX_DATAERR, "not sent: %s", event->text);
        }
        return 0;
    case HF_EVENT_DELAYED:
        if (event->tag == sending->tag) {
            cli_note(cli, "%s", event->text);
        }
        return 0;
    case HF_EVENT_OFFLINE:
        return sending->seq != 0 ? -1 : cli_offline(cli, event);
    default:
        return 0;
    }
}

static int await_answer(const struct cli *cli, struct sending *sending)
{
    struct hf_event event;

    while (cli_interrupted == 0 && cli_now_ms() < sending->until_ms) {
        int done = cli_wait(cli, sending->until_ms);

        while (done == 0 && hf_next_event(cli->client, &event) == HF_OK) {
            done = on_send_event(cli, sending, &event);
        }
        if (done != 0) {
            return done == -1 ? 0 : done;
        }
    }
    return sending->seq != 0
               ? 0
               : cli_fail(EX_TEMPFAIL, "not accepted yet; it is kept, and goes with the next "
                                       "command that connects");
}

int cli_send(struct cli *cli)
{
    const bool from_input = strcmp(cli->arguments[1], "-") == 0;
    char *text = NULL;
    size_t text_bytes = strlen(cli->arguments[1]);
    uint64_t user;
    uint64_t timeout_ms = SEND_MS;
    struct sending sending = { 0 };
    int failed = parse_user(cli->arguments[0], &user);

    if (failed != 0) {
        return failed;
    }
    if (cli->timeout != NULL && !cli_duration(cli->timeout, &timeout_ms)) {
        return cli_fail(EX_USAGE, "--timeout %s is no time (try --help)", cli->timeout);
    }
    if (from_input) {
        text = read_file("-", HF_BODY_BYTES_MAX + 1, &text_bytes);
        if (text == NULL) {
            return EX_NOINPUT;
        }
        if (text_bytes > 0 && text[text_bytes - 1] == '\n') {
            text_bytes--; /* of the last line, as a shell adds it */
        }
    }

    const int result = hf_send(cli->client, user, 0, from_input ? text : cli->arguments[1],
                               text_bytes, &sending.tag);

    free(text);
    if (result != HF_OK || hf_start(cli->client) != HF_OK) {
        return cli_fail_result(cli, result != HF_OK ? result : HF_NO_ACCOUNT);
    }
    sending.heard_of = has_written(cli, user);
    sending.until_ms = cli_now_ms() + timeout_ms;
    failed = await_answer(cli, &sending);
    cli_leave(cli);
    return failed;
}

/* ---- listen */

/* Messages print; the rest is told. 0, or an exit code; *count falls with each message. */
static int on_listen_event(const struct cli *cli, const struct hf_event *event, uint64_t *count,
                           uint64_t *seen_seq)
{
    switch (event->kind) {
    case HF_EVENT_MESSAGE:
    case HF_EVENT_REFUSED:
        if (!cli_print_message(cli, event)) {
            return EX_IOERR;
        }
        *seen_seq = event->seq;
        *count -= 1;
        return 0;
    case HF_EVENT_ONLINE:
        cli_note(cli, "online");
        return 0;
    case HF_EVENT_OFFLINE:
        return cli_offline(cli, event);
    case HF_EVENT_GAP:
        cli_note(cli, "#%llu to #%llu are no longer kept by the server",
                 (unsigned long long)event->first_seq, (unsigned long long)event->last_seq);
        return 0;
    case HF_EVENT_ANEW:
        cli_note(cli, "the server was restored from a backup: numbers begin anew");
        return 0;
    case HF_EVENT_NOTICE:
    case HF_EVENT_TOKEN_WANTED:
        cli_note(cli, "%s", event->text);
        return 0;
    case HF_EVENT_REJECTED:
    case HF_EVENT_UNKNOWN_FATE:
        cli_note(cli, "a message to %llu %s %s (holdfast status)",
                 (unsigned long long)event->conversation,
                 event->kind == HF_EVENT_REJECTED ? "was rejected:" : "has an unknown fate",
                 event->text);
        return 0;
    default:
        return 0;
    }
}

int cli_listen(struct cli *cli)
{
    uint64_t count = UINT64_MAX;
    uint64_t duration_ms = 0;
    uint64_t until_ms = UINT64_MAX;
    struct hf_event event;
    int failed = 0;

    if (cli->count != NULL && !cli_number(cli->count, 1, UINT64_MAX, &count)) {
        return cli_fail(EX_USAGE, "--count %s is no number (try --help)", cli->count);
    }
    if (cli->duration != NULL) {
        if (!cli_duration(cli->duration, &duration_ms)) {
            return cli_fail(EX_USAGE, "--for %s is no time (try --help)", cli->duration);
        }
        until_ms = cli_now_ms() + duration_ms;
    }
    if (hf_start(cli->client) != HF_OK) {
        return cli_fail_result(cli, HF_NO_ACCOUNT);
    }
    while (failed == 0 && count > 0 && cli_interrupted == 0 && cli_now_ms() < until_ms) {
        uint64_t seen_seq = 0;

        failed = cli_wait(cli, until_ms);
        while (failed == 0 && count > 0 && hf_next_event(cli->client, &event) == HF_OK) {
            failed = on_listen_event(cli, &event, &count, &seen_seq);
        }
        /* After they were printed: rather shown again after a crash than never. */
        if (seen_seq > 0 && hf_seen(cli->client, seen_seq) != HF_OK && failed == 0) {
            failed = cli_fail_result(cli, HF_STORAGE);
        }
    }
    cli_leave(cli);
    return failed;
}

/* ---- history */

struct asking {
    uint64_t user;
    uint64_t anchor_seq;
    uint64_t left; /* messages still wanted */
    enum hf_direction direction;
    uint32_t request;
    bool done;
    bool trimmed;
    struct hf_event *page; /* copies, with their bodies */
    size_t page_count;
};

static void forget_page(struct asking *asking)
{
    for (size_t i = 0; i < asking->page_count; i++) {
        free((void *)(uintptr_t)asking->page[i].body);
    }
    free(asking->page);
    asking->page = NULL;
    asking->page_count = 0;
}

static bool keep_message(struct asking *asking, const struct hf_event *event)
{
    struct hf_event *grown = realloc(asking->page, (asking->page_count + 1) * sizeof *asking->page);
    uint8_t *body = malloc(event->body_bytes + 1);

    if (grown == NULL || body == NULL) {
        free(body);
        asking->page = grown != NULL ? grown : asking->page;
        return false;
    }
    memcpy(body, event->body, event->body_bytes);
    asking->page = grown;
    asking->page[asking->page_count] = *event;
    asking->page[asking->page_count].body = body;
    asking->page[asking->page_count].text = "";
    asking->page_count++;
    return true;
}

static int ask(const struct cli *cli, struct asking *asking)
{
    const int result =
        hf_history(cli->client, asking->user, asking->direction, asking->anchor_seq,
                   (uint16_t)(asking->left < PAGE_N ? asking->left : PAGE_N), &asking->request);

    return result == HF_OK ? 0 : cli_fail_result(cli, result);
}

static int on_history_event(const struct cli *cli, struct asking *asking,
                            const struct hf_event *event)
{
    switch (event->kind) {
    case HF_EVENT_ONLINE:
        return ask(cli, asking);
    case HF_EVENT_OFFLINE:
        return cli_offline(cli, event);
    case HF_EVENT_HISTORY:
        if (!keep_message(asking, event)) {
            return cli_fail(EX_OSERR, "no memory");
        }
        asking->left--;
        if (asking->direction == HF_AFTER || asking->anchor_seq == 0 ||
            event->seq < asking->anchor_seq) {
            asking->anchor_seq = event->seq; /* before: the oldest, which comes first */
        }
        return 0;
    case HF_EVENT_HISTORY_END:
        asking->trimmed = (event->flags & HF_TRIMMED) != 0;
        asking->done = asking->left == 0 || (event->flags & HF_MORE) == 0;
        return asking->done ? 0 : ask(cli, asking);
    case HF_EVENT_HISTORY_FAILED:
        return event->code == 0 ? 0 : cli_fail(EX_DATAERR, "%s", event->text);
    default:
        return 0;
    }
}

static int by_seq(const void *one, const void *other)
{
    const uint64_t a = ((const struct hf_event *)one)->seq;
    const uint64_t b = ((const struct hf_event *)other)->seq;

    return (a > b) - (a < b);
}

static int print_page(const struct cli *cli, struct asking *asking)
{
    if (asking->page_count > 1) {
        qsort(asking->page, asking->page_count, sizeof *asking->page, by_seq);
    }
    if (asking->trimmed) {
        cli_note(cli, "older messages are no longer kept by the server");
    }
    for (size_t i = 0; i < asking->page_count; i++) {
        asking->page[i].kind = HF_EVENT_MESSAGE;
        if (!cli_print_message(cli, &asking->page[i])) {
            return EX_IOERR;
        }
    }
    return 0;
}

static int parse_history(const struct cli *cli, struct asking *asking)
{
    const char *anchor = cli->before != NULL ? cli->before : cli->after;

    if (cli->before != NULL && cli->after != NULL) {
        return cli_fail(EX_USAGE, "--before or --after, not both (try --help)");
    }
    if (anchor != NULL && !cli_number(anchor, 0, UINT64_MAX, &asking->anchor_seq)) {
        return cli_fail(EX_USAGE, "%s is no number of a message (try --help)", anchor);
    }
    if (cli->n != NULL && !cli_number(cli->n, 1, HISTORY_N_MAX, &asking->left)) {
        return cli_fail(EX_USAGE, "--n is a number from 1 to %d (try --help)", HISTORY_N_MAX);
    }
    asking->direction = cli->after != NULL ? HF_AFTER : HF_BEFORE;
    return parse_user(cli->arguments[0], &asking->user);
}

int cli_history(struct cli *cli)
{
    const uint64_t until_ms = cli_now_ms() + HISTORY_MS;
    struct asking asking = { .left = HISTORY_N };
    struct hf_event event;
    int failed = parse_history(cli, &asking);

    if (failed != 0) {
        return failed;
    }
    if (hf_start(cli->client) != HF_OK) {
        return cli_fail_result(cli, HF_NO_ACCOUNT);
    }
    while (failed == 0 && !asking.done && cli_interrupted == 0 && cli_now_ms() < until_ms) {
        failed = cli_wait(cli, until_ms);
        while (failed == 0 && !asking.done && hf_next_event(cli->client, &event) == HF_OK) {
            failed = on_history_event(cli, &asking, &event);
        }
    }
    if (failed == 0 && !asking.done && cli_interrupted == 0) {
        failed = cli_fail(EX_UNAVAILABLE, "the server doesn't answer");
    }
    if (failed == 0) {
        failed = print_page(cli, &asking);
    }
    forget_page(&asking);
    cli_leave(cli);
    return failed;
}

/* ---- from the disk */

static int need_account(const struct cli *cli)
{
    struct hf_status status;

    hf_status(cli->client, &status);
    return status.user != 0
               ? 0
               : cli_fail(EX_CONFIG, "%s: there is no account here (holdfast login, or --state)",
                          cli->state);
}

int cli_conversations(struct cli *cli)
{
    struct hf_conversation conversation;
    const int failed = need_account(cli);

    for (size_t i = 0; failed == 0 && hf_conversation(cli->client, i, &conversation) == HF_OK;
         i++) {
        if (!cli_print_conversation(cli, &conversation)) {
            return EX_IOERR;
        }
    }
    return failed;
}

int cli_status(struct cli *cli)
{
    const int failed = need_account(cli);

    return failed == 0 && !cli_print_status(cli) ? EX_IOERR : failed;
}

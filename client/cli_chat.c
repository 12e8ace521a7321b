/*
 * holdfast chat: lines typed are messages, messages that come are lines.
 *
 * On a terminal the line that is being typed belongs to the terminal; what comes is printed over it
 * and the terminal shows it again after the next key, as talk and wall have always done.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/cli.h"

#define LINE_BYTES (HF_BODY_BYTES_MAX + 2)
#define RECENT     10
#define END_MS     UINT64_C(30000)

struct chat {
    struct cli *cli;
    uint64_t user;
    uint64_t unanswered;
    uint64_t seen_seq;
    bool ended; /* no more input */
    size_t filled;
    char line[LINE_BYTES];
};

/* The last messages of this conversation, from the disk. */
static int print_recent(const struct chat *chat)
{
    const struct cli *cli = chat->cli;
    struct hf_status status;
    struct hf_event event;
    uint64_t seqs[RECENT] = { 0 };
    size_t found = 0;

    hf_status(cli->client, &status);
    for (uint64_t seq = 0;
         hf_stored(cli->client, seq, &event) == HF_OK && event.seq <= status.seen_seq;
         seq = event.seq) {
        if (event.conversation == chat->user && event.kind == HF_EVENT_MESSAGE) {
            seqs[found++ % RECENT] = event.seq;
        }
    }
    for (size_t i = found > RECENT ? found - RECENT : 0; i < found; i++) {
        if (hf_stored(cli->client, seqs[i % RECENT] - 1, &event) == HF_OK &&
            !cli_print_message(cli, &event)) {
            return EX_IOERR;
        }
    }
    return 0;
}

static int send_line(struct chat *chat, size_t line_bytes)
{
    const struct cli *cli = chat->cli;
    uint64_t tag;

    if (line_bytes == 0) {
        return 0;
    }
    if (chat->line[0] == '/' && chat->line[1] != '/') {
        if (line_bytes == 5 && memcmp(chat->line, "/quit", 5) == 0) {
            chat->ended = true;
            return 0;
        }
        (void)cli_fail(0, "/quit ends the chat; a message that begins with / is typed with two");
        return 0;
    }

    const size_t skip = chat->line[0] == '/' ? 1 : 0;
    const int result =
        hf_send(cli->client, chat->user, 0, chat->line + skip, line_bytes - skip, &tag);

    if (result == HF_TOO_LARGE) {
        (void)cli_fail(0, "%s", hf_error_text(cli->client));
        return 0;
    }
    if (result != HF_OK) {
        return cli_fail_result(cli, result);
    }
    chat->unanswered++;
    return 0;
}

/* Reads what is there, and sends each whole line; the last one at the end of the input, too. */
static int read_lines(struct chat *chat)
{
    const ssize_t got =
        read(STDIN_FILENO, chat->line + chat->filled, sizeof chat->line - chat->filled);
    int failed = 0;

    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : cli_fail(EX_IOERR, "standard input");
    }
    if (got == 0) {
        failed = send_line(chat, chat->filled);
        chat->ended = true;
        return failed;
    }
    chat->filled += (size_t)got;
    while (failed == 0 && !chat->ended) {
        const char *end = memchr(chat->line, '\n', chat->filled);

        if (end == NULL) {
            break;
        }

        const size_t line_bytes = (size_t)(end - chat->line);

        failed = send_line(chat, line_bytes);
        chat->filled -= line_bytes + 1;
        memmove(chat->line, end + 1, chat->filled);
    }
    if (chat->filled == sizeof chat->line) {
        (void)cli_fail(0, "a line is longer than %d bytes, and was not sent", HF_BODY_BYTES_MAX);
        chat->filled = 0;
    }
    return failed;
}

static int on_chat_event(struct chat *chat, const struct hf_event *event)
{
    const struct cli *cli = chat->cli;

    switch (event->kind) {
    case HF_EVENT_MESSAGE:
    case HF_EVENT_REFUSED:
        chat->seen_seq = event->seq;
        /* On a terminal, one's own line stands there already. */
        if (cli->terminal && !cli->json && event->kind == HF_EVENT_MESSAGE &&
            (event->flags & HF_OWN) != 0 && event->conversation == chat->user) {
            return 0;
        }
        return cli_print_message(cli, event) ? 0 : EX_IOERR;
    case HF_EVENT_ACCEPTED:
        chat->unanswered -= chat->unanswered > 0;
        return cli_print_fate(cli, "accepted", event) ? 0 : EX_IOERR;
    case HF_EVENT_REJECTED:
    case HF_EVENT_UNKNOWN_FATE:
        chat->unanswered -= chat->unanswered > 0;
        (void)cli_fail(0, "a message was not sent: %s",
                       event->kind == HF_EVENT_REJECTED ? event->text : "its fate is unknown");
        return hf_dismiss(cli->client, event->tag) == HF_OK ? 0 : cli_fail_result(cli, HF_STORAGE);
    case HF_EVENT_DELAYED:
    case HF_EVENT_TOKEN_WANTED:
        cli_note(cli, "%s", event->text);
        return 0;
    case HF_EVENT_ONLINE:
        cli_note(cli, "online");
        return 0;
    case HF_EVENT_OFFLINE:
        return cli_offline(cli, event);
    case HF_EVENT_GAP:
        cli_note(cli, "some older messages are no longer kept by the server");
        return 0;
    case HF_EVENT_ANEW:
        cli_note(cli, "the server was restored from a backup");
        return 0;
    default:
        return 0;
    }
}

static int take_events(struct chat *chat)
{
    const struct cli *cli = chat->cli;
    struct hf_event event;
    int failed = 0;

    chat->seen_seq = 0;
    while (failed == 0 && hf_next_event(cli->client, &event) == HF_OK) {
        failed = on_chat_event(chat, &event);
    }
    if (chat->seen_seq > 0 && hf_seen(cli->client, chat->seen_seq) != HF_OK && failed == 0) {
        failed = cli_fail_result(cli, HF_STORAGE);
    }
    return failed;
}

/* Waits for the connection or a line, whichever is first. */
static int turn(struct chat *chat)
{
    const struct cli *cli = chat->cli;
    struct pollfd polled[2] = {
        { .fd = chat->ended ? -1 : STDIN_FILENO, .events = POLLIN },
    };
    int failed = hf_step(cli->client) == HF_OK ? 0 : cli_fail_result(cli, HF_STORAGE);
    int wait_ms = hf_timeout_ms(cli->client);

    if (failed != 0) {
        return failed;
    }
    if (wait_ms < 0 || wait_ms > CLI_WAIT_MS) {
        wait_ms = CLI_WAIT_MS;
    }
    polled[1].fd = hf_descriptor(cli->client);
    polled[1].events = hf_descriptor_events(cli->client);
    if (poll(polled, 2, wait_ms) > 0 && polled[0].revents != 0) {
        failed = read_lines(chat);
    }
    if (failed == 0 && hf_step(cli->client) != HF_OK) {
        failed = cli_fail_result(cli, HF_STORAGE);
    }
    return failed == 0 ? take_events(chat) : failed;
}

int cli_chat(struct cli *cli)
{
    static struct chat chat;
    struct hf_status status;
    uint64_t until_ms = UINT64_MAX;
    int failed = 0;

    chat.cli = cli;
    if (!cli_number(cli->arguments[0], 1, INT64_MAX, &chat.user)) {
        return cli_fail(EX_USAGE, "%s is no user: a number from 1 to 9223372036854775807",
                        cli->arguments[0]);
    }
    if (hf_start(cli->client) != HF_OK) {
        return cli_fail_result(cli, HF_NO_ACCOUNT);
    }
    hf_status(cli->client, &status);
    chat.unanswered = status.waiting; /* from earlier */
    if (cli->terminal && !cli->json) {
        failed = print_recent(&chat);
        cli_note(cli, "chat with %llu; /quit ends it", (unsigned long long)chat.user);
    }
    while (failed == 0 && cli_interrupted == 0 && cli_now_ms() < until_ms &&
           !(chat.ended && chat.unanswered == 0)) {
        failed = turn(&chat);
        if (chat.ended && until_ms == UINT64_MAX) {
            until_ms = cli_now_ms() + END_MS; /* for answers to what was typed last */
        }
    }
    if (failed == 0 && chat.unanswered > 0) {
        failed = cli_fail(EX_TEMPFAIL,
                          "%llu not accepted yet; kept, and sent with the next command "
                          "that connects",
                          (unsigned long long)chat.unanswered);
    }
    cli_leave(cli);
    return failed;
}

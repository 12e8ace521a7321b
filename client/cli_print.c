/* holdfast: what goes to standard output, as text and as JSON. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/cli.h"

#define SNIPPET_BYTES 60

/* ---- bytes of strangers */

/* Bytes of the UTF-8 character that these begin with; 0: they begin with none. */
static size_t utf8_bytes(const uint8_t *bytes, size_t byte_count, uint32_t *character)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t count;

    if (bytes[0] < 0x80) {
        *character = bytes[0];
        return 1;
    }
    count = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || count > byte_count) {
        return 0;
    }
    *character = bytes[0] & (0xffU >> (count + 1));
    for (size_t i = 1; i < count; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
        *character = *character << 6 | (bytes[i] & 0x3f);
    }
    if (*character < least[count] || *character > 0x10ffff ||
        (*character >= 0xd800 && *character < 0xe000)) {
        return 0;
    }
    return count;
}

static bool is_control(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0) || character == 0x2028 ||
           character == 0x2029 || (character >= 0x202a && character <= 0x202e) ||
           (character >= 0x2066 && character <= 0x2069); /* these turn text around */
}

void cli_put_text(const uint8_t *bytes, size_t byte_count)
{
    for (size_t at = 0; at < byte_count;) {
        uint32_t character = 0;
        const size_t count = utf8_bytes(bytes + at, byte_count - at, &character);

        if (count == 0) {
            (void)printf("\\x%02x", bytes[at]);
            at++;
        } else if (character == '\n') {
            (void)fputs("\\n", stdout);
            at += count;
        } else if (character == '\t') {
            (void)fputs(" ", stdout);
            at += count;
        } else if (is_control(character)) {
            (void)printf("\\u%04x", (unsigned)character);
            at += count;
        } else {
            (void)fwrite(bytes + at, 1, count, stdout);
            at += count;
        }
    }
}

static bool is_utf8(const uint8_t *bytes, size_t byte_count)
{
    uint32_t character;

    for (size_t at = 0; at < byte_count;) {
        const size_t count = utf8_bytes(bytes + at, byte_count - at, &character);

        if (count == 0) {
            return false;
        }
        at += count;
    }
    return true;
}

static void put_json_string(const uint8_t *bytes, size_t byte_count)
{
    (void)putchar('"');
    for (size_t i = 0; i < byte_count; i++) {
        if (bytes[i] == '"' || bytes[i] == '\\') {
            (void)printf("\\%c", bytes[i]);
        } else if (bytes[i] < 0x20 || bytes[i] == 0x7f) {
            (void)printf("\\u%04x", bytes[i]);
        } else {
            (void)putchar(bytes[i]);
        }
    }
    (void)putchar('"');
}

static void put_base64(const uint8_t *bytes, size_t byte_count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    (void)putchar('"');
    for (size_t at = 0; at < byte_count; at += 3) {
        const size_t left = byte_count - at;
        const uint32_t three = (uint32_t)bytes[at] << 16 |
                               (left > 1 ? (uint32_t)bytes[at + 1] << 8 : 0) |
                               (left > 2 ? bytes[at + 2] : 0U);

        (void)putchar(digits[three >> 18]);
        (void)putchar(digits[three >> 12 & 63]);
        (void)putchar(left > 1 ? digits[three >> 6 & 63] : '=');
        (void)putchar(left > 2 ? digits[three & 63] : '=');
    }
    (void)putchar('"');
}

/* Text where it is some, else base64 under another name. */
static void put_json_body(const uint8_t *body, size_t body_bytes)
{
    if (is_utf8(body, body_bytes)) {
        (void)fputs("\"text\":", stdout);
        put_json_string(body, body_bytes);
    } else {
        (void)fputs("\"body_base64\":", stdout);
        put_base64(body, body_bytes);
    }
}

/* ---- times */

static void format_time(uint64_t unix_ms, char out[32])
{
    const time_t now = time(NULL);
    const time_t then = (time_t)(unix_ms / 1000);
    struct tm now_tm;
    struct tm then_tm;

    if (localtime_r(&now, &now_tm) == NULL || localtime_r(&then, &then_tm) == NULL) {
        (void)snprintf(out, 32, "?");
        return;
    }

    const bool today = now_tm.tm_yday == then_tm.tm_yday && now_tm.tm_year == then_tm.tm_year;

    if (strftime(out, 32, today ? "%H:%M" : "%Y-%m-%d %H:%M", &then_tm) == 0) {
        out[0] = '\0';
    }
}

static bool flush(void)
{
    return fflush(stdout) == 0 && ferror(stdout) == 0;
}

/* ---- messages */

static bool print_message_json(const struct hf_event *event)
{
    const bool refused = event->kind == HF_EVENT_REFUSED;

    (void)printf("{\"event\":\"%s\",\"seq\":%llu,\"id\":\"%llu\",\"conversation\":\"%llu\","
                 "\"sent_unix_ms\":%llu",
                 refused ? "refused" : "message", (unsigned long long)event->seq,
                 (unsigned long long)event->id, (unsigned long long)event->conversation,
                 (unsigned long long)event->sent_unix_ms);
    if (refused) {
        (void)printf(",\"ref_seq\":%llu,\"code\":%u,\"reason\":\"%s\"}\n",
                     (unsigned long long)event->ref_seq, event->code, event->text);
        return flush();
    }
    (void)printf(",\"sender\":\"%llu\",\"device\":%u,\"own\":%s,\"kind\":%u",
                 (unsigned long long)event->sender, event->device,
                 (event->flags & HF_OWN) != 0 ? "true" : "false", event->message_kind);
    if ((event->flags & HF_UNCOUNTED) == 0) {
        (void)printf(",\"n\":%llu", (unsigned long long)event->n);
    }
    (void)putchar(',');
    put_json_body(event->body, event->body_bytes);
    (void)fputs("}\n", stdout);
    return flush();
}

bool cli_print_message(const struct cli *cli, const struct hf_event *event)
{
    const bool own = (event->flags & HF_OWN) != 0;
    char at[32];

    if (cli->json) {
        return print_message_json(event);
    }
    format_time(event->sent_unix_ms, at);
    if (event->kind == HF_EVENT_REFUSED) {
        (void)printf("%s%s  #%llu to %llu was not taken: %s%s\n", cli->colour ? "\033[31m" : "", at,
                     (unsigned long long)event->ref_seq, (unsigned long long)event->conversation,
                     event->text, cli->colour ? "\033[0m" : "");
        return flush();
    }
    if (cli->colour) {
        (void)printf("\033[2m%s\033[0m  %s", at, own ? "\033[36m" : "\033[1;32m");
    } else {
        (void)printf("%s  ", at);
    }
    if (own) {
        (void)printf("me to %llu", (unsigned long long)event->conversation);
    } else {
        (void)printf("%llu", (unsigned long long)event->sender);
    }
    (void)printf("%s  #%llu  ", cli->colour ? "\033[0m" : "", (unsigned long long)event->seq);
    cli_put_text(event->body, event->body_bytes);
    (void)putchar('\n');
    return flush();
}

bool cli_print_fate(const struct cli *cli, const char *fate, const struct hf_event *event)
{
    if (cli->json) {
        (void)printf("{\"event\":\"%s\",\"tag\":%llu,\"seq\":%llu,\"id\":\"%llu\",\"code\":%u}\n",
                     fate, (unsigned long long)event->tag, (unsigned long long)event->seq,
                     (unsigned long long)event->id, event->code);
    } else if (event->seq != 0) {
        (void)printf("%s%s #%llu%s\n", cli->colour ? "\033[2m" : "",
                     cli->utf8 && cli->terminal ? "\xe2\x9c\x93" : fate,
                     (unsigned long long)event->seq, cli->colour ? "\033[0m" : "");
    } else {
        (void)printf("%s\n", fate);
    }
    return flush();
}

/* ---- conversations and status */

bool cli_print_conversation(const struct cli *cli, const struct hf_conversation *conversation)
{
    struct hf_event newest;
    char at[32];

    /* By the seq of its newest message, which is on disk. */
    const bool found = hf_stored(cli->client, conversation->seq - 1, &newest) == HF_OK &&
                       newest.kind == HF_EVENT_MESSAGE;

    if (cli->json) {
        (void)printf("{\"conversation\":\"%llu\",\"messages\":%llu,\"seq\":%llu,"
                     "\"received_unix_ms\":%llu",
                     (unsigned long long)conversation->conversation,
                     (unsigned long long)conversation->n, (unsigned long long)conversation->seq,
                     (unsigned long long)conversation->received_unix_ms);
        if (found) {
            (void)printf(",\"own\":%s,", (newest.flags & HF_OWN) != 0 ? "true" : "false");
            put_json_body(newest.body, newest.body_bytes);
        }
        (void)fputs("}\n", stdout);
        return flush();
    }
    format_time(found ? newest.sent_unix_ms : conversation->received_unix_ms, at);
    (void)printf("%s%llu%s  ", cli->colour ? "\033[1m" : "",
                 (unsigned long long)conversation->conversation, cli->colour ? "\033[0m" : "");
    if (conversation->n > 0) {
        (void)printf("%llu message%s  ", (unsigned long long)conversation->n,
                     conversation->n == 1 ? "" : "s");
    }
    (void)printf("%s  ", at);
    if (found) {
        size_t shown = newest.body_bytes;

        if (shown > SNIPPET_BYTES) {
            shown = SNIPPET_BYTES;
            while (shown > 0 && (newest.body[shown] & 0xc0) == 0x80) {
                shown--; /* not through a character */
            }
        }
        (void)fputs((newest.flags & HF_OWN) != 0 ? "me: " : "", stdout);
        cli_put_text(newest.body, shown);
        (void)fputs(shown < newest.body_bytes ? "...\n" : "\n", stdout);
    } else {
        (void)putchar('\n');
    }
    return flush();
}

static const char *const unsent_words[] = { "waiting", "accepted", "rejected", "unknown fate" };

static void print_unsent(const struct cli *cli, const struct hf_unsent *unsent, size_t index)
{
    if (cli->json) {
        (void)printf("%s{\"tag\":%llu,\"conversation\":\"%llu\",\"status\":\"%s\",\"code\":%u,",
                     index > 0 ? "," : "", (unsigned long long)unsent->tag,
                     (unsigned long long)unsent->conversation, unsent_words[unsent->status],
                     unsent->code);
        put_json_body(unsent->body, unsent->body_bytes);
        (void)putchar('}');
        return;
    }
    (void)printf("  %s to %llu: ", unsent_words[unsent->status],
                 (unsigned long long)unsent->conversation);
    cli_put_text(unsent->body, unsent->body_bytes < 60 ? unsent->body_bytes : 60);
    (void)printf("%s%s\n", unsent->code != 0 ? " - " : "", hf_code_text(unsent->code));
}

bool cli_print_status(const struct cli *cli)
{
    struct hf_status status;
    struct hf_unsent unsent;

    hf_status(cli->client, &status);
    if (cli->json) {
        (void)printf("{\"server\":\"%s\",\"user\":\"%llu\",\"device\":%u,\"epoch\":%llu,"
                     "\"seq\":%llu,\"seen_seq\":%llu,\"stored\":%llu,\"unsent\":[",
                     status.server, (unsigned long long)status.user, status.device,
                     (unsigned long long)status.epoch, (unsigned long long)status.seq,
                     (unsigned long long)status.seen_seq, (unsigned long long)status.stored);
    } else {
        (void)printf("user %llu, device %u, at %s\n", (unsigned long long)status.user,
                     status.device, status.server);
        (void)printf("%llu messages and notices on disk, up to #%llu, seen up to #%llu\n",
                     (unsigned long long)status.stored, (unsigned long long)status.seq,
                     (unsigned long long)status.seen_seq);
        (void)printf("%llu waiting to be sent\n", (unsigned long long)status.waiting);
    }
    for (size_t i = 0; hf_unsent(cli->client, i, &unsent) == HF_OK; i++) {
        print_unsent(cli, &unsent, i);
    }
    (void)fputs(cli->json ? "]}\n" : "", stdout);
    return flush();
}

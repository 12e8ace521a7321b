#include "tests/conformance/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { WORDS_MAX = 16 };

struct client_failure client_failure;

static int client_socket = -1;

void client_give_up(const char *why)
{
    (void)fprintf(stderr, "%s\n", why);
    exit(1);
}

void client_hex(const uint8_t *bytes, size_t byte_count, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t at = 0; at < byte_count; at++) {
        *out++ = digits[bytes[at] >> 4];
        *out++ = digits[bytes[at] & 15];
    }
    *out = 0;
}

void client_garble(uint8_t *session, size_t session_bytes, const uint8_t *ticket,
                   size_t ticket_bytes, long at)
{
    uint8_t *found = memmem(session, session_bytes, ticket, ticket_bytes);
    const long place = at < 0 ? (long)ticket_bytes + at : at;

    if (found == NULL || place < 0 || (size_t)place >= ticket_bytes) {
        client_give_up("garble: the ticket has no such byte");
    }
    found[place] ^= 1;
}

static uint8_t digit_value(char digit)
{
    const char *const digits = "0123456789abcdef";
    const char *found = digit == 0 ? NULL : strchr(digits, digit);

    if (found == NULL) {
        client_give_up("write: not hexadecimal");
    }
    return (uint8_t)(found - digits);
}

static size_t from_hex(const char *text, uint8_t *out, size_t capacity)
{
    const size_t byte_count = strlen(text) / 2;

    if (byte_count > capacity) {
        client_give_up("write: too much");
    }
    for (size_t at = 0; at < byte_count; at++) {
        out[at] = (uint8_t)(digit_value(text[2 * at]) << 4 | digit_value(text[2 * at + 1]));
    }
    return byte_count;
}

static long number_of(const char *text)
{
    char *end;
    const long number = strtol(text, &end, 10);

    if (end == text || *end != 0) {
        client_give_up("not a number");
    }
    return number;
}

static int dial(const char *host, const char *port)
{
    const struct timeval timeout = { .tv_sec = CLIENT_TIMEOUT_S };
    const int on = 1;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)number_of(port)) };
    const int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || made < 0 ||
        setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0 ||
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        connect(made, (const struct sockaddr *)&address, sizeof address) != 0) {
        client_give_up("connect: nobody is there");
    }
    return made;
}

static void say_result(enum client_result result)
{
    switch (result) {
    case CLIENT_OK:
        puts("ok");
        return;
    case CLIENT_CLOSED:
        puts("closed");
        return;
    case CLIENT_END:
        puts("end");
        return;
    case CLIENT_ALERT:
        printf("alert %d\n", client_failure.alert);
        return;
    case CLIENT_FAILED:
        printf("failed %s\n", client_failure.text);
        return;
    }
}

static void read_option(struct client_options *options, const char *key, const char *value)
{
    if (strcmp(key, "ca") == 0) {
        options->ca = value;
    } else if (strcmp(key, "alpn") == 0) {
        options->alpn = value;
    } else if (strcmp(key, "sni") == 0) {
        options->sni = value;
    } else if (strcmp(key, "suite") == 0) {
        options->suite = value;
    } else if (strcmp(key, "tls12") == 0) {
        options->tls12 = true;
    } else if (strcmp(key, "groups") == 0) {
        options->retry = true;
    } else if (strcmp(key, "resume") == 0) {
        options->resume = true;
    } else if (strcmp(key, "modes") == 0) {
        options->psk_ke = true;
    } else if (strcmp(key, "garble") == 0) {
        options->garbled = true;
        options->garble = number_of(value);
    } else {
        client_give_up("connect: no such key");
    }
}

static void drop(void)
{
    if (client_socket >= 0) {
        library_drop();
        (void)close(client_socket);
        client_socket = -1;
    }
}

static void command_connect(char **words, int word_count)
{
    struct client_options options = { 0 };
    struct client_connected connected = { 0 };
    static const char *const optional[] = { "suite", "modes", "groups" };

    for (int word = 3; word < word_count; word++) {
        char *value = strchr(words[word], '=');

        if (value == NULL) {
            client_give_up("connect: a key without a value");
        }
        *value++ = 0;
        for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) {
            if (strcmp(words[word], optional[i]) == 0 && !library_can(optional[i])) {
                printf("unsupported %s\n", optional[i]);
                return;
            }
        }
        read_option(&options, words[word], value);
    }
    drop();
    client_socket = dial(words[1], words[2]);
    client_failure = (struct client_failure){ .alert = CLIENT_NO_ALERT };
    switch (library_connect(client_socket, &options, &connected)) {
    case CLIENT_OK:
        printf("connected resumed=%d hellos=%d alpn=%s certificate=%s\n", connected.resumed,
               connected.hellos, connected.alpn, connected.certificate);
        return;
    case CLIENT_ALERT:
        printf("refused alert=%d\n", client_failure.alert);
        break;
    case CLIENT_CLOSED:
    case CLIENT_END:
    case CLIENT_FAILED:
        printf("refused %s\n", client_failure.text);
        break;
    }
    drop();
}

static void command_read(void)
{
    static uint8_t bytes[CLIENT_BYTES_MAX];
    static char text[2 * CLIENT_BYTES_MAX + 1];
    size_t byte_count = 0;
    const enum client_result result = library_read(bytes, sizeof bytes, &byte_count);

    if (result != CLIENT_OK) {
        say_result(result);
        return;
    }
    client_hex(bytes, byte_count, text);
    printf("data %s\n", text);
}

static void command_write(const char *text)
{
    static uint8_t bytes[CLIENT_BYTES_MAX];
    const size_t byte_count = from_hex(text, bytes, sizeof bytes);

    say_result(library_write(bytes, byte_count));
}

static void obey(char **words, int word_count)
{
    const char *command = words[0];

    if (strcmp(command, "connect") == 0 && word_count >= 3) {
        command_connect(words, word_count);
        return;
    }
    if (client_socket < 0) {
        client_give_up("there is no connection");
    }
    if ((strcmp(command, "update") == 0 || strcmp(command, "pad") == 0) && !library_can(command)) {
        printf("unsupported %s\n", command);
    } else if (strcmp(command, "write") == 0 && word_count == 2) {
        command_write(words[1]);
    } else if (strcmp(command, "read") == 0) {
        command_read();
    } else if (strcmp(command, "update") == 0 && word_count == 2) {
        say_result(library_update(words[1][0] == '1'));
    } else if (strcmp(command, "pad") == 0 && word_count == 2) {
        library_pad((size_t)number_of(words[1]));
        puts("ok");
    } else if (strcmp(command, "close") == 0) {
        say_result(library_close());
    } else if (strcmp(command, "fin") == 0) {
        (void)shutdown(client_socket, SHUT_WR);
        puts("ok");
    } else if (strcmp(command, "drop") == 0) {
        drop();
        puts("ok");
    } else {
        client_give_up("no such command");
    }
}

int main(void)
{
    const struct sigaction ignore = { .sa_handler = SIG_IGN };
    char *line = NULL;
    size_t capacity = 0;

    (void)sigaction(SIGPIPE, &ignore, NULL); /* a library may write to what has ended */
    while (getline(&line, &capacity, stdin) > 0) {
        char *words[WORDS_MAX];
        char *rest = line;
        int word_count = 0;

        for (char *word; word_count < WORDS_MAX && (word = strtok_r(rest, " \n", &rest)) != NULL;) {
            words[word_count++] = word;
        }
        if (word_count > 0) {
            obey(words, word_count);
            (void)fflush(stdout);
        }
    }
    drop();
    free(line);
    return 0;
}

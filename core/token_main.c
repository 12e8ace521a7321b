/*
 * holdfast-token: makes keys, log-in tokens, and certificates for development; shows what a token
 * says. In production an identity service signs the tokens; this stands in for it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/tls/devcert.h"
#include "core/tls/handshake.h"
#include "core/token/base64url.h"
#include "core/token/json.h"
#include "core/token/keys.h"
#include "core/token/private_file.h"
#include "core/token/token.h"

#define NAMES_MAX      16
#define PATH_BYTES_MAX 4096
#define COUNT_MAX      100000000

static const char help_text[] =
    "usage: holdfast-token keys new --alg ES256|HS256 --kid NAME --out FILE [--public FILE]\n"
    "       holdfast-token issue --key FILE --kid NAME --user ID [--device ID] [--ttl TIME]\n"
    "                            [--audience NAME] [--count N]\n"
    "       holdfast-token show [--key FILE [--audience NAME]] [--json] TOKEN | -\n"
    "       holdfast-token cert --ca-dir DIR --name NAME [--name NAME]... [--days N]\n"
    "       holdfast-token --help | --version\n"
    "\n"
    "Makes what a Holdfast server and its clients need to know each other.\n"
    "\n"
    "keys new   adds a key to a JSON Web Key Set, mode 0600\n"
    "  --alg ALG        ES256: the server gets the public half. HS256: a secret that both share\n"
    "  --kid NAME       what tokens call the key by\n"
    "  --out FILE       the issuer's set; made if it isn't there\n"
    "  --public FILE    with ES256: the server's set, which gets the public half\n"
    "\n"
    "issue      prints log-in tokens, one a line\n"
    "  --key FILE       the issuer's set\n"
    "  --kid NAME       the key to sign with\n"
    "  --user ID        a number from 1 to 9223372036854775807\n"
    "  --device ID      a number from 1 to 4294967295 (default 1)\n"
    "  --ttl TIME       how long a token is good: 90s, 15m, 1h, 7d (default 1h)\n"
    "  --audience NAME  the service it is for (aud), if the server asks for one\n"
    "  --count N        that many, for users ID, ID + 1, ... (--first-user is another name\n"
    "                   of --user)\n"
    "\n"
    "show       decodes a token; with --key also verifies it, by this machine's clock\n"
    "  --key FILE       the server's set or the issuer's\n"
    "  --audience NAME  the service that verifies\n"
    "  --json           one JSON object\n"
    "  -                reads the token from standard input, where other users can't see it\n"
    "\n"
    "cert       makes ca.pem, ca-key.pem, server.pem and server-key.pem, for development\n"
    "  --ca-dir DIR     where; made if it isn't there\n"
    "  --name NAME      host name or IP address of the server, up to 16 (localhost if no host\n"
    "                   name is given)\n"
    "  --days N         how long they are good (default 365)\n"
    "\n"
    "Exit codes are those of sysexits.h: 64 wrong usage, 65 a bad token or file, and so on.\n";

struct arguments {
    const char *alg;
    const char *kid;
    const char *out;
    const char *public_out;
    const char *key;
    const char *user;
    const char *device;
    const char *ttl;
    const char *audience;
    const char *count;
    const char *ca_dir;
    const char *days;
    const char *names[NAMES_MAX];
    size_t name_count;
    const char *json; /* not NULL: given */
    const char *help;
    const char *rest; /* the one argument that isn't an option */
};

enum command {
    KEYS_NEW = 1,
    ISSUE = 2,
    SHOW = 4,
    CERT = 8,
};

static const struct {
    const char *name;
    unsigned commands; /* that have it */
    int has_argument;
    size_t place; /* in struct arguments */
} option_table[] = {
    { "alg", KEYS_NEW, required_argument, offsetof(struct arguments, alg) },
    { "kid", KEYS_NEW | ISSUE, required_argument, offsetof(struct arguments, kid) },
    { "out", KEYS_NEW, required_argument, offsetof(struct arguments, out) },
    { "public", KEYS_NEW, required_argument, offsetof(struct arguments, public_out) },
    { "key", ISSUE | SHOW, required_argument, offsetof(struct arguments, key) },
    { "user", ISSUE, required_argument, offsetof(struct arguments, user) },
    { "first-user", ISSUE, required_argument, offsetof(struct arguments, user) },
    { "device", ISSUE, required_argument, offsetof(struct arguments, device) },
    { "ttl", ISSUE, required_argument, offsetof(struct arguments, ttl) },
    { "audience", ISSUE | SHOW, required_argument, offsetof(struct arguments, audience) },
    { "count", ISSUE, required_argument, offsetof(struct arguments, count) },
    { "json", SHOW, no_argument, offsetof(struct arguments, json) },
    { "ca-dir", CERT, required_argument, offsetof(struct arguments, ca_dir) },
    { "name", CERT, required_argument, offsetof(struct arguments, names) },
    { "days", CERT, required_argument, offsetof(struct arguments, days) },
    { "help", KEYS_NEW | ISSUE | SHOW | CERT, no_argument, offsetof(struct arguments, help) },
};

#define OPTION_COUNT (sizeof option_table / sizeof option_table[0])

static int fail(const struct hf_error *error)
{
    (void)fprintf(stderr, "holdfast-token: %s\n", error->text);
    return error->exit_code;
}

static int fail_usage(const char *what)
{
    (void)fprintf(stderr, "holdfast-token: %s (try --help)\n", what);
    return EX_USAGE;
}

/* Decimal digits alone, from `min` to `max`. */
static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
    char *end;

    if (text[0] < '0' || text[0] > '9') {
        return false; /* strtoull takes signs and spaces */
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *number >= min && *number <= max;
}

static bool parse_ttl(const char *text, uint64_t *seconds)
{
    static const struct {
        char letter;
        uint64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    const size_t count = strlen(text);
    char digits[16];

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (count > 1 && count <= sizeof digits && text[count - 1] == units[i].letter) {
            memcpy(digits, text, count - 1);
            digits[count - 1] = '\0';
            if (!parse_number(digits, 1, 3650 * UINT64_C(86400) / units[i].seconds, seconds)) {
                return false;
            }
            *seconds *= units[i].seconds;
            return true;
        }
    }
    return false;
}

/* ---- keys new */

/* The set in the file, or an empty one if there is no file. */
static bool open_or_new(struct token_keys **keys, const char *path, struct hf_error *error)
{
    if (!token_keys_open(keys, path, TOKEN_KEYS_SIGN, error)) {
        if (error->exit_code != EX_NOINPUT) {
            return false;
        }
        *keys = token_keys_new();
        if (*keys == NULL) {
            hf_error_set(error, EX_OSERR, ENOMEM, "%s", path);
            return false;
        }
    }
    if ((*keys)->skipped_count > 0) {
        hf_error_set(error, EX_DATAERR, 0,
                     "%s: holds keys of other kinds, which writing it anew would lose", path);
        token_keys_close(*keys);
        *keys = NULL;
        return false;
    }
    return true;
}

/* `made` is the set with the new key as its last; NULL: make the key here. */
static bool add_to_file(const char *path, enum token_alg alg, const char *kid,
                        const struct token_key *made, struct token_keys **keys,
                        struct hf_error *error)
{
    const int lock = private_file_lock(path, error);
    bool good;

    *keys = NULL;
    if (lock < 0) {
        return false;
    }
    good = open_or_new(keys, path, error);
    if (good) {
        good = made == NULL ? token_keys_add(*keys, alg, kid, error)
                            : token_keys_add_verifier(*keys, made, error);
        if (!good) {
            hf_error_prepend(error, "%s", path);
        }
    }
    good = good && token_keys_write(*keys, path, error);
    (void)close(lock);
    return good;
}

/* So that the one file isn't changed if the other can't be. */
static bool kid_is_free(const char *path, const char *kid, struct hf_error *error)
{
    struct token_keys *keys;

    if (!open_or_new(&keys, path, error)) {
        return false;
    }
    const bool is_free = token_keys_find(keys, kid, strlen(kid)) == NULL;
    token_keys_close(keys);
    if (!is_free) {
        hf_error_set(error, EX_DATAERR, 0, "%s: there is a key with kid \"%s\" already", path, kid);
    }
    return is_free;
}

static int run_keys_new(const struct arguments *arguments)
{
    struct token_keys *keys = NULL;
    struct token_keys *public_keys = NULL;
    struct hf_error error;
    enum token_alg alg;
    bool good;

    if (arguments->alg == NULL || arguments->kid == NULL || arguments->out == NULL) {
        return fail_usage("keys new needs --alg, --kid and --out");
    }
    if (strcmp(arguments->alg, "ES256") == 0) {
        alg = TOKEN_ALG_ES256;
    } else if (strcmp(arguments->alg, "HS256") == 0) {
        alg = TOKEN_ALG_HS256;
    } else {
        return fail_usage("--alg is ES256 or HS256");
    }
    if (arguments->public_out != NULL && alg == TOKEN_ALG_HS256) {
        return fail_usage("an HS256 key has no public half: give the server the file of --out");
    }

    good =
        arguments->public_out == NULL || kid_is_free(arguments->public_out, arguments->kid, &error);
    good = good && add_to_file(arguments->out, alg, arguments->kid, NULL, &keys, &error);
    if (good) {
        (void)printf("%s: added %s key \"%s\"\n", arguments->out, arguments->alg, arguments->kid);
    }
    if (good && arguments->public_out != NULL) {
        good = add_to_file(arguments->public_out, alg, arguments->kid, keys->keys[keys->count - 1],
                           &public_keys, &error);
        if (good) {
            (void)printf("%s: added its public half\n", arguments->public_out);
        }
    }
    token_keys_close(keys);
    token_keys_close(public_keys);
    return good ? EX_OK : fail(&error);
}

/* ---- issue */

static int issue_all(const struct token_key *key, struct token_claims claims, uint64_t count,
                     const char *audience)
{
    char token[TOKEN_JWT_BYTES_MAX];
    size_t byte_count;

    for (; count > 0; count--, claims.user.value++) {
        const enum token_status status =
            token_sign(key, &claims, audience, token, sizeof token, &byte_count);
        if (status != TOKEN_OK) {
            (void)fprintf(stderr, "holdfast-token: kid \"%s\": %s\n", key->kid,
                          token_status_text(status));
            return status == TOKEN_CANNOT_SIGN ? EX_DATAERR : EX_OSERR;
        }
        (void)printf("%.*s\n", (int)byte_count, token);
        if (ferror(stdout)) {
            break; /* finish says why */
        }
    }
    return EX_OK;
}

static int run_issue(const struct arguments *arguments)
{
    struct token_claims claims = { .issued_at_unix_s = (uint64_t)time(NULL) };
    uint64_t device = 1;
    uint64_t ttl_s = 3600;
    uint64_t count = 1;
    struct token_keys *keys;
    struct hf_error error;

    if (arguments->key == NULL || arguments->kid == NULL || arguments->user == NULL) {
        return fail_usage("issue needs --key, --kid and --user");
    }
    if (arguments->count != NULL && !parse_number(arguments->count, 1, COUNT_MAX, &count)) {
        return fail_usage("--count is a number from 1 to 100000000");
    }
    if (!parse_number(arguments->user, 1, ID_GROUP_BIT - count, &claims.user.value)) {
        return fail_usage("--user is a number from 1 to 9223372036854775807");
    }
    if (arguments->device != NULL && !parse_number(arguments->device, 1, UINT32_MAX, &device)) {
        return fail_usage("--device is a number from 1 to 4294967295");
    }
    if (arguments->ttl != NULL && !parse_ttl(arguments->ttl, &ttl_s)) {
        return fail_usage("--ttl is a number with s, m, h or d behind, ten years at most");
    }
    if (arguments->audience != NULL && !token_audience_is_plain(arguments->audience)) {
        return fail_usage("--audience is printable ASCII without quotes and backslashes");
    }
    claims.device.value = (uint32_t)device;
    claims.expires_at_unix_s = claims.issued_at_unix_s + ttl_s;

    if (!token_keys_open(&keys, arguments->key, TOKEN_KEYS_SIGN, &error)) {
        return fail(&error);
    }
    const struct token_key *key = token_keys_find(keys, arguments->kid, strlen(arguments->kid));
    int exit_code;
    if (key == NULL) {
        hf_error_set(&error, EX_DATAERR, 0, "%s: no key with kid \"%s\"", arguments->key,
                     arguments->kid);
        exit_code = fail(&error);
    } else {
        exit_code = issue_all(key, claims, count, arguments->audience);
    }
    token_keys_close(keys);
    return exit_code;
}

/* ---- show */

/* One part's text, NUL-terminated, if it is a JSON object. White space within becomes spaces. */
static bool decode_part(const char *part, size_t part_bytes, char text[TOKEN_JWT_BYTES_MAX + 1],
                        struct json_object *object, char room[TOKEN_JWT_BYTES_MAX])
{
    size_t byte_count;

    if (!base64url_decode(text, TOKEN_JWT_BYTES_MAX, &byte_count, part, part_bytes)) {
        return false;
    }
    text[byte_count] = '\0';
    memcpy(room, text, byte_count);
    if (!json_read_object(object, room, byte_count)) {
        return false;
    }
    for (size_t i = 0; i < byte_count; i++) {
        if ((unsigned char)text[i] < ' ') {
            text[i] = ' '; /* JSON has such bytes only between its words */
        }
    }
    return true;
}

/* What a stranger wrote mustn't steer the terminal: bytes beyond ASCII are shown as numbers. */
static void print_plain(const char *label, const char *text)
{
    (void)printf("%-9s ", label);
    for (; *text != '\0'; text++) {
        if (*text >= ' ' && *text <= '~') {
            (void)putchar(*text);
        } else {
            (void)printf("\\x%02x", (unsigned char)*text);
        }
    }
    (void)putchar('\n');
}

static void print_time(const char *label, const struct json_object *claims, const char *name)
{
    const struct json_value *value = json_find(claims, name);
    uint64_t unix_s;
    struct tm parts;
    char text[64];

    if (value != NULL && json_to_seconds(value, &unix_s)) {
        const time_t at = (time_t)unix_s;
        if (gmtime_r(&at, &parts) != NULL &&
            strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) > 0) {
            print_plain(label, text);
        }
    }
}

static int print_token(const struct arguments *arguments, const char *token, size_t byte_count,
                       enum token_status status)
{
    static char header_text[TOKEN_JWT_BYTES_MAX + 1];
    static char claims_text[TOKEN_JWT_BYTES_MAX + 1];
    static char room[TOKEN_JWT_BYTES_MAX];
    static struct json_object header;
    static struct json_object claims;
    const char *dot = memchr(token, '.', byte_count);
    const char *second =
        dot == NULL ? NULL : memchr(dot + 1, '.', byte_count - (size_t)(dot + 1 - token));
    const bool checked = arguments->key != NULL;
    const int exit_code = checked && status != TOKEN_OK ? EX_DATAERR : EX_OK;

    if (byte_count > TOKEN_JWT_BYTES_MAX || second == NULL ||
        !decode_part(token, (size_t)(dot - token), header_text, &header, room) ||
        !decode_part(dot + 1, (size_t)(second - (dot + 1)), claims_text, &claims, room)) {
        (void)fprintf(stderr, "holdfast-token: not a JSON Web Token\n");
        return EX_DATAERR;
    }
    if (arguments->json != NULL) {
        (void)printf("{\"header\":%s,\"claims\":%s,\"status\":", header_text, claims_text);
        if (checked) {
            (void)printf("\"%s\",\"text\":\"%s\"}\n", token_status_label(status),
                         token_status_text(status));
        } else {
            (void)printf("null,\"text\":\"not verified\"}\n");
        }
        return exit_code;
    }
    print_plain("header", header_text);
    print_plain("claims", claims_text);
    print_time("issued", &claims, "iat");
    print_time("from", &claims, "nbf");
    print_time("expires", &claims, "exp");
    print_plain("verified", !checked             ? "no: give --key FILE"
                            : status == TOKEN_OK ? "yes"
                                                 : token_status_text(status));
    return exit_code;
}

static int run_show(const struct arguments *arguments)
{
    static char input[TOKEN_JWT_BYTES_MAX + 2]; /* one more and a new line: too long is seen */
    const char *token = arguments->rest;
    enum token_status status = TOKEN_OK;

    if (token == NULL) {
        return fail_usage("show needs a token, or - to read it from standard input");
    }
    if (strcmp(token, "-") == 0) {
        if (fgets(input, sizeof input, stdin) == NULL) {
            return fail_usage("nothing on standard input");
        }
        input[strcspn(input, "\r\n")] = '\0';
        token = input;
    }
    if (arguments->key != NULL) {
        const struct token_rules rules = {
            .now_unix_s = (uint64_t)time(NULL),
            .audience = arguments->audience,
        };
        struct token_claims claims;
        struct token_keys *keys;
        struct hf_error error;

        if (!token_keys_open(&keys, arguments->key, TOKEN_KEYS_SIGN, &error)) {
            return fail(&error);
        }
        status = token_verify(keys, &rules, token, strlen(token), &claims);
        token_keys_close(keys);
    }
    return print_token(arguments, token, strlen(token), status);
}

/* ---- cert */

static bool write_public(const char *path, const void *bytes, size_t byte_count,
                         struct hf_error *error)
{
    FILE *file = fopen(path, "wx");

    if (file == NULL) {
        hf_error_set(error, EX_CANTCREAT, errno, "%s", path);
        return false;
    }
    const bool written = fwrite(bytes, 1, byte_count, file) == byte_count;
    const bool closed = fclose(file) == 0;
    if (!written || !closed) {
        hf_error_set(error, EX_IOERR, errno, "%s: write", path);
        return false;
    }
    return true;
}

/* The keys first: a certificate whose key is missing is no use to anyone. */
static bool write_certificates(const char *dir, const struct devcert *made, struct hf_error *error)
{
    const struct {
        const char *name;
        const struct tls_pem *pem;
        bool is_private;
    } files[] = {
        { "ca-key.pem", &made->ca_key, true },
        { "server-key.pem", &made->key, true },
        { "ca.pem", &made->ca_certificate, false },
        { "server.pem", &made->certificate, false },
    };
    const size_t file_count = sizeof files / sizeof files[0];
    char path[PATH_BYTES_MAX];

    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < file_count; i++) {
            const size_t byte_count = files[i].pem->byte_count - 1; /* its NUL stays here */

            if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, files[i].name) >= sizeof path) {
                hf_error_set(error, EX_CANTCREAT, ENAMETOOLONG, "%s", dir);
                return false;
            }
            if (pass == 0 && access(path, F_OK) == 0) {
                hf_error_set(error, EX_CANTCREAT, 0,
                             "%s is there already: remove it, or choose another directory", path);
                return false;
            }
            if (pass == 1 &&
                !(files[i].is_private
                      ? private_file_replace(path, files[i].pem->bytes, byte_count, error)
                      : write_public(path, files[i].pem->bytes, byte_count, error))) {
                return false;
            }
        }
    }
    return true;
}

static bool parse_address(const char *text, struct devcert_address *address)
{
    if (inet_pton(AF_INET, text, address->bytes) == 1) {
        address->byte_count = 4;
        return true;
    }
    address->byte_count = 16;
    return inet_pton(AF_INET6, text, address->bytes) == 1;
}

static int run_cert(const struct arguments *arguments)
{
    struct devcert_address addresses[NAMES_MAX];
    const char *names[NAMES_MAX] = { "localhost" }; /* a certificate has one at least */
    struct devcert_options options = {
        .ca_name = "Holdfast development CA",
        .names = names,
        .addresses = addresses,
        .now_unix_ms = (uint64_t)time(NULL) * 1000,
    };
    uint64_t days = 365;
    struct devcert made;
    struct hf_error error;

    if (arguments->ca_dir == NULL || arguments->name_count == 0) {
        return fail_usage("cert needs --ca-dir, and --name once or more");
    }
    if (arguments->days != NULL && !parse_number(arguments->days, 1, 3650, &days)) {
        return fail_usage("--days is a number from 1 to 3650");
    }
    options.days = (uint32_t)days;
    for (size_t i = 0; i < arguments->name_count; i++) {
        if (parse_address(arguments->names[i], &addresses[options.address_count])) {
            options.address_count++;
        } else {
            names[options.name_count++] = arguments->names[i];
        }
    }
    options.name_count += options.name_count == 0;
    if (mkdir(arguments->ca_dir, 0755) != 0 && errno != EEXIST) {
        hf_error_set(&error, EX_CANTCREAT, errno, "%s", arguments->ca_dir);
        return fail(&error);
    }
    if (tls_global_init(&error) != 0 || devcert_make(&made, &options, &error) != 0) {
        return fail(&error);
    }
    const bool good = write_certificates(arguments->ca_dir, &made, &error);
    devcert_free(&made);
    if (!good) {
        return fail(&error);
    }
    (void)printf("%s: made ca.pem, ca-key.pem, server.pem and server-key.pem\n", arguments->ca_dir);
    return EX_OK;
}

/* ---- the command line */

static bool take_option(struct arguments *arguments, size_t place)
{
    const char **to = (const char **)(void *)((char *)arguments + place);

    if (to == arguments->names && arguments->name_count < NAMES_MAX) {
        to += arguments->name_count++;
    }
    if (*to != NULL) {
        return false;
    }
    *to = optarg != NULL ? optarg : "";
    return true;
}

static int run_command(int argument_count, char **texts, enum command command,
                       int (*run)(const struct arguments *))
{
    struct arguments arguments = { 0 };
    struct option wanted[OPTION_COUNT + 1] = { 0 };
    size_t count = 0;
    int option;

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if ((option_table[i].commands & command) != 0) {
            wanted[count].name = option_table[i].name;
            wanted[count].has_arg = option_table[i].has_argument;
            wanted[count++].val = 256 + (int)i;
        }
    }
    while ((option = getopt_long(argument_count, texts, "", wanted, NULL)) != -1) {
        if (option < 256) {
            return EX_USAGE; /* getopt has said why */
        }
        if (!take_option(&arguments, option_table[option - 256].place)) {
            return fail_usage("an option is given too often");
        }
    }
    if (arguments.help != NULL) {
        (void)fputs(help_text, stdout);
        return EX_OK;
    }
    if (optind < argument_count && command == SHOW) {
        arguments.rest = texts[optind++];
    }
    if (optind < argument_count) {
        return fail_usage("an argument too many");
    }
    return run(&arguments);
}

static int dispatch(int argument_count, char **texts)
{
    static char program[] = "holdfast-token"; /* what getopt calls us, whatever the command */
    const char *command = argument_count > 1 ? texts[1] : "";
    const int rest_count = argument_count - 1;
    char **rest = texts + 1;

    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        (void)fputs(help_text, stdout);
        return EX_OK;
    }
    if (strcmp(command, "--version") == 0) {
        struct hf_error error;

        if (tls_global_init(&error) != 0) { /* mbedTLS's version is known from then on */
            return fail(&error);
        }
        (void)printf("holdfast-token %s (%s)\n", HOLDFAST_VERSION, tls_library_version());
        return EX_OK;
    }
    if (strcmp(command, "keys") == 0 && rest_count > 1 && strcmp(rest[1], "new") == 0) {
        rest[1] = program;
        return run_command(rest_count - 1, rest + 1, KEYS_NEW, run_keys_new);
    }
    if (rest_count > 0) {
        rest[0] = program;
    }
    if (strcmp(command, "issue") == 0) {
        return run_command(rest_count, rest, ISSUE, run_issue);
    }
    if (strcmp(command, "show") == 0) {
        return run_command(rest_count, rest, SHOW, run_show);
    }
    if (strcmp(command, "cert") == 0) {
        return run_command(rest_count, rest, CERT, run_cert);
    }
    return fail_usage("the command is keys new, issue, show or cert");
}

int main(int argument_count, char **texts)
{
    int exit_code = dispatch(argument_count, texts);

    /* A full disk or a closed pipe must not look like success. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && exit_code == EX_OK) {
        struct hf_error error;

        hf_error_set(&error, EX_IOERR, errno, "standard output");
        exit_code = fail(&error);
    }
    return exit_code;
}

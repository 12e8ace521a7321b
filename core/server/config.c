#include "core/server/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "core/server/config_table.h"
#include "core/server/listen.h"
#include "core/server/log.h"
#include "core/server/networks.h"

#define LINE_BYTES_MAX 2048

/* Where a setting comes from, for messages: "holdfast.conf:12", "HOLDFAST_CORES", "--cores". */
struct origin {
    const char *text;
    uint32_t line; /* 0: none */
    int exit_code;
};

static void refuse(struct hf_error *error, const struct origin *origin, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse(struct hf_error *error, const struct origin *origin, const char *format, ...)
{
    char text[HF_ERROR_TEXT_BYTES];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    hf_error_set(error, origin->exit_code, 0, "%s", text);
    if (origin->line != 0) {
        hf_error_prepend(error, "%s:%u", origin->text, origin->line);
    } else {
        hf_error_prepend(error, "%s", origin->text);
    }
}

void config_init(struct config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];

        switch (key->type) {
        case CONFIG_NUMBER:
            *config_number(config, key) = key->number;
            break;
        case CONFIG_TEXT:
            (void)snprintf(config_text(config, key), CONFIG_TEXT_BYTES_MAX, "%s", key->text);
            break;
        case CONFIG_FLAG:
            *config_flag(config, key) = key->flag;
            break;
        }
    }
}

/* ---- values */

static bool multiply(uint64_t *number, unsigned shift)
{
    if (*number > UINT64_MAX >> shift) {
        return false;
    }
    *number <<= shift;
    return true;
}

/* Digits, and for bytes one of k, M, G, T. */
static bool parse_number(const struct config_key *key, const char *text, uint64_t *number)
{
    char *end;

    if (!isdigit((unsigned char)text[0])) {
        return false; /* strtoull takes signs and spaces */
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    if (*end == '\0') {
        return true;
    }
    if (end[1] != '\0' || strcmp(key->unit, "bytes") != 0) {
        return false;
    }
    switch (*end) {
    case 'k':
    case 'K':
        return multiply(number, 10);
    case 'M':
        return multiply(number, 20);
    case 'G':
        return multiply(number, 30);
    case 'T':
        return multiply(number, 40);
    default:
        return false;
    }
}

static bool parse_flag(const char *text, bool *flag)
{
    static const char *const yes[] = { "true", "yes", "on", "1" };
    static const char *const no[] = { "false", "no", "off", "0" };

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *flag = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f || *text == '"') {
            return false;
        }
    }
    return true;
}

static bool set_number(struct config *config, const struct config_key *key, const char *value,
                       const struct origin *origin, struct hf_error *error)
{
    const char *suffix = strcmp(key->unit, "bytes") == 0 ? " (or with k, M, G, T behind it)" : "";
    uint64_t number;

    if (!parse_number(key, value, &number)) {
        refuse(error, origin, "%s = %.64s: not a number%s", key->name, value, suffix);
        return false;
    }
    if (number < key->min || number > key->max) {
        refuse(error, origin, "%s = %.64s: must be from %" PRIu64 " to %" PRIu64 "%s%s", key->name,
               value, key->min, key->max, key->unit[0] == '\0' ? "" : " ", key->unit);
        return false;
    }
    *config_number(config, key) = number;
    return true;
}

static bool set_value(struct config *config, const struct config_key *key, const char *value,
                      const struct origin *origin, struct hf_error *error)
{
    switch (key->type) {
    case CONFIG_NUMBER:
        return set_number(config, key, value, origin, error);
    case CONFIG_TEXT:
        if (strlen(value) >= CONFIG_TEXT_BYTES_MAX) {
            refuse(error, origin, "%s: longer than %d bytes", key->name, CONFIG_TEXT_BYTES_MAX - 1);
            return false;
        }
        if (!is_printable(value)) {
            refuse(error, origin, "%s: has a control character or a quote", key->name);
            return false;
        }
        (void)snprintf(config_text(config, key), CONFIG_TEXT_BYTES_MAX, "%s", value);
        return true;
    case CONFIG_FLAG:
        if (!parse_flag(value, config_flag(config, key))) {
            refuse(error, origin, "%s = %.64s: must be true or false", key->name, value);
            return false;
        }
        return true;
    }
    HF_ASSERT(false);
    return false;
}

static const struct config_key *find_key(const char *name, size_t name_bytes)
{
    for (size_t i = 0; i < config_key_count; i++) {
        if (strlen(config_keys[i].name) == name_bytes &&
            memcmp(config_keys[i].name, name, name_bytes) == 0) {
            return &config_keys[i];
        }
    }
    return NULL;
}

/* ---- the file */

static char *skip_spaces(char *text)
{
    return text + strspn(text, " \t");
}

static void cut_spaces(char *text)
{
    size_t length = strlen(text);

    while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL) {
        text[--length] = '\0';
    }
}

/* Takes a comment off; NULL: a quote isn't closed, or something stands behind it. */
static char *parse_value(char *text)
{
    if (text[0] == '"') {
        char *end = strchr(text + 1, '"');

        if (end == NULL) {
            return NULL;
        }
        char *behind = skip_spaces(end + 1);
        if (*behind != '\0' && *behind != '#') {
            return NULL;
        }
        *end = '\0';
        return text + 1;
    }
    for (char *at = text; *at != '\0'; at++) {
        if (*at == '#' && (at == text || at[-1] == ' ' || at[-1] == '\t')) {
            *at = '\0';
            break;
        }
    }
    cut_spaces(text);
    return text;
}

static bool load_line(struct config *config, char *line, uint32_t *lines_of_keys,
                      const struct origin *origin, struct hf_error *error)
{
    char *name = skip_spaces(line);

    cut_spaces(name);
    if (name[0] == '\0' || name[0] == '#') {
        return true;
    }

    char *equals = strchr(name, '=');

    if (equals == NULL) {
        refuse(error, origin, "%.64s: expected key = value", name);
        return false;
    }
    *equals = '\0';
    cut_spaces(name);

    const struct config_key *key = find_key(name, strlen(name));

    if (key == NULL) {
        refuse(error, origin, "%.64s: no such key", name);
        return false;
    }

    uint32_t *line_of_key = &lines_of_keys[key - config_keys];

    if (*line_of_key != 0) {
        refuse(error, origin, "%s: is also in line %u", key->name, *line_of_key);
        return false;
    }
    *line_of_key = origin->line;

    char *value = parse_value(skip_spaces(equals + 1));

    if (value == NULL) {
        refuse(error, origin, "%s: a quote isn't closed, or text stands behind it", key->name);
        return false;
    }
    return set_value(config, key, value, origin, error);
}

/* fgets doesn't say how much it read. Behind the text stands its zero, behind that our filling. */
static bool has_zero_byte(const char line[LINE_BYTES_MAX])
{
    return memrchr(line, '\0', LINE_BYTES_MAX) != line + strlen(line);
}

bool config_load_file(struct config *config, const char *path, struct hf_error *error)
{
    FILE *file = fopen(path, "re");
    char line[LINE_BYTES_MAX];
    uint32_t lines_of_keys[CONFIG_KEYS_MAX] = { 0 };
    struct origin origin = { path, 0, EX_CONFIG };
    bool good = true;

    if (file == NULL) {
        hf_error_set(error, errno == ENOENT ? EX_NOINPUT : EX_CONFIG, errno, "%s", path);
        return false;
    }
    HF_ASSERT(config_key_count <= CONFIG_KEYS_MAX);
    for (;;) {
        memset(line, '\n', sizeof line);
        if (!good || fgets(line, sizeof line, file) == NULL) {
            break;
        }
        origin.line++;
        if (has_zero_byte(line) || (strchr(line, '\n') == NULL && !feof(file))) {
            refuse(error, &origin, "longer than %d bytes, or with a zero byte", LINE_BYTES_MAX - 2);
            good = false;
            break;
        }
        good = load_line(config, line, lines_of_keys, &origin, error);
    }
    if (good && ferror(file) != 0) {
        hf_error_set(error, EX_CONFIG, errno, "%s", path);
        good = false;
    }
    (void)fclose(file);
    return good;
}

/* ---- environment and flags */

static void name_variable(const struct config_key *key, char *name, size_t room)
{
    (void)snprintf(name, room, "HOLDFAST_%s", key->name);
    for (; *name != '\0'; name++) {
        *name = (char)toupper((unsigned char)*name);
    }
}

bool config_load_environment(struct config *config, struct hf_error *error)
{
    for (size_t i = 0; i < config_key_count; i++) {
        char name[64];

        name_variable(&config_keys[i], name, sizeof name);

        const char *value = getenv(name);
        const struct origin origin = { name, 0, EX_CONFIG };

        if (value != NULL && !set_value(config, &config_keys[i], value, &origin, error)) {
            return false;
        }
    }
    return true;
}

static void replace(char *text, char from, char to)
{
    while ((text = strchr(text, from)) != NULL) {
        *text++ = to;
    }
}

/* "--key-with-dashes" or "--key-with-dashes=..." without its dashes; *equals: at '=' or the end. */
static const struct config_key *find_argument(const char *name, const char **equals)
{
    char key[64];
    const size_t name_bytes = strcspn(name, "=");

    *equals = name + name_bytes;
    if (name_bytes >= sizeof key) {
        return NULL;
    }
    for (size_t i = 0; i < name_bytes; i++) {
        if (name[i] == '_') {
            return NULL; /* one spelling */
        }
        key[i] = name[i];
    }
    key[name_bytes] = '\0';
    replace(key, '-', '_');
    return find_key(key, name_bytes);
}

bool config_load_argument(struct config *config, char *const *arguments, int count, int *used,
                          struct hf_error *error)
{
    const char *argument = arguments[*used];
    const char *equals;
    const struct origin origin = { argument, 0, EX_USAGE };

    memset(error, 0, sizeof *error);
    if (strncmp(argument, "--", 2) != 0) {
        return false;
    }

    const struct config_key *key = find_argument(argument + 2, &equals);

    if (key == NULL && strncmp(argument, "--no-", 5) == 0) {
        key = find_argument(argument + 5, &equals);
        if (key == NULL || key->type != CONFIG_FLAG || *equals != '\0') {
            return false;
        }
        *config_flag(config, key) = false;
        (*used)++;
        return true;
    }
    if (key == NULL) {
        return false;
    }
    (*used)++;
    if (*equals == '=') {
        return set_value(config, key, equals + 1, &origin, error);
    }
    if (key->type == CONFIG_FLAG) {
        *config_flag(config, key) = true;
        return true;
    }
    if (*used >= count) {
        refuse(error, &origin, "needs a value");
        return false;
    }
    return set_value(config, key, arguments[(*used)++], &origin, error);
}

/* ---- what must fit together */

static bool check_paths(const struct config *config, struct hf_error *error)
{
    const struct {
        const char *name;
        const char *path;
    } needed[] = {
        { "data_dir", config->data_dir },
        { "tls_cert", config->tls_cert },
        { "tls_key", config->tls_key },
        { "login_keys", config->login_keys },
    };

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (needed[i].path[0] == '\0') {
            hf_error_set(error, EX_CONFIG, 0, "%s: must not be empty", needed[i].name);
            return false;
        }
    }
    return true;
}

static bool check_listen(const struct config *config, struct hf_error *error)
{
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    size_t count;

    if (!listen_parse(config->listen, addresses, &count, error)) {
        hf_error_prepend(error, "listen = %.64s", config->listen);
        return false;
    }
    if (count == 0) {
        hf_error_set(error, EX_CONFIG, 0, "listen: needs an address");
        return false;
    }
    if (!listen_parse(config->admin_listen, addresses, &count, error)) {
        hf_error_prepend(error, "admin_listen = %.64s", config->admin_listen);
        return false;
    }
    if (count > 1) {
        hf_error_set(error, EX_CONFIG, 0, "admin_listen = %.64s: one address at most",
                     config->admin_listen);
        return false;
    }

    struct networks proxies;

    if (!networks_parse(config->proxy_from, &proxies, error)) {
        hf_error_prepend(error, "proxy_from = %.64s", config->proxy_from);
        return false;
    }
    return true;
}

bool config_check(const struct config *config, struct hf_error *error)
{
    enum log_level level;

    if (!check_paths(config, error) || !check_listen(config, error)) {
        return false;
    }
    if (!log_parse_level(config->log_level, &level)) {
        hf_error_set(error, EX_CONFIG, 0,
                     "log_level = %.64s: must be error, warning, info or debug", config->log_level);
        return false;
    }
    if (config->journal_segment_bytes % 4096 != 0) {
        hf_error_set(error, EX_CONFIG, 0,
                     "journal_segment_bytes = %" PRIu64 ": must be a multiple of 4096",
                     config->journal_segment_bytes);
        return false;
    }
    if (config->cores > config->volumes) {
        hf_error_set(error, EX_CONFIG, 0,
                     "cores = %" PRIu64 ": there are only %" PRIu64
                     " volumes, and each core needs one",
                     config->cores, config->volumes);
        return false;
    }
    return true;
}

/* ---- printing */

static void print_default(FILE *file, const struct config_key *key, const char *quote)
{
    switch (key->type) {
    case CONFIG_NUMBER:
        (void)fprintf(file, "%" PRIu64, key->number);
        return;
    case CONFIG_TEXT:
        (void)fprintf(file, "%s%s%s", quote, key->text, quote);
        return;
    case CONFIG_FLAG:
        (void)fprintf(file, "%s", key->flag ? "true" : "false");
        return;
    }
}

void config_print_help(FILE *file)
{
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        char name[64];

        (void)snprintf(name, sizeof name, "%s%s", key->type == CONFIG_FLAG ? "[no-]" : "",
                       key->name);
        replace(name, '_', '-');
        (void)fprintf(file, "  --%s%s\n      %s.", name,
                      key->type == CONFIG_NUMBER ? " N"
                      : key->type == CONFIG_TEXT ? " TEXT"
                                                 : "",
                      key->help);
        if (key->type == CONFIG_NUMBER) {
            (void)fprintf(file, " From %" PRIu64 " to %" PRIu64 "%s%s.", key->min, key->max,
                          key->unit[0] == '\0' ? "" : " ", key->unit);
        }
        (void)fprintf(file, " Default: ");
        print_default(file, key, "\"");
        (void)fputc('\n', file);
    }
}

void config_print_markdown(FILE *file)
{
    (void)fprintf(file, "| key | default | from | to | unit | |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];

        (void)fprintf(file, "| `%s` | ", key->name);
        if (key->type != CONFIG_TEXT || key->text[0] != '\0') {
            (void)fputc('`', file);
            print_default(file, key, "");
            (void)fputc('`', file);
        }
        if (key->type == CONFIG_NUMBER) {
            (void)fprintf(file, " | %" PRIu64 " | %" PRIu64 " | %s", key->min, key->max, key->unit);
        } else {
            (void)fprintf(file, " | | | %s", key->type == CONFIG_FLAG ? "flag" : "text");
        }
        (void)fprintf(file, " | %s |\n", key->help);
    }
}

void config_print(FILE *file, const struct config *config)
{
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];

        switch (key->type) {
        case CONFIG_NUMBER:
            (void)fprintf(file, "%s = %" PRIu64 "\n", key->name, *config_number_of(config, key));
            break;
        case CONFIG_TEXT:
            (void)fprintf(file, "%s = \"%s\"\n", key->name, config_text_of(config, key));
            break;
        case CONFIG_FLAG:
            (void)fprintf(file, "%s = %s\n", key->name,
                          *config_flag_of(config, key) ? "true" : "false");
            break;
        }
    }
}

/*
 * No bytes do more to a node's configuration than be refused, with a word about why; and one that
 * is let through says the same when it is printed and read again: as a file, as flags, and as the
 * environment. The input is a file; its lines are also flags, and variables.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/server/config.h"
#include "core/server/config_table.h"
#include "tests/fuzz/fuzz.h"

#define LINES_MAX      64
#define TEXT_BYTES_MAX ((size_t)CONFIG_KEYS_MAX * (CONFIG_TEXT_BYTES_MAX + 64))

struct text {
    char bytes[TEXT_BYTES_MAX];
    size_t byte_count;
};

static int memory_file = -1;
static char path[64];

static void check_refusal(const struct hf_error *error, int exit_code)
{
    HF_ASSERT(error->exit_code == exit_code);
    HF_ASSERT(error->text[0] != '\0' && strlen(error->text) < sizeof error->text);
}

static bool load_file(struct config *config, const void *bytes, size_t byte_count)
{
    struct hf_error error;

    HF_ASSERT(ftruncate(memory_file, 0) == 0);
    HF_ASSERT(pwrite(memory_file, bytes, byte_count, 0) == (ssize_t)byte_count);
    config_init(config);
    if (!config_load_file(config, path, &error)) {
        check_refusal(&error, EX_CONFIG);
        return false;
    }
    return true;
}

static void print(const struct config *config, struct text *text)
{
    FILE *file = fmemopen(text->bytes, sizeof text->bytes, "w");

    HF_ASSERT(file != NULL);
    config_print(file, config);
    HF_ASSERT(fflush(file) == 0);

    const long at = ftell(file);

    HF_ASSERT(at > 0 && (size_t)at < sizeof text->bytes);
    text->byte_count = (size_t)at;
    (void)fclose(file);
}

static void check_same(const struct config *config, const struct text *wanted)
{
    static struct text text;

    print(config, &text);
    HF_ASSERT(text.byte_count == wanted->byte_count);
    HF_ASSERT(memcmp(text.bytes, wanted->bytes, text.byte_count) == 0);
}

/* Of "key = value" or "key = "value"", as config_print writes them. */
static char *cut_printed(char *line, char **value)
{
    char *equals = strstr(line, " = ");

    HF_ASSERT(equals != NULL);
    *equals = '\0';
    *value = equals + 3;
    if (**value == '"') {
        (*value)++;
        HF_ASSERT((*value)[0] != '\0' && (*value)[strlen(*value) - 1] == '"');
        (*value)[strlen(*value) - 1] = '\0';
    }
    return line;
}

static void print_variable(const char *key, const char *value, char *text, size_t room)
{
    (void)snprintf(text, room, "HOLDFAST_%s", key);
    for (char *at = text; *at != '\0'; at++) {
        *at = (char)toupper((unsigned char)*at);
    }
    (void)snprintf(text + strlen(text), room - strlen(text), "=%s", value);
}

/* The list ends with NULL. Not by setenv, which keeps every value for ever. */
static bool load_environment(struct config *config, char **variables, struct hf_error *error)
{
    char **before = environ;

    environ = variables;

    const bool good = config_load_environment(config, error);

    environ = before;
    return good;
}

/* Every key by a flag of its own, and by a variable of its own. */
static void check_flags_and_environment(const struct text *wanted)
{
    static struct text text;
    static struct config by_flags;
    static struct config by_environment;
    static char texts[CONFIG_KEYS_MAX][CONFIG_TEXT_BYTES_MAX + 64];
    char *variables[CONFIG_KEYS_MAX + 1] = { NULL };
    struct hf_error error;
    char *rest = NULL;
    size_t count = 0;

    text = *wanted;
    text.bytes[text.byte_count] = '\0';
    config_init(&by_flags);
    config_init(&by_environment);
    for (char *line = strtok_r(text.bytes, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char flag[CONFIG_TEXT_BYTES_MAX + 64];
        char *arguments[] = { flag };
        char *value;
        const char *key = cut_printed(line, &value);
        int used = 0;

        HF_ASSERT(count < CONFIG_KEYS_MAX);
        (void)snprintf(flag, sizeof flag, "--%s=", key);
        for (char *at = flag; *at != '\0'; at++) {
            if (*at == '_') {
                *at = '-';
            }
        }
        (void)snprintf(flag + strlen(flag), sizeof flag - strlen(flag), "%s", value);
        HF_ASSERT(config_load_argument(&by_flags, arguments, 1, &used, &error) && used == 1);
        variables[count] = texts[count];
        print_variable(key, value, texts[count++], sizeof texts[0]);
    }
    HF_ASSERT(load_environment(&by_environment, variables, &error));
    check_same(&by_flags, wanted);
    check_same(&by_environment, wanted);
}

static void check_file(const uint8_t *bytes, size_t byte_count)
{
    static struct config config;
    static struct config again;
    static struct text text;
    struct hf_error error;

    if (!load_file(&config, bytes, byte_count)) {
        return;
    }
    HF_ASSERT(memchr(bytes, '\0', byte_count) == NULL); /* nothing was passed over unseen */
    print(&config, &text);
    HF_ASSERT(load_file(&again, text.bytes, text.byte_count));
    check_same(&again, &text);
    check_flags_and_environment(&text);

    const bool good = config_check(&config, &error);

    if (!good) {
        check_refusal(&error, EX_CONFIG);
    }
    HF_ASSERT(config_check(&again, &error) == good);
}

/* The lines as a command has them. What is no key of ours is passed over, as a file's name. */
static void check_arguments(char **lines, int count)
{
    static struct config config;
    static struct config again;
    static struct text text;
    struct hf_error error;
    int used = 0;

    config_init(&config);
    while (used < count) {
        const int before = used;

        if (config_load_argument(&config, lines, count, &used, &error)) {
            HF_ASSERT(used > before && used <= count);
        } else if (error.exit_code != 0) {
            check_refusal(&error, EX_USAGE);
            return;
        } else {
            HF_ASSERT(used == before);
            used++;
        }
    }
    print(&config, &text);
    HF_ASSERT(load_file(&again, text.bytes, text.byte_count));
    check_same(&again, &text);
}

static void check_variables(char **lines, int count)
{
    static const char prefix[] = "HOLDFAST_";
    static struct config config;
    static struct config again;
    static struct text text;
    char *variables[LINES_MAX + 1] = { NULL };
    struct hf_error error;
    size_t used = 0;

    for (int i = 0; i < count; i++) {
        if (strncmp(lines[i], prefix, sizeof prefix - 1) == 0) {
            variables[used++] = lines[i];
        }
    }
    if (used == 0) {
        return;
    }
    config_init(&config);
    if (load_environment(&config, variables, &error)) {
        print(&config, &text);
        HF_ASSERT(load_file(&again, text.bytes, text.byte_count));
        check_same(&again, &text);
    } else {
        check_refusal(&error, EX_CONFIG);
    }
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    char *lines[LINES_MAX];
    int count = 0;
    char *copy = malloc(byte_count + 1);
    char *rest = NULL;

    if (memory_file < 0) {
        memory_file = memfd_create("config", MFD_CLOEXEC);
        HF_ASSERT(memory_file >= 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", memory_file);
    }
    check_file(bytes, byte_count);
    HF_ASSERT(copy != NULL);
    memcpy(copy, bytes, byte_count);
    copy[byte_count] = '\0';
    for (char *line = strtok_r(copy, "\n", &rest); line != NULL && count < LINES_MAX;
         line = strtok_r(NULL, "\n", &rest)) {
        lines[count++] = line;
    }
    check_arguments(lines, count);
    check_variables(lines, count);
    free(copy);
}

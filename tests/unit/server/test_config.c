#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/server/config.h"
#include "core/server/config_table.h"

static void write_file(char path[64], const char *text, size_t byte_count)
{
    (void)snprintf(path, 64, "/tmp/holdfast-config-XXXXXX");
    const int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, byte_count), (ssize_t)byte_count);
    assert_int_equal(close(fd), 0);
}

/* Loads the text over the defaults. The error's text begins with the file's name, which is cut. */
static bool load(struct config *config, const char *text, struct hf_error *error)
{
    char path[64];

    write_file(path, text, strlen(text));
    config_init(config);
    memset(error, 0, sizeof *error);
    const bool good = config_load_file(config, path, error);
    const size_t prefix = strlen(path);

    (void)unlink(path);
    if (!good && strncmp(error->text, path, prefix) == 0) {
        memmove(error->text, error->text + prefix, strlen(error->text + prefix) + 1);
    }
    return good;
}

static void defaults_pass_every_check(void **state)
{
    (void)state;
    struct config config;
    struct hf_error error;

    config_init(&config);
    assert_int_equal(config.keepalive_s, 270);
    assert_string_equal(config.listen, "127.0.0.1:7443,[::1]:7443");
    assert_true(config.pin_cores);
    assert_true(config_check(&config, &error));
}

static void defaults_lie_within_their_bounds(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];

        if (key->type == CONFIG_NUMBER) {
            assert_in_range(key->number, key->min, key->max);
        }
        assert_true(strlen(key->help) > 0);
        assert_int_not_equal(key->help[strlen(key->help) - 1], '.'); /* the printers add it */
        assert_null(strchr(key->name, '-'));
    }
}

static void file_with_every_form_is_read(void **state)
{
    (void)state;
    struct config config;
    struct hf_error error;

    assert_true(load(&config,
                     "# a comment\n"
                     "\n"
                     "  cores=3\n"
                     "keepalive_s = 60 # and another\n"
                     "journal_bytes = 64M\r\n"
                     "window_bytes_max = 32k\n"
                     "tls_cert = /a#b.pem\n"
                     "tls_key = \"/with space #1.pem\"  # quoted\n"
                     "ticket_keys = \"\"\n"
                     "token_audience =\n"
                     "accept_unknown_users = yes\n"
                     "pin_cores = off",
                     &error));
    assert_int_equal(config.cores, 3);
    assert_int_equal(config.keepalive_s, 60);
    assert_int_equal(config.journal_bytes, 64 << 20);
    assert_int_equal(config.window_bytes_max, 32768);
    assert_string_equal(config.tls_cert, "/a#b.pem");
    assert_string_equal(config.tls_key, "/with space #1.pem");
    assert_string_equal(config.ticket_keys, "");
    assert_string_equal(config.token_audience, "");
    assert_true(config.accept_unknown_users);
    assert_false(config.pin_cores);
}

static void faults_in_a_file_name_line_key_and_range(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *said;
    } rows[] = {
        { "cores = 65", ":1: cores = 65: must be from 0 to 64" },
        { "\nhandshake_timeout_ms = 99",
          ":2: handshake_timeout_ms = 99: must be from 100 to 600000 ms" },
        { "cores = -1", ":1: cores = -1: not a number" },
        { "cores = 0x10", ":1: cores = 0x10: not a number" },
        { "cores = 4k", ":1: cores = 4k: not a number" },
        { "cores =", ":1: cores = : not a number" },
        { "cores = 99999999999999999999", ":1: cores = 99999999999999999999: not a number" },
        { "journal_bytes = 16777216T",
          ":1: journal_bytes = 16777216T: not a number (or with k, M, G, T behind it)" },
        { "journal_bytes = 8MB",
          ":1: journal_bytes = 8MB: not a number (or with k, M, G, T behind it)" },
        { "pin_cores = maybe", ":1: pin_cores = maybe: must be true or false" },
        { "core = 1", ":1: core: no such key" },
        { "cores 1", ":1: cores 1: expected key = value" },
        { "= 1", ":1: : no such key" },
        { "cores = 1\n# x\ncores = 2", ":3: cores: is also in line 1" },
        { "tls_cert = \"/a", ":1: tls_cert: a quote isn't closed, or text stands behind it" },
        { "tls_cert = \"/a\" b", ":1: tls_cert: a quote isn't closed, or text stands behind it" },
        { "tls_cert = /a\x01", ":1: tls_cert: has a control character or a quote" },
        { "tls_cert = a\"b", ":1: tls_cert: has a control character or a quote" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config config;
        struct hf_error error;

        assert_false(load(&config, rows[i].text, &error));
        assert_string_equal(error.text, rows[i].said);
        assert_int_equal(error.exit_code, EX_CONFIG);
    }
}

static void long_texts_and_zero_bytes_are_refused(void **state)
{
    (void)state;
    char text[4096];
    struct config config;
    struct hf_error error;
    char path[64];

    memset(text, 'a', sizeof text);
    memcpy(text, "tls_cert = ", 11);
    text[600] = '\0';
    assert_false(load(&config, text, &error));
    assert_string_equal(error.text, ":1: tls_cert: longer than 511 bytes");

    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_false(load(&config, text, &error));
    assert_non_null(strstr(error.text, "longer than"));

    write_file(path, "cores = 1\0\ncores = 2\n", 21);
    config_init(&config);
    assert_false(config_load_file(&config, path, &error));
    (void)unlink(path);

    write_file(path,
               "cores = 1\0"
               "6",
               11); /* the last line may lack its end, but nothing else */
    config_init(&config);
    assert_false(config_load_file(&config, path, &error));
    (void)unlink(path);
}

static void file_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct config config;
    struct hf_error error;

    config_init(&config);
    assert_false(config_load_file(&config, "/nowhere/holdfast.conf", &error));
    assert_string_equal(error.text, "/nowhere/holdfast.conf: No such file or directory");
    assert_int_equal(error.exit_code, EX_NOINPUT);
}

static void variables_are_read_and_their_faults_named(void **state)
{
    (void)state;
    struct config config;
    struct hf_error error;

    config_init(&config);
    assert_int_equal(setenv("HOLDFAST_KEEPALIVE_S", "33", 1), 0);
    assert_int_equal(setenv("HOLDFAST_SERVICE_HOST", "10.0.0.1", 1), 0);
    assert_true(config_load_environment(&config, &error));
    assert_int_equal(config.keepalive_s, 33);
    assert_int_equal(setenv("HOLDFAST_KEEPALIVE_S", "1", 1), 0);
    assert_false(config_load_environment(&config, &error));
    assert_string_equal(error.text,
                        "HOLDFAST_KEEPALIVE_S: keepalive_s = 1: must be from 5 to 86400 s");
    assert_int_equal(error.exit_code, EX_CONFIG);
    assert_int_equal(unsetenv("HOLDFAST_KEEPALIVE_S"), 0);
    assert_int_equal(unsetenv("HOLDFAST_SERVICE_HOST"), 0);
}

static void flags_of_every_form_are_taken(void **state)
{
    (void)state;
    char words[][32] = { "--cores",          "2",
                         "--keepalive-s=77", "--accept-unknown-users",
                         "--no-pin-cores",   "--accept-unknown-users=false" };
    char *arguments[6];
    struct config config;
    struct hf_error error;
    int used = 0;

    for (int i = 0; i < 6; i++) {
        arguments[i] = words[i];
    }
    config_init(&config);
    while (used < 5) {
        assert_true(config_load_argument(&config, arguments, 6, &used, &error));
    }
    assert_int_equal(used, 5);
    assert_int_equal(config.cores, 2);
    assert_int_equal(config.keepalive_s, 77);
    assert_true(config.accept_unknown_users);
    assert_false(config.pin_cores);
    assert_true(config_load_argument(&config, arguments, 6, &used, &error));
    assert_false(config.accept_unknown_users);
}

static void flags_that_are_none_are_told_from_faults(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        const char *said; /* NULL: not ours */
    } rows[] = {
        { "--config", NULL },
        { "cores", NULL },
        { "--keepalive_s=60", NULL },
        { "--no-cores", NULL },
        { "--no-pin-cores=1", NULL },
        { "--", NULL },
        { "--cores=x", "--cores=x: cores = x: not a number" },
        { "--cores", "--cores: needs a value" },
        { "--pin-cores=2", "--pin-cores=2: pin_cores = 2: must be true or false" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char word[32];
        char *arguments[] = { word };
        struct config config;
        struct hf_error error;
        int used = 0;

        (void)snprintf(word, sizeof word, "%s", rows[i].word);
        config_init(&config);
        assert_false(config_load_argument(&config, arguments, 1, &used, &error));
        if (rows[i].said == NULL) {
            assert_int_equal(error.exit_code, 0);
            assert_int_equal(used, 0);
        } else {
            assert_string_equal(error.text, rows[i].said);
            assert_int_equal(error.exit_code, EX_USAGE);
        }
    }
}

static void what_does_not_fit_together_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *said;
    } rows[] = {
        { "listen = 127.0.0.1", "listen = 127.0.0.1: 127.0.0.1: expected ADDRESS:PORT" },
        { "listen = \"\"", "listen: needs an address" },
        { "listen = localhost:1",
          "listen = localhost:1: localhost:1: not an address: write 192.0.2.1:PORT or [2001:db8::1]:PORT" },
        { "admin_listen = 127.0.0.1:1,127.0.0.1:2",
          "admin_listen = 127.0.0.1:1,127.0.0.1:2: one address at most" },
        { "log_level = loud", "log_level = loud: must be error, warning, info or debug" },
        { "data_dir = \"\"", "data_dir: must not be empty" },
        { "cores = 17", "cores = 17: there are only 16 volumes, and each core needs one" },
        { "journal_segment_bytes = 262145",
          "journal_segment_bytes = 262145: must be a multiple of 4096" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config config;
        struct hf_error error;

        assert_true(load(&config, rows[i].text, &error));
        assert_false(config_check(&config, &error));
        assert_string_equal(error.text, rows[i].said);
        assert_int_equal(error.exit_code, EX_CONFIG);
    }
}

static void what_is_printed_is_read_back_alike(void **state)
{
    (void)state;
    struct config config;
    struct config back;
    struct hf_error error;
    char *text = NULL;
    size_t text_bytes = 0;

    config_init(&config);
    config.cores = 7;
    config.pin_cores = false;
    memset(config.tls_cert, 0, sizeof config.tls_cert);
    memcpy(config.tls_cert, "/a # b", 6);
    FILE *file = open_memstream(&text, &text_bytes);
    assert_non_null(file);
    config_print(file, &config);
    assert_int_equal(fclose(file), 0);
    assert_true(load(&back, text, &error));
    free(text);
    assert_string_equal(back.tls_cert, "/a # b");
    memset(back.tls_cert, 0, sizeof back.tls_cert); /* its end is the default's */
    memset(config.tls_cert, 0, sizeof config.tls_cert);
    assert_memory_equal(&config, &back, sizeof config);
}

static void help_names_every_key(void **state)
{
    (void)state;
    char *help = NULL;
    char *table = NULL;
    size_t byte_count = 0;
    FILE *file = open_memstream(&help, &byte_count);

    assert_non_null(file);
    config_print_help(file);
    assert_int_equal(fclose(file), 0);
    file = open_memstream(&table, &byte_count);
    assert_non_null(file);
    config_print_markdown(file);
    assert_int_equal(fclose(file), 0);
    for (size_t i = 0; i < config_key_count; i++) {
        char name[64];

        (void)snprintf(name, sizeof name, "| `%s` |", config_keys[i].name);
        assert_non_null(strstr(table, name));
        (void)snprintf(name, sizeof name, "%s", config_keys[i].name);
        for (char *at = name; (at = strchr(at, '_')) != NULL; at++) {
            *at = '-';
        }
        assert_non_null(strstr(help, name));
    }
    free(help);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_pass_every_check),
        cmocka_unit_test(defaults_lie_within_their_bounds),
        cmocka_unit_test(file_with_every_form_is_read),
        cmocka_unit_test(faults_in_a_file_name_line_key_and_range),
        cmocka_unit_test(long_texts_and_zero_bytes_are_refused),
        cmocka_unit_test(file_that_is_not_there_is_named),
        cmocka_unit_test(variables_are_read_and_their_faults_named),
        cmocka_unit_test(flags_of_every_form_are_taken),
        cmocka_unit_test(flags_that_are_none_are_told_from_faults),
        cmocka_unit_test(what_does_not_fit_together_is_refused),
        cmocka_unit_test(what_is_printed_is_read_back_alike),
        cmocka_unit_test(help_names_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

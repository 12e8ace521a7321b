#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/clock.h"
#include "core/server/credentials.h"
#include "core/tls/devcert.h"
#include "core/tls/handshake.h"

#define DAY_MS UINT64_C(86400000)

struct files {
    char folder[64];
    struct config config;
    uint64_t now_ms;
};

static void path_of(const struct files *files, const char *name, char path[CONFIG_TEXT_BYTES_MAX])
{
    (void)snprintf(path, CONFIG_TEXT_BYTES_MAX, "%s/%s", files->folder, name);
}

static void write_pem(const char *path, const struct tls_pem *pem)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(pem->bytes, 1, pem->byte_count - 1, file), pem->byte_count - 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static void make_certificate(const struct files *files)
{
    const char *name = "localhost";
    const struct devcert_options options = {
        .ca_name = "test",
        .names = &name,
        .name_count = 1,
        .now_unix_ms = files->now_ms,
        .days = 30,
    };
    struct devcert made;
    struct hf_error error;

    if (devcert_make(&made, &options, &error) != 0) {
        fail_msg("%s", error.text);
    }
    write_pem(files->config.tls_cert, &made.certificate);
    write_pem(files->config.tls_key, &made.key);
    devcert_free(&made);
}

static void open_files(struct files *files)
{
    struct hf_error error;

    memset(files, 0, sizeof *files);
    (void)snprintf(files->folder, sizeof files->folder, "/tmp/holdfast-credentials-XXXXXX");
    assert_non_null(mkdtemp(files->folder));
    files->now_ms = clock_unix_ms();
    assert_int_equal(tls_global_init(&error), 0);
    config_init(&files->config);
    path_of(files, "cert.pem", files->config.tls_cert);
    path_of(files, "key.pem", files->config.tls_key);
    path_of(files, "login.jwks", files->config.login_keys);
    (void)snprintf(files->config.data_dir, sizeof files->config.data_dir, "%s", files->folder);
    make_certificate(files);

    struct token_keys *keys = token_keys_new();

    assert_non_null(keys);
    assert_true(token_keys_add(keys, TOKEN_ALG_HS256, "k", &error));
    assert_true(token_keys_write(keys, files->config.login_keys, &error));
    token_keys_close(keys);
}

static void close_files(struct files *files)
{
    static const char *const names[] = { "cert.pem", "key.pem", "login.jwks", "ticket-keys",
                                         "resume-keys" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[CONFIG_TEXT_BYTES_MAX];

        path_of(files, names[i], path);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(files->folder), 0);
}

static struct credentials *open_all(struct files *files)
{
    struct hf_error error;
    struct credentials *credentials = credentials_open(&files->config, &error);

    if (credentials == NULL ||
        !credentials_load_rings(credentials, &files->config, files->now_ms, &error)) {
        fail_msg("%s", error.text);
    }
    return credentials;
}

static void first_start_makes_the_rings_and_the_next_finds_them(void **state)
{
    (void)state;
    struct files files;

    open_files(&files);
    struct credentials *first = open_all(&files);
    struct credentials *second = open_all(&files);

    assert_true(tls_tickets_can_seal(&first->tickets, files.now_ms));
    assert_int_equal(first->tickets.key_count, 2); /* of this hour and the next */
    assert_int_equal(first->resume.count, 1);
    assert_int_equal(second->resume.keys[0].id, first->resume.keys[0].id);
    assert_memory_equal(second->tickets.keys, first->tickets.keys,
                        2 * sizeof first->tickets.keys[0]);
    credentials_close(first);
    credentials_close(second);
    close_files(&files);
}

static void check_makes_nothing(void **state)
{
    (void)state;
    struct files files;
    struct hf_error error;
    char path[CONFIG_TEXT_BYTES_MAX];

    open_files(&files);
    struct credentials *credentials = credentials_open(&files.config, &error);
    assert_non_null(credentials);
    assert_true(credentials_check_rings(credentials, &files.config, &error));
    path_of(&files, "ticket-keys", path);
    assert_int_not_equal(access(path, F_OK), 0);
    path_of(&files, "resume-keys", path);
    assert_int_not_equal(access(path, F_OK), 0);
    credentials_close(credentials);
    close_files(&files);
}

static void refresh_adds_keys_when_they_are_due_and_keeps_the_rest(void **state)
{
    (void)state;
    struct files files;
    struct hf_error error;

    open_files(&files);
    files.config.login_life_s = 691200; /* eight days */

    struct credentials *first = open_all(&files);
    const uint64_t later_ms = files.now_ms + 3 * DAY_MS; /* beyond a quarter of a login's life */
    struct credentials *second = credentials_refresh(first, &files.config, later_ms, &error);

    assert_non_null(second);
    assert_true(tls_tickets_can_seal(&second->tickets, later_ms));
    assert_int_equal(second->resume.count, 2);
    assert_int_equal(second->resume.keys[0].id, first->resume.keys[0].id);
    /* It signs only when every thread has it. */
    assert_int_equal(second->resume.keys[1].active_at_unix_s, later_ms / 1000 + 60);
    assert_ptr_equal(second->login_keys, first->login_keys);
    assert_ptr_equal(second->certificate.bytes, first->certificate.bytes);
    assert_int_equal(second->certificate_version, first->certificate_version);
    credentials_close_old(first, second);
    assert_non_null(token_keys_find(second->login_keys, "k", 1)); /* what both share lives on */

    struct credentials *third = credentials_refresh(second, &files.config, later_ms, &error);

    assert_non_null(third);
    assert_int_equal(third->resume.count, 2);
    credentials_close_old(second, third);
    credentials_close(third);
    close_files(&files);
}

static void refresh_that_cannot_read_leaves_the_old_as_it_is(void **state)
{
    (void)state;
    struct files files;
    struct hf_error error;
    char path[CONFIG_TEXT_BYTES_MAX];

    open_files(&files);
    struct credentials *first = open_all(&files);
    path_of(&files, "resume-keys", path);
    assert_int_equal(chmod(path, 0644), 0);
    assert_null(credentials_refresh(first, &files.config, files.now_ms, &error));
    assert_non_null(strstr(error.text, "resume_keys"));
    assert_int_equal(first->resume.count, 1);
    assert_non_null(token_keys_find(first->login_keys, "k", 1));
    credentials_close(first);
    close_files(&files);
}

static void certificate_of_another_key_is_refused(void **state)
{
    (void)state;
    struct files files;
    struct hf_error error;
    char kept[CONFIG_TEXT_BYTES_MAX];

    open_files(&files);
    path_of(&files, "kept.pem", kept);
    assert_int_equal(rename(files.config.tls_key, kept), 0);
    make_certificate(&files);
    assert_int_equal(rename(kept, files.config.tls_key), 0);
    assert_null(credentials_open(&files.config, &error));
    assert_non_null(strstr(error.text, "tls_key"));
    close_files(&files);
}

#define TAKERS 4

struct taker {
    struct credentials *credentials;
    uint32_t seen;
};

static void *take(void *argument)
{
    struct taker *taker = argument;

    taker->seen = taker->credentials->tickets.key_count;
    credentials_took(taker->credentials);
    return NULL;
}

/* What takers read happens before the set that they let go of is closed. */
static void old_set_may_be_closed_when_all_have_taken_the_new(void **state)
{
    (void)state;
    struct files files;
    struct hf_error error;
    struct taker takers[TAKERS];
    pthread_t threads[TAKERS];

    open_files(&files);
    struct credentials *first = open_all(&files);
    struct credentials *second = credentials_refresh(first, &files.config, files.now_ms, &error);

    assert_non_null(second);
    atomic_store_explicit(&second->takers, TAKERS, memory_order_relaxed);
    for (size_t i = 0; i < TAKERS; i++) {
        takers[i] = (struct taker){ second, 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, take, &takers[i]), 0);
    }
    while (!credentials_are_taken(second)) {
        (void)sched_yield();
    }
    credentials_close_old(first, second);
    tls_tickets_clear(&second->tickets); /* whoever still read it would race */
    for (size_t i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(takers[i].seen, 2);
    }
    credentials_close(second);
    close_files(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_start_makes_the_rings_and_the_next_finds_them),
        cmocka_unit_test(check_makes_nothing),
        cmocka_unit_test(refresh_adds_keys_when_they_are_due_and_keeps_the_rest),
        cmocka_unit_test(refresh_that_cannot_read_leaves_the_old_as_it_is),
        cmocka_unit_test(certificate_of_another_key_is_refused),
        cmocka_unit_test(old_set_may_be_closed_when_all_have_taken_the_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

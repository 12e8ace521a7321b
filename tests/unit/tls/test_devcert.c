#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/tls/fixture.h"

static const char *const names[] = { FIXTURE_NAME };

static struct devcert_options usual(void)
{
    return (struct devcert_options){ .ca_name = "Authority",
                                     .names = names,
                                     .name_count = 1,
                                     .now_unix_ms = FIXTURE_NOW_UNIX_MS,
                                     .days = 90 };
}

static void certificate_is_pem_text(void **state)
{
    const struct devcert_options options = usual();
    struct devcert made;
    struct hf_error error = { 0 };

    (void)state;
    assert_int_equal(tls_global_init(&error), 0);
    assert_int_equal(devcert_make(&made, &options, &error), 0);
    assert_non_null(strstr((char *)made.ca_certificate.bytes, "-----BEGIN CERTIFICATE-----"));
    assert_non_null(strstr((char *)made.certificate.bytes, "-----BEGIN CERTIFICATE-----"));
    assert_non_null(strstr((char *)made.ca_key.bytes, "-----BEGIN EC PRIVATE KEY-----"));
    assert_non_null(strstr((char *)made.key.bytes, "-----BEGIN EC PRIVATE KEY-----"));
    assert_int_equal(made.key.byte_count, strlen((char *)made.key.bytes) + 1);
    devcert_free(&made);
    assert_null(made.key.bytes);
}

static void names_that_do_not_do_are_refused(void **state)
{
    static const char too_long[] =
        "a-name-of-more-than-sixty-four-characters-which-no-common-name-has.example";
    static const char *const bad[] = { "", "comma,O=Evil", "quote\"", "newline\n", too_long };
    struct devcert made;
    struct hf_error error = { 0 };

    (void)state;
    for (size_t index = 0; index < sizeof bad / sizeof bad[0]; index++) {
        struct devcert_options options = usual();

        options.names = &bad[index];
        assert_int_equal(devcert_make(&made, &options, &error), -1);
        assert_non_null(strstr(error.text, "unusable name of a server"));
        options = usual();
        options.ca_name = bad[index];
        assert_int_equal(devcert_make(&made, &options, &error), -1);
        assert_non_null(strstr(error.text, "unusable name of an authority"));
    }

    struct devcert_options options = usual();

    options.name_count = 0;
    assert_int_equal(devcert_make(&made, &options, &error), -1);
    options.name_count = 17;
    assert_int_equal(devcert_make(&made, &options, &error), -1);
}

/* ---- files */

struct file {
    char path[64];
};

static void file_open(struct file *file, const char *text, mode_t mode)
{
    snprintf(file->path, sizeof file->path, "/tmp/holdfast-pem-XXXXXX");

    const int fd = mkstemp(file->path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void load_refuses(const char *path, enum tls_pem_kind kind, const char *why)
{
    struct tls_pem pem;
    struct hf_error error = { 0 };

    assert_int_equal(tls_pem_load(&pem, path, kind, &error), -1);
    assert_null(pem.bytes);
    assert_non_null(strstr(error.text, path));
    if (strstr(error.text, why) == NULL) {
        fail_msg("'%s' doesn't say '%s'", error.text, why);
    }
}

static void pem_file_is_read_whole(void **state)
{
    static const char text[] = "comment\n-----BEGIN CERTIFICATE-----\nMII\n";
    struct file file;
    struct tls_pem pem;
    struct hf_error error = { 0 };

    (void)state;
    file_open(&file, text, 0644);
    assert_int_equal(tls_pem_load(&pem, file.path, TLS_PEM_CERTIFICATE, &error), 0);
    assert_int_equal(pem.byte_count, sizeof text);
    assert_memory_equal(pem.bytes, text, sizeof text);
    tls_pem_free(&pem);
    unlink(file.path);
}

static void pem_file_that_will_not_do_is_refused(void **state)
{
    struct file file;

    (void)state;
    load_refuses("/tmp/holdfast-no-such-file", TLS_PEM_CERTIFICATE, "No such file");
    load_refuses("/tmp", TLS_PEM_CERTIFICATE, "not a regular file");
    file_open(&file, "", 0600);
    load_refuses(file.path, TLS_PEM_CERTIFICATE, "empty");
    unlink(file.path);
    file_open(&file, "0\202\001", 0600);
    load_refuses(file.path, TLS_PEM_CERTIFICATE, "no PEM block");
    unlink(file.path);
    file_open(&file, "-----BEGIN EC PRIVATE KEY-----\n", 0644);
    load_refuses(file.path, TLS_PEM_PRIVATE_KEY, "chmod 600");
    unlink(file.path);
}

static void server_of_a_broken_certificate_is_refused(void **state)
{
    const struct devcert_options options = usual();
    struct devcert made;
    struct hf_error error = { 0 };

    (void)state;
    assert_int_equal(devcert_make(&made, &options, &error), 0);
    made.certificate.bytes[200] = 0; /* cut */
    made.certificate.byte_count = 201;
    assert_null(tls_server_open(
        &(struct tls_server_options){ .certificate = &made.certificate, .key = &made.key },
        &error));
    assert_non_null(strstr(error.text, "certificate"));
    devcert_free(&made);
    assert_int_equal(devcert_make(&made, &options, &error), 0);
    made.key.bytes[100] = 0;
    made.key.byte_count = 101;
    assert_null(tls_server_open(
        &(struct tls_server_options){ .certificate = &made.certificate, .key = &made.key },
        &error));
    assert_non_null(strstr(error.text, "private key"));
    devcert_free(&made);
}

static void library_says_its_version(void **state)
{
    (void)state;
    assert_non_null(strstr(tls_library_version(), "3.6."));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(certificate_is_pem_text),
    cmocka_unit_test(names_that_do_not_do_are_refused),
    cmocka_unit_test(pem_file_is_read_whole),
    cmocka_unit_test(pem_file_that_will_not_do_is_refused),
    cmocka_unit_test(server_of_a_broken_certificate_is_refused),
    cmocka_unit_test(library_says_its_version),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Dial: which servers are allowed, and where clients come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include <arpa/inet.h>

#include "loadgen/dial.h"

static struct dial dial;
static struct hf_error error;

static void loopback_is_allowed(void **state)
{
    (void)state;
    assert_true(dial_resolve(&dial, "127.0.0.1:7443", false, &error));
    assert_true(dial.loopback);
    assert_int_equal(dial.port, 7443);
    assert_true(dial_resolve(&dial, "127.200.3.4:1", false, &error));
    assert_true(dial_resolve(&dial, "[::1]:65535", false, &error));
    assert_int_equal(dial.server.ss_family, AF_INET6);
    assert_int_equal(dial.port, 65535);
}

static void others_need_consent(void **state)
{
    (void)state;
    assert_false(dial_resolve(&dial, "192.0.2.1:7443", false, &error));
    assert_int_equal(error.exit_code, EX_USAGE);
    assert_non_null(strstr(error.text, "--allow-remote"));
    assert_false(dial_resolve(&dial, "[2001:db8::1]:7443", false, &error));
    assert_true(dial_resolve(&dial, "192.0.2.1:7443", true, &error));
    assert_false(dial.loopback);
}

static void malformed_servers_are_refused(void **state)
{
    static const char *const wrong[] = { "",         "127.0.0.1", ":7443",  "127.0.0.1:",
                                         "::1:7443", "[::1]",     "[]:7443" };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(dial_resolve(&dial, wrong[i], false, &error));
        assert_int_equal(error.exit_code, EX_USAGE);
    }
}

static void source_outside_loopback_is_refused(void **state)
{
    (void)state;
    assert_true(dial_resolve(&dial, "127.0.0.1:7443", false, &error));
    assert_false(dial_set_source(&dial, "192.0.2.1", 100, &error));
    assert_false(dial_set_source(&dial, "127.1", 100, &error));
    assert_true(dial_set_source(&dial, "127.1.0.1", 100, &error));
}

static void clients_share_a_source_address_by_the_hundred(void **state)
{
    static const struct {
        uint32_t client;
        const char *address;
    } rows[] = {
        { 0, "127.1.0.1" }, { 99, "127.1.0.1" }, { 100, "127.1.0.2" }, { 25500, "127.1.1.0" }
    };

    (void)state;
    assert_true(dial_resolve(&dial, "127.0.0.1:7443", false, &error));
    assert_true(dial_set_source(&dial, "127.1.0.1", 100, &error));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const int fd = dial_socket(&dial, rows[i].client);
        struct sockaddr_in source = { 0 };
        socklen_t bytes = sizeof source;
        char text[INET_ADDRSTRLEN];

        assert_true(fd >= 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&source, &bytes), 0);
        assert_string_equal(inet_ntop(AF_INET, &source.sin_addr, text, sizeof text),
                            rows[i].address);
        assert_int_equal(source.sin_port, 0); /* chosen by connect */
        assert_int_equal(close(fd), 0);
    }
}

static void ipv6_needs_no_source(void **state)
{
    (void)state;
    assert_true(dial_resolve(&dial, "[::1]:7443", false, &error));
    assert_true(dial_set_source(&dial, "127.1.0.1", 100, &error));
    assert_int_equal(dial.source_base, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loopback_is_allowed),
        cmocka_unit_test(others_need_consent),
        cmocka_unit_test(malformed_servers_are_refused),
        cmocka_unit_test(source_outside_loopback_is_refused),
        cmocka_unit_test(clients_share_a_source_address_by_the_hundred),
        cmocka_unit_test(ipv6_needs_no_source),
    };

    return cmocka_run_group_tests_name("dial", tests, NULL, NULL);
}

/* PROXY protocol 2: what proxies send, and what they mustn't. Bytes as the source gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"
#include "core/server/listen.h"
#include "core/server/networks.h"
#include "core/server/proxy_header.h"

#define SIGNATURE 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a
#define ROOM      512

struct row {
    const char *name;
    uint8_t bytes[64];
    size_t byte_count;
    enum proxy_header_result result;
    const char *address; /* NULL: none */
};

static const uint8_t v4_addresses[] = { 192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x1d, 0x13 };

#define V4       SIGNATURE, 0x21, 0x11
#define V4_PORTS 192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x1d, 0x13

static const struct row rows[] = {
    { "TCP over IPv4", { V4, 0, 12, V4_PORTS }, 28, PROXY_HEADER_DONE, "192.0.2.7:4711" },
    { "TLVs are passed over",
      { V4, 0, 20, V4_PORTS, 2, 0, 1, 'x', 4, 0, 1, 0 },
      36,
      PROXY_HEADER_DONE,
      "192.0.2.7:4711" },
    { "TCP over IPv6",
      { SIGNATURE, 0x21, 0x21, 0, 36, 0x20, 0x01, 0x0d, 0xb8, 0,    0,    0, 0, 0,
        0,         0,    0,    0, 0,  0,    9,    0,    0,    0,    0,    0, 0, 0,
        0,         0,    0,    0, 0,  0,    0,    0,    1,    0x12, 0x67, 0, 80 },
      52,
      PROXY_HEADER_DONE,
      "[2001:db8::9]:4711" },
    { "LOCAL", { SIGNATURE, 0x20, 0x00, 0, 0 }, 16, PROXY_HEADER_DONE, NULL },
    { "LOCAL with addresses",
      { SIGNATURE, 0x20, 0x11, 0, 12, V4_PORTS },
      28,
      PROXY_HEADER_DONE,
      NULL },
    { "UNSPEC", { SIGNATURE, 0x21, 0x00, 0, 3, 1, 2, 3 }, 19, PROXY_HEADER_DONE, NULL },
    { "version 1",
      { 'P', 'R', 'O', 'X', 'Y', ' ', 'T', 'C', 'P', '4' },
      10,
      PROXY_HEADER_BAD,
      NULL },
    { "TLS", { 0x16, 0x03, 0x01 }, 3, PROXY_HEADER_BAD, NULL },
    { "wrong last byte of the signature",
      { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0b },
      12,
      PROXY_HEADER_BAD,
      NULL },
    { "version 3", { SIGNATURE, 0x31, 0x11 }, 14, PROXY_HEADER_BAD, NULL },
    { "unknown command", { SIGNATURE, 0x22, 0x11 }, 14, PROXY_HEADER_BAD, NULL },
    { "unknown family", { SIGNATURE, 0x21, 0x41 }, 14, PROXY_HEADER_BAD, NULL },
    { "unknown transport", { SIGNATURE, 0x21, 0x13 }, 14, PROXY_HEADER_BAD, NULL },
    { "datagrams", { SIGNATURE, 0x21, 0x12, 0, 12, V4_PORTS }, 28, PROXY_HEADER_BAD, NULL },
    { "addresses cut", { V4, 0, 11, V4_PORTS }, 27, PROXY_HEADER_BAD, NULL },
    { "TLV cut", { V4, 0, 14, V4_PORTS, 2, 0 }, 30, PROXY_HEADER_BAD, NULL },
    { "TLV beyond the end", { V4, 0, 16, V4_PORTS, 2, 0, 2, 1 }, 32, PROXY_HEADER_BAD, NULL },
    { "checksum of three bytes",
      { V4, 0, 18, V4_PORTS, 3, 0, 3, 1, 2, 3 },
      34,
      PROXY_HEADER_BAD,
      NULL },
    { "longer than we take", { V4, 0x10, 0 }, 16, PROXY_HEADER_BAD, NULL },
};

/* On a block of its own, so that a byte read beyond it is seen. */
static enum proxy_header_result parse(const uint8_t *bytes, size_t byte_count,
                                      struct proxy_header *header)
{
    uint8_t *copy = malloc(byte_count == 0 ? 1 : byte_count);

    memcpy(copy, bytes, byte_count);
    const enum proxy_header_result result = proxy_header_parse(copy, byte_count, header);
    free(copy);
    return result;
}

static void headers_give_what_they_say_whatever_the_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        struct proxy_header header = { 0 };

        for (size_t n = 0; n < row->byte_count; n++) {
            const enum proxy_header_result result = parse(row->bytes, n, &header);

            if (result != PROXY_HEADER_MORE &&
                (result != PROXY_HEADER_BAD || row->result != PROXY_HEADER_BAD)) {
                fail_msg("%s: %zu bytes give %d", row->name, n, (int)result);
            }
        }
        if (parse(row->bytes, row->byte_count, &header) != row->result) {
            fail_msg("%s", row->name);
        }
        if (row->result != PROXY_HEADER_DONE) {
            continue;
        }
        assert_int_equal(header.byte_count, row->byte_count);
        assert_int_equal(header.has_address, row->address != NULL);
        if (row->address != NULL) {
            char text[LISTEN_TEXT_BYTES];

            listen_format(&header.source.any, text);
            assert_string_equal(text, row->address);
        }
    }
}

static void checksum_is_checked_where_there_is_one(void **state)
{
    (void)state;
    uint8_t bytes[ROOM] = { V4, 0, 12 + 4 + 7 };
    struct proxy_header header;
    const size_t whole = 16 + 12 + 4 + 7;

    memcpy(bytes + 16, v4_addresses, sizeof v4_addresses);
    bytes[28] = 4; /* a NOOP of one byte before it */
    bytes[30] = 1;
    bytes[32] = 3;
    bytes[34] = 4;
    store_be32(bytes + 35, crc32c(0, bytes, whole));
    assert_int_equal(parse(bytes, whole, &header), PROXY_HEADER_DONE);
    for (size_t i = 0; i < whole; i++) {
        bytes[i] ^= 1;
        if (i != 32 && parse(bytes, whole, &header) == PROXY_HEADER_DONE && header.has_address) {
            fail_msg("byte %zu", i); /* (32 says that it is a checksum at all) */
        }
        bytes[i] ^= 1;
    }
}

static void client_s_bytes_behind_the_header_are_not_its_own(void **state)
{
    (void)state;
    uint8_t bytes[ROOM] = { V4, 0, 12, V4_PORTS, 0x16, 0x03, 0x01 };
    struct proxy_header header;

    assert_int_equal(parse(bytes, 31, &header), PROXY_HEADER_DONE);
    assert_int_equal(header.byte_count, 28);
}

/* ---- who may send one */

static bool has(const char *list, const char *address)
{
    struct networks networks;
    struct listen_address addresses[LISTEN_ADDRESSES_MAX];
    struct hf_error error;
    size_t count;

    assert_true(networks_parse(list, &networks, &error));
    assert_true(listen_parse(address, addresses, &count, &error));
    return networks_have(&networks, (const struct sockaddr *)&addresses[0].address);
}

static void networks_have_their_addresses_and_no_others(void **state)
{
    (void)state;
    assert_false(has("", "127.0.0.1:1"));
    assert_true(has("127.0.0.1", "127.0.0.1:1"));
    assert_false(has("127.0.0.1", "127.0.0.2:1"));
    assert_true(has("10.0.0.0/8, 192.0.2.128/25", "192.0.2.129:1"));
    assert_false(has("10.0.0.0/8, 192.0.2.128/25", "192.0.2.127:1"));
    assert_true(has("192.0.2.0/23", "192.0.3.255:1"));
    assert_false(has("192.0.2.0/23", "192.0.4.0:1"));
    assert_true(has("2001:db8::/33", "[2001:db8:7fff::1]:1"));
    assert_false(has("2001:db8::/33", "[2001:db8:8000::1]:1"));
    assert_true(has("10.0.0.0/8", "[::ffff:10.1.2.3]:1")); /* an IPv4 client of an IPv6 socket */
    assert_true(has("0.0.0.0/0", "8.8.8.8:1"));
    assert_false(has("0.0.0.0/0", "[2001:db8::1]:1"));
    assert_true(has("::/0", "8.8.8.8:1"));
}

static void texts_that_are_no_networks_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "10.0.0.0/33", "2001:db8::/129", "10.0.0.0/",     "10.0.0.0/-1", "10.0.0.0/8x",
        "10.0.0",      "localhost",      "10.0.0.1/8",    "::1/64",      "10.0.0.1 10.0.0.2",
        "10.0.0.1,",   ",10.0.0.1",      "10.0.0.1:7443", "[::1]",       "10.0.0.0/+8",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct networks networks;
        struct hf_error error = { 0 };

        if (networks_parse(texts[i], &networks, &error)) {
            fail_msg("%s", texts[i]);
        }
        assert_int_not_equal(error.exit_code, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_give_what_they_say_whatever_the_split),
        cmocka_unit_test(checksum_is_checked_where_there_is_one),
        cmocka_unit_test(client_s_bytes_behind_the_header_are_not_its_own),
        cmocka_unit_test(networks_have_their_addresses_and_no_others),
        cmocka_unit_test(texts_that_are_no_networks_are_refused),
    };
    return cmocka_run_group_tests_name("server/proxy_header", tests, NULL, NULL);
}

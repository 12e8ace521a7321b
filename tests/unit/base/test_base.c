#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"
#include "core/base/error.h"
#include "core/base/ids.h"

static void integers_are_big_endian(void **state)
{
    (void)state;
    uint8_t bytes[8];

    store_be64(bytes, UINT64_C(0x0102030405060708));
    for (uint8_t i = 0; i < 8; i++) {
        assert_int_equal(bytes[i], i + 1);
    }
    assert_int_equal(load_be16(bytes), 0x0102);
    assert_int_equal(load_be24(bytes + 1), 0x020304);
    assert_int_equal(load_be32(bytes + 1), 0x02030405);
    assert_int_equal(load_be64(bytes), UINT64_C(0x0102030405060708));
    store_be24(bytes + 1, 0xfffefd);
    assert_int_equal(load_be32(bytes), 0x01fffefd);
}

/* RFC 3720, B.4. */
static void crc32c_gives_the_rfc_3720_values(void **state)
{
    (void)state;
    uint8_t bytes[32];
    static const uint8_t nine[] = "123456789";

    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++) {
        bytes[i] = i;
    }
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x46dd794e);
    assert_int_equal(crc32c(0, nine, 9), 0xe3069283);
}

static void crc32c_goes_on_from_any_split(void **state)
{
    (void)state;
    uint8_t bytes[100];

    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    const uint32_t whole = crc32c(0, bytes, sizeof bytes);
    for (size_t split = 0; split <= sizeof bytes; split++) {
        const uint32_t first = crc32c(0, bytes, split);
        assert_int_equal(crc32c(first, bytes + split, sizeof bytes - split), whole);
    }
}

/* The same code as a machine without the instruction has it. */
uint32_t crc32c_without_instruction(uint32_t crc, const void *bytes, size_t byte_count);
#define crc32c crc32c_without_instruction /* NOLINT(readability-identifier-naming) */
#pragma push_macro("__x86_64__")
#undef __x86_64__
#include "core/base/crc32c.c" /* NOLINT(bugprone-suspicious-include) */
#include "core/base/siphash.h"
#pragma pop_macro("__x86_64__")
#undef crc32c

static void crc32c_is_the_same_without_the_instruction(void **state)
{
    (void)state;
    uint8_t bytes[100];

    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 11 + 3);
    }
    for (size_t count = 0; count <= sizeof bytes; count++) {
        assert_int_equal(crc32c_without_instruction(7, bytes, count), crc32c(7, bytes, count));
    }
}

static void error_gains_prefixes_and_is_cut_not_overrun(void **state)
{
    (void)state;
    struct hf_error error;

    hf_error_set(&error, EX_NOPERM, EACCES, "lock file");
    hf_error_prepend(&error, "volume %d: open", 3);
    assert_string_equal(error.text, "volume 3: open: lock file: Permission denied");
    assert_int_equal(error.exit_code, EX_NOPERM);
    assert_int_equal(error.errno_value, EACCES);
    for (int i = 0; i < 100; i++) {
        hf_error_prepend(&error, "a longer prefix number %d", i);
    }
    assert_int_equal(strlen(error.text), HF_ERROR_TEXT_BYTES - 1);
}

static void message_ids_rise_when_the_clock_stops_or_goes_back(void **state)
{
    (void)state;
    const struct partition_id partition = { 16383 };
    const uint64_t now = MESSAGE_ID_EPOCH_MS + 1000;
    struct message_id last = message_id_next((struct message_id){ 0 }, partition, now);

    assert_int_equal(last.value >> 23, 1000);
    assert_int_equal(last.value >> 9 & 0x3fff, 16383);
    for (int i = 0; i < 2000; i++) {
        const struct message_id next = message_id_next(last, partition, i % 2 ? now : now - 900);
        assert_true(next.value > last.value);
        assert_int_equal(next.value >> 9 & 0x3fff, 16383);
        last = next;
    }
    assert_int_equal(last.value >> 23, 1000 + 2000 / 512);
}

/* On disk for ever: these values may never change. */
static void partitions_keep_their_published_values(void **state)
{
    (void)state;
    static const struct {
        uint64_t id;
        uint16_t partition;
    } rows[] = { { 1, 0x5e5 }, { 2, 0x148a }, { UINT64_C(0x7fffffffffffffff), 0x1ebd } };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(partition_of(rows[i].id).value, rows[i].partition);
    }
}

static void siphash_gives_its_authors_value(void **state)
{
    (void)state;
    /* Key 00 01 ... 0f, text 00 01 ... 07: the reference implementation's vectors_sip64[8]. */
    const struct siphash_key key = { { UINT64_C(0x0706050403020100),
                                       UINT64_C(0x0f0e0d0c0b0a0908) } };

    assert_int_equal(siphash_number(&key, UINT64_C(0x0706050403020100)),
                     UINT64_C(0x93f5f5799a932462));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_big_endian),
        cmocka_unit_test(crc32c_gives_the_rfc_3720_values),
        cmocka_unit_test(crc32c_goes_on_from_any_split),
        cmocka_unit_test(crc32c_is_the_same_without_the_instruction),
        cmocka_unit_test(error_gains_prefixes_and_is_cut_not_overrun),
        cmocka_unit_test(message_ids_rise_when_the_clock_stops_or_goes_back),
        cmocka_unit_test(partitions_keep_their_published_values),
        cmocka_unit_test(siphash_gives_its_authors_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

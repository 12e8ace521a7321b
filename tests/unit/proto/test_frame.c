#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codes.h"
#include "proto/frame.h"

static void incomplete_header_needs_more(void **state)
{
    (void)state;
    const uint8_t header[] = { 0, 0, 5, FRAME_TYPE_SEND };
    struct frame_view view;

    for (size_t n = 0; n < sizeof header; n++) {
        assert_int_equal(frame_parse(header, n, &view), FRAME_NEED_MORE);
        assert_int_equal(view.payload_bytes, 0);
    }
}

static void complete_header_tells_how_much_more(void **state)
{
    (void)state;
    const uint8_t bytes[] = { 0, 0, 2, FRAME_TYPE_SEND, 0xaa };
    struct frame_view view;

    assert_int_equal(frame_parse(bytes, sizeof bytes, &view), FRAME_NEED_MORE);
    assert_int_equal(frame_bytes(&view), 6);
    assert_int_equal(view.type, FRAME_TYPE_SEND);
    assert_null(view.payload);
}

static void bytes_behind_the_frame_are_not_looked_at(void **state)
{
    (void)state;
    const uint8_t bytes[] = { 0, 0, 1, 200, 0xaa, 0xff, 0xff, 0xff };
    struct frame_view view;

    assert_int_equal(frame_parse(bytes, sizeof bytes, &view), FRAME_OK);
    assert_int_equal(view.type, 200);
    assert_int_equal(frame_bytes(&view), 5);
    assert_ptr_equal(view.payload, bytes + 4);
}

static void empty_payload_is_a_frame(void **state)
{
    (void)state;
    const uint8_t bytes[] = { 0, 0, 0, FRAME_TYPE_BYE };
    struct frame_view view;

    assert_int_equal(frame_parse(bytes, sizeof bytes, &view), FRAME_OK);
    assert_int_equal(frame_bytes(&view), FRAME_HEADER_BYTES);
}

static void largest_frame_passes_and_one_byte_more_is_refused_at_its_length(void **state)
{
    (void)state;
    uint8_t *bytes = calloc(1, FRAME_BYTES_MAX);
    struct frame_view view;

    assert_non_null(bytes);
    store_be24(bytes, FRAME_PAYLOAD_BYTES_MAX);
    assert_int_equal(frame_parse(bytes, FRAME_BYTES_MAX, &view), FRAME_OK);
    assert_int_equal(frame_bytes(&view), FRAME_BYTES_MAX);
    assert_int_equal(frame_parse(bytes, FRAME_BYTES_MAX - 1, &view), FRAME_NEED_MORE);
    store_be24(bytes, FRAME_PAYLOAD_BYTES_MAX + 1);
    assert_int_equal(frame_parse(bytes, 3, &view), FRAME_TOO_LARGE);
    assert_int_equal(frame_parse(bytes, FRAME_BYTES_MAX, &view), FRAME_TOO_LARGE);
    free(bytes);
}

static void types_name_themselves_and_who_sends_them(void **state)
{
    (void)state;
    assert_string_equal(frame_type_name(FRAME_TYPE_HELLO_OK), "HELLO_OK");
    assert_string_equal(frame_type_label(FRAME_TYPE_HELLO_OK), "hello_ok");
    assert_int_equal(frame_type_origin(FRAME_TYPE_HELLO_OK), FRAME_FROM_SERVER);
    assert_int_equal(frame_type_origin(FRAME_TYPE_SEND), FRAME_FROM_CLIENT);
    assert_int_equal(frame_type_origin(FRAME_TYPE_PING), FRAME_FROM_BOTH);
}

/* Reserved types are not of this version: they are answered by UNSUPPORTED like any unknown one. */
static void reserved_types_are_unknown(void **state)
{
    (void)state;
    static const uint8_t reserved[] = {
        0, 4, 7, 20, 22, 23, 24, 25, 32, 35, 36, 48, 64, 80, 96, 128
    };

    for (size_t i = 0; i < sizeof reserved; i++) {
        assert_int_equal(frame_type_origin(reserved[i]), FRAME_FROM_NOBODY);
        assert_string_equal(frame_type_name(reserved[i]), "OTHER");
        assert_string_equal(frame_type_label(reserved[i]), "other");
    }
}

static const uint16_t all_codes[] = {
#define CODE_NUMBER(name, number, label, text) number,
    CODES(CODE_NUMBER)
#undef CODE_NUMBER
};

#define CODE_COUNT (sizeof all_codes / sizeof all_codes[0])

static void codes_have_labels_of_their_own_and_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < CODE_COUNT; i++) {
        const size_t text_bytes = strlen(code_text(all_codes[i]));

        assert_in_range(text_bytes, 1, 200);
        assert_int_not_equal(code_class(all_codes[i]), CODE_CLASS_NONE);
        assert_string_not_equal(code_name(all_codes[i]), "OTHER");
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(code_label(all_codes[i]), code_label(all_codes[j]));
        }
    }
    assert_string_equal(code_label(CODE_OK), "ok");
    assert_string_equal(code_name(CODE_OK), "OK");
    assert_string_equal(code_text(CODE_OK), "no error");
}

static void unknown_codes_are_classed_by_their_range(void **state)
{
    (void)state;
    static const struct {
        uint16_t code;
        enum code_class class;
    } rows[] = {
        { 0, CODE_CLASS_NONE },
        { 1, CODE_CLASS_FATAL },
        { 127, CODE_CLASS_FATAL },
        { 128, CODE_CLASS_NOTICE },
        { 255, CODE_CLASS_NOTICE },
        { 256, CODE_CLASS_SEND_TEMPORARY },
        { 511, CODE_CLASS_SEND_TEMPORARY },
        { 512, CODE_CLASS_SEND_PERMANENT },
        { 767, CODE_CLASS_SEND_PERMANENT },
        { 768, CODE_CLASS_REFUSED },
        { 1023, CODE_CLASS_REFUSED },
        { 1024, CODE_CLASS_REQUEST },
        { 1279, CODE_CLASS_REQUEST },
        { 1280, CODE_CLASS_NONE },
        { 65535, CODE_CLASS_NONE },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(code_class(rows[i].code), rows[i].class);
    }
    assert_string_equal(code_name(127), "OTHER");
    assert_string_equal(code_label(127), "other");
    assert_true(code_is_fatal(127));
    assert_true(strlen(code_text(127)) > 0);
}

static void known_codes_are_in_the_class_that_the_engine_relies_on(void **state)
{
    (void)state;
    static const struct {
        enum code code;
        enum code_class class;
    } rows[] = {
        { CODE_BAD_FRAME, CODE_CLASS_FATAL },
        { CODE_REPLACED, CODE_CLASS_FATAL },
        { CODE_CONFLICT, CODE_CLASS_FATAL },
        { CODE_STALE, CODE_CLASS_FATAL },
        { CODE_UNSUPPORTED, CODE_CLASS_NOTICE },
        { CODE_RETRY, CODE_CLASS_SEND_TEMPORARY },
        { CODE_FULL, CODE_CLASS_SEND_TEMPORARY },
        { CODE_ORDER, CODE_CLASS_SEND_TEMPORARY },
        { CODE_BAD_CONVERSATION, CODE_CLASS_SEND_PERMANENT },
        { CODE_BODY_TOO_LARGE, CODE_CLASS_SEND_PERMANENT },
        { CODE_BAD_KIND, CODE_CLASS_SEND_PERMANENT },
        { CODE_UNKNOWN, CODE_CLASS_REFUSED },
        { CODE_BAD_CURSOR, CODE_CLASS_REQUEST },
        { CODE_UNAVAILABLE, CODE_CLASS_REQUEST },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(code_class((uint16_t)rows[i].code), rows[i].class);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(incomplete_header_needs_more),
        cmocka_unit_test(complete_header_tells_how_much_more),
        cmocka_unit_test(bytes_behind_the_frame_are_not_looked_at),
        cmocka_unit_test(empty_payload_is_a_frame),
        cmocka_unit_test(largest_frame_passes_and_one_byte_more_is_refused_at_its_length),
        cmocka_unit_test(types_name_themselves_and_who_sends_them),
        cmocka_unit_test(reserved_types_are_unknown),
        cmocka_unit_test(codes_have_labels_of_their_own_and_text),
        cmocka_unit_test(unknown_codes_are_classed_by_their_range),
        cmocka_unit_test(known_codes_are_in_the_class_that_the_engine_relies_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/proto/any_message.h"
#include "tests/unit/proto/vectors.h"

static const char *const file_names[] = { "session", "messages", "history" };

#define FILE_COUNT (sizeof file_names / sizeof file_names[0])

static struct vectors files[FILE_COUNT];

static int load_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < FILE_COUNT; i++) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s/%s.txt", getenv("VECTORS_DIR"), file_names[i]);
        vectors_load(&files[i], path);
    }
    return 0;
}

static int free_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < FILE_COUNT; i++) {
        vectors_free(&files[i]);
    }
    return 0;
}

/* Calls `check` with every vector that is valid, or with every other. */
static void for_each(bool valid, void (*check)(const struct vector *row))
{
    size_t count = 0;

    for (size_t i = 0; i < FILE_COUNT; i++) {
        for (size_t j = 0; j < files[i].row_count; j++) {
            const struct vector *row = &files[i].rows[j];
            if ((row->fields != NULL) == valid) {
                check(row);
                count++;
            }
        }
    }
    assert_true(count > 20);
}

/* The whole of bytes as one frame. */
static struct frame_view view_of(const uint8_t *bytes, size_t byte_count)
{
    struct frame_view view;

    assert_int_equal(frame_parse(bytes, byte_count, &view), FRAME_OK);
    assert_int_equal(frame_bytes(&view), byte_count);
    assert_ptr_equal(view.payload, bytes + FRAME_HEADER_BYTES);
    view.payload = bytes + FRAME_HEADER_BYTES; /* for the analyzer, which can't see the asserts */
    return view;
}

static void check_valid(const struct vector *row)
{
    const struct frame_view view = view_of(row->bytes, row->byte_count);
    static char text[65536];
    struct any_message message;

    assert_string_equal(frame_type_name(view.type), row->frame);
    if (any_decode(&view, &message) != CODE_OK) {
        fail_msg("%s: refused", row->name);
    }
    any_describe(&message, text, sizeof text);
    if (strcmp(text, row->fields) != 0) {
        fail_msg("%s: decoded as\n%s\nnot as\n%s", row->name, text, row->fields);
    }
}

static void valid_ones_decode_as_told(void **state)
{
    (void)state;
    for_each(true, check_valid);
}

static void check_invalid(const struct vector *row)
{
    struct frame_view view;
    struct any_message message;
    const enum frame_result result = frame_parse(row->bytes, row->byte_count, &view);
    enum code code = CODE_FRAME_TOO_LARGE;

    if (result != FRAME_TOO_LARGE) {
        view = view_of(row->bytes, row->byte_count);
        assert_string_equal(frame_type_name(view.type), row->frame);
        code = any_decode(&view, &message);
    }
    if (strcmp(code_name((uint16_t)code), row->error) != 0) {
        fail_msg("%s: %s, not %s", row->name, code_name((uint16_t)code), row->error);
    }
    assert_true(code_is_fatal((uint16_t)code));
}

static void invalid_ones_are_refused_with_the_code_told(void **state)
{
    (void)state;
    for_each(false, check_invalid);
}

/* Heap blocks of the exact size: the sanitizer sees one byte too many. */
static void check_encoding(const struct vector *row)
{
    const struct frame_view view = view_of(row->bytes, row->byte_count);
    struct any_message message;

    assert_int_equal(any_decode(&view, &message), CODE_OK);
    for (size_t cap = 0; cap <= row->byte_count; cap++) {
        uint8_t *to = malloc(cap + (cap == 0)); /* never NULL */
        const size_t wanted = cap < row->byte_count ? 0 : row->byte_count;

        assert_non_null(to);
        if (row->canonical) {
            assert_int_equal(any_encode(to, cap, &message), wanted);
        } else {
            assert_in_range(any_encode(to, cap, &message), 0, cap);
        }
        if (row->canonical && wanted > 0) {
            assert_memory_equal(to, row->bytes, wanted);
        }
        free(to);
    }
}

static void valid_ones_encode_to_the_same_bytes_and_never_beyond_the_room(void **state)
{
    (void)state;
    for_each(true, check_encoding);
}

/* A payload on a block of its own, as the frame that its header then tells. */
static struct frame_view with_payload(uint8_t type, const uint8_t *payload, size_t payload_bytes,
                                      uint8_t **block)
{
    *block = malloc(FRAME_HEADER_BYTES + payload_bytes);
    assert_non_null(*block);
    store_be24(*block, (uint32_t)payload_bytes);
    (*block)[3] = type;
    for (size_t i = 0; i < payload_bytes; i++) {
        (*block)[FRAME_HEADER_BYTES + i] = payload[i];
    }
    return view_of(*block, FRAME_HEADER_BYTES + payload_bytes);
}

/* What was let through says the same after another round. */
static void check_consistent(const struct frame_view *view, const struct any_message *message)
{
    static uint8_t again[FRAME_BYTES_MAX];
    static char first_text[65536];
    static char second_text[65536];
    struct any_message second;
    const size_t again_bytes = any_encode(again, sizeof again, message);

    assert_in_range(again_bytes, FRAME_HEADER_BYTES, frame_bytes(view));
    const struct frame_view again_view = view_of(again, again_bytes);
    assert_int_equal(any_decode(&again_view, &second), CODE_OK);
    any_describe(message, first_text, sizeof first_text);
    any_describe(&second, second_text, sizeof second_text);
    assert_string_equal(first_text, second_text);
}

static void check_truncations(const struct vector *row)
{
    const struct frame_view whole = view_of(row->bytes, row->byte_count);

    for (size_t n = 0; n < row->byte_count; n++) {
        struct frame_view view;
        uint8_t *prefix = malloc(n + (n == 0));
        assert_non_null(prefix);
        memcpy(prefix, row->bytes, n);
        assert_int_equal(frame_parse(prefix, n, &view), FRAME_NEED_MORE);
        free(prefix);
    }
    for (size_t n = 0; n < whole.payload_bytes; n++) {
        uint8_t *block;
        const struct frame_view view = with_payload(whole.type, whole.payload, n, &block);
        struct any_message message;
        const enum code code = any_decode(&view, &message);

        if (code == CODE_OK) {
            check_consistent(&view, &message); /* cut exactly before an optional TLV */
        } else {
            assert_true(code == CODE_BAD_FRAME || code == CODE_BAD_FIELD);
        }
        free(block);
    }
}

static void every_truncation_is_refused_or_says_less(void **state)
{
    (void)state;
    for_each(true, check_truncations);
}

static void check_extensions(const struct vector *row)
{
    const struct frame_view whole = view_of(row->bytes, row->byte_count);
    static uint8_t longer[FRAME_BYTES_MAX];

    memcpy(longer, row->bytes + FRAME_HEADER_BYTES, whole.payload_bytes);
    for (unsigned value = 0; value < 256; value++) {
        uint8_t *block;
        longer[whole.payload_bytes] = (uint8_t)value;
        const struct frame_view view =
            with_payload(whole.type, longer, whole.payload_bytes + 1, &block);
        struct any_message message;

        assert_int_equal(any_decode(&view, &message), CODE_BAD_FRAME);
        free(block);
    }
}

static void every_longer_form_is_refused(void **state)
{
    (void)state;
    for_each(true, check_extensions);
}

static void check_damage(const struct vector *row)
{
    const struct frame_view whole = view_of(row->bytes, row->byte_count);

    for (size_t bit = 0; bit < (size_t)whole.payload_bytes * 8; bit++) {
        uint8_t *block;
        const struct frame_view view =
            with_payload(whole.type, whole.payload, whole.payload_bytes, &block);
        struct any_message message;

        block[FRAME_HEADER_BYTES + bit / 8] ^= (uint8_t)(1U << bit % 8);
        if (any_decode(&view, &message) == CODE_OK) {
            check_consistent(&view, &message);
        }
        free(block);
    }
}

static void every_flipped_bit_is_refused_or_decodes_consistently(void **state)
{
    (void)state;
    for_each(true, check_damage);
}

static void every_frame_type_has_a_valid_and_an_invalid_vector(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 256; type++) {
        unsigned valid = 0;
        unsigned invalid = 0;

        if (frame_type_origin((uint8_t)type) == FRAME_FROM_NOBODY) {
            continue;
        }
        for (size_t i = 0; i < FILE_COUNT; i++) {
            for (size_t j = 0; j < files[i].row_count; j++) {
                const struct vector *row = &files[i].rows[j];
                if (strcmp(row->frame, frame_type_name((uint8_t)type)) == 0) {
                    valid += row->fields != NULL;
                    invalid += row->fields == NULL;
                }
            }
        }
        assert_true(valid > 0 && invalid > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_ones_decode_as_told),
        cmocka_unit_test(invalid_ones_are_refused_with_the_code_told),
        cmocka_unit_test(valid_ones_encode_to_the_same_bytes_and_never_beyond_the_room),
        cmocka_unit_test(every_truncation_is_refused_or_says_less),
        cmocka_unit_test(every_longer_form_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused_or_decodes_consistently),
        cmocka_unit_test(every_frame_type_has_a_valid_and_an_invalid_vector),
    };
    return cmocka_run_group_tests(tests, load_files, free_files);
}

#include "core/token/base64url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the four that it needs */
#include <cmocka.h>

static const struct {
    const char *name;
    const char *bytes;
    const char *text;
} vectors[] = {
    { "RFC 4648 section 10, 0 bytes", "", "" },
    { "RFC 4648 section 10, 1 byte", "f", "Zg" },
    { "RFC 4648 section 10, 2 bytes", "fo", "Zm8" },
    { "RFC 4648 section 10, 3 bytes", "foo", "Zm9v" },
    { "RFC 4648 section 10, 4 bytes", "foob", "Zm9vYg" },
    { "RFC 4648 section 10, 5 bytes", "fooba", "Zm9vYmE" },
    { "RFC 4648 section 10, 6 bytes", "foobar", "Zm9vYmFy" },
    { "RFC 7515 appendix C", "\x03\xec\xff\xe0\xc1", "A-z_4ME" },
};

static const struct {
    const char *name;
    const char *text;
} refused[] = {
    { "one digit has no byte", "A" },
    { "five digits have no bytes", "Zm9vZ" },
    { "padding", "Zg==" },
    { "padding of one", "Zm8=" },
    { "the other alphabet's plus", "A+z_" },
    { "the other alphabet's slash", "A-z/" },
    { "space", "Zm9v Zm9v" },
    { "new line at the end", "Zm9\n" },
    { "a dot", "Zm.v" },
    { "a byte above 127", "Zm9\xc3" },
    { "spare bits of one byte", "Zh" },
    { "spare bits of two bytes", "Zm9" },
};

static void vectors_encode_and_decode(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const size_t bytes_count = strlen(vectors[i].bytes);
        const size_t text_count = strlen(vectors[i].text);
        char text[16];
        char bytes[16];
        size_t got;

        print_message("%s\n", vectors[i].name);
        assert_int_equal(BASE64URL_TEXT_BYTES(bytes_count), text_count);
        assert_int_equal(base64url_encode(text, vectors[i].bytes, bytes_count), text_count);
        assert_memory_equal(text, vectors[i].text, text_count);
        assert_true(base64url_decode(bytes, bytes_count, &got, vectors[i].text, text_count));
        assert_int_equal(got, bytes_count);
        assert_memory_equal(bytes, vectors[i].bytes, bytes_count);
    }
}

static void second_spellings_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char bytes[16];
        size_t got;

        print_message("%s\n", refused[i].name);
        assert_false(
            base64url_decode(bytes, sizeof bytes, &got, refused[i].text, strlen(refused[i].text)));
    }
}

static void text_beyond_the_room_is_refused(void **state)
{
    char bytes[6];
    size_t got;

    (void)state;
    assert_true(base64url_decode(bytes, 6, &got, "Zm9vYmFy", 8));
    assert_false(base64url_decode(bytes, 5, &got, "Zm9vYmFy", 8));
    assert_false(base64url_decode(bytes, 0, &got, "Zg", 2));
}

/* Of all texts of two and three digits, exactly one means each value. */
static void each_value_has_one_text(void **state)
{
    unsigned good = 0;

    (void)state;
    for (unsigned i = 0; i < 65536; i++) {
        const char text[2] = { (char)(i >> 8), (char)i };
        unsigned char byte;
        char again[2];
        size_t got;

        if (base64url_decode(&byte, 1, &got, text, 2)) {
            good++;
            assert_int_equal(base64url_encode(again, &byte, 1), 2);
            assert_memory_equal(again, text, 2);
        }
    }
    assert_int_equal(good, 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_encode_and_decode),
        cmocka_unit_test(second_spellings_are_refused),
        cmocka_unit_test(text_beyond_the_room_is_refused),
        cmocka_unit_test(each_value_has_one_text),
    };
    return cmocka_run_group_tests_name("token_base64url", tests, NULL, NULL);
}

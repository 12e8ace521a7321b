#include "core/token/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four that it needs */
#include <cmocka.h>

/* From exactly as many bytes as the text has, so that a sanitizer sees a read past them. */
static bool reads(const char *text, size_t byte_count)
{
    struct json_object object;
    char *copy = malloc(byte_count + (byte_count == 0));

    assert_non_null(copy);
    memcpy(copy, text, byte_count);
    const bool good = json_read_object(&object, copy, byte_count);
    free(copy);
    return good;
}

static const char *const accepted[] = {
    "{}",
    " \t\r\n{ } \n",
    "{\"a\":1}",
    "{\"a\":-0.5e+10,\"b\":0E1,\"c\":12.0}",
    "{\"a\":true,\"b\":false,\"c\":null}",
    "{\"a\":[],\"b\":[1,[2,{\"a\":3,\"a\":4}]],\"c\":{\"a\":\"b\"}}",
    "{\"\":\"\"}",
    "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83D\\uDE00\"}",
    "{\"a\":[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83D\\uDE00\"]}",
    "{\"a\":\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"}",
    "{\"a\":[\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"]}",
    "{\"a\":[[[[[[[]]]]]]]}", /* eight deep, the object included */
};

static const struct {
    const char *name;
    const char *text;
} refused[] = {
    { "nothing", "" },
    { "white space", "  " },
    { "not an object", "[1]" },
    { "a string", "\"a\"" },
    { "open", "{" },
    { "closed twice", "{}}" },
    { "something after it", "{} x" },
    { "comma at the end", "{\"a\":1,}" },
    { "comma at the beginning", "{,\"a\":1}" },
    { "two commas", "{\"a\":1,,\"b\":2}" },
    { "no comma", "{\"a\":1 \"b\":2}" },
    { "no colon", "{\"a\" 1}" },
    { "no value", "{\"a\":}" },
    { "name without quotes", "{a:1}" },
    { "single quotes", "{'a':1}" },
    { "comment", "{\"a\":1/**/}" },
    { "byte order mark", "\xef\xbb\xbf{}" },
    { "other white space", "{\v}" },
    { "name twice", "{\"a\":1,\"a\":1}" },
    { "name twice, once escaped", "{\"alg\":1,\"\\u0061lg\":1}" },
    { "leading zero", "{\"a\":01}" },
    { "plus", "{\"a\":+1}" },
    { "lone minus", "{\"a\":-}" },
    { "no digit after the point", "{\"a\":1.}" },
    { "no digit before the point", "{\"a\":.5}" },
    { "no exponent", "{\"a\":1e}" },
    { "hexadecimal", "{\"a\":0x1}" },
    { "not a number", "{\"a\":NaN}" },
    { "infinity", "{\"a\":-Infinity}" },
    { "a word cut", "{\"a\":tru}" },
    { "a word too long", "{\"a\":nulll}" },
    { "another case", "{\"a\":True}" },
    { "string open", "{\"a\":\"b}" },
    { "control character", "{\"a\":\"\n\"}" },
    { "unknown escape", "{\"a\":\"\\x41\"}" },
    { "short escape", "{\"a\":\"\\u041\"}" },
    { "high half alone", "{\"a\":\"\\ud83d\"}" },
    { "high half with a character", "{\"a\":\"\\ud83dx12345\"}" },
    { "low half alone", "{\"a\":\"\\ude00\"}" },
    { "two high halves", "{\"a\":\"\\ud83d\\ud83d\"}" },
    { "UTF-8: lone continuation", "{\"a\":\"\x80\"}" },
    { "UTF-8: cut", "{\"a\":\"\xe2\x82\"}" },
    { "UTF-8: two bytes, too long", "{\"a\":\"\xc0\xaf\"}" },
    { "UTF-8: three bytes, too long", "{\"a\":\"\xe0\x80\xaf\"}" },
    { "UTF-8: four bytes, too long", "{\"a\":\"\xf0\x80\x80\xaf\"}" },
    { "UTF-8: surrogate", "{\"a\":\"\xed\xa0\x80\"}" },
    { "UTF-8: past the last", "{\"a\":\"\xf4\x90\x80\x80\"}" },
    { "UTF-8: no such byte", "{\"a\":\"\xff\"}" },
    { "inside: bad UTF-8", "{\"a\":[\"\xc0\xaf\"]}" },
    { "inside: unknown escape", "{\"a\":[\"\\x41\"]}" },
    { "inside: low half alone", "{\"a\":[\"\\ude00\"]}" },
    { "inside: control character", "{\"a\":[\"\n\"]}" },
    { "inside: comma at the end", "{\"a\":[1,]}" },
    { "inside: name isn't a string", "{\"a\":{1:2}}" },
    { "inside: closed wrongly", "{\"a\":[1}}" },
    { "inside: open", "{\"a\":[1" },
    { "nine deep", "{\"a\":[[[[[[[[]]]]]]]]}" },
};

static void good_objects_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        print_message("%s\n", accepted[i]);
        assert_true(reads(accepted[i], strlen(accepted[i])));
    }
}

static void bad_text_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        print_message("%s\n", refused[i].name);
        assert_false(reads(refused[i].text, strlen(refused[i].text)));
    }
    assert_false(reads("{\"a\":\"\0\"}", 9));
    assert_false(reads("{\"a\":1\0}", 8));
    assert_false(reads("{\"a\":\"\\\0\"}", 10)); /* NUL isn't among the escapes' names */
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        const size_t whole = (size_t)(strrchr(accepted[i], '}') - accepted[i]) + 1;
        for (size_t cut = 0; cut < whole; cut++) {
            assert_false(reads(accepted[i], cut));
        }
    }
}

static void strings_are_unescaped(void **state)
{
    char text[] =
        "{\"\\u0061\\n\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\uD83D\\uDE00\\u0000x\"}";
    struct json_object object;
    static const char content[] = "\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0x";

    (void)state;
    assert_true(json_read_object(&object, text, sizeof text - 1));
    assert_int_equal(object.count, 1);
    const struct json_value *value = json_find(&object, "a\n");
    assert_non_null(value);
    assert_int_equal(value->type, JSON_STRING);
    assert_int_equal(value->byte_count, sizeof content - 1);
    assert_memory_equal(value->bytes, content, sizeof content - 1);
    assert_false(json_equals(value, "\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));
}

static void values_within_values_are_read_in_turn(void **state)
{
    char text[] = "{\"a\":[ \"x\\ny\" , {\"b\":\"\\u0062\"}, [ ] ,7 ],\"c\":[ ]}";
    struct json_object object;
    struct json_object inner;
    struct json_array array;
    struct json_value element;

    (void)state;
    assert_true(json_read_object(&object, text, sizeof text - 1));
    json_array_begin(&array, json_find(&object, "c"));
    assert_false(json_array_next(&array, &element));
    json_array_begin(&array, json_find(&object, "a"));
    assert_true(json_array_next(&array, &element));
    assert_true(json_equals(&element, "x\ny"));
    assert_true(json_array_next(&array, &element));
    assert_int_equal(element.type, JSON_OBJECT);
    assert_true(json_read_object(&inner, element.bytes, element.byte_count));
    assert_true(json_equals(json_find(&inner, "b"), "b"));
    assert_true(json_array_next(&array, &element));
    assert_int_equal(element.type, JSON_ARRAY);
    assert_true(json_array_next(&array, &element));
    assert_int_equal(element.type, JSON_NUMBER);
    assert_int_equal(element.byte_count, 1);
    assert_false(json_array_next(&array, &element));
    assert_false(json_array_next(&array, &element));
}

static void members_are_bounded(void **state)
{
    char text[16 * (JSON_MEMBERS_MAX + 2)];

    (void)state;
    for (int count = JSON_MEMBERS_MAX; count <= JSON_MEMBERS_MAX + 1; count++) {
        int used = 0;
        for (int i = 0; i < count; i++) {
            used += snprintf(text + used, sizeof text - (size_t)used, "%c\"%d\":0",
                             i == 0 ? '{' : ',', i);
        }
        text[used++] = '}';
        assert_int_equal(reads(text, (size_t)used), count == JSON_MEMBERS_MAX);
    }
}

static void times_are_whole_seconds(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t seconds;
    } rows[] = {
        { "0", true, 0 },
        { "1300819380", true, 1300819380 },
        { "1300819380.75", true, 1300819380 },
        { "999999999999999", true, 999999999999999 },
        { "1000000000000000", false, 0 },
        { "18446744073709551617", false, 0 },
        { "-1", false, 0 },
        { "-0", false, 0 },
        { "1e9", false, 0 },
        { "1.5E9", false, 0 },
        { "\"1\"", false, 0 },
        { "true", false, 0 },
        { "null", false, 0 },
        { "[1]", false, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[64];
        struct json_object object;
        uint64_t seconds = 0;
        const int used = snprintf(text, sizeof text, "{\"t\":%s}", rows[i].text);

        print_message("%s\n", rows[i].text);
        assert_true(json_read_object(&object, text, (size_t)used));
        assert_int_equal(json_to_seconds(json_find(&object, "t"), &seconds), rows[i].good);
        assert_int_equal(seconds, rows[i].seconds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_objects_are_read),
        cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(values_within_values_are_read_in_turn),
        cmocka_unit_test(members_are_bounded),
        cmocka_unit_test(times_are_whole_seconds),
    };
    return cmocka_run_group_tests_name("token_json", tests, NULL, NULL);
}

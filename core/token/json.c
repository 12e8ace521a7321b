#include "core/token/json.h"

#include "core/base/check.h"

#include <string.h>

/* The part of the text not read yet; `end` is one past its last byte. */
struct reader {
    char *at;
    char *end;
};

static bool read_value(struct reader *reader, struct json_value *value, unsigned depth);

static void skip_space(struct reader *reader)
{
    while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\t' ||
                                        *reader->at == '\n' || *reader->at == '\r')) {
        reader->at++;
    }
}

static bool next_is(const struct reader *reader, char wanted)
{
    return reader->at < reader->end && *reader->at == wanted;
}

static bool take(struct reader *reader, char wanted)
{
    if (!next_is(reader, wanted)) {
        return false;
    }
    reader->at++;
    return true;
}

static bool read_hex4(struct reader *reader, uint32_t *unit)
{
    *unit = 0;
    if (reader->end - reader->at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        const char digit = *reader->at++;
        uint32_t value;

        if (digit >= '0' && digit <= '9') {
            value = (uint32_t)(digit - '0');
        } else if (digit >= 'a' && digit <= 'f') {
            value = (uint32_t)(digit - 'a' + 10);
        } else if (digit >= 'A' && digit <= 'F') {
            value = (uint32_t)(digit - 'A' + 10);
        } else {
            return false;
        }
        *unit = *unit << 4 | value;
    }
    return true;
}

static char *put_utf8(char *to, uint32_t point)
{
    if (point < 0x80) {
        *to++ = (char)point;
    } else if (point < 0x800) {
        *to++ = (char)(0xc0 | point >> 6);
        *to++ = (char)(0x80 | (point & 63));
    } else if (point < 0x10000) {
        *to++ = (char)(0xe0 | point >> 12);
        *to++ = (char)(0x80 | (point >> 6 & 63));
        *to++ = (char)(0x80 | (point & 63));
    } else {
        *to++ = (char)(0xf0 | point >> 18);
        *to++ = (char)(0x80 | (point >> 12 & 63));
        *to++ = (char)(0x80 | (point >> 6 & 63));
        *to++ = (char)(0x80 | (point & 63));
    }
    return to;
}

/* After "\u". Halves of surrogate pairs must come together: alone they are no character. */
static bool read_unicode_escape(struct reader *reader, char **to)
{
    uint32_t point;
    uint32_t low;

    if (!read_hex4(reader, &point)) {
        return false;
    }
    if (point >= 0xdc00 && point <= 0xdfff) {
        return false;
    }
    if (point >= 0xd800 && point <= 0xdbff) {
        if (!take(reader, '\\') || !take(reader, 'u') || !read_hex4(reader, &low) || low < 0xdc00 ||
            low > 0xdfff) {
            return false;
        }
        point = 0x10000 + ((point & 0x3ff) << 10 | (low & 0x3ff));
    }
    *to = put_utf8(*to, point);
    return true;
}

/* After the backslash. */
static bool read_escape(struct reader *reader, char **to)
{
    static const char names[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";

    if (reader->at == reader->end) {
        return false;
    }
    const char name = *reader->at++;
    if (name == 'u') {
        return read_unicode_escape(reader, to);
    }
    const char *found = name == '\0' ? NULL : strchr(names, name);
    if (found == NULL) {
        return false;
    }
    *(*to)++ = meanings[found - names];
    return true;
}

/* Copies one character of more than one byte, in its shortest form, of a code point that exists. */
static bool read_utf8(struct reader *reader, char **to)
{
    const uint8_t *bytes = (const uint8_t *)reader->at;
    size_t more;
    uint8_t second_min = 0x80;
    uint8_t second_max = 0xbf;

    if (bytes[0] >= 0xc2 && bytes[0] <= 0xdf) {
        more = 1;
    } else if (bytes[0] >= 0xe0 && bytes[0] <= 0xef) {
        more = 2;
        second_min = bytes[0] == 0xe0 ? 0xa0 : 0x80;
        second_max = bytes[0] == 0xed ? 0x9f : 0xbf;
    } else if (bytes[0] >= 0xf0 && bytes[0] <= 0xf4) {
        more = 3;
        second_min = bytes[0] == 0xf0 ? 0x90 : 0x80;
        second_max = bytes[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return false;
    }
    if ((size_t)(reader->end - reader->at) <= more || bytes[1] < second_min ||
        bytes[1] > second_max) {
        return false;
    }
    for (size_t i = 2; i <= more; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return false;
        }
    }
    memmove(*to, reader->at, more + 1);
    *to += more + 1;
    reader->at += more + 1;
    return true;
}

/* After the opening quote. What an escape means is never longer than the escape. */
static bool read_string(struct reader *reader, char **bytes, size_t *byte_count)
{
    char *to = reader->at;

    *bytes = to;
    while (reader->at < reader->end) {
        const uint8_t byte = (uint8_t)*reader->at;

        if (byte == '"') {
            *byte_count = (size_t)(to - *bytes);
            reader->at++;
            return true;
        }
        if (byte < 0x20) {
            return false;
        }
        if (byte == '\\') {
            reader->at++;
            if (!read_escape(reader, &to)) {
                return false;
            }
        } else if (byte < 0x80) {
            *to++ = *reader->at++;
        } else if (!read_utf8(reader, &to)) {
            return false;
        }
    }
    return false;
}

static bool skip_digits(struct reader *reader)
{
    const char *begin = reader->at;

    while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
        reader->at++;
    }
    return reader->at > begin;
}

static bool read_number(struct reader *reader)
{
    (void)take(reader, '-');
    if (!take(reader, '0') && !skip_digits(reader)) {
        return false;
    }
    if (take(reader, '.') && !skip_digits(reader)) {
        return false;
    }
    if (take(reader, 'e') || take(reader, 'E')) {
        if (!take(reader, '+')) {
            (void)take(reader, '-');
        }
        return skip_digits(reader);
    }
    return true;
}

static bool read_word(struct reader *reader, const char *word)
{
    const size_t word_bytes = strlen(word);

    if ((size_t)(reader->end - reader->at) < word_bytes ||
        memcmp(reader->at, word, word_bytes) != 0) {
        return false;
    }
    reader->at += word_bytes;
    return true;
}

/*
 * A string inside a value that is left as text: it must stay as it is, to be read again, so it is
 * read in a copy. Pieces keep the copy small; a piece ends before an escape or a character begins
 * that might not fit.
 */
static bool check_string(struct reader *reader)
{
    while (reader->at < reader->end) {
        const uint8_t byte = (uint8_t)*reader->at;
        char scratch[12]; /* the longest unit: a surrogate pair, two escapes of six */
        size_t unit = sizeof scratch;

        if (byte == '"') {
            reader->at++;
            return true;
        }
        if (byte < 0x20) {
            return false;
        }
        if (byte != '\\' && byte < 0x80) {
            reader->at++;
            continue;
        }
        if (unit > (size_t)(reader->end - reader->at)) {
            unit = (size_t)(reader->end - reader->at);
        }
        memcpy(scratch, reader->at, unit);

        struct reader copy = { scratch, scratch + unit };
        char *to = scratch;
        if (byte == '\\') {
            copy.at++;
        }
        if (!(byte == '\\' ? read_escape(&copy, &to) : read_utf8(&copy, &to))) {
            return false;
        }
        reader->at += copy.at - scratch;
    }
    return false;
}

/* Checks a value that is left as it is; `depth` is that of the arrays and objects around it. */
static bool check_value(struct reader *reader, unsigned depth);

static bool check_members(struct reader *reader, char close, unsigned depth)
{
    skip_space(reader);
    if (take(reader, close)) {
        return true;
    }
    do {
        if (close == '}') {
            skip_space(reader);
            if (!take(reader, '"') || !check_string(reader)) {
                return false;
            }
            skip_space(reader);
            if (!take(reader, ':')) {
                return false;
            }
        }
        skip_space(reader);
        if (!check_value(reader, depth)) {
            return false;
        }
        skip_space(reader);
    } while (take(reader, ','));
    return take(reader, close);
}

static bool check_value(struct reader *reader, unsigned depth)
{
    struct json_value value;

    if (next_is(reader, '"')) {
        reader->at++;
        return check_string(reader);
    }
    return read_value(reader, &value, depth);
}

/* A string is unescaped; in arrays and objects nothing is. */
static bool read_value(struct reader *reader, struct json_value *value, unsigned depth)
{
    char *begin = reader->at;
    bool good;

    if (begin == reader->end) {
        return false;
    }
    switch (*begin) {
    case '"':
        value->type = JSON_STRING;
        reader->at++;
        return read_string(reader, &value->bytes, &value->byte_count);
    case '{':
    case '[':
        value->type = *begin == '{' ? JSON_OBJECT : JSON_ARRAY;
        reader->at++;
        good =
            depth < JSON_DEPTH_MAX && check_members(reader, *begin == '{' ? '}' : ']', depth + 1);
        break;
    case 't':
    case 'f':
        value->type = JSON_BOOL;
        good = read_word(reader, *begin == 't' ? "true" : "false");
        break;
    case 'n':
        value->type = JSON_NULL;
        good = read_word(reader, "null");
        break;
    default:
        value->type = JSON_NUMBER;
        good = read_number(reader);
        break;
    }
    value->bytes = begin;
    value->byte_count = (size_t)(reader->at - begin);
    return good;
}

static bool is_new_name(const struct json_object *object, const char *name, size_t name_bytes)
{
    for (size_t i = 0; i < object->count; i++) {
        if (object->members[i].name_bytes == name_bytes &&
            memcmp(object->members[i].name, name, name_bytes) == 0) {
            return false;
        }
    }
    return true;
}

static bool read_member(struct json_object *object, struct reader *reader)
{
    struct json_member member;
    char *name;

    skip_space(reader);
    if (object->count == JSON_MEMBERS_MAX || !take(reader, '"') ||
        !read_string(reader, &name, &member.name_bytes) ||
        !is_new_name(object, name, member.name_bytes)) {
        return false;
    }
    member.name = name;
    skip_space(reader);
    if (!take(reader, ':')) {
        return false;
    }
    skip_space(reader);
    if (!read_value(reader, &member.value, 1)) {
        return false;
    }
    skip_space(reader);
    object->members[object->count++] = member;
    return true;
}

bool json_read_object(struct json_object *object, char *text, size_t byte_count)
{
    struct reader reader = { text, text + byte_count };

    object->count = 0;
    skip_space(&reader);
    if (!take(&reader, '{')) {
        return false;
    }
    skip_space(&reader);
    if (!take(&reader, '}')) {
        do {
            if (!read_member(object, &reader)) {
                return false;
            }
        } while (take(&reader, ','));
        if (!take(&reader, '}')) {
            return false;
        }
    }
    skip_space(&reader);
    return reader.at == reader.end;
}

const struct json_value *json_find(const struct json_object *object, const char *name)
{
    const size_t name_bytes = strlen(name);

    for (size_t i = 0; i < object->count; i++) {
        if (object->members[i].name_bytes == name_bytes &&
            memcmp(object->members[i].name, name, name_bytes) == 0) {
            return &object->members[i].value;
        }
    }
    return NULL;
}

bool json_equals(const struct json_value *value, const char *string)
{
    return value->type == JSON_STRING && value->byte_count == strlen(string) &&
           memcmp(value->bytes, string, value->byte_count) == 0;
}

void json_array_begin(struct json_array *array, const struct json_value *value)
{
    HF_ASSERT(value->type == JSON_ARRAY && value->byte_count >= 2);
    array->rest = value->bytes + 1; /* past the bracket */
    array->rest_bytes = value->byte_count - 1;
    array->begun = false;
}

bool json_array_next(struct json_array *array, struct json_value *element)
{
    struct reader reader = { array->rest, array->rest + array->rest_bytes };

    skip_space(&reader);
    if (next_is(&reader, ']')) {
        return false;
    }
    if (array->begun) {
        HF_ASSERT(take(&reader, ','));
        skip_space(&reader);
    }
    /* The depth was judged when the object was read. */
    HF_ASSERT(read_value(&reader, element, 1));
    array->begun = true;
    array->rest = reader.at;
    array->rest_bytes = (size_t)(reader.end - reader.at);
    return true;
}

bool json_to_seconds(const struct json_value *value, uint64_t *seconds)
{
    uint64_t sum = 0;
    size_t i = 0;

    if (value->type != JSON_NUMBER) {
        return false;
    }
    for (; i < value->byte_count && value->bytes[i] >= '0' && value->bytes[i] <= '9'; i++) {
        sum = sum * 10 + (uint64_t)(value->bytes[i] - '0');
    }
    if (i == 0 || i > 15) {
        return false; /* negative, or beyond 10^15 */
    }
    for (; i < value->byte_count; i++) {
        if (value->bytes[i] != '.' && (value->bytes[i] < '0' || value->bytes[i] > '9')) {
            return false; /* an exponent: nobody writes a time so */
        }
    }
    *seconds = sum;
    return true;
}

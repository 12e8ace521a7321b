/*
 * json: a strict reader of small JSON objects from strangers.
 *
 * It reads one object at a time into a table of its members; strings are unescaped in place, values
 * within values are checked, then left as text, to be read in their turn or ignored.
 *
 * Owner    The text is the caller's, is written over, and outlives the members that point into it.
 * Thread   Any. Pure.
 * Memory   None is allocated; the stack is bounded by JSON_DEPTH_MAX.
 * Errors   False. Refused beyond RFC 8259's grammar: a name twice in one object (after unescaping),
 *          strings that aren't UTF-8 or hold half a surrogate pair, nesting deeper than
 *          JSON_DEPTH_MAX, more members than JSON_MEMBERS_MAX, anything after the value but white
 *          space. Names within values that nobody reads aren't compared.
 * Source   RFC 8259; RFC 7515 section 4 (names are unique).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX   8
#define JSON_MEMBERS_MAX 64

enum json_type {
    JSON_STRING,
    JSON_NUMBER,
    JSON_BOOL,
    JSON_NULL,
    JSON_OBJECT,
    JSON_ARRAY,
};

/* A string's bytes are its unescaped content, which may hold NUL; all others' are their text. */
struct json_value {
    enum json_type type;
    char *bytes;
    size_t byte_count;
};

struct json_member {
    const char *name;
    size_t name_bytes;
    struct json_value value;
};

struct json_object {
    size_t count;
    struct json_member members[JSON_MEMBERS_MAX];
};

/* Reads text that is one object and nothing else. */
bool json_read_object(struct json_object *object, char *text, size_t byte_count)
    __attribute__((warn_unused_result));

/* The member of that name, or NULL. */
const struct json_value *json_find(const struct json_object *object, const char *name);

bool json_equals(const struct json_value *value, const char *string);

/*
 * Goes through an array: *rest is the array's text at first. 1: *element is the next one; 0: there
 * is no more. The array was checked when its object was read, so there is no other outcome; a
 * string in it is unescaped in place, so it can be gone through once.
 */
struct json_array {
    char *rest;
    size_t rest_bytes;
    bool begun;
};

void json_array_begin(struct json_array *array, const struct json_value *value);
bool json_array_next(struct json_array *array, struct json_value *element);

/* A number that is a time or a count: digits, perhaps a fraction (dropped), below 10^15. */
bool json_to_seconds(const struct json_value *value, uint64_t *seconds)
    __attribute__((warn_unused_result));

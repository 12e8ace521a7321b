#include "tests/unit/proto/vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void fail(const char *path, int line, const char *why)
{
    (void)fprintf(stderr, "%s:%d: %s\n", path, line, why);
    exit(1);
}

static void *grown(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes);

    if (memory == NULL) {
        fail("vectors", 0, "out of memory");
    }
    return memory;
}

static int nibble(char digit)
{
    const char *digits = "0123456789abcdef";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);

    return found == NULL ? -1 : (int)(found - digits);
}

/* One byte at a time: the block always has the exact size. */
static bool add_hex(struct vector *row, const char *text)
{
    while (*text != '\0') {
        if (*text == ' ') {
            text++;
            continue;
        }
        const int high = nibble(text[0]);
        const int low = nibble(text[1]);
        if (high < 0 || low < 0) {
            return false;
        }
        row->bytes = grown(row->bytes, row->byte_count + 1);
        row->bytes[row->byte_count++] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return true;
}

/* The value behind `key` and blanks; NULL when the line has another key. */
static const char *value_of(const char *line, const char *key)
{
    const size_t key_bytes = strlen(key);

    if (strncmp(line, key, key_bytes) != 0 || (line[key_bytes] != ' ' && line[key_bytes] != '\0')) {
        return NULL;
    }
    line += key_bytes;
    return line + strspn(line, " ");
}

static void take_line(struct vectors *vectors, const char *path, int number, const char *line)
{
    const char *value = value_of(line, "vector");

    if (value != NULL) {
        vectors->rows = grown(vectors->rows, (vectors->row_count + 1) * sizeof(struct vector));
        vectors->rows[vectors->row_count++] =
            (struct vector){ .name = strdup(value), .canonical = true };
        return;
    }
    if (vectors->row_count == 0) {
        fail(path, number, "before the first vector");
    }

    struct vector *row = &vectors->rows[vectors->row_count - 1];

    if ((value = value_of(line, "frame")) != NULL) {
        row->frame = strdup(value);
    } else if ((value = value_of(line, "fields")) != NULL) {
        row->fields = strdup(value);
    } else if ((value = value_of(line, "error")) != NULL) {
        row->error = strdup(value);
    } else if ((value = value_of(line, "canonical")) != NULL) {
        row->canonical = strcmp(value, "no") != 0;
    } else if ((value = value_of(line, "bytes")) != NULL || line[0] == ' ') {
        if (!add_hex(row, value != NULL ? value : line)) {
            fail(path, number, "not pairs of hexadecimal digits");
        }
    } else {
        fail(path, number, "unknown key");
    }
}

void vectors_load(struct vectors *vectors, const char *path)
{
    char *line = NULL;
    size_t line_cap = 0;
    int number = 0;
    FILE *file = fopen(path, "r");

    *vectors = (struct vectors){ NULL, 0 };
    if (file == NULL) {
        fail(path, 0, "can't be opened");
    }
    while (getline(&line, &line_cap, file) >= 0) {
        number++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#') {
            take_line(vectors, path, number, line);
        }
    }
    free(line);
    (void)fclose(file);

    for (size_t i = 0; i < vectors->row_count; i++) {
        const struct vector *row = &vectors->rows[i];
        if (row->frame == NULL || row->bytes == NULL ||
            (row->fields == NULL) == (row->error == NULL)) {
            fail(path, number, row->name);
        }
    }
}

void vectors_free(struct vectors *vectors)
{
    for (size_t i = 0; i < vectors->row_count; i++) {
        struct vector *row = &vectors->rows[i];
        free(row->name);
        free(row->frame);
        free(row->fields);
        free(row->error);
        free(row->bytes);
    }
    free(vectors->rows);
    *vectors = (struct vectors){ NULL, 0 };
}

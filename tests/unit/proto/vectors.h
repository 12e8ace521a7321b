/*
 * vectors: reads tests/vectors/proto/NAME.txt; the form is told in the README there.
 *
 * Owner    The caller frees a loaded file.
 * Errors   A file that can't be read or understood ends the program, naming file and line: it is
 *          part of the checkout.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vector {
    char *name;
    char *frame;    /* "HELLO" */
    char *fields;   /* JSON, of a valid one; else NULL */
    char *error;    /* code name, of an invalid one; else NULL */
    bool canonical; /* an encoder makes these very bytes */
    size_t byte_count;
    uint8_t *bytes; /* exactly so many on the heap, so that the sanitizer sees one too many */
};

struct vectors {
    struct vector *rows;
    size_t row_count;
};

void vectors_load(struct vectors *vectors, const char *path);
void vectors_free(struct vectors *vectors);

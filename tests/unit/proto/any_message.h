/*
 * any_message: every frame of proto/ behind one decode, one encode and one description in text, for
 * tests that go through all of them (vectors, mutations, fuzzing).
 *
 * Owner    A decoded message points into the frame's bytes, like those of proto/.
 * Errors   Of proto/. Describing fails the program when the text doesn't fit.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/entries.h"
#include "proto/message.h"

struct any_message {
    enum frame_type type;
    union {
        struct message_hello hello;
        struct message_hello_ok hello_ok;
        struct message_token token;
        struct message_ping ping;
        struct message_goaway goaway;
        struct message_error error;
        struct message_send send;
        struct message_accepted accepted;
        struct message_rejected rejected;
        struct message_entries entries;
        struct message_ack ack;
        struct message_history history;
        struct message_page page;
    };
};

/* The view's type must be one of this version. */
enum code any_decode(const struct frame_view *view, struct any_message *out);

/* ENTRIES and PAGE are built anew from what their readers give. */
size_t any_encode(uint8_t *to, size_t cap, const struct any_message *in);

/* The fields as the vectors have them: one line of JSON. */
void any_describe(const struct any_message *in, char *text, size_t text_bytes);

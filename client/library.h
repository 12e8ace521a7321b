/*
 * library: what is behind struct hf_client: a state, a machine, a transport, and events that wait.
 *
 * Purpose  library.c has the calls that change and look, library_io.c the connection,
 *          library_event.c what the machine says: first written down, then told to the program.
 * Owner    struct hf_client owns all four.
 * Thread   One at a time.
 * Errors   enum hf_result; hf_client.text says why.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/client.h"
#include "client/holdfast.h"
#include "client/state.h"
#include "client/transport.h"
#include "core/base/error.h"

#define LIBRARY_IN_BYTES                                                                           \
    ((size_t)32768) /* a frame that isn't whole yet, and a record behind it                        \
                     */
#define LIBRARY_OUT_BYTES FRAME_BYTES_MAX

/* An event that waits. */
struct library_event {
    struct library_event *next;
    uint64_t after_seq; /* messages up to here go first */
    struct hf_event event;
    char text[208];
    uint8_t body[];
};

struct hf_client {
    struct state state;
    struct client machine;
    struct client_requests requests;
    struct client_scratch scratch;
    struct client_send *sends;
    struct transport *transport; /* from the first attempt on */
    bool ready;                  /* the machine is set up: there is an account */
    bool dialled;                /* an attempt or a connection is under way */
    bool up;                     /* the machine has been told */
    bool drop;                   /* what the server says can't be used: reconnect */
    bool failed;                 /* storage: only hf_close is left */
    char alternative[STATE_SERVER_BYTES_MAX + 1]; /* of GOAWAY, for one attempt */
    char said[208];                               /* the server's last ERROR */
    uint64_t delivered_seq;                       /* messages up to here were events */
    struct library_event *events;                 /* oldest first */
    struct library_event **events_end;
    struct library_event *taken; /* the last that hf_next_event gave */
    uint8_t message[STATE_MESSAGE_BYTES];
    uint8_t in[LIBRARY_IN_BYTES];
    size_t in_filled;
    uint8_t out[LIBRARY_OUT_BYTES];
    char text[HF_ERROR_TEXT_BYTES];
};

uint64_t library_now_ms(void);
uint64_t library_now_unix_ms(void);

/* Sets text; gives back `result`. */
int library_fail(struct hf_client *client, enum hf_result result, const char *text);

/* The same from an error below; a storage error is for good. */
int library_fail_error(struct hf_client *client, const struct hf_error *error);

/* Takes the machine's events: writes them down, and queues what the program is to know. */
int library_take_events(struct hf_client *client);

/* Queues an event with a copy of its body and text. False: no memory. */
bool library_queue(struct hf_client *client, const struct hf_event *event);

/* An event for a message on disk. */
void library_fill_message(struct hf_event *event, const struct state_message *message);

/* Events of messages whose fate the user hasn't acknowledged. */
bool library_queue_undismissed(struct hf_client *client);

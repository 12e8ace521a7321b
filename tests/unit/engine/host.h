/*
 * host: a small deterministic world around one or two engines: keeps what they append, answers
 * their loads, carries frames between them and their clients, each step only when a test says so.
 *
 * LSNs are tickets. Entries are loaded from what is durable, cells from what is flushed, as in the
 * server. A test may hold any of it back: host_settle() does all that is left.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/engine/engine.h"
#include "core/engine/stream_frame.h"
#include "proto/entries.h"
#include "proto/frame.h"
#include "proto/message.h"

#define HOST_CONNS 1024

struct bytes {
    uint8_t *at;
    size_t count;
};

struct bytes_list {
    struct bytes *items;
    size_t count;
    size_t taken;
};

struct kept_record {
    uint64_t ticket; /* 0: from before this start */
    struct record record;
    struct bytes bytes;
};

struct host_conn {
    struct conn_ref ref;
    bool blocked, closed, welcomed, unblocked;
    bool offered_hello;
    struct message_hello hello;
    struct claims claims;
    uint64_t accepted_at;
    struct welcome welcome;
    struct bytes_list in;   /* frames from the client */
    struct bytes_list feed; /* ENTRIES to the client */
    struct bytes_list out;  /* all other frames to it */
    size_t unsent;          /* bytes given and not told as sent */
};

struct world;

struct host {
    struct world *world;
    struct engine *engine;
    struct engine_config config;
    struct engine_budget budget;
    struct kept_record *records;
    size_t record_count;
    uint64_t appended, durable, flushed;
    struct load *loads;
    size_t load_count;
    struct host_conn conns[HOST_CONNS];
    uint32_t conn_count;
    struct bytes_list streams; /* towards this host */
    uint32_t want_flush, notes[8];
    uint64_t next_accept;
    bool parity;      /* of the partitions at home here; meaningless with one host */
    bool keep_unsent; /* frames stay unsent until host_sent() */
    bool fail_loads;
    uint64_t damaged_user; /* this user's rows of that kind are damaged; 0: nobody's */
    enum load_kind damaged_kind;
    uint64_t damaged_from;  /* only loads from there; 0: all */
    uint64_t stale_answers; /* so many answers come from a snapshot of `stale_at` */
    uint64_t stale_at;
};

struct world {
    struct host hosts[2];
    uint32_t host_count;
    uint64_t now_unix_ms;
    uint64_t term;
};

void world_open(struct world *world, uint32_t host_count,
                void (*change)(struct engine_config *config));
void world_close(struct world *world);

/* The k-th user whose home is that host. */
struct user_id world_user(const struct world *world, uint32_t host, uint32_t k);

/* Effects so far, kept in the host. */
void host_take_effects(struct host *host);
void host_run(struct host *host);
void host_begin_turn(struct host *host);
void host_durable(struct host *host); /* all that was appended */
void host_flush(struct host *host);   /* all that is durable */
/* Answers all loads that are waiting. */
void host_answer_loads(struct host *host);
/* Delivers stream frames to this host; false: there was none, or it blocked. */
bool host_deliver_stream(struct host *host);
void host_sent(struct host *host, struct host_conn *conn);
/* Everything, until nothing happens. */
void world_settle(struct world *world);
/* Crash: what isn't durable is lost; all else is in the volumes. */
void host_restart(struct host *host);

struct host_conn *host_connect(struct host *host, struct user_id user, uint32_t device,
                               struct message_cursor cursor);
/* A connection whose HELLO hasn't been offered. */
struct host_conn *host_accept(struct host *host, struct user_id user, uint32_t device,
                              struct message_cursor cursor);
/* Gives the engine what the client has sent, until it blocks. */
void host_offer(struct host *host, struct host_conn *conn);
void host_disconnect(struct host *host, struct host_conn *conn);

void client_frame(struct host_conn *conn, const uint8_t *bytes, size_t byte_count);
void client_send(struct host_conn *conn, uint64_t counter, uint64_t nonce, uint64_t to,
                 const char *body);
void client_send_bytes(struct host_conn *conn, uint64_t counter, uint64_t nonce, uint64_t to,
                       size_t body_bytes);
void client_ack(struct host_conn *conn, uint64_t seq);
void client_history(struct host_conn *conn, uint32_t request, uint64_t conversation,
                    enum history_direction direction, uint64_t anchor, uint16_t n, uint32_t bytes);

/* The next frame to the client; fails the test when there is none. */
struct frame_view client_next(struct host_conn *conn);
/* Frames that the client hasn't looked at. */
size_t client_waiting(const struct host_conn *conn);
/* Of the next frame, which must be that. */
struct message_accepted client_accepted(struct host_conn *conn);
struct message_rejected client_rejected(struct host_conn *conn);
struct message_error client_error(struct host_conn *conn);
struct message_page client_page(struct host_conn *conn);
/* The next log entry that the client hears of, over frames; checks that seqs follow. */
struct seen_entry {
    uint64_t seq;
    struct entry entry;
};
struct seen_entry client_entry(struct host_conn *conn);
/* A new world: what was being read is gone. */
void client_forget(void);
void host_list_add(struct bytes_list *list, const uint8_t *from, size_t count);
/* Drops what waits. */
void client_skip(struct host_conn *conn);

/* The host's records of a type, of that user (0: any). */
size_t host_count_records(const struct host *host, enum record_type type, uint64_t user);
const struct record *host_last_record(const struct host *host, enum record_type type,
                                      uint64_t user);

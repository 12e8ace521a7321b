/*
 * door_internal: what the files of the door share. door.c accepts and turns, door_handshake.c moves
 * bytes and shakes hands, door_hello.c reads HELLO and checks tokens, door_grant.c hands over.
 *
 * Thread   The door's.
 * Errors   As each function says.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/io/buffers.h"
#include "core/io/clock.h"
#include "core/io/ring.h"
#include "core/io/ring_ops.h"
#include "core/io/slab.h"
#include "core/io/timers.h"
#include "core/server/address_counts.h"
#include "core/server/conn.h"
#include "core/server/door.h"
#include "core/server/networks.h"
#include "core/server/proxy_header.h"
#include "core/tls/record.h"
#include "proto/codes.h"
#include "proto/message.h"

#define DOOR_BUFFER_GROUP 1

/*
 *   WAITING --> (PROXIED) --> SHAKING --> HELLO --> ASKED --> PASSING --> LENT --> (free)
 *                                |          |         |
 *                                +----------+---------+--> SAYING --> LINGERING --> CLOSING --> (free)
 *
 * WAITING until there is a place; PROXIED until a listed proxy has said whom it brings; ASKED once the token was good, PASSING once the home has granted
 * a slot, LENT when the descriptor has gone, until the home has all of it. SAYING an alert or an
 * ERROR, then LINGERING until the peer's end, for a second at most.
 *
 * At most one operation is in flight for a connection: a receive, a send, a pass or a close. So
 * nothing has to be cancelled before the descriptor goes to another ring.
 */
enum door_state {
    DOOR_WAITING,
    DOOR_PROXIED,
    DOOR_SHAKING,
    DOOR_HELLO,
    DOOR_ASKED,
    DOOR_PASSING,
    DOOR_LENT,
    DOOR_SAYING,
    DOOR_LINGERING,
    DOOR_CLOSING,
};

enum door_op {
    DOOR_OP_NONE = RING_OP_NONE,
    DOOR_OP_ACCEPT, /* slot: index of the listener */
    DOOR_OP_RECV,
    DOOR_OP_SEND,
    DOOR_OP_PASS,
    DOOR_OP_CLOSE,
    DOOR_OP_BELL,
};

/* Certificate and key, as long as a handshake uses them. */
struct door_identity {
    struct tls_server *server;
    uint32_t users; /* handshakes, and one more while it is the present one */
};

/* Slots whose input is to be worked off: each at most once (queued). */
struct door_queue {
    uint32_t *slots;
    uint32_t capacity;
    uint32_t first;
    uint32_t count;
};

struct door_bytes {
    uint8_t *bytes;
    uint32_t byte_count;
    uint32_t capacity;
};

struct door_conn {
    uint8_t state; /* enum door_state */
    bool busy;     /* it counts for handshakes_max */
    bool asked;    /* the home owes an answer: the slot must outlive it */
    bool closed;   /* our descriptor is gone */
    bool receiving;
    bool sending;
    bool queued; /* it is in door->work */
    bool peer_done;
    bool proxied; /* it comes from a listed proxy, which owes a header */
    uint8_t home;
    uint32_t next_waiting; /* DOOR_WAITING: the queue */
    uint64_t accepted_at;
    uint64_t address_key;     /* 0: not counted */
    union proxy_address peer; /* the client, as far as we know */

    struct door_identity *identity; /* SHAKING */
    struct tls_handshake *handshake;
    struct tls_keys keys;    /* HELLO and later */
    struct door_bytes in;    /* received, not yet used */
    struct door_bytes plain; /* decrypted: HELLO, and what came with its end */
    struct door_bytes out;   /* on its way out */
    uint32_t out_sent;

    struct user_id user;
    struct device_id device;
    uint32_t generation;
    bool has_generation;
    uint64_t login_expires_at_unix_s;

    uint32_t grant_slot;
    uint32_t grant_generation;
    int grant_ring;
    void *lent; /* struct door_lent, with its conn_frozen, while the home has it */
};

enum listener_state {
    LISTENER_IDLE,
    LISTENER_ARMED,
    LISTENER_CANCELLING,
};

struct door_listener {
    int fd;
    enum listener_state state;
    uint32_t life;        /* of the present accept, for its tag */
    uint64_t rearm_at_ns; /* after a failure; 0: at once */
};

struct door {
    const struct config *config;
    struct post *post;
    struct post_core *mail; /* post->cores[index] */
    struct log *log;
    const uint8_t *core_of_volume;
    uint16_t volume_count;
    uint32_t index;
    uint32_t busy_peak;   /* handshakes at once since memory was last given back */
    uint64_t calm_at_ns;  /* since when few of them are left; 0: they aren't few */
    uint64_t address_max; /* connections of one address; 0: no bound */

    struct ring ring;
    struct recv_buffers recv_buffers;
    struct slab conns;
    struct timers timers;
    struct tls_core tls;
    struct address_counts addresses;
    struct networks proxies;

    struct door_identity *identity;
    uint64_t certificate_version;
    const struct token_keys *login_keys;
    struct resume_ring resume;

    struct door_listener listeners[LISTEN_ADDRESSES_MAX];
    uint32_t listener_count;
    struct door_queue work;
    uint32_t busy;          /* connections that count for handshakes_max */
    uint32_t waiting_first; /* SLAB_NONE: none */
    uint32_t waiting_last;
    uint32_t waiting_count;
    uint64_t last_accepted_at;

    uint64_t now_ns;
    uint64_t now_unix_ms;
    bool draining;
    bool stopping;
    _Atomic bool listening; /* partners: door_run / door_is_listening */

    struct door_stats stats;
};

static inline struct door_conn *door_conn(struct door *door, uint32_t slot)
{
    return slab_get(&door->conns, slot);
}

static inline uint64_t door_tag(const struct door *door, enum door_op op, uint32_t slot)
{
    return ring_tag((uint8_t)op, slot, slab_generation(&door->conns, slot));
}

/* Room for `more` bytes behind those that are there. False: no memory. */
bool door_bytes_reserve(struct door_bytes *bytes, uint32_t more)
    __attribute__((warn_unused_result));
/* Drops the first bytes. */
void door_bytes_skip(struct door_bytes *bytes, uint32_t byte_count);
/* Zeroes (they may be secret) and frees. */
void door_bytes_free(struct door_bytes *bytes);

/* door.c */
bool door_queue_open(struct door_queue *queue, uint32_t capacity, struct hf_error *error)
    __attribute__((warn_unused_result));
void door_queue_put(struct door_queue *queue, uint32_t slot);
uint32_t door_queue_take(struct door_queue *queue);
/* It counts for handshakes_max no longer, unless the home still has or owes something of it. */
void door_give_place(struct door *door, struct door_conn *conn);
/* Frees the slot once nothing refers to it: closed here, not lent, no answer owed, not queued. */
void door_leave(struct door *door, uint32_t slot);
void door_identity_drop(struct door_identity *identity);
void door_begin_drain(struct door *door);
void door_reload(struct door *door, struct credentials *credentials);

/* door_handshake.c */
/* Goes on with what was received; then receives, sends, or changes state. */
void door_go_on(struct door *door, uint32_t slot);
void door_on_recv(struct door *door, const struct ring_event *event);
void door_on_send(struct door *door, const struct ring_event *event);
void door_on_close(struct door *door, const struct ring_event *event);
void door_on_deadline(struct door *door, uint32_t slot);
void door_receive(struct door *door, uint32_t slot);
/* Sends what lies in `out`; behind it the connection ends. Nothing there: it ends at once. */
void door_say_last(struct door *door, uint32_t slot);
void door_kill(struct door *door, uint32_t slot);

/* door_proxy.c */
/* What the client's address allows: false if it has its share already, or can't be counted. */
bool door_count_address(struct door *door, struct door_conn *conn)
    __attribute__((warn_unused_result));
void door_uncount_address(struct door *door, struct door_conn *conn);
void door_read_proxy_header(struct door *door, uint32_t slot);
/* "192.0.2.1:4711", for logs. */
void door_format_peer(const struct door_conn *conn, char text[LISTEN_TEXT_BYTES]);

/* door_hello.c */
void door_read_hello(struct door *door, uint32_t slot);
struct token_rules door_token_rules(const struct door *door);
/* ERROR, close_notify, the end. `text` may be NULL: that of the code. */
void door_refuse(struct door *door, uint32_t slot, enum code code, uint32_t retry_ms,
                 const char *text);

/* door_grant.c */
void door_ask_home(struct door *door, uint32_t slot);
void door_on_pass(struct door *door, const struct ring_event *event);
/* Zeroes and frees what a home had of a connection; NULL is allowed. */
void door_free_lent(void *lent);
void door_take_mail(struct door *door);
bool door_mail_waits(struct door *door);

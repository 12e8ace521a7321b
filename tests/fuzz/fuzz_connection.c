/*
 * All that a client sends behind its handshake, HELLO first, through the code that reads it in the
 * server: the door's HELLO, the hand-over, the link, the engine. What becomes of it doesn't depend
 * on records, on how the bytes arrive, nor on how often reading has to wait.
 *
 * The input: how HELLO's token is to be made and whether close_notify follows, one byte; four that
 * the splits are drawn from; the rest is plaintext. It is read twice: in as few records as it needs
 * and all at once; then in records and pieces of random sizes, with frames put back at random.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/link/link.h"
#include "core/server/door_internal.h"
#include "core/token/keys.h"
#include "core/token/resume.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/engine/host.h"

#define OPTION_BYTES   5
#define PLAIN_BYTES    ((size_t)1 << 16)
#define STREAM_BYTES   (PLAIN_BYTES * (TLS_RECORD_OVERHEAD + 1) + 64)
#define WAITS_MAX      1000
#define LOGIN_LIFE_S   600
#define PARTNER        2000 /* a user who has written to VECTORS_USER */
#define VECTORS_DEVICE 7
#define VECTORS_USER   1001 /* of tests/vectors/proto */
#define SPLIT_BYTES    61
#define PUT_BACK_EACH  4 /* frame, about */
#define SPLIT_MAX      2000

enum { TOKEN_AS_IT_IS, TOKEN_OF_LOGIN, TOKEN_OF_RESUME, TOKEN_MASK = 3, CLOSE_NOTIFY = 4 };

enum door_end { DOOR_END_NONE, DOOR_END_ASKED, DOOR_END_SAID, DOOR_END_KILLED };

static const char jwks[] =
    "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"hs\",\"k\":"
    "\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}]}";
static const char ring_text[] =
    "holdfast resume keys 1\n"
    "7 0 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
    "end 1\n";

struct bytes_read {
    const uint8_t *bytes;
    size_t byte_count;
    size_t used;
};

static const struct config config = { .token_leeway_s = 30, .token_life_max_s = 2592000 };
static struct token_keys *login_keys;
static struct tls_core client_tls;
static struct tls_core reactor_tls;
static struct cells cells;
static struct door door;
static uint32_t slot;
static enum door_end door_end;

static struct world world;
static struct host_conn *session;
static struct link client_link;
static struct link_pools pools;
static struct bytes_read stream;
static uint8_t stream_bytes[STREAM_BYTES];
static uint8_t *held; /* what found no cell, and is to be received again */
static size_t held_bytes;
static uint32_t generation; /* of VECTORS_DEVICE's login */
static bool splitting;
static bool ended;
static uint64_t meaning; /* a hash of all that came of it */
static uint64_t random_state;

/* ---- what of the door stands behind reading HELLO */

bool door_bytes_reserve(struct door_bytes *bytes, uint32_t more)
{
    /* Not a byte more than was asked for, so that the sanitizer sees one too many. */
    uint8_t *grown = realloc(bytes->bytes, bytes->byte_count + (size_t)more + 1);

    HF_ASSERT(grown != NULL);
    bytes->bytes = grown;
    bytes->capacity = bytes->byte_count + more;
    return true;
}

void door_bytes_skip(struct door_bytes *bytes, uint32_t byte_count)
{
    HF_ASSERT(byte_count <= bytes->byte_count);
    bytes->byte_count -= byte_count;
    memmove(bytes->bytes, bytes->bytes + byte_count, bytes->byte_count);
}

void door_bytes_free(struct door_bytes *bytes)
{
    free(bytes->bytes);
    *bytes = (struct door_bytes){ 0 };
}

void door_receive(struct door *of, uint32_t conn_slot)
{
    HF_ASSERT(!door_conn(of, conn_slot)->receiving);
    door_conn(of, conn_slot)->receiving = true;
}

static void end_door(enum door_end end)
{
    HF_ASSERT(door_end == DOOR_END_NONE);
    door_end = end;
}

void door_say_last(struct door *of, uint32_t conn_slot)
{
    HF_ASSERT(door_conn(of, conn_slot)->state == DOOR_HELLO);
    end_door(DOOR_END_SAID);
}

void door_kill(struct door *of, uint32_t conn_slot)
{
    HF_ASSERT(door_conn(of, conn_slot)->state == DOOR_HELLO);
    end_door(DOOR_END_KILLED);
}

void door_ask_home(struct door *of, uint32_t conn_slot)
{
    HF_ASSERT(door_conn(of, conn_slot)->state == DOOR_HELLO);
    end_door(DOOR_END_ASKED);
}

void door_format_peer(const struct door_conn *conn, char text[LISTEN_TEXT_BYTES])
{
    (void)conn;
    (void)snprintf(text, LISTEN_TEXT_BYTES, "192.0.2.1:4711");
}

void log_event(struct log *log, enum log_level level, const char *event, const char *format, ...)
{
    (void)log;
    (void)level;
    (void)event;
    (void)format;
}

/* ---- chance and meaning */

static size_t random_below(size_t limit)
{
    random_state ^= random_state >> 12; /* xorshift64* (Vigna 2016) */
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (size_t)((random_state * UINT64_C(0x2545f4914f6cdd1d) >> 16) % limit);
}

static size_t random_size(void)
{
    return 1 + random_below(random_below(2) == 0 ? SPLIT_BYTES : SPLIT_MAX);
}

static void mean(const void *bytes, size_t byte_count)
{
    for (size_t at = 0; at < byte_count; at++) {
        meaning = (meaning ^ ((const uint8_t *)bytes)[at]) * UINT64_C(0x100000001b3);
    }
}

static void mean_number(uint64_t number)
{
    mean(&number, sizeof number);
}

static void mean_list(const struct bytes_list *list)
{
    mean_number(list->count);
    for (size_t i = 0; i < list->count; i++) {
        mean_number(list->items[i].count);
        mean(list->items[i].at, list->items[i].count);
    }
}

/* A block of exactly that size: the sanitizer sees one byte too many. */
static uint8_t *copy_of(const uint8_t *bytes, size_t byte_count)
{
    uint8_t *copy = malloc(byte_count + (byte_count == 0));

    HF_ASSERT(copy != NULL);
    memcpy(copy, bytes, byte_count);
    return copy;
}

/* ---- the client */

static void start(void)
{
    const uint32_t counts[CELL_CLASSES] = { 16, 16, 16 };
    struct hf_error error;
    char *copy;

    if (login_keys != NULL) {
        return;
    }
    copy = strdup(jwks);
    HF_ASSERT(setenv("CMOCKA_TEST_ABORT", "1", 1) == 0); /* NOLINT(concurrency-mt-unsafe) */
    HF_ASSERT(copy != NULL &&
              token_keys_parse(&login_keys, copy, strlen(copy), TOKEN_KEYS_VERIFY, &error));
    free(copy);
    HF_ASSERT(tls_core_open(&client_tls, 8, &error) == 0);
    HF_ASSERT(tls_core_open(&reactor_tls, 8, &error) == 0);
    HF_ASSERT(tls_core_open(&door.tls, 8, &error) == 0);
    HF_ASSERT(cells_open(&cells, counts, &error));
    HF_ASSERT(slab_open(&door.conns, sizeof(struct door_conn), 1, 0, &error));
    HF_ASSERT(resume_ring_parse(&door.resume, ring_text, strlen(ring_text), &error));
    door.config = &config;
    door.login_keys = login_keys;
    pools = (struct link_pools){ .in = { .cells = &cells },
                                 .out = { .cells = &cells },
                                 .tls = &reactor_tls };
}

static size_t make_token(unsigned kind, const struct message_hello *hello,
                         uint8_t token[TOKEN_JWT_BYTES_MAX])
{
    const uint64_t now_unix_s = world.now_unix_ms / 1000;
    size_t byte_count = RESUME_TOKEN_BYTES;

    if (kind == TOKEN_OF_RESUME) {
        resume_sign(&door.resume,
                    &(struct resume_claims){ .user = hello->user,
                                             .device = hello->device,
                                             .generation = generation,
                                             .issued_at_unix_s = now_unix_s,
                                             .expires_at_unix_s = now_unix_s + LOGIN_LIFE_S },
                    token);
        return byte_count;
    }
    HF_ASSERT(token_sign(token_keys_find(login_keys, "hs", 2),
                         &(struct token_claims){ .user = hello->user,
                                                 .device = hello->device,
                                                 .expires_at_unix_s = now_unix_s + LOGIN_LIFE_S },
                         NULL, (char *)token, TOKEN_JWT_BYTES_MAX, &byte_count) == TOKEN_OK);
    return byte_count;
}

/* The plaintext, with a HELLO of the user and device that stand in it, but a token that is good. */
static size_t make_plain(unsigned kind, const uint8_t *bytes, size_t byte_count, uint8_t *plain)
{
    uint8_t token[TOKEN_JWT_BYTES_MAX];
    struct frame_view view;
    struct message_hello hello;
    size_t hello_bytes = 0;
    size_t used = 0;

    if ((kind == TOKEN_OF_LOGIN || kind == TOKEN_OF_RESUME) &&
        frame_parse(bytes, byte_count, &view) == FRAME_OK && view.type == FRAME_TYPE_HELLO &&
        message_decode_hello(&view, &hello) == CODE_OK) {
        hello.token = (struct message_bytes){ token, 0 };
        hello.token.byte_count = (uint16_t)make_token(kind, &hello, token);
        hello_bytes = message_encode_hello(plain, FRAME_BYTES_MAX, &hello);
        used = hello_bytes == 0 ? 0 : frame_bytes(&view);
    }
    memcpy(plain + hello_bytes, bytes + used, byte_count - used);
    return hello_bytes + byte_count - used;
}

static void make_stream(struct tls_keys *keys, const uint8_t *plain, size_t plain_bytes,
                        bool close_notify)
{
    size_t sealed = 0;

    for (size_t at = 0; at < plain_bytes;) {
        const size_t most = splitting ? random_size() : TLS_PLAINTEXT_BYTES_MAX;
        const size_t length = plain_bytes - at < most ? plain_bytes - at : most;
        const struct iovec part = { (void *)(uintptr_t)(plain + at), length };
        const size_t more = tls_record_seal(&client_tls, keys, &part, 1, stream_bytes + sealed,
                                            sizeof stream_bytes - sealed);

        HF_ASSERT(more != 0);
        sealed += more;
        at += length;
    }
    if (close_notify) {
        sealed += tls_record_seal_alert(&client_tls, keys, TLS_ALERT_CLOSE_NOTIFY,
                                        stream_bytes + sealed, sizeof stream_bytes - sealed);
    }
    stream = (struct bytes_read){ stream_bytes, sealed, 0 };
}

static size_t next_piece(const uint8_t **bytes)
{
    const size_t left = stream.byte_count - stream.used;
    const size_t most = splitting ? random_size() : left;
    const size_t piece = left < most ? left : most;

    *bytes = stream.bytes + stream.used;
    stream.used += piece;
    return piece;
}

/* ---- the door */

/* True: HELLO was whole and good. */
static bool read_hello(struct door_conn *conn)
{
    for (;;) {
        const uint8_t *bytes;

        door_read_hello(&door, slot);
        HF_ASSERT((door_end == DOOR_END_NONE) == conn->receiving);
        if (door_end != DOOR_END_NONE) {
            break;
        }

        const size_t piece = next_piece(&bytes);

        if (piece == 0) {
            mean_number(conn->plain.byte_count);
            HF_ASSERT(conn->in.byte_count == 0);
            break;
        }
        conn->receiving = false;
        HF_ASSERT(door_bytes_reserve(&conn->in, (uint32_t)piece));
        memcpy(conn->in.bytes + conn->in.byte_count, bytes, piece);
        conn->in.byte_count += (uint32_t)piece;
    }
    mean_number(door_end);
    mean(conn->out.bytes, conn->out.byte_count);
    return door_end == DOOR_END_ASKED;
}

/* ---- the home */

static enum engine_result end_session(uint64_t why)
{
    mean_number(why);
    ended = true;
    return ENGINE_CLOSED;
}

static enum engine_result on_token(const struct frame_view *view)
{
    const struct token_rules rules = door_token_rules(&door);
    struct message_token message;
    struct token_claims claims;
    const enum code code = message_decode_token(view, &message);

    if (code != CODE_OK) {
        return end_session(code);
    }
    mean_number(
        token_verify(login_keys, &rules, message.token.bytes, message.token.byte_count, &claims));
    return ENGINE_TAKEN;
}

/* As in reactor_input.c, where it stands among sockets and clocks. */
static enum engine_result on_frame(const struct frame_view *view)
{
    struct host *host = &world.hosts[0];
    const enum frame_origin origin = frame_type_origin(view->type);
    struct message_ping ping;

    if (origin == FRAME_FROM_NOBODY) {
        return ENGINE_TAKEN;
    }
    if ((origin & FRAME_FROM_CLIENT) == 0 || view->type == FRAME_TYPE_HELLO) {
        return end_session(CODE_UNEXPECTED);
    }
    if (view->type == FRAME_TYPE_PONG) {
        return ENGINE_TAKEN;
    }
    if (view->type == FRAME_TYPE_PING) {
        const enum code code = message_decode_ping(view, &ping);

        return code == CODE_OK ? ENGINE_TAKEN : end_session(code);
    }
    if (view->type == FRAME_TYPE_TOKEN) {
        return on_token(view);
    }
    if (view->type == FRAME_TYPE_BYE) {
        return end_session(message_decode_bye(view));
    }
    host_begin_turn(host);

    const enum engine_result result = engine_on_frame(host->engine, session->ref, view);

    host_run(host);
    world_settle(&world);
    HF_ASSERT(result != ENGINE_CLOSED || session->closed);
    ended = ended || session->closed;
    return result;
}

/* Offers frames until none is left or one has to wait. True: one waits. */
static bool work_off(struct link_input *input)
{
    struct frame_view view;
    struct tls_opened opened;

    while (!ended) {
        const enum link_next next = link_input_next(&pools, &client_link, input, &view, &opened);

        if (next == LINK_NEXT_NONE) {
            return false;
        }
        HF_ASSERT(next != LINK_NEXT_NO_ROOM);
        if (next != LINK_NEXT_FRAME) {
            (void)end_session(0x100U + (unsigned)next);
            return false;
        }
        if (splitting && random_below(PUT_BACK_EACH) == 0) {
            link_input_put_back(&client_link, input);
            return true;
        }
        if (on_frame(&view) == ENGINE_BLOCKED) {
            link_input_put_back(&client_link, input);
            host_flush(&world.hosts[0]);
            world_settle(&world);
            return true;
        }
        mean_number(view.type);
        mean_number(view.payload_bytes);
        mean(view.payload, view.payload_bytes);
    }
    return false;
}

/* One round, as reactor_work_input's. True: a frame waits. */
static bool work_input(uint8_t *received, size_t byte_count, bool waits)
{
    struct link_input input;

    HF_ASSERT(link_input_begin(&pools, &client_link, received, byte_count, &input) ==
              LINK_NEXT_NONE);
    if (!waits) {
        waits = work_off(&input);
    }
    if (ended) {
        link_drop_input(&pools, &client_link);
        return false;
    }
    if (!link_input_end(&pools, &client_link, &input)) {
        size_t left;

        HF_ASSERT(waits && link_input_left(&input, &left) && left <= byte_count);
        held = copy_of(received + byte_count - left, left);
        held_bytes = left;
    }
    return waits;
}

/* The piece, and all that has to wait meanwhile; at times the next piece comes before it goes on. */
static void receive(const uint8_t *bytes, size_t byte_count)
{
    uint8_t *received = copy_of(bytes, byte_count);
    bool waits = work_input(received, byte_count, false);
    unsigned rounds = 0;

    free(received);
    while (waits && !ended) {
        HF_ASSERT(rounds++ < WAITS_MAX);
        if (splitting && held == NULL && random_below(4) == 0) {
            byte_count = next_piece(&bytes);
            received = copy_of(bytes, byte_count);
            (void)work_input(received, byte_count, true);
        } else {
            received = held;
            byte_count = held_bytes;
            held = NULL;
            held_bytes = 0;
            waits = work_input(received, byte_count, false);
        }
        free(received);
    }
}

/* What the door hands over, as door_grant.c and go_live in reactor_life.c do it. */
static void live(struct door_conn *conn)
{
    struct frame_view view;
    struct message_hello hello;
    struct host *host = &world.hosts[0];
    const uint8_t *bytes;
    size_t piece;

    HF_ASSERT(frame_parse(conn->plain.bytes, conn->plain.byte_count, &view) == FRAME_OK);
    HF_ASSERT(message_decode_hello(&view, &hello) == CODE_OK);
    HF_ASSERT(conn->user.value == hello.user.value && conn->device.value == hello.device.value);
    client_link.keys = conn->keys;
    session = host_accept(host, conn->user, conn->device.value, hello.cursor);
    session->hello = hello;
    session->claims =
        (struct claims){ conn->user, conn->device, conn->generation, conn->has_generation };
    host_offer(host, session);
    world_settle(&world);
    ended = session->closed;
    if (ended) {
        return;
    }
    HF_ASSERT(session->offered_hello);
    HF_ASSERT(link_keep_plain(&pools, &client_link, conn->plain.bytes + frame_bytes(&view),
                              conn->plain.byte_count - frame_bytes(&view)));
    receive(conn->in.bytes, conn->in.byte_count);
    while (!ended && (piece = next_piece(&bytes)) > 0) {
        receive(bytes, piece);
    }
    if (!ended) { /* no more than the beginning of a frame is left, wherever it was cut */
        HF_ASSERT(client_link.rest_bytes == 0 && client_link.cipher_bytes == 0);
        mean_number(client_link.plain_bytes);
    }
}

/* What the session's peers could see, and what a start would find. */
static void mean_world(void)
{
    const struct host *host = &world.hosts[0];

    for (uint32_t i = 0; i < host->conn_count; i++) {
        mean_number(host->conns[i].closed);
        mean_list(&host->conns[i].out);
        mean_list(&host->conns[i].feed);
    }
    mean_number(session->welcomed);
    mean_number(session->welcome.head);
    mean_number(host->record_count);
    for (size_t i = 0; i < host->record_count; i++) {
        mean(host->records[i].bytes.at, host->records[i].bytes.count);
    }
}

static void few_of_each(struct engine_config *engine_config)
{
    engine_config->hash_seed = 7;
    engine_config->recent_bytes = (size_t)1 << 17;
    engine_config->effect_bytes = (size_t)1 << 18;
}

/* One user who has written to another, so that there is something to read. */
static void populate(void)
{
    const struct message_cursor none = { 0 };
    struct host *host = &world.hosts[0];
    struct host_conn *to =
        host_connect(host, (struct user_id){ VECTORS_USER }, VECTORS_DEVICE, none);
    struct host_conn *from = host_connect(host, (struct user_id){ PARTNER }, 1, none);

    client_send(from, 1, 1, VECTORS_USER, "one");
    client_send(from, 2, 2, VECTORS_USER, "two");
    client_send(to, 1, 3, PARTNER, "three");
    world_settle(&world);
    generation = to->welcome.generation;
}

static uint64_t run(const uint8_t *bytes, size_t byte_count, bool split)
{
    static uint8_t plain[PLAIN_BYTES];
    uint8_t secrets[2][TLS_SECRET_BYTES_MAX];
    struct tls_keys keys;
    const unsigned options = bytes[0];

    splitting = split;
    random_state = load_be32(bytes + 1) | UINT64_C(1) << 32;
    meaning = 0;
    ended = false;
    door_end = DOOR_END_NONE;
    memset(&client_link, 0, sizeof client_link);
    memset(secrets[0], 1, sizeof secrets[0]);
    memset(secrets[1], 2, sizeof secrets[1]);
    HF_ASSERT(tls_keys_init(&keys, AEAD_AES_128_GCM_SHA256, true, secrets[1], secrets[0]));

    world_open(&world, 1, few_of_each);
    populate();
    session = NULL;
    door.now_unix_ms = world.now_unix_ms;
    slot = slab_take(&door.conns);

    struct door_conn *conn = door_conn(&door, slot);

    conn->state = DOOR_HELLO;
    HF_ASSERT(tls_keys_init(&conn->keys, AEAD_AES_128_GCM_SHA256, false, secrets[0], secrets[1]));
    make_stream(
        &keys, plain,
        make_plain(options & TOKEN_MASK, bytes + OPTION_BYTES, byte_count - OPTION_BYTES, plain),
        (options & CLOSE_NOTIFY) != 0);
    if (read_hello(conn)) {
        live(conn);
        mean_world();
    }
    free(held);
    held = NULL;
    held_bytes = 0;
    link_drop(&pools, &client_link);
    for (int i = 0; i < CELL_CLASSES; i++) { /* every cell came back */
        HF_ASSERT(cells.classes_[i].in_use == 0);
    }
    tls_keys_clear(&door.tls, &conn->keys);
    tls_keys_clear(&client_tls, &keys);
    door_bytes_free(&conn->in);
    door_bytes_free(&conn->plain);
    door_bytes_free(&conn->out);
    slab_give(&door.conns, slot);
    world_close(&world);
    return meaning;
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    start();
    if (byte_count < OPTION_BYTES || byte_count > PLAIN_BYTES - FRAME_BYTES_MAX) {
        return;
    }

    const uint64_t whole = run(bytes, byte_count, false);

    HF_ASSERT(run(bytes, byte_count, true) == whole);
}

#include "core/server/door_internal.h"

#include "core/base/check.h"

/* ---- refusing */

/* ERROR and close_notify, sealed into `out`. False: they can't be, and the connection just ends. */
static bool seal_last_words(struct door *door, struct door_conn *conn, const uint8_t *frame,
                            size_t frame_size)
{
    const struct iovec part = { .iov_base = (void *)(uintptr_t)frame, .iov_len = frame_size };
    const size_t sealed_bytes = tls_record_sealed_bytes(&door->tls, &conn->keys, frame_size);

    if (!door_bytes_reserve(&conn->out, (uint32_t)sealed_bytes + TLS_ALERT_RECORD_BYTES)) {
        return false;
    }

    size_t written =
        tls_record_seal(&door->tls, &conn->keys, &part, 1, conn->out.bytes, conn->out.capacity);

    if (written == 0) {
        return false;
    }
    written += tls_record_seal_alert(&door->tls, &conn->keys, TLS_ALERT_CLOSE_NOTIFY,
                                     conn->out.bytes + written, conn->out.capacity - written);
    conn->out.byte_count = (uint32_t)written;
    return true;
}

void door_refuse(struct door *door, uint32_t slot, enum code code, uint32_t retry_ms,
                 const char *text)
{
    struct door_conn *conn = door_conn(door, slot);
    uint8_t frame[ERROR_FRAME_BYTES_MAX];
    const char *said = text != NULL ? text : code_text((uint16_t)code);
    const struct message_error error = {
        .code = (uint16_t)code,
        .retry_ms = retry_ms,
        .fatal = true,
        .text = { (const uint8_t *)said, (uint16_t)strlen(said) },
    };

    HF_ASSERT(code < DOOR_CODES && code_is_fatal((uint16_t)code));
    HF_ASSERT(!conn->sending && conn->out.byte_count == 0);
    stat_add(&door->stats.errors[code], 1);
    if (!seal_last_words(door, conn, frame, message_encode_error(frame, sizeof frame, &error))) {
        door_kill(door, slot);
        return;
    }
    door_say_last(door, slot);
}

/* ---- tokens */

static enum token_status check_login_token(struct door *door, const struct message_hello *hello,
                                           struct door_conn *conn)
{
    const struct token_rules rules = door_token_rules(door);
    struct token_claims claims;
    const enum token_status status = token_verify(door->login_keys, &rules, hello->token.bytes,
                                                  hello->token.byte_count, &claims);

    stat_add(&door->stats.tokens[status], 1);
    if (status == TOKEN_OK) {
        conn->user = claims.user;
        conn->device = claims.device;
        conn->login_expires_at_unix_s = 0;
    }
    return status;
}

static enum token_status check_resume_token(struct door *door, const struct message_hello *hello,
                                            struct door_conn *conn)
{
    struct resume_claims claims;
    const enum token_status status =
        resume_verify(&door->resume, door->now_unix_ms / 1000, hello->token.bytes,
                      hello->token.byte_count, &claims);

    stat_add(&door->stats.resume_tokens[status], 1);
    if (status == TOKEN_OK) {
        conn->user = claims.user;
        conn->device = claims.device;
        conn->generation = claims.generation;
        conn->has_generation = true;
        conn->login_expires_at_unix_s = claims.expires_at_unix_s;
    }
    return status;
}

struct token_rules door_token_rules(const struct door *door)
{
    const struct config *config = door->config;

    return (struct token_rules){
        .now_unix_s = door->now_unix_ms / 1000,
        .leeway_s = config->token_leeway_s,
        .life_max_s = config->token_life_max_s,
        .audience = config->token_audience[0] == '\0' ? NULL : config->token_audience,
    };
}

static enum code code_of_token(enum token_status status)
{
    if (status == TOKEN_EXPIRED) {
        return CODE_TOKEN_EXPIRED;
    }
    return status == TOKEN_NO_ROOM ? CODE_BUSY : CODE_BAD_TOKEN;
}

static void log_refusal(struct door *door, const struct door_conn *conn,
                        const struct message_hello *hello, const char *reason)
{
    char text[LISTEN_TEXT_BYTES];

    door_format_peer(conn, text);
    log_event(door->log, LOG_INFO, "token_refused", "user=%llu device=%u address=%s reason=%s",
              (unsigned long long)hello->user.value, hello->device.value, text, reason);
}

static bool check_token(struct door *door, uint32_t slot, const struct message_hello *hello)
{
    struct door_conn *conn = door_conn(door, slot);
    enum token_status status = TOKEN_MALFORMED;

    switch (token_kind(hello->token.bytes, hello->token.byte_count)) {
    case TOKEN_KIND_JWT:
        status = check_login_token(door, hello, conn);
        break;
    case TOKEN_KIND_RESUME:
        status = check_resume_token(door, hello, conn);
        break;
    case TOKEN_KIND_UNKNOWN:
        stat_add(&door->stats.tokens[TOKEN_MALFORMED], 1);
        break;
    }
    if (status != TOKEN_OK) {
        log_refusal(door, conn, hello, token_status_label(status));
        door_refuse(door, slot, code_of_token(status), 0, token_status_text(status));
        return false;
    }
    if (conn->user.value != hello->user.value || conn->device.value != hello->device.value) {
        log_refusal(door, conn, hello, "another_s");
        door_refuse(door, slot, CODE_BAD_TOKEN, 0, NULL);
        return false;
    }
    return true;
}

/* ---- HELLO */

static void on_hello(struct door *door, uint32_t slot, const struct frame_view *view)
{
    struct message_hello hello;

    if (view->type != FRAME_TYPE_HELLO) {
        door_refuse(door, slot, CODE_HELLO_EXPECTED, 0, NULL);
        return;
    }

    const enum code code = message_decode_hello(view, &hello);

    if (code != CODE_OK) {
        door_refuse(door, slot, code, 0, NULL);
        return;
    }
    if (check_token(door, slot, &hello)) {
        door_ask_home(door, slot);
    }
}

/* True: the beginning of `plain` decides, and has been acted on. */
static bool look_for_hello(struct door *door, uint32_t slot, struct door_conn *conn)
{
    struct frame_view view;

    switch (frame_parse(conn->plain.bytes, conn->plain.byte_count, &view)) {
    case FRAME_OK:
        on_hello(door, slot, &view);
        return true;
    case FRAME_TOO_LARGE:
        door_refuse(door, slot, CODE_FRAME_TOO_LARGE, 0, NULL);
        return true;
    case FRAME_NEED_MORE:
        if (conn->plain.byte_count >= FRAME_HEADER_BYTES && view.type != FRAME_TYPE_HELLO) {
            door_refuse(door, slot, CODE_HELLO_EXPECTED, 0, NULL);
            return true;
        }
        return false;
    }
    HF_ASSERT(false);
    return true;
}

/* The last record: close_notify or the alert of a fault. */
static void say_alert(struct door *door, uint32_t slot, struct door_conn *conn,
                      enum tls_alert alert)
{
    if (!door_bytes_reserve(&conn->out, TLS_ALERT_RECORD_BYTES)) {
        door_kill(door, slot);
        return;
    }
    conn->out.byte_count = (uint32_t)tls_record_seal_alert(&door->tls, &conn->keys, alert,
                                                           conn->out.bytes, conn->out.capacity);
    door_say_last(door, slot);
}

static bool keep_plain(struct door_conn *conn, const struct tls_opened *opened)
{
    if (!door_bytes_reserve(&conn->plain, opened->data_bytes)) {
        return false;
    }
    memcpy(conn->plain.bytes + conn->plain.byte_count, conn->in.bytes + opened->data_offset,
           opened->data_bytes);
    conn->plain.byte_count += opened->data_bytes;
    return true;
}

/* Record by record until HELLO is whole: less than a frame, and then one record, are kept. */
void door_read_hello(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);

    while (!look_for_hello(door, slot, conn)) {
        struct tls_opened opened;

        tls_record_open(&door->tls, &conn->keys, conn->in.bytes, conn->in.byte_count, &opened);
        switch (opened.result) {
        case TLS_OPEN_MORE:
            door_receive(door, slot);
            return;
        case TLS_OPEN_DATA:
            if (!keep_plain(conn, &opened)) {
                door_kill(door, slot);
                return;
            }
            break;
        case TLS_OPEN_HANDLED:
            break;
        case TLS_OPEN_CLOSED:
            stat_add(&door->stats.hello_gone, 1);
            conn->peer_done = true;
            say_alert(door, slot, conn, TLS_ALERT_CLOSE_NOTIFY);
            return;
        case TLS_OPEN_FATAL:
            stat_add(&door->stats.tls_faults, 1);
            conn->peer_done = opened.alert == TLS_ALERT_NONE;
            say_alert(door, slot, conn, opened.alert);
            return;
        }
        door_bytes_skip(&conn->in, opened.record_bytes);
    }
}

#include "core/server/reactor_internal.h"

#include "core/base/check.h"
#include "core/server/credentials.h"
#include "core/token/token.h"
#include "proto/message.h"

/* ---- tokens: resume tokens are checked here, log-in tokens by the door */

static void prolong(struct reactor *reactor, uint32_t slot, uint32_t life_s)
{
    struct conn *conn = reactor_conn(reactor, slot);
    const uint64_t now_unix_s = reactor->now_unix_ms / 1000;
    const struct resume_claims claims = {
        .user = conn->user,
        .device = conn->device,
        .generation = conn->generation,
        .issued_at_unix_s = now_unix_s,
        .expires_at_unix_s = now_unix_s + life_s,
    };
    uint8_t token[RESUME_TOKEN_BYTES];
    uint8_t frame[FRAME_HEADER_BYTES + TOKEN_FIXED_BYTES + TLV_HEADER_BYTES + RESUME_TOKEN_BYTES];

    resume_sign(&reactor->resume, &claims, token);
    const struct message_token answer = { .life_s = life_s, .token = { token, sizeof token } };
    const size_t frame_size = message_encode_token(frame, sizeof frame, &answer);

    conn->expires_at_s = reactor->now_s + life_s;
    reactor_put_frame(reactor, slot, frame, frame_size, false);
}

static bool is_same(const struct conn *conn, struct user_id user, struct device_id device)
{
    return conn->user.value == user.value && conn->device.value == device.value;
}

static enum engine_result on_resume_token(struct reactor *reactor, uint32_t slot,
                                          const struct message_token *message)
{
    struct conn *conn = reactor_conn(reactor, slot);
    const uint64_t now_unix_s = reactor->now_unix_ms / 1000;
    struct resume_claims claims;
    const enum token_status status = resume_verify(
        &reactor->resume, now_unix_s, message->token.bytes, message->token.byte_count, &claims);

    if (status != TOKEN_OK || !is_same(conn, claims.user, claims.device) ||
        claims.generation != conn->generation) {
        reactor_end(reactor, slot, status == TOKEN_EXPIRED ? CODE_TOKEN_EXPIRED : CODE_BAD_TOKEN);
        return ENGINE_CLOSED;
    }
    prolong(reactor, slot, (uint32_t)(claims.expires_at_unix_s - now_unix_s));
    return ENGINE_TAKEN;
}

static enum engine_result ask_door(struct reactor *reactor, uint32_t slot,
                                   const struct message_token *message)
{
    struct conn *conn = reactor_conn(reactor, slot);
    struct mail mail = { .kind = MAIL_TOKEN_ASK, .conn_slot = slot };
    const uint32_t all = (1U << REACTOR_TOKENS) - 1;

    if ((conn->flags & CONN_TOKEN_ASKED) != 0 || reactor->tokens_taken == all) {
        reactor_end(reactor, slot, CODE_BUSY);
        return ENGINE_CLOSED;
    }

    const uint32_t i = (uint32_t)__builtin_ctz(~reactor->tokens_taken);

    mail.from = (uint8_t)reactor->index;
    mail.conn_generation = slab_generation(&reactor->conns, slot);
    mail.a = i;
    mail.bytes = reactor->tokens + (size_t)i * TOKEN_BYTES_MAX;
    mail.byte_count = message->token.byte_count;
    memcpy(mail.bytes, message->token.bytes, message->token.byte_count);
    if (!post_give(&reactor->post->cores[conn->door].reactor_to_door[reactor->index], &mail)) {
        reactor_end(reactor, slot, CODE_BUSY);
        return ENGINE_CLOSED;
    }
    reactor->tokens_taken |= 1U << i;
    conn->flags |= CONN_TOKEN_ASKED;
    return ENGINE_TAKEN;
}

enum engine_result reactor_on_token(struct reactor *reactor, uint32_t slot,
                                    const struct frame_view *view)
{
    struct message_token message;
    const enum code code = message_decode_token(view, &message);

    if (code != CODE_OK) {
        reactor_end(reactor, slot, code);
        return ENGINE_CLOSED;
    }
    switch (token_kind(message.token.bytes, message.token.byte_count)) {
    case TOKEN_KIND_RESUME:
        return on_resume_token(reactor, slot, &message);
    case TOKEN_KIND_JWT:
        return ask_door(reactor, slot, &message);
    case TOKEN_KIND_UNKNOWN:
        break;
    }
    reactor_end(reactor, slot, CODE_BAD_TOKEN);
    return ENGINE_CLOSED;
}

static void on_token_answer(struct reactor *reactor, const struct mail *mail)
{
    struct conn *conn = slab_find(&reactor->conns, mail->conn_slot, mail->conn_generation);
    const struct user_id user = { mail->number };
    const struct device_id device = { mail->b };

    reactor->tokens_taken &= ~(1U << mail->a);
    if (conn == NULL) {
        return;
    }
    conn->flags &= (uint16_t)~CONN_TOKEN_ASKED;
    if (conn->state != CONN_LIVE) {
        return;
    }
    if (mail->code != TOKEN_OK || !is_same(conn, user, device)) {
        reactor_end(reactor, mail->conn_slot,
                    mail->code == TOKEN_EXPIRED ? CODE_TOKEN_EXPIRED : CODE_BAD_TOKEN);
        return;
    }
    prolong(reactor, mail->conn_slot, (uint32_t)reactor->config->login_life_s);
}

/* ---- mail */

static void on_door_mail(struct reactor *reactor, const struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_GRANT_ASK:
        reactor_grant(reactor, mail);
        return;
    case MAIL_GRANT_CANCEL:
        reactor_ungrant(reactor, mail->conn_slot, mail->conn_generation);
        return;
    case MAIL_ADOPT:
        reactor_adopt(reactor, mail);
        return;
    case MAIL_TOKEN_ANSWER:
        on_token_answer(reactor, mail);
        return;
    default:
        HF_ASSERT(false);
    }
}

static void on_flushed(struct reactor *reactor, const struct mail *mail)
{
    uint64_t ticket;
    uint64_t lsn;

    HF_ASSERT(mail->kind == MAIL_FLUSHED);
    storage_on_flushed(reactor->storage, mail, &ticket, &lsn);
    engine_on_flushed(reactor->engine, ticket, lsn);
    reactor_take_effects(reactor);
}

static void tell_damage(struct reactor *reactor, const struct storage_damage *damage)
{
    stat_add(&reactor->stats.rows_damaged, 1);
    log_event(reactor->log, LOG_ERROR, "row_damaged",
              "volume=%u user=%" PRIu64 " row=\"%s\" hint=\"this user is refused: restore a "
              "backup\"",
              damage->volume, damage->user.value, damage->row);
}

static void on_loaded(struct reactor *reactor, const struct mail *mail)
{
    const struct loaded *loaded = storage_get_loaded(mail);
    const struct storage_damage *damage = storage_get_damage(mail);

    if (damage != NULL) {
        tell_damage(reactor, damage);
    }
    /* The place is free before the engine hears of it: it may ask for the next at once. */
    storage_end_load(reactor->storage, mail);
    engine_on_loaded(reactor->engine, loaded);
    reactor_take_effects(reactor);
}

static void on_expired(struct reactor *reactor, const struct mail *mail)
{
    const struct storage_expired *expired = mail->bytes;

    HF_ASSERT(reactor->expired.kind == MAIL_NONE);
    if (expired->damage.found) {
        tell_damage(reactor, &expired->damage);
        storage_end_expired(reactor->storage, mail);
        return;
    }
    reactor->expired = *mail;
}

static void on_reader_mail(struct reactor *reactor, const struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_LOADED:
        on_loaded(reactor, mail);
        return;
    case MAIL_EXPIRED:
        on_expired(reactor, mail);
        return;
    case MAIL_SWEPT:
        stat_add(&reactor->stats.retention_sweeps, 1);
        return;
    default:
        HF_ASSERT(false);
    }
}

/* Offered in each turn: the engine blocks until the user is in memory, or there is less to do. */
static void run_expired(struct reactor *reactor)
{
    const struct storage_expired *expired = reactor->expired.bytes;

    if (reactor->expired.kind == MAIL_NONE) {
        return;
    }
    const enum engine_result result =
        engine_on_expired(reactor->engine, expired->found.user, expired->found.floor);

    reactor_take_effects(reactor);
    if (result != ENGINE_BLOCKED) {
        storage_end_expired(reactor->storage, &reactor->expired);
        reactor->expired = (struct mail){ .kind = MAIL_NONE };
    }
}

static void on_node_mail(struct reactor *reactor, const struct mail *mail)
{
    switch (mail->kind) {
    case MAIL_DRAIN:
        reactor_begin_drain(reactor, mail->number);
        return;
    case MAIL_STOP:
        reactor->stopping = true;
        storage_end(reactor->storage);
        return;
    case MAIL_RELOAD:
        reactor->resume = ((const struct credentials *)mail->bytes)->resume;
        credentials_took(mail->bytes);
        return;
    default:
        HF_ASSERT(false);
    }
}

void reactor_take_mail(struct reactor *reactor)
{
    const struct mail *mail;

    while ((mail = mailbox_take(&reactor->mail->flusher_to_reactor)) != NULL) {
        on_flushed(reactor, mail);
    }
    while ((mail = mailbox_take(&reactor->mail->reader_to_reactor)) != NULL) {
        on_reader_mail(reactor, mail);
    }
    run_expired(reactor);
    for (uint32_t door = 0; door < reactor->post->core_count; door++) {
        while ((mail = mailbox_take(&reactor->mail->door_to_reactor[door])) != NULL) {
            on_door_mail(reactor, mail);
        }
    }
    reactor_run_streams(reactor);
    while ((mail = mailbox_take(&reactor->mail->node_to_reactor)) != NULL) {
        on_node_mail(reactor, mail);
    }
}

bool reactor_mail_waits(struct reactor *reactor)
{
    bool waits = !mailbox_empty(&reactor->mail->flusher_to_reactor) ||
                 !mailbox_empty(&reactor->mail->reader_to_reactor) ||
                 !mailbox_empty(&reactor->mail->node_to_reactor);

    for (uint32_t i = 0; !waits && i < reactor->post->core_count; i++) {
        waits =
            !mailbox_empty(&reactor->mail->door_to_reactor[i]) ||
            (!reactor->streams[i].held && !mailbox_empty(&reactor->mail->reactor_to_reactor[i]));
    }
    return waits;
}

#include "core/server/door_internal.h"

#include <stdlib.h>

#include "core/base/check.h"
#include "store/schema.h"

#define RETRY_BUSY_MS 5000

/* A frozen connection, and whose it is when it comes back. */
struct door_lent {
    size_t byte_count; /* of all of it */
    uint32_t slot;
    struct conn_frozen *frozen; /* behind this struct */
};

static struct mailbox *mailbox_to(struct door *door, uint32_t core)
{
    return &door->post->cores[core].door_to_reactor[door->index];
}

static bool give(struct door *door, uint32_t core, struct mail *mail)
{
    mail->from = (uint8_t)door->index;
    return post_give(mailbox_to(door, core), mail);
}

/* ---- asking */

void door_ask_home(struct door *door, uint32_t slot)
{
    struct door_conn *conn = door_conn(door, slot);
    const uint16_t volume = schema_volume_of(partition_of(conn->user.value), door->volume_count);
    struct mail ask = {
        .kind = MAIL_GRANT_ASK,
        .a = slot,
        .b = slab_generation(&door->conns, slot),
    };

    HF_ASSERT(!conn->receiving && !conn->sending);
    conn->home = door->core_of_volume[volume];
    if (!give(door, conn->home, &ask)) {
        door_refuse(door, slot, CODE_BUSY, RETRY_BUSY_MS, NULL);
        return;
    }
    conn->asked = true;
    conn->state = DOOR_ASKED;
}

static void cancel_grant(struct door *door, struct door_conn *conn)
{
    struct mail cancel = {
        .kind = MAIL_GRANT_CANCEL,
        .conn_slot = conn->grant_slot,
        .conn_generation = conn->grant_generation,
    };

    /* Were there no room, the grant would run out by time. */
    (void)!give(door, conn->home, &cancel);
}

/* ---- handing over */

static struct door_lent *freeze(struct door_conn *conn, uint32_t slot)
{
    struct frame_view view;
    const bool whole = frame_parse(conn->plain.bytes, conn->plain.byte_count, &view) == FRAME_OK;

    HF_ASSERT(whole);
    const size_t hello_bytes = frame_bytes(&view);
    const size_t byte_count = sizeof(struct door_lent) + sizeof(struct conn_frozen) +
                              conn->plain.byte_count + conn->in.byte_count;
    struct door_lent *lent = malloc(byte_count);

    if (lent == NULL) {
        return NULL;
    }

    struct conn_frozen *frozen = (struct conn_frozen *)(void *)(lent + 1);

    *lent = (struct door_lent){ byte_count, slot, frozen };
    memset(frozen, 0, sizeof *frozen);
    frozen->version = CONN_FROZEN_VERSION;
    frozen->hello_bytes = (uint32_t)hello_bytes;
    frozen->plain_bytes = conn->plain.byte_count - (uint32_t)hello_bytes;
    frozen->cipher_bytes = conn->in.byte_count;
    frozen->accepted_at = conn->accepted_at;
    frozen->address_key = conn->address_key;
    frozen->user = conn->user;
    frozen->device = conn->device;
    frozen->generation = conn->generation;
    frozen->has_generation = conn->has_generation;
    frozen->login_expires_at_unix_s = conn->login_expires_at_unix_s;
    frozen->keys = conn->keys;
    memcpy(frozen->bytes, conn->plain.bytes, conn->plain.byte_count);
    if (conn->in.byte_count != 0) {
        memcpy(frozen->bytes + conn->plain.byte_count, conn->in.bytes, conn->in.byte_count);
    }
    return lent;
}

void door_free_lent(void *memory)
{
    struct door_lent *lent = memory;

    if (lent != NULL) {
        explicit_bzero(lent, lent->byte_count);
        free(lent);
    }
}

static void on_granted(struct door *door, const struct mail *mail)
{
    struct door_conn *conn = slab_find(&door->conns, mail->a, mail->b);

    HF_ASSERT(conn != NULL && conn->asked);
    conn->asked = false;
    conn->grant_slot = mail->conn_slot;
    conn->grant_generation = mail->conn_generation;
    conn->grant_ring = (int)mail->number;
    if (conn->state != DOOR_ASKED) { /* its time was over meanwhile */
        cancel_grant(door, conn);
        door_leave(door, mail->a);
        return;
    }
    conn->lent = freeze(conn, mail->a);
    if (conn->lent == NULL) {
        cancel_grant(door, conn);
        door_refuse(door, mail->a, CODE_BUSY, RETRY_BUSY_MS, NULL);
        return;
    }
    conn->state = DOOR_PASSING;
    timers_cancel(&door->timers, mail->a);
    ring_pass_file(&door->ring, conn->grant_ring, mail->a,
                   ring_tag(MAIL_OP_ADOPTED, conn->grant_slot, conn->grant_generation),
                   door_tag(door, DOOR_OP_PASS, mail->a));
}

static void on_refused(struct door *door, const struct mail *mail)
{
    struct door_conn *conn = slab_find(&door->conns, mail->a, mail->b);

    HF_ASSERT(conn != NULL && conn->asked);
    conn->asked = false;
    if (conn->state != DOOR_ASKED) {
        door_leave(door, mail->a);
        return;
    }
    door_refuse(door, mail->a, (enum code)mail->code,
                mail->code == CODE_GOING_AWAY ? 0 : RETRY_BUSY_MS, NULL);
}

/*
 * The descriptor is over there: now the rest follows, and the home acts when it has both. From here
 * on we never seal for this connection again.
 */
void door_on_pass(struct door *door, const struct ring_event *event)
{
    const uint32_t slot = ring_tag_slot(event->tag);
    struct door_conn *conn = slab_find(&door->conns, slot, ring_tag_generation(event->tag));

    HF_ASSERT(conn != NULL && conn->state == DOOR_PASSING);
    if (event->result < 0) {
        stat_add(&door->stats.pass_failures, 1);
        log_event(door->log, LOG_WARNING, "pass_failed", "home=%u errno=%d", conn->home,
                  -event->result);
        door_free_lent(conn->lent);
        conn->lent = NULL;
        cancel_grant(door, conn);
        conn->state = DOOR_ASKED;
        door_refuse(door, slot, CODE_BUSY, RETRY_BUSY_MS, NULL);
        return;
    }

    struct door_lent *lent = conn->lent;
    struct mail adopt = {
        .kind = MAIL_ADOPT,
        .conn_slot = conn->grant_slot,
        .conn_generation = conn->grant_generation,
        .bytes = lent->frozen,
    };
    const bool given = give(door, conn->home, &adopt);

    HF_ASSERT(given); /* the mailbox has room for all that handshakes_max allows */
    tls_keys_clear(&door->tls, &conn->keys);
    door_bytes_free(&conn->in);
    door_bytes_free(&conn->plain);
    conn->state = DOOR_LENT;
    ring_close_file(&door->ring, slot, door_tag(door, DOOR_OP_CLOSE, slot));
}

static void on_return(struct door *door, const struct mail *mail)
{
    struct door_lent *lent = (struct door_lent *)mail->bytes;

    lent--; /* it lies before the frozen record */
    const uint32_t slot = lent->slot;
    struct door_conn *conn = door_conn(door, slot);

    HF_ASSERT(conn->state == DOOR_LENT && conn->lent == lent);
    door_free_lent(lent);
    conn->lent = NULL;
    if (mail->code == CODE_OK) {
        conn->address_key = 0; /* MAIL_LEFT will uncount it */
        stat_add(&door->stats.handed_over, 1);
    } else {
        stat_add(&door->stats.pass_failures, 1);
    }
    door_leave(door, slot);
}

/* ---- mail */

/* A connection prolongs its login by a token that takes public-key cryptography to check. */
static void check_token_for(struct door *door, const struct mail *mail)
{
    const struct token_rules rules = door_token_rules(door);
    struct token_claims claims = { 0 };
    const enum token_status status =
        token_verify(door->login_keys, &rules, mail->bytes, mail->byte_count, &claims);
    struct mail answer = {
        .kind = MAIL_TOKEN_ANSWER,
        .code = (uint16_t)status,
        .a = mail->a,
        .b = claims.device.value,
        .conn_slot = mail->conn_slot,
        .conn_generation = mail->conn_generation,
        .number = claims.user.value,
    };

    stat_add(&door->stats.tokens[status], 1);
    const bool given = give(door, mail->from, &answer);

    HF_ASSERT(given); /* so many tokens can't be on their way */
}

static void on_reactor_mail(struct door *door, const struct mail *mail)
{
    switch (mail->kind) { /* not as the enum: most kinds are others' */
    case MAIL_GRANTED:
        on_granted(door, mail);
        return;
    case MAIL_REFUSED:
        on_refused(door, mail);
        return;
    case MAIL_ADOPT_RETURN:
        on_return(door, mail);
        return;
    case MAIL_LEFT:
        if (mail->number != 0) {
            address_counts_remove(&door->addresses, mail->number);
        }
        return;
    case MAIL_TOKEN_ASK:
        check_token_for(door, mail);
        return;
    default:
        HF_ASSERT(false);
    }
}

static void on_node_mail(struct door *door, const struct mail *mail)
{
    switch (mail->kind) { /* not as the enum: most kinds are others' */
    case MAIL_DRAIN:
        door_begin_drain(door);
        return;
    case MAIL_STOP:
        door->stopping = true;
        return;
    case MAIL_RELOAD:
        door_reload(door, mail->bytes);
        return;
    default:
        HF_ASSERT(false);
    }
}

void door_take_mail(struct door *door)
{
    const struct mail *mail;

    for (uint32_t i = 0; i < door->post->core_count; i++) {
        while ((mail = mailbox_take(&door->mail->reactor_to_door[i])) != NULL) {
            on_reactor_mail(door, mail);
        }
    }
    while ((mail = mailbox_take(&door->mail->node_to_door)) != NULL) {
        on_node_mail(door, mail);
    }
}

bool door_mail_waits(struct door *door)
{
    for (uint32_t i = 0; i < door->post->core_count; i++) {
        if (!mailbox_empty(&door->mail->reactor_to_door[i])) {
            return true;
        }
    }
    return !mailbox_empty(&door->mail->node_to_door);
}

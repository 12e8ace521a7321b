/* libholdfast: the calls that open, change and look. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>
#include <time.h>

#include "client/holdfast.h"
#include "client/library.h"
#include "core/base/check.h"
#include "proto/codes.h"

#define SENDS_FIRST 32

const char *hf_version(void)
{
    return HOLDFAST_VERSION;
}

const char *hf_code_text(uint32_t code)
{
    return code == 0 ? "" : code_text((uint16_t)code);
}

const char *hf_error_text(const struct hf_client *client)
{
    return client->text;
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec now;

    HF_ASSERT(clock_gettime(clock, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Counts while the machine sleeps, so that after it the connection is known to be old. */
uint64_t library_now_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

uint64_t library_now_unix_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

int library_fail(struct hf_client *client, enum hf_result result, const char *text)
{
    (void)snprintf(client->text, sizeof client->text, "%s", text);
    return result;
}

static enum hf_result result_of(const struct hf_error *error)
{
    switch (error->exit_code) {
    case EX_TEMPFAIL:
        return HF_IN_USE;
    case EX_DATAERR:
        return HF_DAMAGED;
    case EX_NOPERM:
        return HF_FORBIDDEN;
    case EX_USAGE:
        return HF_INVALID;
    default:
        return error->errno_value == ENOMEM ? HF_NO_MEMORY : HF_STORAGE;
    }
}

int library_fail_error(struct hf_client *client, const struct hf_error *error)
{
    client->failed = true;
    return library_fail(client, result_of(error), error->text);
}

static int fail_memory(struct hf_client *client)
{
    client->failed = true; /* memory is behind or ahead of the disk: neither may go on */
    return library_fail(client, HF_NO_MEMORY, "no memory");
}

static int fail_failed(struct hf_client *client)
{
    return client->text[0] != '\0' ? HF_STORAGE
                                   : library_fail(client, HF_STORAGE, "an earlier call failed");
}

static int commit(struct hf_client *client)
{
    struct hf_error error;

    return state_commit(&client->state, &error) == 0 ? HF_OK : library_fail_error(client, &error);
}

static struct message_bytes bytes_of(const uint8_t *bytes, uint16_t byte_count)
{
    return (struct message_bytes){ byte_count > 0 ? bytes : NULL, byte_count };
}

/* ---- opening */

static bool grow_sends(struct hf_client *client, uint32_t capacity)
{
    struct client_send *grown = calloc(capacity, sizeof *grown);

    if (grown == NULL) {
        return false;
    }
    client_grow(&client->machine, grown, capacity);
    free(client->sends);
    client->sends = grown;
    return true;
}

static int restore_sends(struct hf_client *client)
{
    uint64_t counter = 0;

    for (const struct state_send *send = client->state.sends; send != NULL; send = send->next) {
        if (send->status != STATE_SEND_WAITING) {
            continue;
        }
        if (send->counter <= counter) {
            return library_fail(client, HF_DAMAGED, "account: counters are out of order");
        }
        counter = send->counter;
        if (!client_has_room(&client->machine) &&
            !grow_sends(client, 2 * client->machine.sends_capacity_)) {
            return fail_memory(client);
        }

        const struct client_send restored = {
            .tag = send->tag,
            .counter = send->counter,
            .nonce = send->nonce,
            .conversation = send->conversation,
            .body = send->body,
            .body_bytes = send->body_bytes,
            .kind = send->kind,
            .cut = send->cut,
        };
        const bool fits = client_restore(&client->machine, &restored);

        HF_ASSERT(fits);
    }
    return HF_OK;
}

/* The machine, from what is on disk. */
static int set_up(struct hf_client *client)
{
    const struct state *state = &client->state;
    uint64_t seed;

    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) {
        return library_fail(client, HF_STORAGE, "no random bytes");
    }
    free(client->sends);
    client->sends = calloc(SENDS_FIRST, sizeof *client->sends);
    if (client->sends == NULL) {
        return fail_memory(client);
    }
    memset(&client->requests, 0, sizeof client->requests);

    const struct client_options options = {
        .user = state->user,
        .device = state->device,
        .cursor = state->cursor,
        .last_counter = state->last_counter,
        .recounting = state->recounting,
        .login_token = bytes_of(state->login_token, state->login_token_bytes),
        .resume_token = bytes_of(state->resume_token, state->resume_token_bytes),
        .name = { (const uint8_t *)"libholdfast " HOLDFAST_VERSION,
                  sizeof "libholdfast " HOLDFAST_VERSION - 1 },
        .jitter_seed = seed,
        .sends = client->sends,
        .sends_capacity = SENDS_FIRST,
        .requests = &client->requests,
        .scratch = &client->scratch,
    };

    client_init(&client->machine, &options);
    client->ready = true;
    return restore_sends(client);
}

int hf_open(const char *directory, struct hf_client **client, char *text, size_t text_bytes)
{
    struct hf_client *opened = calloc(1, sizeof *opened);
    struct hf_error error;
    int result = HF_OK;

    *client = NULL;
    if (opened == NULL) {
        (void)snprintf(text, text_bytes, "no memory");
        return HF_NO_MEMORY;
    }
    opened->events_end = &opened->events;
    if (state_open(&opened->state, directory, &error) != 0) {
        (void)snprintf(text, text_bytes, "%s", error.text);
        free(opened);
        return result_of(&error);
    }
    opened->delivered_seq = opened->state.seen_seq;
    if (opened->state.server[0] != '\0') {
        result = set_up(opened);
    }
    if (result == HF_OK && !library_queue_undismissed(opened)) {
        result = fail_memory(opened);
    }
    if (result != HF_OK) {
        (void)snprintf(text, text_bytes, "%s: %s", directory, opened->text);
        hf_close(opened);
        return result;
    }
    *client = opened;
    return HF_OK;
}

void hf_close(struct hf_client *client)
{
    if (client == NULL) {
        return;
    }
    if (client->ready && client->up && !client->failed) {
        client_leave(&client->machine, true, library_now_ms());
        (void)hf_step(client);
    }
    transport_close(client->transport);
    while (client->events != NULL) {
        struct library_event *next = client->events->next;

        free(client->events);
        client->events = next;
    }
    free(client->taken);
    free(client->sends);
    state_close(&client->state);
    explicit_bzero(client, sizeof *client);
    free(client);
}

/* ---- account */

static bool token_fits(const char *token)
{
    const size_t token_bytes = strlen(token);

    return token_bytes > 0 && token_bytes <= TOKEN_BYTES_MAX;
}

static struct message_bytes token_of(const char *token)
{
    return (struct message_bytes){ (const uint8_t *)token, (uint16_t)strlen(token) };
}

static const char *check_login(const struct hf_client *client, const char *server, uint64_t user,
                               uint32_t device, const char *token, const char *ca_pem)
{
    const struct state *state = &client->state;
    char host[TRANSPORT_HOST_BYTES_MAX + 1];
    char port[TRANSPORT_PORT_BYTES_MAX + 1] = "";

    if (!transport_split(server, host, port) || port[0] == '\0') {
        return "the server must be host:port, or [address]:port";
    }
    if (!user_id_valid((struct user_id){ user }) || device == 0) {
        return "a user is a number from 1 to 9223372036854775807, a device one from 1 to 4294967295";
    }
    if (!token_fits(token)) {
        return "the token is empty, or longer than 4096 bytes";
    }
    if (ca_pem[0] == '\0' || strlen(ca_pem) > BATCH_RECORD_BYTES_MAX / 16) {
        return "the authorities are empty, or larger than 1 MB";
    }
    if (state->server[0] != '\0' && (state->user.value != user || state->device.value != device)) {
        return "the directory belongs to another user or device: use another one";
    }
    if (client->ready && client_state(&client->machine) != CLIENT_STOPPED) {
        return "already started";
    }
    return NULL;
}

int hf_login(struct hf_client *client, const char *server, uint64_t user, uint32_t device,
             const char *token, const char *ca_pem)
{
    struct state *state = &client->state;
    const char *wrong = check_login(client, server, user, device, token, ca_pem);
    struct hf_error error;

    if (client->failed) {
        return fail_failed(client);
    }
    if (wrong != NULL) {
        return library_fail(client, HF_INVALID, wrong);
    }
    transport_close(client->transport);
    client->transport = transport_open(ca_pem, &error);
    if (client->transport == NULL) {
        return library_fail(client, HF_INVALID, error.text);
    }
    if (!state_put_account(state, server, (struct user_id){ user }, (struct device_id){ device }) ||
        !state_put_ca(state, (const uint8_t *)ca_pem, strlen(ca_pem)) ||
        !state_put_login_token(state, token_of(token)) ||
        !state_put_resume_token(state, bytes_of(NULL, 0))) {
        return fail_memory(client);
    }

    const int committed = commit(client);

    return committed == HF_OK ? set_up(client) : committed;
}

int hf_set_token(struct hf_client *client, const char *token)
{
    struct state *state = &client->state;

    if (client->failed) {
        return fail_failed(client);
    }
    if (!client->ready) {
        return library_fail(client, HF_NO_ACCOUNT, "there is no account: log in first");
    }
    if (!token_fits(token)) {
        return library_fail(client, HF_INVALID, "the token is empty, or longer than 4096 bytes");
    }
    if (!state_put_login_token(state, token_of(token))) {
        return fail_memory(client);
    }
    client_set_login_token(&client->machine,
                           bytes_of(state->login_token, state->login_token_bytes));
    return commit(client);
}

static enum hf_state state_of(const struct hf_client *client)
{
    if (!client->ready) {
        return HF_STATE_STOPPED;
    }
    switch (client_state(&client->machine)) {
    case CLIENT_STOPPED:
        return HF_STATE_STOPPED;
    case CLIENT_WAITING:
        return client->dialled ? HF_STATE_CONNECTING : HF_STATE_WAITING;
    case CLIENT_GREETING:
        return HF_STATE_CONNECTING;
    case CLIENT_LIVE:
    case CLIENT_LEAVING:
    case CLIENT_CLOSING:
        break;
    }
    return client_caught_up(&client->machine) ? HF_STATE_CAUGHT_UP : HF_STATE_ONLINE;
}

void hf_status(const struct hf_client *client, struct hf_status *status)
{
    const struct state *state = &client->state;

    *status = (struct hf_status){
        .server = state->server,
        .user = state->user.value,
        .device = state->device.value,
        .state = (uint32_t)state_of(client),
        .epoch = state->cursor.epoch,
        .seq = state->cursor.seq,
        .seen_seq = state->seen_seq,
        .stored = state->place_count,
        .waiting = client->ready ? client_unanswered(&client->machine) : 0,
    };
}

/* ---- messages */

int hf_send(struct hf_client *client, uint64_t conversation, uint8_t kind, const void *body,
            size_t body_bytes, uint64_t *tag)
{
    struct client *machine = &client->machine;
    struct state_send send = {
        .queued_unix_ms = library_now_unix_ms(),
        .conversation = { conversation },
        .kind = kind,
        .body_bytes = (uint16_t)body_bytes,
    };

    if (client->failed) {
        return fail_failed(client);
    }
    if (!client->ready) {
        return library_fail(client, HF_NO_ACCOUNT, "there is no account: log in first");
    }
    if (conversation == 0 || kind > KIND_MAX) {
        return library_fail(client, HF_INVALID, "no such conversation or kind");
    }
    if (body_bytes > client_body_bytes_max(machine) || body_bytes > BODY_BYTES_MAX) {
        return library_fail(client, HF_TOO_LARGE, "the message is longer than the server allows");
    }
    if (!client_has_room(machine) && !grow_sends(client, 2 * machine->sends_capacity_)) {
        return library_fail(client, HF_NO_MEMORY, "no memory");
    }
    if (getrandom(&send.nonce, sizeof send.nonce, 0) != sizeof send.nonce) {
        return library_fail(client, HF_STORAGE, "no random bytes");
    }

    /* On disk before the machine knows of it, and so before it can be written anywhere. */
    send.counter = client_last_counter(machine) + 1;
    if (!state_put_send(&client->state, &send, body)) {
        return fail_memory(client);
    }

    const int committed = commit(client);

    if (committed != HF_OK) {
        return committed;
    }

    const struct state_send *kept = state_find_send(&client->state, send.tag);
    struct client_send queued = {
        .tag = kept->tag,
        .nonce = kept->nonce,
        .conversation = kept->conversation,
        .body = kept->body,
        .body_bytes = kept->body_bytes,
        .kind = kept->kind,
    };
    const enum client_send_result result = client_send(machine, &queued);

    HF_ASSERT(result == CLIENT_SEND_OK && queued.counter == kept->counter);
    *tag = kept->tag;
    return HF_OK;
}

int hf_withdraw(struct hf_client *client, uint64_t tag)
{
    if (client->failed) {
        return fail_failed(client);
    }
    if (!client->ready || !client_withdraw(&client->machine, tag)) {
        return library_fail(client, HF_NONE, "the message may be on the server already");
    }
    return state_put_dismissed(&client->state, tag) ? commit(client) : fail_memory(client);
}

int hf_dismiss(struct hf_client *client, uint64_t tag)
{
    const struct state_send *send = state_find_send(&client->state, tag);

    if (client->failed) {
        return fail_failed(client);
    }
    if (send == NULL ||
        (send->status != STATE_SEND_REJECTED && send->status != STATE_SEND_UNKNOWN)) {
        return library_fail(client, HF_NONE, "no such message");
    }
    return state_put_dismissed(&client->state, tag) ? commit(client) : fail_memory(client);
}

int hf_seen(struct hf_client *client, uint64_t seq)
{
    if (client->failed) {
        return fail_failed(client);
    }
    if (seq > client->state.cursor.seq) {
        return library_fail(client, HF_INVALID, "no such message");
    }
    return state_put_seen(&client->state, seq) ? commit(client) : fail_memory(client);
}

int hf_history(struct hf_client *client, uint64_t conversation, enum hf_direction direction,
               uint64_t anchor_seq, uint16_t n, uint32_t *request)
{
    if (client->failed) {
        return fail_failed(client);
    }
    if (!client->ready) {
        return library_fail(client, HF_NO_ACCOUNT, "there is no account: log in first");
    }
    if (conversation == 0 || n == 0 || (direction != HF_BEFORE && direction != HF_AFTER)) {
        return library_fail(client, HF_INVALID, "no such conversation, direction or number");
    }
    *request =
        client_history(&client->machine, (struct conversation_id){ conversation },
                       direction == HF_BEFORE ? HISTORY_BEFORE : HISTORY_AFTER, anchor_seq, n, 0);
    return *request != 0 ? HF_OK
                         : library_fail(client, HF_NOT_NOW, "not connected, or too many requests");
}

/* ---- what is on disk */

int hf_conversation(const struct hf_client *client, size_t index,
                    struct hf_conversation *conversation)
{
    const struct state *state = &client->state;

    if (index >= state->conversation_count) {
        return HF_NONE;
    }

    const struct state_conversation *found = &state->conversations[index];

    *conversation = (struct hf_conversation){
        .conversation = found->id.value,
        .seq = found->seq,
        .n = found->counted ? found->n : 0,
        .cn = found->counted ? found->cn : 0,
        .received_unix_ms = found->unix_ms,
    };
    return HF_OK;
}

int hf_stored(struct hf_client *client, uint64_t after_seq, struct hf_event *event)
{
    const size_t index = state_place_after(&client->state, after_seq);
    struct state_message message;
    struct hf_error error;

    if (client->failed) {
        return fail_failed(client);
    }
    if (index >= client->state.place_count) {
        return HF_NONE;
    }
    if (state_read(&client->state, index, client->message, &message, &error) != 0) {
        return library_fail_error(client, &error);
    }
    library_fill_message(event, &message);
    return HF_OK;
}

int hf_unsent(const struct hf_client *client, size_t index, struct hf_unsent *unsent)
{
    const struct state_send *send = client->state.sends;

    for (; send != NULL && index > 0; index--) {
        send = send->next;
    }
    if (send == NULL) {
        return HF_NONE;
    }
    *unsent = (struct hf_unsent){
        .tag = send->tag,
        .conversation = send->conversation.value,
        .queued_unix_ms = send->queued_unix_ms,
        .status = send->status,
        .code = send->code,
        .message_kind = send->kind,
        .body = send->body,
        .body_bytes = send->body_bytes,
    };
    return HF_OK;
}

#include "tests/unit/client/model.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"

struct model *model_open(uint64_t user, uint32_t device, uint64_t seed)
{
    struct model *model = calloc(1, sizeof *model);

    HF_ASSERT(model != NULL);
    model->user = user;
    model->device = device;
    model->epoch = 100;
    model->floor = 1;
    model->next_id = 1000;
    model->random = seed;
    return model;
}

uint64_t model_random(struct model *model, uint64_t below)
{
    model->random += UINT64_C(0x9e3779b97f4a7c15);
    return id_mix(model->random) % below;
}

void model_connect(struct model *model, struct model_link *link)
{
    link->number = ++model->links;
    link->greeted = false;
    link->closed = false;
    link->next_seq = 0;
    link->out_bytes = 0;
}

static uint8_t *room(struct model_link *link)
{
    HF_ASSERT(link->out_bytes + FRAME_BYTES_MAX <= MODEL_OUT_BYTES);
    return link->out + link->out_bytes;
}

static void put_error(struct model_link *link, enum code code)
{
    link->out_bytes += message_encode_error_code(room(link), FRAME_BYTES_MAX, code, 0, 0);
    link->closed = true;
}

/* ---- the log */

static struct model_entry *append(struct model *model, uint64_t conversation, bool own)
{
    HF_ASSERT(model->count < MODEL_ENTRIES_MAX);

    struct model_entry *entry = &model->entries[model->count];

    memset(entry, 0, sizeof *entry);
    for (uint64_t seq = model->count; seq > 0; seq--) {
        const struct model_entry *before = &model->entries[seq - 1];

        if (before->conversation.value == conversation) {
            entry->prev = seq;
            entry->n = before->n;
            entry->cn = before->cn;
            break;
        }
    }
    entry->n++;
    entry->cn += !own;
    entry->own = own;
    entry->conversation.value = conversation;
    entry->id.value = model->next_id++;
    model->count++;
    return entry;
}

void model_receive(struct model *model, uint64_t sender, const char *body)
{
    struct model_entry *entry = append(model, sender, false);

    entry->body_bytes = (uint8_t)strlen(body);
    HF_ASSERT(entry->body_bytes <= MODEL_BODY_BYTES);
    memcpy(entry->body, body, entry->body_bytes);
}

static struct entry_message message_of(const struct model *model, const struct model_entry *entry)
{
    return (struct entry_message){
        .flags = entry->own ? ENTRY_FLAG_OWN : 0,
        .kind = entry->kind,
        .device = { entry->own ? model->device : 3 },
        .id = entry->id,
        .conversation = entry->conversation,
        .sender = { entry->own ? model->user : entry->conversation.value },
        .prev = entry->prev,
        .n = entry->n,
        .cn = entry->cn,
        .body = { entry->body, entry->body_bytes },
        .nonce = entry->nonce,
        .counter = entry->counter,
    };
}

void model_push(struct model *model, struct model_link *link)
{
    while (link->greeted && !link->closed && link->next_seq <= model->count) {
        struct entries_builder builder;
        uint64_t some = 1 + model_random(model, 4);

        entries_begin(&builder, room(link), FRAME_BYTES_MAX, link->next_seq);
        while (some-- > 0 && link->next_seq <= model->count) {
            const struct model_entry *of = &model->entries[link->next_seq - 1];
            struct entry entry = { .form = ENTRY_MESSAGE, .message = message_of(model, of) };

            if (of->own && of->link == link->number && model_random(model, 8) > 0) {
                entry = (struct entry){ .form = ENTRY_SENT,
                                        .sent = { .counter = of->counter, .id = of->id } };
            }
            HF_ASSERT(entries_add(&builder, &entry));
            link->next_seq++;
        }
        link->out_bytes += entries_end(&builder);
    }
}

unsigned model_count(const struct model *model, const struct nonce *nonce)
{
    unsigned count = 0;

    for (uint64_t i = 0; i < model->count; i++) {
        count +=
            model->entries[i].own && memcmp(&model->entries[i].nonce, nonce, sizeof *nonce) == 0;
    }
    return count;
}

/* ---- frames */

static void on_hello(struct model *model, struct model_link *link, const struct frame_view *view)
{
    struct message_hello hello;

    HF_ASSERT(message_decode_hello(view, &hello) == CODE_OK && !link->greeted);
    HF_ASSERT(hello.user.value == model->user && hello.device.value == model->device);

    const bool resume = hello.cursor.epoch == model->epoch &&
                        hello.cursor.seq + 1 >= model->floor && hello.cursor.seq <= model->count;
    const struct message_hello_ok ok = {
        .epoch = model->epoch,
        .head = model->count,
        .floor = model->floor,
        .last_counter = model->last_counter,
        .result = resume ? HELLO_RESULT_RESUME : HELLO_RESULT_RESET,
        .keepalive_s = 300,
        .life_s = 3600,
        .frame_bytes_max = FRAME_BYTES_MAX,
        .body_bytes_max = BODY_BYTES_MAX,
        .sends_outstanding_max = SENDS_OUTSTANDING_MAX,
        .requests_outstanding_max = REQUESTS_OUTSTANDING_MAX,
        .window = WINDOW_BYTES_DEFAULT,
        .resume_token = { (const uint8_t *)"resume", 6 },
    };

    link->greeted = true;
    link->next_seq = resume ? hello.cursor.seq + 1 : model->floor;
    link->out_bytes += message_encode_hello_ok(room(link), FRAME_BYTES_MAX, &ok);
}

static void answer(struct model_link *link, uint64_t counter, const struct model_outcome *outcome,
                   uint64_t expected)
{
    if (outcome->code == CODE_OK) {
        const struct message_accepted accepted = { .counter = counter,
                                                   .id = outcome->id,
                                                   .seq = outcome->seq };

        link->out_bytes += message_encode_accepted(room(link), FRAME_BYTES_MAX, &accepted);
    } else {
        const struct message_rejected rejected = { .counter = counter,
                                                   .code = outcome->code,
                                                   .expected = expected };

        link->out_bytes += message_encode_rejected(room(link), FRAME_BYTES_MAX, &rejected);
    }
}

static void take_send(struct model *model, struct model_link *link, const struct message_send *send)
{
    struct model_outcome *outcome = &model->outcomes[model->outcome_count++ % OUTCOMES_KEPT];

    model->last_counter = send->counter;
    *outcome = (struct model_outcome){ .counter = send->counter, .nonce = send->nonce };
    if (conversation_is_group(send->conversation)) {
        outcome->code = CODE_BAD_CONVERSATION;
    } else {
        struct model_entry *entry = append(model, send->conversation.value, true);

        HF_ASSERT(send->body.byte_count <= MODEL_BODY_BYTES);
        memcpy(entry->body, send->body.bytes, send->body.byte_count);
        entry->body_bytes = (uint8_t)send->body.byte_count;
        entry->kind = send->kind;
        entry->nonce = send->nonce;
        entry->counter = send->counter;
        entry->link = link->number;
        outcome->id = entry->id;
        outcome->seq = model->count;
    }
    answer(link, send->counter, outcome, model->last_counter + 1);
}

/* In the order of docs/protocol.md, section 6. */
static void on_send(struct model *model, struct model_link *link, const struct frame_view *view)
{
    struct message_send send;
    struct model_outcome refusal = { .code = CODE_ORDER };
    const uint64_t kept =
        model->outcome_count < OUTCOMES_KEPT ? model->outcome_count : OUTCOMES_KEPT;

    HF_ASSERT(message_decode_send(view, &send) == CODE_OK && link->greeted);
    for (uint64_t i = 0; i < kept; i++) {
        if (memcmp(&model->outcomes[i].nonce, &send.nonce, sizeof send.nonce) == 0) {
            answer(link, send.counter, &model->outcomes[i], model->last_counter + 1);
            return;
        }
    }
    for (uint64_t i = 0; i < kept; i++) {
        if (model->outcomes[i].counter == send.counter) {
            put_error(link, CODE_CONFLICT);
            return;
        }
    }
    if (send.counter <= model->last_counter) {
        put_error(link, CODE_STALE);
        return;
    }
    if (send.counter == model->last_counter + 1) {
        if (model_random(model, 100) >= model->refuse_percent) {
            take_send(model, link, &send);
            return;
        }
        refusal.code = CODE_RETRY;
    }
    answer(link, send.counter, &refusal, model->last_counter + 1);
}

void model_input(struct model *model, struct model_link *link, const struct frame_view *view)
{
    struct message_ack ack;
    struct message_ping ping;

    if (link->closed) {
        return;
    }
    switch (view->type) {
    case FRAME_TYPE_HELLO:
        on_hello(model, link, view);
        break;
    case FRAME_TYPE_SEND:
        on_send(model, link, view);
        break;
    case FRAME_TYPE_ACK:
        HF_ASSERT(message_decode_ack(view, &ack) == CODE_OK && ack.seq < link->next_seq);
        break;
    case FRAME_TYPE_PING:
        HF_ASSERT(message_decode_ping(view, &ping) == CODE_OK);
        link->out_bytes += message_encode_pong(room(link), FRAME_BYTES_MAX, &ping);
        break;
    case FRAME_TYPE_BYE:
        link->closed = true;
        break;
    default:
        break;
    }
}

void model_take(struct model_link *link, size_t byte_count)
{
    HF_ASSERT(byte_count <= link->out_bytes);
    memmove(link->out, link->out + byte_count, link->out_bytes - byte_count);
    link->out_bytes -= byte_count;
}

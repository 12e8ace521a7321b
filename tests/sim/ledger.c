#include "tests/sim/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "tests/sim/fail.h"

#define LEDGER_BODY_BYTES_MIN 4 /* the index */

static void *grown(void *memory, size_t count, size_t size)
{
    void *more = realloc(memory, count * size);

    SIM_CHECK(more != NULL, "out of memory for %zu bytes", count * size);
    return more;
}

void ledger_open(struct ledger *ledger, struct hazards *hazards, bool accept_unknown_users)
{
    *ledger = (struct ledger){ .hazards = hazards, .unknown_accepted = accept_unknown_users };
}

void ledger_close(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->log_count; i++) {
        free(ledger->logs[i].entries);
    }
    free(ledger->logs);
    free(ledger->messages);
    *ledger = (struct ledger){ 0 };
}

/* ---- messages */

struct sim_message *ledger_message(struct ledger *ledger, uint32_t index)
{
    HF_ASSERT(index > 0 && index <= ledger->message_count);
    return &ledger->messages[index];
}

struct sim_message *ledger_create(struct ledger *ledger, uint64_t from, uint32_t device,
                                  uint64_t conversation)
{
    if (ledger->message_count + 1 >= ledger->message_capacity) {
        ledger->message_capacity = ledger->message_capacity * 2 + 256;
        ledger->messages =
            grown(ledger->messages, ledger->message_capacity, sizeof *ledger->messages);
    }

    const uint32_t index = ++ledger->message_count;
    struct sim_message *message = &ledger->messages[index];

    *message = (struct sim_message){
        .index = index,
        .order = index,
        .from = from,
        .device = device,
        .conversation = conversation,
    };
    ledger->hazards->counts[HAZARD_MESSAGES]++;
    return message;
}

void ledger_body(const struct sim_message *message, uint8_t *to)
{
    HF_ASSERT(message->body_bytes >= LEDGER_BODY_BYTES_MIN);
    store_be32(to, message->index);
    for (uint32_t i = LEDGER_BODY_BYTES_MIN; i < message->body_bytes; i++) {
        to[i] = (uint8_t)(message->index * 31 + i * 7);
    }
}

uint32_t ledger_message_of_body(struct ledger *ledger, const uint8_t *body, size_t body_bytes)
{
    SIM_CHECK(body_bytes >= LEDGER_BODY_BYTES_MIN, "an entry's body has %zu bytes", body_bytes);

    const uint32_t index = load_be32(body);

    SIM_CHECK(index > 0 && index <= ledger->message_count,
              "an entry with the body of message %u, which nobody made", index);

    const struct sim_message *message = &ledger->messages[index];

    SIM_CHECK(message->body_bytes == body_bytes, "message %u has %zu bytes of body, not %u", index,
              body_bytes, message->body_bytes);
    for (uint32_t i = LEDGER_BODY_BYTES_MIN; i < message->body_bytes; i++) {
        SIM_CHECK(body[i] == (uint8_t)(index * 31 + i * 7),
                  "message %u: byte %u of its body changed", index, i);
    }
    return index;
}

static void message_told_id(const struct ledger *ledger, struct sim_message *message, uint64_t id)
{
    SIM_CHECK(id != 0, "message %u has the id 0", message->index);
    for (uint32_t i = 1; message->id == 0 && i <= ledger->message_count; i++) {
        SIM_CHECK(ledger->messages[i].id != id, "messages %u and %u have the id %llx",
                  message->index, i, (unsigned long long)id);
    }
    SIM_CHECK(message->id == 0 || message->id == id, "message %u has the ids %llx and %llx",
              message->index, (unsigned long long)message->id, (unsigned long long)id);
    message->id = id;
}

static void message_told_place(struct sim_message *message, uint64_t epoch, uint64_t seq)
{
    SIM_CHECK(message->fate != FATE_REJECTED, "message %u was refused for ever, and is in the log",
              message->index);
    SIM_CHECK(message->seq == 0 || (message->seq == seq && message->epoch == epoch),
              "message %u is at (%llu, %llu) and at (%llu, %llu) of its sender's log",
              message->index, (unsigned long long)message->epoch, (unsigned long long)message->seq,
              (unsigned long long)epoch, (unsigned long long)seq);
    message->seq = seq;
    message->epoch = epoch;
}

void ledger_tell_accepted(struct ledger *ledger, uint32_t index, uint64_t id, uint64_t seq,
                          uint64_t epoch)
{
    struct sim_message *message = ledger_message(ledger, index);
    struct ledger_log *log = ledger_log(ledger, message->from);
    const struct ledger_entry *entry = ledger_entry_at(ledger, message->from, seq);

    SIM_CHECK(!message->invalid, "message %u can't be accepted, and was", index);
    SIM_CHECK(seq > 0, "message %u was accepted with seq 0", index);
    message_told_id(ledger, message, id);
    message_told_place(message, epoch, seq);
    SIM_CHECK(entry == NULL || (!entry->said.refused && entry->said.message == index),
              "message %u was accepted as entry %llu, which is another", index,
              (unsigned long long)seq);
    if (log->head_seen < seq) {
        log->head_seen = seq;
    }
    if (message->fate == FATE_OPEN) {
        ledger->hazards->counts[HAZARD_ACCEPTED]++;
        message->fate = FATE_ACCEPTED;
    }
}

void ledger_tell_rejected(struct ledger *ledger, uint32_t index)
{
    struct sim_message *message = ledger_message(ledger, index);

    SIM_CHECK(message->invalid, "message %u was refused for ever without a reason", index);
    SIM_CHECK(message->seq == 0, "message %u is in the log, and was refused for ever", index);
    if (message->fate == FATE_OPEN) {
        message->fate = FATE_REJECTED;
    }
}

/* ---- logs */

struct ledger_log *ledger_log(struct ledger *ledger, uint64_t user)
{
    for (uint32_t i = 0; i < ledger->log_count; i++) {
        if (ledger->logs[i].user == user) {
            return &ledger->logs[i];
        }
    }
    ledger->logs = grown(ledger->logs, ledger->log_count + 1, sizeof *ledger->logs);

    struct ledger_log *log = &ledger->logs[ledger->log_count++];

    *log = (struct ledger_log){ .user = user };
    return log;
}

const struct ledger_entry *ledger_entry_at(struct ledger *ledger, uint64_t user, uint64_t seq)
{
    const struct ledger_log *log = ledger_log(ledger, user);

    if (seq == 0 || seq >= log->capacity) {
        return NULL;
    }

    const struct ledger_entry *entry = &log->entries[seq];

    return entry->seen || entry->durable ? entry : NULL;
}

static void log_set_epoch(struct ledger_log *log, uint64_t epoch)
{
    SIM_CHECK(epoch != 0, "user %llx: the epoch is 0", (unsigned long long)log->user);
    SIM_CHECK(log->epoch == 0 || log->epoch == epoch, "user %llx: the epoch was %llu and is %llu",
              (unsigned long long)log->user, (unsigned long long)log->epoch,
              (unsigned long long)epoch);
    log->epoch = epoch;
}

static struct ledger_entry *log_entry_slot(struct ledger_log *log, uint64_t seq)
{
    SIM_CHECK(seq > 0 && seq < (1U << 24), "user %llx: entry %llu", (unsigned long long)log->user,
              (unsigned long long)seq);
    if (seq >= log->capacity) {
        const size_t capacity = (size_t)seq * 2 + 64;

        log->entries = grown(log->entries, capacity, sizeof *log->entries);
        memset(log->entries + log->capacity, 0, (capacity - log->capacity) * sizeof *log->entries);
        log->capacity = capacity;
    }
    return &log->entries[seq];
}

static bool telling_equal(const struct telling *a, const struct telling *b, bool whole)
{
    if (a->refused != b->refused || a->message != b->message || a->id != b->id ||
        a->counter != b->counter) {
        return false;
    }
    return !whole ||
           (a->conversation == b->conversation && a->sender == b->sender &&
            a->device == b->device && memcmp(a->nonce, b->nonce, sizeof a->nonce) == 0 &&
            a->flags == b->flags && a->kind == b->kind && a->code == b->code &&
            a->ref_seq == b->ref_seq && a->prev == b->prev && a->n == b->n && a->cn == b->cn);
}

/* What the entry says of its message must be what the message is. */
static void telling_check(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t seq,
                          const struct telling *telling, bool whole)
{
    struct sim_message *message = ledger_message(ledger, telling->message);
    const uint64_t peer = message->from == user ? message->conversation : message->from;

    message_told_id(ledger, message, telling->id);
    SIM_CHECK(!message->invalid, "user %llx, entry %llu: message %u could not be accepted",
              (unsigned long long)user, (unsigned long long)seq, message->index);
    if (telling->refused) {
        SIM_CHECK(message->from == user && telling->conversation == message->conversation &&
                      telling->ref_seq != 0 && telling->code != 0,
                  "user %llx, entry %llu: REFUSED says what isn't so of message %u",
                  (unsigned long long)user, (unsigned long long)seq, message->index);
        SIM_CHECK(message->seq == 0 || message->seq == telling->ref_seq,
                  "user %llx, entry %llu: REFUSED names entry %llu, not %llu",
                  (unsigned long long)user, (unsigned long long)seq,
                  (unsigned long long)telling->ref_seq, (unsigned long long)message->seq);
        SIM_CHECK(!message->receiver_known,
                  "user %llx, entry %llu: message %u is refused, but user %llx existed when it was "
                  "accepted",
                  (unsigned long long)user, (unsigned long long)seq, message->index,
                  (unsigned long long)message->conversation);
        return;
    }
    if (message->from == user) {
        message_told_place(message, epoch, seq);
    }
    if (!whole) {
        return;
    }
    SIM_CHECK(telling->conversation == peer && telling->sender == message->from &&
                  telling->device == message->device && telling->kind == message->kind,
              "user %llx, entry %llu: it isn't as message %u was made", (unsigned long long)user,
              (unsigned long long)seq, message->index);
    SIM_CHECK(message->from == user || message->conversation == user,
              "user %llx, entry %llu: message %u is none of theirs (I8)", (unsigned long long)user,
              (unsigned long long)seq, message->index);
    if (message->from == user) {
        SIM_CHECK(memcmp(telling->nonce, message->nonce, SIM_NONCE_BYTES) == 0 &&
                      telling->counter != 0,
                  "user %llx, entry %llu: another nonce than message %u", (unsigned long long)user,
                  (unsigned long long)seq, message->index);
    }
    SIM_CHECK(telling->prev < seq && telling->n > 0 && telling->cn <= telling->n &&
                  (telling->prev == 0) == (telling->n == 1),
              "user %llx, entry %llu: prev %llu, n %llu, cn %llu", (unsigned long long)user,
              (unsigned long long)seq, (unsigned long long)telling->prev,
              (unsigned long long)telling->n, (unsigned long long)telling->cn);
}

void ledger_tell(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t seq,
                 const struct telling *telling, enum telling_source source)
{
    struct ledger_log *log = ledger_log(ledger, user);
    struct ledger_entry *entry = log_entry_slot(log, seq);
    const bool whole = source != TELLING_SHORT;

    log_set_epoch(log, epoch);
    if (telling->message != 0) {
        telling_check(ledger, user, epoch, seq, telling, whole);
    }
    if (!entry->seen && !entry->durable) {
        entry->said = *telling;
        entry->whole = whole;
    } else {
        SIM_CHECK(telling_equal(&entry->said, telling, whole && entry->whole),
                  "user %llx: (%llu, %llu) was message %u (n %llu, id %llx), and is message %u (n "
                  "%llu, id %llx) (I2)",
                  (unsigned long long)user, (unsigned long long)epoch, (unsigned long long)seq,
                  entry->said.message, (unsigned long long)entry->said.n,
                  (unsigned long long)entry->said.id, telling->message,
                  (unsigned long long)telling->n, (unsigned long long)telling->id);
        if (whole && !entry->whole) {
            entry->said = *telling;
            entry->whole = true;
        }
    }
    if (log->head_known < seq) {
        log->head_known = seq;
    }
    if (source == TELLING_SEEN || source == TELLING_SHORT) {
        entry->seen = true;
        if (log->head_seen < seq) {
            log->head_seen = seq;
        }
        return;
    }
    entry->durable = true;
    if (log->head_durable < seq) {
        log->head_durable = seq;
    }
    if (telling->message != 0 && !telling->refused &&
        ledger_message(ledger, telling->message)->conversation == user) {
        ledger_message(ledger, telling->message)->arrived = true;
    }
}

void ledger_tell_head(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t head,
                      uint64_t floor, uint64_t head_asked, uint64_t floor_asked)
{
    struct ledger_log *log = ledger_log(ledger, user);

    log_set_epoch(log, epoch);
    SIM_CHECK(head >= head_asked, "user %llx: the head was %llu and is %llu (I1)",
              (unsigned long long)user, (unsigned long long)head_asked, (unsigned long long)head);
    SIM_CHECK(floor >= floor_asked, "user %llx: the floor fell from %llu to %llu",
              (unsigned long long)user, (unsigned long long)floor_asked, (unsigned long long)floor);
    SIM_CHECK(floor >= 1 && floor <= head + 1, "user %llx: floor %llu, head %llu",
              (unsigned long long)user, (unsigned long long)floor, (unsigned long long)head);
    if (log->head_seen < head) {
        log->head_seen = head;
    }
    if (log->floor_seen < floor) {
        log->floor_seen = floor;
    }
    ledger_tell_floor(ledger, user, floor);
}

void ledger_tell_floor(struct ledger *ledger, uint64_t user, uint64_t floor)
{
    struct ledger_log *log = ledger_log(ledger, user);

    if (log->floor < floor) {
        log->floor = floor;
    }
}

void ledger_tell_expired(struct ledger *ledger, uint64_t user, uint64_t floor,
                         uint64_t cutoff_unix_ms)
{
    struct ledger_log *log = ledger_log(ledger, user);

    /* What lies below the present floor may have gone by count. */
    for (uint64_t seq = log->floor > 0 ? log->floor : 1; seq < floor; seq++) {
        const struct ledger_entry *entry = ledger_entry_at(ledger, user, seq);

        SIM_CHECK(entry != NULL, "user %llx: entry %llu is old, but nobody knows it",
                  (unsigned long long)user, (unsigned long long)seq);
        SIM_CHECK(message_id_unix_ms((struct message_id){ entry->said.id }) < cutoff_unix_ms,
                  "user %llx: a sweep up to entry %llu takes entry %llu, which is too young",
                  (unsigned long long)user, (unsigned long long)floor, (unsigned long long)seq);
    }
    if (log->expired < floor) {
        log->expired = floor;
    }
}

void ledger_check_floor(struct ledger *ledger, uint64_t user, uint64_t floor, uint64_t count)
{
    const struct ledger_log *log = ledger_log(ledger, user);

    SIM_CHECK(floor <= log->expired || (count > 0 && floor + count <= log->head_known + 1),
              "user %llx: floor %llu of %llu entries, none beyond its age from %llu on",
              (unsigned long long)user, (unsigned long long)floor,
              (unsigned long long)log->head_known, (unsigned long long)log->expired);
}

void ledger_check_recovered(struct ledger *ledger, uint64_t user, uint64_t epoch, uint64_t head,
                            uint64_t floor)
{
    struct ledger_log *log = ledger_log(ledger, user);

    if (epoch == 0) {
        SIM_CHECK(log->epoch == 0, "user %llx is gone after a crash (I1)",
                  (unsigned long long)user);
        return;
    }
    log_set_epoch(log, epoch);
    SIM_CHECK(head >= log->head_seen && head >= log->head_known,
              "user %llx: the log ends at %llu after a crash; %llu was told, %llu durable (I1)",
              (unsigned long long)user, (unsigned long long)head,
              (unsigned long long)log->head_seen, (unsigned long long)log->head_known);
    SIM_CHECK(floor >= log->floor, "user %llx: the floor fell from %llu to %llu in a crash",
              (unsigned long long)user, (unsigned long long)log->floor, (unsigned long long)floor);
    ledger_tell_floor(ledger, user, floor);
}

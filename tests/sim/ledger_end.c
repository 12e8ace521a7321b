/* The checks of ledger.h that are made once, when all has drained. */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "tests/sim/fail.h"
#include "tests/sim/ledger.h"

/* The last entry of each (conversation, device) and of each conversation, while walking a log. */
struct walked {
    uint64_t conversation;
    uint32_t device;
    uint32_t order;
    uint64_t seq;
    uint64_t n;
    uint64_t cn;
};

struct walk {
    struct walked *seen;
    size_t count;
    size_t capacity;
    bool holes; /* entries that retention took before anybody was told */
};

static struct walked *walk_find(struct walk *walk, uint64_t conversation, uint32_t device)
{
    for (size_t i = 0; i < walk->count; i++) {
        if (walk->seen[i].conversation == conversation && walk->seen[i].device == device) {
            return &walk->seen[i];
        }
    }
    if (walk->count == walk->capacity) {
        walk->capacity = walk->capacity * 2 + 16;
        walk->seen = realloc(walk->seen, walk->capacity * sizeof *walk->seen);
        SIM_CHECK(walk->seen != NULL, "out of memory");
    }
    walk->seen[walk->count] = (struct walked){ .conversation = conversation, .device = device };
    return &walk->seen[walk->count++];
}

static void check_chain(struct walk *walk, uint64_t user, uint64_t seq, const struct telling *said)
{
    struct walked *chain = walk_find(walk, said->conversation, 0);
    const bool by_other = said->sender != user;

    if (chain->n + 1 == said->n || !walk->holes) {
        SIM_CHECK(said->n == chain->n + 1 && said->prev == chain->seq &&
                      said->cn == chain->cn + (by_other ? 1 : 0),
                  "user %llx, entry %llu: n %llu, cn %llu, prev %llu after n %llu, cn %llu at %llu",
                  (unsigned long long)user, (unsigned long long)seq, (unsigned long long)said->n,
                  (unsigned long long)said->cn, (unsigned long long)said->prev,
                  (unsigned long long)chain->n, (unsigned long long)chain->cn,
                  (unsigned long long)chain->seq);
    }
    SIM_CHECK(said->n > chain->n && said->cn >= chain->cn,
              "user %llx, entry %llu: n or cn went back", (unsigned long long)user,
              (unsigned long long)seq);
    chain->seq = seq;
    chain->n = said->n;
    chain->cn = said->cn;
}

static void check_order(struct walk *walk, const struct sim_message *message, uint64_t user,
                        uint64_t seq)
{
    if (message->order == 0) {
        return;
    }
    /* A device's id is never 0, and unique among users here. */
    struct walked *sent = walk_find(walk, message->conversation, message->device);

    SIM_CHECK(message->order > sent->order,
              "user %llx, entry %llu: message %u is behind message %u, made later (I3)",
              (unsigned long long)user, (unsigned long long)seq, message->order, sent->order);
    sent->order = message->order;
}

static void check_log(struct ledger *ledger, struct ledger_log *log)
{
    struct walk walk = { 0 };

    for (uint64_t seq = 1; seq <= log->head_known; seq++) {
        const struct ledger_entry *entry = &log->entries[seq];

        if (!entry->seen && !entry->durable) {
            SIM_CHECK(seq < log->floor, "user %llx: entry %llu is missing (I2)",
                      (unsigned long long)log->user, (unsigned long long)seq);
            walk.holes = true;
            continue;
        }

        if (entry->said.message == 0) {
            continue;
        }

        struct sim_message *message = ledger_message(ledger, entry->said.message);

        if (entry->said.refused) {
            message->refused++;
            ledger->hazards->counts[HAZARD_REFUSED]++;
            SIM_CHECK(entry->said.ref_seq < seq, "user %llx, entry %llu: refuses a later entry",
                      (unsigned long long)log->user, (unsigned long long)seq);
            continue;
        }
        message->in_sender += message->from == log->user ? 1U : 0U;
        message->in_receiver += message->conversation == log->user ? 1U : 0U;
        check_order(&walk, message, log->user, seq);
        if (entry->whole) {
            check_chain(&walk, log->user, seq, &entry->said);
        } else {
            walk.holes = true;
        }
    }
    SIM_CHECK(log->head_seen <= log->head_known, "user %llx: head %llu, but entries up to %llu",
              (unsigned long long)log->user, (unsigned long long)log->head_seen,
              (unsigned long long)log->head_known);
    free(walk.seen);
}

/* Entries below a floor may have gone before anybody was told of them. */
static bool may_be_trimmed(struct ledger *ledger, uint64_t user)
{
    const struct ledger_log *log = ledger_log(ledger, user);

    for (uint64_t seq = 1; seq < log->floor; seq++) {
        if (ledger_entry_at(ledger, user, seq) == NULL) {
            return true;
        }
    }
    return false;
}

static void check_message(struct ledger *ledger, const struct sim_message *message)
{
    const bool trimmed =
        may_be_trimmed(ledger, message->from) || may_be_trimmed(ledger, message->conversation);
    const uint32_t index = message->index;
    const uint32_t arrived = message->in_receiver + message->refused;

    SIM_CHECK(message->fate != FATE_OPEN, "message %u was never answered", index);
    SIM_CHECK(message->in_sender <= 1, "message %u is %u times in its sender's log (I1)", index,
              message->in_sender);
    SIM_CHECK(arrived <= 1,
              "message %u is %u times in its receiver's log and %u times refused (I1)", index,
              message->in_receiver, message->refused);
    if (message->fate == FATE_REJECTED) {
        SIM_CHECK(message->in_sender == 0 && arrived == 0, "message %u: refused, but in a log",
                  index);
        return;
    }
    if (trimmed) {
        return;
    }
    if (message->fate == FATE_ACCEPTED) {
        SIM_CHECK(message->in_sender == 1,
                  "message %u was accepted and isn't in its sender's log "
                  "(I1)",
                  index);
    }
    SIM_CHECK(message->in_sender == arrived,
              "message %u: %u in its sender's log, %u in its receiver's, %u refused (I1)", index,
              message->in_sender, message->in_receiver, message->refused);
}

void ledger_check_end(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->log_count; i++) {
        check_log(ledger, &ledger->logs[i]);
    }
    for (uint32_t i = 1; i <= ledger->message_count; i++) {
        check_message(ledger, &ledger->messages[i]);
    }
}

#include "tests/power/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/server/node_internal.h"
#include "store/reader.h"
#include "store/record.h"
#include "tests/power/history.h"

#define ANSWER_BYTES    ((uint32_t)256 << 10)
#define DEVICES_SEEN    64
#define HEADER_BYTES    96
#define OUTCOMES_BEHIND 32

/* Sets the text, and is the verdict. */
#define WRONG(checking, ...) (snprintf((checking)->text, CHECK_TEXT_BYTES, __VA_ARGS__), false)

struct row {
    uint64_t id;
    uint64_t sender;
    uint64_t counter; /* from the body: as the sender counted */
    uint32_t device;
    bool own;
};

struct user_log {
    uint64_t user;
    bool there;
    struct schema_facts facts;
    struct row *rows; /* from the floor on */
    size_t row_room;
    uint32_t device_count;
    struct read_device devices[READER_DEVICES_MAX];
};

struct checking {
    const struct check *check;
    struct node *node;
    struct reader *reader;
    struct user_log *logs; /* as the ledger has its users */
    char *text;
};

/* ---- Opening ---- */

static bool open_node(struct checking *checking)
{
    static struct config config;
    struct hf_error error = { 0 };
    struct node *node = aligned_alloc(64, (sizeof *node + 63) / 64 * 64);

    if (node == NULL) {
        power_die("no memory");
    }
    memset(node, 0, sizeof *node);
    config_init(&config);
    (void)snprintf(config.data_dir, sizeof config.data_dir, "%s", checking->check->folder);
    config.journal_bytes = UINT64_C(4) << 20;
    config.journal_segment_bytes = UINT64_C(256) << 10;
    node->config = &config;
    node->signal_fd = -1;
    node->core_count = checking->check->cores;
    checking->node = node;
    if (!bell_open(&node->bell, &error)) {
        power_die("%s", error.text);
    }
    node->log = log_open("node", LOG_NO_CORE, LOG_ERROR, &node->bell, &error);
    if (node->log == NULL) {
        power_die("%s", error.text);
    }
    node->logs[node->log_count++] = node->log;
    if (!node_plan_journal(&config, node->core_count, &node->journal, &error)) {
        power_die("%s", error.text);
    }
    if (!node_open_directory(node, &error) || !node_open_store(node, &error)) {
        return WRONG(checking, "the start is refused: %s", error.text);
    }
    checking->reader = reader_open(node->volumes, node->volume_count, ANSWER_BYTES, &error);
    if (checking->reader == NULL) {
        power_die("%s", error.text);
    }
    return true;
}

/* ---- Reading logs ---- */

/* "USER DEVICE COUNTER LENGTH " and then bytes that count up from the counter: what load.py sends. */
static bool body_right(const struct log_entry *entry, uint64_t *counter)
{
    char header[HEADER_BYTES];
    char wanted[HEADER_BYTES];
    size_t length = entry->body_bytes < sizeof header - 1 ? entry->body_bytes : sizeof header - 1;
    char *rest = header;
    char *number;

    memcpy(header, entry->body, length);
    header[length] = '\0';
    for (int i = 0; i < 2; i++) {
        if (strsep(&rest, " ") == NULL) {
            return false;
        }
    }
    number = strsep(&rest, " ");
    if (number == NULL) {
        return false;
    }
    *counter = strtoull(number, NULL, 10);
    length =
        (size_t)snprintf(wanted, sizeof wanted, "%" PRIu64 " %" PRIu32 " %" PRIu64 " %u ",
                         entry->sender.value, entry->device.value, *counter, entry->body_bytes);
    if (length > entry->body_bytes || memcmp(entry->body, wanted, length) != 0) {
        return false;
    }
    for (size_t i = length; i < entry->body_bytes; i++) {
        if (entry->body[i] != (uint8_t)(*counter + i)) {
            return false;
        }
    }
    return true;
}

static bool take_entry(struct checking *checking, struct user_log *log,
                       const struct log_entry *entry, uint64_t seq)
{
    struct row *row = &log->rows[seq - log->facts.floor];

    if (entry->seq != seq) {
        return WRONG(checking, "user %" PRIu64 ": the entry at %" PRIu64 " says %" PRIu64,
                     log->user, seq, entry->seq);
    }
    if (entry->form != LOG_ENTRY_MESSAGE) {
        return WRONG(checking, "user %" PRIu64 ": the entry %" PRIu64 " is no message", log->user,
                     seq);
    }
    if (!body_right(entry, &row->counter)) {
        return WRONG(checking, "user %" PRIu64 ": the body of entry %" PRIu64 " is another one",
                     log->user, seq);
    }
    row->id = entry->id.value;
    row->sender = entry->sender.value;
    row->device = entry->device.value;
    row->own = (entry->flags & LOG_ENTRY_FLAG_OWN) != 0;
    if (row->own && row->counter != entry->counter) {
        return WRONG(checking, "user %" PRIu64 ": the entry %" PRIu64 " has another's counter",
                     log->user, seq);
    }
    return true;
}

static bool read_log(struct checking *checking, struct user_log *log)
{
    uint64_t seq = log->facts.floor;
    const size_t count = (size_t)(log->facts.head + 1 - log->facts.floor);

    log->rows = power_grow(log->rows, &log->row_room, count + 1, sizeof *log->rows);
    while (seq <= log->facts.head) {
        const struct read_request request = {
            .kind = READ_RANGE,
            .user = { log->user },
            .from = seq,
            .to = log->facts.head,
            .bytes = ANSWER_BYTES,
        };
        struct read_answer answer = { 0 };
        size_t at = 0;

        reader_load(checking->reader, &request, NULL, &answer);
        if (answer.status != READ_FOUND || answer.entry_count == 0) {
            return WRONG(checking, "user %" PRIu64 ": entry %" PRIu64 " of %" PRIu64 ": %s",
                         log->user, seq, log->facts.head,
                         answer.status == READ_FAILED ? reader_text(checking->reader) : "absent");
        }
        for (uint32_t i = 0; i < answer.entry_count; i++) {
            struct record record;
            size_t length = 0;

            if (record_parse(answer.entries + at, answer.entries_bytes - at, &record, &length) !=
                    RECORD_OK ||
                !take_entry(checking, log, &record.entry, seq)) {
                return checking->text[0] != '\0' ||
                       WRONG(checking, "user %" PRIu64 ": entry %" PRIu64, log->user, seq);
            }
            at += length;
            seq++;
        }
    }
    return true;
}

static bool read_user(struct checking *checking, struct user_log *log)
{
    const struct read_request request = { .kind = READ_USER, .user = { log->user } };
    struct read_answer answer = { 0 };

    reader_load(checking->reader, &request, NULL, &answer);
    if (answer.status == READ_FAILED) {
        return WRONG(checking, "user %" PRIu64 ": %s", log->user, reader_text(checking->reader));
    }
    log->there = answer.status == READ_FOUND;
    if (!log->there) {
        return true;
    }
    log->facts = answer.facts;
    log->device_count = answer.device_count;
    memcpy(log->devices, answer.devices, answer.device_count * sizeof log->devices[0]);
    if (log->facts.floor > 1 &&
        log->facts.head + 1 - log->facts.floor < checking->check->retention_count) {
        return WRONG(checking, "user %" PRIu64 ": only %" PRIu64 " to %" PRIu64 " are kept",
                     log->user, log->facts.floor, log->facts.head);
    }
    return read_log(checking, log);
}

/* ---- One log by itself ---- */

static int compare_ids(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left;
    const uint64_t b = *(const uint64_t *)right;

    return a < b ? -1 : a > b;
}

static bool check_once(struct checking *checking, const struct user_log *log, size_t count)
{
    uint64_t *ids = calloc(count + 1, sizeof *ids);
    bool once = true;

    if (ids == NULL) {
        power_die("no memory");
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = log->rows[i].id;
    }
    qsort(ids, count, sizeof *ids, compare_ids);
    for (size_t i = 1; once && i < count; i++) {
        if (ids[i] == ids[i - 1]) {
            once = WRONG(checking, "user %" PRIu64 " has message %" PRIu64 " twice", log->user,
                         ids[i]);
        }
    }
    free(ids);
    return once;
}

static bool check_order(struct checking *checking, const struct user_log *log, size_t count)
{
    struct row last[DEVICES_SEEN];
    size_t seen = 0;

    for (size_t i = 0; i < count; i++) {
        const struct row *row = &log->rows[i];
        size_t at = 0;

        while (at < seen && (last[at].sender != row->sender || last[at].device != row->device)) {
            at++;
        }
        if (at == DEVICES_SEEN) {
            power_die("more than %d devices", DEVICES_SEEN);
        }
        if (at < seen && row->counter <= last[at].counter) {
            return WRONG(checking,
                         "user %" PRIu64 ": message %" PRIu64 " of user %" PRIu64 ", device %u "
                         "stands behind its message %" PRIu64,
                         log->user, row->counter, row->sender, row->device, last[at].counter);
        }
        last[at] = *row;
        seen += at == seen;
    }
    return true;
}

/* ---- What was told ---- */

static struct user_log *find_log(const struct checking *checking, uint64_t user)
{
    for (size_t i = 0; i < checking->check->ledger->user_count; i++) {
        if (checking->logs[i].user == user) {
            return &checking->logs[i];
        }
    }
    return NULL;
}

static bool has_seq(const struct user_log *log, uint64_t seq)
{
    return log->there && seq >= log->facts.floor && seq <= log->facts.head;
}

static bool is_out(const struct checking *checking, uint64_t user, uint64_t id)
{
    struct read_partition found;

    reader_load_partition(checking->reader, partition_of(user), &found);
    for (size_t i = 0; found.status == READ_FOUND && i < found.out_count; i++) {
        if (found.outs[i].id.value == id && found.outs[i].user.value == user) {
            return true;
        }
    }
    return false;
}

static bool has_id(const struct user_log *log, uint64_t id)
{
    const size_t count = log->there ? (size_t)(log->facts.head + 1 - log->facts.floor) : 0;

    for (size_t i = count; i-- > 0;) {
        if (log->rows[i].id == id) {
            return true;
        }
    }
    return false;
}

/* Below its floor the receiver's log can't be looked at: then its head's origin tells. */
static bool trimmed_there(const struct checking *checking, const struct fact *fact,
                          const struct user_log *peer)
{
    const struct read_request request = {
        .kind = READ_HEAD,
        .user = { peer->user },
        .conversation = { fact->user },
    };
    struct read_answer answer = { 0 };

    if (!peer->there || peer->facts.floor == 1) {
        return false;
    }
    reader_load(checking->reader, &request, NULL, &answer);
    return answer.status == READ_FOUND && answer.head.origin.seq >= fact->seq;
}

static bool check_received(struct checking *checking, const struct fact *fact)
{
    const struct user_log *peer = find_log(checking, fact->peer);

    if (peer == NULL || fact->peer == fact->user || has_id(peer, fact->id) ||
        trimmed_there(checking, fact, peer) || is_out(checking, fact->user, fact->id)) {
        return true;
    }
    return WRONG(checking,
                 "accepted message %" PRIu64 " (%" PRIu64 " of user %" PRIu64 ", device %u) is "
                 "neither in the log of user %" PRIu64 " nor on its way there",
                 fact->id, fact->counter, fact->user, fact->device, fact->peer);
}

static bool check_entry(struct checking *checking, const struct fact *fact,
                        const struct user_log *log)
{
    if (!log->there || log->facts.head < fact->seq) {
        return WRONG(checking,
                     "user %" PRIu64 " was told of entry %" PRIu64 ", but the log ends at %" PRIu64,
                     fact->user, fact->seq, log->there ? log->facts.head : 0);
    }
    if (has_seq(log, fact->seq) && log->rows[fact->seq - log->facts.floor].id != fact->id) {
        return WRONG(checking,
                     "user %" PRIu64 ": entry %" PRIu64 " was message %" PRIu64 ", and is %" PRIu64,
                     fact->user, fact->seq, fact->id, log->rows[fact->seq - log->facts.floor].id);
    }
    return true;
}

static const struct schema_device *find_device(const struct user_log *log, uint32_t device)
{
    for (uint32_t i = 0; i < log->device_count; i++) {
        if (log->devices[i].device.value == device) {
            return &log->devices[i].state;
        }
    }
    return NULL;
}

static bool check_outcome(struct checking *checking, const struct fact *fact,
                          const struct user_log *log)
{
    const struct schema_device *device = find_device(log, fact->device);

    if (device == NULL || device->last_counter < fact->counter) {
        return WRONG(checking,
                     "user %" PRIu64 ", device %u: message %" PRIu64 " was accepted, but "
                     "%" PRIu64 " is the last that counts",
                     fact->user, fact->device, fact->counter,
                     device != NULL ? device->last_counter : 0);
    }
    if (fact->counter + OUTCOMES_BEHIND <= device->last_counter) {
        return true;
    }
    for (uint32_t i = 0; i < device->outcome_count; i++) {
        const struct outcome *outcome = &device->outcomes[i];

        if (outcome->counter == fact->counter) {
            return (outcome->code == 0 && outcome->id == fact->id && outcome->seq == fact->seq &&
                    memcmp(outcome->nonce, fact->nonce, sizeof fact->nonce) == 0) ||
                   WRONG(checking,
                         "user %" PRIu64 ", device %u: the outcome of %" PRIu64
                         " isn't what was said",
                         fact->user, fact->device, fact->counter);
        }
    }
    return WRONG(checking, "user %" PRIu64 ", device %u: the outcome of %" PRIu64 " is gone",
                 fact->user, fact->device, fact->counter);
}

static bool check_fact(struct checking *checking, const struct fact *fact)
{
    const struct user_log *log = find_log(checking, fact->user);

    switch (fact->kind) {
    case FACT_ENTRY:
        return check_entry(checking, fact, log);
    case FACT_ACCEPTED:
        return check_entry(checking, fact, log) && check_outcome(checking, fact, log) &&
               check_received(checking, fact);
    case FACT_ACKED:
        break;
    }
    return true;
}

/* A cursor that nobody sent would skip entries for ever. */
static bool check_cursors(struct checking *checking, const struct user_log *log)
{
    const struct ledger *ledger = checking->check->ledger;

    for (uint32_t i = 0; log->there && i < log->device_count; i++) {
        const struct read_device *device = &log->devices[i];
        uint64_t acked = 0;

        for (size_t f = 0; f < ledger->count; f++) {
            const struct fact *fact = &ledger->facts[f];

            if (fact->kind == FACT_ACKED && fact->at_ns < checking->check->upto_ns &&
                fact->user == log->user && fact->device == device->device.value &&
                fact->seq > acked) {
                acked = fact->seq;
            }
        }
        if (device->state.cursor.seq > acked) {
            return WRONG(checking,
                         "user %" PRIu64 ", device %u: its cursor is %" PRIu64 ", and it only "
                         "acknowledged %" PRIu64,
                         log->user, device->device.value, device->state.cursor.seq, acked);
        }
    }
    return true;
}

static bool check_all(struct checking *checking)
{
    const struct ledger *ledger = checking->check->ledger;

    for (size_t i = 0; i < ledger->user_count; i++) {
        struct user_log *log = &checking->logs[i];

        log->user = ledger->users[i];
        if (!read_user(checking, log)) {
            return false;
        }
        const size_t count = log->there ? (size_t)(log->facts.head + 1 - log->facts.floor) : 0;
        if (!check_once(checking, log, count) || !check_order(checking, log, count) ||
            !check_cursors(checking, log)) {
            return false;
        }
    }
    for (size_t i = 0; i < ledger->count && ledger->facts[i].at_ns < checking->check->upto_ns;
         i++) {
        if (!check_fact(checking, &ledger->facts[i])) {
            return false;
        }
    }
    return true;
}

bool check_image(const struct check *check, char text[CHECK_TEXT_BYTES])
{
    struct checking checking = {
        .check = check,
        .text = text,
        .logs = calloc(check->ledger->user_count + 1, sizeof *checking.logs),
    };

    text[0] = '\0';
    if (checking.logs == NULL) {
        power_die("no memory");
    }
    const bool good = open_node(&checking) && check_all(&checking);

    for (size_t i = 0; i < check->ledger->user_count; i++) {
        free(checking.logs[i].rows);
    }
    free(checking.logs);
    return good;
}

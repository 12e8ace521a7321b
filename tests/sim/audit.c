#include "tests/sim/audit.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "store/schema.h"
#include "tests/sim/fail.h"

/* Where the fields of a key of the table `user` stand: see store/schema.h. */
#define KEY_USER_AT   2
#define KEY_TAG_AT    10
#define KEY_FIELD_AT  11
#define KEY_FIELD2_AT 19

enum key_tag {
    KEY_CHECKPOINT = 1,
    KEY_LOG = 2,
    KEY_HEAD = 3,
    KEY_DEVICE = 4,
    KEY_FACTS = 5,
};

struct audit {
    struct volume_txn *reader;
    uint16_t number;
    uint16_t volume_count;
    uint64_t rows;
    /* The user whose rows are being read. */
    struct user_id user;
    struct schema_facts facts;
    uint64_t next_seq;           /* the one behind the last row of the log; 0: none yet */
    uint64_t checkpoints;        /* rows */
    uint64_t checkpoints_wanted; /* entries that must have one */
    /* Ids of bodies that rows name, one for each row. */
    uint64_t *named;
    size_t named_count, named_capacity;
};

static void name_body(struct audit *audit, uint64_t id)
{
    if (audit->named_count == audit->named_capacity) {
        audit->named_capacity = audit->named_capacity * 2 + 64;
        audit->named = realloc(audit->named, audit->named_capacity * sizeof *audit->named);
        SIM_CHECK(audit->named != NULL, "out of memory");
    }
    audit->named[audit->named_count++] = id;
}

static bool get_log(struct audit *audit, struct user_id user, uint64_t seq, struct schema_log *log)
{
    const struct schema_key beyond = schema_key_log(user, seq + 1);
    struct schema_log_reader entries;
    struct volume_bytes key;
    struct volume_bytes row;

    if (volume_seek_before(audit->reader, VOLUME_USER, schema_key_bytes(&beyond), &key, &row) !=
            VOLUME_OK ||
        !schema_is_log(key, user)) {
        return false;
    }
    SIM_CHECK(schema_log_open(&entries, key, row), "user %llx: the row of entry %llu is damaged",
              (unsigned long long)user.value, (unsigned long long)seq);
    return schema_log_find(&entries, seq, log);
}

/* ---- The table `user`: in the order of its keys, so a user's rows come together ---- */

static void end_user(struct audit *audit)
{
    const struct schema_facts *facts = &audit->facts;

    if (audit->user.value == 0) {
        return;
    }
    SIM_CHECK(facts->floor > facts->head || audit->next_seq == facts->head + 1,
              "user %llx: the log is stored up to entry %llu, its head is %llu",
              (unsigned long long)audit->user.value, (unsigned long long)audit->next_seq - 1,
              (unsigned long long)facts->head);
    SIM_CHECK(audit->checkpoints == audit->checkpoints_wanted,
              "user %llx: %llu checkpoints, not %llu", (unsigned long long)audit->user.value,
              (unsigned long long)audit->checkpoints,
              (unsigned long long)audit->checkpoints_wanted);
}

static void begin_user(struct audit *audit, struct user_id user)
{
    const struct schema_key key = schema_key_facts(user);
    struct volume_bytes row;

    end_user(audit);
    SIM_CHECK(volume_get(audit->reader, VOLUME_USER, schema_key_bytes(&key), &row) == VOLUME_OK &&
                  schema_decode_facts(schema_key_bytes(&key), row, &audit->facts),
              "user %llx has rows, but no facts", (unsigned long long)user.value);
    SIM_CHECK(schema_volume_of(partition_of(user.value), audit->volume_count) == audit->number,
              "user %llx is in volume %u", (unsigned long long)user.value, audit->number);
    audit->user = user;
    audit->next_seq = 0;
    audit->checkpoints = 0;
    audit->checkpoints_wanted = 0;
}

static void check_entry(struct audit *audit, const struct schema_log *log, uint64_t seq)
{
    const struct log_entry *entry = &log->entry;

    SIM_CHECK(entry->user.value == audit->user.value && entry->seq == seq &&
                  entry->epoch == audit->facts.epoch,
              "user %llx: entry %llu is of another", (unsigned long long)entry->user.value,
              (unsigned long long)seq);
    if (entry->form == LOG_ENTRY_MESSAGE && entry->n % SCHEMA_CHECKPOINT_EVERY == 0) {
        audit->checkpoints_wanted++;
    }
    if (log->body_apart) {
        name_body(audit, entry->id.value);
    }
}

/* Rows go whole: of the one in which the floor lies, what is below it is still there. */
static void check_log(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    struct schema_log_reader entries;
    struct schema_log log;
    uint64_t seq;

    SIM_CHECK(schema_log_open(&entries, key, row), "user %llx: a row of the log is damaged",
              (unsigned long long)audit->user.value);
    seq = entries.first;
    SIM_CHECK(audit->next_seq == 0 ? seq <= audit->facts.floor : seq == audit->next_seq,
              "user %llx: entry %llu begins a row, behind entry %llu; the floor is %llu",
              (unsigned long long)audit->user.value, (unsigned long long)seq,
              (unsigned long long)audit->next_seq, (unsigned long long)audit->facts.floor);
    while (schema_log_next(&entries, &log)) {
        check_entry(audit, &log, seq++);
    }
    SIM_CHECK(!entries.bad, "user %llx: a row of the log is damaged",
              (unsigned long long)audit->user.value);
    SIM_CHECK(seq > audit->facts.floor && seq <= audit->facts.head + 1,
              "user %llx: entry %llu is stored, but the log goes from %llu to %llu",
              (unsigned long long)audit->user.value, (unsigned long long)seq - 1,
              (unsigned long long)audit->facts.floor, (unsigned long long)audit->facts.head);
    audit->next_seq = seq;
}

static void check_checkpoint(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    const uint64_t conversation = load_be64(key.bytes + KEY_FIELD_AT);
    const uint64_t block = load_be64(key.bytes + KEY_FIELD2_AT);
    struct schema_log log;
    uint64_t seq;

    audit->checkpoints++;
    SIM_CHECK(schema_decode_number(key, row, &seq), "user %llx: a checkpoint is damaged",
              (unsigned long long)audit->user.value);
    SIM_CHECK(get_log(audit, audit->user, seq, &log) && log.entry.form == LOG_ENTRY_MESSAGE &&
                  log.entry.conversation.value == conversation &&
                  log.entry.n == block * SCHEMA_CHECKPOINT_EVERY,
              "user %llx, conversation %llx: the checkpoint of block %llu is entry %llu, which "
              "isn't it",
              (unsigned long long)audit->user.value, (unsigned long long)conversation,
              (unsigned long long)block, (unsigned long long)seq);
}

static void check_head(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    const uint64_t conversation = load_be64(key.bytes + KEY_FIELD_AT);
    struct schema_log log;
    struct head head;

    SIM_CHECK(schema_decode_head(key, row, &head), "user %llx: a head is damaged",
              (unsigned long long)audit->user.value);
    SIM_CHECK(head.last <= audit->facts.head, "user %llx, conversation %llx: its last is %llu",
              (unsigned long long)audit->user.value, (unsigned long long)conversation,
              (unsigned long long)head.last);
    if (head.last < audit->facts.floor) {
        return;
    }
    SIM_CHECK(get_log(audit, audit->user, head.last, &log) &&
                  log.entry.conversation.value == conversation && log.entry.n == head.n &&
                  log.entry.cn == head.cn,
              "user %llx, conversation %llx: the head isn't entry %llu's",
              (unsigned long long)audit->user.value, (unsigned long long)conversation,
              (unsigned long long)head.last);
}

/* The last 32 outcomes, or all; those of entries that are kept say what the entries say. */
static void check_device(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    const uint32_t id = load_be32(key.bytes + KEY_FIELD_AT);
    struct schema_device device;

    SIM_CHECK(schema_decode_device(key, row, &device), "user %llx: a device is damaged",
              (unsigned long long)audit->user.value);

    const uint64_t wanted =
        device.last_counter < SCHEMA_OUTCOMES_MAX ? device.last_counter : SCHEMA_OUTCOMES_MAX;

    SIM_CHECK(device.outcome_count == wanted, "user %llx, device %u: %u outcomes of %llu SENDs",
              (unsigned long long)audit->user.value, id, device.outcome_count,
              (unsigned long long)device.last_counter);
    for (uint32_t i = 0; i < device.outcome_count; i++) {
        const struct outcome *outcome = &device.outcomes[i];
        struct schema_log log;

        SIM_CHECK(outcome->counter + device.outcome_count == device.last_counter + 1 + i,
                  "user %llx, device %u: outcome %u is of SEND %llu",
                  (unsigned long long)audit->user.value, id, i,
                  (unsigned long long)outcome->counter);
        SIM_CHECK(outcome->id == 0 || outcome->seq < audit->facts.floor ||
                      (get_log(audit, audit->user, outcome->seq, &log) &&
                       log.entry.id.value == outcome->id && log.entry.device.value == id &&
                       log.entry.counter == outcome->counter &&
                       memcmp(log.entry.nonce, outcome->nonce, RECORD_NONCE_BYTES) == 0),
                  "user %llx, device %u: the outcome of SEND %llu is entry %llu, which isn't it",
                  (unsigned long long)audit->user.value, id, (unsigned long long)outcome->counter,
                  (unsigned long long)outcome->seq);
    }
}

static void check_user_row(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    struct user_id user;

    SIM_CHECK(key.byte_count >= KEY_FIELD_AT, "volume %u has a key of %zu bytes", audit->number,
              key.byte_count);
    user.value = load_be64(key.bytes + KEY_USER_AT);
    if (user.value != audit->user.value) {
        begin_user(audit, user);
    }
    switch (key.bytes[KEY_TAG_AT]) {
    case KEY_CHECKPOINT:
        check_checkpoint(audit, key, row);
        break;
    case KEY_LOG:
        check_log(audit, key, row);
        break;
    case KEY_HEAD:
        check_head(audit, key, row);
        break;
    case KEY_DEVICE:
        check_device(audit, key, row);
        break;
    case KEY_FACTS:
        break;
    default:
        sim_fail("user %llx has a row of tag %u", (unsigned long long)user.value,
                 key.bytes[KEY_TAG_AT]);
    }
}

/* ---- The other tables ---- */

static void check_out(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    const uint64_t id = load_be64(key.bytes + sizeof(uint16_t));
    struct schema_out out;
    struct schema_log log;

    SIM_CHECK(schema_decode_out(key, row, &out), "a row of `out` is damaged");
    SIM_CHECK(get_log(audit, out.user, out.seq, &log) && log.entry.id.value == id &&
                  log.entry.conversation.value == out.to.value &&
                  (log.entry.flags & LOG_ENTRY_FLAG_OUT) != 0,
              "user %llx: a stream record names entry %llu, which isn't it",
              (unsigned long long)out.user.value, (unsigned long long)out.seq);
    if (out.body_apart) {
        name_body(audit, id);
    }
}

/* How many rows name it; those are taken out of the list. */
static uint32_t take_named(struct audit *audit, uint64_t id)
{
    uint32_t count = 0;

    for (size_t i = 0; i < audit->named_count;) {
        if (audit->named[i] == id) {
            audit->named[i] = audit->named[--audit->named_count];
            count++;
        } else {
            i++;
        }
    }
    return count;
}

static void check_body(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    const uint64_t id = load_be64(key.bytes);
    struct schema_body body;

    if (load_be16(key.bytes + sizeof(uint64_t)) != 0) {
        return; /* a part: looked at with its first row, by who reads the entry */
    }
    SIM_CHECK(schema_decode_body(key, row, &body), "the body of id %llx is damaged",
              (unsigned long long)id);

    const uint32_t named = take_named(audit, id);

    SIM_CHECK(body.references == named, "the body of id %llx counts %u rows, but %u name it",
              (unsigned long long)id, body.references, named);
}

static void check_meta(struct audit *audit, struct volume_bytes key, struct volume_bytes row)
{
    const struct schema_key identity = schema_key_identity();
    uint64_t number;

    (void)audit;
    SIM_CHECK((key.byte_count == identity.byte_count &&
               memcmp(key.bytes, identity.bytes, key.byte_count) == 0) ||
                  schema_decode_number(key, row, &number),
              "a row of `meta` is damaged");
}

static void each_row(struct audit *audit, enum volume_table table,
                     void (*check)(struct audit *audit, struct volume_bytes key,
                                   struct volume_bytes row))
{
    static const uint8_t first = 0;
    uint8_t place[VOLUME_KEY_BYTES_MAX];
    struct volume_bytes key = { &first, 1 };
    struct volume_bytes row;
    enum volume_status status =
        volume_seek(audit->reader, table, (struct volume_bytes){ &first, 1 }, &key, &row);

    while (status == VOLUME_OK) {
        memcpy(place, key.bytes, key.byte_count);
        place[key.byte_count] = 0; /* the least key behind it */
        audit->rows++;
        check(audit, key, row);

        const struct volume_bytes next = { place, key.byte_count + 1 };

        status = volume_seek(audit->reader, table, next, &key, &row);
    }
    SIM_CHECK(status == VOLUME_ABSENT, "volume %u can't be read", audit->number);
}

uint64_t audit_volume(struct volume *volume, uint16_t number, uint16_t volume_count, bool drained)
{
    struct hf_error error = { 0 };
    struct audit audit = {
        .reader = volume_reader_open(volume, &error),
        .number = number,
        .volume_count = volume_count,
    };

    SIM_CHECK(audit.reader != NULL && volume_read_begin(audit.reader) == VOLUME_OK, "volume %u: %s",
              number, error.text);
    each_row(&audit, VOLUME_USER, check_user_row);
    end_user(&audit);

    const uint64_t before_outs = audit.rows;

    each_row(&audit, VOLUME_OUT, check_out);
    SIM_CHECK(!drained || audit.rows == before_outs,
              "volume %u: %llu stream records are left at the end", number,
              (unsigned long long)(audit.rows - before_outs));
    each_row(&audit, VOLUME_BODY, check_body);
    SIM_CHECK(audit.named_count == 0, "volume %u: a row names the body of id %llx, which is gone",
              number, (unsigned long long)audit.named[0]);
    each_row(&audit, VOLUME_META, check_meta);
    volume_read_end(audit.reader);
    volume_reader_close(audit.reader);
    free(audit.named);
    return audit.rows;
}

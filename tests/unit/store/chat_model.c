#include "tests/unit/store/chat_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/crc32c.h"
#include "tests/unit/store/memory_disk.h"

#define OUTS_MAX 6000

void chat_model_init(struct chat_model *model, uint64_t seed)
{
    memset(model, 0, sizeof *model);
    model->random = seed;
    model->now_unix_ms = 1763000000000;
    model->outs = calloc(OUTS_MAX, sizeof *model->outs);
    for (uint64_t u = 0; u < CHAT_USERS; u++) {
        model->users[u].id.value = 1 + u * 7;
        model->users[u].entries = calloc(CHAT_ENTRIES_MAX, sizeof(struct log_entry));
        for (int d = 0; d < CHAT_DEVICES; d++) {
            model->users[u].outcomes[d] = calloc(CHAT_ENTRIES_MAX, sizeof(struct outcome));
        }
    }
}

void chat_model_deinit(struct chat_model *model)
{
    for (int u = 0; u < CHAT_USERS; u++) {
        free(model->users[u].entries);
        for (int d = 0; d < CHAT_DEVICES; d++) {
            free(model->users[u].outcomes[d]);
        }
    }
    free(model->outs);
}

void chat_body(struct message_id id, uint16_t body_bytes, uint8_t *to)
{
    for (uint16_t i = 0; i < body_bytes; i++) {
        to[i] = (uint8_t)(id_mix(id.value + i / 8U) >> (8 * (i % 8U)));
    }
}

static uint64_t draw(struct chat_model *model, uint64_t below)
{
    return random_next(&model->random) % below;
}

/* ---- Records ---- */

struct ticket {
    uint8_t *to;
    size_t bytes;
};

static void add(struct ticket *ticket, struct record *record)
{
    record->partition = partition_of(record_owner(record).value);
    ticket->bytes +=
        record_encode(record, ticket->to + ticket->bytes, CHAT_TICKET_BYTES - ticket->bytes);
}

static void add_entry(struct chat_user *user, struct ticket *ticket, struct log_entry *entry)
{
    uint8_t body[RECORD_BODY_BYTES_MAX];
    struct record record = { .type = RECORD_ENTRY, .entry = *entry };

    assert_true(entry->seq < CHAT_ENTRIES_MAX);
    chat_body(entry->id, entry->body_bytes, body);
    record.entry.body = body;
    add(ticket, &record);
    user->facts.head = entry->seq;
    user->entries[entry->seq - 1] = *entry;
}

static void create_user(struct chat_model *model, struct chat_user *user, struct ticket *ticket)
{
    struct record record = {
        .type = RECORD_USER,
        .user = { user->id, model->now_unix_ms / 1000, model->now_unix_ms },
    };

    user->exists = true;
    user->facts = (struct schema_facts){ record.user.epoch, 0, 1, model->now_unix_ms };
    add(ticket, &record);
}

static struct device_id device_of(int d)
{
    return (struct device_id){ (uint32_t)d + 100 };
}

static void change_device(struct chat_model *model, struct chat_user *user, int d,
                          struct ticket *ticket)
{
    struct schema_device *device = &user->devices[d];
    struct record record = {
        .type = RECORD_DEVICE,
        .device = { user->id, device_of(d), (uint32_t)draw(model, 1000), model->now_unix_ms },
    };

    if (!user->device_exists[d]) {
        device->created_unix_ms = model->now_unix_ms;
        user->device_exists[d] = true;
    }
    device->generation = record.device.generation;
    add(ticket, &record);
}

static void note_outcome(struct chat_user *user, int d, const struct outcome *outcome)
{
    user->devices[d].last_counter = outcome->counter;
    user->outcomes[d][user->outcome_counts[d]++] = *outcome;
}

static uint16_t draw_body_bytes(struct chat_model *model)
{
    if (model->large_bodies && draw(model, 12) == 0) {
        return (uint16_t)(500 + draw(model, RECORD_BODY_BYTES_MAX - 499));
    }
    return (uint16_t)draw(model, 60);
}

static void receive(struct chat_model *model, int to, int from, const struct log_entry *sent,
                    struct ticket *ticket)
{
    struct chat_user *user = &model->users[to];
    struct head *head = &user->heads[from];
    struct log_entry entry = {
        .user = user->id,
        .epoch = user->facts.epoch,
        .seq = user->facts.head + 1,
        .id = sent->id,
        .conversation = { sent->user.value },
        .sender = sent->user,
        .device = sent->device,
        .form = LOG_ENTRY_MESSAGE,
        .kind = sent->kind,
        .prev = head->last,
        .n = head->n + 1,
        .cn = head->cn + 1,
        .origin = { sent->epoch, sent->seq },
        .body_bytes = sent->body_bytes,
    };

    add_entry(user, ticket, &entry);
    *head = (struct head){ entry.seq, entry.n, entry.cn, entry.origin };
}

static void send_message(struct chat_model *model, int from, int to, int d, struct ticket *ticket)
{
    struct chat_user *user = &model->users[from];
    struct head *head = &user->heads[to];
    const struct partition_id partition = partition_of(user->id.value);
    const bool short_cut = from != to && model->users[to].exists && draw(model, 2) == 0;
    struct outcome outcome = { .counter = user->devices[d].last_counter + 1 };

    user->last_id = message_id_next(user->last_id, partition, model->now_unix_ms);
    memset(outcome.nonce, (int)draw(model, 256), RECORD_NONCE_BYTES);

    struct log_entry entry = {
        .user = user->id,
        .epoch = user->facts.epoch,
        .seq = user->facts.head + 1,
        .id = user->last_id,
        .conversation = { model->users[to].id.value },
        .sender = user->id,
        .device = device_of(d),
        .form = LOG_ENTRY_MESSAGE,
        .flags = (uint8_t)(LOG_ENTRY_FLAG_OWN | (from == to || short_cut ? 0 : LOG_ENTRY_FLAG_OUT)),
        .kind = 1,
        .counter = outcome.counter,
        .prev = head->last,
        .n = head->n + 1,
        .cn = head->cn,
        .origin = { user->facts.epoch, user->facts.head + 1 },
        .body_bytes = draw_body_bytes(model),
    };
    memcpy(entry.nonce, outcome.nonce, RECORD_NONCE_BYTES);
    add_entry(user, ticket, &entry);
    head->last = entry.seq;
    head->n = entry.n;
    outcome.id = entry.id.value;
    outcome.seq = entry.seq;
    note_outcome(user, d, &outcome);
    if (short_cut) {
        receive(model, to, from, &entry, ticket);
    } else if (from != to) {
        assert_true(model->out_count < OUTS_MAX);
        model->outs[model->out_count++] =
            (struct chat_out){ entry, model->users[to].id.value, false };
    }
}

static void refuse_send(struct chat_model *model, struct chat_user *user, int d,
                        struct ticket *ticket)
{
    struct outcome outcome = {
        .counter = user->devices[d].last_counter + 1,
        .code = (uint16_t)(1 + draw(model, 300)),
    };
    struct record record = { .type = RECORD_REJECT };

    memset(outcome.nonce, (int)draw(model, 256), RECORD_NONCE_BYTES);
    record.reject.user = user->id;
    record.reject.device = device_of(d);
    record.reject.counter = outcome.counter;
    record.reject.code = outcome.code;
    memcpy(record.reject.nonce, outcome.nonce, RECORD_NONCE_BYTES);
    add(ticket, &record);
    note_outcome(user, d, &outcome);
}

/* The oldest stream record of a random user ends: received, or refused. */
static void end_out(struct chat_model *model, int from, struct ticket *ticket)
{
    struct chat_user *user = &model->users[from];

    for (uint32_t i = 0; i < model->out_count; i++) {
        struct chat_out *out = &model->outs[i];
        struct record record = { .type = RECORD_OUT_END };
        int to = 0;

        if (out->ended || out->entry.user.value != user->id.value) {
            continue;
        }
        while (model->users[to].id.value != out->to) {
            to++;
        }
        if (model->users[to].exists) {
            receive(model, to, from, &out->entry, ticket);
        } else {
            struct log_entry refused = {
                .user = user->id,
                .epoch = user->facts.epoch,
                .seq = user->facts.head + 1,
                .id = out->entry.id,
                .conversation = { out->to },
                .sender = user->id,
                .form = LOG_ENTRY_REFUSED,
                .code = 9,
                .ref_seq = out->entry.seq,
                .origin = { user->facts.epoch, user->facts.head + 1 },
            };
            add_entry(user, ticket, &refused);
        }
        record.out_end.user = user->id;
        record.out_end.id = out->entry.id;
        add(ticket, &record);
        out->ended = true;
        return;
    }
}

static void raise_floor(struct chat_model *model, struct chat_user *user, struct ticket *ticket)
{
    uint64_t highest = user->facts.head + 1;
    struct record record = { .type = RECORD_FLOOR };

    for (uint32_t i = 0; i < model->out_count; i++) {
        if (!model->outs[i].ended && model->outs[i].entry.user.value == user->id.value &&
            model->outs[i].entry.seq < highest) {
            highest = model->outs[i].entry.seq;
        }
    }
    if (highest > user->facts.floor) {
        user->facts.floor += draw(model, highest - user->facts.floor + 1);
        record.floor.user = user->id;
        record.floor.floor = user->facts.floor;
        add(ticket, &record);
    }
}

static void move_cursor(struct chat_model *model, struct chat_user *user, int d,
                        struct ticket *ticket)
{
    struct record record = {
        .type = RECORD_CURSOR,
        .cursor = { user->id, device_of(d), user->facts.epoch, draw(model, user->facts.head + 1),
                    draw(model, 5) },
    };

    user->devices[d].cursor = (struct origin){ record.cursor.epoch, record.cursor.seq };
    user->devices[d].cursor_sver = record.cursor.sver;
    add(ticket, &record);
}

size_t chat_model_step(struct chat_model *model, uint8_t to[CHAT_TICKET_BYTES])
{
    struct ticket ticket = { to, 0 };

    model->now_unix_ms += draw(model, 3);
    while (ticket.bytes == 0) {
        const int u = (int)draw(model, CHAT_USERS);
        const int d = (int)draw(model, CHAT_DEVICES);
        const uint64_t what = draw(model, 100);
        struct chat_user *user = &model->users[u];

        if (!user->exists) {
            /* The last one comes late, so that messages to it are refused until then. */
            if (u < CHAT_USERS - 1 || draw(model, 150) == 0) {
                create_user(model, user, &ticket);
                change_device(model, user, d, &ticket);
            }
        } else if (!user->device_exists[d] || what == 0) {
            change_device(model, user, d, &ticket);
        } else if (what < 60) {
            send_message(model, u, (int)draw(model, CHAT_USERS), d, &ticket);
        } else if (what < 66) {
            refuse_send(model, user, d, &ticket);
        } else if (what < 90) {
            end_out(model, u, &ticket);
        } else if (what < 93) {
            raise_floor(model, user, &ticket);
        } else {
            move_cursor(model, user, d, &ticket);
        }
    }
    return ticket.bytes;
}

/* ---- What the volumes must hold ---- */

struct expected {
    uint16_t volume;
    enum volume_table table;
    struct schema_key key;
    struct schema_row row;
};

struct expectation {
    struct expected *rows;
    size_t count;
    size_t room;
    uint16_t volume_count;
};

static void expect(struct expectation *all, uint16_t volume, enum volume_table table,
                   const struct schema_key *key, const struct schema_row *row)
{
    if (all->count == all->room) {
        all->room = all->room * 2 + 64;
        all->rows = realloc(all->rows, all->room * sizeof all->rows[0]);
        assert_non_null(all->rows);
    }
    all->rows[all->count++] = (struct expected){ volume, table, *key, *row };
}

static int compare_expected(const void *left, const void *right)
{
    const struct expected *a = left;
    const struct expected *b = right;

    if (a->volume != b->volume) {
        return a->volume < b->volume ? -1 : 1;
    }
    if (a->table != b->table) {
        return a->table < b->table ? -1 : 1;
    }
    const size_t shorter =
        a->key.byte_count < b->key.byte_count ? a->key.byte_count : b->key.byte_count;
    const int order = memcmp(a->key.bytes, b->key.bytes, shorter);
    return order != 0 ? order : (int)a->key.byte_count - (int)b->key.byte_count;
}

/* The body row of that id in that volume: one reference more. */
static void expect_body(struct expectation *all, uint16_t volume, struct message_id id,
                        uint16_t body_bytes)
{
    const struct schema_key key = schema_key_body(id, 0);
    uint8_t bytes[RECORD_BODY_BYTES_MAX];
    struct schema_row row;

    chat_body(id, body_bytes, bytes);
    struct schema_body body = { 1, body_bytes, crc32c(0, bytes, body_bytes) };

    for (size_t i = 0; i < all->count; i++) {
        struct expected *known = &all->rows[i];

        if (known->volume == volume && known->table == VOLUME_BODY &&
            memcmp(known->key.bytes, key.bytes, key.byte_count) == 0) {
            assert_true(
                schema_decode_body(schema_key_bytes(&key), schema_row_bytes(&known->row), &body));
            body.references++;
            schema_encode_body(&key, &body, &known->row);
            return;
        }
    }
    schema_encode_body(&key, &body, &row);
    expect(all, volume, VOLUME_BODY, &key, &row);
    for (uint16_t at = 0, part = 1; at < body_bytes; part++) {
        const struct schema_key part_key = schema_key_body(id, part);
        const uint16_t left = body_bytes - at;
        const uint16_t piece = left < SCHEMA_BODY_PART_BYTES ? left : SCHEMA_BODY_PART_BYTES;

        schema_encode_part(&part_key, bytes + at, piece, &row);
        expect(all, volume, VOLUME_BODY, &part_key, &row);
        at = (uint16_t)(at + piece);
    }
}

/* An entry that a log row should hold, and what goes with it. */
static void expect_entry(struct expectation *all, const struct chat_user *user, uint16_t volume,
                         struct schema_log_writer *writer, uint64_t seq)
{
    struct log_entry entry = user->entries[seq - 1];
    uint8_t body[RECORD_BODY_BYTES_MAX];

    chat_body(entry.id, entry.body_bytes, body);
    entry.body = body;
    assert_true(schema_log_add(writer, &entry));
    if (schema_log_apart(&entry)) {
        expect_body(all, volume, entry.id, entry.body_bytes);
    }
    if (entry.form == LOG_ENTRY_MESSAGE && entry.n % SCHEMA_CHECKPOINT_EVERY == 0) {
        const struct schema_key checkpoint =
            schema_key_checkpoint(user->id, entry.conversation, entry.n / SCHEMA_CHECKPOINT_EVERY);
        struct schema_row row;

        schema_encode_number(&checkpoint, seq, &row);
        expect(all, volume, VOLUME_USER, &checkpoint, &row);
    }
}

/*
 * Where a log is cut into rows, and what is still there below its floor, depends on its visits. So
 * that is taken from the rows themselves; what they hold isn't.
 */
static void expect_entries(struct expectation *all, const struct chat_user *user, uint16_t volume,
                           struct volume_txn *reader)
{
    const struct schema_key begin = schema_key_log(user->id, 0);
    uint64_t upto = 0; /* of the rows so far */
    struct volume_bytes found;
    struct volume_bytes row;
    enum volume_status status =
        volume_seek(reader, VOLUME_USER, schema_key_bytes(&begin), &found, &row);

    while (status == VOLUME_OK && schema_is_log(found, user->id)) {
        struct schema_log_writer writer;
        struct schema_log_reader log;

        assert_true(schema_log_open(&log, found, row));
        assert_true(log.first + log.count > user->facts.floor); /* else it should be gone */
        assert_true(log.first <= (upto == 0 ? user->facts.floor : upto));
        assert_true(log.first >= upto);
        upto = log.first + log.count;
        assert_true(upto - 1 <= user->facts.head);
        schema_log_begin(&writer, user->id, log.first);
        for (uint64_t seq = log.first; seq < upto; seq++) {
            expect_entry(all, user, volume, &writer, seq);
        }
        schema_log_end(&writer);
        expect(all, volume, VOLUME_USER, &writer.key, &writer.row);
        status = volume_next(reader, VOLUME_USER, &found, &row);
    }
    assert_true(status == VOLUME_OK || status == VOLUME_ABSENT);
    assert_true(upto == user->facts.head + 1 || user->facts.floor > user->facts.head);
}

static void expect_user(struct expectation *all, const struct chat_model *model,
                        const struct chat_user *user, struct volume_txn *reader)
{
    const struct partition_id partition = partition_of(user->id.value);
    const uint16_t volume = schema_volume_of(partition, all->volume_count);
    struct schema_key key = schema_key_facts(user->id);
    struct schema_row row;

    schema_encode_facts(&key, &user->facts, &row);
    expect(all, volume, VOLUME_USER, &key, &row);
    expect_entries(all, user, volume, reader);
    for (int peer = 0; peer < CHAT_USERS; peer++) {
        if (user->heads[peer].last != 0) {
            key =
                schema_key_head(user->id, (struct conversation_id){ model->users[peer].id.value });
            schema_encode_head(&key, &user->heads[peer], &row);
            expect(all, volume, VOLUME_USER, &key, &row);
        }
    }
    for (int d = 0; d < CHAT_DEVICES; d++) {
        struct schema_device device = user->devices[d];
        const uint32_t count = user->outcome_counts[d];

        if (!user->device_exists[d]) {
            continue;
        }
        device.outcome_count = count < SCHEMA_OUTCOMES_MAX ? count : SCHEMA_OUTCOMES_MAX;
        memcpy(device.outcomes, user->outcomes[d] + (count - device.outcome_count),
               device.outcome_count * sizeof device.outcomes[0]);
        key = schema_key_device(user->id, device_of(d));
        schema_encode_device(&key, &device, &row);
        expect(all, volume, VOLUME_USER, &key, &row);
    }
    if (user->last_id.value != 0) {
        key = schema_key_last(partition);
        schema_encode_number(&key, user->last_id.value, &row);
        expect(all, volume, VOLUME_META, &key, &row);
    }
}

static void expect_outs(struct expectation *all, const struct chat_model *model)
{
    for (uint32_t i = 0; i < model->out_count; i++) {
        const struct chat_out *out = &model->outs[i];
        const struct partition_id partition = partition_of(out->entry.user.value);
        const uint16_t volume = schema_volume_of(partition, all->volume_count);
        const struct schema_key key = schema_key_out(partition, out->entry.id);
        struct schema_row row;

        if (out->ended) {
            continue;
        }
        const bool apart = out->entry.body_bytes > SCHEMA_BODY_INLINE_MAX;
        schema_encode_out(
            &key,
            &(struct schema_out){
                out->entry.user, out->entry.epoch, out->entry.seq, { out->to }, apart },
            &row);
        expect(all, volume, VOLUME_OUT, &key, &row);
        if (apart) {
            expect_body(all, volume, out->entry.id, out->entry.body_bytes);
        }
    }
}

static void compare_rows(const struct expectation *all, struct volume *const *volumes)
{
    static const uint8_t zero[1] = { 0 };
    size_t at = 0;

    for (uint16_t v = 0; v < all->volume_count; v++) {
        struct hf_error error;
        struct volume_txn *reader = volume_reader_open(volumes[v], &error);

        assert_non_null(reader);
        assert_int_equal(volume_read_begin(reader), VOLUME_OK);
        for (int table = 0; table < VOLUME_TABLE_COUNT; table++) {
            const enum volume_table t = (enum volume_table)table;
            struct volume_bytes key;
            struct volume_bytes row;
            enum volume_status status =
                volume_seek(reader, t, (struct volume_bytes){ zero, 1 }, &key, &row);

            while (status == VOLUME_OK) {
                const struct expected *wanted = &all->rows[at];

                assert_true(at < all->count);
                assert_int_equal(wanted->volume, v);
                assert_int_equal(wanted->table, t);
                assert_int_equal(wanted->key.byte_count, key.byte_count);
                assert_memory_equal(wanted->key.bytes, key.bytes, key.byte_count);
                assert_int_equal(wanted->row.byte_count, row.byte_count);
                assert_memory_equal(wanted->row.bytes, row.bytes, row.byte_count);
                at++;
                status = volume_next(reader, t, &key, &row);
            }
            assert_int_equal(status, VOLUME_ABSENT);
        }
        volume_read_end(reader);
        volume_reader_close(reader);
    }
    assert_int_equal(at, all->count);
}

void chat_model_compare(struct chat_model *model, struct volume *const *volumes,
                        uint16_t volume_count, uint64_t applied)
{
    struct expectation all = { .volume_count = volume_count };
    const struct schema_key key = schema_key_applied();
    struct schema_row row;

    for (int u = 0; u < CHAT_USERS; u++) {
        const struct chat_user *user = &model->users[u];

        if (user->exists) {
            const uint16_t volume = schema_volume_of(partition_of(user->id.value), volume_count);
            struct hf_error error;
            struct volume_txn *reader = volume_reader_open(volumes[volume], &error);

            assert_non_null(reader);
            assert_int_equal(volume_read_begin(reader), VOLUME_OK);
            expect_user(&all, model, user, reader);
            volume_read_end(reader);
            volume_reader_close(reader);
        }
    }
    expect_outs(&all, model);
    schema_encode_number(&key, applied, &row);
    for (uint16_t v = 0; applied > 0 && v < volume_count; v++) {
        expect(&all, v, VOLUME_META, &key, &row);
    }
    if (all.count > 0) {
        qsort(all.rows, all.count, sizeof all.rows[0], compare_expected);
    }
    compare_rows(&all, volumes);
    free(all.rows);
}

uint64_t volumes_digest(struct volume *const *volumes, uint16_t volume_count)
{
    const struct schema_key applied = schema_key_applied();
    static const uint8_t zero[1] = { 0 };
    uint64_t digest = 0;

    for (uint16_t v = 0; v < volume_count; v++) {
        struct hf_error error;
        struct volume_txn *reader = volume_reader_open(volumes[v], &error);

        assert_non_null(reader);
        assert_int_equal(volume_read_begin(reader), VOLUME_OK);
        for (int table = 0; table < VOLUME_TABLE_COUNT; table++) {
            const enum volume_table t = (enum volume_table)table;
            struct volume_bytes key;
            struct volume_bytes row;
            enum volume_status status =
                volume_seek(reader, t, (struct volume_bytes){ zero, 1 }, &key, &row);

            while (status == VOLUME_OK) {
                if (t != VOLUME_META || key.byte_count != applied.byte_count ||
                    memcmp(key.bytes, applied.bytes, key.byte_count) != 0) {
                    const uint32_t crc = crc32c(0, key.bytes, key.byte_count);
                    digest = id_mix(digest ^ crc32c(crc, row.bytes, row.byte_count));
                }
                status = volume_next(reader, t, &key, &row);
            }
        }
        volume_read_end(reader);
        volume_reader_close(reader);
    }
    return digest;
}

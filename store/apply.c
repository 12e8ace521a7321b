#include "store/apply.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/mutant.h"
#include "store/body.h"

/* One user's visit. */
struct visit {
    struct schema_log_writer log; /* the last row; with no entry: none yet */
    bool log_loaded;
    bool log_changed;
    struct apply *apply;
    struct volume_txn *txn;
    const struct record *records;
    uint32_t record_count;
    struct user_id user;
    struct schema_facts facts;
    bool known;
    bool has_floor;        /* a FLOOR record, perhaps one that was applied before */
    uint64_t floor_before; /* entries below it were applied, and are gone */
    struct apply_item *items;
    uint32_t item_count;
};

bool apply_open(struct apply *apply, uint32_t records_max)
{
    memset(apply, 0, sizeof *apply);
    apply->records_max = records_max;
    apply->text = "";
    apply->items = calloc(records_max, sizeof *apply->items);
    return apply->items != NULL;
}

void apply_close(struct apply *apply)
{
    free(apply->items);
    apply->items = NULL;
}

static enum schema_status damaged(struct visit *visit, const char *text)
{
    visit->apply->text = text;
    return SCHEMA_DAMAGED;
}

static enum schema_status put_row(struct visit *visit, enum volume_table table,
                                  const struct schema_key *key, const struct schema_row *row)
{
    return schema_status_of(
        volume_put(visit->txn, table, schema_key_bytes(key), schema_row_bytes(row)));
}

static enum schema_status get_row(struct visit *visit, enum volume_table table,
                                  const struct schema_key *key, struct volume_bytes *row)
{
    return schema_status_of(volume_get(visit->txn, table, schema_key_bytes(key), row));
}

static int compare_items(const void *left, const void *right)
{
    const struct apply_item *a = left;
    const struct apply_item *b = right;

    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return a->index < b->index ? -1 : 1; /* the records' order, within one key */
}

static void add_item(struct visit *visit, uint64_t key, uint32_t index)
{
    HF_ASSERT(visit->item_count < visit->apply->records_max);
    visit->items[visit->item_count++] = (struct apply_item){ key, index };
}

static void sort_items(struct visit *visit)
{
    if (visit->item_count > 1) {
        qsort(visit->items, visit->item_count, sizeof visit->items[0], compare_items);
    }
}

static bool is_message(const struct record *record)
{
    return record->type == RECORD_ENTRY && record->entry.form == LOG_ENTRY_MESSAGE;
}

static bool is_own(const struct record *record)
{
    return is_message(record) && (record->entry.flags & LOG_ENTRY_FLAG_OWN) != 0;
}

/* ---- Facts ---- */

static enum schema_status load_facts(struct visit *visit)
{
    const struct schema_key key = schema_key_facts(visit->user);
    struct volume_bytes row;
    const enum schema_status status = get_row(visit, VOLUME_USER, &key, &row);

    if (status == SCHEMA_OK) {
        if (!schema_decode_facts(schema_key_bytes(&key), row, &visit->facts)) {
            return damaged(visit, "the facts of a user");
        }
        visit->known = true;
    }
    visit->floor_before = visit->known ? visit->facts.floor : 1;
    return status == SCHEMA_ABSENT ? SCHEMA_OK : status;
}

static enum schema_status store_facts(struct visit *visit)
{
    const struct schema_key key = schema_key_facts(visit->user);
    struct schema_row row;

    if (!visit->known) {
        return SCHEMA_OK;
    }
    schema_encode_facts(&key, &visit->facts, &row);
    return put_row(visit, VOLUME_USER, &key, &row);
}

/* What the records make of the facts, before anything is put: the last floor decides what is. */
static enum schema_status merge_facts(struct visit *visit)
{
    struct schema_facts *facts = &visit->facts;
    uint64_t floor = visit->floor_before;

    for (uint32_t i = 0; i < visit->record_count; i++) {
        const struct record *record = &visit->records[i];

        if (record->type == RECORD_USER) {
            if (!visit->known) {
                *facts = (struct schema_facts){
                    .floor = 1,
                    .created_unix_ms = record->user.created_unix_ms,
                };
                visit->known = true;
            }
            facts->epoch = record->user.epoch;
        } else if (!visit->known && record->type != RECORD_OUT_END) {
            return damaged(visit, "a record of a user that doesn't exist");
        } else if (record->type == RECORD_ENTRY && record->entry.seq >= visit->floor_before) {
            if (record->entry.seq > facts->head + 1) {
                return damaged(visit, "a gap in the numbers of a log");
            }
            facts->head = record->entry.seq;
        } else if (record->type == RECORD_FLOOR) {
            visit->has_floor = true;
            floor = record->floor.floor > floor ? record->floor.floor : floor;
        }
    }
    if (floor > facts->head + 1) {
        return damaged(visit, "a floor above the head of a log");
    }
    facts->floor = floor;
    return SCHEMA_OK;
}

/* ---- The log, and stream records ---- */

/* The last row of the log, which is gone on with. */
static enum schema_status load_log(struct visit *visit)
{
    const struct schema_key end = schema_key_log(visit->user, UINT64_MAX);
    struct volume_bytes found;
    struct volume_bytes row;
    const enum schema_status status = schema_status_of(
        volume_seek_before(visit->txn, VOLUME_USER, schema_key_bytes(&end), &found, &row));

    if (status == SCHEMA_OK && schema_is_log(found, visit->user) &&
        !schema_log_resume(&visit->log, found, row)) {
        return damaged(visit, "the last entries of a log");
    }
    return status == SCHEMA_ABSENT ? SCHEMA_OK : status;
}

static enum schema_status store_log(struct visit *visit)
{
    if (!visit->log_changed) {
        return SCHEMA_OK;
    }
    visit->log_changed = false;
    schema_log_end(&visit->log);
    return put_row(visit, VOLUME_USER, &visit->log.key, &visit->log.row);
}

static enum schema_status put_entry(struct visit *visit, const struct log_entry *entry)
{
    struct schema_log_writer *log = &visit->log;
    enum schema_status status = visit->log_loaded ? SCHEMA_OK : load_log(visit);

    visit->log_loaded = true;
    if (status != SCHEMA_OK) {
        return status;
    }

    if (log->count > 0 && entry->seq < log->first + log->count) {
        if (HF_MUTANT(BODY_COUNTED_TWICE) && schema_log_apart(entry)) {
            return body_hold(visit->txn, entry->id, entry->body, entry->body_bytes);
        }
        return SCHEMA_OK; /* applied before, and its body's reference counted */
    }
    if (schema_log_apart(entry)) {
        status = body_hold(visit->txn, entry->id, entry->body, entry->body_bytes);
        if (status != SCHEMA_OK) {
            return status == SCHEMA_DAMAGED ? damaged(visit, "a body, or two of one id") : status;
        }
    }
    if (log->count == 0 || entry->seq != log->first + log->count || !schema_log_add(log, entry)) {
        status = store_log(visit);
        schema_log_begin(log, visit->user, entry->seq);
        if (status == SCHEMA_OK) {
            const bool added = schema_log_add(log, entry);

            HF_ASSERT(added);
        }
    }
    visit->log_changed = true;
    return status;
}

static enum schema_status put_checkpoint(struct visit *visit, const struct log_entry *entry)
{
    const uint64_t block =
        entry->n / SCHEMA_CHECKPOINT_EVERY + (HF_MUTANT(CHECKPOINT_ONE_BLOCK_LATE) ? 1 : 0);
    const struct schema_key key = schema_key_checkpoint(visit->user, entry->conversation, block);
    struct schema_row row;

    schema_encode_number(&key, entry->seq, &row);
    return put_row(visit, VOLUME_USER, &key, &row);
}

static enum schema_status put_out(struct visit *visit, const struct log_entry *entry)
{
    const struct schema_key key = schema_key_out(partition_of(visit->user.value), entry->id);
    const struct schema_out out = {
        .user = visit->user,
        .epoch = entry->epoch,
        .seq = entry->seq,
        .to = { entry->conversation.value },
        .body_apart = entry->body_bytes > SCHEMA_BODY_INLINE_MAX,
    };
    struct schema_row row;
    struct volume_bytes before;
    enum schema_status status = get_row(visit, VOLUME_OUT, &key, &before);

    if (status != SCHEMA_ABSENT) {
        return status; /* SCHEMA_OK: it says the same already */
    }
    if (out.body_apart) {
        status = body_hold(visit->txn, entry->id, entry->body, entry->body_bytes);
        if (status != SCHEMA_OK) {
            return status == SCHEMA_DAMAGED ? damaged(visit, "a body, or two of one id") : status;
        }
    }
    schema_encode_out(&key, &out, &row);
    return put_row(visit, VOLUME_OUT, &key, &row);
}

static enum schema_status end_out(struct visit *visit, struct message_id id)
{
    const struct schema_key key = schema_key_out(partition_of(visit->user.value), id);
    struct volume_bytes row;
    struct schema_out out;
    enum schema_status status = get_row(visit, VOLUME_OUT, &key, &row);

    if (status != SCHEMA_OK) {
        return status == SCHEMA_ABSENT ? SCHEMA_OK : status;
    }
    if (!schema_decode_out(schema_key_bytes(&key), row, &out)) {
        return damaged(visit, "a stream record");
    }
    if (out.body_apart) {
        status = body_release(visit->txn, id);
        if (status != SCHEMA_OK) {
            return status == SCHEMA_DAMAGED ? damaged(visit, "a body's references") : status;
        }
    }
    return schema_status_of(volume_del(visit->txn, VOLUME_OUT, schema_key_bytes(&key)));
}

/* Whether the run itself ends the stream record: then it never gets a row. */
static bool ends_in_run(const struct visit *visit, struct message_id id)
{
    const struct apply_item wanted = { id.value, 0 };
    uint32_t low = 0;
    uint32_t high = visit->item_count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (visit->items[middle].key < wanted.key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < visit->item_count && visit->items[low].key == wanted.key;
}

static enum schema_status apply_log(struct visit *visit)
{
    enum schema_status status = SCHEMA_OK;

    visit->item_count = 0;
    for (uint32_t i = 0; i < visit->record_count; i++) {
        if (visit->records[i].type == RECORD_OUT_END) {
            add_item(visit, visit->records[i].out_end.id.value, i);
        }
    }
    sort_items(visit);
    for (uint32_t i = 0; status == SCHEMA_OK && i < visit->record_count; i++) {
        const struct record *record = &visit->records[i];

        if (record->type == RECORD_OUT_END) {
            status = end_out(visit, record->out_end.id);
        } else if (record->type == RECORD_ENTRY) {
            const struct log_entry *entry = &record->entry;

            if (entry->seq >= visit->facts.floor) {
                status = put_entry(visit, entry);
                if (status == SCHEMA_OK && is_message(record) &&
                    entry->n % SCHEMA_CHECKPOINT_EVERY == 0) {
                    status = put_checkpoint(visit, entry);
                }
            }
            if (status == SCHEMA_OK && (entry->flags & LOG_ENTRY_FLAG_OUT) != 0 &&
                !ends_in_run(visit, entry->id) && !HF_MUTANT(OUT_NOT_KEPT)) {
                status = put_out(visit, entry);
            }
        }
    }
    return status == SCHEMA_OK ? store_log(visit) : status;
}

/* ---- Retention ---- */

/* Deletes for retention that were made, of those that the transaction may have. */
static void spend(struct apply *apply, uint32_t deletes)
{
    apply->drops_left = apply->drops_left > deletes ? apply->drops_left - deletes : 0;
}

/* Lets go of what an entry about to be deleted holds. */
static enum schema_status release_entry(struct visit *visit, const struct schema_log *log)
{
    const struct log_entry *entry = &log->entry;
    enum schema_status status = SCHEMA_OK;

    if (log->body_apart) {
        spend(visit->apply, 2U + log->body_bytes / SCHEMA_BODY_PART_BYTES);
        status = body_release(visit->txn, entry->id);
        if (status == SCHEMA_DAMAGED) {
            return damaged(visit, "a body's references");
        }
    }
    if (status == SCHEMA_OK && entry->form == LOG_ENTRY_MESSAGE &&
        entry->n % SCHEMA_CHECKPOINT_EVERY == 0) {
        const struct schema_key key = schema_key_checkpoint(visit->user, entry->conversation,
                                                            entry->n / SCHEMA_CHECKPOINT_EVERY);

        spend(visit->apply, 1);
        status = schema_status_of(volume_del(visit->txn, VOLUME_USER, schema_key_bytes(&key)));
        if (status == SCHEMA_ABSENT) {
            status = SCHEMA_OK;
        }
    }
    return status;
}

/* Lets go of what a row that is about to be deleted holds. */
static enum schema_status release_row(struct visit *visit, struct schema_log_reader *reader)
{
    struct schema_log log;
    enum schema_status status = SCHEMA_OK;

    while (status == SCHEMA_OK && schema_log_next(reader, &log)) {
        status = release_entry(visit, &log);
    }
    if (status == SCHEMA_OK && reader->bad) {
        return damaged(visit, "entries that retention drops");
    }
    spend(visit->apply, 1);
    visit->apply->entries_dropped += reader->count;
    return status;
}

/*
 * Rows go whole: what the one in which the floor lies has below it stays, and isn't asked for. It
 * begins with the lowest row, whatever the floor was before: a visit that had to stop has left some.
 */
static enum schema_status drop_below_floor(struct visit *visit)
{
    const struct schema_key begin = schema_key_log(visit->user, 0);
    enum schema_status status = SCHEMA_OK;

    if (!visit->has_floor) {
        return SCHEMA_OK;
    }
    while (status == SCHEMA_OK) {
        uint8_t copy[SCHEMA_ROW_BYTES_MAX];
        struct schema_log_reader reader;
        struct volume_bytes found;
        struct volume_bytes row;
        struct schema_key key;

        status = schema_status_of(
            volume_seek(visit->txn, VOLUME_USER, schema_key_bytes(&begin), &found, &row));
        if (status != SCHEMA_OK || !schema_is_log(found, visit->user)) {
            break;
        }
        HF_ASSERT(row.byte_count <= sizeof copy);
        memcpy(copy, row.bytes, row.byte_count); /* what is written meanwhile moves the row */
        key.byte_count = found.byte_count;
        memcpy(key.bytes, found.bytes, found.byte_count);
        row.bytes = copy;
        if (!schema_log_open(&reader, schema_key_bytes(&key), row)) {
            return damaged(visit, "entries that retention drops");
        }
        if (reader.first + reader.count > visit->facts.floor) {
            break;
        }
        if (visit->apply->drops_left == 0) {
            visit->apply->more = true;
            break;
        }
        status = release_row(visit, &reader);
        if (status == SCHEMA_OK) {
            status = schema_status_of(volume_del(visit->txn, VOLUME_USER, schema_key_bytes(&key)));
        }
    }
    return status == SCHEMA_ABSENT ? SCHEMA_OK : status;
}

/* ---- Conversations ---- */

/* Items [from, upto) are the messages of one conversation. */
static enum schema_status apply_head(struct visit *visit, uint32_t from, uint32_t upto)
{
    const struct conversation_id conversation = { visit->items[from].key };
    const struct schema_key key = schema_key_head(visit->user, conversation);
    const struct log_entry *last = &visit->records[visit->items[upto - 1].index].entry;
    struct head head = { .last = last->seq, .n = last->n, .cn = last->cn };
    struct schema_row row;

    for (uint32_t i = from; i < upto; i++) {
        const struct record *record = &visit->records[visit->items[i].index];

        if (!is_own(record)) {
            head.origin = record->entry.origin;
        }
    }
    if (head.origin.epoch == 0) {
        struct volume_bytes before_row;
        struct head before;
        const enum schema_status status = get_row(visit, VOLUME_USER, &key, &before_row);

        if (status == SCHEMA_OK) {
            if (!schema_decode_head(schema_key_bytes(&key), before_row, &before)) {
                return damaged(visit, "the head of a conversation");
            }
            head.origin = before.origin;
        } else if (status != SCHEMA_ABSENT) {
            return status;
        }
    }
    schema_encode_head(&key, &head, &row);
    return put_row(visit, VOLUME_USER, &key, &row);
}

/* ---- Devices ---- */

static void apply_to_device(const struct record *record, struct schema_device *device)
{
    if (record->type == RECORD_DEVICE) {
        if (device->created_unix_ms == 0) {
            device->created_unix_ms = record->device.created_unix_ms;
        }
        device->generation = record->device.generation;
    } else if (record->type == RECORD_CURSOR) {
        device->cursor = (struct origin){ record->cursor.epoch, record->cursor.seq };
        device->cursor_sver = record->cursor.sver;
    } else if (record->type == RECORD_REJECT) {
        struct outcome outcome = {
            .counter = record->reject.counter,
            .code = record->reject.code,
        };
        memcpy(outcome.nonce, record->reject.nonce, RECORD_NONCE_BYTES);
        schema_device_note_outcome(device, &outcome);
    } else {
        struct outcome outcome = {
            .counter = record->entry.counter,
            .id = record->entry.id.value,
            .seq = record->entry.seq,
        };
        memcpy(outcome.nonce, record->entry.nonce, RECORD_NONCE_BYTES);
        schema_device_note_outcome(device, &outcome);
    }
}

/* Items [from, upto) are the records of one device. */
static enum schema_status apply_device(struct visit *visit, uint32_t from, uint32_t upto)
{
    const struct device_id id = { (uint32_t)visit->items[from].key };
    const struct schema_key key = schema_key_device(visit->user, id);
    struct schema_device device;
    struct schema_row row;
    struct volume_bytes before;
    const enum schema_status status = get_row(visit, VOLUME_USER, &key, &before);

    if (status == SCHEMA_OK) {
        if (!schema_decode_device(schema_key_bytes(&key), before, &device)) {
            return damaged(visit, "a device");
        }
        if (HF_MUTANT(FLUSH_FORGETS_OUTCOMES)) {
            device.outcome_count = 0;
        }
    } else if (status == SCHEMA_ABSENT) {
        if (visit->records[visit->items[from].index].type != RECORD_DEVICE) {
            return damaged(visit, "a record of a device that doesn't exist");
        }
        memset(&device, 0, sizeof device);
    } else {
        return status;
    }
    for (uint32_t i = from; i < upto; i++) {
        apply_to_device(&visit->records[visit->items[i].index], &device);
    }
    schema_encode_device(&key, &device, &row);
    return put_row(visit, VOLUME_USER, &key, &row);
}

static void add_items_of_heads(struct visit *visit)
{
    visit->item_count = 0;
    for (uint32_t i = 0; i < visit->record_count; i++) {
        const struct record *record = &visit->records[i];

        if (is_message(record) && record->entry.seq >= visit->floor_before) {
            add_item(visit, record->entry.conversation.value, i);
        }
    }
    sort_items(visit);
}

static void add_items_of_devices(struct visit *visit)
{
    visit->item_count = 0;
    for (uint32_t i = 0; i < visit->record_count; i++) {
        const struct record *record = &visit->records[i];

        if (is_own(record)) {
            add_item(visit, record->entry.device.value, i);
        } else if (record->type == RECORD_DEVICE) {
            add_item(visit, record->device.device.value, i);
        } else if (record->type == RECORD_REJECT) {
            add_item(visit, record->reject.device.value, i);
        } else if (record->type == RECORD_CURSOR) {
            add_item(visit, record->cursor.device.value, i);
        }
    }
    sort_items(visit);
}

/* Calls `each` for every run of items of one key. */
static enum schema_status for_each_key(struct visit *visit,
                                       enum schema_status (*each)(struct visit *visit,
                                                                  uint32_t from, uint32_t upto))
{
    enum schema_status status = SCHEMA_OK;
    uint32_t from = 0;

    while (status == SCHEMA_OK && from < visit->item_count) {
        uint32_t upto = from + 1;

        while (upto < visit->item_count && visit->items[upto].key == visit->items[from].key) {
            upto++;
        }
        status = each(visit, from, upto);
        from = upto;
    }
    return status;
}

enum schema_status apply_user(struct apply *apply, struct volume_txn *txn,
                              const struct record *records, uint32_t record_count)
{
    struct visit visit = {
        .apply = apply,
        .txn = txn,
        .records = records,
        .record_count = record_count,
        .user = record_owner(&records[0]),
        .items = apply->items,
    };
    enum schema_status status;

    HF_ASSERT(record_count > 0 && record_count <= apply->records_max);
    apply->more = false;
    status = load_facts(&visit);
    if (status == SCHEMA_OK) {
        status = merge_facts(&visit);
    }
    if (status == SCHEMA_OK) {
        status = apply_log(&visit);
    }
    if (status == SCHEMA_OK) {
        status = drop_below_floor(&visit);
    }
    if (status == SCHEMA_OK) {
        add_items_of_heads(&visit);
        status = for_each_key(&visit, apply_head);
    }
    if (status == SCHEMA_OK) {
        add_items_of_devices(&visit);
        status = for_each_key(&visit, apply_device);
    }
    return status == SCHEMA_OK ? store_facts(&visit) : status;
}

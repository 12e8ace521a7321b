#include "store/reader.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/mutant.h"
#include "store/body.h"

struct reader {
    struct volume_txn *txns[SCHEMA_VOLUMES_MAX]; /* NULL: not this core's volume */
    uint16_t volume_count;
    uint32_t bytes_max;
    uint8_t *entries;
    size_t entries_room;
    uint8_t *body;
    uint8_t *scratch; /* of journal_fetch() */
    struct read_device devices[READER_DEVICES_MAX];
    struct read_out *outs;
    size_t out_room;
    char text[256];
};

/* One load, in one snapshot. */
struct loading {
    struct reader *reader;
    const struct read_request *request;
    const struct read_places *places;
    struct read_answer *answer;
    struct volume_txn *txn;
    uint16_t volume;
    struct schema_log_reader log, log_begin; /* the log row at hand, and at its first entry */
    bool place_failed; /* the journal no longer has what it should: a flush ended meanwhile */
};

struct reader *reader_open(struct volume *const *volumes, uint16_t volume_count, uint32_t bytes_max,
                           struct hf_error *error)
{
    struct reader *reader = calloc(1, sizeof *reader);

    HF_ASSERT(volume_count > 0 && volume_count <= SCHEMA_VOLUMES_MAX);
    if (reader != NULL) {
        reader->volume_count = volume_count;
        reader->bytes_max = bytes_max;
        reader->entries_room = (size_t)bytes_max + RECORD_BYTES_MAX;
        reader->entries = malloc(reader->entries_room);
        reader->body = malloc(RECORD_BODY_BYTES_MAX);
        reader->scratch = aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_FETCH_SCRATCH_BYTES);
    }
    if (reader == NULL || reader->entries == NULL || reader->body == NULL ||
        reader->scratch == NULL) {
        hf_error_set(error, EX_OSERR, 0, "reader: no memory");
        reader_close(reader);
        return NULL;
    }
    for (uint16_t v = 0; v < volume_count; v++) {
        if (volumes[v] == NULL) {
            continue;
        }
        reader->txns[v] = volume_reader_open(volumes[v], error);
        if (reader->txns[v] == NULL) {
            hf_error_prepend(error, "volume %u", v);
            reader_close(reader);
            return NULL;
        }
    }
    return reader;
}

void reader_close(struct reader *reader)
{
    if (reader == NULL) {
        return;
    }
    for (uint16_t v = 0; v < reader->volume_count; v++) {
        volume_reader_close(reader->txns[v]);
    }
    free(reader->entries);
    free(reader->body);
    free(reader->scratch);
    free(reader->outs);
    free(reader);
}

const char *reader_text(const struct reader *reader)
{
    return reader->text;
}

/* ABSENT stays; what else isn't OK failed, and gets a text. */
static enum read_status answer_of(struct reader *reader, uint16_t volume, enum schema_status status,
                                  const char *what)
{
    switch (status) {
    case SCHEMA_OK:
        return READ_FOUND;
    case SCHEMA_ABSENT:
        return READ_ABSENT;
    case SCHEMA_DAMAGED:
        snprintf(reader->text, sizeof reader->text, "volume %u: %s is damaged", volume, what);
        break;
    case SCHEMA_FULL:
    case SCHEMA_BROKEN:
        snprintf(reader->text, sizeof reader->text, "volume %u: %s: %s", volume, what,
                 volume_reader_text(reader->txns[volume]));
        break;
    }
    return READ_FAILED;
}

static enum read_status answer_of_row(struct loading *loading, enum schema_status status,
                                      const char *row, ...) __attribute__((format(printf, 3, 4)));

/* The same of one row of the user's, whose damage concerns nobody else. */
static enum read_status answer_of_row(struct loading *loading, enum schema_status status,
                                      const char *row, ...)
{
    struct read_answer *answer = loading->answer;
    va_list arguments;

    if (status == SCHEMA_OK || status == SCHEMA_ABSENT) {
        return status == SCHEMA_OK ? READ_FOUND : READ_ABSENT;
    }
    va_start(arguments, row);
    (void)vsnprintf(answer->row, sizeof answer->row, row, arguments);
    va_end(arguments);
    answer->damaged = status == SCHEMA_DAMAGED;
    return answer_of(loading->reader, loading->volume, status, answer->row);
}

static enum schema_status get_row(struct volume_txn *txn, const struct schema_key *key,
                                  struct volume_bytes *row)
{
    return schema_status_of(volume_get(txn, VOLUME_USER, schema_key_bytes(key), row));
}

/* ---- Users, heads, checkpoints ---- */

static enum schema_status load_devices(struct loading *loading)
{
    struct read_answer *answer = loading->answer;
    const struct schema_key first =
        schema_key_device(loading->request->user, (struct device_id){ 0 });
    const size_t prefix = first.byte_count - sizeof(uint32_t);
    struct volume_bytes found;
    struct volume_bytes row;
    enum volume_status status =
        volume_seek(loading->txn, VOLUME_USER, schema_key_bytes(&first), &found, &row);

    answer->device_count = 0;
    answer->devices = loading->reader->devices;
    while (status == VOLUME_OK && found.byte_count == first.byte_count &&
           memcmp(found.bytes, first.bytes, prefix) == 0) {
        struct read_device *device;

        if (answer->device_count == READER_DEVICES_MAX) {
            return SCHEMA_DAMAGED;
        }
        device = &loading->reader->devices[answer->device_count++];
        device->device.value = load_be32(found.bytes + prefix);
        if (!schema_decode_device(found, row, &device->state)) {
            return SCHEMA_DAMAGED;
        }
        status = volume_next(loading->txn, VOLUME_USER, &found, &row);
    }
    return status == VOLUME_ABSENT ? SCHEMA_OK : schema_status_of(status);
}

static enum read_status load_user(struct loading *loading)
{
    const struct schema_key key = schema_key_facts(loading->request->user);
    struct volume_bytes row;
    enum schema_status status = get_row(loading->txn, &key, &row);

    if (status == SCHEMA_OK &&
        !schema_decode_facts(schema_key_bytes(&key), row, &loading->answer->facts)) {
        status = SCHEMA_DAMAGED;
    }
    if (status == SCHEMA_OK) {
        status = load_devices(loading);
    }
    return answer_of_row(loading, status, "facts or devices");
}

static enum read_status load_head(struct loading *loading)
{
    const struct schema_key key =
        schema_key_head(loading->request->user, loading->request->conversation);
    struct volume_bytes row;
    enum schema_status status = get_row(loading->txn, &key, &row);

    if (status == SCHEMA_OK &&
        !schema_decode_head(schema_key_bytes(&key), row, &loading->answer->head)) {
        status = SCHEMA_DAMAGED;
    }
    return answer_of_row(loading, status, "head of conversation %" PRIu64,
                         loading->request->conversation.value);
}

static enum read_status load_checkpoint(struct loading *loading)
{
    const struct schema_key key = schema_key_checkpoint(
        loading->request->user, loading->request->conversation, loading->request->block);
    const enum schema_status status =
        schema_get_number(loading->txn, VOLUME_USER, &key, &loading->answer->seq);

    return answer_of_row(loading, status, "checkpoint of conversation %" PRIu64,
                         loading->request->conversation.value);
}

/* ---- Entries ---- */

/* From the journal, where the index said. False: it is there no more. */
static bool fetch_entry(struct loading *loading, uint64_t seq, uint64_t pos, uint8_t *to,
                        struct record *record, size_t *length)
{
    const struct read_places *places = loading->places;

    return journal_fetch(&places->source, &places->identity, places->spans, places->span_count, pos,
                         loading->reader->scratch, to, RECORD_BYTES_MAX, length) &&
           record_parse(to, *length, record, length) == RECORD_OK && record->type == RECORD_ENTRY &&
           ((record->entry.user.value == loading->request->user.value &&
             record->entry.seq == seq) ||
            HF_MUTANT(JOURNAL_READ_UNCHECKED));
}

/* The log row that holds the seq: the one at hand, or another. */
static enum schema_status find_row(struct loading *loading, uint64_t seq)
{
    struct schema_log_reader *at = &loading->log;
    const struct schema_key beyond = schema_key_log(loading->request->user, seq + 1);
    struct volume_bytes found;
    struct volume_bytes row;

    if (at->count > 0 && seq >= at->first && seq - at->first < at->count) {
        if (seq < at->first + at->taken) {
            *at = loading->log_begin;
        }
        return SCHEMA_OK;
    }
    at->count = 0;
    const enum schema_status status = schema_status_of(
        volume_seek_before(loading->txn, VOLUME_USER, schema_key_bytes(&beyond), &found, &row));

    if (status != SCHEMA_OK) {
        return status;
    }
    if (!schema_is_log(found, loading->request->user)) {
        return SCHEMA_ABSENT;
    }
    if (!schema_log_open(at, found, row)) {
        return SCHEMA_DAMAGED;
    }
    loading->log_begin = *at;
    return seq - at->first < at->count ? SCHEMA_OK : SCHEMA_ABSENT;
}

static enum schema_status read_entry(struct loading *loading, uint64_t seq, uint8_t *to,
                                     struct record *record, size_t *length)
{
    struct schema_log log;
    enum schema_status status = find_row(loading, seq);

    if (status != SCHEMA_OK) {
        return status;
    }
    if (!schema_log_find(&loading->log, seq, &log)) {
        loading->log.count = 0;
        return SCHEMA_DAMAGED;
    }
    if (log.body_apart) {
        status = body_read(loading->txn, &log, loading->reader->body);
        if (status != SCHEMA_OK) {
            return status;
        }
        log.entry.body = loading->reader->body;
        log.entry.body_bytes = log.body_bytes;
    }
    *record = (struct record){
        .type = RECORD_ENTRY,
        .partition = partition_of(log.entry.user.value),
        .entry = log.entry,
    };
    *length = record_encode(record, to, RECORD_BYTES_MAX);
    return SCHEMA_OK;
}

/* Retention took it while the read waited: nothing is missing. */
static bool is_below_floor(const struct loading *loading, uint64_t seq)
{
    const struct schema_key key = schema_key_facts(loading->request->user);
    struct volume_bytes row;
    struct schema_facts facts;

    return get_row(loading->txn, &key, &row) == SCHEMA_OK &&
           schema_decode_facts(schema_key_bytes(&key), row, &facts) && seq < facts.floor;
}

/* One entry's record at the end of the answer's. */
static enum read_status load_entry(struct loading *loading, uint64_t seq, struct record *record,
                                   size_t *length)
{
    const struct read_places *places = loading->places;
    uint8_t *to = loading->reader->entries + loading->answer->entries_bytes;
    enum read_status status;

    if (places != NULL) {
        const uint64_t pos = places->find(places->context, loading->request->user, seq);

        if (pos != 0) {
            if (fetch_entry(loading, seq, pos, to, record, length)) {
                return READ_FOUND;
            }
            loading->place_failed = true;
        }
    }
    status =
        answer_of_row(loading, read_entry(loading, seq, to, record, length), "entry %" PRIu64, seq);
    if (status == READ_FOUND || (loading->place_failed && is_below_floor(loading, seq))) {
        loading->place_failed = false;
    }
    return status;
}

/* Whether the answer has room for it; the first always has. */
static bool take_entry(struct loading *loading, size_t length)
{
    struct read_answer *answer = loading->answer;

    if (answer->entry_count > 0 && answer->entries_bytes + length > loading->request->bytes) {
        return false;
    }
    answer->entry_count++;
    answer->entries_bytes += length;
    return true;
}

static enum read_status load_range(struct loading *loading)
{
    const struct read_request *request = loading->request;

    for (uint64_t seq = request->from; seq <= request->to; seq++) {
        struct record record;
        size_t length = 0;
        const enum read_status status = load_entry(loading, seq, &record, &length);

        if (status != READ_FOUND) {
            return status == READ_ABSENT && loading->answer->entry_count > 0 ? READ_FOUND : status;
        }
        if (!take_entry(loading, length)) {
            break;
        }
    }
    return loading->answer->entry_count > 0 ? READ_FOUND : READ_ABSENT;
}

static bool in_conversation(const struct read_request *request, const struct log_entry *entry)
{
    return entry->form == LOG_ENTRY_MESSAGE &&
           entry->conversation.value == request->conversation.value;
}

static enum read_status load_chain(struct loading *loading)
{
    const struct read_request *request = loading->request;
    uint64_t seq = request->from;

    while (seq != 0 && loading->answer->entry_count < request->count) {
        struct record record = { 0 };
        size_t length = 0;
        const enum read_status status = load_entry(loading, seq, &record, &length);

        if (status != READ_FOUND) {
            return status == READ_ABSENT && loading->answer->entry_count > 0 ? READ_FOUND : status;
        }
        const bool belongs = in_conversation(request, &record.entry);

        /* Where it begins is the asker's, who sees that it is another's; then the chain leads. */
        if (!belongs && loading->answer->entry_count > 0) {
            return answer_of_row(loading, SCHEMA_DAMAGED, "chain of conversation %" PRIu64,
                                 request->conversation.value);
        }
        if (!take_entry(loading, length) || !belongs) {
            break;
        }
        seq = record.entry.prev;
    }
    return loading->answer->entry_count > 0 ? READ_FOUND : READ_ABSENT;
}

/* ---- Loads ---- */

static enum read_status load_once(struct loading *loading)
{
    enum schema_status applied;

    loading->place_failed = false;
    loading->log.count = 0;
    memset(loading->answer, 0, sizeof *loading->answer);
    loading->answer->volume = loading->volume;
    loading->answer->entries = loading->reader->entries;
    applied = schema_get_applied(loading->txn, &loading->answer->snapshot_lsn);
    if (applied != SCHEMA_OK) {
        return answer_of(loading->reader, loading->volume, applied, "the row `applied`");
    }
    switch (loading->request->kind) {
    case READ_USER:
        return load_user(loading);
    case READ_HEAD:
        return load_head(loading);
    case READ_RANGE:
        return load_range(loading);
    case READ_CHAIN:
        return load_chain(loading);
    case READ_CHECKPOINT:
        return load_checkpoint(loading);
    }
    HF_ASSERT(loading->request->kind == READ_USER); /* no such kind */
    return READ_FAILED;
}

void reader_load(struct reader *reader, const struct read_request *request,
                 const struct read_places *places, struct read_answer *answer)
{
    struct loading loading = {
        .reader = reader,
        .request = request,
        .places = places,
        .answer = answer,
        .volume = schema_volume_of(partition_of(request->user.value), reader->volume_count),
    };

    HF_ASSERT(request->bytes <= reader->bytes_max);
    loading.txn = reader->txns[loading.volume];
    HF_ASSERT(loading.txn != NULL);
    for (int attempt = 0; attempt < 2; attempt++) {
        if (volume_read_begin(loading.txn) != VOLUME_OK) {
            answer->damaged = false;
            answer->status = answer_of(reader, loading.volume, SCHEMA_BROKEN, "a snapshot");
            return;
        }
        answer->status = load_once(&loading);
        volume_read_end(loading.txn);
        /* What left the journal since we were asked is in a snapshot taken after that. */
        if (!loading.place_failed) {
            return;
        }
    }
    if (answer->entry_count == 0) {
        snprintf(reader->text, sizeof reader->text,
                 "an entry of user %" PRIu64 " from seq %" PRIu64 " on is neither in the journal, "
                 "where it should be, nor in volume %u",
                 request->user.value, request->from, loading.volume);
        answer->status = READ_FAILED;
        answer->damaged = true;
        (void)snprintf(answer->row, sizeof answer->row, "entry %" PRIu64 " is missing",
                       request->from);
    }
}

static bool keep_out(struct reader *reader, size_t count, const struct read_out *out)
{
    if (count == reader->out_room) {
        const size_t room = reader->out_room * 2 + 64;
        struct read_out *moved = realloc(reader->outs, room * sizeof *moved);

        if (moved == NULL) {
            return false;
        }
        reader->outs = moved;
        reader->out_room = room;
    }
    reader->outs[count] = *out;
    return true;
}

static enum read_status load_outs(struct reader *reader, uint16_t volume,
                                  struct partition_id partition, struct read_partition *answer)
{
    const struct schema_key first = schema_key_out(partition, (struct message_id){ 0 });
    struct volume_bytes found;
    struct volume_bytes row;
    enum volume_status status =
        volume_seek(reader->txns[volume], VOLUME_OUT, schema_key_bytes(&first), &found, &row);

    while (status == VOLUME_OK && found.byte_count == first.byte_count &&
           load_be16(found.bytes) == partition.value) {
        struct schema_out out;

        if (!schema_decode_out(found, row, &out)) {
            return answer_of(reader, volume, SCHEMA_DAMAGED, "a stream record");
        }
        const struct read_out one = {
            { load_be64(found.bytes + sizeof(uint16_t)) }, out.user, out.epoch, out.seq, out.to
        };
        if (!keep_out(reader, answer->out_count, &one)) {
            snprintf(reader->text, sizeof reader->text, "no memory for stream records");
            return READ_FAILED;
        }
        answer->out_count++;
        status = volume_next(reader->txns[volume], VOLUME_OUT, &found, &row);
    }
    answer->outs = reader->outs;
    return status == VOLUME_OK || status == VOLUME_ABSENT
               ? READ_FOUND
               : answer_of(reader, volume, schema_status_of(status), "stream records");
}

void reader_load_partition(struct reader *reader, struct partition_id partition,
                           struct read_partition *answer)
{
    const uint16_t volume = schema_volume_of(partition, reader->volume_count);
    const struct schema_key key = schema_key_last(partition);
    struct volume_txn *txn = reader->txns[volume];

    HF_ASSERT(txn != NULL);
    memset(answer, 0, sizeof *answer);
    if (volume_read_begin(txn) != VOLUME_OK) {
        answer->status = answer_of(reader, volume, SCHEMA_BROKEN, "a snapshot");
        return;
    }
    answer->status =
        answer_of(reader, volume, schema_get_number(txn, VOLUME_META, &key, &answer->last_id.value),
                  "a last id");
    if (answer->status != READ_FAILED) {
        answer->status = load_outs(reader, volume, partition, answer);
    }
    volume_read_end(txn);
}

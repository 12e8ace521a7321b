#include "store/flush.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/mutant.h"
#include "store/apply.h"
#include "store/journal_block.h"
#include "store/schema.h"

#define MEMORY_DEFAULT        ((size_t)64 << 20)
#define SLICE_RECORDS_DEFAULT 2000
#define SLICE_USERS_DEFAULT   32
/* A record becomes a row, and touches the rows of its user, conversation and device. */
#define OPERATIONS_A_RECORD 4
#define DROPS_DEFAULT       500

/* Sets flush_text(), and is the status. */
#define FAIL(flush, status, ...) (hf_error_set(&(flush)->error, EX_IOERR, 0, __VA_ARGS__), (status))

/* Where a record's bytes lie in the arena, and what it is sorted by. */
struct ref {
    uint64_t user;
    uint64_t offset;
    uint16_t volume;
    uint16_t partition;
};

struct user_ref {
    uint64_t user;
    uint16_t volume;
};

/* What the first reading found for a volume. */
struct volume_plan {
    uint64_t applied;
    uint64_t bytes;
    uint64_t records;
};

struct flush {
    struct flush_config config;
    struct journal_span *spans;
    uint32_t span_room;
    struct volume_plan plans[SCHEMA_VOLUMES_MAX];
    uint64_t *last_ids; /* by partition */
    bool scanned;       /* everything was read and checked once */

    /* The group of volumes being flushed: [group_from, group_upto). */
    uint16_t group_from;
    uint16_t group_upto;
    uint8_t *arena;
    size_t arena_bytes;
    size_t arena_room;
    struct ref *refs;
    size_t ref_count;
    size_t ref_room;
    struct user_ref *users;
    size_t user_count;
    size_t user_room;

    /* The next slice. */
    bool planned;
    uint16_t volume;
    size_t next_ref;

    struct apply apply;
    struct record *records;
    uint32_t records_max;
    struct flush_stats stats;
    struct hf_error error; /* its text is flush_text() */
};

static bool set_spans(struct flush *flush, const struct flush_config *config)
{
    if (config->span_count >= flush->span_room) {
        struct journal_span *spans = calloc(config->span_count + 1, sizeof *spans);

        if (spans == NULL) {
            return false;
        }
        free(flush->spans);
        flush->spans = spans;
        flush->span_room = config->span_count + 1;
    }
    memcpy(flush->spans, config->spans, config->span_count * sizeof *flush->spans);
    return true;
}

static void set_config(struct flush *flush, const struct flush_config *config)
{
    HF_ASSERT(config->volume_count > 0 && config->volume_count <= SCHEMA_VOLUMES_MAX);
    flush->config = *config;
    if (flush->config.memory_max == 0) {
        flush->config.memory_max = MEMORY_DEFAULT;
    }
    if (flush->config.slice_records == 0) {
        flush->config.slice_records = SLICE_RECORDS_DEFAULT;
    }
    if (flush->config.slice_users == 0) {
        flush->config.slice_users = SLICE_USERS_DEFAULT;
    }
    if (flush->config.drops_max == 0) {
        flush->config.drops_max = DROPS_DEFAULT;
    }
}

struct flush *flush_open(const struct flush_config *config, struct hf_error *error)
{
    struct flush *flush = calloc(1, sizeof *flush);
    bool ok = flush != NULL;

    if (ok) {
        set_config(flush, config);
        /* A slice ends with a user, or within one that has this many. */
        flush->records_max = flush->config.slice_records * 2;
        flush->last_ids = calloc(PARTITION_COUNT, sizeof *flush->last_ids);
        flush->records = calloc(flush->records_max, sizeof *flush->records);
        ok = flush->last_ids != NULL && flush->records != NULL && set_spans(flush, config) &&
             apply_open(&flush->apply, flush->records_max);
    }
    if (!ok) {
        hf_error_set(error, EX_OSERR, 0, "flush: no memory");
        flush_close(flush);
        return NULL;
    }
    return flush;
}

/* What was kept is gone; its memory stays, for what comes next. */
static void drop_plan(struct flush *flush)
{
    flush->arena_bytes = 0;
    flush->ref_count = 0;
    flush->user_count = 0;
}

bool flush_restart(struct flush *flush, const struct flush_config *config, struct hf_error *error)
{
    const uint32_t slice_records = flush->config.slice_records;

    if (!set_spans(flush, config)) {
        hf_error_set(error, EX_OSERR, 0, "flush: no memory");
        return false;
    }
    set_config(flush, config);
    HF_ASSERT(flush->config.slice_records == slice_records);
    drop_plan(flush);
    memset(flush->last_ids, 0, PARTITION_COUNT * sizeof *flush->last_ids);
    memset(&flush->stats, 0, sizeof flush->stats);
    flush->apply.entries_dropped = 0;
    flush->scanned = false;
    flush->planned = false;
    flush->group_from = flush->group_upto = 0;
    return true;
}

void flush_close(struct flush *flush)
{
    if (flush == NULL) {
        return;
    }
    free(flush->arena);
    free(flush->refs);
    free(flush->users);
    apply_close(&flush->apply);
    free(flush->records);
    free(flush->last_ids);
    free(flush->spans);
    free(flush);
}

const char *flush_text(const struct flush *flush)
{
    return flush->error.text;
}

void flush_get_stats(const struct flush *flush, struct flush_stats *stats)
{
    *stats = flush->stats;
    for (uint16_t v = 0; flush->scanned && v < flush->config.volume_count; v++) {
        stats->records_planned += flush->plans[v].records;
    }
    stats->entries_dropped = flush->apply.entries_dropped;
}

/* ---- The plan ---- */

static enum flush_status read_applied(struct flush *flush)
{
    for (uint16_t v = 0; v < flush->config.volume_count; v++) {
        struct volume *volume = flush->config.volumes[v];
        struct volume_txn *txn;
        enum schema_status status;

        if (volume == NULL) {
            continue;
        }
        status = schema_status_of(volume_write_begin(volume, 0, 0, &txn));
        if (status == SCHEMA_OK) {
            status = schema_get_applied(txn, &flush->plans[v].applied);
            volume_abort(txn);
        }
        if (status == SCHEMA_FULL) {
            return FAIL(flush, FLUSH_FULL, "volume %u: %s", v, volume_text(volume));
        }
        if (status != SCHEMA_OK) {
            return FAIL(flush, status == SCHEMA_DAMAGED ? FLUSH_DAMAGED : FLUSH_BROKEN,
                        "volume %u: `applied`: %s", v,
                        status == SCHEMA_DAMAGED ? "damaged" : volume_text(volume));
        }
    }
    return FLUSH_PLANNED;
}

static bool grow(void **memory, size_t *room, size_t needed, size_t unit)
{
    size_t larger = *room == 0 ? 4096 : *room;

    while (larger < needed) {
        larger *= 2;
    }
    if (larger == *room) {
        return true;
    }
    void *moved = realloc(*memory, larger * unit);
    if (moved == NULL) {
        return false;
    }
    *memory = moved;
    *room = larger;
    return true;
}

static bool keep_record(struct flush *flush, const struct record *record, uint16_t volume,
                        const uint8_t *bytes, size_t byte_count)
{
    void *arena = flush->arena;
    void *refs = flush->refs;
    const bool ok = grow(&arena, &flush->arena_room, flush->arena_bytes + byte_count, 1) &&
                    grow(&refs, &flush->ref_room, flush->ref_count + 1, sizeof flush->refs[0]);

    flush->arena = arena;
    flush->refs = refs;
    if (!ok) {
        return false;
    }
    memcpy(flush->arena + flush->arena_bytes, bytes, byte_count);
    flush->refs[flush->ref_count++] = (struct ref){
        .user = record_owner(record).value,
        .offset = flush->arena_bytes,
        .volume = volume,
        .partition = record->partition.value,
    };
    flush->arena_bytes += byte_count;
    return true;
}

static void note_last_id(struct flush *flush, const struct record *record)
{
    if (record->type != RECORD_ENTRY) {
        return;
    }
    /* Ids are made by the sender's partition; entries of a receiver's log carry another's. */
    const uint64_t id = record->entry.id.value;
    const uint64_t maker = id >> MESSAGE_COUNT_BITS & (PARTITION_COUNT - 1);

    if (maker == record->partition.value && id > flush->last_ids[maker]) {
        flush->last_ids[maker] = id;
    }
}

static size_t volume_memory(const struct volume_plan *plan)
{
    return (size_t)(plan->bytes + plan->records * sizeof(struct ref));
}

/*
 * Reads all records and keeps those of the group. The first time it also checks, and counts what
 * each volume will get; its group is all volumes, which is given up (group_upto = group_from) when
 * that needs too much memory.
 */
static enum flush_status read_records(struct flush *flush, bool first)
{
    struct journal_walk *walk = calloc(1, sizeof *walk);
    enum flush_status result = FLUSH_PLANNED;
    enum walk_status status = WALK_END;
    const uint8_t *bytes = NULL;
    size_t byte_count = 0;
    size_t memory = 0;

    if (walk == NULL || !journal_walk_open(walk, &flush->config.source, &flush->config.identity,
                                           flush->spans, flush->config.span_count,
                                           flush->config.from_lsn, flush->config.upto_lsn)) {
        free(walk);
        return FAIL(flush, FLUSH_FULL, "no memory to plan");
    }
    while (result == FLUSH_PLANNED &&
           (status = journal_walk_next(walk, &bytes, &byte_count)) == WALK_RECORD) {
        struct record record;
        size_t length;
        uint16_t v;

        if (record_parse(bytes, byte_count, &record, &length) != RECORD_OK) {
            result = FAIL(flush, FLUSH_DAMAGED, "a record of the batch at LSN %" PRIu64,
                          journal_walk_batch_lsn(walk));
            break;
        }
        v = schema_volume_of(record.partition, flush->config.volume_count);
        if (flush->config.volumes[v] == NULL) {
            result = FAIL(flush, FLUSH_DAMAGED,
                          "the batch at LSN %" PRIu64 " holds a record of volume %u, which "
                          "isn't of this journal",
                          journal_walk_batch_lsn(walk), v);
            break;
        }
        if (journal_walk_batch_lsn(walk) < flush->plans[v].applied) {
            continue;
        }
        if (first) {
            flush->plans[v].bytes += byte_count;
            flush->plans[v].records++;
            note_last_id(flush, &record);
            memory += byte_count + sizeof(struct ref);
            if (memory > flush->config.memory_max) {
                flush->group_upto = flush->group_from;
                drop_plan(flush);
            }
        }
        if (v >= flush->group_from && v < flush->group_upto &&
            !keep_record(flush, &record, v, bytes, byte_count)) {
            result = FAIL(flush, FLUSH_FULL, "no memory for the records of volume %u", v);
        }
    }
    if (result == FLUSH_PLANNED && status != WALK_END) {
        result = FAIL(flush, status == WALK_BROKEN ? FLUSH_BROKEN : FLUSH_DAMAGED,
                      "the batch at LSN %" PRIu64 "%s", journal_walk_batch_lsn(walk),
                      status == WALK_BROKEN ? " can't be read" : "");
    }
    journal_walk_close(walk);
    free(walk);
    return result;
}

static int compare_refs(const void *left, const void *right)
{
    const struct ref *a = left;
    const struct ref *b = right;

    if (a->volume != b->volume) {
        return a->volume < b->volume ? -1 : 1;
    }
    if (a->partition != b->partition) {
        return a->partition < b->partition ? -1 : 1;
    }
    if (a->user != b->user) {
        return a->user < b->user ? -1 : 1;
    }
    return a->offset < b->offset ? -1 : 1; /* the journal's order */
}

/* Sorts, and lists the users. */
static enum flush_status arrange(struct flush *flush)
{
    if (flush->ref_count > 1) {
        qsort(flush->refs, flush->ref_count, sizeof flush->refs[0], compare_refs);
    }
    size_t users = 0;
    for (size_t i = 0; i < flush->ref_count; i++) {
        users += i == 0 || flush->refs[i].user != flush->refs[i - 1].user;
    }
    void *list = flush->users;
    const bool ok = grow(&list, &flush->user_room, users, sizeof flush->users[0]);

    flush->users = list;
    if (!ok) {
        return FAIL(flush, FLUSH_FULL, "no memory to plan");
    }
    for (size_t i = 0; i < flush->ref_count; i++) {
        if (i == 0 || flush->refs[i].user != flush->refs[i - 1].user) {
            flush->users[flush->user_count++] =
                (struct user_ref){ flush->refs[i].user, flush->refs[i].volume };
        }
    }
    return FLUSH_PLANNED;
}

/* Plans the next group. The first is all volumes, if they fit. */
static enum flush_status plan(struct flush *flush)
{
    enum flush_status status = FLUSH_PLANNED;

    drop_plan(flush);
    if (!flush->scanned) {
        memset(flush->plans, 0, sizeof flush->plans);
        flush->group_from = 0;
        flush->group_upto = flush->config.volume_count;
        status = read_applied(flush);
        if (status == FLUSH_PLANNED) {
            status = read_records(flush, true);
        }
        if (status != FLUSH_PLANNED) {
            drop_plan(flush);
            return status;
        }
        flush->scanned = true;
    }
    if (flush->group_upto <= flush->group_from) {
        size_t memory = 0;

        flush->group_upto = flush->group_from;
        do {
            memory += volume_memory(&flush->plans[flush->group_upto]);
            flush->group_upto++;
        } while (flush->group_upto < flush->config.volume_count &&
                 memory + volume_memory(&flush->plans[flush->group_upto]) <=
                     flush->config.memory_max);
        status = read_records(flush, false);
        if (status != FLUSH_PLANNED) {
            flush->group_upto = flush->group_from;
            drop_plan(flush);
            return status;
        }
    }
    status = arrange(flush);
    if (status == FLUSH_PLANNED) {
        flush->planned = true;
        flush->volume = flush->group_from;
        flush->next_ref = 0;
    } else {
        flush->group_upto = flush->group_from;
    }
    return status;
}

/* ---- Slices ---- */

/* Where the slice that begins at next_ref ends: with a user, at the volume's end at the latest. */
static size_t slice_end(const struct flush *flush)
{
    size_t end = flush->next_ref;
    uint32_t users = 0;

    while (end < flush->ref_count && flush->refs[end].volume == flush->volume &&
           end - flush->next_ref < flush->records_max) {
        if (end == flush->next_ref || flush->refs[end].user != flush->refs[end - 1].user) {
            if (end - flush->next_ref >= flush->config.slice_records ||
                users == flush->config.slice_users) {
                break;
            }
            users++;
        }
        end++;
    }
    return end;
}

static size_t parse_user(struct flush *flush, size_t from, size_t upto, size_t *bytes)
{
    size_t end = from;

    while (end < upto && flush->refs[end].user == flush->refs[from].user) {
        size_t length = 0;
        const uint64_t offset = flush->refs[end].offset;
        const enum record_status status =
            record_parse(flush->arena + offset, flush->arena_bytes - offset,
                         &flush->records[end - from], &length);

        HF_ASSERT(status == RECORD_OK); /* it was, when it was planned */
        *bytes += length;
        end++;
    }
    return end;
}

/* An upper bound of what the slice will do, so that the disk's room is made sure of first. */
static void slice_size(const struct flush *flush, size_t upto, size_t *operations, size_t *bytes)
{
    bool floors = false;

    *operations = (upto - flush->next_ref) * OPERATIONS_A_RECORD + 64;
    *bytes = 0;
    for (size_t i = flush->next_ref; i < upto; i++) {
        const uint8_t *record = flush->arena + flush->refs[i].offset;

        *bytes += load_be24(record) + 64;
        if (record[3] == RECORD_FLOOR) {
            floors = true;
        }
        if (i == flush->next_ref || flush->refs[i].user != flush->refs[i - 1].user) {
            *bytes += (size_t)2 * SCHEMA_ROW_BYTES_MAX; /* a device, and the log's last row anew */
        }
    }
    if (floors) {
        *operations += flush->config.drops_max + APPLY_DROPS_REST;
    }
}

/* The volume's last transaction: the last ids of its partitions, and `applied`. */
static enum schema_status put_ends(struct flush *flush, struct volume_txn *txn)
{
    struct schema_key key;
    struct schema_row row;
    enum schema_status status = SCHEMA_OK;

    for (uint32_t p = flush->volume; status == SCHEMA_OK && p < PARTITION_COUNT;
         p += flush->config.volume_count) {
        uint64_t before = 0;

        if (flush->last_ids[p] == 0) {
            continue;
        }
        key = schema_key_last((struct partition_id){ (uint16_t)p });
        status = schema_get_number(txn, VOLUME_META, &key, &before);
        if ((status == SCHEMA_OK || status == SCHEMA_ABSENT) && flush->last_ids[p] > before &&
            !HF_MUTANT(LAST_ID_NOT_KEPT)) {
            schema_encode_number(&key, flush->last_ids[p], &row);
            status = schema_status_of(
                volume_put(txn, VOLUME_META, schema_key_bytes(&key), schema_row_bytes(&row)));
        } else if (status == SCHEMA_ABSENT) {
            status = SCHEMA_OK;
        }
    }
    if (status == SCHEMA_OK && flush->plans[flush->volume].applied < flush->config.upto_lsn) {
        key = schema_key_applied();
        schema_encode_number(&key,
                             flush->config.upto_lsn +
                                 (HF_MUTANT(APPLIED_ONE_BLOCK_TOO_FAR) ? JOURNAL_BLOCK_BYTES : 0),
                             &row);
        status = schema_status_of(
            volume_put(txn, VOLUME_META, schema_key_bytes(&key), schema_row_bytes(&row)));
    }
    return status;
}

static enum flush_status slice_failed(struct flush *flush, enum schema_status status)
{
    const struct volume *volume = flush->config.volumes[flush->volume];

    switch (status) {
    case SCHEMA_FULL:
        return FAIL(flush, FLUSH_FULL, "volume %u: %s", flush->volume, volume_text(volume));
    case SCHEMA_DAMAGED:
        return FAIL(flush, FLUSH_DAMAGED, "volume %u, user %" PRIu64 ": %s", flush->volume,
                    flush->next_ref < flush->ref_count ? flush->refs[flush->next_ref].user : 0,
                    flush->apply.text);
    case SCHEMA_OK:
    case SCHEMA_ABSENT:
    case SCHEMA_BROKEN:
        break;
    }
    return FAIL(flush, FLUSH_BROKEN, "volume-%03u.mdb: %s", flush->volume, volume_text(volume));
}

/*
 * One transaction: the records [next_ref, upto), and the volume's ends if they are its last. It ends
 * early with a user of whom more is to be dropped: the next one begins with that user again.
 */
static enum schema_status run_slice(struct flush *flush, size_t upto, bool last)
{
    struct volume *volume = flush->config.volumes[flush->volume];
    struct volume_txn *txn;
    size_t operations;
    size_t bytes;
    size_t from = flush->next_ref;
    size_t users = 0;
    enum schema_status status;
    const uint64_t dropped_before = flush->apply.entries_dropped;

    slice_size(flush, upto, &operations, &bytes);
    status = schema_status_of(volume_write_begin(volume, operations, bytes, &txn));
    if (status != SCHEMA_OK) {
        return status;
    }
    flush->apply.text = "a row of `meta`";
    flush->apply.drops_left = flush->config.drops_max;
    while (status == SCHEMA_OK && from < upto) {
        size_t user_bytes = 0;
        const size_t end = parse_user(flush, from, upto, &user_bytes);

        status = apply_user(&flush->apply, txn, flush->records, (uint32_t)(end - from));
        if (status == SCHEMA_DAMAGED) {
            flush->next_ref = from; /* whom the message names */
        }
        if (flush->apply.more) {
            upto = from;
            last = false;
            break;
        }
        from = end;
        users++;
    }
    if (status == SCHEMA_OK && last) {
        status = put_ends(flush, txn);
    }
    if (status != SCHEMA_OK) {
        volume_abort(txn);
        flush->apply.entries_dropped = dropped_before;
        return status;
    }
    status = schema_status_of(volume_commit(txn));
    if (status != SCHEMA_OK) {
        flush->apply.entries_dropped = dropped_before;
        return status;
    }
    flush->stats.records += upto - flush->next_ref;
    flush->stats.users += users;
    flush->stats.slices++;
    flush->next_ref = upto;
    return SCHEMA_OK;
}

/* On to the next volume of the group that is ours. */
static void skip_volumes(struct flush *flush)
{
    while (flush->volume < flush->group_upto && flush->config.volumes[flush->volume] == NULL) {
        flush->volume++;
    }
}

enum flush_status flush_step(struct flush *flush)
{
    enum schema_status status;

    if (!flush->planned) {
        if (flush->scanned && flush->group_from == flush->config.volume_count) {
            return FLUSH_DONE;
        }
        return plan(flush);
    }
    skip_volumes(flush);
    if (flush->volume < flush->group_upto) {
        const size_t upto = slice_end(flush);
        bool last = upto == flush->ref_count || flush->refs[upto].volume != flush->volume;

        status = run_slice(flush, upto, last);
        last = last && flush->next_ref == upto;

        const bool sync =
            last && !HF_MUTANT(FLUSH_WITHOUT_SYNC) &&
            !(HF_MUTANT(SYNC_ONLY_IF_NEW) && flush->plans[flush->volume].records == 0);

        if (status == SCHEMA_OK && sync) {
            /* Even where nothing was new: a commit of a run that died may not be on disk yet. */
            status = schema_status_of(volume_sync(flush->config.volumes[flush->volume]));
        }
        if (status != SCHEMA_OK) {
            return slice_failed(flush, status);
        }
        if (last) {
            flush->volume++;
            skip_volumes(flush);
        }
        if (flush->volume < flush->group_upto) {
            return FLUSH_SLICE;
        }
    }
    flush->planned = false;
    flush->group_from = flush->group_upto;
    return FLUSH_GROUP_END;
}

/* ---- Reading ahead ---- */

size_t flush_get_user_count(const struct flush *flush)
{
    return flush->user_count;
}

void flush_get_user(const struct flush *flush, size_t index, struct flush_user *user)
{
    HF_ASSERT(index < flush->user_count);
    *user = (struct flush_user){ { flush->users[index].user }, flush->users[index].volume };
}

/* The pages that a visit writes: the end of the log, and what comes behind it. */
void flush_touch(struct volume_txn *reader, const struct flush_user *user)
{
    const struct schema_key heads = schema_key_head(user->user, (struct conversation_id){ 0 });
    const struct schema_key facts = schema_key_facts(user->user);
    struct volume_bytes found;
    struct volume_bytes row;

    if (volume_read_begin(reader) != VOLUME_OK) {
        return; /* the flusher will meet it too, and say so */
    }
    (void)!volume_seek_before(reader, VOLUME_USER, schema_key_bytes(&heads), &found, &row);
    (void)!volume_seek(reader, VOLUME_USER, schema_key_bytes(&heads), &found, &row);
    (void)!volume_get(reader, VOLUME_USER, schema_key_bytes(&facts), &row);
    volume_read_end(reader);
}

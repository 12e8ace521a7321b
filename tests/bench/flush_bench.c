/*
 * How fast a flush is, beside a bare loop of LMDB puts of the same log rows in the same order.
 *
 *   flush_bench FOLDER USERS MESSAGES BODY_BYTES [RUNS]
 *
 * Users begin with 20 entries each; then messages between users at random are flushed: two entries
 * each. Both write slices of 2,000 records and sync at the end. Prints, one object a line:
 *   {"figure": "flush.records", "value": N, "unit": "records/s", "of": {"what": "bare LMDB puts",
 *    "value": N}, "ratio": N}
 * The folder's files are removed.
 */
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "store/flush.h"
#include "store/schema.h"
#include "store/volume_lmdb.h"

#define SEGMENT_BYTES (UINT32_C(16) << 20)
#define RING_BYTES    (UINT32_C(4) << 20)
#define START_ENTRIES 20
#define SLICE         2000
#define MAP_BYTES     (UINT64_C(64) << 30)

struct bench {
    const char *folder;
    uint64_t users;
    uint64_t messages;
    uint16_t body_bytes;
    uint64_t random;
    uint64_t *heads;    /* of each user */
    uint64_t *counters; /* of each user's device */
    uint8_t *segments;
    uint32_t segment_count;
    struct journal *journal;
    uint64_t ticket;
    struct volume *volume;
    MDB_env *env;
    MDB_dbi table;
};

/* A log row for the bare loop. */
struct row {
    struct schema_key key;
    uint32_t byte_count;
    size_t offset;
};

struct rows {
    struct row *rows;
    size_t count;
    uint8_t *bytes;
    size_t used;
    size_t room;
};

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t draw(struct bench *bench, uint64_t below)
{
    bench->random += UINT64_C(0x9e3779b97f4a7c15);
    return id_mix(bench->random) % below;
}

static bool read_segment(void *context, uint32_t segment, uint64_t offset, uint8_t *to,
                         size_t byte_count)
{
    const struct bench *bench = context;

    memcpy(to, bench->segments + (size_t)segment * SEGMENT_BYTES + offset, byte_count);
    return true;
}

/* Which ones are alike doesn't matter here, only that they aren't in order. */
static uint64_t user_id_of(uint64_t user)
{
    return id_mix(user + 1) >> 1;
}

static void open_journal(struct bench *bench, uint64_t start_lsn)
{
    const struct journal_config config = { { 1, 1, 0 },          start_lsn,  SEGMENT_BYTES,
                                           bench->segment_count, RING_BYTES, false };
    struct hf_error error;

    bench->journal = journal_open(&config, &error);
    HF_ASSERT(bench->journal != NULL);
    bench->ticket = 0;
}

static void write_journal(struct bench *bench)
{
    struct journal_write write;

    while (journal_next_write(bench->journal, &write)) {
        memcpy(bench->segments + (size_t)write.segment * SEGMENT_BYTES + write.offset, write.bytes,
               write.byte_count);
        journal_on_written(bench->journal, write.byte_count);
    }
}

static void append(struct bench *bench, struct record *record, struct rows *rows)
{
    static uint8_t bytes[RECORD_BYTES_MAX];
    static struct schema_log_writer log;
    size_t length;

    record->partition = partition_of(record_owner(record).value);
    length = record_encode(record, bytes, sizeof bytes);
    if (journal_room(bench->journal) < length || bench->ticket % 64 == 0) {
        write_journal(bench);
    }
    journal_append(bench->journal, ++bench->ticket, bytes, length);
    if (record->type == RECORD_ENTRY) {
        struct row *at = &rows->rows[rows->count++];

        schema_log_begin(&log, record->entry.user, record->entry.seq);
        const bool added = schema_log_add(&log, &record->entry);

        HF_ASSERT(added);
        schema_log_end(&log);
        at->key = log.key;
        at->byte_count = (uint32_t)log.row.byte_count;
        at->offset = rows->used;
        HF_ASSERT(rows->used + log.row.byte_count <= rows->room);
        memcpy(rows->bytes + rows->used, log.row.bytes, log.row.byte_count);
        rows->used += log.row.byte_count;
    }
}

static void append_entry(struct bench *bench, uint64_t user, uint64_t peer, bool own,
                         uint64_t message, struct rows *rows)
{
    static uint8_t body[RECORD_BODY_BYTES_MAX];
    const uint64_t seq = ++bench->heads[user];
    struct record record = {
        .type = RECORD_ENTRY,
        .entry = { .user = { user_id_of(user) },
                   .epoch = 1763000000,
                   .seq = seq,
                   .id = { message << (PARTITION_BITS + MESSAGE_COUNT_BITS) |
                           (uint64_t)partition_of(user_id_of(own ? user : peer)).value
                               << MESSAGE_COUNT_BITS },
                   .conversation = { user_id_of(peer) },
                   .sender = { user_id_of(own ? user : peer) },
                   .form = LOG_ENTRY_MESSAGE,
                   .kind = 1,
                   .prev = seq - 1,
                   .n = seq,
                   .cn = 0,
                   .origin = { 1763000000, seq },
                   .body = body,
                   .body_bytes = bench->body_bytes },
    };

    if (own) {
        record.entry.flags = LOG_ENTRY_FLAG_OWN;
        record.entry.device.value = 1;
        record.entry.counter = ++bench->counters[user];
        store_be64(record.entry.nonce, id_mix(message));
    }
    append(bench, &record, rows);
}

static void append_start(struct bench *bench, struct rows *rows)
{
    for (uint64_t user = 0; user < bench->users; user++) {
        struct record record = { .type = RECORD_USER,
                                 .user = { { user_id_of(user) }, 1763000000, 1 } };

        append(bench, &record, rows);
        record = (struct record){ .type = RECORD_DEVICE,
                                  .device = { { user_id_of(user) }, { 1 }, 1, 1 } };
        append(bench, &record, rows);
        for (int i = 0; i < START_ENTRIES; i++) {
            append_entry(bench, user, (user + 1) % bench->users, i % 2 == 0,
                         user * START_ENTRIES + (uint64_t)i + 1, rows);
        }
    }
    write_journal(bench);
}

static void append_messages(struct bench *bench, struct rows *rows)
{
    for (uint64_t m = 0; m < bench->messages; m++) {
        const uint64_t from = draw(bench, bench->users);
        const uint64_t to = (from + 1 + draw(bench, bench->users - 1)) % bench->users;
        const uint64_t message = bench->users * START_ENTRIES + bench->ticket + m + 1;

        append_entry(bench, from, to, true, message, rows);
        append_entry(bench, to, from, false, message, rows);
    }
    write_journal(bench);
}

/* Records a second. */
static double run_flush(struct bench *bench)
{
    struct journal_span *spans = calloc(bench->segment_count, sizeof *spans);
    struct journal_flush range;
    struct hf_error error;
    struct flush_config config = {
        .source = { bench, read_segment },
        .identity = { 1, 1, 0 },
        .spans = spans,
        .volumes = &bench->volume,
        .volume_count = 1,
        .memory_max = (size_t)1 << 30,
        .slice_records = SLICE,
    };
    struct flush_stats stats;
    enum flush_status status = FLUSH_SLICE;
    const double begin = seconds();

    HF_ASSERT(spans != NULL && journal_flush_begin(bench->journal, &range));
    config.from_lsn = range.from_lsn;
    config.upto_lsn = range.upto_lsn;
    config.span_count = journal_get_spans(bench->journal, range.from_lsn, range.upto_lsn, spans,
                                          bench->segment_count);
    struct flush *flush = flush_open(&config, &error);
    HF_ASSERT(flush != NULL);
    while (status < FLUSH_DONE) {
        status = flush_step(flush);
    }
    if (status != FLUSH_DONE) {
        fprintf(stderr, "flush_bench: %s\n", flush_text(flush));
        exit(EX_SOFTWARE);
    }
    flush_get_stats(flush, &stats);
    flush_close(flush);
    journal_flush_end(bench->journal);
    free(spans);
    return (double)stats.records / (seconds() - begin);
}

static int compare_rows(const void *left, const void *right)
{
    const struct row *a = left;
    const struct row *b = right;

    return memcmp(a->key.bytes, b->key.bytes, a->key.byte_count);
}

/* The same log rows, sorted, and nothing else. */
static double run_bare(struct bench *bench, struct rows *rows)
{
    const double begin = seconds();
    int code = 0;

    qsort(rows->rows, rows->count, sizeof rows->rows[0], compare_rows);
    for (size_t from = 0; from < rows->count; from += SLICE) {
        MDB_txn *txn;
        MDB_cursor *cursor;

        code |= mdb_txn_begin(bench->env, NULL, 0, &txn);
        code |= mdb_cursor_open(txn, bench->table, &cursor);
        for (size_t i = from; i < from + SLICE && i < rows->count; i++) {
            MDB_val key = { rows->rows[i].key.byte_count, rows->rows[i].key.bytes };
            MDB_val value = { rows->rows[i].byte_count, rows->bytes + rows->rows[i].offset };

            code |= mdb_cursor_put(cursor, &key, &value, 0);
        }
        code |= mdb_txn_commit(txn);
    }
    code |= mdb_env_sync(bench->env, 1);
    HF_ASSERT(code == 0);
    return (double)rows->count / (seconds() - begin);
}

static void open_files(struct bench *bench)
{
    const struct volume_options options = { .map_bytes = MAP_BYTES, .create = true };
    struct hf_error error;
    char path[512];
    MDB_txn *txn;
    int code = 0;

    snprintf(path, sizeof path, "%s/flush-bench.mdb", bench->folder);
    bench->volume = volume_open(path, &options, &error);
    if (bench->volume == NULL) {
        fprintf(stderr, "flush_bench: %s\n", error.text);
        exit(EX_CANTCREAT);
    }
    snprintf(path, sizeof path, "%s/flush-bare.mdb", bench->folder);
    code |= mdb_env_create(&bench->env);
    code |= mdb_env_set_mapsize(bench->env, MAP_BYTES);
    code |= mdb_env_set_maxdbs(bench->env, 1);
    code |= mdb_env_open(bench->env, path,
                         MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMETASYNC, 0600);
    code |= mdb_txn_begin(bench->env, NULL, 0, &txn);
    code |= mdb_dbi_open(txn, "log", MDB_CREATE, &bench->table);
    code |= mdb_txn_commit(txn);
    HF_ASSERT(code == 0);
}

static void close_files(struct bench *bench)
{
    static const char *const names[] = { "flush-bench.mdb", "flush-bench.mdb-lock",
                                         "flush-bare.mdb", "flush-bare.mdb-lock" };

    volume_close(bench->volume);
    mdb_env_close(bench->env);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[512];

        snprintf(path, sizeof path, "%s/%s", bench->folder, names[i]);
        unlink(path);
    }
}

static void rows_init(struct rows *rows, size_t count, uint16_t body_bytes)
{
    rows->count = 0;
    rows->used = 0;
    rows->room = count * (body_bytes + 128U);
    rows->rows = malloc(count * sizeof rows->rows[0]);
    rows->bytes = malloc(rows->room);
    HF_ASSERT(rows->rows != NULL && rows->bytes != NULL);
}

static uint64_t number(const char *text, uint64_t max)
{
    char *end;
    const unsigned long long value = strtoull(text, &end, 10);

    if (*end != '\0' || value == 0 || value > max) {
        fprintf(stderr, "usage: flush_bench FOLDER USERS MESSAGES BODY_BYTES [RUNS]\n");
        exit(EX_USAGE);
    }
    return value;
}

int main(int argc, char **argv)
{
    struct bench bench = { .random = 1 };
    uint64_t runs = 1;
    struct rows rows;

    if (argc < 5 || argc > 6) {
        number("", 1);
    }
    bench.folder = argv[1];
    bench.users = number(argv[2], UINT32_MAX);
    bench.messages = number(argv[3], UINT32_MAX);
    bench.body_bytes = (uint16_t)number(argv[4], SCHEMA_BODY_INLINE_MAX);
    if (argc == 6) {
        runs = number(argv[5], 1000);
    }
    const size_t entries_max = bench.users * START_ENTRIES > bench.messages * 2
                                   ? bench.users * START_ENTRIES
                                   : bench.messages * 2;
    bench.segment_count =
        (uint32_t)((entries_max * (bench.body_bytes + 160U)) / SEGMENT_BYTES) * 2 + 4;
    bench.heads = calloc(bench.users, sizeof bench.heads[0]);
    bench.counters = calloc(bench.users, sizeof bench.counters[0]);
    bench.segments = malloc((size_t)bench.segment_count * SEGMENT_BYTES);
    HF_ASSERT(bench.heads != NULL && bench.counters != NULL && bench.segments != NULL);
    rows_init(&rows, entries_max, bench.body_bytes);
    open_files(&bench);
    open_journal(&bench, JOURNAL_BLOCK_BYTES);
    append_start(&bench, &rows);
    run_flush(&bench);
    run_bare(&bench, &rows);
    for (uint64_t run = 0; run < runs; run++) {
        rows.count = 0;
        rows.used = 0;
        append_messages(&bench, &rows);
        const double flush = run_flush(&bench);
        const double bare = run_bare(&bench, &rows);
        printf("{\"figure\": \"flush.records\", \"value\": %.0f, \"unit\": \"records/s\", "
               "\"of\": {\"what\": \"bare LMDB puts\", \"value\": %.0f}, \"ratio\": %.3f}\n",
               flush, bare, flush / bare);
        fflush(stdout);
    }
    close_files(&bench);
    journal_close(bench.journal);
    free(rows.rows);
    free(rows.bytes);
    free(bench.segments);
    free(bench.counters);
    free(bench.heads);
    return 0;
}

#include "store/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/mutant.h"
#include "store/flush.h"
#include "store/journal_block.h"

#define SCAN_BLOCKS 64 /* read at once */

/* Sets the message, and is the status. */
#define REFUSE(error, ...) (hf_error_set((error), EX_DATAERR, 0, __VA_ARGS__), RECOVER_REFUSED)

/* What the scan keeps of a block. */
struct scanned {
    uint64_t lsn; /* 0: no sound block of this run */
    uint64_t batch_lsn;
    uint32_t batch_blocks;
    bool batch_whole; /* in a batch's first block: all of it is here, sound and in order */
};

struct scan {
    const struct recover_journal *journal;
    uint32_t blocks_a_segment;
    struct scanned *blocks; /* segment by segment */
    uint32_t *order;        /* segments that begin with a batch of this run, by LSN */
    uint32_t order_count;
};

static struct scanned *scan_block(const struct scan *scan, uint32_t segment, uint32_t block)
{
    return &scan->blocks[(size_t)segment * scan->blocks_a_segment + block];
}

/* ---- Reading all blocks ---- */

/* A batch as it is being read, block after block of one segment. */
struct reading {
    uint32_t first; /* its first block */
    uint32_t next;  /* the block that would continue it; 0: none is being read */
    uint32_t crc;
    uint32_t crc_wanted;
};

static void follow_batch(struct scan *scan, uint32_t segment, uint32_t at, const uint8_t *bytes,
                         const struct journal_block *block, struct reading *reading)
{
    const struct scanned *first;

    if (block->lsn == block->batch_lsn) {
        *reading = (struct reading){ at, at + 1, 0, block->batch_crc };
        if (HF_MUTANT(TORN_BATCH_TAKEN)) {
            scan_block(scan, segment, at)->batch_whole = true;
        }
    } else if (reading->next == at &&
               scan_block(scan, segment, reading->first)->batch_lsn == block->batch_lsn &&
               block->lsn - block->batch_lsn ==
                   (uint64_t)(at - reading->first) * JOURNAL_BLOCK_BYTES) {
        reading->next = at + 1;
    } else {
        reading->next = 0;
        return;
    }
    reading->crc = crc32c(reading->crc, bytes + JOURNAL_HEADER_BYTES, block->payload_bytes);
    first = scan_block(scan, segment, reading->first);
    if (at + 1 - reading->first == first->batch_blocks) {
        scan_block(scan, segment, reading->first)->batch_whole =
            reading->crc == reading->crc_wanted;
        reading->next = 0;
    }
}

static enum recover_status scan_one(struct scan *scan, uint32_t segment, uint32_t at,
                                    const uint8_t *bytes, struct reading *reading,
                                    struct hf_error *error)
{
    const struct journal_identity *identity = &scan->journal->identity;
    struct scanned *scanned = scan_block(scan, segment, at);
    struct journal_block block;

    switch (journal_block_check(bytes, identity->directory_id, identity->core, &block)) {
    case JOURNAL_BLOCK_OK:
        break;
    case JOURNAL_BLOCK_NEWER:
        return REFUSE(error, "segment %u, block %u was written by a newer version", segment, at);
    case JOURNAL_BLOCK_FOREIGN:
        return REFUSE(error, "segment %u, block %u is of another data directory, or another core",
                      segment, at);
    case JOURNAL_BLOCK_NONE:
    case JOURNAL_BLOCK_TORN:
        reading->next = 0;
        return RECOVER_MORE;
    }
    if (block.incarnation > identity->incarnation) {
        return REFUSE(error,
                      "segment %u, block %u is of start %" PRIu64 ", but the manifest knows only "
                      "%" PRIu64 " starts: it is an old copy",
                      segment, at, block.incarnation, identity->incarnation);
    }
    if (block.incarnation < identity->incarnation && !HF_MUTANT(STALE_TAIL_ACCEPTED)) {
        reading->next = 0;
        return RECOVER_MORE;
    }
    if (block.segment != segment && block.incarnation == identity->incarnation) {
        return REFUSE(
            error,
            "segment %u is damaged: its block %u was written to segment %u, whose file was "
            "put in its place",
            segment, at, block.segment);
    }
    *scanned = (struct scanned){ block.lsn, block.batch_lsn, block.batch_blocks, false };
    follow_batch(scan, segment, at, bytes, &block, reading);
    return RECOVER_MORE;
}

static enum recover_status scan_segment(struct scan *scan, uint32_t segment, uint8_t *buffer,
                                        struct hf_error *error)
{
    struct reading reading = { 0 };
    uint32_t at = 0;

    while (at < scan->blocks_a_segment) {
        uint32_t count = scan->blocks_a_segment - at;

        if (count > SCAN_BLOCKS) {
            count = SCAN_BLOCKS;
        }
        errno = 0;
        if (!scan->journal->source.read(scan->journal->source.context, segment,
                                        (uint64_t)at * JOURNAL_BLOCK_BYTES, buffer,
                                        (size_t)count * JOURNAL_BLOCK_BYTES)) {
            hf_error_set(error, EX_IOERR, errno, "segment %u can't be read", segment);
            return RECOVER_REFUSED;
        }
        for (uint32_t i = 0; i < count; i++) {
            const enum recover_status status = scan_one(
                scan, segment, at + i, buffer + (size_t)i * JOURNAL_BLOCK_BYTES, &reading, error);

            if (status != RECOVER_MORE) {
                return status;
            }
        }
        at += count;
    }
    return RECOVER_MORE;
}

/* ---- Deciding ---- */

static uint64_t segment_first_lsn(const struct scan *scan, uint32_t segment)
{
    return scan_block(scan, segment, 0)->lsn;
}

/* Segments whose first block begins a batch of this run, in the order of their LSNs. */
static void order_segments(struct scan *scan)
{
    scan->order_count = 0;
    for (uint32_t s = 0; s < scan->journal->segment_count; s++) {
        const struct scanned *first = scan_block(scan, s, 0);
        uint32_t at = scan->order_count;

        if (first->lsn == 0 || first->lsn != first->batch_lsn ||
            first->lsn < scan->journal->start_lsn) {
            continue;
        }
        while (at > 0 && segment_first_lsn(scan, scan->order[at - 1]) > first->lsn) {
            scan->order[at] = scan->order[at - 1];
            at--;
        }
        scan->order[at] = s;
        scan->order_count++;
    }
}

/* The end of the whole batches at the segment's beginning. Behind the newest one's lies what the
 * segment held in a former life: sound blocks, but not in their place. */
static uint64_t segment_end_lsn(const struct scan *scan, uint32_t segment, bool newest)
{
    const uint64_t first_lsn = segment_first_lsn(scan, segment);
    uint32_t at = 0;

    (void)newest;
    while (at < scan->blocks_a_segment) {
        const struct scanned *block = scan_block(scan, segment, at);

        bool in_place = block->lsn == first_lsn + (uint64_t)at * JOURNAL_BLOCK_BYTES;

        if (HF_MUTANT(STALE_TAIL_ACCEPTED)) {
            in_place |= newest && block->lsn != 0;
        }
        if (!in_place || block->batch_lsn != block->lsn || !block->batch_whole) {
            break;
        }
        at += block->batch_blocks;
    }
    return first_lsn + (uint64_t)at * JOURNAL_BLOCK_BYTES;
}

/* A sound block of a batch after the one that should begin at end_lsn: then that one isn't torn. */
static bool find_later(const struct scan *scan, uint64_t end_lsn, uint32_t *segment,
                       uint32_t *block)
{
    for (uint32_t s = 0; s < scan->journal->segment_count; s++) {
        for (uint32_t b = 0; b < scan->blocks_a_segment; b++) {
            const struct scanned *scanned = scan_block(scan, s, b);

            if (scanned->lsn != 0 && scanned->batch_lsn > end_lsn) {
                *segment = s;
                *block = b;
                return true;
            }
        }
    }
    return false;
}

static bool find_torn(const struct scan *scan, uint64_t end_lsn)
{
    for (size_t i = 0; i < (size_t)scan->journal->segment_count * scan->blocks_a_segment; i++) {
        if (scan->blocks[i].lsn != 0 && scan->blocks[i].batch_lsn == end_lsn) {
            return true;
        }
    }
    return false;
}

/*
 * Walks the segments from the one that holds needed_from to the newest: each must end where the
 * next begins. What lies before is applied already, and of no interest.
 */
static enum recover_status walk_run(struct scan *scan, struct recover_run *run,
                                    struct hf_error *error)
{
    const struct recover_journal *journal = scan->journal;
    uint32_t begin = 0;

    run->end_lsn = journal->start_lsn;
    run->span_count = 0;
    while (begin + 1 < scan->order_count &&
           segment_first_lsn(scan, scan->order[begin + 1]) <= journal->needed_from) {
        begin++;
    }
    for (uint32_t i = begin; i < scan->order_count; i++) {
        const uint32_t segment = scan->order[i];
        const uint64_t first_lsn = segment_first_lsn(scan, segment);
        const uint64_t end_lsn = segment_end_lsn(scan, segment, i + 1 == scan->order_count);

        if (i == begin && first_lsn > journal->needed_from) {
            return REFUSE(error,
                          "the journal begins at LSN %" PRIu64 ", but LSN %" PRIu64 " isn't "
                          "applied yet: a segment is missing or damaged",
                          first_lsn, journal->needed_from);
        }
        if (i > begin && first_lsn != run->end_lsn) {
            const uint32_t before = scan->order[i - 1];
            return REFUSE(error,
                          "segment %u ends at LSN %" PRIu64 " (block %" PRIu64 "), but the next "
                          "one, %u, begins at LSN %" PRIu64 ": a batch between is damaged, or a "
                          "segment is missing",
                          before, run->end_lsn,
                          (run->end_lsn - segment_first_lsn(scan, before)) / JOURNAL_BLOCK_BYTES,
                          segment, first_lsn);
        }
        run->end_lsn = end_lsn;
        if (end_lsn > first_lsn) {
            run->spans[run->span_count++] = (struct journal_span){ first_lsn, end_lsn, segment };
        }
    }
    return RECOVER_MORE;
}

/* A mark says what was durable: an end before that isn't one that a crash has left. */
static bool check_mark(const struct scan *scan, uint64_t end_lsn, struct hf_error *error)
{
    const struct mark *mark = scan->journal->mark;

    if (mark == NULL) {
        return true;
    }
    if (end_lsn < mark->durable_lsn) {
        hf_error_set(error, EX_DATAERR, 0,
                     "the journal ends at LSN %" PRIu64 ", but it was durable up to LSN %" PRIu64
                     ": segment %u or the one before it is missing, damaged or an old copy",
                     end_lsn, mark->durable_lsn, mark->newest_segment);
        return false;
    }
    if (scan->order_count > 0) {
        const uint32_t newest = scan->order[scan->order_count - 1];

        if (segment_first_lsn(scan, newest) > mark->newest_lsn) {
            hf_error_set(error, EX_DATAERR, 0,
                         "its marks are damaged or an old copy: they don't know segment %u, which "
                         "begins at LSN %" PRIu64,
                         newest, segment_first_lsn(scan, newest));
            return false;
        }
    }
    return true;
}

static enum recover_status decide(struct scan *scan, struct recover_run *run,
                                  struct hf_error *error)
{
    const struct recover_journal *journal = scan->journal;
    uint32_t segment;
    uint32_t block;

    order_segments(scan);

    const enum recover_status status = walk_run(scan, run, error);

    if (status != RECOVER_MORE) {
        return status;
    }
    if (!HF_MUTANT(DAMAGE_TAKEN_FOR_TAIL) && find_later(scan, run->end_lsn, &segment, &block)) {
        return REFUSE(error,
                      "the batch at LSN %" PRIu64 " is damaged: segment %u, block %u holds a later "
                      "one (LSN %" PRIu64 ")",
                      run->end_lsn, segment, block, scan_block(scan, segment, block)->batch_lsn);
    }
    if (run->end_lsn < journal->needed_upto) {
        return REFUSE(error,
                      "the journal ends at LSN %" PRIu64 ", but a volume has applied it up to LSN "
                      "%" PRIu64 ": a segment is missing or damaged",
                      run->end_lsn, journal->needed_upto);
    }
    if (!check_mark(scan, run->end_lsn, error)) {
        return RECOVER_REFUSED;
    }
    run->torn = find_torn(scan, run->end_lsn);
    return RECOVER_DONE;
}

enum recover_status recover_scan(const struct recover_journal *journal, struct recover_run *run,
                                 struct hf_error *error)
{
    struct scan scan = {
        .journal = journal,
        .blocks_a_segment = journal->segment_bytes / JOURNAL_BLOCK_BYTES,
    };
    uint8_t *buffer = aligned_alloc(JOURNAL_BLOCK_BYTES, (size_t)SCAN_BLOCKS * JOURNAL_BLOCK_BYTES);
    enum recover_status status = RECOVER_MORE;

    scan.blocks =
        calloc((size_t)journal->segment_count * scan.blocks_a_segment + 1, sizeof *scan.blocks);
    scan.order = calloc(journal->segment_count + 1U, sizeof *scan.order);
    if (buffer == NULL || scan.blocks == NULL || scan.order == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory to scan");
        status = RECOVER_REFUSED;
    }
    for (uint32_t s = 0; status == RECOVER_MORE && s < journal->segment_count; s++) {
        status = scan_segment(&scan, s, buffer, error);
    }
    if (status == RECOVER_MORE) {
        status = decide(&scan, run, error);
    }
    free(scan.order);
    free(scan.blocks);
    free(buffer);
    return status;
}

/* ---- All of it ---- */

struct recover {
    struct recover_config config;
    uint64_t applied[SCHEMA_VOLUMES_MAX];
    struct volume *mine[SCHEMA_VOLUMES_MAX]; /* of the journal being applied */
    struct journal_span *spans;
    struct recover_run run;
    uint16_t core; /* the journal being scanned or applied */
    struct flush *flush;
    uint64_t highest_lsn;
    struct recover_stats stats;
};

static bool read_applied(struct recover *recover, struct hf_error *error)
{
    const struct recover_config *config = &recover->config;

    for (uint16_t v = 0; v < config->volume_count; v++) {
        const uint64_t *applied = &recover->applied[v];

        if (!recover_read_applied(config->volumes[v], &recover->applied[v], error)) {
            hf_error_prepend(error, "volume %u", v);
            return false;
        }
        if (config->applied_min != NULL && *applied < config->applied_min[v]) {
            hf_error_set(error, EX_DATAERR, 0,
                         "volume %u: it is an old copy: it has applied the journals up to LSN "
                         "%" PRIu64 ", but had up to LSN %" PRIu64 " at the last start",
                         v, *applied, config->applied_min[v]);
            return false;
        }
        if (*applied > recover->highest_lsn && !HF_MUTANT(START_BELOW_APPLIED)) {
            recover->highest_lsn = *applied;
        }
    }
    return true;
}

struct recover *recover_open(const struct recover_config *config, struct hf_error *error)
{
    struct recover *recover = calloc(1, sizeof *recover);

    HF_ASSERT(config->volume_count > 0 && config->volume_count <= SCHEMA_VOLUMES_MAX);
    if (recover != NULL) {
        recover->config = *config;
        recover->spans = calloc(config->segment_count + 1U, sizeof *recover->spans);
    }
    if (recover == NULL || recover->spans == NULL) {
        hf_error_set(error, EX_OSERR, 0, "recovery: no memory");
        recover_close(recover);
        return NULL;
    }
    recover->run.spans = recover->spans;
    recover->highest_lsn = config->start_lsn;
    if (!read_applied(recover, error)) {
        hf_error_prepend(error, "recovery");
        recover_close(recover);
        return NULL;
    }
    return recover;
}

void recover_close(struct recover *recover)
{
    if (recover == NULL) {
        return;
    }
    flush_close(recover->flush);
    free(recover->spans);
    free(recover);
}

uint64_t recover_block_id(const uint8_t directory_id[SCHEMA_DIRECTORY_ID_BYTES])
{
    return id_mix(load_be64(directory_id)) ^ load_be64(directory_id + 8);
}

static enum recover_status scan_with_mark(struct recover *recover, struct recover_journal *journal,
                                          struct hf_error *error)
{
    enum recover_status status = RECOVER_REFUSED;
    uint8_t *scratch;
    struct mark mark;

    if (!recover->config.marks) {
        return recover_scan(journal, &recover->run, error);
    }
    scratch = aligned_alloc(JOURNAL_BLOCK_BYTES, MARK_FILE_BYTES);
    if (scratch == NULL) {
        hf_error_set(error, EX_OSERR, 0, "no memory for marks");
    } else if (mark_load(&journal->source, journal->segment_count, &journal->identity, scratch,
                         &mark, error)) {
        journal->mark = &mark;
        status = recover_scan(journal, &recover->run, error);
        journal->mark = NULL;
    }
    free(scratch);
    return status;
}

/* Scans the next journal, and begins to apply it. */
static enum recover_status begin_journal(struct recover *recover, struct hf_error *error)
{
    const struct recover_config *config = &recover->config;
    struct recover_journal journal = {
        .source = config->sources[recover->core],
        .identity = { recover_block_id(config->directory_id), config->incarnation, recover->core },
        .segment_bytes = config->segment_bytes,
        .segment_count = config->segment_count,
        .start_lsn = config->start_lsn,
        .needed_from = UINT64_MAX,
    };
    enum recover_status status;

    memset(recover->mine, 0, sizeof recover->mine);
    for (uint16_t v = 0; v < config->volume_count; v++) {
        const uint64_t applied = recover->applied[v];
        const uint64_t from = applied > config->start_lsn ? applied : config->start_lsn;
        uint16_t core = config->core_of_volume[v];

        if (HF_MUTANT(RECOVER_IGNORES_MAP)) {
            core = (uint16_t)(v % config->core_count);
        }
        if (core != recover->core) {
            continue;
        }
        recover->mine[v] = config->volumes[v];
        if (from < journal.needed_from) {
            journal.needed_from = from;
        }
        if (applied > journal.needed_upto) {
            journal.needed_upto = applied;
        }
    }
    if (journal.needed_from == UINT64_MAX) {
        journal.needed_from = config->start_lsn; /* a core without volumes */
    }
    status = scan_with_mark(recover, &journal, error);
    if (status != RECOVER_DONE) {
        return status;
    }
    recover->stats.torn_batches += recover->run.torn;
    if (recover->run.end_lsn > journal.needed_from) {
        recover->stats.bytes += recover->run.end_lsn - journal.needed_from;
    }

    const struct flush_config flush_config = {
        .source = journal.source,
        .identity = journal.identity,
        .spans = recover->spans,
        .span_count = recover->run.span_count,
        .from_lsn = journal.needed_from,
        .upto_lsn = recover->run.end_lsn,
        .volumes = recover->mine,
        .volume_count = config->volume_count,
        .memory_max = config->memory_max,
        .slice_records = config->slice_records,
        .slice_users = UINT32_MAX, /* the fewer commits, the sooner clients are served */
    };

    recover->flush = flush_open(&flush_config, error);
    return recover->flush != NULL ? RECOVER_MORE : RECOVER_REFUSED;
}

static enum recover_status end_journal(struct recover *recover)
{
    struct flush_stats stats;

    flush_get_stats(recover->flush, &stats);
    recover->stats.records += stats.records;
    flush_close(recover->flush);
    recover->flush = NULL;
    /* Blocks of a torn batch lie above its end: the next journal begins above them too. */
    const uint64_t above = recover->run.end_lsn + recover->config.segment_bytes;

    if (above > recover->highest_lsn || HF_MUTANT(START_BELOW_APPLIED)) {
        recover->highest_lsn = above;
    }
    recover->core++;
    return recover->core == recover->config.core_count ? RECOVER_DONE : RECOVER_MORE;
}

static enum recover_status apply_slice(struct recover *recover, struct hf_error *error)
{
    const enum flush_status status = flush_step(recover->flush);

    switch (status) {
    case FLUSH_PLANNED:
    case FLUSH_SLICE:
    case FLUSH_GROUP_END:
        return RECOVER_MORE;
    case FLUSH_DONE:
        return end_journal(recover);
    case FLUSH_FULL:
        hf_error_set(error, EX_CANTCREAT, 0, "%s", flush_text(recover->flush));
        return RECOVER_FULL;
    case FLUSH_DAMAGED:
    case FLUSH_BROKEN:
        break;
    }
    hf_error_set(error, status == FLUSH_DAMAGED ? EX_DATAERR : EX_IOERR, 0, "%s%s",
                 status == FLUSH_DAMAGED ? "damaged: " : "", flush_text(recover->flush));
    return RECOVER_REFUSED;
}

enum recover_status recover_step(struct recover *recover, struct hf_error *error)
{
    enum recover_status status;

    if (recover->core == recover->config.core_count) {
        return RECOVER_DONE;
    }
    const uint16_t core = recover->core;

    status = recover->flush == NULL ? begin_journal(recover, error) : apply_slice(recover, error);
    if (status == RECOVER_REFUSED || status == RECOVER_FULL) {
        hf_error_prepend(error, "recovery: journal of core %u", core);
    }
    return status;
}

uint64_t recover_next_lsn(const struct recover *recover)
{
    const uint64_t above = recover->highest_lsn + JOURNAL_BLOCK_BYTES;
    return above - above % JOURNAL_BLOCK_BYTES;
}

void recover_get_stats(const struct recover *recover, struct recover_stats *stats)
{
    const uint32_t cores = recover->config.core_count;
    struct flush_stats now = { 0 };
    uint64_t share = 0;

    if (recover->flush != NULL) {
        flush_get_stats(recover->flush, &now);
    }
    if (now.records_planned != 0) {
        share = now.records * 1000 / now.records_planned;
    }
    *stats = recover->stats;
    stats->records += now.records;
    stats->permille =
        cores == 0 ? 1000 : (uint32_t)((recover->core * UINT64_C(1000) + share) / cores);
}

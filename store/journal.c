#include "store/journal.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/mutant.h"
#include "store/journal_block.h"
#include "store/mark.h"

#define RING_BYTES_MIN    (64 * 1024)
#define SEGMENT_BYTES_MIN (16 * 1024)
#define SEGMENT_COUNT_MIN 3
#define SEGMENT_NONE      UINT32_MAX

enum segment_state {
    SEGMENT_SPARE,
    SEGMENT_OPEN,
    SEGMENT_SEALED,
};

struct segment {
    uint64_t first_lsn;
    uint64_t end_lsn; /* of the last batch given to it, durable or not */
    enum segment_state state;
};

/* Blocks of one batch: [lsn, lsn + blocks), all in the ring. */
struct batch {
    uint64_t lsn;
    uint32_t blocks; /* 0: none */
    uint32_t crc;    /* of the payload so far */
    uint64_t ticket; /* the last in it */
};

struct journal {
    struct journal_config config;
    uint8_t *ring;
    struct segment *segments;
    uint32_t open_segment;

    struct batch gathering;
    uint32_t gathering_fill; /* payload bytes in its last block */
    uint64_t last_ticket;

    struct batch flight;
    uint64_t flight_done_bytes;   /* durable already */
    uint64_t flight_issued_bytes; /* being written; 0: nothing of it is */

    uint8_t *mark_block; /* NULL: no marks */
    struct mark marked;  /* the newest that is durable */
    struct mark marking; /* in flight, if mark_issued */
    uint32_t mark_turn;  /* which block the next one goes to */
    bool mark_wanted;
    bool mark_issued;

    uint64_t durable_lsn;
    uint64_t durable_ticket;

    struct journal_flush flush; /* upto_lsn 0: none under way */
    uint64_t flushed_lsn;
};

static bool config_in_range(const struct journal_config *config)
{
    return config->start_lsn > 0 && config->start_lsn % JOURNAL_BLOCK_BYTES == 0 &&
           config->ring_bytes >= RING_BYTES_MIN &&
           (config->ring_bytes & (config->ring_bytes - 1)) == 0 &&
           config->segment_bytes % JOURNAL_BLOCK_BYTES == 0 &&
           config->segment_bytes >= SEGMENT_BYTES_MIN &&
           config->segment_count >= SEGMENT_COUNT_MIN && config->segment_count <= UINT16_MAX;
}

struct journal *journal_open(const struct journal_config *config, struct hf_error *error)
{
    if (!config_in_range(config)) {
        hf_error_set(error, EX_CONFIG, 0,
                     "journal: segments of %u bytes (%u of them) and %u bytes of memory: a segment "
                     "is a multiple of 4096 and 16384 or more, there are 3 or more, and the memory "
                     "is a power of two, 65536 or more",
                     config->segment_bytes, config->segment_count, config->ring_bytes);
        return NULL;
    }
    struct journal *journal = calloc(1, sizeof *journal);
    if (journal != NULL) {
        journal->segments = calloc(config->segment_count, sizeof *journal->segments);
        journal->ring = aligned_alloc(JOURNAL_BLOCK_BYTES, config->ring_bytes);
        journal->mark_block =
            config->marks ? aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_BYTES) : NULL;
    }
    if (journal == NULL || journal->segments == NULL || journal->ring == NULL ||
        (config->marks && journal->mark_block == NULL)) {
        hf_error_set(error, EX_OSERR, 0, "journal: no memory for %u bytes", config->ring_bytes);
        journal_close(journal);
        return NULL;
    }
    memset(journal->ring, 0, config->ring_bytes); /* touched now, not by the first messages */
    journal->config = *config;
    journal->open_segment = SEGMENT_NONE;
    journal->gathering.lsn = config->start_lsn;
    journal->flight.lsn = config->start_lsn;
    journal->durable_lsn = config->start_lsn;
    journal->flushed_lsn = config->start_lsn;
    /* As the start has written it. */
    journal->marked = (struct mark){ config->start_lsn, config->start_lsn, 0 };
    return journal;
}

void journal_close(struct journal *journal)
{
    if (journal == NULL) {
        return;
    }
    free(journal->segments);
    free(journal->ring);
    free(journal->mark_block);
    free(journal);
}

static uint8_t *ring_block(const struct journal *journal, uint64_t lsn)
{
    return journal->ring + ((lsn - journal->config.start_lsn) & (journal->config.ring_bytes - 1));
}

static uint64_t batch_bytes(const struct batch *batch)
{
    return (uint64_t)batch->blocks * JOURNAL_BLOCK_BYTES;
}

/* A spare segment, the one longest unused first, so that old records can be read for longer. */
static uint32_t find_spare(const struct journal *journal)
{
    const uint32_t count = journal->config.segment_count;
    const uint32_t after = journal->open_segment == SEGMENT_NONE ? 0 : journal->open_segment + 1;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t candidate = (after + i) % count;
        if (journal->segments[candidate].state == SEGMENT_SPARE) {
            return candidate;
        }
    }
    return SEGMENT_NONE;
}

static uint64_t open_segment_room(const struct journal *journal)
{
    if (journal->open_segment == SEGMENT_NONE) {
        return 0;
    }
    const struct segment *open = &journal->segments[journal->open_segment];
    return journal->config.segment_bytes - (open->end_lsn - open->first_lsn);
}

/* Half of the ring gathers while the other half may be in flight. */
static uint64_t batch_bytes_max(const struct journal *journal)
{
    uint64_t room = journal->config.ring_bytes / 2;

    if (room > journal->config.segment_bytes) {
        room = journal->config.segment_bytes;
    }
    if (find_spare(journal) == SEGMENT_NONE && room > open_segment_room(journal)) {
        room = open_segment_room(journal);
    }
    return room;
}

static size_t gathered_payload(const struct journal *journal)
{
    if (journal->gathering.blocks == 0) {
        return 0;
    }
    return (size_t)(journal->gathering.blocks - 1) * JOURNAL_PAYLOAD_BYTES +
           journal->gathering_fill;
}

size_t journal_room(const struct journal *journal)
{
    const size_t whole =
        (size_t)(batch_bytes_max(journal) / JOURNAL_BLOCK_BYTES) * JOURNAL_PAYLOAD_BYTES;
    const size_t gathered = gathered_payload(journal);

    return whole > gathered ? whole - gathered : 0;
}

uint64_t journal_pos_after(uint64_t pos, size_t byte_count)
{
    const uint64_t at = pos % JOURNAL_BLOCK_BYTES;
    const uint64_t payload = at - JOURNAL_HEADER_BYTES + byte_count;

    HF_ASSERT(at >= JOURNAL_HEADER_BYTES);
    return pos - at + payload / JOURNAL_PAYLOAD_BYTES * JOURNAL_BLOCK_BYTES + JOURNAL_HEADER_BYTES +
           payload % JOURNAL_PAYLOAD_BYTES;
}

uint64_t journal_append(struct journal *journal, uint64_t ticket, const uint8_t *records,
                        size_t byte_count)
{
    struct batch *batch = &journal->gathering;
    uint64_t first_pos = 0;

    HF_ASSERT(ticket == journal->last_ticket + 1);
    HF_ASSERT(byte_count > 0 && byte_count <= journal_room(journal));

    journal->last_ticket = ticket;
    batch->ticket = ticket;
    batch->crc = crc32c(batch->crc, records, byte_count);
    while (byte_count > 0) {
        if (batch->blocks == 0 || journal->gathering_fill == JOURNAL_PAYLOAD_BYTES) {
            batch->blocks++;
            journal->gathering_fill = 0;
        }
        const uint64_t lsn = batch->lsn + batch_bytes(batch) - JOURNAL_BLOCK_BYTES;
        const uint32_t at = JOURNAL_HEADER_BYTES + journal->gathering_fill;
        size_t piece = JOURNAL_PAYLOAD_BYTES - journal->gathering_fill;

        if (piece > byte_count) {
            piece = byte_count;
        }
        if (first_pos == 0) {
            first_pos = lsn + at;
        }
        memcpy(ring_block(journal, lsn) + at, records, piece);
        journal->gathering_fill += (uint32_t)piece;
        records += piece;
        byte_count -= piece;
    }
    return first_pos;
}

/* The segment that takes the batch: the open one, or the next if it doesn't fit. */
static void assign_segment(struct journal *journal, const struct batch *batch)
{
    if (journal->open_segment == SEGMENT_NONE || open_segment_room(journal) < batch_bytes(batch)) {
        const uint32_t spare = find_spare(journal);

        HF_ASSERT(spare != SEGMENT_NONE); /* journal_room() promised it */
        if (journal->open_segment != SEGMENT_NONE) {
            journal->segments[journal->open_segment].state = SEGMENT_SEALED;
        }
        journal->segments[spare] = (struct segment){ batch->lsn, batch->lsn, SEGMENT_OPEN };
        journal->open_segment = spare;
    }
    struct segment *open = &journal->segments[journal->open_segment];
    HF_ASSERT(open->end_lsn == batch->lsn);
    open->end_lsn += batch_bytes(batch);
}

static void seal_batch(struct journal *journal)
{
    const struct batch *batch = &journal->gathering;

    for (uint32_t i = 0; i < batch->blocks; i++) {
        const bool last = i + 1 == batch->blocks;
        const struct journal_block block = {
            .lsn = batch->lsn + (uint64_t)i * JOURNAL_BLOCK_BYTES,
            .batch_lsn = batch->lsn,
            .batch_blocks = batch->blocks,
            .batch_crc = batch->crc,
            .segment = (uint16_t)journal->open_segment,
            .payload_bytes =
                (uint16_t)(last ? journal->gathering_fill : (uint32_t)JOURNAL_PAYLOAD_BYTES),
        };
        uint8_t *bytes = ring_block(journal, block.lsn);

        memset(bytes + JOURNAL_HEADER_BYTES + block.payload_bytes, 0,
               (size_t)JOURNAL_PAYLOAD_BYTES - block.payload_bytes);
        journal_block_seal(bytes, &journal->config.identity, &block);
    }
}

static void issue_mark(struct journal *journal, struct journal_write *write)
{
    const uint32_t open = journal->open_segment;

    HF_ASSERT(open != SEGMENT_NONE); /* something is, or is about to be, in it */
    journal->marking =
        (struct mark){ journal->durable_lsn, journal->segments[open].first_lsn, open };
    mark_seal(journal->mark_block, &journal->config.identity, &journal->marking);
    journal->mark_wanted = false;
    journal->mark_issued = true;
    *write = (struct journal_write){
        .segment = journal->config.segment_count,
        .offset = (uint64_t)(journal->mark_turn % 2) * JOURNAL_BLOCK_BYTES,
        .bytes = journal->mark_block,
        .byte_count = JOURNAL_BLOCK_BYTES,
    };
}

/* Whether a mark must come before the rest of what is in flight, or before the next batch. */
static bool mark_is_due(const struct journal *journal)
{
    if (journal->mark_block == NULL) {
        return false;
    }
    if (journal->flight.blocks == 0) {
        return journal->mark_wanted;
    }
    return journal->segments[journal->open_segment].first_lsn > journal->marked.newest_lsn;
}

static void take_batch(struct journal *journal)
{
    assign_segment(journal, &journal->gathering);
    seal_batch(journal);
    journal->flight = journal->gathering;
    journal->flight_done_bytes = 0;
    journal->gathering = (struct batch){
        .lsn = journal->flight.lsn + batch_bytes(&journal->flight),
        .ticket = journal->flight.ticket,
    };
    journal->gathering_fill = 0;
}

bool journal_next_write(struct journal *journal, struct journal_write *write)
{
    if (journal->flight_issued_bytes > 0 || journal->mark_issued) {
        return false;
    }
    if (journal->flight.blocks == 0 && !mark_is_due(journal)) {
        if (journal->gathering.blocks == 0) {
            return false;
        }
        take_batch(journal);
    }
    if (mark_is_due(journal)) {
        issue_mark(journal, write);
        return true;
    }

    const uint64_t lsn = journal->flight.lsn + journal->flight_done_bytes;
    const uint8_t *bytes = ring_block(journal, lsn);
    const uint64_t to_ring_end = (uint64_t)(journal->ring + journal->config.ring_bytes - bytes);
    uint64_t byte_count = batch_bytes(&journal->flight) - journal->flight_done_bytes;

    if (byte_count > to_ring_end) {
        byte_count = to_ring_end;
    }
    journal->flight_issued_bytes = byte_count;
    *write = (struct journal_write){
        .segment = journal->open_segment,
        .offset = lsn - journal->segments[journal->open_segment].first_lsn,
        .bytes = bytes,
        .byte_count = byte_count,
    };
    return true;
}

void journal_on_written(struct journal *journal, size_t byte_count)
{
    if (journal->mark_issued) {
        HF_ASSERT(byte_count <= JOURNAL_BLOCK_BYTES);
        journal->mark_issued = false;
        if (byte_count < JOURNAL_BLOCK_BYTES) {
            journal->mark_wanted = true; /* again, whole */
        } else {
            journal->marked = journal->marking;
            journal->mark_turn++;
        }
        return;
    }
    HF_ASSERT(journal->flight_issued_bytes > 0);
    HF_ASSERT(byte_count <= journal->flight_issued_bytes);

    /* A block that is only partly durable is written again, whole. */
    journal->flight_done_bytes += byte_count - byte_count % JOURNAL_BLOCK_BYTES;
    journal->flight_issued_bytes = 0;
    if (journal->flight_done_bytes == batch_bytes(&journal->flight)) {
        journal->durable_lsn = journal->flight.lsn + batch_bytes(&journal->flight);
        journal->durable_ticket = journal->flight.ticket;
        journal->flight.blocks = 0;
    }
}

uint64_t journal_durable_ticket(const struct journal *journal)
{
    return journal->durable_ticket;
}

uint64_t journal_durable_lsn(const struct journal *journal)
{
    return journal->durable_lsn;
}

uint64_t journal_end_lsn(const struct journal *journal)
{
    return journal->gathering.lsn + batch_bytes(&journal->gathering);
}

bool journal_idle(const struct journal *journal)
{
    return journal->gathering.blocks == 0 && journal->flight.blocks == 0 && !journal->mark_issued;
}

bool journal_is_marked(const struct journal *journal)
{
    return journal->mark_block == NULL ||
           (journal->marked.durable_lsn == journal->durable_lsn && !journal->mark_issued);
}

void journal_want_mark(struct journal *journal)
{
    journal->mark_wanted =
        journal->mark_block != NULL && journal->marked.durable_lsn != journal->durable_lsn;
}

bool journal_flush_begin(struct journal *journal, struct journal_flush *flush)
{
    const uint64_t end_lsn = journal_end_lsn(journal);

    if (journal->gathering.blocks > 0 || journal->flush.upto_lsn != 0 ||
        end_lsn == journal->flushed_lsn) {
        return false;
    }
    journal->flush = (struct journal_flush){
        .from_lsn = journal->flushed_lsn,
        .upto_lsn = end_lsn,
        .upto_ticket = journal->last_ticket,
    };
    *flush = journal->flush;
    return true;
}

bool journal_flush_ready(const struct journal *journal)
{
    return journal->flush.upto_lsn != 0 && journal->durable_lsn >= journal->flush.upto_lsn;
}

void journal_flush_end(struct journal *journal)
{
    HF_ASSERT(journal_flush_ready(journal));

    journal->flushed_lsn = journal->flush.upto_lsn;
    journal->flush.upto_lsn = 0;
    for (uint32_t i = 0; i < journal->config.segment_count; i++) {
        struct segment *segment = &journal->segments[i];

        if (segment->state == SEGMENT_SEALED &&
            (segment->end_lsn <= journal->flushed_lsn ||
             (HF_MUTANT(TRIM_HALF_FLUSHED) && segment->first_lsn < journal->flushed_lsn))) {
            *segment = (struct segment){ 0, 0, SEGMENT_SPARE };
        }
    }
}

uint32_t journal_get_spans(const struct journal *journal, uint64_t from_lsn, uint64_t upto_lsn,
                           struct journal_span *spans, uint32_t span_count_max)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < journal->config.segment_count; i++) {
        const struct segment *segment = &journal->segments[i];

        if (segment->state == SEGMENT_SPARE || segment->end_lsn <= from_lsn ||
            segment->first_lsn >= upto_lsn) {
            continue;
        }
        HF_ASSERT(count < span_count_max);
        uint32_t at = count;
        while (at > 0 && spans[at - 1].first_lsn > segment->first_lsn) {
            spans[at] = spans[at - 1];
            at--;
        }
        spans[at] = (struct journal_span){ segment->first_lsn, segment->end_lsn, i };
        count++;
    }
    return count;
}

uint32_t journal_used_permille(const struct journal *journal)
{
    const uint64_t segment_bytes = journal->config.segment_bytes;
    uint64_t used = batch_bytes(&journal->gathering);

    for (uint32_t i = 0; i < journal->config.segment_count; i++) {
        const struct segment *segment = &journal->segments[i];

        if (segment->state == SEGMENT_SEALED) {
            used += segment_bytes; /* what its last batch left free is lost until it is spare */
        } else if (segment->state == SEGMENT_OPEN) {
            used += segment->end_lsn - segment->first_lsn;
        }
    }
    HF_ASSERT(segment_bytes != 0 && journal->config.segment_count != 0);
    return (uint32_t)(used * 1000 / (segment_bytes * journal->config.segment_count));
}

uint64_t journal_unflushed_bytes(const struct journal *journal)
{
    const uint64_t begun =
        journal->flush.upto_lsn != 0 ? journal->flush.upto_lsn : journal->flushed_lsn;
    return journal_end_lsn(journal) - begun;
}

static void ring_copy(const struct journal *journal, uint64_t pos, uint8_t *to, size_t byte_count)
{
    while (byte_count > 0) {
        const uint64_t at = pos % JOURNAL_BLOCK_BYTES;
        size_t piece = JOURNAL_BLOCK_BYTES - at;

        if (piece > byte_count) {
            piece = byte_count;
        }
        memcpy(to, ring_block(journal, pos - at) + at, piece);
        pos = journal_pos_after(pos, piece);
        to += piece;
        byte_count -= piece;
    }
}

size_t journal_read_recent(const struct journal *journal, uint64_t pos, uint8_t *to, size_t room)
{
    const uint64_t end_lsn = journal_end_lsn(journal);
    const uint64_t lsn = pos - pos % JOURNAL_BLOCK_BYTES;
    uint8_t header[RECORD_HEADER_BYTES];

    if (lsn < journal->config.start_lsn || lsn >= end_lsn ||
        end_lsn - lsn > journal->config.ring_bytes) {
        return 0;
    }
    HF_ASSERT(pos % JOURNAL_BLOCK_BYTES >= JOURNAL_HEADER_BYTES);
    ring_copy(journal, pos, header, sizeof header);

    const size_t length = load_be24(header);

    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX || length > room) {
        return 0;
    }
    ring_copy(journal, pos, to, length);
    return length;
}

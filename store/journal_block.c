#include "store/journal_block.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/mutant.h"

enum {
    OFFSET_MAGIC = 0,
    OFFSET_CRC = 4,
    OFFSET_DIRECTORY = 8,
    OFFSET_INCARNATION = 16,
    OFFSET_LSN = 24,
    OFFSET_BATCH_LSN = 32,
    OFFSET_BATCH_BLOCKS = 40,
    OFFSET_BATCH_CRC = 44,
    OFFSET_CORE = 48,
    OFFSET_PAYLOAD_BYTES = 50,
    OFFSET_SEGMENT = 52,
    OFFSET_ZERO = 54,
    OFFSET_PAYLOAD = 56,
};
_Static_assert(OFFSET_PAYLOAD == JOURNAL_HEADER_BYTES, "the header's end");

#define WALK_BUFFER_BLOCKS 64

void journal_block_seal(uint8_t *bytes, const struct journal_identity *identity,
                        const struct journal_block *block)
{
    HF_ASSERT(block->lsn % JOURNAL_BLOCK_BYTES == 0 && block->batch_lsn <= block->lsn);
    HF_ASSERT(block->payload_bytes <= JOURNAL_PAYLOAD_BYTES);

    store_be32(bytes + OFFSET_MAGIC, BLOCK_MAGIC);
    store_be64(bytes + OFFSET_DIRECTORY, identity->directory_id);
    store_be64(bytes + OFFSET_INCARNATION, identity->incarnation);
    store_be64(bytes + OFFSET_LSN, block->lsn);
    store_be64(bytes + OFFSET_BATCH_LSN, block->batch_lsn);
    store_be32(bytes + OFFSET_BATCH_BLOCKS, block->batch_blocks);
    store_be32(bytes + OFFSET_BATCH_CRC, block->batch_crc);
    store_be16(bytes + OFFSET_CORE, identity->core);
    store_be16(bytes + OFFSET_PAYLOAD_BYTES, block->payload_bytes);
    store_be16(bytes + OFFSET_SEGMENT, block->segment);
    store_be16(bytes + OFFSET_ZERO, 0);
    store_be32(bytes + OFFSET_CRC,
               crc32c(0, bytes + OFFSET_DIRECTORY, JOURNAL_BLOCK_BYTES - OFFSET_DIRECTORY));
}

enum journal_block_status journal_block_check(const uint8_t *bytes, uint64_t directory_id,
                                              uint16_t core, struct journal_block *block)
{
    const uint32_t magic = load_be32(bytes + OFFSET_MAGIC);

    if (magic == 0 && load_be32(bytes + OFFSET_CRC) == 0) {
        return JOURNAL_BLOCK_NONE;
    }
    /* The checksum stands where it stands in every version, so that a newer block can be told from
     * a torn one. */
    if ((magic ^ BLOCK_MAGIC) > 0xff ||
        load_be32(bytes + OFFSET_CRC) !=
            crc32c(0, bytes + OFFSET_DIRECTORY, JOURNAL_BLOCK_BYTES - OFFSET_DIRECTORY)) {
        return JOURNAL_BLOCK_TORN;
    }
    if (load_be64(bytes + OFFSET_DIRECTORY) != directory_id ||
        load_be16(bytes + OFFSET_CORE) != core) {
        return JOURNAL_BLOCK_FOREIGN;
    }
    if (magic != BLOCK_MAGIC) {
        return JOURNAL_BLOCK_NEWER;
    }
    *block = (struct journal_block){
        .incarnation = load_be64(bytes + OFFSET_INCARNATION),
        .lsn = load_be64(bytes + OFFSET_LSN),
        .batch_lsn = load_be64(bytes + OFFSET_BATCH_LSN),
        .batch_blocks = load_be32(bytes + OFFSET_BATCH_BLOCKS),
        .batch_crc = load_be32(bytes + OFFSET_BATCH_CRC),
        .segment = load_be16(bytes + OFFSET_SEGMENT),
        .payload_bytes = load_be16(bytes + OFFSET_PAYLOAD_BYTES),
    };

    const uint64_t back = block->lsn - block->batch_lsn;

    if (block->lsn % JOURNAL_BLOCK_BYTES != 0 || block->batch_lsn % JOURNAL_BLOCK_BYTES != 0 ||
        block->lsn == 0 || block->batch_lsn > block->lsn ||
        back / JOURNAL_BLOCK_BYTES >= block->batch_blocks || block->payload_bytes == 0 ||
        block->payload_bytes > JOURNAL_PAYLOAD_BYTES) {
        return JOURNAL_BLOCK_TORN;
    }
    return JOURNAL_BLOCK_OK;
}

bool journal_locate(const struct journal_span *spans, uint32_t span_count, uint64_t pos,
                    uint32_t *segment, uint64_t *offset)
{
    const uint64_t lsn = pos - pos % JOURNAL_BLOCK_BYTES;

    for (uint32_t i = 0; i < span_count; i++) {
        if (lsn >= spans[i].first_lsn && lsn < spans[i].end_lsn) {
            *segment = spans[i].segment;
            *offset = lsn - spans[i].first_lsn;
            return true;
        }
    }
    return false;
}

/* Appends what the block holds of the record; false if it isn't the block that belongs there. */
static bool fetch_block(const uint8_t *bytes, const struct journal_identity *identity, uint64_t lsn,
                        uint32_t at, uint64_t *batch_lsn, uint8_t *to, size_t room, size_t *filled)
{
    struct journal_block block;

    if (journal_block_check(bytes, identity->directory_id, identity->core, &block) !=
            JOURNAL_BLOCK_OK ||
        block.incarnation != identity->incarnation ||
        (block.lsn != lsn && !HF_MUTANT(JOURNAL_READ_UNCHECKED))) {
        return false;
    }
    if (*batch_lsn == 0) {
        *batch_lsn = block.batch_lsn;
    }
    const uint32_t end = JOURNAL_HEADER_BYTES + block.payload_bytes;
    if (block.batch_lsn != *batch_lsn || at >= end) {
        return false;
    }
    size_t piece = end - at;
    if (piece > room - *filled) {
        piece = room - *filled;
    }
    memcpy(to + *filled, bytes + at, piece);
    *filled += piece;
    return true;
}

bool journal_fetch(const struct journal_source *source, const struct journal_identity *identity,
                   const struct journal_span *spans, uint32_t span_count, uint64_t pos,
                   uint8_t *scratch, uint8_t *to, size_t room, size_t *record_bytes)
{
    uint64_t batch_lsn = 0;
    uint32_t at = (uint32_t)(pos % JOURNAL_BLOCK_BYTES);
    uint64_t lsn = pos - at;
    size_t filled = 0;
    size_t wanted = RECORD_HEADER_BYTES;

    if (at < JOURNAL_HEADER_BYTES || room < RECORD_HEADER_BYTES) {
        return false;
    }
    /* Mostly one block holds the record, or two: so two are read, then what it still lacks. */
    for (uint32_t blocks = 2; filled < wanted; blocks = 6) {
        uint32_t segment;
        uint64_t offset;

        if (!journal_locate(spans, span_count, lsn, &segment, &offset)) {
            return false;
        }
        /* A batch never crosses a segment, but the span may end: its second block may be none of
         * ours, and is only looked at if the record goes on. */
        if (!source->read(source->context, segment, offset, scratch,
                          (size_t)blocks * JOURNAL_BLOCK_BYTES)) {
            return false;
        }
        for (uint32_t i = 0; i < blocks && filled < wanted; i++) {
            if (!fetch_block(scratch + (size_t)i * JOURNAL_BLOCK_BYTES, identity, lsn, at,
                             &batch_lsn, to, room, &filled)) {
                return false;
            }
            lsn += JOURNAL_BLOCK_BYTES;
            at = JOURNAL_HEADER_BYTES;
            if (filled >= RECORD_HEADER_BYTES) {
                wanted = load_be24(to);
            }
            if (wanted > room || wanted < RECORD_HEADER_BYTES) {
                return false;
            }
        }
    }

    struct record record;

    return record_parse(to, filled, &record, record_bytes) == RECORD_OK;
}

bool journal_walk_open(struct journal_walk *walk, const struct journal_source *source,
                       const struct journal_identity *identity, const struct journal_span *spans,
                       uint32_t span_count, uint64_t from_lsn, uint64_t upto_lsn)
{
    memset(walk, 0, sizeof *walk);
    walk->source = *source;
    walk->identity = *identity;
    walk->spans = spans;
    walk->span_count = span_count;
    walk->lsn = from_lsn;
    walk->batch_lsn = from_lsn;
    walk->upto_lsn = upto_lsn;
    walk->buffer =
        aligned_alloc(JOURNAL_BLOCK_BYTES, (size_t)WALK_BUFFER_BLOCKS * JOURNAL_BLOCK_BYTES);
    return walk->buffer != NULL;
}

void journal_walk_close(struct journal_walk *walk)
{
    free(walk->buffer);
    walk->buffer = NULL;
}

uint64_t journal_walk_batch_lsn(const struct journal_walk *walk)
{
    return walk->batch_lsn;
}

/* The block at walk->lsn, in the buffer. NULL: *status says why. */
static const uint8_t *walk_block(struct journal_walk *walk, enum walk_status *status)
{
    if (walk->buffer_blocks == 0 || walk->lsn < walk->buffer_lsn ||
        walk->lsn - walk->buffer_lsn >= (uint64_t)walk->buffer_blocks * JOURNAL_BLOCK_BYTES) {
        uint32_t segment;
        uint64_t offset;
        uint64_t end_lsn = walk->upto_lsn;

        if (!journal_locate(walk->spans, walk->span_count, walk->lsn, &segment, &offset)) {
            *status = WALK_DAMAGED;
            return NULL;
        }
        for (uint32_t i = 0; i < walk->span_count; i++) {
            if (walk->spans[i].segment == segment && walk->spans[i].end_lsn < end_lsn) {
                end_lsn = walk->spans[i].end_lsn;
            }
        }
        const uint64_t blocks = (end_lsn - walk->lsn) / JOURNAL_BLOCK_BYTES;

        walk->buffer_blocks = blocks < WALK_BUFFER_BLOCKS ? (uint32_t)blocks : WALK_BUFFER_BLOCKS;
        walk->buffer_lsn = walk->lsn;
        if (!walk->source.read(walk->source.context, segment, offset, walk->buffer,
                               (size_t)walk->buffer_blocks * JOURNAL_BLOCK_BYTES)) {
            walk->buffer_blocks = 0;
            *status = WALK_BROKEN;
            return NULL;
        }
    }
    return walk->buffer + (walk->lsn - walk->buffer_lsn);
}

/* Goes on to the next block, which becomes walk->block. */
static enum walk_status walk_next_block(struct journal_walk *walk)
{
    struct journal_block block;
    enum walk_status status = WALK_DAMAGED;
    const bool batch_begins =
        walk->block == NULL ||
        walk->lsn == walk->batch_lsn + (uint64_t)walk->batch_blocks * JOURNAL_BLOCK_BYTES;

    if (batch_begins && walk->block != NULL && walk->batch_crc != walk->batch_crc_wanted) {
        return WALK_DAMAGED;
    }
    if (walk->lsn >= walk->upto_lsn) {
        return batch_begins ? WALK_END : WALK_DAMAGED;
    }
    walk->block = walk_block(walk, &status);
    if (walk->block == NULL) {
        return status;
    }
    if (journal_block_check(walk->block, walk->identity.directory_id, walk->identity.core,
                            &block) != JOURNAL_BLOCK_OK ||
        !journal_block_is_at(&block, &walk->identity, walk->lsn)) {
        return WALK_DAMAGED;
    }
    if (batch_begins) {
        walk->batch_lsn = walk->lsn;
        walk->batch_blocks = block.batch_blocks;
        walk->batch_crc = 0;
        walk->batch_crc_wanted = block.batch_crc;
    }
    if (block.lsn - block.batch_lsn != walk->lsn - walk->batch_lsn) {
        return WALK_DAMAGED;
    }
    walk->at = JOURNAL_HEADER_BYTES;
    walk->end = JOURNAL_HEADER_BYTES + block.payload_bytes;
    walk->batch_crc =
        crc32c(walk->batch_crc, walk->block + JOURNAL_HEADER_BYTES, block.payload_bytes);
    walk->lsn += JOURNAL_BLOCK_BYTES;
    return WALK_RECORD;
}

/* Copies the next bytes of the batch's payload. A record never runs on into the next batch. */
static enum walk_status walk_copy(struct journal_walk *walk, uint8_t *to, size_t byte_count)
{
    while (byte_count > 0) {
        if (walk->at == walk->end) {
            const uint64_t batch_lsn = walk->batch_lsn;
            const enum walk_status status = walk_next_block(walk);

            if (status != WALK_RECORD) {
                return status == WALK_END ? WALK_DAMAGED : status;
            }
            if (walk->batch_lsn != batch_lsn) {
                return WALK_DAMAGED;
            }
        }
        size_t piece = walk->end - walk->at;
        if (piece > byte_count) {
            piece = byte_count;
        }
        memcpy(to, walk->block + walk->at, piece);
        to += piece;
        byte_count -= piece;
        walk->at += (uint32_t)piece;
    }
    return WALK_RECORD;
}

enum walk_status journal_walk_next(struct journal_walk *walk, const uint8_t **bytes,
                                   size_t *byte_count)
{
    enum walk_status status;

    if (walk->block == NULL || walk->at == walk->end) {
        status = walk_next_block(walk);
        if (status != WALK_RECORD) {
            return status;
        }
    }
    if (walk->end - walk->at >= RECORD_HEADER_BYTES) {
        const size_t length = load_be24(walk->block + walk->at);

        if (length >= RECORD_HEADER_BYTES && length <= walk->end - walk->at) {
            *bytes = walk->block + walk->at;
            *byte_count = length;
            walk->at += (uint32_t)length;
            return WALK_RECORD;
        }
    }
    status = walk_copy(walk, walk->record, RECORD_HEADER_BYTES);
    if (status != WALK_RECORD) {
        return status;
    }
    const size_t length = load_be24(walk->record);
    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX) {
        return WALK_DAMAGED;
    }
    status = walk_copy(walk, walk->record + RECORD_HEADER_BYTES, length - RECORD_HEADER_BYTES);
    *bytes = walk->record;
    *byte_count = length;
    return status;
}

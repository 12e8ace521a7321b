/*
 * Recovery's scan of a journal that has been written to at random either refuses it or accepts a
 * run of batches of which every one can be read, record by record; and never one that wasn't
 * written.
 *
 * The input is a list of edits, 4 bytes each: block, what, where, which byte. Some of them seal the
 * block again, so that the edit is behind a right checksum.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "store/journal_block.h"
#include "store/recover.h"
#include "tests/fuzz/fuzz.h"

#define SEGMENT_BYTES ((size_t)16384)
#define SEGMENT_COUNT 3
#define BLOCKS        (SEGMENT_BYTES / JOURNAL_BLOCK_BYTES * SEGMENT_COUNT)
#define START_LSN     4096
#define BATCHES_MAX   64
#define EDIT_BYTES    4

static const struct journal_identity identity = { 5, 2, 1 };
static uint8_t original[SEGMENT_BYTES * SEGMENT_COUNT];
static uint8_t image[SEGMENT_BYTES * SEGMENT_COUNT];
static uint64_t ends[BATCHES_MAX]; /* of its batches */
static uint32_t end_count;

static bool read_image(void *context, uint32_t segment, uint64_t offset, uint8_t *to,
                       size_t byte_count)
{
    (void)context;
    HF_ASSERT(segment < SEGMENT_COUNT && offset + byte_count <= SEGMENT_BYTES);
    memcpy(to, image + segment * SEGMENT_BYTES + offset, byte_count);
    return true;
}

static void append_batch(struct journal *journal, uint64_t *ticket)
{
    struct journal_write write;
    uint8_t bytes[512];

    for (uint64_t i = 0; i <= *ticket % 40; i++) {
        const struct record record = {
            .type = RECORD_CURSOR,
            .partition = partition_of(7),
            .cursor = { { 7 }, { 8 }, 1 + i, *ticket, *ticket * *ticket },
        };

        ++*ticket;
        journal_append(journal, *ticket, bytes, record_encode(&record, bytes, sizeof bytes));
    }
    while (journal_next_write(journal, &write)) {
        memcpy(original + write.segment * SEGMENT_BYTES + write.offset, write.bytes,
               write.byte_count);
        journal_on_written(journal, write.byte_count);
    }
    HF_ASSERT(end_count < BATCHES_MAX);
    ends[end_count++] = journal_durable_lsn(journal);
}

static void write_original(void)
{
    const struct journal_config config = { identity,      START_LSN, SEGMENT_BYTES,
                                           SEGMENT_COUNT, 65536,     false };
    struct hf_error error;
    struct journal *journal = journal_open(&config, &error);
    uint64_t ticket = 0;

    HF_ASSERT(journal != NULL);
    ends[end_count++] = START_LSN;
    while (journal_end_lsn(journal) < START_LSN + SEGMENT_BYTES * SEGMENT_COUNT - 8192) {
        append_batch(journal, &ticket);
    }
    journal_close(journal);
}

static void edit(const uint8_t *bytes)
{
    const size_t at = bytes[0] % BLOCKS;
    uint8_t *block = image + at * JOURNAL_BLOCK_BYTES;
    struct journal_identity sealed = identity;
    struct journal_block header = { 0 };

    switch (bytes[1] % 8) {
    case 0:
        memset(block, 0, JOURNAL_BLOCK_BYTES);
        break;
    case 1: /* another's block */
        memcpy(block, original + bytes[2] % BLOCKS * JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_BYTES);
        break;
    case 2:
        block[bytes[2] % JOURNAL_HEADER_BYTES] ^= bytes[3];
        break;
    case 3:
        block[JOURNAL_HEADER_BYTES + bytes[2]] ^= bytes[3];
        break;
    default:
        if (journal_block_check(block, identity.directory_id, identity.core, &header) !=
            JOURNAL_BLOCK_OK) {
            break;
        }
        if ((bytes[1] & 8U) != 0) {
            sealed.incarnation += bytes[3] % 3U - UINT64_C(1);
        }
        const uint64_t further = bytes[2] % 5U * (uint64_t)JOURNAL_BLOCK_BYTES;
        header.lsn += bytes[1] % 8 == 4 ? further : 0;
        header.batch_lsn += bytes[1] % 8 == 5 ? further : 0;
        header.batch_blocks += bytes[1] % 8 == 6 ? bytes[2] : 0U;
        header.batch_crc ^= bytes[1] % 8 == 7 ? bytes[2] : 0U;
        if (header.batch_lsn <= header.lsn) {
            journal_block_seal(block, &sealed, &header);
        }
    }
}

/* What was accepted is a run of batches that were written, and every record of it can be read. */
static void check_run(const struct recover_journal *journal, const struct recover_run *run)
{
    struct journal_walk *walk = malloc(sizeof *walk);
    enum walk_status status = WALK_RECORD;
    bool is_end = false;

    for (uint32_t i = 0; i < end_count; i++) {
        is_end |= ends[i] == run->end_lsn;
    }
    HF_ASSERT(is_end);
    HF_ASSERT(walk != NULL && journal_walk_open(walk, &journal->source, &identity, run->spans,
                                                run->span_count, START_LSN, run->end_lsn));
    while (status == WALK_RECORD) {
        const uint8_t *bytes;
        size_t byte_count;
        struct record record;
        size_t length;

        status = journal_walk_next(walk, &bytes, &byte_count);
        if (status == WALK_RECORD) {
            HF_ASSERT(record_parse(bytes, byte_count, &record, &length) == RECORD_OK);
        }
    }
    HF_ASSERT(status == WALK_END);
    journal_walk_close(walk);
    free(walk);
}

void fuzz_one(const uint8_t *bytes, size_t byte_count)
{
    struct journal_span spans[SEGMENT_COUNT];
    struct recover_run run = { .spans = spans };
    struct hf_error error;
    const struct recover_journal journal = {
        .source = { NULL, read_image },
        .identity = identity,
        .segment_bytes = SEGMENT_BYTES,
        .segment_count = SEGMENT_COUNT,
        .start_lsn = START_LSN,
        .needed_from = START_LSN,
    };

    if (end_count == 0) {
        write_original();
    }
    memcpy(image, original, sizeof image);
    for (size_t at = 0; at + EDIT_BYTES <= byte_count && at < (size_t)16 * EDIT_BYTES;
         at += EDIT_BYTES) {
        edit(bytes + at);
    }
    if (recover_scan(&journal, &run, &error) == RECOVER_DONE) {
        check_run(&journal, &run);
    }
}

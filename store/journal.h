/*
 * journal: the redo log of one core. It says what to write where, and writes nothing itself: the
 * reactor (or the simulator) carries out journal_next_write() and reports it.
 *
 *   LSN      the byte position of a block in the core's endless journal; a multiple of
 *            JOURNAL_BLOCK_BYTES. LSNs rise for ever within a data directory.
 *   pos      the byte position of a record: its block's LSN + the offset of its first byte in it.
 *   block    {magic, crc32c, directory id, incarnation, own LSN, first LSN and block count of its
 *            batch, CRC32C over the batch's payload, core, payload length, segment, zero}, then
 *            payload.
 *            Records run on from one block's payload to that of the next.
 *   batch    what one write makes durable: all or nothing. It starts on a new block and never
 *            crosses a segment. One write is in flight while the next batch gathers.
 *   segment  a file. Its first block is the first of a batch; the next segment's first LSN is the
 *            end of its last batch, so that a missing segment can be told from an end.
 *
 *   segment states:   spare -> open (one at most) -> sealed -> spare, when a flush passed its end
 *
 * Owner    The reactor's, or the simulator's core. Reading back (journal_block_check,
 *          journal_spans and what follows) is for any thread, on its own copies.
 * Thread   The owner's. Nothing blocks.
 * Memory   All taken by journal_open(): the ring of blocks, which gathers the next batch, is the
 *          (aligned) buffer of the write in flight, and keeps what was written last.
 * Units    Bytes.
 * Errors   journal_append() asserts that journal_room() allowed it. A write that failed is the
 *          runtime's to handle: stop the process; never write it again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/record.h"

#define JOURNAL_BLOCK_BYTES   4096
#define JOURNAL_HEADER_BYTES  56
#define JOURNAL_PAYLOAD_BYTES (JOURNAL_BLOCK_BYTES - JOURNAL_HEADER_BYTES)

/* Which journal a block belongs to. A block of another identity isn't ours. */
struct journal_identity {
    uint64_t directory_id;
    uint64_t incarnation;
    uint16_t core;
};

struct journal_config {
    struct journal_identity identity;
    uint64_t start_lsn;     /* above every LSN and every `applied` of the directory; > 0 */
    uint32_t segment_bytes; /* of every segment; a multiple of the block. No ticket can be larger */
    uint32_t segment_count; /* at least 3 */
    uint32_t ring_bytes;    /* a power of two, 64 KB or more; half of it is the largest batch */
    bool marks;             /* segment number segment_count is there, and takes marks (mark.h) */
};

struct journal;

/* Takes the memory. NULL: there is none, or the configuration is out of range. */
struct journal *journal_open(const struct journal_config *config, struct hf_error *error);
void journal_close(struct journal *journal);

/* ---- Appending ---- */

/*
 * How many bytes of records may be appended now, in one ticket or in several. What was promised
 * here is there, whatever becomes of the write in flight.
 */
size_t journal_room(const struct journal *journal);

/* Adds the records of one ticket to the batch that gathers. Tickets rise by one from 1. Returns the
 * pos of the first. */
uint64_t journal_append(struct journal *journal, uint64_t ticket, const uint8_t *records,
                        size_t byte_count);

/* The pos of what lies `byte_count` bytes of payload further on, within one batch. */
uint64_t journal_pos_after(uint64_t pos, size_t byte_count);

/* ---- Writing ---- */

/* One write: aligned to the block in all three, for O_DIRECT. Durable on completion (RWF_DSYNC). */
struct journal_write {
    uint32_t segment; /* the number of the segment's file; segment_count: that of the marks */
    uint64_t offset;  /* in it */
    const uint8_t *bytes;
    size_t byte_count;
};

/*
 * What to write next, if there is anything and nothing is in flight. It is in flight until
 * journal_on_written(). (Where the batch crosses the end of the ring, it comes as two writes; before
 * the first of a segment comes the mark that names it.)
 */
bool journal_next_write(struct journal *journal, struct journal_write *write);

/* The write in flight made `byte_count` bytes durable; fewer than asked for: the rest comes as the
 * next write. */
void journal_on_written(struct journal *journal, size_t byte_count);

/* Every ticket up to this one is durable. */
uint64_t journal_durable_ticket(const struct journal *journal);
/* The end of the last durable batch. */
uint64_t journal_durable_lsn(const struct journal *journal);
/* The end of what is appended: where the batch after the one that gathers will begin. */
uint64_t journal_end_lsn(const struct journal *journal);
bool journal_idle(const struct journal *journal); /* nothing gathers, nothing is in flight */

/* The next write is a mark of what is durable by then, unless there is nothing new to say. */
void journal_want_mark(struct journal *journal);
/* All that is durable is marked, or there are no marks. */
bool journal_is_marked(const struct journal *journal);

/* ---- Flushing ---- */

/* A piece of a segment that holds batches: [first_lsn, end_lsn) lies at the file's beginning. */
struct journal_span {
    uint64_t first_lsn;
    uint64_t end_lsn;
    uint32_t segment;
};

struct journal_flush {
    uint64_t from_lsn; /* where the last flush ended */
    uint64_t upto_lsn;
    uint64_t upto_ticket;
};

/*
 * Begins a flush of all that is appended. False while a batch gathers (call it right after
 * journal_next_write() took that), while another flush is under way, or if there is nothing new.
 * At this moment the index is rotated (index_rotate()).
 */
bool journal_flush_begin(struct journal *journal, struct journal_flush *flush);
/* Its last batch is durable: the flusher may read it. */
bool journal_flush_ready(const struct journal *journal);
/* All of the flush is in the volumes, synced: its segments are spare again, but for the open one.
 */
void journal_flush_end(struct journal *journal);

/* The spans that hold [from, upto), in order; returns how many (segment_count at most). */
uint32_t journal_get_spans(const struct journal *journal, uint64_t from_lsn, uint64_t upto_lsn,
                           struct journal_span *spans, uint32_t span_count_max);

/* Bytes that no flush has released yet, in thousandths of the whole. 750: refuse SENDs; 900: only
 * streams. */
uint32_t journal_used_permille(const struct journal *journal);
/* Bytes appended since the last flush began. */
uint64_t journal_unflushed_bytes(const struct journal *journal);

/* ---- Reading back ---- */

/* Copies the record at pos out of the ring, if it is still there (and at most room bytes long):
 * returns its length, else 0. */
size_t journal_read_recent(const struct journal *journal, uint64_t pos, uint8_t *to, size_t room);

/* Where segments are read: from files, or from the simulator's disk. */
struct journal_source {
    void *context;
    /* Offset and byte count are multiples of the block; so is the address where O_DIRECT wants it.
     * False: the disk failed. Beyond the end of the file, zeros. */
    bool (*read)(void *context, uint32_t segment, uint64_t offset, uint8_t *to, size_t byte_count);
};

/* Where in the files a pos of these spans lies, as the block's segment and offset. */
bool journal_locate(const struct journal_span *spans, uint32_t span_count, uint64_t pos,
                    uint32_t *segment, uint64_t *offset);

/*
 * Reads the record at pos, of a journal some of whose segments may have been written again since.
 * `scratch` is 8 blocks, aligned. True only if every block is sound and in its place and the bytes
 * are one whole record; the caller still compares user and seq.
 */
bool journal_fetch(const struct journal_source *source, const struct journal_identity *identity,
                   const struct journal_span *spans, uint32_t span_count, uint64_t pos,
                   uint8_t *scratch, uint8_t *to, size_t room, size_t *record_bytes);

#define JOURNAL_FETCH_SCRATCH_BYTES ((size_t)8 * JOURNAL_BLOCK_BYTES)

/* A block's header, decoded. */
struct journal_block {
    uint64_t incarnation;
    uint64_t lsn;
    uint64_t batch_lsn;
    uint32_t batch_blocks;
    uint32_t batch_crc; /* of the payload of all blocks of the batch, in order */
    uint16_t segment;   /* that it was written to */
    uint16_t payload_bytes;
};

enum journal_block_status {
    JOURNAL_BLOCK_OK = 0,
    JOURNAL_BLOCK_NONE,    /* never written: zeros */
    JOURNAL_BLOCK_TORN,    /* the checksum is wrong, or a field out of range */
    JOURNAL_BLOCK_FOREIGN, /* sound, but of another directory or core */
    JOURNAL_BLOCK_NEWER,   /* of a version that this program doesn't know */
};

/* Checks and decodes one block of that directory and core. Incarnation and LSN are the caller's to
 * compare. */
enum journal_block_status journal_block_check(const uint8_t *bytes, uint64_t directory_id,
                                              uint16_t core, struct journal_block *block);

/*
 * directory: a data directory on a file system.
 *
 *   lock                 held while a server has the directory open; names its process
 *   manifest             manifest.h
 *   volume-000.mdb ...   one LMDB file a volume (and LMDB's own -lock beside it)
 *   journal-1/00-000 ... segments: core, number; all of one size, written with zeros when made
 *   journal-1/00-mark    how far that core's journal has come: mark.h
 *
 * Start:  directory_open(), the volumes (volume_open(), with `create` as directory_is_new() says;
 *         recover_prepare_volume()), directory_open_segments(), recovery from directory_source()
 *         of each core, then directory_begin_run(), which makes new journals and the next
 *         incarnation durable. Only then may anything leave.
 *
 * Owner    The thread that starts the server; descriptors of segments are then lent to reactors.
 * Thread   The owner's; file system calls block.
 * Memory   One allocation at open.
 * Errors   NULL or false, and `error` is the message for the operator (exit codes of sysexits.h):
 *          not a directory, no permission, in use (by whom), newer, damaged, no room.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/journal.h"
#include "store/manifest.h"

struct directory_options {
    bool create; /* where there is none, or an empty one */
    uint16_t
        volume_count; /* of a new directory; an old one's must be the same. 0: any, 16 if new */
    uint8_t new_id[SCHEMA_DIRECTORY_ID_BYTES]; /* random, for a new one */
    bool buffered;                             /* as on a file system without O_DIRECT */
};

struct directory;

struct directory *directory_open(const char *path, const struct directory_options *options,
                                 struct hf_error *error);
void directory_close(struct directory *directory);

/* It has never been started: its volumes may still have to be made. */
bool directory_is_new(const struct directory *directory);

const struct manifest *directory_manifest(const struct directory *directory);
/* The path of a volume's file. False: it doesn't fit. */
bool directory_volume_path(const struct directory *directory, uint16_t volume, char *path,
                           size_t room);

/*
 * Opens the segments of the last run for reading, and syncs them: a process that was killed may have
 * left writes there that are seen, but not on the disk, and recovery builds on what it sees. False:
 * one is missing, or of the wrong size.
 */
bool directory_open_segments(struct directory *directory, struct hf_error *error);
/* Reads a core's segments: those of the last run, and from directory_begin_run() on those of this
 * one. For any thread; blocks. */
struct journal_source directory_source(struct directory *directory, uint16_t core);

struct directory_run {
    uint16_t core_count;
    const uint16_t *core_of_volume;
    const uint64_t *applied; /* of each volume now: it can't be less at the next start */
    uint32_t segment_bytes;
    uint32_t segment_count; /* of each core */
    uint64_t start_lsn;     /* recover_next_lsn() */
    uint64_t epoch;         /* that no log may be below; never falls */
};

/*
 * After recovery: makes segments if their number or size has changed, opens them for writing, and
 * puts the manifest with the next incarnation in place, synced.
 */
bool directory_begin_run(struct directory *directory, const struct directory_run *run,
                         struct hf_error *error);

/* The descriptor of a segment, open for reading and writing, with O_DIRECT where there is such a
 * thing. Number segment_count: that of the marks. */
int directory_segment_fd(const struct directory *directory, uint16_t core, uint32_t segment);
/* Its path, for messages; cut if it doesn't fit. */
void directory_segment_path(const struct directory *directory, uint16_t core, uint32_t segment,
                            char *path, size_t room);

/* Bytes that this process may still write to the file system. False: it can't be told. */
bool directory_free_bytes(const struct directory *directory, uint64_t *free_bytes);

/*
 * disk: what a data directory holds at one moment of a recorded history, on a disk that keeps what
 * was synced and owes the rest: two versions of everything, what programs see and what is durable,
 * with the changes between them in order.
 *
 *   bytes    A write is owed from its beginning on. A sync pays for the writes to that file that
 *            had ended when it began; a durable write (O_DSYNC, RWF_DSYNC) pays for itself when it
 *            ends. What is owed may be on the disk or not, sector by sector, whatever came later.
 *            Of one sector the disk has one of the versions that it had, never a mixture.
 *   names    are owed until their folder is synced: each name for itself, in its own order.
 *   sizes    grow with the sectors that are there; cuts are owed like writes.
 *
 * Owner    One for a walk through a history; an image takes from it and leaves it as it is.
 * Thread   One.
 * Memory   Grows; running out of it ends the program, which is a test.
 * Errors   A history that can't be ends the program, and says where.
 * Source   fsync(2), open(2) on O_DSYNC; Pillai et al., OSDI 2014, on what file systems may do.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/power/history.h"

#define DISK_NAME_BYTES 128

struct disk_bytes {
    uint8_t *bytes;
    size_t byte_count;
    size_t room;
};

struct disk_file {
    uint64_t inode;
    bool folder;
    char first_name[DISK_NAME_BYTES]; /* what it was made as: says which kind of file it is */
    struct disk_bytes seen;
    struct disk_bytes durable;
    uint32_t *owed; /* ops, in order */
    size_t owed_count;
    size_t owed_room;
};

struct disk_name {
    uint32_t folder; /* indexes of files; 0 is the data directory itself */
    uint32_t file;
    char name[DISK_NAME_BYTES];
};

struct disk_names {
    struct disk_name *names;
    size_t count;
    size_t room;
};

/* Which promises the disk is to break, so that it shows whether a missing sync would be found. */
enum disk_forgets {
    DISK_FORGETS_NOTHING,
    DISK_FORGETS_JOURNAL,  /* journal writes aren't durable when they complete */
    DISK_FORGETS_VOLUME,   /* syncs of volumes that the server asks for itself */
    DISK_FORGETS_COMMIT,   /* syncs of volumes in LMDB's commits */
    DISK_FORGETS_MANIFEST, /* syncs of the manifest's bytes */
    DISK_FORGETS_FOLDER,   /* syncs of folders */
    DISK_FORGETS_SEGMENTS, /* syncs of new segments */
};

struct disk {
    const struct history *history;
    enum disk_forgets forgets;
    struct disk_file *files;
    size_t file_count;
    size_t file_room;
    struct disk_names seen;
    struct disk_names durable;
    uint32_t *owed_names; /* ops, in order */
    size_t owed_name_count;
    size_t owed_name_room;
    uint32_t *file_of_op; /* inode numbers come again: what they meant then */
    uint32_t *folder_of_op;
    size_t next_op;
};

void disk_init(struct disk *disk, const struct history *history, enum disk_forgets forgets);
void disk_deinit(struct disk *disk);

/* Carries out everything before that op. */
void disk_advance(struct disk *disk, size_t upto);

/* The file of an inode number, as things stand; ends the program if there is none. */
uint32_t disk_file_of(const struct disk *disk, uint64_t inode);
/* Applies a name's op to a list of names: made, renamed, unlinked. */
void disk_names_apply(const struct disk *disk, struct disk_names *names, size_t op);
void disk_names_copy(struct disk_names *to, const struct disk_names *from);
/* Applies a write or a cut. */
void disk_bytes_apply(const struct disk *disk, struct disk_bytes *bytes, size_t op);
void disk_bytes_copy(struct disk_bytes *to, const struct disk_bytes *from);
void disk_bytes_grow(struct disk_bytes *bytes, size_t byte_count);
/* "journal-1/00-003", as it is named there. False: it has no name. */
bool disk_path(const struct disk_names *names, uint32_t file, char path[2 * DISK_NAME_BYTES]);

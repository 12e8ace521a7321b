/*
 * image: what may lie on the disk after a power cut at one moment of a history: all that is
 * durable, and of what is owed a part that a seed draws, torn at sectors.
 *
 * Owner    The caller's.
 * Thread   One for a struct image.
 * Errors   A folder that can't be written ends the program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/power/disk.h"

#define IMAGE_SECTOR_BYTES 512

struct image_random {
    uint64_t state;
};

uint64_t image_random_next(struct image_random *random);
/* 0 to bound - 1 */
uint64_t image_random_below(struct image_random *random, uint64_t bound);

/* Writes the image into `folder`, which is emptied first. Returns how many owed operations there
 * were, in bytes and names. */
size_t image_write(const struct disk *disk, struct image_random *random, const char *folder);

/* Everything as programs saw it, compared with a folder. False: says where they differ. */
bool image_compare(const struct disk *disk, const char *folder);

void image_empty_folder(const char *folder);

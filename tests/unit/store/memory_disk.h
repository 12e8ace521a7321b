/*
 * memory_disk: segments in memory, and records to fill them with.
 *
 * Owner    The test's.
 * Memory   From malloc; memory_disk_deinit() frees it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/journal.h"
#include "store/record.h"

struct memory_disk {
    uint8_t *bytes; /* segments end to end; behind them as much room for marks */
    uint32_t segment_bytes;
    uint32_t segment_count;
    uint32_t reads_until_failure; /* 0: none fails */
};

void memory_disk_init(struct memory_disk *disk, uint32_t segment_bytes, uint32_t segment_count);
void memory_disk_deinit(struct memory_disk *disk);
struct journal_source memory_disk_source(struct memory_disk *disk);

/* Carries out the next write, if there is one, and reports it. */
bool memory_disk_write(struct memory_disk *disk, struct journal *journal);
/* Until nothing is left to write. */
void memory_disk_write_all(struct memory_disk *disk, struct journal *journal);

/* A random number from a state that never is 0 mod anything in particular. */
uint64_t random_next(uint64_t *state);

/* A message of the user's log, sent by the peer; body bytes follow from user, seq and id. */
struct record message_record(uint64_t user, uint64_t peer, uint64_t seq, uint64_t n,
                             uint16_t body_bytes);
/* The same, sent by the user from this device. */
struct record own_record(uint64_t user, uint64_t peer, uint64_t seq, uint64_t n, uint32_t device,
                         uint64_t counter, uint16_t body_bytes);

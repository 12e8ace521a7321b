/*
 * options: what a run is made of. All of it is drawn from the seed, so that the seed and the number
 * of events are enough to run it again.
 *
 * Thread   Any. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct sim_options {
    uint64_t seed;
    uint64_t events;

    /* The server. */
    uint32_t cores; /* to begin with */
    uint32_t cores_max;
    uint32_t volumes;
    uint32_t segment_bytes;
    uint32_t segments; /* of one core's journal */
    uint32_t recent_bytes;
    uint32_t users_max;
    uint32_t devices_max;
    uint32_t heads_max;
    uint32_t outcomes_max;
    uint32_t pending_max;
    uint32_t outs_max;
    uint32_t out_quota;
    uint32_t links_max;
    uint32_t loads_max;
    uint32_t window_bytes_max;
    uint64_t retention_count; /* 0: all is kept */
    bool accept_unknown_users;

    /* Who uses it. */
    uint32_t users;
    uint32_t third_devices; /* so many users have three devices, the others two */
    uint32_t late_users;    /* so many log in for the first time only later */
    uint32_t strangers;     /* ids that nobody ever logs in with */
    uint32_t large_bodies;  /* in a thousand */

    /* Chances of one event in 10,000. */
    uint32_t crash;
    uint32_t link_cut;
    uint32_t partition_move;
    uint32_t clock_jump;
    uint32_t disk_full;
    uint32_t flush;
    uint32_t flush_permille; /* used of the journal: a flush begins by itself */
    uint32_t slow_flush;     /* in a thousand, of the flusher's steps that don't come */

    /* In a thousand. */
    uint32_t stale_load;
    uint32_t slow_reader; /* in a thousand, of the reader's steps that don't come */
    uint32_t failed_load;
    uint32_t full_disk;      /* of the flusher's steps */
    uint32_t client_leave;   /* of a client's actions */
    uint32_t client_restore; /* of a client's reconnects */
    uint32_t client_back;
    uint32_t client_rogue;
    uint32_t slow_disk;      /* of the chances that a write under way isn't completed */
    uint32_t recovery_crash; /* of recoveries */
};

void options_draw(struct sim_options *options, uint64_t seed, uint64_t events);
void options_print(const struct sim_options *options, FILE *to);

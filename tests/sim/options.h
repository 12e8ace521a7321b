/*
 * options: what a run is made of. All of it is drawn from the seed, in the manner of swarm testing
 * (Groce et al., ISSTA 2012): each seed has a mix of its own, with some kinds of fault and some
 * features wholly absent, and some extreme, since what always happens hides what it prevents.
 *
 * A plan names a run: by its seed alone, or with less than that gives (shorten.h), and perhaps with
 * the events of another seed.
 *
 * Thread   Any. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* X(NAME, name, field): what a run can do without. */
#define SIM_SWITCHES(X)                                                                            \
    X(LARGE_BODIES, "large", large_bodies)                                                         \
    X(ACCEPT_UNKNOWN_USERS, "unknown", accept_unknown_users)                                       \
    X(RETENTION_COUNT, "retention", retention_count)                                               \
    X(AGE, "age", age)                                                                             \
    X(THIRD_DEVICES, "third", third_devices)                                                       \
    X(LATE_USERS, "late", late_users)                                                              \
    X(STRANGERS, "strangers", strangers)                                                           \
    X(HISTORY, "history", history)                                                                 \
    X(DOUBLED, "doubled", doubled)                                                                 \
    X(BAD_SENDS, "bad", bad_sends)                                                                 \
    X(CRASH, "crash", crash)                                                                       \
    X(KILL, "kill", kill)                                                                          \
    X(RECOVERY_CRASH, "crash-recovery", recovery_crash)                                            \
    X(FLUSH_CRASH, "crash-flush", flush_crash)                                                     \
    X(CORES_CHANGE, "cores", cores_change)                                                         \
    X(LINK_CUT, "cut", link_cut)                                                                   \
    X(FRAME_LOSS, "loss", frame_loss)                                                              \
    X(PARTITION_MOVE, "move", partition_move)                                                      \
    X(CLOCK_JUMP, "clock", clock_jump)                                                             \
    X(DISK_FULL, "full", disk_full)                                                                \
    X(DAMAGE, "damage", damage)                                                                    \
    X(ROT, "rot", rot)                                                                             \
    X(SLOW_DISK, "slow-disk", slow_disk)                                                           \
    X(SLOW_FLUSH, "slow-flush", slow_flush)                                                        \
    X(LATE_READS, "late-reads", late_reads)                                                        \
    X(SLOW_READER, "slow-reader", slow_reader)                                                     \
    X(SLOW_PEERS, "slow-peers", slow_peers)                                                        \
    X(STALE_LOAD, "stale", stale_load)                                                             \
    X(FAILED_LOAD, "failed", failed_load)                                                          \
    X(CLIENT_LEAVE, "leave", client_leave)                                                         \
    X(CLIENT_RESTORE, "restore", client_restore)                                                   \
    X(CLIENT_BACK, "back", client_back)                                                            \
    X(CLIENT_ROGUE, "rogue", client_rogue)

enum sim_switch {
#define SIM_SWITCH_ENUMERATOR(NAME, name, field) SIM_SWITCH_##NAME,
    SIM_SWITCHES(SIM_SWITCH_ENUMERATOR)
#undef SIM_SWITCH_ENUMERATOR
        SIM_SWITCH_COUNT,
};
_Static_assert(SIM_SWITCH_COUNT < 64, "a bit each");

struct sim_plan {
    uint64_t seed;
    uint64_t schedule; /* the seed of what happens; mostly the same */
    uint64_t events;
    uint64_t off;     /* bits of sim_switch */
    uint32_t users;   /* at most; 0: as drawn */
    uint32_t devices; /* of a user, at most; 0: as drawn */
};

struct sim_options {
    uint64_t seed;
    uint64_t events;
    uint64_t off; /* what was drawn or asked to be off */

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
    uint32_t stream_frames;        /* of a turn */
    uint32_t retention_count;      /* 0: all is kept */
    uint32_t age;                  /* ms that an entry is kept; 0: for ever */
    uint32_t accept_unknown_users; /* 1: yes */
    uint32_t touch;                /* likewise */

    /* Who uses it. */
    uint32_t users;
    uint32_t devices;       /* of a user */
    uint32_t third_devices; /* so many users have one more */
    uint32_t late_users;    /* so many log in for the first time only later */
    uint32_t strangers;     /* ids that nobody ever logs in with */
    uint32_t large_bodies;  /* in a thousand */
    uint32_t favourite;     /* in a thousand, of messages: to a device's first peer */
    uint32_t bursts;        /* in a thousand, of times that something is written: up to 20 */

    /* Chances of one event in 10,000. */
    uint32_t crash;
    uint32_t crashes_min; /* whatever their rate */
    uint32_t link_cut;
    uint32_t frame_loss;
    uint32_t partition_move;
    uint32_t clock_jump;
    uint32_t disk_full;

    /* In a thousand. */
    uint32_t kill;           /* of crashes: of the process alone, not of the machine */
    uint32_t recovery_crash; /* of recoveries */
    uint32_t flush_crash;    /* of a flush's slices: behind it */
    uint32_t damage;         /* of recoveries: somebody has been at the files before */
    uint32_t cores_change;   /* of starts */
    uint32_t flush;
    uint32_t flush_permille; /* used of the journal: a flush begins by itself */
    uint32_t rot;            /* of a flusher's and a reader's steps: rows come back damaged */
    uint32_t slow_flush;     /* of the flusher's steps that don't come */
    uint32_t stale_load;
    uint32_t late_reads;  /* of loads of the journal: not before all of it was written again */
    uint32_t slow_reader; /* of the reader's steps that don't come */
    uint32_t slow_peers;  /* of the frames between cores that don't come yet */
    uint32_t failed_load;
    uint32_t slow_disk;      /* of the chances that a write under way isn't completed */
    uint32_t client_leave;   /* of a client's actions */
    uint32_t history;        /* likewise: asks for a page */
    uint32_t doubled;        /* of SENDs: comes twice */
    uint32_t bad_sends;      /* of messages: must be refused for ever; of counters: skips one */
    uint32_t client_restore; /* of a client's reconnects */
    uint32_t client_back;
    uint32_t client_rogue;
};

struct sim_plan plan_of_seed(uint64_t seed, uint64_t events);
void options_draw(struct sim_options *options, const struct sim_plan *plan);
void options_print(const struct sim_options *options, FILE *to);

const char *switch_name(enum sim_switch which);
/* The bits of names with commas between. False: one is none. */
bool switches_parse(const char *names, uint64_t *off);
/* The arguments that run the plan again. */
void plan_print(const struct sim_plan *plan, FILE *to);

/*
 * hazards: what a run has met, counted, so that a clean result says of what it is clean.
 *
 * Owner    One struct a run; sums over runs in main.
 * Thread   The owner's only.
 */
#pragma once

#include <stdint.h>

/* X(name, text) */
#define HAZARDS(X)                                                                                 \
    X(EVENTS, "events")                                                                            \
    X(MESSAGES, "messages created")                                                                \
    X(ACCEPTED, "messages accepted")                                                               \
    X(CRASHES, "crashes")                                                                          \
    X(KILLS, "crashes of the process alone")                                                       \
    X(CRASH_WRITE, "crash: a journal write under way")                                             \
    X(SECTORS_KEPT, "crash: unsynced sector kept")                                                 \
    X(SECTORS_LOST, "crash: unsynced sector lost")                                                 \
    X(SECTORS_TORN, "crash: unsynced sector torn")                                                 \
    X(READ_UNDER_WAY, "sectors read while they were being written")                                \
    X(COMMITS_LOST, "crash: commits taken back that were not synced")                              \
    X(TORN_BATCH, "recovery: torn tail met")                                                       \
    X(CRASH_FLUSH, "flush interrupted by a crash")                                                 \
    X(CRASH_RECOVERY, "recovery interrupted by a crash")                                           \
    X(DAMAGE, "files harmed before a start")                                                       \
    X(DAMAGE_REFUSED, "starts refused for it")                                                     \
    X(ROT_REFUSED, "flushes and recoveries stopped by rot")                                        \
    X(ROT_READ, "loads failed by rot")                                                             \
    X(CORES_CHANGED, "restart with another number of cores")                                       \
    X(FLUSHES, "flushes")                                                                          \
    X(DISK_FULL, "times the disk was full")                                                        \
    X(FLUSH_FULL, "steps of a flush that met a full disk")                                         \
    X(SEGMENTS_AGAIN, "segments written again")                                                    \
    X(JOURNAL_PRESSURE, "turns under journal pressure")                                            \
    X(LOADS, "loads")                                                                              \
    X(LOADS_STALE, "loads answered from an older snapshot")                                        \
    X(LOADS_REPEATED, "loads repeated by the engine")                                              \
    X(LOADS_JOURNAL, "loads answered from the journal")                                            \
    X(LOADS_VOLUME, "loads answered from a volume")                                                \
    X(LOADS_LATE, "loads of the journal read after its segment was freed")                         \
    X(LOADS_FAILED, "loads failed by the disk")                                                    \
    X(PUSHED, "entries pushed")                                                                    \
    X(CATCHUPS, "catch-ups from the store")                                                        \
    X(EVICTIONS, "cells evicted")                                                                  \
    X(PARTITIONS_MOVED, "partition closed and opened again")                                       \
    X(LINKS_CUT, "links between cores cut")                                                        \
    X(FRAMES_LOST, "frames between cores lost unnoticed")                                          \
    X(LINK_LATE, "stream frames of an older link delivered late")                                  \
    X(LINKS_RENUMBERED, "links renumbered")                                                        \
    X(STREAMED, "messages taken from streams")                                                     \
    X(BEHIND, "streams answered BEHIND")                                                           \
    X(STREAM_REPEATED, "stream records repeated and dropped")                                      \
    X(REFUSED, "messages REFUSED in a log")                                                        \
    X(CONNECTIONS, "connections")                                                                  \
    X(INPUT_LOST, "connections ended with input lost")                                             \
    X(FENCED, "connections fenced")                                                                \
    X(FENCED_SENDS, "SENDs dropped by a fence")                                                    \
    X(LATE_HELLO, "older HELLO behind a newer one")                                                \
    X(BLOCKED, "frames blocked")                                                                   \
    X(RESUME, "HELLO answered RESUME")                                                             \
    X(RESET, "HELLO answered RESET")                                                               \
    X(RESTORED, "phones restored from a backup")                                                   \
    X(CURSOR_BACK, "cursors taken back")                                                           \
    X(RESYNC, "numbered anew after a catch-up")                                                    \
    X(FATE_UNKNOWN, "SENDs of unknown fate")                                                       \
    X(ORDER, "ORDER")                                                                              \
    X(CONFLICT, "CONFLICT")                                                                        \
    X(STALE, "STALE")                                                                              \
    X(RETRY, "RETRY")                                                                              \
    X(FULL, "FULL")                                                                                \
    X(REJECTED, "permanent refusals")                                                              \
    X(DOUBLED, "SENDs made twice")                                                                 \
    X(REPEATED, "messages accepted that were sent twice or more")                                  \
    X(BUSY, "BUSY")                                                                                \
    X(FLOORS, "floors raised by retention")                                                        \
    X(SWEEPS, "sweeps for entries beyond their age")                                               \
    X(EXPIRED, "floors found by a sweep of retention by age")                                      \
    X(DROPPED, "entries dropped by retention")                                                     \
    X(TRIMMED, "TRIMMED")                                                                          \
    X(PAGES, "pages of history")                                                                   \
    X(PAGES_TRIMMED, "pages cut by retention")                                                     \
    X(BAD_CURSOR, "BAD_CURSOR")                                                                    \
    X(ROGUE, "clients that misbehaved")                                                            \
    X(ROGUE_ENDED, "connections ended for it")                                                     \
    X(CURSOR_AHEAD, "cursors beyond the head")                                                     \
    X(CLOCK_BACK, "clock set back")                                                                \
    X(AUDITED, "entries compared after a recovery")                                                \
    X(ROWS_AUDITED, "rows compared after a recovery")

enum hazard {
#define HAZARD_ENUMERATOR(name, text) HAZARD_##name,
    HAZARDS(HAZARD_ENUMERATOR)
#undef HAZARD_ENUMERATOR
        HAZARD_COUNT,
};

struct hazards {
    uint64_t counts[HAZARD_COUNT];
};

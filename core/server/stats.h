/*
 * stats: counters and gauges that one thread writes and the admin thread reads.
 *
 * Owner    Each thread writes its own struct, which lies on cache lines of its own.
 * Thread   stat_add, stat_set: the owner. stat_get: any.
 * Errors   None.
 * Order    Relaxed: a reader may see one counter newer than another; no memory hangs on them.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t stat_t;

/* One writer, so no read-modify-write is needed. */
static inline void stat_add(stat_t *stat, uint64_t more)
{
    atomic_store_explicit(stat, atomic_load_explicit(stat, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

static inline void stat_set(stat_t *stat, uint64_t value)
{
    atomic_store_explicit(stat, value, memory_order_relaxed);
}

static inline uint64_t stat_get(const stat_t *stat)
{
    return atomic_load_explicit(stat, memory_order_relaxed);
}

/*
 * X(field, "metric", "labels", TYPE, "help"): rows of one metric stand together; help at the first.
 * TYPE: COUNTER or GAUGE.
 */
#define REACTOR_STATS(X)                                                                           \
    X(connections, "holdfast_connections", "", GAUGE,                                              \
      "Connections with a session or on their way to one")                                         \
    X(adopted, "holdfast_connections_adopted_total", "", COUNTER,                                  \
      "Connections taken over from a door")                                                        \
    X(closed_by_peer, "holdfast_connections_closed_total", "by=\"peer\"", COUNTER,                 \
      "Connections that ended")                                                                    \
    X(closed_by_error, "holdfast_connections_closed_total", "by=\"error\"", COUNTER, "")           \
    X(closed_by_server, "holdfast_connections_closed_total", "by=\"server\"", COUNTER, "")         \
    X(frames_received, "holdfast_frames_received_total", "", COUNTER, "Frames from clients")       \
    X(bytes_received, "holdfast_received_bytes_total", "", COUNTER, "Bytes from clients, sealed")  \
    X(bytes_sent, "holdfast_sent_bytes_total", "", COUNTER, "Bytes to clients, sealed")            \
    X(records_sent, "holdfast_records_sent_total", "", COUNTER, "TLS records to clients")          \
    X(tls_faults, "holdfast_tls_faults_total", "", COUNTER, "Connections ended by a bad record")   \
    X(limit_frames, "holdfast_limit_hits_total", "limit=\"frames_per_s\"", COUNTER,                \
      "Connections ended, or work refused, by a limit")                                            \
    X(limit_bytes, "holdfast_limit_hits_total", "limit=\"bytes_per_s\"", COUNTER, "")              \
    X(limit_connections, "holdfast_limit_hits_total", "limit=\"max_connections\"", COUNTER, "")    \
    X(limit_cells, "holdfast_limit_hits_total", "limit=\"cells\"", COUNTER, "")                    \
    X(yields_input, "holdfast_limit_hits_total", "limit=\"input_cells\"", COUNTER, "")             \
    X(yields_output, "holdfast_limit_hits_total", "limit=\"output_cells\"", COUNTER, "")           \
    X(partial_closed, "holdfast_limit_hits_total", "limit=\"partial_timeout\"", COUNTER, "")       \
    X(idle_closed, "holdfast_limit_hits_total", "limit=\"keepalive\"", COUNTER, "")                \
    X(stalled_closed, "holdfast_limit_hits_total", "limit=\"send_timeout\"", COUNTER, "")          \
    X(expired_closed, "holdfast_limit_hits_total", "limit=\"login_life\"", COUNTER, "")            \
    X(glitches, "holdfast_glitches_total", "", COUNTER, "Odd but legal input")                     \
    X(turns, "holdfast_reactor_turns_total", "", COUNTER, "Turns of the reactor")                  \
    X(journal_writes, "holdfast_journal_writes_total", "", COUNTER,                                \
      "Durable writes to the journal")                                                             \
    X(journal_bytes, "holdfast_journal_written_bytes_total", "", COUNTER, "Bytes of them")         \
    X(journal_used, "holdfast_journal_used_bytes", "", GAUGE, "Journal not yet flushed")           \
    X(index_entries, "holdfast_unflushed_entries", "", GAUGE, "Entries that only the journal has") \
    X(index_bytes, "holdfast_unflushed_index_bytes", "", GAUGE, "Memory of their index")           \
    X(flushes, "holdfast_flushes_total", "", COUNTER, "Flushes into the volumes")                  \
    X(messages_accepted, "holdfast_messages_accepted_total", "", COUNTER, "SENDs accepted")        \
    X(entries_pushed, "holdfast_entries_pushed_total", "", COUNTER, "Entries sent in ENTRIES")     \
    X(sends_refused, "holdfast_sends_refused_total", "", COUNTER, "SENDs answered REJECTED")       \
    X(streams_sent, "holdfast_streams_sent_total", "", COUNTER,                                    \
      "Stream records sent to other homes")                                                        \
    X(streams_received, "holdfast_streams_received_total", "", COUNTER, "Stream records received") \
    X(loads, "holdfast_loads_total", "", COUNTER, "Reads from the store")                          \
    X(loads_repeated, "holdfast_loads_repeated_total", "", COUNTER,                                \
      "Reads asked again: an old snapshot")                                                        \
    X(rows_damaged, "holdfast_damaged_rows_read_total", "", COUNTER,                               \
      "Reads that met a damaged row of a volume: its user is refused")                             \
    X(disk_full, "holdfast_disk_full", "", GAUGE, "1 while a flush waits for room on the disk")    \
    X(catchups, "holdfast_catchups_total", "", COUNTER, "Pushes served from the store")            \
    X(replaced, "holdfast_sessions_replaced_total", "", COUNTER,                                   \
      "Connections replaced by a newer one of the device")                                         \
    X(conflicts, "holdfast_conflicts_total", "", COUNTER, "CONFLICT and STALE answers")            \
    X(hellos_resumed, "holdfast_hellos_total", "result=\"resume\"", COUNTER, "HELLOs answered")    \
    X(hellos_reset, "holdfast_hellos_total", "result=\"reset\"", COUNTER, "")                      \
    X(trimmed_by_count, "holdfast_entries_trimmed_total", "by=\"count\"", COUNTER,                 \
      "Entries given up for retention; the next flush drops them")                                 \
    X(trimmed_by_age, "holdfast_entries_trimmed_total", "by=\"age\"", COUNTER, "")                 \
    X(retention_sweeps, "holdfast_retention_sweeps_total", "", COUNTER,                            \
      "Times that all logs were looked through for entries beyond retention_age_s")                \
    X(users_cached, "holdfast_cached_users", "", GAUGE, "Users in memory")                         \
    X(heads_cached, "holdfast_cached_heads", "", GAUGE, "Conversation heads in memory")            \
    X(outs, "holdfast_stream_records_waiting", "", GAUGE,                                          \
      "Messages that another home hasn't taken yet")

struct reactor_stats {
#define STATS_FIELD(field, metric, labels, type, help) stat_t field;
    REACTOR_STATS(STATS_FIELD)
#undef STATS_FIELD
};

/*
 * door_stats: what a door counts. As stats.h, but with rows that other rooms' lists give.
 *
 * Owner    The door writes, the node reads.
 * Thread   As stats.h.
 * Errors   None.
 */
#pragma once

#include "core/server/stats.h"
#include "core/tls/handshake.h"
#include "core/token/token.h"

/* X(field, "metric", "labels", TYPE, "help") as REACTOR_STATS. */
#define DOOR_STATS(X)                                                                              \
    X(accepted, "holdfast_accepted_total", "", COUNTER, "Connections accepted")                    \
    X(waiting, "holdfast_handshakes_waiting", "", GAUGE,                                           \
      "Connections that wait for a handshake's place")                                             \
    X(in_progress, "holdfast_handshakes_in_progress", "", GAUGE,                                   \
      "Connections between accept and their home")                                                 \
    X(handshakes_full, "holdfast_handshakes_total", "result=\"full\"", COUNTER,                    \
      "TLS handshakes that ended")                                                                 \
    X(handshakes_resumed, "holdfast_handshakes_total", "result=\"resumed\"", COUNTER, "")          \
    X(handshakes_psk_ke, "holdfast_handshakes_total", "result=\"resumed_psk_ke\"", COUNTER, "")    \
    X(handshakes_timeout, "holdfast_handshakes_total", "result=\"timeout\"", COUNTER, "")          \
    X(handshakes_gone, "holdfast_handshakes_total", "result=\"gone\"", COUNTER, "")                \
    X(proxy_headers, "holdfast_proxy_headers_total", "result=\"ok\"", COUNTER,                     \
      "What listed proxies said of their clients")                                                 \
    X(proxy_headers_bad, "holdfast_proxy_headers_total", "result=\"bad\"", COUNTER, "")            \
    X(handed_over, "holdfast_handed_over_total", "", COUNTER, "Connections given to their home")   \
    X(hello_gone, "holdfast_hello_gone_total", "", COUNTER,                                        \
      "Clients that left between handshake and home")                                              \
    X(tls_faults, "holdfast_door_tls_faults_total", "", COUNTER,                                   \
      "Connections ended by a bad record before HELLO")                                            \
    X(limit_address, "holdfast_limit_hits_total", "limit=\"connections_per_address\"", COUNTER,    \
      "Connections ended, or work refused, by a limit")                                            \
    X(limit_handshakes, "holdfast_limit_hits_total", "limit=\"handshakes_max\"", COUNTER, "")      \
    X(limit_waiting, "holdfast_limit_hits_total", "limit=\"door_slots\"", COUNTER, "")             \
    X(accept_failures, "holdfast_accept_failures_total", "", COUNTER,                              \
      "Accepts that failed: no descriptors, no memory")                                            \
    X(pass_failures, "holdfast_pass_failures_total", "", COUNTER,                                  \
      "Descriptors that didn't reach their home")

/* ERRORs said by a door have codes below this. */
#define DOOR_CODES 32

struct door_stats {
#define STATS_FIELD(field, metric, labels, type, help) stat_t field;
    DOOR_STATS(STATS_FIELD)
#undef STATS_FIELD
    stat_t faults[TLS_HANDSHAKE_FAULT_COUNT]; /* holdfast_handshakes_total{result=label} */
    stat_t tokens[TOKEN_STATUS_COUNT];        /* holdfast_tokens_total{kind="login",result=label} */
    stat_t resume_tokens[TOKEN_STATUS_COUNT]; /* the same, kind="resume" */
    stat_t errors[DOOR_CODES];                /* holdfast_door_errors_total{code=label} */
};

/*
 * director_internal: what the files of the director share.
 */
#pragma once

#include "loadgen/director.h"

/* Waits up to 50 ms for a signal, then looks at all counts and tells what changed. */
void director_look(struct director *director);

/* The same order to all, and waits until they have carried it out. */
void director_order(struct director *director, const struct swarm_order *order);
void director_order_kind(struct director *director, enum swarm_order_kind kind);

/* Worse codes win: EX_DATAERR, then EX_UNAVAILABLE, then void, then interrupted. */
void director_fail(struct director *director, int exit_code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Dials, handshakes and HELLOs that failed, for whatever reason. */
uint64_t director_failures(const struct crowd_counts *counts);

pid_t director_server_pid(const struct director *director);

/* False: the run can't go on. */
bool director_step(struct director *director, const struct step *step)
    __attribute__((warn_unused_result));

bool director_traffic(struct director *director, const struct step *step)
    __attribute__((warn_unused_result));

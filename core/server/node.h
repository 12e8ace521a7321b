/*
 * node: a whole process: assembles it from a configuration, runs it until a signal ends it, takes
 * it down. Starting, in order: keys and certificate, data directory, recovery, then for each core
 * flusher, reader, reactor, door. Ending by SIGTERM or SIGINT: doors let nobody in, clients are
 * told to leave (GOAWAY), and when they have, or after drain_timeout_s, the rest is stopped; a
 * second signal stops at once. SIGHUP reads keys and certificate anew.
 *
 * Owner    The main thread.
 * Thread   The main thread, which afterwards serves signals, logs, /metrics, and the rotation of
 *          keys. All signals of the process are its: the others have them blocked.
 * Memory   Everything is given back by node_run.
 * Errors   Exit codes of sysexits.h: EX_CONFIG, EX_NOINPUT, EX_NOPERM, EX_UNAVAILABLE (an address
 *          or io_uring can't be had), EX_TEMPFAIL (another server has the directory), EX_IOERR (the
 *          disk failed: nothing more was promised). What happened is the last line of the log.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "core/base/error.h"
#include "core/server/config.h"

/* Serves. Returns the exit code. */
int node_run(const struct config *config) __attribute__((warn_unused_result));

/*
 * After a backup was put in the place of the data directory: replays its journals and raises the
 * epoch of all logs, so that clients forget the numbers that they were given since. Serves nobody.
 * Returns the exit code; whatever it is, it may be called again.
 */
int node_restore(const struct config *config) __attribute__((warn_unused_result));

/*
 * Whether node_run would come as far as recovery, without changing anything: configuration, keys,
 * certificate, io_uring, and what can be seen of the data directory.
 */
bool node_check(const struct config *config, struct hf_error *error)
    __attribute__((warn_unused_result));

/* Versions of the program and its libraries, one a line. */
void node_print_version(FILE *file);

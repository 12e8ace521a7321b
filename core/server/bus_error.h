/*
 * bus_error: a page of a mapped file that can't be read comes as SIGBUS: volumes are read that way.
 * The process ends as after any other failed read: with a line that names the file, and EX_IOERR.
 *
 * Owner    The process.
 * Thread   bus_error_watch: the node's, before others start. The signal comes in the thread that
 *          touched the page, inside the library that reads volumes: no lock of the log's is held.
 * Errors   struct hf_error. A SIGBUS that no file explains ends the process as it always did.
 */
#pragma once

#include <stdbool.h>

#include "core/base/error.h"

bool bus_error_watch(struct hf_error *error) __attribute__((warn_unused_result));

/*
 * settle: what a log can't know by itself. A process that is killed leaves writes of which nobody
 * heard the end: before the next one starts, what became of them is read from the files, and goes
 * into the log as writes of their own, which no sync has paid for.
 *
 * Thread   One; no server has the directory.
 * Errors   The exit code; messages on standard output.
 */
#pragma once

int settle(const char *log, const char *folder);
/* Whether the log, carried out, gives the directory byte for byte: nothing was missed. */
int settle_compare(const char *log, const char *folder);

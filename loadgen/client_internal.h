/*
 * client_internal: what client.c and client_feed.c share.
 */
#pragma once

#include "loadgen/client.h"

void client_fault(struct crowd *crowd, const struct client *client, enum ledger_fault fault,
                  enum ledger_side side, uint64_t number);

enum client_verdict client_on_entries(struct crowd *crowd, struct client *client,
                                      const struct frame_view *view);

/*
 * client_internal: what client.c and client_feed.c share.
 */
#pragma once

#include "loadgen/client.h"

void client_fault(struct crowd *crowd, const struct client *client, enum ledger_fault fault,
                  enum ledger_side side, uint64_t number);

/* The newest page of the pair's conversation: asked for, written to `to`; and its answer. */
size_t client_put_history(const struct crowd *crowd, struct client *client, uint8_t *to,
                          size_t cap);
enum client_verdict client_on_page(struct crowd *crowd, struct client *client,
                                   const struct frame_view *view);

enum client_verdict client_on_entries(struct crowd *crowd, struct client *client,
                                      const struct frame_view *view);

/*
 * two_homes: two hosts, a sender at home on one, receivers on the other.
 */
#pragma once

#include "tests/unit/engine/host.h"

/* A at home on one host, B and C, of one partition, on the other. */
struct two {
    struct world world;
    struct host *ha, *hb;
    struct user_id a, b, c;
    struct host_conn *ca, *cb;
};

void two_open(struct two *two, void (*change)(struct engine_config *config));
void two_log_in_b(struct two *two);
/* Both, with nothing changed. */
void two_open_with_b(struct two *two);
/* While nothing else happens. */
void two_log_in_b_alone(struct two *two);
/* Until A's host has given its stream frames, but nothing of them was delivered. */
void two_offer_and_send(struct two *two);
void two_close(struct two *two);
size_t two_ended(const struct two *two);
/* The exceptions of the last STREAM_ACK towards that host, as "R1 B2". */
void host_expect_ack(const struct host *host, uint64_t up_to, const char *exceptions);
void host_deliver_all(struct host *host);

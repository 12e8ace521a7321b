/*
 * tls_server: the model of a server behind a real socket and real TLS, stepped by the test between
 * the steps of the client: one thread, one connection at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/client/model.h"

struct test_server;

/* On a free port of ::1 or 127.0.0.1. */
struct test_server *test_server_open(struct model *model, bool ipv6);
void test_server_close(struct test_server *server);

/* "127.0.0.1:40123", and the authority that its certificate ends in. */
const char *test_server_address(const struct test_server *server);
const char *test_server_ca(const struct test_server *server);

/* Of another authority. */
const char *test_server_stranger(const struct test_server *server);

/* Accepts, shakes hands, serves: whatever can be done now. True: something was done. */
bool test_server_step(struct test_server *server);

/* The next connection is cut without a word when so many bytes went down, or up; SIZE_MAX: never. */
void test_server_cut_after(struct test_server *server, size_t down_bytes, size_t up_bytes);

/* Down: at most so many bytes at a time. */
void test_server_chop(struct test_server *server, size_t byte_count);

/* Bytes of all connections so far. */
size_t test_server_down(const struct test_server *server);
size_t test_server_up(const struct test_server *server);

unsigned test_server_connections(const struct test_server *server);
unsigned test_server_resumed(const struct test_server *server);
unsigned test_server_byes(const struct test_server *server);

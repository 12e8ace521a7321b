/*
 * reactor_world: a reactor with connections, rings and cells, but neither engine nor store, for tests
 * of what it does by itself.
 *
 * Owner    A test: *state is the struct reactor_world.
 * Thread   The test's.
 * Errors   A failed assertion of cmocka's.
 */
#pragma once

#include "core/server/reactor_internal.h"

#define REACTOR_WORLD_CONNS 100
#define REACTOR_WORLD_CELLS 8 /* of each class, for input and for output */

struct reactor_world {
    struct config config;
    struct post post;
    struct reactor reactor;
};

int reactor_world_open(void **state);
int reactor_world_close(void **state);

/* A connection that isn't in the ring's table: what is asked of the kernel about it fails. */
uint32_t reactor_world_add(struct reactor_world *world, enum conn_state conn_state);

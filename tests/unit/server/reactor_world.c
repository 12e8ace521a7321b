#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "tests/unit/server/reactor_world.h"

int reactor_world_open(void **state)
{
    struct reactor_world *world = aligned_alloc(64, (sizeof *world + 63) / 64 * 64);
    const uint32_t counts[CELL_CLASSES] = { REACTOR_WORLD_CELLS, REACTOR_WORLD_CELLS,
                                            REACTOR_WORLD_CELLS };
    const struct ring_group_config group = {
        .files = REACTOR_WORLD_CONNS,
        .recv_buffers_bytes = 64 * 1024,
        .recv_buffer_bytes = 4096,
    };
    struct hf_error error = { 0 };

    assert_non_null(world);
    memset(world, 0, sizeof *world);

    struct reactor *reactor = &world->reactor;

    config_init(&world->config);
    assert_true(post_open(&world->post, 1, &world->config, &error));
    reactor->config = &world->config;
    reactor->post = &world->post;
    reactor->mail = &world->post.cores[0];
    reactor->start_ns = clock_now_ns();
    reactor->now_ns = reactor->start_ns;
    reactor->now_s = 1;
    reactor->room_bytes = UINT64_MAX;
    reactor->pools = (struct link_pools){
        .in = { .cells = &reactor->input_cells },
        .out = { .cells = &reactor->cells },
        .tls = &reactor->tls,
    };
    if (!ring_group_open(&reactor->group, &group, &error) ||
        !ring_group_enable(&reactor->group, &error)) {
        fail_msg("%s", error.text);
    }
    assert_true(slab_open(&reactor->conns, sizeof(struct conn), REACTOR_WORLD_CONNS, 0, &error));
    assert_true(timers_open(&reactor->timers, REACTOR_WORLD_CONNS, CLOCK_NS_PER_MS, reactor->now_ns,
                            &error));
    assert_true(cells_noted_open(&reactor->cells, counts, &error));
    assert_true(cells_noted_open(&reactor->input_cells, counts, &error));
    assert_int_equal(tls_core_open(&reactor->tls, 8, &error), 0);
    assert_true(slot_queue_open(&reactor->dirty, REACTOR_WORLD_CONNS));
    assert_true(slot_queue_open(&reactor->again, REACTOR_WORLD_CONNS));
    assert_true(slot_queue_open(&reactor->roomless, REACTOR_WORLD_CONNS));
    assert_true(slot_queue_open(&reactor->cellless, REACTOR_WORLD_CONNS));
    assert_true(slot_queue_open(&reactor->forget, REACTOR_WORLD_CONNS));
    assert_true(slot_queue_open(&reactor->leaving, REACTOR_WORLD_CONNS));
    *state = world;
    return 0;
}

int reactor_world_close(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;

    ring_group_close(&reactor->group);
    slab_close(&reactor->conns);
    timers_close(&reactor->timers);
    cells_close(&reactor->cells);
    cells_close(&reactor->input_cells);
    tls_core_close(&reactor->tls);
    slot_queue_close(&reactor->dirty);
    slot_queue_close(&reactor->again);
    slot_queue_close(&reactor->roomless);
    slot_queue_close(&reactor->cellless);
    slot_queue_close(&reactor->forget);
    slot_queue_close(&reactor->leaving);
    post_close(&world->post);
    free(world);
    return 0;
}

uint32_t reactor_world_add(struct reactor_world *world, enum conn_state conn_state)
{
    const uint32_t slot = slab_take(&world->reactor.conns);

    assert_int_not_equal(slot, SLAB_NONE);
    struct conn *conn = reactor_conn(&world->reactor, slot);
    conn->state = (uint8_t)conn_state;
    conn->file = slot;
    conn->expires_at_s = UINT32_MAX;
    return slot;
}

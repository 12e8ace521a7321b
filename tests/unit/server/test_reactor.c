/* What a reactor does with its connections by itself: here it has no engine and no store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "core/server/reactor_internal.h"
#include "proto/message.h"

#define CONNS 100
#define FEW   8 /* cells of each kind */

struct world {
    struct config config;
    struct post post;
    struct reactor reactor;
};

static int open_world(void **state)
{
    struct world *world = aligned_alloc(64, (sizeof *world + 63) / 64 * 64);
    const uint32_t counts[CELL_CLASSES] = { FEW, FEW, FEW };
    const struct ring_group_config group = {
        .files = CONNS,
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
    reactor->pools = (struct link_pools){ &reactor->cells, &reactor->tls };
    if (!ring_group_open(&reactor->group, &group, &error) ||
        !ring_group_enable(&reactor->group, &error)) {
        fail_msg("%s", error.text);
    }
    assert_true(slab_open(&reactor->conns, sizeof(struct conn), CONNS, 0, &error));
    assert_true(timers_open(&reactor->timers, CONNS, CLOCK_NS_PER_MS, reactor->now_ns, &error));
    assert_true(cells_open(&reactor->cells, counts, &error));
    assert_int_equal(tls_core_open(&reactor->tls, 8, &error), 0);
    assert_true(slot_queue_open(&reactor->dirty, CONNS));
    assert_true(slot_queue_open(&reactor->again, CONNS));
    assert_true(slot_queue_open(&reactor->roomless, CONNS));
    assert_true(slot_queue_open(&reactor->forget, CONNS));
    assert_true(slot_queue_open(&reactor->leaving, CONNS));
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    struct world *world = *state;
    struct reactor *reactor = &world->reactor;

    ring_group_close(&reactor->group);
    slab_close(&reactor->conns);
    timers_close(&reactor->timers);
    cells_close(&reactor->cells);
    tls_core_close(&reactor->tls);
    slot_queue_close(&reactor->dirty);
    slot_queue_close(&reactor->again);
    slot_queue_close(&reactor->roomless);
    slot_queue_close(&reactor->forget);
    slot_queue_close(&reactor->leaving);
    post_close(&world->post);
    free(world);
    return 0;
}

static uint32_t add_conn(struct world *world, enum conn_state conn_state)
{
    const uint32_t slot = slab_take(&world->reactor.conns);

    assert_int_not_equal(slot, SLAB_NONE);
    struct conn *conn = reactor_conn(&world->reactor, slot);
    conn->state = (uint8_t)conn_state;
    conn->file = slot;
    conn->expires_at_s = UINT32_MAX;
    return slot;
}

/* What was queued leaves at once; returns how many connections had something. */
static uint32_t send_all(struct world *world, uint32_t told[CONNS])
{
    struct reactor *reactor = &world->reactor;
    uint32_t count = 0;
    uint32_t slot;

    while ((slot = slot_queue_take(&reactor->dirty)) != SLAB_NONE) {
        struct conn *conn = reactor_conn(reactor, slot);

        assert_int_equal(conn->state, CONN_LIVE);
        assert_int_not_equal(conn->link.out_bytes[0], 0);
        conn->flags &= (uint16_t)~CONN_DIRTY;
        conn->link.out_bytes[0] = 0;
        cells_give(&reactor->cells, conn->link.out[0]);
        conn->link.out[0] = CELL_NONE;
        told[slot]++;
        count++;
    }
    return count;
}

static void crowd_larger_than_the_cells_is_told_to_leave_without_losing_any(void **state)
{
    struct world *world = *state;
    uint32_t told[CONNS] = { 0 };
    uint32_t all = 0;

    for (uint32_t i = 0; i < CONNS; i++) {
        (void)add_conn(world, CONN_LIVE);
    }
    reactor_begin_drain(&world->reactor, world->reactor.now_ns + CLOCK_NS_PER_S);
    for (uint32_t turns = 0; turns < CONNS; turns++) {
        reactor_run_timers(&world->reactor);
        all += send_all(world, told);
    }
    assert_int_equal(all, CONNS);
    for (uint32_t slot = 0; slot < CONNS; slot++) {
        assert_int_equal(told[slot], 1);
        assert_int_equal(reactor_conn(&world->reactor, slot)->state, CONN_LIVE);
    }
}

static struct ring_event poll_event(struct world *world, uint32_t slot)
{
    return (struct ring_event){
        .tag = ring_tag(OP_POLL, slot, slab_generation(&world->reactor.conns, slot)),
        .result = 1,
        .flags = IORING_CQE_F_MORE,
    };
}

static bool is_receiving(struct world *world, uint32_t slot)
{
    return (reactor_conn(&world->reactor, slot)->flags & CONN_RECEIVING) != 0;
}

/* Else a receive would come between, and what is kept grow beyond its cell. */
static void readable_connection_is_not_received_from_before_its_kept_input_goes_on(void **state)
{
    struct world *world = *state;
    const uint32_t slot = add_conn(world, CONN_LIVE);
    struct ring_event event = poll_event(world, slot);

    reactor_run_again_later(&world->reactor, slot); /* as when the engine unblocks it */
    reactor_on_poll(&world->reactor, &event);
    assert_false(is_receiving(world, slot));
    reactor_run_again(&world->reactor);
    assert_true(is_receiving(world, slot));
}

/* Or a crowd that goes on writing would keep the journal from ever being idle. */
static void nothing_is_received_after_stop(void **state)
{
    struct world *world = *state;
    const uint32_t slot = add_conn(world, CONN_LIVE);
    struct ring_event event = poll_event(world, slot);

    world->reactor.stopping = true;
    reactor_on_poll(&world->reactor, &event);
    assert_false(is_receiving(world, slot));
    reactor_run_again_later(&world->reactor, slot);
    reactor_run_again(&world->reactor);
    assert_false(is_receiving(world, slot));
}

static void engine_says_nothing_behind_the_last_words(void **state)
{
    struct world *world = *state;
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = add_conn(world, CONN_LIVE);
    const struct conn *conn = reactor_conn(reactor, slot);
    const uint8_t frame[FRAME_HEADER_BYTES] = { 0, 0, 0, FRAME_TYPE_ENTRIES };

    reactor_end(reactor, slot, CODE_IDLE);
    const uint32_t queued = conn->link.out_bytes[0];
    assert_int_not_equal(queued, 0);
    reactor_put_frame(reactor, slot, frame, sizeof frame, true);
    assert_int_equal(conn->link.out_bytes[0], queued);
    assert_int_equal(conn->state, CONN_ENDING);
}

/* A door that hears OK waits for MAIL_LEFT before it counts the address's connection off. */
static void record_of_a_grant_that_ran_out_comes_back_as_not_adopted(void **state)
{
    struct world *world = *state;
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = add_conn(world, CONN_GRANTED);
    struct conn_frozen frozen = { .version = CONN_FROZEN_VERSION };
    const struct mail adopt = {
        .kind = MAIL_ADOPT,
        .conn_slot = slot,
        .conn_generation = slab_generation(&reactor->conns, slot),
        .bytes = &frozen,
    };

    assert_int_equal(ring_group_take_file(&reactor->group), 0);
    timers_set(&reactor->timers, slot, reactor->now_ns);
    reactor_adopt(reactor, &adopt);
    reactor->now_ns += CLOCK_NS_PER_S;
    reactor_run_timers(reactor);

    const struct mail *back = mailbox_take(&world->post.cores[0].reactor_to_door[0]);

    assert_non_null(back);
    assert_int_equal(back->kind, MAIL_ADOPT_RETURN);
    assert_ptr_equal(back->bytes, &frozen);
    assert_int_not_equal(back->code, CODE_OK);
    assert_false(slab_alive(&reactor->conns, slot));
}

#define TEST_OF(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_OF(crowd_larger_than_the_cells_is_told_to_leave_without_losing_any),
        TEST_OF(readable_connection_is_not_received_from_before_its_kept_input_goes_on),
        TEST_OF(nothing_is_received_after_stop),
        TEST_OF(engine_says_nothing_behind_the_last_words),
        TEST_OF(record_of_a_grant_that_ran_out_comes_back_as_not_adopted),
    };

    return cmocka_run_group_tests_name("server/reactor", tests, NULL, NULL);
}

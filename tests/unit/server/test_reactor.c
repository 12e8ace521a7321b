/* What a reactor does with its connections by itself: here it has no engine and no store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "proto/message.h"
#include "tests/unit/server/reactor_world.h"

/* What was queued leaves at once; returns how many connections had something. */
static uint32_t send_all(struct reactor_world *world, uint32_t told[REACTOR_WORLD_CONNS])
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
    struct reactor_world *world = *state;
    uint32_t told[REACTOR_WORLD_CONNS] = { 0 };
    uint32_t all = 0;

    for (uint32_t i = 0; i < REACTOR_WORLD_CONNS; i++) {
        (void)reactor_world_add(world, CONN_LIVE);
    }
    reactor_begin_drain(&world->reactor, world->reactor.now_ns + CLOCK_NS_PER_S);
    for (uint32_t turns = 0; turns < REACTOR_WORLD_CONNS; turns++) {
        reactor_run_timers(&world->reactor);
        all += send_all(world, told);
    }
    assert_int_equal(all, REACTOR_WORLD_CONNS);
    for (uint32_t slot = 0; slot < REACTOR_WORLD_CONNS; slot++) {
        assert_int_equal(told[slot], 1);
        assert_int_equal(reactor_conn(&world->reactor, slot)->state, CONN_LIVE);
    }
}

static struct ring_event poll_event(struct reactor_world *world, uint32_t slot)
{
    return (struct ring_event){
        .tag = ring_tag(OP_POLL, slot, slab_generation(&world->reactor.conns, slot)),
        .result = 1,
        .flags = IORING_CQE_F_MORE,
    };
}

static bool is_receiving(struct reactor_world *world, uint32_t slot)
{
    return (reactor_conn(&world->reactor, slot)->flags & CONN_RECEIVING) != 0;
}

/* Else a receive would come between, and what is kept grow beyond its cell. */
static void readable_connection_is_not_received_from_before_its_kept_input_goes_on(void **state)
{
    struct reactor_world *world = *state;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);
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
    struct reactor_world *world = *state;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);
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
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);
    const struct conn *conn = reactor_conn(reactor, slot);
    const uint8_t frame[FRAME_HEADER_BYTES] = { 0, 0, 0, FRAME_TYPE_ENTRIES };

    reactor_end(reactor, slot, CODE_IDLE);
    const uint32_t queued = conn->link.out_bytes[0];
    assert_int_not_equal(queued, 0);
    reactor_put_frame(reactor, slot, frame, sizeof frame, true);
    assert_int_equal(conn->link.out_bytes[0], queued);
    assert_int_equal(conn->state, CONN_ENDING);
}

static void alert_waits_for_what_is_queued(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);
    const struct conn *conn = reactor_conn(reactor, slot);
    const uint8_t frame[FRAME_HEADER_BYTES] = { 0, 0, 0, FRAME_TYPE_ENTRIES };

    reactor_put_frame(reactor, slot, frame, sizeof frame, true);
    reactor_end_by_alert(reactor, slot, TLS_ALERT_BAD_RECORD_MAC);
    assert_int_equal(conn->state, CONN_ENDING);
    assert_int_equal(conn->link.out_bytes[0], sizeof frame);
    assert_int_equal(conn->alert, TLS_ALERT_BAD_RECORD_MAC);
    assert_true((conn->flags & CONN_DIRTY) != 0);
}

/* Who has ended its own direction may still read ours. */
static void end_of_the_stream_does_not_cut_off_the_last_words(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    const uint32_t ending = reactor_world_add(world, CONN_LIVE);
    const uint32_t reset = reactor_world_add(world, CONN_LIVE);

    reactor_end_by_alert(reactor, ending, TLS_ALERT_BAD_RECORD_MAC);
    reactor_end_by_alert(reactor, reset, TLS_ALERT_BAD_RECORD_MAC);

    struct ring_event event = {
        .tag = ring_tag(OP_RECV, ending, slab_generation(&reactor->conns, ending)),
        .result = 0,
    };

    reactor_on_recv(reactor, &event);
    assert_int_equal(reactor_conn(reactor, ending)->state, CONN_ENDING);
    assert_true((reactor_conn(reactor, ending)->flags & CONN_PEER_DONE) != 0);

    event.tag = ring_tag(OP_RECV, reset, slab_generation(&reactor->conns, reset));
    event.result = -ECONNRESET;
    reactor_on_recv(reactor, &event);
    assert_int_equal(reactor_conn(reactor, reset)->state, CONN_CLOSING);
}

/* A door that hears OK waits for MAIL_LEFT before it counts the address's connection off. */
static void record_of_a_grant_that_ran_out_comes_back_as_not_adopted(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = reactor_world_add(world, CONN_GRANTED);
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

#define TEST_OF(name) cmocka_unit_test_setup_teardown(name, reactor_world_open, reactor_world_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_OF(crowd_larger_than_the_cells_is_told_to_leave_without_losing_any),
        TEST_OF(readable_connection_is_not_received_from_before_its_kept_input_goes_on),
        TEST_OF(nothing_is_received_after_stop),
        TEST_OF(engine_says_nothing_behind_the_last_words),
        TEST_OF(alert_waits_for_what_is_queued),
        TEST_OF(end_of_the_stream_does_not_cut_off_the_last_words),
        TEST_OF(record_of_a_grant_that_ran_out_comes_back_as_not_adopted),
    };

    return cmocka_run_group_tests_name("server/reactor", tests, NULL, NULL);
}

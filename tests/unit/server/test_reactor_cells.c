/* Who gives way when cells are short: here there are eight of each class. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "core/base/bytes.h"
#include "core/server/config.h"
#include "proto/message.h"
#include "tests/unit/server/reactor_world.h"

/* A connection of that user which has begun a frame, or has one put back, since then. */
static uint32_t add_holder(struct reactor_world *world, uint64_t user, uint32_t since_s)
{
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);
    struct conn *conn = reactor_conn(reactor, slot);
    const uint8_t head[3] = { 0, 1, 0 };

    conn->user = (struct user_id){ user };
    reactor->pools.in.taker = conn_note(reactor, conn, slot);
    assert_true(link_keep_plain(&reactor->pools, &conn->link, head, sizeof head));
    link_note_input(&reactor->pools, &conn->link, since_s);
    return slot;
}

static uint8_t state_of(struct reactor_world *world, uint32_t slot)
{
    return reactor_conn(&world->reactor, slot)->state;
}

static void longest_holder_of_input_yields_as_busy_when_cells_are_short(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    uint32_t slots[6];

    for (uint32_t i = 0; i < 6; i++) {
        slots[i] = add_holder(world, 100 + i, 10 - i);
    }
    reactor->now_s = 20;
    reactor_yield_cells(reactor); /* two are free: that's enough */
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(state_of(world, slots[i]), CONN_LIVE);
    }
    (void)add_holder(world, 200, 19);
    reactor_yield_cells(reactor);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(state_of(world, slots[i]), CONN_LIVE);
    }
    assert_int_equal(state_of(world, slots[5]), CONN_ENDING);
    assert_int_equal(reactor_conn(reactor, slots[5])->error, CODE_BUSY);
    assert_false(link_has_input(&reactor_conn(reactor, slots[5])->link));
    assert_int_equal(cells_free(&reactor->input_cells, CELL_SMALL), 2);
    assert_int_equal(stat_get(&reactor->stats.yields_input), 1);
}

static void nobody_yields_who_has_held_for_a_moment_or_waits_for_the_server(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;

    reactor->now_s = 20;
    for (uint32_t i = 0; i < 8; i++) {
        (void)add_holder(world, 100 + i, i < 4 ? 18 : CELL_SINCE_NEVER);
    }
    reactor_yield_cells(reactor);
    assert_int_equal(stat_get(&reactor->stats.yields_input), 0);
    reactor->now_s = 21;
    reactor_yield_cells(reactor);
    assert_int_equal(stat_get(&reactor->stats.yields_input), 2);
}

static void user_beyond_its_share_yields_first_and_at_once(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    uint32_t greedy[2];

    reactor->now_s = 20;
    for (uint32_t i = 0; i < 5; i++) {
        (void)add_holder(world, 100 + i, 3);
    }
    greedy[0] = add_holder(world, 666, 19);
    greedy[1] = add_holder(world, 666, 20);
    reactor_yield_cells(reactor);
    assert_int_equal(state_of(world, greedy[0]), CONN_ENDING);
    assert_int_equal(state_of(world, greedy[1]), CONN_LIVE);
    assert_int_equal(stat_get(&reactor->stats.yields_input), 1);
}

/* ---- what is received */

struct peer {
    struct tls_core tls;
    struct tls_keys keys;
};

static uint32_t add_peer(struct reactor_world *world, struct peer *peer)
{
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);
    struct conn *conn = reactor_conn(reactor, slot);
    uint8_t up[TLS_SECRET_BYTES_MAX];
    uint8_t down[TLS_SECRET_BYTES_MAX];
    struct hf_error error;

    memset(up, 1, sizeof up);
    memset(down, 2, sizeof down);
    conn->user = (struct user_id){ 7 };
    conn->frames_left = 1000;
    conn->bytes_left = UINT32_MAX;
    conn->budget_at_s = reactor->now_s;
    assert_int_equal(tls_core_open(&peer->tls, 2, &error), 0);
    assert_true(tls_keys_init(&conn->link.keys, AEAD_AES_128_GCM_SHA256, false, up, down));
    assert_true(tls_keys_init(&peer->keys, AEAD_AES_128_GCM_SHA256, true, down, up));
    return slot;
}

static size_t seal(struct peer *peer, const uint8_t *plain, size_t plain_bytes, uint8_t *sealed,
                   size_t room)
{
    const struct iovec part = { (void *)(uintptr_t)plain, plain_bytes };
    const size_t sealed_bytes = tls_record_seal(&peer->tls, &peer->keys, &part, 1, sealed, room);

    assert_int_not_equal(sealed_bytes, 0);
    return sealed_bytes;
}

/* As the kernel: into a receive buffer. Each buffer is used once in a test. */
static void receive(struct reactor_world *world, uint32_t slot, uint16_t buffer,
                    const uint8_t *bytes, size_t byte_count)
{
    struct recv_buffers *buffers = &world->reactor.group.recv_buffers[0];
    struct ring_event event = {
        .tag = ring_tag(OP_RECV, slot, slab_generation(&world->reactor.conns, slot)),
        .result = (int32_t)byte_count,
        .flags = IORING_CQE_F_BUFFER | (uint32_t)buffer << IORING_CQE_BUFFER_SHIFT,
    };
    uint16_t same;

    memcpy(recv_buffers_take(buffers, &event, &same), bytes, byte_count);
    buffers->held--; /* the reactor takes it */
    reactor_on_recv(&world->reactor, &event);
}

#define PONG_BYTES PING_FRAME_BYTES

static size_t put_pong(uint8_t frame[PONG_BYTES])
{
    const struct message_ping pong = { 5 };

    return message_encode_pong(frame, PONG_BYTES, &pong);
}

static void begun_frame_is_ended_within_its_deadline_or_its_connection_is(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    struct peer peer;
    const uint32_t slot = add_peer(world, &peer);
    const struct conn *conn = reactor_conn(reactor, slot);
    uint8_t frame[PONG_BYTES];
    uint8_t sealed[256];
    const size_t n = seal(&peer, frame, put_pong(frame), sealed, sizeof sealed);

    receive(world, slot, 0, sealed, 10);
    assert_int_equal(conn->partial_since_s, 1);
    receive(world, slot, 1, sealed + 10, n - 10);
    assert_int_equal(conn->partial_since_s, 0);
    assert_int_equal(stat_get(&reactor->stats.frames_received), 1);

    const size_t m = seal(&peer, frame, put_pong(frame), sealed, sizeof sealed);
    const uint64_t timeout_s = world->config.partial_timeout_s;

    for (uint32_t i = 0; i < m - 1; i++) { /* a byte now and then doesn't prolong it */
        reactor->now_s = (uint32_t)(1 + i * timeout_s / m);
        reactor->now_ns = reactor->start_ns + (reactor->now_s - 1) * CLOCK_NS_PER_S;
        receive(world, slot, (uint16_t)(2 + i % 8), sealed + i, 1);
        reactor_run_timers(reactor);
        assert_int_equal(conn->state, CONN_LIVE);
    }
    reactor->now_s = (uint32_t)(timeout_s + 2);
    reactor->now_ns = reactor->start_ns + (timeout_s + 2) * CLOCK_NS_PER_S;
    reactor_run_timers(reactor);
    assert_int_equal(conn->state, CONN_ENDING);
    assert_int_equal(conn->error, CODE_IDLE);
    assert_int_equal(stat_get(&reactor->stats.partial_closed), 1);
    assert_int_equal(stat_get(&reactor->stats.idle_closed), 0);
    assert_int_equal(cells_free(&reactor->input_cells, CELL_SMALL), REACTOR_WORLD_CELLS);
    tls_core_close(&peer.tls);
}

static void what_finds_no_cell_waits_in_its_buffer_until_there_is_one(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    struct peer peer;
    const uint32_t slot = add_peer(world, &peer);
    const struct conn *conn = reactor_conn(reactor, slot);
    const struct recv_buffers *buffers = &reactor->group.recv_buffers[0];
    struct cell hogs[REACTOR_WORLD_CELLS];
    uint8_t frame[PONG_BYTES];
    uint8_t sealed[256];
    const size_t n = seal(&peer, frame, put_pong(frame), sealed, sizeof sealed);

    for (uint32_t i = 0; i < REACTOR_WORLD_CELLS; i++) {
        hogs[i] = cells_take(&reactor->input_cells, 1);
    }
    receive(world, slot, 0, sealed, 10);
    assert_int_equal(conn->state, CONN_LIVE);
    assert_int_equal(conn->held_bytes, 10);
    assert_int_equal(buffers->held, 1);
    reactor_release_cellless(reactor); /* in vain: it waits on */
    reactor_run_again(reactor);
    assert_int_equal(conn->held_bytes, 10);
    assert_int_equal(buffers->held, 1);
    for (uint32_t i = 0; i < REACTOR_WORLD_CELLS; i++) {
        cells_give(&reactor->input_cells, hogs[i]);
    }
    reactor_release_cellless(reactor);
    reactor_run_again(reactor);
    assert_int_equal(conn->held_bytes, 0);
    assert_int_equal(buffers->held, 0);
    assert_int_equal(conn->flags & (CONN_BLOCKED | CONN_CELLLESS), 0);
    receive(world, slot, 1, sealed + 10, n - 10);
    assert_int_equal(stat_get(&reactor->stats.frames_received), 1);
    tls_core_close(&peer.tls);
}

static void key_updates_use_up_the_budget_of_frames(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    struct peer peer;
    const uint32_t slot = add_peer(world, &peer);
    struct conn *conn = reactor_conn(reactor, slot);
    uint8_t frame[PONG_BYTES];
    uint8_t sealed[256];
    uint32_t updates = 0;

    conn->frames_left = 200;
    while (conn->state == CONN_LIVE) {
        tls_record_update(&peer.keys, false);
        const size_t n = seal(&peer, frame, put_pong(frame), sealed, sizeof sealed);
        receive(world, slot, (uint16_t)(updates % 8), sealed, n);
        updates++;
    }
    assert_int_equal(updates, 200 / 17 + 1); /* sixteen frames, and the one behind it */
    assert_int_equal(conn->error, CODE_BUSY);
    assert_int_equal(stat_get(&reactor->stats.limit_frames), 1);
    tls_core_close(&peer.tls);
}

static void budget_is_refilled_before_held_input_goes_on(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;
    struct peer peer;
    const uint32_t slot = add_peer(world, &peer);
    struct conn *conn = reactor_conn(reactor, slot);
    uint8_t frame[PONG_BYTES];
    uint8_t sealed[256];
    const size_t n = seal(&peer, frame, put_pong(frame), sealed, sizeof sealed);

    conn->frames_left = 0;
    conn->flags |= CONN_BLOCKED;
    receive(world, slot, 0, sealed, n);
    reactor->now_s += 100;
    conn->flags &= (uint16_t)~CONN_BLOCKED;
    reactor_run_again_later(reactor, slot);
    reactor_run_again(reactor);
    assert_int_equal(conn->state, CONN_LIVE);
    assert_int_equal(stat_get(&reactor->stats.frames_received), 1);
    tls_core_close(&peer.tls);
}

/* ---- output */

static uint32_t add_reader(struct reactor_world *world, uint64_t user)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    struct reactor *reactor = &world->reactor;
    const uint32_t slot = reactor_world_add(world, CONN_LIVE);

    reactor_conn(reactor, slot)->user = (struct user_id){ user };
    frame[3] = FRAME_TYPE_ENTRIES;
    store_be24(frame, sizeof frame - FRAME_HEADER_BYTES);
    reactor_put_frame(reactor, slot, frame, sizeof frame, true);
    return slot;
}

static void longest_holder_of_output_is_closed_when_cells_are_short(void **state)
{
    struct reactor_world *world = *state;
    struct reactor *reactor = &world->reactor;

    reactor->now_s = 10;
    const uint32_t old = add_reader(world, 1);
    reactor->now_s = 12;
    const uint32_t young = add_reader(world, 2);

    reactor_yield_cells(reactor);
    assert_int_equal(state_of(world, old), CONN_LIVE);
    reactor->now_s = 13;
    reactor_yield_cells(reactor);
    assert_int_equal(state_of(world, old), CONN_CLOSING);
    assert_int_equal(reactor_conn(reactor, old)->error, CODE_STALLED);
    assert_int_equal(state_of(world, young), CONN_LIVE);
    assert_int_equal(stat_get(&reactor->stats.yields_output), 1);
    reactor_yield_cells(reactor); /* its cell is on its way: nobody else yields for it */
    assert_int_equal(stat_get(&reactor->stats.yields_output), 1);
}

#define TEST_OF(name) cmocka_unit_test_setup_teardown(name, reactor_world_open, reactor_world_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_OF(longest_holder_of_input_yields_as_busy_when_cells_are_short),
        TEST_OF(nobody_yields_who_has_held_for_a_moment_or_waits_for_the_server),
        TEST_OF(user_beyond_its_share_yields_first_and_at_once),
        TEST_OF(begun_frame_is_ended_within_its_deadline_or_its_connection_is),
        TEST_OF(what_finds_no_cell_waits_in_its_buffer_until_there_is_one),
        TEST_OF(key_updates_use_up_the_budget_of_frames),
        TEST_OF(budget_is_refilled_before_held_input_goes_on),
        TEST_OF(longest_holder_of_output_is_closed_when_cells_are_short),
    };

    return cmocka_run_group_tests_name("server/reactor_cells", tests, NULL, NULL);
}

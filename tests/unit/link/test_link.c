/* Bytes in, frames out, whatever the splits, the blocks and the sizes; and the way back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/link/link.h"

#define FRAMES 12

struct world {
    struct cells cells;
    struct tls_core tls;
    struct tls_core peer_tls;
    struct link_pools pools;
    struct tls_keys peer; /* the client's end */
    struct link link;
    uint8_t stream[96 * 1024]; /* what the client sent, sealed */
    size_t stream_bytes;
};

static const uint32_t payloads[FRAMES] = { 0, 1, 100, 15996, 3, 4000, 12, 15000, 0, 700, 8000, 9 };

static uint8_t payload_byte(uint32_t frame, uint32_t at)
{
    return (uint8_t)(frame * 31 + at * 7);
}

static int open_world(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    struct hf_error error;
    const uint32_t counts[CELL_CLASSES] = { 8, 8, 8 };
    uint8_t up[TLS_SECRET_BYTES_MAX];
    uint8_t down[TLS_SECRET_BYTES_MAX];

    memset(up, 1, sizeof up);
    memset(down, 2, sizeof down);
    assert_true(cells_open(&world->cells, counts, &error));
    assert_int_equal(tls_core_open(&world->tls, 8, &error), 0);
    assert_int_equal(tls_core_open(&world->peer_tls, 8, &error), 0);
    world->pools = (struct link_pools){
        .in = { .cells = &world->cells },
        .out = { .cells = &world->cells },
        .tls = &world->tls,
    };
    assert_true(tls_keys_init(&world->link.keys, AEAD_AES_128_GCM_SHA256, false, up, down));
    assert_true(tls_keys_init(&world->peer, AEAD_AES_128_GCM_SHA256, true, down, up));
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    struct world *world = *state;

    link_drop(&world->pools, &world->link);
    for (int i = 0; i < CELL_CLASSES; i++) { /* every cell came back */
        assert_int_equal(world->cells.classes_[i].in_use, 0);
    }
    cells_close(&world->cells);
    tls_core_close(&world->tls);
    tls_core_close(&world->peer_tls);
    free(world);
    return 0;
}

static void seal(struct world *world, const uint8_t *bytes, size_t byte_count)
{
    const struct iovec part = { (void *)(uintptr_t)bytes, byte_count };
    const size_t sealed = tls_record_seal(&world->peer_tls, &world->peer, &part, 1,
                                          world->stream + world->stream_bytes,
                                          sizeof world->stream - world->stream_bytes);
    assert_int_not_equal(sealed, 0);
    world->stream_bytes += sealed;
}

/* All frames, in records of `record_bytes` of plaintext. */
static void send_frames(struct world *world, size_t record_bytes)
{
    uint8_t *plain = malloc(64 * (size_t)1024);
    size_t n = 0;

    for (uint32_t f = 0; f < FRAMES; f++) {
        store_be24(plain + n, payloads[f]);
        plain[n + 3] = (uint8_t)(200 + f);
        for (uint32_t i = 0; i < payloads[f]; i++) {
            plain[n + 4 + i] = payload_byte(f, i);
        }
        n += 4 + payloads[f];
    }
    for (size_t at = 0; at < n; at += record_bytes) {
        seal(world, plain + at, n - at < record_bytes ? n - at : record_bytes);
    }
    free(plain);
}

struct taker {
    uint32_t next;  /* frame that must come next */
    uint32_t block; /* every so many offers one is blocked; 0: none */
    uint32_t offers;
    bool blocked;
};

static void take(struct world *world, struct taker *taker, uint8_t *received, size_t byte_count)
{
    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;

    assert_int_equal(link_input_begin(&world->pools, &world->link, received, byte_count, &input),
                     LINK_NEXT_NONE);
    while (!taker->blocked) {
        const enum link_next next =
            link_input_next(&world->pools, &world->link, &input, &view, &opened);

        if (next == LINK_NEXT_NONE) {
            break;
        }
        assert_int_equal(next, LINK_NEXT_FRAME);
        assert_true(taker->next < FRAMES);
        assert_int_equal(view.type, 200 + taker->next);
        assert_int_equal(view.payload_bytes, payloads[taker->next]);
        for (uint32_t i = 0; i < view.payload_bytes; i++) {
            assert_int_equal(view.payload[i], payload_byte(taker->next, i));
        }
        taker->offers++;
        if (taker->block != 0 && taker->offers % taker->block == 0) {
            link_input_put_back(&world->link, &input);
            taker->blocked = true;
        } else {
            taker->next++;
        }
    }
    assert_true(link_input_end(&world->pools, &world->link, &input));
}

/* In pieces of `piece` bytes, each in memory of exactly its size. */
static void receive_all(struct world *world, struct taker *taker, size_t piece)
{
    for (size_t at = 0; at < world->stream_bytes;) {
        const size_t n = world->stream_bytes - at < piece ? world->stream_bytes - at : piece;
        uint8_t *received = malloc(n);

        memcpy(received, world->stream + at, n);
        take(world, taker, received, n);
        free(received);
        at += n;
        while (taker->blocked) { /* a blocked connection isn't read on */
            taker->blocked = false;
            take(world, taker, NULL, 0);
        }
    }
    assert_int_equal(taker->next, FRAMES);
    assert_false(link_has_input(&world->link));
}

static void frames_come_whole_whatever_the_records_and_pieces(void **state)
{
    static const size_t records[] = { 1000, 16384, 4096, 15999 };
    static const size_t pieces[] = { 4096, 1, 7, 100, 2048, 4095 };

    for (size_t r = 0; r < sizeof records / sizeof records[0]; r++) {
        for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
            for (uint32_t block = 0; block <= 3; block++) {
                struct world *world;
                struct taker taker = { .block = block == 1 ? 0 : block };

                (void)close_world(state);
                (void)open_world(state);
                world = *state;
                send_frames(world, records[r]);
                receive_all(world, &taker, pieces[p]);
            }
        }
    }
}

static void a_receive_in_flight_while_blocked_is_kept(void **state)
{
    struct world *world = *state;
    struct taker taker = { .block = 2 };

    send_frames(world, 1000);
    for (size_t at = 0; at < world->stream_bytes;) {
        const size_t n = world->stream_bytes - at < 4096 ? world->stream_bytes - at : 4096;
        uint8_t *received = malloc(n);

        memcpy(received, world->stream + at, n);
        take(world, &taker, received, n); /* stored whole if the one before ended blocked */
        free(received);
        at += n;
        if (at / 4096 % 2 == 0) {
            while (taker.blocked) {
                taker.blocked = false;
                take(world, &taker, NULL, 0);
            }
        }
    }
    while (taker.blocked) {
        taker.blocked = false;
        take(world, &taker, NULL, 0);
    }
    assert_int_equal(taker.next, FRAMES);
}

/* Kept are a whole record and the head of the next one; what comes then is worked off, not kept. */
static void received_bytes_go_on_behind_several_kept_records(void **state)
{
    struct world *world = *state;
    struct taker taker = { .block = 1 };
    size_t whole = 0;

    for (int i = 0; i < 5; i++) {
        const uint8_t numbered[4] = { 0, 0, 0, (uint8_t)(200 + i) };

        seal(world, numbered, sizeof numbered);
        whole = i == 0 ? world->stream_bytes : whole;
    }

    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;
    const size_t first = 2 * whole + 9; /* two records and a piece of the third */

    take(world, &taker, world->stream, first);
    assert_true(taker.blocked);
    assert_int_equal(link_input_begin(&world->pools, &world->link, world->stream + first,
                                      world->stream_bytes - first, &input),
                     LINK_NEXT_NONE);
    for (uint8_t i = 0; i < 5; i++) {
        assert_int_equal(link_input_next(&world->pools, &world->link, &input, &view, &opened),
                         LINK_NEXT_FRAME);
        assert_int_equal(view.type, 200 + i);
    }
    assert_int_equal(link_input_next(&world->pools, &world->link, &input, &view, &opened),
                     LINK_NEXT_NONE);
    assert_true(link_input_end(&world->pools, &world->link, &input));
    assert_false(link_has_input(&world->link));
}

static uint32_t random_below(uint64_t *state, uint32_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32) % limit;
}

/* Blocks at random frames; at most one receive comes in while blocked; whether the next call goes
 * on with new bytes or without is random too. */
static void any_order_of_blocks_and_receives_loses_nothing(void **state)
{
    static const uint32_t pieces[] = { 5, 30, 700, 4096 };
    static const uint32_t records[] = { 40, 1000, 5000, 16384 };

    for (uint64_t seed = 1; seed <= 200; seed++) {
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
        const uint32_t piece_max = pieces[random_below(&random, 4)];
        struct taker taker = { .block = 0 };
        bool received_while_blocked = false;
        struct world *world;
        size_t at = 0;

        (void)close_world(state);
        (void)open_world(state);
        world = *state;
        send_frames(world, records[random_below(&random, 4)]);
        while (at < world->stream_bytes || taker.blocked) {
            const bool wakes = taker.blocked && random_below(&random, 2) == 0;
            size_t n = random_below(&random, piece_max) + 1;

            n = n < world->stream_bytes - at ? n : world->stream_bytes - at;
            if (wakes || (taker.blocked && received_while_blocked)) {
                taker.blocked = false;
                n = random_below(&random, 2) == 0 ? 0 : n;
            }
            taker.block = random_below(&random, 3) == 0 ? 1 + random_below(&random, 3) : 0;
            received_while_blocked = taker.blocked;

            uint8_t *received = malloc(n + 1);

            memcpy(received, world->stream + at, n);
            take(world, &taker, n == 0 ? NULL : received, n);
            free(received);
            at += n;
        }
        if (taker.next != FRAMES) {
            fail_msg("seed %llu: %u frames", (unsigned long long)seed, taker.next);
        }
        assert_false(link_has_input(&world->link));
    }
}

static void a_frame_too_large_and_a_forged_record_are_told(void **state)
{
    struct world *world = *state;
    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;
    const uint8_t large[4] = { 0, 0x3e, 0x7d, 200 }; /* 15,997 */

    seal(world, large, sizeof large);
    assert_int_equal(
        link_input_begin(&world->pools, &world->link, world->stream, world->stream_bytes, &input),
        LINK_NEXT_NONE);
    assert_int_equal(link_input_next(&world->pools, &world->link, &input, &view, &opened),
                     LINK_NEXT_TOO_LARGE);
    link_drop_input(&world->pools, &world->link);

    world->stream_bytes = 0;
    seal(world, large, sizeof large);
    world->stream[world->stream_bytes - 1] ^= 1;
    assert_int_equal(
        link_input_begin(&world->pools, &world->link, world->stream, world->stream_bytes, &input),
        LINK_NEXT_NONE);
    assert_int_equal(link_input_next(&world->pools, &world->link, &input, &view, &opened),
                     LINK_NEXT_TLS_FAULT);
    assert_int_equal(opened.alert, TLS_ALERT_BAD_RECORD_MAC);
    link_drop_input(&world->pools, &world->link);
}

/* Opens at the client's end what the connection sealed, and appends the plaintext. */
static size_t open_sent(struct world *world, const uint8_t *sealed, size_t sealed_bytes,
                        uint8_t *plain)
{
    uint8_t *copy = malloc(sealed_bytes);
    struct tls_opened opened;
    size_t n = 0;

    memcpy(copy, sealed, sealed_bytes);
    for (size_t at = 0; at < sealed_bytes; at += opened.record_bytes) {
        tls_record_open(&world->peer_tls, &world->peer, copy + at, sealed_bytes - at, &opened);
        assert_true(opened.result == TLS_OPEN_DATA || opened.result == TLS_OPEN_HANDLED);
        if (opened.result == TLS_OPEN_DATA) {
            memcpy(plain + n, copy + at + opened.data_offset, opened.data_bytes);
            n += opened.data_bytes;
        }
    }
    free(copy);
    return n;
}

/* What the kernel was given: the bytes that the peer gets are those that link_unsent shows. */
struct kernel {
    uint8_t sealed[TLS_RECORD_BYTES_MAX + TLS_KEY_UPDATE_RECORD_BYTES];
    size_t sealed_bytes;
    uint8_t *got; /* by the peer, opened */
    size_t got_bytes;
    size_t counted_bytes;
};

static void send_queued(struct world *world)
{
    size_t sealed_bytes;
    size_t unsent_bytes;

    if (link_has_output(&world->link)) { /* else it queues behind what is being sent */
        const uint8_t *sealed = link_seal(&world->pools, &world->link, &sealed_bytes);

        assert_ptr_equal(link_unsent(&world->pools, &world->link, &unsent_bytes), sealed);
        assert_int_equal(unsent_bytes, sealed_bytes);
    }
}

/* At most 500 bytes a send. */
static void take_sent(struct world *world, struct kernel *kernel)
{
    while (world->link.sending) {
        size_t rest;
        size_t counted_bytes = 0;
        const uint8_t *unsent = link_unsent(&world->pools, &world->link, &rest);
        const size_t step = rest > 500 ? 500 : rest;

        assert_true(kernel->sealed_bytes + step <= sizeof kernel->sealed);
        memcpy(kernel->sealed + kernel->sealed_bytes, unsent, step);
        kernel->sealed_bytes += step;
        if (link_sent(&world->pools, &world->link, step, &counted_bytes)) {
            kernel->counted_bytes += counted_bytes;
            kernel->got_bytes += open_sent(world, kernel->sealed, kernel->sealed_bytes,
                                           kernel->got + kernel->got_bytes);
            kernel->sealed_bytes = 0;
            send_queued(world);
        }
    }
}

static void output_keeps_order_over_cells_and_short_sends(void **state)
{
    struct world *world = *state;
    struct kernel kernel = { .got = malloc(128 * (size_t)1024) };
    uint8_t *sent = malloc(128 * (size_t)1024);
    uint8_t frame[9000];
    size_t sent_bytes = 0;

    for (uint32_t round = 0; round < 6; round++) {
        if (round % 2 == 0) { /* records with a KeyUpdate before them, large ones too */
            tls_record_update(&world->link.keys, false);
        }
        for (uint32_t i = 0; i < 3; i++) {
            const size_t n = round == 0 && i == 0 ? 100 : 1000 * (i + 1) + round * 900;

            memset(frame, (int)(round * 16 + i), n);
            assert_true(link_put_frame(&world->pools, &world->link, frame, n, i == 1));
            memcpy(sent + sent_bytes, frame, n);
            sent_bytes += n;
            send_queued(world);
        }
        take_sent(world, &kernel);
    }
    assert_int_equal(world->tls.key_updates_sent, 3);
    assert_int_equal(kernel.got_bytes, sent_bytes);
    assert_memory_equal(kernel.got, sent, sent_bytes);
    assert_int_equal(kernel.counted_bytes, 6 * 2000 + 900 * (1 + 2 + 3 + 4 + 5));
    free(sent);
    free(kernel.got);
}

static void alert_behind_a_key_update_goes_out_whole(void **state)
{
    struct world *world = *state;
    struct kernel kernel = { .got = malloc(1024) };
    const uint8_t frame[4] = { 0, 0, 0, 200 };
    struct tls_opened opened;
    size_t sealed_bytes;
    size_t counted_bytes;

    tls_record_update(&world->link.keys, false);
    assert_true(link_put_frame(&world->pools, &world->link, frame, sizeof frame, false));
    send_queued(world);
    take_sent(world, &kernel);
    tls_record_update(&world->link.keys, false); /* due, but an alert needs none */

    const uint8_t *sealed =
        link_seal_alert(&world->pools, &world->link, TLS_ALERT_CLOSE_NOTIFY, &sealed_bytes);

    assert_non_null(sealed);
    assert_false(link_sent(&world->pools, &world->link, 3, &counted_bytes));
    assert_ptr_equal(link_unsent(&world->pools, &world->link, &kernel.sealed_bytes), sealed + 3);
    assert_int_equal(kernel.sealed_bytes, sealed_bytes - 3);
    memcpy(kernel.sealed, sealed, sealed_bytes);
    tls_record_open(&world->peer_tls, &world->peer, kernel.sealed, sealed_bytes, &opened);
    assert_int_equal(opened.result, TLS_OPEN_CLOSED);
    assert_int_equal(kernel.got_bytes, sizeof frame);
    free(kernel.got);
}

/* One round without blocks; *left_bytes: what found no cell. Frames are counted by the taker. */
static void take_or_leave(struct world *world, struct taker *taker, uint8_t *received,
                          size_t byte_count, size_t *left_bytes)
{
    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;

    *left_bytes = 0;
    if (link_input_begin(&world->pools, &world->link, received, byte_count, &input) !=
        LINK_NEXT_NONE) {
        assert_true(link_input_left(&input, left_bytes));
        return;
    }
    while (link_input_next(&world->pools, &world->link, &input, &view, &opened) ==
           LINK_NEXT_FRAME) {
        assert_int_equal(view.type, 200 + taker->next);
        taker->next++;
    }
    if (!link_input_end(&world->pools, &world->link, &input)) {
        assert_true(link_input_left(&input, left_bytes));
    }
}

static void a_header_and_one_byte_hold_the_smallest_cell(void **state)
{
    struct world *world = *state;
    struct taker taker = { 0 };

    send_frames(world, 16384);
    take(world, &taker, world->stream, TLS_RECORD_HEADER_BYTES + 1);
    assert_int_equal(cells_free(&world->cells, CELL_SMALL), 7);
    assert_int_equal(cells_free(&world->cells, CELL_LARGE), 8);
    take(world, &taker, world->stream + TLS_RECORD_HEADER_BYTES + 1, 3000);
    assert_int_equal(cells_free(&world->cells, CELL_SMALL), 8);
    assert_int_equal(cells_free(&world->cells, CELL_MEDIUM), 7);
    assert_int_equal(cells_free(&world->cells, CELL_LARGE), 8);
}

static void the_head_behind_a_large_record_leaves_the_large_cell(void **state)
{
    struct world *world = *state;
    struct taker taker = { 0 };

    send_frames(world, 16384);

    const size_t record_bytes = 16384 + TLS_RECORD_OVERHEAD;

    take(world, &taker, world->stream, record_bytes - 1);
    assert_int_equal(cells_free(&world->cells, CELL_LARGE), 7);
    take(world, &taker, world->stream + record_bytes - 1, 2); /* the next one's first byte too */
    assert_int_equal(cells_free(&world->cells, CELL_LARGE), 8);
}

/* Takes most cells of each class; returns how many. */
static uint32_t hog_cells(struct world *world, uint64_t *random, struct cell hogs[24])
{
    uint32_t count = 0;

    for (size_t size = CELL_SMALL_BYTES; size <= CELL_LARGE_BYTES; size *= 4) {
        while (count < 24 && random_below(random, 16) != 0) {
            hogs[count] = cells_take(&world->cells, size);
            if (cell_is_none(hogs[count])) {
                break;
            }
            count++;
        }
    }
    return count;
}

/* Each frame in a record of its own: then nothing but ciphertext has to be kept. */
static void send_frames_apart(struct world *world)
{
    static uint8_t plain[FRAME_BYTES_MAX];

    for (uint32_t f = 0; f < FRAMES; f++) {
        store_be24(plain, payloads[f]);
        plain[3] = (uint8_t)(200 + f);
        memset(plain + 4, (int)f, payloads[f]);
        seal(world, plain, 4 + payloads[f]);
    }
}

/* Nothing is lost, nothing is there twice, however often there is no cell. */
static void bytes_that_find_no_cell_are_left_and_may_come_again(void **state)
{
    uint32_t refusals = 0;

    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
        struct taker taker = { 0 };
        struct world *world;

        (void)close_world(state);
        (void)open_world(state);
        world = *state;
        send_frames_apart(world);
        for (size_t at = 0; at < world->stream_bytes;) {
            const size_t most = world->stream_bytes - at < 4096 ? world->stream_bytes - at : 4096;
            size_t n = random_below(&random, (uint32_t)most) + 1;
            uint8_t *received = malloc(n);
            struct cell hogs[24];
            size_t left_bytes;

            memcpy(received, world->stream + at, n);
            at += n;

            uint32_t hog_count = hog_cells(world, &random, hogs);

            take_or_leave(world, &taker, received, n, &left_bytes);
            while (hog_count > 0) {
                cells_give(&world->cells, hogs[--hog_count]);
            }
            if (left_bytes != 0) {
                refusals++;
                take_or_leave(world, &taker, received + n - left_bytes, left_bytes, &left_bytes);
                assert_int_equal(left_bytes, 0);
            }
            free(received);
        }
        assert_int_equal(taker.next, FRAMES);
        assert_false(link_has_input(&world->link));
    }
    assert_true(refusals > 100);
}

static void records_without_data_are_counted(void **state)
{
    struct world *world = *state;
    const uint8_t frame[4] = { 0, 0, 0, 200 };
    struct link_input input;
    struct frame_view view;
    struct tls_opened opened;

    seal(world, frame, sizeof frame);
    tls_record_update(&world->peer, false);
    seal(world, frame, sizeof frame);
    tls_record_update(&world->peer, false);
    seal(world, frame, sizeof frame);
    assert_int_equal(
        link_input_begin(&world->pools, &world->link, world->stream, world->stream_bytes, &input),
        LINK_NEXT_NONE);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(link_input_next(&world->pools, &world->link, &input, &view, &opened),
                         LINK_NEXT_FRAME);
        assert_int_equal(input.quiet_records, i);
        assert_int_equal(input.key_updates, i);
    }
    assert_int_equal(link_input_next(&world->pools, &world->link, &input, &view, &opened),
                     LINK_NEXT_NONE);
    assert_true(link_input_end(&world->pools, &world->link, &input));
}

static void output_beyond_three_cells_is_refused(void **state)
{
    struct world *world = *state;
    uint8_t frame[FRAME_BYTES_MAX];
    uint32_t taken = 0;

    memset(frame, 0, sizeof frame);
    while (link_put_frame(&world->pools, &world->link, frame, sizeof frame, true)) {
        taken++;
    }
    assert_int_equal(taken, LINK_OUT_CELLS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_come_whole_whatever_the_records_and_pieces,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(a_receive_in_flight_while_blocked_is_kept, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(received_bytes_go_on_behind_several_kept_records,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(any_order_of_blocks_and_receives_loses_nothing, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(a_frame_too_large_and_a_forged_record_are_told, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(output_keeps_order_over_cells_and_short_sends, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(alert_behind_a_key_update_goes_out_whole, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(output_beyond_three_cells_is_refused, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(a_header_and_one_byte_hold_the_smallest_cell, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(the_head_behind_a_large_record_leaves_the_large_cell,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(bytes_that_find_no_cell_are_left_and_may_come_again,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(records_without_data_are_counted, open_world, close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * A server that says anything: the machine may close the connection, and nothing worse. Frames are
 * those of a real talk with bytes changed, lengths that lie, and extreme numbers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/client/fixture.h"
#include "tests/unit/client/model.h"

#define ROUNDS 3000
#define TURNS  40

static uint64_t random_state = 1;

static uint64_t random_below(uint64_t below)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    return id_mix(random_state) % below;
}

static uint64_t extreme(void)
{
    static const uint64_t numbers[] = { 0,
                                        1,
                                        2,
                                        5,
                                        6,
                                        UINT32_MAX,
                                        UINT64_C(1) << 62,
                                        (UINT64_C(1) << 63) - 1,
                                        UINT64_C(1) << 63,
                                        UINT64_MAX - 1,
                                        UINT64_MAX };

    return numbers[random_below(sizeof numbers / sizeof numbers[0])];
}

/* A frame that decodes, more often than not, but says what it shouldn't. */
static size_t make_frame(struct fixture *f, uint8_t *frame)
{
    const struct message_accepted accepted = { .counter = random_below(3) > 0 ? random_below(9) + 1
                                                                              : UINT64_MAX,
                                               .seq = 1 + random_below(9) };
    const struct message_rejected rejected = { .counter = 1 + random_below(9),
                                               .code = (uint16_t)(1 + random_below(1300)),
                                               .retry_ms = (uint32_t)extreme(),
                                               .expected = extreme() };
    const struct message_token token = { (uint32_t)extreme(), { (const uint8_t *)"t", 1 } };
    const struct message_hello_ok ok = fixture_hello_ok(f, 5 + random_below(3), random_below(9));
    size_t frame_bytes = 0;
    struct entries_builder builder;
    const struct entry entry = random_below(2) > 0
                                   ? entry_sent(1 + random_below(9), extreme())
                                   : entry_own(nonce_of(random_below(9)), extreme());

    switch (random_below(7)) {
    case 0:
        frame_bytes = message_encode_hello_ok(frame, FRAME_BYTES_MAX, &ok);
        for (uint64_t pokes = random_below(4); pokes > 0; pokes--) {
            /* Seven numbers of 8 bytes, the result, then six that are shorter. */
            const uint64_t field = random_below(9);

            if (field < 7) {
                store_be64(frame + FRAME_HEADER_BYTES + 8 * field, extreme());
            } else if (field == 7) {
                frame[FRAME_HEADER_BYTES + 56] = (uint8_t)random_below(4);
            } else {
                store_be32(frame + FRAME_HEADER_BYTES + 57 + 4 * random_below(5),
                           (uint32_t)extreme());
            }
        }
        return frame_bytes;
    case 1:
        return message_encode_accepted(frame, FRAME_BYTES_MAX, &accepted);
    case 2:
        return message_encode_rejected(frame, FRAME_BYTES_MAX, &rejected);
    case 3:
        return message_encode_token(frame, FRAME_BYTES_MAX, &token);
    case 4:
        return message_encode_error_code(frame, FRAME_BYTES_MAX,
                                         random_below(2) > 0 ? CODE_STALE : CODE_BAD_CURSOR,
                                         (uint32_t)random_below(3), (uint32_t)extreme());
    case 5:
        entries_begin(&builder, frame, FRAME_BYTES_MAX,
                      client_cursor(&f->client).seq + 1 + random_below(8) / 7);
        return entries_add(&builder, &entry) ? entries_end(&builder) : 0;
    default:
        frame[0] = 0;
        frame[1] = 0;
        frame[2] = (uint8_t)random_below(64);
        frame[3] = (uint8_t)(random_below(2) > 0 ? random_below(36) : random_below(256));
        for (size_t i = 0; i < frame[2]; i++) {
            frame[4 + i] = (uint8_t)(random_below(2) > 0 ? 0 : random_below(256));
        }
        return 4 + (size_t)frame[2];
    }
}

static void say_anything(struct fixture *f)
{
    static uint8_t frame[FRAME_BYTES_MAX];
    const size_t frame_bytes = make_frame(f, frame);

    if (frame_bytes == 0) {
        return;
    }
    if (random_below(4) == 0 && frame_bytes > 4) {
        frame[4 + random_below(frame_bytes - 4)] ^= (uint8_t)(1 + random_below(255));
    }
    give_frame(f, frame, frame_bytes);
}

static void any_server_can_only_end_the_connection(void **state)
{
    (void)state;
    unsigned closed = 0;
    unsigned live = 0;

    for (int round = 0; round < ROUNDS; round++) {
        struct fixture *f = fixture_open(fixture_known);

        assert_true(client_start(&f->client, f->now_ms));
        for (int turn = 0; turn < TURNS; turn++) {
            if (client_state(&f->client) == CLIENT_STOPPED) {
                break;
            }
            if (client_state(&f->client) == CLIENT_WAITING) {
                fixture_connect(f);
                if (random_below(2) > 0) {
                    const struct message_cursor cursor = client_cursor(&f->client);
                    const struct message_hello_ok ok = fixture_hello_ok(
                        f, cursor.seq == UINT64_MAX ? cursor.seq : cursor.seq + 1, random_below(4));

                    give_hello_ok(f, &ok);
                }
            }
            if (random_below(3) == 0 && f->client.count_ < SENDS_MAX &&
                client_body_bytes_max(&f->client) >= 8) {
                (void)queue(f, 1 + random_below(8));
            }
            if (client_state(&f->client) == CLIENT_LIVE) {
                live++;
                live += client_history(&f->client, (struct conversation_id){ PEER }, HISTORY_BEFORE,
                                       0, 1, 0) > UINT32_MAX / 2;
            }
            hear(f);
            say_anything(f);
            pass(f, random_below(2000));
            hear(f);
            if (client_wants_close(&f->client)) {
                closed++;
                cut(f);
            }
        }
        fixture_close(f);
    }
    assert_true(closed > ROUNDS && live > ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_server_can_only_end_the_connection),
    };

    return cmocka_run_group_tests_name("client_hostile", tests, NULL, NULL);
}

#include "tests/unit/engine/two_homes.h"

#include <stdio.h>
#include <string.h>

static const struct message_cursor nothing = { 0, 0, 0 };

void two_open(struct two *two, void (*change)(struct engine_config *config))
{
    world_open(&two->world, 2, change);
    two->ha = &two->world.hosts[0];
    two->hb = &two->world.hosts[1];
    two->a = world_user(&two->world, 0, 0);
    two->b = world_user(&two->world, 1, 0);
    for (uint64_t id = two->b.value + 1;; id++) {
        if (partition_of(id).value == partition_of(two->b.value).value) {
            two->c.value = id;
            break;
        }
    }
    two->ca = host_connect(two->ha, two->a, 1, nothing);
}

void two_log_in_b(struct two *two)
{
    two->cb = host_connect(two->hb, two->b, 1, nothing);
}

void two_open_with_b(struct two *two)
{
    two_open(two, NULL);
    two_log_in_b(two);
}

/* While nothing else happens. */
void two_log_in_b_alone(struct two *two)
{
    two->cb = host_accept(two->hb, two->b, 1, nothing);
    for (int i = 0; i < 4; i++) {
        if (!two->cb->offered_hello) {
            host_offer(two->hb, two->cb);
        }
        host_answer_loads(two->hb);
        host_durable(two->hb);
    }
    assert_true(two->cb->welcomed);
}

/* Until A's host has given its stream frames, but nothing of them was delivered. */
void two_offer_and_send(struct two *two)
{
    for (int i = 0; i < 6; i++) {
        host_offer(two->ha, two->ca);
        host_answer_loads(two->ha);
    }
    host_durable(two->ha);
}

void two_close(struct two *two)
{
    world_close(&two->world);
}

size_t two_ended(const struct two *two)
{
    return host_count_records(two->ha, RECORD_OUT_END, two->a.value);
}

/* The exceptions of the last STREAM_ACK towards that host, as "R1 B2". */
void host_expect_ack(const struct host *host, uint64_t up_to, const char *exceptions)
{
    const struct bytes *frame = &host->streams.items[host->streams.count - 1];
    struct stream_ack ack;
    char text[256] = "";

    assert_true(stream_decode_ack(frame->at, frame->count, &ack));
    assert_int_equal(ack.up_to, up_to);
    for (uint16_t i = 0; i < ack.count; i++) {
        uint64_t number;
        uint16_t code;
        const size_t used = strlen(text);

        stream_exception(&ack, i, &number, &code);
        snprintf(text + used, sizeof text - used, "%s%c%d", i > 0 ? " " : "",
                 code == STREAM_BEHIND ? 'B' : 'R', (int)number);
    }
    assert_string_equal(text, exceptions);
}

void host_deliver_all(struct host *host)
{
    for (int i = 0; i < 50 && host->streams.taken < host->streams.count; i++) {
        host_deliver_stream(host);
        host_answer_loads(host);
    }
    assert_int_equal(host->streams.taken, host->streams.count);
}

#include "core/engine/stream_frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint64_t user_in(uint16_t partition, uint64_t from)
{
    while (partition_of(from).value != partition) {
        from++;
    }
    return from;
}

static struct stream_header header_of(enum stream_kind kind)
{
    return (struct stream_header){ .kind = kind,
                                   .source = partition_of(5),
                                   .destination = partition_of(6),
                                   .term = 3,
                                   .number = 9 };
}

static size_t make_records(uint8_t *bytes, size_t cap, uint16_t count)
{
    const struct stream_header header = header_of(STREAM_RECORDS);
    struct stream_builder builder;

    stream_begin(&builder, bytes, cap, &header, 7);
    for (uint16_t i = 0; i < count; i++) {
        const struct stream_record record = { .after = { 1, i },
                                              .origin = { 1, i + 1U },
                                              .from = { 5 },
                                              .to = { 6 },
                                              .device = { 2 },
                                              .id = { 100U + i },
                                              .kind = 4,
                                              .body_bytes = i,
                                              .body = (const uint8_t *)"0123456789abcdef" };

        assert_true(stream_add(&builder, &record));
    }
    return stream_end(&builder);
}

static void records_come_back_as_they_went(void **state)
{
    static uint8_t bytes[STREAM_FRAME_BYTES_MAX];
    struct stream_records records;
    struct stream_record record;
    uint64_t number;
    (void)state;
    const size_t count = make_records(bytes, sizeof bytes, 10);

    assert_true(stream_decode_records(bytes, count, &records));
    assert_int_equal(records.header.term, 3);
    assert_int_equal(records.header.number, 9);
    for (uint16_t i = 0; i < 10; i++) {
        assert_true(stream_next(&records, &number, &record));
        assert_int_equal(number, 7 + i);
        assert_int_equal(record.after.seq, i);
        assert_int_equal(record.origin.seq, i + 1);
        assert_int_equal(record.id.value, 100 + i);
        assert_int_equal(record.body_bytes, i);
        assert_memory_equal(record.body, "0123456789abcdef", i);
    }
    assert_false(stream_next(&records, &number, &record));
}

static void frame_without_records_is_none(void **state)
{
    uint8_t bytes[256];
    (void)state;
    assert_int_equal(make_records(bytes, sizeof bytes, 0), 0);
}

static void builder_stops_at_its_cap(void **state)
{
    uint8_t bytes[STREAM_RECORDS_BYTES + STREAM_RECORD_FIXED_BYTES + 10];
    const struct stream_header header = header_of(STREAM_RECORDS);
    struct stream_record record = { .from = { 5 }, .to = { 6 }, .body_bytes = 11, .body = bytes };
    struct stream_builder builder;
    (void)state;
    stream_begin(&builder, bytes, sizeof bytes, &header, 1);
    assert_false(stream_add(&builder, &record));
    record.body_bytes = 10;
    record.body = (const uint8_t *)"0123456789";
    assert_true(stream_add(&builder, &record));
    assert_false(stream_add(&builder, &record));
    assert_int_equal(stream_end(&builder), sizeof bytes);
}

static void acknowledgement_comes_back_as_it_went(void **state)
{
    uint8_t bytes[1024];
    const struct stream_header header = header_of(STREAM_ACK);
    struct stream_builder builder;
    struct stream_ack ack;
    uint64_t number;
    uint16_t code;
    (void)state;
    stream_ack_begin(&builder, bytes, sizeof bytes, &header, 4, 9);
    stream_ack_add(&builder, 5, STREAM_BEHIND);
    stream_ack_add(&builder, 9, 768);
    const size_t count = stream_ack_end(&builder);

    assert_true(stream_decode_ack(bytes, count, &ack));
    assert_int_equal(ack.above, 4);
    assert_int_equal(ack.up_to, 9);
    assert_int_equal(ack.count, 2);
    stream_exception(&ack, 1, &number, &code);
    assert_int_equal(number, 9);
    assert_int_equal(code, 768);
    for (size_t cut = 0; cut < count; cut++) {
        assert_false(stream_decode_ack(bytes, cut, &ack));
    }
    stream_ack_begin(&builder, bytes, sizeof bytes, &header, 4, 9);
    stream_ack_add(&builder, 4, STREAM_BEHIND); /* not above */
    assert_false(stream_decode_ack(bytes, stream_ack_end(&builder), &ack));
    stream_ack_begin(&builder, bytes, sizeof bytes, &header, 4, 4);
    assert_false(stream_decode_ack(bytes, stream_ack_end(&builder), &ack));
}

/* Each field that has wrong values, by its place in a frame of one record. */
static void wrong_fields_are_refused(void **state)
{
    uint8_t good[512];
    (void)state;
    const size_t count = make_records(good, sizeof good, 1);
    const size_t record = STREAM_RECORDS_BYTES;
    const struct {
        const char *name;
        size_t at;
        uint8_t value;
    } rows[] = {
        { "kind 0", 0, 0 },
        { "kind 4", 0, 4 },
        { "source beyond the last partition", 1, 0x40 },
        { "destination beyond the last partition", 3, 0x40 },
        { "another source", 2, (uint8_t)(good[2] + 1) },
        { "another destination", 4, (uint8_t)(good[4] + 1) },
        { "term 0", 12, 0 },
        { "link 0", 20, 0 },
        { "first 0", 28, 0 },
        { "count 0", 30, 0 },
        { "count 2", 30, 2 },
        { "count 65", 30, 65 },
        { "after not before origin", record + 15, 1 },
        { "origin seq 0", record + 31, 0 },
        { "sender 0", record + 39, 0 },
        { "receiver is the sender", record + 47, 5 },
        { "a group as receiver", record + 40, 0x80 },
        { "device 0", record + 51, 0 },
        { "id 0", record + 59, 0 },
        { "kind 128", record + 60, 128 },
        { "a body that isn't there", record + 62, 1 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[512];
        struct stream_records records;

        memcpy(bytes, good, sizeof good);
        assert_true(stream_decode_records(bytes, count, &records));
        bytes[rows[i].at] = rows[i].value;
        if (stream_decode_records(bytes, count, &records)) {
            fail_msg("%s was taken", rows[i].name);
        }
    }
}

static void frame_with_other_partitions_users_is_refused(void **state)
{
    static uint8_t bytes[STREAM_FRAME_BYTES_MAX];
    const struct stream_header header = header_of(STREAM_RECORDS);
    struct stream_record record = { .origin = { 1, 1 },
                                    .from = { user_in(header.source.value, 6) },
                                    .to = { user_in(header.destination.value, 7) },
                                    .device = { 1 },
                                    .id = { 1 } };
    struct stream_builder builder;
    struct stream_records records;
    (void)state;
    stream_begin(&builder, bytes, sizeof bytes, &header, 1);
    assert_true(stream_add(&builder, &record));
    assert_true(stream_decode_records(bytes, stream_end(&builder), &records));
    record.to.value = record.from.value;
    stream_begin(&builder, bytes, sizeof bytes, &header, 1);
    assert_true(stream_add(&builder, &record));
    assert_false(stream_decode_records(bytes, stream_end(&builder), &records));
}

static void link_end_has_exactly_a_header(void **state)
{
    uint8_t bytes[64] = { 0 };
    const struct stream_header header = header_of(STREAM_LINK_END);
    struct stream_header decoded;
    (void)state;
    assert_int_equal(stream_encode_link_end(bytes, sizeof bytes, &header), STREAM_HEADER_BYTES);
    assert_true(stream_decode_header(bytes, STREAM_HEADER_BYTES, &decoded));
    assert_int_equal(decoded.kind, STREAM_LINK_END);
    assert_int_equal(decoded.number, 9);
    assert_false(stream_decode_header(bytes, STREAM_HEADER_BYTES + 1, &decoded));
    assert_false(stream_decode_header(bytes, STREAM_HEADER_BYTES - 1, &decoded));
}

/* Bytes of any kind: no reading beyond them (the sanitizer watches), no record that isn't good. */
static void random_bytes_are_harmless(void **state)
{
    static uint8_t bytes[2048];
    uint64_t random = 1;
    (void)state;
    for (int i = 0; i < 50000; i++) {
        struct stream_records records;
        struct stream_record record;
        struct stream_ack ack;
        uint64_t number;
        size_t count = make_records(bytes, sizeof bytes, 8);

        random = id_mix(random + 1);
        count -= random % 3 == 0 ? random / 3 % count : 0;
        for (int n = 0; n < 3; n++) {
            random = id_mix(random + 1);
            bytes[random % count] = (uint8_t)(random >> 32);
        }
        if (stream_decode_records(bytes, count, &records)) {
            while (stream_next(&records, &number, &record)) {
                assert_true(record.body + record.body_bytes <= bytes + count);
            }
        }
        (void)!stream_decode_ack(bytes, count, &ack);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_as_they_went),
        cmocka_unit_test(frame_without_records_is_none),
        cmocka_unit_test(builder_stops_at_its_cap),
        cmocka_unit_test(acknowledgement_comes_back_as_it_went),
        cmocka_unit_test(wrong_fields_are_refused),
        cmocka_unit_test(frame_with_other_partitions_users_is_refused),
        cmocka_unit_test(link_end_has_exactly_a_header),
        cmocka_unit_test(random_bytes_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

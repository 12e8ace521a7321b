#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/base/bytes.h"
#include "store/schema.h"
#include "tests/unit/store/memory_disk.h"

static const struct user_id user = { 0x0102030405060708 };

/* On disk for ever: byte for byte. */
static void keys_keep_their_published_form(void **state)
{
    (void)state;
    const struct conversation_id conversation = { 0x1112131415161718 };
    const uint16_t partition = partition_of(user.value).value;
    uint8_t wanted[32];
    struct schema_key key;

    store_be16(wanted, partition);
    store_be64(wanted + 2, user.value);
    key = schema_key_checkpoint(user, conversation, 3);
    wanted[10] = 1;
    store_be64(wanted + 11, conversation.value);
    store_be64(wanted + 19, 3);
    assert_int_equal(key.byte_count, 27);
    assert_memory_equal(key.bytes, wanted, 27);
    key = schema_key_log(user, 5);
    wanted[10] = 2;
    store_be64(wanted + 11, 5);
    assert_int_equal(key.byte_count, 19);
    assert_memory_equal(key.bytes, wanted, 19);
    key = schema_key_head(user, conversation);
    wanted[10] = 3;
    store_be64(wanted + 11, conversation.value);
    assert_int_equal(key.byte_count, 19);
    assert_memory_equal(key.bytes, wanted, 19);
    key = schema_key_device(user, (struct device_id){ 9 });
    wanted[10] = 4;
    store_be32(wanted + 11, 9);
    assert_int_equal(key.byte_count, 15);
    assert_memory_equal(key.bytes, wanted, 15);
    key = schema_key_facts(user);
    wanted[10] = 5;
    assert_int_equal(key.byte_count, 11);
    assert_memory_equal(key.bytes, wanted, 11);
    key = schema_key_out((struct partition_id){ 0x0a0b }, (struct message_id){ 7 });
    assert_memory_equal(key.bytes, "\x0a\x0b\0\0\0\0\0\0\0\x07", 10);
    key = schema_key_body((struct message_id){ 7 }, 2);
    assert_memory_equal(key.bytes, "\0\0\0\0\0\0\0\x07\0\x02", 10);
    key = schema_key_last((struct partition_id){ 0x0a0b });
    assert_int_equal(key.byte_count, 6);
    assert_memory_equal(key.bytes, "last\x0a\x0b", 6);
}

static struct outcome outcome_of(uint64_t counter)
{
    return (struct outcome){ .counter = counter, .id = counter * 10, .seq = counter };
}

/* In any order, once or more often: the newest 32, oldest first. */
static void outcomes_merge_by_their_counters(void **state)
{
    (void)state;
    uint64_t random = 1;

    for (int round = 0; round < 200; round++) {
        struct schema_device device = { 0 };
        bool seen[101] = { false };
        uint32_t at = 0;

        for (int i = 0; i < 5 + round; i++) {
            const uint64_t counter = 1 + random_next(&random) % 100;
            const struct outcome outcome = outcome_of(counter);

            schema_device_note_outcome(&device, &outcome);
            seen[counter] = true;
        }
        uint32_t kept = 0;
        uint64_t lowest = 101;
        while (lowest > 1 && kept < SCHEMA_OUTCOMES_MAX) {
            lowest--;
            kept += seen[lowest];
        }
        for (uint64_t counter = lowest; counter <= 100; counter++) {
            if (seen[counter]) {
                assert_int_equal(device.outcomes[at].counter, counter);
                assert_int_equal(device.outcomes[at].id, counter * 10);
                at++;
            }
        }
        assert_int_equal(at, device.outcome_count);
        assert_int_equal(device.last_counter, device.outcomes[at - 1].counter);
    }
}

static struct schema_device full_device(void)
{
    struct schema_device device = {
        .generation = UINT32_MAX,
        .created_unix_ms = UINT64_MAX,
        .cursor = { UINT64_MAX, UINT64_MAX },
        .cursor_sver = UINT64_MAX,
    };

    for (uint64_t i = 0; i < SCHEMA_OUTCOMES_MAX; i++) {
        struct outcome outcome = outcome_of(i == 31 ? UINT64_MAX : UINT64_MAX / 32 * (i + 1));

        outcome.id = UINT64_MAX;
        outcome.seq = UINT64_MAX;
        if (i % 5 == 4) {
            outcome = (struct outcome){ .counter = outcome.counter, .code = UINT16_MAX };
        }
        memset(outcome.nonce, (int)i, sizeof outcome.nonce);
        schema_device_note_outcome(&device, &outcome);
    }
    return device;
}

static void the_largest_device_fits_a_row_and_comes_back(void **state)
{
    (void)state;
    const struct schema_key key = schema_key_device(user, (struct device_id){ 1 });
    const struct schema_device device = full_device();
    struct schema_device read;
    struct schema_row row;

    schema_encode_device(&key, &device, &row);
    assert_true(schema_decode_device(schema_key_bytes(&key), schema_row_bytes(&row), &read));
    assert_int_equal(read.outcome_count, SCHEMA_OUTCOMES_MAX);
    assert_int_equal(read.last_counter, UINT64_MAX);
    for (int i = 0; i < SCHEMA_OUTCOMES_MAX; i++) {
        assert_int_equal(read.outcomes[i].counter, device.outcomes[i].counter);
        assert_int_equal(read.outcomes[i].id, device.outcomes[i].id);
        assert_int_equal(read.outcomes[i].seq, device.outcomes[i].seq);
        assert_int_equal(read.outcomes[i].code, device.outcomes[i].code);
        assert_memory_equal(read.outcomes[i].nonce, device.outcomes[i].nonce, RECORD_NONCE_BYTES);
    }
}

/* One of each kind of row, under its key. */
enum { ROW_KINDS = 9 };

/* So many entries like this one, from its seq on. */
static void make_log_row(const struct log_entry *like, uint32_t count, struct schema_key *key,
                         struct schema_row *row)
{
    struct schema_log_writer writer;
    struct log_entry entry = *like;

    schema_log_begin(&writer, entry.user, entry.seq);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(schema_log_add(&writer, &entry));
        entry.seq++;
        entry.n++;
    }
    schema_log_end(&writer);
    *key = writer.key;
    *row = writer.row;
}

static bool decode_log(struct volume_bytes key, struct volume_bytes row)
{
    struct schema_log_reader reader;
    struct schema_log log;

    if (!schema_log_open(&reader, key, row)) {
        return false;
    }
    while (schema_log_next(&reader, &log)) {
    }
    return !reader.bad;
}

static void make_row(int kind, struct schema_key *key, struct schema_row *row)
{
    const struct record message = message_record(user.value, 9, 5, 64, 100);
    const struct record large = message_record(user.value, 9, 5, 64, 5000);
    const struct schema_device device = full_device();
    const struct head head = { 5, 64, 3, { 1, 2 } };

    switch (kind) {
    case 0:
        *key = schema_key_facts(user);
        schema_encode_facts(key, &(struct schema_facts){ 1, 5, 6, 7 }, row);
        break;
    case 1:
        *key = schema_key_head(user, (struct conversation_id){ 9 });
        schema_encode_head(key, &head, row);
        break;
    case 2:
        *key = schema_key_device(user, (struct device_id){ 1 });
        schema_encode_device(key, &device, row);
        break;
    case 3:
        make_log_row(&message.entry, 1, key, row);
        break;
    case 4:
        make_log_row(&large.entry, 3, key, row);
        break;
    case 5:
        *key = schema_key_body((struct message_id){ 9 }, 0);
        schema_encode_body(key, &(struct schema_body){ 2, 5000, 3 }, row);
        break;
    case 6:
        *key = schema_key_body((struct message_id){ 9 }, 1);
        schema_encode_part(key, (const uint8_t *)"part", 4, row);
        break;
    case 7:
        *key = schema_key_out((struct partition_id){ 1 }, (struct message_id){ 9 });
        schema_encode_out(key, &(struct schema_out){ user, 1, 5, { 9 }, true }, row);
        break;
    default:
        *key = schema_key_identity();
        schema_encode_identity(key, &(struct schema_identity){ 1, { 1 }, 2, 3 }, row);
    }
}

static bool decode_row(int kind, struct volume_bytes key, struct volume_bytes row)
{
    union {
        struct schema_facts facts;
        struct head head;
        struct schema_device device;
        struct schema_body body;
        struct volume_bytes part;
        struct schema_out out;
        struct schema_identity identity;
    } to;

    switch (kind) {
    case 0:
        return schema_decode_facts(key, row, &to.facts);
    case 1:
        return schema_decode_head(key, row, &to.head);
    case 2:
        return schema_decode_device(key, row, &to.device);
    case 3:
    case 4:
        return decode_log(key, row);
    case 5:
        return schema_decode_body(key, row, &to.body);
    case 6:
        return schema_decode_part(key, row, &to.part);
    case 7:
        return schema_decode_out(key, row, &to.out);
    default:
        return schema_decode_identity(key, row, &to.identity);
    }
}

static void no_changed_cut_or_misplaced_row_is_believed(void **state)
{
    (void)state;

    for (int kind = 0; kind < ROW_KINDS; kind++) {
        struct schema_key key;
        struct schema_row row;

        make_row(kind, &key, &row);
        assert_true(decode_row(kind, schema_key_bytes(&key), schema_row_bytes(&row)));
        for (size_t i = 0; i < row.byte_count; i++) {
            row.bytes[i] ^= 0x20;
            assert_false(decode_row(kind, schema_key_bytes(&key), schema_row_bytes(&row)));
            row.bytes[i] ^= 0x20;
            assert_false(
                decode_row(kind, schema_key_bytes(&key), (struct volume_bytes){ row.bytes, i }));
        }
        key.bytes[key.byte_count - 1] ^= 1;
        assert_false(decode_row(kind, schema_key_bytes(&key), schema_row_bytes(&row)));
    }
}

static void a_log_row_gives_each_of_its_entries_and_no_other(void **state)
{
    (void)state;
    struct record message = message_record(user.value, 9, 5, 64, 100);
    struct schema_log_writer writer;
    struct schema_log_writer again;
    struct schema_log_reader reader;
    struct schema_log log;
    uint32_t count = 0;

    schema_log_begin(&writer, user, 5);
    while (schema_log_add(&writer, &message.entry)) {
        message.entry.seq++;
        count++;
    }
    assert_true(count >= 8);
    assert_true(writer.row.byte_count <= SCHEMA_ROW_BYTES_MAX);
    schema_log_end(&writer);
    for (uint64_t seq = 5; seq < 5 + count; seq++) {
        assert_true(
            schema_log_open(&reader, schema_key_bytes(&writer.key), schema_row_bytes(&writer.row)));
        assert_true(schema_log_find(&reader, seq, &log));
        assert_int_equal(log.entry.seq, seq);
        assert_int_equal(log.body_bytes, 100);
        assert_memory_equal(log.entry.body, message.entry.body, 100);
        assert_false(schema_log_find(&reader, seq, &log)); /* it is behind the reader now */
        assert_int_equal(schema_log_next(&reader, &log), seq + 1 < 5 + count);
    }
    assert_true(
        schema_log_open(&reader, schema_key_bytes(&writer.key), schema_row_bytes(&writer.row)));
    assert_false(schema_log_find(&reader, 4, &log));
    assert_false(schema_log_find(&reader, 5 + count, &log));
    assert_false(reader.bad);
    assert_true(
        schema_log_resume(&again, schema_key_bytes(&writer.key), schema_row_bytes(&writer.row)));
    assert_false(schema_log_add(&again, &message.entry));
    schema_log_end(&again);
    assert_int_equal(again.row.byte_count, writer.row.byte_count);
    assert_memory_equal(again.row.bytes, writer.row.bytes, writer.row.byte_count);
}

/* Its checksum is right, so what it says was written by us, or by somebody else. */
static void a_log_row_that_contradicts_itself_is_not_believed(void **state)
{
    (void)state;
    const struct record message = message_record(user.value, 9, 5, 64, 100);
    struct schema_log_writer writer;
    struct log_entry entry = message.entry;

    for (int fault = 0; fault < 3; fault++) {
        schema_log_begin(&writer, user, 5);
        entry.seq = 5;
        assert_true(schema_log_add(&writer, &entry));
        entry.seq = 6;
        assert_true(schema_log_add(&writer, &entry));
        if (fault == 0) {
            writer.count = 3; /* fewer are there */
        } else if (fault == 1) {
            writer.count = 1; /* more are there */
        } else {
            writer.key = schema_key_log(user, 6); /* of another place */
        }
        schema_log_end(&writer);
        assert_false(decode_log(schema_key_bytes(&writer.key), schema_row_bytes(&writer.row)));
    }
    writer.key = schema_key_log((struct user_id){ user.value + 1 }, 5);
    schema_log_end(&writer);
    assert_false(decode_log(schema_key_bytes(&writer.key), schema_row_bytes(&writer.row)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_keep_their_published_form),
        cmocka_unit_test(outcomes_merge_by_their_counters),
        cmocka_unit_test(the_largest_device_fits_a_row_and_comes_back),
        cmocka_unit_test(a_log_row_gives_each_of_its_entries_and_no_other),
        cmocka_unit_test(a_log_row_that_contradicts_itself_is_not_believed),
        cmocka_unit_test(no_changed_cut_or_misplaced_row_is_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

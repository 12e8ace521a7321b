#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/reader.h"
#include "tests/unit/store/world.h"

#define SEGMENT_BYTES ((size_t)256 * 1024)
#define SEGMENT_COUNT 6
#define BYTES_MAX     65536

static uint64_t find_in_index(void *context, struct user_id user, uint64_t seq)
{
    const struct world *world = context;
    return index_find(world->index, user, seq);
}

struct reading {
    struct world world;
    struct reader *reader;
    struct journal_span spans[SEGMENT_COUNT];
    struct read_places places;
    uint64_t random;
};

static void reading_init(struct reading *reading, uint64_t seed)
{
    struct hf_error error;

    memset(reading, 0, sizeof *reading);
    world_init(&reading->world, seed, SEGMENT_BYTES, SEGMENT_COUNT);
    reading->world.model.large_bodies = true;
    reading->reader = reader_open(reading->world.scratch.volumes, WORLD_VOLUMES, BYTES_MAX, &error);
    assert_non_null(reading->reader);
    reading->random = seed;
    reading->places = (struct read_places){
        .context = &reading->world,
        .find = find_in_index,
        .source = memory_disk_source(&reading->world.disk),
        .identity = reading->world.identity,
        .spans = reading->spans,
    };
}

static void reading_deinit(struct reading *reading)
{
    reader_close(reading->reader);
    world_deinit(&reading->world);
}

static uint64_t draw(struct reading *reading, uint64_t below)
{
    return random_next(&reading->random) % below;
}

/* As the reactor would send it along. */
static void take_spans(struct reading *reading)
{
    reading->places.span_count =
        journal_get_spans(reading->world.journal, 0, UINT64_MAX, reading->spans, SEGMENT_COUNT);
}

/* Where the user's first unflushed entry lies, whatever is asked for. */
static uint64_t find_the_first(void *context, struct user_id user, uint64_t seq)
{
    struct reading *reading = context;
    uint64_t pos = 0;

    for (seq = 1; pos == 0 && seq < CHAT_ENTRIES_MAX; seq++) {
        pos = index_find(reading->world.index, user, seq);
    }
    assert_true(pos != 0);
    return pos;
}

static uint64_t find_nowhere(void *context, struct user_id user, uint64_t seq)
{
    (void)context;
    (void)user;
    (void)seq;
    return UINT64_C(1) << 40 | JOURNAL_HEADER_BYTES;
}

static void assert_entry(const struct log_entry *expected, const uint8_t *bytes, size_t left,
                         size_t *length)
{
    static uint8_t body[RECORD_BODY_BYTES_MAX];
    static uint8_t again[RECORD_BYTES_MAX];
    struct record record = {
        .type = RECORD_ENTRY,
        .partition = partition_of(expected->user.value),
        .entry = *expected,
    };

    chat_body(expected->id, expected->body_bytes, body);
    record.entry.body = body;
    *length = record_encode(&record, again, sizeof again);
    assert_true(*length <= left);
    assert_memory_equal(again, bytes, *length);
}

static void check_range(struct reading *reading, const struct chat_user *user)
{
    const uint64_t from = 1 + draw(reading, user->facts.head + 3);
    const struct read_request request = {
        .kind = READ_RANGE,
        .user = user->id,
        .from = from,
        .to = from + draw(reading, 40),
        .bytes = (uint32_t)draw(reading, BYTES_MAX),
    };
    struct read_answer answer;
    size_t at = 0;

    take_spans(reading);
    reader_load(reading->reader, &request, &reading->places, &answer);
    if (from < user->facts.floor || from > user->facts.head) {
        /* The journal may still have what a floor has cut off. */
        assert_true(answer.status == READ_ABSENT || from < user->facts.floor);
        return;
    }
    assert_int_equal(answer.status, READ_FOUND);
    assert_true(answer.entry_count > 0);
    for (uint32_t i = 0; i < answer.entry_count; i++) {
        size_t length;

        assert_entry(&user->entries[from - 1 + i], answer.entries + at, answer.entries_bytes - at,
                     &length);
        at += length;
    }
    assert_int_equal(at, answer.entries_bytes);
    assert_true(answer.entry_count == 1 || at <= request.bytes);
    /* It ends for a reason. */
    const uint64_t next = from + answer.entry_count;
    if (next <= request.to && next <= user->facts.head) {
        uint8_t record_at[RECORD_BYTES_MAX];
        struct record record = { .type = RECORD_ENTRY, .entry = user->entries[next - 1] };

        record.partition = partition_of(user->id.value);
        record.entry.body = record_at;
        assert_true(at + record_bytes(&record) > request.bytes);
    }
}

static void check_chain(struct reading *reading, const struct chat_user *user)
{
    const int peer = (int)draw(reading, CHAT_USERS);
    const struct read_request request = {
        .kind = READ_CHAIN,
        .user = user->id,
        .conversation = { reading->world.model.users[peer].id.value },
        .from = user->heads[peer].last,
        .count = 1 + (uint32_t)draw(reading, 20),
        .bytes = BYTES_MAX,
    };
    struct read_answer answer;
    uint64_t seq = request.from;
    size_t at = 0;

    if (seq < user->facts.floor || seq == 0) {
        return;
    }
    take_spans(reading);
    reader_load(reading->reader, &request, &reading->places, &answer);
    assert_int_equal(answer.status, READ_FOUND);
    for (uint32_t i = 0; i < answer.entry_count; i++) {
        size_t length;

        assert_true(seq != 0);
        assert_entry(&user->entries[seq - 1], answer.entries + at, answer.entries_bytes - at,
                     &length);
        at += length;
        seq = user->entries[seq - 1].prev;
    }
    assert_true(answer.entry_count <= request.count);
    if (answer.entry_count < request.count && at + RECORD_BYTES_MAX < BYTES_MAX) {
        assert_true(seq < user->facts.floor);
    }
}

static void entries_come_from_journal_and_volume_as_one(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);

    for (uint64_t seed = 20; seed < 24; seed++) {
        reading_init(reading, seed);
        for (int round = 0; round < 60; round++) {
            world_chat(&reading->world, 20);
            for (int i = 0; i < 30; i++) {
                const struct chat_user *user =
                    &reading->world.model.users[draw(reading, CHAT_USERS)];

                if (user->exists) {
                    check_range(reading, user);
                    check_chain(reading, user);
                }
            }
            if (round % 7 == 3) {
                world_flush(&reading->world, 20, 0);
            }
        }
        reading_deinit(reading);
    }
    free(reading);
}

static void assert_device(const struct chat_user *user, const struct read_device *device)
{
    const int d = (int)device->device.value - 100;
    const uint32_t count = user->outcome_counts[d];

    assert_true(user->device_exists[d]);
    assert_int_equal(device->state.generation, user->devices[d].generation);
    assert_int_equal(device->state.last_counter, user->devices[d].last_counter);
    assert_int_equal(device->state.cursor.seq, user->devices[d].cursor.seq);
    assert_int_equal(device->state.outcome_count,
                     count < SCHEMA_OUTCOMES_MAX ? count : SCHEMA_OUTCOMES_MAX);
    for (uint32_t i = 0; i < device->state.outcome_count; i++) {
        const struct outcome *got = &device->state.outcomes[i];
        const struct outcome *wanted = &user->outcomes[d][count - device->state.outcome_count + i];

        assert_int_equal(got->counter, wanted->counter);
        assert_int_equal(got->id, wanted->id);
        assert_int_equal(got->seq, wanted->seq);
        assert_int_equal(got->code, wanted->code);
        assert_memory_equal(got->nonce, wanted->nonce, RECORD_NONCE_BYTES);
    }
}

static void check_user(struct reading *reading, const struct chat_user *user)
{
    struct read_request request = { .kind = READ_USER, .user = user->id };
    struct read_answer answer;
    uint32_t devices = 0;

    reader_load(reading->reader, &request, NULL, &answer);
    assert_int_equal(answer.status, user->exists ? READ_FOUND : READ_ABSENT);
    assert_int_equal(answer.snapshot_lsn, journal_durable_lsn(reading->world.journal));
    if (!user->exists) {
        return;
    }
    assert_int_equal(answer.facts.head, user->facts.head);
    assert_int_equal(answer.facts.floor, user->facts.floor);
    assert_int_equal(answer.facts.epoch, user->facts.epoch);
    for (int d = 0; d < CHAT_DEVICES; d++) {
        devices += user->device_exists[d];
    }
    assert_int_equal(answer.device_count, devices);
    for (uint32_t i = 0; i < answer.device_count; i++) {
        assert_device(user, &answer.devices[i]);
    }
    for (int peer = 0; peer < CHAT_USERS; peer++) {
        const struct head *head = &user->heads[peer];

        request.kind = READ_HEAD;
        request.conversation.value = reading->world.model.users[peer].id.value;
        reader_load(reading->reader, &request, NULL, &answer);
        assert_int_equal(answer.status, head->last != 0 ? READ_FOUND : READ_ABSENT);
        assert_memory_equal(&answer.head, head, sizeof *head);
        request.kind = READ_CHECKPOINT;
        for (request.block = 0; request.block <= head->n / 64 + 1; request.block++) {
            uint64_t wanted = 0;

            for (uint64_t seq = user->facts.floor; seq <= user->facts.head; seq++) {
                const struct log_entry *entry = &user->entries[seq - 1];
                if (entry->conversation.value == request.conversation.value && entry->n != 0 &&
                    entry->n == request.block * 64) {
                    wanted = seq;
                }
            }
            reader_load(reading->reader, &request, NULL, &answer);
            assert_int_equal(answer.status, wanted != 0 ? READ_FOUND : READ_ABSENT);
            assert_int_equal(answer.seq, wanted);
        }
    }
}

static void users_heads_and_checkpoints_are_found(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);

    reading_init(reading, 30);
    for (int round = 0; round < 8; round++) {
        world_chat(&reading->world, 150);
        world_flush(&reading->world, 100, 0);
        for (int u = 0; u < CHAT_USERS; u++) {
            check_user(reading, &reading->world.model.users[u]);
        }
    }
    reading_deinit(reading);
    free(reading);
}

static void a_partition_opens_with_its_last_id_and_unended_stream_records(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);
    size_t seen = 0;

    reading_init(reading, 31);
    world_chat(&reading->world, 500);
    world_flush(&reading->world, 100, 0);
    for (int u = 0; u < CHAT_USERS; u++) {
        const struct chat_user *user = &reading->world.model.users[u];
        struct read_partition answer;
        size_t at = 0;

        reader_load_partition(reading->reader, partition_of(user->id.value), &answer);
        assert_int_equal(answer.status, READ_FOUND);
        assert_int_equal(answer.last_id.value, user->last_id.value);
        for (uint32_t i = 0; i < reading->world.model.out_count; i++) {
            const struct chat_out *out = &reading->world.model.outs[i];

            if (out->ended || out->entry.user.value != user->id.value) {
                continue;
            }
            assert_true(at < answer.out_count);
            assert_int_equal(answer.outs[at].id.value, out->entry.id.value);
            assert_int_equal(answer.outs[at].user.value, user->id.value);
            assert_int_equal(answer.outs[at].seq, out->entry.seq);
            assert_int_equal(answer.outs[at].epoch, out->entry.epoch);
            assert_int_equal(answer.outs[at].to.value, out->to);
            at++;
        }
        assert_int_equal(at, answer.out_count);
        seen += at;
    }
    assert_true(seen > 10);
    reading_deinit(reading);
    free(reading);
}

/* The positions were looked up, then a flush ended and the segments were written again. */
static void an_entry_that_left_the_journal_meanwhile_is_found_in_the_volume(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);
    const struct chat_user *user;

    reading_init(reading, 32);
    user = &reading->world.model.users[0];
    world_chat(&reading->world, 100);
    const uint64_t from = user->facts.floor;
    const uint64_t pos = index_find(reading->world.index, user->id, from);
    struct journal_flush range;

    assert_true(pos != 0);
    take_spans(reading);
    assert_true(journal_flush_begin(reading->world.journal, &range));
    struct flush *flush = world_open_flush(&reading->world, range.from_lsn, range.upto_lsn, 100, 0);
    assert_int_equal(world_run_flush(flush, UINT32_MAX), FLUSH_DONE);
    flush_close(flush);
    memset(reading->world.disk.bytes, 0, SEGMENT_BYTES * SEGMENT_COUNT);

    const struct read_request request = {
        .kind = READ_RANGE, .user = user->id, .from = from, .to = from, .bytes = 100
    };
    struct read_answer answer;
    size_t length;

    reader_load(reading->reader, &request, &reading->places, &answer);
    assert_int_equal(answer.status, READ_FOUND);
    assert_entry(&user->entries[from - 1], answer.entries, answer.entries_bytes, &length);
    reading_deinit(reading);
    free(reading);
}

/* The same, but the flush ends when the snapshot is taken already: another is. */
static uint64_t find_and_flush(void *context, struct user_id user, uint64_t seq)
{
    struct reading *reading = context;
    const uint64_t pos = index_find(reading->world.index, user, seq);

    if (pos != 0) {
        world_flush(&reading->world, 100, 0);
        memset(reading->world.disk.bytes, 0, SEGMENT_BYTES * SEGMENT_COUNT);
    }
    return pos;
}

static void an_entry_flushed_since_the_snapshot_is_found_in_the_next(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);
    const struct chat_user *user;
    struct read_answer answer;
    size_t length;

    reading_init(reading, 34);
    user = &reading->world.model.users[0];
    world_chat(&reading->world, 100);
    take_spans(reading);
    reading->places.context = reading;
    reading->places.find = find_and_flush;

    const uint64_t from = user->facts.head;
    const struct read_request request = {
        .kind = READ_RANGE, .user = user->id, .from = from, .to = from, .bytes = 100
    };

    reader_load(reading->reader, &request, &reading->places, &answer);
    assert_int_equal(answer.status, READ_FOUND);
    assert_int_equal(answer.snapshot_lsn, journal_durable_lsn(reading->world.journal));
    assert_entry(&user->entries[from - 1], answer.entries, answer.entries_bytes, &length);

    /* A place that holds another entry is as good as none. */
    world_chat(&reading->world, 100);
    take_spans(reading);
    reading->places.find = find_the_first;
    reader_load(reading->reader, &request, &reading->places, &answer);
    assert_int_equal(answer.status, READ_FOUND);
    assert_entry(&user->entries[from - 1], answer.entries, answer.entries_bytes, &length);

    /* And where the volume has never heard of it, that is a failure, not an absence. */
    reading->places.find = find_nowhere;
    const struct read_request beyond = { .kind = READ_RANGE,
                                         .user = user->id,
                                         .from = user->facts.head + 1,
                                         .to = user->facts.head + 1,
                                         .bytes = 100 };
    reader_load(reading->reader, &beyond, &reading->places, &answer);
    assert_int_equal(answer.status, READ_FAILED);
    assert_non_null(strstr(reader_text(reading->reader), "neither in the journal"));
    reading_deinit(reading);
    free(reading);
}

/* Where another user's entry of that number lies. */
static uint64_t find_of_another(void *context, struct user_id user, uint64_t seq)
{
    const struct reading *reading = context;

    for (uint32_t u = 0; u < CHAT_USERS; u++) {
        const struct user_id other = reading->world.model.users[u].id;
        const uint64_t pos = index_find(reading->world.index, other, seq);

        if (other.value != user.value && pos != 0) {
            return pos;
        }
    }
    return 0;
}

static void an_entry_of_another_user_is_never_believed(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);
    struct read_answer answer;
    unsigned tried = 0;
    size_t length;

    reading_init(reading, 36);
    world_chat(&reading->world, 100);
    world_flush(&reading->world, 100, 0);
    uint64_t flushed[CHAT_USERS];
    for (uint32_t u = 0; u < CHAT_USERS; u++) {
        flushed[u] = reading->world.model.users[u].facts.head;
    }
    world_chat(&reading->world, 100);
    take_spans(reading);
    reading->places.context = reading;
    reading->places.find = find_of_another;
    for (uint32_t u = 0; u < CHAT_USERS; u++) {
        const struct chat_user *user = &reading->world.model.users[u];

        for (uint64_t seq = user->facts.floor; user->exists && seq <= flushed[u]; seq++) {
            const struct read_request request = {
                .kind = READ_RANGE, .user = user->id, .from = seq, .to = seq, .bytes = 100
            };

            tried += find_of_another(reading, user->id, seq) != 0;
            reader_load(reading->reader, &request, &reading->places, &answer);
            assert_int_equal(answer.status, READ_FOUND);
            assert_entry(&user->entries[seq - 1], answer.entries, answer.entries_bytes, &length);
        }
    }
    assert_true(tried > 0);
    reading_deinit(reading);
    free(reading);
}

/* Its place was looked up, then a flush dropped it and its segment was written again. */
static void an_entry_that_retention_took_meanwhile_is_absent(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);
    const struct chat_user *user;
    struct read_answer answer;

    reading_init(reading, 35);
    user = &reading->world.model.users[0];
    const struct read_request request = {
        .kind = READ_RANGE, .user = user->id, .from = 1, .to = 1, .bytes = 100
    };

    do { /* rows go whole: some entries below a floor are there for a while */
        assert_true(user->facts.head < CHAT_ENTRIES_MAX / 2);
        world_chat(&reading->world, 100);
        world_flush(&reading->world, 100, 0);
        reader_load(reading->reader, &request, NULL, &answer);
    } while (answer.status == READ_FOUND);
    assert_true(user->facts.floor > 1);
    take_spans(reading);
    reading->places.find = find_nowhere;
    reader_load(reading->reader, &request, &reading->places, &answer);
    assert_int_equal(answer.status, READ_ABSENT);
    reading_deinit(reading);
    free(reading);
}

/* Each part is whole, but it isn't the body's. */
static void parts_of_another_body_are_never_believed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint16_t part;
        size_t byte_count;
    } rows[] = { { "other bytes", 1, SCHEMA_BODY_PART_BYTES },
                 { "shorter", 1, 5 },
                 { "longer than the body", 8, SCHEMA_BODY_PART_BYTES } };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct reading *reading = malloc(sizeof *reading);
        const struct record user = { .type = RECORD_USER,
                                     .partition = partition_of(5),
                                     .user = { { 5 }, 1700000000, 1 } };
        const struct record entry = message_record(5, 9, 1, 1, RECORD_BODY_BYTES_MAX);
        const struct schema_key key = schema_key_body(entry.entry.id, rows[i].part);
        const struct read_request request = {
            .kind = READ_RANGE, .user = { 5 }, .from = 1, .to = 1, .bytes = 100
        };
        uint8_t bytes[RECORD_BYTES_MAX + 100];
        struct schema_row row;
        struct volume_txn *txn;
        struct read_answer answer;
        size_t length;

        reading_init(reading, 35);
        length = record_encode(&user, bytes, sizeof bytes);
        length += record_encode(&entry, bytes + length, sizeof bytes - length);
        world_append(&reading->world, bytes, length);
        memory_disk_write_all(&reading->world.disk, reading->world.journal);
        world_flush(&reading->world, 10, 0);
        reader_load(reading->reader, &request, NULL, &answer);
        assert_int_equal(answer.status, READ_FOUND);

        struct volume *volume =
            reading->world.scratch.volumes[schema_volume_of(partition_of(5), WORLD_VOLUMES)];
        memset(bytes, 7, sizeof bytes);
        schema_encode_part(&key, bytes, rows[i].byte_count, &row);
        assert_int_equal(volume_write_begin(volume, 1, 4000, &txn), VOLUME_OK);
        assert_int_equal(
            volume_put(txn, VOLUME_BODY, schema_key_bytes(&key), schema_row_bytes(&row)),
            VOLUME_OK);
        assert_int_equal(volume_commit(txn), VOLUME_OK);
        reader_load(reading->reader, &request, NULL, &answer);
        if (answer.status != READ_FAILED) {
            fail_msg("%s", rows[i].name);
        }
        reading_deinit(reading);
        free(reading);
    }
}

static void a_rotten_row_is_never_believed(void **state)
{
    (void)state;
    struct reading *reading = malloc(sizeof *reading);
    const struct chat_user *user;
    uint8_t copy[VOLUME_VALUE_BYTES_MAX];

    reading_init(reading, 33);
    user = &reading->world.model.users[1];
    world_chat(&reading->world, 200);
    world_flush(&reading->world, 100, 0);

    struct volume *volume =
        reading->world.scratch
            .volumes[schema_volume_of(partition_of(user->id.value), WORLD_VOLUMES)];
    const struct schema_key beyond = schema_key_log(user->id, UINT64_MAX);
    struct volume_txn *txn;
    struct volume_bytes found;
    struct volume_bytes row;
    struct schema_key key;

    assert_int_equal(volume_write_begin(volume, 1, sizeof copy, &txn), VOLUME_OK);
    assert_int_equal(volume_seek_before(txn, VOLUME_USER, schema_key_bytes(&beyond), &found, &row),
                     VOLUME_OK);
    assert_true(schema_is_log(found, user->id));
    key.byte_count = found.byte_count;
    memcpy(key.bytes, found.bytes, found.byte_count);
    memcpy(copy, row.bytes, row.byte_count);
    copy[row.byte_count - 1] ^= 0x10;
    assert_int_equal(volume_put(txn, VOLUME_USER, schema_key_bytes(&key),
                                (struct volume_bytes){ copy, row.byte_count }),
                     VOLUME_OK);
    assert_int_equal(volume_commit(txn), VOLUME_OK);

    const struct read_request request = { .kind = READ_RANGE,
                                          .user = user->id,
                                          .from = user->facts.head,
                                          .to = user->facts.head,
                                          .bytes = 100 };
    struct read_answer answer;

    reader_load(reading->reader, &request, NULL, &answer);
    assert_int_equal(answer.status, READ_FAILED);
    assert_non_null(strstr(reader_text(reading->reader), "damaged"));
    reading_deinit(reading);
    free(reading);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_come_from_journal_and_volume_as_one),
        cmocka_unit_test(users_heads_and_checkpoints_are_found),
        cmocka_unit_test(a_partition_opens_with_its_last_id_and_unended_stream_records),
        cmocka_unit_test(an_entry_that_left_the_journal_meanwhile_is_found_in_the_volume),
        cmocka_unit_test(an_entry_flushed_since_the_snapshot_is_found_in_the_next),
        cmocka_unit_test(an_entry_of_another_user_is_never_believed),
        cmocka_unit_test(an_entry_that_retention_took_meanwhile_is_absent),
        cmocka_unit_test(parts_of_another_body_are_never_believed),
        cmocka_unit_test(a_rotten_row_is_never_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

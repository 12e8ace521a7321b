#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "store/apply.h"
#include "store/expire.h"
#include "tests/unit/store/memory_disk.h"
#include "tests/unit/store/scratch_volumes.h"

#define VOLUMES     3
#define NOW_MS      UINT64_C(1760000000000)
#define AGE_MS      UINT64_C(100000)
#define CUTOFF_MS   (NOW_MS - AGE_MS)
#define RECORDS_MAX 4000
#define PEER        9

struct logs {
    struct scratch_volumes scratch;
    struct volume_txn *readers[VOLUMES];
    struct apply apply;
    uint32_t drops_max; /* of a transaction */
    struct record records[RECORDS_MAX];
};

static struct logs logs;

static int open_logs(void **state)
{
    struct hf_error error;
    (void)state;

    scratch_volumes_open(&logs.scratch, VOLUMES);
    for (uint16_t v = 0; v < VOLUMES; v++) {
        logs.readers[v] = volume_reader_open(logs.scratch.volumes[v], &error);
        assert_non_null(logs.readers[v]);
    }
    logs.drops_max = UINT32_MAX;
    assert_true(apply_open(&logs.apply, RECORDS_MAX));
    return 0;
}

static int close_logs(void **state)
{
    (void)state;
    apply_close(&logs.apply);
    for (uint16_t v = 0; v < VOLUMES; v++) {
        volume_reader_close(logs.readers[v]);
    }
    scratch_volumes_close(&logs.scratch);
    return 0;
}

static uint16_t volume_of(uint64_t user)
{
    return schema_volume_of(partition_of(user), VOLUMES);
}

static void apply_all(uint64_t user, uint32_t count)
{
    struct volume_txn *txn;

    assert_int_equal(
        volume_write_begin(logs.scratch.volumes[volume_of(user)], 20000, 1 << 20, &txn), VOLUME_OK);
    logs.apply.drops_left = logs.drops_max;
    assert_int_equal(apply_user(&logs.apply, txn, logs.records, count), SCHEMA_OK);
    assert_int_equal(volume_commit(txn), VOLUME_OK);
}

/* A new user with a log whose entries were made then: rows of every kind stand around it. */
static void put_log(uint64_t user, const uint64_t *times_ms, uint32_t count)
{
    uint32_t n = 0;

    assert_true(count + 2 <= RECORDS_MAX);
    logs.records[n++] = (struct record){
        .type = RECORD_USER,
        .partition = partition_of(user),
        .user = { { user }, 1700000000, 1 },
    };
    logs.records[n++] = (struct record){
        .type = RECORD_DEVICE,
        .partition = partition_of(user),
        .device = { { user }, { 1 }, 1, 1 },
    };
    for (uint32_t i = 0; i < count; i++) {
        struct record *record = &logs.records[n++];

        *record = message_record(user, PEER, i + 1, i + 1, 10);
        record->entry.id =
            message_id_next((struct message_id){ 0 }, partition_of(PEER), times_ms[i]);
    }
    apply_all(user, n);
}

static void put_floor(uint64_t user, uint64_t floor)
{
    logs.records[0] = (struct record){
        .type = RECORD_FLOOR,
        .partition = partition_of(user),
        .floor = { { user }, floor },
    };
    apply_all(user, 1);
}

/* A whole sweep; how many users it found. */
static uint32_t sweep(uint32_t rows_a_step, struct expire_found *found, uint32_t found_max)
{
    struct expire expire;
    uint32_t count = 0;

    expire_begin(&expire, logs.readers, VOLUMES, CUTOFF_MS);
    for (;;) {
        struct expire_found one;

        switch (expire_step(&expire, rows_a_step, &one)) {
        case EXPIRE_MORE:
            break;
        case EXPIRE_FOUND:
            assert_true(count < found_max);
            found[count++] = one;
            break;
        case EXPIRE_SWEPT:
            return count;
        case EXPIRE_DAMAGED:
        case EXPIRE_FAILED:
            fail_msg("damaged, or unreadable");
        }
    }
}

static void log_begins_at_the_first_entry_that_is_young_enough(void **state)
{
    (void)state;
    const uint64_t old = CUTOFF_MS - 1;
    const uint64_t young = CUTOFF_MS;
    const struct {
        const char *name;
        uint64_t times_ms[6];
        uint32_t count;
        uint64_t floor; /* 0: nothing is found */
    } rows[] = {
        { "no entry", { 0 }, 0, 0 },
        { "a young one", { young }, 1, 0 },
        { "an old one", { old }, 1, 2 },
        { "old and young", { old, old, young, young }, 4, 3 },
        { "all old", { old, old, old, old, old, old }, 6, 7 },
        { "old behind young stays", { young, old, old }, 3, 0 },
        { "up to the first young one only", { old, young, old, young }, 4, 2 },
        { "rising", { old - 90, old - 50, old, young, young + 5, NOW_MS }, 6, 4 },
        { "made by a clock that is ahead", { old, NOW_MS + AGE_MS, young }, 3, 2 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (uint32_t rows_a_step = 1; rows_a_step < 9; rows_a_step++) {
            struct expire_found found = { 0 };

            scratch_volumes_empty(&logs.scratch);
            put_log(1001, rows[i].times_ms, rows[i].count);

            const uint32_t count = sweep(rows_a_step, &found, 1);

            if (count != (rows[i].floor != 0) || found.floor != rows[i].floor ||
                (count > 0 && found.user.value != 1001)) {
                fail_msg("%s, %u rows a step: %u found, floor %u", rows[i].name, rows_a_step, count,
                         (unsigned)found.floor);
            }
        }
    }
}

static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

/* So many that each has checkpoints; the plainest means say what must be found. */
static void every_user_of_all_volumes_is_looked_at_once(void **state)
{
    (void)state;
    enum { USERS = 40, ENTRIES_MAX = 200 };
    static uint64_t times_ms[ENTRIES_MAX];
    uint64_t floors[USERS] = { 0 };
    struct expire_found found[USERS];
    uint32_t expected = 0;

    random_state = 88172645463325252;
    scratch_volumes_empty(&logs.scratch);
    for (uint32_t u = 0; u < USERS; u++) {
        const uint32_t count = (uint32_t)draw(ENTRIES_MAX + 1);

        for (uint32_t i = 0; i < count; i++) {
            times_ms[i] = CUTOFF_MS - 100 + (u % 4 == 0 ? 0 : i) + draw(10);
        }
        put_log(2000 + u, times_ms, count);
        for (uint32_t i = 0; i < count && times_ms[i] < CUTOFF_MS; i++) {
            floors[u] = i + 2;
        }
        expected += floors[u] != 0;
    }
    assert_true(expected > USERS / 2 && expected < USERS);
    for (uint32_t rows_a_step = 1; rows_a_step < 1000; rows_a_step = rows_a_step * 3 + 1) {
        bool seen[USERS] = { false };

        assert_int_equal(sweep(rows_a_step, found, USERS), expected);
        for (uint32_t i = 0; i < expected; i++) {
            const uint64_t u = found[i].user.value - 2000;

            assert_true(u < USERS && !seen[u]);
            assert_int_equal(found[i].floor, floors[u]);
            seen[u] = true;
        }
    }
}

static void log_that_is_cut_is_found_no_more(void **state)
{
    (void)state;
    const uint64_t times_ms[] = { 1, 1, 1, NOW_MS, NOW_MS };
    struct expire_found found = { 0 };

    /* Clocks before 2020 make ids of then. */
    scratch_volumes_empty(&logs.scratch);
    put_log(1001, times_ms, 5);
    assert_int_equal(sweep(64, &found, 1), 1);
    assert_int_equal(found.floor, 4);
    put_floor(1001, found.floor);
    assert_int_equal(sweep(64, &found, 1), 0);
    put_floor(1001, 6); /* nothing is left of the log */
    assert_int_equal(sweep(64, &found, 1), 0);
}

static void log_that_is_cut_within_a_step_is_read_on(void **state)
{
    (void)state;
    enum { COUNT = 120, YOUNG = 101 };
    static uint64_t times_ms[COUNT];
    struct expire expire;
    struct expire_found found = { 0 };
    enum expire_status status = EXPIRE_MORE;

    for (size_t i = 0; i < COUNT; i++) {
        times_ms[i] = i < YOUNG - 1 ? CUTOFF_MS - 1 : NOW_MS;
    }
    for (uint64_t floor = 2; floor < COUNT + 2; floor++) {
        scratch_volumes_empty(&logs.scratch);
        put_log(1001, times_ms, COUNT);
        expire_begin(&expire, logs.readers, VOLUMES, CUTOFF_MS);
        for (uint32_t v = 0; v <= volume_of(1001); v++) {
            status = expire_step(&expire, 2, &found); /* into the log */
            assert_int_equal(status, EXPIRE_MORE);
        }
        put_floor(1001, floor);
        do {
            status = expire_step(&expire, 2, &found);
        } while (status == EXPIRE_MORE);
        assert_int_equal(status, EXPIRE_FOUND);
        assert_true(found.floor <= YOUNG); /* never a young one */
        assert_true(floor >= YOUNG || found.floor == YOUNG);
    }
}

/* A flush goes on with the row that was read last, and then begins the next. */
static void row_that_has_grown_within_a_step_is_read_on(void **state)
{
    (void)state;
    enum { READ = 5, COUNT = 100 };
    static uint64_t times_ms[COUNT];
    struct expire expire;
    struct expire_found found = { 0 };
    enum expire_status status = EXPIRE_MORE;

    for (size_t i = 0; i < COUNT; i++) {
        times_ms[i] = i == READ ? NOW_MS : CUTOFF_MS - 1;
    }
    scratch_volumes_empty(&logs.scratch);
    put_log(1001, times_ms, READ);
    expire_begin(&expire, logs.readers, VOLUMES, CUTOFF_MS);
    for (uint32_t v = 0; v <= volume_of(1001); v++) {
        assert_int_equal(expire_step(&expire, 1, &found), EXPIRE_MORE);
    }
    put_log(1001, times_ms, COUNT);
    while (status == EXPIRE_MORE) {
        status = expire_step(&expire, 1, &found);
    }
    assert_int_equal(status, EXPIRE_FOUND);
    assert_int_equal(found.floor, READ + 1);
}

static void volumes_of_other_cores_are_passed_over(void **state)
{
    (void)state;
    const uint64_t old = CUTOFF_MS - 1;
    struct volume_txn *const mine = logs.readers[1];
    struct volume_txn *const readers[VOLUMES] = { NULL, mine, NULL };
    struct expire expire;
    struct expire_found found = { 0 };
    enum expire_status status;
    uint32_t count = 0;

    scratch_volumes_empty(&logs.scratch);
    for (uint64_t user = 3000; user < 3030; user++) {
        put_log(user, &old, 1);
    }
    expire_begin(&expire, readers, VOLUMES, CUTOFF_MS);
    while ((status = expire_step(&expire, 7, &found)) != EXPIRE_SWEPT) {
        assert_int_not_equal(status, EXPIRE_FAILED);
        if (status == EXPIRE_FOUND) {
            assert_int_equal(volume_of(found.user.value), 1);
            count++;
        }
    }
    assert_true(count > 2 && count == expire.users);
}

static void rot(struct schema_key key, uint64_t user)
{
    static const uint8_t bytes[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    struct volume_txn *txn;

    assert_int_equal(volume_write_begin(logs.scratch.volumes[volume_of(user)], 1, 100, &txn),
                     VOLUME_OK);
    assert_int_equal(volume_put(txn, VOLUME_USER, schema_key_bytes(&key),
                                (struct volume_bytes){ bytes, sizeof bytes }),
                     VOLUME_OK);
    assert_int_equal(volume_commit(txn), VOLUME_OK);
}

static void damaged_row_is_named_and_all_others_are_looked_at(void **state)
{
    (void)state;
    enum { USERS = 30 };
    const uint64_t times_ms[] = { CUTOFF_MS - 1, NOW_MS };

    for (int facts = 0; facts < 2; facts++) {
        struct expire expire;
        struct expire_found found = { 0 };
        enum expire_status status = EXPIRE_MORE;
        uint32_t damaged = 0;
        uint32_t old = 0;

        scratch_volumes_empty(&logs.scratch);
        for (uint64_t user = 4000; user < 4000 + USERS; user++) {
            put_log(user, times_ms, 2);
        }
        rot(facts == 1 ? schema_key_facts((struct user_id){ 4010 })
                       : schema_key_log((struct user_id){ 4010 }, 1),
            4010);
        expire_begin(&expire, logs.readers, VOLUMES, CUTOFF_MS);
        while (status != EXPIRE_SWEPT) {
            status = expire_step(&expire, 64, &found);
            assert_int_not_equal(status, EXPIRE_FAILED);
            old += status == EXPIRE_FOUND;
            if (status == EXPIRE_DAMAGED) {
                assert_int_equal(found.user.value, 4010);
                assert_int_equal(expire.damaged_volume, volume_of(4010));
                assert_string_equal(expire.damaged_row, facts == 1 ? "its facts" : "of its log");
                damaged++;
            }
        }
        assert_int_equal(damaged, 1);
        assert_int_equal(old, USERS - 1);
    }
}

static void key_that_is_no_user_s_ends_its_volume_only(void **state)
{
    (void)state;
    struct schema_key key = schema_key_facts((struct user_id){ 4000 });
    const uint64_t old = CUTOFF_MS - 1;
    struct expire expire;
    struct expire_found found = { 0 };
    enum expire_status status = EXPIRE_MORE;
    uint32_t damaged = 0;
    uint32_t count = 0;

    scratch_volumes_empty(&logs.scratch);
    for (uint64_t user = 4000; user < 4030; user++) {
        put_log(user, &old, 1);
    }
    key.bytes[0] = 0;
    key.bytes[1] = 0; /* of another partition than the user is */
    rot(key, 4000);
    expire_begin(&expire, logs.readers, VOLUMES, CUTOFF_MS);
    while (status != EXPIRE_SWEPT) {
        status = expire_step(&expire, 64, &found);
        assert_int_not_equal(status, EXPIRE_FAILED);
        damaged += status == EXPIRE_DAMAGED;
        if (status == EXPIRE_FOUND) {
            assert_int_not_equal(volume_of(found.user.value), volume_of(4000));
            count++;
        }
    }
    assert_int_equal(damaged, 1);
    assert_true(count > 10);
}

/* What a row has below the floor stays until the rest of it goes: it isn't found again for that. */
static void row_that_is_old_in_part_is_found_once(void **state)
{
    (void)state;
    const uint64_t times_ms[] = { CUTOFF_MS - 9, CUTOFF_MS - 8, NOW_MS, NOW_MS };
    struct expire_found found = { 0 };

    scratch_volumes_empty(&logs.scratch);
    put_log(1001, times_ms, 4);
    assert_int_equal(sweep(64, &found, 1), 1);
    assert_int_equal(found.floor, 3);
    logs.apply.entries_dropped = 0;
    put_floor(1001, found.floor);
    assert_int_equal(logs.apply.entries_dropped, 0);
    assert_int_equal(sweep(64, &found, 1), 0);
}

/* A transaction takes so much of a log and no more; the same record again takes the next of it. */
static void floor_over_many_entries_is_dropped_bit_by_bit(void **state)
{
    (void)state;
    enum { COUNT = 1000, FLOOR = 901, ROW_MAX = 40 };
    static uint64_t times_ms[COUNT];
    uint32_t visits = 0;
    struct expire_found found = { 0 };

    for (size_t i = 0; i < COUNT; i++) {
        times_ms[i] = i < FLOOR - 1 ? CUTOFF_MS - 1 : NOW_MS;
    }
    scratch_volumes_empty(&logs.scratch);
    put_log(1001, times_ms, COUNT);
    logs.apply.entries_dropped = 0;
    logs.drops_max = 0;
    put_floor(1001, FLOOR);
    assert_int_equal(logs.apply.entries_dropped, 0);
    assert_true(logs.apply.more);
    logs.drops_max = 5;
    do {
        const uint64_t before = logs.apply.entries_dropped;

        put_floor(1001, FLOOR);
        assert_true(logs.apply.entries_dropped > before);
        assert_true(logs.apply.entries_dropped - before <= (uint64_t)logs.drops_max * ROW_MAX);
        visits++;
    } while (logs.apply.more);
    logs.drops_max = UINT32_MAX;
    assert_true(visits > 5);
    assert_in_range(logs.apply.entries_dropped, FLOOR - 1 - ROW_MAX, FLOOR - 1);
    assert_int_equal(sweep(64, &found, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_begins_at_the_first_entry_that_is_young_enough),
        cmocka_unit_test(every_user_of_all_volumes_is_looked_at_once),
        cmocka_unit_test(log_that_is_cut_is_found_no_more),
        cmocka_unit_test(log_that_is_cut_within_a_step_is_read_on),
        cmocka_unit_test(row_that_has_grown_within_a_step_is_read_on),
        cmocka_unit_test(volumes_of_other_cores_are_passed_over),
        cmocka_unit_test(damaged_row_is_named_and_all_others_are_looked_at),
        cmocka_unit_test(key_that_is_no_user_s_ends_its_volume_only),
        cmocka_unit_test(row_that_is_old_in_part_is_found_once),
        cmocka_unit_test(floor_over_many_entries_is_dropped_bit_by_bit),
    };
    return cmocka_run_group_tests(tests, open_logs, close_logs);
}

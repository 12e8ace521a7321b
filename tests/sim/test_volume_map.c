/*
 * The simulator's volumes must do what LMDB's do: both are driven with the same random operations,
 * and every answer is compared. What only the map can do (crash, lag) is tested by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/volume_lmdb.h"
#include "tests/sim/prng.h"
#include "tests/sim/volume_map.h"
#include "tests/sim/volume_ops.h"

#define ROUNDS           600
#define TXN_OPERATIONS   120
#define OPERATIONS_MAX   4000
#define OPERATIONS_BYTES (8U << 20)

struct pair {
    struct volume *lmdb;
    struct volume *map;
    struct volume_txn *lmdb_reader;
    struct volume_txn *map_reader;
    bool reading;
    char folder[64];
    char path[96];
};

static int open_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    const struct volume_options options = { .map_bytes = 1U << 28, .create = true };
    struct hf_error error = { 0 };

    assert_non_null(pair);
    (void)snprintf(pair->folder, sizeof pair->folder, "/tmp/holdfast-volume-XXXXXX");
    assert_non_null(mkdtemp(pair->folder));
    (void)snprintf(pair->path, sizeof pair->path, "%s/v", pair->folder);
    pair->lmdb = volume_open(pair->path, &options, &error);
    if (pair->lmdb == NULL) {
        fail_msg("%s", error.text);
    }
    pair->map = volume_map_open();
    pair->lmdb_reader = lmdb_ops.reader_open(pair->lmdb, &error);
    pair->map_reader = map_ops.reader_open(pair->map, &error);
    assert_non_null(pair->lmdb_reader);
    *state = pair;
    return 0;
}

static int close_pair(void **state)
{
    struct pair *pair = *state;
    char lock[112];

    if (pair->reading) {
        lmdb_ops.read_end(pair->lmdb_reader);
        map_ops.read_end(pair->map_reader);
    }
    lmdb_ops.reader_close(pair->lmdb_reader);
    map_ops.reader_close(pair->map_reader);
    lmdb_ops.close(pair->lmdb);
    map_ops.close(pair->map);
    (void)snprintf(lock, sizeof lock, "%s-lock", pair->path);
    (void)unlink(pair->path);
    (void)unlink(lock);
    (void)rmdir(pair->folder);
    free(pair);
    return 0;
}

/* Few different keys, some of them the beginning of others, some as long as can be. */
static struct volume_bytes draw_key(struct prng *prng, uint8_t *to)
{
    const size_t byte_count =
        prng_chance(prng, 50) ? VOLUME_KEY_BYTES_MAX : prng_between(prng, 1, 5);

    for (size_t i = 0; i < byte_count; i++) {
        to[i] = i < 3 ? (uint8_t)(prng_below(prng, 4) * 85) : 7;
    }
    return (struct volume_bytes){ to, byte_count };
}

static struct volume_bytes draw_value(struct prng *prng, uint8_t *to)
{
    const size_t byte_count = prng_chance(prng, 100)
                                  ? prng_between(prng, 1000, VOLUME_VALUE_BYTES_MAX)
                                  : prng_below(prng, 40);

    for (size_t i = 0; i < byte_count; i++) {
        to[i] = (uint8_t)prng_next(prng);
    }
    return (struct volume_bytes){ to, byte_count };
}

static void assert_same(enum volume_status lmdb_status, enum volume_status map_status,
                        struct volume_bytes lmdb, struct volume_bytes map)
{
    assert_int_equal(lmdb_status, map_status);
    if (lmdb_status == VOLUME_OK) {
        assert_int_equal(lmdb.byte_count, map.byte_count);
        assert_memory_equal(lmdb.bytes, map.bytes, map.byte_count);
    }
}

/* A walk from a random place, with turns; ends where there is nothing. */
static void compare_walk(struct prng *prng, struct volume_txn *lmdb, struct volume_txn *map)
{
    uint8_t bytes[VOLUME_KEY_BYTES_MAX];
    const enum volume_table table = (enum volume_table)prng_below(prng, VOLUME_TABLE_COUNT);
    const struct volume_bytes key = draw_key(prng, bytes);
    const bool before = prng_chance(prng, 400);
    struct volume_bytes lmdb_key = { 0 }, lmdb_value = { 0 }, map_key = { 0 }, map_value = { 0 };
    enum volume_status status =
        (before ? lmdb_ops.seek_before : lmdb_ops.seek)(lmdb, table, key, &lmdb_key, &lmdb_value);
    enum volume_status other =
        (before ? map_ops.seek_before : map_ops.seek)(map, table, key, &map_key, &map_value);

    assert_same(status, other, lmdb_key, map_key);
    assert_same(status, other, lmdb_value, map_value);
    for (uint64_t steps = prng_below(prng, 12); steps > 0 && status == VOLUME_OK; steps--) {
        const bool back = prng_chance(prng, 300);

        status = (back ? lmdb_ops.prev : lmdb_ops.next)(lmdb, table, &lmdb_key, &lmdb_value);
        other = (back ? map_ops.prev : map_ops.next)(map, table, &map_key, &map_value);
        assert_same(status, other, lmdb_key, map_key);
        assert_same(status, other, lmdb_value, map_value);
    }
}

static void compare_get(struct prng *prng, struct volume_txn *lmdb, struct volume_txn *map)
{
    uint8_t bytes[VOLUME_KEY_BYTES_MAX];
    const enum volume_table table = (enum volume_table)prng_below(prng, VOLUME_TABLE_COUNT);
    const struct volume_bytes key = draw_key(prng, bytes);
    struct volume_bytes lmdb_value = { 0 }, map_value = { 0 };
    const enum volume_status status = lmdb_ops.get(lmdb, table, key, &lmdb_value);
    const enum volume_status other = map_ops.get(map, table, key, &map_value);

    assert_same(status, other, lmdb_value, map_value);
}

static void compare_write(struct prng *prng, struct volume_txn *lmdb, struct volume_txn *map)
{
    uint8_t key_bytes[VOLUME_KEY_BYTES_MAX], to_bytes[VOLUME_KEY_BYTES_MAX];
    uint8_t value_bytes[VOLUME_VALUE_BYTES_MAX];
    const enum volume_table table = (enum volume_table)prng_below(prng, VOLUME_TABLE_COUNT);
    const struct volume_bytes key = draw_key(prng, key_bytes);

    switch (prng_below(prng, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        assert_int_equal(lmdb_ops.del(lmdb, table, key), map_ops.del(map, table, key));
        break;
    case 5: {
        const struct volume_bytes to = draw_key(prng, to_bytes);

        if (memcmp(key_bytes, to_bytes, 1) <= 0 && prng_chance(prng, 300)) {
            assert_int_equal(lmdb_ops.del_range(lmdb, table, key, to),
                             map_ops.del_range(map, table, key, to));
        }
        break;
    }
    default: {
        const struct volume_bytes value = draw_value(prng, value_bytes);

        assert_int_equal(lmdb_ops.put(lmdb, table, key, value),
                         map_ops.put(map, table, key, value));
        break;
    }
    }
}

static void compare_reader(struct prng *prng, struct pair *pair)
{
    if (!pair->reading) {
        assert_int_equal(lmdb_ops.read_begin(pair->lmdb_reader),
                         map_ops.read_begin(pair->map_reader));
        pair->reading = true;
        return;
    }
    if (prng_chance(prng, 200)) {
        lmdb_ops.read_end(pair->lmdb_reader);
        map_ops.read_end(pair->map_reader);
        pair->reading = false;
        return;
    }
    compare_walk(prng, pair->lmdb_reader, pair->map_reader);
    compare_get(prng, pair->lmdb_reader, pair->map_reader);
}

static void compare_txn(struct prng *prng, struct pair *pair)
{
    struct volume_txn *lmdb = NULL, *map = NULL;

    assert_int_equal(lmdb_ops.write_begin(pair->lmdb, OPERATIONS_MAX, OPERATIONS_BYTES, &lmdb),
                     VOLUME_OK);
    assert_int_equal(map_ops.write_begin(pair->map, OPERATIONS_MAX, OPERATIONS_BYTES, &map),
                     VOLUME_OK);
    for (uint64_t i = prng_below(prng, TXN_OPERATIONS); i > 0; i--) {
        switch (prng_below(prng, 6)) {
        case 0:
            compare_walk(prng, lmdb, map);
            break;
        case 1:
            compare_get(prng, lmdb, map);
            break;
        case 2:
            compare_reader(prng, pair);
            break;
        default:
            compare_write(prng, lmdb, map);
            break;
        }
    }
    if (prng_chance(prng, 200)) {
        lmdb_ops.abort(lmdb);
        map_ops.abort(map);
    } else {
        assert_int_equal(lmdb_ops.commit(lmdb), VOLUME_OK);
        assert_int_equal(map_ops.commit(map), VOLUME_OK);
        if (prng_chance(prng, 300)) {
            assert_int_equal(lmdb_ops.sync(pair->lmdb), VOLUME_OK);
            assert_int_equal(map_ops.sync(pair->map), VOLUME_OK);
        }
    }
}

static void random_operations_are_answered_as_by_lmdb(void **state)
{
    struct pair *pair = *state;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        struct prng prng = prng_of(round);

        compare_txn(&prng, pair);
        compare_reader(&prng, pair);
    }
}

/* ---- What only the map does ---- */

static void put_number(struct volume *volume, uint8_t number)
{
    const struct volume_bytes key = { (const uint8_t *)"k", 1 };
    const struct volume_bytes value = { &number, 1 };
    struct volume_txn *txn = NULL;

    assert_int_equal(map_ops.write_begin(volume, 1, 10, &txn), VOLUME_OK);
    assert_int_equal(map_ops.put(txn, VOLUME_USER, key, value), VOLUME_OK);
    assert_int_equal(map_ops.commit(txn), VOLUME_OK);
}

static uint8_t get_number(struct volume *volume)
{
    const struct volume_bytes key = { (const uint8_t *)"k", 1 };
    struct volume_bytes value;
    struct hf_error error;
    struct volume_txn *reader = map_ops.reader_open(volume, &error);

    assert_int_equal(map_ops.read_begin(reader), VOLUME_OK);
    assert_int_equal(map_ops.get(reader, VOLUME_USER, key, &value), VOLUME_OK);

    const uint8_t number = value.bytes[0];

    map_ops.read_end(reader);
    map_ops.reader_close(reader);
    return number;
}

static void crash_takes_back_only_the_newest_that_were_not_synced(void **state)
{
    bool seen[6] = { false };

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct prng prng = prng_of(seed);
        struct volume *volume = volume_map_open();

        put_number(volume, 1);
        put_number(volume, 2);
        assert_int_equal(map_ops.sync(volume), VOLUME_OK);
        for (uint8_t number = 3; number <= 5; number++) {
            put_number(volume, number);
        }

        const uint32_t lost = volume_map_crash(volume, &prng);
        const uint8_t number = get_number(volume);

        assert_in_range(number, 2, 5);
        assert_int_equal(5 - number, lost);
        seen[number] = true;
        map_ops.close(volume);
    }
    assert_true(seen[2] && seen[3] && seen[4] && seen[5]);
}

static void lagging_reader_sees_an_older_commit(void **state)
{
    struct volume *volume = volume_map_open();

    (void)state;
    for (uint8_t number = 1; number <= 3; number++) {
        put_number(volume, number);
    }
    assert_int_equal(get_number(volume), 3);
    volume_map_set_lag(volume, 1);
    assert_int_equal(get_number(volume), 2);
    volume_map_set_lag(volume, 2);
    assert_int_equal(get_number(volume), 1);
    map_ops.close(volume);
}

static void burnt_fuse_breaks_every_later_write(void **state)
{
    const struct volume_bytes key = { (const uint8_t *)"k", 1 };
    struct volume *volume = volume_map_open();
    struct volume_txn *txn = NULL;
    uint64_t fuse = 3;

    (void)state;
    volume_map_set_fuse(volume, &fuse);
    assert_int_equal(map_ops.write_begin(volume, 3, 10, &txn), VOLUME_OK);
    assert_int_equal(map_ops.put(txn, VOLUME_USER, key, key), VOLUME_OK);
    assert_int_equal(map_ops.put(txn, VOLUME_USER, key, key), VOLUME_OK);
    assert_int_equal(map_ops.put(txn, VOLUME_USER, key, key), VOLUME_BROKEN);
    assert_int_equal(map_ops.commit(txn), VOLUME_BROKEN);
    assert_int_equal(map_ops.sync(volume), VOLUME_BROKEN);
    map_ops.close(volume);
}

static void full_volume_refuses_to_begin(void **state)
{
    struct volume *volume = volume_map_open();
    struct volume_txn *txn = NULL;

    (void)state;
    volume_map_set_full(volume, true);
    assert_int_equal(map_ops.write_begin(volume, 1, 10, &txn), VOLUME_FULL);
    volume_map_set_full(volume, false);
    put_number(volume, 1);
    assert_int_equal(get_number(volume), 1);
    map_ops.close(volume);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_operations_are_answered_as_by_lmdb, open_pair,
                                        close_pair),
        cmocka_unit_test(crash_takes_back_only_the_newest_that_were_not_synced),
        cmocka_unit_test(lagging_reader_sees_an_older_commit),
        cmocka_unit_test(burnt_fuse_breaks_every_later_write),
        cmocka_unit_test(full_volume_refuses_to_begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

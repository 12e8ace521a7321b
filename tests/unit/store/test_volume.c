#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "store/volume.h"
#include "store/volume_lmdb.h"
#include "tests/unit/store/memory_disk.h"
#include "tests/unit/store/scratch_volumes.h"

#define KEYS       4000
#define WRITE_SIZE ((size_t)60 * 300)

/* The plainest table: what is at each key, 0 bytes for nothing. */
struct model {
    uint32_t lengths[KEYS];
    uint64_t seeds[KEYS];
};

static struct volume_bytes key_of(uint16_t number, uint8_t to[2])
{
    store_be16(to, number);
    return (struct volume_bytes){ to, 2 };
}

static void fill(uint8_t *to, size_t byte_count, uint64_t seed)
{
    for (size_t i = 0; i < byte_count; i++) {
        to[i] = (uint8_t)(id_mix(seed + i / 8) >> (8 * (i % 8)));
    }
}

static void put(struct volume_txn *txn, struct model *model, uint16_t key, uint32_t length,
                uint64_t seed)
{
    uint8_t bytes[2];
    uint8_t value[VOLUME_VALUE_BYTES_MAX];

    fill(value, length, seed);
    assert_int_equal(volume_put(txn, VOLUME_USER, key_of((uint16_t)key, bytes),
                                (struct volume_bytes){ value, length }),
                     VOLUME_OK);
    model->lengths[key] = length;
    model->seeds[key] = seed;
}

static void compare(struct volume_txn *txn, const struct model *model)
{
    uint8_t bytes[2];
    uint8_t value[VOLUME_VALUE_BYTES_MAX];
    struct volume_bytes found;
    struct volume_bytes row;
    enum volume_status status = volume_seek(txn, VOLUME_USER, key_of(0, bytes), &found, &row);

    for (uint32_t key = 0; key < KEYS; key++) {
        if (model->lengths[key] == 0) {
            continue;
        }
        assert_int_equal(status, VOLUME_OK);
        assert_int_equal(load_be16(found.bytes), key);
        assert_int_equal(row.byte_count, model->lengths[key]);
        fill(value, row.byte_count, model->seeds[key]);
        assert_memory_equal(row.bytes, value, row.byte_count);
        status = volume_next(txn, VOLUME_USER, &found, &row);
    }
    assert_int_equal(status, VOLUME_ABSENT);
}

static void compare_in_snapshot(struct volume *volume, const struct model *model)
{
    struct hf_error error;
    struct volume_txn *reader = volume_reader_open(volume, &error);

    assert_non_null(reader);
    assert_int_equal(volume_read_begin(reader), VOLUME_OK);
    compare(reader, model);
    volume_read_end(reader);
    volume_reader_close(reader);
}

static void check_places(struct volume_txn *txn, const struct model *model, uint16_t key)
{
    uint8_t bytes[2];
    struct volume_bytes found;
    struct volume_bytes row;
    int next = key;
    int before = key - 1;

    while (next < KEYS && model->lengths[next] == 0) {
        next++;
    }
    while (before >= 0 && model->lengths[before] == 0) {
        before--;
    }
    enum volume_status status = volume_get(txn, VOLUME_USER, key_of(key, bytes), &row);
    assert_int_equal(status, model->lengths[key] != 0 ? VOLUME_OK : VOLUME_ABSENT);
    status = volume_seek_before(txn, VOLUME_USER, key_of(key, bytes), &found, &row);
    assert_int_equal(status, before >= 0 ? VOLUME_OK : VOLUME_ABSENT);
    if (before >= 0) {
        assert_int_equal(load_be16(found.bytes), before);
    }
    status = volume_seek(txn, VOLUME_USER, key_of(key, bytes), &found, &row);
    assert_int_equal(status, next < KEYS ? VOLUME_OK : VOLUME_ABSENT);
    if (next < KEYS) {
        assert_int_equal(load_be16(found.bytes), next);
        status = volume_prev(txn, VOLUME_USER, &found, &row);
        assert_int_equal(status, before >= 0 ? VOLUME_OK : VOLUME_ABSENT);
    }
}

static void random_transaction(struct volume_txn *txn, struct model *model, uint64_t *random)
{
    const unsigned steps = (unsigned)(random_next(random) % 60);

    for (unsigned i = 0; i < steps; i++) {
        const uint64_t what = random_next(random) % 20;
        const uint16_t key = (uint16_t)(random_next(random) % KEYS);
        uint8_t bytes[2];
        uint8_t bytes_to[2];

        if (what < 12) {
            put(txn, model, key,
                1 + (uint32_t)(random_next(random) % (what < 2 ? VOLUME_VALUE_BYTES_MAX : 200)),
                random_next(random));
        } else if (what < 15) {
            assert_int_equal(volume_del(txn, VOLUME_USER, key_of(key, bytes)),
                             model->lengths[key] != 0 ? VOLUME_OK : VOLUME_ABSENT);
            model->lengths[key] = 0;
        } else if (what == 15) {
            const uint16_t to = (uint16_t)(key + random_next(random) % 40);

            assert_int_equal(
                volume_del_range(txn, VOLUME_USER, key_of(key, bytes), key_of(to, bytes_to)),
                VOLUME_OK);
            for (uint16_t gone = key; gone < to && gone < KEYS; gone++) {
                model->lengths[gone] = 0;
            }
        } else {
            check_places(txn, model, key);
        }
    }
}

static void it_holds_what_a_plain_table_holds(void **state)
{
    (void)state;
    struct scratch_volumes scratch;
    struct model *model = calloc(1, sizeof *model);
    struct model *before = calloc(1, sizeof *before);
    uint64_t random = 70;

    scratch_volumes_open(&scratch, 1);
    for (int round = 0; round < 400; round++) {
        struct volume_txn *txn;

        *before = *model;
        assert_int_equal(volume_write_begin(scratch.volumes[0], 60, WRITE_SIZE, &txn), VOLUME_OK);
        random_transaction(txn, model, &random);
        if (round % 5 == 4) {
            volume_abort(txn);
            *model = *before;
        } else {
            assert_int_equal(volume_commit(txn), VOLUME_OK);
        }
        if (round % 20 == 0) {
            assert_int_equal(volume_sync(scratch.volumes[0]), VOLUME_OK);
            compare_in_snapshot(scratch.volumes[0], model);
        }
        if (round % 100 == 99) {
            scratch_volumes_reopen(&scratch);
        }
    }
    compare_in_snapshot(scratch.volumes[0], model);
    free(model);
    free(before);
    scratch_volumes_close(&scratch);
}

static void a_snapshot_stays_as_it_began(void **state)
{
    (void)state;
    struct scratch_volumes scratch;
    struct model *model = calloc(1, sizeof *model);
    struct model *now = calloc(1, sizeof *now);
    struct hf_error error;
    struct volume_txn *txn;
    uint64_t random = 71;

    scratch_volumes_open(&scratch, 1);
    struct volume_txn *reader = volume_reader_open(scratch.volumes[0], &error);
    for (int round = 0; round < 20; round++) {
        assert_int_equal(volume_read_begin(reader), VOLUME_OK);
        *now = *model;
        for (int i = 0; i < 5; i++) {
            assert_int_equal(volume_write_begin(scratch.volumes[0], 60, WRITE_SIZE, &txn),
                             VOLUME_OK);
            random_transaction(txn, now, &random);
            assert_int_equal(volume_commit(txn), VOLUME_OK);
        }
        compare(reader, model);
        volume_read_end(reader);
        *model = *now;
    }
    volume_reader_close(reader);
    free(model);
    free(now);
    scratch_volumes_close(&scratch);
}

/* A transaction that writes far more than it announced makes LMDB lengthen the file itself. */
static void zeros_are_never_written_over_what_is_there(void **state)
{
    (void)state;
    struct scratch_volumes scratch;
    struct model *model = calloc(1, sizeof *model);
    struct volume_txn *txn;
    uint64_t random = 72;

    scratch_volumes_open(&scratch, 1);
    for (size_t announced = 1; announced < 5000; announced *= 8) {
        assert_int_equal(volume_write_begin(scratch.volumes[0], announced, announced, &txn),
                         VOLUME_OK);
        for (uint32_t key = 0; key < KEYS; key++) {
            put(txn, model, (uint16_t)key, VOLUME_VALUE_BYTES_MAX, random_next(&random));
        }
        assert_int_equal(volume_commit(txn), VOLUME_OK);
        assert_int_equal(volume_write_begin(scratch.volumes[0], 5000, 1000000, &txn), VOLUME_OK);
        volume_abort(txn);
        scratch_volumes_reopen(&scratch);
        compare_in_snapshot(scratch.volumes[0], model);
    }
    free(model);
    scratch_volumes_close(&scratch);
}

static void a_full_map_is_full_and_goes_on(void **state)
{
    (void)state;
    struct scratch_volumes scratch;
    struct model *model = calloc(1, sizeof *model);
    const struct volume_options options = { .map_bytes = 4 << 20,
                                            .reserve_bytes = 1,
                                            .create = true };
    struct hf_error error;
    char path[96];
    uint64_t random = 73;
    bool full = false;

    scratch_volumes_open(&scratch, 1);
    volume_close(scratch.volumes[0]);
    snprintf(path, sizeof path, "%s/0", scratch.path);
    scratch.volumes[0] = volume_open(path, &options, &error);
    for (unsigned first = 0; first < KEYS && !full; first += 100) {
        struct volume_txn *txn;
        enum volume_status status = VOLUME_OK;
        uint8_t bytes[2];
        uint8_t value[VOLUME_VALUE_BYTES_MAX];

        assert_int_equal(volume_write_begin(scratch.volumes[0], 100, 200000, &txn), VOLUME_OK);
        for (unsigned key = first; key < first + 100 && status == VOLUME_OK; key++) {
            fill(value, sizeof value, random_next(&random));
            status = volume_put(txn, VOLUME_USER, key_of((uint16_t)key, bytes),
                                (struct volume_bytes){ value, sizeof value });
        }
        full = status == VOLUME_FULL;
        if (full) {
            volume_abort(txn);
        } else {
            assert_int_equal(status, VOLUME_OK);
            assert_int_equal(volume_commit(txn), VOLUME_OK);
            memset(model->lengths, 0, sizeof model->lengths);
        }
    }
    assert_true(full);
    assert_non_null(strstr(volume_text(scratch.volumes[0]), "MAP_FULL"));
    /* Reads go on, and so do writes once something has gone. */
    struct volume_txn *txn;
    uint8_t from[2];
    uint8_t to[2];
    assert_int_equal(volume_write_begin(scratch.volumes[0], 0, 0, &txn), VOLUME_OK);
    assert_int_equal(volume_del_range(txn, VOLUME_USER, key_of(0, from), key_of(KEYS, to)),
                     VOLUME_OK);
    assert_int_equal(volume_commit(txn), VOLUME_OK);
    for (int round = 0; round < 3; round++) { /* freed pages serve two transactions later */
        assert_int_equal(volume_write_begin(scratch.volumes[0], 100, 200000, &txn), VOLUME_OK);
        put(txn, model, 5, 1000, 6);
        assert_int_equal(volume_commit(txn), VOLUME_OK);
    }
    compare_in_snapshot(scratch.volumes[0], model);
    free(model);
    scratch_volumes_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_holds_what_a_plain_table_holds),
        cmocka_unit_test(a_snapshot_stays_as_it_began),
        cmocka_unit_test(zeros_are_never_written_over_what_is_there),
        cmocka_unit_test(a_full_map_is_full_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

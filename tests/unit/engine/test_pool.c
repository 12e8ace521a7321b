#include "core/engine/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/base/ids.h"

struct cell {
    uint64_t key;
    uint64_t more;
};

static void slots_are_given_once_and_used_again(void **state)
{
    struct pool pool;
    uint32_t slots[3];
    (void)state;
    assert_true(pool_open(&pool, 3, sizeof(struct cell)));
    for (int i = 0; i < 3; i++) {
        slots[i] = pool_take(&pool);
        assert_int_equal(slots[i], i + 1);
    }
    assert_int_equal(pool_take(&pool), SLOT_NONE);
    ((struct cell *)pool_get(&pool, 2))->more = 7;
    pool_give(&pool, 2);
    assert_int_equal(pool.count, 2);
    assert_int_equal(pool_take(&pool), 2);
    assert_int_equal(((struct cell *)pool_get(&pool, 2))->key, 0);
    assert_int_equal(((struct cell *)pool_get(&pool, 2))->more, 0);
    pool_close(&pool);
}

#define TABLE_KEYS 200

/* Against an array of flags, with few hashes so that runs are long and wrap round. */
static void table_finds_what_is_there_and_only_that(void **state)
{
    struct table table;
    bool there[TABLE_KEYS + 1] = { false };
    uint64_t random = 1;
    (void)state;
    assert_true(table_open(&table, TABLE_KEYS));
    for (int step = 0; step < 20000; step++) {
        random = id_mix(random + 1);
        const uint32_t slot = (uint32_t)(random % TABLE_KEYS) + 1;
        const uint32_t hash = UINT32_MAX - slot % 13;

        if (there[slot]) {
            table_remove(&table, hash, slot);
        } else {
            table_add(&table, hash, slot);
        }
        there[slot] = !there[slot];
        if (step % 50 != 0) {
            continue;
        }
        bool found[TABLE_KEYS + 1] = { false };
        for (uint32_t h = 0; h < 13; h++) {
            uint32_t at = UINT32_MAX - h;
            uint32_t next;

            while ((next = table_next(&table, UINT32_MAX - h, &at)) != SLOT_NONE) {
                assert_false(found[next]);
                found[next] = true;
            }
        }
        assert_memory_equal(found, there, sizeof there);
    }
    table_close(&table);
}

static void ready_gives_each_once_in_order(void **state)
{
    struct ready ready;
    uint32_t slot;
    uint8_t flags;
    (void)state;
    assert_true(ready_open(&ready, 5));
    ready_mark(&ready, 3, 1);
    ready_mark(&ready, 1, 2);
    ready_mark(&ready, 3, 4);
    assert_true(ready_take(&ready, &slot, &flags));
    assert_int_equal(slot, 3);
    assert_int_equal(flags, 5);
    ready_forget(&ready, 1);
    assert_true(ready_take(&ready, &slot, &flags));
    assert_int_equal(slot, 1);
    assert_int_equal(flags, 0);
    assert_false(ready_take(&ready, &slot, &flags));
    for (int i = 0; i < 100; i++) {
        ready_mark(&ready, 1 + (uint32_t)i % 5, 1);
        ready_mark(&ready, 1 + (uint32_t)(i + 1) % 5, 1);
        assert_true(ready_take(&ready, &slot, &flags));
    }
    ready_close(&ready);
}

static void larger_pools_keep_what_is_there(void **state)
{
    struct pool pool;
    struct table table;
    struct ready ready;
    uint32_t slot;
    uint8_t flags;
    (void)state;
    assert_true(pool_open(&pool, 4, sizeof(struct cell)));
    assert_true(table_open(&table, 4));
    assert_true(ready_open(&ready, 4));
    for (uint32_t i = 1; i <= 4; i++) {
        assert_int_equal(pool_take(&pool), i);
        ((struct cell *)pool_get(&pool, i))->more = i;
        table_add(&table, i * 7, i);
        ready_mark(&ready, i, 1);
    }
    assert_true(ready_take(&ready, &slot, &flags));
    pool_give(&pool, 2);
    assert_true(pool_reserve(&pool, 3)); /* not smaller */
    assert_int_equal(pool.cell_max, 4);
    assert_true(pool_reserve(&pool, 100));
    assert_true(table_reserve(&table, 100));
    assert_true(ready_reserve(&ready, 100));
    assert_int_equal(((struct cell *)pool_get(&pool, 3))->more, 3);
    assert_int_equal(pool_take(&pool), 2);
    assert_int_equal(((struct cell *)pool_get(&pool, 2))->more, 0);
    assert_int_equal(pool_take(&pool), 5);
    for (uint32_t i = 1; i <= 4; i++) {
        uint32_t at = i * 7;

        assert_int_equal(table_next(&table, i * 7, &at), i);
    }
    ready_mark(&ready, 90, 1);
    ready_mark(&ready, 2, 2);
    assert_true(ready_take(&ready, &slot, &flags));
    assert_int_equal(slot, 2);
    assert_int_equal(flags, 3);
    assert_int_equal(ready.count, 3);
    pool_close(&pool);
    table_close(&table);
    ready_close(&ready);
}

#define PAGES      64
#define PAGE_BYTES 4096

static uint32_t pages_there(void *memory)
{
    unsigned char there[PAGES];
    uint32_t count = 0;

    assert_int_equal(mincore(memory, (size_t)PAGES * PAGE_BYTES, there), 0);
    for (int i = 0; i < PAGES; i++) {
        count += there[i] & 1;
    }
    return count;
}

static void touched_memory_is_all_there_and_unchanged(void **state)
{
    const size_t byte_count = (size_t)PAGES * PAGE_BYTES;
    uint8_t *memory =
        mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    assert_ptr_not_equal(memory, MAP_FAILED);
    (void)madvise(memory, byte_count, MADV_NOHUGEPAGE);
    memory[PAGE_BYTES] = 7;
    assert_int_equal(pages_there(memory), 1);
    assert_int_equal(memory_touch(memory + 100, byte_count - 100), byte_count - 100);
    assert_int_equal(pages_there(memory), PAGES);
    assert_int_equal(memory[PAGE_BYTES], 7);
    for (size_t i = 0; i < byte_count; i++) {
        assert_true(memory[i] == 0 || i == PAGE_BYTES);
    }
    assert_int_equal(munmap(memory, byte_count), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_given_once_and_used_again),
        cmocka_unit_test(table_finds_what_is_there_and_only_that),
        cmocka_unit_test(ready_gives_each_once_in_order),
        cmocka_unit_test(larger_pools_keep_what_is_there),
        cmocka_unit_test(touched_memory_is_all_there_and_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

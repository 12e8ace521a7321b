#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/error.h"
#include "core/io/poison.h"
#include "core/io/slab.h"
#include "tests/unit/io/random.h"

static void open_slab(struct slab *slab, size_t object_bytes, uint32_t capacity, uint32_t flags)
{
    struct hf_error error;

    if (!slab_open(slab, object_bytes, capacity, flags, &error)) {
        fail_msg("%s", error.text);
    }
}

static void take_from_full_slab_says_none(void **state)
{
    (void)state;
    struct slab slab;

    open_slab(&slab, 64, 3, 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(slab_take(&slab), i);
    }
    assert_int_equal(slab_take(&slab), SLAB_NONE);
    slab_give(&slab, 1);
    assert_int_equal(slab_take(&slab), 1);
    assert_int_equal(slab_take(&slab), SLAB_NONE);
    assert_int_equal(slab.in_use, 3);
    assert_int_equal(slab.in_use_max, 3);
    slab_close(&slab);
}

static void find_with_an_old_generation_finds_nothing(void **state)
{
    (void)state;
    struct slab slab;

    open_slab(&slab, 64, 4, 0);
    const uint32_t slot = slab_take(&slab);
    const uint32_t generation = slab_generation(&slab, slot);

    assert_ptr_equal(slab_find(&slab, slot, generation), slab_get(&slab, slot));
    slab_give(&slab, slot);
    assert_null(slab_find(&slab, slot, generation));
    assert_null(slab_find(&slab, slot, generation + 1)); /* free: no generation finds it */
    assert_int_equal(slab_take(&slab), slot);
    assert_null(slab_find(&slab, slot, generation));
    assert_non_null(slab_find(&slab, slot, slab_generation(&slab, slot)));
    assert_null(slab_find(&slab, slot + 1, 1)); /* never taken */
    assert_null(slab_find(&slab, UINT32_MAX, 1));
    assert_null(slab_find(&slab, slot, 0));
    slab_close(&slab);
}

static void generation_wraps_past_zero(void **state)
{
    (void)state;
    struct slab slab;

    open_slab(&slab, 8, 1, 0);
    const uint32_t slot = slab_take(&slab);

    slab.heads_[slot] = SLAB_ALIVE_BIT | SLAB_GENERATION_MASK;
    slab_give(&slab, slot);
    assert_int_equal(slab_take(&slab), slot);
    assert_int_equal(slab_generation(&slab, slot), 1);
    slab_close(&slab);
}

static void taken_object_is_zeroed_unless_asked_otherwise(void **state)
{
    (void)state;
    struct slab slab;
    uint8_t zeros[128] = { 0 };

    open_slab(&slab, sizeof zeros, 1, 0);
    uint32_t slot = slab_take(&slab);
    memset(slab_get(&slab, slot), 0xaa, sizeof zeros);
    slab_give(&slab, slot);
    slot = slab_take(&slab);
    assert_memory_equal(slab_get(&slab, slot), zeros, sizeof zeros);
    slab_close(&slab);

    open_slab(&slab, sizeof zeros, 1, SLAB_DIRTY);
    slot = slab_take(&slab);
    memset(slab_get(&slab, slot), 0xaa, sizeof zeros);
    slab_give(&slab, slot);
    slot = slab_take(&slab);
    assert_int_equal(((uint8_t *)slab_get(&slab, slot))[sizeof zeros - 1], 0xaa);
    slab_close(&slab);
}

static size_t resident_pages(const struct slab *slab)
{
    const size_t byte_count = (size_t)slab->capacity * slab->object_bytes;
    static unsigned char pages[4096];
    size_t resident = 0;

    assert_true((byte_count + 4095) / 4096 <= sizeof pages);
    assert_int_equal(mincore(slab->objects_, byte_count, pages), 0);
    for (size_t i = 0; i < (byte_count + 4095) / 4096; i++) {
        resident += pages[i] & 1;
    }
    return resident;
}

static void untouched_slots_cost_no_memory_unless_touched_at_start(void **state)
{
    (void)state;
    struct slab slab;

    open_slab(&slab, 4096, 1000, 0);
    for (int i = 0; i < 10; i++) {
        memset(slab_get(&slab, slab_take(&slab)), 1, 4096);
    }
    for (uint32_t i = 0; i < 10; i++) {
        slab_give(&slab, i);
    }
    for (int i = 0; i < 10; i++) { /* reused, not fresh */
        memset(slab_get(&slab, slab_take(&slab)), 1, 4096);
    }
    assert_int_equal(resident_pages(&slab), 10);
    slab_close(&slab);

    open_slab(&slab, 4096, 1000, SLAB_TOUCH | SLAB_HUGE);
    assert_int_equal(resident_pages(&slab), 1000);
    slab_close(&slab);
}

static void objects_keep_their_bytes_over_random_takes_and_gives(void **state)
{
    (void)state;
    enum { CAPACITY = 200 };
    struct slab slab;
    uint64_t seed = 0x51ab;
    uint64_t expected[CAPACITY] = { 0 }; /* 0: free */
    uint32_t alive = 0;

    open_slab(&slab, 24, CAPACITY, 0);
    for (uint64_t step = 1; step <= 100000; step++) {
        const uint32_t slot = (uint32_t)random_below(&seed, CAPACITY);

        if (expected[slot] != 0) {
            uint64_t *object = slab_get(&slab, slot);
            assert_int_equal(object[0], expected[slot]);
            assert_int_equal(object[2], expected[slot]);
            slab_give(&slab, slot);
            expected[slot] = 0;
            alive--;
            continue;
        }
        const uint32_t taken = slab_take(&slab);
        assert_true(taken < CAPACITY && expected[taken] == 0);
        uint64_t *object = slab_get(&slab, taken);
        object[0] = step;
        object[2] = step;
        expected[taken] = step;
        alive++;
        assert_int_equal(slab.in_use, alive);
    }
    slab_close(&slab);
}

static void free_objects_are_poisoned(void **state)
{
    (void)state;
#ifdef POISON_ACTIVE
    struct slab slab;

    open_slab(&slab, 64, 2, 0);
    const uint32_t slot = slab_take(&slab);
    uint8_t *object = slab_get(&slab, slot);

    assert_false(__asan_address_is_poisoned(object + 63));
    assert_true(__asan_address_is_poisoned(object + 64)); /* the next one, never taken */
    slab_give(&slab, slot);
    assert_true(__asan_address_is_poisoned(object));
    slab_close(&slab);
    assert_false(__asan_address_is_poisoned(object));
#else
    skip();
#endif
}

static void open_beyond_memory_is_refused(void **state)
{
    (void)state;
    struct slab slab;
    struct hf_error error;

    assert_false(slab_open(&slab, (size_t)1 << 31, UINT32_C(1) << 31, 0, &error));
    assert_non_null(strstr(error.text, "Cannot allocate memory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take_from_full_slab_says_none),
        cmocka_unit_test(find_with_an_old_generation_finds_nothing),
        cmocka_unit_test(generation_wraps_past_zero),
        cmocka_unit_test(taken_object_is_zeroed_unless_asked_otherwise),
        cmocka_unit_test(untouched_slots_cost_no_memory_unless_touched_at_start),
        cmocka_unit_test(objects_keep_their_bytes_over_random_takes_and_gives),
        cmocka_unit_test(free_objects_are_poisoned),
        cmocka_unit_test(open_beyond_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

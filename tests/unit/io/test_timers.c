#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/base/error.h"
#include "core/io/timers.h"
#include "tests/unit/io/random.h"

#define MS       UINT64_C(1000000)
#define TICK_NS  (10 * MS)
#define START_NS (UINT64_C(12345) * MS + 678) /* clocks don't start at a tick */

static struct timers open_timers(uint32_t capacity)
{
    struct timers timers;
    struct hf_error error;

    if (!timers_open(&timers, capacity, TICK_NS, START_NS, &error)) {
        fail_msg("%s", error.text);
    }
    return timers;
}

static uint32_t take(struct timers *timers, uint64_t now_ns)
{
    uint32_t budget = UINT32_MAX;
    return timers_take_expired(timers, now_ns, &budget);
}

static void start_past_deadline_fires_at_once(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);

    timers_set(&timers, 3, START_NS - 5);
    assert_int_equal(timers_wait_ns(&timers, START_NS), 0);
    assert_int_equal(take(&timers, START_NS), 3);
    assert_int_equal(take(&timers, START_NS), TIMERS_NONE);
    assert_false(timers_running(&timers, 3));
    timers_close(&timers);
}

static void timer_fires_never_early_and_at_most_a_tick_late(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t after_ns;
    } rows[] = {
        { "less than a tick", 1 },
        { "a tick", TICK_NS },
        { "a tick and 1 ns", TICK_NS + 1 },
        { "last slot of level 0", 63 * TICK_NS },
        { "first slot of level 1", 64 * TICK_NS },
        { "between slots of level 1", 100 * TICK_NS + 7 },
        { "first slot of level 2", 4096 * TICK_NS },
        { "level 3", 300000 * TICK_NS + 3 },
        { "level 4", UINT64_C(20000000) * TICK_NS + 3 },
        { "level 5", UINT64_C(1200000000) * TICK_NS + 3 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct timers timers = open_timers(10);
        const uint64_t at_ns = START_NS + rows[i].after_ns;

        timers_set(&timers, 9, at_ns);
        if (take(&timers, at_ns - 1) != TIMERS_NONE) {
            fail_msg("%s: fires early", rows[i].name);
        }
        if (take(&timers, at_ns + TICK_NS - 1) != 9) {
            fail_msg("%s: fires late", rows[i].name);
        }
        timers_close(&timers);
    }
}

static void cancelled_timer_never_fires(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);

    timers_set(&timers, 1, START_NS + 50 * MS);
    timers_set(&timers, 2, START_NS + 50 * MS);
    timers_cancel(&timers, 1);
    timers_cancel(&timers, 1);
    assert_int_equal(timers.running, 1);
    assert_int_equal(take(&timers, START_NS + 1000 * MS), 2);
    assert_int_equal(take(&timers, START_NS + 1000 * MS), TIMERS_NONE);
    timers_close(&timers);
}

static void timer_put_off_fires_at_its_last_deadline_only(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);
    uint64_t now_ns = START_NS;

    timers_set(&timers, 0, now_ns + 1000 * MS);
    for (int i = 0; i < 100; i++) { /* activity now and then */
        now_ns += 300 * MS;
        assert_int_equal(take(&timers, now_ns), TIMERS_NONE);
        timers_set(&timers, 0, now_ns + 1000 * MS);
    }
    assert_int_equal(take(&timers, now_ns + 999 * MS), TIMERS_NONE);
    assert_int_equal(take(&timers, now_ns + 1010 * MS), 0);
    timers_close(&timers);
}

static void timer_brought_forward_fires_at_the_new_deadline(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);

    timers_set(&timers, 4, START_NS + 100000 * MS);
    timers_set(&timers, 4, START_NS + 20 * MS);
    assert_int_equal(take(&timers, START_NS + 19 * MS), TIMERS_NONE);
    assert_int_equal(take(&timers, START_NS + 30 * MS), 4);
    assert_int_equal(take(&timers, START_NS + 200000 * MS), TIMERS_NONE);
    timers_close(&timers);
}

static void due_timer_put_off_before_it_is_taken_doesnt_fire(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);

    timers_set(&timers, 1, START_NS);
    timers_set(&timers, 1, START_NS + 100 * MS);
    assert_int_equal(take(&timers, START_NS + 99 * MS), TIMERS_NONE);
    assert_int_equal(take(&timers, START_NS + 110 * MS), 1);
    timers_close(&timers);
}

static void very_far_deadline_is_brought_forward_to_the_bound(void **state)
{
    (void)state;
    struct timers timers = open_timers(2);
    const uint64_t bound_ns = ((UINT64_C(1) << 31) - 1) * TICK_NS;

    timers_set(&timers, 0, UINT64_MAX);
    assert_int_equal(take(&timers, START_NS + bound_ns - 1), TIMERS_NONE);
    assert_int_equal(take(&timers, START_NS + bound_ns), 0);
    timers_close(&timers);
}

static void timers_work_on_after_ticks_pass_32_bits(void **state)
{
    (void)state;
    struct timers timers = open_timers(4);
    uint64_t now_ns = START_NS;

    for (int i = 0; i < 5; i++) { /* 5 * 1.5 * 2^30 ticks */
        now_ns += (UINT64_C(3) << 29) * TICK_NS;
        timers_set(&timers, 1, now_ns);
        assert_int_equal(take(&timers, now_ns - 1), TIMERS_NONE);
        assert_int_equal(take(&timers, now_ns + TICK_NS), 1);
        assert_int_equal(take(&timers, now_ns + TICK_NS), TIMERS_NONE);
    }
    timers_close(&timers);
}

static void budget_bounds_the_work_and_the_next_call_goes_on(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    struct timers timers = open_timers(COUNT);
    uint32_t fired = 0;
    uint32_t calls = 0;

    for (uint32_t i = 0; i < COUNT; i++) {
        timers_set(&timers, i, START_NS + 1000 * MS);
        if (i % 2 == 0) {
            timers_set(&timers, i, START_NS + 5000 * MS); /* put off: looked at and filed anew */
        }
    }
    while (fired < COUNT / 2) {
        uint32_t budget = 7;
        while (timers_take_expired(&timers, START_NS + 1000 * MS + TICK_NS, &budget) !=
               TIMERS_NONE) {
            fired++;
        }
        assert_true(budget == 0 || fired == COUNT / 2);
        calls++;
        assert_true(calls <= 2 * COUNT / 7 + 1); /* level 1, then level 0, then they fire */
    }
    assert_true(calls >= COUNT / 7);
    assert_int_equal(timers.running, COUNT / 2);
    timers_close(&timers);
}

static void handler_may_set_and_cancel_any_timer(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);
    const uint64_t at_ns = START_NS + 100 * MS;

    for (uint32_t i = 0; i < 4; i++) {
        timers_set(&timers, i, at_ns);
    }
    assert_int_equal(take(&timers, at_ns + TICK_NS), 0);
    timers_cancel(&timers, 1);         /* due in the same slot */
    timers_set(&timers, 0, at_ns);     /* itself, past: fires again */
    timers_set(&timers, 2, at_ns * 2); /* put off while due */
    assert_int_equal(take(&timers, at_ns + TICK_NS), 0);
    assert_int_equal(take(&timers, at_ns + TICK_NS), 3);
    assert_int_equal(take(&timers, at_ns + TICK_NS), TIMERS_NONE);
    assert_int_equal(timers.running, 1);
    timers_close(&timers);
}

static void wait_is_never_without_timers(void **state)
{
    (void)state;
    struct timers timers = open_timers(10);

    assert_true(timers_wait_ns(&timers, START_NS) == TIMERS_NEVER);
    timers_set(&timers, 0, START_NS + 30 * MS);
    assert_int_equal(timers_wait_ns(&timers, START_NS), 30 * MS);
    timers_cancel(&timers, 0);
    assert_true(timers_wait_ns(&timers, START_NS) == TIMERS_NEVER);
    timers_close(&timers);
}

/* The model: an array of deadlines, looked through. */
enum { MODEL_TIMERS = 300 };

struct model {
    uint64_t deadline_tick[MODEL_TIMERS]; /* 0: idle; ticks count from 1 here */
    uint32_t running;
};

static uint64_t model_tick_up(uint64_t at_ns)
{
    return at_ns <= START_NS ? 1 : (at_ns - START_NS + TICK_NS - 1) / TICK_NS + 1;
}

static void model_check(const struct model *model, struct timers *timers, uint64_t now_ns,
                        uint64_t seed)
{
    const uint64_t now_tick = (now_ns - START_NS) / TICK_NS + 1;
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < MODEL_TIMERS; i++) {
        if (timers_running(timers, i) != (model->deadline_tick[i] != 0)) {
            fail_msg("seed %llu: timer %u", (unsigned long long)seed, i);
        }
        if (model->deadline_tick[i] != 0 && model->deadline_tick[i] < first) {
            first = model->deadline_tick[i];
        }
    }
    assert_int_equal(timers->running, model->running);

    const uint64_t wait_ns = timers_wait_ns(timers, now_ns);
    if (first == UINT64_MAX) {
        assert_true(wait_ns == TIMERS_NEVER);
    } else if (first > now_tick) {
        assert_true(wait_ns <= START_NS + (first - 1) * TICK_NS - now_ns);
    } else {
        assert_int_equal(wait_ns, 0);
    }
}

static void model_run(uint64_t seed)
{
    static const uint64_t spans_ns[] = { TICK_NS, 100 * TICK_NS, 5000 * TICK_NS,
                                         UINT64_C(400000) * TICK_NS };
    struct timers timers = open_timers(MODEL_TIMERS);
    struct model model = { { 0 }, 0 };
    uint64_t random = seed * 2 + 1;
    uint64_t now_ns = START_NS;

    for (int step = 0; step < 2000; step++) {
        const uint32_t index = (uint32_t)random_below(&random, MODEL_TIMERS);
        const uint64_t span_ns = spans_ns[random_below(&random, 4)];

        switch (random_below(&random, 8)) {
        case 0:
            timers_cancel(&timers, index);
            model.running -= model.deadline_tick[index] != 0;
            model.deadline_tick[index] = 0;
            break;
        case 1: {
            uint32_t budget = random_below(&random, 2) ? UINT32_MAX : 5;
            uint32_t fired;

            now_ns += random_below(&random, span_ns);
            while ((fired = timers_take_expired(&timers, now_ns, &budget)) != TIMERS_NONE) {
                assert_true(model.deadline_tick[fired] != 0);
                assert_true(model.deadline_tick[fired] <= (now_ns - START_NS) / TICK_NS + 1);
                model.deadline_tick[fired] = 0;
                model.running--;
            }
            if (budget > 0) { /* then all that were due are gone */
                for (uint32_t i = 0; i < MODEL_TIMERS; i++) {
                    assert_true(model.deadline_tick[i] == 0 ||
                                model.deadline_tick[i] > (now_ns - START_NS) / TICK_NS + 1);
                }
                model_check(&model, &timers, now_ns, seed);
            }
            break;
        }
        default: {
            const uint64_t at_ns = now_ns + random_below(&random, span_ns);

            timers_set(&timers, index, at_ns);
            model.running += model.deadline_tick[index] == 0;
            model.deadline_tick[index] = model_tick_up(at_ns);
            break;
        }
        }
    }
    timers_close(&timers);
}

static void random_operations_agree_with_an_array_of_deadlines(void **state)
{
    (void)state;

    for (uint64_t seed = 0; seed < 200; seed++) {
        model_run(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_past_deadline_fires_at_once),
        cmocka_unit_test(timer_fires_never_early_and_at_most_a_tick_late),
        cmocka_unit_test(cancelled_timer_never_fires),
        cmocka_unit_test(timer_put_off_fires_at_its_last_deadline_only),
        cmocka_unit_test(timer_brought_forward_fires_at_the_new_deadline),
        cmocka_unit_test(due_timer_put_off_before_it_is_taken_doesnt_fire),
        cmocka_unit_test(very_far_deadline_is_brought_forward_to_the_bound),
        cmocka_unit_test(timers_work_on_after_ticks_pass_32_bits),
        cmocka_unit_test(budget_bounds_the_work_and_the_next_call_goes_on),
        cmocka_unit_test(handler_may_set_and_cancel_any_timer),
        cmocka_unit_test(wait_is_never_without_timers),
        cmocka_unit_test(random_operations_agree_with_an_array_of_deadlines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

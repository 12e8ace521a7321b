#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "core/base/error.h"
#include "core/io/clock.h"
#include "core/io/thread.h"

static void *pinned(void *argument)
{
    struct hf_error error;
    char name[16];

    for (uint32_t i = 0; i < thread_cpu_count() + 1; i++) {
        const uint32_t cpu = thread_nth_cpu(i);
        if (!thread_pin(cpu, &error) || sched_getcpu() != (int)cpu) {
            return argument;
        }
    }
    thread_set_name("a name longer than fifteen");
    (void)pthread_getname_np(pthread_self(), name, sizeof name);
    thread_set_background(5);
    return strcmp(name, "a name longer t") == 0 && sched_getscheduler(0) == SCHED_BATCH ? NULL
                                                                                        : argument;
}

static void pinned_thread_runs_on_its_cpu_only(void **state)
{
    (void)state;
    pthread_t thread;
    void *result;
    int wrong;

    assert_int_equal(pthread_create(&thread, NULL, pinned, &wrong), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_null(result);
    assert_int_equal(sched_getscheduler(0), SCHED_OTHER); /* the others stay as they were */
}

static void pin_to_an_absent_cpu_is_refused(void **state)
{
    (void)state;
    struct hf_error error;

    assert_false(thread_pin(1000, &error));
    assert_string_equal(error.text, "pin a thread to CPU 1000: Invalid argument");
    assert_false(thread_pin(1000000, &error));
}

static void clocks_give_their_units(void **state)
{
    (void)state;
    const uint64_t first_ns = clock_now_ns();

    assert_true(clock_now_ns() >= first_ns);
    assert_true(clock_unix_ms() > UINT64_C(1700000000000));    /* 2023 */
    assert_true(clock_unix_ms() < UINT64_C(1700000000000000)); /* not us */
}

static void rest_lasts_as_long_as_asked(void **state)
{
    (void)state;
    const uint64_t before = clock_now_ns();

    thread_rest(2 * CLOCK_NS_PER_MS);
    assert_true(clock_now_ns() - before >= 2 * CLOCK_NS_PER_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pinned_thread_runs_on_its_cpu_only),
        cmocka_unit_test(pin_to_an_absent_cpu_is_refused),
        cmocka_unit_test(clocks_give_their_units),
        cmocka_unit_test(rest_lasts_as_long_as_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

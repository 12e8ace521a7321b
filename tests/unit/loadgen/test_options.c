/* Options: scenarios become steps; what is wrong is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <cmocka.h>

#include "loadgen/options.h"

static struct options options;
static struct hf_error error;

/* Splits at spaces; what every run needs is put in front. */
static bool parse(const char *line)
{
    static char text[1024];
    char *argv[64] = { "holdfast-loadgen" };
    int argc = 1;
    char *rest = text;

    (void)snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok_r(rest, " ", &rest); word != NULL; word = strtok_r(rest, " ", &rest)) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    memset(&error, 0, sizeof error);
    return options_parse(&options, argc, argv, &error);
}

#define GOOD " --login-keys k --kid a --insecure"

static void expect_usage(const char *line, const char *words)
{
    assert_false(parse(line));
    assert_int_equal(error.exit_code, EX_USAGE);
    if (strstr(error.text, words) == NULL) {
        fail_msg("\"%s\" isn't in \"%s\"", words, error.text);
    }
}

static void expect_steps(const char *line, const char *const *steps)
{
    if (!parse(line)) {
        fail_msg("%s: %s", line, error.text);
    }
    for (uint32_t i = 0; steps[i] != NULL || i < options.step_count; i++) {
        assert_non_null(steps[i]);
        assert_true(i < options.step_count);
        assert_string_equal(options.steps[i].text, steps[i]);
    }
}

static void scenarios_are_lists_of_steps(void **state)
{
    (void)state;
    expect_steps("connect" GOOD, (const char *const[]){ "connect", "leave", NULL });
    expect_steps("idle --for 5" GOOD,
                 (const char *const[]){ "connect", "greet", "settle", "idle:5", "leave", NULL });
    expect_steps("pairs --window 16 --for 3" GOOD,
                 (const char *const[]){ "connect", "window:16:3", "settle", "leave", NULL });
    expect_steps("pairs --rate 5000 --for 60" GOOD,
                 (const char *const[]){ "connect", "pace:5000:60", "settle", "leave", NULL });
    expect_steps("verify --rate 10.5 --for 0" GOOD,
                 (const char *const[]){ "connect", "pace:10.5:0:keep", "hold", "settle", "verify",
                                        "leave", NULL });
}

static void run_takes_steps_of_ones_own(void **state)
{
    (void)state;
    expect_steps("run connect,idle:5,pace:5000:10:keep,await-restart:90,settle --clients 50000"
                 " --threads 2" GOOD,
                 (const char *const[]){ "connect", "idle:5", "pace:5000:10:keep",
                                        "await-restart:90", "settle", NULL });
    assert_int_equal(options.clients, 50000);
    assert_int_equal(options.threads, 2);
    assert_int_equal(options.steps[2].kind, STEP_PACE);
    assert_true(options.steps[2].number == 5000 && options.steps[2].seconds == 10);
    assert_true(options.steps[2].keep);
    assert_true(options.steps[3].seconds == 90);
    expect_steps("run connect,churn:2.5,churn:10:200" GOOD,
                 (const char *const[]){ "connect", "churn:2.5", "churn:10:200", NULL });
    assert_true(options.steps[1].number == 2.5 && options.steps[1].entries == 50);
    assert_true(options.steps[2].number == 10 && options.steps[2].entries == 200);
}

static void wrong_steps_are_named(void **state)
{
    static const char *const wrong[] = {
        "jump",
        "pace",
        "pace:5",
        "pace:0:5",
        "pace:5:6:7",
        "window:33:1",
        "window:0:1",
        "idle",
        "idle:-1",
        "idle:1:2",
        "connect:1",
        "flood",
        "window:1:1:keep:keep",
        "greet:x",
        "await-restart:a",
        "",
        "pace::1",
        "churn",
        "churn:1:201",
        "churn:1:2:3",
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[128];

        (void)snprintf(text, sizeof text, "connect,%s", wrong[i]);
        assert_false(options_parse_steps(&options, text, &error));
        assert_int_equal(error.exit_code, EX_USAGE);
    }
}

static void too_many_steps_are_refused(void **state)
{
    char text[OPTIONS_STEPS_MAX * 8 + 16] = "hold";

    (void)state;
    for (int i = 1; i < OPTIONS_STEPS_MAX; i++) {
        memcpy(text + strlen(text), ",hold", 6);
    }
    assert_true(options_parse_steps(&options, text, &error));
    assert_int_equal(options.step_count, OPTIONS_STEPS_MAX);
    memcpy(text + strlen(text), ",hold", 6);
    assert_false(options_parse_steps(&options, text, &error));
}

static void wrong_usage_is_refused_with_its_reason(void **state)
{
    (void)state;
    expect_usage("", "which scenario");
    expect_usage("dance" GOOD, "dance");
    expect_usage("run" GOOD, "which steps");
    expect_usage("pairs", "--login-keys");
    expect_usage("pairs --login-keys k --kid a", "--ca or --insecure");
    expect_usage("pairs --ca x" GOOD, "--ca or --insecure");
    expect_usage("pairs --clients 3" GOOD, "pairs");
    expect_usage("pairs --clients 6 --devices 2" GOOD, "--devices");
    expect_usage("pairs --clients 4 --threads 3" GOOD, "thread");
    expect_usage("pairs --threads 4 --handshakes 3" GOOD, "--handshakes");
    expect_usage("pairs --cross-core" GOOD, "--cores");
    expect_usage("pairs --cores 17" GOOD, "--volumes");
    expect_usage("pairs --clients x" GOOD, "--clients x");
    expect_usage("pairs --clients 10000001" GOOD, "10000000");
    expect_usage("pairs --clients -2" GOOD, "--clients -2");
    expect_usage("pairs --body 23" GOOD, "--body 23");
    expect_usage("pairs --rate 0" GOOD, "--rate 0");
    expect_usage("pairs --cpu 1,,2" GOOD, "--cpu");
    expect_usage("pairs --nonsense" GOOD, "--nonsense");
    expect_usage("pairs --kid", "--kid");
    expect_usage("pairs more" GOOD, "more");
}

static void lists_of_cpus_are_taken(void **state)
{
    (void)state;
    assert_true(parse("pairs --cpu 1,3,0" GOOD));
    assert_int_equal(options.cpu_count, 3);
    assert_int_equal(options.cpus[0], 1);
    assert_int_equal(options.cpus[2], 0);
}

static void help_needs_nothing_else(void **state)
{
    (void)state;
    assert_true(parse("--help") && options.help);
    assert_true(parse("--version") && options.version);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scenarios_are_lists_of_steps),
        cmocka_unit_test(run_takes_steps_of_ones_own),
        cmocka_unit_test(wrong_steps_are_named),
        cmocka_unit_test(too_many_steps_are_refused),
        cmocka_unit_test(wrong_usage_is_refused_with_its_reason),
        cmocka_unit_test(lists_of_cpus_are_taken),
        cmocka_unit_test(help_needs_nothing_else),
    };

    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}

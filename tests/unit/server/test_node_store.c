#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "core/server/node_internal.h"

#define MB (UINT64_C(1) << 20)

static void journals_are_cut_by_the_configuration(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t journal_bytes;
        uint64_t wanted_segment;
        uint32_t cores;
        uint32_t segment;
        uint32_t count;
        uint32_t ring;
    } rows[] = {
        { "defaults, two cores", 256 * MB, 16 * MB, 2, 16 << 20, 8, 1 << 20 },
        { "four segments at least", 256 * MB, 16 * MB, 16, 4 << 20, 4, 1 << 20 },
        { "the smallest", 4 * MB, MB, 4, 256 << 10, 4, 128 << 10 },
        { "odd shares are rounded down", 5 * MB, MB, 3, 434176, 4, 128 << 10 },
        { "256 segments at most", 1024 * MB, MB, 1, 4 << 20, 256, 1 << 20 },
        { "a terabyte", MB * MB, 16 * MB, 1, UINT32_C(4294963200), 256, 1 << 20 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config config;
        struct node_journal journal;
        struct hf_error error;

        print_message("%s\n", rows[i].name);
        config_init(&config);
        config.journal_bytes = rows[i].journal_bytes;
        config.journal_segment_bytes = rows[i].wanted_segment;
        assert_true(node_plan_journal(&config, rows[i].cores, &journal, &error));
        assert_int_equal(journal.segment_bytes % JOURNAL_BLOCK_BYTES, 0);
        assert_int_equal(journal.segment_bytes, rows[i].segment);
        assert_int_equal(journal.segment_count, rows[i].count);
        assert_int_equal(journal.ring_bytes, rows[i].ring);
        /* What journal_open demands. */
        const struct journal_config opened = {
            .identity = { 1, 1, 0 },
            .start_lsn = JOURNAL_BLOCK_BYTES,
            .segment_bytes = journal.segment_bytes,
            .segment_count = journal.segment_count,
            .ring_bytes = journal.ring_bytes,
        };
        struct journal *real = journal_open(&opened, &error);
        if (real == NULL) {
            fail_msg("%s", error.text);
        }
        /* A message of any size fits an empty batch. */
        assert_true(journal_room(real) >
                    2 * ((size_t)2 * RECORD_BYTES_MAX - RECORD_BODY_BYTES_MAX));
        journal_close(real);
    }
}

static void journals_too_small_for_the_cores_are_refused(void **state)
{
    (void)state;
    struct config config;
    struct node_journal journal;
    struct hf_error error;

    config_init(&config);
    config.journal_bytes = 4 * MB;
    assert_false(node_plan_journal(&config, 5, &journal, &error));
    assert_int_equal(error.exit_code, EX_CONFIG);
    assert_string_equal(error.text, "journal_bytes = 4194304: 5 cores need 5242880 or more");
    config.journal_bytes = 5 * MB;
    assert_true(node_plan_journal(&config, 5, &journal, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(journals_are_cut_by_the_configuration),
        cmocka_unit_test(journals_too_small_for_the_cores_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

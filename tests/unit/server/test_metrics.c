#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/server/metrics.h"
#include "core/tls/handshake.h"

#define CORES 2

static struct reactor_stats reactors[CORES];
static struct door_stats doors[CORES];

static char *print(void)
{
    struct metrics_core cores[CORES];
    const struct metrics metrics = {
        .cores = cores,
        .core_count = CORES,
        .start_unix_ms = UINT64_C(1767225600123),
        .incarnation = 7,
        .max_connections = 50000,
        .data_free_bytes = 123,
        .data_free_known = true,
        .ready = true,
    };
    char *text = NULL;
    size_t text_bytes = 0;
    FILE *file = open_memstream(&text, &text_bytes);

    for (uint32_t i = 0; i < CORES; i++) {
        cores[i] = (struct metrics_core){ &reactors[i], &doors[i], { 0 } };
        for (unsigned t = 0; t < METRICS_THREADS; t++) {
            cores[i].cpu_clocks[t] = CLOCK_THREAD_CPUTIME_ID;
        }
    }
    assert_non_null(file);
    assert_true(metrics_print(&metrics, file));
    assert_int_equal(fclose(file), 0);
    return text;
}

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!isalpha((unsigned char)text[i]) && text[i] != '_' &&
            !(i > 0 && isdigit((unsigned char)text[i]))) {
            return false;
        }
    }
    return length > 0;
}

/* label="value",...: returns what stands behind the closing brace. */
static const char *check_labels(const char *at)
{
    for (;;) {
        const size_t name_bytes = strcspn(at, "=");

        assert_true(is_name(at, name_bytes));
        at += name_bytes;
        assert_memory_equal(at, "=\"", 2);
        at += 2;
        at += strcspn(at, "\"\\\n");
        assert_int_equal(*at, '"');
        at++;
        if (*at == '}') {
            return at + 1;
        }
        assert_int_equal(*at, ',');
        at++;
    }
}

/*
 * The rules of the format: HELP, TYPE, then every row of that metric, and the metric nowhere else;
 * names, labels and numbers well formed; counters, and only they, end in _total; no row twice.
 */
static void exposition_keeps_the_rules_of_the_format(void **state)
{
    (void)state;
    char *text = print();
    char *rest = text;
    char *line;
    char metric[128] = "";
    char seen[8192] = " ";
    bool is_counter = false;
    unsigned rows = 0;
    static char rows_seen[1024][256];
    unsigned total = 0;

    while ((line = strsep(&rest, "\n")) != NULL && rest != NULL) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            char needle[140];
            const size_t name_bytes = strcspn(line + 7, " ");

            assert_true(metric[0] == '\0' || rows > 0);
            (void)snprintf(metric, sizeof metric, "%.*s", (int)name_bytes, line + 7);
            assert_true(is_name(metric, name_bytes));
            assert_true(strlen(line) > 7 + name_bytes + 5);
            (void)snprintf(needle, sizeof needle, " %s ", metric);
            assert_null(strstr(seen, needle));
            (void)snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s ", metric);
            rows = 0;
            line = strsep(&rest, "\n");
            assert_memory_equal(line, "# TYPE ", 7);
            assert_memory_equal(line + 7, metric, name_bytes);
            is_counter = strcmp(line + 7 + name_bytes, " counter") == 0;
            assert_true(is_counter || strcmp(line + 7 + name_bytes, " gauge") == 0);
            const bool ends_in_total =
                name_bytes > 6 && strcmp(metric + name_bytes - 6, "_total") == 0;
            assert_int_equal(is_counter, ends_in_total);
            continue;
        }

        const size_t name_bytes = strcspn(line, "{ ");
        const char *at = line + name_bytes;
        char *end;

        assert_int_equal(name_bytes, strlen(metric));
        assert_memory_equal(line, metric, name_bytes);
        at = *at == '{' ? check_labels(at + 1) : at;
        assert_int_equal(*at, ' ');
        assert_true(strtod(at + 1, &end) >= 0);
        assert_int_equal(*end, '\0');
        assert_true(total < 1024);
        (void)snprintf(rows_seen[total], sizeof rows_seen[0], "%.*s", (int)(at - line), line);
        for (unsigned i = 0; i < total; i++) {
            assert_string_not_equal(rows_seen[i], rows_seen[total]);
        }
        total++;
        rows++;
    }
    assert_true(total > 200);
    free(text);
}

static void assert_has_line(const char *text, const char *line)
{
    char whole[256];

    (void)snprintf(whole, sizeof whole, "\n%s\n", line);
    if (strstr(text, whole) == NULL) {
        fail_msg("no line: %s", line);
    }
}

static void values_stand_under_their_core_and_labels(void **state)
{
    (void)state;
    stat_set(&reactors[1].connections, 12345);
    stat_add(&doors[0].faults[TLS_HANDSHAKE_FAULT_NO_ALPN], 3);
    stat_add(&doors[1].resume_tokens[TOKEN_EXPIRED], 4);
    stat_add(&doors[1].errors[8], 5);
    stat_add(&reactors[0].limit_bytes, 6);
    stat_add(&doors[0].limit_address, 8);

    char *text = print();

    assert_has_line(text, "holdfast_connections{core=\"1\"} 12345");
    assert_has_line(text, "holdfast_connections{core=\"0\"} 0");
    assert_has_line(text, "holdfast_handshakes_total{core=\"0\",result=\"no_alpn\"} 3");
    assert_has_line(text, "holdfast_tokens_total{core=\"1\",kind=\"resume\",result=\"expired\"} 4");
    assert_has_line(text, "holdfast_door_errors_total{core=\"1\",code=\"bad_token\"} 5");
    assert_has_line(text, "holdfast_limit_hits_total{core=\"0\",limit=\"bytes_per_s\"} 6");
    assert_has_line(text,
                    "holdfast_limit_hits_total{core=\"0\",limit=\"connections_per_address\"} 8");
    assert_has_line(text, "holdfast_incarnation 7");
    assert_has_line(text, "holdfast_ready 1");
    assert_has_line(text, "process_start_time_seconds 1767225600.123000000");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exposition_keeps_the_rules_of_the_format),
        cmocka_unit_test(values_stand_under_their_core_and_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "core/server/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/io/clock.h"
#include "core/tls/aead.h"
#include "core/tls/handshake.h"
#include "proto/codes.h"

#define LABEL_BYTES_MAX 200
#define NO_CORE         UINT32_MAX

enum metric_type {
    COUNTER,
    GAUGE,
};

struct metric_row {
    const char *name;
    const char *help; /* "": said by another row of this metric */
    enum metric_type type;
    bool of_ns; /* value in ns, printed in seconds */
    bool printed;
    uint64_t value;
    char labels[LABEL_BYTES_MAX];
};

struct metric_rows {
    struct metric_row *rows;
    size_t count;
    size_t capacity;
    bool failed;
    uint32_t core; /* of the rows that are added; NO_CORE: of the process */
};

const char *metrics_uring_version(void)
{
    static char text[32];

    (void)snprintf(text, sizeof text, "%d.%d", io_uring_major_version(), io_uring_minor_version());
    return text;
}

const char *metrics_lmdb_version(void)
{
    return HOLDFAST_LMDB_VERSION;
}

/* ---- rows */

static struct metric_row *add_row(struct metric_rows *rows)
{
    if (rows->count == rows->capacity) {
        const size_t capacity = rows->capacity == 0 ? 256 : rows->capacity * 2;
        struct metric_row *more = realloc(rows->rows, capacity * sizeof *more);

        if (more == NULL) {
            rows->failed = true;
            return NULL;
        }
        rows->rows = more;
        rows->capacity = capacity;
    }
    return &rows->rows[rows->count++];
}

static void add(struct metric_rows *rows, const char *name, enum metric_type type, uint64_t value,
                const char *help, const char *label_format, ...)
    __attribute__((format(printf, 6, 7)));

static void add(struct metric_rows *rows, const char *name, enum metric_type type, uint64_t value,
                const char *help, const char *label_format, ...)
{
    struct metric_row *row = add_row(rows);
    char labels[LABEL_BYTES_MAX - 16];
    va_list arguments;

    if (row == NULL) {
        return;
    }
    va_start(arguments, label_format);
    (void)vsnprintf(labels, sizeof labels, label_format, arguments);
    va_end(arguments);
    *row = (struct metric_row){ .name = name, .help = help, .type = type, .value = value };
    if (rows->core != NO_CORE) {
        (void)snprintf(row->labels, sizeof row->labels, "core=\"%u\"%s%s", rows->core % 1000,
                       labels[0] == '\0' ? "" : ",", labels);
    } else {
        (void)snprintf(row->labels, sizeof row->labels, "%s", labels);
    }
}

static void add_ns(struct metric_rows *rows, const char *name, enum metric_type type, uint64_t ns,
                   const char *help, const char *labels)
{
    add(rows, name, type, ns, help, "%s", labels);
    if (!rows->failed) {
        rows->rows[rows->count - 1].of_ns = true;
    }
}

/* ---- sources */

static void add_reactor(struct metric_rows *rows, const struct reactor_stats *stats)
{
#define ADD_STAT(field, metric, labels, type, help)                                                \
    add(rows, metric, type, stat_get(&stats->field), help, "%s", labels);
    REACTOR_STATS(ADD_STAT)
#undef ADD_STAT
}

static void add_door(struct metric_rows *rows, const struct door_stats *stats)
{
#define ADD_STAT(field, metric, labels, type, help)                                                \
    add(rows, metric, type, stat_get(&stats->field), help, "%s", labels);
    DOOR_STATS(ADD_STAT)
#undef ADD_STAT
    for (unsigned i = TLS_HANDSHAKE_FAULT_NONE + 1; i < TLS_HANDSHAKE_FAULT_COUNT; i++) {
        add(rows, "holdfast_handshakes_total", COUNTER, stat_get(&stats->faults[i]), "",
            "result=\"%s\"", tls_handshake_fault_label((enum tls_handshake_fault)i));
    }
    for (unsigned i = 0; i < TOKEN_STATUS_COUNT; i++) {
        add(rows, "holdfast_tokens_total", COUNTER, stat_get(&stats->tokens[i]),
            "Tokens that doors checked", "kind=\"login\",result=\"%s\"",
            token_status_label((enum token_status)i));
        add(rows, "holdfast_tokens_total", COUNTER, stat_get(&stats->resume_tokens[i]), "",
            "kind=\"resume\",result=\"%s\"", token_status_label((enum token_status)i));
    }
    for (uint16_t i = 1; i < DOOR_CODES; i++) {
        if (strcmp(code_label(i), code_label(UINT16_MAX)) != 0) { /* one that this version has */
            add(rows, "holdfast_door_errors_total", COUNTER, stat_get(&stats->errors[i]),
                "ERRORs instead of HELLO_OK, said by doors", "code=\"%s\"", code_label(i));
        }
    }
}

static void add_threads(struct metric_rows *rows, const struct metrics_core *core)
{
    static const char *const names[METRICS_THREADS] = { "thread=\"reactor\"", "thread=\"door\"",
                                                        "thread=\"flusher\"", "thread=\"reader\"" };

    for (unsigned i = 0; i < METRICS_THREADS; i++) {
        struct timespec used = { 0 };

        if (clock_gettime(core->cpu_clocks[i], &used) == 0) {
            add_ns(rows, "holdfast_thread_cpu_seconds_total", COUNTER,
                   (uint64_t)used.tv_sec * CLOCK_NS_PER_S + (uint64_t)used.tv_nsec,
                   "CPU time of each thread", names[i]);
        }
    }
}

static uint64_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    char line[128];
    uint64_t pages = 0;

    if (file == NULL) {
        return 0;
    }
    if (fgets(line, sizeof line, file) != NULL) {
        char *end;

        (void)strtoull(line, &end, 10);
        pages = strtoull(end, NULL, 10);
    }
    (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    uint64_t count = 0;

    if (folder == NULL) {
        return 0;
    }
    while (readdir(folder) != NULL) {
        count++;
    }
    (void)closedir(folder);
    return count < 3 ? 0 : count - 3; /* ".", "..", and the folder itself */
}

static void add_process(struct metric_rows *rows, const struct metrics *metrics)
{
    struct timespec used = { 0 };
    struct rlimit limit;
    uint64_t lost = 0;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    for (uint32_t i = 0; i < metrics->log_count; i++) {
        lost += log_get_lost(metrics->logs[i]);
    }
    add(rows, "holdfast_build_info", GAUGE, 1, "Versions of this program and its libraries",
        "version=\"%s\",tls=\"%s\",aead=\"%s\",liburing=\"%s\",lmdb=\"%s\"", HOLDFAST_VERSION,
        tls_library_version(), aead_library_name(), metrics_uring_version(),
        metrics_lmdb_version());
    add(rows, "holdfast_ready", GAUGE, metrics->ready, "1 while clients are let in", "%s", "");
    add(rows, "holdfast_incarnation", GAUGE, metrics->incarnation,
        "How often this data directory was started", "%s", "");
    add(rows, "holdfast_max_connections", GAUGE, metrics->max_connections,
        "The bound on connections", "%s", "");
    add(rows, "holdfast_log_lines_lost_total", COUNTER, lost,
        "Log lines that were too many, or found no room", "%s", "");
    if (metrics->data_free_known) {
        add(rows, "holdfast_data_free_bytes", GAUGE, metrics->data_free_bytes,
            "Room on the data directory's file system", "%s", "");
    }
    add_ns(rows, "process_cpu_seconds_total", COUNTER,
           (uint64_t)used.tv_sec * CLOCK_NS_PER_S + (uint64_t)used.tv_nsec,
           "CPU time of the process", "");
    add_ns(rows, "process_start_time_seconds", GAUGE, metrics->start_unix_ms * CLOCK_NS_PER_MS,
           "When it started, Unix time", "");
    add(rows, "process_resident_memory_bytes", GAUGE, resident_bytes(), "Resident memory", "%s",
        "");
    add(rows, "process_open_fds", GAUGE, open_files(),
        "Open descriptors; connections have none of these", "%s", "");
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        add(rows, "process_max_fds", GAUGE, limit.rlim_cur, "RLIMIT_NOFILE", "%s", "");
    }
}

/* ---- printing */

static void print_row(FILE *file, const struct metric_row *row)
{
    (void)fprintf(file, "%s", row->name);
    if (row->labels[0] != '\0') {
        (void)fprintf(file, "{%s}", row->labels);
    }
    if (row->of_ns) {
        (void)fprintf(file, " %" PRIu64 ".%09" PRIu64 "\n", row->value / CLOCK_NS_PER_S,
                      row->value % CLOCK_NS_PER_S);
    } else {
        (void)fprintf(file, " %" PRIu64 "\n", row->value);
    }
}

/* All rows of one metric stand together, whatever list they came from. */
static void print_metric(FILE *file, struct metric_rows *rows, size_t first)
{
    const struct metric_row *head = &rows->rows[first];
    const char *help = head->help;

    for (size_t i = first; help[0] == '\0' && i < rows->count; i++) {
        if (strcmp(rows->rows[i].name, head->name) == 0) {
            help = rows->rows[i].help;
        }
    }
    (void)fprintf(file, "# HELP %s %s.\n# TYPE %s %s\n", head->name, help, head->name,
                  head->type == COUNTER ? "counter" : "gauge");
    for (size_t i = first; i < rows->count; i++) {
        if (!rows->rows[i].printed && strcmp(rows->rows[i].name, head->name) == 0) {
            HF_ASSERT(rows->rows[i].type == head->type);
            rows->rows[i].printed = true;
            print_row(file, &rows->rows[i]);
        }
    }
}

bool metrics_print(const struct metrics *metrics, FILE *file)
{
    struct metric_rows rows = { .core = NO_CORE };

    add_process(&rows, metrics);
    for (uint32_t i = 0; i < metrics->core_count; i++) {
        rows.core = i;
        add_reactor(&rows, metrics->cores[i].reactor);
        add_door(&rows, metrics->cores[i].door);
        add_threads(&rows, &metrics->cores[i]);
    }
    for (size_t i = 0; !rows.failed && i < rows.count; i++) {
        if (!rows.rows[i].printed) {
            print_metric(file, &rows, i);
        }
    }
    free(rows.rows);
    return !rows.failed;
}

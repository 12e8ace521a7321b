#include "loadgen/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "core/io/clock.h"

#define BAR_WIDTH 24

void report_open(struct report *report, bool json)
{
    *report = (struct report){
        .out = stdout,
        .json = json,
        .terminal = !json && isatty(STDERR_FILENO) == 1,
        .started_ns = clock_now_ns(),
    };
    /* A reader of a pipe waits for events. */
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
}

static void wipe(struct report *report)
{
    if (report->drawn) {
        (void)fputs("\r\033[K", stderr);
        report->drawn = false;
    }
}

void report_progress(struct report *report, double share, const char *format, ...)
{
    /* What is over in two seconds needs none. */
    if (!report->terminal || clock_now_ns() - report->started_ns < 2 * CLOCK_NS_PER_S) {
        return;
    }
    (void)fputs("\r\033[K", stderr);
    if (share >= 0) {
        const int filled = (int)(share * BAR_WIDTH + 0.5);

        (void)fputc('[', stderr);
        for (int i = 0; i < BAR_WIDTH; i++) {
            (void)fputc(i < filled ? '#' : '.', stderr);
        }
        (void)fputs("] ", stderr);
    }

    va_list arguments;

    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fflush(stderr);
    report->drawn = true;
}

static double since_start(const struct report *report)
{
    return (double)(clock_now_ns() - report->started_ns) / 1e9;
}

static void json_begin(const struct report *report, const char *event)
{
    (void)fprintf(report->out, "{\"event\":\"%s\",\"at\":%.3f", event, since_start(report));
}

static void json_end(const struct report *report)
{
    (void)fputs("}\n", report->out);
    (void)fflush(report->out);
}

/* Text of ours and of the command line: quotes and what is below a space are left out. */
static void json_text(const struct report *report, const char *key, const char *text)
{
    (void)fprintf(report->out, ",\"%s\":\"", key);
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text >= ' ' && *text != '"' && *text != '\\') {
            (void)fputc(*text, report->out);
        }
    }
    (void)fputc('"', report->out);
}

static void json_cpu(const struct report *report, const struct proc_cpu *cpu, double per)
{
    if (cpu == NULL) {
        return;
    }
    (void)fprintf(report->out, ",\"server_cpu_s\":%.3f", (double)cpu->cpu_ns / 1e9);
    if (per > 0) {
        (void)fprintf(report->out, ",\"server_cpu_ns_each\":%.0f", (double)cpu->cpu_ns / per);
    }
    (void)fputs(",\"server_threads\":{", report->out);
    for (uint32_t i = 0; i < cpu->name_count; i++) {
        (void)fprintf(report->out, "%s\"%s\":%.3f", i == 0 ? "" : ",", cpu->names[i].name,
                      (double)cpu->names[i].cpu_ns / 1e9);
    }
    (void)fputc('}', report->out);
}

static void human_cpu(const struct report *report, const struct proc_cpu *cpu, double per)
{
    if (cpu == NULL) {
        return;
    }
    (void)fprintf(report->out, "  server CPU %.2f s", (double)cpu->cpu_ns / 1e9);
    if (per > 0) {
        (void)fprintf(report->out, " (%.1f us each)", (double)cpu->cpu_ns / per / 1e3);
    }
    for (uint32_t i = 0; i < cpu->name_count; i++) {
        if (cpu->names[i].cpu_ns >= 10000000) {
            (void)fprintf(report->out, ", %s %.2f", cpu->names[i].name,
                          (double)cpu->names[i].cpu_ns / 1e9);
        }
    }
    (void)fputc('\n', report->out);
}

void report_start(struct report *report, const struct options *options, uint32_t run)
{
    if (report->json) {
        json_begin(report, "start");
        json_text(report, "server", options->server);
        json_text(report, "scenario", options->scenario);
        (void)fprintf(report->out,
                      ",\"clients\":%u,\"devices\":%u,\"threads\":%u,\"body_bytes\":%u,"
                      "\"run\":%u",
                      options->clients, options->devices, options->threads, options->body_bytes,
                      run);
        json_end(report);
        return;
    }
    (void)fprintf(report->out, "%s: %u clients to %s\n", options->scenario, options->clients,
                  options->server);
}

void report_event(struct report *report, const char *event, const char *step, double seconds)
{
    if (!report->json) {
        return;
    }
    json_begin(report, event);
    json_text(report, "step", step);
    (void)fprintf(report->out, ",\"seconds\":%.3f", seconds);
    json_end(report);
}

void report_logins(struct report *report, const char *event, const struct report_logins *logins)
{
    const uint64_t shakes = logins->full + logins->resumed;
    const double per_s = logins->seconds > 0 ? (double)shakes / logins->seconds : 0;

    wipe(report);
    if (report->json) {
        json_begin(report, event);
        (void)fprintf(report->out,
                      ",\"clients\":%u,\"seconds\":%.3f,\"full\":%" PRIu64 ",\"resumed\":%" PRIu64
                      ",\"failed\":%" PRIu64 ",\"per_s\":%.1f",
                      logins->clients, logins->seconds, logins->full, logins->resumed,
                      logins->refused, per_s);
        if (logins->since_first_s >= 0) {
            (void)fprintf(report->out, ",\"since_first_s\":%.3f", logins->since_first_s);
        }
        json_cpu(report, logins->server, (double)shakes);
        json_end(report);
        return;
    }
    (void)fprintf(report->out,
                  "%s: %u clients in %.1f s; handshakes: %" PRIu64 " full, %" PRIu64
                  " resumed, %.0f/s",
                  event, logins->clients, logins->seconds, logins->full, logins->resumed, per_s);
    if (logins->refused > 0) {
        (void)fprintf(report->out, "; %" PRIu64 " attempts failed", logins->refused);
    }
    if (logins->since_first_s >= 0) {
        (void)fprintf(report->out, "; %.1f s since the server took the first",
                      logins->since_first_s);
    }
    (void)fputc('\n', report->out);
    human_cpu(report, logins->server, (double)shakes);
}

void report_lost(struct report *report, uint64_t live, uint32_t clients)
{
    wipe(report);
    if (report->json) {
        json_begin(report, "lost");
        (void)fprintf(report->out, ",\"live\":%" PRIu64 ",\"clients\":%u", live, clients);
        json_end(report);
        return;
    }
    (void)fprintf(report->out, "lost: %" PRIu64 " of %u clients are connected\n", live, clients);
}

static void json_latency(const struct report *report, const char *key,
                         const struct histogram *histogram)
{
    (void)fprintf(report->out,
                  ",\"%s\":{\"count\":%" PRIu64 ",\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
                  "\"p999\":%.1f,\"max\":%.1f}",
                  key, histogram->count, (double)histogram_at(histogram, 500000) / 1e3,
                  (double)histogram_at(histogram, 900000) / 1e3,
                  (double)histogram_at(histogram, 990000) / 1e3,
                  (double)histogram_at(histogram, 999000) / 1e3, (double)histogram->max / 1e3);
}

static void human_latency(const struct report *report, const char *key,
                          const struct histogram *histogram)
{
    (void)fprintf(report->out,
                  "  %-10s p50 %8.2f ms   p90 %8.2f   p99 %8.2f   p99.9 %8.2f   max %8.2f\n", key,
                  (double)histogram_at(histogram, 500000) / 1e6,
                  (double)histogram_at(histogram, 900000) / 1e6,
                  (double)histogram_at(histogram, 990000) / 1e6,
                  (double)histogram_at(histogram, 999000) / 1e6, (double)histogram->max / 1e6);
}

void report_measure(struct report *report, const struct report_measure *measure)
{
    const struct crowd_counts *counts = &measure->counts;
    const double per_s = measure->seconds > 0 ? (double)counts->answered / measure->seconds : 0;

    wipe(report);
    if (report->json) {
        json_begin(report, "measured");
        json_text(report, "step", measure->step->text);
        (void)fprintf(report->out,
                      ",\"seconds\":%.3f,\"messages\":%" PRIu64 ",\"messages_per_s\":%.1f,"
                      "\"created\":%" PRIu64 ",\"received\":%" PRIu64 ",\"rejected\":%" PRIu64
                      ",\"held\":%" PRIu64 ",\"lost_connections\":%" PRIu64,
                      measure->seconds, counts->answered, per_s, counts->created,
                      counts->peer_entries, counts->rejected, counts->held, counts->lost);
        (void)fprintf(report->out,
                      ",\"churned\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"page_entries\":%" PRIu64
                      ",\"pages_refused\":%" PRIu64,
                      counts->churned, counts->pages, counts->page_entries, counts->pages_refused);
        json_latency(report, "accepted_us", measure->accepted);
        json_latency(report, "delivered_us", measure->delivered);
        (void)fprintf(report->out,
                      ",\"late_percent\":%.3f,\"late_max_ms\":%.3f,\"generator_busy\":%.3f,"
                      "\"void\":%s",
                      measure->late_percent, measure->late_max_ms, measure->busy,
                      measure->is_void ? "true" : "false");
        json_cpu(report, measure->server, (double)counts->answered);
        json_end(report);
        return;
    }
    (void)fprintf(
        report->out, "%s: %" PRIu64 " messages accepted in %.1f s: %.0f/s; %" PRIu64 " received\n",
        measure->step->text, counts->answered, measure->seconds, per_s, counts->peer_entries);
    human_latency(report, "accepted", measure->accepted);
    human_latency(report, "delivered", measure->delivered);
    if (counts->rejected + counts->held + counts->lost > 0) {
        (void)fprintf(report->out,
                      "  %" PRIu64 " temporary refusals, %" PRIu64 " not created for want of "
                      "answers, %" PRIu64 " connections lost\n",
                      counts->rejected, counts->held, counts->lost);
    }
    if (counts->churned > 0) {
        (void)fprintf(report->out,
                      "  %" PRIu64 " times a client left, %" PRIu64 " pages of history of %" PRIu64
                      " entries, %" PRIu64 " refused\n",
                      counts->churned, counts->pages, counts->page_entries, counts->pages_refused);
    }
    human_cpu(report, measure->server, (double)counts->answered);
    (void)fprintf(report->out, "  generator %.0f %% busy; %.2f %% created late, at most %.1f ms\n",
                  measure->busy * 100, measure->late_percent, measure->late_max_ms);
    if (measure->is_void) {
        (void)fputs("  VOID: the generator was the bottleneck; use more --threads or CPUs\n",
                    report->out);
    }
}

void report_memory(struct report *report, const struct report_memory *memory)
{
    const double clients = memory->clients;
    const double grown = (double)memory->anonymous_now - (double)memory->anonymous_before;

    wipe(report);
    if (report->json) {
        json_begin(report, "memory");
        (void)fprintf(report->out, ",\"clients\":%u", memory->clients);
        if (memory->anonymous_now > 0) {
            (void)fprintf(report->out,
                          ",\"server_anonymous_before\":%" PRIu64 ",\"server_anonymous\":%" PRIu64
                          ",\"server_anonymous_each\":%.1f",
                          memory->anonymous_before, memory->anonymous_now, grown / clients);
        }
        if (memory->has_kernel) {
            (void)fprintf(report->out,
                          ",\"kernel_both_each\":%.1f,\"kernel_client_each\":%.1f,"
                          "\"kernel_server_each\":%.1f,\"tcp_buffers_each\":%.1f",
                          memory->kernel.both_bytes, memory->kernel.client_bytes,
                          memory->kernel.server_bytes, memory->kernel.tcp_bytes);
        }
        json_end(report);
        return;
    }
    (void)fprintf(report->out, "idle: %u connections\n", memory->clients);
    if (memory->anonymous_now > 0) {
        (void)fprintf(report->out,
                      "  server, user space: %.1f MB anonymous (%.1f MB before): %.0f B a "
                      "connection\n",
                      (double)memory->anonymous_now / 1e6, (double)memory->anonymous_before / 1e6,
                      grown / clients);
    }
    if (memory->has_kernel) {
        (void)fprintf(report->out,
                      "  kernel: %.0f B a connection for both ends; the client's %.0f, the "
                      "server's %.0f\n",
                      memory->kernel.both_bytes, memory->kernel.client_bytes,
                      memory->kernel.server_bytes);
    }
    if (memory->anonymous_now == 0 && !memory->has_kernel) {
        (void)fputs("  the server isn't local, or its memory isn't for us to see\n", report->out);
    }
}

void report_findings(struct report *report, const char *event, const struct ledger *ledger,
                     const struct crowd_counts *counts, bool complete, double seconds)
{
    wipe(report);
    if (report->json) {
        json_begin(report, event);
        (void)fprintf(report->out,
                      ",\"seconds\":%.3f,\"complete\":%s,\"created\":%" PRIu64
                      ",\"answered\":%" PRIu64 ",\"own_entries\":%" PRIu64
                      ",\"peer_entries\":%" PRIu64,
                      seconds, complete ? "true" : "false", counts->created, counts->answered,
                      counts->own_entries, counts->peer_entries);
        for (uint32_t i = 0; i < LEDGER_FAULT_KINDS; i++) {
            (void)fprintf(report->out, ",\"%s\":%" PRIu64, ledger_fault_label((enum ledger_fault)i),
                          ledger->counts[i]);
        }
        json_end(report);
        return;
    }
    (void)fprintf(report->out,
                  "%s%s: %" PRIu64 " messages created; %" PRIu64
                  " entries in senders' logs, %" PRIu64 " in receivers'\n  ",
                  event, complete ? "" : " (not complete)", counts->created, counts->own_entries,
                  counts->peer_entries);
    for (uint32_t i = 0; i < LEDGER_FAULT_KINDS; i++) {
        (void)fprintf(report->out, "%s%s %" PRIu64, i == 0 ? "" : ", ",
                      ledger_fault_label((enum ledger_fault)i), ledger->counts[i]);
    }
    (void)fputc('\n', report->out);
}

void report_failure(struct report *report, const char *text)
{
    wipe(report);
    (void)fprintf(stderr, "holdfast-loadgen: %s\n", text);
}

void report_done(struct report *report, int exit_code)
{
    wipe(report);
    if (report->json) {
        json_begin(report, "done");
        (void)fprintf(report->out, ",\"exit\":%d", exit_code);
        json_end(report);
    }
}

#include "loadgen/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "core/base/check.h"
#include "loadgen/payload.h"
#include "proto/limits.h"

#define CHURN_ENTRIES     50
#define CHURN_ENTRIES_MAX 200 /* what the server gives at most */

enum option_type {
    OPTION_TEXT,   /* const char * */
    OPTION_U32,    /* from min to max */
    OPTION_U64,    /* the same */
    OPTION_DOUBLE, /* from min to max */
    OPTION_FLAG,
    OPTION_CPUS,
};

struct option_row {
    const char *name;
    enum option_type type;
    size_t place;
    double min;
    double max;
    const char *argument;
    const char *help;
};

#define PLACE(field) offsetof(struct options, field)

static const struct option_row rows[] = {
    { "server", OPTION_TEXT, PLACE(server), 0, 0, "ADDRESS:PORT", "default 127.0.0.1:7443" },
    { "allow-remote", OPTION_FLAG, PLACE(allow_remote), 0, 0, NULL,
      "the server may be another machine: load on who hasn't asked for it is an attack" },
    { "server-name", OPTION_TEXT, PLACE(server_name), 0, 0, "NAME",
      "in its certificate; default localhost" },
    { "ca", OPTION_TEXT, PLACE(ca), 0, 0, "FILE", "certificate authorities, PEM" },
    { "insecure", OPTION_FLAG, PLACE(insecure), 0, 0, NULL, "instead: checks no certificate" },
    { "psk-ke", OPTION_FLAG, PLACE(psk_ke), 0, 0, NULL,
      "resumes by psk_ke only, where the server allows it" },
    { "login-keys", OPTION_TEXT, PLACE(login_keys), 0, 0, "FILE",
      "key set of the issuer, HS256, mode 0600: log-in tokens are made here" },
    { "kid", OPTION_TEXT, PLACE(kid), 0, 0, "NAME", "the key in it" },
    { "audience", OPTION_TEXT, PLACE(audience), 0, 0, "NAME", "of the tokens" },
    { "clients", OPTION_U32, PLACE(clients), 2, 10000000, "N", "default 1000" },
    { "devices", OPTION_U32, PLACE(devices), 1, DEVICES_PER_USER_MAX, "N",
      "clients of each user; the first one sends, all read; default 1" },
    { "first-user", OPTION_U64, PLACE(first_user), 1, 4e18, "ID", "default 1000001" },
    { "threads", OPTION_U32, PLACE(threads), 1, OPTIONS_THREADS_MAX, "N", "default 1" },
    { "cpu", OPTION_CPUS, PLACE(cpus), 0, 0, "LIST", "CPUs for the threads in turn: 1,3" },
    { "source-base", OPTION_TEXT, PLACE(source_base), 0, 0, "ADDRESS",
      "first source address; default 127.1.0.1" },
    { "per-source", OPTION_U32, PLACE(per_source), 1, 28000, "N",
      "clients of one source address; default 5000" },
    { "connect-rate", OPTION_U32, PLACE(connect_rate), 0, 1000000, "R",
      "dials a second; default 0: as fast as goes" },
    { "handshakes", OPTION_U32, PLACE(handshakes), 1, 4096, "N",
      "in progress at once; default 32" },
    { "full", OPTION_U32, PLACE(full), 0, 10000000, "K",
      "full handshakes before tickets are used; default 2000" },
    { "back-off-max", OPTION_U32, PLACE(back_off_max_s), 0, 60, "SECONDS",
      "of the protocol's back-off; default 60" },
    { "connect-timeout", OPTION_U32, PLACE(connect_timeout_s), 1, 3600, "SECONDS",
      "without any progress in connecting; default 30" },
    { "window", OPTION_U32, PLACE(window), 1, SENDS_OUTSTANDING_MAX, "W",
      "pairs: messages that each sender keeps unanswered; default 1" },
    { "rate", OPTION_DOUBLE, PLACE(rate), 0.001, 1e8, "R",
      "pairs: instead, messages a second in all, in an open loop: latency counts from the "
      "intended time" },
    { "one-way", OPTION_FLAG, PLACE(one_way), 0, 0, NULL, "only the first of each pair sends" },
    { "cross-core", OPTION_FLAG, PLACE(cross_core), 0, 0, NULL,
      "every second pair has its homes on two cores; needs --cores" },
    { "cores", OPTION_U32, PLACE(cores), 1, 64, "N", "of the server" },
    { "volumes", OPTION_U32, PLACE(volumes), 1, 64, "N", "of the server; default 16" },
    { "body", OPTION_U32, PLACE(body_bytes), PAYLOAD_BYTES_MIN, BODY_BYTES_MAX, "BYTES",
      "default 100" },
    { "gather", OPTION_FLAG, PLACE(gather), 0, 0, NULL,
      "SENDs that are due together share a TLS record; default: one each" },
    { "for", OPTION_DOUBLE, PLACE(for_s), 0, 1e7, "SECONDS", "default 10" },
    { "warm", OPTION_DOUBLE, PLACE(warm_s), 0, 1e6, "SECONDS",
      "before measuring begins; default 1" },
    { "settle-timeout", OPTION_U32, PLACE(settle_timeout_s), 1, 86400, "SECONDS", "default 60" },
    { "late", OPTION_U32, PLACE(late_ms), 1, 60000, "MS",
      "a paced message is late when it is created so long after its time; default 10" },
    { "late-percent", OPTION_DOUBLE, PLACE(late_percent), 0, 100, "P",
      "more late ones, with a thread over 95 % busy, make a run void; default 1" },
    { "ledger", OPTION_TEXT, PLACE(ledger), 0, 0, "FILE",
      "writes what became of each client's messages" },
    { "server-pid", OPTION_U64, PLACE(server_pid), 1, 4194304, "PID",
      "default: who listens on the server's port, if it is local" },
    { "server-pid-file", OPTION_TEXT, PLACE(server_pid_file), 0, 0, "FILE", "it stands there" },
    { "json", OPTION_FLAG, PLACE(json), 0, 0, NULL, "one JSON object a line, for programs" },
    { "help", OPTION_FLAG, PLACE(help), 0, 0, NULL, "" },
    { "version", OPTION_FLAG, PLACE(version), 0, 0, NULL, "" },
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])

static const struct {
    const char *name;
    const char *arguments;
    const char *help;
} step_rows[] = {
#define STEP_ROW(name, text, arguments, help) { text, arguments, help },
    STEPS(STEP_ROW)
#undef STEP_ROW
};

#define STEP_COUNT (sizeof step_rows / sizeof step_rows[0])

const char *step_name(enum step_kind kind)
{
    HF_ASSERT((size_t)kind < STEP_COUNT);
    return step_rows[kind].name;
}

void options_print_help(FILE *file)
{
    (void)fputs("usage: holdfast-loadgen SCENARIO [options]\n"
                "\n"
                "Holds many TLS clients to a Holdfast server, sends messages between them, and "
                "checks every entry.\n"
                "\n"
                "scenarios\n"
                "  connect        all clients log in\n"
                "  idle           the same; each sends once; then the server's memory a "
                "connection\n"
                "  pairs          clients write to each other: --window or --rate\n"
                "  storm          all connections are dropped at once: seconds until all are back\n"
                "  flood          clients log in, leave and log in again for --for seconds\n"
                "  verify         pairs until SIGUSR1, over any number of restarts of the server; "
                "then\n"
                "                 all logs are checked, and read again from the start\n"
                "  run STEP,...   steps of one's own\n"
                "\n"
                "steps\n",
                file);
    for (size_t i = 0; i < STEP_COUNT; i++) {
        char words[64];

        (void)snprintf(words, sizeof words, "%s%s", step_rows[i].name, step_rows[i].arguments);
        (void)fprintf(file, "  %-26s %s\n", words, step_rows[i].help);
    }
    (void)fputs("\noptions\n", file);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char words[64];

        (void)snprintf(words, sizeof words, "--%s%s%s", rows[i].name,
                       rows[i].argument == NULL ? "" : " ",
                       rows[i].argument == NULL ? "" : rows[i].argument);
        (void)fprintf(file, "  %-26s %s\n", words, rows[i].help);
    }
    (void)fputs("\n"
                "Exit codes: 0 all is well; 64 wrong usage; 65 messages lost, doubled or out of "
                "order, or\n"
                "the protocol broken; 69 the server can't be reached, or didn't come back; 80 the\n"
                "generator was the bottleneck, and the run is void; 130 interrupted.\n",
                file);
}

static bool parse_double(const char *text, double min, double max, double *number)
{
    char *end;

    if ((text[0] < '0' || text[0] > '9') && text[0] != '.') {
        return false;
    }
    errno = 0;
    *number = strtod(text, &end);
    return errno == 0 && end != text && *end == '\0' && *number >= min && *number <= max;
}

static bool parse_u64(const char *text, double min, double max, uint64_t *number)
{
    char *end;

    if (text[0] < '0' || text[0] > '9') {
        return false; /* strtoull takes signs and spaces */
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && (double)*number >= min && (double)*number <= max;
}

static bool parse_cpus(struct options *options, const char *text)
{
    for (;;) {
        char word[16];
        const size_t bytes = strcspn(text, ",");
        uint64_t cpu;

        if (bytes == 0 || bytes >= sizeof word || options->cpu_count == OPTIONS_CPUS_MAX) {
            return false;
        }
        memcpy(word, text, bytes);
        word[bytes] = '\0';
        if (!parse_u64(word, 0, 1023, &cpu)) {
            return false;
        }
        options->cpus[options->cpu_count++] = (uint32_t)cpu;
        if (text[bytes] == '\0') {
            return true;
        }
        text += bytes + 1;
    }
}

static bool set_option(struct options *options, const struct option_row *row, const char *value,
                       struct hf_error *error)
{
    char *place = (char *)options + row->place;
    uint64_t number = 0;
    bool good = true;

    switch (row->type) {
    case OPTION_TEXT:
        memcpy(place, &value, sizeof value);
        break;
    case OPTION_FLAG:
        memcpy(place, &(bool){ true }, sizeof(bool));
        break;
    case OPTION_U32:
        good = parse_u64(value, row->min, row->max, &number);
        memcpy(place, &(uint32_t){ (uint32_t)number }, sizeof(uint32_t));
        break;
    case OPTION_U64:
        good = parse_u64(value, row->min, row->max, &number);
        memcpy(place, &number, sizeof number);
        break;
    case OPTION_DOUBLE: {
        double real = 0;
        good = parse_double(value, row->min, row->max, &real);
        memcpy(place, &real, sizeof real);
        break;
    }
    case OPTION_CPUS:
        good = parse_cpus(options, value);
        break;
    }
    if (!good &&
        (row->type == OPTION_U32 || row->type == OPTION_U64 || row->type == OPTION_DOUBLE)) {
        hf_error_set(error, EX_USAGE, 0, "--%s %s: a number from %.15g to %.15g", row->name, value,
                     row->min, row->max);
    } else if (!good) {
        hf_error_set(error, EX_USAGE, 0, "--%s %s: not a list of CPUs such as 0,2", row->name,
                     value);
    }
    return good;
}

/* ---- steps */

/* Takes the next word of "name:a:b", cutting the text. NULL: none is left. */
static char *next_word(char **at)
{
    char *word = *at;

    if (word == NULL) {
        return NULL;
    }
    *at = strchr(word, ':');
    if (*at != NULL) {
        *(*at)++ = '\0';
    }
    return word;
}

static bool take_number(char **at, double min, double max, double *number)
{
    const char *word = next_word(at);

    return word != NULL && parse_double(word, min, max, number);
}

/* The word behind the numbers, if there is one. */
static bool take_mark(char **at, const char *mark, bool *given)
{
    const char *word = next_word(at);

    *given = word != NULL;
    return word == NULL || strcmp(word, mark) == 0;
}

static bool parse_arguments(struct step *step, char *at)
{
    bool good = true;

    switch (step->kind) {
    case STEP_GREET:
        step->number = 5000;
        good = at == NULL || take_number(&at, 0.001, 1e8, &step->number);
        break;
    case STEP_IDLE:
        good = take_number(&at, 0, 1e7, &step->seconds);
        break;
    case STEP_WINDOW:
        good = take_number(&at, 1, SENDS_OUTSTANDING_MAX, &step->number) &&
               take_number(&at, 0, 1e7, &step->seconds) && take_mark(&at, "keep", &step->keep);
        break;
    case STEP_PACE:
        good = take_number(&at, 0.001, 1e8, &step->number) &&
               take_number(&at, 0, 1e7, &step->seconds) && take_mark(&at, "keep", &step->keep);
        break;
    case STEP_CHURN:
        step->entries = CHURN_ENTRIES;
        good = take_number(&at, 0, 1e6, &step->number) &&
               (at == NULL || take_number(&at, 0, CHURN_ENTRIES_MAX, &step->entries));
        break;
    case STEP_FLOOD:
        good =
            take_number(&at, 0.1, 1e7, &step->seconds) && take_mark(&at, "resumed", &step->resumed);
        break;
    case STEP_AWAIT:
        good = at == NULL || take_number(&at, 0, 1e7, &step->seconds);
        break;
    case STEP_CONNECT:
    case STEP_HOLD:
    case STEP_DROP:
    case STEP_SETTLE:
    case STEP_VERIFY:
    case STEP_LEAVE:
        break;
    }
    return good && at == NULL;
}

static bool parse_step(struct options *options, const char *text, size_t bytes, size_t *used,
                       struct hf_error *error)
{
    struct step *step = &options->steps[options->step_count];
    char copy[128];
    char *at = copy;
    size_t kind = 0;

    if (bytes >= sizeof copy || options->step_count == OPTIONS_STEPS_MAX ||
        *used + bytes + 1 > sizeof options->step_text_) {
        hf_error_set(error, EX_USAGE, 0, "more steps than there is room for (%d)",
                     OPTIONS_STEPS_MAX);
        return false;
    }
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    step->text = memcpy(options->step_text_ + *used, copy, bytes + 1);
    *used += bytes + 1;

    const char *name = next_word(&at);

    while (kind < STEP_COUNT && strcmp(step_rows[kind].name, name) != 0) {
        kind++;
    }
    if (kind == STEP_COUNT) {
        hf_error_set(error, EX_USAGE, 0, "\"%s\" is no step (try --help)", name);
        return false;
    }
    step->kind = (enum step_kind)kind;
    if (!parse_arguments(step, at)) {
        hf_error_set(error, EX_USAGE, 0, "step \"%s\" isn't %s%s", step->text, step_rows[kind].name,
                     step_rows[kind].arguments);
        return false;
    }
    options->step_count++;
    return true;
}

bool options_parse_steps(struct options *options, const char *text, struct hf_error *error)
{
    size_t used = 0;

    options->step_count = 0;
    memset(options->steps, 0, sizeof options->steps);
    for (;;) {
        const size_t bytes = strcspn(text, ",");

        if (!parse_step(options, text, bytes, &used, error)) {
            return false;
        }
        if (text[bytes] == '\0') {
            return true;
        }
        text += bytes + 1;
    }
}

/* A named scenario is a list of steps like any other. */
static bool scenario_steps(struct options *options, struct hf_error *error)
{
    char traffic[64];
    char steps[256];

    if (options->rate > 0) {
        (void)snprintf(traffic, sizeof traffic, "pace:%.9g:%.9g", options->rate, options->for_s);
    } else {
        (void)snprintf(traffic, sizeof traffic, "window:%u:%.9g", options->window, options->for_s);
    }
    if (strcmp(options->scenario, "connect") == 0) {
        (void)snprintf(steps, sizeof steps, "connect,leave");
    } else if (strcmp(options->scenario, "idle") == 0) {
        (void)snprintf(steps, sizeof steps, "connect,greet,settle,idle:%.9g,leave", options->for_s);
    } else if (strcmp(options->scenario, "pairs") == 0) {
        (void)snprintf(steps, sizeof steps, "connect,%s,settle,leave", traffic);
    } else if (strcmp(options->scenario, "storm") == 0) {
        (void)snprintf(steps, sizeof steps, "connect,greet,drop,settle,leave");
    } else if (strcmp(options->scenario, "flood") == 0) {
        (void)snprintf(steps, sizeof steps, "flood:%.9g", options->for_s);
    } else if (strcmp(options->scenario, "verify") == 0) {
        (void)snprintf(steps, sizeof steps, "connect,%s:keep,hold,settle,verify,leave", traffic);
    } else {
        hf_error_set(error, EX_USAGE, 0, "\"%s\" is no scenario (try --help)", options->scenario);
        return false;
    }
    return options_parse_steps(options, steps, error);
}

static bool check(const struct options *options, struct hf_error *error)
{
    const char *fault = NULL;

    if (options->login_keys == NULL || options->kid == NULL) {
        fault = "--login-keys and --kid are needed: a server lets nobody in without a token";
    } else if ((options->ca == NULL) != options->insecure) {
        fault = "either --ca or --insecure is needed";
    } else if (options->cross_core && options->cores < 2) {
        fault = "--cross-core needs --cores of 2 or more";
    } else if (options->volumes < options->cores) {
        fault = "--volumes can't be below --cores";
    } else if (options->clients % (2 * options->devices) != 0) {
        fault = "--clients must be a multiple of 2 x --devices: users come in pairs";
    } else if (options->clients / (2 * options->devices) < options->threads) {
        fault = "each thread needs at least one pair of users";
    } else if (options->handshakes < options->threads) {
        fault = "each thread needs at least one of the --handshakes";
    }
    if (fault != NULL) {
        hf_error_set(error, EX_USAGE, 0, "%s", fault);
    }
    return fault == NULL;
}

static void set_defaults(struct options *options)
{
    *options = (struct options){
        .server = "127.0.0.1:7443",
        .server_name = "localhost",
        .source_base = "127.1.0.1",
        .first_user = 1000001,
        .clients = 1000,
        .devices = 1,
        .threads = 1,
        .per_source = 5000,
        .handshakes = 32,
        .full = 2000,
        .back_off_max_s = 60,
        .window = 1,
        .body_bytes = 100,
        .for_s = 10,
        .warm_s = 1,
        .connect_timeout_s = 30,
        .settle_timeout_s = 60,
        .volumes = 16,
        .late_ms = 10,
        .late_percent = 1,
    };
}

static bool parse_flags(struct options *options, int argc, char **argv, struct hf_error *error)
{
    struct option longs[ROW_COUNT + 1] = { 0 };

    for (size_t i = 0; i < ROW_COUNT; i++) {
        longs[i].name = rows[i].name;
        longs[i].has_arg = rows[i].type == OPTION_FLAG ? no_argument : required_argument;
        longs[i].val = (int)i + 256;
    }
    optind = 0; /* begins anew: tests parse more than one line */
    opterr = 0;
    for (;;) {
        const int option = getopt_long(argc, argv, ":", longs, NULL);

        if (option == -1) {
            return true;
        }
        if (option < 256) {
            hf_error_set(
                error, EX_USAGE, 0, "%s \"%s\" (try --help)",
                option == ':' ? "an argument is missing to" : "no such option:", argv[optind - 1]);
            return false;
        }
        if (!set_option(options, &rows[option - 256], optarg, error)) {
            return false;
        }
    }
}

bool options_parse(struct options *options, int argc, char **argv, struct hf_error *error)
{
    set_defaults(options);
    if (!parse_flags(options, argc, argv, error)) {
        return false;
    }
    if (options->help || options->version) {
        return true;
    }
    if (optind >= argc) {
        hf_error_set(error, EX_USAGE, 0, "which scenario? (try --help)");
        return false;
    }
    options->scenario = argv[optind++];

    const bool run = strcmp(options->scenario, "run") == 0;

    if (run && optind >= argc) {
        hf_error_set(error, EX_USAGE, 0, "run which steps? (try --help)");
        return false;
    }
    if (!(run ? options_parse_steps(options, argv[optind++], error)
              : scenario_steps(options, error))) {
        return false;
    }
    if (optind < argc) {
        hf_error_set(error, EX_USAGE, 0, "\"%s\" is too much (try --help)", argv[optind]);
        return false;
    }
    return check(options, error);
}

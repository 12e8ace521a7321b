/*
 * power_images: takes what a recorded server did to its data directory, cuts the power at moments
 * of chance, and recovers each disk that may be left. See docs/testing.md.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/power/check.h"
#include "tests/power/image.h"
#include "tests/power/settle.h"

static const char usage[] =
    "usage: power_images images LOG LEDGER --folder DIR [options]\n"
    "       power_images settle LOG DIR         what was in flight when a process was killed\n"
    "       power_images compare LOG DIR        is the log all that was done to the directory?\n"
    "\n"
    "  --images N       how many power cuts (200)\n"
    "  --seed S         which (1)\n"
    "  --image K        only the K-th of them, which stays in DIR/image\n"
    "  --write-only     with --image: the image, unchecked; prints the instant of its cut\n"
    "  --jobs J         at a time (1)\n"
    "  --cores N        recover with so many; each image has another number from 1 to N (2)\n"
    "  --retention N    retention_count of the server (0)\n"
    "  --forget WHAT    a disk that lies: journal, volume, commit, manifest, folder or segments\n"
    "                   aren't synced when they say so; some image must be wrong\n"
    "  --expect-wrong   the server has a bug: some image must be wrong\n";

struct options {
    const char *log;
    const char *ledger;
    const char *folder;
    uint64_t images;
    uint64_t seed;
    uint64_t image; /* from 1; 0: all */
    bool write_only;
    uint32_t jobs;
    uint32_t cores;
    uint64_t retention;
    enum disk_forgets forgets;
    bool expect_wrong;
};

/* One power cut. */
struct cut {
    uint64_t number; /* from 1 */
    size_t op;       /* everything before it has happened */
    uint64_t seed;
    uint32_t cores;
};

struct job {
    pid_t pid; /* 0: free */
    struct cut cut;
};

struct run {
    const struct options *options;
    struct history history;
    struct ledger ledger;
    struct disk disk;
    struct cut *cuts;
    struct job *jobs;
    uint64_t done;
    uint64_t wrong;
    uint64_t owed; /* images of disks that owed something */
};

static struct cut draw_cut(const struct run *run, uint64_t number)
{
    struct image_random random = { run->options->seed * UINT64_C(0x9e3779b97f4a7c15) + number };

    return (struct cut){
        .number = number,
        .op = 2 + (size_t)image_random_below(&random, run->history.count - 1),
        .cores = 1 + (uint32_t)image_random_below(&random, run->options->cores),
        .seed = image_random_next(&random),
    };
}

static int compare_cuts(const void *left, const void *right)
{
    const struct cut *a = left;
    const struct cut *b = right;

    return a->op < b->op ? -1 : a->op > b->op;
}

/* The instant before the next op: whatever was read by then had left before the cut. */
static uint64_t cut_ns(const struct run *run, const struct cut *cut)
{
    return cut->op < run->history.count ? run->history.ops[cut->op].op->at_ns : UINT64_MAX;
}

static void image_folder(const struct run *run, uint32_t job, char *path, size_t room)
{
    (void)snprintf(path, room, "%s/image-%u", run->options->folder, job);
}

static size_t write_image(const struct run *run, const struct cut *cut, const char *folder)
{
    struct image_random random = { cut->seed };

    return image_write(&run->disk, &random, folder);
}

static void say_wrong(const struct run *run, const struct cut *cut, const char *text)
{
    char where[160];

    history_describe(&run->history, cut->op, where, sizeof where);
    (void)printf("image %" PRIu64 " (power cut before %s): %s\n", cut->number, where, text);
    (void)printf("again: power_images images %s %s --folder %s --seed %" PRIu64 " --image %" PRIu64
                 " --cores %u --retention %" PRIu64 "\n",
                 run->options->log, run->options->ledger, run->options->folder, run->options->seed,
                 cut->number, run->options->cores, run->options->retention);
}

/* In a child, which ends: 0, or 1 and it said why. */
static void check_in_child(const struct run *run, const struct cut *cut, const char *folder)
{
    char text[CHECK_TEXT_BYTES];
    const struct check check = {
        .folder = folder,
        .ledger = &run->ledger,
        .upto_ns = cut_ns(run, cut),
        .cores = cut->cores,
        .retention_count = run->options->retention,
    };
    const size_t owed = write_image(run, cut, folder);
    const bool good = check_image(&check, text);

    if (!good && !run->options->expect_wrong) {
        say_wrong(run, cut, text);
    } else if (!good) {
        (void)printf("found by image %" PRIu64 ": %s\n", cut->number, text);
    }
    (void)fflush(stdout);
    _exit(good ? (owed > 0 ? 0 : 2) : 1);
}

static void reap(struct run *run)
{
    int status;
    const pid_t pid = wait(&status);

    for (uint32_t i = 0; i < run->options->jobs; i++) {
        struct job *job = &run->jobs[i];

        if (job->pid != pid || pid <= 0) {
            continue;
        }
        job->pid = 0;
        run->done++;
        if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2)) {
            run->owed += WEXITSTATUS(status) == 0;
            return;
        }
        run->wrong++;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
            say_wrong(run, &job->cut, "the recovery died");
        }
        return;
    }
    power_die("a child that nobody knows");
}

static uint32_t free_job(struct run *run)
{
    for (;;) {
        for (uint32_t i = 0; i < run->options->jobs; i++) {
            if (run->jobs[i].pid == 0) {
                return i;
            }
        }
        reap(run);
    }
}

static bool is_running(const struct run *run)
{
    for (uint32_t i = 0; i < run->options->jobs; i++) {
        if (run->jobs[i].pid != 0) {
            return true;
        }
    }
    return false;
}

static void begin_job(struct run *run, const struct cut *cut)
{
    const uint32_t job = free_job(run);
    char folder[4000];

    image_folder(run, job, folder, sizeof folder);
    disk_advance(&run->disk, cut->op);
    (void)fflush(stdout);

    const pid_t pid = fork();

    if (pid < 0) {
        power_die("fork");
    }
    if (pid == 0) {
        check_in_child(run, cut, folder);
    }
    run->jobs[job].pid = pid;
    run->jobs[job].cut = *cut;
}

static int run_all(struct run *run)
{
    const bool find = run->options->expect_wrong;
    const time_t began = time(NULL);

    run->cuts = calloc(run->options->images, sizeof *run->cuts);
    if (run->cuts == NULL) {
        power_die("no memory");
    }
    for (uint64_t i = 0; i < run->options->images; i++) {
        run->cuts[i] = draw_cut(run, i + 1);
    }
    if (!find) { /* else in the order drawn: the first that finds it ends it */
        qsort(run->cuts, run->options->images, sizeof *run->cuts, compare_cuts);
    }
    for (uint64_t i = 0; i < run->options->images && (!find || run->wrong == 0); i++) {
        if (run->cuts[i].op < run->disk.next_op) {
            disk_deinit(&run->disk);
            disk_init(&run->disk, &run->history, run->options->forgets);
        }
        begin_job(run, &run->cuts[i]);
    }
    while (is_running(run)) {
        reap(run);
    }
    for (uint32_t i = 0; run->wrong == 0 && i < run->options->jobs; i++) {
        char folder[4000];

        image_folder(run, i, folder, sizeof folder);
        image_empty_folder(folder);
        (void)rmdir(folder);
    }
    (void)printf("seed %" PRIu64 ": %" PRIu64 " power cuts in %zu operations, %" PRIu64 " with "
                 "something unsynced, %" PRIu64 " wrong, %ld s\n",
                 run->options->seed, run->done, run->history.count, run->owed, run->wrong,
                 (long)(time(NULL) - began));
    free(run->cuts);
    return (run->wrong > 0) == find ? 0 : 1;
}

static int run_one(struct run *run)
{
    const struct cut cut = draw_cut(run, run->options->image);
    char folder[4000];

    image_folder(run, 0, folder, sizeof folder);
    disk_advance(&run->disk, cut.op);
    if (run->options->write_only) {
        (void)write_image(run, &cut, folder);
        (void)printf("cut_ns=%" PRIu64 "\n", cut_ns(run, &cut));
        return 0;
    }
    begin_job(run, &cut);
    reap(run);
    (void)printf("image %" PRIu64 ": %s; as recovery left it in %s\n", cut.number,
                 run->wrong > 0 ? "wrong" : "good", folder);
    return run->wrong > 0 ? 1 : 0;
}

static int images(const struct options *options)
{
    struct run run = { .options = options };

    history_open(&run.history, options->log);
    ledger_open(&run.ledger, options->ledger);
    disk_init(&run.disk, &run.history, options->forgets);
    run.jobs = calloc(options->jobs, sizeof *run.jobs);
    if (run.jobs == NULL || run.history.count < 3) {
        power_die("%s: an empty log", options->log);
    }
    (void)mkdir(options->folder, 0700);

    const int code = options->image != 0 ? run_one(&run) : run_all(&run);

    free(run.jobs);
    disk_deinit(&run.disk);
    ledger_close(&run.ledger);
    history_close(&run.history);
    return code;
}

static uint64_t number(const char *text)
{
    char *end = NULL;
    const uint64_t value = strtoull(text, &end, 10);

    if (end == text || *end != '\0') {
        power_die("%s: no number", text);
    }
    return value;
}

static enum disk_forgets forgets(const char *text)
{
    static const char *const names[] = { "nothing",  "journal", "volume",  "commit",
                                         "manifest", "folder",  "segments" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            return (enum disk_forgets)i;
        }
    }
    power_die("%s: can't be forgotten", text);
}

static void take_options(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        { "folder", required_argument, NULL, 'f' },
        { "images", required_argument, NULL, 'n' },
        { "seed", required_argument, NULL, 's' },
        { "image", required_argument, NULL, 'i' },
        { "jobs", required_argument, NULL, 'j' },
        { "cores", required_argument, NULL, 'c' },
        { "retention", required_argument, NULL, 'r' },
        { "forget", required_argument, NULL, 'x' },
        { "write-only", no_argument, NULL, 'w' },
        { "expect-wrong", no_argument, NULL, 'e' },
        { NULL, 0, NULL, 0 },
    };
    int name;

    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'f':
            options->folder = optarg;
            break;
        case 'n':
            options->images = number(optarg);
            break;
        case 's':
            options->seed = number(optarg);
            break;
        case 'i':
            options->image = number(optarg);
            break;
        case 'j':
            options->jobs = (uint32_t)number(optarg);
            break;
        case 'c':
            options->cores = (uint32_t)number(optarg);
            break;
        case 'r':
            options->retention = number(optarg);
            break;
        case 'x':
            options->forgets = forgets(optarg);
            options->expect_wrong = true;
            break;
        case 'e':
            options->expect_wrong = true;
            break;
        case 'w':
            options->write_only = true;
            break;
        default:
            (void)fputs(usage, stderr);
            exit(64);
        }
    }
}

int main(int argc, char **argv)
{
    struct options options = { .images = 200, .seed = 1, .jobs = 1, .cores = 2 };

    take_options(&options, argc, argv);
    if (argc - optind == 3 && strcmp(argv[optind], "settle") == 0) {
        return settle(argv[optind + 1], argv[optind + 2]);
    }
    if (argc - optind == 3 && strcmp(argv[optind], "compare") == 0) {
        return settle_compare(argv[optind + 1], argv[optind + 2]);
    }
    if (argc - optind == 3 && strcmp(argv[optind], "images") == 0 && options.folder != NULL &&
        options.jobs > 0 && options.images > 0 && options.cores > 0) {
        options.log = argv[optind + 1];
        options.ledger = argv[optind + 2];
        return images(&options);
    }
    (void)fputs(usage, stderr);
    return 64;
}

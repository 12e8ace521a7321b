#include "tests/sim/jobs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/check.h"
#include "tests/sim/fail.h"

#ifdef HF_COVERAGE
extern void __gcov_dump(void); /* of libgcov: _exit() leaves it out */
#endif

/* In memory that parent and child share. */
struct slot {
    struct job_result result;
    pid_t pid; /* 0: free */
    int words; /* a file in memory: the child's standard error */
};

static void child_main(const struct jobs_plan *plan, struct slot *slot)
{
    struct sim_result again;

    if (!plan->verbose) {
        (void)dup2(slot->words, STDERR_FILENO);
    }
    (void)alarm(plan->seconds_max);
    fail_set_verbose(plan->verbose);
    run_seed(&slot->result.plan, &slot->result.run);
    if (plan->twice) {
        run_seed(&slot->result.plan, &again);
        SIM_CHECK(again.effects_hash == slot->result.run.effects_hash,
                  "the same events gave other effects (I9)");
    }
}

static bool slot_start(const struct jobs_plan *plan, struct slot *slot, uint64_t seed)
{
    memset(&slot->result, 0, sizeof slot->result);
    slot->result.plan = plan->plan;
    slot->result.plan.schedule = seed;
    if (!plan->schedules_only) {
        slot->result.plan.seed = seed;
    }
    (void)ftruncate(slot->words, 0);
    (void)lseek(slot->words, 0, SEEK_SET);
    (void)fflush(stdout);

    const pid_t pid = fork();

    if (pid == 0) {
        child_main(plan, slot);
#ifdef HF_COVERAGE
        __gcov_dump();
#endif
        _exit(0);
    }
    slot->pid = pid > 0 ? pid : 0; /* not in the child, which shares it */
    return pid > 0;
}

/* The line that says most: the first that names a seed or an assertion, else the first at all. */
static void read_words(struct slot *slot, int status)
{
    static char text[65536]; /* of the parent, which has one thread */
    const ssize_t got = pread(slot->words, text, sizeof text - 1, 0);
    const char *line = text;

    text[got > 0 ? got : 0] = '\0';
    for (const char *at = text; *at != '\0';) {
        const size_t length = strcspn(at, "\n");

        if (strncmp(at, "seed ", 5) == 0 || memmem(at, length, "assert", 6) != NULL ||
            memmem(at, length, "ERROR: ", 7) != NULL ||
            memmem(at, length, "runtime error", 13) != NULL) {
            line = at;
            break;
        }
        at += length + (at[length] == '\n' ? 1 : 0);
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        (void)snprintf(slot->result.words, sizeof slot->result.words, "seed %llu hangs",
                       (unsigned long long)slot->result.plan.seed);
        return;
    }
    (void)snprintf(slot->result.words, sizeof slot->result.words, "%.*s", (int)strcspn(line, "\n"),
                   line);
    if (slot->result.words[0] == '\0') {
        (void)snprintf(slot->result.words, sizeof slot->result.words,
                       "seed %llu: ended with status %x",
                       (unsigned long long)slot->result.plan.seed, (unsigned)status);
    }
}

static struct slot *slot_wait(struct slot *slots, unsigned count)
{
    int status;
    pid_t pid;

    do {
        pid = waitpid(-1, &status, 0);
    } while (pid < 0 && errno == EINTR);
    for (unsigned i = 0; i < count; i++) {
        if (slots[i].pid == pid && pid > 0) {
            slots[i].pid = 0;
            slots[i].result.good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            if (!slots[i].result.good) {
                read_words(&slots[i], status);
            }
            return &slots[i];
        }
    }
    return NULL;
}

static struct slot *slot_free(struct slot *slots, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (slots[i].pid == 0) {
            return &slots[i];
        }
    }
    return NULL;
}

bool jobs_run(const struct jobs_plan *plan,
              bool (*on_result)(void *context, const struct job_result *result), void *context)
{
    uint64_t next = 0;
    unsigned running = 0;
    bool go_on = true;
    struct slot *slots = mmap(NULL, JOBS_MAX * sizeof *slots, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    HF_ASSERT(plan->at_once >= 1 && plan->at_once <= JOBS_MAX);
    if (slots == MAP_FAILED) {
        return false;
    }
    for (unsigned i = 0; i < plan->at_once; i++) {
        slots[i].words = memfd_create("sim-words", 0);
        go_on = go_on && slots[i].words >= 0;
    }
    while (running > 0 || (go_on && next < plan->seed_count)) {
        if (go_on && next < plan->seed_count && running < plan->at_once) {
            struct slot *slot = slot_free(slots, plan->at_once);

            HF_ASSERT(slot != NULL);
            go_on = slot_start(plan, slot, plan->seeds[next]);
            next++;
            running += go_on ? 1U : 0U;
            continue;
        }

        const struct slot *done = slot_wait(slots, plan->at_once);

        if (done == NULL) {
            break;
        }
        running--;
        go_on = on_result(context, &done->result) && go_on;
    }
    for (unsigned i = 0; i < plan->at_once; i++) {
        (void)close(slots[i].words);
    }
    (void)munmap(slots, JOBS_MAX * sizeof *slots);
    return go_on;
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>

#include "core/io/slab.h"
#include "tests/unit/io/loopback.h"

static void tag_keeps_op_slot_and_generation_apart(void **state)
{
    (void)state;
    static const struct {
        uint8_t op;
        uint32_t slot;
        uint32_t generation;
    } rows[] = { { 1, 0, 1 },
                 { 0xff, UINT32_MAX, SLAB_GENERATION_MASK },
                 { 7, 0x80000001, 0x800001 } };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint64_t tag = ring_tag(rows[i].op, rows[i].slot, rows[i].generation);
        assert_int_equal(ring_tag_op(tag), rows[i].op);
        assert_int_equal(ring_tag_slot(tag), rows[i].slot);
        assert_int_equal(ring_tag_generation(tag), rows[i].generation);
    }
    assert_int_equal(ring_tag_op(RING_TAG_NONE), RING_OP_NONE);
}

static void kernels_from_6_1_on_are_supported(void **state)
{
    (void)state;
    static const struct {
        const char *release;
        bool supported;
    } rows[] = {
        { "6.1.0-28-amd64", true },  { "6.0.19", false }, { "5.15.0-91-generic", false },
        { "6.18.44-fc-v657", true }, { "7.0", true },     { "10.2", true },
        { "5.99", false },           { "unknown", true },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (ring_kernel_supported(rows[i].release) != rows[i].supported) {
            fail_msg("%s", rows[i].release);
        }
    }
}

static void refusal_names_what_to_change(void **state)
{
    (void)state;
    static const struct {
        struct ring_refusal refusal;
        int exit_code;
        const char *said;
    } rows[] = {
        { { EPERM, 2, UINT64_MAX, "6.8.0" },
          EX_UNAVAILABLE,
          "sysctl -w kernel.io_uring_disabled=0" },
        { { EPERM, 1, UINT64_MAX, "6.8.0" }, EX_UNAVAILABLE, "kernel.io_uring_group" },
        { { EPERM, 0, UINT64_MAX, "6.8.0" }, EX_UNAVAILABLE, "seccomp profile" },
        { { EPERM, -1, UINT64_MAX, "6.1.0" }, EX_UNAVAILABLE, "--security-opt seccomp=FILE" },
        { { ENOSYS, -1, UINT64_MAX, "6.1.0" }, EX_UNAVAILABLE, "CONFIG_IO_URING" },
        { { EINVAL, 0, UINT64_MAX, "5.15.0" }, EX_UNAVAILABLE, "kernel 5.15.0 is too old" },
        { { ENOMEM, 0, 65536, "6.8.0" }, EX_OSERR, "RLIMIT_MEMLOCK is 65536 bytes" },
        { { ENOMEM, 0, UINT64_MAX, "6.8.0" }, EX_OSERR, "memory limit of the machine" },
        { { EMFILE, 0, UINT64_MAX, "6.8.0" }, EX_OSERR, "Too many open files" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hf_error error;

        ring_explain(&rows[i].refusal, &error);
        if (strstr(error.text, rows[i].said) == NULL || error.exit_code != rows[i].exit_code) {
            fail_msg("row %zu: %s", i, error.text);
        }
        /* Shown whole, with room for a caller's prefix. */
        assert_true(strlen(error.text) < HF_ERROR_TEXT_BYTES - 60);
    }
}

/* What ring_probe says in a child process changed by `restrict_child`: its text, and exit code. */
static int probe_in_child(void (*restrict_child)(unsigned), unsigned argument,
                          char text[HF_ERROR_TEXT_BYTES])
{
    int pipe_fds[2];
    int status;

    assert_int_equal(pipe(pipe_fds), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct ring_features features;
        struct hf_error error = { 0 };

        restrict_child(argument);
        const bool usable = ring_probe(&features, &error);
        const ssize_t written = write(pipe_fds[1], error.text, sizeof error.text);
        _exit(written == (ssize_t)sizeof error.text && usable ? 0 : error.exit_code);
    }
    assert_int_equal(read(pipe_fds[0], text, HF_ERROR_TEXT_BYTES), HF_ERROR_TEXT_BYTES);
    assert_int_equal(waitpid(child, &status, 0), child);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void deny_call(unsigned number, unsigned errno_value)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno_value),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {
        .len = sizeof filter / sizeof filter[0],
        .filter = filter,
    };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        _exit(EX_SOFTWARE);
    }
}

static void deny_setup(unsigned errno_value)
{
    deny_call(SYS_io_uring_setup, errno_value);
}

static void deny_enter(unsigned errno_value)
{
    deny_call(SYS_io_uring_enter, errno_value);
}

static void probe_under_seccomp_says_so(void **state)
{
    (void)state;
    char text[HF_ERROR_TEXT_BYTES];

    assert_int_equal(probe_in_child(deny_setup, EPERM, text), EX_UNAVAILABLE);
    assert_non_null(strstr(text, "forbidden by a seccomp profile"));
    assert_int_equal(probe_in_child(deny_setup, ENOSYS, text), EX_UNAVAILABLE);
    assert_non_null(strstr(text, "io_uring is absent"));
    assert_int_equal(probe_in_child(deny_enter, EPERM, text), EX_UNAVAILABLE);
    assert_non_null(strstr(text, "forbidden by a seccomp profile"));
}

/* Nobody, who lacks CAP_IPC_LOCK, with a limit of 0 bytes. */
static void deny_locked_memory(unsigned user)
{
    const struct rlimit none = { 0, 0 };

    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || setuid(user) != 0) {
        _exit(EX_SOFTWARE);
    }
}

static void probe_without_lockable_memory_names_the_limit(void **state)
{
    (void)state;
    char text[HF_ERROR_TEXT_BYTES];

    if (getuid() != 0) {
        skip();
    }
    /* Kernels before 6.13 count a ring's memory against the cgroup, not against this limit. */
    const int code = probe_in_child(deny_locked_memory, 65534, text);
    if (code != 0) {
        assert_int_equal(code, EX_OSERR);
        assert_non_null(strstr(text, "RLIMIT_MEMLOCK is 0 bytes"));
    }
    print_message("probe as nobody, RLIMIT_MEMLOCK 0: %s\n", code == 0 ? "allowed here" : text);
}

static void feature_is_turned_off_by_name(void **state)
{
    (void)state;
    struct ring_features features = { .no_sqarray = true, .cmd_sock = true };

    assert_true(ring_feature_turn_off(&features, "no_sqarray"));
    assert_false(features.no_sqarray);
    assert_true(features.cmd_sock);
    assert_true(ring_feature_turn_off(&features, "cmd_sock"));
    assert_false(features.cmd_sock);
    assert_false(ring_feature_turn_off(&features, "sqpoll"));
}

static void table_beyond_the_descriptor_limit_is_refused(void **state)
{
    (void)state;
    struct rlimit limit;
    struct ring ring;
    struct hf_error error;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur >= UINT32_C(1) << 20) {
        skip();
    }
    const struct ring_config config = {
        .sq_entries = 4,
        .cq_entries = 8,
        .files = (uint32_t)limit.rlim_cur + 1,
    };

    assert_false(ring_open(&ring, &config, &error));
    assert_non_null(strstr(error.text, "RLIMIT_NOFILE is"));
    ring_close(&ring);
}

static void sqe_beyond_the_queue_submits_and_goes_on(void **state)
{
    (void)state;

    for (int without = 0; without < 2; without++) {
        struct ring_features features = loopback_features();
        struct ring ring;
        struct hf_error error;
        struct ring_event event;
        uint32_t next = 0;

        if (without) {
            assert_true(ring_feature_turn_off(&features, "no_sqarray"));
        }
        const struct ring_config config = {
            .sq_entries = 4,
            .cq_entries = 8192,
            .features = features,
        };
        assert_true(ring_open(&ring, &config, &error));
        assert_true(ring_enable(&ring, &error));
        assert_int_equal((ring.uring_.flags & IORING_SETUP_NO_SQARRAY) != 0, features.no_sqarray);
        for (uint32_t i = 0; i < 5000; i++) {
            struct io_uring_sqe *sqe = ring_sqe(&ring);
            io_uring_prep_nop(sqe);
            io_uring_sqe_set_data64(sqe, ring_tag(1, i, 1));
        }
        ring_run(&ring);
        while (ring_take(&ring, &event)) {
            assert_int_equal(ring_tag_slot(event.tag), next++);
        }
        assert_int_equal(next, 5000);
        ring_close(&ring);
    }
}

static void completions_beyond_the_queue_come_later(void **state)
{
    (void)state;
    const struct ring_config config = { .sq_entries = 64, .cq_entries = 8 };
    struct ring ring;
    struct hf_error error;
    struct ring_event event;
    uint32_t next = 0;

    assert_true(ring_open(&ring, &config, &error) == false); /* CQ below SQ: refused */
    const struct ring_config small = { .sq_entries = 8, .cq_entries = 8 };
    assert_true(ring_open(&ring, &small, &error));
    assert_true(ring_enable(&ring, &error));
    for (uint32_t i = 0; i < 100; i++) {
        struct io_uring_sqe *sqe = ring_sqe(&ring);
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data64(sqe, ring_tag(1, i, 1));
    }
    while (next < 100) {
        assert_true(ring_has_work(&ring));
        ring_wait(&ring, LOOPBACK_TIMEOUT_NS);
        while (ring_take(&ring, &event)) {
            assert_int_equal(ring_tag_slot(event.tag), next++);
        }
    }
    assert_false(ring_has_work(&ring));
    ring_close(&ring);
}

static void completions_without_tag_are_dropped(void **state)
{
    (void)state;
    struct ring ring;

    loopback_open_ring(&ring, 4);
    ring_close_file(&ring, 3, RING_TAG_NONE); /* fails: nothing there */
    ring_close_file(&ring, 2, ring_tag(9, 2, 1));
    assert_int_equal(loopback_await(&ring, ring_tag(9, 2, 1)).result, -EBADF);
    loopback_await_nothing(&ring);
    ring_close(&ring);
}

static void wait_ends_at_its_timeout(void **state)
{
    (void)state;
    struct ring ring;
    struct ring_event event;

    loopback_open_ring(&ring, 0);
    const uint64_t start_ns = clock_now_ns();
    ring_wait(&ring, 20 * CLOCK_NS_PER_MS);
    assert_true(clock_now_ns() - start_ns >= 20 * CLOCK_NS_PER_MS);
    assert_false(ring_take(&ring, &event));
    ring_wait(&ring, 0);
    ring_close(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tag_keeps_op_slot_and_generation_apart),
        cmocka_unit_test(kernels_from_6_1_on_are_supported),
        cmocka_unit_test(refusal_names_what_to_change),
        cmocka_unit_test(probe_under_seccomp_says_so),
        cmocka_unit_test(probe_without_lockable_memory_names_the_limit),
        cmocka_unit_test(feature_is_turned_off_by_name),
        cmocka_unit_test(table_beyond_the_descriptor_limit_is_refused),
        cmocka_unit_test(sqe_beyond_the_queue_submits_and_goes_on),
        cmocka_unit_test(completions_beyond_the_queue_come_later),
        cmocka_unit_test(completions_without_tag_are_dropped),
        cmocka_unit_test(wait_ends_at_its_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Proc: this process as the server, and samples of the kernel's memory made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include "loadgen/proc.h"

static void listener_is_found_by_its_port(void **state)
{
    const struct sockaddr_in address = { .sin_family = AF_INET,
                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in bound = { 0 };
    socklen_t bytes = sizeof bound;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&bound, &bytes), 0);
    assert_int_equal(proc_find_listener(ntohs(bound.sin_port)), getpid());
    assert_int_equal(close(fd), 0);
    assert_int_equal(proc_find_listener(ntohs(bound.sin_port)), 0);
}

static void pid_file_is_read(void **state)
{
    char path[] = "/tmp/holdfast-test-pid.XXXXXX";
    const int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "4711\n", 5), 5);
    assert_int_equal(close(fd), 0);
    assert_int_equal(proc_read_pid_file(path), 4711);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(proc_read_pid_file(path), 0);
}

static void cpu_of_this_process_grows(void **state)
{
    struct proc_cpu before;
    struct proc_cpu after;
    struct proc_cpu used;

    (void)state;
    assert_true(proc_cpu_take(&before, getpid()));
    do { /* works until the clock of ticks has moved */
        assert_true(proc_cpu_take(&after, getpid()));
    } while (after.cpu_ns == before.cpu_ns);
    assert_true(proc_cpu_between(&used, &before, &after));
    assert_true(used.cpu_ns > 0 && used.cpu_ns <= after.cpu_ns);
    assert_int_equal(used.names[0].cpu_ns, used.cpu_ns);
}

static void dead_process_has_no_cpu(void **state)
{
    struct proc_cpu cpu;

    (void)state;
    assert_false(proc_cpu_take(&cpu, 0));
    assert_false(proc_cpu_take(&cpu, 0x7ffffff0));
    assert_int_equal(cpu.pid, 0);
}

static void restarted_process_isnt_compared(void **state)
{
    const struct proc_cpu before = { .pid = 10, .cpu_ns = 5 };
    const struct proc_cpu after = { .pid = 11, .cpu_ns = 50 };
    struct proc_cpu used;

    (void)state;
    assert_false(proc_cpu_between(&used, &before, &after));
    assert_false(proc_cpu_between(&used, &(struct proc_cpu){ 0 }, &(struct proc_cpu){ 0 }));
}

static void threads_are_compared_by_name(void **state)
{
    const struct proc_cpu before = {
        .pid = 10, .cpu_ns = 30, .name_count = 2, .names = { { "a", 1, 10 }, { "b", 2, 20 } }
    };
    const struct proc_cpu after = {
        .pid = 10,
        .cpu_ns = 100,
        .name_count = 3,
        .names = { { "b", 2, 50 }, { "a", 1, 15 }, { "c", 1, 35 } },
    };
    struct proc_cpu used;

    (void)state;
    assert_true(proc_cpu_between(&used, &before, &after));
    assert_int_equal(used.cpu_ns, 70);
    assert_int_equal(used.names[0].cpu_ns, 30);
    assert_int_equal(used.names[1].cpu_ns, 5);
    assert_int_equal(used.names[2].cpu_ns, 35); /* began meanwhile */
}

static void own_anonymous_memory_is_seen(void **state)
{
    (void)state;
    assert_true(proc_anonymous_bytes(getpid()) > 4096);
    assert_int_equal(proc_anonymous_bytes(0x7ffffff0), 0);
}

static void add_slab(struct proc_kernel *kernel, const char *name, double objects, double bytes)
{
    struct proc_slab *slab = &kernel->slabs[kernel->slab_count++];

    (void)snprintf(slab->name, sizeof slab->name, "%s", name);
    slab->objects = objects;
    slab->object_bytes = bytes;
}

/* 100 connections: two sockets and two polls each; the clients' half is told apart. */
static void clients_end_is_taken_away(void **state)
{
    static struct proc_kernel before;
    static struct proc_kernel after;
    struct proc_kernel_growth growth;

    (void)state;
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    add_slab(&before, "TCP", 10, 2000);
    add_slab(&before, "io_kiocb", 0, 256);
    add_slab(&before, "tw_sock_TCP", 500, 300);
    add_slab(&before, "dentry", 50, 200);
    add_slab(&after, "TCP", 210, 2000);
    add_slab(&after, "io_kiocb", 200, 256);
    add_slab(&after, "tw_sock_TCP", 0, 300); /* gone meanwhile: not counted */
    add_slab(&after, "dentry", 250, 200);
    add_slab(&after, "new", 100, 10);
    before.tcp_bytes = 4096;
    after.tcp_bytes = 8192;
    assert_true(proc_kernel_between(&growth, &before, &after, 100));
    assert_true(growth.both_bytes > 4921 && growth.both_bytes < 4923); /* 2 x 2,456 + 10 */
    assert_true(growth.client_bytes > 2455 && growth.client_bytes < 2457);
    assert_true(growth.server_bytes > 2465 && growth.server_bytes < 2467);
    assert_true(growth.tcp_bytes > 40 && growth.tcp_bytes < 41);
}

static void kernel_that_isnt_seen_isnt_guessed(void **state)
{
    static struct proc_kernel none;
    static struct proc_kernel some;
    struct proc_kernel_growth growth;

    (void)state;
    memset(&some, 0, sizeof some);
    add_slab(&some, "TCP", 10, 2000);
    assert_false(proc_kernel_between(&growth, &none, &some, 10));
    assert_false(proc_kernel_between(&growth, &some, &some, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listener_is_found_by_its_port),
        cmocka_unit_test(pid_file_is_read),
        cmocka_unit_test(cpu_of_this_process_grows),
        cmocka_unit_test(dead_process_has_no_cpu),
        cmocka_unit_test(restarted_process_isnt_compared),
        cmocka_unit_test(threads_are_compared_by_name),
        cmocka_unit_test(own_anonymous_memory_is_seen),
        cmocka_unit_test(clients_end_is_taken_away),
        cmocka_unit_test(kernel_that_isnt_seen_isnt_guessed),
    };

    return cmocka_run_group_tests_name("proc", tests, NULL, NULL);
}

/*
 * What this machine's io_uring can do, tried by use: version numbers lie (backports, seccomp).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/error.h"
#include "core/io/clock.h"
#include "core/io/ring.h"
#include "core/io/ring_ops.h"

#define PROBE_TAG        ring_tag(1, 0, 0)
#define PROBE_TIMEOUT_NS (5 * CLOCK_NS_PER_S)

bool ring_kernel_supported(const char *release)
{
    char *end;
    const unsigned long major = strtoul(release, &end, 10);

    if (end == release || *end != '.') {
        return true; /* unknown: let the trial decide */
    }
    return major > 6 || (major == 6 && strtoul(end + 1, NULL, 10) >= 1);
}

static void explain_forbidden(const struct ring_refusal *refusal, struct hf_error *error)
{
    switch (refusal->io_uring_disabled) {
    case 1:
        hf_error_set(error, EX_UNAVAILABLE, 0,
                     "io_uring is forbidden: the setting kernel.io_uring_disabled = 1 leaves it to "
                     "the group kernel.io_uring_group and to CAP_SYS_ADMIN. Put the server's user "
                     "into that group, or: sysctl -w kernel.io_uring_disabled=0");
        return;
    case 2:
        hf_error_set(error, EX_UNAVAILABLE, 0,
                     "io_uring is forbidden: the setting kernel.io_uring_disabled = 2 denies it to "
                     "all processes. Remedy: sysctl -w kernel.io_uring_disabled=0");
        return;
    default:
        hf_error_set(error, EX_UNAVAILABLE, 0,
                     "io_uring is forbidden by a seccomp profile (kernel.io_uring_disabled isn't "
                     "the reason): those of Docker 25 and newer and of containerd deny it. Allow "
                     "io_uring_setup, io_uring_enter and io_uring_register: docker run "
                     "--security-opt seccomp=FILE; Kubernetes: securityContext.seccompProfile; "
                     "systemd: SystemCallFilter=@io-event");
        return;
    }
}

void ring_explain(const struct ring_refusal *refusal, struct hf_error *error)
{
    switch (refusal->errno_value) {
    case EPERM:
    case EACCES:
        explain_forbidden(refusal, error);
        break;
    case ENOSYS:
        hf_error_set(error, EX_UNAVAILABLE, 0,
                     "io_uring is absent: kernel %s was built without CONFIG_IO_URING, or a "
                     "sandbox (gVisor, a seccomp profile) hides it. Linux 6.1 or newer is needed, "
                     "with io_uring",
                     refusal->kernel_release);
        break;
    case EINVAL:
        hf_error_set(error, EX_UNAVAILABLE, 0,
                     "io_uring of kernel %s is too old: Linux 6.1 or newer is needed",
                     refusal->kernel_release);
        break;
    case ENOMEM:
        if (refusal->memlock_bytes_max != UINT64_MAX) {
            hf_error_set(error, EX_OSERR, ENOMEM,
                         "io_uring: the kernel can't lock memory for a ring: RLIMIT_MEMLOCK is "
                         "%llu bytes. Raise it (ulimit -l unlimited; systemd: "
                         "LimitMEMLOCK=infinity; docker run --ulimit memlock=-1), or give the "
                         "process CAP_IPC_LOCK",
                         (unsigned long long)refusal->memlock_bytes_max);
        } else {
            hf_error_set(error, EX_OSERR, ENOMEM,
                         "io_uring: no memory for a ring (RLIMIT_MEMLOCK is unlimited: the memory "
                         "limit of the machine or of the cgroup)");
        }
        break;
    default:
        hf_error_set(error, EX_OSERR, refusal->errno_value, "io_uring: set up a ring");
        break;
    }
}

bool ring_feature_turn_off(struct ring_features *features, const char *name)
{
#define RING_FEATURE_OFF(field, text)                                                              \
    if (strcmp(name, #field) == 0) {                                                               \
        features->field = false;                                                                   \
        return true;                                                                               \
    }
    RING_FEATURES(RING_FEATURE_OFF)
#undef RING_FEATURE_OFF
    return false;
}

/* Opens, enables and uses a small ring once. */
static bool probe_open(struct ring *ring, bool no_sqarray, struct hf_error *error)
{
    const struct ring_config config = {
        .sq_entries = 4,
        .cq_entries = 8,
        .files = 4,
        .features = { .no_sqarray = no_sqarray, .cmd_sock = true },
    };
    return ring_open(ring, &config, error) && ring_enable(ring, error);
}

static int probe_result(struct ring *ring)
{
    struct ring_event event;

    ring_wait(ring, PROBE_TIMEOUT_NS);
    return ring_take(ring, &event) ? event.result : -ETIME;
}

/* Reads an option rather than setting one; both came with the same release. */
static bool probe_cmd_sock(struct ring *ring)
{
    int value = 0;
    bool found = false;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && ring_put_file(ring, fd, 0) == 0) {
        struct io_uring_sqe *sqe = ring_sqe(ring);
        io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_SETSOCKOPT, 0, SOL_SOCKET, SO_KEEPALIVE, &value,
                               sizeof value);
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
        io_uring_sqe_set_data64(sqe, PROBE_TAG);
        found = probe_result(ring) == 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return found;
}

bool ring_probe(struct ring_features *features, struct hf_error *error)
{
    struct utsname name = { 0 };
    struct ring ring;

    *features = (struct ring_features){ 0 };
    (void)uname(&name);
    if (!ring_kernel_supported(name.release)) {
        const struct ring_refusal refusal = {
            .errno_value = EINVAL,
            .kernel_release = name.release,
        };
        ring_explain(&refusal, error);
        return false;
    }
    if (probe_open(&ring, true, error)) {
        features->no_sqarray = true;
    } else {
        ring_close(&ring);
        if (!probe_open(&ring, false, error)) {
            ring_close(&ring);
            return false;
        }
    }

    /* io_uring_enter may be denied though io_uring_setup isn't. */
    struct io_uring_sqe *sqe = ring_sqe(&ring);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, PROBE_TAG);
    const int result = io_uring_submit_and_get_events(&ring.uring_);
    if (result < 0) {
        const struct ring_refusal refusal = {
            .errno_value = -result,
            .io_uring_disabled = -1,
            .memlock_bytes_max = UINT64_MAX,
            .kernel_release = name.release,
        };
        ring_explain(&refusal, error);
        ring_close(&ring);
        return false;
    }
    struct ring_event event;
    HF_ASSERT(ring_take(&ring, &event) && event.result == 0);

    features->cmd_sock = probe_cmd_sock(&ring);
    ring_close(&ring);
    return true;
}

#include "tests/power/record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/base/check.h"

/*
 * All system calls here are made by syscall(): the C library's functions of those names are
 * record_calls.c's, in this program.
 */

_Thread_local bool record_explicit;

static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    int log; /* -1: nothing is recorded */
    char folder[PATH_MAX];
    size_t folder_length;
    uint64_t next_id;
    enum record_call fault_call;
    char fault_name[64]; /* empty: none */
    uint64_t fault_at;
    bool fault_stays;
    int fault_errno;
    uint64_t fault_seen;
} recorder = { .once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .log = -1 };

static void die(const char *what)
{
    static const char text[] = "recorder: the log can't be written\n";

    (void)what;
    (void)syscall(SYS_write, STDERR_FILENO, text, sizeof text - 1);
    abort();
}

static void read_fault(void)
{
    static const char *const names[] = { "write", "sync", "read", "make", "rename", "journal" };
    const char *setting = getenv("HF_FAULT");
    char copy[128];
    char *rest = copy;

    if (setting == NULL) {
        return;
    }
    (void)snprintf(copy, sizeof copy, "%s", setting);

    const char *call = strsep(&rest, ",");
    const char *name = strsep(&rest, ",");
    const char *at = strsep(&rest, ",");
    char *end = NULL;

    HF_ASSERT(rest != NULL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(call, names[i]) == 0) {
            recorder.fault_call = (enum record_call)i;
        }
    }
    recorder.fault_at = strtoull(at, &end, 10);
    recorder.fault_stays = *end == '+';
    recorder.fault_errno = (int)strtol(rest, NULL, 10);
    (void)snprintf(recorder.fault_name, sizeof recorder.fault_name, "%s", name);
}

static void put_start(void)
{
    struct stat status;
    struct op op = { .kind = OP_START, .payload_bytes = recorder.folder_length };

    if (stat(recorder.folder, &status) != 0) {
        die("stat");
    }
    op.file = status.st_ino;
    op.id = (uint64_t)getpid();
    record_put(&op, recorder.folder);
}

static void open_once(void)
{
    const char *log = getenv("HF_RECORD_LOG");
    const char *folder = getenv("HF_RECORD_DIR");

    read_fault();
    if (folder != NULL && realpath(folder, recorder.folder) != NULL) {
        recorder.folder_length = strlen(recorder.folder);
    }
    if (log == NULL || recorder.folder_length == 0) {
        return;
    }
    recorder.log =
        (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (recorder.log < 0) {
        die("open");
    }
    recorder.next_id = (uint64_t)getpid() << 32;
    put_start();
}

static void ensure_open(void)
{
    (void)pthread_once(&recorder.once, open_once);
}

void record_lock(void)
{
    ensure_open();
    (void)pthread_mutex_lock(&recorder.lock);
}

void record_unlock(void)
{
    (void)pthread_mutex_unlock(&recorder.lock);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void record_put(struct op *op, const void *payload)
{
    union {
        const void *in;
        void *out;
    } bytes = { .in = payload };
    const struct iovec parts[2] = { { op, sizeof *op }, { bytes.out, op->payload_bytes } };

    if (recorder.log < 0) {
        return;
    }
    op->magic = OP_MAGIC;
    op->at_ns = now_ns();
    if (syscall(SYS_writev, recorder.log, parts, op->payload_bytes > 0 ? 2 : 1) !=
        (long)(sizeof *op + op->payload_bytes)) {
        die("writev");
    }
}

static bool all_zeros(const uint8_t *bytes, size_t byte_count)
{
    return byte_count > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, byte_count - 1) == 0;
}

uint64_t record_begin(enum op_kind kind, uint16_t flags, uint64_t file, uint64_t offset,
                      const void *bytes, size_t byte_count)
{
    struct op op = {
        .kind = (uint16_t)kind,
        .flags = flags,
        .file = file,
        .offset = offset,
        .byte_count = byte_count,
        .payload_bytes = byte_count,
    };

    if (kind == OP_WRITE && all_zeros(bytes, byte_count)) {
        op.flags |= OP_ZEROS;
        op.payload_bytes = 0;
    }
    record_lock();
    op.id = recorder.next_id++;
    record_put(&op, bytes);
    record_unlock();
    return op.id;
}

void record_end(enum op_kind kind, uint16_t flags, uint64_t id, uint64_t file, uint64_t byte_count)
{
    struct op op = {
        .kind = (uint16_t)kind, .flags = flags, .id = id, .file = file, .byte_count = byte_count
    };

    record_lock();
    record_put(&op, NULL);
    record_unlock();
}

/* ---- Whose ---- */

static bool path_of(int fd, char path[PATH_MAX])
{
    char link[64];
    long length;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length <= 0) {
        return false;
    }
    path[length] = '\0';
    return true;
}

static bool is_inside(const char *path)
{
    return recorder.folder_length > 0 &&
           strncmp(path, recorder.folder, recorder.folder_length) == 0 &&
           (path[recorder.folder_length] == '/' || path[recorder.folder_length] == '\0');
}

bool record_is_ours(int fd, uint64_t *file)
{
    char path[PATH_MAX];
    struct stat status;
    const int errno_before = errno;

    ensure_open();
    const bool ours = recorder.folder_length > 0 && path_of(fd, path) && is_inside(path) &&
                      fstat(fd, &status) == 0;

    if (ours) {
        *file = status.st_ino;
    }
    errno = errno_before;
    return ours;
}

/* The folder in which the path's last name stands, without links; NULL: it isn't there. To be freed. */
static char *folder_of(int at, const char *path, int stem_length)
{
    char whole[PATH_MAX];
    int length = 0;

    if (path[0] != '/' && at == AT_FDCWD) {
        length = snprintf(whole, sizeof whole, "./");
    } else if (path[0] != '/') {
        if (!path_of(at, whole)) {
            return NULL;
        }
        length = (int)strlen(whole);
        whole[length++] = '/';
    }
    (void)snprintf(whole + length, sizeof whole - (size_t)length, "%.*s/", stem_length, path);
    return realpath(whole, NULL);
}

bool record_path_is_ours(int at, const char *path, uint64_t *folder, const char **name)
{
    const int errno_before = errno;
    const char *slash = strrchr(path, '/');
    bool ours = false;

    ensure_open();
    *name = slash == NULL ? path : slash + 1;
    if (recorder.folder_length > 0) {
        char *real = folder_of(at, path, slash == NULL ? 0 : (int)(slash - path));
        struct stat status;

        ours = real != NULL && is_inside(real) && stat(real, &status) == 0;
        if (ours) {
            *folder = status.st_ino;
        }
        free(real);
    }
    errno = errno_before;
    return ours;
}

int record_fault(enum record_call call, int fd, const char *path)
{
    char whole[PATH_MAX];
    int result = 0;

    ensure_open();
    if (recorder.fault_name[0] == '\0' || call != recorder.fault_call) {
        return 0;
    }
    if (path == NULL) {
        if (!path_of(fd, whole)) {
            return 0;
        }
        path = whole;
    }
    if (strstr(path, recorder.fault_name) == NULL) {
        return 0;
    }
    (void)pthread_mutex_lock(&recorder.lock);
    recorder.fault_seen++;
    if (recorder.fault_seen == recorder.fault_at ||
        (recorder.fault_stays && recorder.fault_seen > recorder.fault_at)) {
        result = recorder.fault_errno;
    }
    (void)pthread_mutex_unlock(&recorder.lock);
    return result;
}

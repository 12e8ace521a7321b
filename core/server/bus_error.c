#include "core/server/bus_error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/server/log.h"

#define LINE_BYTES 1024

/* Takes one line of /proc/self/maps: "FROM-TO MODE OFFSET DEVICE INODE   PATH". */
static const char *path_if_it_holds(char *line, uintptr_t address)
{
    char *end;
    const uintptr_t from = strtoull(line, &end, 16);
    const uintptr_t upto = *end == '-' ? strtoull(end + 1, NULL, 16) : 0;
    const char *path = strchr(line, '/');

    return address >= from && address < upto ? path : NULL;
}

/* The file that is mapped there; NULL: none. A line at a time, byte by byte: it happens once. */
static const char *find_file(uintptr_t address)
{
    static char line[LINE_BYTES]; /* of the thread that came first: see on_bus_error */
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    const char *path = NULL;
    size_t length = 0;
    char byte;

    while (path == NULL && read(fd, &byte, 1) == 1) {
        if (byte != '\n') {
            line[length] = byte;
            length += length < sizeof line - 1;
            continue;
        }
        line[length] = '\0';
        length = 0;
        path = path_if_it_holds(line, address);
    }
    (void)close(fd);
    return path;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    static _Atomic bool taken; /* one thread is enough: partners are threads that fault too */
    const struct sigaction as_ever = { .sa_handler = SIG_DFL };

    (void)context;
    if (atomic_exchange_explicit(&taken, true, memory_order_relaxed)) {
        for (;;) {
            (void)pause(); /* the first one ends the process */
        }
    }
    const char *path = find_file((uintptr_t)info->si_addr);

    if (path == NULL) {
        (void)sigaction(number, &as_ever, NULL);
        return; /* to the same instruction, which faults again */
    }
    log_fatal("failed",
              "reason=\"%s: a page can't be read; the disk failed, or the file was cut short: mend "
              "or replace the disk, then start again; what was accepted is replayed\"",
              path);
    _exit(EX_IOERR);
}

bool bus_error_watch(struct hf_error *error)
{
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };

    if (sigaction(SIGBUS, &action, NULL) != 0) {
        hf_error_set(error, EX_OSERR, errno, "signals");
        return false;
    }
    return true;
}

/*
 * Preloaded before a program: its wall clock is off by as many seconds as the file named by
 * HF_TEST_CLOCK says, a number of eight bytes that may change while the program runs. Other clocks
 * are as they were.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved_by_s;

__attribute__((constructor)) static void moved_clock_open(void)
{
    const char *path = getenv("HF_TEST_CLOCK");
    const int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);

    if (file >= 0) {
        void *map = mmap(NULL, sizeof *moved_by_s, PROT_READ, MAP_SHARED, file, 0);

        moved_by_s = map == MAP_FAILED ? NULL : map;
        (void)close(file);
    }
}

/* The loader may ask for the time before there is a file. */
static int64_t moved_by(void)
{
    return moved_by_s == NULL ? 0 : *moved_by_s;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const int result = (int)syscall(SYS_clock_gettime, clock, now);

    if (result == 0 && clock == CLOCK_REALTIME) {
        now->tv_sec += moved_by();
    }
    return result;
}

time_t time(time_t *now)
{
    struct timespec moved;

    (void)clock_gettime(CLOCK_REALTIME, &moved);
    if (now != NULL) {
        *now = moved.tv_sec;
    }
    return moved.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec moved;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &moved);
    now->tv_sec = moved.tv_sec;
    now->tv_usec = moved.tv_nsec / 1000;
    return 0;
}

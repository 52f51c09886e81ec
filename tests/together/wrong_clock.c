/* A wrong wall clock for one process, by LD_PRELOAD: the file that WRONG_CLOCK names holds two 64-bit numbers, how many nanoseconds to add to the
   real time, and whether adjtimex(2) says that a daemon disciplines the clock. The test changes them while the process runs. Monotone clocks stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *told(void) {
    static volatile int64_t *shared;
    if (!shared) {
        const char *name = getenv("WRONG_CLOCK");
        int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *at = fd < 0 ? MAP_FAILED : mmap(0, 16, PROT_READ, MAP_SHARED, fd, 0);
        static int64_t right[2];
        if (fd >= 0) close(fd);
        shared = at == MAP_FAILED ? right : at;
    }
    return shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t all = now->tv_sec * 1000000000LL + now->tv_nsec + told()[0];
        now->tv_sec = all / 1000000000LL;
        now->tv_nsec = all % 1000000000LL;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state) {
    int said = syscall(SYS_adjtimex, state);
    if (said >= 0) state->status = told()[1] ? state->status & ~STA_UNSYNC : state->status | STA_UNSYNC;
    return said;
}

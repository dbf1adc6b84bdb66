/* Moves the clocks of one process while it runs. tests/support/moved_clocks.py builds it and loads it with LD_PRELOAD.

   CLOCKS_FILE holds three numbers that another process may change at any time: the seconds added to the wall clock, the seconds added
   to the clocks that only go forward, and whether the wall clock counts as synchronised. CLOCKS_BOOT_ID is read in place of the kernel's
   boot_id. A wait until a moment ends when so much real time has passed as was left when it began. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct clocks { volatile double wall_s, forward_s, synchronised; };
static struct clocks none, *clocks = &none;
static const char BOOT_ID[] = "/proc/sys/kernel/random/boot_id";

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_gettime = REAL(clock_gettime);
    int fd = open(getenv("CLOCKS_FILE"), O_RDONLY);
    if (fd < 0) abort();
    void *shared = mmap(NULL, sizeof *clocks, PROT_READ, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) abort();
    clocks = shared;
    close(fd);
}

static double moved_s(clockid_t which) {
    switch (which) {
    case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE: return clocks->wall_s;
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_COARSE: case CLOCK_MONOTONIC_RAW: case CLOCK_BOOTTIME: return clocks->forward_s;
    default: return 0; /* the time of a thread or a process */
    }
}

static struct timespec add(struct timespec at, double seconds) {
    long long ns = at.tv_sec * 1000000000LL + at.tv_nsec + (long long)(seconds * 1e9);
    return (struct timespec){ns / 1000000000, ns % 1000000000};
}

int clock_gettime(clockid_t which, struct timespec *at) {
    if (!real_gettime) real_gettime = REAL(clock_gettime); /* called by another library's constructor */
    int failed = real_gettime(which, at);
    if (!failed) *at = add(*at, moved_s(which));
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state) {
    memset(state, 0, sizeof *state);
    return clocks->synchronised ? TIME_OK : TIME_ERROR;
}

/* The kernel waits by its own clocks. */
int sem_clockwait(sem_t *s, clockid_t which, const struct timespec *until) {
    struct timespec real = add(*until, -moved_s(which));
    return REAL(sem_clockwait)(s, which, &real);
}

int sem_timedwait(sem_t *s, const struct timespec *until) {
    struct timespec real = add(*until, -moved_s(CLOCK_REALTIME));
    return REAL(sem_timedwait)(s, &real);
}

int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t which, const struct timespec *until) {
    struct timespec real = add(*until, -moved_s(which));
    return REAL(pthread_cond_clockwait)(c, m, which, &real);
}

int clock_nanosleep(clockid_t which, int flags, const struct timespec *wanted, struct timespec *left) {
    struct timespec real = flags & TIMER_ABSTIME ? add(*wanted, -moved_s(which)) : *wanted;
    return REAL(clock_nanosleep)(which, flags, &real, left);
}

static const char *instead(const char *path) { return strcmp(path, BOOT_ID) ? path : getenv("CLOCKS_BOOT_ID"); }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t m = va_arg(more, int);
    va_end(more);
    return REAL(open)(instead(path), flags, m);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t m = va_arg(more, int);
    va_end(more);
    return REAL(open64)(instead(path), flags, m);
}

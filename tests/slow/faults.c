/* Ends the process, or fills the disk, at a chosen call that changes a file in one folder. tests/slow/fault_runs.py builds it, loads
   it with LD_PRELOAD and arms it in each child. FAULT_FOLDER is the folder.

   fault_arm(mode, at): mode 'k' kills the process before its call number `at` (from 1); 'f' lets this and every later call that
   needs space fail with ENOSPC; 'c' only counts. fault_count() is the number of calls so far. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int mode = 'c';
static long at = 0, count = 0;

void fault_arm(int new_mode, long new_at) { mode = new_mode, at = new_at, count = 0; }
long fault_count(void) { return count; }

static int inside(const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    size_t n = folder ? strlen(folder) : 0;
    return n && !strncmp(path, folder, n) && path[n] == '/';
}

static int is_ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return inside(path);
}

/* One more call; returns 1 if it must fail because the disk is full. */
static int fails(int needs_space) {
    count++;
    if (mode == 'k' && count >= at) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    if (mode == 'f' && count >= at && needs_space) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t n, off_t where) { return is_ours(fd) && fails(1) ? -1 : REAL(pwrite)(fd, data, n, where); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t where) { return is_ours(fd) && fails(1) ? -1 : REAL(pwrite64)(fd, data, n, where); }
ssize_t write(int fd, const void *data, size_t n) { return is_ours(fd) && fails(1) ? -1 : REAL(write)(fd, data, n); }
int ftruncate(int fd, off_t size) { return is_ours(fd) && fails(0) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return is_ours(fd) && fails(0) ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return is_ours(fd) && fails(0) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return is_ours(fd) && fails(0) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *old, const char *new) { return inside(new) && fails(0) ? -1 : REAL(rename)(old, new); }
int unlink(const char *path) { return inside(path) && fails(0) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return inside(path) && fails(0) ? -1 : REAL(rmdir)(path); }
int mkdir(const char *path, mode_t m) { return inside(path) && fails(1) ? -1 : REAL(mkdir)(path, m); }

static int is_new(const char *path, int flags) { return (flags & O_CREAT) && inside(path) && access(path, F_OK); }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t m = va_arg(more, int);
    va_end(more);
    return is_new(path, flags) && fails(1) ? -1 : REAL(open)(path, flags, m);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t m = va_arg(more, int);
    va_end(more);
    return is_new(path, flags) && fails(1) ? -1 : REAL(open64)(path, flags, m);
}

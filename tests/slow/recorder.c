/* Records, in order, every write, truncation and sync of the files in one folder, every rename there, and every sync of the folder
   itself (its name is "."). tests/slow/test_power_cut.py builds it and loads it with LD_PRELOAD. RECORD_FOLDER is the folder,
   RECORD_LOG the file that gets the records.

   A record: operation (w, t, s, or r with the new name as its data), length of the file's name (1 byte), the name, offset or size (8 bytes), length of the data
   (8 bytes), the data; in the machine's byte order. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int log_fd = -1;
static char folder[4096];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("RECORD_LOG"), *where = getenv("RECORD_FOLDER");
    if (path && where && realpath(where, folder))
        log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t length) {
    for (const char *at = data; length;) {
        ssize_t done = syscall(SYS_write, log_fd, at, length);
        if (done <= 0) abort();
        at += done;
        length -= done;
    }
}

static void append(char operation, const char *name, int64_t where, const void *data, int64_t length) {
    uint8_t size = strlen(name);
    pthread_mutex_lock(&lock);
    put(&operation, 1);
    put(&size, 1);
    put(name, size);
    put(&where, 8);
    put(&length, 8);
    put(data, length);
    pthread_mutex_unlock(&lock);
}

/* The name inside the folder, "." for the folder itself, NULL for anything else. */
static const char *inside(const char *path) {
    size_t prefix = strlen(folder);
    if (strncmp(path, folder, prefix)) return NULL;
    return path[prefix] == '/' ? path + prefix + 1 : path[prefix] ? NULL : ".";
}

static void record(char operation, int fd, int64_t where, const void *data, int64_t length) {
    char link[64], path[4096];
    if (log_fd < 0 || fd == log_fd) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n <= 0) return;
    path[n] = 0;
    const char *name = inside(path);
    if (name) append(operation, name, where, data, length);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t length, off_t where) {
    ssize_t done = REAL(pwrite)(fd, data, length, where);
    if (done > 0) record('w', fd, where, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t where) {
    ssize_t done = REAL(pwrite64)(fd, data, length, where);
    if (done > 0) record('w', fd, where, data, done);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    off_t where = lseek(fd, 0, SEEK_CUR);
    ssize_t done = REAL(write)(fd, data, length);
    if (done > 0 && where >= 0) record('w', fd, where, data, done);
    return done;
}

int ftruncate(int fd, off_t size) {
    int failed = REAL(ftruncate)(fd, size);
    if (!failed) record('t', fd, size, "", 0);
    return failed;
}

int ftruncate64(int fd, off64_t size) {
    int failed = REAL(ftruncate64)(fd, size);
    if (!failed) record('t', fd, size, "", 0);
    return failed;
}

int fsync(int fd) {
    int failed = REAL(fsync)(fd);
    if (!failed) record('s', fd, 0, "", 0);
    return failed;
}

int fdatasync(int fd) {
    int failed = REAL(fdatasync)(fd);
    if (!failed) record('s', fd, 0, "", 0);
    return failed;
}

int rename(const char *from, const char *to) {
    int failed = REAL(rename)(from, to);
    const char *old = inside(from), *new = inside(to);
    if (!failed && log_fd >= 0 && old && new) append('r', old, 0, new, strlen(new));
    return failed;
}

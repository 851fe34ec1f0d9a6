/* Loaded into the service before libc (LD_PRELOAD): writing fails below FAULTS_FOLDER, and the clock is wrong, as the file
 * FAULTS_CONTROL says at this moment. 64-bit Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4 };

struct control {
    int64_t clock_offset; /* seconds */
    int32_t error;        /* an errno; 0: nothing fails */
    int32_t calls;        /* which calls fail */
};

static volatile struct control *control;
static const char *folder;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULTS_CONTROL");
    folder = getenv("FAULTS_FOLDER");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) {
        fputs("shim: FAULTS_CONTROL cannot be mapped\n", stderr);
        abort();
    }
    control = map;
}

static int fails_at(int call, const char *path) {
    if (!control || !control->error || !(control->calls & call) || !folder || strncmp(path, folder, strlen(folder)) != 0) {
        return 0;
    }
    errno = control->error;
    return 1;
}

static int fails(int call, int file) {
    char link[40], path[PATH_MAX];
    if (!control || !control->error) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return fails_at(call, path);
}

ssize_t write(int file, const void *bytes, size_t count) {
    return fails(WRITE, file) ? -1 : syscall(SYS_write, file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return fails(WRITE, file) ? -1 : syscall(SYS_writev, file, parts, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    return fails(WRITE, file) ? -1 : syscall(SYS_pwrite64, file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    return pwrite64(file, bytes, count, offset);
}

int fsync(int file) {
    return fails(SYNC, file) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    return fails(SYNC, file) ? -1 : (int)syscall(SYS_fdatasync, file);
}

int rename(const char *from, const char *to) {
    return fails_at(RENAME, to) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int status = (int)syscall(SYS_clock_gettime, clock, time);
    if (!status && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        time->tv_sec += control->clock_offset;
    }
    return status;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return status;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) {
        *result = now.tv_sec;
    }
    return now.tv_sec;
}

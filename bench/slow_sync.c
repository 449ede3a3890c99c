/* A disk whose commits take SLOW_SYNC_MS longer: preloaded by `bench/compare --slow-commits`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>

static void wait_for_disk(void) {
    const char *wanted = getenv("SLOW_SYNC_MS");
    long wait = (wanted ? atol(wanted) : 5) * 1000000L;
    struct timespec time = {wait / 1000000000L, wait % 1000000000L};
    nanosleep(&time, NULL);
}

static int slowly(const char *name, int file) {
    int (*original)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    wait_for_disk();
    return original(file);
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }

/* A write to a file that was opened with O_DSYNC is a commit too. */
ssize_t pwritev64v2(int file, const struct iovec *parts, int count, off64_t at, int flags) {
    ssize_t (*original)(int, const struct iovec *, int, off64_t, int) =
        (ssize_t(*)(int, const struct iovec *, int, off64_t, int))dlsym(RTLD_NEXT, "pwritev64v2");
    if (fcntl(file, F_GETFL) & O_DSYNC)
        wait_for_disk();
    return original(file, parts, count, at, flags);
}

/* A disk whose commits take SLOW_SYNC_MS longer: preloaded by `bench/compare --slow-commits`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slowly(const char *name, int file) {
    const char *wanted = getenv("SLOW_SYNC_MS");
    long wait = (wanted ? atol(wanted) : 5) * 1000000L;
    struct timespec time = {wait / 1000000000L, wait % 1000000000L};
    int (*original)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    nanosleep(&time, NULL);
    return original(file);
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }

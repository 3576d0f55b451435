/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing two copies of a machine of 4 GiB of which an eighth is data, a MiB in every eight, the rest holes.
 * Usage: differ LIBRARY SECONDS. Prints: pair "diff", that over memcmp() of the data of both.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <dlfcn.h>
#include <sys/mman.h>

#define SIZE (4096 * MIB)
#define STEP (8 * MIB)
#define MOST_ROUNDS 1000

static __typeof__(&microvmi_open) open_machine;
static __typeof__(&microvmi_diff) differ;

struct copy {
    const uint8_t *bytes;
    void *vm;
};

static struct copy make(void)
{
    static uint8_t piece[MIB];
    int fd = memfd_create("copy", MFD_CLOEXEC);
    const char *error = NULL;
    char path[64];
    struct copy copy;
    uint64_t at, i;

    CHECK(fd >= 0 && ftruncate(fd, (off_t)SIZE) == 0);
    for (at = 0; at < SIZE; at += STEP) {
        for (i = 0; i < MIB; i += 8)
            memcpy(piece + i, &(uint64_t){(at + i) * 0x9e3779b97f4a7c15u + 1}, 8);
        CHECK(pwrite(fd, piece, MIB, (off_t)at) == (ssize_t)MIB);
    }
    copy.bytes = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    copy.vm = open_machine(path, &error);
    CHECK_SAYS(copy.bytes != MAP_FAILED && copy.vm != NULL, "%s", error);
    return copy;
}

static double compare(const struct copy *copies)
{
    struct microvmi_memory_range run;
    uint64_t begin = now_ns(), next = 0;
    size_t count;

    do {
        CHECK(differ(copies[0].vm, copies[1].vm, &next, &run, 1, &count) && count == 0);
    } while (next != 0);
    return (double)(now_ns() - begin);
}

static double compare_bare(const struct copy *copies)
{
    uint64_t begin = now_ns(), at;

    for (at = 0; at < SIZE; at += STEP)
        CHECK(memcmp(copies[0].bytes + at, copies[1].bytes + at, MIB) == 0);
    return (double)(now_ns() - begin);
}

int main(int argc, char **argv)
{
    static double ours[MOST_ROUNDS], partner[MOST_ROUNDS];
    struct copy copies[2];
    size_t rounds = 0;
    uint64_t stop;
    void *library;

    CHECK(argc == 3);
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK_SAYS(library != NULL, "%s", dlerror());
    *(void **)&open_machine = dlsym(library, "microvmi_open");
    *(void **)&differ = dlsym(library, "microvmi_diff");
    CHECK(open_machine != NULL && differ != NULL);
    copies[0] = make();
    copies[1] = make();
    (void)compare(copies); /* now all pages are mapped */
    (void)compare_bare(copies);
    stop = now_ns() + (uint64_t)(atof(argv[2]) * 1e9);
    for (; rounds < 3 || (now_ns() < stop && rounds < MOST_ROUNDS); rounds++) {
        ours[rounds] = compare(copies);
        partner[rounds] = compare_bare(copies);
    }
    print_pair("diff", ours, partner, rounds);
    return 0;
}

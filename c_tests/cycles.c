/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cycles URI COUNT: open, use and destroy a machine COUNT times, with failures in between: no descriptor and no memory
 * is left behind.
 */
#include <dirent.h>

#include "api.h"

#define WARM_UP 50
#define ALLOWED_GROWTH (2L << 20) /* bytes; 1,000 leaks of one frame are 4 MiB */

static int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

static long resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;

    CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &resident) == 2);
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static void cycle(const char *uri)
{
    uint8_t buffer[PAGE_SIZE];
    struct microvmi_memory_range ranges[4];
    const char *error = NULL;
    uint64_t done;
    size_t count;
    void *vm = open_or_fail(uri);

    CHECK(microvmi_read_physical(vm, 0, buffer, sizeof(buffer), &done) && done == sizeof(buffer));
    CHECK(microvmi_read(vm, buffer, sizeof(buffer), &done) && microvmi_padded_read(vm, buffer, 100, &done));
    CHECK(!microvmi_read_physical(vm, UINT64_MAX, buffer, 1, &done));
    CHECK(microvmi_get_memory_map(vm, ranges, 4, &count) && count >= 1);
    microvmi_destroy(vm);
    CHECK(microvmi_open("vmi://fake/?nonsense=1", &error) == NULL && error != NULL);
    rs_cstring_free((char *)error);
}

/* What a process takes in large pieces it takes once: a leak takes as much again. */
static bool leaks(const char *uri, int count)
{
    long resident = resident_bytes();
    int i;

    for (i = 0; i < count; i++)
        cycle(uri);
    return resident_bytes() - resident >= ALLOWED_GROWTH;
}

int main(int argc, char **argv)
{
    int count, i, descriptors;

    CHECK_SAYS(argc == 3, "usage: cycles URI COUNT");
    count = atoi(argv[2]);
    for (i = 0; i < WARM_UP; i++)
        cycle(argv[1]);
    descriptors = open_descriptors();
    CHECK_SAYS(!leaks(argv[1], count) || !leaks(argv[1], count), "%ld bytes of memory more for %d cycles, twice",
               ALLOWED_GROWTH, count);
    CHECK_SAYS(open_descriptors() == descriptors, "%d descriptors, then %d", descriptors, open_descriptors());
    return 0;
}

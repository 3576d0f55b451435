/* SPDX-License-Identifier: Apache-2.0 */
/* A bulk read maps many frames at a time: at least five times as fast as one map a frame. */
#include "domain.h"

#include <sys/mman.h>

#define ROUNDS 3
#define FRAMES (PATTERN_SIZE / PAGE)
#define TIMES 5

/* Of libxenforeignmemory, which is not there to be compiled against. */
typedef void *(*open_function)(void *logger, unsigned flags);
typedef void *(*map_function)(void *handle, uint32_t domain, int protection, size_t pages, const unsigned long *frames,
                              int *errors);
typedef int (*unmap_function)(void *handle, void *address, size_t pages);

static uint8_t ours[PATTERN_SIZE], theirs[PATTERN_SIZE];

static uint32_t domain_of_tiny(void)
{
    FILE *told = popen("xl domid tiny", "r");
    unsigned domain = 0;

    CHECK(told != NULL && fscanf(told, "%u", &domain) == 1);
    pclose(told);
    return domain;
}

static double one_map_a_frame(void *xen, uint32_t domain)
{
    open_function open_handle = (open_function)dlsym(xen, "xenforeignmemory_open");
    map_function map = (map_function)dlsym(xen, "xenforeignmemory_map");
    unmap_function unmap = (unmap_function)dlsym(xen, "xenforeignmemory_unmap");
    void *handle = open_handle(NULL, 0);
    double start = now();
    size_t i;

    CHECK(handle != NULL);
    for (i = 0; i < FRAMES; i++) {
        unsigned long frame = PATTERN_ADDRESS / PAGE + i;
        int error = 0;
        void *page = map(handle, domain, PROT_READ, 1, &frame, &error);

        CHECK(page != NULL && error == 0);
        memcpy(theirs + i * PAGE, page, PAGE);
        unmap(handle, page, 1);
    }
    return now() - start;
}

/* Each time with a context of its own, which has no page yet. */
static double in_bulk(void)
{
    void *vm = open_domain(TINY);
    double start = now();

    WORKS(microvmi_read_physical(vm, PATTERN_ADDRESS, ours, PATTERN_SIZE, NULL));
    start = now() - start;
    microvmi_destroy(vm);
    return start;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

int main(void)
{
    void *xen = dlopen("libxenforeignmemory.so.1", RTLD_NOW), *vm = open_tiny();
    uint32_t domain = domain_of_tiny();
    double bulk = 1e9, single = 1e9;
    int i;

    CHECK_SAYS(xen != NULL, "%s", dlerror());
    memset(ours, 1, sizeof(ours));
    memset(theirs, 2, sizeof(theirs));
    WORKS(microvmi_pause(vm));
    for (i = 0; i < ROUNDS; i++) {
        bulk = least(bulk, in_bulk());
        single = least(single, one_map_a_frame(xen, domain));
    }
    CHECK(memcmp(ours, theirs, sizeof(ours)) == 0);
    printf("figure: %u frames: bulk %.1f us a frame, one map a frame %.1f us, %.1f times\n", (unsigned)FRAMES,
           bulk / FRAMES * 1e6, single / FRAMES * 1e6, single / bulk);
    CHECK_SAYS(single >= TIMES * bulk, "a bulk read is not %d times as fast as one map a frame", TIMES);
    microvmi_destroy(vm);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A core that Xen's own library writes of the paused guest is what the driver reads of it: pages and registers. */
#include "domain.h"

#include <errno.h>
#include <glob.h>
#include <stddef.h>
#include <unistd.h>

#define CORE "/tmp/tiny.core"
#define DUMP "vmi://dump/?path=" CORE
#define RANGES 64
#define PIECE (64 * PAGE)
#define SPECIAL_FRAMES 0xf0000ul
#define VIDEO 0xa0000u
#define VIDEO_END 0xc0000u

typedef void *(*map_function)(void *handle, uint32_t domain, int protection, size_t pages, const unsigned long *frames,
                              int *errors);
typedef void *(*open_function)(void *logger, void *builder_logger, unsigned flags);
typedef int (*dump_function)(void *handle, uint32_t domain, const char *file);

static uint8_t live_piece[PIECE], core_piece[PIECE];
static unsigned long end_of_ram;

/*
 * Takes the place of libxenforeignmemory's. Xen's library tries to map each of a million frames, which takes minutes
 * where the processor is emulated: those between main memory and the special pages are known to be none.
 */
void *xenforeignmemory_map(void *handle, uint32_t domain, int protection, size_t pages, const unsigned long *frames,
                           int *errors)
{
    static map_function map;

    if (map == NULL)
        map = (map_function)dlsym(dlopen("libxenforeignmemory.so.1", RTLD_NOW), "xenforeignmemory_map");
    if (pages == 1 && frames[0] >= end_of_ram && frames[0] < SPECIAL_FRAMES) {
        errno = ENOENT;
        return NULL;
    }
    return map(handle, domain, protection, pages, frames, errors);
}

static uint32_t domain_of_tiny(void)
{
    FILE *told = popen("xl domid tiny", "r");
    unsigned domain = 0;

    CHECK(told != NULL && fscanf(told, "%u", &domain) == 1);
    pclose(told);
    return domain;
}

/* What xl dump-core calls. */
static void write_core(void)
{
    glob_t found;
    void *library, *handle;
    double start = now();

    CHECK(glob("/usr/lib/*/libxenguest.so.4.*", 0, NULL, &found) == 0);
    library = dlopen(found.gl_pathv[0], RTLD_NOW);
    CHECK_SAYS(library != NULL, "%s", dlerror());
    handle = ((open_function)dlsym(library, "xc_interface_open"))(NULL, NULL, 0);
    CHECK(handle != NULL);
    CHECK(((dump_function)dlsym(library, "xc_domain_dumpcore"))(handle, domain_of_tiny(), CORE) == 0);
    printf("figure: core of a domain written by Xen in %.1f s\n", now() - start);
    globfree(&found);
}

static uint64_t check_range(void *vm, void *core, uint64_t start, uint64_t size)
{
    uint64_t done, length;

    for (done = 0; done < size; done += length) {
        length = size - done < PIECE ? size - done : PIECE;
        WORKS(microvmi_read_physical(vm, start + done, live_piece, length, NULL));
        WORKS(microvmi_read_physical(core, start + done, core_piece, length, NULL));
        CHECK_SAYS(memcmp(live_piece, core_piece, length) == 0, "memory from %#" PRIx64 " on", start + done);
    }
    return size;
}

/* All main memory is there but for what Xen takes for video memory. */
static void check_memory(void *vm, void *core)
{
    struct microvmi_memory_range ranges[RANGES];
    uint64_t size = 0, end, end_of_core;
    size_t count, i;

    WORKS(microvmi_get_max_physical_addr(vm, &end));
    WORKS(microvmi_get_max_physical_addr(core, &end_of_core));
    CHECK(end == end_of_core);
    WORKS(microvmi_get_memory_map(core, ranges, RANGES, &count));
    CHECK(count <= RANGES);
    for (i = 0; i < count; i++)
        size += check_range(vm, core, ranges[i].start, ranges[i].size);
    CHECK_SAYS(size == end - (VIDEO_END - VIDEO), "%#" PRIx64 " bytes of %#" PRIx64, size, end);
}

#define SAME(name) \
    CHECK_SAYS(a->name == b->name, #name " is %#" PRIx64 ", not %#" PRIx64, (uint64_t)b->name, (uint64_t)a->name)

static void check_registers(void *vm, void *core)
{
    struct Registers live, dumped;
    const struct X86Registers *a = &live.x86, *b = &dumped.x86;
    uint16_t vcpus;

    WORKS(microvmi_get_vcpu_count(core, &vcpus));
    CHECK(vcpus == 1);
    WORKS(microvmi_read_registers(vm, 0, &live));
    WORKS(microvmi_read_registers(core, 0, &dumped));
    CHECK(a->r15 == KNOWN_R15);
    CHECK(memcmp(a, b, offsetof(struct X86Registers, sysenter_cs)) == 0); /* rax to cr4 */
    SAME(rip);
    SAME(cs.selector);
    SAME(ss.selector);
    SAME(ds.selector);
    SAME(es.selector);
    SAME(fs.selector);
    SAME(gs.selector);
    SAME(fs.base);
    SAME(gs.base);
}

int main(void)
{
    void *vm = open_tiny(), *core;
    uint64_t end;

    WORKS(microvmi_pause(vm));
    WORKS(microvmi_get_max_physical_addr(vm, &end));
    end_of_ram = end / PAGE;
    write_core();
    core = open_domain(DUMP);
    check_memory(vm, core);
    check_registers(vm, core);
    microvmi_destroy(core);
    microvmi_destroy(vm);
    unlink(CORE);
    return 0;
}

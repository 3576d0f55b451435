/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver of frames cannot do without, called by C with nothing around it. */
#include "bench.h"

#include <dlfcn.h>
#include <unistd.h>

#define WAIT_MS 10000

static void *open_library(const char *path)
{
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);

    CHECK_SAYS(library != NULL, "%s", dlerror());
    return library;
}

/* A function of a library; ISO C knows no other way from a data pointer to one to code. */
#define LOOK_UP(function, library, symbol) \
    CHECK_SAYS((*(void **)&(function) = dlsym(library, symbol)) != NULL, "%s", dlerror())

void use_empty(struct subject *subject, const char *path)
{
    uint64_t done = 0;

    *subject = (struct subject){.name = "an empty call"};
    LOOK_UP(subject->read, open_library(path), "bench_empty");
    CHECK_SAYS(subject->read(NULL, 0, NULL, 0, &done), "the empty call into Python fails");
}

/* ------------------------------------------------------------------------------------------------ libkvmi -------- */

static int (*kvmi_read)(void *machine, unsigned long long address, void *buffer, size_t size);

static int arrive(void *machine, unsigned char (*uuid)[16], void *place)
{
    (void)uuid;
    __atomic_store_n((void **)place, machine, __ATOMIC_RELEASE);
    return 0;
}

/* libkvmi reads within a page. */
static bool read_kvmi(void *machine, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    for (*done = 0; *done < size;) {
        size_t part = PAGE_SIZE - (address + *done) % PAGE_SIZE;

        part = part < size - *done ? part : size - *done;
        if (kvmi_read(machine, address + *done, buffer + *done, part) != 0)
            return false;
        *done += part;
    }
    return true;
}

void use_kvmi(struct subject *subject, const char *path, const char *socket)
{
    void *(*listen_at)(const char *path, __typeof__(&arrive) accept, void *handshake, void *context);
    void *library = open_library(path), *machine = NULL;
    void **place = calloc(1, sizeof(*place)); /* never freed: the thread that listens has it */
    int waited;

    LOOK_UP(listen_at, library, "kvmi_init_unix_socket");
    LOOK_UP(kvmi_read, library, "kvmi_read_physical");
    CHECK_SAYS(place != NULL && listen_at(socket, arrive, NULL, place) != NULL, "cannot listen at %s", socket);
    for (waited = 0; machine == NULL && waited < WAIT_MS; waited++) {
        usleep(1000);
        machine = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }
    CHECK_SAYS(machine != NULL, "no machine connected to %s", socket);
    *subject = (struct subject){.name = "kvmi_read_physical", .context = machine, .read = read_kvmi};
}

/* ------------------------------------------------------------------------------------------------ libFDP --------- */

static bool (*fdp_read)(void *machine, uint8_t *buffer, uint32_t size, uint64_t address);

static bool read_fdp(void *machine, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    bool all = fdp_read(machine, buffer, (uint32_t)size, address);

    *done = all ? size : 0;
    return all;
}

void use_fdp(struct subject *subject, const char *path, const char *machine)
{
    void *(*open_machine)(const char *name);
    void *library = open_library(path), *handle;

    LOOK_UP(open_machine, library, "FDP_OpenSHM");
    LOOK_UP(fdp_read, library, "FDP_ReadPhysicalMemory");
    handle = open_machine(machine);
    CHECK_SAYS(handle != NULL, "libFDP does not open %s", machine);
    *subject = (struct subject){.name = "FDP_ReadPhysicalMemory", .context = handle, .read = read_fdp};
}

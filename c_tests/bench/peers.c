/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries that are loaded by path: ours, others with the same ABI, LeechCore. */
#include "bench.h"

#include <dlfcn.h>

static bool skip(const char *name, const char *reason)
{
    printf("skipped\t%s\t", name);
    for (; *reason != '\0'; reason++)
        putchar(*reason == '\n' || *reason == '\t' ? ' ' : *reason);
    putchar('\n');
    return false;
}

static void *load(const char *name, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        skip(name, dlerror());
    return library;
}

/* A function of a library; ISO C knows no other way from a data pointer to one to code. */
#define LOOK_UP(function, library, symbol) (*(void **)&(function) = dlsym(library, symbol))

static bool finish(struct subject *subject, const char *name, void *library, void *vm, const char *reason)
{
    if (vm == NULL)
        return skip(name, reason != NULL ? reason : "it does not open the guest and gives no reason");
    *subject = (struct subject){.name = name, .context = vm};
    LOOK_UP(subject->read, library, "microvmi_read_physical");
    LOOK_UP(subject->batch, library, "microvmi_read_physical_batch");
    LOOK_UP(subject->pause, library, "microvmi_pause");
    LOOK_UP(subject->resume, library, "microvmi_resume");
    return subject->read != NULL || skip(name, "no microvmi_read_physical in the library");
}

bool use_microvmi(struct subject *subject, const char *name, const char *path, const char *uri)
{
    __typeof__(&microvmi_open) open;
    const char *reason = NULL;
    void *library = load(name, path);

    if (library == NULL)
        return false;
    if (LOOK_UP(open, library, "microvmi_open") == NULL)
        return skip(name, dlerror());
    return finish(subject, name, library, open(uri, &reason), reason);
}

bool use_upstream(struct subject *subject, const char *name, const char *path, const char *vm_name)
{
    __typeof__(&microvmi_init) init;
    struct DriverInitParamsFFI params;
    const char *reason = NULL;
    void *library = load(name, path);

    if (library == NULL)
        return false;
    if (LOOK_UP(init, library, "microvmi_init") == NULL)
        return skip(name, dlerror());
    memset(&params, 0, sizeof(params));
    params.common.vm_name = (char *)vm_name;
    return finish(subject, name, library, init(NULL, &params, &reason), reason);
}

/* LeechCore's interface, as far as it is used here (leechcore.h, version 2). */
#define LC_CONFIG_VERSION 0xc0fd0002u
#define LC_MAX_PATH 260

struct lc_config {
    uint32_t version;
    uint32_t verbosity;
    char device[LC_MAX_PATH];
    char remote[LC_MAX_PATH];
    int (*print)(const char *format, ...);
    uint64_t max_address;
    int is_volatile, is_writable, is_remote, no_compression;
    char device_name[LC_MAX_PATH];
};

#define LC_SCATTER_VERSION 0xc0fe0002u

struct lc_scatter {
    uint32_t version;
    int done;
    uint64_t address;
    uint8_t *buffer;
    uint32_t size; /* within one page */
    uint32_t stack_top;
    uint64_t stack[12];
};

static int (*lc_read)(void *handle, uint64_t address, uint32_t size, uint8_t *buffer);
static void (*lc_read_scatter)(void *handle, uint32_t count, struct lc_scatter **pieces);

/* LcRead() takes whole pages only. */
static bool read_leechcore(void *context, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    struct lc_scatter piece = {LC_SCATTER_VERSION, 0, address, buffer, (uint32_t)size, 0, {0}}, *pieces = &piece;

    if (size % PAGE_SIZE == 0)
        piece.done = lc_read(context, address, (uint32_t)size, buffer);
    else
        lc_read_scatter(context, 1, &pieces);
    *done = piece.done ? size : 0;
    return piece.done != 0;
}

static bool read_leechcore_batch(void *context, struct microvmi_read_request *requests, size_t count)
{
    static struct lc_scatter pieces[SCATTERED];
    struct lc_scatter *pointers[SCATTERED];
    bool all = true;
    size_t i;

    for (i = 0; i < count; i++) {
        pieces[i].version = LC_SCATTER_VERSION;
        pieces[i].done = 0;
        pieces[i].address = requests[i].physical_address;
        pieces[i].buffer = requests[i].buffer;
        pieces[i].size = (uint32_t)requests[i].size;
        pointers[i] = &pieces[i];
    }
    lc_read_scatter(context, (uint32_t)count, pointers);
    for (i = 0; i < count; i++)
        all &= pieces[i].done != 0;
    return all;
}

bool use_leechcore(struct subject *subject, const char *path, const char *device)
{
    void *(*create)(struct lc_config *config);
    struct lc_config config = {.version = LC_CONFIG_VERSION};
    void *library = load("LeechCore", path), *handle;

    if (library == NULL)
        return false;
    if (LOOK_UP(create, library, "LcCreate") == NULL || LOOK_UP(lc_read, library, "LcRead") == NULL ||
        LOOK_UP(lc_read_scatter, library, "LcReadScatter") == NULL)
        return skip("LeechCore", dlerror());
    CHECK_SAYS(strlen(device) < sizeof(config.device), "the name of the device is too long: %s", device);
    strcpy(config.device, device);
    handle = create(&config);
    if (handle == NULL)
        return skip("LeechCore", "LcCreate() does not open the guest");
    *subject = (struct subject){.name = "LeechCore", .context = handle};
    subject->read = read_leechcore;
    subject->batch = read_leechcore_batch;
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin of nbdkit: the physical memory of a machine, as a disk that can be read.
 *
 *   nbdkit -U - ./nbdkit-microvmi-plugin.so uri=debian view=snapshot
 *
 * One context serves all clients. It is opened when nbdkit has made its last fork, as the library works in no child, and
 * before the first client comes, so that a machine that cannot be opened is an error of nbdkit's start.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <libmicrovmi.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#ifndef SEEK_DATA /* of Linux, as microvmi_padded_seek() takes them */
#define SEEK_DATA 3
#define SEEK_HOLE 4
#endif

/* A client that asks about everything is answered so many pieces at a time, and asks on from there. */
#define MOST_EXTENTS 65536

#define PAGE 4096

/* The parameters live as long as the process. */
static const char *uri;
static const char *view = "live";

static void *machine;
static uint64_t machine_size;

/* The reason of the last call of this thread, which failed. */
static int failed(void)
{
    nbdkit_error("%s", microvmi_last_error());
    nbdkit_set_error(EIO);
    return -1;
}

static int plugin_config(const char *key, const char *value)
{
    if (strcmp(key, "uri") == 0) {
        uri = value;
    } else if (strcmp(key, "view") == 0 &&
               (strcmp(value, "live") == 0 || strcmp(value, "snapshot") == 0 || strcmp(value, "pause") == 0)) {
        view = value;
    } else {
        nbdkit_error("%s=%s is no parameter of this plugin: uri=MACHINE, view=live, snapshot or pause", key, value);
        return -1;
    }
    return 0;
}

static int plugin_config_complete(void)
{
    if (uri == NULL)
        nbdkit_error("which machine? uri=NAME");
    return uri == NULL ? -1 : 0;
}

/* Called while a snapshot is taken: false ends it, as nbdkit is to end. */
static bool goes_on(void *unused, uint64_t done, uint64_t total)
{
    (void)unused, (void)done, (void)total;
    return nbdkit_nanosleep(0, 1) == 0;
}

/* Put a snapshot in the place of the machine. */
static bool take_snapshot(void)
{
    struct microvmi_snapshot_options options = MICROVMI_SNAPSHOT_OPTIONS_INIT;
    void *snapshot;

    options.progress = goes_on;
    snapshot = microvmi_snapshot(machine, &options, NULL);
    if (snapshot == NULL)
        return false;
    microvmi_destroy(machine);
    machine = snapshot;
    return true;
}

static bool take_view(void)
{
    if (strcmp(view, "snapshot") == 0)
        return take_snapshot();
    return strcmp(view, "pause") != 0 || microvmi_pause(machine);
}

static int plugin_after_fork(void)
{
    machine = microvmi_open(uri, NULL);
    if (machine == NULL || !take_view() || !microvmi_get_max_physical_addr(machine, &machine_size))
        return failed();
    return 0;
}

static void plugin_cleanup(void)
{
    microvmi_destroy(machine);
    machine = NULL;
}

static void *plugin_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle)
{
    (void)handle;
    return (int64_t)machine_size;
}

/* Nothing is kept for a client that another one could change. */
static int plugin_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int plugin_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    return microvmi_read_physical_padded(machine, offset, buffer, count, NULL) ? 0 : failed();
}

/* Where from an offset on something is (SEEK_DATA), or nothing. The cursor that this moves is nobody's. */
static bool find(uint64_t offset, int whence, uint64_t *found)
{
    return microvmi_padded_seek(machine, (int64_t)offset, whence, found);
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
    uint64_t end = offset + count, data, hole, told;

    (void)handle;
    for (told = 0; offset < end && told < MOST_EXTENTS; told++, offset = hole) {
        if (!find(offset, SEEK_DATA, &data))
            return failed();
        if (data > offset &&
            nbdkit_add_extent(extents, offset, data - offset, NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) != 0)
            return -1;
        if (data >= end || (data > offset && (flags & NBDKIT_FLAG_REQ_ONE) != 0))
            break;
        if (!find(data, SEEK_HOLE, &hole))
            return failed();
        if (hole <= data) /* it was given back in between */
            hole = (data / PAGE + 1) * PAGE;
        if (nbdkit_add_extent(extents, data, hole - data, 0) != 0)
            return -1;
        if ((flags & NBDKIT_FLAG_REQ_ONE) != 0)
            break;
    }
    return 0;
}

static void plugin_dump(void)
{
    printf("libmicrovmi_version=%s\n", microvmi_version());
}

static struct nbdkit_plugin plugin = {
    .name = "microvmi",
    .longname = "memory of virtual machines",
    .description = "The physical memory of a virtual machine that runs, or of a dump, read-only.",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "uri=MACHINE    a name, vmi://DRIVER/?key=value, or a path of a dump\n"
                   "view=VIEW      live (the default), snapshot, or pause",
    .magic_config_key = "uri",
    .dump_plugin = plugin_dump,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .can_multi_conn = plugin_can_multi_conn,
    .pread = plugin_pread,
    .extents = plugin_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)

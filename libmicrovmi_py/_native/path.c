/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small reads of virtual memory of a machine that runs, in another process: one system call brings the bytes and then every
 * entry of the walk that is remembered. If the entries are what they were, the bytes are what the tables led to between the
 * two. The entry of the page alone would not tell: a table may have been freed meanwhile, and be something else.
 */
#include "look.h"
#include "through.h"

#include <sys/uio.h>

static uint64_t mvi_root_of(const struct mvi_space *space, uint64_t address)
{
    return space->halves[address >> space->choosing_bit & 1].root;
}

static struct mvi_path *mvi_path_place(uint64_t address)
{
    return &mvi_thread.translations->paths[address >> PAGE_SHIFT & (MVI_PATHS - 1)];
}

/* Where a part of a region's process is; false if it is of another one, or none. */
static bool mvi_path_there(const struct mvi_table *table, const struct mvi_region *first, uint64_t address, size_t size,
                           uint64_t *there)
{
    const struct mvi_region *region = mvi_whole_in_process(table, address, size);

    if (region == NULL || region->pid != first->pid || region->pidfd != first->pidfd)
        return false;
    *there = region->offset + (address - region->start);
    return true;
}

/* Read by a path. False: it does not hold any more, or not all could be read. What is not good is nobody's. */
static bool mvi_path_take(const struct mvi_table *table, const struct mvi_space *space, const struct mvi_path *path,
                          uint64_t address, uint8_t *buffer, size_t size)
{
    struct {
        uint64_t entries[MVI_LEVELS];
        uint8_t bytes[PAGE_SIZE];
    } read;
    size_t entry_size = space->entry_size, whole = size + path->count * entry_size, index;
    struct iovec local[2] = {{read.bytes, size}, {read.entries, whole - size}}, remote[MVI_LEVELS + 1];
    uint64_t there;

    if (!mvi_path_there(table, path->region, path->page | (address & (PAGE_SIZE - 1)), size, &there))
        return false;
    remote[0] = (struct iovec){(void *)(uintptr_t)there, size};
    for (index = 0; index < path->count; index++)
        remote[index + 1] = (struct iovec){(void *)(uintptr_t)path->there[index], entry_size};
    if (process_vm_readv(path->region->pid, local, 2, remote, path->count + 1, 0) != (ssize_t)whole ||
        mvi_has_ended(path->region) || memcmp(read.entries, path->entry, whole - size) != 0)
        return false;
    if (size == 8) /* a constant size needs no call */
        memcpy(buffer, read.bytes, 8);
    else
        memcpy(buffer, read.bytes, size);
    return true;
}

/* Walk anew, and remember how, if all of it is in one process. */
static bool mvi_path_find(const struct mvi_table *table, const struct mvi_space *space, uint64_t key, uint64_t address,
                          uint8_t *buffer, size_t size)
{
    struct mvi_path path = {.region = mvi_whole_in_process(table, mvi_root_of(space, address), space->entry_size)};
    struct mvi_walk walk;
    uint64_t done;
    size_t index;

    if (path.region == NULL || mvi_walk_along(table, space, &walk, address, &path) != MICROVMI_OK)
        return false;
    path.page = walk.address & ~(uint64_t)(PAGE_SIZE - 1);
    path.tag = mvi_kept_tag(address, key);
    for (index = 0; index < path.count; index++) {
        memmove((uint8_t *)path.entry + index * space->entry_size, &path.entry[index], space->entry_size);
        if (!mvi_path_there(table, path.region, path.address[index], space->entry_size, &path.there[index]))
            path.tag = 0;
    }
    *mvi_path_place(address) = path;
    return mvi_table_read(table, false, walk.address, buffer, size, &done) == MICROVMI_OK;
}

bool mvi_path_read(const struct mvi_table *table, const struct mvi_space *space, uint64_t address, uint8_t *buffer,
                   size_t size)
{
    const struct mvi_path *path;
    uint64_t key;

    if (size == 0 || size > PAGE_SIZE - (address & (PAGE_SIZE - 1)) || space->off ||
        (key = mvi_walks_key(table, space)) == 0)
        return false;
    path = mvi_path_place(address);
    if (path->tag == mvi_kept_tag(address, key) && mvi_path_take(table, space, path, address, buffer, size))
        return true;
    return mvi_path_find(table, space, key, address, buffer, size);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small reads of virtual memory of a machine that runs, in another process: one system call brings the bytes and then every
 * entry of the walk that is remembered. If the entries are what they were, the bytes are what the tables led to between the
 * two. The entry of the page alone would not tell: a table may have been freed meanwhile, and be something else.
 */
#include "look.h"
#include "through.h"

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
                           struct iovec *there)
{
    const struct mvi_region *region = mvi_whole_in_process(table, address, size);

    if (region == NULL || region->pid != first->pid || region->pidfd != first->pidfd)
        return false;
    *there = (struct iovec){(void *)(uintptr_t)(region->offset + (address - region->start)), size};
    return true;
}

/* By words, without a call; what a last entry of 4 bytes leaves of its word is 0 in both. */
static bool mvi_path_holds(const struct mvi_path *path, const uint64_t *entries)
{
    uint64_t changed = 0;
    size_t index;

    for (index = 0; index <= path->last_word; index++)
        changed |= entries[index] ^ path->entry[index];
    return changed == 0;
}

/*
 * By the clock of kept pages, a quarter of the other one's price. Memory of a process that ended cannot be read by its
 * number; that number becomes another process's after all others were in use, which takes longer than that clock is late.
 */
static bool mvi_path_has_ended(const struct mvi_region *region)
{
    return region->pidfd >= 0 ? mvi_has_ended_by(region, CLOCK_MONOTONIC_COARSE) : mvi_has_ended(region);
}

/*
 * Read by a path. False: it does not hold any more, or not all could be read. What is not good is nobody's. The bytes come
 * to lie right before the entries, so that all is one piece here.
 */
static bool mvi_path_take(struct mvi_path *path, uint64_t address, uint8_t *buffer, size_t size)
{
    struct {
        uint8_t room[PAGE_SIZE];
        uint64_t entries[MVI_LEVELS];
    } read;
    uint8_t *bytes = read.room + PAGE_SIZE - size;
    struct iovec local = {bytes, size + path->size};

    read.entries[path->last_word] = 0;
    path->there[0] = (struct iovec){path->bytes + (address & (PAGE_SIZE - 1)), size};
    if (process_vm_readv(path->region->pid, &local, 1, path->there, path->count + 1, 0) != (ssize_t)local.iov_len ||
        mvi_path_has_ended(path->region) || !mvi_path_holds(path, read.entries))
        return false;
    if (size == 8) /* a constant size needs no call */
        memcpy(buffer, bytes, 8);
    else
        memcpy(buffer, bytes, size);
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
    path.tag = mvi_kept_tag(address, key);
    path.size = path.count * space->entry_size;
    path.last_word = (path.size - 1) / sizeof *path.entry;
    for (index = 0; index < path.count; index++) {
        memmove((uint8_t *)path.entry + index * space->entry_size, &path.entry[index], space->entry_size);
        if (!mvi_path_there(table, path.region, path.address[index], space->entry_size, &path.there[index + 1]))
            path.tag = 0;
    }
    if (!mvi_path_there(table, path.region, walk.address & ~(uint64_t)(PAGE_SIZE - 1), PAGE_SIZE, &path.there[0]))
        path.tag = 0;
    path.bytes = path.there[0].iov_base;
    *mvi_path_place(address) = path;
    return mvi_table_read(table, false, walk.address, buffer, size, &done) == MICROVMI_OK;
}

bool mvi_path_read(const struct mvi_table *table, const struct mvi_space *space, uint64_t address, uint8_t *buffer,
                   size_t size)
{
    struct mvi_path *path;
    uint64_t key;

    if (size == 0 || size > PAGE_SIZE - (address & (PAGE_SIZE - 1)) || space->off ||
        (key = mvi_walks_key(table, space)) == 0)
        return false;
    path = mvi_path_place(address);
    if (path->tag == mvi_kept_tag(address, key) && mvi_path_take(path, address, buffer, size))
        return true;
    return mvi_path_find(table, space, key, address, buffer, size);
}

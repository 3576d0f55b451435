/* SPDX-License-Identifier: Apache-2.0 */
/* The looks that cost a system call; see look.h. */
#include "look.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

__attribute__((noinline)) bool mvi_look_at_process(const struct mvi_region *region, uint64_t process, int64_t now)
{
    struct pollfd ended = {.fd = region->pidfd, .events = POLLIN};
    struct timespec at_once = {0, 0};

    if (syscall(SYS_ppoll, &ended, 1, &at_once, NULL, 0) > 0)
        return true;
    mvi_thread.process.at_what = process;
    mvi_thread.process.when = now;
    return false;
}

bool mvi_has_ended(const struct mvi_region *region)
{
    uint8_t byte;

    if (region->pidfd >= 0)
        return mvi_has_ended_by(region, CLOCK_MONOTONIC);
    return region->bytes == NULL && mvi_pread(region->fd, &byte, 1, region->offset) == 0;
}

/* ------------------------------------------------------------------------------------------------ mappings -------- */

/* The kernel's question about one mapping (Linux 6.11), which takes less than half a microsecond: PROCMAP_QUERY. */
struct mvi_query {
    uint64_t size, how, address; /* asked; the others are told */
    uint64_t start, end, flags, page_size, offset, inode;
    uint32_t major, minor, name_size, build_size;
    uint64_t name, build;
};
#define MVI_QUERY _IOWR('f', 17, struct mvi_query)
#define MVI_QUERY_WRITABLE 2u
#define MVI_QUERY_SHARED 8u

static bool mvi_is_same(const struct mvi_mapping *mapping, const struct mvi_query *now)
{
    bool place = mapping->pieces ? now->start >= mapping->start && now->end <= mapping->end
                                 : now->start == mapping->start && now->end == mapping->end;

    return place && (mapping->pieces || ((now->flags & MVI_QUERY_WRITABLE) != 0) == mapping->writable) &&
           ((now->flags & MVI_QUERY_SHARED) != 0) == mapping->shared && now->inode == mapping->inode &&
           ((uint64_t)now->major << 32 | now->minor) == mapping->device &&
           (now->inode == 0 || now->offset - mapping->offset == now->start - mapping->start);
}

/* A line of the list of mappings; false if it is that of another address. */
static bool mvi_parse_mapping(const char *line, struct mvi_query *now)
{
    char rights[5];

    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %" SCNx32 ":%" SCNx32 " %" SCNu64, &now->start, &now->end,
               rights, &now->offset, &now->major, &now->minor, &now->inode) != 7)
        return false;
    now->flags = (rights[1] == 'w' ? MVI_QUERY_WRITABLE : 0) | (rights[3] == 's' ? MVI_QUERY_SHARED : 0);
    return now->address - now->start < now->end - now->start;
}

/* The same of the whole list, for a kernel that answers no questions. */
static bool mvi_find_mapping(int fd, struct mvi_query *now)
{
    char text[4096], *line, *end;
    uint64_t at = 0;
    ssize_t got;

    while ((got = mvi_pread(fd, text, sizeof text - 1, at)) > 0) {
        text[got] = '\0';
        for (line = text; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            if (mvi_parse_mapping(line, now))
                return true;
        }
        if (line == text) /* longer than any */
            return false;
        at += (uint64_t)(line - text);
    }
    return false;
}

bool mvi_look_at_mapping(const struct mvi_region *region)
{
    struct mvi_query now = {.size = sizeof now, .address = region->offset};
    uint64_t what = (uint64_t)(uintptr_t)region->mapping;
    bool there = syscall(SYS_ioctl, region->mapping->fd, MVI_QUERY, &now) == 0;
    int64_t when = 0;

    if (!there && errno == ENOTTY) { /* takes long, so one look counts for a while */
        when = mvi_clock(CLOCK_MONOTONIC);
        if (mvi_looked(&mvi_thread.file, what, when))
            return false;
        there = mvi_find_mapping(region->mapping->fd, &now);
    }
    if (!there || !mvi_is_same(region->mapping, &now)) {
        __atomic_store_n(&region->mapping->moved, true, __ATOMIC_RELAXED); /* whoever makes the next map looks again */
        return true;
    }
    if (when != 0)
        mvi_thread.file = (struct mvi_look){what, when};
    return false;
}

/* ------------------------------------------------------------------------------------------------ files ---------- */

/* From this size on every read of a mapped file looks at its length first. */
#define MVI_LOOK_FROM (1u << 20)

size_t mvi_still_there(const struct mvi_region *region, uint64_t offset, size_t size)
{
    uint64_t first = region->offset + offset, what = (uint64_t)(uintptr_t)region;
    struct stat status;
    int64_t now;

    if (region->fd < 0)
        return size;
    now = mvi_clock(CLOCK_MONOTONIC);
    if (size < MVI_LOOK_FROM && mvi_looked(&mvi_thread.file, what, now))
        return size;
    if (fstat(region->fd, &status) != 0 || (uint64_t)status.st_size >= region->offset + region->size) {
        mvi_thread.file.at_what = what;
        mvi_thread.file.when = now;
        return size;
    }
    return (uint64_t)status.st_size <= first ? 0 : mvi_smaller(size, (uint64_t)status.st_size - first);
}

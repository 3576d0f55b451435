/* SPDX-License-Identifier: Apache-2.0 */
/* The looks that cost a system call; see look.h. */
#include "look.h"

#include <poll.h>
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at what may end or change outside: whether a process still runs, whether a file is still as long as it was. A
 * look costs a system call; one that this thread took at most a millisecond ago, by the clock, counts. That clock is
 * read after the access that the look is for: what was there less than a millisecond before its end was there.
 *
 * The system calls are made without the C library's wrappers, which are places where a thread can be cancelled: it
 * would leave in the middle of a read.
 */
#ifndef MVI_LOOK_H
#define MVI_LOOK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "direct.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MVI_LOOK_LASTS INT64_C(1000000) /* ns */

static inline int64_t mvi_clock(clockid_t clock)
{
    struct timespec time;

    (void)clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline bool mvi_looked(const struct mvi_look *look, uint64_t at_what, int64_t now)
{
    return look->at_what == at_what && now - look->when <= MVI_LOOK_LASTS;
}

static inline ssize_t mvi_pread(int fd, void *buffer, size_t size, uint64_t offset)
{
    return (ssize_t)syscall(SYS_pread64, fd, buffer, size, (off_t)offset);
}

static inline ssize_t mvi_pwrite(int fd, const void *data, size_t size, uint64_t offset)
{
    return (ssize_t)syscall(SYS_pwrite64, fd, data, size, (off_t)offset);
}

/* ------------------------------------------------------------------------------------------------ processes ------ */

/* Look whether the process behind a region ended; `now` is the time before the look. */
static __attribute__((noinline)) bool mvi_look_at_process(const struct mvi_region *region, uint64_t process, int64_t now)
{
    struct pollfd ended = {.fd = region->pidfd, .events = POLLIN};
    struct timespec at_once = {0, 0};

    if (syscall(SYS_ppoll, &ended, 1, &at_once, NULL, 0) > 0)
        return true;
    mvi_thread.process.at_what = process;
    mvi_thread.process.when = now;
    return false;
}

/* Whether a process with a pidfd has ended, by a clock that may be some milliseconds late. */
static inline bool mvi_has_ended_by(const struct mvi_region *region, clockid_t clock)
{
    uint64_t process = (uint64_t)(uint32_t)region->pidfd << 32 | (uint32_t)region->pid;
    int64_t now = mvi_clock(clock);

    return !mvi_looked(&mvi_thread.process, process, now) && mvi_look_at_process(region, process, now);
}

/*
 * Whether the process behind a region ended. Its descriptors do not tell: an access of another thread that is under way
 * keeps its memory. Where the system has no pidfd they have to do.
 */
static bool mvi_has_ended(const struct mvi_region *region)
{
    uint8_t byte;

    if (region->pidfd >= 0)
        return mvi_has_ended_by(region, CLOCK_MONOTONIC);
    return region->bytes == NULL && mvi_pread(region->fd, &byte, 1, region->offset) == 0;
}

/* ------------------------------------------------------------------------------------------------ files ---------- */

/* From this size on every read of a mapped file looks at its length first. */
#define MVI_LOOK_FROM (1u << 20)

/* How many of `size` bytes from an offset in a mapped region its file still has. */
static size_t mvi_still_there(const struct mvi_region *region, uint64_t offset, size_t size)
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

#endif

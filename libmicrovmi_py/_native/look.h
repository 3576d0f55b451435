/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at what may end or change outside: whether a process still runs, whether it still has a mapping, whether a file is
 * still as long as it was. A look costs a system call; one that this thread took at most a millisecond ago, by the clock, counts. That clock is
 * read after the access that the look is for: what was there less than a millisecond before its end was there.
 *
 * The system calls are made without the C library's wrappers, which are places where a thread can be cancelled: it
 * would leave in the middle of a read.
 */
#ifndef MVI_LOOK_H
#define MVI_LOOK_H

#include "table.h"

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
bool mvi_look_at_process(const struct mvi_region *region, uint64_t process, int64_t now);

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
bool mvi_has_ended(const struct mvi_region *region);

/* ------------------------------------------------------------------------------------------------ mappings -------- */

/* Look whether the mapping of a region that has one is another one by now, or none. */
bool mvi_look_at_mapping(const struct mvi_region *region);

/* The same for every region; to be asked after a read. */
static inline bool mvi_has_moved(const struct mvi_region *region)
{
    return __builtin_expect(region->mapping != NULL, 0) && mvi_look_at_mapping(region);
}

/* ------------------------------------------------------------------------------------------------ files ---------- */

/* How many of `size` bytes from an offset in a mapped region its file still has. */
size_t mvi_still_there(const struct mvi_region *region, uint64_t offset, size_t size);

#endif

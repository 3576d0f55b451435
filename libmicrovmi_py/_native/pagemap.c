/* SPDX-License-Identifier: Apache-2.0 */
/* What of another process's memory was never touched; see pagemap.h. */
#include "pagemap.h"

#include "look.h"
#include "process.h"
#include "sparse.h"

#include <string.h>

#define MVI_PAGES_AT_ONCE 64                  /* at the least, */
#define MVI_MOST_PAGES_AT_ONCE 512            /* and as many more as are wanted */
#define MVI_PAGE_IS_THERE (UINT64_C(3) << 62) /* in memory, or swapped out */

static uint64_t mvi_chunk_after(uint64_t offset, uint64_t end)
{
    uint64_t next = ((offset >> MVI_CHUNK_SHIFT) + 1) << MVI_CHUNK_SHIFT;

    return next < end ? next : end;
}

/* Whether the process has any of the pages between two offsets, of which `entries` tells, from the one of `first` on. */
static bool mvi_any_page(const struct mvi_region *region, const uint64_t *entries, uint64_t first, uint64_t start,
                         uint64_t end)
{
    uint64_t origin = (region->offset + first) >> PAGE_SHIFT, page = (region->offset + start) >> PAGE_SHIFT;

    for (; page <= (region->offset + end - 1) >> PAGE_SHIFT; page++)
        if ((entries[page - origin] & MVI_PAGE_IS_THERE) != 0)
            return true;
    return false;
}

/* How much of the pagemap is read at once to tell of so many bytes. */
static size_t mvi_entries_for(uint64_t size)
{
    uint64_t pages = (size >> PAGE_SHIFT) + 1;

    pages = pages > MVI_PAGES_AT_ONCE ? pages : MVI_PAGES_AT_ONCE;
    return (size_t)(pages < MVI_MOST_PAGES_AT_ONCE ? pages : MVI_MOST_PAGES_AT_ONCE) * sizeof(uint64_t);
}

uint64_t mvi_touched_until(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool *there)
{
    uint64_t entries[MVI_MOST_PAGES_AT_ONCE], page = (region->offset + offset) >> PAGE_SHIFT, at, next, until;
    ssize_t got;
    bool any;

    *there = true;
    until = mvi_dense_until(dense, offset, end);
    if (until > offset)
        return until;
    got = mvi_pread(region->pagemap_fd, entries, mvi_entries_for(end - offset), page * sizeof *entries);
    if (got < (ssize_t)sizeof *entries)
        return end;
    until = ((page + (uint64_t)got / sizeof *entries) << PAGE_SHIFT) - region->offset;
    until = until < end ? until : end;
    for (at = offset; at < until; at = next) {
        next = mvi_chunk_after(at, end);
        if (next > until)
            break;
        any = mvi_any_page(region, entries, offset, at, next);
        if (at > offset && any != *there)
            break;
        *there = any;
        if (any)
            mvi_mark_dense(region, dense, at, next);
    }
    return at > offset ? at : mvi_chunk_after(offset, end);
}

int32_t mvi_process_read_touched(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer,
                                 size_t size, size_t *done)
{
    uint64_t at = offset, end = offset + size, until;
    int32_t code = MICROVMI_OK;
    size_t got;
    bool there;

    for (; at < end && code == MICROVMI_OK; at = until) {
        until = mvi_touched_until(region, dense, at, end, &there);
        got = (size_t)(until - at);
        if (there) {
            got = 0;
            code = mvi_process_read(region, at, buffer + (at - offset), (size_t)(until - at), &got);
        } else {
            memset(buffer + (at - offset), 0, got);
        }
        *done += got;
    }
    return code;
}

uint64_t mvi_touched_find(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool hole)
{
    uint64_t until;
    bool there;

    for (; offset < end; offset = until) {
        until = mvi_touched_until(region, dense, offset, end, &there);
        if (there != hole)
            break;
    }
    return offset;
}

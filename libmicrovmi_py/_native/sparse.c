/* SPDX-License-Identifier: Apache-2.0 */
/* Reads of mapped files around their holes; see sparse.h. */
#include "sparse.h"

#include "process.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether a file still reaches as far as it did when it was mapped. */
static bool mvi_reaches(int fd, off_t end)
{
    struct stat status;

    return fstat(fd, &status) != 0 || status.st_size >= end;
}

uint64_t mvi_dense_until(const uint8_t *dense, uint64_t offset, uint64_t end)
{
    while (offset < end && mvi_is_dense(dense, offset))
        offset = ((offset >> MVI_CHUNK_SHIFT) + 1) << MVI_CHUNK_SHIFT;
    return offset < end ? offset : end;
}

void mvi_mark_dense(const struct mvi_region *region, uint8_t *dense, uint64_t start, uint64_t end)
{
    size_t chunk = (size_t)(start >> MVI_CHUNK_SHIFT);
    size_t last = end < region->size ? (size_t)(end >> MVI_CHUNK_SHIFT) : mvi_chunks(region);

    for (; chunk < last; chunk++)
        __atomic_store_n(&dense[chunk], MVI_DENSE, __ATOMIC_RELAXED);
}

/* lseek() for SEEK_DATA and SEEK_HOLE with offsets in the region; UINT64_MAX where there is none, or no answer. */
static uint64_t mvi_seek_file(const struct mvi_region *region, uint64_t offset, int whence)
{
    off_t found = lseek(region->fd, (off_t)(region->offset + offset), whence);

    return found < 0 ? UINT64_MAX : (uint64_t)found - region->offset;
}

/*
 * How far the file has data from `offset` on, where it has some: to the next hole if that takes no long search, which
 * it does not at the start of a chunk, as its result is kept; else to the end of the page.
 */
static uint64_t mvi_data_until(const struct mvi_region *region, uint8_t *dense, uint64_t offset)
{
    uint64_t start = offset >> MVI_CHUNK_SHIFT << MVI_CHUNK_SHIFT, hole;

    if (start == offset || mvi_seek_file(region, start, SEEK_DATA) == start) {
        hole = mvi_seek_file(region, start, SEEK_HOLE);
        if (hole != UINT64_MAX || errno != ENXIO) { /* else the file has just become shorter */
            mvi_mark_dense(region, dense, start, hole);
            if (hole > offset)
                return hole;
        }
    }
    return (offset >> PAGE_SHIFT << PAGE_SHIFT) + PAGE_SIZE;
}

uint64_t mvi_filled_until(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool *filled)
{
    uint64_t until = mvi_dense_until(dense, offset, end), data;

    *filled = true;
    if (until > offset)
        return until;
    data = mvi_seek_file(region, offset, SEEK_DATA);
    if (data == UINT64_MAX && errno == ENXIO && !mvi_reaches(region->fd, (off_t)(region->offset + end)))
        return offset;
    if (data != offset && (data != UINT64_MAX || errno == ENXIO)) {
        *filled = false;
        return data < end ? data : end;
    }
    until = data == offset ? mvi_data_until(region, dense, offset) : end; /* else the file system does not tell */
    return until < end ? until : end;
}

int32_t mvi_copy_sparse(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer, size_t size,
                        size_t *done)
{
    uint64_t at = offset, end = offset + size, until;
    bool filled;

    for (; at < end; at = until) {
        until = mvi_filled_until(region, dense, at, end, &filled);
        if (until == at)
            return MICROVMI_ERROR_IO;
        if (filled)
            memcpy(buffer + (at - offset), region->bytes + at, (size_t)(until - at));
        else
            memset(buffer + (at - offset), 0, (size_t)(until - at));
        *done = (size_t)(until - offset);
    }
    return MICROVMI_OK;
}

/* Find out whether the chunk at an offset may be touched, once. */
static bool mvi_learn(const struct mvi_region *region, uint8_t *dense, uint64_t offset)
{
    uint64_t start = offset >> MVI_CHUNK_SHIFT << MVI_CHUNK_SHIFT;
    uint8_t *chunk = &dense[offset >> MVI_CHUNK_SHIFT];

    if (__atomic_load_n(chunk, __ATOMIC_RELAXED) == MVI_UNKNOWN) {
        (void)mvi_data_until(region, dense, start);
        if (__atomic_load_n(chunk, __ATOMIC_RELAXED) == MVI_UNKNOWN)
            __atomic_store_n(chunk, MVI_HOLED, __ATOMIC_RELAXED);
    }
    return __atomic_load_n(chunk, __ATOMIC_RELAXED) == MVI_DENSE;
}

int32_t mvi_read_image(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer, size_t size,
                       size_t *done)
{
    bool first = mvi_learn(region, dense, offset), last = mvi_learn(region, dense, offset + size - 1);

    if (!first || !last)
        return mvi_process_pread(region, offset, buffer, size, done);
    memcpy(buffer, region->bytes + offset, size);
    *done = size;
    return MICROVMI_OK;
}

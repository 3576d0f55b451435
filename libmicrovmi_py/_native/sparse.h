/* SPDX-License-Identifier: Apache-2.0 */
/* Mapped files with holes, which a large read does not touch; of an image no read does. */
#ifndef MVI_SPARSE_H
#define MVI_SPARSE_H

#include "table.h"

/* Asking a file for its holes costs as much as copying some pages: only a large read asks. */
#define MVI_SPARSE_FROM (64u << 10)

static inline bool mvi_is_dense(const uint8_t *dense, uint64_t offset)
{
    return __atomic_load_n(&dense[offset >> MVI_CHUNK_SHIFT], __ATOMIC_RELAXED) == MVI_DENSE;
}

/* Whether all chunks of a small read, which has two at the most, may be touched. */
static inline bool mvi_may_touch(const uint8_t *dense, uint64_t offset, size_t size)
{
    return mvi_is_dense(dense, offset) && mvi_is_dense(dense, offset + size - 1);
}

/* Where dense chunks end, from `offset` on, `end` at the most. */
uint64_t mvi_dense_until(const uint8_t *dense, uint64_t offset, uint64_t end);

/* The file has data from `start`, where a chunk begins, to `end`: the chunks that lie within are dense. */
void mvi_mark_dense(const struct mvi_region *region, uint8_t *dense, uint64_t start, uint64_t end);

/*
 * Whether a mapped file has data at an offset, or a hole, and how far that holds, `end` at the most. The offset itself: the
 * file is not as long any more. Where the file system does not tell, all is data.
 */
uint64_t mvi_filled_until(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool *filled);

/*
 * Touching a hole of a mapped file would make the host allocate it: the holes of large reads are not touched. A file
 * that was cut is told from one that ends in a hole.
 */
int32_t mvi_copy_sparse(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer, size_t size,
                        size_t *done);

/*
 * A small read of an image: what is not known to be there is read by a system call. Nothing is allocated then, and what
 * is gone is an error.
 */
int32_t mvi_read_image(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer, size_t size,
                       size_t *done);

/* The most frequent case: within the mapping that this thread read last. Where the bytes are, NULL: not that case. */
static inline const uint8_t *mvi_table_hit(const struct mvi_table *table, size_t hit, uint64_t address, size_t size)
{
    const struct mvi_region *region = &table->regions[hit];
    uint64_t offset;

    if (__builtin_expect(hit >= table->count, 0))
        return NULL;
    offset = address - region->start;
    if (__builtin_expect(offset >= region->size || size > region->size - offset || region->bytes == NULL, 0))
        return NULL;
    if (region->image && (size == 0 || !mvi_may_touch(table->dense[hit], offset, size)))
        return NULL;
    return region->bytes + offset;
}

#endif

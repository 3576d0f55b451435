/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private memory of another process that it never touched: it is zero, as /proc/PID/pagemap tells, and large reads do
 * not copy it. They look at it by the chunks of sparse.h: asking about single pages would cost more than copying them.
 */
#ifndef MVI_PAGEMAP_H
#define MVI_PAGEMAP_H

#include "table.h"

/*
 * Whether memory is there at an offset, and how far that holds, some chunks at the most: a chunk of which a page is
 * there counts as a whole. Where the system does not tell, all is there.
 */
uint64_t mvi_touched_until(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool *there);

/* Read at an offset, of what is there; the rest is zeros. */
int32_t mvi_process_read_touched(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer,
                                 size_t size, size_t *done);

/* Where touched (or untouched) memory begins in a region, from `offset` on; `end` if there is none before that. */
uint64_t mvi_touched_find(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool hole);

#endif

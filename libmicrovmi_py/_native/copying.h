/* SPDX-License-Identifier: Apache-2.0 */
/* What writes into the copy of a snapshot includes this: copy.h has no guard, as cffi reads it as well. */
#ifndef MVI_COPYING_H
#define MVI_COPYING_H

#include "sparse.h"

#include "copy.h"

#define MVI_CHUNK (UINT64_C(1) << MVI_CHUNK_SHIFT)
#define MVI_CHUNK_PAGES (MVI_CHUNK >> PAGE_SHIFT)

static inline bool mvi_page_is_there(const struct mvi_copy *copy, uint64_t page)
{
    return (copy->pages[page / MVI_CHUNK_PAGES] >> (page % MVI_CHUNK_PAGES) & 1) != 0;
}

#endif

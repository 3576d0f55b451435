/* SPDX-License-Identifier: Apache-2.0 */
/* A table of regions, and finding an address in it. What a table does for others is in direct.h. */
#ifndef MVI_TABLE_H
#define MVI_TABLE_H

#include "exported.h"
#include "thread.h"

#include "direct.h"
#include "foreign.h"

#define MVI_ASK_PYTHON (-1)

/* Where words of 8 bytes can be read in a mapping: their addresses from `start` on, `span` of them, 0 elsewhere. */
struct mvi_word {
    uint64_t start;
    uint64_t span;
    const uint8_t *bytes;
    uint64_t unused; /* 32 bytes: the index is a shift */
};

/* What is known of a file's holes is known by chunks of this size (as a power of two). */
#define MVI_CHUNK_SHIFT 16

/*
 * For each region that may have holes a byte a chunk: MVI_DENSE once the chunk is known to have none, or not to be worth
 * asking about. It stays so, as what is read is not a hole any more; a guest that gives memory back only makes it less
 * useful. MVI_HOLED: small reads of an image need not ask again.
 */
enum mvi_chunk {
    MVI_UNKNOWN,
    MVI_DENSE,
    MVI_HOLED
};

struct mvi_table {
    uint64_t max_address;
    size_t count;
    bool by_frames;                   /* the memory of a driver of frames: read here is what is cached, */
    struct mvi_foreign *foreign;      /* and what its library's function reads; NULL without one, the maker's */
    struct mvi_cache *cache;          /* NULL unless the machine is paused; the maker's, not the table's */
    const struct mvi_region *watched; /* one of another process, which has to run while pages of it are kept; or NULL */
    struct mvi_word *words;           /* beside `regions`, what the fast way needs of them */
    uint8_t **dense;                  /* for each region where in `chunks` its bytes begin, NULL without holes */
    uint8_t *chunks;
    uint32_t *buckets; /* an index of `regions` by address: the first that ends behind the bucket's start */
    unsigned bucket_shift;
    uint64_t last;    /* the last byte of all regions */
    uint64_t edition; /* a number that no other table ever had */
    bool lasts;       /* its memory does not change by itself: translations are remembered, */
    uint64_t flushes; /* until this changes, which it does with every write; atomic */
    struct mvi_region regions[];
};

static inline bool mvi_is_process(const struct mvi_region *region)
{
    return region->bytes == NULL && region->pid != 0;
}

static inline size_t mvi_smaller(uint64_t first, uint64_t second)
{
    return (size_t)(first < second ? first : second);
}

static inline uint64_t mvi_last(const struct mvi_region *region)
{
    return region->start + (region->size - 1);
}

static inline bool mvi_holds(const struct mvi_region *region, uint64_t address)
{
    return address - region->start < region->size;
}

static inline size_t mvi_chunks(const struct mvi_region *region)
{
    return (size_t)((region->size - 1) >> MVI_CHUNK_SHIFT) + 1;
}

/* The first region that ends behind `address`: the one that holds it, or the next one after a hole. */
size_t mvi_search(const struct mvi_table *table, uint64_t address);

/* The same, if it is often the one that this thread found last. */
static inline size_t mvi_first(const struct mvi_table *table, uint64_t address)
{
    size_t hit = mvi_thread.last_hit;

    if (__builtin_expect(hit < table->count && mvi_holds(&table->regions[hit], address), 1))
        return hit;
    return mvi_search(table, address);
}

/* direct.c: the region of another process that holds so many bytes, and can be read without waiting and without a look at
 * its mapping; NULL for every other. */
const struct mvi_region *mvi_whole_in_process(const struct mvi_table *table, uint64_t address, size_t size);

/*
 * direct.c: whether all of a range can be written: 0, or the reason; *ready is how much could be, from the start. A machine
 * that ended is not written, mapped or not.
 */
int32_t mvi_check_write(const struct mvi_table *table, uint64_t address, size_t size, bool checked, uint64_t *ready);

/* direct.c: do requests, at least one, until one is not whole; how many were done, that one among them. */
size_t mvi_table_read_some(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count);

/* direct.c: the first byte of a range that may hold something, in the region that the range begins in; its end, or the
 * region's, if there is none. The beginning itself where no region is. */
uint64_t mvi_table_data(const struct mvi_table *table, uint64_t address, uint64_t end);
/* direct.c: read at an offset of a region, whatever its source is; *done, 0 before, is how much was read. */
int32_t mvi_region_read(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer, size_t size,
                        size_t *done);
/* direct.c: where data (or a hole) begins in a region, from `offset` on; `end`, within it, if not before that. */
uint64_t mvi_region_find(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool hole);

/* direct.c: what a code means, in words that an address follows. */
const char *mvi_cause(int32_t code);

#endif

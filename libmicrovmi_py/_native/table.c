/* SPDX-License-Identifier: Apache-2.0 */
/* Making a table of regions, and finding an address in it. */
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ finding -------- */

/* The first of the regions from `low` on, `high` at the most, that ends behind `address`. */
static size_t mvi_search_between(const struct mvi_region *regions, size_t low, size_t high, uint64_t address)
{
    size_t middle;

    while (low < high) {
        middle = low + (high - low) / 2;
        if (mvi_last(&regions[middle]) < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t mvi_search(const struct mvi_table *table, uint64_t address)
{
    size_t bucket, found = table->count;

    if (table->count > 0 && address <= table->last) {
        bucket = (size_t)(address >> table->bucket_shift);
        found = mvi_search_between(table->regions, table->buckets[bucket], table->buckets[bucket + 1], address);
    }
    mvi_thread.last_hit = found;
    return found;
}

/* ------------------------------------------------------------------------------------------------ making --------- */

static bool mvi_may_have_holes(const struct mvi_region *region)
{
    return region->bytes != NULL ? region->fd >= 0 : region->pagemap_fd >= 0;
}

static bool mvi_make_words(struct mvi_table *table)
{
    const struct mvi_region *region;
    size_t index;

    table->words = calloc(table->count + 1, sizeof *table->words);
    for (index = 0; table->words != NULL && index < table->count; index++) {
        region = &table->regions[index];
        table->words[index].start = region->start;
        /* Not those of an image: which of its chunks may be touched would have to be looked up for each. */
        table->words[index].span = region->bytes != NULL && !region->image && region->size >= 8 ? region->size - 7 : 0;
        table->words[index].bytes = region->bytes;
    }
    return table->words != NULL;
}

static bool mvi_make_dense(struct mvi_table *table)
{
    size_t index, total = 0, chunks;

    for (index = 0; index < table->count; index++)
        if (mvi_may_have_holes(&table->regions[index]))
            total += mvi_chunks(&table->regions[index]);
    table->dense = calloc(table->count + 1, sizeof *table->dense);
    table->chunks = calloc(total + 1, 1);
    if (table->dense == NULL || table->chunks == NULL)
        return false;
    for (index = 0, total = 0; index < table->count; index++) {
        chunks = mvi_may_have_holes(&table->regions[index]) ? mvi_chunks(&table->regions[index]) : 0;
        table->dense[index] = chunks > 0 ? table->chunks + total : NULL;
        total += chunks;
    }
    return true;
}

/*
 * Two to four buckets a region over all addresses up to the last byte: where regions are spread evenly, a look-up takes
 * the same time however many there are; where they are not, it is a binary search within one bucket.
 */
static bool mvi_make_buckets(struct mvi_table *table)
{
    unsigned bits = 1, width;
    size_t bucket, buckets;

    if (table->count == 0)
        return true;
    table->last = mvi_last(&table->regions[table->count - 1]);
    while (bits < 20 && (size_t)1 << bits < 2 * table->count)
        bits++;
    width = 64 - (unsigned)__builtin_clzll(table->last | 1);
    table->bucket_shift = width > bits ? width - bits : 0;
    buckets = (size_t)(table->last >> table->bucket_shift) + 1;
    table->buckets = malloc((buckets + 1) * sizeof *table->buckets);
    if (table->buckets == NULL)
        return false;
    for (bucket = 0; bucket < buckets; bucket++)
        table->buckets[bucket] = (uint32_t)mvi_search_between(table->regions, bucket ? table->buckets[bucket - 1] : 0,
                                                              table->count, (uint64_t)bucket << table->bucket_shift);
    table->buckets[buckets] = (uint32_t)(table->count - 1);
    return true;
}

/* Whether a region is not empty, and ends within the address space and within what a file offset can tell. */
static bool mvi_is_sane(const struct mvi_region *region)
{
    return region->size > 0 && region->size - 1 <= UINT64_MAX - region->start &&
           (region->fd < 0 || (region->offset <= INT64_MAX && region->size - 1 <= INT64_MAX - region->offset));
}

/* Everything that looks an address up relies on this. */
static bool mvi_are_sane(const struct mvi_region *regions, size_t count)
{
    size_t index;

    for (index = 0; index < count; index++)
        if (!mvi_is_sane(&regions[index]) || (index > 0 && regions[index].start <= mvi_last(&regions[index - 1])))
            return false;
    return count < UINT32_MAX;
}

static const struct mvi_region *mvi_find_watched(const struct mvi_table *table)
{
    size_t index;

    for (index = 0; index < table->count; index++)
        if (mvi_is_process(&table->regions[index]) && table->regions[index].pidfd >= 0)
            return &table->regions[index];
    return NULL;
}

struct mvi_table *mvi_table_new(const struct mvi_region *regions, size_t count, uint64_t max_address,
                                struct mvi_cache *cache, bool by_frames, struct mvi_foreign *foreign)
{
    static uint64_t editions;
    struct mvi_table *table;

    if (!mvi_are_sane(regions, count)) {
        errno = EINVAL;
        return NULL;
    }
    table = malloc(sizeof *table + count * sizeof *regions);
    if (table == NULL)
        return NULL;
    table->max_address = max_address;
    table->count = count;
    table->cache = cache;
    table->by_frames = by_frames;
    table->foreign = foreign;
    memcpy(table->regions, regions, count * sizeof *regions);
    table->dense = NULL;
    table->chunks = NULL;
    table->words = NULL;
    table->edition = __atomic_add_fetch(&editions, 1, __ATOMIC_RELAXED);
    table->lasts = false;
    table->flushes = 0;
    table->buckets = NULL;
    table->watched = mvi_find_watched(table);
    if (mvi_make_dense(table) && mvi_make_words(table) && mvi_make_buckets(table))
        return table;
    mvi_table_free(table);
    errno = ENOMEM;
    return NULL;
}

void mvi_table_free(struct mvi_table *table)
{
    if (table == NULL)
        return;
    free(table->dense);
    free(table->chunks);
    free(table->buckets);
    free(table->words);
    free(table);
}

void mvi_table_lasts(struct mvi_table *table)
{
    table->lasts = true;
}

void mvi_table_flush(const struct mvi_table *table)
{
    __atomic_fetch_add((uint64_t *)&table->flushes, 1,
                       __ATOMIC_ACQ_REL); /* the table was made as one that is not constant */
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a paused machine: small reads that would take a system call or a trip to the hypervisor take a copy.
 *
 * A page has one place it can be in; a newer page takes the place of an older one. Each place has a lock of its own,
 * held for a copy. What is dropped (a write) stays out even if a reader fetched it before: he sees that the epoch
 * changed.
 */
#ifndef MVI_CACHE_H
#define MVI_CACHE_H

#include "look.h"

#include <sched.h>
#include <sys/mman.h>

struct mvi_place {
    uint64_t page; /* guest-physical page number + 1; 0: empty */
    bool locked;
} __attribute__((aligned(16)));

struct mvi_cache {
    unsigned shift; /* 64 - the logarithm of the number of places */
    size_t places;
    uint64_t epoch; /* atomic */
    uint8_t *bytes;
    struct mvi_place place[];
};

struct mvi_cache *mvi_cache_new(size_t size)
{
    struct mvi_cache *cache;
    unsigned bits = 0;

    while (bits < 40 && (size_t)PAGE_SIZE << (bits + 1) <= size)
        bits++;
    cache = calloc(1, sizeof *cache + ((size_t)1 << bits) * sizeof *cache->place);
    if (cache == NULL)
        return NULL;
    cache->places = (size_t)1 << bits;
    cache->shift = 64 - bits;
    cache->bytes = mmap(NULL, cache->places << PAGE_SHIFT, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->bytes == MAP_FAILED) {
        free(cache);
        return NULL;
    }
    return cache;
}

void mvi_cache_free(struct mvi_cache *cache)
{
    if (cache != NULL)
        munmap(cache->bytes, cache->places << PAGE_SHIFT);
    free(cache);
}

static inline size_t mvi_cache_index(const struct mvi_cache *cache, uint64_t page)
{
    return cache->places == 1 ? 0 : (size_t)(page * UINT64_C(0x9e3779b97f4a7c15) >> cache->shift);
}

static inline struct mvi_place *mvi_cache_lock(struct mvi_cache *cache, size_t index)
{
    struct mvi_place *place = &cache->place[index];
    unsigned tries = 0;

    while (__builtin_expect(__atomic_test_and_set(&place->locked, __ATOMIC_ACQUIRE), 0))
        if (++tries % 64 == 0)
            sched_yield();
    return place;
}

static inline void mvi_cache_unlock(struct mvi_place *place)
{
    __atomic_clear(&place->locked, __ATOMIC_RELEASE);
}

/* Whether the bytes were there, which must lie within one page. */
static inline bool mvi_cache_read(struct mvi_cache *cache, uint64_t address, uint8_t *buffer, size_t size)
{
    uint64_t page = address >> PAGE_SHIFT;
    size_t index = mvi_cache_index(cache, page);
    struct mvi_place *place = mvi_cache_lock(cache, index);
    bool there = place->page == page + 1;

    if (there && size == 8) /* a constant size needs no call */
        memcpy(buffer, cache->bytes + (index << PAGE_SHIFT) + (address & (PAGE_SIZE - 1)), 8);
    else if (there)
        memcpy(buffer, cache->bytes + (index << PAGE_SHIFT) + (address & (PAGE_SIZE - 1)), size);
    mvi_cache_unlock(place);
    return there;
}

/* Whether there is a cache, and it may hold such bytes, and it does, and the machine did not end meanwhile. A clock that
 * is some milliseconds late has to do: a better one takes longer than all the rest. */
static inline bool mvi_cached(const struct mvi_table *table, uint64_t address, uint8_t *buffer, size_t size)
{
    return table->cache != NULL && size <= PAGE_SIZE - (address & (PAGE_SIZE - 1)) &&
           mvi_cache_read(table->cache, address, buffer, size) &&
           (table->watched == NULL || !mvi_has_ended_by(table->watched, CLOCK_MONOTONIC_COARSE));
}

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

uint64_t mvi_cache_epoch(const struct mvi_cache *cache)
{
    return __atomic_load_n(&cache->epoch, __ATOMIC_ACQUIRE);
}

bool mvi_cache_get(struct mvi_cache *cache, uint64_t address, uint8_t *buffer, size_t size)
{
    return mvi_cache_read(cache, address, buffer, size);
}

void mvi_cache_put(struct mvi_cache *cache, uint64_t epoch, uint64_t page, const uint8_t *bytes)
{
    size_t index = mvi_cache_index(cache, page);
    struct mvi_place *place = mvi_cache_lock(cache, index);

    if (mvi_cache_epoch(cache) == epoch) {
        memcpy(cache->bytes + (index << PAGE_SHIFT), bytes, PAGE_SIZE);
        place->page = page + 1;
    }
    mvi_cache_unlock(place);
}

static void mvi_cache_empty(struct mvi_cache *cache, size_t index)
{
    struct mvi_place *place = mvi_cache_lock(cache, index);

    place->page = 0;
    mvi_cache_unlock(place);
}

void mvi_cache_drop(struct mvi_cache *cache, uint64_t address, size_t size)
{
    uint64_t page = address >> PAGE_SHIFT, pages;
    size_t index;

    __atomic_fetch_add(&cache->epoch, 1, __ATOMIC_ACQ_REL);
    if (size == 0)
        return;
    pages = ((address + (size - 1)) >> PAGE_SHIFT) - page + 1;
    if (pages >= cache->places) /* then every place may hold one of them */
        for (index = 0; index < cache->places; index++)
            mvi_cache_empty(cache, index);
    else
        for (; pages > 0; pages--, page++)
            mvi_cache_empty(cache, mvi_cache_index(cache, page));
}

#endif

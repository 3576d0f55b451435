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
#include <string.h>

struct mvi_place {
    uint64_t page; /* guest-physical page number + 1; 0: empty */
    bool locked;
} __attribute__((aligned(16)));

struct mvi_cache {
    unsigned shift; /* 64 - the logarithm of the number of places */
    size_t places;
    size_t size;    /* of all of it, in bytes */
    uint64_t epoch; /* atomic */
    uint8_t *bytes;
    struct mvi_place place[];
};

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

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping pages of a paused machine, and dropping them; reading them is in cache.h. */
#include "cache.h"

#include <string.h>
#include <sys/mman.h>

/* One mapping has the pages and, behind them, the places: what nobody has used takes no memory, and need not be made zeros.
 * In front, a first use could take a huge page. */
struct mvi_cache *mvi_cache_new(size_t size)
{
    struct mvi_cache *cache;
    size_t pages = 1;
    unsigned bits = 0;
    uint8_t *bytes;

    while (bits < 40 && (size_t)PAGE_SIZE << (bits + 1) <= size)
        bits++;
    pages <<= bits;
    size = (pages << PAGE_SHIFT) + sizeof *cache + pages * sizeof *cache->place;
    bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED)
        return NULL;
    cache = (void *)(bytes + (pages << PAGE_SHIFT));
    cache->places = pages;
    cache->shift = 64 - bits;
    cache->size = size;
    cache->bytes = bytes;
    return cache;
}

void mvi_cache_free(struct mvi_cache *cache)
{
    if (cache != NULL)
        munmap(cache->bytes, cache->size);
}

uint64_t mvi_cache_epoch(const struct mvi_cache *cache)
{
    return __atomic_load_n(&cache->epoch, __ATOMIC_ACQUIRE);
}

bool mvi_cache_get(struct mvi_cache *cache, uint64_t address, uint8_t *buffer, size_t size)
{
    return mvi_cache_read(cache, address, buffer, size);
}

void mvi_cache_keep(struct mvi_cache *cache, uint64_t epoch, const uint8_t *page, uint64_t address, uint8_t *buffer,
                    size_t size)
{
    size_t index = mvi_cache_index(cache, address >> PAGE_SHIFT);
    struct mvi_place *place = mvi_cache_lock(cache, index);

    if (mvi_cache_epoch(cache) == epoch) {
        memcpy(cache->bytes + (index << PAGE_SHIFT), page, PAGE_SIZE);
        place->page = (address >> PAGE_SHIFT) + 1;
    }
    mvi_cache_unlock(place);
    memcpy(buffer, page + (address & (PAGE_SIZE - 1)), size);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that a snapshot is copied into; see copy.h. Nothing is touched before it is allocated: a system that has no
 * memory left is then an error, and no SIGBUS. */
#include "copying.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Chunks that one call looks through for zeros. */
#define MVI_TRIM_AT_ONCE 4096

/* ------------------------------------------------------------------------------------------------ the whole ------ */

/* ftruncate() beyond the limit of the process would send it a signal. */
static bool mvi_may_be_as_long(uint64_t size)
{
    struct rlimit limit;

    if (size > INT64_MAX || (getrlimit(RLIMIT_FSIZE, &limit) == 0 && size > limit.rlim_cur)) {
        errno = EFBIG;
        return false;
    }
    return true;
}

struct mvi_copy *mvi_copy_new(int32_t fd, uint64_t size, uint64_t limit)
{
    struct mvi_copy *copy;
    void *bytes;

    if (!mvi_may_be_as_long(size) || ftruncate(fd, (off_t)size) != 0)
        return NULL;
    copy = malloc(sizeof *copy);
    if (copy == NULL)
        return NULL;
    bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    *copy = (struct mvi_copy){.bytes = bytes, .size = size, .limit = limit, .fd = fd};
    copy->pages = bytes == MAP_FAILED ? NULL : calloc(size / MVI_CHUNK + 1, sizeof *copy->pages);
    if (copy->pages != NULL)
        return copy;
    mvi_copy_free(copy);
    errno = ENOMEM;
    return NULL;
}

void mvi_copy_free(struct mvi_copy *copy)
{
    if (copy == NULL)
        return;
    if (copy->bytes != MAP_FAILED)
        (void)munmap(copy->bytes, copy->size);
    free(copy->pages);
    free(copy);
}

/* ------------------------------------------------------------------------------------------------ its pages ------ */

static bool mvi_is_zero(const uint8_t *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Allocate a run of pages none of which is there. */
static int32_t mvi_allocate(struct mvi_copy *copy, uint64_t page, uint64_t end)
{
    uint64_t size = (end - page) << PAGE_SHIFT;
    uint8_t *bytes = copy->bytes + (page << PAGE_SHIFT);
    int failed;

    if (__atomic_add_fetch(&copy->taken, size, __ATOMIC_RELAXED) > copy->limit) {
        __atomic_sub_fetch(&copy->taken, size, __ATOMIC_RELAXED);
        return EDQUOT;
    }
    do
        failed = fallocate(copy->fd, 0, (off_t)(page << PAGE_SHIFT), (off_t)size) != 0 ? errno : 0;
    while (failed == EINTR);
    if (failed != 0) {
        __atomic_sub_fetch(&copy->taken, size, __ATOMIC_RELAXED);
        return failed;
    }
#ifdef MADV_POPULATE_WRITE
    if (end - page > 1)
        (void)madvise(bytes, size, MADV_POPULATE_WRITE); /* an older kernel maps each page as it is touched */
#endif
    (void)bytes;
    for (; page < end; page++)
        copy->pages[page / MVI_CHUNK_PAGES] |= (mvi_pages)(1u << (page % MVI_CHUNK_PAGES));
    return 0;
}

int32_t mvi_copy_room(struct mvi_copy *copy, uint64_t offset, uint64_t size)
{
    uint64_t page = offset >> PAGE_SHIFT, end = (offset + size + PAGE_SIZE - 1) >> PAGE_SHIFT, until;
    int32_t failed;

    for (; page < end; page = until) {
        until = page + 1;
        if (mvi_page_is_there(copy, page))
            continue;
        while (until < end && !mvi_page_is_there(copy, until))
            until++;
        failed = mvi_allocate(copy, page, until);
        if (failed != 0)
            return failed;
    }
    return 0;
}

/* Whether a page of a store is to be there: it is already, or it holds something. */
static bool mvi_is_wanted(const struct mvi_copy *copy, uint64_t offset, const uint8_t *bytes, size_t size)
{
    return mvi_page_is_there(copy, offset >> PAGE_SHIFT) || !mvi_is_zero(bytes, size);
}

/* How much of a store, from `at` on, lies within the page there. */
static size_t mvi_in_page(uint64_t offset, size_t at, size_t size)
{
    return mvi_smaller(size - at, PAGE_SIZE - ((offset + at) & (PAGE_SIZE - 1)));
}

int32_t mvi_copy_store(struct mvi_copy *copy, uint64_t offset, const uint8_t *bytes, size_t size)
{
    size_t at = 0, until, part;
    int32_t failed;

    while (at < size) {
        until = at;
        while (until < size && mvi_is_wanted(copy, offset + until, bytes + until, mvi_in_page(offset, until, size)))
            until += mvi_in_page(offset, until, size);
        part = until - at;
        failed = part > 0 ? mvi_copy_room(copy, offset + at, part) : 0;
        if (failed != 0)
            return failed;
        memcpy(copy->bytes + offset + at, bytes + at, part);
        at = until < size ? until + mvi_in_page(offset, until, size) : until; /* past the page that is not wanted */
    }
    return 0;
}

void mvi_copy_clear(struct mvi_copy *copy, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size, next;

    for (; offset < end; offset = next) {
        next = (offset / MVI_CHUNK + 1) * MVI_CHUNK;
        if (copy->pages[offset / MVI_CHUNK] == 0)
            continue;
        next = offset + mvi_in_page(offset, 0, (size_t)(end - offset));
        if (mvi_page_is_there(copy, offset >> PAGE_SHIFT))
            memset(copy->bytes + offset, 0, (size_t)(next - offset));
    }
}

/* ------------------------------------------------------------------------------------------------ zeros ---------- */

static bool mvi_holds_zeros(const struct mvi_copy *copy, uint64_t page)
{
    return mvi_page_is_there(copy, page) && mvi_is_zero(copy->bytes + (page << PAGE_SHIFT), PAGE_SIZE);
}

/* Where there is no way to make holes, zeros take memory. */
static void mvi_give_back(struct mvi_copy *copy, uint64_t page, uint64_t end)
{
    uint64_t size = (end - page) << PAGE_SHIFT;

    if (fallocate(copy->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page << PAGE_SHIFT), (off_t)size) != 0)
        return;
    __atomic_sub_fetch(&copy->taken, size, __ATOMIC_RELAXED);
    for (; page < end; page++)
        copy->pages[page / MVI_CHUNK_PAGES] &= (mvi_pages) ~(1u << (page % MVI_CHUNK_PAGES));
}

bool mvi_copy_trim(struct mvi_copy *copy, uint64_t *chunk)
{
    uint64_t chunks = copy->size / MVI_CHUNK, last = *chunk + MVI_TRIM_AT_ONCE, page, end, until;

    last = last < chunks ? last : chunks;
    end = last * MVI_CHUNK_PAGES;
    for (page = *chunk * MVI_CHUNK_PAGES; page < end; page = until) {
        until = page + 1;
        if (!mvi_holds_zeros(copy, page))
            continue;
        while (until < end && mvi_holds_zeros(copy, until))
            until++;
        mvi_give_back(copy, page, until);
    }
    *chunk = last;
    return last == chunks;
}

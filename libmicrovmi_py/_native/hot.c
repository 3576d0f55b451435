/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory that can be reached directly: the one walk over regions, for C callers and for the Python classes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cache.h"
#include "direct.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* From here on process_vm_readv() is cheaper than pread() on /proc/PID/mem: measured, see docs/design.md. */
#define MVI_READV_FROM (16u << 10)

/* What the kernel takes in one call (IOV_MAX). */
#define MVI_IOV_MAX 1024

/* What is known of a file's holes is known by chunks of this size (as a power of two). */
#define MVI_CHUNK_SHIFT 16

static size_t mvi_chunks(const struct mvi_region *region)
{
    return (size_t)((region->size - 1) >> MVI_CHUNK_SHIFT) + 1;
}

static bool mvi_has_file(const struct mvi_region *region)
{
    return region->bytes != NULL && region->fd >= 0;
}

static bool mvi_make_buckets(struct mvi_table *table);

static bool mvi_make_words(struct mvi_table *table)
{
    const struct mvi_region *region;
    size_t index;

    table->words = calloc(table->count + 1, sizeof *table->words);
    for (index = 0; table->words != NULL && index < table->count; index++) {
        region = &table->regions[index];
        table->words[index].start = region->start;
        table->words[index].span = region->bytes != NULL && region->size >= 8 ? region->size - 7 : 0;
        table->words[index].bytes = region->bytes;
    }
    return table->words != NULL;
}

struct mvi_table *mvi_table_new(const struct mvi_region *regions, size_t count, uint64_t max_address,
                                struct mvi_cache *cache, bool by_frames)
{
    struct mvi_table *table = malloc(sizeof *table + count * sizeof *regions);
    size_t index;
    bool failed;

    if (table == NULL || (table->dense = calloc(count + 1, sizeof *table->dense)) == NULL) {
        free(table);
        return NULL;
    }
    table->max_address = max_address;
    table->count = count;
    table->cache = cache;
    table->by_frames = by_frames;
    memcpy(table->regions, regions, count * sizeof *regions);
    table->buckets = NULL;
    failed = !mvi_make_words(table) | !mvi_make_buckets(table);
    for (index = 0; index < count; index++)
        if (mvi_has_file(&regions[index]))
            failed |= (table->dense[index] = calloc(mvi_chunks(&regions[index]), 1)) == NULL;
    if (failed) {
        mvi_table_free(table);
        return NULL;
    }
    return table;
}

void mvi_table_free(struct mvi_table *table)
{
    size_t index;

    if (table == NULL)
        return;
    for (index = 0; index < table->count; index++)
        free(table->dense[index]);
    free(table->dense);
    free(table->buckets);
    free(table->words);
    free(table);
}

/* ------------------------------------------------------------------------------------------------ finding -------- */

static inline bool mvi_holds(const struct mvi_region *region, uint64_t address)
{
    return address - region->start < region->size;
}

static inline uint64_t mvi_last(const struct mvi_region *region)
{
    return region->start + (region->size - 1);
}

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

/* The first region that ends behind `address`: the one that holds it, or the next one after a hole. */
static size_t mvi_search(const struct mvi_table *table, uint64_t address)
{
    size_t bucket, found = table->count;

    if (table->count > 0 && address <= table->last) {
        bucket = (size_t)(address >> table->bucket_shift);
        found = mvi_search_between(table->regions, table->buckets[bucket], table->buckets[bucket + 1], address);
    }
    mvi_thread.last_hit = found;
    return found;
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

static inline size_t mvi_first(const struct mvi_table *table, uint64_t address)
{
    size_t hit = mvi_thread.last_hit;

    if (__builtin_expect(hit < table->count && mvi_holds(&table->regions[hit], address), 1))
        return hit;
    return mvi_search(table, address);
}

/* ---------------------------------------------------------------------------------- another process's memory ----- */

static bool mvi_has_ended(const struct mvi_region *region)
{
    struct pollfd ended = {.fd = region->pidfd, .events = POLLIN};
    uint8_t byte;

    if (region->pidfd >= 0)
        return poll(&ended, 1, 0) > 0;
    return pread(region->fd, &byte, 1, (off_t)region->offset) == 0;
}

static int32_t mvi_errno_code(int error)
{
    switch (error) {
    case EIO:
    case EFAULT:
        return MICROVMI_ERROR_IO;
    case EPERM:
    case EACCES:
        return MICROVMI_ERROR_PERMISSION;
    case ESRCH:
        return MICROVMI_ERROR_VM_GONE;
    default:
        return MICROVMI_ERROR_IO;
    }
}

/* /proc/PID/mem: cheap for little, and the descriptor belongs to the process for good. 0 bytes mean that it ended. */
static int32_t mvi_process_pread(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size,
                                 size_t *done)
{
    ssize_t count;

    while (*done < size) {
        count = pread(region->fd, buffer + *done, size - *done, (off_t)(region->offset + offset + *done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return mvi_errno_code(errno);
        if (count == 0)
            return MICROVMI_ERROR_VM_GONE;
        *done += (size_t)count;
    }
    return MICROVMI_OK;
}

static int32_t mvi_process_read(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size,
                                size_t *done)
{
    struct iovec local, remote;
    ssize_t count;

    while (size - *done >= MVI_READV_FROM) {
        local = (struct iovec){buffer + *done, size - *done};
        remote = (struct iovec){(void *)(uintptr_t)(region->offset + offset + *done), size - *done};
        count = process_vm_readv(region->pid, &local, 1, &remote, 1, 0);
        if (count <= 0)
            break;
        if (mvi_has_ended(region)) /* then the number may be another process's by now */
            return MICROVMI_ERROR_VM_GONE;
        *done += (size_t)count;
    }
    return mvi_process_pread(region, offset, buffer, size, done);
}

static int32_t mvi_process_write(const struct mvi_region *region, uint64_t offset, const uint8_t *data, size_t size,
                                 size_t *done)
{
    ssize_t count;

    while (*done < size) {
        count = pwrite(region->write_fd, data + *done, size - *done, (off_t)(region->offset + offset + *done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return mvi_errno_code(errno);
        if (count == 0)
            return MICROVMI_ERROR_VM_GONE;
        *done += (size_t)count;
    }
    return MICROVMI_OK;
}

/* ------------------------------------------------------------------------------------------------ mappings ------- */

/* Whether a file still reaches as far as it did when it was mapped. */
static bool mvi_reaches(int fd, off_t end)
{
    struct stat status;

    return fstat(fd, &status) != 0 || status.st_size >= end;
}

static bool mvi_is_dense(const uint8_t *dense, uint64_t offset)
{
    return __atomic_load_n(&dense[offset >> MVI_CHUNK_SHIFT], __ATOMIC_RELAXED) != 0;
}

/* Where dense chunks end, from `offset` on, `end` at the most. */
static uint64_t mvi_dense_until(const uint8_t *dense, uint64_t offset, uint64_t end)
{
    while (offset < end && mvi_is_dense(dense, offset))
        offset = ((offset >> MVI_CHUNK_SHIFT) + 1) << MVI_CHUNK_SHIFT;
    return offset < end ? offset : end;
}

/* The file has data from `start`, where a chunk begins, to `end`: the chunks that lie within are dense. */
static void mvi_mark_dense(const struct mvi_region *region, uint8_t *dense, uint64_t start, uint64_t end)
{
    size_t chunk = (size_t)(start >> MVI_CHUNK_SHIFT);
    size_t last = end < region->size ? (size_t)(end >> MVI_CHUNK_SHIFT) : mvi_chunks(region);

    for (; chunk < last; chunk++)
        __atomic_store_n(&dense[chunk], 1, __ATOMIC_RELAXED);
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
        mvi_mark_dense(region, dense, start, hole);
        if (hole > offset)
            return hole;
    }
    return (offset >> PAGE_SHIFT << PAGE_SHIFT) + PAGE_SIZE;
}

/*
 * Touching a hole of a mapped file would make the host allocate it: the holes of large reads are not touched. A file
 * that was cut is told from one that ends in a hole.
 */
static int32_t mvi_copy_sparse(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer,
                               size_t size, size_t *done)
{
    uint64_t at = offset, end = offset + size, until, data;

    for (; at < end; at = until) {
        until = mvi_dense_until(dense, at, end);
        if (until == at) {
            data = mvi_seek_file(region, at, SEEK_DATA);
            if (data == UINT64_MAX && errno == ENXIO && !mvi_reaches(region->fd, (off_t)(region->offset + end)))
                return MICROVMI_ERROR_IO;
            if (data != at && (data != UINT64_MAX || errno == ENXIO)) {
                until = data < end ? data : end;
                memset(buffer + (at - offset), 0, (size_t)(until - at));
                *done = (size_t)(until - offset);
                continue;
            }
            until = data == at ? mvi_data_until(region, dense, at) : end; /* else the file system does not tell */
            until = until < end ? until : end;
        }
        memcpy(buffer + (at - offset), region->bytes + at, (size_t)(until - at));
        *done = (size_t)(until - offset);
    }
    return MICROVMI_OK;
}

/* Read a page that is not cached, keep it, and hand out a part. False: that page cannot be read as a whole. */
static bool mvi_fetch(const struct mvi_table *table, const struct mvi_region *region, uint64_t address, uint8_t *buffer,
                      size_t size)
{
    uint64_t page = address >> PAGE_SHIFT, start = page << PAGE_SHIFT, epoch;
    uint8_t bytes[PAGE_SIZE];
    size_t got = 0;

    if (table->cache == NULL || size > PAGE_SIZE - (address - start) || start < region->start ||
        PAGE_SIZE > region->size - (start - region->start))
        return false;
    epoch = mvi_cache_epoch(table->cache);
    if (mvi_process_pread(region, start - region->start, bytes, sizeof bytes, &got) != MICROVMI_OK)
        return false;
    mvi_cache_put(table->cache, epoch, page, bytes);
    memcpy(buffer, bytes + (address - start), size);
    return true;
}

static int32_t mvi_region_read(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer,
                               size_t size, size_t *done)
{
    if (region->bytes == NULL)
        return mvi_process_read(region, offset, buffer, size, done);
    if (size >= MVI_SPARSE_FROM && dense != NULL && mvi_dense_until(dense, offset, offset + size) < offset + size)
        return mvi_copy_sparse(region, dense, offset, buffer, size, done);
    memcpy(buffer, region->bytes + offset, size);
    *done = size;
    return MICROVMI_OK;
}

/* ------------------------------------------------------------------------------------------------ reading -------- */

static size_t mvi_smaller(uint64_t first, uint64_t second)
{
    return (size_t)(first < second ? first : second);
}

static int32_t mvi_read_pieces(const struct mvi_table *table, bool padded, uint64_t address, uint8_t *buffer,
                               size_t size, uint64_t *done)
{
    size_t index = mvi_first(table, address), at = 0, part, got;
    const struct mvi_region *region;
    int32_t code;

    for (; at < size; index++) {
        region = &table->regions[index];
        part = 0; /* of a hole in front of the region */
        if (index == table->count || address + at < address)
            part = size - at;
        else if (region->start > address + at)
            part = mvi_smaller(region->start - address - at, size - at);
        if (part > 0 && !padded)
            break;
        if (part > 0)
            memset(buffer + at, 0, part);
        at += part;
        if (at == size)
            break;
        part = mvi_smaller(region->start + (region->size - 1) - (address + at), size - at - 1) + 1;
        got = 0;
        code = MICROVMI_OK;
        if (region->bytes == NULL && (mvi_cached(table, address + at, buffer + at, part) ||
                                      mvi_fetch(table, region, address + at, buffer + at, part)))
            got = part;
        else
            code = mvi_region_read(region, table->dense[index], address + at - region->start, buffer + at, part, &got);
        at += got;
        if (code != MICROVMI_OK) {
            *done = at;
            return code;
        }
    }
    *done = at;
    return at == size ? MICROVMI_OK : MICROVMI_ERROR_NOT_MAPPED;
}

int32_t mvi_table_read(const struct mvi_table *table, bool padded, uint64_t address, uint8_t *buffer, size_t size,
                       uint64_t *done)
{
    const uint8_t *bytes = size < MVI_SPARSE_FROM ? mvi_table_hit(table, mvi_thread.last_hit, address, size) : NULL;

    if (__builtin_expect(bytes == NULL, 0))
        return mvi_read_pieces(table, padded, address, buffer, size, done);
    memcpy(buffer, bytes, size);
    *done = size;
    return MICROVMI_OK;
}

/* ------------------------------------------------------------------------------------------------ writing -------- */

/* Whether all of a range can be written: 0, or the reason; *ready is how much could be, from the start. */
static int32_t mvi_check_write(const struct mvi_table *table, uint64_t address, size_t size, uint64_t *ready)
{
    size_t index = mvi_first(table, address), at = 0;
    int32_t code = MICROVMI_OK;

    for (; at < size && index < table->count && mvi_holds(&table->regions[index], address + at); index++) {
        const struct mvi_region *region = &table->regions[index];

        *ready = at;
        if (region->kind == MICROVMI_MEMORY_ROM)
            return MICROVMI_ERROR_READ_ONLY;
        if (region->bytes != NULL ? region->writable == NULL : region->write_fd < 0)
            code = MVI_ASK_PYTHON;
        at += mvi_smaller(region->start + (region->size - 1) - (address + at), size - at - 1) + 1;
    }
    *ready = at;
    return at == size ? code : MICROVMI_ERROR_NOT_MAPPED;
}

int32_t mvi_table_write(const struct mvi_table *table, uint64_t address, const uint8_t *data, size_t size,
                        uint64_t *done)
{
    int32_t code = mvi_check_write(table, address, size, done);
    const struct mvi_region *region;
    size_t index, at = 0, part, put;

    if (code != MICROVMI_OK)
        return code;
    for (index = mvi_first(table, address); at < size; index++) {
        region = &table->regions[index];
        part = mvi_smaller(region->start + (region->size - 1) - (address + at), size - at - 1) + 1;
        put = 0;
        if (region->bytes != NULL) {
            memcpy(region->writable + (address + at - region->start), data + at, part);
            put = part;
        } else {
            code = mvi_process_write(region, address + at - region->start, data + at, part, &put);
        }
        at += put;
        if (code != MICROVMI_OK)
            break;
    }
    if (table->cache != NULL)
        mvi_cache_drop(table->cache, address, size);
    *done = at;
    return code;
}

/* ------------------------------------------------------------------------------------------------ batches -------- */

static void mvi_read_one(const struct mvi_table *table, struct microvmi_read_request *request)
{
    request->error = mvi_table_read(table, false, request->physical_address, request->buffer, request->size,
                                    &request->bytes_read);
}

/* The region of another process that holds a whole request, NULL for every other request. */
static const struct mvi_region *mvi_whole_in_process(const struct mvi_table *table,
                                                     const struct microvmi_read_request *request)
{
    size_t index;
    const struct mvi_region *region;

    if (request->size == 0)
        return NULL;
    index = mvi_first(table, request->physical_address);
    if (index == table->count)
        return NULL;
    region = &table->regions[index];
    return region->bytes == NULL && mvi_holds(region, request->physical_address) &&
                   request->size <= region->size - (request->physical_address - region->start)
               ? region
               : NULL;
}

/* As many of `requests` as one process_vm_readv() takes and really read; at least one is done. `vectors` has room for
 * twice as many. */
static size_t mvi_read_together(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count,
                                struct iovec *vectors)
{
    struct iovec *local = vectors, *remote = vectors + count; /* count is at most MVI_IOV_MAX */
    const struct mvi_region *first = mvi_whole_in_process(table, requests), *region = first;
    size_t taken = 0, whole = 0;
    ssize_t got;

    while (region != NULL && region->pid == first->pid) {
        local[taken] = (struct iovec){requests[taken].buffer, requests[taken].size};
        remote[taken] = (struct iovec){
            (void *)(uintptr_t)(region->offset + requests[taken].physical_address - region->start),
            requests[taken].size,
        };
        taken++;
        region = taken < count ? mvi_whole_in_process(table, &requests[taken]) : NULL;
    }
    got = taken > 1 ? process_vm_readv(first->pid, local, taken, remote, taken, 0) : 0;
    if (got > 0 && mvi_has_ended(first))
        got = 0;
    for (; whole < taken && got >= (ssize_t)requests[whole].size; whole++) {
        got -= (ssize_t)requests[whole].size;
        requests[whole].bytes_read = requests[whole].size;
        requests[whole].error = MICROVMI_OK;
    }
    if (whole == 0) {
        mvi_read_one(table, requests);
        whole = 1;
    }
    return whole;
}

bool mvi_table_read_batch(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count)
{
    size_t room = mvi_smaller(count, MVI_IOV_MAX), index = 0, end;
    struct iovec *vectors = NULL;
    bool all = true;

    while (index < count) {
        end = index + 1;
        if (mvi_whole_in_process(table, &requests[index]) == NULL)
            mvi_read_one(table, &requests[index]);
        else if (vectors == NULL && (vectors = malloc(2 * room * sizeof *vectors)) == NULL)
            mvi_read_one(table, &requests[index]);
        else
            end = index + mvi_read_together(table, &requests[index], mvi_smaller(count - index, room), vectors);
        for (; index < end; index++)
            all = all && requests[index].error == MICROVMI_OK;
    }
    free(vectors);
    return all;
}

/* ------------------------------------------------------------------------------------------------ data, holes ---- */

/* Where data (or a hole) begins in a region, from `offset` on; its size if there is none. */
static uint64_t mvi_region_find(const struct mvi_region *region, uint64_t offset, bool hole)
{
    off_t found;

    if (region->bytes == NULL || region->fd < 0)
        return hole ? region->size : offset;
    found = lseek(region->fd, (off_t)(region->offset + offset), hole ? SEEK_HOLE : SEEK_DATA);
    if (found < 0)
        return errno == ENXIO || hole ? region->size : offset;
    return (uint64_t)found - region->offset < region->size ? (uint64_t)found - region->offset : region->size;
}

uint64_t mvi_table_find(const struct mvi_table *table, uint64_t address, bool hole)
{
    size_t index = mvi_first(table, address);
    const struct mvi_region *region;
    uint64_t found;

    for (; index < table->count && address < table->max_address; index++) {
        region = &table->regions[index];
        if (region->start > address) {
            if (hole)
                return address;
            address = region->start;
        }
        found = mvi_region_find(region, address - region->start, hole);
        address = region->start + found;
        if (found < region->size)
            break;
    }
    return address < table->max_address && (hole || index < table->count) ? address : table->max_address;
}

void mvi_describe(int32_t code, uint64_t address, size_t size, uint64_t done, char *text, size_t room)
{
    const char *cause = "the memory could not be accessed";

    switch (code) {
    case MICROVMI_ERROR_NOT_MAPPED:
        cause = "no memory";
        break;
    case MICROVMI_ERROR_READ_ONLY:
        cause = "read-only memory";
        break;
    case MICROVMI_ERROR_PERMISSION:
        cause = "the operating system refused access";
        break;
    case MICROVMI_ERROR_VM_GONE:
        cause = "the process of the machine ended";
        break;
    default:
        break;
    }
    snprintf(text, room, "%s at physical address %#" PRIx64 " (%" PRIu64 " of %zu bytes before it)", cause,
             address + done, done, size);
}

/* ------------------------------------------------------------------------------------------------ cursors -------- */

struct mvi_cursor {
    pthread_mutex_t lock;
    uint64_t position;
};

struct mvi_cursor *mvi_cursor_new(void)
{
    struct mvi_cursor *cursor = malloc(sizeof *cursor);

    if (cursor != NULL) {
        pthread_mutex_init(&cursor->lock, NULL);
        cursor->position = 0;
    }
    return cursor;
}

void mvi_cursor_free(struct mvi_cursor *cursor)
{
    pthread_mutex_destroy(&cursor->lock);
    free(cursor);
}

void mvi_cursor_lock(struct mvi_cursor *cursor)
{
    pthread_mutex_lock(&cursor->lock);
}

void mvi_cursor_unlock(struct mvi_cursor *cursor)
{
    pthread_mutex_unlock(&cursor->lock);
}

uint64_t mvi_cursor_get(const struct mvi_cursor *cursor)
{
    return __atomic_load_n(&cursor->position, __ATOMIC_RELAXED);
}

void mvi_cursor_set(struct mvi_cursor *cursor, uint64_t position)
{
    __atomic_store_n(&cursor->position, position, __ATOMIC_RELAXED);
}

/* `from` moved by `offset`, not below 0 and not above `maximum`. */
static uint64_t mvi_moved(uint64_t from, int64_t offset, uint64_t maximum)
{
    uint64_t distance = offset < 0 ? (uint64_t)0 - (uint64_t)offset : (uint64_t)offset;

    if (offset < 0)
        from = from > distance ? from - distance : 0;
    else
        from = from + distance < from ? maximum : from + distance;
    return from < maximum ? from : maximum;
}

int32_t mvi_stream_seek(struct mvi_cursor *cursor, const struct mvi_table *table, int64_t offset, int32_t whence,
                        uint64_t *position)
{
    uint64_t maximum = table->max_address, start = mvi_moved(0, offset, maximum);
    int32_t code = MICROVMI_OK;

    if (whence == SEEK_DATA || whence == SEEK_HOLE)
        start = mvi_table_find(table, start, whence == SEEK_HOLE);
    mvi_cursor_lock(cursor);
    if (whence == SEEK_CUR)
        start = mvi_moved(mvi_cursor_get(cursor), offset, maximum);
    else if (whence == SEEK_END)
        start = mvi_moved(maximum, offset, maximum);
    else if (whence != SEEK_SET && whence != SEEK_DATA && whence != SEEK_HOLE)
        code = MICROVMI_ERROR_INVALID_ARGUMENT;
    if (code == MICROVMI_OK)
        mvi_cursor_set(cursor, start);
    *position = mvi_cursor_get(cursor);
    mvi_cursor_unlock(cursor);
    return code;
}

int32_t mvi_stream_read(struct mvi_cursor *cursor, const struct mvi_table *table, bool padded, uint8_t *buffer,
                        size_t size, uint64_t *position, uint64_t *done)
{
    int32_t code;

    mvi_cursor_lock(cursor);
    *position = mvi_cursor_get(cursor);
    size = *position < table->max_address ? mvi_smaller(size, table->max_address - *position) : 0;
    code = mvi_table_read(table, padded, *position, buffer, size, done);
    mvi_cursor_set(cursor, *position + *done);
    mvi_cursor_unlock(cursor);
    return code == MICROVMI_ERROR_NOT_MAPPED && *done > 0 ? MICROVMI_OK : code;
}

static __thread struct {
    uint64_t position, done;
} mvi_stream_failed;

int64_t mvi_stream_take(struct mvi_cursor *cursor, const struct mvi_table *table, bool padded, uint8_t *buffer,
                        size_t size)
{
    uint64_t position, done = 0;
    int32_t code = mvi_stream_read(cursor, table, padded, buffer, size, &position, &done);

    if (code == MICROVMI_OK)
        return (int64_t)done;
    mvi_stream_failed.position = position;
    mvi_stream_failed.done = done;
    return -(int64_t)code;
}

void mvi_stream_failure(uint64_t *position, uint64_t *done)
{
    *position = mvi_stream_failed.position;
    *done = mvi_stream_failed.done;
}

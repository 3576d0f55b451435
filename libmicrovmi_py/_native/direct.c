/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory that can be reached directly: the one walk over regions, for C callers and for the Python classes. */
#include "cache.h"
#include "look.h"
#include "pagemap.h"
#include "process.h"
#include "sparse.h"
#include "table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* What the kernel takes in one call (IOV_MAX). */
#define MVI_IOV_MAX 1024

/* So much is read at once: a look at the machine, or at the length of a file, is then never long ago. */
#define MVI_PIECE ((size_t)32 << 20)

/* ------------------------------------------------------------------------------------------------ reading -------- */

/* Read a page that is not cached, keep it, and hand out a part. False: that page cannot be read as a whole. */
static bool mvi_fetch(const struct mvi_table *table, const struct mvi_region *region, uint64_t address, uint8_t *buffer,
                      size_t size)
{
    uint64_t start = address >> PAGE_SHIFT << PAGE_SHIFT, epoch;
    uint8_t bytes[PAGE_SIZE];
    size_t got = 0;

    if (table->cache == NULL || size > PAGE_SIZE - (address - start) || start < region->start ||
        PAGE_SIZE > region->size - (start - region->start))
        return false;
    epoch = mvi_cache_epoch(table->cache);
    if (mvi_process_pread(region, start - region->start, bytes, sizeof bytes, &got) != MICROVMI_OK ||
        (mvi_is_process(region) && mvi_has_ended(region)) || mvi_has_moved(region))
        return false;
    mvi_cache_keep(table->cache, epoch, bytes, address, buffer, size);
    return true;
}

/* What was read of a process that has ended meanwhile is nothing: its memory may be kept, its number another one's. Nor
 * is what was read where something else may be by now. */
static int32_t mvi_read_process(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer,
                                size_t size, size_t *done)
{
    int32_t code = size >= MVI_SPARSE_FROM && dense != NULL
                       ? mvi_process_read_touched(region, dense, offset, buffer, size, done)
                       : mvi_process_read(region, offset, buffer, size, done);

    if (code == MICROVMI_ERROR_VM_GONE || mvi_has_ended(region))
        code = MICROVMI_ERROR_VM_GONE;
    else if (mvi_has_moved(region))
        code = MICROVMI_ERROR_IO;
    else
        return code;
    *done = 0;
    return code;
}

/* A mapping: a large read looks at its holes, and whether the file still is as long. */
static int32_t mvi_read_mapping(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer,
                                size_t size, size_t *done)
{
    size_t there = size >= MVI_SPARSE_FROM ? mvi_still_there(region, offset, size) : size;

    if (region->image && dense != NULL && size < MVI_SPARSE_FROM)
        return mvi_read_image(region, dense, offset, buffer, size, done);
    if (there == size && size >= MVI_SPARSE_FROM && dense != NULL &&
        mvi_dense_until(dense, offset, offset + size) < offset + size)
        return mvi_copy_sparse(region, dense, offset, buffer, size, done);
    memcpy(buffer, region->bytes + offset, there);
    *done = there;
    return there == size ? MICROVMI_OK : MICROVMI_ERROR_IO;
}

int32_t mvi_region_read(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint8_t *buffer, size_t size,
                        size_t *done)
{
    if (region->bytes != NULL)
        return mvi_read_mapping(region, dense, offset, buffer, size, done);
    return mvi_is_process(region) ? mvi_read_process(region, dense, offset, buffer, size, done)
                                  : mvi_process_pread(region, offset, buffer, size, done);
}

/* The part of an access that a region holds, of `left` bytes from one of its addresses on. */
static inline size_t mvi_part(const struct mvi_region *region, uint64_t address, size_t left)
{
    return mvi_smaller(region->size - 1 - (address - region->start), left - 1) + 1;
}

static int32_t mvi_read_pieces(const struct mvi_table *table, bool padded, uint64_t address, uint8_t *buffer,
                               size_t size, uint64_t *done)
{
    size_t index = mvi_first(table, address), at = 0, part, got;
    const struct mvi_region *region;
    int32_t code;

    for (; at < size; index += index < table->count && mvi_last(&table->regions[index]) < address + at) {
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
        part = mvi_smaller(mvi_part(region, address + at, size - at), MVI_PIECE);
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

static int32_t mvi_read_slowly(const struct mvi_table *table, bool padded, uint64_t address, uint8_t *buffer,
                               size_t size, uint64_t *done)
{
    if (!table->by_frames)
        return mvi_read_pieces(table, padded, address, buffer, size, done);
    *done = mvi_frames_read(table, address, buffer, size);
    return *done == size ? MICROVMI_OK : MVI_ASK_PYTHON;
}

int32_t mvi_table_read(const struct mvi_table *table, bool padded, uint64_t address, uint8_t *buffer, size_t size,
                       uint64_t *done)
{
    const uint8_t *bytes = size < MVI_SPARSE_FROM ? mvi_table_hit(table, mvi_thread.last_hit, address, size) : NULL;

    if (__builtin_expect(bytes == NULL || size == 0, 0)) /* of nothing there may be no buffer */
        return mvi_read_slowly(table, padded, address, buffer, size, done);
    memcpy(buffer, bytes, size);
    *done = size;
    return MICROVMI_OK;
}

/* ------------------------------------------------------------------------------------------------ writing -------- */

int32_t mvi_check_write(const struct mvi_table *table, uint64_t address, size_t size, bool checked, uint64_t *ready)
{
    size_t index = mvi_first(table, address), at = 0;
    int32_t code = MICROVMI_OK;

    for (; at < size && index < table->count && mvi_holds(&table->regions[index], address + at); index++) {
        const struct mvi_region *region = &table->regions[index];

        *ready = at;
        if (region->kind == MICROVMI_MEMORY_ROM)
            return MICROVMI_ERROR_READ_ONLY;
        if (region->pidfd >= 0 && mvi_has_ended(region))
            return MICROVMI_ERROR_VM_GONE;
        if (checked && mvi_has_moved(region))
            return MICROVMI_ERROR_IO;
        if ((region->bytes != NULL ? region->writable == NULL : region->write_fd < 0) || (region->unsteady && !checked))
            code = MVI_ASK_PYTHON;
        at += mvi_part(region, address + at, size - at);
    }
    *ready = at;
    return at == size ? code : MICROVMI_ERROR_NOT_MAPPED;
}

int32_t mvi_table_write(const struct mvi_table *table, uint64_t address, const uint8_t *data, size_t size, bool checked,
                        uint64_t *done)
{
    int32_t code = mvi_check_write(table, address, size, checked, done);
    const struct mvi_region *region;
    size_t index, at = 0, part, put;

    if (code != MICROVMI_OK)
        return code;
    for (index = mvi_first(table, address); at < size; index++) {
        region = &table->regions[index];
        part = mvi_part(region, address + at, size - at);
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
    if (table->lasts)
        mvi_table_flush(table);
    *done = at;
    return code;
}

/* ------------------------------------------------------------------------------------------------ batches -------- */

static void mvi_read_one(const struct mvi_table *table, struct microvmi_read_request *request)
{
    request->error =
        mvi_table_read(table, false, request->physical_address, request->buffer, request->size, &request->bytes_read);
}

const struct mvi_region *mvi_whole_in_process(const struct mvi_table *table, uint64_t address, size_t size)
{
    size_t index;
    const struct mvi_region *region;

    if (size == 0)
        return NULL;
    index = mvi_first(table, address);
    if (index == table->count)
        return NULL;
    region = &table->regions[index];
    return mvi_is_process(region) && !region->arriving && region->mapping == NULL && mvi_holds(region, address) &&
                   size <= region->size - (address - region->start)
               ? region
               : NULL;
}

static const struct mvi_region *mvi_request_in_process(const struct mvi_table *table,
                                                       const struct microvmi_read_request *request)
{
    return mvi_whole_in_process(table, request->physical_address, request->size);
}

/* As many of `requests` as one process_vm_readv() takes and really read; at least one is done. `vectors` has room for
 * twice as many. */
static size_t mvi_read_together(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count,
                                struct iovec *vectors)
{
    struct iovec *local = vectors, *remote = vectors + count; /* count is at most MVI_IOV_MAX */
    const struct mvi_region *first = mvi_request_in_process(table, requests), *region = first;
    size_t taken = 0, whole = 0;
    ssize_t got;

    while (region != NULL && region->pid == first->pid && region->pidfd == first->pidfd) {
        local[taken] = (struct iovec){requests[taken].buffer, requests[taken].size};
        remote[taken] = (struct iovec){
            (void *)(uintptr_t)(region->offset + requests[taken].physical_address - region->start),
            requests[taken].size,
        };
        taken++;
        region = taken < count ? mvi_request_in_process(table, &requests[taken]) : NULL;
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

size_t mvi_table_read_some(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count)
{
    size_t room = mvi_smaller(count, MVI_IOV_MAX), index = 0, end;
    struct iovec *vectors = NULL;
    bool all = true;

    while (all && index < count) {
        end = index + 1;
        if (mvi_request_in_process(table, &requests[index]) == NULL)
            mvi_read_one(table, &requests[index]);
        else if (vectors == NULL && (vectors = malloc(2 * room * sizeof *vectors)) == NULL)
            mvi_read_one(table, &requests[index]);
        else
            end = index + mvi_read_together(table, &requests[index], mvi_smaller(count - index, room), vectors);
        for (; index < end; index++)
            all = all && requests[index].error == MICROVMI_OK;
    }
    free(vectors);
    return index;
}

bool mvi_table_read_batch(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count)
{
    bool all = true;
    size_t index = 0;

    while (index < count) {
        index += mvi_table_read_some(table, &requests[index], count - index);
        all = all && requests[index - 1].error == MICROVMI_OK;
    }
    return all;
}

/* ------------------------------------------------------------------------------------------------ data, holes ---- */

uint64_t mvi_region_find(const struct mvi_region *region, uint8_t *dense, uint64_t offset, uint64_t end, bool hole)
{
    off_t found;

    if (mvi_is_process(region) && dense != NULL)
        return mvi_touched_find(region, dense, offset, end, hole);
    if (mvi_is_process(region) || region->fd < 0)
        return hole ? end : offset;
    found = lseek(region->fd, (off_t)(region->offset + offset), hole ? SEEK_HOLE : SEEK_DATA);
    if (found < 0)
        return errno == ENXIO || hole ? end : offset;
    return (uint64_t)found - region->offset < end ? (uint64_t)found - region->offset : end;
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
        found = mvi_region_find(region, table->dense[index], address - region->start, region->size, hole);
        address = region->start + found;
        if (found < region->size)
            break;
    }
    return address < table->max_address && (hole || index < table->count) ? address : table->max_address;
}

uint64_t mvi_table_data(const struct mvi_table *table, uint64_t address, uint64_t end)
{
    size_t index = mvi_first(table, address);
    const struct mvi_region *region;
    uint64_t offset, until;

    if (index == table->count || !mvi_holds(&table->regions[index], address))
        return address;
    region = &table->regions[index];
    offset = address - region->start;
    until = mvi_region_find(region, table->dense[index], offset, mvi_smaller(region->size, end - region->start), false);
    if (until > offset && !mvi_is_process(region) && mvi_still_there(region, offset, until - offset) < until - offset)
        return address; /* no hole, but the end of a file that was cut: a read tells so */
    return region->start + until;
}

const char *mvi_cause(int32_t code)
{
    switch (code) {
    case MICROVMI_ERROR_NOT_MAPPED:
        return "no memory";
    case MICROVMI_ERROR_READ_ONLY:
        return "read-only memory";
    case MICROVMI_ERROR_PERMISSION:
        return "the operating system refused access";
    case MICROVMI_ERROR_VM_GONE:
        return "the machine ended or was migrated away";
    default:
        return "the memory could not be accessed (its file became shorter, it was unplugged, a migration has yet to "
               "bring it, or "
               "a background snapshot has yet to save it)";
    }
}

void mvi_describe(int32_t code, uint64_t address, size_t size, uint64_t done, char *text, size_t room)
{
    snprintf(text, room, "%s at physical address %#" PRIx64 " (%" PRIu64 " of %zu bytes before it)", mvi_cause(code),
             address + done, done, size);
}

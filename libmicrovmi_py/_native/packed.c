/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacking pages of a dump. What the file says is compared with what there is before it is used: a descriptor may have
 * been changed since the file was opened, and was perhaps never looked at.
 */
#include "pages.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MVI_WINDOW ((size_t)128 << 10) /* bytes of the image that are read at once for pages that follow each other */
#define MVI_DESCRIPTORS ((size_t)64)   /* so many of them are read at once */
#define MVI_LARGEST_PAGE ((size_t)1 << 16)
#define MVI_WORKERS 8 /* so many threads find what they need ready */

/* What one read at a time needs. */
struct mvi_worker {
    void *context;  /* of zstd; NULL until it is needed */
    uint64_t held;  /* the page in `page`, and 1, if it has several frames; 0: none */
    uint64_t begin; /* where in the image the bytes in `window` are */
    size_t there;   /* how many of them there are */
    uint8_t window[MVI_WINDOW];
    uint8_t page[MVI_LARGEST_PAGE];
};

struct mvi_packed {
    struct mvi_packing packing;
    struct mvi_codec codecs[MVI_MOST_CODECS];
    struct mvi_worker *workers[MVI_WORKERS]; /* those that nobody uses; atomic */
};

typedef int (*mvi_zlib)(uint8_t *out, unsigned long *room, const uint8_t *in, unsigned long size);
typedef int (*mvi_lzo)(const uint8_t *in, size_t size, uint8_t *out, size_t *room, void *unused);
typedef int (*mvi_snappy)(const uint8_t *in, size_t size, uint8_t *out, size_t *room);
typedef size_t (*mvi_zstd)(void *context, uint8_t *out, size_t room, const uint8_t *in, size_t size);
typedef void *(*mvi_zstd_make)(void);
typedef size_t (*mvi_zstd_end)(void *context);

struct mvi_packed *mvi_packed_new(const struct mvi_packing *packing)
{
    struct mvi_packed *packed;

    if (packing->codec_count > MVI_MOST_CODECS || packing->page_shift < 12 ||
        (size_t)1 << packing->page_shift > MVI_LARGEST_PAGE)
        return NULL;
    packed = calloc(1, sizeof *packed);
    if (packed == NULL)
        return NULL;
    packed->packing = *packing;
    memcpy(packed->codecs, packing->codecs, packing->codec_count * sizeof *packing->codecs);
    return packed;
}

/* ------------------------------------------------------------------------------------------------ workers -------- */

static const struct mvi_codec *mvi_codec_of(const struct mvi_packed *packed, uint32_t flag)
{
    size_t i;

    for (i = 0; i < packed->packing.codec_count; i++)
        if (packed->codecs[i].flag == flag)
            return &packed->codecs[i];
    return NULL;
}

static void mvi_worker_end(const struct mvi_packed *packed, struct mvi_worker *worker)
{
    size_t i;

    for (i = 0; worker->context != NULL && i < packed->packing.codec_count; i++)
        if (packed->codecs[i].end != 0)
            (void)((mvi_zstd_end)(uintptr_t)packed->codecs[i].end)(worker->context);
    free(worker);
}

void mvi_packed_free(struct mvi_packed *packed)
{
    size_t i;

    if (packed == NULL)
        return;
    for (i = 0; i < MVI_WORKERS; i++)
        if (packed->workers[i] != NULL)
            mvi_worker_end(packed, packed->workers[i]);
    free(packed);
}

static struct mvi_worker *mvi_worker_take(struct mvi_packed *packed)
{
    struct mvi_worker *worker = NULL;
    size_t i;

    for (i = 0; i < MVI_WORKERS && worker == NULL; i++)
        worker = __atomic_exchange_n(&packed->workers[i], NULL, __ATOMIC_ACQUIRE);
    if (worker != NULL)
        return worker;
    worker = malloc(sizeof *worker);
    if (worker != NULL) {
        worker->context = NULL;
        worker->held = worker->there = 0;
    }
    return worker;
}

static void mvi_worker_give(struct mvi_packed *packed, struct mvi_worker *worker)
{
    struct mvi_worker *none;
    size_t i;

    for (i = 0; i < MVI_WORKERS; i++) {
        none = NULL;
        if (__atomic_compare_exchange_n(&packed->workers[i], &none, worker, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
    }
    mvi_worker_end(packed, worker);
}

/* ------------------------------------------------------------------------------------------------ the image ------ */

/* The last of ascending numbers that is at most `value`; `count` if none is. */
static size_t mvi_last_before(const uint64_t *numbers, size_t stride, size_t count, uint64_t value)
{
    size_t low = 0, high = count, middle;

    while (low < high) {
        middle = low + (high - low) / 2;
        if (numbers[middle * stride] <= value)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? count : low - 1;
}

static bool mvi_pread_all(int fd, uint64_t offset, uint8_t *buffer, size_t size)
{
    ssize_t got;

    for (; size > 0; buffer += got, offset += (uint64_t)got, size -= (size_t)got) {
        got = pread(fd, buffer, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            return false;
    }
    return true;
}

/* Read bytes of the image; how many are there, up to `size`. */
static size_t mvi_image_read(const struct mvi_packed *packed, uint64_t offset, uint8_t *buffer, size_t size)
{
    const struct mvi_packing *packing = &packed->packing;
    const struct mvi_image_part *part;
    size_t index = mvi_last_before(&packing->parts[0].start, 4, packing->part_count, offset), done = 0, length;

    for (; done < size && index < packing->part_count; done += length, index++) {
        part = &packing->parts[index];
        if (offset + done < part->start || offset + done >= part->end)
            break;
        length = part->end - (offset + done) < size - done ? (size_t)(part->end - (offset + done)) : size - done;
        if (!mvi_pread_all((int)part->fd, part->offset + (offset + done - part->start), buffer + done, length))
            break;
    }
    return done;
}

/* Bytes of the image, at most MVI_WINDOW: at least `ahead` are read where they are not there yet, as they are wanted next.
 * NULL: they are not there. */
static const uint8_t *mvi_image_bytes(const struct mvi_packed *packed, struct mvi_worker *worker, uint64_t offset,
                                      size_t size, size_t ahead)
{
    uint64_t at = offset - worker->begin;

    if (at <= worker->there && size <= worker->there - at)
        return worker->window + at;
    if (size > MVI_WINDOW)
        return NULL;
    ahead = ahead < size ? size : ahead;
    worker->begin = offset;
    worker->there = mvi_image_read(packed, offset, worker->window, ahead < MVI_WINDOW ? ahead : MVI_WINDOW);
    return size <= worker->there ? worker->window : NULL;
}

/* ------------------------------------------------------------------------------------------------ pages ---------- */

static size_t mvi_page_size(const struct mvi_packed *packed)
{
    return (size_t)1 << packed->packing.page_shift;
}

static bool mvi_unpack(struct mvi_worker *worker, const struct mvi_codec *codec, const uint8_t *in, size_t size,
                       size_t room)
{
    void *function = (void *)(uintptr_t)codec->function;
    unsigned long long_room = room;
    size_t made = room;

    switch (codec->call) {
    case MVI_CODEC_ZLIB:
        return ((mvi_zlib)function)(worker->page, &long_room, in, size) == 0 && long_room == room;
    case MVI_CODEC_LZO:
        return ((mvi_lzo)function)(in, size, worker->page, &made, NULL) == 0 && made == room;
    case MVI_CODEC_SNAPPY:
        return ((mvi_snappy)function)(in, size, worker->page, &made) == 0 && made == room;
    default:
        if (worker->context == NULL)
            worker->context = ((mvi_zstd_make)(uintptr_t)codec->make)();
        return worker->context != NULL && ((mvi_zstd)function)(worker->context, worker->page, room, in, size) == room;
    }
}

/* The bytes of a page; NULL for one that cannot be had here. `ahead`: what of the image is read at once. */
static const uint8_t *mvi_page(const struct mvi_packed *packed, struct mvi_worker *worker, uint64_t index,
                               const struct mvi_descriptor *descriptor, size_t ahead)
{
    const struct mvi_codec *codec = mvi_codec_of(packed, descriptor->flag);
    size_t room = mvi_page_size(packed);
    const uint8_t *in;

    if (worker->held == index + 1)
        return worker->page;
    if (descriptor->size > room || (descriptor->flag == 0 && descriptor->size != room) ||
        (descriptor->flag != 0 && codec == NULL))
        return NULL;
    in = mvi_image_bytes(packed, worker, descriptor->offset, descriptor->size, ahead);
    if (in == NULL || descriptor->flag == 0)
        return in;
    worker->held = 0;
    if (!mvi_unpack(worker, codec, in, descriptor->size, room))
        return NULL;
    worker->held = room > PAGE_SIZE ? index + 1 : 0; /* kept frames are the cache's */
    return worker->page;
}

/* ------------------------------------------------------------------------------------------------ where they are - */

/* What an entry says, as a descriptor. False: that is Python's. */
static bool mvi_entry_descriptor(const struct mvi_packed *packed, uint64_t entry, struct mvi_descriptor *descriptor)
{
    uint8_t size[4];

    *descriptor = (struct mvi_descriptor){.offset = entry >> 3};
    if ((entry & 7) == MVI_ENTRY_AS_IT_IS) {
        descriptor->size = (uint32_t)mvi_page_size(packed);
        return true;
    }
    if ((entry & 7) != MVI_ENTRY_PACKED || packed->packing.codec_count == 0 ||
        mvi_image_read(packed, descriptor->offset, size, sizeof size) != sizeof size)
        return false;
    descriptor->offset += sizeof size;
    descriptor->size = (uint32_t)size[0] << 24 | (uint32_t)size[1] << 16 | (uint32_t)size[2] << 8 | size[3];
    descriptor->flag = packed->codecs[0].flag;
    return true;
}

/* The bytes of the page of an entry. */
static const uint8_t *mvi_entry_page(const struct mvi_packed *packed, struct mvi_worker *worker, uint64_t index,
                                     size_t ahead)
{
    uint64_t entry = index < packed->packing.entry_count ? packed->packing.entries[index] : 0;
    struct mvi_descriptor descriptor;

    if ((entry & 7) == MVI_ENTRY_BYTE) {
        worker->held = 0;
        return memset(worker->page, (int)(entry >> 3 & 0xff), mvi_page_size(packed));
    }
    return mvi_entry_descriptor(packed, entry, &descriptor) ? mvi_page(packed, worker, index, &descriptor, ahead)
                                                            : NULL;
}

/* The run that a page is in; the number of runs if it is in none. */
static size_t mvi_run_of(const struct mvi_packing *packing, uint64_t page)
{
    size_t run = mvi_last_before(packing->starts, 1, packing->runs, page);

    return run < packing->runs && page < packing->ends[run] ? run : packing->runs;
}

/* Read of pages that follow each other in their run too, MVI_DESCRIPTORS at the most; how many bytes. */
static size_t mvi_read_some(const struct mvi_packed *packed, struct mvi_worker *worker, uint64_t address,
                            uint8_t *buffer, size_t size)
{
    const struct mvi_packing *packing = &packed->packing;
    uint64_t page = address >> packing->page_shift, index;
    size_t room = mvi_page_size(packed), begin = address & (room - 1), run = mvi_run_of(packing, page), done = 0;
    size_t wanted = (begin + size - 1) / room + 1, count, i, part;
    struct mvi_descriptor descriptors[MVI_DESCRIPTORS];
    const uint8_t *bytes;

    if (run == packing->runs)
        return 0;
    index = packing->indices[run] + (page - packing->starts[run]);
    count = wanted < MVI_DESCRIPTORS ? wanted : MVI_DESCRIPTORS;
    count = packing->ends[run] - page < count ? (size_t)(packing->ends[run] - page) : count;
    if (packing->entries == NULL) {
        part = mvi_image_read(packed, packing->table + index * sizeof *descriptors, (uint8_t *)descriptors,
                              count * sizeof *descriptors);
        count = part / sizeof *descriptors;
    }
    for (i = 0; i < count; i++, begin = 0, done += part) {
        part = wanted > 1 ? (count - i) * room : 0;
        bytes = packing->entries == NULL ? mvi_page(packed, worker, index + i, &descriptors[i], part)
                                         : mvi_entry_page(packed, worker, index + i, part);
        if (bytes == NULL)
            break;
        part = room - begin < size - done ? room - begin : size - done;
        memcpy(buffer + done, bytes + begin, part);
    }
    return done;
}

size_t mvi_packed_read(struct mvi_packed *packed, uint64_t address, uint8_t *buffer, size_t size)
{
    struct mvi_worker *worker = mvi_worker_take(packed);
    size_t done = 0, part;

    if (worker == NULL)
        return 0;
    worker->there = 0; /* what was read ahead is not for the next call: the file may have been cut */
    do {
        part = size > done ? mvi_read_some(packed, worker, address + done, buffer + done, size - done) : 0;
        done += part;
    } while (part > 0);
    mvi_worker_give(packed, worker);
    return done;
}

int mvi_packed_fill(void *handle, unsigned long long address, void *buffer, size_t size)
{
    const struct mvi_packing *packing = &((struct mvi_packed *)handle)->packing;
    uint64_t page = address >> packing->page_shift, last = (address + (size - 1)) >> packing->page_shift;
    size_t run;

    for (; size > 0 && page <= last; page = packing->ends[run]) {
        run = mvi_run_of(packing, page);
        if (run == packing->runs)
            return -1;
    }
    return mvi_packed_read(handle, address, buffer, size) == size ? 0 : -1;
}

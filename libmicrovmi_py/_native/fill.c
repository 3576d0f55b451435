/* SPDX-License-Identifier: Apache-2.0 */
/* Copying memory into the copy of a snapshot; see fill.h. */
#include "copying.h"
#include "look.h"
#include "pagemap.h"

#include "fill.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

/* What a thread takes at a time: whole chunks, so that two are never at work on the same. */
#define MVI_FILL_PIECE (UINT64_C(2) << 20)
#define MVI_FILL_THREADS 64
#define MVI_FILL_STACK ((size_t)256 << 10)

struct mvi_fill {
    const struct mvi_table *table;
    struct mvi_copy *copy;
    const struct mvi_fill_part *parts;
    size_t count;
    uint64_t next; /* the piece that nobody has taken yet; atomic, as are the others below */
    uint64_t done; /* bytes that were looked at */
    int32_t state; /* MICROVMI_OK, or the code of the first failure; with it the others stop */
    int32_t failed;
    uint64_t address;
    size_t running;
    pthread_t threads[MVI_FILL_THREADS];
};

/* The first failure is told. */
static void mvi_fill_fail(struct mvi_fill *fill, int32_t code, int32_t failed, uint64_t address)
{
    int32_t none = MICROVMI_OK;

    if (!__atomic_compare_exchange_n(&fill->state, &none, code, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    fill->failed = failed; /* read after the threads were joined */
    fill->address = address;
}

static bool mvi_fill_goes_on(const struct mvi_fill *fill)
{
    return __atomic_load_n(&fill->state, __ATOMIC_RELAXED) == MICROVMI_OK;
}

/* How far chunks of which all pages are there reach, from an offset on. */
static uint64_t mvi_full_until(const struct mvi_copy *copy, uint64_t offset, uint64_t end)
{
    uint64_t until = offset;

    while (until < end && copy->pages[until / MVI_CHUNK] == UINT16_MAX)
        until = (until / MVI_CHUNK + 1) * MVI_CHUNK;
    return until < end ? until : end;
}

static bool mvi_fill_read(struct mvi_fill *fill, uint64_t address, uint8_t *buffer, size_t size)
{
    uint64_t done = 0;
    int32_t code = mvi_table_read(fill->table, false, address, buffer, size, &done);

    if (code != MICROVMI_OK)
        mvi_fill_fail(fill, code, 0, address + done);
    return code == MICROVMI_OK;
}

/* A chunk, or a part of one, of which not all pages are there: what holds nothing is not to take memory. */
static bool mvi_fill_chunk(struct mvi_fill *fill, uint8_t *scratch, uint64_t address, uint64_t offset, size_t size)
{
    int32_t failed;

    if (!mvi_fill_read(fill, address, scratch, size))
        return false;
    failed = mvi_copy_store(fill->copy, offset, scratch, size);
    if (failed != 0)
        mvi_fill_fail(fill, MICROVMI_ERROR_IO, failed, address);
    return failed == 0;
}

/* A range that one part holds. */
static void mvi_fill_range(struct mvi_fill *fill, uint8_t *scratch, uint64_t address, uint64_t offset, uint64_t end)
{
    uint64_t until, distance = address - offset;
    bool goes_on = true;

    for (; goes_on && offset < end; offset = until) {
        until = mvi_full_until(fill->copy, offset, end);
        if (until > offset) {
            goes_on = mvi_fill_read(fill, offset + distance, fill->copy->bytes + offset, (size_t)(until - offset));
            continue;
        }
        until = mvi_table_data(fill->table, offset + distance, end + distance) - distance;
        if (until > offset) {
            mvi_copy_clear(fill->copy, offset, until - offset);
            continue;
        }
        until = (offset / MVI_CHUNK + 1) * MVI_CHUNK;
        until = until < end ? until : end;
        goes_on = mvi_fill_chunk(fill, scratch, offset + distance, offset, (size_t)(until - offset));
    }
}

/* The first part that ends behind an offset of the copy. */
static size_t mvi_fill_find(const struct mvi_fill *fill, uint64_t offset)
{
    size_t low = 0, high = fill->count, middle;

    while (low < high) {
        middle = low + (high - low) / 2;
        if (fill->parts[middle].offset + fill->parts[middle].size <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void mvi_fill_piece(struct mvi_fill *fill, uint8_t *scratch, uint64_t start)
{
    uint64_t end = start + MVI_FILL_PIECE, from, to;
    size_t index = mvi_fill_find(fill, start);
    const struct mvi_fill_part *part;

    for (; index < fill->count && fill->parts[index].offset < end && mvi_fill_goes_on(fill); index++) {
        part = &fill->parts[index];
        from = part->offset > start ? part->offset : start;
        to = part->offset + part->size < end ? part->offset + part->size : end;
        mvi_fill_range(fill, scratch, part->address + (from - part->offset), from, to);
        __atomic_add_fetch(&fill->done, to - from, __ATOMIC_RELAXED);
    }
}

/* Take pieces until there are none, or the time is over. True: there are none. */
static bool mvi_fill_pieces(struct mvi_fill *fill, int64_t until)
{
    uint8_t *scratch = malloc(MVI_CHUNK);
    bool left = true;
    uint64_t start;

    if (scratch == NULL)
        mvi_fill_fail(fill, MICROVMI_ERROR_IO, ENOMEM, 0);
    while (left && mvi_fill_goes_on(fill) && mvi_clock(CLOCK_MONOTONIC) < until) {
        start = __atomic_fetch_add(&fill->next, MVI_FILL_PIECE, __ATOMIC_RELAXED);
        left = start < fill->copy->size;
        if (left)
            mvi_fill_piece(fill, scratch, start);
    }
    free(scratch);
    return !left || !mvi_fill_goes_on(fill);
}

static void *mvi_fill_thread(void *argument)
{
    (void)mvi_fill_pieces(argument, INT64_MAX);
    return NULL;
}

/* Signals of the host are not for threads of ours. */
void mvi_fill_start(struct mvi_fill *fill, uint32_t threads)
{
    pthread_attr_t attributes;
    sigset_t all, before;

    if (threads <= 1 || pthread_attr_init(&attributes) != 0)
        return;
    (void)pthread_attr_setstacksize(&attributes, MVI_FILL_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (fill->running < threads - 1 && fill->running < MVI_FILL_THREADS &&
           pthread_create(&fill->threads[fill->running], &attributes, mvi_fill_thread, fill) == 0)
        fill->running++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

struct mvi_fill *mvi_fill_new(const struct mvi_table *table, struct mvi_copy *copy, const struct mvi_fill_part *parts,
                              size_t count)
{
    struct mvi_fill *fill = calloc(1, sizeof *fill);

    if (fill == NULL)
        return NULL;
    fill->table = table;
    fill->copy = copy;
    fill->parts = parts;
    fill->count = count;
    return fill;
}

bool mvi_fill_some(struct mvi_fill *fill, uint32_t milliseconds, uint64_t *done)
{
    bool finished = mvi_fill_pieces(fill, mvi_clock(CLOCK_MONOTONIC) + (int64_t)milliseconds * 1000000);

    *done = __atomic_load_n(&fill->done, __ATOMIC_RELAXED);
    return finished;
}

int32_t mvi_fill_end(struct mvi_fill *fill, uint64_t *address, int32_t *failed)
{
    int32_t code;

    __atomic_store_n(&fill->next, fill->copy->size, __ATOMIC_RELAXED);
    while (fill->running > 0)
        (void)pthread_join(fill->threads[--fill->running], NULL);
    code = fill->state;
    *failed = fill->failed;
    *address = fill->address;
    free(fill);
    return code;
}

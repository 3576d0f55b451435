/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames in which two memories differ; see direct.h.
 *
 * The walk goes from address to address: as far as each of the two has one region there, or none. What only one has differs;
 * what both have is compared in pieces, and frame by frame where a piece is not the same. What is known to be zeros (holes of
 * files, pages that a process never touched) is not looked at: if both are they are the same, else the other is compared
 * with zeros. A region may begin and end within a frame, which is told once.
 */
#include "look.h"
#include "pagemap.h"
#include "sparse.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MVI_DIFF_PIECE ((size_t)1 << 20)   /* read at once, where memory is not mapped */
#define MVI_DIFF_BLOCK ((size_t)64 << 10)  /* compared at once */
#define MVI_DIFF_LOOK ((uint64_t)64 << 10) /* asking the system for holes counts as so many bytes */
#define MVI_DIFF_RUN (UINT64_C(1) << 62)   /* no run grows when it is that long: sizes stay below 2^64 */

/* One of the two. What is known of holes holds up to an address. */
struct mvi_side {
    const struct mvi_table *table;
    const struct mvi_region *region; /* that the walk is in; NULL: no memory */
    uint8_t *dense;                  /* its chunks, NULL if it has no holes */
    bool is_known;                   /* whether the next two hold: */
    bool filled;                     /* there may be data, */
    uint64_t known;                  /* from the walk's address to this one, which is the last */
    const uint8_t *bytes;            /* of the present piece; of a hole some zeros */
    uint8_t *buffer;                 /* for what is not mapped; NULL until it is needed */
    size_t room;                     /* in it */
    uint8_t spare[PAGE_SIZE];        /* the buffer if there is no memory for a larger one */
};

struct mvi_both {
    struct mvi_diff *diff;
    struct mvi_side older, newer;
    uint64_t work; /* bytes that were looked at */
    int32_t code;  /* why the walk stopped; MICROVMI_OK: there is no room for more, or it did enough */
};

static uint8_t mvi_zeros[MVI_DIFF_BLOCK];

/* ------------------------------------------------------------------------------------------------ telling -------- */

/* Tell of the frames that hold addresses from `first` to `last`. False: there is no room, and that is where to go on. */
static bool mvi_diff_tell(struct mvi_diff *diff, uint64_t first, uint64_t last, uint32_t kind)
{
    struct microvmi_memory_range *run = diff->count > 0 ? &diff->ranges[diff->count - 1] : NULL;
    uint64_t start = first & ~(uint64_t)(PAGE_SIZE - 1), end = last | (PAGE_SIZE - 1), told;

    if (run != NULL) {
        told = run->start + (run->size - 1);
        if (told >= end)
            return true;
        if (told >= start)
            start = told + 1;
        if (told + 1 == start && run->kind == kind && run->size < MVI_DIFF_RUN) {
            run->size += end - start + 1;
            return true;
        }
    }
    if (diff->count == diff->capacity) {
        diff->next = start;
        return false;
    }
    diff->ranges[diff->count++] = (struct microvmi_memory_range){start, end - start + 1, kind, {0, 0, 0}};
    return true;
}

/* ------------------------------------------------------------------------------------------------ one side ------- */

/* Find what a side has at an address: a region, or nothing; the last address of that. */
static uint64_t mvi_side_enter(struct mvi_side *side, uint64_t at)
{
    const struct mvi_region *region;
    size_t index = mvi_search(side->table, at);

    side->region = NULL;
    side->is_known = false;
    if (index == side->table->count)
        return UINT64_MAX;
    region = &side->table->regions[index];
    if (region->start > at)
        return region->start - 1;
    side->region = region;
    side->dense = side->table->dense[index];
    return mvi_last(region);
}

/* Whether there may be data at an offset of a file that is not mapped, and how far that holds. */
static uint64_t mvi_file_until(const struct mvi_region *region, uint64_t offset, uint64_t end, bool *filled)
{
    uint64_t until = mvi_region_find(region, NULL, offset, end, false);

    *filled = until <= offset;
    if (*filled)
        until = mvi_region_find(region, NULL, offset, end, true);
    return until > offset ? until : end;
}

/* Whether a process that has nothing at an offset is still there to have it: a read of nothing looks. */
static int32_t mvi_side_is_there(const struct mvi_side *side, uint64_t offset)
{
    size_t none = 0;

    if (side->filled || !mvi_is_process(side->region))
        return MICROVMI_OK;
    return mvi_region_read(side->region, side->dense, offset, NULL, 0, &none);
}

/* See to it that it is known what is at an address, and up to where, `last` at the most. */
static int32_t mvi_side_look(struct mvi_side *side, uint64_t at, uint64_t last, uint64_t *work)
{
    const struct mvi_region *region = side->region;
    uint64_t offset = at - region->start, end = last - region->start + 1, until = end;

    if (side->is_known && at <= side->known)
        return MICROVMI_OK;
    side->filled = true;
    if (side->dense != NULL && mvi_is_process(region))
        until = mvi_touched_until(region, side->dense, offset, end, &side->filled);
    else if (side->dense != NULL)
        until = mvi_filled_until(region, side->dense, offset, end, &side->filled);
    else if (region->bytes == NULL && region->pid == 0)
        until = mvi_file_until(region, offset, end, &side->filled);
    *work += MVI_DIFF_LOOK;
    side->known = region->start + (until - 1);
    side->is_known = until > offset;
    return side->is_known ? mvi_side_is_there(side, offset) : MICROVMI_ERROR_IO;
}

/* How much of a side can be had at once. */
static size_t mvi_side_room(struct mvi_side *side)
{
    if (!side->filled || side->region->bytes != NULL)
        return MVI_DIFF_PIECE;
    if (side->buffer == NULL) {
        side->buffer = malloc(MVI_DIFF_PIECE);
        side->room = side->buffer != NULL ? MVI_DIFF_PIECE : PAGE_SIZE;
        if (side->buffer == NULL)
            side->buffer = side->spare;
    }
    return side->room;
}

/* Get at a piece; *got is how much of it is there after an error. */
static int32_t mvi_side_take(struct mvi_side *side, uint64_t at, size_t size, size_t *got)
{
    uint64_t offset = at - side->region->start;

    *got = size;
    side->bytes = mvi_zeros;
    if (!side->filled)
        return MICROVMI_OK;
    if (side->region->bytes != NULL) {
        side->bytes = side->region->bytes + offset;
        *got = mvi_still_there(side->region, offset, size);
        return *got == size ? MICROVMI_OK : MICROVMI_ERROR_IO;
    }
    side->bytes = side->buffer;
    *got = 0;
    return mvi_region_read(side->region, side->dense, offset, side->buffer, size, got);
}

/* ------------------------------------------------------------------------------------------------ both ----------- */

static bool mvi_both_failed(struct mvi_both *both, int32_t code, bool newer, uint64_t at)
{
    both->code = code;
    both->diff->newer_failed = newer;
    both->diff->next = at & ~(uint64_t)(PAGE_SIZE - 1);
    return false;
}

/* Tell which frames of a block differ, as some do. */
static bool mvi_both_tell(struct mvi_both *both, uint64_t at, const uint8_t *older, const uint8_t *newer, size_t size)
{
    size_t done, part;

    for (done = 0; done < size; done += part) {
        part = mvi_smaller(PAGE_SIZE - ((at + done) & (PAGE_SIZE - 1)), size - done);
        if (memcmp(older + done, newer + done, part) != 0 &&
            !mvi_diff_tell(both->diff, at + done, at + done, both->newer.region->kind))
            return false;
    }
    return true;
}

static bool mvi_both_compare(struct mvi_both *both, uint64_t at, size_t size)
{
    const uint8_t *older, *newer;
    size_t done, part;

    for (done = 0; done < size; done += part) {
        part = mvi_smaller(MVI_DIFF_BLOCK - ((at + done) & (MVI_DIFF_BLOCK - 1)), size - done);
        older = both->older.bytes + (both->older.filled ? done : 0);
        newer = both->newer.bytes + (both->newer.filled ? done : 0);
        if (memcmp(older, newer, part) != 0 && !mvi_both_tell(both, at + done, older, newer, part))
            return false;
    }
    return true;
}

/* Compare a piece in which one has data, or both have; what is there before an error is compared as well. */
static bool mvi_both_piece(struct mvi_both *both, uint64_t at, size_t size)
{
    size_t before, after;
    int32_t older = mvi_side_take(&both->older, at, size, &before),
            newer = mvi_side_take(&both->newer, at, size, &after);

    both->work += size;
    if (!mvi_both_compare(both, at, mvi_smaller(before, after)))
        return false;
    if (newer != MICROVMI_OK && (older == MICROVMI_OK || after < before))
        return mvi_both_failed(both, newer, true, at + after);
    return older == MICROVMI_OK || mvi_both_failed(both, older, false, at + before);
}

/* Where a piece that begins at an address ends: as far as the same is known of it, and that can be had at once. One that
 * begins within a frame ends with it, so that a walk can stop between two frames. */
static uint64_t mvi_both_until(struct mvi_both *both, uint64_t at, uint64_t last)
{
    size_t room = mvi_smaller(mvi_side_room(&both->older), mvi_side_room(&both->newer));
    uint64_t until = mvi_smaller(last, mvi_smaller(both->older.known, both->newer.known));

    if ((at & (PAGE_SIZE - 1)) != 0)
        return mvi_smaller(until, at | (PAGE_SIZE - 1));
    return both->older.filled || both->newer.filled ? mvi_smaller(until, at | (room - 1)) : until;
}

/* What both have, from one address to another, the last. False: the walk stops, and the error and where to go on are set. */
static bool mvi_both_go(struct mvi_both *both, uint64_t at, uint64_t last)
{
    uint64_t until;
    int32_t code;

    for (;; at = until + 1) {
        if (both->work >= MVI_DIFF_LIMIT && (at & (PAGE_SIZE - 1)) == 0) {
            both->diff->next = at;
            return false;
        }
        code = mvi_side_look(&both->older, at, last, &both->work);
        if (code != MICROVMI_OK)
            return mvi_both_failed(both, code, false, at);
        code = mvi_side_look(&both->newer, at, last, &both->work);
        if (code != MICROVMI_OK)
            return mvi_both_failed(both, code, true, at);
        until = mvi_both_until(both, at, last);
        if ((both->older.filled || both->newer.filled) && !mvi_both_piece(both, at, (size_t)(until - at + 1)))
            return false;
        if (until == last)
            return true;
    }
}

/* Up to an address until which each of the two has one region or none. */
static bool mvi_both_part(struct mvi_both *both, uint64_t at, uint64_t last)
{
    const struct mvi_region *older = both->older.region, *newer = both->newer.region;

    if (older != NULL && newer != NULL)
        return mvi_both_go(both, at, last);
    if (older == NULL && newer == NULL)
        return true;
    return mvi_diff_tell(both->diff, at, last, newer != NULL ? newer->kind : older->kind);
}

static void mvi_side_end(struct mvi_side *side)
{
    if (side->buffer != side->spare)
        free(side->buffer);
}

int32_t mvi_diff_some(struct mvi_diff *diff)
{
    struct mvi_both both;
    uint64_t at = diff->next & ~(uint64_t)(PAGE_SIZE - 1), last = 0, older, newer;

    both.diff = diff;
    both.work = 0;
    both.code = MICROVMI_OK;
    both.older.table = diff->older;
    both.newer.table = diff->newer;
    both.older.buffer = both.newer.buffer = NULL;
    diff->count = 0;
    diff->next = 0;
    for (; at <= diff->last; at = last + 1) {
        older = mvi_side_enter(&both.older, at);
        newer = mvi_side_enter(&both.newer, at);
        last = mvi_smaller(mvi_smaller(older, newer), mvi_smaller(diff->last, at | (MVI_DIFF_RUN - 1)));
        if (!mvi_both_part(&both, at, last) || last == diff->last)
            break;
    }
    mvi_side_end(&both.older);
    mvi_side_end(&both.newer);
    return both.code;
}

void mvi_diff_describe(const struct mvi_diff *diff, int32_t code, char *text, size_t room)
{
    int written = snprintf(text, room, "the %s one: ", diff->newer_failed ? "newer" : "older");

    if (written > 0 && (size_t)written < room)
        mvi_describe(code, diff->next, PAGE_SIZE, 0, text + written, room - (size_t)written);
}

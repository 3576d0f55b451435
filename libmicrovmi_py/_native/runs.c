/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over everything that page tables map.
 *
 * A table is looked at in a copy, so that each entry is loaded once. Copies are made of some tables at once: those that the
 * next entries of the table above name. What a table maps is remembered, as runs, by where it is, its level and the rights
 * that are left there, if telling it again is much cheaper than looking at it again: of a table with nothing in it, for
 * example, that half of a tree of tables names.
 *
 * Tables are the guest's: they may name each other and themselves. That makes no more levels, so a walk ends; but there may
 * be as many entries on its way as there are addresses, of which a walk looks at a number and then ends early.
 */
#include "told.h"

#include <stdlib.h>
#include <string.h>

struct mvi_runs *mvi_runs_new(void)
{
    struct mvi_runs *runs = calloc(1, sizeof *runs);
    unsigned level;

    for (level = 1; runs != NULL && level <= MVI_LEVELS; level++)
        runs->held[level].bytes = runs->bytes[level - 1];
    return runs;
}

void mvi_runs_free(struct mvi_runs *runs)
{
    free(runs);
}

/* ------------------------------------------------------------------------------------------------ tables --------- */

static inline uint64_t mvi_entry_of(const struct mvi_space *space, const uint8_t *bytes, size_t index)
{
    uint64_t wide;
    uint32_t narrow;

    if (space->entry_size == sizeof wide) {
        memcpy(&wide, bytes + index * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, bytes + index * sizeof narrow, sizeof narrow);
    return narrow;
}

static inline size_t mvi_table_bytes(const struct mvi_runs *runs, unsigned level)
{
    return (size_t)mvi_level_entries(runs->half, level) * runs->space.entry_size;
}

/* Where the copy of a table is, NULL if there is none. */
static const uint8_t *mvi_held_find(const struct mvi_runs *runs, unsigned level, uint64_t address)
{
    const struct mvi_held *held = &runs->held[level];
    size_t index;

    for (index = 0; index < held->count; index++)
        if (held->address[index] == address)
            return held->bytes + index * mvi_table_bytes(runs, level);
    return NULL;
}

static void mvi_held_want(struct mvi_runs *runs, unsigned level, uint64_t address)
{
    struct mvi_held *held = &runs->held[level];
    size_t size = mvi_table_bytes(runs, level);

    runs->requests[runs->wanted++] = (struct microvmi_read_request){
        .physical_address = address,
        .buffer = held->bytes + held->count * size,
        .size = size,
    };
    held->address[held->count++] = address;
}

/* An entry of the table that is looked at. If it is a table or a page it has an address, and rights that are left. */
static inline enum mvi_step mvi_open_step(const struct mvi_runs *runs, const struct mvi_open *open, size_t index,
                                          uint64_t *address, uint32_t *rights)
{
    uint64_t entry = mvi_entry_of(&runs->space, open->bytes, index);
    enum mvi_step step = mvi_step(&runs->space, runs->half, runs->level, entry, address);

    if (step == MVI_STEP_TABLE || step == MVI_STEP_PAGE)
        *rights = mvi_allow(&runs->space, runs->half, runs->level, step == MVI_STEP_PAGE, entry, open->rights);
    return step;
}

static inline uint64_t mvi_open_address(const struct mvi_runs *runs, const struct mvi_open *open, size_t index)
{
    return open->start + ((uint64_t)index << mvi_level_shift(runs->half, runs->level));
}

/* Want the tables that the entries from the next one on name, as many as are read at once. */
static void mvi_runs_want_below(struct mvi_runs *runs, const struct mvi_open *open)
{
    unsigned below = runs->level - 1;
    size_t most = mvi_smaller(runs->ahead, MVI_HELD_BYTES / mvi_table_bytes(runs, below)), index;
    uint64_t address;
    uint32_t rights;

    runs->held[below].count = 0;
    for (index = open->index; index < open->end && runs->wanted < most; index++)
        if (mvi_open_step(runs, open, index, &address, &rights) == MVI_STEP_TABLE &&
            (rights & runs->having) == runs->having && mvi_held_find(runs, below, address) == NULL &&
            (index == open->index || mvi_known_find(runs, address, below, rights) == NULL))
            mvi_held_want(runs, below, address);
    runs->ahead = mvi_smaller(2 * runs->ahead, MVI_MOST_HELD);
}

/* Begin to look at a table, whose copy is there, at an entry or a later one that is not before the beginning. */
static void mvi_runs_open(struct mvi_runs *runs, unsigned level, struct mvi_open open)
{
    uint64_t first;

    runs->level = level;
    open.looked = runs->looked;
    open.log = runs->logged;
    if (open.start < runs->begin) {
        first = (runs->begin - open.start) >> mvi_level_shift(runs->half, level);
        if (first > open.index)
            open.index = (size_t)mvi_smaller(first, open.end);
        open.log = MVI_UNKNOWN_LOG;
    }
    runs->open[level] = open;
    runs->looked += open.end - open.index;
}

/* All of the table was looked at: go on in the one above. */
static void mvi_runs_close(struct mvi_runs *runs)
{
    const struct mvi_open *below = &runs->open[runs->level];
    struct mvi_open *open;

    if (below->log != MVI_UNKNOWN_LOG)
        mvi_known_add(runs, below);
    if (runs->level++ == runs->half->levels)
        return;
    open = &runs->open[runs->level];
    if (open->log == MVI_UNKNOWN_LOG)
        runs->logged = 0;
    else if (runs->logged == below->log + 1 && below->log > open->log &&
             mvi_run_grows(&runs->log[below->log - 1], &runs->log[below->log]))
        runs->logged--;
    open->index++;
}

/* The next entry is a table. */
static void mvi_runs_descend(struct mvi_runs *runs, struct mvi_open *open, uint64_t address, uint32_t rights)
{
    uint64_t start = mvi_open_address(runs, open, open->index);
    const struct mvi_known *known = NULL;
    const uint8_t *bytes;

    if (start >= runs->begin)
        known = mvi_known_find(runs, address, runs->level - 1, rights);
    if (start > runs->last) {
        mvi_runs_stop(runs, 0);
    } else if ((rights & runs->having) != runs->having) {
        open->index++;
    } else if (runs->looked >= MVI_RUNS_LIMIT) {
        mvi_runs_cut(runs, start < runs->begin ? runs->begin : start);
    } else if (known != NULL) {
        mvi_known_tell(runs, known, start);
        open->index++;
    } else if ((bytes = mvi_held_find(runs, runs->level - 1, address)) == NULL) {
        mvi_runs_want_below(runs, open);
    } else {
        mvi_runs_open(runs, runs->level - 1,
                      (struct mvi_open){
                          .bytes = bytes,
                          .address = address,
                          .start = start,
                          .end = (size_t)mvi_level_entries(runs->half, runs->level - 1),
                          .rights = rights,
                      });
    }
}

/*
 * How many entries from one of a page on differ in nothing but the address, which goes on from each to the next, and what
 * an x86 processor notes by itself: they are told together.
 */
static inline size_t mvi_alike(const struct mvi_runs *runs, const struct mvi_open *open, uint64_t size)
{
    uint64_t entry = mvi_entry_of(&runs->space, open->bytes, open->index), noted = runs->space.aarch64 ? 0 : 0x60;
    uint64_t changing = entry ^ (entry + (open->end - open->index) * size);
    size_t count = 1;

    if ((changing & (~runs->half->frame_bits | runs->half->reserved[runs->level - 1])) != 0)
        return 1; /* an address would come to its end, and change other bits */
    while (open->index + count < open->end &&
           ((mvi_entry_of(&runs->space, open->bytes, open->index + count) ^ (entry + count * size)) & ~noted) == 0)
        count++;
    return count;
}

static inline bool mvi_run_is_wanted(const struct mvi_runs *runs, uint32_t rights)
{
    return (rights & runs->having) == runs->having && (rights & runs->lacking) == 0;
}

/* Look at the entries of a table until something has to be done first. */
static void mvi_runs_look(struct mvi_runs *runs, struct mvi_open *open)
{
    uint64_t size = UINT64_C(1) << mvi_level_shift(runs->half, runs->level), address;
    struct microvmi_virtual_range run = {.page_size = (uint32_t)size};
    size_t count;

    for (; open->index < open->end; open->index += count) {
        count = 1;
        switch (mvi_open_step(runs, open, open->index, &address, &run.rights)) {
        case MVI_STEP_TABLE:
            mvi_runs_descend(runs, open, address, run.rights);
            return;
        case MVI_STEP_PAGE:
            count = mvi_alike(runs, open, size);
            run.start = mvi_open_address(runs, open, open->index);
            run.size = count * size;
            run.physical_address = address;
            if (mvi_run_is_wanted(runs, run.rights) && !mvi_runs_tell(runs, &run))
                return;
            break;
        default:
            break;
        }
    }
    mvi_runs_close(runs);
}

/* ------------------------------------------------------------------------------------------------ the walk ------- */

/* The first address of a half; of the lower one 0. */
static uint64_t mvi_half_start(const struct mvi_runs *runs, const struct mvi_half *half)
{
    return half == runs->space.halves ? 0 : -(UINT64_C(1) << half->address_bits);
}

/* Begin with the table at the top of a half, if it has one, and not all of it lies before the beginning. */
static void mvi_runs_enter(struct mvi_runs *runs, const struct mvi_half *half)
{
    uint64_t first = mvi_half_start(runs, half), last = first + ((UINT64_C(1) << half->address_bits) - 1);
    unsigned shift, level;
    size_t mask;

    runs->half = half;
    runs->level = half->levels + 1;
    for (level = 1; level <= MVI_LEVELS; level++)
        runs->held[level].count = 0; /* of another walk, or of tables of another size */
    if (half->levels == 0 || half->closed || last < runs->begin || first > runs->last)
        return;
    shift = mvi_level_shift(half, half->levels);
    mask = (size_t)mvi_level_entries(half, half->levels) - 1;
    mvi_held_want(runs, half->levels, half->root);
    mvi_runs_open(runs, half->levels,
                  (struct mvi_open){
                      .bytes = runs->held[half->levels].bytes,
                      .address = half->root,
                      .start = first - ((uint64_t)((size_t)(first >> shift) & mask) << shift),
                      .index = (size_t)(first >> shift) & mask,
                      .end = ((size_t)(last >> shift) & mask) + 1,
                      .rights = MVI_ALL_RIGHTS,
                  });
    runs->open[half->levels].log = MVI_UNKNOWN_LOG; /* it is looked at once */
}

/* Without paging every address that can be one is its own. */
static void mvi_runs_identity(struct mvi_runs *runs)
{
    unsigned bits = runs->space.given.physical_bits != 0 ? runs->space.given.physical_bits : 52;
    struct microvmi_virtual_range all = {
        .size = UINT64_C(1) << bits,
        .rights = MVI_ALL_RIGHTS,
        .page_size = PAGE_SIZE,
    };

    if (mvi_run_is_wanted(runs, all.rights))
        (void)mvi_runs_add_part(runs, all);
    runs->ended = true;
}

void mvi_runs_begin(struct mvi_runs *runs, const struct mvi_space *space, uint64_t address, uint64_t last,
                    struct microvmi_virtual_range *ranges, size_t capacity)
{
    runs->space = *space;
    runs->begin = address;
    runs->last = last;
    runs->next = 0;
    runs->ended = false;
    runs->ranges = ranges;
    runs->count = 0;
    runs->capacity = capacity;
    runs->looked = 0;
    runs->ahead = 1;
    runs->wanted = 0;
    runs->walk++;
    runs->logged = 0;
    runs->half = NULL;
    runs->having = runs->lacking = 0;
}

void mvi_runs_only(struct mvi_runs *runs, uint32_t having, uint32_t lacking)
{
    runs->having = having;
    runs->lacking = lacking;
}

/* What could not be read of a table is entries that are 0. */
static void mvi_runs_take(struct mvi_runs *runs)
{
    const struct microvmi_read_request *request = runs->requests;
    size_t there;

    for (; runs->wanted > 0; runs->wanted--, request++) {
        there = request->error == MICROVMI_OK ? request->size : request->bytes_read & ~(uint64_t)7;
        memset(request->buffer + there, 0, request->size - there);
    }
}

size_t mvi_runs_want(struct mvi_runs *runs, struct microvmi_read_request **requests)
{
    mvi_runs_take(runs);
    while (!runs->ended && runs->wanted == 0) {
        if (runs->space.off)
            mvi_runs_identity(runs);
        else if (runs->half == NULL)
            mvi_runs_enter(runs, &runs->space.halves[0]);
        else if (runs->level <= runs->half->levels)
            mvi_runs_look(runs, &runs->open[runs->level]);
        else if (runs->half == runs->space.halves)
            mvi_runs_enter(runs, &runs->space.halves[1]);
        else
            runs->ended = true;
    }
    *requests = runs->requests;
    return runs->ended ? 0 : runs->wanted;
}

size_t mvi_runs_end(const struct mvi_runs *runs, uint64_t *address)
{
    *address = runs->next;
    return runs->count;
}

/* A table that is not memory as a whole: its entries one by one. */
static int32_t mvi_runs_read_entries(const struct mvi_runs *runs, const struct mvi_table *table,
                                     struct microvmi_read_request *request)
{
    size_t size = runs->space.entry_size, at;
    int32_t code;
    uint64_t done;

    for (at = 0; at < request->size; at += size) {
        code = mvi_table_read(table, false, request->physical_address + at, request->buffer + at, size, &done);
        if (code == MICROVMI_ERROR_NOT_MAPPED)
            memset(request->buffer + at, 0, size);
        else if (code != MICROVMI_OK)
            return code;
    }
    request->error = MICROVMI_OK;
    return MICROVMI_OK;
}

int32_t mvi_runs_read(struct mvi_runs *runs, const struct mvi_table *table, uint64_t *address)
{
    struct microvmi_read_request *request = runs->requests;
    const struct microvmi_read_request *end = request + runs->wanted;
    int32_t code;

    if (mvi_table_read_batch(table, request, runs->wanted))
        return MICROVMI_OK;
    for (; request < end; request++) {
        code =
            request->error == MICROVMI_ERROR_NOT_MAPPED ? mvi_runs_read_entries(runs, table, request) : request->error;
        *address = request->physical_address;
        if (code != MICROVMI_OK)
            return code;
    }
    return MICROVMI_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a walk over page tables has told, and what it remembers of tables; see told.h. */
#include "told.h"

void mvi_log_forget(struct mvi_runs *runs)
{
    unsigned level;

    for (level = runs->level; level <= runs->half->levels; level++)
        runs->open[level].log = MVI_UNKNOWN_LOG;
    runs->logged = 0;
}

__attribute__((noinline)) bool mvi_runs_add_part(struct mvi_runs *runs, struct microvmi_virtual_range run)
{
    uint64_t before = runs->begin > run.start ? runs->begin - run.start : 0;

    if (run.start > runs->last) {
        mvi_runs_stop(runs, 0);
        return false;
    }
    run.size = mvi_smaller(run.size - 1, runs->last - run.start) + 1;
    if (before >= run.size)
        return true;
    run.start += before;
    run.physical_address += before;
    run.size -= before;
    return mvi_runs_add(runs, &run);
}

void mvi_runs_cut(struct mvi_runs *runs, uint64_t address)
{
    const struct microvmi_virtual_range *last = &runs->ranges[runs->count > 0 ? runs->count - 1 : 0];

    if (runs->count > 1 && last->start + last->size == address) {
        address = last->start;
        runs->count--;
    }
    mvi_runs_stop(runs, address);
}

/* ------------------------------------------------------------------------------------------------ remembering ---- */

static struct mvi_known *mvi_known_place(struct mvi_runs *runs, uint64_t address, unsigned level)
{
    return &runs->known[((address >> 5) + level) * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (MVI_PLACES - 1)];
}

const struct mvi_known *mvi_known_find(struct mvi_runs *runs, uint64_t address, unsigned level, uint32_t rights)
{
    const struct mvi_known *known = mvi_known_place(runs, address, level);

    return known->walk == runs->walk && known->address == address && known->level == level && known->rights == rights &&
                   known->half == (uint8_t)(runs->half - runs->space.halves) && runs->kept - known->first <= MVI_RING
               ? known
               : NULL;
}

void mvi_known_add(struct mvi_runs *runs, const struct mvi_open *open)
{
    size_t count = runs->logged - open->log, index;
    struct microvmi_virtual_range *run;

    if (count * MVI_CHEAPER > runs->looked - open->looked)
        return;
    *mvi_known_place(runs, open->address, runs->level) = (struct mvi_known){
        .address = open->address,
        .first = runs->kept,
        .count = (uint32_t)count,
        .walk = runs->walk,
        .rights = (uint16_t)open->rights,
        .level = (uint8_t)runs->level,
        .half = (uint8_t)(runs->half - runs->space.halves),
    };
    for (index = open->log; index < runs->logged; index++) {
        run = &runs->ring[runs->kept++ % MVI_RING];
        *run = runs->log[index];
        run->start -= open->start;
    }
}

void mvi_known_tell(struct mvi_runs *runs, const struct mvi_known *known, uint64_t start)
{
    struct microvmi_virtual_range run;
    uint32_t index;

    runs->looked += known->count + UINT64_C(1);
    for (index = 0; index < known->count; index++) {
        run = runs->ring[(known->first + index) % MVI_RING];
        run.start += start;
        if (!mvi_runs_tell(runs, &run))
            return;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a walk over page tables has told, and what it remembers of tables: the state of struct mvi_runs, which runs.c walks
 * with. Runs go to the caller's list, and beside it into a log, from which what a table maps is taken when all of it was
 * looked at.
 */
#ifndef MVI_TOLD_H
#define MVI_TOLD_H

#include "paging.h"

#include "runs.h"

#define MVI_HELD_BYTES ((size_t)128 << 10) /* of the tables of one level that are held */
#define MVI_MOST_HELD 32
#define MVI_LOG 4096    /* runs of the tables that are being looked at */
#define MVI_RING 16384  /* runs of tables that are remembered */
#define MVI_PLACES 2048 /* for them, found by a hash: a power of two */
#define MVI_CHEAPER 8   /* so many times cheaper is much */
#define MVI_UNKNOWN_LOG SIZE_MAX

/* Copies of tables of one level. */
struct mvi_held {
    size_t count;
    uint64_t address[MVI_MOST_HELD];
    uint8_t *bytes;
};

/* A table that is being looked at. */
struct mvi_open {
    const uint8_t *bytes;
    uint64_t address;
    uint64_t start; /* the virtual address of its first entry */
    size_t index;   /* of the entry that is next */
    size_t end;
    uint64_t looked; /* the walk's count when it was opened */
    size_t log;      /* where in the log its runs begin; MVI_UNKNOWN_LOG: it has not all of them */
    uint32_t rights; /* that the tables above leave */
};

/* What a table maps. */
struct mvi_known {
    uint64_t address;
    uint64_t first; /* of its runs, counted over all that were ever put into the ring; they have addresses from 0 on */
    uint32_t count;
    uint32_t walk; /* which one it is of; 0: none */
    uint16_t rights;
    uint8_t level;
    uint8_t half;
};

struct mvi_runs {
    struct mvi_space space;
    const struct mvi_half *half; /* the walk is in; NULL: in none yet */
    unsigned level;              /* of the table that is looked at; above half->levels: none */
    bool ended;
    uint64_t begin;           /* the first address, */
    uint64_t last;            /* the last one, */
    uint64_t next;            /* and the one to go on at; 0: that was all */
    uint32_t having, lacking; /* rights of what is told */
    struct microvmi_virtual_range *ranges;
    size_t count, capacity;
    uint64_t looked; /* entries and runs, that were told again */
    size_t ahead;    /* how many tables are read at once */
    size_t wanted;
    struct microvmi_read_request requests[MVI_MOST_HELD];
    struct mvi_open open[MVI_LEVELS + 1]; /* by level */
    struct mvi_held held[MVI_LEVELS + 1];
    uint32_t walk;
    size_t logged;
    uint64_t kept; /* runs that were ever put into the ring */
    struct mvi_known known[MVI_PLACES];
    struct microvmi_virtual_range log[MVI_LOG];
    struct microvmi_virtual_range ring[MVI_RING];
    uint8_t bytes[MVI_LEVELS][MVI_HELD_BYTES];
};

/* The walk ends; `next` is where to go on, 0: nowhere. */
static inline void mvi_runs_stop(struct mvi_runs *runs, uint64_t next)
{
    runs->next = next;
    runs->ended = true;
}

/* Whether `next` continues `run`, and is then part of it. */
static inline bool mvi_run_grows(struct microvmi_virtual_range *run, const struct microvmi_virtual_range *next)
{
    if (run->start + run->size != next->start || run->physical_address + run->size != next->physical_address ||
        run->rights != next->rights || run->page_size != next->page_size)
        return false;
    run->size += next->size;
    return true;
}

/* Of no table that is looked at the log has all runs any more. */
void mvi_log_forget(struct mvi_runs *runs);

static inline void mvi_log_add(struct mvi_runs *runs, const struct microvmi_virtual_range *run)
{
    const struct mvi_open *open = &runs->open[runs->level];
    size_t room = runs->level == 1 ? open->log + open->end / MVI_CHEAPER : MVI_LOG; /* more are not remembered */

    if (open->log == MVI_UNKNOWN_LOG || (runs->logged > open->log && mvi_run_grows(&runs->log[runs->logged - 1], run)))
        return;
    if (runs->logged < mvi_smaller(room, MVI_LOG))
        runs->log[runs->logged++] = *run;
    else
        mvi_log_forget(runs);
}

/* Add a run to the list. False: there is no room, and the walk ended. */
static inline bool mvi_runs_add(struct mvi_runs *runs, const struct microvmi_virtual_range *run)
{
    if (runs->count > 0 && mvi_run_grows(&runs->ranges[runs->count - 1], run))
        return true;
    if (runs->count == runs->capacity) {
        mvi_runs_stop(runs, run->start);
        return false;
    }
    runs->ranges[runs->count++] = *run;
    return true;
}

/* Add what of a run lies between the first address and the last. False: the walk ended. */
bool mvi_runs_add_part(struct mvi_runs *runs, struct microvmi_virtual_range run);

/* Tell a run. False: the walk ended. */
static inline bool mvi_runs_tell(struct mvi_runs *runs, const struct microvmi_virtual_range *run)
{
    mvi_log_add(runs, run);
    if (__builtin_expect(run->start < runs->begin || run->start + (run->size - 1) > runs->last, 0))
        return mvi_runs_add_part(runs, *run);
    return mvi_runs_add(runs, run);
}

/* The walk ends early, at an address. A run that may go on there is left for the next walk, but for the only one. */
void mvi_runs_cut(struct mvi_runs *runs, uint64_t address);

/* What a table maps that is named with these rights, NULL if that is not remembered. */
const struct mvi_known *mvi_known_find(struct mvi_runs *runs, uint64_t address, unsigned level, uint32_t rights);

/* All of a table was looked at, and its runs are at the end of the log: remember them, if that is worth it. */
void mvi_known_add(struct mvi_runs *runs, const struct mvi_open *open);

/* Tell again what a table maps that begins at a virtual address. */
void mvi_known_tell(struct mvi_runs *runs, const struct mvi_known *known, uint64_t start);

#endif

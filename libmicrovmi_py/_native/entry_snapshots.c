/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions for snapshots; see entry.c. */
#include "entry.h"

#include <string.h>

/* What their first versions held: nobody's is smaller. */
#define MVI_SNAPSHOT_OPTIONS_SIZE 40u
#define MVI_SNAPSHOT_INFO_SIZE 32u

#define MVI_MOST_THREADS 64u

_Static_assert(sizeof(struct microvmi_snapshot_options) == MVI_SNAPSHOT_OPTIONS_SIZE, "grown: see mvi_need_struct()");
_Static_assert(sizeof(struct microvmi_snapshot_info) == MVI_SNAPSHOT_INFO_SIZE, "grown: see mvi_need_struct()");

/* Copy what the caller knows of the options, and check it. */
static bool mvi_take_options(const struct microvmi_snapshot_options *given, struct microvmi_snapshot_options *taken)
{
    if (given == NULL)
        return true;
    if (!mvi_need_struct(&given->struct_size, MVI_SNAPSHOT_OPTIONS_SIZE, "options", "MICROVMI_SNAPSHOT_OPTIONS_INIT"))
        return false;
    memcpy(taken, given, mvi_smaller(given->struct_size, sizeof *taken));
    if ((taken->flags & ~(uint32_t)MICROVMI_SNAPSHOT_PAUSE_ONLY) != 0) {
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "options: flags are %#x, and none but 1 is known",
                       taken->flags);
        return false;
    }
    if (taken->threads > MVI_MOST_THREADS) {
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "options: threads are %u: at most %u copy", taken->threads,
                       MVI_MOST_THREADS);
        return false;
    }
    return true;
}

static void *mvi_snapshot(void *context, const struct microvmi_snapshot_options *options)
{
    struct microvmi_snapshot_options taken = MICROVMI_SNAPSHOT_OPTIONS_INIT;
    void *snapshot;

    if (!mvi_enter(context) || !mvi_take_options(options, &taken) || (snapshot = mvi_context_new()) == NULL)
        return NULL;
    return mvi_opened(snapshot, mvi_py_snapshot((uintptr_t)context, (uintptr_t)snapshot, &taken));
}

void *microvmi_snapshot(void *context, const struct microvmi_snapshot_options *options, const char **error)
{
    return mvi_report(mvi_snapshot(context, options), error);
}

bool microvmi_get_snapshot_info(void *snapshot, struct microvmi_snapshot_info *info)
{
    return mvi_enter(snapshot) &&
           mvi_need_struct(info != NULL ? &info->struct_size : NULL, MVI_SNAPSHOT_INFO_SIZE, "info",
                           "MICROVMI_SNAPSHOT_INFO_INIT") &&
           mvi_leave(mvi_py_snapshot_info((uintptr_t)snapshot, info));
}

/* ------------------------------------------------------------------------------------------------ differences ---- */

static void mvi_leave_both(void)
{
    mvi_table_leave_second();
    mvi_table_leave();
}

/* The tables of two contexts, if both have regions: mvi_leave_both() ends their use. False: the slow way has to do. */
static bool mvi_direct_both(void *older, void *newer, struct mvi_diff *diff)
{
    diff->older = mvi_direct(older);
    if (diff->older == NULL)
        return false;
    diff->newer = mvi_context_enter_second(newer);
    if (diff->newer != NULL && !diff->newer->by_frames)
        return true;
    mvi_leave_both();
    return false;
}

static bool mvi_failed_diff(const struct mvi_diff *diff, int32_t code)
{
    char text[MVI_DESCRIPTION];

    mvi_diff_describe(diff, code, text, sizeof text);
    mvi_set_error(code, text);
    return false;
}

bool microvmi_diff(void *older, void *newer, uint64_t *next, struct microvmi_memory_range *ranges, size_t capacity,
                   size_t *count)
{
    struct mvi_diff diff = {.last = UINT64_MAX, .ranges = ranges, .capacity = capacity};
    void *dropped;
    int32_t code;

    if (count != NULL)
        *count = 0;
    if (!mvi_enter(older) || !mvi_enter(newer) || !mvi_need(next, "next") ||
        !mvi_need(capacity > 0 ? ranges : NULL, "ranges, or room for one,") || !mvi_need(count, "count"))
        return false;
    diff.next = *next;
    dropped = mvi_drop_gil(); /* it takes long */
    if (!mvi_direct_both(older, newer, &diff)) {
        mvi_take_gil(dropped);
        return mvi_leave(mvi_py_diff((uintptr_t)older, (uintptr_t)newer, next, ranges, capacity, count));
    }
    code = mvi_diff_some(&diff);
    mvi_leave_both();
    mvi_take_gil(dropped);
    *next = diff.next;
    *count = diff.count;
    return code == MICROVMI_OK || mvi_failed_diff(&diff, code);
}

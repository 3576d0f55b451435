/* SPDX-License-Identifier: Apache-2.0 */
/* The exported function that writes a machine into a file; see entry.c. */
#include "entry.h"

#include <string.h>

/* What their first versions held: nobody's is smaller. */
#define MVI_DUMP_OPTIONS_SIZE 32u
#define MVI_DUMP_INFO_SIZE 24u

#define MVI_DUMP_FLAGS 15u

_Static_assert(sizeof(struct microvmi_dump_options) == MVI_DUMP_OPTIONS_SIZE, "grown: see mvi_need_struct()");
_Static_assert(sizeof(struct microvmi_dump_info) == MVI_DUMP_INFO_SIZE, "grown: see mvi_need_struct()");

/* Copy what the caller knows of the options, and check it. */
static bool mvi_take_dump_options(const struct microvmi_dump_options *given, struct microvmi_dump_options *taken)
{
    const uint32_t views = MICROVMI_DUMP_LIVE | MICROVMI_DUMP_SNAPSHOT;

    if (given == NULL)
        return true;
    if (!mvi_need_struct(&given->struct_size, MVI_DUMP_OPTIONS_SIZE, "options", "MICROVMI_DUMP_OPTIONS_INIT"))
        return false;
    memcpy(taken, given, mvi_smaller(given->struct_size, sizeof *taken));
    if ((taken->flags & ~MVI_DUMP_FLAGS) != 0 || (taken->flags & views) == views) {
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "options: flags are %#x: none but 1 or 2, 4 and 8 are known",
                       taken->flags);
        return false;
    }
    if (taken->format > MICROVMI_DUMP_KDUMP_ZSTD) {
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "options: format is %u: see enum microvmi_dump_format",
                       taken->format);
        return false;
    }
    return true;
}

bool microvmi_dump(void *context, const char *path, const struct microvmi_dump_options *options,
                   struct microvmi_dump_info *info)
{
    struct microvmi_dump_options taken = MICROVMI_DUMP_OPTIONS_INIT;
    struct microvmi_dump_info told = MICROVMI_DUMP_INFO_INIT;

    if (!mvi_enter(context) || !mvi_need(path, "path") || !mvi_take_dump_options(options, &taken) ||
        (info != NULL && !mvi_need_struct(&info->struct_size, MVI_DUMP_INFO_SIZE, "info", "MICROVMI_DUMP_INFO_INIT")) ||
        !mvi_leave(mvi_py_dump((uintptr_t)context, path, &taken, &told)))
        return false;
    if (info != NULL)
        mvi_hand_out(info, &told, sizeof told);
    return true;
}

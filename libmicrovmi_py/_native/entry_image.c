/* SPDX-License-Identifier: Apache-2.0 */
/* The exported function about images of memory; see entry.c. */
#include "entry.h"

/* What its first version held: nobody's is smaller. */
#define MVI_IMAGE_INFO_SIZE 3344u

_Static_assert(sizeof(struct microvmi_image_info) == MVI_IMAGE_INFO_SIZE, "grown: see mvi_need_struct()");

bool microvmi_get_image_info(void *context, struct microvmi_image_info *info)
{
    struct microvmi_image_info told = MICROVMI_IMAGE_INFO_INIT;

    if (!mvi_enter(context) ||
        !mvi_need_struct(info != NULL ? &info->struct_size : NULL, MVI_IMAGE_INFO_SIZE, "info",
                         "MICROVMI_IMAGE_INFO_INIT") ||
        !mvi_leave(mvi_py_image_info((uintptr_t)context, &told)))
        return false;
    mvi_hand_out(info, &told, sizeof told);
    return true;
}

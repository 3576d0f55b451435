/* SPDX-License-Identifier: Apache-2.0 */
/* The machines that there are: a call without a context. */
#include "entry.h"

/* What its first version held: nobody's is smaller. */
#define MVI_MACHINE_SIZE 992u

_Static_assert(sizeof(struct microvmi_machine) == MVI_MACHINE_SIZE, "grown: see mvi_need_struct()");

static bool mvi_need_machine(const struct microvmi_machine *machine)
{
    return mvi_need_struct(machine != NULL ? &machine->struct_size : NULL, MVI_MACHINE_SIZE, "machines",
                           "MICROVMI_MACHINE_INIT");
}

bool microvmi_list_vms(const char *driver, struct microvmi_machine *machines, size_t capacity, size_t *count)
{
    size_t known = 0;
    bool got =
        !mvi_is_forked() && mvi_need(count, "count") && (capacity == 0 || mvi_need_machine(machines)) && mvi_start();

    if (got) {
        mvi_clear_error();
        got = mvi_leave(mvi_py_list_vms(driver, machines, capacity, &known));
    }
    if (count != NULL)
        *count = known;
    return got;
}

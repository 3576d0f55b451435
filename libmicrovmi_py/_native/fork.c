/* SPDX-License-Identifier: Apache-2.0 */
/* In the children of a process that started the library, or was about to, it does not work: it would wait for locks of
 * threads that are not there. A child of one that had not begun to starts it anew. */
#include "boot.h"
#include "internal.h"
#include "readers.h"

#include <pthread.h>

int mvi_forked;
static bool mvi_fork_is_watched;

/* In a child nothing works any more: the fast way has to find out as well. */
static void mvi_set_forked(void)
{
    __atomic_store_n(&mvi_forked, 1, __ATOMIC_RELEASE);
    mvi_near_none(); /* the child's only thread */
}

static void mvi_after_fork(void)
{
    if (!mvi_boot_is_idle() || !mvi_python_is_idle() || !mvi_standard_is_idle())
        mvi_set_forked();
}

bool mvi_fork_watch(void)
{
    if (!mvi_fork_is_watched)
        mvi_fork_is_watched = pthread_atfork(NULL, NULL, mvi_after_fork) == 0;
    return mvi_fork_is_watched;
}

__attribute__((constructor)) static void mvi_fork_watch_at_once(void)
{
    (void)mvi_fork_watch();
}

bool mvi_is_forked(void)
{
    if (__atomic_load_n(&mvi_forked, __ATOMIC_ACQUIRE) == 0)
        return false;
    mvi_set_error(MICROVMI_ERROR_FORKED,
                  "libmicrovmi cannot be used in a child after fork(): use it in the parent, or exec a program");
    return true;
}

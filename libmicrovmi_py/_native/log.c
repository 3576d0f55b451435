/* SPDX-License-Identifier: Apache-2.0 */
/* Logging starts when the host asks for it; the filter waits here until the Python side is up. */
#include "internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mvi_log_lock = PTHREAD_MUTEX_INITIALIZER;
static char *mvi_log_filter; /* NULL until microvmi_envlogger_init() was called */

void mvi_log_apply(void)
{
    char *filter;

    pthread_mutex_lock(&mvi_log_lock);
    filter = mvi_log_filter != NULL ? strdup(mvi_log_filter) : NULL;
    pthread_mutex_unlock(&mvi_log_lock);
    if (filter != NULL)
        (void)mvi_py_log(filter);
    free(filter);
}

void microvmi_envlogger_init(void)
{
    const char *filter = mvi_variable("RUST_LOG");

    if (mvi_is_forked())
        return;
    pthread_mutex_lock(&mvi_log_lock);
    free(mvi_log_filter);
    mvi_log_filter = strdup(filter != NULL ? filter : "error");
    pthread_mutex_unlock(&mvi_log_lock);
    if (mvi_is_up())
        mvi_log_apply();
    mvi_clear_error();
}

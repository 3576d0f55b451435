/* SPDX-License-Identifier: Apache-2.0 */
/* What the C files of the library share. Nothing here is exported. */
#ifndef MVI_INTERNAL_H
#define MVI_INTERNAL_H

#include <Python.h>

#include <pthread.h>

#include "direct.h"

#include "callbacks.h"

/*
 * A thread that is cancelled in Python would take Python's locks with it: it ends after the call. The system calls of
 * direct access are no places of cancellation, see look.h.
 */
#define mvi_uncancelled(call) \
    ({ \
        int state_; \
        __typeof__(call) result_; \
        (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state_); \
        result_ = (call); \
        (void)pthread_setcancelstate(state_, NULL); \
        result_; \
    })

/* error.c: the calling thread's error. */
void mvi_clear_error(void);
void mvi_set_error(int32_t code, const char *text);
void mvi_set_errorf(int32_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* boot.c: true when the Python side is up in this process; starts it at the first call. Sets the error. */
bool mvi_start(void);
/* boot.c: true when the Python side is up and usable, without starting it. */
bool mvi_is_up(void);
/* boot.c: true in a child of the process that started the library; sets the error. */
bool mvi_is_forked(void);

/* context.c: tokens. A token is never an address, and a stale one is never taken for a live one. */
void *mvi_context_new(void);
bool mvi_context_is_live(void *context);
bool mvi_context_retire(void *context);
bool mvi_context_any(void);
/* From now on reads go through `table` (NULL: through Python); returns when nobody uses the one before any more, or
 * after some seconds. False: the context is not live, and the one before may still be in use until mvi_context_retire()
 * returns. */
bool mvi_context_publish(uintptr_t context, struct mvi_table *table, struct mvi_cursor *plain,
                         struct mvi_cursor *padded);
/* Whether a read still goes through a table that was replaced, or whose context was retired. */
bool mvi_context_reads(const struct mvi_table *table);
void mvi_context_describe(void *context, int32_t driver_type, const char *driver_name);
int32_t mvi_context_driver_type(void *context);
const char *mvi_context_driver_name(void *context);

/* log.c: the filter that the host asked for. */
void mvi_log_apply(void);

#endif

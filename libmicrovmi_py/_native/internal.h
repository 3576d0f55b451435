/* SPDX-License-Identifier: Apache-2.0 */
/* What the C files of the library share. Nothing here is exported. */
#ifndef MVI_INTERNAL_H
#define MVI_INTERNAL_H

#include "python.h"

#include "direct.h"

#include "callbacks.h"

/* error.c: the calling thread's error. */
void mvi_clear_error(void);
void mvi_set_error(int32_t code, const char *text);
void mvi_set_errorf(int32_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The error with its text, to be handed on to another thread: mvi_keep_error() there takes both. */
char *mvi_take_error(int32_t *code);
void mvi_keep_error(int32_t code, char *text);

/* boot.c: true when the Python side is up in this process; starts it at the first call. Sets the error. */
bool mvi_start(void);
/* boot.c: true when the Python side is up and usable, without starting it. */
bool mvi_is_up(void);
/* boot.c: why start-up failed: for good, or for a reason that may pass. The first one counts. */
enum mvi_how { MVI_FOR_GOOD, MVI_FOR_NOW };
void mvi_boot_fail(enum mvi_how how, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* boot.c: let go of Python's lock if this thread has it; what is returned goes to PyEval_RestoreThread(). */
PyThreadState *mvi_drop_gil(void);
/* boot.c: a variable of the environment; NULL, too, if the process has more rights than the user who started it. */
const char *mvi_variable(const char *name);
/* boot.c: true in a child of the process that started the library; sets the error. */
bool mvi_is_forked(void);

/* python.c: the Python of this process, or else (load) the one that the library was built for. */
bool mvi_python_find(bool load);
/* python.c: true once Python's functions may be called. */
bool mvi_python_known(void);
/* python.c, standard.c: nothing is under way there; for the child of a fork(). */
bool mvi_python_is_idle(void);
bool mvi_standard_is_idle(void);

/* calls.c: run a function on a thread of ours, with stack and no signals, and wait for it. An errno if there is none. */
int mvi_run_apart(void *(*function)(void *), void *argument);
/* calls.c: whether Python can run on this thread. */
bool mvi_has_stack(void);
/* calls.c: run a function on a thread of ours as if it were on this one, the error included. False: it did not run. */
bool mvi_run_for_caller(void (*function)(void *), void *argument);
/* calls.c: from now on calls into Python pass there. */
void mvi_calls_begin(void);

/* standard.c: the numbers 0 to 2 are not given away between these; what enter returns goes to leave. */
bool mvi_standard_enter(void);
void mvi_standard_leave(bool entered);
/* Between these: whether `fd` is a placeholder. */
bool mvi_standard_is_held(int fd);

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

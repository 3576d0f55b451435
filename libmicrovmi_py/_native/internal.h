/* SPDX-License-Identifier: Apache-2.0 */
/* What the C files of the library share, beside the contexts (context.h) and direct access (direct.h). */
#ifndef MVI_INTERNAL_H
#define MVI_INTERNAL_H

#include "table.h"

#include "callbacks.h"
#include "services.h"

/* error.c: the calling thread's error. */
void mvi_clear_error(void);
void mvi_set_errorf(int32_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The error with its text, to be handed on to another thread: mvi_keep_error() there takes both. */
char *mvi_take_error(int32_t *code);
void mvi_keep_error(int32_t code, char *text);

/* boot.c: true when the Python side is up in this process; starts it at the first call. Sets the error. */
bool mvi_start(void);
/* boot.c: true when the Python side is up and usable, without starting it. */
bool mvi_is_up(void);

/* environment.c: a variable; NULL, too, if the process has more rights than the user who started it. */
const char *mvi_variable(const char *name);

/* fork.c: 1 in the children of a process that started the library, where nothing works any more. Atomic. */
extern __attribute__((visibility("hidden"))) int mvi_forked;
/* fork.c: whether this is such a child; sets the error. */
bool mvi_is_forked(void);

/* interpreter.c: let go of Python's lock if this thread has it; what is returned goes to mvi_take_gil(). */
void *mvi_drop_gil(void);
void mvi_take_gil(void *dropped);
/* interpreter.c: wait for Python's lock, known to those who can let us in. False: it is not waited for here, as the thread
 * has it, or was never in Python. */
bool mvi_await_gil(void);
void mvi_leave_gil(void);

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

/* log.c: the filter that the host asked for. */
void mvi_log_apply(void);

#endif

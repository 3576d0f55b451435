/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting Python inside somebody else's process, once, at the first call that needs it.
 *
 * The host decides nothing: Python gets an isolated configuration whose standard library was fixed at build time and
 * whose other modules are found beside this library. A host that is a Python itself is joined, not started. Errors
 * come back as texts; nothing is printed and nothing ends the process.
 */
#include "boot.h"

#include "context.h"
#include "internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mvi_state {
    MVI_DOWN,
    MVI_UP,
    MVI_FAILED
};

static int mvi_state = MVI_DOWN; /* atomic */
static char *mvi_boot_error;     /* why it is not up; NULL until something failed, and when there is no memory for it */
static enum mvi_how mvi_boot_how; /* whether that counts for every later call, too */
static bool mvi_boot_failed;
static bool mvi_boot_begun; /* start-up was tried */
static pthread_mutex_t mvi_boot_lock = PTHREAD_MUTEX_INITIALIZER;

void mvi_boot_fail(enum mvi_how how, const char *format, ...)
{
    va_list arguments;

    if (mvi_boot_failed)
        return;
    mvi_boot_failed = true;
    mvi_boot_how = how;
    va_start(arguments, format);
    if (vasprintf(&mvi_boot_error, format, arguments) < 0)
        mvi_boot_error = NULL;
    va_end(arguments);
}

bool mvi_boot_is_idle(void)
{
    bool idle = pthread_mutex_trylock(&mvi_boot_lock) == 0;

    if (!idle)
        return false;
    idle = !mvi_boot_begun;
    pthread_mutex_unlock(&mvi_boot_lock);
    return idle;
}

static void *mvi_boot_thread(void *unused)
{
    static bool ours;
    bool running = mvi_python_find(false) && mvi_interpreter_runs();

    (void)unused;
    if (!mvi_private_find() || !(running || mvi_interpreter_has_room()) || !mvi_python_find(true))
        return NULL;
    if (!running) {
        if (!mvi_interpreter_start())
            return NULL;
        ours = true;
    }
    if (mvi_modules_load(ours))
        mvi_calls_begin();
    return NULL;
}

/* Machines that a context paused run again when the process ends by itself. */
static void mvi_at_exit(void)
{
    if (__atomic_load_n(&mvi_forked, __ATOMIC_ACQUIRE) == 0 && mvi_is_up() && mvi_context_any())
        (void)mvi_py_exit();
}

/* Runs start-up on a thread of ours: enough stack, no signal handlers of the host on it, nobody's main thread. */
static void mvi_boot(void)
{
    bool held = mvi_standard_enter();
    int failed;

    free(mvi_boot_error);
    mvi_boot_error = NULL;
    mvi_boot_failed = false;
    mvi_boot_begun = true;
    failed = mvi_fork_watch() ? mvi_run_apart(mvi_boot_thread, NULL) : ENOMEM;
    if (failed != 0)
        mvi_boot_fail(MVI_FOR_NOW, "no thread to start the embedded Python on: %s", strerror(failed));
    mvi_standard_leave(held);
    if (!mvi_boot_failed)
        (void)atexit(mvi_at_exit);
    if (!mvi_boot_failed || mvi_boot_how == MVI_FOR_GOOD)
        __atomic_store_n(&mvi_state, mvi_boot_failed ? MVI_FAILED : MVI_UP, __ATOMIC_RELEASE);
}

bool mvi_is_up(void)
{
    return __atomic_load_n(&mvi_state, __ATOMIC_ACQUIRE) == MVI_UP && mvi_interpreter_runs();
}

/* The error is the same for every later call unless what it tells of may pass. */
static void mvi_tell_boot_error(void)
{
    if (mvi_boot_failed)
        mvi_set_error(MICROVMI_ERROR_STARTUP,
                      mvi_boot_error != NULL ? mvi_boot_error : "no memory to start the embedded Python");
    else
        mvi_set_error(MICROVMI_ERROR_STARTUP, "the process's Python has ended: nothing works any more");
}

/* False with the error set: not up. */
static bool mvi_start_once(void)
{
    void *dropped;
    bool up;
    int cancel;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    dropped = mvi_drop_gil();
    pthread_mutex_lock(&mvi_boot_lock);
    if (mvi_state == MVI_DOWN)
        mvi_boot();
    up = mvi_is_up();
    if (!up)
        mvi_tell_boot_error();
    pthread_mutex_unlock(&mvi_boot_lock);
    if (up)
        mvi_log_apply();
    mvi_take_gil(dropped);
    (void)pthread_setcancelstate(cancel, NULL);
    return up;
}

/* The host's Python, if there is one: this thread may have its lock. */
static void mvi_find_host_python(void)
{
    bool held = mvi_standard_enter();

    (void)mvi_python_find(false);
    mvi_standard_leave(held);
}

bool mvi_start(void)
{
    bool down = __atomic_load_n(&mvi_state, __ATOMIC_ACQUIRE) == MVI_DOWN;

    if (mvi_is_forked())
        return false;
    if (down)
        mvi_find_host_python();
    if (mvi_in_sub_interpreter()) {
        mvi_set_error(MICROVMI_ERROR_NOT_SUPPORTED,
                      "this thread is in a sub-interpreter of the process's Python, where libmicrovmi does not work: "
                      "call from the main interpreter, or from a thread of its own");
        return false;
    }
    if (down)
        return mvi_start_once();
    if (mvi_is_up())
        return true;
    mvi_tell_boot_error();
    return false;
}

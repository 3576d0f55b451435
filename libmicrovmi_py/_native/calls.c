/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call into Python passes here, on its way from the function that cffi generated to cffi itself.
 *
 * The calling thread is the host's. It may have a small stack, or one that is not the thread's own (a fiber's): such a
 * call runs on a thread of ours, as Python 3.14 ends the process when its stack is not what it takes it for. It may be
 * cancelled, which must not happen with Python's lock held. And its standard streams may be closed (standard.c).
 */
#include "python.h"

#include "generated.h"
#include "internal.h"
#include "thread.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A driver of somebody else, a library of a hypervisor or a deep import may need this much. */
#define MVI_STACK_NEEDED (512u << 10)
/* What the threads of ours get. */
#define MVI_STACK (8u << 20)

static mvi_python_caller *mvi_python_call; /* cffi's */

/* -------------------------------------------------------------------------------------------- threads of ours ---- */

int mvi_run_apart(void *(*function)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int failed, cancel;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* the argument is on this thread's stack */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_attr_init(&attributes);
    if (failed == 0) {
        failed = pthread_attr_setstacksize(&attributes, MVI_STACK);
        if (failed == 0)
            failed = pthread_create(&thread, &attributes, function, argument);
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL); /* the new thread has its own */
    if (failed == 0)
        pthread_join(thread, NULL);
    (void)pthread_setcancelstate(cancel, NULL);
    return failed;
}

/* ----------------------------------------------------------------------------------------- the caller's stack ---- */

/* The main thread's ends below where the kernel put the program's name; the kernel lets it grow that far. */
static void mvi_measure_main_stack(void)
{
    uintptr_t top = (uintptr_t)getauxval(AT_EXECFN);
    struct rlimit limit;
    uintptr_t size = MVI_STACK;

    if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        size = limit.rlim_cur;
    mvi_thread.stack_end = top;
    mvi_thread.stack = top > size ? top - size : 0;
}

static void mvi_measure_stack(void)
{
    pthread_attr_t attributes;
    void *low = NULL;
    size_t size = 0;

    /* Of the main thread pthread_getattr_np() would read /proc/self/maps. */
    if (syscall(SYS_gettid) == getpid()) {
        mvi_measure_main_stack();
    } else if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        if (pthread_attr_getstack(&attributes, &low, &size) == 0) {
            mvi_thread.stack = (uintptr_t)low;
            mvi_thread.stack_end = (uintptr_t)low + size;
        }
        pthread_attr_destroy(&attributes);
    }
}

/* Whether a call into Python can run here. Not, too, if this is not the thread's own stack, or nobody knows. */
bool mvi_has_stack(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);

    if (mvi_thread.stack_end == 0)
        mvi_measure_stack();
    return here < mvi_thread.stack_end && here > mvi_thread.stack && here - mvi_thread.stack >= MVI_STACK_NEEDED;
}

struct mvi_errand {
    void (*function)(void *);
    void *argument;
    int32_t code;
    char *text;
};

static void *mvi_run_errand(void *argument)
{
    struct mvi_errand *errand = argument;

    mvi_clear_error();
    errand->function(errand->argument);
    errand->text = mvi_take_error(&errand->code);
    return NULL;
}

bool mvi_run_for_caller(void (*function)(void *), void *argument)
{
    struct mvi_errand errand = {.function = function, .argument = argument};
    void *dropped = mvi_drop_gil();
    int failed = mvi_run_apart(mvi_run_errand, &errand);

    mvi_take_gil(dropped);
    if (failed == 0)
        mvi_keep_error(errand.code, errand.text);
    else
        mvi_set_errorf(
            MICROVMI_ERROR_IO,
            "the thread has too little stack left for this call, and there is no other to run it on: %s: call "
            "from a thread with a larger stack, or raise the limits of the process",
            strerror(failed));
    return failed == 0;
}

/* ------------------------------------------------------------------------------------------------------ calls ---- */

struct mvi_call {
    struct _cffi_externpy_s *body;
    char *arguments; /* and then the result */
};

void mvi_hand_on_interrupt(void)
{
    mvi_thread.interrupted = true;
}

/* An interrupt that a call took is the host's: it comes back when no code of ours is there to take it again. */
static void mvi_call_python(struct _cffi_externpy_s *body, char *arguments)
{
    bool entered = mvi_await_gil();

    mvi_python_call(body, arguments);
    if (entered)
        mvi_leave_gil();
    if (__builtin_expect(mvi_thread.interrupted, 0)) {
        mvi_thread.interrupted = false;
        PyErr_SetInterrupt();
    }
}

static void mvi_call_here(void *argument)
{
    struct mvi_call *call = argument;

    mvi_call_python(call->body, call->arguments);
}

static __attribute__((noinline)) void mvi_call_on_our_stack(struct _cffi_externpy_s *body, char *arguments)
{
    struct mvi_call call = {.body = body, .arguments = arguments};

    if (!mvi_run_for_caller(mvi_call_here, &call))
        memset(arguments, 0, mvi_cffi_result_size(body));
}

static void mvi_call(struct _cffi_externpy_s *body, char *arguments)
{
    int cancel;
    bool held;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    held = mvi_standard_enter();
    if (__builtin_expect(mvi_has_stack(), 1))
        mvi_call_python(body, arguments);
    else
        mvi_call_on_our_stack(body, arguments);
    mvi_standard_leave(held);
    (void)pthread_setcancelstate(cancel, NULL);
}

void mvi_calls_begin(void)
{
    mvi_python_call = mvi_cffi_take_over(mvi_call);
}

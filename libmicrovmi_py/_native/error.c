/* SPDX-License-Identifier: Apache-2.0 */
/* The error of the calling thread: a code and a text that live until the thread's next call, or its end. */
#include "internal.h"
#include "readers.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_key_t mvi_error_key;
static bool mvi_error_has_key; /* a process has 1024 of them: without one a thread's last text outlives the thread */
static pthread_once_t mvi_error_once = PTHREAD_ONCE_INIT;

/* At the thread's end; a destructor of the host's may still call. */
static void mvi_error_drop(void *text)
{
    mvi_thread.code = MICROVMI_OK;
    mvi_thread.text = NULL;
    free(text);
}

static void mvi_error_make_key(void)
{
    mvi_error_has_key = pthread_key_create(&mvi_error_key, mvi_error_drop) == 0;
}

__attribute__((noinline)) void mvi_keep_error(int32_t code, char *text)
{
    pthread_once(&mvi_error_once, mvi_error_make_key);
    free(mvi_thread.text);
    mvi_thread.code = code;
    mvi_thread.text = text;
    mvi_near_none(); /* the next word clears the error */
    if (mvi_error_has_key)
        (void)pthread_setspecific(mvi_error_key, text);
}

void mvi_clear_error(void)
{
    if (mvi_thread.code != MICROVMI_OK)
        mvi_keep_error(MICROVMI_OK, NULL);
}

void mvi_set_error(int32_t code, const char *text)
{
    mvi_keep_error(code, strdup(text));
}

void mvi_set_errorf(int32_t code, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    va_end(arguments);
    mvi_keep_error(code, text);
}

char *mvi_take_error(int32_t *code)
{
    char *text = mvi_thread.text;

    *code = mvi_thread.code;
    mvi_thread.text = NULL;
    mvi_keep_error(MICROVMI_OK, NULL);
    return text;
}

const char *microvmi_last_error(void)
{
    if (mvi_thread.text != NULL)
        return mvi_thread.text;
    return mvi_thread.code == MICROVMI_OK ? "" : "there was no memory for the error's text";
}

enum microvmi_error microvmi_last_error_code(void)
{
    return (enum microvmi_error)mvi_thread.code;
}

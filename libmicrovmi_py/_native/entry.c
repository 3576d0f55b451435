/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exported functions: they check what can be checked without Python, and hand on the rest. A call that fails has
 * set the thread's error; one that succeeds has cleared it. Those for memory are in entry_memory.c and entry_streams.c,
 * those for registers in registers.c, those for events in events.c.
 */
#include "entry.h"

#include "facts.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- arguments ----- */

bool mvi_need(const void *pointer, const char *name)
{
    if (pointer == NULL)
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "%s is NULL", name);
    return pointer != NULL;
}

bool mvi_need_buffer(const void *buffer, size_t size)
{
    if (size > PTRDIFF_MAX) {
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "size is %zu: no buffer is that large", size);
        return false;
    }
    return size == 0 || mvi_need(buffer, "buffer");
}

bool mvi_need_struct(const uint32_t *given, uint32_t least, const char *name, const char *initializer)
{
    uint32_t size = given != NULL ? *given : 0;

    if (!mvi_need(given, name))
        return false;
    if (size < least)
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "%s: struct_size is %u: start from %s", name, size,
                       initializer);
    return size >= least;
}

void mvi_hand_out(void *given, void *filled, uint32_t size)
{
    uint32_t *known = given, *told = filled;

    *told = *known < size ? *known : size;
    memcpy(given, filled, *told);
}

bool mvi_enter(void *context)
{
    if (mvi_is_forked())
        return false;
    if (mvi_context_is_live(context)) {
        if (!mvi_start())
            return false;
        mvi_clear_error();
        return true;
    }
    mvi_set_error(MICROVMI_ERROR_INVALID_CONTEXT,
                  context == NULL ? "the context is NULL: was microvmi_init() or microvmi_open() successful?"
                                  : "the context is not live: it was destroyed, or is no context at all");
    return false;
}

bool mvi_leave(int32_t succeeded)
{
    if (succeeded == 1)
        return true;
    if (microvmi_last_error_code() == MICROVMI_OK)
        mvi_set_error(MICROVMI_ERROR_INTERNAL, "the Python side failed without a reason; please report this");
    return false;
}

/* -------------------------------------------------------------------------------------------- open and close ----- */

void *mvi_opened(void *context, int32_t succeeded)
{
    if (mvi_leave(succeeded))
        return context;
    (void)mvi_context_retire(context);
    return NULL;
}

static void *mvi_open_uri(const char *uri)
{
    void *context;

    if (!mvi_need(uri, "uri") || !mvi_start() || (context = mvi_context_new()) == NULL)
        return NULL;
    mvi_clear_error();
    return mvi_opened(context, mvi_py_open_uri((uintptr_t)context, uri));
}

static void *mvi_open_params(const int32_t *driver_type, const struct DriverInitParamsFFI *params)
{
    void *context;

    if (!mvi_start() || (context = mvi_context_new()) == NULL)
        return NULL;
    mvi_clear_error();
    return mvi_opened(context, mvi_py_open_params((uintptr_t)context, driver_type, params));
}

void *mvi_report(void *context, const char **error)
{
    if (error != NULL)
        *error = context == NULL ? strdup(microvmi_last_error()) : NULL;
    return context;
}

void *microvmi_init(const enum DriverType *driver_type, const struct DriverInitParamsFFI *init_params,
                    const char **init_error)
{
    const char *uri = driver_type == NULL && init_params == NULL ? mvi_variable("MICROVMI_URI") : NULL;
    int32_t type = driver_type != NULL ? (int32_t)*driver_type : 0;

    if (uri != NULL && uri[0] != '\0')
        return mvi_report(mvi_open_uri(uri), init_error);
    return mvi_report(mvi_open_params(driver_type != NULL ? &type : NULL, init_params), init_error);
}

void *microvmi_open(const char *uri, const char **error)
{
    return mvi_report(mvi_open_uri(uri), error);
}

static void mvi_close(void *context)
{
    if (mvi_enter(context) && mvi_context_retire(context))
        (void)mvi_leave(mvi_py_close((uintptr_t)context));
}

void microvmi_destroy(void *context)
{
    if (context == NULL && !mvi_is_forked())
        mvi_clear_error();
    else if (mvi_has_stack())
        mvi_close(context);
    else
        (void)mvi_run_for_caller(mvi_close, context); /* as a whole: a context that is retired has to be closed */
}

void rs_cstring_free(char *s)
{
    free(s);
}

/* -------------------------------------------------------------------------------------------------- run state ---- */

bool microvmi_pause(void *context)
{
    return mvi_enter(context) && mvi_leave(mvi_py_pause((uintptr_t)context));
}

bool microvmi_resume(void *context)
{
    return mvi_enter(context) && mvi_leave(mvi_py_resume((uintptr_t)context));
}

bool microvmi_release_all(uint32_t timeout_ms)
{
    if (mvi_is_forked())
        return false;
    mvi_clear_error();
    return !mvi_context_any() || (mvi_start() && mvi_leave(mvi_py_release_all(timeout_ms)));
}

__attribute__((noinline)) bool mvi_failed(int32_t code, uint64_t address, size_t size, uint64_t done)
{
    char text[MVI_DESCRIPTION];

    mvi_describe(code, address, size, done, text, sizeof text);
    mvi_set_error(code, text);
    return false;
}

/* ------------------------------------------------------------------------------------------ about the machine ---- */

bool microvmi_get_max_physical_addr(void *context, uint64_t *address_ptr)
{
    return mvi_enter(context) && mvi_need(address_ptr, "address_ptr") &&
           mvi_leave(mvi_py_max_address((uintptr_t)context, address_ptr));
}

bool microvmi_get_vcpu_count(void *context, uint16_t *count)
{
    return mvi_enter(context) && mvi_need(count, "count") && mvi_leave(mvi_py_vcpu_count((uintptr_t)context, count));
}

bool microvmi_get_memory_map(void *context, struct microvmi_memory_range *ranges, size_t capacity, size_t *count)
{
    size_t known = 0;
    bool got = mvi_enter(context) && mvi_need(count, "count") && (capacity == 0 || mvi_need(ranges, "ranges")) &&
               mvi_leave(mvi_py_memory_map((uintptr_t)context, ranges, capacity, &known));

    if (count != NULL)
        *count = known;
    return got;
}

/* What its first version held: nobody's is smaller. */
#define MVI_ABILITIES_SIZE 80u

_Static_assert(offsetof(struct microvmi_abilities, flags) == MVI_ABILITIES_SIZE, "it grows at its end only");

bool microvmi_get_abilities(void *context, struct microvmi_abilities *abilities)
{
    struct microvmi_abilities told = MICROVMI_ABILITIES_INIT;

    if (!mvi_enter(context) ||
        !mvi_need_struct(abilities != NULL ? &abilities->struct_size : NULL, MVI_ABILITIES_SIZE, "abilities",
                         "MICROVMI_ABILITIES_INIT") ||
        !mvi_leave(mvi_py_abilities((uintptr_t)context, &told)))
        return false;
    mvi_hand_out(abilities, &told, sizeof told);
    return true;
}

enum DriverType microvmi_get_driver_type(void *context)
{
    if (!mvi_enter(context))
        return MICROVMI_DRIVER_UNKNOWN;
    return (enum DriverType)mvi_context_driver_type(context);
}

const char *microvmi_get_driver_name(void *context)
{
    if (!mvi_enter(context))
        return NULL;
    return mvi_context_driver_name(context);
}

const char *microvmi_version(void)
{
    return MVI_VERSION;
}

const char *microvmi_build_info(void)
{
    return "libmicrovmi " MVI_VERSION ", Python " MVI_PYTHON_FULL_VERSION ", cffi " MVI_CFFI_VERSION
           ", compiler " __VERSION__;
}

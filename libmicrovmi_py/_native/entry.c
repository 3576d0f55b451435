/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exported functions: they check what can be checked without Python, and hand on the rest. A call that fails has
 * set the thread's error; one that succeeds has cleared it.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- arguments ----- */

static bool mvi_need(const void *pointer, const char *name)
{
    if (pointer == NULL)
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "%s is NULL", name);
    return pointer != NULL;
}

static bool mvi_need_buffer(const void *buffer, size_t size)
{
    if (size > PTRDIFF_MAX) {
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "size is %zu: no buffer is that large", size);
        return false;
    }
    return size == 0 || mvi_need(buffer, "buffer");
}

/* Clears the error, so that one that is set later is this call's. */
static bool mvi_enter(void *context)
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

static bool mvi_leave(int32_t succeeded)
{
    if (succeeded == 1)
        return true;
    if (microvmi_last_error_code() == MICROVMI_OK)
        mvi_set_error(MICROVMI_ERROR_INTERNAL, "the Python side failed without a reason; please report this");
    return false;
}

/* -------------------------------------------------------------------------------------------- open and close ----- */

static void *mvi_opened(void *context, int32_t succeeded)
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

static void *mvi_report(void *context, const char **error)
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

/* --------------------------------------------------------------------------------- memory, without Python -------- */

/* The table of a context that has one; mvi_table_leave() ends its use. NULL: the slow way knows what is to be done. */
static inline const struct mvi_table *mvi_table_of(void *context)
{
    return __atomic_load_n(&mvi_forked, __ATOMIC_RELAXED) == 0 ? mvi_context_enter(context) : NULL;
}

/* The same, if it has regions. */
static inline const struct mvi_table *mvi_direct(void *context)
{
    const struct mvi_table *table = mvi_table_of(context);

    if (table == NULL || !table->by_frames)
        return table;
    mvi_table_leave();
    return NULL;
}

static __attribute__((noinline)) bool mvi_failed(int32_t code, uint64_t address, size_t size, uint64_t done)
{
    char text[MVI_DESCRIPTION];

    mvi_describe(code, address, size, done, text, sizeof text);
    mvi_set_error(code, text);
    return false;
}

static inline bool mvi_finish(int32_t code, uint64_t address, size_t size, uint64_t done)
{
    if (__builtin_expect(code != MICROVMI_OK, 0))
        return mvi_failed(code, address, size, done);
    mvi_clear_error();
    return true;
}

/* Out of the way of the fast way. */
static __attribute__((noinline, cold)) bool mvi_succeeded(void)
{
    mvi_clear_error();
    return true;
}

static inline bool mvi_good_buffer(const void *buffer, size_t size)
{
    return __builtin_expect((buffer != NULL || size == 0) && size <= PTRDIFF_MAX, 1);
}

/* ----------------------------------------------------------------------------------------- memory by address ----- */

static __attribute__((noinline)) bool mvi_read_by_python(void *context, bool padded, uint64_t address, uint8_t *buffer,
                                                         size_t size, uint64_t *bytes_read)
{
    uint64_t done = 0;
    bool read = mvi_enter(context) && mvi_need_buffer(buffer, size) &&
                mvi_leave(mvi_py_read((uintptr_t)context, padded, address, buffer, size, &done));

    if (bytes_read != NULL)
        *bytes_read = done;
    return read;
}

static __attribute__((noinline)) bool mvi_read_at(void *context, bool padded, uint64_t address, uint8_t *buffer,
                                                  size_t size, uint64_t *bytes_read)
{
    const struct mvi_table *table = mvi_good_buffer(buffer, size) ? mvi_table_of(context) : NULL;
    uint64_t done = 0;
    int32_t code;

    if (__builtin_expect(table == NULL, 0))
        return mvi_read_by_python(context, padded, address, buffer, size, bytes_read);
    if (size > 0 && mvi_cached(table, address, buffer, size)) {
        done = size;
        code = MICROVMI_OK;
    } else if (table->by_frames) {
        mvi_table_leave();
        return mvi_read_by_python(context, padded, address, buffer, size, bytes_read);
    } else {
        code = mvi_table_read(table, padded, address, buffer, size, &done);
    }
    mvi_table_leave();
    if (bytes_read != NULL)
        *bytes_read = done;
    return mvi_finish(code, address, size, done);
}

bool microvmi_read_physical(void *context, uint64_t physical_address, uint8_t *buffer, size_t size,
                            uint64_t *bytes_read)
{
    if (__builtin_expect(size == 8 && buffer != NULL, 1) &&
        __builtin_expect(mvi_context_read_word(context, physical_address, buffer), 1)) {
        if (bytes_read != NULL)
            *bytes_read = 8;
        return __builtin_expect(mvi_thread.code == MICROVMI_OK, 1) || mvi_succeeded();
    }
    return mvi_read_at(context, false, physical_address, buffer, size, bytes_read);
}

bool microvmi_read_physical_padded(void *context, uint64_t physical_address, uint8_t *buffer, size_t size,
                                   uint64_t *bytes_read)
{
    return mvi_read_at(context, true, physical_address, buffer, size, bytes_read);
}

bool microvmi_write_physical(void *context, uint64_t physical_address, uint8_t *buffer, size_t size)
{
    const struct mvi_table *table = mvi_good_buffer(buffer, size) ? mvi_direct(context) : NULL;
    int32_t code = MVI_ASK_PYTHON;
    uint64_t done = 0;

    if (table != NULL) {
        code = mvi_table_write(table, physical_address, buffer, size, false, &done);
        mvi_table_leave();
    }
    if (code != MVI_ASK_PYTHON)
        return mvi_finish(code, physical_address, size, done);
    return mvi_enter(context) && mvi_need_buffer(buffer, size) &&
           mvi_leave(mvi_py_write((uintptr_t)context, physical_address, buffer, size));
}

bool microvmi_read_physical_batch(void *context, struct microvmi_read_request *requests, size_t count)
{
    const struct mvi_table *table;
    size_t index;
    bool all;

    if (count != 0 && !mvi_need(requests, "requests"))
        return false;
    for (index = 0; index < count; index++)
        if (!mvi_good_buffer(requests[index].buffer, requests[index].size))
            return mvi_need_buffer(requests[index].buffer, requests[index].size);
    table = mvi_direct(context);
    if (table == NULL)
        return mvi_enter(context) && mvi_leave(mvi_py_read_batch((uintptr_t)context, requests, count));
    all = mvi_table_read_batch(table, requests, count);
    mvi_table_leave();
    for (index = 0; !all && requests[index].error == MICROVMI_OK; index++)
        ;
    return all ? mvi_finish(MICROVMI_OK, 0, 0, 0)
               : mvi_failed(requests[index].error, requests[index].physical_address, requests[index].size,
                            requests[index].bytes_read);
}

bool microvmi_map_physical(void *context, uint64_t physical_address, size_t size, const uint8_t **pointer)
{
    return mvi_enter(context) && mvi_need(pointer, "pointer") &&
           mvi_leave(mvi_py_map((uintptr_t)context, physical_address, size, pointer));
}

bool microvmi_unmap_physical(const uint8_t *pointer)
{
    if (mvi_is_forked())
        return false;
    mvi_clear_error();
    return pointer == NULL || (mvi_start() && mvi_leave(mvi_py_unmap(pointer)));
}

/* ------------------------------------------------------------------------------------------------- the streams --- */

static bool mvi_stream_seek_in(void *context, bool padded, int64_t offset, int whence, uint64_t *position)
{
    const struct mvi_table *table = NULL;
    uint64_t result = 0;

    if (whence >= SEEK_SET && whence <= SEEK_END)
        table = mvi_table_of(context);
    else if (whence == SEEK_DATA || whence == SEEK_HOLE)
        table = mvi_direct(context);
    if (table != NULL) {
        (void)mvi_stream_seek(mvi_context_cursor(context, padded), table, offset, whence, &result);
        mvi_table_leave();
        if (position != NULL)
            *position = result;
        return mvi_finish(MICROVMI_OK, 0, 0, 0);
    }
    if (!mvi_enter(context) || !mvi_leave(mvi_py_stream_seek((uintptr_t)context, padded, offset, whence, &result)))
        return false;
    if (position != NULL)
        *position = result;
    return true;
}

static bool mvi_stream_tell(void *context, bool padded, uint64_t *position)
{
    return mvi_need(position, "position") && mvi_stream_seek_in(context, padded, 0, SEEK_CUR, position);
}

static bool mvi_stream_read_by_python(void *context, bool padded, uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    uint64_t done = 0;
    bool read = mvi_enter(context) && mvi_need_buffer(buffer, size) &&
                mvi_leave(mvi_py_stream_read((uintptr_t)context, padded, buffer, size, &done));

    if (bytes_read != NULL)
        *bytes_read = done;
    return read;
}

/* A read of a driver of frames, if all of it is in a kept page. */
static bool mvi_stream_read_kept(struct mvi_cursor *cursor, const struct mvi_table *table, uint8_t *buffer, size_t size)
{
    uint64_t position;
    bool kept;

    mvi_cursor_lock(cursor);
    position = mvi_cursor_get(cursor);
    kept = size > 0 && position < table->max_address && size <= table->max_address - position &&
           mvi_cached(table, position, buffer, size);
    if (kept)
        mvi_cursor_set(cursor, position + size);
    mvi_cursor_unlock(cursor);
    return kept;
}

static bool mvi_stream_read_at(void *context, bool padded, uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    const struct mvi_table *table = mvi_good_buffer(buffer, size) ? mvi_table_of(context) : NULL;
    struct mvi_cursor *cursor = table != NULL ? mvi_context_cursor(context, padded) : NULL;
    uint64_t done = 0, position = 0;
    int32_t code = MICROVMI_OK;

    if (table != NULL && !table->by_frames) {
        code = mvi_stream_read(cursor, table, padded, buffer, size, &position, &done);
    } else if (table != NULL && mvi_stream_read_kept(cursor, table, buffer, size)) {
        done = size;
    } else {
        if (table != NULL)
            mvi_table_leave();
        return mvi_stream_read_by_python(context, padded, buffer, size, bytes_read);
    }
    mvi_table_leave();
    if (bytes_read != NULL)
        *bytes_read = done;
    return mvi_finish(code, position, size, done);
}

bool microvmi_seek(void *context, int64_t offset, int whence, uint64_t *position)
{
    return mvi_stream_seek_in(context, false, offset, whence, position);
}

bool microvmi_tell(void *context, uint64_t *position)
{
    return mvi_stream_tell(context, false, position);
}

bool microvmi_read(void *context, uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    return mvi_stream_read_at(context, false, buffer, size, bytes_read);
}

bool microvmi_write(void *context, const uint8_t *buffer, size_t size, uint64_t *bytes_written)
{
    uint64_t done = 0;
    bool written = mvi_enter(context) && mvi_need_buffer(buffer, size) &&
                   mvi_leave(mvi_py_stream_write((uintptr_t)context, buffer, size, &done));

    if (bytes_written != NULL)
        *bytes_written = done;
    return written;
}

bool microvmi_padded_seek(void *context, int64_t offset, int whence, uint64_t *position)
{
    return mvi_stream_seek_in(context, true, offset, whence, position);
}

bool microvmi_padded_tell(void *context, uint64_t *position)
{
    return mvi_stream_tell(context, true, position);
}

bool microvmi_padded_read(void *context, uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    return mvi_stream_read_at(context, true, buffer, size, bytes_read);
}

/* ------------------------------------------------------------------------------------------ about the machine ---- */

bool microvmi_get_max_physical_addr(void *context, uint64_t *address_ptr)
{
    return mvi_enter(context) && mvi_need(address_ptr, "address_ptr") &&
           mvi_leave(mvi_py_max_address((uintptr_t)context, address_ptr));
}

bool microvmi_read_registers(void *context, uint16_t vcpu, struct Registers *registers)
{
    return mvi_enter(context) && mvi_need(registers, "registers") &&
           mvi_leave(mvi_py_read_registers((uintptr_t)context, vcpu, registers));
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions for memory by address; see entry.c. */
#include "cache.h"
#include "entry.h"

static bool mvi_read_within(void *context, uint64_t address, uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    int32_t result = 0;
    bool read = mvi_enter(context) && mvi_need_buffer(buffer, size) &&
                mvi_leave(result = mvi_py_read_within((uintptr_t)context, address, buffer, size));

    if (bytes_read != NULL)
        *bytes_read = read ? size : (uint64_t)-result;
    return read;
}

/* `done` bytes of it are read already. */
static __attribute__((noinline)) bool mvi_read_by_python(void *context, bool padded, uint64_t address, uint8_t *buffer,
                                                         size_t size, uint64_t done, uint64_t *bytes_read)
{
    bool read;

    if (!padded && done == 0 && size > 0 && size <= PAGE_SIZE - (address & (PAGE_SIZE - 1)))
        return mvi_read_within(context, address, buffer, size, bytes_read);
    read = mvi_enter(context) && mvi_need_buffer(buffer, size) &&
           mvi_leave(mvi_py_read((uintptr_t)context, padded, address, buffer, size, done, &done));
    if (bytes_read != NULL)
        *bytes_read = read ? size : done;
    return read;
}

/* Without Python's lock, if this thread has it: whoever ends a call that is not answered needs it. */
static int32_t mvi_read_frames(const struct mvi_table *table, uint64_t address, uint8_t *buffer, size_t size,
                               uint64_t *done)
{
    void *dropped;
    int32_t code;

    if (!mvi_has_library(table))
        return MVI_ASK_PYTHON;
    dropped = mvi_drop_gil();
    code = mvi_table_read(table, false, address, buffer, size, done);
    mvi_take_gil(dropped);
    return code;
}

static __attribute__((noinline)) bool mvi_read_at(void *context, bool padded, uint64_t address, uint8_t *buffer,
                                                  size_t size, uint64_t *bytes_read)
{
    const struct mvi_table *table = mvi_good_buffer(buffer, size) ? mvi_table_of(context) : NULL;
    uint64_t done = 0;
    int32_t code;

    if (__builtin_expect(table == NULL, 0))
        return mvi_read_by_python(context, padded, address, buffer, size, 0, bytes_read);
    if (size > 0 && mvi_cached(table, address, buffer, size)) {
        done = size;
        code = MICROVMI_OK;
    } else if (table->by_frames) {
        code = mvi_read_frames(table, address, buffer, size, &done);
    } else {
        code = mvi_table_read(table, padded, address, buffer, size, &done);
        if (size == 8 && code == MICROVMI_OK)
            mvi_context_near(context);
    }
    mvi_table_leave();
    if (__builtin_expect(code == MVI_ASK_PYTHON, 0))
        return mvi_read_by_python(context, padded, address, buffer, size, done, bytes_read);
    if (bytes_read != NULL)
        *bytes_read = done;
    return mvi_finish(code, address, size, done);
}

/* Its arguments are those of its caller, in the same places. */
static __attribute__((noinline)) bool mvi_read_plain(void *context, uint64_t address, uint8_t *buffer, size_t size,
                                                     uint64_t *bytes_read)
{
    return mvi_read_at(context, false, address, buffer, size, bytes_read);
}

bool microvmi_read_physical(void *context, uint64_t physical_address, uint8_t *buffer, size_t size,
                            uint64_t *bytes_read)
{
    if (__builtin_expect(size != 8, 0) || __builtin_expect(buffer == NULL, 0) ||
        __builtin_expect(!mvi_table_read_word((uintptr_t)context, physical_address, buffer), 0))
        return mvi_read_plain(context, physical_address, buffer, size, bytes_read);
    if (bytes_read != NULL)
        *bytes_read = 8;
    return true; /* a thread with an error reads no word this way */
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

static bool mvi_read_batch_by_python(void *context, struct microvmi_read_request *requests, size_t count)
{
    return mvi_enter(context) && mvi_leave(mvi_py_read_batch((uintptr_t)context, requests, count));
}

/* What the library did not read of a batch, in one call: a destroy waits for it. */
static bool mvi_read_rest(void *context, struct microvmi_read_request *requests, size_t count)
{
    size_t index = 0;
    bool read;

    while (index < count && requests[index].error != MVI_ASK_PYTHON)
        index++;
    if (index == count)
        return mvi_finish(MICROVMI_OK, 0, 0, 0);
    read = mvi_enter(context) && mvi_leave(mvi_py_read_rest((uintptr_t)context, requests, count));
    for (; index < count; index++)
        if (requests[index].error == MVI_ASK_PYTHON)
            requests[index].error = mvi_thread.code;
    return read;
}

static bool mvi_read_batch_of_frames(void *context, const struct mvi_table *table,
                                     struct microvmi_read_request *requests, size_t count)
{
    void *dropped;

    if (!mvi_has_library(table)) {
        mvi_table_leave();
        return mvi_read_batch_by_python(context, requests, count);
    }
    dropped = mvi_drop_gil();
    (void)mvi_table_read_batch(table, requests, count);
    mvi_table_leave();
    mvi_take_gil(dropped);
    return mvi_read_rest(context, requests, count);
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
    table = mvi_table_of(context);
    if (table == NULL)
        return mvi_read_batch_by_python(context, requests, count);
    if (table->by_frames)
        return mvi_read_batch_of_frames(context, table, requests, count);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions for the two streams; see entry.c. */
#include "cache.h"
#include "entry.h"

#include <stdio.h>

static bool mvi_stream_seek_in(void *context, bool padded, int64_t offset, int whence, uint64_t *position)
{
    const struct mvi_table *table = NULL;
    uint64_t result = 0;
    void *dropped;

    if (whence >= SEEK_SET && whence <= SEEK_END)
        table = mvi_table_of(context);
    else if (whence == SEEK_DATA || whence == SEEK_HOLE)
        table = mvi_direct(context);
    if (table != NULL) {
        dropped = table->by_frames ? mvi_drop_gil() : NULL; /* Python, or a call of a library, may have the cursor */
        (void)mvi_stream_seek(mvi_context_cursor(context, padded), table, offset, whence, &result);
        mvi_table_leave();
        mvi_take_gil(dropped);
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

/* `done` bytes of it are read already, up to `position`. */
static bool mvi_stream_read_by_python(void *context, bool padded, uint8_t *buffer, size_t size, uint64_t position,
                                      uint64_t done, uint64_t *bytes_read)
{
    bool read = mvi_enter(context) && mvi_need_buffer(buffer, size) &&
                mvi_leave(mvi_py_stream_read((uintptr_t)context, padded, buffer, size, done, position, &done));

    if (bytes_read != NULL)
        *bytes_read = done;
    return read;
}

/* Kept pages, and what the library reads. Without Python's lock: Python may have the cursor's, and wait for it. */
static int32_t mvi_stream_read_frames(struct mvi_cursor *cursor, const struct mvi_table *table, uint8_t *buffer,
                                      size_t size, uint64_t *position, uint64_t *done)
{
    void *dropped;
    int32_t code;

    if (table->foreign != NULL && !mvi_has_library(table))
        return MVI_ASK_PYTHON;
    dropped = mvi_drop_gil();
    code = mvi_stream_read(cursor, table, false, buffer, size, position, done);
    mvi_take_gil(dropped);
    return code;
}

static bool mvi_stream_read_at(void *context, bool padded, uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    const struct mvi_table *table = mvi_good_buffer(buffer, size) ? mvi_table_of(context) : NULL;
    struct mvi_cursor *cursor = table != NULL ? mvi_context_cursor(context, padded) : NULL;
    uint64_t done = 0, position = 0;
    int32_t code;

    if (table == NULL)
        return mvi_stream_read_by_python(context, padded, buffer, size, 0, 0, bytes_read);
    code = table->by_frames ? mvi_stream_read_frames(cursor, table, buffer, size, &position, &done)
                            : mvi_stream_read(cursor, table, padded, buffer, size, &position, &done);
    mvi_table_leave();
    if (code == MVI_ASK_PYTHON)
        return mvi_stream_read_by_python(context, padded, buffer, size, position + done, done, bytes_read);
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

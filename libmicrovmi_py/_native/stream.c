/* SPDX-License-Identifier: Apache-2.0 */
/* The cursors of the streams, and reading at them; declared in direct.h. */
#include "table.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct mvi_cursor {
    pthread_mutex_t lock;
    uint64_t position;
};

struct mvi_cursor *mvi_cursor_new(void)
{
    struct mvi_cursor *cursor = malloc(sizeof *cursor);
    pthread_mutexattr_t attributes;

    if (cursor != NULL) {
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
        pthread_mutex_init(&cursor->lock, &attributes);
        pthread_mutexattr_destroy(&attributes);
        cursor->position = 0;
    }
    return cursor;
}

void mvi_cursor_free(struct mvi_cursor *cursor)
{
    pthread_mutex_destroy(&cursor->lock);
    free(cursor);
}

/* A thread that left a read by a jump holds the lock already: then it goes on holding it. */
void mvi_cursor_lock(struct mvi_cursor *cursor)
{
    (void)pthread_mutex_lock(&cursor->lock);
}

void mvi_cursor_unlock(struct mvi_cursor *cursor)
{
    pthread_mutex_unlock(&cursor->lock);
}

uint64_t mvi_cursor_get(const struct mvi_cursor *cursor)
{
    return __atomic_load_n(&cursor->position, __ATOMIC_RELAXED);
}

void mvi_cursor_set(struct mvi_cursor *cursor, uint64_t position)
{
    __atomic_store_n(&cursor->position, position, __ATOMIC_RELAXED);
}

/* `from` moved by `offset`, not below 0 and not above `maximum`. */
static uint64_t mvi_moved(uint64_t from, int64_t offset, uint64_t maximum)
{
    uint64_t distance = offset < 0 ? (uint64_t)0 - (uint64_t)offset : (uint64_t)offset;

    if (offset < 0)
        from = from > distance ? from - distance : 0;
    else
        from = from + distance < from ? maximum : from + distance;
    return from < maximum ? from : maximum;
}

int32_t mvi_stream_seek(struct mvi_cursor *cursor, const struct mvi_table *table, int64_t offset, int32_t whence,
                        uint64_t *position)
{
    uint64_t maximum = table->max_address, start = mvi_moved(0, offset, maximum);
    int32_t code = MICROVMI_OK;

    if (whence == SEEK_DATA || whence == SEEK_HOLE)
        start = mvi_table_find(table, start, whence == SEEK_HOLE);
    mvi_cursor_lock(cursor);
    if (whence == SEEK_CUR)
        start = mvi_moved(mvi_cursor_get(cursor), offset, maximum);
    else if (whence == SEEK_END)
        start = mvi_moved(maximum, offset, maximum);
    else if (whence != SEEK_SET && whence != SEEK_DATA && whence != SEEK_HOLE)
        code = MICROVMI_ERROR_INVALID_ARGUMENT;
    if (code == MICROVMI_OK)
        mvi_cursor_set(cursor, start);
    *position = mvi_cursor_get(cursor);
    mvi_cursor_unlock(cursor);
    return code;
}

int32_t mvi_stream_read(struct mvi_cursor *cursor, const struct mvi_table *table, bool padded, uint8_t *buffer,
                        size_t size, uint64_t *position, uint64_t *done)
{
    int32_t code;

    mvi_cursor_lock(cursor);
    *position = mvi_cursor_get(cursor);
    size = *position < table->max_address ? mvi_smaller(size, table->max_address - *position) : 0;
    code = mvi_table_read(table, padded, *position, buffer, size, done);
    mvi_cursor_set(cursor, *position + *done);
    mvi_cursor_unlock(cursor);
    return code == MICROVMI_ERROR_NOT_MAPPED && *done > 0 ? MICROVMI_OK : code;
}

int64_t mvi_stream_take(const struct mvi_stream *stream, uint8_t *buffer, size_t size)
{
    uint64_t position, done = 0;
    int32_t code = mvi_stream_read(stream->cursor, stream->table, stream->padded, buffer, size, &position, &done);

    if (code == MICROVMI_OK)
        return (int64_t)done;
    mvi_thread.failed_position = position;
    mvi_thread.failed_done = done;
    return -(int64_t)code;
}

uint64_t mvi_stream_move(const struct mvi_stream *stream, int64_t offset, int32_t whence)
{
    uint64_t position;

    (void)mvi_stream_seek(stream->cursor, stream->table, offset, whence, &position);
    return position;
}

void mvi_stream_failure(uint64_t *position, uint64_t *done)
{
    *position = mvi_thread.failed_position;
    *done = mvi_thread.failed_done;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions for virtual memory; see entry.c. */
#include "entry.h"
#include "translations.h"

#include "runs.h"

#include <string.h>

/* ------------------------------------------------------------------------------------------------ arguments ------ */

/* The part of a struct that the first version has. */
#define MVI_SPACE_LEAST ((uint32_t)sizeof(struct microvmi_address_space))
#define MVI_TRANSLATION_LEAST ((uint32_t)sizeof(struct microvmi_translation))

static bool mvi_need_space_struct(const struct microvmi_address_space *given)
{
    return mvi_need_struct(given != NULL ? &given->struct_size : NULL, MVI_SPACE_LEAST, "space",
                           "MICROVMI_ADDRESS_SPACE_INIT");
}

/* An address space that is ready for walks, in `room` perhaps. NULL with the error set. */
static const struct mvi_space *mvi_need_space(const struct microvmi_address_space *given, struct mvi_space *room)
{
    const struct mvi_space *space;
    struct microvmi_address_space whole;
    const char *wrong = NULL;

    if (given != NULL && given->struct_size != 0 && mvi_thread.translations != NULL && /* a view may be empty */
        mvi_same_space(&mvi_thread.translations->view->space.given, given))
        return &mvi_thread.translations->view->space;   /* that of the last call */
    if (!mvi_need_space_struct(given) || given == NULL) /* which it says is an error already */
        return NULL;
    whole = *given;
    whole.struct_size = sizeof whole;
    space = mvi_space_ready(&whole, room, &wrong);
    if (space == NULL)
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "space: %s", wrong);
    return space;
}

static bool mvi_failed_virtual(int32_t code, uint64_t address, size_t size, uint64_t done,
                               const struct microvmi_translation *end)
{
    char text[MVI_DESCRIPTION];

    mvi_describe_virtual(code, address, size, done, end, text, sizeof text);
    mvi_set_error(code, text);
    return false;
}

static bool mvi_finish_virtual(int32_t code, uint64_t address, size_t size, uint64_t done,
                               const struct microvmi_translation *end)
{
    if (__builtin_expect(code != MICROVMI_OK, 0))
        return mvi_failed_virtual(code, address, size, done, end);
    mvi_clear_error();
    return true;
}

/* ------------------------------------------------------------------------------------------------ spaces --------- */

bool microvmi_get_address_space(void *context, uint16_t vcpu, struct microvmi_address_space *space)
{
    struct microvmi_address_space found = MICROVMI_ADDRESS_SPACE_INIT;

    if (!mvi_enter(context) || !mvi_need_space_struct(space) ||
        !mvi_leave(mvi_py_get_address_space((uintptr_t)context, vcpu, &found)))
        return false;
    mvi_hand_out(space, &found, sizeof found);
    return true;
}

bool microvmi_get_twin_address_space(void *context, const struct microvmi_address_space *space,
                                     struct microvmi_address_space *twin)
{
    struct microvmi_address_space found = MICROVMI_ADDRESS_SPACE_INIT;
    const struct mvi_space *ready;
    struct mvi_space room;

    if (!mvi_enter(context) || (ready = mvi_need_space(space, &room)) == NULL ||
        !mvi_need_struct(twin != NULL ? &twin->struct_size : NULL, MVI_SPACE_LEAST, "twin",
                         "MICROVMI_ADDRESS_SPACE_INIT") ||
        !mvi_leave(mvi_py_get_twin_address_space((uintptr_t)context, &ready->given, &found)))
        return false;
    mvi_hand_out(twin, &found, sizeof found);
    return true;
}

/* ------------------------------------------------------------------------------------------------ translating ---- */

/* A table that C can read by itself: pages that are kept, what is mapped or a system call reads. What a library of a
 * hypervisor reads is not waited for with Python's lock, which *dropped is for. NULL: there is none. */
static const struct mvi_table *mvi_begin(void *context, void **dropped)
{
    const struct mvi_table *table = mvi_table_of(context);

    *dropped = NULL;
    if (table == NULL || !table->by_frames)
        return table;
    if (mvi_has_library(table)) {
        *dropped = mvi_drop_gil();
        return table;
    }
    mvi_table_leave();
    return NULL;
}

static void mvi_end(void *dropped)
{
    mvi_table_leave();
    if (dropped != NULL)
        mvi_take_gil(dropped);
}

static bool mvi_translate_by_python(void *context, const struct mvi_space *space, uint64_t address,
                                    struct microvmi_translation *translation)
{
    return mvi_enter(context) && mvi_leave(mvi_py_translate((uintptr_t)context, &space->given, address, translation));
}

bool microvmi_translate_address(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                                struct microvmi_translation *translation)
{
    struct microvmi_translation found = MICROVMI_TRANSLATION_INIT;
    int32_t code = MVI_ASK_PYTHON;
    const struct mvi_space *ready;
    const struct mvi_table *table;
    struct mvi_space room;
    void *dropped;
    bool translated;

    if ((ready = mvi_need_space(space, &room)) == NULL ||
        !mvi_need_struct(translation != NULL ? &translation->struct_size : NULL, MVI_TRANSLATION_LEAST, "translation",
                         "MICROVMI_TRANSLATION_INIT"))
        return false;
    table = mvi_begin(context, &dropped);
    if (table != NULL) {
        code = mvi_virtual_translate(table, ready, virtual_address, &found);
        mvi_end(dropped);
    }
    translated = code == MVI_ASK_PYTHON ? mvi_translate_by_python(context, ready, virtual_address, &found)
                                        : mvi_finish_virtual(code, virtual_address, 1, 0, &found);
    if (translated || microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED)
        mvi_hand_out(translation, &found, sizeof found);
    return translated;
}

/* ------------------------------------------------------------------------------------------------ reading -------- */

/* `done` bytes of it are read already. */
static __attribute__((noinline)) bool mvi_read_virtual_by_python(void *context, bool padded,
                                                                 const struct mvi_space *space, uint64_t address,
                                                                 uint8_t *buffer, size_t size, uint64_t done,
                                                                 uint64_t *bytes_read)
{
    bool read =
        mvi_enter(context) && mvi_need_buffer(buffer, size) &&
        mvi_leave(mvi_py_read_virtual((uintptr_t)context, padded, &space->given, address, buffer, size, done, &done));

    if (bytes_read != NULL)
        *bytes_read = read ? size : done;
    return read;
}

static __attribute__((noinline)) bool mvi_read_virtual_at(void *context, bool padded,
                                                          const struct microvmi_address_space *given, uint64_t address,
                                                          uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    const struct mvi_table *table;
    const struct mvi_space *space;
    struct microvmi_translation end;
    struct mvi_space room;
    uint64_t done = 0;
    void *dropped;
    int32_t code;

    if (bytes_read != NULL)
        *bytes_read = 0;
    space = mvi_need_space(given, &room);
    if (space == NULL)
        return false;
    table = mvi_good_buffer(buffer, size) ? mvi_begin(context, &dropped) : NULL;
    if (__builtin_expect(table == NULL, 0))
        return mvi_read_virtual_by_python(context, padded, space, address, buffer, size, 0, bytes_read);
    code = mvi_virtual_read(table, space, padded, address, buffer, size, &done, &end);
    if (size == 8 && code == MICROVMI_OK && !table->by_frames)
        mvi_context_near_space(context, table);
    mvi_end(dropped);
    if (__builtin_expect(code == MVI_ASK_PYTHON, 0))
        return mvi_read_virtual_by_python(context, padded, space, address, buffer, size, done, bytes_read);
    if (bytes_read != NULL)
        *bytes_read = done;
    return mvi_finish_virtual(code, address, size, done, &end);
}

/* The arguments of these are those of their callers, in the same places: what is most frequent needs no stack. */
static __attribute__((noinline)) bool mvi_read_virtual_plain(void *context, const struct microvmi_address_space *space,
                                                             uint64_t address, uint8_t *buffer, size_t size,
                                                             uint64_t *bytes_read)
{
    if (size != 8 || space == NULL || buffer == NULL ||
        !mvi_virtual_read_word((uintptr_t)context, space, address, buffer))
        return mvi_read_virtual_at(context, false, space, address, buffer, size, bytes_read);
    if (bytes_read != NULL)
        *bytes_read = 8;
    return true; /* a thread with an error reads no word this way */
}

static __attribute__((noinline)) bool mvi_read_virtual_walked(void *context, const struct microvmi_address_space *space,
                                                              uint64_t address, uint8_t *buffer, size_t size,
                                                              uint64_t *bytes_read)
{
    if (!mvi_virtual_read_walked((uintptr_t)context, space, address, buffer))
        return mvi_read_virtual_plain(context, space, address, buffer, size, bytes_read);
    if (bytes_read != NULL)
        *bytes_read = 8;
    return true;
}

bool microvmi_read_virtual(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                           uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    if (__builtin_expect(size != 8, 0))
        return mvi_read_virtual_plain(context, space, virtual_address, buffer, size, bytes_read);
    if (__builtin_expect(space == NULL, 0) || __builtin_expect(buffer == NULL, 0))
        return mvi_read_virtual_plain(context, space, virtual_address, buffer, size, bytes_read);
    if (!mvi_virtual_read_kept((uintptr_t)context, space, virtual_address, buffer))
        return mvi_read_virtual_walked(context, space, virtual_address, buffer, size, bytes_read);
    if (bytes_read != NULL)
        *bytes_read = 8;
    return true;
}

bool microvmi_read_virtual_padded(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                                  uint8_t *buffer, size_t size, uint64_t *bytes_read)
{
    return mvi_read_virtual_at(context, true, space, virtual_address, buffer, size, bytes_read);
}

/* ------------------------------------------------------------------------------------------------ writing -------- */

bool microvmi_write_virtual(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                            const uint8_t *data, size_t size)
{
    struct microvmi_translation end;
    const struct mvi_table *table;
    const struct mvi_space *ready;
    int32_t code = MVI_ASK_PYTHON;
    struct mvi_space room;
    uint64_t done = 0;

    ready = mvi_need_space(space, &room);
    if (ready == NULL)
        return false;
    table = mvi_good_buffer(data, size) ? mvi_direct(context) : NULL;
    if (table != NULL) {
        code = mvi_virtual_write(table, ready, virtual_address, data, size, false, &done, &end);
        mvi_table_leave();
    }
    if (code != MVI_ASK_PYTHON)
        return mvi_finish_virtual(code, virtual_address, size, done, &end);
    return mvi_enter(context) && mvi_need_buffer(data, size) &&
           mvi_leave(mvi_py_write_virtual((uintptr_t)context, &ready->given, virtual_address, data, size));
}

/* ------------------------------------------------------------------------------------------------ batches -------- */

/* The error of the first request that was not whole. */
static bool mvi_finish_batch(const struct mvi_table *table, const struct mvi_space *space,
                             const struct microvmi_read_request *requests)
{
    struct microvmi_translation end;
    size_t index = 0;

    while (requests[index].error == MICROVMI_OK)
        index++;
    mvi_virtual_end(table, space, requests[index].virtual_address, requests[index].bytes_read, &end);
    return mvi_failed_virtual(requests[index].error, requests[index].virtual_address, requests[index].size,
                              requests[index].bytes_read, &end);
}

static bool mvi_batch_by_python(void *context, const struct mvi_space *space, struct microvmi_read_request *requests,
                                size_t count)
{
    return mvi_enter(context) &&
           mvi_leave(mvi_py_read_virtual_batch((uintptr_t)context, &space->given, requests, count));
}

bool microvmi_read_virtual_batch(void *context, const struct microvmi_address_space *space,
                                 struct microvmi_read_request *requests, size_t count)
{
    const struct mvi_table *table;
    const struct mvi_space *ready;
    struct mvi_space room;
    size_t index;
    bool all;

    ready = mvi_need_space(space, &room);
    if (ready == NULL || (count != 0 && !mvi_need(requests, "requests")))
        return false;
    for (index = 0; index < count; index++)
        if (!mvi_good_buffer(requests[index].buffer, requests[index].size))
            return mvi_need_buffer(requests[index].buffer, requests[index].size);
    table = mvi_direct(context);
    if (table == NULL)
        return mvi_batch_by_python(context, ready, requests, count);
    all = mvi_virtual_read_batch(table, ready, requests, count);
    if (!all)
        (void)mvi_finish_batch(table, ready, requests);
    else
        mvi_clear_error();
    mvi_table_leave();
    return all;
}

/* ------------------------------------------------------------------------------------------------ the map -------- */

/* Do the reads of a walk. False with the error set: a table could not be read, though it is memory. */
static bool mvi_read_tables(void *context, struct mvi_runs *runs, struct microvmi_read_request *requests, size_t count)
{
    const struct mvi_table *table = mvi_direct(context);
    uint64_t address = 0;
    bool missing = false;
    int32_t code;
    size_t index;

    if (table != NULL) {
        code = mvi_runs_read(runs, table, &address);
        mvi_table_leave();
        return mvi_finish(code, address, PAGE_SIZE, 0);
    }
    if (microvmi_read_physical_batch(context, requests, count))
        return true;
    for (index = 0; index < count; index++) {
        code = requests[index].error;
        if (code != MICROVMI_OK && code != MICROVMI_ERROR_NOT_MAPPED)
            return missing &&
                   mvi_failed(code, requests[index].physical_address, requests[index].size, requests[index].bytes_read);
        missing = missing || code != MICROVMI_OK;
    }
    return missing; /* else nothing was done, and the error is that of the call */
}

bool microvmi_get_virtual_map(void *context, const struct microvmi_address_space *space, uint64_t *next,
                              struct microvmi_virtual_range *ranges, size_t capacity, size_t *count)
{
    struct microvmi_read_request *requests;
    const struct mvi_space *ready;
    struct mvi_space room;
    struct mvi_runs *runs;
    bool good = true;
    size_t wanted;

    if (!mvi_enter(context) || (ready = mvi_need_space(space, &room)) == NULL || !mvi_need(next, "next") ||
        !mvi_need(capacity > 0 ? ranges : NULL, "ranges, or room for one,") || !mvi_need(count, "count"))
        return false;
    runs = mvi_runs_new();
    if (runs == NULL) {
        mvi_set_error(MICROVMI_ERROR_IO, "no memory for a walk over page tables");
        return false;
    }
    mvi_runs_begin(runs, ready, *next, UINT64_MAX, ranges, capacity);
    while (good && (wanted = mvi_runs_want(runs, &requests)) > 0)
        good = mvi_read_tables(context, runs, requests, wanted);
    if (good)
        *count = mvi_runs_end(runs, next);
    mvi_runs_free(runs);
    if (good)
        mvi_clear_error();
    return good;
}

bool microvmi_flush_translations(void *context)
{
    const struct mvi_table *table = mvi_table_of(context);

    if (table == NULL)
        return mvi_enter(context); /* nothing is remembered without a table */
    mvi_table_flush(table);
    mvi_table_leave();
    mvi_clear_error();
    return true;
}

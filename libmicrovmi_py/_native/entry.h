/* SPDX-License-Identifier: Apache-2.0 */
/* What the exported functions begin and end with; see entry.c. */
#ifndef MVI_ENTRY_H
#define MVI_ENTRY_H

#include "context.h"
#include "internal.h"

/* Each sets the error where it returns false. */
bool mvi_need(const void *pointer, const char *name);
bool mvi_need_buffer(const void *buffer, size_t size);
/* A struct that may grow, by the place of its struct_size, which is at least that of its first version. */
bool mvi_need_struct(const uint32_t *given, uint32_t least, const char *name, const char *initializer);
/* Give a caller what he knows of a struct that may grow, of which `size` bytes are filled, and its struct_size. */
void mvi_hand_out(void *given, void *filled, uint32_t size);
/* A context for Python. Clears the error, so that one that is set later is this call's. */
bool mvi_enter(void *context);
/* What a function of Python returned. */
bool mvi_leave(int32_t succeeded);
/* The same for one that put a machine behind a new context: that context, or NULL. */
void *mvi_opened(void *context, int32_t succeeded);
/* Hand out the error's text if there is no context, which is returned. */
void *mvi_report(void *context, const char **error);

/* ------------------------------------------------------------------------------------------ without Python ------- */

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

/* Whether a hypervisor's library can be called on this thread: it may need as much stack as Python. */
static inline bool mvi_has_library(const struct mvi_table *table)
{
    return table->foreign != NULL && mvi_has_stack();
}

/* Set the error that a code of direct access stands for; false. */
bool mvi_failed(int32_t code, uint64_t address, size_t size, uint64_t done);

static inline bool mvi_finish(int32_t code, uint64_t address, size_t size, uint64_t done)
{
    if (__builtin_expect(code != MICROVMI_OK, 0))
        return mvi_failed(code, address, size, done);
    mvi_clear_error();
    return true;
}

static inline bool mvi_good_buffer(const void *buffer, size_t size)
{
    return __builtin_expect((buffer != NULL || size == 0) && size <= PTRDIFF_MAX, 1);
}

#endif

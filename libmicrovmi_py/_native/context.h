/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts are tokens: a slot number, a generation that changes whenever the slot is taken, and a constant that no
 * address of a Linux process has in that place. A token is live while its slot holds it, so NULL, garbage and
 * destroyed contexts are told by one comparison, without touching what they might point at.
 */
#ifndef MVI_CONTEXT_H
#define MVI_CONTEXT_H

#include "readers.h"
#include "services.h"

#define MVI_SLOT_BITS 12
#define MVI_SLOTS (1u << MVI_SLOT_BITS)

struct mvi_slot {
    uintptr_t token; /* 0 when not live; read without the lock */
    bool taken;      /* also after the context's end, until nobody reads through its table any more */
    uint32_t generation;
    int32_t driver_type;
    const char *driver_name;       /* lives as long as the process */
    struct mvi_table *table;       /* NULL without direct access; read without the lock, see readers.h */
    struct mvi_cursor *cursors[2]; /* of the plain and of the padded stream; live as long as a table */
    uint64_t edition;              /* the table's; 0 while there is none */
} __attribute__((aligned(64)));

extern __attribute__((visibility("hidden"))) struct mvi_slot mvi_slots[MVI_SLOTS];

static inline struct mvi_slot *mvi_slot_of(void *context)
{
    return &mvi_slots[(uintptr_t)context & (MVI_SLOTS - 1)];
}

/* A new token. NULL with the error set: too many are live. */
void *mvi_context_new(void);
/* A stale token is never taken for a live one. */
bool mvi_context_is_live(void *context);
/* End a token; returns when nobody reads through its table any more, or after some seconds. False: it was not live. */
bool mvi_context_retire(void *context);
/* Whether there are live ones. */
bool mvi_context_any(void);
int32_t mvi_context_driver_type(void *context);
const char *mvi_context_driver_name(void *context);

/* After a word was read through the table of a context, which is in use: see mvi_table_near(). */
static inline void mvi_context_near(void *context)
{
    struct mvi_slot *slot = mvi_slot_of(context);

    mvi_table_near((uintptr_t)context, &slot->table, &slot->edition);
}

/* The same for virtual memory. */
static inline void mvi_context_near_space(void *context, const struct mvi_table *table)
{
    mvi_table_near_space((uintptr_t)context, table, &mvi_slot_of(context)->edition);
}

/* The table of a context, until mvi_table_leave(); NULL: the context is not live, or there is none. */
static inline const struct mvi_table *mvi_context_enter(void *context)
{
    struct mvi_slot *slot = mvi_slot_of(context);

    return mvi_table_enter(&slot->table, &slot->token, (uintptr_t)context);
}

/* The table of another context, beside one that is in use, until mvi_table_leave_second(). */
static inline const struct mvi_table *mvi_context_enter_second(void *context)
{
    struct mvi_slot *slot = mvi_slot_of(context);

    return mvi_table_enter_second(&slot->table, &slot->token, (uintptr_t)context);
}

static inline struct mvi_cursor *mvi_context_cursor(void *context, bool padded)
{
    return mvi_slot_of(context)->cursors[padded];
}

#endif

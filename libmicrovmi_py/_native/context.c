/* SPDX-License-Identifier: Apache-2.0 */
/* Taking and ending contexts; see context.h. */
#include "context.h"

#include "internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MVI_GENERATION_BITS 28
#define MVI_TAG ((uintptr_t)0x2d << (MVI_SLOT_BITS + MVI_GENERATION_BITS))

struct mvi_slot mvi_slots[MVI_SLOTS];
static pthread_mutex_t mvi_slots_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned mvi_slots_used;

bool mvi_context_is_live(void *context)
{
    return context != NULL && __atomic_load_n(&mvi_slot_of(context)->token, __ATOMIC_ACQUIRE) == (uintptr_t)context;
}

static uintptr_t mvi_token_for(unsigned index)
{
    struct mvi_slot *slot = &mvi_slots[index];

    slot->generation = (slot->generation + 1) & ((1u << MVI_GENERATION_BITS) - 1);
    return MVI_TAG | (uintptr_t)slot->generation << MVI_SLOT_BITS | index;
}

void *mvi_context_new(void)
{
    uintptr_t token = 0;
    unsigned index;

    pthread_mutex_lock(&mvi_slots_lock);
    for (index = 0; index < MVI_SLOTS && token == 0; index++) {
        if (mvi_slots[index].taken)
            continue;
        token = mvi_token_for(index);
        mvi_slots[index].taken = true;
        __atomic_store_n(&mvi_slots[index].driver_type, MICROVMI_DRIVER_UNKNOWN, __ATOMIC_RELAXED);
        __atomic_store_n(&mvi_slots[index].driver_name, NULL, __ATOMIC_RELAXED);
        __atomic_fetch_add(&mvi_slots_used, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&mvi_slots[index].token, token, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&mvi_slots_lock);
    if (token == 0)
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "%u contexts are open already: destroy some", MVI_SLOTS);
    return (void *)token;
}

/* With the lock. Each table is an edition of its own; between two there is none, so that nobody takes one for the other's. */
static struct mvi_table *mvi_put(struct mvi_slot *slot, struct mvi_table *table)
{
    struct mvi_table *before;

    __atomic_store_n(&slot->edition, 0, __ATOMIC_RELEASE);
    before = mvi_table_put(&slot->table, table);
    if (table != NULL)
        __atomic_store_n(&slot->edition, table->edition, __ATOMIC_RELEASE);
    return before;
}

bool mvi_context_retire(void *context)
{
    struct mvi_table *table = NULL;
    bool retired = false;

    pthread_mutex_lock(&mvi_slots_lock);
    if (mvi_context_is_live(context)) {
        __atomic_store_n(&mvi_slot_of(context)->token, 0, __ATOMIC_RELEASE);
        table = mvi_put(mvi_slot_of(context), NULL);
        __atomic_fetch_sub(&mvi_slots_used, 1, __ATOMIC_RELAXED);
        retired = true;
    }
    pthread_mutex_unlock(&mvi_slots_lock);
    if (!retired)
        return false;
    if (!mvi_table_wait(table))
        return true; /* somebody still reads: the slot is not used again */
    pthread_mutex_lock(&mvi_slots_lock);
    mvi_slot_of(context)->taken = false;
    pthread_mutex_unlock(&mvi_slots_lock);
    return true;
}

bool mvi_context_publish(uintptr_t context, struct mvi_table *table, struct mvi_cursor *plain,
                         struct mvi_cursor *padded)
{
    struct mvi_slot *slot = mvi_slot_of((void *)context);
    struct mvi_table *before = NULL;
    bool live;

    pthread_mutex_lock(&mvi_slots_lock);
    live = mvi_context_is_live((void *)context);
    if (live) {
        /* A context keeps its cursors; they are read without the lock. */
        if (slot->cursors[0] != plain || slot->cursors[1] != padded) {
            slot->cursors[0] = plain;
            slot->cursors[1] = padded;
        }
        before = mvi_put(slot, table);
    }
    pthread_mutex_unlock(&mvi_slots_lock);
    (void)mvi_table_wait(before);
    return live;
}

bool mvi_context_reads(const struct mvi_table *table)
{
    return mvi_table_is_used(table);
}

bool mvi_context_any(void)
{
    return __atomic_load_n(&mvi_slots_used, __ATOMIC_RELAXED) != 0;
}

/* One copy of every driver name that was ever in use; they are few, and stay. */
static const char *mvi_intern(const char *name)
{
    static struct mvi_name {
        struct mvi_name *next;
        char text[];
    } *names;
    struct mvi_name *entry;

    for (entry = names; entry != NULL; entry = entry->next)
        if (strcmp(entry->text, name) == 0)
            return entry->text;
    entry = malloc(sizeof *entry + strlen(name) + 1);
    if (entry == NULL)
        return "";
    strcpy(entry->text, name);
    entry->next = names;
    names = entry;
    return entry->text;
}

void mvi_context_describe(void *context, int32_t driver_type, const char *driver_name)
{
    pthread_mutex_lock(&mvi_slots_lock);
    if (mvi_context_is_live(context)) {
        __atomic_store_n(&mvi_slot_of(context)->driver_type, driver_type, __ATOMIC_RELAXED);
        __atomic_store_n(&mvi_slot_of(context)->driver_name, mvi_intern(driver_name), __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&mvi_slots_lock);
}

int32_t mvi_context_driver_type(void *context)
{
    return __atomic_load_n(&mvi_slot_of(context)->driver_type, __ATOMIC_RELAXED);
}

const char *mvi_context_driver_name(void *context)
{
    return __atomic_load_n(&mvi_slot_of(context)->driver_name, __ATOMIC_ACQUIRE);
}

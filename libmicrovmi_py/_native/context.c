/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts are tokens: a slot number, a generation that changes whenever the slot is taken, and a constant that no
 * address of a Linux process has in that place. A token is live while its slot holds it, so NULL, garbage and
 * destroyed contexts are told by one comparison, without touching what they might point at.
 */
#include "internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MVI_SLOT_BITS 12
#define MVI_SLOTS (1u << MVI_SLOT_BITS)
#define MVI_GENERATION_BITS 28
#define MVI_TAG ((uintptr_t)0x2d << (MVI_SLOT_BITS + MVI_GENERATION_BITS))

struct mvi_slot {
    uintptr_t token; /* 0 when free; read without the lock */
    uint32_t generation;
    int32_t driver_type;
    const char *driver_name; /* lives as long as the process */
};

static struct mvi_slot mvi_slots[MVI_SLOTS];
static pthread_mutex_t mvi_slots_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned mvi_slots_used;

static struct mvi_slot *mvi_slot_of(void *context)
{
    return &mvi_slots[(uintptr_t)context & (MVI_SLOTS - 1)];
}

bool mvi_context_is_live(void *context)
{
    return context != NULL &&
           __atomic_load_n(&mvi_slot_of(context)->token, __ATOMIC_ACQUIRE) == (uintptr_t)context;
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
        if (mvi_slots[index].token != 0)
            continue;
        token = mvi_token_for(index);
        mvi_slots[index].driver_type = MICROVMI_DRIVER_UNKNOWN;
        mvi_slots[index].driver_name = NULL;
        mvi_slots_used++;
        __atomic_store_n(&mvi_slots[index].token, token, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&mvi_slots_lock);
    if (token == 0)
        mvi_set_errorf(MICROVMI_ERROR_INVALID_ARGUMENT, "%u contexts are open already: destroy some", MVI_SLOTS);
    return (void *)token;
}

bool mvi_context_retire(void *context)
{
    bool retired = false;

    pthread_mutex_lock(&mvi_slots_lock);
    if (mvi_context_is_live(context)) {
        __atomic_store_n(&mvi_slot_of(context)->token, 0, __ATOMIC_RELEASE);
        mvi_slots_used--;
        retired = true;
    }
    pthread_mutex_unlock(&mvi_slots_lock);
    return retired;
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
        mvi_slot_of(context)->driver_type = driver_type;
        mvi_slot_of(context)->driver_name = mvi_intern(driver_name);
    }
    pthread_mutex_unlock(&mvi_slots_lock);
}

int32_t mvi_context_driver_type(void *context)
{
    return mvi_slot_of(context)->driver_type;
}

const char *mvi_context_driver_name(void *context)
{
    return mvi_slot_of(context)->driver_name;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is using which table: a table that was replaced, or whose context was destroyed, is released when no thread
 * reads through it any more.
 *
 * Every thread says which table it is about to use, and looks whether that is still the published one; whoever takes a
 * table back first unpublishes it, then waits until no thread says so. The store of the reader must not pass its second
 * look: the waiting side sees to that for all threads at once with membarrier(), so that a read pays no fence. Both its
 * stores release: whoever waits may see either, and what was read before is then over.
 *
 * A call that reads through two tables names both, each in a word of its own, so there is no order in which they are to be
 * taken. What such a call leaves behind by a jump goes with the next entry: until then nothing is read the fast way.
 *
 * All of that is here and in readers.c. A published table stands in a place, which is live while a word beside it holds
 * what is expected.
 */
#ifndef MVI_READERS_H
#define MVI_READERS_H

#include "table.h"
#include "words.h"

#include <string.h>

/* One a thread; never freed, as other threads look at it, but used again after the thread's end. */
struct mvi_reader {
    uint64_t used;   /* the address of a table, or its edition; 0 between calls */
    uint64_t second; /* the address of another one that is used beside it; 0 nearly always */
    struct mvi_reader *next;
    int taken;
} __attribute__((aligned(64)));

/* The kernel puts a fence into every thread when asked. */
extern __attribute__((visibility("hidden"))) bool mvi_light;

/* False: without memory, or without a way to notice the end of the thread, which then reads by way of Python. */
bool mvi_become_reader(void);

static inline void mvi_fence(void)
{
    if (__builtin_expect(mvi_light, 1))
        __asm__ volatile("" ::: "memory");
    else
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Say in a word that the table in *place is used, if `still` holds what it should; NULL if not. */
static inline const struct mvi_table *mvi_table_name(uint64_t *word, struct mvi_table *const *place,
                                                     const uintptr_t *still, uintptr_t expected)
{
    const struct mvi_table *table = __atomic_load_n(place, __ATOMIC_ACQUIRE);

    if (table == NULL)
        return NULL;
    __atomic_store_n(word, (uintptr_t)table, __ATOMIC_RELEASE);
    mvi_fence();
    if (__builtin_expect(__atomic_load_n(place, __ATOMIC_ACQUIRE) == table &&
                             __atomic_load_n(still, __ATOMIC_ACQUIRE) == expected,
                         1))
        return table;
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
    return NULL;
}

/* Take part in the use of *place, if `still` holds what it should; NULL if not. mvi_table_leave() ends it. */
static inline const struct mvi_table *mvi_table_enter(struct mvi_table *const *place, const uintptr_t *still,
                                                      uintptr_t expected)
{
    if (mvi_thread.reader == NULL && !mvi_become_reader())
        return NULL;
    __atomic_store_n(&mvi_thread.reader->second, 0, __ATOMIC_RELEASE);
    return mvi_table_name(&mvi_thread.reader->used, place, still, expected);
}

static inline void mvi_table_leave(void)
{
    __atomic_store_n(&mvi_thread.reader->used, 0, __ATOMIC_RELEASE);
}

/* From now on, until the next word: nothing is read the fast way by this thread. */
static inline void mvi_near_none(void)
{
    mvi_thread.near.context = 0;
    if (mvi_thread.translations != NULL)
        mvi_near_forget(mvi_thread.translations);
}

/* The same for another table beside that one, perhaps the same one; mvi_table_leave_second() comes before the other leave. */
static inline const struct mvi_table *mvi_table_enter_second(struct mvi_table *const *place, const uintptr_t *still,
                                                             uintptr_t expected)
{
    mvi_near_none();
    return mvi_table_name(&mvi_thread.reader->second, place, still, expected);
}

static inline void mvi_table_leave_second(void)
{
    __atomic_store_n(&mvi_thread.reader->second, 0, __ATOMIC_RELEASE);
}

/*
 * The fast way, for words of 8 bytes in the mapping read last. False, with nothing done: not that case, whatever it is.
 * What a word costs is instructions, the more as they keep the next word's cache miss from starting. So all that it
 * needs stands with the thread, and one look tells whether that is still so: the edition of a table is a number that no
 * other one ever had. It stands for the table in what the reader says of itself.
 */
static inline bool mvi_table_read_word(uintptr_t context, uint64_t address, uint8_t *buffer)
{
    const struct mvi_near *near = &mvi_thread.near;
    uint64_t offset = address - near->start, edition;
    struct mvi_reader *reader;
    bool current;

    if (__builtin_expect(near->context != context || offset >= near->span, 0))
        return false;
    reader = mvi_thread.reader;
    edition = near->edition;
    __atomic_store_n(&reader->used, edition, __ATOMIC_RELEASE);
    __asm__ volatile("" ::: "memory"); /* mvi_table_near() saw to it: membarrier() is the other half of this fence */
    current = __builtin_expect(__atomic_load_n(near->place, __ATOMIC_ACQUIRE) == edition, 1);
    if (current)
        memcpy(buffer, near->bytes + offset, 8);
    __atomic_store_n(&reader->used, 0, __ATOMIC_RELEASE);
    return current;
}

/*
 * After a word was read through a table that is in use, in the region found last: the next one is read the fast way, if
 * `edition` is that of the table in `place`, and words of that region can be.
 */
void mvi_table_near(uintptr_t context, struct mvi_table *const *place, const uint64_t *edition);

/*
 * The same for virtual memory: through tables that are mapped as well, and by translations that are remembered. What it
 * needs stands with the thread's translations.
 */
static inline bool mvi_is_near(const struct mvi_near_space *near, const struct microvmi_address_space *given,
                               uint64_t address)
{
    return __builtin_expect(mvi_same_space(&near->given, given), 1) &&
           __builtin_expect((address & (PAGE_SIZE - 1)) <= PAGE_SIZE - 8, 1);
}

/* Begin to use the table of the last word, if it is the present one; `reader` is left in any case. */
static inline bool mvi_near_enter(struct mvi_reader *reader, const struct mvi_near_space *near)
{
    uint64_t edition = near->edition;

    __atomic_store_n(&reader->used, edition, __ATOMIC_RELEASE);
    __asm__ volatile("" ::: "memory"); /* mvi_table_near_space() saw to the other half of this fence, membarrier() */
    return __builtin_expect(__atomic_load_n(near->place, __ATOMIC_ACQUIRE) == edition, 1);
}

static inline void mvi_near_leave(struct mvi_reader *reader)
{
    __atomic_store_n(&reader->used, 0, __ATOMIC_RELEASE);
}

/* By a translation that is remembered, in the mapping read last. */
static inline bool mvi_virtual_read_kept(uintptr_t context, const struct microvmi_address_space *given,
                                         uint64_t address, uint8_t *buffer)
{
    struct mvi_translations *own = mvi_thread.translations;
    struct mvi_reader *reader;
    uint64_t physical, offset;

    if (__builtin_expect(own == NULL, 0) || own->near.keeper != context || !mvi_is_near(&own->near, given, address))
        return false;
    reader = mvi_thread.reader;
    if (mvi_near_enter(reader, &own->near) &&
        __builtin_expect(own->near.flushes == __atomic_load_n(&own->near.table->flushes, __ATOMIC_ACQUIRE), 1) &&
        __builtin_expect(mvi_translation_get(own, own->near.key, address, &physical), 1) &&
        __builtin_expect((offset = physical - own->near.data.start) < own->near.data.span, 1)) {
        memcpy(buffer, own->near.data.bytes + offset, 8);
        mvi_near_leave(reader);
        return true;
    }
    mvi_near_leave(reader);
    return false;
}

/* By a walk of x86 with four levels or five, with tables in the mapping where they were last; nothing is remembered. */
static inline bool mvi_virtual_read_walked(uintptr_t context, const struct microvmi_address_space *given,
                                           uint64_t address, uint8_t *buffer)
{
    struct mvi_translations *own = mvi_thread.translations;
    struct mvi_reader *reader;
    uint64_t physical, offset;

    if (__builtin_expect(own == NULL, 0) || own->near.walker != context || !mvi_is_near(&own->near, given, address))
        return false;
    reader = mvi_thread.reader;
    if (mvi_near_enter(reader, &own->near) && mvi_walk_long(&own->near, address, &physical) &&
        __builtin_expect((offset = physical - own->near.data.start) < own->near.data.span, 1)) {
        memcpy(buffer, own->near.data.bytes + offset, 8);
        mvi_near_leave(reader);
        return true;
    }
    mvi_near_leave(reader);
    return false;
}

/* In any mapping, by what is remembered or by a walk. */
static inline bool mvi_virtual_read_word(uintptr_t context, const struct microvmi_address_space *given,
                                         uint64_t address, uint8_t *buffer)
{
    struct mvi_translations *own = mvi_thread.translations;
    const uint8_t *bytes = NULL;
    struct mvi_reader *reader;
    uint64_t physical;

    if (__builtin_expect(own == NULL, 0) || own->near.context != context || !mvi_is_near(&own->near, given, address))
        return false;
    reader = mvi_thread.reader;
    if (mvi_near_enter(reader, &own->near) && mvi_word_through(own, address, &physical))
        bytes = mvi_word_at(own->near.table, physical, &own->near.data);
    if (bytes != NULL)
        memcpy(buffer, bytes, 8);
    mvi_near_leave(reader);
    return bytes != NULL;
}

/* After a word of virtual memory was read, as mvi_table_near(). */
void mvi_table_near_space(uintptr_t context, const struct mvi_table *table, const uint64_t *edition);

/* Put a table (NULL: none) into a place; the one before is returned, which mvi_table_wait() is to be called with. */
struct mvi_table *mvi_table_put(struct mvi_table **place, struct mvi_table *table);

/*
 * Wait until no other thread uses a table that was unpublished before. False: one still does after all that time, and
 * what the table points at has to stay.
 */
bool mvi_table_wait(const struct mvi_table *table);

/* Whether a thread uses a table. */
bool mvi_table_is_used(const struct mvi_table *table);

#endif

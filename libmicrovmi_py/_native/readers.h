/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is using which table: a table that was replaced, or whose context was destroyed, is released when no thread
 * reads through it any more.
 *
 * Every thread says which table it is about to use, and looks whether that is still the published one; whoever takes a
 * table back first unpublishes it, then waits until no thread says so. The store of the reader must not pass its second
 * look: the waiting side sees to that for all threads at once with membarrier(), so that a read pays no fence.
 *
 * All of that is here and in readers.c. A published table stands in a place, which is live while a word beside it holds
 * what is expected.
 */
#ifndef MVI_READERS_H
#define MVI_READERS_H

#include "table.h"

#include <string.h>

/* One a thread; never freed, as other threads look at it, but used again after the thread's end. */
struct mvi_reader {
    const struct mvi_table *used; /* NULL between calls */
    struct mvi_reader *next;
    int taken;
} __attribute__((aligned(64)));

/* The kernel puts a fence into every thread when asked. */
extern __attribute__((visibility("hidden"))) bool mvi_light;

/* False: without memory, or without a way to notice the end of the thread, which then reads by way of Python. */
bool mvi_become_reader(void);

/* From now on the fast way is none for this thread. */
void mvi_reader_slow_down(void);

static inline void mvi_fence(void)
{
    if (__builtin_expect(mvi_light, 1))
        __asm__ volatile("" ::: "memory");
    else
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Take part in the use of *place, if `still` holds what it should; NULL if not. mvi_table_leave() ends it. */
static inline const struct mvi_table *mvi_table_enter(struct mvi_table *const *place, const uintptr_t *still,
                                                      uintptr_t expected)
{
    const struct mvi_table *table = __atomic_load_n(place, __ATOMIC_ACQUIRE);

    if (table == NULL || (mvi_thread.reader == NULL && !mvi_become_reader()))
        return NULL;
    __atomic_store_n(&mvi_thread.reader->used, table, __ATOMIC_RELAXED);
    mvi_fence();
    if (__builtin_expect(__atomic_load_n(place, __ATOMIC_ACQUIRE) == table &&
                             __atomic_load_n(still, __ATOMIC_ACQUIRE) == expected,
                         1))
        return table;
    __atomic_store_n(&mvi_thread.reader->used, NULL, __ATOMIC_RELEASE);
    return NULL;
}

static inline void mvi_table_leave(void)
{
    __atomic_store_n(&mvi_thread.reader->used, NULL, __ATOMIC_RELEASE);
}

/*
 * The fast way, for words of 8 bytes within the mapping read last. False, with nothing done: not that case, whatever it
 * is. What a word costs is instructions, the more as they keep the next word's cache miss from starting.
 */
static inline bool mvi_table_read_word(struct mvi_table *const *place, const uintptr_t *still, uintptr_t expected,
                                       uint64_t address, uint8_t *buffer)
{
    const struct mvi_table *table = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    struct mvi_reader *reader = mvi_thread.fast;
    const struct mvi_word *word;
    size_t hit = mvi_thread.last_hit;
    uint64_t offset;

    if (__builtin_expect(reader == NULL, 0))
        return false;
    __atomic_store_n(&reader->used, table, __ATOMIC_RELAXED);
    __asm__ volatile("" ::: "memory"); /* there is a fast reader: membarrier() is the other half of this fence */
    if (__builtin_expect(__atomic_load_n(place, __ATOMIC_ACQUIRE) == table &&
                             __atomic_load_n(still, __ATOMIC_ACQUIRE) == expected && table != NULL,
                         1) &&
        __builtin_expect(hit < table->count, 1)) {
        word = &table->words[hit];
        offset = address - word->start;
        if (__builtin_expect(offset < word->span, 1)) {
            memcpy(buffer, word->bytes + offset, 8);
            __atomic_store_n(&reader->used, NULL, __ATOMIC_RELEASE);
            return true;
        }
    }
    __atomic_store_n(&reader->used, NULL, __ATOMIC_RELEASE);
    return false;
}

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

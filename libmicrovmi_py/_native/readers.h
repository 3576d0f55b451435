/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is using which table: a table that was replaced, or whose context was destroyed, is released when no thread
 * reads through it any more.
 *
 * Every thread says which table it is about to use, and looks whether that is still the published one; whoever takes a
 * table back first unpublishes it, then waits until no thread says so. The store of the reader must not pass its second
 * look: the waiting side sees to that for all threads at once with membarrier(), so that a read pays no fence.
 */
#ifndef MVI_READERS_H
#define MVI_READERS_H

#include "look.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One a thread; never freed, as other threads look at it, but used again after the thread's end. */
struct mvi_reader {
    const struct mvi_table *used; /* NULL between calls */
    struct mvi_reader *next;
    int taken;
} __attribute__((aligned(64)));

static struct mvi_reader *mvi_readers; /* only ever grows */
static pthread_key_t mvi_reader_key;
static bool mvi_reader_has_key; /* if there was one left: without it nobody could tell when a reader's thread ends */
static pthread_once_t mvi_reader_once = PTHREAD_ONCE_INIT;
static bool mvi_light; /* the kernel puts a fence into every thread when asked */

static void mvi_reader_leave(void *reader)
{
    mvi_thread.reader = NULL; /* a destructor of the host's may still call, and then takes another one */
    mvi_thread.fast = NULL;
    __atomic_store_n(&((struct mvi_reader *)reader)->used, NULL, __ATOMIC_RELEASE); /* a read that it was torn out of */
    __atomic_store_n(&((struct mvi_reader *)reader)->taken, 0, __ATOMIC_RELEASE);
}

static void mvi_readers_set_up(void)
{
    mvi_reader_has_key = pthread_key_create(&mvi_reader_key, mvi_reader_leave) == 0;
}

__attribute__((constructor)) static void mvi_readers_register(void)
{
    mvi_light = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static struct mvi_reader *mvi_take_reader(void)
{
    struct mvi_reader *reader;
    int is_free = 0;

    for (reader = __atomic_load_n(&mvi_readers, __ATOMIC_ACQUIRE); reader != NULL; reader = reader->next, is_free = 0)
        if (__atomic_compare_exchange_n(&reader->taken, &is_free, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return reader;
    if (posix_memalign((void **)&reader, 64, sizeof *reader) != 0)
        return NULL;
    reader->used = NULL;
    reader->taken = 1;
    reader->next = __atomic_load_n(&mvi_readers, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&mvi_readers, &reader->next, reader, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
    return reader;
}

/* False: without memory, or without a way to notice the end of the thread, which then reads by way of Python. */
static __attribute__((noinline)) bool mvi_become_reader(void)
{
    struct mvi_reader *reader;

    pthread_once(&mvi_reader_once, mvi_readers_set_up);
    reader = mvi_reader_has_key ? mvi_take_reader() : NULL;
    if (reader != NULL && pthread_setspecific(mvi_reader_key, reader) != 0) {
        __atomic_store_n(&reader->taken, 0, __ATOMIC_RELEASE);
        reader = NULL;
    }
    mvi_thread.reader = reader;
    mvi_thread.fast = mvi_light ? reader : NULL;
    return reader != NULL;
}

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

/* Whether a thread uses a table. */
static bool mvi_is_used(const struct mvi_table *table)
{
    struct mvi_reader *reader;

    for (reader = __atomic_load_n(&mvi_readers, __ATOMIC_ACQUIRE); reader != NULL; reader = reader->next)
        if (__atomic_load_n(&reader->used, __ATOMIC_ACQUIRE) == table)
            return true;
    return false;
}

/* So long a read that is under way is waited for. */
#define MVI_WAIT_NS INT64_C(5000000000)

/* Let others run: at first without a sleep, as most reads take microseconds. */
static void mvi_give_way(unsigned tries)
{
    struct timespec moment = {0, 100000};

    if (tries < 1000)
        sched_yield();
    else
        (void)syscall(SYS_nanosleep, &moment, NULL);
}

/*
 * Wait until no other thread uses a table that was unpublished before. False: one still does after all that time, and
 * what the table points at has to stay.
 */
static bool mvi_table_wait(const struct mvi_table *table)
{
    int64_t end = mvi_clock(CLOCK_MONOTONIC) + MVI_WAIT_NS;
    unsigned tries;

    if (table == NULL)
        return true;
    if (mvi_thread.reader != NULL) /* this thread is here: what it says of itself is of a read that it jumped out of */
        __atomic_store_n(&mvi_thread.reader->used, NULL, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (mvi_light)
        (void)syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (tries = 0; mvi_is_used(table); tries++) {
        if (mvi_clock(CLOCK_MONOTONIC) > end)
            return false;
        mvi_give_way(tries);
    }
    return true;
}

#endif

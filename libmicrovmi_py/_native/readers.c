/* SPDX-License-Identifier: Apache-2.0 */
/* Becoming a reader, and waiting for readers; see readers.h. */
#include "readers.h"

#include "look.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static struct mvi_reader *mvi_readers; /* only ever grows */
static pthread_key_t mvi_reader_key;
static bool mvi_reader_has_key; /* if there was one left: without it nobody could tell when a reader's thread ends */
static pthread_once_t mvi_reader_once = PTHREAD_ONCE_INIT;
bool mvi_light;

static void mvi_reader_leave(void *reader)
{
    mvi_thread.reader = NULL; /* a destructor of the host's may still call, and then takes another one */
    mvi_near_none();
    __atomic_store_n(&((struct mvi_reader *)reader)->second, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&((struct mvi_reader *)reader)->used, 0, __ATOMIC_RELEASE); /* a read that it was torn out of */
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
    reader->used = reader->second = 0;
    reader->taken = 1;
    reader->next = __atomic_load_n(&mvi_readers, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&mvi_readers, &reader->next, reader, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
    return reader;
}

__attribute__((noinline)) bool mvi_become_reader(void)
{
    struct mvi_reader *reader;

    pthread_once(&mvi_reader_once, mvi_readers_set_up);
    reader = mvi_reader_has_key ? mvi_take_reader() : NULL;
    if (reader != NULL && pthread_setspecific(mvi_reader_key, reader) != 0) {
        __atomic_store_n(&reader->taken, 0, __ATOMIC_RELEASE);
        reader = NULL;
    }
    mvi_thread.reader = reader;
    return reader != NULL;
}

void mvi_table_near(uintptr_t context, struct mvi_table *const *place, const uint64_t *edition)
{
    uint64_t present = __atomic_load_n(edition, __ATOMIC_ACQUIRE);
    const struct mvi_table *table = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    const struct mvi_word *word;

    if (!mvi_light || present == 0 || (uintptr_t)table != mvi_thread.reader->used ||
        mvi_thread.last_hit >= table->count)
        return;
    word = &table->words[mvi_thread.last_hit];
    if (word->span == 0)
        return;
    mvi_thread.near = (struct mvi_near){
        .context = context,
        .start = word->start,
        .span = word->span,
        .bytes = word->bytes,
        .place = edition,
        .edition = present,
    };
}

/* Whether the last read was one of a mapping; *image: of a file with holes, perhaps. */
static bool mvi_was_mapped(const struct mvi_table *table, bool *image)
{
    size_t hit = mvi_thread.last_hit;

    *image = hit < table->count && table->regions[hit].image;
    return *image || (hit < table->count && table->words[hit].span != 0);
}

void mvi_table_near_space(uintptr_t context, const struct mvi_table *table, const uint64_t *edition)
{
    struct mvi_translations *own = mvi_thread.translations;
    const struct mvi_view *view = own != NULL ? own->view : NULL;
    uint32_t paging;
    bool image;

    if (!mvi_light || own == NULL || !mvi_was_mapped(table, &image) ||
        __atomic_load_n(edition, __ATOMIC_ACQUIRE) != table->edition || (uintptr_t)table != mvi_thread.reader->used ||
        (table->lasts && view->edition != table->edition))
        return;
    paging = view->space.given.paging;
    own->near = (struct mvi_near_space){
        .context = context,
        .keeper = table->lasts && !image ? context : 0,
        .place = edition,
        .edition = table->edition,
        .table = table,
        .key = view->key,
        .flushes = view->flushes,
        .view = view,
        .keeps = table->lasts,
        .given = view->space.given,
    };
    if (!table->lasts && !image && (paging == MICROVMI_PAGING_X86_4_LEVELS || paging == MICROVMI_PAGING_X86_5_LEVELS))
        own->near.walker = context;
}

struct mvi_table *mvi_table_put(struct mvi_table **place, struct mvi_table *table)
{
    return __atomic_exchange_n(place, table, __ATOMIC_ACQ_REL);
}

bool mvi_table_is_used(const struct mvi_table *table)
{
    struct mvi_reader *reader;
    uint64_t used;

    for (reader = __atomic_load_n(&mvi_readers, __ATOMIC_ACQUIRE); reader != NULL; reader = reader->next) {
        used = __atomic_load_n(&reader->used, __ATOMIC_ACQUIRE);
        if (used != 0 && (used == (uintptr_t)table || used == table->edition))
            return true;
        if (__atomic_load_n(&reader->second, __ATOMIC_ACQUIRE) == (uintptr_t)table)
            return true;
    }
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

bool mvi_table_wait(const struct mvi_table *table)
{
    int64_t end = mvi_clock(CLOCK_MONOTONIC) + MVI_WAIT_NS;
    unsigned tries;

    if (table == NULL)
        return true;
    if (mvi_thread.reader !=
        NULL) { /* this thread is here: what it says of itself is of a read that it jumped out of */
        __atomic_store_n(&mvi_thread.reader->second, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&mvi_thread.reader->used, 0, __ATOMIC_RELEASE);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (mvi_light)
        (void)syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (tries = 0; mvi_table_is_used(table); tries++) {
        if (mvi_clock(CLOCK_MONOTONIC) > end)
            return false;
        mvi_give_way(tries);
    }
    return true;
}

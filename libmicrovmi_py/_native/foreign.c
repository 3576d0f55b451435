/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of the read function of a hypervisor's library.
 *
 * Words that several threads use, and who orders what:
 * - `users`: every change is one atomic operation on the word, so that a join comes either before the shut, and is
 *   waited for, or after it, and sees it. A part releases what the call did to who waits.
 * - `end`: the deadline of the call under way, 0 when there is none. The caller stores it and exchanges it for 0; who
 *   watches exchanges the very deadline that he found late for MVI_GIVEN_UP. Of these two one comes first: a call is
 *   either over, and nobody answers in the machine's place, or it is given up, and the caller sees that.
 * - `broken`: set once, released and acquired; under the lock of a single line it is set before the lock is given back.
 * - `closed`: a hint for calls to come; those under way end as they do.
 * - `held`: another process's byte, which that process writes; a guess, as the library looks at it again.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cache.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define MVI_GIVEN_UP INT64_C(-1)

/* So long C waits for its turn on a single line; then Python does, which knows how long in all, and what to say. */
#define MVI_TURN_NS INT64_C(20000000)

struct mvi_line {
    uint64_t users; /* twice the calls under way, and 1 once nobody may join any more */
    int64_t end;
    int32_t broken;
    bool single;
    const uint8_t *held;
    pthread_mutex_t lock;
} __attribute__((aligned(64)));

struct mvi_foreign {
    struct mvi_reads reads;
    struct mvi_line *line;
    bool closed;
};

static int64_t mvi_line_now(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Let others run, at first without a sleep, as most calls take microseconds. False: the time is over. */
static bool mvi_line_pause(unsigned tries, int64_t end)
{
    struct timespec moment = {0, tries < 2000 ? 100000 : 1000000};

    if (tries < 1000)
        sched_yield();
    else
        (void)nanosleep(&moment, NULL);
    return mvi_line_now() <= end;
}

/* ------------------------------------------------------------------------------------------------ the line ------- */

struct mvi_line *mvi_line_new(bool single, const uint8_t *held)
{
    struct mvi_line *line;
    pthread_mutexattr_t attributes;

    if (posix_memalign((void **)&line, 64, sizeof *line) != 0)
        return NULL;
    memset(line, 0, sizeof *line);
    line->single = single;
    line->held = held;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK); /* a thread that jumped out of a call has it */
    pthread_mutex_init(&line->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return line;
}

void mvi_line_free(struct mvi_line *line)
{
    if (line != NULL)
        pthread_mutex_destroy(&line->lock);
    free(line);
}

bool mvi_line_join(struct mvi_line *line)
{
    if ((__atomic_fetch_add(&line->users, 2, __ATOMIC_ACQUIRE) & 1) == 0)
        return true;
    mvi_line_part(line);
    return false;
}

void mvi_line_part(struct mvi_line *line)
{
    __atomic_fetch_sub(&line->users, 2, __ATOMIC_RELEASE);
}

void mvi_line_shut(struct mvi_line *line)
{
    __atomic_fetch_or(&line->users, 1, __ATOMIC_ACQ_REL);
}

static bool mvi_line_is_shut(const struct mvi_line *line)
{
    return (__atomic_load_n(&line->users, __ATOMIC_RELAXED) & 1) != 0;
}

bool mvi_line_wait(const struct mvi_line *line, int64_t limit)
{
    int64_t end = mvi_line_now() + limit;
    unsigned tries;

    for (tries = 0; __atomic_load_n(&line->users, __ATOMIC_ACQUIRE) > 1; tries++)
        if (!mvi_line_pause(tries, end))
            return false;
    return true;
}

int32_t mvi_line_broken(const struct mvi_line *line)
{
    return __atomic_load_n(&line->broken, __ATOMIC_ACQUIRE);
}

void mvi_line_break(struct mvi_line *line, int32_t reason)
{
    int32_t none = 0;

    (void)__atomic_compare_exchange_n(&line->broken, &none, reason, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

void mvi_line_mend(struct mvi_line *line)
{
    __atomic_store_n(&line->broken, 0, __ATOMIC_RELEASE);
}

/* ------------------------------------------------------------------------------------------ one call at a time --- */

bool mvi_line_lock(struct mvi_line *line, int64_t limit)
{
    int64_t end;
    unsigned tries;

    if (pthread_mutex_trylock(&line->lock) == 0)
        return true;
    if (limit <= 0)
        return false;
    end = mvi_line_now() + limit;
    for (tries = 0; pthread_mutex_trylock(&line->lock) != 0; tries++)
        if (!mvi_line_pause(tries, end))
            return false;
    return true;
}

void mvi_line_unlock(struct mvi_line *line)
{
    pthread_mutex_unlock(&line->lock);
}

void mvi_line_begin(struct mvi_line *line, int64_t end)
{
    __atomic_store_n(&line->end, end, __ATOMIC_RELEASE);
}

bool mvi_line_end(struct mvi_line *line)
{
    if (__atomic_exchange_n(&line->end, 0, __ATOMIC_ACQ_REL) != MVI_GIVEN_UP)
        return true;
    mvi_line_break(line, ETIMEDOUT);
    return false;
}

bool mvi_line_busy(const struct mvi_line *line)
{
    return __atomic_load_n(&line->end, __ATOMIC_ACQUIRE) != 0;
}

bool mvi_line_give_up(struct mvi_line *line)
{
    int64_t end = __atomic_load_n(&line->end, __ATOMIC_ACQUIRE);

    if (end <= 0 || mvi_line_now() <= end ||
        !__atomic_compare_exchange_n(&line->end, &end, MVI_GIVEN_UP, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    mvi_line_break(line, ETIMEDOUT);
    return true;
}

/* ------------------------------------------------------------------------------------------------ reads ---------- */

struct mvi_foreign *mvi_foreign_new(const struct mvi_reads *reads, struct mvi_line *line)
{
    struct mvi_foreign *foreign = malloc(sizeof *foreign);

    if (foreign != NULL)
        *foreign = (struct mvi_foreign){.reads = *reads, .line = line};
    return foreign;
}

void mvi_foreign_free(struct mvi_foreign *foreign)
{
    free(foreign);
}

void mvi_foreign_close(struct mvi_foreign *foreign)
{
    __atomic_store_n(&foreign->closed, true, __ATOMIC_RELEASE);
}

typedef int (*mvi_address_buffer_size)(void *handle, unsigned long long address, void *buffer, size_t size);
typedef bool (*mvi_buffer_size_address)(void *handle, uint8_t *buffer, uint32_t size, uint64_t address);

static bool mvi_is_lasting(const struct mvi_reads *reads, int error)
{
    return error >= 0 && error < 256 && (reads->lasting[error / 64] >> error % 64 & 1) != 0;
}

static bool mvi_foreign_call(const struct mvi_foreign *foreign, uint64_t address, uint8_t *buffer, size_t size)
{
    const struct mvi_reads *reads = &foreign->reads;
    void *handle = (void *)(uintptr_t)reads->handle;

    if (reads->order == MVI_BUFFER_SIZE_ADDRESS)
        return ((mvi_buffer_size_address)(uintptr_t)reads->function)(handle, buffer, (uint32_t)size, address);
    if (((mvi_address_buffer_size)(uintptr_t)reads->function)(handle, address, buffer, size) == 0)
        return true;
    if (mvi_is_lasting(reads, errno))
        mvi_line_break(foreign->line, errno);
    return false;
}

/* Whether others let us: not while another process's call is seen, which the library would await without a limit. */
static bool mvi_line_turn(struct mvi_line *line, int64_t limit)
{
    if (!mvi_line_lock(line, MVI_TURN_NS))
        return false;
    if (mvi_line_broken(line) == 0 && (line->held == NULL || __atomic_load_n(line->held, __ATOMIC_RELAXED) == 0)) {
        mvi_line_begin(line, mvi_line_now() + limit);
        return true;
    }
    mvi_line_unlock(line);
    return false;
}

/* One call. A read that fails may leave something in the buffer's first byte, and one that is given up does. */
static bool mvi_foreign_piece(const struct mvi_foreign *foreign, uint64_t address, uint8_t *buffer, size_t size)
{
    struct mvi_line *line = foreign->line;
    uint8_t before = *buffer;
    bool read;

    if (line->single && !mvi_line_turn(line, foreign->reads.limit))
        return false;
    read = mvi_foreign_call(foreign, address, buffer, size);
    if (line->single) {
        read = mvi_line_end(line) && read;
        mvi_line_unlock(line);
    }
    if (!read)
        *buffer = before;
    return read;
}

static size_t mvi_foreign_part(const struct mvi_reads *reads, uint64_t address, size_t left)
{
    uint64_t part = address < reads->end ? mvi_smaller(left, reads->end - address) : 0;

    if (!reads->crosses)
        part = mvi_smaller(part, PAGE_SIZE - (address & (PAGE_SIZE - 1)));
    return mvi_smaller(part, reads->most);
}

static size_t mvi_foreign_pieces(const struct mvi_foreign *foreign, uint64_t address, uint8_t *buffer, size_t size)
{
    size_t done = 0, part;

    while (done < size && mvi_line_broken(foreign->line) == 0 && !mvi_line_is_shut(foreign->line)) {
        part = mvi_foreign_part(&foreign->reads, address + done, size - done);
        if (part == 0 || address + done < address || !mvi_foreign_piece(foreign, address + done, buffer + done, part))
            break;
        done += part;
    }
    return done;
}

size_t mvi_foreign_read(struct mvi_foreign *foreign, uint64_t address, uint8_t *buffer, size_t size)
{
    size_t done;
    int cancel;

    if (__atomic_load_n(&foreign->closed, __ATOMIC_ACQUIRE) || !mvi_line_join(foreign->line))
        return 0;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* a library's locks would go with the thread */
    done = mvi_foreign_pieces(foreign, address, buffer, size);
    (void)pthread_setcancelstate(cancel, NULL);
    mvi_line_part(foreign->line);
    return done;
}

/* ------------------------------------------------------------------------------------------------ kept pages ----- */

static bool mvi_foreign_fetch(const struct mvi_table *table, uint64_t address, uint8_t *buffer, size_t size)
{
    uint64_t start = address >> PAGE_SHIFT << PAGE_SHIFT, epoch = mvi_cache_epoch(table->cache);
    uint8_t bytes[PAGE_SIZE];

    bytes[0] = 0; /* what a read that fails puts back */
    if (mvi_foreign_read(table->foreign, start, bytes, sizeof bytes) != sizeof bytes)
        return false;
    mvi_cache_keep(table->cache, epoch, bytes, address, buffer, size);
    return true;
}

size_t mvi_frames_read(const struct mvi_table *table, uint64_t address, uint8_t *buffer, size_t size)
{
    size_t done = 0, part;

    if (size > PAGE_SIZE || table->cache == NULL)
        return table->foreign != NULL ? mvi_foreign_read(table->foreign, address, buffer, size) : 0;
    for (; done < size; done += part) {
        part = mvi_smaller(size - done, PAGE_SIZE - ((address + done) & (PAGE_SIZE - 1)));
        if (!mvi_cached(table, address + done, buffer + done, part) &&
            (table->foreign == NULL || !mvi_foreign_fetch(table, address + done, buffer + done, part)))
            break;
    }
    return done;
}

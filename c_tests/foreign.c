/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads by a library's function, from many threads at once, without Python and without a machine: what they share is right.
 * Compiled together with the C files of direct access, so that a checker sees them. Exits with 0, or ends by abort().
 */
#include "table.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READERS 4
#define ROUNDS 3000
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static unsigned inside;         /* calls under way; not atomic, as the lock of a single line has to order it */
static atomic_bool closed;      /* the handle: no call may come any more */
static atomic_bool hangs, ends; /* a call waits until it is answered in the library's place */
static char handle;

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void fill(uint8_t *buffer, size_t size, uint64_t address)
{
    size_t at;

    for (at = 0; at < size; at++)
        buffer[at] = (uint8_t)((address + at) / 7);
}

static bool one_at_a_time(void *given, uint8_t *buffer, uint32_t size, uint64_t address)
{
    bool answered;

    CHECK(given == &handle && !closed && inside == 0);
    inside++;
    answered = !hangs;
    while (!answered && !ends)
        usleep(50);
    if (answered)
        fill(buffer, size, address);
    else
        buffer[0] = 0xee;
    inside--;
    return answered;
}

static int any_number(void *given, unsigned long long address, void *buffer, size_t size)
{
    CHECK(given == &handle && !closed && size <= PAGE_SIZE - address % PAGE_SIZE);
    if (address >= 0x8000) {
        errno = ENOENT;
        return -1;
    }
    fill(buffer, size, address);
    return 0;
}

static struct mvi_line *line;
static struct mvi_foreign *foreign;

static void *read_on(void *number)
{
    uint64_t address = (uint64_t)(uintptr_t)number * 0x1004;
    uint8_t buffer[0x1800], expected[sizeof buffer];
    unsigned round;
    size_t done;

    fill(expected, sizeof expected, address);
    for (round = 0; round < ROUNDS; round++) {
        done = mvi_foreign_read(foreign, address, buffer, sizeof buffer);
        CHECK(memcmp(buffer, expected, done) == 0);
    }
    return NULL;
}

/* As Python does. */
static void *call_on(void *nothing)
{
    unsigned round;

    for (round = 0; round < ROUNDS && mvi_line_join(line); round++) {
        if (mvi_line_lock(line, 1000000000)) {
            mvi_line_begin(line, now() + 1000000000);
            CHECK(inside++ == 0);
            inside--;
            CHECK(mvi_line_end(line));
            mvi_line_unlock(line);
        }
        mvi_line_part(line);
    }
    return nothing;
}

static void start(pthread_t *threads, bool single)
{
    uintptr_t index;

    for (index = 0; index < READERS; index++)
        CHECK(pthread_create(&threads[index], NULL, read_on, (void *)index) == 0);
    CHECK(pthread_create(&threads[READERS], NULL, single ? call_on : read_on, NULL) == 0);
}

/* Shut while all are at work: afterwards the handle is nobody's. */
static void shut_while_read(bool single)
{
    struct mvi_reads reads = {.function = (uintptr_t)(single ? (void *)one_at_a_time : (void *)any_number),
                              .handle = (uintptr_t)&handle,
                              .end = 1u << 20,
                              .most = PAGE_SIZE,
                              .limit = 1000000000,
                              .order = single,
                              .crosses = single};
    pthread_t threads[READERS + 1];
    size_t index;

    closed = false;
    line = mvi_line_new(single, NULL);
    foreign = mvi_foreign_new(&reads, line);
    start(threads, single);
    usleep(20000);
    mvi_line_shut(line);
    CHECK(mvi_line_wait(line, INT64_C(5000000000)));
    closed = true;
    for (index = 0; index <= READERS; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    mvi_foreign_free(foreign);
    mvi_line_free(line);
}

static void *read_once(void *unused)
{
    uint8_t buffer[8] = "before";

    CHECK(mvi_foreign_read(foreign, 0, buffer, sizeof buffer) == 0 && strcmp((char *)buffer, "before") == 0);
    return unused;
}

/* A call that is not answered is given up by who watches; all others read nothing from then on. */
static void give_up(void)
{
    struct mvi_reads reads = {.function = (uintptr_t)one_at_a_time,
                              .handle = (uintptr_t)&handle,
                              .end = 1u << 20,
                              .most = PAGE_SIZE,
                              .limit = 10000000,
                              .order = MVI_BUFFER_SIZE_ADDRESS};
    pthread_t threads[READERS];
    size_t index;

    closed = ends = false;
    hangs = true;
    line = mvi_line_new(true, NULL);
    foreign = mvi_foreign_new(&reads, line);
    for (index = 0; index < READERS; index++)
        CHECK(pthread_create(&threads[index], NULL, read_once, NULL) == 0);
    while (!mvi_line_give_up(line))
        usleep(100);
    CHECK(mvi_line_broken(line) == ETIMEDOUT && mvi_line_busy(line));
    ends = true;
    for (index = 0; index < READERS; index++)
        CHECK(pthread_join(threads[index], NULL) == 0);
    CHECK(!mvi_line_busy(line) && !mvi_line_give_up(line));
    hangs = false;
    mvi_line_mend(line);
    read_on(NULL);
    mvi_foreign_free(foreign);
    mvi_line_free(line);
}

int main(void)
{
    unsigned round;

    for (round = 0; round < 5; round++) {
        shut_while_read(true);
        shut_while_read(false);
        give_up();
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * differ MODE OLDER NEWER ARGUMENT: two contexts in one call, in many threads.
 *   many SECONDS  threads compare any two of some contexts, of which others destroy and open one after another. A machine is
 *                 the same as itself, and OLDER and NEWER differ in frames 3 and 4 only; or a context was destroyed
 *   jump TIMES    a signal handler leaves comparisons by siglongjmp(), and nobody waits for what they used
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

#include "api.h"

#define THREADS 4
#define SLOTS 4

static const char *uris[2];
static _Atomic(void *) slots[SLOTS]; /* every other one is OLDER */
static atomic_bool stopped;
static atomic_uint compared, refused;

/* Compare two contexts. False: one was destroyed. Else *frames is in how many frames they differ. */
static bool differs(void *older, void *newer, size_t capacity, uint64_t *frames)
{
    struct microvmi_memory_range ranges[4];
    uint64_t next = 0;
    size_t count, i;

    *frames = 0;
    do {
        if (!microvmi_diff(older, newer, &next, ranges, capacity, &count)) {
            CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT, "%s", microvmi_last_error());
            return false;
        }
        for (i = 0; i < count; i++) {
            CHECK(ranges[i].start == 3 * PAGE_SIZE && ranges[i].size == 2 * PAGE_SIZE);
            *frames += ranges[i].size / PAGE_SIZE;
        }
    } while (next != 0);
    return true;
}

static void *compare(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    uint64_t frames;
    int older, newer;

    while (!atomic_load(&stopped)) {
        older = rand_r(&seed) % SLOTS;
        newer = rand_r(&seed) % SLOTS;
        if (differs(atomic_load(&slots[older]), atomic_load(&slots[newer]), (size_t)rand_r(&seed) % 4 + 1, &frames)) {
            CHECK_SAYS(frames == (older % 2 == newer % 2 ? 0 : 2), "%d and %d differ in %" PRIu64 " frames", older,
                       newer, frames);
            atomic_fetch_add(&compared, 1);
        } else {
            atomic_fetch_add(&refused, 1);
        }
    }
    return NULL;
}

static void compare_many(unsigned seconds)
{
    pthread_t threads[THREADS];
    time_t end = time(NULL) + seconds;
    unsigned slot;
    uintptr_t i;

    for (slot = 0; slot < SLOTS; slot++) {
        atomic_store(&slots[slot], open_or_fail(uris[slot % 2]));
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, compare, (void *)i) == 0);
    }
    for (slot = 0; time(NULL) < end; slot = (slot + 1) % SLOTS) {
        microvmi_destroy(atomic_exchange(&slots[slot], open_or_fail(uris[slot % 2])));
    }
    atomic_store(&stopped, true);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (slot = 0; slot < SLOTS; slot++) {
        microvmi_destroy(atomic_load(&slots[slot]));
    }
    CHECK_SAYS(atomic_load(&compared) > 0, "all of %u calls were refused", atomic_load(&refused));
}

/* ------------------------------------------------------------------------------------------------ jumps --------- */

static sigjmp_buf back;

static void jump(int number)
{
    siglongjmp(back, number);
}

static void *destroy(void *context)
{
    struct timespec begin, end;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    microvmi_destroy(context);
    clock_gettime(CLOCK_MONOTONIC, &end);
    CHECK_SAYS(end.tv_sec - begin.tv_sec < 4, "the destroy waited for a comparison that was left");
    return NULL;
}

/* Compare until a signal comes, which leaves the call wherever it is. */
static void leave(void *older, void *newer, long microseconds)
{
    struct itimerval timer = {{0, 0}, {0, microseconds}}, none = {{0, 0}, {0, 0}};
    uint64_t frames;

    if (sigsetjmp(back, 1) == 0) {
        CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
        for (;;) {
            CHECK(differs(older, newer, 1, &frames) && frames == 2);
        }
    }
    CHECK(setitimer(ITIMER_REAL, &none, NULL) == 0);
}

static void jump_out(unsigned times)
{
    struct sigaction action = {.sa_handler = jump};
    pthread_t thread;
    uint64_t word;
    unsigned i;

    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    for (i = 0; i < times; i++) {
        void *older = open_or_fail(uris[0]), *newer = open_or_fail(uris[1]);

        CHECK(microvmi_read_physical(older, 0, (uint8_t *)&word, 8, NULL));
        leave(older, newer, 5000 + 777 * (long)(i % 10));
        if (i % 2 == 0) { /* what was left is over with the next call, whatever that is */
            CHECK(microvmi_read_physical(older, 0, (uint8_t *)&word, 8, NULL));
            CHECK(pthread_create(&thread, NULL, destroy, newer) == 0 && pthread_join(thread, NULL) == 0);
            destroy(older);
        } else {
            destroy(newer);
            destroy(older);
        }
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 5);
    uris[0] = argv[2];
    uris[1] = argv[3];
    if (strcmp(argv[1], "many") == 0) {
        compare_many((unsigned)atoi(argv[4]));
    } else {
        jump_out((unsigned)atoi(argv[4]));
    }
    return 0;
}

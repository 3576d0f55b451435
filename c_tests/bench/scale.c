/* SPDX-License-Identifier: Apache-2.0 */
/* Reads from several threads at once; also built as a library for a host that is a Python. */
#include "bench.h"

#include <pthread.h>

#define MOST_THREADS 64
#define BETWEEN_LOOKS 64 /* reads between two looks at the clock */

struct worker {
    pthread_t thread;
    read_function read;
    void *context;
    uint64_t start, end, seed, stop_ns, reads;
    bool all;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint8_t buffer[PAGE_SIZE];
    uint64_t done = 0;
    int i;

    do {
        for (i = 0; i < BETWEEN_LOOKS; i++) {
            uint64_t address = random_address(&worker->seed, worker->start, worker->end, PAGE_SIZE, PAGE_SIZE);

            worker->all &= worker->read(worker->context, address, buffer, PAGE_SIZE, &done) && done == PAGE_SIZE;
        }
        worker->reads += BETWEEN_LOOKS;
    } while (now_ns() < worker->stop_ns);
    return NULL;
}

double scale_rates(read_function read, void **contexts, int threads, double seconds, uint64_t start, uint64_t end)
{
    struct worker workers[MOST_THREADS];
    uint64_t begin = now_ns(), reads = 0;
    int i;

    CHECK(threads >= 1 && threads <= MOST_THREADS);
    for (i = 0; i < threads; i++) {
        workers[i] = (struct worker){.read = read, .context = contexts[i], .start = start, .end = end, .all = true};
        workers[i].seed = begin + (uint64_t)i;
        workers[i].stop_ns = begin + (uint64_t)(seconds * 1e9);
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (i = 0; i < threads; i++) {
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
        CHECK_SAYS(workers[i].all, "a read of 4 KiB failed");
        reads += workers[i].reads;
    }
    return (double)reads / ((double)(now_ns() - begin) / 1e9);
}

double scale_rate(read_function read, void *context, int threads, double seconds, uint64_t start, uint64_t end)
{
    void *contexts[MOST_THREADS];
    int i;

    for (i = 0; i < MOST_THREADS; i++)
        contexts[i] = context;
    return scale_rates(read, contexts, threads, seconds, start, end);
}

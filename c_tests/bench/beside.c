/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a read of 8 bytes takes through a context while another context reads 16 MiB again and again, all of it
 * through Python. The machine's frames hold their numbers.
 * Usage: beside LIBRARY URI SECONDS. Prints: pair "latency C" (see print_pair()): medians of rounds beside the other one
 * and alone. Also built as a library for a host that is a Python.
 */
#include "bench.h"

#include <pthread.h>
#include <unistd.h>

#define LARGE (16 * MIB)
#define ROUNDS 11
#define MOST_READS 200000
#define BETWEEN_US 300 /* without a pause the small reads would keep the large one out, and find nothing beside them */

static struct subject small, large;
static bool wanted, at_work, ended;

#define SET(flag, value) __atomic_store_n(&(flag), value, __ATOMIC_SEQ_CST)
#define GET(flag) __atomic_load_n(&(flag), __ATOMIC_SEQ_CST)

static void *work(void *unused)
{
    uint8_t *buffer = malloc(LARGE);
    uint64_t done;

    CHECK(buffer != NULL);
    while (!GET(ended)) {
        SET(at_work, GET(wanted));
        if (GET(at_work))
            CHECK(large.read(large.context, 0, buffer, LARGE, &done));
        else
            usleep(200);
    }
    free(buffer);
    return unused;
}

double beside_latency(read_function read, void *context, double seconds)
{
    static double samples[MOST_READS];
    uint64_t stop = now_ns() + (uint64_t)(seconds * 1e9), begin, frame, value, done;
    size_t count = 0;

    do {
        usleep(BETWEEN_US);
        frame = count % (LARGE / PAGE_SIZE);
        begin = now_ns();
        CHECK(read(context, frame * PAGE_SIZE, (uint8_t *)&value, 8, &done));
        samples[count++] = (double)(now_ns() - begin);
        CHECK_SAYS(value == frame, "a read beside others does not read what is there");
    } while (count < MOST_READS && now_ns() < stop);
    return median(samples, count);
}

static double latency(double seconds, bool beside)
{
    SET(wanted, beside);
    while (GET(at_work) != beside)
        usleep(100);
    return beside_latency(small.read, small.context, seconds);
}

int main(int argc, char **argv)
{
    double samples[2][ROUNDS];
    pthread_t thread;
    int round;

    CHECK(argc == 4);
    CHECK(use_microvmi(&small, "ours", argv[1], argv[2]) && use_microvmi(&large, "ours", argv[1], argv[2]));
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    for (round = 0; round < ROUNDS; round++) {
        samples[0][round] = latency(atof(argv[3]) / ROUNDS, true);
        samples[1][round] = latency(atof(argv[3]) / ROUNDS / 4, false);
    }
    SET(ended, true);
    CHECK(pthread_join(thread, NULL) == 0);
    print_pair("latency C", samples[0], samples[1], ROUNDS);
    return 0;
}

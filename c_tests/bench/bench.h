/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark programs share. They print one result a line, fields separated by tabs; the runner (bench.py)
 * makes tables of them.
 */
#ifndef BENCH_H
#define BENCH_H

#include <time.h>

#include <libmicrovmi.h>

#include "../check.h"

#define MIB ((uint64_t)1 << 20)
#define SCATTERED 256

/* Every subject is called through a pointer of the type of microvmi_read_physical(). */
typedef bool (*read_function)(void *context, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done);
typedef bool (*batch_function)(void *context, struct microvmi_read_request *requests, size_t count);

/* One way to read the guest. Addresses are guest-physical; between them is what all subjects can reach. */
struct subject {
    const char *name;
    void *context;
    read_function read;
    batch_function batch; /* NULL: the scattered pages are read one by one */
    bool (*pause)(void *context);
    bool (*resume)(void *context);
    bool words; /* it reads 8 bytes and no other size */
};

/*
 * What is read again and again: reads.c. Addresses lie in `measured`; those of SCATTER are a batch of pages, DUMP is one
 * reading of everything in pieces.
 */
enum kind {
    HOT,
    RANDOM,
    SCATTER,
    DUMP
};

struct column {
    const char *name;
    enum kind kind;
    size_t size;
};

extern struct stretch {
    uint64_t start, end;
} measured;

/* Nanoseconds for each of `calls` calls, and how many calls make a sample long enough to be timed. */
double sample(const struct subject *subject, const struct column *column, size_t calls);
size_t calibrate(const struct subject *subject, const struct column *column);

/* Whether `subject` reads everywhere, by every call that is timed, what `truth` reads. */
bool agrees(const struct subject *subject, const struct subject *truth);

/* rounds.c. Values are sorted by it. */
double median(double *values, size_t count);
double quantile(double *values, size_t count, double part);

/*
 * Two subjects that took turns, by round. Prints: pair, name, median of ours and of the partner in ns, the lower
 * quartile, the median and the upper quartile of the rounds' own ratios, the least of ours and of the partner in ns.
 */
void print_pair(const char *name, double *ours, double *partner, size_t rounds);

/* The value of the argument NAME=VALUE; `need` fails where there is none. */
const char *argument(char **arguments, const char *name);
const char *need(char **arguments, const char *name);

/* What the operating system offers: limits.c. `base` is where the guest's address 0 is, in the file or process. */
struct limit {
    const uint8_t *bytes;
    int fd;
    int pid;
    uint64_t base;
};

bool limit_load(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done);
bool limit_memcpy(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done);
bool limit_pread(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done);
bool limit_readv(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done);
bool limit_readv_batch(void *limit, struct microvmi_read_request *requests, size_t count);
struct limit limit_map(const char *path, uint64_t size);
struct limit limit_open(const char *path);
struct limit limit_process(const char *pid, const char *base);

/* Libraries with the ABI of libmicrovmi, and LeechCore: peers.c. On failure false, and a line "skipped" is printed. */
bool use_microvmi(struct subject *subject, const char *name, const char *path, const char *uri);
bool use_upstream(struct subject *subject, const char *name, const char *path, const char *vm_name);
bool use_leechcore(struct subject *subject, const char *path, const char *device);

/*
 * What a frame driver cannot do without, called by C itself: foreign.c. An empty call into Python by `path`; the read
 * function of a libkvmi, for a machine that connects to a socket; that of a libFDP, for a machine by its name.
 */
void use_empty(struct subject *subject, const char *path);
void use_kvmi(struct subject *subject, const char *path, const char *socket);
void use_fdp(struct subject *subject, const char *path, const char *machine);

/*
 * scale.c, also a library of its own: how many reads of 4 KiB a second `threads` threads make together, at random
 * addresses between two.
 */
double scale_rate(read_function read, void *context, int threads, double seconds, uint64_t start, uint64_t end);

/* The same with a context for each thread. */
double scale_rates(read_function read, void **contexts, int threads, double seconds, uint64_t start, uint64_t end);

/* beside.c: the median of a read of 8 bytes now and then, in ns. */
double beside_latency(read_function read, void *context, double seconds);

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The next random number (splitmix64). */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A random address between two, a multiple of `alignment`, with `size` bytes behind it. */
static inline uint64_t random_address(uint64_t *state, uint64_t start, uint64_t end, uint64_t size, uint64_t alignment)
{
    return start + next_random(state) % ((end - start - size) / alignment + 1) * alignment;
}

#endif

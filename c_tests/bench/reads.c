/* SPDX-License-Identifier: Apache-2.0 */
/* One sample of a way to read, and whether it reads what is there. */
#include "bench.h"

#define MOST_CALLS 1024 /* in one sample */
#define SAMPLE_NS 40000 /* a sample is at least this long */

struct stretch measured;
static uint64_t seed = 20;
static uint8_t buffer[MIB] __attribute__((aligned(4096)));

static void scatter(struct microvmi_read_request *requests)
{
    size_t i;

    for (i = 0; i < SCATTERED; i++) {
        requests[i].physical_address = random_address(&seed, measured.start, measured.end, PAGE_SIZE, PAGE_SIZE);
        requests[i].buffer = buffer + i * PAGE_SIZE;
        requests[i].size = PAGE_SIZE;
    }
}

static bool read_scattered(const struct subject *subject, struct microvmi_read_request *requests)
{
    bool all = true;
    size_t i;

    if (subject->batch != NULL)
        return subject->batch(subject->context, requests, SCATTERED);
    for (i = 0; i < SCATTERED; i++)
        all &= subject->read(subject->context, requests[i].physical_address, requests[i].buffer, PAGE_SIZE,
                             &requests[i].bytes_read);
    return all;
}

static bool read_everything(const struct subject *subject)
{
    uint64_t address, done;
    bool all = true;

    for (address = measured.start; address < measured.end; address += MIB)
        all &= subject->read(subject->context, address, buffer, MIB, &done);
    return all;
}

double sample(const struct subject *subject, const struct column *column, size_t calls)
{
    static struct microvmi_read_request requests[SCATTERED];
    uint64_t addresses[MOST_CALLS], begin, done;
    size_t alignment = column->size < PAGE_SIZE ? 8 : PAGE_SIZE, i;
    bool all = true;

    for (i = 0; i < calls; i++) {
        addresses[i] = random_address(&seed, measured.start, measured.end, column->size, alignment);
        if (column->kind == HOT)
            addresses[i] = measured.start + (measured.end - measured.start) / 3 / 8 * 8;
    }
    scatter(requests);
    begin = now_ns();
    for (i = 0; i < calls; i++) {
        if (column->kind == SCATTER)
            all &= read_scattered(subject, requests);
        else if (column->kind == DUMP)
            all &= read_everything(subject);
        else
            all &= subject->read(subject->context, addresses[i], buffer, column->size, &done);
    }
    begin = now_ns() - begin;
    CHECK_SAYS(all, "%s: a read failed: %s", subject->name, column->name);
    return (double)begin / (double)calls;
}

size_t calibrate(const struct subject *subject, const struct column *column)
{
    size_t calls = 1;

    if (column->kind == DUMP || column->kind == SCATTER)
        return 1;
    while (calls < MOST_CALLS && sample(subject, column, calls) * (double)calls < SAMPLE_NS)
        calls *= 2;
    return calls;
}

/* Compare one read of both; what the buffer held before must not pass for it. */
static bool agrees_at(const struct subject *subject, const struct subject *truth, uint64_t address, size_t size)
{
    static uint8_t expected[MIB];
    uint64_t done = 0;

    memset(buffer, 0xa5, size);
    if (!subject->read(subject->context, address, buffer, size, &done) || done != size)
        return false;
    CHECK(truth->read(truth->context, address, expected, size, &done));
    return memcmp(buffer, expected, size) == 0;
}

static bool agrees_scattered(const struct subject *subject, const struct subject *truth)
{
    static uint8_t expected[PAGE_SIZE];
    struct microvmi_read_request requests[SCATTERED];
    uint64_t done;
    size_t i;

    scatter(requests);
    memset(buffer, 0xa5, MIB);
    if (!read_scattered(subject, requests))
        return false;
    for (i = 0; i < SCATTERED; i++) {
        CHECK(truth->read(truth->context, requests[i].physical_address, expected, PAGE_SIZE, &done));
        if (memcmp(requests[i].buffer, expected, PAGE_SIZE) != 0)
            return false;
    }
    return true;
}

bool agrees(const struct subject *subject, const struct subject *truth)
{
    static const size_t sizes[] = {8, PAGE_SIZE, 64 << 10};
    uint64_t address;
    size_t i, size;

    for (i = 0; i < 400; i++) {
        size = subject->words ? 8 : sizes[i % 3];
        address = random_address(&seed, measured.start, measured.end, size, size < PAGE_SIZE ? 8 : PAGE_SIZE);
        if (!agrees_at(subject, truth, address, size))
            return false;
    }
    if (subject->words)
        return true;
    for (address = measured.start; address < measured.end; address += MIB)
        if (!agrees_at(subject, truth, address, MIB))
            return false;
    return agrees_scattered(subject, truth);
}

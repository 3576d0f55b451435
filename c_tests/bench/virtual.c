/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What virtual memory costs beside physical memory: tables of four levels are written into the RAM of a guest that stands,
 * and read through them, in turns with physical reads of the same bytes.
 *
 * Arguments, each NAME=VALUE: library, uri, seconds, start and end (guest-physical, 96 MiB in one piece, which are
 * overwritten), and ram, the RAM's file, or pid and hva; as those of bench.c.
 *
 * Prints pairs, see print_pair(). What one is compared with: virtual hot: a physical read and 1.3 bare walks; virtual hot
 * kept: a physical read and 1.5 ns, or 1.3 of them; virtual random: physical reads; virtual running: process_vm_readv() of
 * one piece; virtual paused: pread(); virtual 256 pages: the physical batch.
 */
#include "bench.h"

#include <dlfcn.h>

#define LEVELS 4
#define ENTRY_BITS UINT64_C(0x000ffffffffff000)
#define VIRTUAL UINT64_C(0xffff888000000000)
#define TABLES (8 * MIB)  /* of the stretch; the pages lie behind them */
#define WINDOW (64 * MIB) /* of virtual memory */
#define NEAR (8 * MIB)    /* of it that is read at random */
#define MOST_ROUNDS 4000
#define FEWEST_ROUNDS 20
#define CALLS 512

static struct {
    __typeof__(&microvmi_read_virtual) read;
    __typeof__(&microvmi_read_virtual_batch) batch;
    __typeof__(&microvmi_write_physical) write;
} calls;
static struct subject ours;
static struct limit limit;
static struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
static uint64_t seed = 7;
static uint64_t virtual_addresses[CALLS], physical_addresses[CALLS];
static uint8_t buffer[SCATTERED * PAGE_SIZE];

/* ------------------------------------------------------------------------------------------------ tables --------- */

static uint8_t *tables; /* a copy of ours, from measured.start on */
static uint64_t next_table;

static uint64_t *entry_of(uint64_t address, bool make)
{
    uint64_t table = measured.start, *entry = NULL;
    int shift;

    for (shift = 39; shift >= 12; shift -= 9) {
        entry = (uint64_t *)(void *)(tables + (table - measured.start)) + (address >> shift & 511);
        if (shift > 12 && *entry == 0 && make) {
            *entry = next_table | 0x67;
            next_table += PAGE_SIZE;
        }
        table = *entry & ENTRY_BITS;
    }
    return entry;
}

/* Each page somewhere in the stretch, none twice. */
static void make_tables(void)
{
    uint64_t pages = WINDOW / PAGE_SIZE, page;

    tables = calloc(1, TABLES);
    CHECK(tables != NULL && measured.end - measured.start >= TABLES + WINDOW);
    next_table = measured.start + PAGE_SIZE;
    for (page = 0; page < pages; page++)
        *entry_of(VIRTUAL + page * PAGE_SIZE, true) =
            (measured.start + TABLES + page * 6451 % pages * PAGE_SIZE) | UINT64_C(0x8000000000000067);
    CHECK(calls.write(ours.context, measured.start, tables, TABLES));
    space.paging = MICROVMI_PAGING_X86_4_LEVELS;
    space.base = measured.start;
    for (page = 0; page < pages; page++)
        CHECK(
            calls.write(ours.context, *entry_of(VIRTUAL + page * PAGE_SIZE, false) & ENTRY_BITS, (uint8_t *)&page, 8));
}

static uint64_t physical_of(uint64_t address)
{
    return (*entry_of(address, false) & ENTRY_BITS) | (address & (PAGE_SIZE - 1));
}

static void choose(bool hot)
{
    size_t i;

    for (i = 0; i < CALLS; i++) {
        virtual_addresses[i] = VIRTUAL + (hot ? NEAR / 3 / 8 * 8 : random_address(&seed, 0, NEAR, 8, 8));
        physical_addresses[i] = physical_of(virtual_addresses[i]);
    }
}

/* ------------------------------------------------------------------------------------------------ ways ----------- */

static bool read_virtual(size_t i, uint64_t *done)
{
    return calls.read(ours.context, &space, virtual_addresses[i], buffer, 8, done);
}

static bool read_physical(size_t i, uint64_t *done)
{
    return ours.read(ours.context, physical_addresses[i], buffer, 8, done);
}

static bool read_by_call(size_t i, uint64_t *done)
{
    return limit_pread(&limit, physical_addresses[i], buffer, 8, done);
}

static bool read_by_vector(size_t i, uint64_t *done)
{
    return limit_readv(&limit, physical_addresses[i], buffer, 8, done);
}

/* Nothing but the loads, and the tests without which it would be wrong. */
static bool walk(size_t i, uint64_t *done)
{
    uint64_t table = space.base, entry, address = virtual_addresses[i];
    int shift;

    for (shift = 39; shift >= 12; shift -= 9) {
        table += (address >> shift & 511) * 8;
        if (table - measured.start > measured.end - measured.start - 8)
            return false;
        entry = __atomic_load_n((const uint64_t *)(const void *)(limit.bytes + table), __ATOMIC_RELAXED);
        if ((entry & 1) == 0 || (shift > 12 && (entry & 0x80) != 0))
            return false;
        table = entry & ENTRY_BITS;
    }
    *done = table | (address & (PAGE_SIZE - 1));
    return true;
}

static bool scattered(bool by_virtual)
{
    struct microvmi_read_request requests[SCATTERED];
    uint64_t address;
    size_t i;

    for (i = 0; i < SCATTERED; i++) {
        address = VIRTUAL + random_address(&seed, 0, WINDOW, PAGE_SIZE, PAGE_SIZE);
        requests[i] = (struct microvmi_read_request){.buffer = buffer + i * PAGE_SIZE, .size = PAGE_SIZE};
        requests[i].virtual_address = by_virtual ? address : physical_of(address);
    }
    return by_virtual ? calls.batch(ours.context, &space, requests, SCATTERED)
                      : ours.batch(ours.context, requests, SCATTERED);
}

static bool scattered_virtual(size_t i, uint64_t *done)
{
    (void)i, (void)done;
    return scattered(true);
}

static bool scattered_physical(size_t i, uint64_t *done)
{
    (void)i, (void)done;
    return scattered(false);
}

/* ------------------------------------------------------------------------------------------------ rounds --------- */

typedef bool (*way)(size_t i, uint64_t *done);

static double sample_of(way read, size_t count)
{
    uint64_t begin = now_ns(), done;
    bool all = true;
    size_t i;

    for (i = 0; i < count; i++)
        all &= read(i, &done);
    begin = now_ns() - begin;
    CHECK_SAYS(all, "a read failed");
    return (double)begin / (double)count;
}

/* Ours and up to two partners in turns; `partner` makes one figure of theirs. */
static void compare(const char *name, double seconds, size_t count, const way ways[3],
                    double (*partner)(const double *))
{
    static double samples[MOST_ROUNDS], partners[MOST_ROUNDS];
    uint64_t stop = now_ns() + (uint64_t)(seconds * 1e9);
    double found[3] = {0, 0, 0};
    size_t rounds, i;

    for (rounds = 0; rounds < FEWEST_ROUNDS || (rounds < MOST_ROUNDS && now_ns() < stop); rounds++) {
        for (i = 0; i < 3; i++)
            if (ways[(rounds + i) % 3] != NULL)
                found[(rounds + i) % 3] = sample_of(ways[(rounds + i) % 3], count);
        samples[rounds] = found[0];
        partners[rounds] = partner(found);
    }
    print_pair(name, samples, partners, rounds);
}

static double the_other(const double *found)
{
    return found[1];
}

static double with_a_walk(const double *found)
{
    return found[1] + 1.3 * found[2];
}

static double with_a_look(const double *found)
{
    return found[1] + (0.3 * found[1] > 1.5 ? 0.3 * found[1] : 1.5);
}

/* The context's own pause, whoever had stopped the machine. */
static void pause_by_us(void)
{
    (void)ours.resume(ours.context);
    CHECK(ours.pause(ours.context));
}

static void measure_mapped(double seconds)
{
    choose(true);
    compare("virtual hot", seconds, CALLS, (const way[]){read_virtual, read_physical, walk}, with_a_walk);
    compare("virtual 256 pages", seconds, 1, (const way[]){scattered_virtual, scattered_physical, NULL}, the_other);
    pause_by_us();
    compare("virtual hot kept", seconds, CALLS, (const way[]){read_virtual, read_physical, NULL}, with_a_look);
    choose(false);
    compare("virtual random", seconds, CALLS, (const way[]){read_virtual, read_physical, NULL}, the_other);
}

static void measure_process(double seconds)
{
    choose(true);
    compare("virtual running", seconds, CALLS, (const way[]){read_virtual, read_by_vector, NULL}, the_other);
    compare("virtual 256 pages", seconds, 1, (const way[]){scattered_virtual, scattered_physical, NULL}, the_other);
    pause_by_us();
    compare("virtual paused", seconds, CALLS, (const way[]){read_virtual, read_by_call, NULL}, the_other);
}

/* ------------------------------------------------------------------------------------------------ main ----------- */

static void check_truth(void)
{
    uint64_t page, found, done;

    for (page = 0; page < WINDOW / PAGE_SIZE; page += 37) {
        CHECK(calls.read(ours.context, &space, VIRTUAL + page * PAGE_SIZE, (uint8_t *)&found, 8, &done) && done == 8);
        CHECK(found == page);
    }
}

int main(int argc, char **argv)
{
    const char *path = need(argv, "library"), *ram = argument(argv, "ram");
    double seconds = atof(need(argv, "seconds"));
    void *library = dlopen(path, RTLD_NOW);

    (void)argc;
    measured.start = strtoull(need(argv, "start"), NULL, 0);
    measured.end = strtoull(need(argv, "end"), NULL, 0);
    CHECK(library != NULL && use_microvmi(&ours, "ours", path, need(argv, "uri")));
    *(void **)&calls.read = dlsym(library, "microvmi_read_virtual");
    *(void **)&calls.batch = dlsym(library, "microvmi_read_virtual_batch");
    *(void **)&calls.write = dlsym(library, "microvmi_write_physical");
    CHECK(calls.read != NULL && calls.batch != NULL && calls.write != NULL);
    make_tables();
    limit = ram != NULL ? limit_map(ram, measured.end) : limit_process(need(argv, "pid"), need(argv, "hva"));
    check_truth();
    if (ram != NULL)
        measure_mapped(seconds);
    else
        measure_process(seconds);
    return 0;
}

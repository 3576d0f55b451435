/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to learn all that a kernel half maps, by entry: tables like a kernel's are written into the RAM of a guest
 * that stands. The partner is a bare walk that makes the same list: over a mapping of the RAM, or with a system call a table.
 *
 * Arguments, each NAME=VALUE: library, uri, seconds, start and end (guest-physical, 32 MiB in one piece, which are
 * overwritten), and ram, the RAM's file, or pid and hva; as those of bench.c. Prints the pair "virtual map".
 */
#include "bench.h"

#include <dlfcn.h>

#define ENTRY_BITS UINT64_C(0x000ffffffffff000)
#define HALF UINT64_C(0xffff800000000000)
#define TABLES (32 * MIB)
#define PLAIN 2000000          /* pages of all memory, as a kernel has it mapped */
#define SCATTERED_PAGES 200000 /* pages one by one, as vmalloc() has them */
#define LARGE 20000            /* pages of 2 MiB */
#define MOST_RANGES 250000
#define AT_ONCE 4096
#define FEWEST_ROUNDS 5
#define MOST_ROUNDS 1000

static __typeof__(&microvmi_get_virtual_map) get_map;
static struct subject ours;
static struct limit limit;
static struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
static struct microvmi_virtual_range found[MOST_RANGES], expected[MOST_RANGES];

/* ------------------------------------------------------------------------------------------------ tables --------- */

static uint8_t *tables; /* a copy of ours, from measured.start on */
static uint64_t next_table;

static void map(uint64_t address, uint64_t entry, int last)
{
    uint64_t table = measured.start, *place = NULL;
    int shift;

    for (shift = 39; shift >= last; shift -= 9) {
        place = (uint64_t *)(void *)(tables + (table - measured.start)) + (address >> shift & 511);
        if (shift > last && *place == 0) {
            CHECK(next_table - measured.start < TABLES);
            *place = next_table | 0x67;
            next_table += PAGE_SIZE;
        }
        table = *place & ENTRY_BITS;
    }
    *place = entry;
}

static void make_tables(void)
{
    uint64_t page, seed = 11;

    tables = calloc(1, TABLES);
    CHECK(tables != NULL && measured.end - measured.start >= TABLES);
    next_table = measured.start + PAGE_SIZE;
    for (page = 0; page < PLAIN; page++)
        map(0xffff888000000000 + page * PAGE_SIZE, page * PAGE_SIZE | (page % 7 == 0 ? 0x23 : 0x63) | (uint64_t)1 << 63,
            12);
    for (page = 0; page < SCATTERED_PAGES; page++)
        map(0xffffc90000000000 + (page + page / 5) * PAGE_SIZE, next_random(&seed) % PLAIN * PAGE_SIZE | 0x63, 12);
    for (page = 0; page < LARGE; page++)
        map(0xffffea0000000000 + page * 2 * MIB, page * 2 * MIB | 0xe3, 21);
    space.paging = MICROVMI_PAGING_X86_4_LEVELS;
    space.base = measured.start;
}

/* ------------------------------------------------------------------------------------------------ walks ---------- */

static size_t by_library(void)
{
    uint64_t next = HALF;
    size_t count = 0, got;

    do {
        CHECK(get_map(ours.context, &space, &next, found + count, AT_ONCE, &got));
        count += got;
    } while (next != 0 && count + AT_ONCE <= MOST_RANGES);
    CHECK(next == 0);
    return count;
}

static size_t walked;

static void add(uint64_t address, uint64_t physical, uint64_t size, uint32_t rights)
{
    struct microvmi_virtual_range *last = &expected[walked > 0 ? walked - 1 : 0];

    if (walked > 0 && last->start + last->size == address && last->physical_address + last->size == physical &&
        last->rights == rights && last->page_size == size) {
        last->size += size;
        return;
    }
    CHECK(walked < MOST_RANGES);
    expected[walked++] = (struct microvmi_virtual_range){address, size, physical, rights, (uint32_t)size};
}

/* Nothing but the loads, and the tests without which it would be wrong. */
static void walk(uint64_t table, uint64_t start, int shift, uint32_t rights)
{
    uint64_t copy[512], entry, i;
    const uint64_t *entries = copy;
    uint32_t left;

    if (table - measured.start > TABLES - PAGE_SIZE)
        return;
    if (limit.bytes != NULL)
        entries = (const uint64_t *)(const void *)(limit.bytes + table);
    else
        CHECK(limit_pread(&limit, table, (uint8_t *)copy, sizeof copy, &entry));
    for (i = shift == 39 ? 256 : 0; i < 512; i++) {
        entry = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);
        if ((entry & 1) == 0)
            continue;
        left = rights & ~((entry & 2 ? 0 : 0x22u) | (entry & 4 ? 0 : 0x70u) | (entry >> 63 ? 0x44u : 0));
        if (shift == 12 || (entry & 0x80) != 0)
            add(start + (i << shift), entry & ENTRY_BITS, (uint64_t)1 << shift, left);
        else
            walk(entry & ENTRY_BITS, start + (i << shift), shift - 9, left);
    }
}

static size_t by_hand(void)
{
    walked = 0;
    walk(space.base, (uint64_t)-1 << 48, 39, 0x77);
    return walked;
}

/* ------------------------------------------------------------------------------------------------ rounds --------- */

static double sample_of(size_t (*way)(void))
{
    uint64_t begin = now_ns();

    CHECK(way() > 0);
    return (double)(now_ns() - begin) / (PLAIN + SCATTERED_PAGES + LARGE);
}

int main(int argc, char **argv)
{
    static double samples[2][MOST_ROUNDS];
    const char *path = need(argv, "library"), *ram = argument(argv, "ram");
    uint64_t stop;
    void *library = dlopen(path, RTLD_NOW);
    __typeof__(&microvmi_write_physical) write;
    size_t rounds, i;

    (void)argc;
    measured.start = strtoull(need(argv, "start"), NULL, 0);
    measured.end = strtoull(need(argv, "end"), NULL, 0);
    CHECK(library != NULL && use_microvmi(&ours, "ours", path, need(argv, "uri")));
    *(void **)&get_map = dlsym(library, "microvmi_get_virtual_map");
    *(void **)&write = dlsym(library, "microvmi_write_physical");
    CHECK(get_map != NULL && write != NULL);
    make_tables();
    CHECK_SAYS(write(ours.context, measured.start, tables, TABLES), "the tables could not be written");
    limit = ram != NULL ? limit_map(ram, measured.end) : limit_process(need(argv, "pid"), need(argv, "hva"));
    i = by_hand();
    CHECK(by_library() == i && memcmp(found, expected, i * sizeof *found) == 0);
    stop = now_ns() + (uint64_t)(atof(need(argv, "seconds")) * 1e9);
    for (rounds = 0; rounds < FEWEST_ROUNDS || (rounds < MOST_ROUNDS && now_ns() < stop); rounds++)
        for (i = 0; i < 2; i++)
            samples[(rounds + i) % 2][rounds] = sample_of((rounds + i) % 2 == 0 ? by_library : by_hand);
    print_pair("virtual map", samples[0], samples[1], rounds);
    return 0;
}

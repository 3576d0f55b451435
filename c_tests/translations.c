/* SPDX-License-Identifier: Apache-2.0 */
/*
 * translations URI SECONDS: threads read virtual memory on one context, while another one exchanges the pages that their
 * addresses are mapped to, one flushes what they remember, and one pauses and resumes the machine, which publishes its tables
 * of memory anew. What is read after an exchange is of the new page. URI names a machine whose pages at 0x1000 and 0x2000
 * differ, and with memory to be written from 0x100000 on.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "api.h"

#define READERS 4
#define TABLES 0x100000u
#define PAGES 16u
#define START 0xffffffffff000000u

static void *vm;
static struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
static uint64_t words[2];     /* what the two pages hold */
static atomic_uint exchanges; /* odd while one is under way */
static atomic_bool stopped;

static void put(uint64_t address, uint64_t value)
{
    CHECK_SAYS(microvmi_write_physical(vm, address, (uint8_t *)&value, sizeof value), "%s", microvmi_last_error());
}

/* All pages from START on are one of the two. */
static void map_pages(unsigned which)
{
    uint64_t entries[PAGES];
    unsigned i;

    for (i = 0; i < PAGES; i++)
        entries[i] = (which + 1) * 0x1000u | 7;
    CHECK_SAYS(microvmi_write_physical(vm, TABLES + 0x3000, (uint8_t *)entries, sizeof entries), "%s",
               microvmi_last_error());
}

static void make_tables(void)
{
    static uint8_t zeros[0x4000];
    unsigned level;

    CHECK_SAYS(microvmi_write_physical(vm, TABLES, zeros, sizeof zeros), "%s", microvmi_last_error());
    for (level = 0; level < 3; level++)
        put(TABLES + level * 0x1000 + (START >> (39 - 9 * level) & 511) * 8, (TABLES + (level + 1) * 0x1000) | 7);
    space.paging = MICROVMI_PAGING_X86_4_LEVELS;
    space.base = TABLES;
    map_pages(0);
}

/* ------------------------------------------------------------------------------------------------ threads -------- */

static void check_words(const uint64_t *found, size_t count, unsigned before)
{
    unsigned after = atomic_load(&exchanges);
    size_t i;

    for (i = 0; i < count; i++) {
        CHECK(found[i] == words[0] || found[i] == words[1]);
        CHECK_SAYS((before & 1) != 0 || before != after || found[i] == words[before / 2 % 2],
                   "exchange %u: a page from before", before);
    }
}

static void read_words(unsigned *seed)
{
    struct microvmi_read_request requests[PAGES];
    uint64_t found[PAGES + 2];
    unsigned before, i;

    before = atomic_load(&exchanges);
    CHECK_SAYS(microvmi_read_virtual(vm, &space, START + rand_r(seed) % PAGES * 0x1000, (uint8_t *)found, 8, NULL),
               "%s", microvmi_last_error());
    check_words(found, 1, before);
    before = atomic_load(&exchanges);
    CHECK_SAYS(microvmi_read_virtual(vm, &space, START + rand_r(seed) % (PAGES - 1) * 0x1000 + 0xff8, (uint8_t *)found,
                                     16, NULL),
               "%s", microvmi_last_error());
    check_words(found, 2, before);
    if (rand_r(seed) % 8 != 0)
        return;
    for (i = 0; i < PAGES; i++) {
        requests[i] = (struct microvmi_read_request){.buffer = (uint8_t *)&found[i], .size = 8};
        requests[i].virtual_address = START + i * 0x1000;
    }
    before = atomic_load(&exchanges);
    CHECK_SAYS(microvmi_read_virtual_batch(vm, &space, requests, PAGES), "%s", microvmi_last_error());
    check_words(found, PAGES, before);
}

static void walk_all(void)
{
    struct microvmi_virtual_range ranges[PAGES];
    uint64_t next = 0;
    size_t count, i;

    CHECK_SAYS(microvmi_get_virtual_map(vm, &space, &next, ranges, PAGES, &count), "%s", microvmi_last_error());
    CHECK(next == 0 && count > 0 && count <= PAGES);
    for (i = 0; i < count; i++)
        CHECK(ranges[i].physical_address == 0x1000 || ranges[i].physical_address == 0x2000);
    CHECK(ranges[0].start == START && ranges[count - 1].start + ranges[count - 1].size == START + PAGES * 0x1000);
}

static void *read_on(void *number)
{
    unsigned seed = (unsigned)(uintptr_t)number, i;

    for (i = 0; !atomic_load(&stopped); i++) {
        read_words(&seed);
        if (i % 64 == 0)
            walk_all();
    }
    return NULL;
}

static void *exchange(void *unused)
{
    unsigned which = 0;

    (void)unused;
    while (!atomic_load(&stopped)) {
        atomic_fetch_add(&exchanges, 1);
        map_pages(which ^= 1);
        atomic_fetch_add(&exchanges, 1);
        sched_yield();
    }
    return NULL;
}

static void *flush(void *unused)
{
    (void)unused;
    while (!atomic_load(&stopped)) {
        CHECK(microvmi_flush_translations(vm));
        sched_yield();
    }
    return NULL;
}

static void *pause_and_resume(void *unused)
{
    struct timespec moment = {0, 3000000};

    (void)unused;
    while (!atomic_load(&stopped)) {
        CHECK_SAYS(microvmi_pause(vm), "%s", microvmi_last_error());
        nanosleep(&moment, NULL);
        CHECK_SAYS(microvmi_resume(vm), "%s", microvmi_last_error());
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static void *(*const others[])(void *) = {exchange, flush, pause_and_resume};
    pthread_t threads[READERS + 3];
    unsigned i;

    CHECK_SAYS(argc == 3, "usage: translations URI SECONDS");
    vm = open_or_fail(argv[1]);
    for (i = 0; i < 2; i++)
        CHECK(microvmi_read_physical(vm, (i + 1) * 0x1000, (uint8_t *)&words[i], 8, NULL));
    CHECK(words[0] != words[1]);
    make_tables();
    for (i = 0; i < READERS + 3; i++)
        CHECK(pthread_create(&threads[i], NULL, i < READERS ? read_on : others[i - READERS], (void *)(uintptr_t)i) ==
              0);
    sleep((unsigned)strtoul(argv[2], NULL, 10));
    atomic_store(&stopped, true);
    for (i = 0; i < READERS + 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&exchanges) > 4);
    microvmi_destroy(vm);
    return 0;
}

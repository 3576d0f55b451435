/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of 8 bytes at random addresses through a table of 2 regions and one of 10,000, which cover the same memory.
 * Usage: lookup SECONDS. Prints: pair "lookup among 10,000", that over 2.
 */
#include "bench.h"

#include <sys/mman.h>

#include "direct.h"

#define COVERED (256 * MIB)
#define READS 1024
#define MOST_ROUNDS 100000

static const size_t counts[] = {2, 10000};
#define TABLES (sizeof(counts) / sizeof(counts[0]))

static struct mvi_table *cut(const uint8_t *bytes, size_t count)
{
    struct mvi_region *regions = calloc(count, sizeof(*regions));
    uint64_t size = COVERED / count / 8 * 8, i;
    struct mvi_table *table;

    CHECK(regions != NULL);
    for (i = 0; i < count; i++) {
        regions[i] = (struct mvi_region){.start = i * size, .size = size, .bytes = bytes + i * size, .kind = 1};
        regions[i].fd = regions[i].write_fd = regions[i].pidfd = -1;
    }
    regions[count - 1].size = COVERED - (count - 1) * size;
    table = mvi_table_new(regions, count, COVERED, NULL, false, NULL);
    CHECK(table != NULL);
    free(regions);
    return table;
}

static double look_up(const struct mvi_table *table, const uint8_t *bytes, uint64_t *seed)
{
    uint64_t addresses[READS], begin, end, done, value = 0;
    size_t i;

    for (i = 0; i < READS; i++)
        addresses[i] = random_address(seed, 0, COVERED, 8, 8);
    begin = now_ns();
    for (i = 0; i < READS; i++)
        CHECK(mvi_table_read(table, false, addresses[i], (uint8_t *)&value, 8, &done) == MICROVMI_OK);
    end = now_ns();
    CHECK(memcmp(&value, bytes + addresses[READS - 1], 8) == 0);
    return (double)(end - begin) / READS;
}

int main(int argc, char **argv)
{
    static double samples[TABLES][MOST_ROUNDS];
    struct mvi_table *tables[TABLES];
    uint64_t *bytes = mmap(NULL, COVERED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t stop, seed = 1, i;
    size_t rounds = 0, t;

    CHECK(argc == 2 && bytes != MAP_FAILED);
    for (i = 0; i < COVERED / 8; i++)
        bytes[i] = i + 1;
    for (t = 0; t < TABLES; t++)
        tables[t] = cut((uint8_t *)bytes, counts[t]);
    stop = now_ns() + (uint64_t)(atof(argv[1]) * 1e9);
    do {
        for (t = 0; t < TABLES; t++)
            samples[t][rounds] = look_up(tables[t], (uint8_t *)bytes, &seed);
        rounds++;
    } while (rounds < MOST_ROUNDS && now_ns() < stop);
    print_pair("lookup among 10,000", samples[1], samples[0], rounds);
    for (t = 0; t < TABLES; t++)
        mvi_table_free(tables[t]);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables SEED FIRST ROUNDS SECONDS [IMAGE BASE]: page tables that no good guest makes, under everything that reads them.
 *
 * As many rounds as fit into the seconds, ROUNDS at the most, from number FIRST on; a failure names its round, which can be
 * done alone. In each there is memory in a few pieces (which begin and end anywhere; some is read by system calls) and an
 * address space whose tables are made by chance; or those of IMAGE, four levels from BASE on, with some entries changed. What
 * the walk over everything tells has to be what translations say, reads and writes have to be of what translations name, and
 * a list is the same however it is asked for. In some rounds a thread writes into the tables all the time: nothing is
 * compared then. Compiled together with the C files of direct access, so that a checker sees them. Exits with 0.
 */
#include "translations.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "check.h"

#include "runs.h"

#define PIECES 4
#define RUNS 400
#define LONGEST ((size_t)12288)
#define REQUESTS 700
#define CHANGES 16

static uint64_t chance_state, round_number;

/* splitmix64 */
static uint64_t chance(void)
{
    uint64_t z = (chance_state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t end)
{
    return chance() % end;
}

static bool one_in(unsigned number)
{
    return below(number) == 0;
}

#define HOLDS(condition) CHECK_SAYS(condition, "round %" PRIu64 ": not true: %s", round_number, #condition)

/* ------------------------------------------------------------------------------------------------ memory --------- */

static struct piece {
    uint64_t start, size;
    uint8_t *bytes;
} pieces[PIECES];
static size_t piece_count;
static struct mvi_table *table;
static struct mvi_space space;
static int own_memory;

/* Where a byte of physical memory is; NULL: there is none. */
static uint8_t *byte_at(uint64_t physical)
{
    size_t i;

    for (i = 0; i < piece_count; i++)
        if (physical - pieces[i].start < pieces[i].size)
            return pieces[i].bytes + (physical - pieces[i].start);
    return NULL;
}

static uint64_t sum_of_memory(void)
{
    uint64_t sum = 0, at;
    size_t i;

    for (i = 0; i < piece_count; i++)
        for (at = 0; at < pieces[i].size; at++)
            sum = sum * 0x100000001b3u + pieces[i].bytes[at];
    return sum;
}

static uint64_t some_page(void)
{
    const struct piece *piece = &pieces[below(piece_count)];

    return (piece->start + below(piece->size)) & ~(uint64_t)4095;
}

/* Mostly one that leads somewhere. */
static uint64_t some_entry(void)
{
    uint64_t entry = one_in(8) ? chance() >> 12 << 12 & 0xfffffffffffffu : some_page();

    entry |= one_in(10) ? chance() & 0xfff : (chance() & 0xe66) | 1;
    if (space.aarch64)
        entry |= one_in(4) ? 0 : 2;
    else if (one_in(6))
        entry = (entry & ~(uint64_t)0x3fe000) | 0x80;
    return entry | (one_in(5) ? chance() & (uint64_t)0x7ff0 << 48 : 0) | (one_in(3) ? (uint64_t)1 << 63 : 0);
}

static void fill_page(uint8_t *bytes, size_t size)
{
    uint64_t kind = below(8), entry = some_entry(), step = kind == 4 ? 4096 : kind == 5 ? (uint64_t)2 << 20 : 0;
    size_t entry_size = space.entry_size != 0 ? space.entry_size : 8, at;

    for (at = 0; at + entry_size <= size; at += entry_size, entry += step) {
        if (kind == 0 || (kind == 1 && !one_in(50)))
            continue;
        if (kind < 4 || one_in(60))
            entry = some_entry();
        if (kind == 7)
            entry = chance();
        memcpy(bytes + at, &entry, entry_size);
    }
}

/* ------------------------------------------------------------------------------------------------ a round -------- */

static void make_space(const struct microvmi_address_space *given)
{
    HOLDS(mvi_space_prepare(&space, given) == NULL);
}

static struct microvmi_address_space some_space(void)
{
    static const uint64_t sizes[] = {16, 16, 25, 17, 22, 16};
    struct microvmi_address_space given = MICROVMI_ADDRESS_SPACE_INIT;

    given.paging = 1 + (uint32_t)below(5);
    given.base = some_page() | (one_in(3) ? chance() & 0xfff : 0);
    given.physical_bits = one_in(3) ? 32 + (uint32_t)below(21) : 0;
    if (given.paging != MICROVMI_PAGING_AARCH64) {
        given.control = one_in(3) ? below(8) : 0;
        return given;
    }
    given.upper_base = one_in(3) ? given.base : some_page();
    given.control = sizes[below(6)] | sizes[below(6)] << 16 | below(3) << 14 | (1 + below(3)) << 30 | below(7) << 32;
    given.control |= one_in(4) ? chance() & (uint64_t)0x1f << 37 : 0;
    given.control |= one_in(8) ? 1u << 7 : one_in(8) ? 1u << 23 : 0;
    return given;
}

static void make_memory(void)
{
    uint64_t at = one_in(3) ? below(8192) : 0;
    size_t i;

    piece_count = 1 + below(PIECES);
    for (i = 0; i < piece_count; i++) {
        pieces[i].start = at;
        pieces[i].size = 1 + below(one_in(3) ? 9000 : 30 * 4096);
        pieces[i].bytes = calloc(1, pieces[i].size);
        CHECK(pieces[i].bytes != NULL);
        at += pieces[i].size + (one_in(2) ? 0 : below(20000));
    }
}

static void fill_memory(void)
{
    uint64_t at, part;
    size_t i;

    for (i = 0; i < piece_count; i++)
        for (at = 0; at < pieces[i].size; at += part) {
            part = 4096 - ((pieces[i].start + at) & 4095);
            part = part < pieces[i].size - at ? part : pieces[i].size - at;
            fill_page(pieces[i].bytes + at, part);
        }
}

static void make_table(void)
{
    struct mvi_region regions[PIECES];
    size_t i;

    for (i = 0; i < piece_count; i++) {
        bool mapped = !one_in(3);

        regions[i] = (struct mvi_region){
            .start = pieces[i].start,
            .size = pieces[i].size,
            .bytes = mapped ? pieces[i].bytes : NULL,
            .writable = mapped ? pieces[i].bytes : NULL,
            .offset = (uintptr_t)pieces[i].bytes,
            .fd = mapped ? -1 : own_memory,
            .write_fd = mapped ? -1 : own_memory,
            .pid = mapped ? 0 : getpid(),
            .pidfd = -1,
            .pagemap_fd = -1,
            .kind = MICROVMI_MEMORY_RAM,
        };
    }
    table = mvi_table_new(regions, piece_count, pieces[i - 1].start + pieces[i - 1].size, NULL, false, NULL);
    CHECK(table != NULL);
    if (one_in(2))
        mvi_table_lasts(table);
}

/* ------------------------------------------------------------------------------------------------ oracles -------- */

/* Where a virtual address is; false: nowhere. */
static bool place_of(uint64_t address, struct microvmi_translation *found)
{
    int32_t code = mvi_virtual_translate(table, &space, address, found);

    HOLDS(code == MICROVMI_OK || code == MICROVMI_ERROR_NOT_MAPPED);
    HOLDS((code == MICROVMI_OK) == (found->failure == MICROVMI_TRANSLATION_OK));
    HOLDS((code == MICROVMI_OK) == (found->physical_address != MICROVMI_ADDRESS_UNKNOWN));
    return code == MICROVMI_OK;
}

/* The physical addresses of virtual ones, and how many there are up to the first that has none, or no memory. */
static size_t places_of(uint64_t address, size_t size, uint64_t *physical)
{
    struct microvmi_translation found;
    size_t at;

    for (at = 0; at < size && address + at >= address; at++) {
        if (at > 0 && ((address + at) & 4095) != 0)
            physical[at] = physical[at - 1] + 1;
        else if (place_of(address + at, &found))
            physical[at] = found.physical_address;
        else
            break;
        if (byte_at(physical[at]) == NULL)
            break;
    }
    return at;
}

static uint64_t some_address(void)
{
    static const uint64_t edges[] = {0, (uint64_t)1 << 32, (uint64_t)1 << 47, (uint64_t)-1 << 47, (uint64_t)1 << 56, 0};
    uint64_t address = one_in(3) ? edges[below(6)] : chance() >> below(60) << (one_in(2) ? 12 : 0);

    return (one_in(3) ? ~address : address) + below(5) - 2 * below(3);
}

static void check_read(uint64_t address, size_t size)
{
    static uint64_t physical[LONGEST];
    uint8_t *buffer = malloc(size + 1);
    size_t there = places_of(address, size, physical), at;
    struct microvmi_translation end;
    uint64_t done;
    int32_t code;

    CHECK(buffer != NULL);
    memset(buffer, 0xee, size + 1);
    code = mvi_virtual_read(table, &space, false, address, buffer, size, &done, &end);
    HOLDS(done == there && code == (there == size ? MICROVMI_OK : MICROVMI_ERROR_NOT_MAPPED));
    for (at = 0; at <= size; at++)
        HOLDS(buffer[at] == (at < there ? *byte_at(physical[at]) : 0xee));
    code = mvi_virtual_read(table, &space, true, address, buffer, size, &done, &end);
    HOLDS(code == MICROVMI_OK && done == size);
    for (at = 0; at < there; at++)
        HOLDS(buffer[at] == *byte_at(physical[at]));
    HOLDS(there == size || buffer[there] == 0);
    free(buffer);
}

static void check_batch(void)
{
    static uint64_t physical[LONGEST];
    static uint8_t buffers[REQUESTS][8192];
    static struct microvmi_read_request requests[REQUESTS];
    size_t count = below(one_in(4) ? REQUESTS : 12), most = count > 12 ? 64 : sizeof buffers[0], i, there, at;
    uint64_t near = some_address();

    for (i = 0; i < count; i++) {
        requests[i] = (struct microvmi_read_request){.buffer = buffers[i], .size = below(most)};
        requests[i].virtual_address = one_in(2) ? some_address() : near + below((uint64_t)1 << 22);
        memset(buffers[i], 0xee, sizeof buffers[i]);
    }
    (void)mvi_virtual_read_batch(table, &space, requests, count);
    for (i = 0; i < count; i++) {
        there = places_of(requests[i].virtual_address, requests[i].size, physical);
        HOLDS(requests[i].bytes_read == there && (requests[i].error == MICROVMI_OK) == (there == requests[i].size));
        for (at = 0; at < most; at++)
            HOLDS(buffers[i][at] == (at < there ? *byte_at(physical[at]) : 0xee));
    }
}

/* What is written is taken back again. */
static void check_write(uint64_t address, size_t size)
{
    static uint64_t physical[LONGEST];
    static uint8_t data[LONGEST], before[LONGEST], after[LONGEST];
    uint64_t sum = piece_count > 1 ? sum_of_memory() : 0, done;
    size_t there = places_of(address, size, physical), at;
    struct microvmi_translation end;
    int32_t code;

    for (at = 0; at < there; at++) {
        data[at] = (uint8_t)chance();
        before[at] = *byte_at(physical[at]);
    }
    code = mvi_virtual_write(table, &space, address, data, size, false, &done, &end);
    HOLDS(code == (there == size ? MICROVMI_OK : MICROVMI_ERROR_NOT_MAPPED));
    for (at = 0; at < there; at++)
        after[at] = *byte_at(physical[at]);
    for (at = there; at > 0; at--)
        *byte_at(physical[at - 1]) = before[at - 1];
    HOLDS(sum == 0 || sum == sum_of_memory());
    for (at = 0; at < there; at++)
        *byte_at(physical[at]) = code == MICROVMI_OK ? data[at] : before[at];
    for (at = 0; at < there; at++)
        HOLDS(after[at] == *byte_at(physical[at]));
    for (at = there; at > 0; at--)
        *byte_at(physical[at - 1]) = before[at - 1];
    mvi_table_flush(table);
}

/* ------------------------------------------------------------------------------------------------ the map -------- */

static size_t map(uint64_t *next, uint64_t last, struct microvmi_virtual_range *ranges, size_t capacity)
{
    static struct mvi_runs *runs;
    struct microvmi_read_request *requests;
    uint64_t address;

    if (runs == NULL)
        CHECK((runs = mvi_runs_new()) != NULL);
    mvi_runs_begin(runs, &space, *next, last, ranges, capacity);
    while (mvi_runs_want(runs, &requests) > 0)
        HOLDS(mvi_runs_read(runs, table, &address) == MICROVMI_OK);
    return mvi_runs_end(runs, next);
}

static void check_run(const struct microvmi_virtual_range *run, uint64_t offset)
{
    struct microvmi_translation found;

    HOLDS(place_of(run->start + offset, &found));
    HOLDS(found.physical_address == run->physical_address + offset && found.rights == run->rights);
    HOLDS((uint32_t)found.page_size == run->page_size);
}

static bool joins(const struct microvmi_virtual_range *run, const struct microvmi_virtual_range *next)
{
    return run->start + run->size == next->start && run->physical_address + run->size == next->physical_address &&
           run->rights == next->rights && run->page_size == next->page_size;
}

static void check_nothing(uint64_t first, uint64_t end)
{
    struct microvmi_translation found;

    if (first == end)
        return;
    HOLDS(!place_of(first, &found));
    HOLDS(!place_of(end - 1, &found));
    HOLDS(!place_of(first + below(end - first), &found));
}

static void check_map(uint64_t begin, uint64_t last)
{
    static struct microvmi_virtual_range ranges[RUNS], again[RUNS];
    uint64_t next = begin, at = begin, some = begin;
    size_t count = map(&next, last, ranges, RUNS), other = 0, i;

    for (i = 0; i < count; i++) {
        HOLDS(ranges[i].start >= at && ranges[i].size > 0 && ranges[i].start + (ranges[i].size - 1) <= last);
        HOLDS(i == 0 || !joins(&ranges[i - 1], &ranges[i]));
        check_run(&ranges[i], 0);
        check_run(&ranges[i], ranges[i].size - 1);
        check_run(&ranges[i], below(ranges[i].size));
        if (!space.aarch64) /* where a byte of the address may be ignored there are others in between */
            check_nothing(at, ranges[i].start);
        at = ranges[i].start + ranges[i].size;
    }
    if (next == 0 && !space.aarch64 && (count == 0 || at != 0) && at <= last)
        check_nothing(at, last == UINT64_MAX ? 0 : last + 1);
    while (other < count && (other == 0 || some != 0))
        other += map(&some, last, again + other, 1 + below(count - other));
    HOLDS(other == count && memcmp(ranges, again, count * sizeof *again) == 0);
}

static void use_all(bool compare)
{
    static struct microvmi_virtual_range ranges[RUNS];
    static uint8_t buffer[LONGEST];
    struct microvmi_translation end;
    uint64_t begin = some_address(), next = begin, last = begin + ((uint64_t)1 << below(49)), done;
    size_t count, i;

    last = last < begin ? UINT64_MAX : last;
    if (compare)
        check_map(begin, last);
    count = map(&next, last, ranges, RUNS);
    for (i = 0; i < 12; i++) {
        uint64_t address = count == 0 || one_in(4) ? some_address() : ranges[below(count)].start + below(9000) - 4000;
        size_t size = below(one_in(3) ? LONGEST : 64);

        if (compare) {
            check_read(address, size);
            check_write(address, size);
        } else {
            (void)mvi_virtual_read(table, &space, one_in(2), address, buffer, size, &done, &end);
            (void)mvi_virtual_write(table, &space, address, buffer, size, false, &done, &end);
        }
    }
    for (i = 0; i < 3 && compare; i++)
        check_batch();
}

/* ------------------------------------------------------------------------------------------------ rounds --------- */

static bool scribbling;

static void *scribble(void *unused)
{
    uint64_t state = (uintptr_t)&state;
    const struct piece *piece;
    size_t at;

    (void)unused;
    while (__atomic_load_n(&scribbling, __ATOMIC_RELAXED)) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        piece = &pieces[(state >> 33) % piece_count];
        at = (size_t)((state >> 20) % piece->size);
        piece->bytes[at] = (uint8_t)(state >> 50);
    }
    return NULL;
}

static void use_while_it_changes(void)
{
    pthread_t thread;

    scribbling = true;
    CHECK(pthread_create(&thread, NULL, scribble, NULL) == 0);
    use_all(false);
    __atomic_store_n(&scribbling, false, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void made_round(void)
{
    struct microvmi_address_space given;
    size_t i;

    make_memory();
    given = some_space();
    make_space(&given);
    fill_memory();
    make_table();
    if (one_in(10))
        use_while_it_changes();
    else
        use_all(true);
    mvi_table_free(table);
    for (i = 0; i < piece_count; i++)
        free(pieces[i].bytes);
}

/* An image's tables, some entries of which are changed; they are found by following ways through them by chance. */
static void image_round(uint64_t base)
{
    static struct {
        uint64_t *entry, before;
    } changes[CHANGES];
    struct microvmi_address_space given = {.struct_size = sizeof given, .paging = MICROVMI_PAGING_X86_4_LEVELS};
    size_t count = 1 + below(CHANGES), i, tries;
    uint8_t *bytes;

    given.base = base;
    make_space(&given);
    for (i = 0; i < count; i++) {
        uint64_t at = base & ~(uint64_t)4095;
        unsigned level = 1 + (unsigned)below(4), down = 4;

        for (tries = 0; tries < 2000; tries++) {
            bytes = byte_at(at + 8 * below(512));
            if (bytes == NULL || down == level)
                break;
            if ((*(uint64_t *)(void *)bytes & 0x81) == 1) {
                at = *(uint64_t *)(void *)bytes & 0xffffffffff000u;
                down--;
            }
        }
        if (bytes == NULL)
            bytes = byte_at(base & ~(uint64_t)4095);
        changes[i].entry = (uint64_t *)(void *)bytes;
        changes[i].before = *changes[i].entry;
        *changes[i].entry = one_in(2)   ? changes[i].before ^ (uint64_t)1 << below(64)
                            : one_in(2) ? some_entry()
                                        : at | 7;
    }
    make_table();
    use_all(true);
    mvi_table_free(table);
    while (count-- > 0)
        *changes[count].entry = changes[count].before;
}

static void use_image(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;

    CHECK_SAYS(fd >= 0 && fstat(fd, &status) == 0, "%s: %s", path, strerror(errno));
    pieces[0] = (struct piece){.size = (uint64_t)status.st_size};
    pieces[0].bytes = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(pieces[0].bytes != MAP_FAILED);
    piece_count = 1;
    close(fd);
}

int main(int argc, char **argv)
{
    uint64_t seed, first, end;
    time_t stop;

    CHECK_SAYS(argc == 5 || argc == 7, "usage: tables SEED FIRST ROUNDS SECONDS [IMAGE BASE]");
    seed = strtoull(argv[1], NULL, 0);
    first = round_number = strtoull(argv[2], NULL, 0);
    end = first + strtoull(argv[3], NULL, 0);
    stop = time(NULL) + strtol(argv[4], NULL, 0);
    CHECK((own_memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC)) >= 0);
    if (argc == 7)
        use_image(argv[5]);
    for (; round_number < end && time(NULL) <= stop; round_number++) {
        chance_state = seed ^ round_number * 0xd1342543de82ef95u;
        if (argc == 7)
            image_round(strtoull(argv[6], NULL, 0));
        else
            made_round();
    }
    printf("%" PRIu64 " rounds\n", round_number - first);
    return 0;
}

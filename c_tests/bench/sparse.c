/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a whole machine whose memory is mostly untouched, and opening machines.
 *   sparse dump LIBRARY URI RAM_FILE   reads every address, then again only what SEEK_DATA finds. Prints for both:
 *                                      number, "loop" or "data loop", the seconds without those for comparing all of
 *                                      it with the file, by pread(), which allocates nothing
 *   sparse open LIBRARY ROUNDS URI...  prints for every URI: number, "open PLACE" from 0 on, the least in ns
 */
#define _GNU_SOURCE
#include "bench.h"

#include <dlfcn.h>

#define PIECE MIB
#define MOST_MACHINES 8

static __typeof__(&microvmi_open) open_machine;
static __typeof__(&microvmi_destroy) destroy;
static __typeof__(&microvmi_read_physical_padded) read_padded;
static __typeof__(&microvmi_padded_seek) seek;
static __typeof__(&microvmi_get_max_physical_addr) max_address;

static void *look_up(void *library, const char *symbol)
{
    void *found = dlsym(library, symbol);

    CHECK_SAYS(found != NULL, "%s", dlerror());
    return found;
}

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    CHECK_SAYS(library != NULL, "%s", dlerror());
    *(void **)&open_machine = look_up(library, "microvmi_open");
    *(void **)&destroy = look_up(library, "microvmi_destroy");
    *(void **)&read_padded = look_up(library, "microvmi_read_physical_padded");
    *(void **)&seek = look_up(library, "microvmi_padded_seek");
    *(void **)&max_address = look_up(library, "microvmi_get_max_physical_addr");
}

static void *open_or_fail(const char *uri)
{
    const char *error = NULL;
    void *vm = open_machine(uri, &error);

    CHECK_SAYS(vm != NULL, "cannot open %s: %s", uri, error);
    return vm;
}

struct dump {
    void *vm;
    struct limit file;
    uint64_t below_4g; /* bytes of RAM below 4 GiB; the rest is above */
    uint64_t end;
    uint64_t compared_to; /* up to here everything is compared */
    uint64_t spent;       /* nanoseconds of reading and seeking */
};

/* Where the byte at a guest-physical address of a PC is in its RAM file; -1 if the file is not what is there. */
static int64_t file_offset(const struct dump *dump, uint64_t address)
{
    if (address < MIB || (address >= dump->below_4g && address < 4096 * MIB))
        return -1;
    return (int64_t)(address < dump->below_4g ? address : address - 4096 * MIB + dump->below_4g);
}

/* Compare what was read, and that there are only zeros between the end of the piece before and this one. */
static void compare(struct dump *dump, uint64_t address, const uint8_t *read, size_t size)
{
    static const uint8_t zeros[PIECE];
    static uint8_t expected[PIECE];
    uint64_t at, part, done;
    int64_t offset;

    for (at = dump->compared_to; at < address + size; at += part) {
        part = at < address ? address - at : address + size - at;
        part = part < PIECE - at % PIECE ? part : PIECE - at % PIECE; /* so that it lies in one piece of the RAM */
        offset = file_offset(dump, at);
        if (offset < 0)
            continue;
        CHECK(limit_pread(&dump->file, (uint64_t)offset, expected, part, &done));
        CHECK_SAYS(memcmp(expected, at < address ? zeros : read + (at - address), part) == 0,
                   "what is read at 0x%" PRIx64 " is not what is there", at);
    }
    dump->compared_to = address + size;
}

static void read_piece(struct dump *dump, uint64_t address, uint64_t size)
{
    static uint8_t buffer[PIECE];
    uint64_t begin = now_ns(), done;

    CHECK(read_padded(dump->vm, address, buffer, size, &done) && done == size);
    dump->spent += now_ns() - begin;
    compare(dump, address, buffer, size);
}

static uint64_t find(struct dump *dump, uint64_t address, int what)
{
    uint64_t begin = now_ns(), found = dump->end;

    CHECK_SAYS(seek(dump->vm, (int64_t)address, what, &found), "no SEEK_DATA and SEEK_HOLE in this library");
    dump->spent += now_ns() - begin;
    return found;
}

static void read_range(struct dump *dump, uint64_t address, uint64_t end)
{
    uint64_t part;

    for (; address < end; address += part) {
        part = end - address < PIECE ? end - address : PIECE;
        read_piece(dump, address, part);
    }
}

static void report(struct dump *dump, const char *name)
{
    compare(dump, dump->end, NULL, 0);
    printf("number\t%s\t%.6f\n", name, (double)dump->spent / 1e9);
    dump->spent = dump->compared_to = 0;
}

static int dump(const char *uri, const char *ram)
{
    struct dump dump = {.vm = open_or_fail(uri), .file = limit_open(ram)};
    uint64_t size = (uint64_t)lseek(dump.file.fd, 0, SEEK_END), at, hole;

    /* Where a PC of QEMU's type "pc" leaves the space for devices below 4 GiB. */
    dump.below_4g = size >= 3584 * MIB ? 3072 * MIB : size;
    CHECK(max_address(dump.vm, &dump.end));
    read_range(&dump, 0, dump.end);
    report(&dump, "loop");
    for (at = find(&dump, 0, SEEK_DATA); at < dump.end; at = find(&dump, hole, SEEK_DATA)) {
        hole = find(&dump, at, SEEK_HOLE);
        read_range(&dump, at, hole);
    }
    report(&dump, "data loop");
    destroy(dump.vm);
    return 0;
}

static int open_all(int rounds, int count, char **uris)
{
    uint64_t least[MOST_MACHINES], begin, taken;
    void *vm;
    int round, i;

    CHECK(count <= MOST_MACHINES);
    destroy(open_or_fail(uris[0])); /* starts Python */
    for (round = 0; round < rounds; round++) {
        for (i = 0; i < count; i++) {
            begin = now_ns();
            vm = open_or_fail(uris[i]);
            taken = now_ns() - begin;
            least[i] = round == 0 || taken < least[i] ? taken : least[i];
            destroy(vm);
        }
    }
    for (i = 0; i < count; i++)
        printf("number\topen %d\t%" PRIu64 "\n", i, least[i]);
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 5);
    load(argv[2]);
    if (strcmp(argv[1], "dump") == 0)
        return dump(argv[3], argv[4]);
    return open_all(atoi(argv[3]), argc - 4, argv + 4);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kdump files, opened and read by ours and by libkdumpfile (apt-get install libkdumpfile10), which take turns.
 * Usage: packed LIBRARY NAME WHOLE HOLED LARGE SECONDS. Prints pairs, NAME in front of each: of reads of WHOLE, which has no
 * holes; of opening HOLED, and of ours opening LARGE, which has the same data in a larger memory, beside HOLED.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#define MOST_ROUNDS 4000
#define CALLS 32
#define PIECE MIB

/* libkdumpfile's interface, as far as it is used here. */
#define KDUMP_MACHPHYSADDR 1

static void *(*kdump_new)(void);
static void (*kdump_free)(void *dump);
static int (*kdump_open_fdset)(void *dump, unsigned count, const int *fds);
static void *(*kdump_clone)(const void *dump, unsigned long flags);
static int (*kdump_read)(void *dump, int space, uint64_t address, void *buffer, size_t *size);
static const char *(*kdump_get_err)(void *dump);

static __typeof__(&microvmi_open) open_ours;
static __typeof__(&microvmi_destroy) destroy_ours;
static __typeof__(&microvmi_read_physical) read_ours;
static __typeof__(&microvmi_get_max_physical_addr) end_of_ours;
static uint64_t end;

static void look_up(void *place, void *library, const char *symbol)
{
    CHECK_SAYS((*(void **)place = dlsym(library, symbol)) != NULL, "%s", dlerror());
}

static bool load_partner(const char *name)
{
    void *library = dlopen("libkdumpfile.so.10", RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        printf("skipped\t%s\tno libkdumpfile: apt-get install libkdumpfile10\n", name);
        return false;
    }
    look_up(&kdump_new, library, "kdump_new");
    look_up(&kdump_free, library, "kdump_free");
    look_up(&kdump_open_fdset, library, "kdump_open_fdset");
    look_up(&kdump_clone, library, "kdump_clone");
    look_up(&kdump_read, library, "kdump_read");
    look_up(&kdump_get_err, library, "kdump_get_err");
    return true;
}

static void load_ours(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    CHECK_SAYS(library != NULL, "%s", dlerror());
    look_up(&open_ours, library, "microvmi_open");
    look_up(&destroy_ours, library, "microvmi_destroy");
    look_up(&read_ours, library, "microvmi_read_physical");
    look_up(&end_of_ours, library, "microvmi_get_max_physical_addr");
}

static bool read_theirs(void *dump, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    size_t room = size;

    (void)done;
    return kdump_read(dump, KDUMP_MACHPHYSADDR, address, buffer, &room) == 0;
}

/* ------------------------------------------------------------------------------------------------ opening -------- */

static void *open_one(const char *path, const char *options)
{
    const char *error = NULL;
    char uri[4200];
    void *vm;

    snprintf(uri, sizeof(uri), "vmi://dump/?path=%s%s", path, options);
    vm = open_ours(uri, &error);
    CHECK_SAYS(vm != NULL, "%s", error);
    return vm;
}

static void *open_theirs(const char *path, int *fd)
{
    void *dump = kdump_new();

    *fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(dump != NULL && *fd >= 0);
    CHECK_SAYS(kdump_open_fdset(dump, 1, fd) == 0, "%s", kdump_get_err(dump));
    return dump;
}

static double time_ours(const char *path)
{
    uint64_t begin = now_ns();

    destroy_ours(open_one(path, ""));
    return (double)(now_ns() - begin);
}

static double time_theirs(const char *path)
{
    uint64_t begin = now_ns();
    int fd;

    kdump_free(open_theirs(path, &fd));
    close(fd);
    return (double)(now_ns() - begin);
}

/* ------------------------------------------------------------------------------------------------ reading -------- */

struct side {
    read_function read;
    void *contexts[2];
};

struct shape {
    const char *name;
    size_t size;
    bool same; /* the same page again and again */
};

static double time_reads(const struct side *side, const struct shape *shape)
{
    static uint64_t seed = 14;
    uint64_t addresses[CALLS], begin, done;
    uint8_t buffer[PAGE_SIZE];
    bool all = true;
    size_t i;

    for (i = 0; i < CALLS; i++)
        addresses[i] = shape->same ? 2 * PAGE_SIZE : random_address(&seed, 0, end, PAGE_SIZE, PAGE_SIZE);
    (void)side->read(side->contexts[0], 2 * PAGE_SIZE, buffer, 8, &done);
    begin = now_ns();
    for (i = 0; i < CALLS; i++)
        all &= side->read(side->contexts[0], addresses[i], buffer, shape->size, &done);
    begin = now_ns() - begin;
    CHECK_SAYS(all, "a read failed: %s", shape->name);
    return (double)begin / CALLS;
}

struct half {
    const struct side *side;
    size_t which;
};

static void *read_half(void *argument)
{
    const struct half *half = argument;
    static __thread uint8_t buffer[PIECE];
    uint64_t address, done;

    for (address = half->which * PIECE; address < end; address += 2 * PIECE)
        CHECK(half->side->read(half->side->contexts[half->which], address, buffer,
                               end - address < PIECE ? (size_t)(end - address) : PIECE, &done));
    return NULL;
}

/* The whole memory, by two threads. */
static double time_dump(const struct side *side)
{
    struct half halves[2] = {{side, 0}, {side, 1}};
    uint64_t begin = now_ns();
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, read_half, &halves[1]) == 0);
    (void)read_half(&halves[0]);
    CHECK(pthread_join(thread, NULL) == 0);
    return (double)(now_ns() - begin);
}

static void compare_bytes(const struct side *ours, const struct side *theirs)
{
    static uint8_t first[PIECE], second[PIECE];
    uint64_t address, done;
    size_t size;

    for (address = 0; address < end; address += PIECE) {
        size = end - address < PIECE ? (size_t)(end - address) : PIECE;
        CHECK(ours->read(ours->contexts[0], address, first, size, &done));
        CHECK(theirs->read(theirs->contexts[0], address, second, size, &done));
        CHECK_SAYS(memcmp(first, second, size) == 0, "what ours reads is not what libkdumpfile reads");
    }
}

/* ------------------------------------------------------------------------------------------------ rounds --------- */

/* What a round measures of a side: opening a file, reads of a shape, or with neither the whole memory. */
struct task {
    const char *name;
    const char *ours, *theirs;
    const struct side *sides;
    const struct shape *shape;
    double (*first)(const char *path), (*second)(const char *path);
};

static double once(const struct task *task, int side)
{
    if (task->sides == NULL)
        return side == 0 ? task->first(task->ours) : task->second(task->theirs);
    return task->shape != NULL ? time_reads(&task->sides[side], task->shape) : time_dump(&task->sides[side]);
}

static void take_turns(const char *name, const struct task *task, double seconds)
{
    static double values[2][MOST_ROUNDS];
    uint64_t stop = now_ns() + (uint64_t)(seconds * 1e9);
    char whole[100];
    size_t rounds;
    int i;

    for (rounds = 0; rounds < 3 || (now_ns() < stop && rounds < MOST_ROUNDS); rounds++)
        for (i = 0; i < 2; i++)
            values[(i + rounds) % 2][rounds] = once(task, (int)((i + rounds) % 2));
    snprintf(whole, sizeof(whole), "%s %s", name, task->name);
    print_pair(whole, values[0], values[1], rounds);
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {{"8 B", 8, false}, {"4 KiB", PAGE_SIZE, false}, {"kept page", 8, true}};
    struct side sides[2], kept[2];
    double seconds;
    size_t i;
    int fd;

    CHECK(argc == 7);
    seconds = atof(argv[6]) / 6;
    load_ours(argv[1]);
    if (!load_partner(argv[2]))
        return 0;
    sides[0].read = read_ours;
    sides[0].contexts[0] = sides[0].contexts[1] = open_one(argv[3], "&cache=0");
    sides[1].read = read_theirs;
    sides[1].contexts[0] = open_theirs(argv[3], &fd);
    sides[1].contexts[1] = kdump_clone(sides[1].contexts[0], 0);
    CHECK(end_of_ours(sides[0].contexts[0], &end));
    compare_bytes(&sides[0], &sides[1]);
    take_turns(argv[2], &(struct task){"open", argv[4], argv[4], .first = time_ours, .second = time_theirs}, seconds);
    take_turns(argv[2], &(struct task){"open large", argv[5], argv[4], .first = time_ours, .second = time_ours},
               seconds);
    kept[0] = (struct side){read_ours, {open_one(argv[3], "")}};
    kept[1] = sides[1];
    for (i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        take_turns(argv[2], &(struct task){shapes[i].name, .sides = shapes[i].same ? kept : sides, .shape = &shapes[i]},
                   seconds);
    take_turns(argv[2], &(struct task){"dump", .sides = sides}, seconds);
    return 0;
}

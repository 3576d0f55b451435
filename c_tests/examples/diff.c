/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff: which pages of physical memory are not the same in two machines, or in a machine and a picture of it.
 *
 *   cc -o diff diff.c -lmicrovmi
 *   ./mem-dump -o before.raw debian
 *   ./diff ./before.raw debian
 *
 * One line for each run of pages: where it begins, how many bytes it has, what kind of memory it is. Machines are paused
 * meanwhile if their drivers can. Exits with 0 if both are the same, 1 if they differ, 2 for trouble.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "ending.h"
#include "target.h"

#define PROGRAM "diff"
#define PAGE ((uint64_t)4096)
#define ROOM 512

struct result {
    struct microvmi_memory_range last; /* told when it is known not to go on; size 0: none yet */
    uint64_t pages;
    bool quiet;
};

static const char *kind_of(uint32_t kind)
{
    static const char *const names[] = {"memory", "ram", "rom", "device"};

    return names[kind < sizeof(names) / sizeof(names[0]) ? kind : 0];
}

static void tell_last(struct result *result)
{
    if (result->last.size > 0 && !result->quiet) {
        printf("0x%016" PRIx64 " 0x%" PRIx64 " %s\n", result->last.start, result->last.size,
               kind_of(result->last.kind));
    }
    result->pages += result->last.size / PAGE;
}

/* A run that the call before this one ended with may go on. */
static void tell(struct result *result, const struct microvmi_memory_range *run)
{
    if (result->last.start + result->last.size == run->start && result->last.kind == run->kind) {
        result->last.size += run->size;
        return;
    }
    tell_last(result);
    result->last = *run;
}

/* A call compares a part of the memory, so that a signal is taken soon. */
static bool compare(void *older, void *newer, struct result *result)
{
    static struct microvmi_memory_range runs[ROOM];
    uint64_t next = 0;
    bool good = true;
    size_t count, i;

    do {
        good = microvmi_diff(older, newer, &next, runs, ROOM, &count);
        for (i = 0; i < count; i++) { /* what was found before an error is told as well */
            tell(result, &runs[i]);
        }
    } while (good && next != 0 && ending_signal() == 0);
    tell_last(result);
    if (!good) {
        fprintf(stderr, PROGRAM ": at 0x%" PRIx64 ": %s\n", next, microvmi_last_error());
    }
    return good && ending_signal() == 0;
}

static int run(const char *first, const char *second, bool quiet)
{
    struct result result = {.quiet = quiet};
    void *older = open_target(PROGRAM, first);
    void *newer = older != NULL ? open_target(PROGRAM, second) : NULL;
    bool good = newer != NULL;

    if (good) {
        pause_if_possible(PROGRAM, older);
        pause_if_possible(PROGRAM, newer);
        good = compare(older, newer, &result);
    }
    microvmi_destroy(newer); /* the machines run again */
    microvmi_destroy(older);
    if (good && !quiet) {
        fprintf(stderr, "%" PRIu64 " pages differ\n", result.pages);
    }
    if (ending_signal() != 0) {
        return 128 + ending_signal();
    }
    return !good ? 2 : result.pages > 0;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: diff [-q] OLDER NEWER\n"
          "Tell which pages of physical memory are not the same: start, bytes and kind of each run of pages.\n"
          "  -q  tell by the exit status only: 0 the same, 1 not the same, 2 trouble\n"
          "OLDER and NEWER are targets. " TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    bool quiet = false;
    int option;

    while ((option = getopt(argc, argv, "qh")) != -1) {
        switch (option) {
        case 'q':
            quiet = true;
            break;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 2) {
        return usage(stderr, 2);
    }
    block_ending_signals();
    return run(argv[optind], argv[optind + 1], quiet);
}

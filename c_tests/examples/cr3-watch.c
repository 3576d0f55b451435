/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cr3-watch: tell which address spaces a machine's vCPUs go to.
 *
 *   cc -o cr3-watch cr3-watch.c -lmicrovmi
 *   ./cr3-watch -n 100 debian
 *   ./cr3-watch -w observe -q -t 10 debian
 *
 * CR3 can be watched in three ways, which cost the guest differently:
 *
 *   changes   the address space changed. The new value is loaded already: the event can be answered by CONTINUE only.
 *   every     every write, before it happens, also those that change nothing (flushes of translations, the two tables
 *             that one process has where the kernel isolates its own). It could be denied.
 *   observe   every write, for which nothing stops. What comes faster than it is listened to is lost, and counted.
 *
 * Which of them a driver has is told by microvmi_get_abilities(). Ends after COUNT events, SECONDS, Ctrl-C, SIGTERM or
 * SIGHUP, or when nobody reads any more; the machine then runs on as if nobody had listened.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>

#include "listening.h"
#include "target.h"

#define PROGRAM "cr3-watch"
#define CR3 3

static const struct {
    const char *name;
    uint32_t flags;
} ways[] = {
    {"changes", 0},
    {"every", MICROVMI_INTERCEPT_EVERY_WRITE},
    {"observe", MICROVMI_INTERCEPT_OBSERVE},
};

struct tally {
    bool quiet;
    uint64_t seen;
    uint64_t lost;
};

/* By its name; false if there is none of that name. */
static bool take_way(const char *name, uint32_t *flags)
{
    size_t i;

    for (i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (strcmp(ways[i].name, name) == 0) {
            *flags = ways[i].flags;
            return true;
        }
    }
    return false;
}

static bool handle(void *vm, const struct microvmi_event *event, void *data)
{
    struct tally *tally = data;

    tally->seen++;
    tally->lost += event->lost;
    if (!tally->quiet && event->vcpu == MICROVMI_VCPU_UNKNOWN) {
        printf("%#" PRIx64 "\n", event->new_value);
    } else if (!tally->quiet) {
        printf("vcpu %" PRIu32 "  %#" PRIx64 " -> %#" PRIx64 "\n", event->vcpu, event->old_value, event->new_value);
    }
    return let_go(PROGRAM, vm, event);
}

static int usage(FILE *stream, int status)
{
    fputs("usage: cr3-watch [-w WAY] [-q] [-n COUNT] [-t SECONDS] TARGET\n"
          "Print the address spaces that a machine goes to.\n"
          "  -w WAY      changes (of the address space, the default), every (write, before it happens), or observe\n"
          "              (every write, for which nothing stops)\n"
          "  -q          print how many there were, and nothing else\n" LIMIT_HELP TARGET_HELP,
          stream);
    return status;
}

/* Whether an option makes sense; one that does not is told. */
static bool take_option(int option, struct microvmi_intercept *cr3, struct tally *tally, struct limits *limits)
{
    if (option == 'q') {
        tally->quiet = true;
        return true;
    }
    if (option != 'w') {
        return take_limit_option(PROGRAM, option, optarg, limits);
    }
    if (!take_way(optarg, &cr3->flags)) {
        fprintf(stderr, PROGRAM ": %s: not one of changes, every and observe\n", optarg);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct microvmi_intercept cr3 = MICROVMI_INTERCEPT_INIT;
    struct limits limits = {-1, -1};
    struct tally tally = {false, 0, 0};
    int option, status;
    void *vm;

    cr3.kind = MICROVMI_EVENT_CR;
    cr3.number = CR3;
    while ((option = getopt(argc, argv, "w:q" LIMIT_OPTIONS "h")) != -1) {
        if (option == 'h') {
            return usage(stdout, 0);
        }
        if (!take_option(option, &cr3, &tally, &limits)) {
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 1) {
        return usage(stderr, 2);
    }
    block_ending_signals();
    vm = open_target(PROGRAM, argv[optind]);
    if (vm == NULL) {
        return 1;
    }
    status = intercept(PROGRAM, vm, &cr3, "CR3") ? listen_for(PROGRAM, vm, &limits, handle, &tally) : 1;
    microvmi_destroy(vm);
    if (status != 1) {
        fprintf(stderr, PROGRAM ": %" PRIu64 " seen, %" PRIu64 " lost\n", tally.seen, tally.lost);
    }
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * who-writes: tell which code of a guest writes a variable.
 *
 *   cc -o who-writes who-writes.c -lmicrovmi
 *   ./who-writes -n 1000 debian 0xffffffff82a05980 8
 *
 * Watches SIZE bytes at a guest-virtual ADDRESS. Each write is a line: which vCPU, where it goes on, and what is there now.
 * In the end it says which instructions wrote, and how often. With -r reads are told as well. Ends after COUNT events,
 * SECONDS, Ctrl-C, SIGTERM or SIGHUP, or when nobody reads any more; the machine then runs on as if nobody had listened.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>

#include "listening.h"
#include "target.h"

#define PROGRAM "who-writes"
#define MOST_WRITERS 64
#define LARGEST_SHOWN sizeof(uint64_t)

struct writers {
    struct microvmi_intercept watched;
    bool quiet;
    size_t count;
    struct {
        uint64_t behind; /* where it went on */
        uint64_t times;
    } each[MOST_WRITERS];
    uint64_t others; /* writes by more than that */
};

static void note(struct writers *writers, uint64_t behind)
{
    size_t i = 0;

    while (i < writers->count && writers->each[i].behind != behind) {
        i++;
    }
    if (i == MOST_WRITERS) {
        writers->others++;
        return;
    }
    if (i == writers->count) {
        writers->each[i].behind = behind;
        writers->each[i].times = 0;
        writers->count++;
    }
    writers->each[i].times++;
}

/* What is there now, as a number of its first bytes; false if it cannot be read. */
static bool value_now(void *vm, const struct microvmi_event *event, const struct writers *writers, uint64_t *value)
{
    struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
    size_t size = writers->watched.size < LARGEST_SHOWN ? (size_t)writers->watched.size : LARGEST_SHOWN;

    *value = 0;
    return microvmi_get_address_space(vm, (uint16_t)event->vcpu, &space) &&
           microvmi_read_virtual(vm, &space, writers->watched.address, (uint8_t *)value, size, NULL);
}

static bool handle(void *vm, const struct microvmi_event *event, void *data)
{
    struct writers *writers = data;
    uint64_t value;

    note(writers, event->instruction_pointer);
    if (!writers->quiet) {
        printf("vcpu %" PRIu32 "  %c%c  before %#" PRIx64, event->vcpu,
               event->access & MICROVMI_PAGE_ACCESS_READ ? 'r' : '-',
               event->access & MICROVMI_PAGE_ACCESS_WRITE ? 'w' : '-', event->instruction_pointer);
        if (value_now(vm, event, writers, &value)) {
            printf("  now %#" PRIx64, value);
        }
        putchar('\n');
    }
    return let_go(PROGRAM, vm, event);
}

static void summarize(const struct writers *writers)
{
    size_t i;

    for (i = 0; i < writers->count; i++) {
        fprintf(stderr, PROGRAM ": %8" PRIu64 "  before %#" PRIx64 "\n", writers->each[i].times,
                writers->each[i].behind);
    }
    if (writers->others != 0) {
        fprintf(stderr, PROGRAM ": %8" PRIu64 "  by others\n", writers->others);
    }
}

static int usage(FILE *stream, int status)
{
    fputs("usage: who-writes [-r] [-q] [-n COUNT] [-t SECONDS] TARGET ADDRESS SIZE\n"
          "Print who writes SIZE bytes at a guest-virtual address.\n"
          "  -r          who reads them as well\n"
          "  -q          print who did, in the end, and nothing else\n" LIMIT_HELP TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    static struct writers writers = {.watched = MICROVMI_INTERCEPT_INIT};
    struct microvmi_intercept *watched = &writers.watched;
    struct limits limits = {-1, -1};
    int option, status;
    void *vm;

    watched->kind = MICROVMI_EVENT_VIRTUAL_ACCESS;
    watched->access = MICROVMI_PAGE_ACCESS_WRITE;
    while ((option = getopt(argc, argv, "rq" LIMIT_OPTIONS "h")) != -1) {
        if (option == 'h') {
            return usage(stdout, 0);
        }
        if (option == 'r') {
            watched->access |= MICROVMI_PAGE_ACCESS_READ;
        } else if (option == 'q') {
            writers.quiet = true;
        } else if (!take_limit_option(PROGRAM, option, optarg, &limits)) {
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 3 || !take_number(PROGRAM, argv[optind + 1], &watched->address) ||
        !take_number(PROGRAM, argv[optind + 2], &watched->size)) {
        return usage(stderr, 2);
    }
    block_ending_signals();
    vm = open_target(PROGRAM, argv[optind]);
    if (vm == NULL) {
        return 1;
    }
    status = intercept(PROGRAM, vm, watched, argv[optind + 1]) ? listen_for(PROGRAM, vm, &limits, handle, &writers) : 1;
    microvmi_destroy(vm);
    summarize(&writers);
    return status;
}

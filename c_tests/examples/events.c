/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events: tell what a machine does.
 *
 *   cc -o events events.c -lmicrovmi
 *   ./events -n 100 debian cr3 msr:0x174
 *
 * Intercepts what the command line names on every vCPU, prints each event as a line and lets the vCPU go on, until
 * COUNT events were seen, SECONDS are over or Ctrl-C, SIGTERM or SIGHUP asks for an end. The machine then runs on as if nobody had listened.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "ending.h"
#include "target.h"

#define PROGRAM "events"
#define LOOK_MS 200 /* between two looks whether an end was asked for */

static const char *const kinds[] = {"?", "cr", "msr", "breakpoint", "access", "step"};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* cr3, msr:INDEX, breakpoint, breakpoint:ADDRESS, access:PAGE, step. */
static bool parse(const char *word, struct microvmi_intercept *intercept)
{
    const char *colon = strchr(word, ':');
    size_t length = colon != NULL ? (size_t)(colon - word) : strlen(word);
    uint64_t value = 0;
    char *end = NULL;
    uint32_t kind;

    if (length == 3 && strncmp(word, "cr", 2) == 0 && colon == NULL) {
        length = 2;
        value = (uint64_t)(word[2] - '0');
    } else if (colon != NULL) {
        value = strtoull(colon + 1, &end, 0);
        if (end == colon + 1 || *end != '\0') {
            return false;
        }
    }
    for (kind = 1; kind < KINDS; kind++) {
        if (strlen(kinds[kind]) == length && strncmp(word, kinds[kind], length) == 0) {
            break;
        }
    }
    intercept->kind = kind;
    if (kind == MICROVMI_EVENT_CR || kind == MICROVMI_EVENT_MSR) {
        intercept->number = (uint32_t)value;
    } else {
        intercept->address = value;
    }
    return kind < KINDS;
}

/* Intercept what a word names; of a page every write. */
static bool watch(void *vm, const char *word)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;
    bool watched = true;

    if (!parse(word, &intercept)) {
        fprintf(stderr, PROGRAM ": %s: not one of cr0, cr3, cr4, msr:INDEX, breakpoint[:ADDRESS], access:PAGE, step\n",
                word);
        return false;
    }
    if (intercept.kind == MICROVMI_EVENT_PAGE_ACCESS) {
        watched =
            microvmi_set_page_access(vm, intercept.address, MICROVMI_PAGE_ACCESS_READ | MICROVMI_PAGE_ACCESS_EXECUTE);
        intercept.address = 0;
    }
    if (!watched || !microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &intercept, true)) {
        fprintf(stderr, PROGRAM ": cannot watch %s: %s\n", word, microvmi_last_error());
        return false;
    }
    return true;
}

static void print(const struct microvmi_event *event)
{
    printf("vcpu %" PRIu32 " %s", event->vcpu, event->kind < KINDS ? kinds[event->kind] : kinds[0]);
    switch (event->kind) {
    case MICROVMI_EVENT_CR:
        printf("%" PRIu32 " %#" PRIx64 " -> %#" PRIx64 "\n", event->number, event->old_value, event->new_value);
        break;
    case MICROVMI_EVENT_MSR:
        printf(":%#" PRIx32 " %#" PRIx64 " -> %#" PRIx64 "\n", event->number, event->old_value, event->new_value);
        break;
    case MICROVMI_EVENT_PAGE_ACCESS:
        printf(" %c%c%c at %#" PRIx64 "\n", event->access & MICROVMI_PAGE_ACCESS_READ ? 'r' : '-',
               event->access & MICROVMI_PAGE_ACCESS_WRITE ? 'w' : '-',
               event->access & MICROVMI_PAGE_ACCESS_EXECUTE ? 'x' : '-', event->physical_address);
        break;
    default:
        printf(" at %#" PRIx64 "\n", event->virtual_address);
        break;
    }
}

/* A page access goes on only once the page may be accessed: such an event is told once a page. */
static bool answer(void *vm, const struct microvmi_event *event)
{
    if (event->kind == MICROVMI_EVENT_PAGE_ACCESS) {
        struct microvmi_reply retry = MICROVMI_REPLY_INIT;

        retry.action = MICROVMI_REPLY_RETRY;
        return microvmi_set_page_access(vm, event->physical_address, MICROVMI_PAGE_ACCESS_ALL) &&
               microvmi_reply_event(vm, event, &retry);
    }
    return microvmi_reply_event(vm, event, NULL);
}

static int listen_for(void *vm, long count, double seconds)
{
    time_t start = time(NULL);
    long seen = 0;

    while (ending_signal() == 0 && (count < 0 || seen < count) &&
           (seconds < 0 || difftime(time(NULL), start) < seconds)) {
        struct microvmi_event event = MICROVMI_EVENT_INIT;

        if (microvmi_listen(vm, LOOK_MS, &event)) {
            print(&event);
            if (!answer(vm, &event)) {
                fprintf(stderr, PROGRAM ": cannot answer: %s\n", microvmi_last_error());
                return 1;
            }
            seen++;
        } else if (microvmi_last_error_code() != MICROVMI_ERROR_TIMEOUT) {
            fprintf(stderr, PROGRAM ": cannot listen: %s\n", microvmi_last_error());
            return 1;
        }
    }
    return ending_signal() != 0 ? 128 + ending_signal() : 0;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: events [-n COUNT] [-t SECONDS] TARGET WHAT...\n"
          "Print what a machine does, and let it.\n"
          "  -n COUNT    end after so many events\n"
          "  -t SECONDS  end after this time\n"
          "WHAT is one of\n"
          "  cr0 cr3 cr4            writes of a control register\n"
          "  msr:INDEX              writes of a model-specific register\n"
          "  breakpoint             breakpoint instructions, wherever they are\n"
          "  breakpoint:ADDRESS     one that is placed at a guest-virtual address\n"
          "  access:ADDRESS         the first write to the page that holds a guest-physical address\n"
          "  step                   every instruction\n" TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    double seconds = -1;
    int option, status = 0;
    char *end = "";
    long count = -1;
    void *vm;

    while ((option = getopt(argc, argv, "n:t:h")) != -1) {
        if (option == 'n') {
            count = strtol(optarg, &end, 10);
        } else if (option == 't') {
            seconds = strtod(optarg, &end);
        } else {
            return option == 'h' ? usage(stdout, 0) : usage(stderr, 2);
        }
        if (end == optarg || *end != '\0') {
            fprintf(stderr, PROGRAM ": %s: not a number\n", optarg);
            return usage(stderr, 2);
        }
    }
    if (argc - optind < 2) {
        return usage(stderr, 2);
    }
    block_ending_signals();
    vm = open_target(PROGRAM, argv[optind]);
    if (vm == NULL) {
        return 1;
    }
    for (optind++; optind < argc && status == 0; optind++) {
        status = watch(vm, argv[optind]) ? 0 : 1;
    }
    if (status == 0) {
        status = listen_for(vm, count, seconds);
    }
    microvmi_destroy(vm);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events: tell what a machine does.
 *
 *   cc -o events events.c -lmicrovmi
 *   ./events -n 100 debian cr3 msr:0x174
 *
 * Intercepts what the command line names on every vCPU, prints each event as a line and lets the guest go on, until
 * COUNT events were seen, SECONDS are over, Ctrl-C, SIGTERM or SIGHUP asks for an end, or nobody reads any more. The
 * machine then runs on as if nobody had listened.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>

#include "listening.h"
#include "target.h"

#define PROGRAM "events"

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
    struct microvmi_intercept wanted = MICROVMI_INTERCEPT_INIT;

    if (!parse(word, &wanted)) {
        fprintf(stderr, PROGRAM ": %s: not one of cr0, cr3, cr4, msr:INDEX, breakpoint[:ADDRESS], access:PAGE, step\n",
                word);
        return false;
    }
    if (wanted.kind == MICROVMI_EVENT_PAGE_ACCESS) {
        if (!microvmi_set_page_access(vm, wanted.address, MICROVMI_PAGE_ACCESS_READ | MICROVMI_PAGE_ACCESS_EXECUTE)) {
            fprintf(stderr, PROGRAM ": cannot watch %s: %s\n", word, microvmi_last_error());
            return false;
        }
        wanted.address = 0;
    }
    return intercept(PROGRAM, vm, &wanted, word);
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
static bool handle(void *vm, const struct microvmi_event *event, void *data)
{
    (void)data;
    print(event);
    if (event->kind == MICROVMI_EVENT_PAGE_ACCESS) {
        struct microvmi_reply retry = MICROVMI_REPLY_INIT;

        retry.action = MICROVMI_REPLY_RETRY;
        if (!microvmi_set_page_access(vm, event->physical_address, MICROVMI_PAGE_ACCESS_ALL) ||
            !microvmi_reply_event(vm, event, &retry)) {
            fprintf(stderr, PROGRAM ": cannot answer: %s\n", microvmi_last_error());
            return false;
        }
        return true;
    }
    return let_go(PROGRAM, vm, event);
}

static int usage(FILE *stream, int status)
{
    fputs("usage: events [-n COUNT] [-t SECONDS] TARGET WHAT...\n"
          "Print what a machine does, and let it.\n" LIMIT_HELP "WHAT is one of\n"
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
    struct limits limits = {-1, -1};
    int option, status = 0;
    void *vm;

    while ((option = getopt(argc, argv, LIMIT_OPTIONS "h")) != -1) {
        if (option == 'h') {
            return usage(stdout, 0);
        }
        if (!take_limit_option(PROGRAM, option, optarg, &limits)) {
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
        status = listen_for(PROGRAM, vm, &limits, handle, NULL);
    }
    microvmi_destroy(vm);
    return status;
}

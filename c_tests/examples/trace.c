/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace: tell when a machine comes by some addresses, and with which registers.
 *
 *   cc -o trace trace.c -lmicrovmi
 *   ./trace -n 10 debian 0xffffffff81234560
 *
 * Has the hypervisor place a breakpoint at each guest-virtual ADDRESS, unseen by the guest, and prints a line whenever a
 * vCPU comes to one: the registers are those before the instruction there, which the guest then executes. What is printed is
 * what the x86-64 calling convention passes to a function, and where it returns to. Ends after COUNT events, SECONDS,
 * Ctrl-C, SIGTERM or SIGHUP, or when nobody reads any more; the machine then runs on as if nobody had listened.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>

#include "listening.h"
#include "target.h"

#define PROGRAM "trace"

/* The 8 bytes at a virtual address as a vCPU sees it; 0 where there is no memory. */
static uint64_t word_at(void *vm, uint16_t vcpu, uint64_t address)
{
    struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
    uint64_t word = 0;

    if (!microvmi_get_address_space(vm, vcpu, &space) ||
        !microvmi_read_virtual(vm, &space, address, (uint8_t *)&word, sizeof(word), NULL)) {
        return 0;
    }
    return word;
}

static bool handle(void *vm, const struct microvmi_event *event, void *data)
{
    uint16_t vcpu = (uint16_t)event->vcpu;
    const X86Registers *x86;
    Registers registers;

    (void)data;
    if (!microvmi_read_registers(vm, vcpu, &registers) || registers.tag != X86) {
        fprintf(stderr, PROGRAM ": no registers of vCPU %" PRIu32 ": %s\n", event->vcpu, microvmi_last_error());
        return false;
    }
    x86 = &registers.x86;
    printf("vcpu %" PRIu32 "  %#" PRIx64 "  rdi=%#" PRIx64 " rsi=%#" PRIx64 " rdx=%#" PRIx64 " rcx=%#" PRIx64
           " r8=%#" PRIx64 " r9=%#" PRIx64 " rsp=%#" PRIx64 " cr3=%#" PRIx64 "  from %#" PRIx64 "\n",
           event->vcpu, x86->rip, x86->rdi, x86->rsi, x86->rdx, x86->rcx, x86->r8, x86->r9, x86->rsp, x86->cr3,
           word_at(vm, vcpu, x86->rsp));
    return let_go(PROGRAM, vm, event);
}

/* Place one at what a word names. */
static bool place(void *vm, const char *word, uint32_t flags)
{
    struct microvmi_intercept wanted = MICROVMI_INTERCEPT_INIT;

    wanted.kind = MICROVMI_EVENT_BREAKPOINT;
    wanted.flags = flags;
    return take_number(PROGRAM, word, &wanted.address) && intercept(PROGRAM, vm, &wanted, word);
}

static int usage(FILE *stream, int status)
{
    fputs("usage: trace [-H] [-n COUNT] [-t SECONDS] TARGET ADDRESS...\n"
          "Print the registers of vCPUs that come to guest-virtual addresses.\n"
          "  -H          by breakpoints of the processor, four at the most\n" LIMIT_HELP TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    struct limits limits = {-1, -1};
    int option, status = 0;
    uint32_t flags = 0;
    void *vm;

    while ((option = getopt(argc, argv, "H" LIMIT_OPTIONS "h")) != -1) {
        if (option == 'h') {
            return usage(stdout, 0);
        }
        if (option == 'H') {
            flags = MICROVMI_INTERCEPT_HARDWARE;
        } else if (!take_limit_option(PROGRAM, option, optarg, &limits)) {
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
        status = place(vm, argv[optind], flags) ? 0 : 1;
    }
    if (status == 0) {
        status = listen_for(PROGRAM, vm, &limits, handle, NULL);
    }
    microvmi_destroy(vm);
    return status;
}
